"""How far the predicted probabilities can be taken at their word: bin counts that add up over cases.

Every pixel counts the same, so easy background dominates: read the reliability curve beside the single figures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_thyroid.metrics.checks import as_mask, same_shape

__all__ = [
    "CALIBRATION_COLUMNS",
    "brier_score",
    "calibration_case",
    "calibration_columns",
    "expected_calibration_error",
    "reliability",
]

_SUMS = ("count", "probability_sum", "reference_sum")
_DEFAULT_BINS = 15


def calibration_columns(bins: int) -> tuple[str, ...]:
    """What :func:`calibration_case` returns for a number of bins, in this order.

    Raises:
        ValueError: ``bins`` is not 1 to 100, which is what two digits can name.
    """
    if not 1 <= bins <= 100:
        raise ValueError(f"bins must lie in 1 to 100, got {bins}.")
    return ("n_pixels", "brier", *(f"{name}_{index:02d}" for name in _SUMS for index in range(bins)))


CALIBRATION_COLUMNS: tuple[str, ...] = calibration_columns(_DEFAULT_BINS)
"""The columns for the default number of bins, 15."""


def calibration_case(
    reference: npt.ArrayLike, probability: npt.ArrayLike, *, bins: int = _DEFAULT_BINS
) -> dict[str, float | int]:
    """Bin the pixels of one class in one image by their predicted probability.

    Bin i of n holds i/n < p <= (i+1)/n, the first one also p = 0 (as scikit-learn's ``calibration_curve``).

    Args:
        reference: (H, W), bool or 0 and 1.
        probability: (H, W) of the class, 0 to 1.
        bins: number of bins of equal width, 1 to 100.

    Returns:
        n_pixels; brier, the mean squared difference of probability and reference, 0 to 1; and for every bin
        count_00.. (pixels), probability_sum_00.. and reference_sum_00.. (foreground pixels), which add up over cases.

    Raises:
        ValueError: shapes differ, not 2-D, without a pixel; the reference is not binary; a probability is NaN or
            outside 0 to 1; ``bins`` is not 1 to 100.

    Sources:
        Brier 1950, doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2; Guo et al. 2017, arXiv:1706.04599.
    """
    columns = calibration_columns(bins)
    truth = as_mask(reference, "reference")
    p = np.asarray(probability)
    same_shape(truth, p, "probability")
    if p.dtype not in (np.float32, np.float64):
        p = p.astype(np.float64)
    # Written so that NaN fails as well.
    if not (p.min() >= 0 and p.max() <= 1):
        raise ValueError(f"probability must lie in 0 to 1 without NaN, got {p.min()} to {p.max()}.")

    # In the precision of the input: 0.2 is then the upper end of its bin in float32 too.
    index = np.maximum(np.ceil(p.ravel() * p.dtype.type(bins)).astype(np.intp) - 1, 0)
    exact = p.ravel().astype(np.float64)
    count = np.bincount(index, minlength=bins)
    probability_sum = np.bincount(index, weights=exact, minlength=bins)
    reference_sum = np.bincount(index[truth.ravel()], minlength=bins)
    squared = np.square(exact - truth.ravel())
    values = (truth.size, float(squared.mean()), *count.tolist(), *probability_sum.tolist(), *reference_sum.tolist())
    return dict(zip(columns, values, strict=True))


def brier_score(rows: Iterable[Mapping[str, Any]]) -> float:
    """Brier score over all pixels of several cases, 0 (best) to 1; NaN without a pixel.

    Args:
        rows: results of :func:`calibration_case`, or rows of a calibration.csv (text is read as numbers).

    Raises:
        ValueError: a row lacks a column or holds something that is not a number.

    Sources:
        Brier 1950, doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    pairs = [(_number(row, "n_pixels"), _number(row, "brier")) for row in rows]
    pixels = sum(n for n, _ in pairs)
    return sum(n * brier for n, brier in pairs) / pixels if pixels else math.nan


def reliability(
    rows: Iterable[Mapping[str, Any]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Reliability curve over all pixels of several cases.

    Args:
        rows: results of :func:`calibration_case` with one number of bins, one or more, or rows of a calibration.csv.

    Returns:
        Three (bins,) arrays: mean probability of each bin, its share of foreground pixels (both 0 to 1, NaN where
        the bin is empty), and its pixels.

    Raises:
        ValueError: there is no row, rows differ in their bins, or a value is missing or not a number.

    Sources:
        DeGroot and Fienberg 1983, doi 10.2307/2987588; Guo et al. 2017, arXiv:1706.04599.
    """
    table = list(rows)
    if not table:
        raise ValueError("There is no row to compute the reliability from.")
    bins = _bins(table[0])
    if any(_bins(row) != bins for row in table):
        raise ValueError("The rows differ in their number of bins.")
    count, probability_sum, reference_sum = (
        np.array([sum(_number(row, f"{name}_{index:02d}") for row in table) for index in range(bins)]) for name in _SUMS
    )
    divisor = np.where(count > 0, count, np.nan)
    return probability_sum / divisor, reference_sum / divisor, np.rint(count).astype(np.int64)


def expected_calibration_error(rows: Iterable[Mapping[str, Any]]) -> float:
    """Mean over all pixels of the distance between a bin's mean probability and its share of foreground, 0 to 1.

    Of the foreground probability, not of the winning class, so 0.1 that should be 0.2 counts like 0.9 and 0.8.

    Args:
        rows: as for :func:`reliability`.

    Raises:
        ValueError: as for :func:`reliability`.

    Sources:
        Naeini et al. 2015, doi 10.1609/aaai.v29i1.9602; Guo et al. 2017, arXiv:1706.04599.
    """
    confidence, frequency, count = reliability(rows)
    filled = count > 0
    return float(np.sum(np.abs(confidence - frequency)[filled] * count[filled]) / count.sum())


def _bins(row: Mapping[str, Any]) -> int:
    bins = sum(name.startswith("count_") for name in row)
    if not bins:
        raise ValueError("The row has no column count_00: it is not a calibration row.")
    return bins


def _number(row: Mapping[str, Any], column: str) -> float:
    try:
        value = float(row[column])
    except (KeyError, TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"The column {column} of a calibration row must be a number, got {row.get(column)!r}.")
    return value
