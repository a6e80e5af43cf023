from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_thyroid.data import ResidentDataset, ResidentLoader
from monai_thyroid.training import EarlyStop, Recorder, WeightAverage
from monai_thyroid.training import recorder as recording

STEPS = 60


def trained(
    folder: Any, *, losses: Any = None, averaged: bool = False, dice: Sequence[float] = (0.5, 0.5)
) -> tuple[nn.Module, Recorder, SupervisedTrainer]:
    """An epoch for each validation Dice, of a small network on bytes in memory; its losses may be given instead of
    computed.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2 * STEPS - 1, 1, 8, 8), generator=generator, dtype=torch.uint8)
    dataset = ResidentDataset.of_tensors(images, (images > 128).to(torch.uint8))
    loader = ResidentLoader(dataset, batch_size=2, seed=0, shuffle=True)
    torch.manual_seed(0)
    network = nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    average = WeightAverage(network, decay=0.9) if averaged else None
    validator = Engine(lambda engine, batch: None)
    validator.state.metrics = {"val_loss": 0.5, "val_iou": 0.5}
    recorder = Recorder(
        folder=folder,
        seed=0,
        network=network,
        optimizer=optimizer,
        lr_scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0),
        early_stop=EarlyStop(validator=validator, metric="val_dice", patience=9),
        validator=validator,
        dataset=loader,
        average=average,
    )
    loss = nn.BCEWithLogitsLoss()
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=len(dice),
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss if losses is None else lambda *pair: loss(*pair) * 0 + next(losses),
        decollate=False,
        train_handlers=[*([average] if average else []), recorder],
    )

    @trainer.on(Events.EPOCH_STARTED)
    def validated() -> None:
        validator.state.epoch = trainer.state.epoch
        validator.state.metrics["val_dice"] = dice[trainer.state.epoch - 1]

    trainer.run()
    return network, recorder, trainer


def test_the_loss_of_an_epoch_is_the_mean_over_its_images(tmp_path: Path) -> None:
    """The last batch has one image, the others two."""
    rows: list[Any] = []
    folder = SimpleNamespace(writes=True, append=rows.append, model=tmp_path / "model.pt", last=tmp_path / "last.pt")
    trained(folder, losses=iter([*[1.0] * (STEPS - 1), 7.0, *[0.25] * STEPS]))
    assert rows[0].train_loss == pytest.approx((2 * (STEPS - 1) + 7) / (2 * STEPS - 1), rel=1e-6)
    assert rows[1].train_loss == 0.25
    assert [row.epoch for row in rows] == [1, 2]


@pytest.mark.parametrize(("at", "said"), [(3, "epoch 1, by iteration 50"), (55, "epoch 1, by iteration 60")])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_no_number_ends_the_training_before_anything_is_written(
    at: int, said: str, value: str, tmp_path: Path
) -> None:
    folder = SimpleNamespace(writes=True, append=None, model=tmp_path / "model.pt", last=tmp_path / "last.pt")
    losses = iter([*[1.0] * at, float(value), *[1.0] * 200])
    with pytest.raises(FloatingPointError, match=f"the training loss became {value} in {said}"):
        trained(folder, losses=losses)
    assert not list(tmp_path.iterdir())


def test_averaged_weights_are_delivered_and_the_others_go_on(tmp_path: Path) -> None:
    folder = SimpleNamespace(
        writes=True, append=lambda row: None, model=tmp_path / "model.pt", last=tmp_path / "last.pt"
    )
    network, recorder, _ = trained(folder, averaged=True)
    last = torch.load(folder.last, weights_only=True)
    assert torch.equal(last["network"]["weight"], network.weight)
    average = last["recorder"]["average"]
    assert average["updates"] == 2 * STEPS
    assert not torch.equal(average["network"]["weight"], network.weight)
    # Its Dice did not rise after the first epoch, whose average is therefore the best.
    model = torch.load(folder.model, weights_only=True)
    assert not torch.equal(model["weight"], average["network"]["weight"])
    assert recorder.best_epoch == 1
    again, other, _ = trained(SimpleNamespace(writes=False), averaged=True)
    other.load_state_dict(last["recorder"])
    assert torch.equal(other.delivered.weight, average["network"]["weight"])
    assert torch.equal(again.weight, network.weight)


def test_checkpoints_that_take_longer_than_epochs_are_written_now_and_then_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They hold what they would have held, the best weights of an epoch that wrote nothing among it."""
    written: list[tuple[str, int]] = []
    rows: list[Any] = []
    save = recording.save

    def training(name: str) -> Any:
        (tmp_path / name).mkdir()
        paths = {file: tmp_path / name / f"{file}.pt" for file in ("model", "last")}
        folder = SimpleNamespace(writes=True, append=rows.append, **paths)
        trained(folder, dice=(0.1, 0.2, 0.9, 0.3, 0.4))
        return folder

    def slow(content: dict[str, Any], path: Path) -> None:
        time.sleep(0.5)
        save(content, path)
        written.append((path.name, rows[-1].epoch))

    folders = [training("each")]
    monkeypatch.setattr(recording, "save", slow)
    monkeypatch.setattr(recording, "_FREE_SECONDS", 0.0)
    folders.append(training("seldom"))
    assert written == [("model.pt", 1), ("last.pt", 1), ("model.pt", 5), ("last.pt", 5)]
    models = [torch.load(folder.model, weights_only=True) for folder in folders]
    lasts = [torch.load(folder.last, weights_only=True) for folder in folders]
    assert torch.equal(models[0]["weight"], models[1]["weight"])
    for last in lasts:
        assert (last["epoch"], last["recorder"]["best_epoch"]) == (5, 3)
        assert torch.equal(last["network"]["weight"], lasts[0]["network"]["weight"])
    assert not torch.equal(models[1]["weight"], lasts[1]["network"]["weight"])
