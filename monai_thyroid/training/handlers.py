"""Ignite handlers for what MONAI's own do not keep: exact resuming, the history, early stopping with a state."""

from __future__ import annotations

import logging
import math
import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_thyroid.data import SeededCacheDataset

if TYPE_CHECKING:
    from monai_thyroid.training.session import TrainingSession

__all__ = ["EarlyStop", "Recorder", "reseed"]

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
        if self.validator.state.epoch != engine.state.epoch:
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


class Recorder:
    """Write what an epoch gave into the run folder: a row of history.csv, model.pt if it is the best, last.pt.

    Attach it to the trainer last. At the start of each epoch it reseeds everything from (seed, epoch); at the end
    ``last.pt`` is written after everything else, so that it is the point an interrupted run returns to.

    Args:
        session: the run; only its first process writes.
        network: its weights are saved; without the wrapper of distributed training.
        optimizer: its state is saved, its first group's learning rate recorded.
        lr_scheduler: its state is saved.
        early_stop: its state is saved.
        validator: its metrics ``val_loss``, ``val_dice`` and ``val_iou`` go into the history; the best ``val_dice``
            (network grid) decides on model.pt.
        dataset: told which epoch begins.
        stage: number of the training stage, from 1. One that is not the first goes on from the best weights of the
            stage before, and its own are the best only where they are better than those.

    Raises:
        FloatingPointError: the training loss is not a finite number any more (when training).
    """

    def __init__(
        self,
        *,
        session: TrainingSession,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        early_stop: EarlyStop,
        validator: Engine,
        dataset: SeededCacheDataset,
        stage: int = 1,
    ) -> None:
        self.session = session
        self.network = network
        self.stateful = {"optimizer": optimizer, "lr_scheduler": lr_scheduler, "early_stop": early_stop}
        self.optimizer = optimizer
        self.early_stop = early_stop
        self.validator = validator
        self.dataset = dataset
        self.stage = stage
        self.best_metric = -math.inf
        self.best_epoch = 0
        self.best_stage = stage
        self.seconds = 0.0
        self.images = 0
        session.recorders[stage] = self

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)

    def epoch_started(self, engine: Engine) -> None:
        """Reseed and start the clock."""
        # A later stage must not repeat what the first one drew.
        epoch = engine.state.epoch + (self.stage - 1) * 1_000_000
        reseed(self.session.seed, epoch)
        self.dataset.set_epoch(epoch)
        self._loss_sum, self._count = 0.0, 0
        self._learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self._started = time.perf_counter()

    def iteration_completed(self, engine: Engine) -> None:
        """Add this batch's loss to the epoch's mean."""
        loss = engine.state.output["loss"].detach().item()
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss became {loss} in epoch {engine.state.epoch}, iteration {engine.state.iteration}; "
                "a lower --learning_rate or --precision float32 may help"
            )
        images = len(engine.state.output["image"])
        self._loss_sum += loss * images
        self._count += images
        self._trained = time.perf_counter()

    def epoch_completed(self, engine: Engine) -> None:
        """Write the epoch down; last.pt last."""
        # Validation came in between: throughput is that of training alone.
        self.seconds += self._trained - self._started
        self.images += self._count * self.session.processes
        validated = self.validator.state.epoch == engine.state.epoch
        metrics = {
            name: float(self.validator.state.metrics[name]) if validated else None
            for name in ("val_loss", "val_dice", "val_iou")
        }
        engine.state.metrics.update({name: value for name, value in metrics.items() if value is not None})
        engine.state.metrics["train_loss"] = self._loss_sum / self._count
        dice = metrics["val_dice"]
        best = dice is not None and dice > self.best_metric
        if best and dice is not None:
            self.best_metric, self.best_epoch, self.best_stage = dice, engine.state.epoch, self.stage
        self.session.write_epoch(
            self,
            {
                "stage": self.stage,
                "epoch": engine.state.epoch,
                "lr": self._learning_rate,
                "train_loss": self._loss_sum / self._count,
                **metrics,
                "seconds": round(time.perf_counter() - self._started, 3),
            },
            best=best,
        )

    def follow(self, earlier: Recorder) -> None:
        """Begin after another stage, whose best is what this one has to beat."""
        self.best_metric, self.best_epoch = earlier.best_metric, earlier.best_epoch
        self.best_stage = earlier.best_stage

    def state_dict(self) -> dict[str, Any]:
        """What last.pt holds beside the epoch and the weights; plain types and tensors only."""
        return {
            **{name: thing.state_dict() for name, thing in self.stateful.items()},
            "best_metric": self.best_metric,
            "best_epoch": self.best_epoch,
            "best_stage": self.best_stage,
            "seconds": self.seconds,
            "images": self.images,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken."""
        for name, thing in self.stateful.items():
            thing.load_state_dict(state[name])
        self.best_metric, self.best_epoch = float(state["best_metric"]), int(state["best_epoch"])
        self.best_stage = int(state["best_stage"])
        self.seconds, self.images = float(state["seconds"]), int(state["images"])
