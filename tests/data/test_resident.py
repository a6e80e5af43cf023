from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.transforms import RandFlipd, Resized
from PIL import Image

from monai_thyroid.data import ResidentDataset, ResidentLoader, resident
from monai_thyroid.errors import UserError
from monai_thyroid.transforms import BatchAugmentation, LoadMaskd, LoadScand


@pytest.fixture
def items(tmp_path: Path) -> list[dict[str, str]]:
    """Seven scans of 20 x 12 (width x height): a bright block whose width is the number of the scan, plus one."""
    found = []
    for index in range(7):
        pixels = np.full((12, 20), 40, np.uint8)
        pixels[2:5, : index + 1] = 200
        image, label = tmp_path / f"{index}.png", tmp_path / f"{index}-mask.png"
        Image.fromarray(pixels).save(image)
        Image.fromarray((pixels > 100).astype(np.uint8) * 255).save(label)
        found.append({"image": str(image), "label": str(label), "case": str(index)})
    return found


LOADING = [LoadScand("image", channels=1), LoadMaskd("label", classes=1)]


def widths(batch: dict[str, torch.Tensor]) -> list[int]:
    return batch["label"][:, 0, :, 3].sum(1).int().tolist()


def test_images_are_kept_exactly(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)
    assert len(dataset) == 7
    assert dataset.images.shape == (7, 1, 20, 12)
    assert dataset.images.dtype == dataset.labels.dtype == torch.uint8
    item = dataset[4]
    pixels = np.asarray(Image.open(items[4]["image"]))
    np.testing.assert_array_equal((item["image"][0] * 255).round().numpy().T, pixels)
    np.testing.assert_array_equal(item["label"][0].numpy().T, pixels > 100)
    assert item["image"].dtype == item["label"].dtype == torch.float32
    assert type(item["image"]) is torch.Tensor


