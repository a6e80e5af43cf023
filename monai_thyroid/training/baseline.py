"""What the simplest method reaches: one intensity threshold for all images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from monai_thyroid.data import map_files
from monai_thyroid.images import read_mask, read_raster, to_channels

__all__ = ["threshold_baseline"]

_LEVELS = 256


def threshold_baseline(train: Sequence[dict[str, str]], test: Sequence[dict[str, str]]) -> dict[str, Any]:
    """Choose the threshold, and the side of it, that is best on the training images; score it on the test images.

    Args:
        train: items with ``image`` and ``label``.
        test: likewise.

    Returns:
        ``threshold`` in [0, 1], ``foreground`` (``"below"`` or ``"above"``), and the mean Dice over the images of
        each part, ``train_dice`` and ``test_dice``; an image without an object scores 1 where nothing is marked,
        else 0.
    """
    train_dice = np.mean(map_files(_dice_by_threshold, train, "Threshold baseline"), axis=0)
    test_dice = np.mean(map_files(_dice_by_threshold, test, "Threshold baseline"), axis=0)
    side, level = np.unravel_index(int(train_dice.argmax()), train_dice.shape)
    return {
        "threshold": level / (_LEVELS - 1),
        "foreground": ("below", "above")[side],
        "train_dice": float(train_dice[side, level]),
        "test_dice": float(test_dice[side, level]),
    }


def _dice_by_threshold(item: dict[str, str]) -> np.ndarray:
    """Dice of (intensity <= level) and of (intensity >= level) for every level, (2, 256)."""
    grey = to_channels(read_raster(item["image"]).normalised(), 1)
    levels = np.rint(grey * (_LEVELS - 1)).astype(np.int64)
    mask = read_mask(item["label"])
    everything = np.bincount(levels.ravel(), minlength=_LEVELS)
    foreground = np.bincount(levels[mask], minlength=_LEVELS)
    scores = []
    for marked, hit in (
        (everything.cumsum(), foreground.cumsum()),
        (everything[::-1].cumsum()[::-1], foreground[::-1].cumsum()[::-1]),
    ):
        size = marked + mask.sum()
        scores.append(np.where(size > 0, 2 * hit / np.maximum(size, 1), 1.0))
    return np.stack(scores)
