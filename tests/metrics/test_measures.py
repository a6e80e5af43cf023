"""Clinical measures of drawn ellipses against their formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate
from skimage.draw import ellipse
from skimage.measure import regionprops

from monai_thyroid.metrics import HeadCircumference, agreement, ellipse_circumference
from monai_thyroid.metrics.measures import ellipse_axes


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
