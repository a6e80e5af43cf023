"""Parts of a strong training recipe that torch and MONAI lack or give only at the price of waiting for the GPU."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from monai_thyroid.data import ResidentDataset
from monai_thyroid.errors import UserError
from monai_thyroid.networks import normalises
from monai_thyroid.runfolder import read_config, run_files

__all__ = ["ClipGradients", "WeightAverage", "decay_groups", "learning_rate", "normalisation"]

logger = logging.getLogger(__name__)

_Place = tuple[torch.nn.Module, torch.nn.Module, str]  # of a tensor: in the average, in the network, by which name


def normalisation(
    dataset: ResidentDataset, *, network: torch.nn.Module, init_from: str | None = None
) -> dict[str, list[float]]:
    """What is taken off an image and what it is divided by, so that a network sees values around 0 of size 1.

    Args:
        dataset: training images, whose mean and standard deviation these are.
        network: one that brings the statistics of its pretrained weights, which it applies itself, leaves nothing to
            do.
        init_from: a run from which training starts: its weights expect what they were trained on, so its numbers are
            taken. Of weights without a run folder nobody knows that.

    Returns:
        ``mean`` and ``std``, a number a channel.
    """
    channels = dataset.images.shape[1]
    untouched = {"mean": [0.0] * channels, "std": [1.0] * channels}
    if normalises(network):
        return untouched
    if init_from:
        if facts := _facts(init_from):
            kept = read_config(facts).get("normalisation") or untouched
            if not isinstance(kept, Mapping) or [len(kept[name]) for name in untouched] != [channels] * 2:
                raise UserError(f"init_from {init_from}: its images had other channels than {channels}")
            return {name: [float(value) for value in kept[name]] for name in untouched}
        logger.warning("%s: how its images were normalised is not known; taking this training part's", init_from)
    return dataset.statistics()


def _facts(init_from: str) -> Path | None:
    """The folder with the config of what training starts from: a run folder, a packed bundle or a run's model.pt."""
    given = Path(init_from).expanduser()
    try:
        facts = run_files(given if given.is_dir() else given.parent).facts
    except UserError:
        return None
    return facts if (facts / "config.yaml").is_file() else None


def learning_rate(rate: float, *, device: str | torch.device) -> float | torch.Tensor:
    """A learning rate as an optimiser wants it: on a GPU a tensor, which a recorded step reads (`GraphedTrainer`)."""
    return torch.tensor(rate, device=device) if torch.device(device).type == "cuda" else rate


def decay_groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups for an optimiser that decays matrices and kernels, but neither biases nor norm layers.

    Decaying the scale of a norm layer changes the learning rate of the layer before it, and nothing else.

    Args:
        network: its parameters that are trained.
        weight_decay: of parameters with more than one dimension, 0 or more.

    Returns:
        Two groups: those that decay, and those that do not.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]


class ClipGradients:
    """Scale all gradients of a step down to a largest norm, before the optimiser sees them.

    A handler of a trainer; the norm stays on the device.

    Args:
        network: whose gradients.
        max_norm: largest Euclidean norm of all of them together, above 0.

    Raises:
        UserError: ``max_norm`` is not above 0.
    """

    def __init__(self, network: torch.nn.Module, *, max_norm: float) -> None:
        if not max_norm > 0:
            raise UserError(f"max_norm {max_norm!r}: give a number above 0")
        self.parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer's backward passes."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Clip."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.max_norm)


class WeightAverage:
    """An exponential moving average of a network's weights, updated after each step of a trainer.

    torch's `AveragedModel` waits for the GPU in each update. As there, running statistics are averaged, too. At the
    start the average follows fast: the decay of update n is at most n / (n + 9), so that first weights are forgotten
    also in short trainings.

    Args:
        network: the one that is trained, already on its device.
        decay: share of the old average that a step keeps, in [0, 1).

    Attributes:
        network: the average: a copy in evaluation mode, to validate and to save.
        updates: how many there were.

    Raises:
        UserError: ``decay`` is out of its range.
    """

    def __init__(self, network: torch.nn.Module, *, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise UserError(f"decay {decay!r}: give a number from 0, below 1")
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        # Places and not tensors: `Module.to`, as for another memory format, puts new storage into them.
        self._averaged: list[_Place] = []
        self._copied: list[_Place] = []
        seen: set[int] = set()  # a tensor that several modules share is averaged once
        for average, one in zip(self.network.modules(), network.modules(), strict=True):
            for name, value in (*one._parameters.items(), *one._buffers.items()):
                if value is not None and id(value) not in seen:
                    seen.add(id(value))
                    (self._averaged if value.is_floating_point() else self._copied).append((average, one, name))

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer's steps."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    @torch.no_grad()
    def __call__(self, engine: Engine) -> None:
        """Take in the weights of this step."""
        self.updates += 1
        decay = min(self.decay, self.updates / (self.updates + 9))
        if self._averaged:
            torch._foreach_lerp_(*_tensors(self._averaged), 1 - decay)
        if self._copied:
            torch._foreach_copy_(*_tensors(self._copied))

    def state_dict(self) -> dict[str, Any]:
        """What resuming needs."""
        return {"updates": self.updates, "network": self.network.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up where `state_dict` was taken."""
        self.updates = int(state["updates"])
        self.network.load_state_dict(state["network"])


def _tensors(places: Sequence[_Place]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Those of the average, and those of the network."""
    return (
        [getattr(average, name) for average, _, name in places],
        [getattr(network, name) for _, network, name in places],
    )
