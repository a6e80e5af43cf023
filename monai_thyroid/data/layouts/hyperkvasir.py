"""HyperKvasir's segmented images: polyps."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.images_masks import read_images_masks
from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, parts_from_lists

__all__ = ["LAYOUT", "read_hyperkvasir"]


def read_hyperkvasir(root: Path) -> Listing:
    """HyperKvasir: ``segmented-images/{images,masks,bounding-boxes.json}``; ``train.txt`` and ``test.txt`` if there.

    Of Borgli et al., "HyperKvasir, a comprehensive multi-class image and video dataset for gastrointestinal
    endoscopy", Scientific Data 7 (2020), doi 10.1038/s41597-020-00622-y; the same 1,000 images as Kvasir-SEG
    (``images/ masks/``, layout ``images_masks``). Patients are not known.
    """
    listing = read_images_masks(root / "segmented-images")
    parts_from_lists(listing, root)
    listing.grouped = group_by_tables(listing, root) or listing.grouped
    return listing


LAYOUT = Layout(
    name="hyperkvasir",
    looks_for="segmented-images/images/ segmented-images/masks/",
    recognises=lambda root: (root / "segmented-images" / "images").is_dir(),
    read=read_hyperkvasir,
)
