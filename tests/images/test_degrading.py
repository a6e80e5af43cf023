"""Degraded images: that each is what it is called, the same every time, and by its strength."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_thyroid.errors import UserError
from monai_thyroid.images.degrading import DEGRADATIONS, degrade


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((90, 140)), 3)
    smooth = (smooth - smooth.min()) / np.ptp(smooth) * 0.5 + 0.25
    smooth[:, :10] = 0
    return smooth.astype(np.float32)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    rows, columns = np.mgrid[:90, :140]
    return ((rows - 45) / 12) ** 2 + ((columns - 80) / 25) ** 2 <= 1


@pytest.mark.parametrize("name", DEGRADATIONS)
@pytest.mark.parametrize("colour", [False, True])
def test_degradation_is_repeatable_and_leaves_its_argument(
    image: np.ndarray, mask: np.ndarray, name: str, colour: bool
) -> None:
    given = np.stack([image, image / 2, image], axis=2) if colour else image
    before = given.copy()
    assert degrade(given, name, 0, case="a", mask=mask) is given
    change = []
    for strength in sorted(DEGRADATIONS[name].strengths, key=abs):
        found = degrade(given, name, strength, case="a", mask=mask)
        assert found.shape == given.shape
        assert found.dtype == np.float32
        assert 0 <= found.min() <= found.max() <= 1
        np.testing.assert_array_equal(found, degrade(given, name, strength, case="a", mask=mask))
        change.append(float(np.abs(found - given).mean()))
    np.testing.assert_array_equal(given, before)
    assert change[0] > 0
    if name != "gain":
        assert change == sorted(change)


def test_gain_is_an_offset_in_decibels_that_leaves_black_black(image: np.ndarray, mask: np.ndarray) -> None:
    for strength in (-6, 6):
        found = degrade(image, "gain", strength, case="a", mask=mask)
        np.testing.assert_allclose(found[:, 10:], image[:, 10:] + strength / 60, atol=1e-6)
        assert (found[:, :10] == 0).all()


def test_speckle_has_the_spread_of_a_logarithm_of_rayleigh(mask: np.ndarray) -> None:
    flat = np.full((200, 200), 0.5, np.float32)
    found = degrade(flat, "speckle", 1, case="a", mask=np.zeros((200, 200), bool))
    # 5.57 dB of 60; the tail to black is cut off at nothing here.
    assert float(found.std()) == pytest.approx(5.57 / 60, rel=0.06)
    assert float(np.median(found)) == pytest.approx(0.5, abs=1e-3)
    other = degrade(flat, "speckle", 1, case="b", mask=np.zeros((200, 200), bool))
    assert abs(np.corrcoef(found.ravel(), other.ravel())[0, 1]) < 0.05
    half = degrade(flat, "speckle", 0.5, case="a", mask=np.zeros((200, 200), bool))
    shown = found > 0
    np.testing.assert_allclose(half[shown] - 0.5, (found[shown] - 0.5) / 2, atol=1e-6)


def test_blur_and_jpeg_are_those_of_others(image: np.ndarray, mask: np.ndarray) -> None:
    found = degrade(image, "blur", 1, case="a", mask=mask)
    np.testing.assert_allclose(found, ndimage.gaussian_filter(image, 1.4, mode="nearest"), atol=1e-6)
    file = io.BytesIO()
    Image.fromarray((image * 255 + 0.5).astype(np.uint8)).save(file, "JPEG", quality=20)
    np.testing.assert_allclose(
        degrade(image, "jpeg", 80, case="a", mask=mask), np.asarray(Image.open(file)) / 255, atol=1e-6
    )


def test_calipers_are_set_at_the_ends_of_both_diameters(image: np.ndarray, mask: np.ndarray) -> None:
    found = degrade(image, "calipers", 1, case="a", mask=mask)
    for place in ((45, 55), (45, 105)):  # ends of the longer axis
        assert found[place] == 1
    touched = (found != image).any(axis=1)
    assert np.flatnonzero(touched).min() > 38
    both = degrade(image, "calipers", 2, case="a", mask=mask)
    for place in ((33, 80), (57, 80)):
        assert both[place[0] - 1 : place[0] + 2, place[1] - 1 : place[1] + 2].max() == 1


@pytest.mark.parametrize("shape", [(40, 64), (7, 9), (1, 1), (3, 200)])
def test_calipers_find_a_place_in_every_picture(shape: tuple[int, int]) -> None:
    dark = np.full(shape, 0.4, np.float32)
    for mask in (np.zeros(shape, bool), np.ones(shape, bool)):
        assert (degrade(dark, "calipers", 2, case="a", mask=mask) != dark).any()


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("fog", 1, "degradation 'fog': choose of gain, speckle, blur, jpeg, calipers"),
        ("blur", -1, "blur: the strength -1 is not between 0 and 10"),
        ("jpeg", float("nan"), "jpeg: the strength nan is not between"),
        ("calipers", 1.5, "is no whole number"),
    ],
)
def test_what_is_no_degradation_is_refused(
    image: np.ndarray, mask: np.ndarray, name: str, strength: float, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        degrade(image, name, strength, case="a", mask=mask)
