"""Outlines become areas, gaps and picture borders included, and what cannot be filled is refused."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.draw import ellipse, ellipse_perimeter

from monai_thyroid.images.outlines import fill_outline


def drawn(tilt: float = 0.4, centre: tuple[int, int] = (70, 90), radii: tuple[int, int] = (40, 60)) -> np.ndarray:
    outline = np.zeros((140, 180), bool)
    rows, columns = ellipse_perimeter(*centre, *radii, orientation=tilt, shape=outline.shape)
    outline[rows, columns] = True
    return outline


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("tilt", [0.0, 0.4, 1.2])
def test_filled_ellipse_is_the_one_skimage_draws(tilt: float) -> None:
    outline = drawn(tilt)
    reference = np.zeros_like(outline)
    reference[ellipse(70, 90, 40.5, 60.5, shape=outline.shape, rotation=-tilt)] = True
    filled = fill_outline(outline)
    assert iou(filled, reference | outline) > 0.97
    assert (filled | ~outline).all()


@pytest.mark.parametrize("gap", [1, 2])
def test_gaps_of_one_or_two_pixels_are_closed_wherever_they_are(gap: int) -> None:
    whole = fill_outline(drawn())
    pixels = np.argwhere(drawn())
    for missing in pixels[::9]:
        outline = drawn()
        nearest = pixels[np.argsort(np.hypot(*(pixels - missing).T))[:gap]]
        outline[nearest[:, 0], nearest[:, 1]] = False
        assert iou(fill_outline(outline), whole) > 0.985


def test_outline_that_leaves_the_picture_is_closed_by_its_border() -> None:
    outline = drawn(0.0, centre=(70, 20))
    filled = fill_outline(outline)
    whole = np.pad(drawn(0.0, centre=(70, 90)), 0)
    assert iou(filled, np.roll(fill_outline(whole), -70, axis=1) & (np.arange(180) < 82)) > 0.95
    assert filled[70, 0]
    assert not filled[0, 0]


def test_open_outline_is_refused() -> None:
    outline = drawn()
    outline[:, 100:] = False
    with pytest.raises(ValueError, match="open or nothing is inside"):
        fill_outline(outline)
    line = np.zeros((50, 50), bool)
    line[25, 5:45] = True
    line[5:45, 25] = True
    with pytest.raises(ValueError, match="cannot be filled"):
        fill_outline(line)


def test_filled_and_empty_arrays_stay_as_they_are() -> None:
    filled = fill_outline(drawn())
    assert (fill_outline(filled) == filled).all()
    assert not fill_outline(np.zeros((5, 5), bool)).any()
