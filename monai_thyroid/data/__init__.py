"""Dataset folders and synthetic scans as lists of items, and the reading of their files."""

from __future__ import annotations

from monai_thyroid.data.classes import found_classes
from monai_thyroid.data.datalist import PARTS, PHANTOM, Datalist, Inspection, load_datalist, map_files, read_listing
from monai_thyroid.data.dataset import SeededCacheDataset
from monai_thyroid.data.layouts import LAYOUTS
from monai_thyroid.data.phantom import phantom_scan, phantom_views, write_phantom
from monai_thyroid.data.reading import (
    LoadMaskd,
    LoadScand,
    Raster,
    is_image,
    read_labels,
    read_mask,
    read_masks,
    read_raster,
    to_channels,
)
from monai_thyroid.data.writing import SaveMaskd, SaveOverlayd, overlay, save_label, stem

__all__ = [
    "LAYOUTS",
    "PARTS",
    "PHANTOM",
    "Datalist",
    "Inspection",
    "LoadMaskd",
    "LoadScand",
    "Raster",
    "SaveMaskd",
    "SaveOverlayd",
    "SeededCacheDataset",
    "found_classes",
    "is_image",
    "load_datalist",
    "map_files",
    "overlay",
    "phantom_scan",
    "phantom_views",
    "read_labels",
    "read_listing",
    "read_mask",
    "read_masks",
    "read_raster",
    "save_label",
    "stem",
    "to_channels",
    "write_phantom",
]
