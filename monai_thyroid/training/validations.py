"""Ignite handlers that go by the validations there are: some options validate only every few epochs."""

from __future__ import annotations

import inspect
from typing import Any

from ignite.engine import Engine, Events
from monai.engines import Evaluator

__all__ = ["LastValidation", "LrSchedule", "validated"]


def validated(validator: Engine, trainer: Engine) -> bool:
    """Whether a validator has run in the trainer's present epoch."""
    return bool(validator.state.epoch == trainer.state.epoch)


class LastValidation:
    """Validate after the last epoch, also where that is no multiple of the interval: what is done has been validated.

    Attach it to the trainer after the `ValidationHandler`.

    Args:
        validator: the evaluator to run.
    """

    def __init__(self, *, validator: Evaluator) -> None:
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer's epochs."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate if this was the last epoch and nobody has."""
        if engine.state.epoch == engine.state.max_epochs and not validated(self.validator, engine):
            self.validator.run(engine.state.epoch)


class LrSchedule:
    """Step a learning-rate scheduler after each epoch; one that follows a metric, after each validation.

    Attach it to the trainer after the validations. MONAI's `LrScheduleHandler` asks for the metric also in epochs
    without a validation, where there is none or an old one.

    Args:
        lr_scheduler: of torch, or one like it; it follows a metric if its ``step`` takes ``metrics``, as that of
            ``ReduceLROnPlateau`` does, whose patience then counts validations.
        validator: the evaluator that computes the metric.
        metric: name of the metric in its state.
    """

    def __init__(self, *, lr_scheduler: Any, validator: Engine, metric: str) -> None:
        self.lr_scheduler = lr_scheduler
        self.validator = validator
        self.metric = metric
        self.follows = "metrics" in inspect.signature(lr_scheduler.step).parameters

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer's epochs."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Step, if it is time to."""
        if not self.follows:
            self.lr_scheduler.step()
        elif validated(self.validator, engine):
            self.lr_scheduler.step(self.validator.state.metrics[self.metric])
