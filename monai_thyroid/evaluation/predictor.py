"""Image in, mask and probability on the image's own grid out."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model, members
from monai_thyroid.evaluation.pixels import ToProbabilities
from monai_thyroid.evaluation.runtimes import RUNTIMES, Compute, built, chosen, mean_dice
from monai_thyroid.images import Raster

if TYPE_CHECKING:
    from monai_thyroid.evaluation.trained import TrainedRun

__all__ = ["Prediction", "Predictor", "agreement_of"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prediction:
    """What was found in an image.

    Attributes:
        mask: (height, width), uint8; 0 is background, 1 the first class.
        probabilities: (classes, height, width), float32 in [0, 1]; without the background's.
        agreement: a class, the mean Dice of all pairs of members of an ensemble; None for a single model.
    """

    mask: np.ndarray
    probabilities: np.ndarray
    agreement: tuple[float, ...] | None = None


class Predictor:
    """One trained run, or several as an ensemble whose probabilities are averaged.

    Masks are postprocessed as the run says; those of an ensemble as its first member says.

    It knows no files: `monai_thyroid.deploy` reads and writes them. Several threads may call it at once.

    Args:
        runs: run folders or packed bundles, or the runs themselves; all of the same classes, activation and threshold.
            A packed ensemble counts as its members.
        device: ``"cpu"``, ``"cuda"``, or ``"auto"`` for CUDA where there is one.
        runtime: ``"auto"`` for the fastest that gives PyTorch's masks, ``"torch"``, ``"openvino"`` or ``"onnx"`` for
            the fastest among these, or a certain one such as ``"openvino-bfloat16"``; or one of these for each member.
        tta: average over the image and its mirror images too, by the axes along which training mirrored.
        samples: a few images like those to come, on which runtimes are measured where that was not done before.
        streams: how many threads will call it at once.

    Attributes:
        classes: names of the classes.
        tta: whether mirror images are averaged over.
        runtimes: of each member, what computes it and why, see `Choice`.

    Raises:
        UserError: a folder is no run, or the members do not fit together, or the device or a runtime is not there.
    """

    def __init__(
        self,
        runs: Sequence[str | Path | TrainedRun | Model] | str | Path | TrainedRun | Model,
        *,
        device: str = "auto",
        runtime: str | Sequence[str] = "auto",
        tta: bool = False,
        samples: Sequence[Raster] = (),
        streams: int = 1,
    ) -> None:
        given = list(runs) if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
        if not given:
            raise UserError("give at least one run folder or packed bundle")
        self.members = [model for run in given for model in members(run)]
        wanted = [runtime] * len(self.members) if isinstance(runtime, str) else list(runtime)
        self.device = device_of(device, runtime=wanted[0])
        first = self.members[0]
        self.classes, self.activation = first.classes, first.activation
        problems = [
            f"{member.path}: {words} {getattr(member, name)}, not {getattr(first, name)} as {first.path}"
            for member in self.members[1:]
            for name, words in (
                ("classes", "has the classes"),
                ("activation", "ends in"),
                ("configured_threshold", "has the threshold"),
            )
            if getattr(member, name) != getattr(first, name)
        ]
        if tta:
            problems += [
                f"{member.path}: was trained without mirror images, so --tta has nothing to average"
                for member in self.members
                if not member.flips
            ]
        if problems:
            raise UserError(problems)
        self.tta = tta
        self.flips = [_subsets(member.flips if tta else []) for member in self.members]
        self.runtimes = []
        self._compute: list[Compute] = []
        for member, one in zip(self.members, wanted, strict=True):
            if one in ("auto", *RUNTIMES):
                name, why = chosen(member, samples, device=self.device, family=one, streams=streams)
            else:
                name, why = one, "as asked for"
            logger.info("%s: computed by %s (%s)", member.path, name, why)
            self.runtimes.append((name, why))
            self._compute.append(built(member, name, device=self.device, streams=streams))

    def __call__(self, image: Raster | np.ndarray) -> Prediction:
        """Segment one image.

        Args:
            image: as `read_raster` gives it; or (height, width) or (height, width, 3), uint8 or floats in [0, 1].

        Raises:
            UserError: it is no such image.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[Raster | np.ndarray]) -> list[Prediction]:
        """Segment several images of any sizes, the network's part of it in one go."""
        return [self._decided(maps) for maps in self._maps(images)]

    def probabilities(self, images: Sequence[Raster | np.ndarray]) -> list[np.ndarray]:
        """Of each image, before anything is decided: (channels, height, width), float32, the mean of all members."""
        return [np.asarray(np.mean(maps, axis=0, dtype=np.float32)) for maps in self._maps(images)]

    @property
    def has_opinions(self) -> bool:
        """Whether there is more than one mask of an image, see `opinions`."""
        return len(self.members) > 1 or bool(self.members[0].flips)

    def opinions(self, images: Sequence[Raster | np.ndarray]) -> list[list[np.ndarray]]:
        """Of each image two or more masks that agree where the model is sure, (height, width), uint8 each.

        They are those of each member; of a single model those of the image and of its mirror images, by the axes along
        which training mirrored, mirrored back.

        Raises:
            UserError: it is a single model that was trained without mirror images, or an image is none.
        """
        if len(self.members) > 1:
            by_view, members = self._by_member(images), self.members
        else:
            (member,), (compute,) = self.members, self._compute
            if not self.has_opinions:
                raise UserError(
                    f"{member.path}: is one model, trained without mirror images, so nothing tells where it is unsure; "
                    "give several models of the same classes"
                )
            rasters, views = _rasters(images), _subsets(member.flips)
            by_view = [self._probabilities(member, compute, [axes], rasters) for axes in views]
            members = [member] * len(views)
        return [
            [member.decided(each) for member, each in zip(members, maps, strict=True)]
            for maps in zip(*by_view, strict=True)
        ]

    def _maps(self, images: Sequence[Raster | np.ndarray]) -> list[list[np.ndarray]]:
        """Of each image the probabilities of each member."""
        return [list(maps) for maps in zip(*self._by_member(images), strict=True)]

    def _by_member(self, images: Sequence[Raster | np.ndarray]) -> list[list[np.ndarray]]:
        """Of each member the probabilities of each image."""
        rasters = _rasters(images)
        return [
            self._probabilities(member, compute, flips, rasters)
            for member, compute, flips in zip(self.members, self._compute, self.flips, strict=True)
        ]

    def _probabilities(
        self, member: Model, compute: Compute, flips: list[tuple[int, ...]], rasters: Sequence[Raster]
    ) -> list[np.ndarray]:
        prepared = [member.prepare(raster) for raster in rasters]
        inputs = np.stack([image for image, _ in prepared])
        backs: list[ToProbabilities] = [back for _, back in prepared]
        total: list[np.ndarray] = []
        for axes in flips:
            # Axis 0 of an image is axis 2 of a batch.
            turned = tuple(axis + 2 for axis in axes)
            logits = np.flip(compute(np.ascontiguousarray(np.flip(inputs, turned))), turned)
            maps = [back(each) for back, each in zip(backs, logits, strict=True)]
            total = maps if not total else [a + b for a, b in zip(total, maps, strict=True)]
        return [each / len(flips) for each in total] if len(flips) > 1 else total

    def _decided(self, maps: list[np.ndarray]) -> Prediction:
        masks = [member.decided(each) for member, each in zip(self.members, maps, strict=True)]
        mean, mask, agreement = maps[0], masks[0], None
        if len(maps) > 1:
            mean = np.asarray(np.mean(maps, axis=0, dtype=np.float32))
            mask = self.members[0].decided(mean)
            agreement = agreement_of(masks, classes=len(self.classes))
        return Prediction(mask, mean[1:] if self.activation == "softmax" else mean, agreement)


