"""Dataset folders as lists of items, split and inspected."""

from __future__ import annotations

from monai_thyroid.data.classes import found_classes
from monai_thyroid.data.datalist import Datalist
from monai_thyroid.data.dataset import SeededCacheDataset
from monai_thyroid.data.folders import read_listing
from monai_thyroid.data.inspection import Inspection
from monai_thyroid.data.layouts import LAYOUTS
from monai_thyroid.data.loading import PHANTOM, load_datalist
from monai_thyroid.data.mapping import map_files
from monai_thyroid.data.splits import PARTS

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