def test_statistics_are_those_of_all_pixels(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, [LoadScand("image", channels=3), LoadMaskd("label")])
    pixels = dataset.images.double() / 255
    statistics = dataset.statistics()
    np.testing.assert_allclose(statistics["mean"], pixels.mean((0, 2, 3)), atol=1e-12)
    np.testing.assert_allclose(statistics["std"], pixels.std((0, 2, 3), correction=0), atol=1e-12)
    (batch,) = ResidentLoader(dataset, batch_size=7, **statistics)
    torch.testing.assert_close(batch["image"].mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(batch["image"].std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_an_epoch_holds_each_image_once_in_an_order_of_its_own(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)
    loader = ResidentLoader(dataset, batch_size=3, seed=1, shuffle=True)
    epochs = []
    for epoch in (1, 2):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert [len(batch["image"]) for batch in batches] == [3, 3, 1]
        epochs.append([width for batch in batches for width in widths(batch)])
        assert sorted(epochs[-1]) == list(range(1, 8))
    assert epochs[0] != epochs[1]
    again = ResidentLoader(dataset, batch_size=3, seed=1, shuffle=True)
    again.set_epoch(2)
    assert [width for batch in again for width in widths(batch)] == epochs[1]
    assert [width for batch in ResidentLoader(dataset, batch_size=3) for width in widths(batch)] == list(range(1, 8))
    whole = ResidentLoader(dataset, batch_size=3, drop_last=True)
    assert len(whole) == len(list(whole)) == 2


def test_augmentation_is_told_the_epoch_and_comes_before_the_normalisation(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)

    def epoch(number: int) -> torch.Tensor:
        augmentation = BatchAugmentation(seed=0, gain=(2.0, 4.0), probability=1.0)
        loader = ResidentLoader(dataset, batch_size=4, augmentation=augmentation, mean=[0.5], std=[0.1])
        loader.set_epoch(number)
        return torch.cat([batch["image"] for batch in loader])

    assert torch.equal(epoch(3), epoch(3))
    assert not torch.equal(epoch(3), epoch(4))
    assert float(epoch(3).max()) == pytest.approx(5)  # gained beyond 1 and clipped there, then (1 - 0.5) / 0.1


def test_a_monai_trainer_takes_its_batches(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)
    loader = ResidentLoader(dataset, batch_size=3, shuffle=True)
    network = torch.nn.Conv2d(1, 1, 3, padding=1)
    before = network.weight.clone()
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=2,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
        loss_function=torch.nn.BCEWithLogitsLoss(),
        decollate=False,
    )
    trainer.run()
    assert trainer.state.iteration == 6
    assert not torch.equal(network.weight, before)


def test_the_same_from_tensors(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)
    same = ResidentDataset.of_tensors(dataset.images, dataset.labels)
    assert torch.equal(same[[1, 2]]["image"], dataset[[1, 2]]["image"])


def scaled(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "image": item["image"] * 255}


def soft(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "label": item["label"] * 0.5}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([RandFlipd("image", prob=0.5)], "RandFlipd: random transforms cannot be kept"),
        ([scaled], "intensities are 40 to 200 after the transforms"),
        ([soft], "other values than 0 and 1"),
    ],
)
def test_what_cannot_be_kept_is_refused(items: list[dict[str, str]], more: list[Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        ResidentDataset(items, [*LOADING, *more])


def test_sizes_must_agree(items: list[dict[str, str]]) -> None:
    Image.new("L", (21, 12)).save(items[5]["image"])
    with pytest.raises(UserError, match=r"5\.png: image and label are \(1, 21, 12\) and \(1, 20, 12\)"):
        ResidentDataset(items, LOADING)
    resized = [
        Resized(key, spatial_size=(16, 16), mode=mode) for key, mode in (("image", "area"), ("label", "nearest"))
    ]
    assert ResidentDataset(items, [*LOADING, *resized]).images.shape == (7, 1, 16, 16)


def test_what_no_memory_holds_lies_in_a_file(
    items: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resident.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    usual = ResidentDataset(items, LOADING)
    monkeypatch.setattr(resident, "_available_memory", lambda: 4000.0)
    with caplog.at_level("INFO"):
        beyond = ResidentDataset(items, LOADING)
    assert "keeping them in a temporary file" in caplog.text
    assert list((tmp_path / "temporary").iterdir()) == [], "it goes with the process"
    assert torch.equal(beyond.images, usual.images)
    assert beyond.statistics() == usual.statistics()
    assert torch.equal(beyond[[4, 1]]["label"], usual[[4, 1]]["label"])
    caplog.clear()
    assert len(ResidentDataset(items[:6], LOADING)) == 6
    assert "temporary file" not in caplog.text


def test_what_neither_memory_nor_disk_holds_is_said_before_it_is_read(
    items: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_available_memory", lambda: 4000.0)
    monkeypatch.setattr(resident.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4000.0))
    with pytest.raises(UserError, match=r"the images take 0\.0 GB, of memory 0\.0 GB are free and in .* 0\.0 GB"):
        ResidentDataset(items, LOADING)
    assert len(ResidentDataset(items[:6], LOADING)) == 6


def test_several_processes_share_the_images(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)
    seen = []
    for process in range(3):
        loader = ResidentLoader(dataset, batch_size=2, shuffle=True, process=process, processes=3)
        assert len(loader) == 2
        batches = [widths(batch) for batch in loader]
        assert [len(batch) for batch in batches] == [2, 1]
        seen += [width for batch in batches for width in batch]
    assert set(seen) == set(range(1, 8))
    assert len(seen) == 9, "as many each: two are seen twice"


def test_an_epoch_without_a_batch_is_refused(items: list[dict[str, str]]) -> None:
    dataset = ResidentDataset(items, LOADING)
    with pytest.raises(UserError, match="batch_size 8: the part has 7 images"):
        ResidentLoader(dataset, batch_size=8, drop_last=True)


def test_labels_of_an_unpadded_network_are_cut_after_augmentation(items: list[dict[str, str]]) -> None:
    """So that what turns or moves into its field of view is in the label."""
    dataset = ResidentDataset(items, LOADING)
    augmentation = BatchAugmentation(seed=0, flip_horizontal=1.0)
    (whole,) = ResidentLoader(dataset, batch_size=7, augmentation=augmentation)
    (cut,) = ResidentLoader(dataset, batch_size=7, augmentation=augmentation, field_of_view=(16, 4))
    assert torch.equal(cut["image"], whole["image"])
    assert torch.equal(cut["label"], whole["label"][:, :, 2:18, 4:8])
    assert cut["label"].any()
    with pytest.raises(UserError, match=r"field_of_view \(9, 9\): labels of \(20, 12\) pixels"):
        ResidentLoader(dataset, batch_size=7, field_of_view=9)
