"""Transforms that MONAI lacks."""

from __future__ import annotations

from monai_thyroid.transforms.field_of_view import FieldOfView, FieldOfViewd

__all__ = ["FieldOfView", "FieldOfViewd"]
