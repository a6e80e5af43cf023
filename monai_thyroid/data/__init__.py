"""Dataset folders as lists of items, split and inspected."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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

_MODULES = {
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
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a dataset can be listed and audited without torch and MONAI, which load for seconds."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
