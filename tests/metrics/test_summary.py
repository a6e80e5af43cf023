from __future__ import annotations

import csv
import io
import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from monai_thyroid.metrics import METRICS, ScoringPolicy, score_case, summarise


def mask(*pixels: tuple[int, int]) -> np.ndarray:
    array = np.zeros((3, 4), dtype=bool)
    for pixel in pixels:
        array[pixel] = True
    return array


# A half-found object, a miss, a false alarm, nothing where nothing is.
PAIRS = [
    (mask((0, 0), (0, 1)), mask((0, 0))),
    (mask((1, 1), (1, 2), (2, 2)), mask()),
    (mask(), mask((2, 3))),
    (mask(), mask()),
]
ROWS = [score_case(reference, prediction) for reference, prediction in PAIRS]


def random_cases(seed: int, n: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    cases = []
    for _ in range(n):
        reference, prediction = np.zeros((2, 16, 20), dtype=bool)
        for array in (reference, prediction):
            top, left = rng.integers(0, 10, 2)
            height, width = rng.integers(1, 9, 2)
            array[top : top + height, left : left + width] = True
        cases.append((reference, prediction))
    return cases


def test_worked_example() -> None:
    summary = summarise(ROWS)
    counts = {name: value for name, value in summary.items() if name.startswith("n_")}
    assert counts == {
        "n_cases": 4,
        "n_errors": 0,
        "n_empty_references": 2,
        "n_empty_predictions": 2,
        "n_both_empty": 1,
        "n_misses": 1,
        "n_false_alarms": 1,
        "n_lesions": 2,
        "n_lesions_found": 1,
    }
    # Per image: dice 2/3, 0, 0, 1. Summed pixels: tp 1, fp 1, fn 4, tn 42.
    assert summary["dice_mean"] == pytest.approx((2 / 3 + 1) / 4)
    assert summary["dice_median"] == pytest.approx(1 / 3)
    assert summary["dice_mean_nonempty"] == pytest.approx(1 / 3)
    assert summary["dice_pooled"] == pytest.approx(2 / 7)
    assert summary["iou_mean"] == summary["iou_foreground_mean"] == pytest.approx((1 / 2 + 1) / 4)
    assert summary["iou_pooled"] == pytest.approx(1 / 6)
    assert summary["iou_two_class_mean"] == pytest.approx(((1 / 2 + 10 / 11) + (0 + 9 / 12) + (0 + 11 / 12) + 2) / 8)
    assert summary["iou_two_class_pooled"] == pytest.approx((1 / 6 + 42 / 47) / 2)
    assert summary["precision_pooled"] == pytest.approx(1 / 2)
    assert summary["recall_pooled"] == pytest.approx(1 / 5)
    assert summary["specificity_pooled"] == pytest.approx(42 / 43)
    assert summary["accuracy_pooled"] == pytest.approx(43 / 48)
    # Case 1: distances 0 (prediction) and 0, 1 (reference), so 0.95 at the 95th percentile; 5 is the diagonal.
    assert summary["hd95_mean"] == pytest.approx((0.95 + 5 + 5 + 0) / 4)
    assert summary["asd_mean"] == pytest.approx((1 / 3 + 5 + 5 + 0) / 4)
    assert summary["nsd_mean"] == pytest.approx((1 + 0 + 0 + 1) / 4)
    assert summary["distance_unit"] == "pixels"
    assert summary["lesion_sensitivity"] == 1 / 2
    assert summary["false_positives_per_image"] == 1 / 4


def test_every_metric_has_its_figures() -> None:
    summary = summarise(ROWS)
    for metric in METRICS:
        assert {f"{metric}_mean", f"{metric}_median", f"{metric}_mean_nonempty"} <= set(summary)


def test_pooled_is_not_the_mean() -> None:
    """A large object found and a small one missed."""
    large, small = np.zeros((2, 30, 30), dtype=bool)
    large[:20, :20], small[0, 0] = True, True
    summary = summarise([score_case(large, large), score_case(small, np.zeros_like(small))])
    assert summary["dice_mean"] == 0.5
    assert summary["dice_pooled"] > 0.99


def test_pooled_agrees_with_the_summed_confusion_matrix() -> None:
    cases = random_cases(0, 12)
    summary = summarise([score_case(*case) for case in cases])
    (tn, fp), (fn, tp) = sum(confusion_matrix(r.ravel(), p.ravel(), labels=[False, True]) for r, p in cases)
    assert summary["dice_pooled"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert summary["iou_two_class_pooled"] == pytest.approx((tp / (tp + fp + fn) + tn / (tn + fp + fn)) / 2)
    assert summary["accuracy_pooled"] == pytest.approx((tp + tn) / (tp + tn + fp + fn))


@pytest.mark.parametrize("spacing", [None, (0.3, 0.1)])
def test_a_miss_never_improves_a_mean(spacing: tuple[float, float] | None) -> None:
    cases = random_cases(1, 12)
    # One that is as bad as it gets without being empty: a pixel in the opposite corner.
    corner, opposite = np.zeros((2, 16, 20), dtype=bool)
    corner[0, 0], opposite[-1, -1] = True, True
    cases.append((corner, opposite))
    before_rows = [score_case(*case, spacing=spacing) for case in cases]
    before = summarise(before_rows)
    for index, (reference, prediction) in enumerate(cases):
        rows = list(before_rows)
        rows[index] = score_case(reference, np.zeros_like(prediction), spacing=spacing)
        after = summarise(rows)
        assert after["n_cases"] == before["n_cases"]
        assert after["n_misses"] >= before["n_misses"]
        assert after["lesion_sensitivity"] <= before["lesion_sensitivity"]
        for statistic in ("mean", "median", "mean_nonempty"):
            for metric in ("dice", "iou", "precision", "recall", "nsd"):
                assert after[f"{metric}_{statistic}"] <= before[f"{metric}_{statistic}"] + 1e-12
            for metric in ("hd95", "asd"):
                assert after[f"{metric}_{statistic}"] >= before[f"{metric}_{statistic}"] - 1e-12


def test_a_false_alarm_never_improves_a_mean() -> None:
    nothing = np.zeros((16, 20), dtype=bool)
    rows = [score_case(*case) for case in random_cases(2, 6)]
    quiet = summarise([*rows, score_case(nothing, nothing)])
    for seed in range(5):
        loud = summarise([*rows, score_case(nothing, random_cases(seed, 1)[0][1])])
        assert loud["n_false_alarms"] == 1
        assert loud["false_positives_per_image"] > quiet["false_positives_per_image"]
        for metric in METRICS:
            better = loud[f"{metric}_mean"] - quiet[f"{metric}_mean"]
            assert (-better if metric in ("hd95", "asd") else better) < 0


def test_object_without_a_common_pixel_is_a_miss() -> None:
    summary = summarise([score_case(mask((0, 0)), mask((2, 3)))])
    assert (summary["n_misses"], summary["n_empty_predictions"]) == (1, 0)


def test_model_that_finds_nothing_is_visible() -> None:
    summary = summarise([score_case(r, np.zeros_like(p)) for r, p in random_cases(3, 5)])
    assert summary["n_misses"] == summary["n_empty_predictions"] == summary["n_cases"] == 5
    assert summary["dice_mean"] == summary["recall_pooled"] == summary["precision_pooled"] == 0.0
    assert summary["hd95_mean"] == pytest.approx(math.hypot(16, 20))


def test_rows_of_a_csv_file_give_the_same() -> None:
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=["dataset", "case", "class", *ROWS[0], "error"])
    writer.writeheader()
    for index, row in enumerate(ROWS):
        writer.writerow({"dataset": "phantom", "case": index, "class": "nodule", **row, "error": ""})
    file.seek(0)
    assert summarise(csv.DictReader(file)) == summarise(ROWS)


def test_units() -> None:
    in_mm = [score_case(*case, spacing=(0.1, 0.2)) for case in random_cases(4, 3)]
    in_pixels = [score_case(*case) for case in random_cases(4, 3)]
    assert summarise(in_mm)["distance_unit"] == "mm"
    mixed = summarise(in_mm + in_pixels)
    assert mixed["distance_unit"] == "mixed"
    for name, value in mixed.items():
        assert (value != value) == (name.split("_")[0] in ("hd95", "asd", "nsd")), name


def test_failed_cases_are_counted_and_left_out() -> None:
    failed = {**dict.fromkeys(ROWS[0], ""), "case": "b", "error": "cannot read b.png"}
    summary = summarise([*({**row, "error": math.nan} for row in ROWS), failed])
    assert summary == {**summarise(ROWS), "n_errors": 1}


def test_no_case() -> None:
    summary = summarise([])
    assert (summary["n_cases"], summary["n_misses"], summary["n_lesions"]) == (0, 0, 0)
    figures = [value for name, value in summary.items() if not name.startswith("n_") and name != "distance_unit"]
    assert all(math.isnan(value) for value in figures)
    assert set(summary) == set(summarise(ROWS))


def test_no_lesion_has_no_sensitivity() -> None:
    summary = summarise(ROWS[2:])
    assert math.isnan(summary["lesion_sensitivity"])
    assert math.isnan(summary["dice_mean_nonempty"])
    assert summary["false_positives_per_image"] == 1 / 2


def test_only_empty_masks_pool_to_one() -> None:
    summary = summarise([ROWS[3]])
    assert summary["dice_pooled"] == summary["iou_pooled"] == summary["iou_two_class_pooled"] == 1.0


def test_all_problems_are_named() -> None:
    with pytest.raises(ValueError, match="dice of case x must be a number") as raised:
        summarise([{**ROWS[0], "case": "x", "dice": math.nan}, {**ROWS[0], "case": "y", "hd95": "inf"}])
    assert "hd95 of case y" in str(raised.value)


def test_several_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="left, right"):
        summarise([{**ROWS[0], "class": "right"}, {**ROWS[0], "class": "left"}])


def test_policy_reaches_the_summary() -> None:
    reference, prediction = np.zeros((2, 20, 20), dtype=bool)
    reference[5:15, 5:15], prediction[6:16, 5:15] = True, True
    strict = [score_case(reference, prediction, policy=ScoringPolicy(nsd_tolerance=0, match_iou=0.9))]
    assert summarise(strict)["nsd_mean"] < 1
    assert summarise(strict)["lesion_sensitivity"] == 0
