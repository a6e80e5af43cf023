"""From an image to what a network takes, and from its logits to the image's own grid, in numpy alone.

Resizing to the network's grid and back is linear and separable: two small matrices do in a millisecond what a
chain of transforms does in tens, and without torch, whose import alone takes longer than many an archive.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_array

from monai_thyroid.images import Raster, to_channels

__all__ = ["PixelPath", "ToProbabilities", "activated", "numbered", "resizing"]

ToProbabilities = Callable[[np.ndarray], np.ndarray]
"""From an image's logits (channels, *output) to probabilities on its own grid, (channels, height, width), float32."""


@dataclass(frozen=True)
class PixelPath:
    """How a run brings an image to its network's grid, and logits back to the image's.

    It computes what MONAI's ``Resized`` (bilinear, anti-aliased), ``PadToSquared``, ``NormalizeIntensityd`` and
    ``Invertd`` compute, up to rounding. The width comes first in what the network sees, as in everything MONAI
    makes of a picture.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        activation: ``"sigmoid"`` or ``"softmax"``.
        size: (width, height) of the network's input.
        output: (width, height) of its logits; less than ``size`` where the network is unpadded.
        square: the image is padded to a square before it is resized.
        outside: the logits of an unpadded network are those of the centre, with background around it (``pad``), or a
            small picture of the whole image (``resize``).
        background: logit of that background.
        mean: of each channel, taken off after resizing; none at all where nothing is.
        std: of each channel, divided by.
    """

    channels: int
    activation: str
    size: tuple[int, int]
    output: tuple[int, int]
    square: bool = False
    outside: Literal["pad", "resize"] = "pad"
    background: float = -20.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PixelPath:
        """The opposite of `as_dict`."""
        lists: dict[str, Any] = {name: tuple(one) for name, one in content.items() if isinstance(one, list)}
        return cls(**{**content, **lists})

    def as_dict(self) -> dict[str, Any]:
        """The attributes, for JSON."""
        return asdict(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, width, height) of the network's input."""
        return (self.channels, *self.size)

    def prepare(self, raster: Raster) -> tuple[np.ndarray, ToProbabilities]:
        """An image as the network takes it, (channels, *size), float32, and what makes probabilities of its logits."""
        image = to_channels(raster.normalised(), self.channels)
        height, width = image.shape[:2]
        longest = max(height, width)
        # What is padded is zero, so leaving its columns out of the matrix is the same as padding.
        across, down = (
            _to_network(longest if self.square else side, size, side)
            for side, size in zip((width, height), self.size, strict=True)
        )
        planes = [image] if image.ndim == 2 else np.moveaxis(image, 2, 0)
        prepared = np.stack([across @ (down @ plane).T for plane in planes])
        if self.mean:
            mean, std = (np.asarray(one, np.float32)[:, None, None] for one in (self.mean, self.std))
            prepared = (prepared - mean) / std
        return prepared, functools.partial(self._probabilities, shape=(height, width))

    def _probabilities(self, logits: np.ndarray, *, shape: tuple[int, int]) -> np.ndarray:
        if self.output != self.size and self.outside == "pad":
            margins = [(size - given) // 2 for size, given in zip(self.size, self.output, strict=True)]
            ends = [size - given - low for low, size, given in zip(margins, self.size, self.output, strict=True)]
            around = ((0, 0), *zip(margins, ends, strict=True))
            logits = np.pad(logits, around, constant_values=self.background)
        down, across = (
            _from_network(given, size, max(shape) if self.square else side, side)
            for given, size, side in zip(logits.shape[:0:-1], self.size[::-1], shape, strict=True)
        )
        return activated(np.stack([down @ (across @ plane).T for plane in logits]), self.activation)


# A row of the matrices has two to a dozen numbers. Left sparse they take a quarter of the time, and no threads: those
# of numpy's BLAS go on waiting for work, in the way of the network that comes next.
@functools.lru_cache(maxsize=64)
def _to_network(length: int, size: int, side: int) -> csr_array:
    return csr_array(_centre(resizing(length, size, smooth=True), side))


@functools.lru_cache(maxsize=64)
def _from_network(given: int, size: int, length: int, side: int) -> csr_array:
    matrix = csr_array(_centre(resizing(size, length).T, side).T)
    return matrix if given == size else matrix @ csr_array(resizing(given, size))


def _centre(matrix: np.ndarray, side: int) -> np.ndarray:
    """Of a matrix for a padded side, the columns for what was there before; an odd pixel was put at the far end."""
    before = (matrix.shape[1] - side) // 2
    return matrix[:, before : before + side]


def resizing(length: int, size: int, *, smooth: bool = False) -> np.ndarray:
    """The matrix that resizes one axis as ``torch.nn.functional.interpolate`` does (bilinear, corners not aligned).

    Args:
        length: pixels before.
        size: pixels after.
        smooth: before shrinking apply the Gaussian filter of MONAI's ``anti_aliasing``: the standard deviation is
            ``(length / size - 1) / 2`` pixels, the kernel ends at four of them, and beyond the image there are zeros.

    Returns:
        (size, length), float32.
    """
    matrix = np.zeros((size, length), np.float32)
    rows = np.arange(size)
    # As torch computes it: the scale in float32, product and difference with one rounding.
    scale = float(np.float32(length) / np.float32(size))
    position = np.maximum(((rows + 0.5) * scale - 0.5).astype(np.float32), 0)
    low = np.minimum(position.astype(np.int64), length - 1)
    high = np.minimum(low + 1, length - 1)
    weight = (position - low).astype(np.float32)
    kernel = _gaussian((length / size - 1) / 2) if smooth and length > size else np.ones(1, np.float32)
    tail = len(kernel) // 2
    for offset, share in enumerate(kernel, -tail):
        for centre, part in ((low, 1 - weight), (high, weight)):
            column = centre + offset
            inside = (column >= 0) & (column < length)
            matrix[rows[inside], column[inside]] += share * part[inside]
    return matrix


def _gaussian(deviation: float) -> np.ndarray:
    tail = int(max(deviation * 4, 0.5) + 0.5)
    edges = [math.erf(0.70710678 / deviation * (x - 0.5)) for x in range(-tail, tail + 2)]
    return (np.diff(edges) / 2).astype(np.float32)


def activated(logits: np.ndarray, activation: str) -> np.ndarray:
    """Probabilities from logits, channels first: ``"sigmoid"`` each by itself, ``"softmax"`` over the channels."""
    if activation == "softmax":
        powers = np.exp(logits - logits.max(0, keepdims=True))
        return powers / powers.sum(0, keepdims=True)
    # Beyond 80 nothing changes but that float32 overflows.
    return 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def numbered(probabilities: np.ndarray, *, activation: str, threshold: float) -> np.ndarray:
    """One class a pixel, as `monai_thyroid.transforms.class_numbers` decides it.

    Args:
        probabilities: (channels, height, width); the background's before the classes' for softmax.
        activation: what made them.
        threshold: of sigmoid.

    Returns:
        (height, width), uint8; 0 is background.
    """
    if activation == "softmax":
        return probabilities.argmax(0).astype(np.uint8)
    if len(probabilities) == 1:
        return (probabilities[0] > threshold).astype(np.uint8)
    channel = probabilities.argmax(0)
    highest = np.take_along_axis(probabilities, channel[None], 0)[0]
    return np.where(highest > threshold, channel + 1, 0).astype(np.uint8)
