"""Filling outlines: some datasets draw a structure's border, one pixel wide, instead of its area."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

__all__ = ["fill_outline"]

_EIGHT = np.ones((3, 3), bool)


def fill_outline(outline: np.ndarray) -> np.ndarray:
    """Fill a closed outline of a roughly convex structure, such as the ellipses of HC18.

    Gaps of one or two pixels are closed. An outline that leaves the picture is closed by the picture's border. What
    is inside is what lies within the outline's convex hull and is cut off from the rest of the picture.

    Args:
        outline: bool, (height, width).

    Returns:
        bool, (height, width); holds every pixel of the outline. An array that is filled already comes back as it is,
        as does an empty one.

    Raises:
        ValueError: the outline cannot be filled: it is open, or nothing is inside.
    """
    outline = np.asarray(outline, dtype=bool)
    if not outline.any():
        return outline.copy()
    hull = _hull(outline)
    if outline.sum() > 0.5 * hull.sum():
        return outline.copy()
    for thicker in (0, 1):
        # One pixel thicker on all sides, the ends of a gap of two pixels meet.
        wall = ndimage.binary_dilation(outline, _EIGHT, iterations=thicker) if thicker else outline
        # Four neighbours: an outline one pixel wide is tight against them, even where it runs diagonally.
        regions, count = ndimage.label(~wall)
        size = np.bincount(regions.ravel(), minlength=count + 1)
        within = np.bincount(regions[hull], minlength=count + 1)
        # Digitised hulls run a pixel within the outline here and there.
        enclosed = size - within <= 0.02 * size
        enclosed[0] = False
        inside = enclosed[regions]
        if not inside.any():
            continue
        if thicker:
            inside = ndimage.binary_dilation(inside, _EIGHT, iterations=thicker) & (hull | outline)
        filled: np.ndarray = inside | outline
        if filled.sum() >= 0.5 * hull.sum():
            return filled
    raise ValueError("the outline is open or nothing is inside it, so it cannot be filled")


def _hull(mask: np.ndarray) -> np.ndarray:
    """The pixels within the convex hull of a mask."""
    from skimage.morphology import convex_hull_image  # a fifth of a second that only outlines are worth

    rows, columns = np.nonzero(mask)
    if np.ptp(rows) < 2 or np.ptp(columns) < 2:
        return mask
    hull: np.ndarray = convex_hull_image(mask)
    return hull
