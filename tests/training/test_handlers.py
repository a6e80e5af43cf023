from __future__ import annotations

import math
import random

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_thyroid.training.handlers import EarlyStop, reseed


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
