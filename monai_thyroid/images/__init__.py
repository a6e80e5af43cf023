"""One image file: read, written, drawn on."""

from __future__ import annotations

from monai_thyroid.images.foreign import ForeignMask, in_place_of, is_mask_file, mask_stem, read_foreign_mask
from monai_thyroid.images.formats import IMAGE_SUFFIXES, is_image, stem
from monai_thyroid.images.marks import made_here, png_mark
from monai_thyroid.images.outlines import fill_outline
from monai_thyroid.images.phantom import phantom_scan, phantom_views, write_phantom
from monai_thyroid.images.raster import Raster, binarise, to_channels
from monai_thyroid.images.reading import (
    class_numbers_of,
    label_problem,
    mask_problem,
    masks_by_class,
    read_labels,
    read_mask,
    read_masks,
    read_raster,
)
from monai_thyroid.images.writing import mask_suffix, overlay, save_label, save_mask, save_overlay

__all__ = [
    "IMAGE_SUFFIXES",
    "ForeignMask",
    "Raster",
    "binarise",
    "class_numbers_of",
    "fill_outline",
    "in_place_of",
    "is_image",
    "is_mask_file",
    "label_problem",
    "made_here",
    "mask_problem",
    "mask_stem",
    "mask_suffix",
    "masks_by_class",
    "overlay",
    "phantom_scan",
    "phantom_views",
    "png_mark",
    "read_foreign_mask",
    "read_labels",
    "read_mask",
    "read_masks",
    "read_raster",
    "save_label",
    "save_mask",
    "save_overlay",
    "stem",
    "to_channels",
    "write_phantom",
]
