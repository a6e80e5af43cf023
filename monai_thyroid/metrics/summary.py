"""From the scores of cases to the figures of a set, each under a name that says how it was averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from monai_thyroid.metrics.registry import METRICS, Counts, evaluate

__all__ = ["summarise"]

_COUNTS = ("tp", "fp", "fn", "tn", "n_ref", "n_pred", "n_matched")


def summarise(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int | str]:
    """Figures of a set of cases, one class.

    "mean" and "median" are over images, each image counting the same (per-image). "pooled" is from the summed pixels
    of all images, so that large objects count more, and a miss on an image with many false positives can even improve
    it. Published figures are often one of the two without saying which.

    Args:
        rows: results of :func:`score_case`, or rows of a cases.csv (text is read as numbers). A row whose ``error`` is
            filled has no scores: it is counted and left out.

    Returns:
        - n_cases, n_errors, n_empty_references, n_empty_predictions, n_both_empty.
        - n_misses: reference not empty and not a pixel of it found (prediction empty, or tp = 0).
        - n_false_alarms: reference empty, prediction not.
        - distance_unit: "mm", "pixels", or "mixed". Where mixed, the figures of metrics that are ``scaled`` are NaN, as
          millimetres and pixels have no common mean.
        - <metric>_mean, <metric>_median of every metric over all cases, and <metric>_mean_nonempty over those whose
          reference is not empty; NaN of one that no row has (not scored: rows of before the metric).
        - <metric>_pooled of those that are ``pooled``.
        - iou_foreground_mean (another name of iou_mean), iou_two_class_mean (mean over images of the mean of foreground
          and background IoU) and iou_two_class_pooled (the same from summed pixels): "mean IoU" in papers may be
          any of these.
        - n_lesions, n_lesions_found, lesion_sensitivity = sum n_matched / sum n_ref, false_positives_per_image =
          sum (n_pred - n_matched) / n_cases.

        A figure over no case at all, and the sensitivity without a lesion, is NaN.

    Raises:
        ValueError: a score is missing or not a number, or the rows are of several classes; all that was found.

    Sources:
        Maier-Hein et al. 2024, doi 10.1038/s41592-023-02151-z.
    """
    table = list(rows)
    scored = [row for row in table if _blank(row.get("error"))]
    classes = {str(row["class"]) for row in table if "class" in row}
    if len(classes) > 1:
        raise ValueError(f"The rows are of several classes ({', '.join(sorted(classes))}): summarise one at a time.")

    values = _columns(scored)
    tp, fp, fn, tn = (values[name] for name in ("tp", "fp", "fn", "tn"))
    ref_empty, pred_empty = tp + fn == 0, tp + fp == 0
    n = len(scored)
    known = np.array([not _is_nan(row.get("spacing_y")) for row in scored], dtype=bool)
    mixed = bool(known.any() and not known.all())

    summary: dict[str, float | int | str] = {
        "n_cases": n,
        "n_errors": len(table) - n,
        "n_empty_references": int(ref_empty.sum()),
        "n_empty_predictions": int(pred_empty.sum()),
        "n_both_empty": int((ref_empty & pred_empty).sum()),
        "n_misses": int((~ref_empty & (tp == 0)).sum()),
        "n_false_alarms": int((ref_empty & ~pred_empty).sum()),
        "distance_unit": "mixed" if mixed else "mm" if known.any() else "pixels",
    }
    for name, metric in METRICS.items():
        usable = values[name] if not (mixed and metric.scaled) else np.full(n, np.nan)
        summary[f"{name}_mean"] = _mean(usable)
        summary[f"{name}_median"] = float(np.median(usable)) if n else math.nan
        summary[f"{name}_mean_nonempty"] = _mean(usable[~ref_empty])

    pixels = Counts(*(int(values[name].sum()) for name in ("tp", "fp", "fn", "tn")))
    background = Counts(tp=pixels.tn, fp=pixels.fn, fn=pixels.fp, tn=pixels.tp)
    pooled = {name: evaluate(one, pixels) if n else math.nan for name, one in METRICS.items() if one.pooled}
    summary.update({f"{name}_pooled": value for name, value in pooled.items()})
    union = tn + fp + fn
    background_iou = np.divide(tn, union, out=np.ones_like(tn), where=union > 0)
    summary["iou_foreground_mean"] = summary["iou_mean"]
    summary["iou_two_class_mean"] = _mean((values["iou"] + background_iou) / 2)
    summary["iou_two_class_pooled"] = (pooled["iou"] + evaluate(METRICS["iou"], background)) / 2 if n else math.nan

    lesions, found, predicted = (int(values[name].sum()) for name in ("n_ref", "n_matched", "n_pred"))
    summary["n_lesions"] = lesions
    summary["n_lesions_found"] = found
    summary["lesion_sensitivity"] = found / lesions if lesions else math.nan
    summary["false_positives_per_image"] = (predicted - found) / n if n else math.nan
    return summary


def _columns(rows: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Every column that is needed as (n,) floats."""
    problems: list[str] = []
    columns: dict[str, np.ndarray] = {}
    for name in (*_COUNTS, *METRICS):
        if name in METRICS and rows and all(row.get(name) is None for row in rows):
            columns[name] = np.full(len(rows), np.nan)
            continue
        numbers = [_number(row.get(name)) for row in rows]
        for index, (row, number) in enumerate(zip(rows, numbers, strict=True)):
            if not math.isfinite(number):
                problems.append(f"{name} of case {row.get('case', index)} must be a number, got {row.get(name)!r}.")
        columns[name] = np.array(numbers, dtype=np.float64)
    if problems:
        raise ValueError("\n".join(problems))
    return columns


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def _is_nan(value: Any) -> bool:
    return math.isnan(_number(value))


def _blank(value: Any) -> bool:
    """Whether an error cell is empty; a table library reads an empty cell as NaN."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else math.nan
