"""TN3K: thyroid nodules."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, make_item, pairs
from monai_thyroid.images import stem

__all__ = ["LAYOUT", "read_tn3k"]


def read_tn3k(root: Path) -> Listing:
    """TN3K: ``trainval-image/ trainval-mask/ test-image/ test-mask/``, optionally ``cases.csv`` (file, case).

    The layout of Gong et al., "Thyroid region prior guided attention for ultrasound segmentation of thyroid nodules",
    Computers in Biology and Medicine 155 (2023), doi 10.1016/j.compbiomed.2022.106389. The original numbers both
    parts from 0000: cases are named ``trainval-0000`` and ``test-0000`` then. ``cases.csv`` is ours: it says which
    images show the same patient, which the original does not tell.
    """
    listing = Listing()
    for part in ("trainval", "test"):
        for image, mask in pairs(root / f"{part}-image", root / f"{part}-mask", listing):
            listing.items.append(make_item(image, mask, case=stem(image), part=part))
    counts = Counter(item["case"] for item in listing.items)
    if max(counts.values(), default=1) > 1:
        for item in listing.items:
            item["case"] = item["group"] = f"{item['part']}-{item['case']}"
    listing.grouped = group_by_tables(listing, root)
    return listing


LAYOUT = Layout(
    name="tn3k",
    looks_for="trainval-image/ trainval-mask/ test-image/ test-mask/",
    recognises=lambda root: (root / "trainval-image").is_dir(),
    read=read_tn3k,
)
