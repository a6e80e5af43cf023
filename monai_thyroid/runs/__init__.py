"""The run folder: planned, checked, written, resumed and read."""

from __future__ import annotations

from monai_thyroid.runs.check import check_config, check_file, input_size, output_size
from monai_thyroid.runs.config import boolean
from monai_thyroid.runs.handlers import EarlyStop, Recorder
from monai_thyroid.runs.precision import AutocastInferer, default_device, default_precision
from monai_thyroid.runs.scoring import CaseScores
from monai_thyroid.runs.session import TrainingSession, training_session
from monai_thyroid.runs.trained import TrainedRun, input_items

__all__ = [
    "AutocastInferer",
    "CaseScores",
    "EarlyStop",
    "Recorder",
    "TrainedRun",
    "TrainingSession",
    "boolean",
    "check_config",
    "check_file",
    "default_device",
    "default_precision",
    "input_items",
    "input_size",
    "output_size",
    "training_session",
]
