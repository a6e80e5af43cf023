"""Scores and clinical measures from masks, with a stated policy for empty masks and misses. Knows nothing of torch."""

from __future__ import annotations

from monai_thyroid.metrics.calibration import (
    CALIBRATION_COLUMNS,
    brier_score,
    calibration_case,
    calibration_columns,
    expected_calibration_error,
    reliability,
)
from monai_thyroid.metrics.cases import SCORE_COLUMNS, score_case
from monai_thyroid.metrics.choosing import Tally, better
from monai_thyroid.metrics.components import label_components
from monai_thyroid.metrics.confusion import MISSED, NOTHING, add_confusion, no_confusion
from monai_thyroid.metrics.measures import HeadCircumference, agreement, ellipse_circumference
from monai_thyroid.metrics.policy import ScoringPolicy
from monai_thyroid.metrics.registry import METRICS, Counts, Metric
from monai_thyroid.metrics.summary import summarise

__all__ = [
    "CALIBRATION_COLUMNS",
    "METRICS",
    "MISSED",
    "NOTHING",
    "SCORE_COLUMNS",
    "Counts",
    "HeadCircumference",
    "Metric",
    "ScoringPolicy",
    "Tally",
    "add_confusion",
    "agreement",
    "better",
    "brier_score",
    "calibration_case",
    "calibration_columns",
    "ellipse_circumference",
    "expected_calibration_error",
    "label_components",
    "no_confusion",
    "reliability",
    "score_case",
    "summarise",
]
