"""Image size, batch, epochs and width for a dataset, each with its reason: nnU-Net's idea, for two cores or one GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["Proposal", "has_gpu", "propose"]

_WIDE = (32, 32, 64, 128, 256, 32)  # of BasicUNet, as in the menu
_SMALL_LESION = 16  # pixels that a small one should have across: one at the coarsest level of a U-Net
_SIZES = {"cpu": (128, 256), "gpu": (256, 512)}
_SPEED = {"cpu": 7.0, "gpu": 1200.0}  # images/s at 256 x 256 in training, measured (docs/performance.md)
_EPOCHS, _STEPS = 100, 2000  # at least: nerves gained 0.1 of Dice between 600 steps and 2,000 (docs/comparison.md)
_MOST_EPOCHS = 500
_PASSES = 20  # over the training images, which an hour should allow


@dataclass(frozen=True)
class Proposal:
    """What to train with.

    Attributes:
        image_size: height and width of the network's input.
        batch_size: images a step.
        max_epochs: passes over the training images.
        features: widths of the U-Net's levels.
        reasons: one sentence for each of the four.
    """

    image_size: int
    batch_size: int
    max_epochs: int
    features: tuple[int, ...]
    reasons: list[str]


def has_gpu() -> bool:
    """Whether this may be a machine with CUDA; asking torch costs its import."""
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))


def propose(sizes: Sequence[Sequence[int]], shares: Sequence[float], *, train: int, gpu: bool) -> Proposal:
    """Choose from what the images are.

    Args:
        sizes: (height, width) of each image.
        shares: of each image, the part of its pixels that is marked, 0 to 1.
        train: number of training images.
        gpu: for a GPU; else for two cores.

    Returns:
        The choice: image size and width are for an hour of training.
    """
    device = "gpu" if gpu else "cpu"
    low, high = _SIZES[device]
    longest = math.ceil(np.median([max(size) for size in sizes]) / 32) * 32
    marked = [share for share in shares if share > 0]
    across = math.sqrt(float(np.quantile(marked, 0.1))) if marked else 1.0
    wanted = math.ceil(_SMALL_LESION / across / 32) * 32
    size = max(64, min(max(low, wanted), high, longest))
    where = "a GPU" if gpu else "two cores"
    limit = {longest: ", and the images hold no more", high: f", the most that pays on {where} in an hour"}.get(
        size, ""
    )
    reasons = [
        f"image_size {size}: what is small here (a tenth of the images have less) is then "
        f"{across * size:.0f} pixels across{limit if wanted > size else ''}"
    ]
    batch = next((some for some in (16, 8, 4) if train // some >= 10), 2)
    steps = max(1, train // batch)
    reasons.append(f"batch_size {batch}: {train} training images make {steps} steps an epoch")
    speed = _SPEED[device] * (256 / size) ** 2
    passes = speed * 3600 / train
    epochs = min(max(_EPOCHS, math.ceil(_STEPS / steps / 10) * 10), _MOST_EPOCHS)
    few = f" ({_EPOCHS} epochs of so few images would be {_EPOCHS * steps:,})" if epochs > _EPOCHS else ""
    wide = passes >= _PASSES
    hours = epochs / passes
    lasts = f"{math.ceil(60 * hours)} min" if hours < 2 else f"{hours:.0f} h"
    reasons.append(
        f"max_epochs {epochs}: {epochs * steps:,} steps{few}, {'about' if wide else 'less than'} {lasts} on {where}"
    )
    features = _WIDE if wide else tuple(width // 2 for width in _WIDE)
    told = f"in an hour {where} see each of {train} images about {passes:.0f} times"
    if not wide:
        told = f"of 32 to 256 {told}, which is too little"
    reasons.append(f"unet of {features[0]} to {max(features)} channels: {told}")
    return Proposal(size, batch, epochs, features, reasons)