def agreement_of(masks: Sequence[np.ndarray], *, classes: int) -> tuple[float, ...]:
    """Of each class the mean Dice of all pairs of masks, in [0, 1]; two that mark nothing of it agree.

    Args:
        masks: two or more of one image, (height, width), numbered by class.
        classes: how many there are, background not counted.
    """
    pairs = list(itertools.combinations(masks, 2))
    return tuple(
        float(np.mean([mean_dice([a == number], [b == number], classes=1) for a, b in pairs]))
        for number in range(1, classes + 1)
    )


def device_of(device: str, *, runtime: str = "auto") -> str:
    """``"cpu"`` or ``"cuda"``; ``"auto"`` is CUDA where there is one, unless the runtime computes on the CPU only.

    Raises:
        UserError: CUDA was asked for and is not there, or it is no device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise UserError(f"device {device!r}: choose auto, cpu or cuda")
    if device == "cpu" or (device == "auto" and (runtime.startswith(("openvino", "onnx")) or not _nvidia())):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise UserError("device cuda: PyTorch finds none here")
    return "cpu"


def _nvidia() -> bool:
    """Whether this may be a machine with CUDA; asking torch costs its import."""
    return any(Path(name).exists() for name in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))


def _subsets(axes: Sequence[int]) -> list[tuple[int, ...]]:
    return [subset for size in range(len(axes) + 1) for subset in itertools.combinations(axes, size)]


def _rasters(images: Sequence[Raster | np.ndarray]) -> list[Raster]:
    return [image if isinstance(image, Raster) else _raster(image) for image in images]


def _raster(image: np.ndarray) -> Raster:
    array = np.asarray(image)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3) or 0 in array.shape:
        raise UserError(f"an image has the shape (height, width) or (height, width, 3), not {array.shape}")
    if array.dtype == np.uint8:
        return Raster(pixels=array, full_scale=(0.0, 255.0))
    if array.dtype.kind != "f" or not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise UserError(f"an image holds uint8, or floats in [0, 1]; this one is {array.dtype} and leaves that range")
    return Raster(pixels=array, full_scale=(0.0, 1.0))
