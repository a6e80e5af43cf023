"""Clinical measures of drawn ellipses against their formulas."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import integrate, stats
from skimage.draw import ellipse
from skimage.measure import EllipseModel, regionprops

from monai_thyroid.metrics import HeadCircumference, agreement, ellipse_circumference, limits_of_agreement
from monai_thyroid.metrics.measures import _semi_axes, ellipse_axes


def _ellipse(a: float, b: float, angle: float, shape: tuple[int, int] = (301, 401)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[ellipse(shape[0] // 2, shape[1] // 2, a, b, shape=shape, rotation=angle)] = True
    return mask


@pytest.mark.parametrize(("a", "b", "angle"), [(120, 90, 0.0), (80, 130, 0.7), (50, 50, 0.0), (30, 140, 1.2)])
def test_circumference_is_that_of_the_ellipse(a: float, b: float, angle: float) -> None:
    exact, _ = integrate.quad(lambda t: math.hypot(a * math.sin(t), b * math.cos(t)), 0, 2 * math.pi)
    assert ellipse_circumference(_ellipse(a, b, angle), spacing=(0.2, 0.2)) == pytest.approx(0.2 * exact, rel=0.005)


def test_axes_agree_with_the_second_moments() -> None:
    mask = _ellipse(70, 110, 0.4)
    (region,) = regionprops(mask.astype(int))
    longer, shorter = ellipse_axes(mask, spacing=(1.0, 1.0))
    assert longer == pytest.approx(region.axis_major_length / 2, rel=0.01)
    assert shorter == pytest.approx(region.axis_minor_length / 2, rel=0.01)


@pytest.mark.parametrize("seed", range(12))
def test_the_fit_is_halir_and_flussers(seed: int) -> None:
    """scikit-image's, of noisy points of all or a part of an ellipse anywhere."""
    if np.linalg.eig(np.eye(2)).eigenvalues.dtype.kind == "c":
        pytest.skip("scikit-image 0.26 fits no ellipse with this numpy")
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, rng.integers(8, 300)) / rng.choice([1, 2])
    a, b, tilt = *rng.uniform(5, 200, 2), rng.uniform(0, np.pi)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    points = np.stack([a * np.cos(angle), b * np.sin(angle)], axis=1) @ turn + rng.uniform(-500, 500, 2)
    points += rng.normal(0, rng.choice([0.01, 1.0, 4.0]), points.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # an older way to ask, which every version has
        model = EllipseModel()
        assert model.estimate(points)
        expected = sorted(model.params[2:4], reverse=True)
    assert _semi_axes(points) == pytest.approx(tuple(expected), rel=1e-6)


@pytest.mark.parametrize("box", [(1, 1), (1, 7), (2, 2), (3, 1), (2, 9)])
def test_masks_of_a_few_pixels_have_an_ellipse_about_as_large(box: tuple[int, int]) -> None:
    mask = np.zeros((12, 12), bool)
    mask[3 : 3 + box[0], 1 : 1 + box[1]] = True
    longer, shorter = ellipse_axes(mask, spacing=(1.0, 1.0))
    assert max(box) / 2 - 0.5 < longer < max(box)
    assert min(box) / 2 - 0.5 < shorter < min(box) + 0.5


def test_points_on_a_line_and_too_few_of_them_have_no_ellipse() -> None:
    line = np.stack([np.arange(9.0), np.arange(9.0)], axis=1)
    for points in (line, line[:2]):
        assert all(math.isnan(one) for one in _semi_axes(points))


def test_spacing_may_differ_along_the_axes_and_specks_do_not_count() -> None:
    mask = _ellipse(60, 120, 0.0)  # rows, columns; a circle of 60 mm with these pixels
    mask[2:5, 2:5] = True
    assert ellipse_circumference(mask, spacing=(1.0, 0.5)) == pytest.approx(2 * math.pi * 60, rel=0.01)


def test_a_mask_at_the_edge_of_the_image_is_measured() -> None:
    assert ellipse_circumference(np.ones((40, 40), bool), spacing=(1.0, 1.0)) > 100


def test_nothing_to_measure_is_nan_and_no_spacing_an_error() -> None:
    assert math.isnan(ellipse_circumference(np.zeros((10, 12), bool), spacing=(1.0, 1.0)))
    with pytest.raises(ValueError, match="spacing"):
        HeadCircumference()(np.ones((4, 4), bool), spacing=None)  # type: ignore[arg-type]


def test_agreement_is_bland_and_altmans() -> None:
    reference, predicted = [100.0, 110.0, 120.0, 130.0], [101.0, 108.0, 123.0, math.nan]
    found = agreement({"reference": r, "predicted": p} for r, p in zip(reference, predicted, strict=True))
    differences = np.array([1.0, -2.0, 3.0])
    assert (found["n"], found["n_failed"]) == (3, 1)
    assert found["mean_difference"] == pytest.approx(differences.mean())
    assert found["limit_high"] - found["limit_low"] == pytest.approx(2 * 1.96 * differences.std(ddof=1))
    assert found["mean_absolute_difference"] == pytest.approx(2.0)
    assert agreement([])["n"] == 0


# --- limits of agreement ---


def test_limits_of_agreement_of_a_difference_a_group_are_bland_and_altmans() -> None:
    """Against their formulas."""
    rng = np.random.default_rng(0)
    reference = rng.normal(180, 30, 40)
    predicted = reference + rng.normal(1, 2, 40)
    found = limits_of_agreement(list(predicted - reference), groups=list(range(40)))
    d = predicted - reference
    sd, t = d.std(ddof=1), stats.t.ppf(0.975, 39)
    assert found.low == pytest.approx(d.mean() - 1.96 * sd)
    assert found.mean_interval == pytest.approx(stats.t.interval(0.95, 39, d.mean(), stats.sem(d)))
    error = t * math.sqrt((1 / 40 + 1.96**2 / 78) * sd**2)
    assert found.high_interval == pytest.approx((found.high - error, found.high + error))
    summary = agreement([{"reference": r, "predicted": p} for r, p in zip(reference, predicted, strict=True)])
    assert (found.mean, found.sd) == pytest.approx((summary["mean_difference"], summary["sd_difference"]))


def test_differences_of_one_group_are_no_independent_ones() -> None:
    rng = np.random.default_rng(1)
    of_group = np.repeat(rng.normal(0, 2, 25), 4)
    groups = list(np.repeat(np.arange(25), 4))
    d = of_group + rng.normal(0, 0.5, 100)
    found = limits_of_agreement(list(d), groups=groups)
    alone = limits_of_agreement(list(d), groups=list(range(100)))
    assert found.n_groups == 25
    # Balanced: the analysis of variance by hand, as Bland and Altman 2007 write it.
    table = d.reshape(25, 4)
    within = table.var(axis=1, ddof=1).mean()
    between = 4 * table.mean(axis=1).var(ddof=1)
    assert found.sd == pytest.approx(math.sqrt(within + (between - within) / 4))
    # The mean of equally large groups has the interval of their means.
    means = table.mean(axis=1)
    assert found.mean_interval == pytest.approx(stats.t.interval(0.95, 24, means.mean(), stats.sem(means)))
    assert np.ptp(found.mean_interval) > 1.5 * np.ptp(alone.mean_interval)
    assert np.ptp(found.low_interval) > 1.5 * np.ptp(alone.low_interval)


@pytest.mark.parametrize(("values", "groups"), [([], []), ([1.0], ["a"]), ([1.0, 2.0], ["a", "a"])])
def test_too_few_differences_have_no_limits(values: list[float], groups: list[str]) -> None:
    found = limits_of_agreement(values, groups=groups)
    assert found.n == len(values)
    assert math.isnan(found.sd)
    assert all(map(math.isnan, (*found.mean_interval, *found.low_interval, *found.high_interval)))
