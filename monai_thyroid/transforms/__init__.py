"""Transforms that MONAI lacks."""

from __future__ import annotations

from monai_thyroid.transforms.class_numbers import ClassNumbersd, class_numbers
from monai_thyroid.transforms.field_of_view import FieldOfView, FieldOfViewd
from monai_thyroid.transforms.outlines import fill_outline
from monai_thyroid.transforms.square import PadToSquare, PadToSquared

__all__ = [
    "ClassNumbersd",
    "FieldOfView",
    "FieldOfViewd",
    "PadToSquare",
    "PadToSquared",
    "class_numbers",
    "fill_outline",
]
