"""Dataset folders as lists of items, split and inspected."""

from __future__ import annotations

from monai_thyroid.data.classes import found_classes
from monai_thyroid.data.datalist import PARTS, PHANTOM, Datalist, Inspection, load_datalist, map_files, read_listing
from monai_thyroid.data.dataset import SeededCacheDataset
from monai_thyroid.data.layouts import LAYOUTS

__all__ = [
    "LAYOUTS",
    "PARTS",
    "PHANTOM",
    "Datalist",
    "Inspection",
    "SeededCacheDataset",
    "found_classes",
    "load_datalist",
    "map_files",
    "read_listing",
]
