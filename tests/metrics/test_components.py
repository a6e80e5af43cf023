from __future__ import annotations

import itertools

import numpy as np
import pytest
import skimage.measure

from monai_thyroid.metrics import ScoringPolicy
from monai_thyroid.metrics.components import match_components


def draw(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Rectangles (top, left, height, width) on 30 x 40."""
    mask = np.zeros((30, 40), dtype=bool)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask


@pytest.mark.parametrize(
    ("reference", "prediction", "expected"),
    [
        pytest.param(draw((2, 2, 5, 5)), draw((2, 2, 5, 5)), (1, 1, 1), id="found"),
        pytest.param(draw((2, 2, 5, 5)), draw(), (1, 0, 0), id="missed"),
        pytest.param(draw(), draw((2, 2, 5, 5), (20, 20, 3, 3)), (0, 2, 0), id="two false alarms"),
        pytest.param(draw((2, 2, 5, 5)), draw((20, 20, 5, 5)), (1, 1, 0), id="elsewhere"),
        pytest.param(draw((2, 2, 5, 11)), draw((2, 2, 5, 5), (2, 8, 5, 5)), (1, 2, 1), id="split"),
        pytest.param(draw((2, 2, 5, 5), (2, 8, 5, 5)), draw((2, 2, 5, 11)), (2, 1, 1), id="merged"),
        pytest.param(
            draw((2, 2, 5, 5), (2, 20, 5, 5), (20, 2, 4, 4)),
            draw((3, 2, 5, 5), (20, 2, 4, 4), (25, 30, 2, 2)),
            (3, 3, 2),
            id="two of three and a false positive",
        ),
        # Everything is one object that covers all lesions, but none of them is localised by it.
        pytest.param(draw((2, 2, 3, 3), (20, 20, 3, 3)), np.ones((30, 40), dtype=bool), (2, 1, 0), id="everything"),
    ],
)
def test_hand_made_lesions(reference: np.ndarray, prediction: np.ndarray, expected: tuple[int, int, int]) -> None:
    assert match_components(reference, prediction, policy=ScoringPolicy()) == expected


@pytest.mark.parametrize(("length", "found"), [(10, 1), (11, 0)])
def test_threshold_includes_its_own_value(length: int, found: int) -> None:
    reference, prediction = draw((0, 0, 1, 1)), draw((0, 0, 1, length))
    assert match_components(reference, prediction, policy=ScoringPolicy(match_iou=0.1)).n_matched == found


def test_zero_threshold_is_any_overlap() -> None:
    policy = ScoringPolicy(match_iou=0)
    assert match_components(draw((2, 2, 3, 3)), np.ones((30, 40), dtype=bool), policy=policy) == (1, 1, 1)
    assert match_components(draw((2, 2, 3, 3)), draw((10, 10, 3, 3)), policy=policy) == (1, 1, 0)


def test_diagonal_neighbours_are_one_lesion_unless_told() -> None:
    mask = draw((0, 0, 2, 2), (2, 2, 2, 2))
    assert match_components(mask, mask, policy=ScoringPolicy()) == (1, 1, 1)
    assert match_components(mask, mask, policy=ScoringPolicy(connectivity=4)) == (2, 2, 2)


def test_best_pair_does_not_cost_the_others_their_match() -> None:
    """The first prediction overlaps the second lesion most, but only it can be the match of the first lesion."""
    reference = draw((0, 0, 1, 8), (0, 9, 1, 8))
    prediction = draw((0, 5, 1, 8), (0, 14, 1, 8))
    assert match_components(reference, prediction, policy=ScoringPolicy()) == (2, 2, 2)


def best_matching(reference: np.ndarray, prediction: np.ndarray, threshold: float) -> tuple[float, int]:
    """Summed IoU and size of the best matching, by trying every one."""
    a, b = (skimage.measure.label(mask, connectivity=2) for mask in (reference, prediction))
    iou = np.zeros((a.max(), b.max()))
    for i, j in np.ndindex(*iou.shape):
        left, right = a == i + 1, b == j + 1
        iou[i, j] = (left & right).sum() / (left | right).sum()
    iou[(iou < threshold) | (iou == 0)] = 0
    if iou.shape[0] > iou.shape[1]:
        iou = iou.T
    choices = itertools.permutations(range(iou.shape[1]), iou.shape[0])
    return max((sum(iou[range(len(c)), c]), int(np.count_nonzero(iou[range(len(c)), c]))) for c in choices)


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.3])
def test_random_masks_against_every_possible_matching(threshold: float) -> None:
    rng = np.random.default_rng(5)
    several = 0
    for _ in range(150):
        reference, prediction = np.zeros((2, 14, 14), dtype=bool)
        for top, left in rng.integers(1, 11, size=(6, 2)):
            height, width = rng.integers(1, 4, size=2)
            reference[top : top + height, left : left + width] = True
            top, left = np.add((top, left), rng.integers(-1, 2, size=2))
            prediction[top : top + height, left : left + width] = True
        counts = match_components(reference, prediction, policy=ScoringPolicy(match_iou=threshold))
        assert counts.n_matched == best_matching(reference, prediction, threshold)[1]
        several += counts.n_matched >= 2
    assert several > 10


def test_thousands_of_specks_are_quick_to_match() -> None:
    rng = np.random.default_rng(0)
    reference = rng.uniform(size=(256, 256)) < 0.1
    prediction = reference ^ (rng.uniform(size=reference.shape) < 0.05)
    counts = match_components(reference, prediction, policy=ScoringPolicy())
    assert min(counts.n_ref, counts.n_pred) > 4000
    assert 3000 < counts.n_matched <= min(counts.n_ref, counts.n_pred)
