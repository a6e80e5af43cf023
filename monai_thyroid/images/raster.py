"""What every format of image is read into, and how many pixels it may have."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from monai_thyroid.errors import UserError

__all__ = [
    "Format",
    "Raster",
    "binarise",
    "check_frames",
    "check_pixels",
    "max_pixels",
    "range_of",
    "to_channels",
    "too_large",
]

_MAX_PIXELS = "MONAI_THYROID_MAX_PIXELS"
_DEFAULT_MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class Raster:
    """An image as it is in its file.

    Attributes:
        pixels: (height, width) or (height, width, 3), the file's own numbers; MONOCHROME1 already inverted, colour
            spaces already turned to RGB, alpha dropped, palettes looked up.
        full_scale: ``(black, white)``: the numbers that stand for 0 and 1. By the bit depth where it is 8 (or 1);
            else by the file's display window, else by the smallest and largest pixel.
        spacing: mm between pixel centres, (y, x), or None where the file does not say.
        affine: the 4x4 matrix of a NIfTI file, else None.
        orientation: what a picture's EXIF asks for, 1 to 8; the pixels are turned so already, as viewers show them.
    """

    pixels: np.ndarray
    full_scale: tuple[float, float]
    spacing: tuple[float, float] | None = None
    affine: np.ndarray | None = None
    orientation: int = 1

    def normalised(self) -> np.ndarray:
        """The pixels as float32 in [0, 1]."""
        black, white = self.full_scale
        scaled = (self.pixels.astype(np.float32) - black) / max(white - black, 1e-12)
        return np.clip(scaled, 0.0, 1.0)


@dataclass(frozen=True)
class Format:
    """One kind of image file.

    Attributes:
        name: of the format.
        suffixes: lower-case endings of its files' names.
        recognises: whether a file is of this format, by its name and content.
        read: reads it, by its name (for messages), its content and whether it is an ``"image"``, a ``"mask"`` of two
            levels or a ``"label"`` of class numbers. Checks the size in the header by `check_pixels` before it decodes.
    """

    name: str
    suffixes: tuple[str, ...]
    recognises: Callable[[str, bytes], bool]
    read: Callable[[str, bytes, str], Raster]


def max_pixels() -> int:
    """How many pixels an image may have: ``MONAI_THYROID_MAX_PIXELS``, or 64 million.

    Raises:
        UserError: the variable is not a whole number above 0.
    """
    text = os.environ.get(_MAX_PIXELS, "").strip()
    if not text:
        return _DEFAULT_MAX_PIXELS
    if not (text.isascii() and text.isdecimal() and len(text) < 19 and int(text) > 0):
        raise UserError(f"{_MAX_PIXELS}={text}: give a whole number of pixels, such as {_DEFAULT_MAX_PIXELS}")
    return int(text)


def check_pixels(name: str, width: int, height: int) -> None:
    """Refuse an image that has more pixels than `max_pixels`.

    Raises:
        UserError: it has; names the file, its size and the limit.
    """
    if width * height > max_pixels():
        raise too_large(name, f"is {width} x {height} pixels,")


def too_large(name: str, size: str) -> UserError:
    """That an image has more pixels than `max_pixels`, ``size`` being what it has instead."""
    return UserError(
        f"{name}: {size} more than the {max_pixels() / 1e6:g} megapixels that are read; crop or shrink it, or raise "
        f"the limit by the environment variable {_MAX_PIXELS}"
    )


def check_frames(name: str, frames: int) -> None:
    """Refuse a file of several images.

    Raises:
        UserError: it is one.
    """
    if frames > 1:
        raise UserError(f"{name}: holds {frames} frames; give one image a file, only 2-D is supported")


def range_of(pixels: np.ndarray) -> tuple[float, float]:
    """Black and white of pixels without a display window: by the bit depth where it is 8, else their least and most."""
    return (0.0, 255.0) if pixels.dtype == np.uint8 else (float(pixels.min()), float(pixels.max()))


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Turn (H, W) or (H, W, 3) in [0, 1] into the number of channels a network expects.

    Grey from colour is the luma of ITU-R BT.601, as Pillow does it; colour from grey is three equal channels.

    Args:
        image: (height, width) or (height, width, 3).
        channels: 1 or 3.

    Returns:
        (height, width) for one channel, (height, width, 3) for three.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if channels == 1 and image.ndim == 3:
        return image @ np.asarray([0.299, 0.587, 0.114], dtype=image.dtype)
    if channels == 3 and image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image


def binarise(pixels: np.ndarray) -> np.ndarray:
    """Turn a mask of any two grey levels into booleans.

    The threshold is half-way between the darkest and the brightest pixel, so that the grey edges that JPEG and
    interpolation leave fall to the nearer side. A mask of one level is empty where that level is 0, else full.

    Args:
        pixels: (height, width), or (height, width, 3) for a mask stored in colour.

    Returns:
        bool, (height, width).
    """
    grey = to_channels(pixels.astype(np.float32), 1)
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return np.full(grey.shape, high > 0)
    return grey > (low + high) / 2
