"""Clinical measures taken from masks, and how well those of predictions agree with the reference."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_thyroid.metrics.checks import as_mask, check_spacing

__all__ = [
    "HeadCircumference",
    "LimitsOfAgreement",
    "agreement",
    "ellipse_axes",
    "ellipse_circumference",
    "limits_of_agreement",
]


def ellipse_axes(mask: npt.ArrayLike, *, spacing: tuple[float, float]) -> tuple[float, float]:
    """Semi-axes of the ellipse fitted to the border of the largest component of a mask, by least squares.

    Args:
        mask: (H, W), bool or 0 and 1.
        spacing: (y, x) in mm per pixel.

    Returns:
        The longer and the shorter semi-axis in mm; NaN where there is no foreground or no ellipse fits.

    Raises:
        ValueError: as `score_case`.

    Sources:
        Halir and Flusser 1998, Numerically stable direct least squares fitting of ellipses.
    """
    from scipy import ndimage
    from skimage.measure import find_contours

    array = as_mask(mask, "mask")
    known = check_spacing(spacing)
    if known is None:
        raise ValueError("spacing must be given: a circumference is in mm.")
    labels, count = ndimage.label(array)
    if count == 0:
        return math.nan, math.nan
    largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
    # Half-way between the pixels, and closed where the mask touches the edge of the image.
    border = max(find_contours(np.pad(largest, 1).astype(float), 0.5), key=len) * np.asarray(known)
    return _semi_axes(border)


def _semi_axes(points: npt.NDArray[np.float64]) -> tuple[float, float]:
    # Not scikit-image's EllipseModel: up to 0.26 it stops with a TypeError where eigenvectors are complex by rounding,
    # and at every call from numpy 2.5 on (scikit-image #7013, #8235).
    centred = points - points.mean(axis=0)
    scale = centred.std()
    x, y = (centred / scale).T
    quadratic, linear = np.stack([x * x, x * y, y * y], axis=1), np.stack([x, y, np.ones_like(x)], axis=1)
    try:
        dependent = -np.linalg.solve(linear.T @ linear, linear.T @ quadratic)
    except np.linalg.LinAlgError:  # on a line
        return math.nan, math.nan
    scatter = quadratic.T @ (quadratic + linear @ dependent)
    _, vectors = np.linalg.eig(np.linalg.solve([[0.0, 0.0, 2.0], [0.0, -1.0, 0.0], [2.0, 0.0, 0.0]], scatter))
    vectors = vectors.real
    ellipses = np.flatnonzero(4 * vectors[0] * vectors[2] - vectors[1] ** 2 > 0)
    if len(ellipses) != 1:
        return math.nan, math.nan
    conic = vectors[:, ellipses[0]]
    form, slope = np.array([[conic[0], conic[1] / 2], [conic[1] / 2, conic[2]]]), dependent @ conic
    centre = np.linalg.solve(-2 * form, slope[:2])
    squares = (centre @ form @ centre - slope[2]) / np.linalg.eigvalsh(form)
    if not (squares > 0).all():
        return math.nan, math.nan
    shorter, longer = np.sort(np.sqrt(squares)) * scale
    return float(longer), float(shorter)


def ellipse_circumference(mask: npt.ArrayLike, *, spacing: tuple[float, float]) -> float:
    """Circumference in mm of the ellipse of `ellipse_axes`; NaN where none fits."""
    from scipy import special

    longer, shorter = ellipse_axes(mask, spacing=spacing)
    return float(4 * longer * special.ellipe(1 - (shorter / longer) ** 2)) if longer > 0 else math.nan


class HeadCircumference:
    """Fetal head circumference in mm, by an ellipse fitted to the mask's border.

    As the HC18 challenge measures it: van den Heuvel et al. 2018, doi 10.1371/journal.pone.0200412.

    Args:
        reference: key of an item under which its dataset gives the circumference in mm; where it does not, the
            reference mask is measured.
        class_index: which class is the head, from 0.
    """

    name = "head_circumference"
    unit = "mm"

    def __init__(self, *, reference: str = "circumference", class_index: int = 0) -> None:
        self.reference = reference
        self.class_index = class_index

    def __call__(self, mask: npt.ArrayLike, *, spacing: tuple[float, float]) -> float:
        """The measure of a mask (H, W) with (y, x) mm per pixel; NaN where it cannot be taken."""
        return ellipse_circumference(mask, spacing=spacing)


def agreement(rows: Iterable[Mapping[str, Any]]) -> dict[str, float | int]:
    """How predicted measures agree with their references.

    Args:
        rows: with ``reference`` and ``predicted``, in one unit; NaN or empty where it could not be taken.

    Returns:
        n (cases with both), n_failed (a reference but no prediction: never in a mean, so read them together),
        mean_difference (predicted less reference), sd_difference, limit_low and limit_high (95 % limits of
        agreement), mean_absolute_difference; NaN where there are too few cases.

    Sources:
        Bland and Altman 1986, doi 10.1016/S0140-6736(86)90837-8.
    """
    pairs = [(_number(row["reference"]), _number(row["predicted"])) for row in rows]
    both = np.array([(r, p) for r, p in pairs if math.isfinite(r) and math.isfinite(p)]).reshape(-1, 2)
    differences = both[:, 1] - both[:, 0]
    mean = float(differences.mean()) if len(both) else math.nan
    sd = float(differences.std(ddof=1)) if len(both) > 1 else math.nan
    return {
        "n": len(both),
        "n_failed": sum(math.isfinite(r) and not math.isfinite(p) for r, p in pairs),
        "mean_difference": mean,
        "sd_difference": sd,
        "limit_low": mean - 1.96 * sd,
        "limit_high": mean + 1.96 * sd,
        "mean_absolute_difference": float(np.abs(differences).mean()) if len(both) else math.nan,
    }


@dataclass(frozen=True)
class LimitsOfAgreement:
    """Between which 95 % of all differences are expected to lie, and how well that is known.

    Attributes:
        n: differences.
        n_groups: they belong to.
        mean: of the differences.
        sd: of a single difference, in a group and from group to group.
        low: mean less 1.96 standard deviations.
        high: mean and 1.96 of them.
        mean_interval: 95 % interval of the mean; NaN where there are too few groups.
        low_interval: of the lower limit.
        high_interval: of the upper limit.
    """

    n: int
    n_groups: int
    mean: float
    sd: float
    low: float
    high: float
    mean_interval: tuple[float, float]
    low_interval: tuple[float, float]
    high_interval: tuple[float, float]


def limits_of_agreement(differences: Sequence[float], *, groups: Sequence[Hashable]) -> LimitsOfAgreement:
    """Mean difference and limits of agreement with their intervals.

    Of one difference a group, intervals are Student's with the variances s²/n of the mean and
    s² (1/n + 1.96²/(2(n - 1))) of a limit. Where groups have several, the variance of a difference is that within
    groups and that between them (analysis of variance), and intervals come from leaving out a group at a time
    (jackknife), as a group's differences are not independent.

    Args:
        differences: (cases,), finite, in one unit.
        groups: of each case, such as the patient.

    Sources:
        Bland and Altman 1999, doi 10.1177/096228029900800204; for several differences a group Bland and Altman 2007,
        doi 10.1080/10543400701329422.
    """
    from scipy import stats

    values = np.asarray(differences, dtype=np.float64)
    names = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    numbers = np.array([names[name] for name in groups], dtype=int)
    count = len(names)
    mean, sd = _mean_and_sd(values, numbers)
    middle = np.array([mean, mean - 1.96 * sd, mean + 1.96 * sd])
    half = np.full(3, math.nan)
    if count == len(values) and count > 1:
        of_limit = math.sqrt(1 / count + 1.96**2 / (2 * (count - 1)))
        half = stats.t.ppf(0.975, count - 1) * sd * np.array([1 / math.sqrt(count), of_limit, of_limit])
    elif count > 2:
        without = []
        for number in range(count):
            kept = numbers != number
            one_mean, one_sd = _mean_and_sd(values[kept], numbers[kept])
            without.append([one_mean, one_mean - 1.96 * one_sd, one_mean + 1.96 * one_sd])
        spread = np.asarray(without) - np.mean(without, axis=0)
        half = stats.t.ppf(0.975, count - 1) * np.sqrt((count - 1) / count * (spread**2).sum(axis=0))
    limits = [(float(one - h), float(one + h)) for one, h in zip(middle, half, strict=True)]
    low, high = float(middle[1]), float(middle[2])
    return LimitsOfAgreement(len(values), count, mean, sd, low, high, *limits)


def _mean_and_sd(values: np.ndarray, numbers: np.ndarray) -> tuple[float, float]:
    """Mean, and standard deviation of a single value; NaN where there are too few."""
    if not len(values):
        return math.nan, math.nan
    mean = float(values.mean())
    _, inverse, sizes = np.unique(numbers, return_inverse=True, return_counts=True)
    total, groups = len(values), len(sizes)
    if groups == total:
        return mean, float(values.std(ddof=1)) if total > 1 else math.nan
    if groups == 1:
        return mean, math.nan
    means = np.bincount(inverse, weights=values) / sizes
    within = float(((values - means[inverse]) ** 2).sum()) / (total - groups)
    between = float((sizes * (means - mean) ** 2).sum()) / (groups - 1)
    size = (total - (sizes**2).sum() / total) / (groups - 1)
    return mean, math.sqrt(within + max(0.0, (between - within) / size))


def _number(value: Any) -> float:
    return math.nan if value in (None, "") else float(value)
