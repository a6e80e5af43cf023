"""Dataset folders as lists of items, split and inspected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_thyroid.lazy import lazily

if TYPE_CHECKING:
    from monai_thyroid.data.classes import found_classes
    from monai_thyroid.data.datalist import Datalist
    from monai_thyroid.data.dataset import SeededCacheDataset
    from monai_thyroid.data.folders import read_listing
    from monai_thyroid.data.inspection import Inspection
    from monai_thyroid.data.layouts import LAYOUTS
    from monai_thyroid.data.loading import PHANTOM, load_datalist
    from monai_thyroid.data.mapping import map_files
    from monai_thyroid.data.resident import ResidentDataset, ResidentLoader
    from monai_thyroid.data.splits import PARTS

__all__ = [
    "LAYOUTS",
    "PARTS",
    "PHANTOM",
    "Datalist",
    "Inspection",
    "ResidentDataset",
    "ResidentLoader",
    "SeededCacheDataset",
    "found_classes",
    "load_datalist",
    "map_files",
    "read_listing",
]

# A dataset can be listed and audited without torch and MONAI.
__getattr__ = lazily(
    __name__,
    {
        "classes": ("found_classes",),
        "datalist": ("Datalist",),
        "dataset": ("SeededCacheDataset",),
        "folders": ("read_listing",),
        "inspection": ("Inspection",),
        "layouts": ("LAYOUTS",),
        "loading": ("PHANTOM", "load_datalist"),
        "mapping": ("map_files",),
        "resident": ("ResidentDataset", "ResidentLoader"),
        "splits": ("PARTS",),
    },
)
