"""What a mask says in numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from monai_thyroid.deploy.findings import findings
from monai_thyroid.evaluation import Prediction


def of(mask: np.ndarray, *, spacing: tuple[float, float] | None = None) -> dict:
    numbers = mask.astype(np.uint8)
    return findings(Prediction(numbers, np.where(mask, 0.75, 0.25)[None].astype(np.float32)), 1, spacing=spacing)


def test_a_rectangle() -> None:
    mask = np.zeros((20, 30), bool)
    mask[2:5, 10:14] = True
    row = of(mask, spacing=(0.5, 0.25))
    assert (row["area_px"], row["area_mm2"], row["components"]) == (12, 1.5, 1)
    assert row["largest_diameter_px"] == pytest.approx(5)
    assert row["largest_diameter_mm"] == pytest.approx(math.hypot(1.5, 1.0), abs=1e-4)
    assert (row["mean_probability"], row["agreement"]) == (0.75, None)


def test_nothing_found_has_no_diameter() -> None:
    row = of(np.zeros((4, 4), bool), spacing=(1, 1))
    assert (row["area_px"], row["area_mm2"], row["components"]) == (0, 0, 0)
    assert row["largest_diameter_px"] is row["mean_probability"] is None


def test_the_diameter_is_that_of_one_component_whichever_is_longest() -> None:
    mask = np.zeros((60, 60), bool)
    mask[0, 0] = mask[59, 59] = True
    mask[10:12, 5:25] = True
    mask[20:30, 30:40] = True
    mask[30, 40] = True  # touches by a corner
    row = of(mask)
    assert row["components"] == 4
    assert row["largest_diameter_px"] == pytest.approx(math.hypot(2, 20), abs=1e-3)
    # In millimetres another one may be the longest.
    assert of(mask, spacing=(10, 0.1))["largest_diameter_mm"] == pytest.approx(math.hypot(110, 1.1), abs=1e-3)


def test_the_diameter_is_the_greatest_distance_of_all() -> None:
    random = np.random.RandomState(0)
    yy, xx = np.mgrid[:200, :150]
    for _ in range(5):
        y, x, a, b, angle = random.uniform([60, 50, 20, 5, 0], [140, 100, 45, 30, 3.14])
        u = (yy - y) * math.cos(angle) + (xx - x) * math.sin(angle)
        v = (xx - x) * math.cos(angle) - (yy - y) * math.sin(angle)
        mask = (u / a) ** 2 + (v / b) ** 2 <= 1
        corners = np.argwhere(mask)[:, None] + np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
        points = np.unique(corners.reshape(-1, 2), axis=0).astype(float)
        expected = max(np.sqrt(((points - point) ** 2).sum(axis=1)).max() for point in points)
        assert of(mask)["largest_diameter_px"] == pytest.approx(expected, abs=1e-3)
