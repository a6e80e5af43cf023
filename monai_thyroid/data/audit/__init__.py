"""What is wrong with a dataset, told before anyone trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from monai_thyroid.data.audit.findings import Dataset, Finding, Level, Picture, find_all
from monai_thyroid.data.audit.measure import Facts, measure
from monai_thyroid.data.audit.page import render_html, render_text
from monai_thyroid.data.folders import read_listing
from monai_thyroid.data.layouts import AUTO
from monai_thyroid.data.mapping import map_files
from monai_thyroid.data.splits import apply_split, read_split_file
from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path

__all__ = ["Audit", "Facts", "Finding", "Level", "Picture", "audit_dataset"]


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        name: of the dataset.
        data: its items and their measurements.
        findings: the worst first.
    """

    name: str
    data: Dataset = field(repr=False)
    findings: list[Finding]

    @property
    def falsifies(self) -> bool:
        """Whether something was found that would falsify results."""
        return any(finding.level is Level.PROBLEM for finding in self.findings)

    @cached_property
    def text(self) -> str:
        """The audit for a terminal."""
        return render_text(self)

    def write_html(self, path: str | Path) -> Path:
        """Write the audit as one page that holds its pictures.

        Raises:
            UserError: the folder does not exist.
        """
        path = Path(path).expanduser()
        if not path.parent.is_dir():
            raise UserError(f"output {path}: no such folder as {path.parent}")
        with atomic_path(path) as temporary:
            temporary.write_text(render_html(self), encoding="utf-8")
        return path


def audit_dataset(
    dataset_dir: str | Path,
    *,
    layout: str | Sequence[str] = AUTO,
    split_file: str | Path | None = None,
    output: str | Path | None = None,
    sites: Sequence[str] = (),
    group_pattern: str | None = None,
    images: str | None = None,
    masks: str | None = None,
) -> Audit:
    """Look a dataset through: files, pairs, masks, duplicates, videos in disguise, burned-in marks, leakage.

    Args:
        dataset_dir: the folder.
        layout: a name of `LAYOUTS`, several to choose from, or ``"auto"``.
        split_file: judge leakage by this split instead of the dataset's own parts; see `read_split_file`.
        output: write the page there as well.
        sites: look at these sites only.
        group_pattern: as for `load_datalist`.
        images: as for `load_datalist`.
        masks: as for `load_datalist`.

    Returns:
        The findings; `Audit.falsifies` says whether one would falsify results.

    Raises:
        UserError: the folder has no known form or not one whole pair of image and mask, the split file does not fit,
            or the page cannot be written.
    """
    root = Path(dataset_dir).expanduser().resolve()
    if output is not None and not Path(output).expanduser().parent.is_dir():
        raise UserError(f"output {output}: no such folder as {Path(output).expanduser().parent}")
    listing = read_listing(root, layout=layout, sites=sites, group_pattern=group_pattern, images=images, masks=masks)
    if split_file is not None:
        split, _ = read_split_file(split_file)
        listing.items, problems, notes = apply_split(listing.items, split, source=f"split_file {split_file}")
        listing.problems += problems
        listing.notes += notes
    if not listing.items:
        raise UserError(listing.problems or f"{root}: holds no image with a mask")
    facts = map_files(measure, listing.items, "Looking at images")
    data = Dataset(root=root, listing=listing, facts=facts, split=split_file is not None)
    audit = Audit(name=root.stem if root.is_file() else root.name, data=data, findings=find_all(data))
    if output is not None:
        audit.write_html(output)
    return audit
