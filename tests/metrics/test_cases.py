from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import skimage.measure
import skimage.metrics
import torch
from monai.metrics import HausdorffDistanceMetric, SurfaceDiceMetric, SurfaceDistanceMetric
from scipy import ndimage
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score, precision_score, recall_score

from monai_thyroid.metrics import METRICS, SCORE_COLUMNS, ScoringPolicy, score_case
from monai_thyroid.metrics.surface import boundary, surface_distances

COLUMNS = [
    "tp",
    "fp",
    "fn",
    "tn",
    "dice",
    "iou",
    "precision",
    "recall",
    "specificity",
    "accuracy",
    "hd95",
    "asd",
    "nsd",
]
COLUMNS += ["n_ref", "n_pred", "n_matched", "ref_empty", "pred_empty", "height", "width", "spacing_y", "spacing_x"]


def random_pair(shape: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth masks that overlap, and that touch the image border with many seeds."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=shape), 3)
    other = field + 0.7 * ndimage.gaussian_filter(rng.normal(size=shape), 3)
    return field > np.quantile(field, 0.7), other > np.quantile(other, 0.75)


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def brute_force(reference: np.ndarray, prediction: np.ndarray, spacing: tuple[float, float], tolerance: float) -> dict:
    """All distances between all boundary pixels, with scipy's erosion for the boundary."""
    a, b = (np.argwhere(mask & ~ndimage.binary_erosion(mask)) * spacing for mask in (reference, prediction))
    distances = cdist(a, b)
    there, back = distances.min(axis=1), distances.min(axis=0)
    together = np.concatenate([there, back])
    return {
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "hd": together.max(),
        "asd": together.mean(),
        "nsd": np.mean(together <= tolerance + 1e-9),
    }


def test_columns_and_their_order() -> None:
    assert list(SCORE_COLUMNS) == COLUMNS
    row = score_case(np.eye(4, dtype=bool), np.eye(4, dtype=bool))
    assert list(row) == COLUMNS


def test_values_are_plain_python() -> None:
    row = score_case(*random_pair((20, 30), 0), spacing=(0.1, 0.2))
    assert {type(value) for value in row.values()} == {int, float, bool}
    assert type(row["ref_empty"]) is bool
    assert (row["height"], row["width"], row["spacing_y"], row["spacing_x"]) == (20, 30, 0.1, 0.2)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(16, 16), (33, 17), (1, 40), (64, 51)])
def test_pixel_scores_agree_with_scikit_learn(shape: tuple[int, int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, prediction = rng.uniform(size=(2, *shape)) < rng.uniform(0.2, 0.8, size=(2, 1, 1))
    row = score_case(reference, prediction)
    truth, guess = reference.ravel(), prediction.ravel()
    assert row["dice"] == pytest.approx(f1_score(truth, guess))
    assert row["iou"] == pytest.approx(jaccard_score(truth, guess))
    assert row["precision"] == pytest.approx(precision_score(truth, guess))
    assert row["recall"] == pytest.approx(recall_score(truth, guess))
    assert row["specificity"] == pytest.approx(recall_score(truth, guess, pos_label=False))
    assert row["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    expected = confusion_matrix(truth, guess, labels=[False, True])
    assert [row["tn"], row["fp"], row["fn"], row["tp"]] == expected.ravel().tolist()


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.3, 1.7), (2.5, 0.4)])
@pytest.mark.parametrize("shape", [(48, 48), (61, 37), (20, 75)])
@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_monai(shape: tuple[int, int], spacing: tuple[float, float] | None, seed: int) -> None:
    reference, prediction = random_pair(shape, seed)
    row = score_case(reference, prediction, spacing=spacing, policy=ScoringPolicy(nsd_tolerance=1.5))
    y = torch.from_numpy(reference)[None, None]
    y_pred = torch.from_numpy(prediction)[None, None]
    for name, metric in {
        "hd95": HausdorffDistanceMetric(include_background=True, percentile=95),
        "asd": SurfaceDistanceMetric(include_background=True, symmetric=True),
        "nsd": SurfaceDiceMetric(class_thresholds=[1.5], include_background=True),
    }.items():
        value = metric(y_pred=y_pred, y=y, spacing=spacing)
        assert row[name] == pytest.approx(value.item(), abs=1e-4), name


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.2, 1.3)])
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_distances_agree_with_brute_force(spacing: tuple[float, float], tolerance: float, seed: int) -> None:
    reference, prediction = random_pair((23, 18), seed)
    row = score_case(reference, prediction, spacing=spacing, policy=ScoringPolicy(nsd_tolerance=tolerance))
    expected = brute_force(reference, prediction, spacing, tolerance)
    for name in ("hd95", "asd", "nsd"):
        assert row[name] == pytest.approx(expected[name], abs=1e-9), name


