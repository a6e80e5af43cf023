"""One way to read an image or a mask, whatever the file: intensities in [0, 1], the channels that were asked for."""

from __future__ import annotations

import os

import numpy as np
from scipy import ndimage

from monai_thyroid.errors import UserError
from monai_thyroid.images.formats import read_file
from monai_thyroid.images.raster import Raster, binarise, to_channels
from monai_thyroid.images.sources import SOURCES, is_source

__all__ = [
    "class_numbers_of",
    "label_problem",
    "mask_problem",
    "masks_by_class",
    "read_labels",
    "read_mask",
    "read_masks",
    "read_raster",
]


def read_raster(
    path: str | os.PathLike[str], *, content: bytes | None = None, mask: bool = False, indices: bool = False
) -> Raster:
    """Read one 2-D image.

    Args:
        path: PNG, JPEG, BMP, TIFF (turned as their EXIF says), DICOM (also without a suffix), NIfTI, or a source of
            `monai_thyroid.images.sources`.
        content: the file's bytes where they are already in memory.
        mask: it is a mask: where its colours hold nothing, its alpha channel is read.
        indices: it is a label of class numbers: as a mask, and of a picture with a palette the indices are given, not
            the colours.

    Raises:
        UserError: the file is missing, empty, unreadable, truncated, too large (see
            `monai_thyroid.images.raster.max_pixels`), of more than one frame or slice, of complex numbers, of a mode
            that is neither grey nor colour, or a mask whose colours and alpha contradict each other. The message names
            the file.
    """
    name = os.fspath(path)
    if is_source(name):
        scheme, _, rest = name.partition(":")
        return SOURCES[scheme](rest)
    return read_file(name, content=content, use="label" if indices else "mask" if mask else "image")


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a two-level mask as booleans, (height, width); see `read_raster` and `binarise`."""
    return binarise(read_raster(path, mask=True).pixels)


def label_problem(pixels: np.ndarray, *, classes: int) -> str | None:
    """Say why an array cannot be a label of several classes, or None if it can.

    Args:
        pixels: (height, width), or (height, width, 3) with three equal channels; 0 is background, 1 to ``classes``
            number the classes.
        classes: how many there are, background not counted.
    """
    if pixels.ndim == 3:
        if (pixels[..., :1] != pixels).any():
            return f"is coloured; classes are numbered 1 to {classes} by grey level or palette index"
        pixels = pixels[..., 0]
    # A table of counts is a hundred times faster than sorting all pixels.
    if pixels.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).astype(np.float64)
    else:
        found = np.unique(pixels).astype(np.float64)
    strange = [f"{value:g}" for value in found if value not in range(classes + 1)]
    if not strange:
        return None
    shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more values" if len(strange) > 5 else "")
    return f"holds {shown}; 0 is background and the {classes} classes are numbered 1 to {classes}"


def mask_problem(pixels: np.ndarray, *, lossy: bool = False) -> str | None:
    """Say why an array cannot be a two-level mask, or None if it can.

    Grey pixels are allowed near the border of the foreground, where JPEG and interpolation leave them, not elsewhere.
    An empty mask is legitimate.

    Args:
        pixels: (height, width), or (height, width, 3).
        lossy: it comes from a JPEG file, where a mask of few, close levels is noise around a constant.
    """
    grey = to_channels(pixels.astype(np.float32), 1)
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return None if high == 0 else f"all foreground (every pixel is {high:g}); an empty mask must be all 0"
    if lossy and high - low < 64:
        return f"levels {low:g} to {high:g} are the noise of a JPEG file, not a mask of two levels"
    quarter = (high - low) / 4
    between = (grey > low + quarter) & (grey < high - quarter)
    if not between.any():
        return None
    mask = binarise(pixels)
    edge = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_erosion(mask, iterations=3)
    stray = int((between & ~edge).sum())
    levels = len(np.unique(grey.round()))
    if stray > 0.002 * mask.size:
        return f"not a mask of two levels: {levels} grey levels, and {stray} pixels of them away from any edge"
    # In noise every pixel is near an edge.
    if between.mean() > 0.25:
        return f"not a mask of two levels: {levels} grey levels, and {between.mean():.0%} of its pixels in between"
    return None


def read_labels(path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read a label as class numbers.

    Args:
        path: as for `read_raster`.
        classes: how many classes there are, background not counted. With one, any two levels are told apart, see
            `binarise`; with more, the pixels (or palette indices) are the numbers.

    Returns:
        uint8, (height, width), 0 to ``classes``.

    Raises:
        UserError: as `read_raster`, or the file holds other numbers, see `label_problem`.
    """
    return class_numbers_of(read_raster(path, mask=True, indices=classes > 1).pixels, path, classes=classes)


def read_masks(path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read a label as one mask a class: bool, (classes, height, width); see `read_labels`."""
    return masks_by_class(read_labels(path, classes=classes), classes)


def class_numbers_of(pixels: np.ndarray, path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read the pixels of a label as class numbers; see `read_labels`, which reads the file too."""
    if classes == 1:
        return binarise(pixels).astype(np.uint8)
    if problem := label_problem(pixels, classes=classes):
        raise UserError(f"{os.fspath(path)}: {problem}")
    return (pixels[..., 0] if pixels.ndim == 3 else pixels).astype(np.uint8)


def masks_by_class(labels: np.ndarray, classes: int) -> np.ndarray:
    """Part class numbers, (height, width), into one mask a class: bool, (classes, height, width)."""
    masks: np.ndarray = labels[None] == np.arange(1, classes + 1, dtype=np.uint8)[:, None, None]
    return masks
