"""Writing a training down: the history and the checkpoints, from which it can be resumed exactly."""

from __future__ import annotations

import io
import logging
import math
import time
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from monai_thyroid.data import ResidentLoader, SeededCacheDataset
from monai_thyroid.files import atomic_path
from monai_thyroid.runfolder import HistoryRow, RunFolder
from monai_thyroid.training.distributed import add_up
from monai_thyroid.training.handlers import EarlyStop, EpochSeed, StepLog
from monai_thyroid.training.recipe import WeightAverage
from monai_thyroid.training.validations import validated

__all__ = ["Recorder", "on_cpu", "save"]

logger = logging.getLogger(__name__)

_CHECKED = 50  # steps between two looks at the loss, each of which waits for the GPU
_SHARE, _FREE_SECONDS = 0.1, 5.0  # of a training's time that checkpoints may take, and what they may take anyhow


class Recorder:
    """Write what an epoch gave into the run folder: a row of history.csv, model.pt if it is the best, last.pt.

    Attach it to the trainer last. It has each epoch seeded (`EpochSeed`), so that the folder's last epoch is all that
    resuming needs; ``last.pt`` is written after everything else, the point an interrupted run returns to. Where epochs
    are so short that writing both files would take more than a tenth of the time, some epochs leave them as they are,
    and the best weights wait in memory for the next that writes; the training's end always does.

    Args:
        folder: the run folder, which may say that this process does not write.
        seed: of the training.
        network: its weights are saved; without the wrapper of distributed training.
        optimizer: its state is saved, its first group's learning rate recorded.
        lr_scheduler: its state is saved.
        early_stop: its state is saved; None where nothing stops early.
        validator: its metrics ``val_loss``, ``val_dice`` and ``val_iou`` go into the history; the best ``val_dice``
            (network grid) decides on model.pt.
        dataset: told which epoch begins.
        average: the weights that are validated and become model.pt, where they are not the network's own; those go on
            in last.pt. Attached with the recorder, unless it is already.
        stage: number of the training stage, from 1. One that is not the first goes on from the best weights of the
            stage before, and its own are the best only where they are better than those.

    Raises:
        FloatingPointError: the training loss is not a finite number any more (when training).
    """

    def __init__(
        self,
        *,
        folder: RunFolder,
        seed: int,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        lr_scheduler: Any,
        early_stop: EarlyStop | None = None,
        validator: Engine,
        dataset: SeededCacheDataset | ResidentLoader,
        average: WeightAverage | None = None,
        stage: int = 1,
    ) -> None:
        self.folder = folder
        self.network = network
        self.delivered = network if average is None else average.network
        stateful = {"optimizer": optimizer, "lr_scheduler": lr_scheduler, "early_stop": early_stop, "average": average}
        self.stateful: dict[str, Any] = {name: thing for name, thing in stateful.items() if thing is not None}
        self.average = average
        self.optimizer = optimizer
        self.early_stop = early_stop
        self.validator = validator
        self.epoch_seed = EpochSeed(seed, dataset=dataset, stage=stage)
        self.stage = stage
        self.best_metric = -math.inf
        self.best_epoch = 0
        self.best_stage = stage
        self.seconds = 0.0
        self.images = 0
        self._best: dict[str, torch.Tensor] | None = None  # better than what model.pt holds
        self._begun = math.inf
        self._writing = self._last_writing = 0.0
        self._written = True

    @property
    def exhausted(self) -> bool:
        """Whether early stopping has ended the training."""
        return self.early_stop is not None and self.early_stop.exhausted

    @staticmethod
    def of(trainer: Engine) -> Recorder:
        """The recorder among a trainer's handlers.

        Raises:
            ValueError: there is none.
        """
        recorder = getattr(trainer.state, "recorder", None)
        if not isinstance(recorder, Recorder):
            raise ValueError("a trainer needs a Recorder among its handlers")
        return recorder

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer."""
        engine.state.recorder = self
        self.epoch_seed.attach(engine)
        if self.average is not None and not engine.has_event_handler(self.average, Events.ITERATION_COMPLETED):
            self.average.attach(engine)
        engine.add_event_handler(Events.EPOCH_STARTED, self.epoch_started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.epoch_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)
        if self.folder.writes:
            StepLog().attach(engine)

    def epoch_started(self, engine: Engine) -> None:
        """Start the clock."""
        self._loss_sum, self._count, self._steps = torch.zeros(()), 0, 0
        self._learning_rate = float(self.optimizer.param_groups[0]["lr"])
        self._started = time.perf_counter()
        self._begun = min(self._begun, self._started)

    def iteration_completed(self, engine: Engine) -> None:
        """Add this batch's loss to the epoch's mean."""
        loss, images = engine.state.output["loss"].detach(), len(engine.state.output["image"])
        # Where it is computed: to read every loss would keep a GPU waiting for the next step.
        self._loss_sum = self._loss_sum.to(loss.device, torch.float64) + loss * images
        self._count += images
        self._steps += 1
        if self._steps % _CHECKED == 0 or self._steps == engine.state.epoch_length:
            self._mean_loss(engine)
        self._trained = time.perf_counter()

    def _mean_loss(self, engine: Engine) -> float:
        """The mean over the images of the epoch so far, those of all processes."""
        count = self._loss_sum.new_tensor(self._count)
        loss_sum, self._seen = add_up(torch.stack([self._loss_sum, count])).tolist()
        loss = loss_sum / self._seen
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss became {loss} in epoch {engine.state.epoch}, by iteration "
                f"{engine.state.iteration}; a lower --learning_rate or --precision float32 may help"
            )
        return loss

    def epoch_completed(self, engine: Engine) -> None:
        """Write the epoch down."""
        # Validation came in between: throughput is that of training alone.
        self.seconds += self._trained - self._started
        there = validated(self.validator, engine)
        metrics = {
            name: float(self.validator.state.metrics[name]) if there else None
            for name in ("val_loss", "val_dice", "val_iou")
        }
        for name, value in metrics.items():  # an epoch without a validation has none to tell the trackers
            engine.state.metrics.pop(name, None)
            if value is not None:
                engine.state.metrics[name] = value
        train_loss = engine.state.metrics["train_loss"] = self._mean_loss(engine)
        self.images += int(self._seen)
        dice = metrics["val_dice"]
        best = dice is not None and dice > self.best_metric
        if best and dice is not None:
            self.best_metric, self.best_epoch, self.best_stage = dice, engine.state.epoch, self.stage
        if not self.folder.writes:
            return
        row = HistoryRow(
            stage=self.stage,
            epoch=engine.state.epoch,
            lr=self._learning_rate,
            train_loss=train_loss,
            **metrics,
            seconds=round(time.perf_counter() - self._started, 3),
        )
        self._tell(row, best=best)
        self.folder.append(row)
        if best or not self.folder.model.is_file():
            self._best = on_cpu(self.delivered.state_dict())
        self._written = False
        expected, passed = self._writing + self._last_writing, time.perf_counter() - self._begun
        if expected <= _FREE_SECONDS + _SHARE * passed:
            self.save(engine)

    def completed(self, engine: Engine) -> None:
        """Write the checkpoints of the last epoch, unless that was done."""
        if not self._written:
            self.save(engine)

    def save(self, engine: Engine) -> None:
        """Write the checkpoints of the epoch that has just ended."""
        begun = time.perf_counter()
        if self._best is not None:
            save(self._best, self.folder.model)
            self._best = None
        state = {"stage": self.stage, "epoch": engine.state.epoch, "network": on_cpu(self.network.state_dict())}
        save({**state, "recorder": self.state_dict()}, self.folder.last)
        self._written = True
        self._last_writing = time.perf_counter() - begun
        self._writing += self._last_writing

    def keep_best(self) -> None:
        """Write the best weights that still wait, where a training fails, and into last.pt that they are the best.

        A run that is resumed trains the epochs after last.pt again, and finds nothing better in them than they gave.
        """
        if self._best is None or not self.folder.last.is_file():
            return
        last = torch.load(self.folder.last, map_location="cpu", weights_only=True)
        last["recorder"] |= {name: getattr(self, name) for name in ("best_metric", "best_epoch", "best_stage")}
        save(self._best, self.folder.model)
        self._best = None
        save(last, self.folder.last)

    def _tell(self, row: HistoryRow, *, best: bool) -> None:
        logger.info(
            "%sepoch %d  lr %.1e  train loss %.4f  val loss %s  val Dice %s  %.1f s%s",
            f"stage {self.stage}  " if self.stage > 1 else "",
            *(row.epoch, row.lr, row.train_loss),
            *("-" if value is None else f"{value:.4f}" for value in (row.val_loss, row.val_dice)),
            *(row.seconds, "  best" if best else ""),
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


def save(content: dict[str, Any], path: Path) -> None:
    """Write tensors atomically, equal ones as equal bytes: given a path, torch would write its name into the file."""
    # By way of the memory: of a full disk or a signal in the middle of a file torch makes errors of its own.
    made = io.BytesIO()
    torch.save(content, made)
    with atomic_path(path) as temporary:
        temporary.write_bytes(made.getbuffer())


def on_cpu(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of weights that need no GPU and that training leaves as they are."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in weights.items()}
