"""Scores of one case and one class from two masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_thyroid.metrics.checks import as_mask, check_spacing, same_shape
from monai_thyroid.metrics.components import match_components
from monai_thyroid.metrics.policy import ScoringPolicy
from monai_thyroid.metrics.registry import METRICS, MaskPair, evaluate

__all__ = ["SCORE_COLUMNS", "score_case"]

SCORE_COLUMNS: tuple[str, ...] = (
    "tp",
    "fp",
    "fn",
    "tn",
    *METRICS,
    "n_ref",
    "n_pred",
    "n_matched",
    "ref_empty",
    "pred_empty",
    "height",
    "width",
    "spacing_y",
    "spacing_x",
)
"""What :func:`score_case` returns, in this order."""

_DEFAULT_POLICY = ScoringPolicy()


def score_case(
    reference: npt.ArrayLike,
    prediction: npt.ArrayLike,
    *,
    spacing: tuple[float, float] | None = None,
    policy: ScoringPolicy = _DEFAULT_POLICY,
) -> dict[str, float | int | bool]:
    """Every score of one class in one image.

    On masks that are not empty, hd95, asd and nsd equal MONAI's ``HausdorffDistanceMetric(percentile=95)``,
    ``SurfaceDistanceMetric(symmetric=True)`` and ``SurfaceDiceMetric``. What empty masks mean is the policy's.

    Args:
        reference: (H, W), bool or 0 and 1.
        prediction: (H, W), likewise, on the same grid.
        spacing: (y, x) in mm per pixel; None if unknown, and distances are in pixels.
        policy: edge cases, tolerance and matching.

    Returns:
        The values of :data:`SCORE_COLUMNS`: tp, fp, fn, tn in pixels; every score of :data:`METRICS`, a share of 0 to
        1 or a distance in mm or pixels, 0 to the image diagonal; n_ref, n_pred, n_matched components; ref_empty and
        pred_empty; height and width in pixels; spacing_y and spacing_x in mm per pixel, NaN if unknown. Nothing else
        is ever NaN.

    Raises:
        ValueError: shapes differ, not 2-D, without a pixel, not binary; spacing not positive or not finite.

    Sources:
        Maier-Hein et al. 2024, doi 10.1038/s41592-023-02151-z; Dice 1945, doi 10.2307/1932409; Nikolov et al. 2018,
        arXiv:1809.04430; Huttenlocher et al. 1993, doi 10.1109/34.232073; Heimann et al. 2009,
        doi 10.1109/TMI.2009.2013851.
    """
    ref, pred = as_mask(reference, "reference"), as_mask(prediction, "prediction")
    same_shape(ref, pred, "prediction")
    known = check_spacing(spacing)
    unit = known or (1.0, 1.0)
    height, width = ref.shape

    both, area_ref, area_pred = (int(np.count_nonzero(mask)) for mask in (ref & pred, ref, pred))
    components = (0, 0, 0)
    if area_ref or area_pred:
        box = _bounding_box(ref | pred)
        ref, pred = ref[box], pred[box]
        components = match_components(ref, pred, policy=policy)
    pair = MaskPair(
        tp=both,
        fp=area_pred - both,
        fn=area_ref - both,
        tn=height * width - area_ref - area_pred + both,
        reference=ref,
        prediction=pred,
        spacing=unit,
        diagonal=math.hypot(height * unit[0], width * unit[1]),
        tolerance=policy.nsd_tolerance,
    )

    spacing_y, spacing_x = known or (math.nan, math.nan)
    row: dict[str, Any] = {
        **{name: getattr(pair, name) for name in ("tp", "fp", "fn", "tn")},
        **{name: evaluate(metric, pair) for name, metric in METRICS.items()},
        **dict(zip(("n_ref", "n_pred", "n_matched"), components, strict=True)),
        "ref_empty": not area_ref,
        "pred_empty": not area_pred,
        "height": height,
        "width": width,
        "spacing_y": spacing_y,
        "spacing_x": spacing_x,
    }
    return {column: row[column] for column in SCORE_COLUMNS}


def _bounding_box(mask: npt.NDArray[np.bool_]) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
