"""Checks of the arrays that come in. What is wrong here is a mistake in a program, hence ValueError."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["as_mask", "check_spacing", "same_shape"]


def as_mask(array: npt.ArrayLike, name: str) -> npt.NDArray[np.bool_]:
    """A mask as bool.

    Args:
        array: (H, W), bool, or numbers that are all 0 or 1.
        name: what to call it in the message.

    Raises:
        ValueError: not 2-D, without a pixel, or with other values, such as a 0/255 image or probabilities.
    """
    mask = np.asarray(array)
    if mask.ndim != 2:
        raise ValueError(f"{name} must be (H, W), got the shape {mask.shape}.")
    if mask.size == 0:
        raise ValueError(f"{name} has no pixel, its shape is {mask.shape}.")
    if mask.dtype != np.bool_:
        binary = mask == 1
        if not np.all(binary | (mask == 0)):
            raise ValueError(f"{name} must be bool or hold only 0 and 1; threshold it first.")
        mask = binary
    return mask


def same_shape(reference: npt.NDArray, other: npt.NDArray, name: str) -> None:
    """Raise ValueError if two arrays differ in shape."""
    if reference.shape != other.shape:
        raise ValueError(f"reference has the shape {reference.shape}, {name} {other.shape}; they must be the same.")


def check_spacing(spacing: tuple[float, float] | None) -> tuple[float, float] | None:
    """The pixel spacing as two floats.

    Args:
        spacing: (y, x) in mm per pixel, or None if unknown.

    Raises:
        ValueError: not two numbers, or one of them not positive or not finite.
    """
    if spacing is None:
        return None
    values = tuple(float(value) for value in spacing)
    if len(values) != 2 or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(f"spacing must be two positive, finite numbers (y, x) in mm per pixel, got {spacing}.")
    return values[0], values[1]
