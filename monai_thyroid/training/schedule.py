"""The learning rate step by step, and how many epochs a given time is enough for."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_thyroid.errors import UserError
from monai_thyroid.training.distributed import agreed

__all__ = ["TimeBudget", "WarmUpCosine"]

logger = logging.getLogger(__name__)

_MEASURED = 0.03  # share of the time in which the seconds of an epoch are found out, the first one aside,
_FIRST = 0.15  # unless that alone takes so much of it


class WarmUpCosine(torch.optim.lr_scheduler.LRScheduler):
    """A linear warm-up, then half a cosine down to zero; to be stepped after each step of the optimiser.

    Args:
        optimizer: its learning rates are the highest; tensors on a GPU are changed in place.
        steps: of the whole training; None while that is not known, and the cosine then stays at its top. `TimeBudget`
            says it when the training begins.
        warm_up: steps in which the rate rises; never more than a tenth of all.

    Attributes:
        steps: as above; may be set while it is at its top.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, steps: int | None = None, warm_up: int = 200) -> None:
        self.steps = steps
        self.warm_up = warm_up
        super().__init__(optimizer)
        self.base_lrs = [float(rate) for rate in self.base_lrs]  # to read them in each step would wait for the GPU

    def get_lr(self) -> list[float | torch.Tensor]:
        """The rate of each group for the coming step."""
        done = self.last_epoch  # torch's name for what is counted
        warm = self.warm_up if self.steps is None else min(self.warm_up, self.steps // 10)
        share = 0.0 if self.steps is None else min(1.0, done / self.steps)
        factor = min(1.0, (done + 1) / (warm + 1)) * 0.5 * (1 + math.cos(math.pi * share))
        return [rate * factor for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Numbers only: all that resuming needs."""
        return {
            "step": self.last_epoch,
            "steps": self.steps,
            "warm_up": self.warm_up,
            "base_lrs": self.base_lrs,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken; the optimiser's own state holds the present rate."""
        self.last_epoch, self.steps = state_dict["step"], state_dict["steps"]
        self.warm_up, self.base_lrs = state_dict["warm_up"], state_dict["base_lrs"]


class TimeBudget:
    """Say how long a training is: as many epochs as its trainer has, or as many as fit into a given time.

    For a time the first epochs are measured; then their number is fixed, and the schedule.

    What counts is the time from the first look at the configuration to the end of the last epoch: reading, training,
    validation, writing. The test part is scored after that. Attach it to the trainer last.

    Args:
        hours: the time; None for the trainer's number of epochs.
        lr_scheduler: told how many steps there are, if it has ``steps``, as `WarmUpCosine` has.
        val_interval: epochs from one validation to the next.

    Raises:
        UserError: when a training begins whose scheduler cannot be told.
    """

    def __init__(self, *, hours: float | None, lr_scheduler: Any, val_interval: int = 1) -> None:
        self.hours = hours
        self.lr_scheduler = lr_scheduler
        self.val_interval = val_interval
        self.epochs: int | None = None
        self._decided: Any = None

    @staticmethod
    def of(trainer: Engine) -> TimeBudget | None:
        """The one among a trainer's handlers that has a time to keep, None where there is none."""
        found = getattr(trainer.state, "time_budget", None)
        return found if isinstance(found, TimeBudget) and found.hours is not None else None

    def attach(self, engine: Engine) -> None:
        """Be found by `of`, and listen to the trainer."""
        engine.state.time_budget = self
        engine.add_event_handler(Events.STARTED, self.started)

    def started(self, engine: Engine) -> None:
        """Tell the scheduler what is known from the beginning."""
        if self.hours is None and hasattr(self.lr_scheduler, "steps"):
            self.lr_scheduler.steps = engine.state.max_epochs * engine.state.epoch_length

    def begin(self, trainer: Engine, *, epochs: int | None, started: float, decided: Any) -> None:
        """Say that the training begins.

        Args:
            trainer: as attached.
            epochs: what an interrupted training had decided on; None if nothing.
            started: when the command began, by `time.perf_counter`.
            decided: called with the number of epochs when it is fixed, to write it down.
        """
        assert self.hours is not None
        if not hasattr(self.lr_scheduler, "steps"):
            raise UserError(
                f"hours {self.hours:g}: {type(self.lr_scheduler).__name__} cannot be told how many steps there are; "
                "use monai_thyroid.training.WarmUpCosine, or --max_epochs"
            )
        self._started, self._decided = started, decided
        self._end = started + self.hours * 3600
        self._whole: list[float] = []
        if epochs is not None:
            self._fix(trainer, epochs)
            return
        self.lr_scheduler.steps = None
        trainer.state.max_epochs = 1  # the first is validated as a last one is
        trainer.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        trainer.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Start the clock."""
        self._began = time.perf_counter()

    def iteration_completed(self, engine: Engine) -> None:
        """Keep the time."""
        self._trained = time.perf_counter()

    def epoch_completed(self, engine: Engine) -> None:
        """Fix the number of epochs when enough was measured; else ask for one more."""
        if self.epochs is not None:
            return
        assert self.hours is not None
        now = time.perf_counter()
        # Each epoch of these was validated; later ones are every so many epochs.
        self._whole.append(self._trained - self._began + (now - self._trained) / self.val_interval)
        # The first one also makes plans and fills caches, so it counts only where there is no time for others.
        first, *others = self._whole
        whole = self.hours * 3600
        enough = sum(others) >= _MEASURED * whole if others else first >= _FIRST * whole
        each = sum(others) / len(others) if others else first
        more = max(0, round((self._end - now) / each)) if enough or now >= self._end else None
        more = agreed(more)
        if more is None:
            engine.state.max_epochs = engine.state.epoch + 1
            return
        self._fix(engine, engine.state.epoch + more)
        left = more * each
        told = time.strftime("%H:%M:%S", time.localtime(time.time() + left))
        if now >= self._end:
            logger.warning(
                "%g hours are over after %d epochs of %.1f s: training ends here; give more time, or smaller images",
                *(self.hours, self.epochs, each),
            )
        else:
            logger.info(
                "%d epochs of %.1f s fit into %g hours: training and its validations end in %.0f min %02.0f s, at "
                "about %s; then the test part is scored",
                *(self.epochs, each, self.hours, left // 60, left % 60, told),
            )
        self._decided(self.epochs)

    def _fix(self, trainer: Engine, epochs: int) -> None:
        self.epochs = trainer.state.max_epochs = epochs
        self.lr_scheduler.steps = epochs * trainer.state.epoch_length
