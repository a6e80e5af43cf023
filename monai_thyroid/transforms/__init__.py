"""The transforms that MONAI lacks."""

from __future__ import annotations

from monai_thyroid.transforms.batched import BatchAugmentation
from monai_thyroid.transforms.class_numbers import ClassNumbersd, class_numbers
from monai_thyroid.transforms.field_of_view import FieldOfView, FieldOfViewd
from monai_thyroid.transforms.loading import LoadMaskd, LoadScand
from monai_thyroid.transforms.saving import SaveMaskd, SaveOverlayd
from monai_thyroid.transforms.square import PadToSquare, PadToSquared

__all__ = [
    "BatchAugmentation",
    "ClassNumbersd",
    "FieldOfView",
    "FieldOfViewd",
    "LoadMaskd",
    "LoadScand",
    "PadToSquare",
    "PadToSquared",
    "SaveMaskd",
    "SaveOverlayd",
    "class_numbers",
]
