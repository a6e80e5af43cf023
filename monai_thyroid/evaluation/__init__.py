"""A trained run on images: scored, or applied."""

from __future__ import annotations

from monai_thyroid.evaluation.inputs import input_items
from monai_thyroid.evaluation.precision import AutocastInferer, default_device, default_precision
from monai_thyroid.evaluation.scoring import CaseScores
from monai_thyroid.evaluation.trained import TrainedRun

__all__ = [
    "AutocastInferer",
    "CaseScores",
    "TrainedRun",
    "default_device",
    "default_precision",
    "input_items",
]
