"""What goes by validations does so when there is one, and there is always one at the end."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from torch.optim.lr_scheduler import ConstantLR, ReduceLROnPlateau

from monai_thyroid.training import LastValidation, LrSchedule


class Validator(SupervisedEvaluator):
    """Counts its runs; its loss is what it is given."""

    def __init__(self, losses: list[float]) -> None:
        network = torch.nn.Identity()
        super().__init__(device=torch.device("cpu"), val_data_loader=[], network=network, epoch_length=1)
        self.losses = losses
        self.epochs: list[int] = []

    def run(self, global_epoch: int = 1) -> None:
        self.epochs.append(global_epoch)
        self.state.epoch = global_epoch
        self.state.metrics = {"val_loss": self.losses[len(self.epochs) - 1]}


def train(validator: Validator, *handlers: Any, interval: int, epochs: int) -> None:
    trainer = Engine(lambda *_: None)
    for handler in (ValidationHandler(interval, validator), *handlers):
        handler.attach(trainer)
    trainer.run([0], max_epochs=epochs)


@pytest.mark.parametrize(
    ("interval", "epochs", "expected"), [(1, 3, [1, 2, 3]), (2, 4, [2, 4]), (2, 5, [2, 4, 5]), (5, 3, [3])]
)
def test_the_last_epoch_is_validated_once(interval: int, epochs: int, expected: list[int]) -> None:
    validator = Validator([1.0] * epochs)
    train(validator, LastValidation(validator=validator), interval=interval, epochs=epochs)
    assert validator.epochs == expected


@pytest.fixture
def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@pytest.mark.parametrize(("epochs", "expected"), [(5, 1.0), (6, 0.1)])
def test_a_schedule_that_follows_the_loss_steps_after_validations(
    optimizer: torch.optim.Optimizer, epochs: int, expected: float
) -> None:
    validator = Validator([1.0, 2.0, 2.0])
    scheduler = ReduceLROnPlateau(optimizer, factor=0.1, patience=1)
    train(
        validator,
        LrSchedule(lr_scheduler=scheduler, validator=validator, metric="val_loss"),
        interval=2,
        epochs=epochs,
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


def test_any_other_schedule_steps_after_each_epoch(optimizer: torch.optim.Optimizer) -> None:
    validator = Validator([1.0])
    scheduler = ConstantLR(optimizer, factor=0.5, total_iters=3)
    train(validator, LrSchedule(lr_scheduler=scheduler, validator=validator, metric="val_loss"), interval=9, epochs=4)
    assert scheduler.last_epoch == 4
    assert optimizer.param_groups[0]["lr"] == 1.0
