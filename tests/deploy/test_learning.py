"""Which image a model is least sure of, and training it on with what was annotated."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from monai_thyroid.deploy.learning import rank, uncertainty


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers], np.uint8)


def opinions(*masks: np.ndarray, classes: int = 1) -> Any:
    """What stands in for a predictor whose members have these masks."""
    return SimpleNamespace(opinions=lambda images: [list(masks)], classes=["class"] * classes)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([row(1, 1, 0, 0), row(1, 1, 0, 0)], 0.0),
        ([row(1, 1, 0, 0), row(0, 0, 1, 1)], 1.0),
        ([row(1, 1, 0, 0), row(0, 1, 1, 0)], 0.5),  # Dice 2 * 1 / 4
        ([row(1, 1, 0, 0), row(0, 1, 1, 0), row(1, 1, 0, 0)], 1 - (0.5 + 1 + 0.5) / 3),
        ([row(0, 0, 0, 0), row(0, 0, 0, 0)], 0.0),  # sure that there is nothing
        ([row(0, 0, 0, 0), row(0, 0, 0, 1)], 1.0),
    ],
)
def test_uncertainty_is_what_the_masks_do_not_agree_on(masks: list[np.ndarray], expected: float) -> None:
    assert uncertainty(opinions(*masks), np.zeros((1, 4), np.uint8)) == pytest.approx(expected)


def test_classes_that_no_mask_marks_say_nothing() -> None:
    masks = row(1, 1, 0, 0), row(0, 1, 1, 0)
    assert uncertainty(opinions(*masks, classes=4), np.zeros((1, 4), np.uint8)) == 0.5
    both = row(1, 1, 2, 2), row(1, 1, 2, 0)  # 1 and 2/3
    assert uncertainty(opinions(*both, classes=2), np.zeros((1, 4), np.uint8)) == pytest.approx(1 / 6)


def test_the_least_agreed_come_first_and_ties_in_natural_order() -> None:
    assert rank({"b10": 0.5, "b2": 0.5, "a": 0.0, "c": 1.0}) == ["c", "b2", "b10", "a"]
    assert rank({}) == []
    with pytest.raises(ValueError, match=r"those of a, b are not"):
        rank({"a": float("nan"), "b": 1.5, "c": 0.5})
