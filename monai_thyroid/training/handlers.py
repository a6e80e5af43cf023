"""Ignite handlers for what MONAI's own do not have: epochs that can be repeated, early stopping with a state, a log."""

from __future__ import annotations

import logging
import math
import random
import sys
import time
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_thyroid.data import ResidentLoader, SeededCacheDataset
from monai_thyroid.training.validations import validated

__all__ = ["EarlyStop", "EpochSeed", "StepLog", "reseed"]

logger = logging.getLogger(__name__)


def reseed(seed: int, epoch: int) -> None:
    """Seed Python, numpy and torch from (seed, epoch): what an epoch draws then depends on nothing before it."""
    state = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    random.seed(state)
    np.random.seed(state)
    torch.manual_seed(state)


class EarlyStop:
    """Stop training when a validation metric has not risen for some validations.

    Attach it to the trainer after the `ValidationHandler`. Unlike MONAI's `EarlyStopHandler` it has a state, so that
    a resumed run stops where an uninterrupted one does.

    Args:
        validator: the evaluator that computes the metric.
        metric: name of the metric in its state; larger is better.
        patience: number of validations without a rise after which to stop.
    """

    def __init__(self, *, validator: Engine, metric: str, patience: int) -> None:
        self.validator = validator
        self.metric = metric
        self.patience = patience
        self.best = -math.inf
        self.counter = 0

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer's epochs."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Count this epoch's validation, if there was one."""
        if not validated(self.validator, engine):
            return
        value = float(self.validator.state.metrics[self.metric])
        if value > self.best:
            self.best, self.counter = value, 0
            return
        self.counter += 1
        if self.exhausted:
            logger.info("No rise of %s in %d validations: stopping early", self.metric, self.counter)
            engine.terminate()

    @property
    def exhausted(self) -> bool:
        """Whether training should end."""
        return self.counter >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"best": self.best, "counter": self.counter}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken."""
        self.best, self.counter = float(state["best"]), int(state["counter"])


class EpochSeed:
    """At the start of each epoch, seed everything from (seed, stage, epoch).

    Args:
        seed: of the training.
        dataset: told which epoch begins.
        stage: number of the training stage, from 1; a later one must not repeat what the first one drew.
    """

    def __init__(self, seed: int, *, dataset: SeededCacheDataset | ResidentLoader, stage: int) -> None:
        self.seed = seed
        self.dataset = dataset
        self.stage = stage

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Seed."""
        epoch = engine.state.epoch + (self.stage - 1) * 1_000_000
        reseed(self.seed, epoch)
        self.dataset.set_epoch(epoch)


class StepLog:
    """Say in the log that training moves: its first step, then a line a minute where no terminal shows a bar.

    Args:
        every: seconds between two lines.
    """

    def __init__(self, *, every: float = 60) -> None:
        self.every = every

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)

    def started(self, engine: Engine) -> None:
        """The next step is the first."""
        self.first = True

    def epoch_started(self, engine: Engine) -> None:
        """Start the clock."""
        self.start = self.told = time.perf_counter()
        self.done = 0

    def iteration_completed(self, engine: Engine) -> None:
        """Say how far the epoch is."""
        self.done += 1
        now = time.perf_counter()
        steps, each = engine.state.epoch_length, (now - self.start) / self.done
        if self.first:
            logger.info("First training step done after %.1f s; %s in an epoch", each, f"{steps} steps")
            self.first = False
        elif now - self.told > self.every and not sys.stderr.isatty():
            logger.info("epoch %d: step %d of %d, %.2f s a step", engine.state.epoch, self.done, steps, each)
            self.told = now
