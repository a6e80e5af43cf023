from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events

from monai_thyroid.training.handlers import EarlyStop, StepLog, reseed
from monai_thyroid.training.recorder import Recorder


def _trainer_and_validator(scores: list[float], interval: int = 1) -> tuple[Engine, Engine]:
    """A trainer that validates every ``interval`` epochs and gets the given scores."""
    trainer, validator = Engine(lambda engine, batch: None), Engine(lambda engine, batch: None)
    validator.state.metrics = {}
    left = iter(scores)

    @trainer.on(Events.EPOCH_COMPLETED(every=interval))
    def validate(engine: Engine) -> None:
        validator.state.epoch = engine.state.epoch
        validator.state.metrics["val_dice"] = next(left)

    return trainer, validator


def test_early_stop_counts_validations_without_a_rise() -> None:
    trainer, validator = _trainer_and_validator([0.1, 0.3, 0.3, 0.2, 0.9])
    EarlyStop(validator=validator, metric="val_dice", patience=2).attach(trainer)
    trainer.run([0], max_epochs=5)
    assert trainer.state.epoch == 4


def test_early_stop_ignores_epochs_without_validation() -> None:
    trainer, validator = _trainer_and_validator([0.5, 0.4, 0.3], interval=2)
    stop = EarlyStop(validator=validator, metric="val_dice", patience=2)
    stop.attach(trainer)
    trainer.run([0], max_epochs=9)
    assert trainer.state.epoch == 6
    assert stop.exhausted


def test_early_stop_goes_on_where_its_state_was_taken() -> None:
    trainer, validator = _trainer_and_validator([0.5, 0.4])
    stop = EarlyStop(validator=validator, metric="val_dice", patience=2)
    stop.attach(trainer)
    trainer.run([0], max_epochs=2)
    assert not stop.exhausted
    other = EarlyStop(validator=validator, metric="val_dice", patience=2)
    other.load_state_dict(stop.state_dict())
    assert (other.best, other.counter) == (0.5, 1)


def test_a_nan_score_is_not_a_rise() -> None:
    trainer, validator = _trainer_and_validator([math.nan, math.nan, 0.5])
    EarlyStop(validator=validator, metric="val_dice", patience=2).attach(trainer)
    trainer.run([0], max_epochs=3)
    assert trainer.state.epoch == 2


def test_reseeding_depends_on_seed_and_epoch_alone() -> None:
    def draw(seed: int, epoch: int) -> tuple[float, float, float]:
        reseed(seed, epoch)
        return random.random(), float(np.random.rand()), float(torch.rand(1))

    first = draw(3, 7)
    torch.rand(5)
    assert draw(3, 7) == first
    for other in (draw(3, 8), draw(4, 7), draw(7, 3)):
        assert not set(other) & set(first)


def test_the_log_says_that_training_moves(caplog: pytest.LogCaptureFixture) -> None:
    trainer = Engine(lambda engine, batch: None)
    StepLog(every=0).attach(trainer)
    with caplog.at_level("INFO", logger="monai_thyroid"):
        trainer.run([0, 1, 2], max_epochs=2)
    lines = [line for line in caplog.messages if "step" in line]
    assert lines[0].startswith("First training step done after")
    assert lines[1].startswith("epoch 1: step 2 of 3, ")
    assert len([line for line in lines if line.startswith("First")]) == 1
    caplog.clear()
    StepLog(every=60).attach(trainer := Engine(lambda engine, batch: None))
    with caplog.at_level("INFO", logger="monai_thyroid"):
        trainer.run([0, 1, 2], max_epochs=2)
    assert len([line for line in caplog.messages if "step" in line]) == 1


def test_a_trainer_knows_its_recorder() -> None:
    with pytest.raises(ValueError, match="needs a Recorder"):
        Recorder.of(Engine(lambda engine, batch: None))
