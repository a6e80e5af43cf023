"""Kaggle's Ultrasound Nerve Segmentation (2016)."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, make_item, pictures

__all__ = ["LAYOUT", "read_kaggle_nerve"]


def read_kaggle_nerve(root: Path) -> Listing:
    """``train/<subject>_<n>.tif`` and ``<subject>_<n>_mask.tif``; most masks are empty, rightly so.

    Of the competition "Ultrasound Nerve Segmentation" (kaggle.com/c/ultrasound-nerve-segmentation). ``test/`` has no
    masks and is not read.
    """
    listing = Listing(unit="subject")
    folder = root / "train" if (root / "train").is_dir() else root
    files = pictures(folder, listing.problems)
    images = {stem: path for stem, path in files.items() if not stem.endswith("_mask")}
    masks = {stem[: -len("_mask")]: path for stem, path in files.items() if stem.endswith("_mask")}
    listing.problems.extend(f"{path}: no {stem}_mask beside it" for stem, path in images.items() if stem not in masks)
    listing.problems.extend(f"{path}: no image {stem} beside it" for stem, path in masks.items() if stem not in images)
    for stem, image in images.items():
        if stem not in masks:
            continue
        subject, _, number = stem.partition("_")
        if not (subject.isdigit() and number.isdigit()):
            listing.problems.append(f"{image}: is not named <subject>_<n>")
        listing.items.append(make_item(image, masks[stem], case=stem, group=subject))
    return listing


LAYOUT = Layout(
    name="kaggle_nerve",
    looks_for="train/<subject>_<n>.tif and <subject>_<n>_mask.tif",
    recognises=lambda root: any(root.glob("train/[0-9]*_[0-9]*_mask.*")) or any(root.glob("[0-9]*_[0-9]*_mask.*")),
    read=read_kaggle_nerve,
)
