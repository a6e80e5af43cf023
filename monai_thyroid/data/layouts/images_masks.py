"""The common form: a folder of images beside a folder of masks."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.listing import (
    Layout,
    Listing,
    group_by_tables,
    make_item,
    pairs,
    parts_from_lists,
    parts_from_table,
)
from monai_thyroid.images import stem

__all__ = ["LAYOUT", "read_images_masks"]


def read_images_masks(root: Path, *, images: str = "images", masks: str = "masks") -> Listing:
    """``images/ masks/`` with files of the same stem (a mask's may end in ``_mask`` and the like).

    Kvasir-SEG, the nerve and vessel set of usgra-seg, and most people's own data. Beside them may lie ``split.csv``
    (file, part) or ``train.txt``, ``val.txt``, ``test.txt``, and one of `GROUP_TABLES`.

    Args:
        root: the folder.
        images: where the images are, from ``root``.
        masks: likewise.
    """
    listing = Listing()
    for image, mask in pairs(root / images, root / masks, listing):
        listing.items.append(make_item(image, mask, case=stem(image)))
    if not parts_from_table(listing, root / "split.csv"):
        parts_from_lists(listing, root)
    listing.grouped = group_by_tables(listing, root)
    return listing


LAYOUT = Layout(
    name="images_masks",
    looks_for="images/ masks/",
    recognises=lambda root: (root / "images").is_dir() and (root / "masks").is_dir(),
    read=read_images_masks,
)
