"""What a run's config does to pixels: by its own transforms, or found to be what `PixelPath` does faster."""

from __future__ import annotations

import logging

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Activationsd,
    Compose,
    Invertd,
    NormalizeIntensity,
    NormalizeIntensityd,
    RandFlipd,
    Resized,
    SpatialPadd,
)

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.pixels import PixelPath, ToProbabilities
from monai_thyroid.evaluation.trained import TrainedRun
from monai_thyroid.images import Raster
from monai_thyroid.transforms import BatchAugmentation, LoadScand, PadToSquared

__all__ = ["ConfiguredPath", "pixel_path", "trained_flips"]

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Of intensities and probabilities in [0, 1]; rounding makes a hundredth of it."""


class ConfiguredPath:
    """The run's own transforms: slower than `PixelPath`, and right for whatever a config does.

    Args:
        trained: its ``image_transforms`` begin with `LoadScand`, and ``to_original_grid`` inverts them.

    Attributes:
        shape: (channels, width, height) of the network's input.
        steps: the transforms of an image after it was loaded.

    Raises:
        UserError: the transforms of an image do not begin with `LoadScand`.
    """

    def __init__(self, trained: TrainedRun) -> None:
        load, *self.steps = trained.parsed("image_transforms")
        if not isinstance(load, LoadScand):
            raise UserError(
                f"{trained.path}: its image_transforms begin with {type(load).__name__}, not with LoadScand"
            )
        self.channels = load.channels
        self.back = trained.parsed("to_original_grid")
        self._load = load
        self._before, self._after = Compose(self.steps), Compose(self.back)
        some = Raster(pixels=np.zeros((256, 256), np.uint8), full_scale=(0.0, 255.0))
        self.shape = self.prepare(some)[0].shape

    def prepare(self, raster: Raster) -> tuple[np.ndarray, ToProbabilities]:
        """As `PixelPath.prepare`."""
        item = self._before({"image": self._load.tensor(raster)})

        def probabilities(logits: np.ndarray) -> np.ndarray:
            # A tensor without metadata would pass the inversion as it is.
            done = self._after({**item, "pred": MetaTensor(torch.from_numpy(np.ascontiguousarray(logits)))})["pred"]
            if tuple(done.shape[:0:-1]) != raster.pixels.shape[:2]:
                raise ValueError(f"the run's transforms gave {tuple(done.shape)} for {raster.pixels.shape[:2]} pixels")
            return np.ascontiguousarray(np.swapaxes(np.asarray(done.cpu(), dtype=np.float32), 1, 2))

        return np.ascontiguousarray(np.asarray(item["image"].cpu(), dtype=np.float32)), probabilities


def pixel_path(trained: TrainedRun, network: torch.nn.Module) -> PixelPath | ConfiguredPath:
    """The fast way where it gives what the run's transforms give, tried on two images; else those themselves.

    Args:
        trained: the run.
        network: its network, on the CPU; run once for the size of its output.
    """
    configured = ConfiguredPath(trained)
    fast = _recognised(configured, trained.activation, network)
    if fast is not None and _agree(fast, configured):
        return fast
    logger.info(
        "%s: its transforms are not the usual ones, so they are applied as they are, which is slower", trained.path
    )
    return configured


def _recognised(path: ConfiguredPath, activation: str, network: torch.nn.Module) -> PixelPath | None:
    *before, last = path.steps or [None]
    normalise = last.normalizer if isinstance(last, NormalizeIntensityd) else None
    *padding, resize = path.steps if normalise is None else before or [None]
    if normalise is not None and not _plain(normalise, channels=path.channels):
        return None
    if (
        not isinstance(resize, Resized)
        or not all(isinstance(step, PadToSquared) for step in padding)
        or len(padding) > 1
    ):
        return None
    if [type(step) for step in path.back] not in (
        [SpatialPadd, Invertd, Activationsd],
        [Resized, Invertd, Activationsd],
    ):
        return None
    size = tuple(int(side) for side in resize.resizer.spatial_size)
    if min(size) < 1:  # MONAI's way to say that a side stays as it is
        return None
    with torch.inference_mode():
        output = tuple(network(torch.zeros(1, path.channels, *size)).shape[2:])
    first = path.back[0]
    return PixelPath(
        channels=path.channels,
        activation=activation,
        size=(size[0], size[1]),
        output=(output[0], output[1]),
        square=bool(padding),
        outside="pad" if isinstance(first, SpatialPadd) else "resize",
        background=float(first.padder.kwargs.get("value", 0.0)) if isinstance(first, SpatialPadd) else 0.0,
        mean=() if normalise is None else tuple(map(float, normalise.subtrahend)),
        std=() if normalise is None else tuple(map(float, normalise.divisor)),
    )


def _plain(normalise: NormalizeIntensity, *, channels: int) -> bool:
    """Whether it takes a number off each channel and divides by another, zeros not excepted."""
    given = (normalise.subtrahend, normalise.divisor)
    return (
        not normalise.nonzero
        and normalise.channel_wise
        and all(isinstance(one, (list, tuple)) and len(one) == channels for one in given)
    )


def _agree(fast: PixelPath, configured: ConfiguredPath) -> bool:
    random = np.random.default_rng(0)
    channels = 2 if fast.activation == "softmax" else 1
    width, height = fast.size
    for shape in ((2 * height + 3, width - 5), (max(height // 2, 1), width + 8)):
        pixels = random.integers(0, 256, shape if fast.channels == 1 else (*shape, 3), dtype=np.uint8)
        raster = Raster(pixels=pixels, full_scale=(0.0, 255.0))
        logits = random.normal(scale=4, size=(channels, *fast.output)).astype(np.float32)
        (one, one_back), (other, other_back) = fast.prepare(raster), configured.prepare(raster)
        if one.shape != other.shape or np.abs(one - other).max() > TOLERANCE:
            return False
        one, other = one_back(logits), other_back(logits)
        if one.shape != other.shape or np.abs(one - other).max() > TOLERANCE:
            return False
    return True


def trained_flips(trained: TrainedRun) -> list[int]:
    """The axes (0 width, 1 height) by which images were mirrored in the run's training; nothing is made of them."""
    axes: set[int] = set()
    augmentation = trained.config.get("augmentation") or []
    if isinstance(augmentation, dict):
        if str(augmentation.get("_target_")).rpartition(".")[2] != BatchAugmentation.__name__:
            return []
        return [axis for axis, name in enumerate(("flip_horizontal", "flip_vertical")) if augmentation.get(name)]
    for step in augmentation:
        if isinstance(step, dict) and str(step.get("_target_")).rpartition(".")[2] == RandFlipd.__name__:
            axis = step.get("spatial_axis")
            axes |= {0, 1} if axis is None else set(axis if isinstance(axis, (list, tuple)) else [axis])
    return sorted(axis for axis in axes if axis in (0, 1))
