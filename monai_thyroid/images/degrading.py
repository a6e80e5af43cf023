"""Images made worse in ways that a clinic knows, each by a stated strength and the same every time."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from monai_thyroid.errors import UserError

__all__ = ["DEGRADATIONS", "Degradation", "degrade"]

_Pixels = npt.NDArray[np.float32]
_Mask = npt.NDArray[np.bool_]

_RANGE_DB = 60.0
"""Between black and white of a B-mode picture, which scanners set to 40 to 80."""


@dataclass(frozen=True)
class Degradation:
    """One way to make an image worse.

    Attributes:
        name: by which it is asked for.
        unit: of its strength; 0 leaves the image as it is.
        strengths: that are tried unless others are asked for.
        low: the least strength.
        high: the most.
        whole: whether only whole numbers are strengths.
        apply: to (height, width) or (height, width, 3) in [0, 1], by a strength other than 0; it gets random numbers
            that depend on the case and not on the strength, and the reference mask, (height, width).
    """

    name: str
    unit: str
    strengths: tuple[float, ...]
    low: float
    high: float
    apply: Callable[[_Pixels, float, np.random.Generator, _Mask], _Pixels]
    whole: bool = False

    def problem(self, strength: float) -> str | None:
        """Say why a number is no strength of it, or None if it is one."""
        if not (math.isfinite(strength) and self.low <= strength <= self.high):
            return f"{self.name}: the strength {strength:g} is not between {self.low:g} and {self.high:g} ({self.unit})"
        if self.whole and strength != int(strength):
            return f"{self.name}: the strength {strength:g} is no whole number ({self.unit})"
        return None


def degrade(image: _Pixels, name: str, strength: float, *, case: str, mask: _Mask) -> _Pixels:
    """Make an image worse; the same arguments give the same pixels.

    Args:
        image: (height, width) or (height, width, 3), float32 in [0, 1]; it stays as it is.
        name: of `DEGRADATIONS`.
        strength: in that one's unit; 0 gives the image back.
        case: its name, which the random numbers come from; stronger is the same pattern more of it.
        mask: of the reference, (height, width), where calipers are set.

    Raises:
        UserError: there is no such degradation, or it has no such strength.
    """
    if name not in DEGRADATIONS:
        raise UserError(f"degradation {name!r}: choose of {', '.join(DEGRADATIONS)}")
    one = DEGRADATIONS[name]
    if problem := one.problem(strength):
        raise UserError(problem)
    if strength == 0:
        return image
    rng = np.random.default_rng(list(hashlib.sha256(f"{name} {case}".encode()).digest()[:8]))
    return np.clip(one.apply(image, strength, rng, mask), 0, 1).astype(np.float32)


def _lifted(image: _Pixels, offset: _Pixels | np.float32) -> _Pixels:
    """An image with an offset, (height, width) or one for all, that grows with its grey up to a twentieth of white.

    What is black stays black: outside of the sector no echo is displayed, whatever the gain.
    """
    shown = np.minimum(1, 20 * (image if image.ndim == 2 else image.max(2))) * offset
    return image + (shown if image.ndim == 2 else shown[..., None])


def _gain(image: _Pixels, strength: float, rng: np.random.Generator, mask: _Mask) -> _Pixels:
    """More gain is an offset of the logarithm that is displayed, cut off at black and white."""
    return _lifted(image, np.float32(strength / _RANGE_DB))


def _speckle(image: _Pixels, strength: float, rng: np.random.Generator, mask: _Mask) -> _Pixels:
    """Multiplied by the envelope of fully developed speckle, to a power, before the logarithm.

    The envelope is Rayleigh distributed, and 5.57 dB its standard deviation after the logarithm (Wagner et al. 1983,
    doi 10.1109/T-SU.1983.31404). Grains are as those of a linear probe: wider than high.
    """
    axial = max(0.6, max(image.shape[:2]) / 420)
    parts = rng.standard_normal((2, *image.shape[:2]), dtype=np.float32)
    real, imaginary = (ndimage.gaussian_filter(part, (axial, 1.6 * axial), mode="wrap") for part in parts)
    envelope = np.hypot(real, imaginary)
    decibels = 20 * np.log10(np.maximum(envelope, 1e-6) / np.median(envelope))
    return _lifted(image, (strength * decibels / _RANGE_DB).astype(np.float32))


def _blur(image: _Pixels, strength: float, rng: np.random.Generator, mask: _Mask) -> _Pixels:
    sigma = strength / 100 * max(image.shape[:2])
    return np.asarray(ndimage.gaussian_filter(image, (sigma, sigma, 0)[: image.ndim], mode="nearest"), np.float32)


def _jpeg(image: _Pixels, strength: float, rng: np.random.Generator, mask: _Mask) -> _Pixels:
    file = io.BytesIO()
    Image.fromarray((image * 255 + 0.5).astype(np.uint8)).save(file, "JPEG", quality=round(100 - strength))
    with Image.open(file) as picture:
        return np.asarray(picture, np.float32) / np.float32(255)


def _calipers(image: _Pixels, strength: float, rng: np.random.Generator, mask: _Mask) -> _Pixels:
    """Crosses at the ends of the largest diameter, and of the one across, with dotted lines between them.

    Without a lesion they measure something else.
    """
    marked = image.copy()
    size = max(image.shape[:2])
    arm, thick = max(3, round(0.011 * size)), max(1, round(size / 450))
    for turned, (start, end) in enumerate(_diameters(mask, rng)[: int(strength)]):
        _dots(marked, start, end, gap=max(3, arm), thick=thick)
        for place in (start, end):
            _cross(marked, place, arm=arm, thick=thick, turned=bool(turned))
    return marked


_Line = tuple[np.ndarray, np.ndarray]


def _diameters(mask: _Mask, rng: np.random.Generator) -> list[_Line]:
    """Ends (row, column) of the largest diameter of the largest object, and of the chord across its middle."""
    height, width = mask.shape
    angle, share, place = rng.uniform(0, np.pi), rng.uniform(0.12, 0.25), rng.uniform(0.35, 0.65, 2)
    labels, count = ndimage.label(mask)
    if count:
        largest = labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))
        edge = np.argwhere(largest & ~ndimage.binary_erosion(largest)).astype(float)
        # The farthest two of a set are extreme along some direction.
        along = np.linspace(0, np.pi, 180, endpoint=False)
        towards = np.stack([np.sin(along), np.cos(along)])
        reach = edge @ towards
        widest = int(np.argmax(np.ptp(reach, axis=0)))
        start, end = edge[int(reach[:, widest].argmin())], edge[int(reach[:, widest].argmax())]
        inside = largest
    else:
        middle = place * (height, width)
        half = share * min(height, width) * np.array([math.sin(angle), math.cos(angle)])
        start, end = middle - half, middle + half
        rows, columns = np.mgrid[:height, :width]
        inside = np.hypot(rows - middle[0], columns - middle[1]) < 0.7 * share * min(height, width)
    middle, line = (start + end) / 2, end - start
    across = np.array([-line[1], line[0]]) / max(float(np.hypot(*line)), 1e-6)
    steps = np.arange(-max(height, width), max(height, width) + 1)[:, None] * across + middle
    rows, columns = np.round(steps).astype(int).T
    there = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    hit = np.flatnonzero(there & inside[rows.clip(0, height - 1), columns.clip(0, width - 1)])
    chord = (steps[hit[0]], steps[hit[-1]]) if len(hit) else (middle, middle)
    return [(start, end), chord]


def _dots(image: _Pixels, start: np.ndarray, end: np.ndarray, *, gap: int, thick: int) -> None:
    count = int(np.hypot(*(end - start)) / gap)
    for share in np.linspace(0, 1, max(count, 1) + 1)[1:-1]:
        _square(image, start + share * (end - start), 0, thick)


def _cross(image: _Pixels, place: np.ndarray, *, arm: int, thick: int, turned: bool) -> None:
    """A bright cross with a dark rim, as scanners draw it: upright, or turned for the second diameter."""
    ways = ((1, 1), (1, -1)) if turned else ((1, 0), (0, 1))
    for rim, level in ((1, 0.0), (0, 1.0)):
        for way in ways:
            for step in range(-arm, arm + 1):
                _square(image, place + step * np.array(way) * (0.75 if turned else 1.0), rim, thick, level)


def _square(image: _Pixels, place: np.ndarray, rim: int, thick: int, level: float = 1.0) -> None:
    row, column = (round(float(value)) - thick // 2 for value in place)
    top, left = max(row - rim, 0), max(column - rim, 0)
    image[top : max(row + thick + rim, 0), left : max(column + thick + rim, 0)] = level


DEGRADATIONS: dict[str, Degradation] = {
    one.name: one
    for one in (
        Degradation("gain", "dB of 60 displayed", (-12, -6, 6, 12), -60, 60, _gain),
        Degradation("speckle", "1: fully developed", (0.25, 0.5, 1), 0, 3, _speckle),
        Degradation("blur", "% of the longer side", (0.25, 0.5, 1), 0, 10, _blur),
        Degradation("jpeg", "100 less the quality", (50, 80, 90, 95), 0, 99, _jpeg),
        Degradation("calipers", "diameters measured", (1, 2), 0, 2, _calipers, whole=True),
    )
}
"""By name."""
