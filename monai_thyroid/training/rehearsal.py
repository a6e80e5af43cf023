"""A training, an evaluation or an inference that is begun to see that it starts; what it writes is thrown away."""

from __future__ import annotations

import copy
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from monai_thyroid.errors import UserError
from monai_thyroid.training.config import has, problems_behind

__all__ = ["rehearse"]


def rehearse(parser: ConfigParser) -> tuple[list[str], list[str]]:
    """Build every object of a config and take one step of everything, on real items of its dataset.

    Each stage takes one training step, one validation batch, its schedule and its other handlers one epoch's end; the
    test, the evaluation or the inference one batch. No checkpoint is written, and logs and masks go into a temporary
    folder.

    Args:
        parser: a config in which nothing wrong was found, its content resolved as far as that was needed.

    Returns:
        One sentence for each thing wrong, and one for each thing that was timed.
    """
    with tempfile.TemporaryDirectory() as folder, _silence():
        few = _of_few_items(parser, Path(folder))
        try:
            return [], [*_trainings(few), *_scoring(few)]
        except UserError as failed:
            return failed.problems, []


def _of_few_items(parser: ConfigParser, folder: Path) -> ConfigParser:
    """The config with a batch of each dataset and its output elsewhere."""
    config = copy.deepcopy({key: value for key, value in parser.get().items() if key not in ("data", "trained")})
    for read in ("data", "trained"):  # once, and not again
        if has(parser, read):
            config[read] = parser.get_parsed_content(read)
    few = ConfigParser(config)
    if "output_dir" in config:
        few["output_dir"] = str(folder)
    size = parser.get_parsed_content("batch_size") if "batch_size" in config else 1
    for name in ("train::dataset::data", "validate::dataset::data", "test::dataset::data", "dataset::data"):
        if has(few, name):
            items = few[name]
            few[name] = f"$({items[1:]})[:{size}]" if isinstance(items, str) and items[0] == "$" else items
    return few


def _trainings(few: ConfigParser) -> Iterator[str]:
    """Take a step of every stage."""
    stages = [key for key, part in few.get().items() if isinstance(part, Mapping) and "trainer" in part]
    if not stages:
        return
    for name in ("loss", "optimizer", "lr_scheduler"):
        _built(few, name)
    trainers = {stage: _built(few, f"{stage}::trainer") for stage in stages}
    for tracker in _built(few, "trackers") if has(few, "trackers") else []:
        if tracker is not None:
            _tried("trackers", tracker)
    for stage, trainer in trainers.items():
        for number, handler in enumerate(few[f"{stage}::handlers"]):
            if (
                isinstance(handler, Mapping) and handler["_target_"] == "monai_thyroid.training.Recorder"
            ):  # which would write checkpoints
                recorder = few.get_parsed_content(f"{stage}::handlers::{number}")
                trainer.remove_event_handler(recorder.epoch_completed, Events.EPOCH_COMPLETED)
        clock = _Clock(trainer)
        trainer.state.max_epochs = 1
        began = time.perf_counter()
        _tried(f"{stage}::trainer", trainer.run)
        whole = time.perf_counter() - began
        batches, rest = divmod(len(few.get_parsed_content("data").part("train")), max(1, clock.images))
        batches += rest > 0 and not getattr(trainer.data_loader, "drop_last", False)
        yield (
            f"{stage}: a training step of {clock.images} images takes {clock.seconds:.2f} s, {batches} of which are an "
            f"epoch; reading them and validating one batch took {whole - clock.seconds:.2f} s"
        )
        yield from _untrained(stage, getattr(trainer, "network", None))


def _untrained(stage: str, network: torch.nn.Module | None) -> Iterator[str]:
    """Tell of weights that the loss does not depend on."""
    if network is None:
        return
    without = [name for name, one in network.named_parameters() if one.requires_grad and one.grad is None]
    if without:
        named = ", ".join(without[:3]) + (", ..." if len(without) > 3 else "")
        yield (
            f"{stage}: {len(without)} parameters got no gradient ({named}): they are never trained, and training on "
            "several GPUs refuses them; AdaptedNetwork's unused takes them out"
        )


def _scoring(few: ConfigParser) -> Iterator[str]:
    """Go through one batch of the test part, or of what is evaluated or inferred."""
    for name in ("test::evaluator", "evaluator"):
        if not has(few, name):
            continue
        scores = name.removesuffix("evaluator") + "scores"
        if has(few, scores):
            _built(few, scores).keep = False
        evaluator = _built(few, name)
        began = time.perf_counter()
        _tried(name, evaluator.run)
        images = len(evaluator.state.batch)
        yield f"{name}: {images} images take {time.perf_counter() - began:.2f} s"


class _Clock:
    """The seconds of a trainer's iterations, without reading the images, and how many images there were."""

    def __init__(self, trainer: Engine) -> None:
        self.seconds, self.images, self._began = 0.0, 0, 0.0
        trainer.add_event_handler(Events.ITERATION_STARTED, self._start)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._stop)

    def _start(self) -> None:
        self._began = time.perf_counter()

    def _stop(self, engine: Engine) -> None:
        self.seconds += time.perf_counter() - self._began
        batch: Mapping[str, Any] | Sequence[Any] = engine.state.batch
        self.images += len(batch["image"] if isinstance(batch, Mapping) else batch)


def _built(few: ConfigParser, name: str) -> Any:
    return _tried(name, lambda: few.get_parsed_content(name)) if has(few, name) else None


def _tried(what: str, step: Any) -> Any:
    try:
        return step()
    except Exception as error:  # whatever a part of the config raises
        raise UserError(problems_behind(error, what)) from error


@contextmanager
def _silence() -> Iterator[None]:
    """Let nobody say that a training began or ended."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
