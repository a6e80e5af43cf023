"""The threshold baseline against every threshold tried one by one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from monai_thyroid.training.baseline import threshold_baseline

SHAPE = (17, 23)


def item(folder: Path, name: str, image: np.ndarray, mask: np.ndarray) -> dict[str, str]:
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask * np.uint8(255)).save(folder / f"{name}_mask.png")
    return {"image": str(folder / f"{name}.png"), "label": str(folder / f"{name}_mask.png")}


def scans(folder: Path, part: str, *, count: int, bright: bool) -> tuple[list[dict[str, str]], list[tuple]]:
    """Noisy images whose object is brighter, or darker, than the rest; the last one has no object."""
    items, arrays = [], []
    for index in range(count):
        random = np.random.RandomState(100 * bright + 10 * len(part) + index)
        mask = np.zeros(SHAPE, bool)
        if index < count - 1:
            mask[2 + index : 9 + index, 4 : 15 - index] = True
        image = random.normal(120, 25, SHAPE) + (60 if bright else -60) * mask
        image = np.clip(image, 1, 254).astype(np.uint8)
        items.append(item(folder, f"{part}{index}", image, mask))
        arrays.append((image, mask))
    return items, arrays


def dice_of(arrays: list[tuple], level: int, side: str) -> float:
    scores = []
    for image, mask in arrays:
        marked = image <= level if side == "below" else image >= level
        size = marked.sum() + mask.sum()
        scores.append(2 * (marked & mask).sum() / size if size else 1.0)
    return float(np.mean(scores))


def dice_of_sklearn(arrays: list[tuple], level: int, side: str) -> float:
    marked = [image <= level if side == "below" else image >= level for image, _ in arrays]
    pairs = zip(arrays, marked, strict=True)
    return float(np.mean([f1_score(mask.ravel(), one.ravel(), zero_division=1.0) for (_, mask), one in pairs]))


@pytest.mark.parametrize("bright", [True, False])
def test_it_is_the_best_threshold_of_the_training_images(tmp_path: Path, bright: bool) -> None:
    train, train_arrays = scans(tmp_path, "train", count=4, bright=bright)
    test, test_arrays = scans(tmp_path, "test", count=3, bright=bright)
    found = threshold_baseline(train, test)
    tried = {
        (side, level): dice_of(train_arrays, level, side) for side in ("below", "above") for level in range(0, 256)
    }
    best = max(tried.values())
    level = round(found["threshold"] * 255)
    assert found["foreground"] == ("above" if bright else "below")
    assert found["threshold"] == pytest.approx(level / 255)
    assert found["train_dice"] == pytest.approx(best)
    assert tried[found["foreground"], level] == pytest.approx(best)
    for part, arrays in (("train", train_arrays), ("test", test_arrays)):
        assert found[f"{part}_dice"] == pytest.approx(dice_of_sklearn(arrays, level, found["foreground"]))
    assert 0.5 < found["train_dice"] < 1
    json.dumps(found, allow_nan=False)


def test_images_without_an_object_score_one_where_nothing_is_marked(tmp_path: Path) -> None:
    grey = np.full(SHAPE, 100, np.uint8)
    empty = item(tmp_path, "empty", grey, np.zeros(SHAPE, bool))
    found = threshold_baseline([empty], [empty])
    assert found["train_dice"] == found["test_dice"] == 1
    # a threshold that marks something there must have cost the whole image
    half = np.zeros(SHAPE, bool)
    half[:8] = True
    split = item(tmp_path, "split", np.where(half, 100, 50).astype(np.uint8), half)
    assert threshold_baseline([split], [split, empty])["test_dice"] == pytest.approx(0.5)


def test_a_perfect_threshold_is_perfect(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:9] = True
    for name, image in (("white", mask * np.uint8(255)), ("black", ~mask * np.uint8(255))):
        one = item(tmp_path, name, image, mask)
        assert threshold_baseline([one], [one])["test_dice"] == 1


def test_colour_images_are_compared_as_grey(tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:9] = True
    colour = np.where(mask[..., None], (0, 200, 0), (200, 0, 0)).astype(np.uint8)  # green is brighter than red
    one = item(tmp_path, "colour", colour, mask)
    found = threshold_baseline([one], [one])
    assert (found["foreground"], found["test_dice"]) == ("above", 1.0)
