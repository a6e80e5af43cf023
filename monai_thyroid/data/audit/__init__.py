"""What is wrong with a dataset, told before anyone trains on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from monai_thyroid.data.audit.card import dataset_card
from monai_thyroid.data.audit.findings import AuditedData, Finding, Level, Picture, find_all
from monai_thyroid.data.audit.measure import Facts, measure
from monai_thyroid.data.audit.page import render_html, render_text
from monai_thyroid.data.folders import read_listing
from monai_thyroid.data.layouts import AUTO
from monai_thyroid.data.layouts.listing import NEAR_IDENTICAL
from monai_thyroid.data.mapping import map_files
from monai_thyroid.data.splits import apply_split, read_split_file
from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path, in_folder, own_path, write_csv
from monai_thyroid.images.sources import is_source

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
    data: AuditedData = field(repr=False)
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
            UserError: the folder does not exist, or the file does and is no page of an earlier audit.
        """
        path = _page_path(path)
        with atomic_path(path) as temporary:
            temporary.write_text(f"{render_html(self)}<!-- {_MARK} -->\n", encoding="utf-8")
        return path

    def write_card(self, path: str | Path) -> Path:
        """Write the dataset card, as Markdown.

        Raises:
            UserError: the folder does not exist, or the file does and is no card of an earlier audit.
        """
        path = _card_path(path)
        with atomic_path(path) as temporary:
            temporary.write_text(f"{dataset_card(self)}\n<!-- {_CARD} -->\n", encoding="utf-8")
        return path

    def write_groups(self, path: str | Path) -> int:
        """Write a table (file, group, basis) of the images that look alike, for a dataset whose groups are unknown.

        As ``groups.csv`` in the dataset's folder, splits respect it; see `group_by_tables`.

        Returns:
            How many sets of two or more images there are.

        Raises:
            UserError: groups are known already, or the file cannot be written or exists.
        """
        path = _table_path(path)
        listing = self.data.listing
        if listing.grouped:
            raise UserError(f"write_groups: the {listing.unit}s of {self.data.root} are known, and splits respect them")
        numbers = self.data.sets_alike()
        first: dict[int, str] = {}
        rows = []
        for item, number in zip(self.data.items, numbers, strict=True):
            image = item["image"]
            file = item["case"] if is_source(image) else Path(image).relative_to(self.data.root).as_posix()
            group = first.setdefault(number, item["case"])
            rows.append({"file": file, "group": group, "basis": NEAR_IDENTICAL})
        write_csv(path, ["file", "group", "basis"], rows)
        return sum(count > 1 for count in Counter(numbers).values())


_MARK = "Made by monai-thyroid audit"
_CARD = "Made by monai-thyroid audit --card"


def _page_path(path: str | Path) -> Path:
    """Where a page may be written: a new file, or the page of an earlier audit."""
    return own_path("output", path, mark=_MARK, what="page of an earlier audit")


def _card_path(path: str | Path) -> Path:
    return own_path("card", path, mark=_CARD, what="card of an earlier audit")


def _table_path(path: str | Path) -> Path:
    path = in_folder("write_groups", path)
    if path.exists() or path.is_symlink():
        raise UserError(f"write_groups {path}: is there already; remove it, or take another name")
    return path


def audit_dataset(
    dataset_dir: str | Path,
    *,
    layout: str | Sequence[str] = AUTO,
    split_file: str | Path | None = None,
    output: str | Path | None = None,
    write_groups: str | Path | None = None,
    card: str | Path | None = None,
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
        output: write the page there as well; it replaces a page of an earlier audit, no other file.
        write_groups: write a table of the images that look alike there as well, see `Audit.write_groups`; a new file.
        card: write the dataset card there as well; it replaces a card of an earlier audit, no other file.
        sites: look at these sites only.
        group_pattern: as for `load_datalist`.
        images: as for `load_datalist`.
        masks: as for `load_datalist`.

    Returns:
        The findings; `Audit.falsifies` says whether one would falsify results.

    Raises:
        UserError: the folder has no known form or not one whole pair of image and mask, the split file does not fit,
            or something cannot be written.
    """
    root = Path(dataset_dir).expanduser().resolve()
    if output is not None:
        _page_path(output)
    if write_groups is not None:
        _table_path(write_groups)
    if card is not None:
        _card_path(card)
    listing = read_listing(root, layout=layout, sites=sites, group_pattern=group_pattern, images=images, masks=masks)
    if split_file is not None:
        split, _ = read_split_file(split_file)
        listing.items, problems, notes = apply_split(listing.items, split, source=f"split_file {split_file}")
        listing.problems += problems
        listing.notes += notes
    if not listing.items:
        raise UserError(listing.problems or f"{root}: holds no image with a mask")
    facts = map_files(measure, listing.items, "Looking at images")
    data = AuditedData(root=root, listing=listing, facts=facts, split=split_file is not None)
    audit = Audit(name=root.stem if root.is_file() else root.name, data=data, findings=find_all(data))
    if write_groups is not None:
        audit.write_groups(write_groups)
    if output is not None:
        audit.write_html(output)
    if card is not None:
        audit.write_card(card)
    return audit
