"""In which order of axes a network trains faster, found out on the machine that trains it."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence

import torch
from monai.inferers import Inferer

from monai_thyroid.networks import listed, to_channels_last

__all__ = ["channels_last_is_faster"]

logger = logging.getLogger(__name__)

_GAIN = 1.1  # below, noise would decide
_CLEAR = 1.5  # from this ratio on, either way, a second look would tell nothing new
_ROUNDS = 3


def channels_last_is_faster(network: torch.nn.Module, *, inferer: Inferer, shape: tuple[int, ...]) -> bool:
    """Time a few steps of a copy of a network on noise, its weights channels first and channels last in turn.

    Which one wins depends on the processor, the precision and the norm layers. A training waits for it, so a first
    comparison that is clear ends it.

    Args:
        network: left as it is, as is torch's random state.
        inferer: runs it.
        shape: (B, C, H, W) of the images.

    Returns:
        Whether channels last takes a tenth of the time less, or more than that.
    """
    device = next(network.parameters()).device
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(device)
    copies = [copy.deepcopy(network).train() for _ in range(2)]
    to_channels_last(copies[1])

    def seconds(one: torch.nn.Module) -> float:
        _wait(device)
        began = time.perf_counter()
        torch.stack([logits.square().mean() for logits in listed(inferer(images, one))]).sum().backward()
        _wait(device)
        return time.perf_counter() - began

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        first, last = _compared(lambda: [seconds(one) for one in copies])
    faster = first > _GAIN * last
    told = "last" if faster else "first"
    logger.info("A step channels last takes %.2f times as long: training channels %s", last / first, told)
    return faster


def _compared(steps: Callable[[], Sequence[float]]) -> tuple[float, float]:
    """The least seconds of both sides, which take a step each at a call; the first call, which makes plans, aside."""
    steps()
    first, last = steps()
    for _ in range(1, _ROUNDS):
        if max(first, last) > _CLEAR * min(first, last):
            break
        first, last = (min(pair) for pair in zip((first, last), steps(), strict=True))
    return first, last


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
