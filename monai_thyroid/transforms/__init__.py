"""Transforms that MONAI lacks."""

from __future__ import annotations

from monai_thyroid.transforms.field_of_view import FieldOfView, FieldOfViewd
from monai_thyroid.transforms.outlines import fill_outline
from monai_thyroid.transforms.square import PadToSquare, PadToSquared

__all__ = ["FieldOfView", "FieldOfViewd", "PadToSquare", "PadToSquared", "fill_outline"]
