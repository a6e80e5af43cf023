"""Readers of dataset folders, one function a layout: a folder becomes a list of items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_thyroid.data.reading import PICTURE_SUFFIXES
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv

__all__ = ["LAYOUTS", "Item", "Listing", "read_layout", "read_tn3k"]

Item = dict[str, str]
"""``image``, ``label`` (paths), ``case`` (names the image), ``group`` (patient or examination), ``part``, ``site``."""


@dataclass
class Listing:
    """What a layout reader found.

    Attributes:
        items: one an image; ``part`` is ``"trainval"`` where the layout leaves validation to be carved out.
        grouped: whether ``group`` says which images belong together; if not, each image is its own group.
        problems: one sentence each; a dataset with problems is not used.
    """

    items: list[Item] = field(default_factory=list)
    grouped: bool = True
    problems: list[str] = field(default_factory=list)


def _pictures(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Images of a folder by stem."""
    if not folder.is_dir():
        problems.append(f"{folder}: no such folder")
        return {}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in PICTURE_SUFFIXES:
            continue
        if path.stem in found:
            problems.append(f"{path}: {found[path.stem].name} has the same stem; keep one of them")
        found[path.stem] = path
    if not found:
        problems.append(f"{folder}: holds no image ({', '.join(PICTURE_SUFFIXES)})")
    return found


def _pairs(images: Path, masks: Path, problems: list[str]) -> list[tuple[Path, Path]]:
    """Images and masks of the same stem."""
    image_files, mask_files = _pictures(images, problems), _pictures(masks, problems)
    if image_files and mask_files:
        problems.extend(f"{image_files[stem]}: no mask in {masks}" for stem in sorted(image_files.keys() - mask_files))
        problems.extend(f"{mask_files[stem]}: no image in {images}" for stem in sorted(mask_files.keys() - image_files))
    return [(path, mask_files[stem]) for stem, path in image_files.items() if stem in mask_files]


def read_tn3k(root: Path) -> Listing:
    """TN3K: ``trainval-image/ trainval-mask/ test-image/ test-mask/``, optionally ``cases.csv`` (file, case).

    The layout of Gong et al., "Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules",
    Computers in Biology and Medicine 155 (2023), doi 10.1016/j.compbiomed.2022.106389. ``cases.csv`` is ours: it
    says which images show the same patient, which the original does not tell.
    """
    listing = Listing()
    for part in ("trainval", "test"):
        for image, mask in _pairs(root / f"{part}-image", root / f"{part}-mask", listing.problems):
            listing.items.append(
                {"image": str(image), "label": str(mask), "case": image.stem, "group": image.stem, "part": part}
            )
    table = root / "cases.csv"
    listing.grouped = table.is_file()
    if listing.grouped:
        _group_by_table(listing, table)
    names: dict[str, str] = {}
    for item in listing.items:
        if names.setdefault(item["case"], item["part"]) != item["part"]:
            listing.problems.append(
                f"{root}: an image named {item['case']} is in trainval and in test; name each image once"
            )
    return listing


def _group_by_table(listing: Listing, table: Path) -> None:
    rows = read_csv(table)
    if not rows or not {"file", "case"} <= rows[0].keys():
        listing.problems.append(f"{table}: needs a header line with the columns file and case")
        return
    case_of = {Path(row["file"]).stem: (row["case"] or "").strip() for row in rows}
    for item in listing.items:
        if case := case_of.get(item["case"]):
            item["group"] = case
        else:
            listing.problems.append(f"{table}: no case for {Path(item['image']).name}")


LAYOUTS: Mapping[str, Callable[[Path], Listing]] = {"tn3k": read_tn3k}


def read_layout(root: Path, layout: str) -> Listing:
    """Read a folder by the named layout.

    Raises:
        UserError: the folder is missing, or the name is unknown.
    """
    if layout not in LAYOUTS:
        raise UserError(f"unknown dataset layout {layout!r}; known are {', '.join(sorted(LAYOUTS))}")
    if not root.is_dir():
        raise UserError(f"dataset_dir {root}: no such folder (a folder in the {layout} layout is looked for)")
    listing = LAYOUTS[layout](root)
    for item in listing.items:
        item.setdefault("site", "")
    return listing
