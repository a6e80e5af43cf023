"""A trained run on images: scored, or applied."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_thyroid.lazy import lazily

if TYPE_CHECKING:
    from monai_thyroid.evaluation.choosing import set_postprocessing
    from monai_thyroid.evaluation.ensemble import score_ensemble
    from monai_thyroid.evaluation.gain import Gain, gain_table, measure_gain
    from monai_thyroid.evaluation.inputs import input_items
    from monai_thyroid.evaluation.masks import ScoredMasks, score_masks
    from monai_thyroid.evaluation.precision import AutocastInferer, default_device, default_precision
    from monai_thyroid.evaluation.predictor import Prediction, Predictor
    from monai_thyroid.evaluation.robustness import Robustness, asked_strengths, measure_robustness, robustness_table
    from monai_thyroid.evaluation.scoring import CaseScores
    from monai_thyroid.evaluation.trained import TrainedRun

__all__ = [
    "AutocastInferer",
    "CaseScores",
    "Gain",
    "Prediction",
    "Predictor",
    "Robustness",
    "ScoredMasks",
    "TrainedRun",
    "asked_strengths",
    "default_device",
    "default_precision",
    "gain_table",
    "input_items",
    "measure_gain",
    "measure_robustness",
    "robustness_table",
    "score_ensemble",
    "score_masks",
    "set_postprocessing",
]

# An archive can be segmented without torch and MONAI.
__getattr__ = lazily(
    __name__,
    {
        "choosing": ("set_postprocessing",),
        "ensemble": ("score_ensemble",),
        "gain": ("Gain", "gain_table", "measure_gain"),
        "inputs": ("input_items",),
        "masks": ("ScoredMasks", "score_masks"),
        "precision": ("AutocastInferer", "default_device", "default_precision"),
        "predictor": ("Prediction", "Predictor"),
        "robustness": ("Robustness", "asked_strengths", "measure_robustness", "robustness_table"),
        "scoring": ("CaseScores",),
        "trained": ("TrainedRun",),
    },
)