@pytest.mark.parametrize("seed", range(4))
def test_largest_distance_agrees_with_scikit_image(seed: int) -> None:
    reference, prediction = random_pair((30, 25), seed)
    distances = surface_distances(reference, prediction, spacing=(1.0, 1.0))
    expected = skimage.metrics.hausdorff_distance(boundary(reference), boundary(prediction))
    assert distances.hausdorff(100) == pytest.approx(expected)
    assert distances.hausdorff(95) <= distances.hausdorff(100)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 1), (2, 2), (3, 3), (16, 21)])
def test_boundary_is_what_erosion_takes_away(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for mask in (np.ones(shape, dtype=bool), rng.uniform(size=shape) < 0.8):
        np.testing.assert_array_equal(boundary(mask), mask ^ ndimage.binary_erosion(mask))


def test_objects_at_the_image_border() -> None:
    reference, prediction = np.zeros((2, 40, 30), dtype=bool)
    reference[:10, :], prediction[:13, 2:] = True, True
    row = score_case(reference, prediction, spacing=(0.5, 2.0))
    expected = brute_force(reference, prediction, (0.5, 2.0), 2.0)
    y, y_pred = (torch.from_numpy(mask)[None, None] for mask in (reference, prediction))
    monai = HausdorffDistanceMetric(include_background=True, percentile=95)(y_pred=y_pred, y=y, spacing=(0.5, 2.0))
    assert row["hd95"] == pytest.approx(expected["hd95"]) == pytest.approx(monai.item(), abs=1e-4)
    assert row["asd"] == pytest.approx(expected["asd"])
    assert row["nsd"] == pytest.approx(expected["nsd"])


def test_moving_an_object_keeps_its_scores() -> None:
    shape = (60, 80)
    first = score_case(disc(shape, (20, 20), 9), disc(shape, (23, 21), 8), spacing=(0.7, 0.3))
    second = score_case(disc(shape, (35, 60), 9), disc(shape, (38, 61), 8), spacing=(0.7, 0.3))
    assert second == pytest.approx(first)


def test_spacing_is_y_then_x() -> None:
    reference, prediction = np.zeros((2, 10, 20), dtype=bool)
    reference[2, 3], prediction[5, 3] = True, True
    assert score_case(reference, prediction, spacing=(2.0, 100.0))["hd95"] == pytest.approx(6.0)
    assert score_case(reference, prediction)["hd95"] == pytest.approx(3.0)


def test_tolerance_includes_its_own_value_despite_rounding() -> None:
    reference, prediction = np.zeros((2, 40, 4), dtype=bool)
    reference[0, 0], prediction[3, 0] = True, True
    assert 3 * 0.1 > 0.3  # the rounding in question
    assert score_case(reference, prediction, spacing=(0.1, 1), policy=ScoringPolicy(nsd_tolerance=0.3))["nsd"] == 1.0
    assert score_case(reference, prediction, spacing=(0.1, 1), policy=ScoringPolicy(nsd_tolerance=0.29))["nsd"] == 0.0


# Every row of the policy's table: a mask of 3 x 4 pixels of 2 x 3 mm has a diagonal of hypot(6, 12) mm.
DIAGONAL = math.hypot(6, 12)
NOTHING = np.zeros((3, 4), dtype=bool)
EVERYTHING = np.ones((3, 4), dtype=bool)
SOME = np.zeros((3, 4), dtype=bool)
SOME[1, 1:3] = True
RIGHT = {
    "dice": 1,
    "iou": 1,
    "precision": 1,
    "recall": 1,
    "specificity": 1,
    "accuracy": 1,
    "hd95": 0,
    "asd": 0,
    "nsd": 1,
}
WRONG = {"dice": 0, "iou": 0, "precision": 0, "recall": 0, "hd95": DIAGONAL, "asd": DIAGONAL, "nsd": 0}


@pytest.mark.parametrize(
    ("reference", "prediction", "expected", "components"),
    [
        pytest.param(NOTHING, NOTHING, RIGHT, (0, 0, 0), id="both empty"),
        pytest.param(SOME, NOTHING, {**WRONG, "specificity": 1, "accuracy": 10 / 12}, (1, 0, 0), id="missed"),
        pytest.param(
            NOTHING, SOME, {**WRONG, "specificity": 10 / 12, "accuracy": 10 / 12}, (0, 1, 0), id="false alarm"
        ),
        pytest.param(EVERYTHING, NOTHING, {**WRONG, "specificity": 1, "accuracy": 0}, (1, 0, 0), id="missed all"),
        pytest.param(NOTHING, EVERYTHING, {**WRONG, "specificity": 0, "accuracy": 0}, (0, 1, 0), id="alarm everywhere"),
        pytest.param(EVERYTHING, EVERYTHING, RIGHT, (1, 1, 1), id="everything"),
        pytest.param(SOME, SOME, RIGHT, (1, 1, 1), id="perfect"),
    ],
)
def test_policy_table(reference: np.ndarray, prediction: np.ndarray, expected: dict, components: tuple) -> None:
    row = score_case(reference, prediction, spacing=(2.0, 3.0))
    assert {name: row[name] for name in METRICS} == pytest.approx(expected)
    assert (row["n_ref"], row["n_pred"], row["n_matched"]) == components
    assert (row["ref_empty"], row["pred_empty"]) == (not reference.any(), not prediction.any())


def test_all_foreground_reference_and_part_of_it_found() -> None:
    row = score_case(EVERYTHING, SOME)
    assert row["specificity"] == 1.0
    assert row["precision"] == 1.0
    assert row["recall"] == pytest.approx(2 / 12)
    assert row["hd95"] < 5.0


def test_all_foreground_prediction() -> None:
    row = score_case(SOME, EVERYTHING)
    assert row["specificity"] == 0.0
    assert row["recall"] == 1.0
    assert row["precision"] == pytest.approx(2 / 12)


def test_diagonal_is_in_pixels_without_spacing() -> None:
    row = score_case(SOME, NOTHING)
    assert row["hd95"] == row["asd"] == 5.0
    assert math.isnan(row["spacing_y"])
    assert math.isnan(row["spacing_x"])


@pytest.mark.parametrize("spacing", [None, (0.2, 3.0)])
def test_no_prediction_is_worse_than_none(spacing: tuple[float, float] | None) -> None:
    """The two pixels that lie farthest apart still score better than a miss."""
    reference, prediction = np.zeros((2, 9, 14), dtype=bool)
    reference[0, 0], prediction[-1, -1] = True, True
    far, miss = (score_case(reference, p, spacing=spacing) for p in (prediction, np.zeros_like(prediction)))
    assert far["hd95"] < miss["hd95"]
    assert far["asd"] < miss["asd"]
    assert far["dice"] == miss["dice"] == 0


def test_nothing_is_nan_but_unknown_spacing() -> None:
    rng = np.random.default_rng(0)
    masks = [rng.uniform(size=(6, 5)) < density for density in (0, 0, 0.05, 0.3, 0.9, 1) for _ in range(3)]
    for reference in masks:
        for prediction in masks:
            row = score_case(reference, prediction, spacing=(0.5, 0.5))
            assert all(math.isfinite(value) for value in row.values())
            assert row["n_matched"] <= min(row["n_ref"], row["n_pred"])
            swapped = score_case(prediction, reference, spacing=(0.5, 0.5))
            for name in ("dice", "iou", "accuracy", "hd95", "asd", "nsd", "n_matched"):
                assert row[name] == pytest.approx(swapped[name]), name


def test_inputs_are_left_alone() -> None:
    reference, prediction = random_pair((20, 20), 1)
    before = reference.copy(), prediction.copy()
    score_case(reference, prediction)
    np.testing.assert_array_equal(before[0], reference)
    np.testing.assert_array_equal(before[1], prediction)


def test_zero_and_one_of_any_type_are_a_mask() -> None:
    reference, prediction = random_pair((20, 20), 1)
    expected = score_case(reference, prediction, spacing=(1, 1))
    assert score_case(reference.astype(np.uint8), prediction.astype(np.float32), spacing=(1, 1)) == expected


@pytest.mark.parametrize(
    ("reference", "prediction", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), "must be the same"),
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), r"\(H, W\)"),
        (np.zeros(4), np.zeros(4), r"\(H, W\)"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "no pixel"),
        (np.full((4, 4), 255, dtype=np.uint8), np.zeros((4, 4)), "reference must be bool or hold only 0 and 1"),
        (np.zeros((4, 4)), np.full((4, 4), 0.5), "prediction must be bool or hold only 0 and 1"),
        (np.zeros((4, 4)), np.full((4, 4), np.nan), "prediction must be bool"),
    ],
)
def test_bad_masks_are_refused(reference: np.ndarray, prediction: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_case(reference, prediction)


@pytest.mark.parametrize("spacing", [(0, 1), (1, -1), (math.nan, 1), (1, math.inf), (1, 1, 1), (1,)])
def test_bad_spacing_is_refused(spacing: tuple) -> None:
    with pytest.raises(ValueError, match="positive, finite"):
        score_case(SOME, SOME, spacing=spacing)


def test_distance_to_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        surface_distances(SOME, NOTHING, spacing=(1.0, 1.0))


def test_the_package_needs_neither_torch_nor_monai() -> None:
    code = "import sys, monai_thyroid.metrics; print([m for m in ('torch', 'monai', 'matplotlib') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("density", [0.1, 0.3, 0.6])
@pytest.mark.parametrize("connectivity", [4, 8])
def test_components_agree_with_scikit_image(density: float, connectivity: int) -> None:
    rng = np.random.default_rng(3)
    reference, prediction = rng.uniform(size=(2, 41, 57)) < density
    row = score_case(reference, prediction, policy=ScoringPolicy(connectivity=connectivity))
    for mask, column in ((reference, "n_ref"), (prediction, "n_pred")):
        assert row[column] == skimage.measure.label(mask, connectivity=connectivity // 4).max()
