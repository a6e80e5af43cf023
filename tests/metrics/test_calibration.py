from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from monai_thyroid.metrics import (
    CALIBRATION_COLUMNS,
    brier_score,
    calibration_case,
    calibration_columns,
    expected_calibration_error,
    reliability,
)


def pair(shape: tuple[int, int], seed: int, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probability = rng.beta(0.6, 0.9, size=shape).astype(dtype)
    return rng.uniform(size=shape) < probability**1.5, probability


def test_columns() -> None:
    row = calibration_case(*pair((9, 8), 0))
    assert tuple(row) == CALIBRATION_COLUMNS
    assert CALIBRATION_COLUMNS[:3] == ("n_pixels", "brier", "count_00")
    assert CALIBRATION_COLUMNS[-1] == "reference_sum_14"
    assert len(CALIBRATION_COLUMNS) == 2 + 3 * 15
    assert tuple(calibration_case(*pair((9, 8), 0), bins=7)) == calibration_columns(7)
    assert {type(value) for value in row.values()} == {int, float}


@pytest.mark.parametrize("bins", [1, 5, 15, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_scikit_learn(bins: int, dtype: type) -> None:
    reference, probability = pair((71, 53), bins, dtype)
    row = calibration_case(reference, probability, bins=bins)
    truth, flat = reference.ravel(), probability.ravel().astype(np.float64)
    assert row["n_pixels"] == truth.size
    assert row["brier"] == pytest.approx(brier_score_loss(truth, flat))
    assert brier_score([row]) == pytest.approx(brier_score_loss(truth, flat))

    confidence, frequency, count = reliability([row])
    expected_frequency, expected_confidence = calibration_curve(truth, flat, n_bins=bins)
    filled = count > 0
    np.testing.assert_allclose(confidence[filled], expected_confidence)
    np.testing.assert_allclose(frequency[filled], expected_frequency)
    histogram = np.histogram(flat, bins=bins, range=(0, 1))[0]
    np.testing.assert_array_equal(count, histogram)
    expected = np.average(np.abs(expected_frequency - expected_confidence), weights=histogram[histogram > 0])
    assert expected_calibration_error([row]) == pytest.approx(expected)


def test_cases_add_up_to_one_big_case() -> None:
    pairs = [pair((20, 30), 1), pair((50, 30), 2), pair((7, 30), 3)]
    rows = [calibration_case(*p) for p in pairs]
    whole = calibration_case(*(np.concatenate(parts) for parts in zip(*pairs, strict=True)))
    for column in CALIBRATION_COLUMNS:
        if column != "brier":
            assert sum(row[column] for row in rows) == pytest.approx(whole[column])
    assert brier_score(rows) == pytest.approx(whole["brier"])
    assert expected_calibration_error(rows) == pytest.approx(expected_calibration_error([whole]))
    for ours, expected in zip(reliability(rows), reliability([whole]), strict=True):
        np.testing.assert_allclose(ours, expected)


def test_rows_read_from_text() -> None:
    row = calibration_case(*pair((20, 30), 1))
    text = {"case": "a", "class": "nodule", **{name: str(value) for name, value in row.items()}}
    assert expected_calibration_error([text]) == expected_calibration_error([row])
    assert brier_score([text]) == brier_score([row])


def test_worked_example() -> None:
    reference = np.array([[0, 0, 1, 1]], dtype=bool)
    row = calibration_case(reference, np.array([[0.1, 0.3, 0.7, 0.8]]), bins=2)
    assert row["brier"] == pytest.approx((0.01 + 0.09 + 0.09 + 0.04) / 4)
    assert (row["count_00"], row["count_01"], row["reference_sum_00"], row["reference_sum_01"]) == (2, 2, 0, 2)
    assert row["probability_sum_00"] == pytest.approx(0.4)
    assert row["probability_sum_01"] == pytest.approx(1.5)
    assert expected_calibration_error([row]) == pytest.approx((0.2 + 0.25) / 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_of_bins(dtype: type) -> None:
    """The upper end belongs to a bin, and 0 to the first one."""
    edges = np.arange(11) / dtype(10)
    row = calibration_case(np.zeros((1, 11)), edges[None].astype(dtype), bins=10)
    assert [row[f"count_{index:02d}"] for index in range(10)] == [2] + [1] * 9


def test_perfect_and_hopeless() -> None:
    reference, _ = pair((10, 10), 0)
    right, wrong = calibration_case(reference, reference * 1.0), calibration_case(reference, 1.0 - reference)
    assert (expected_calibration_error([right]), right["brier"]) == (0.0, 0.0)
    assert (expected_calibration_error([wrong]), wrong["brier"]) == (1.0, 1.0)


def test_empty_bins_are_nan() -> None:
    confidence, frequency, count = reliability([calibration_case(np.zeros((3, 3)), np.zeros((3, 3)))])
    assert confidence[0] == frequency[0] == 0.0
    assert np.isnan(confidence[1:]).all()
    assert np.isnan(frequency[1:]).all()
    assert count.tolist() == [9] + [0] * 14
    assert count.dtype == np.int64


@pytest.mark.parametrize(
    ("reference", "probability", "bins", "message"),
    [
        (np.zeros((2, 2)), np.full((2, 2), 1.01), 15, "0 to 1"),
        (np.zeros((2, 2)), np.full((2, 2), -0.01), 15, "0 to 1"),
        (np.zeros((2, 2)), np.array([[0, 1], [np.nan, 0.5]]), 15, "NaN"),
        (np.zeros((2, 2)), np.zeros((2, 3)), 15, "must be the same"),
        (np.zeros((1, 2, 2)), np.zeros((1, 2, 2)), 15, r"\(H, W\)"),
        (np.full((2, 2), 2), np.zeros((2, 2)), 15, "only 0 and 1"),
        (np.zeros((2, 2)), np.zeros((2, 2)), 0, "bins"),
        (np.zeros((2, 2)), np.zeros((2, 2)), 101, "bins"),
    ],
)
def test_bad_input_is_refused(reference: np.ndarray, probability: np.ndarray, bins: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        calibration_case(reference, probability, bins=bins)


def test_bad_rows_are_refused() -> None:
    row = calibration_case(*pair((5, 5), 0))
    with pytest.raises(ValueError, match="no row"):
        reliability([])
    with pytest.raises(ValueError, match="not a calibration row"):
        reliability([{"dice": 1.0}])
    with pytest.raises(ValueError, match="number of bins"):
        reliability([row, calibration_case(*pair((5, 5), 0), bins=10)])
    with pytest.raises(ValueError, match="count_03"):
        expected_calibration_error([{**row, "count_03": ""}])
    assert math.isnan(brier_score([]))
