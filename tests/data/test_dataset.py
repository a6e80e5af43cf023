"""The training dataset: what an epoch draws depends on (seed, epoch, item) and on nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import (
    Compose,
    Lambdad,
    OneOf,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    Resized,
)
from PIL import Image

from monai_thyroid.data import SeededCacheDataset
from monai_thyroid.transforms import LoadMaskd, LoadScand

COUNT = 6


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("scans")
    found = []
    for index in range(COUNT):
        image = np.random.RandomState(index).randint(0, 100, (37, 53)).astype(np.uint8)
        image[index : 12 + index, 5 : 20 + index] += 150
        paths = {"image": folder / f"{index}.png", "label": folder / f"{index}_mask.png"}
        Image.fromarray(image).save(paths["image"])
        Image.fromarray((image > 128) * np.uint8(255)).save(paths["label"])
        found.append({key: str(path) for key, path in paths.items()})
    return found


def transforms() -> list:
    keys = ["image", "label"]
    return [
        LoadScand("image"),
        LoadMaskd("label"),
        Resized(keys, spatial_size=(32, 32), mode=("bilinear", "nearest")),
        RandFlipd(keys, spatial_axis=0, prob=0.5),
        RandAffined(keys, prob=0.8, rotate_range=0.3, translate_range=(3, 3), mode=("bilinear", "nearest")),
        OneOf([RandScaleIntensityd("image", factors=0.2, prob=1), RandGaussianNoised("image", prob=1)]),
    ]


def dataset(items: Sequence[dict[str, str]], *, seed: int = 0, epoch: int = 1) -> SeededCacheDataset:
    made = SeededCacheDataset(items, Compose(transforms()), seed=seed)
    made.set_epoch(epoch)
    return made


def drawn(data: SeededCacheDataset, *, workers: int = 0, shuffled: bool = False) -> torch.Tensor:
    """Everything an epoch gives, in the order of the items: (items, 2, 32, 32)."""
    loader = DataLoader(data, batch_size=2, num_workers=workers, shuffle=shuffled)
    return torch.cat([torch.cat([batch["image"], batch["label"]], dim=1).as_tensor() for batch in loader])


def test_an_epoch_is_the_same_for_any_number_of_workers(items: list[dict[str, str]]) -> None:
    data = dataset(items)
    alone = drawn(data)
    assert torch.equal(drawn(data, workers=2), alone)
    assert torch.equal(drawn(dataset(items), workers=1), alone)
    for epoch in (2, 3):
        data.set_epoch(epoch)
        assert torch.equal(drawn(data, workers=2), drawn(dataset(items, epoch=epoch)))


def test_what_happened_before_does_not_matter(items: list[dict[str, str]]) -> None:
    fresh = drawn(dataset(items, epoch=5))
    used = dataset(items, epoch=1)
    drawn(used)
    np.random.seed(99)
    torch.manual_seed(99)
    drawn(used)
    used.set_epoch(5)
    for index in reversed(range(COUNT)):
        item = used[index]
        assert torch.equal(torch.cat([item["image"], item["label"]]).as_tensor(), fresh[index])


def test_an_item_asked_for_again_within_an_epoch_is_the_same(items: list[dict[str, str]]) -> None:
    data = dataset(items)
    first = data[3]["image"].clone()
    data[1], data[4]
    assert torch.equal(data[3]["image"], first)
    assert torch.equal(data[3 - COUNT]["image"], first)
    # the cached part must not have been changed by the transforms that followed it
    data.set_epoch(2)
    assert not torch.equal(data[3]["image"], first)
    data.set_epoch(1)
    assert torch.equal(data[3]["image"], first)


def test_epochs_seeds_and_items_differ(items: list[dict[str, str]]) -> None:
    draws = [drawn(dataset(items, seed=seed, epoch=epoch)) for seed, epoch in ((0, 1), (0, 2), (1, 1), (1, 2))]
    for index, one in enumerate(draws):
        for other in draws[:index]:
            assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))
    # two copies of one file are augmented apart
    twins = dataset([items[0], items[0]])
    assert not torch.equal(twins[0]["image"], twins[1]["image"])


def test_the_seed_and_the_epoch_cannot_be_traded(items: list[dict[str, str]]) -> None:
    assert not torch.equal(drawn(dataset(items, seed=1, epoch=2)), drawn(dataset(items, seed=2, epoch=1)))


def test_augmentation_keeps_image_and_mask_together(items: list[dict[str, str]]) -> None:
    geometric = [transform for transform in transforms() if not isinstance(transform, OneOf)]
    data = SeededCacheDataset(items, [*geometric, Lambdad("image", lambda image: (image > 0.5).float())], seed=0)
    for epoch in range(1, 4):
        data.set_epoch(epoch)
        for item in data:
            agreement = (item["image"] == item["label"]).float().mean()
            assert agreement > 0.8  # noise of one pixel: interpolation turns some of it over


def test_what_precedes_the_first_random_transform_is_computed_once(items: list[dict[str, str]]) -> None:
    calls = []

    def count(image: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return image

    data = SeededCacheDataset(items, [*transforms()[:3], Lambdad("image", count), *transforms()[3:]], seed=0)
    for epoch in range(3):
        data.set_epoch(epoch)
        drawn(data)
    assert len(calls) == COUNT


def test_a_single_transform_will_do(items: list[dict[str, str]]) -> None:
    flip = RandFlipd("x", prob=0.5, spatial_axis=0)
    numbers = [{"x": torch.arange(3.0)[None]}] * 20
    one, several = SeededCacheDataset(numbers, flip, seed=0), SeededCacheDataset(numbers, [flip], seed=0)
    flipped = [float(item["x"][0, 0]) == 2 for item in one]
    assert flipped == [float(item["x"][0, 0]) == 2 for item in several]
    assert 0 < sum(flipped) < 20


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(Exception, match="applying transform") as caught:
        SeededCacheDataset([{"image": str(tmp_path / "broken.png")}], [LoadScand("image")], seed=0)
    assert "broken.png" in str(caught.value.__cause__)
