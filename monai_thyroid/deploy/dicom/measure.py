"""Connected regions of a mask: outlines along the edges of pixels, areas and two diameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull

from monai_thyroid.metrics import label_components

__all__ = ["Region", "outline_of", "regions_of"]

MOST_POINTS = 8000
"""Of an outline: a list of coordinates in a DICOM object takes 65,534 bytes."""


@dataclass(frozen=True)
class Region:
    """One connected region of a class.

    Attributes:
        area: in mm² where the spacing is known, else in pixels.
        long_axis: the greatest distance between two of its corners, in mm or pixels.
        short_axis: its greatest extent at right angles to the long axis, in mm or pixels.
        outline: (points, 2), x and y of the corners of its outer border, holes not counted; the first is repeated at
            the end. 0 is the left or upper edge of the picture, as in DICOM's image-relative coordinates.
        exact: whether the outline has every corner; of one of thousands some are left out.
        centre: x and y of its centre of gravity, in pixels.
    """

    area: float
    long_axis: float
    short_axis: float
    outline: np.ndarray
    exact: bool
    centre: tuple[float, float]


def regions_of(mask: np.ndarray, *, spacing: tuple[float, float] | None, most: int) -> tuple[list[Region], int]:
    """The connected regions (pixels that touch by a corner belong together) of a mask, the largest first.

    Args:
        mask: (height, width), bool.
        spacing: mm between pixel centres, (y, x), or None.
        most: how many to measure.

    Returns:
        At most ``most``, and how many there are.
    """
    labels, count = label_components(mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = ndimage.find_objects(labels)
    result = []
    for index in np.argsort(-sizes, kind="stable")[:most]:
        rows, columns = boxes[index]
        part = labels[rows, columns] == index + 1
        corners = outline_of(part) + np.array([columns.start, rows.start])
        ys, xs = np.nonzero(part)
        scale = np.array([1.0, 1.0] if spacing is None else [spacing[1], spacing[0]])
        long_axis, short_axis = _axes(corners * scale)
        outline = _simplified(corners)
        result.append(
            Region(
                area=float(sizes[index] * scale.prod()),
                long_axis=long_axis,
                short_axis=short_axis,
                outline=outline,
                exact=len(outline) == len(corners),
                centre=(float(xs.mean() + columns.start + 0.5), float(ys.mean() + rows.start + 0.5)),
            )
        )
    return result, count


def outline_of(mask: np.ndarray) -> np.ndarray:
    """The corners of the outer border of one connected region: (points, 2), x and y, the first repeated at the end.

    Args:
        mask: (height, width), bool, one region of pixels that touch by a side or a corner.
    """
    padded = np.pad(ndimage.binary_fill_holes(mask), 1)
    # Each side of a pixel at the border, as a step with the region at its right hand.
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    inside = padded[1:-1, 1:-1]
    for neighbour, (from_y, from_x), (by_y, by_x) in (
        (padded[:-2, 1:-1], (0, 0), (0, 1)),  # above: to the right
        (padded[1:-1, 2:], (0, 1), (1, 0)),  # at the right: down
        (padded[2:, 1:-1], (1, 1), (0, -1)),  # below: to the left
        (padded[1:-1, :-2], (1, 0), (-1, 0)),  # at the left: up
    ):
        for y, x in zip(*np.nonzero(inside & ~neighbour), strict=True):
            steps.setdefault((int(y) + from_y, int(x) + from_x), []).append((by_y, by_x))
    start = min(steps)
    place, direction, corners = start, (0, 1), [start]
    while True:
        # Where two pixels touch by a corner, two steps start: the one to the left keeps them together.
        way = steps[place]
        left = (-direction[1], direction[0])
        turned = left if left in way else way[0]
        if turned != direction and place != start:
            corners.append(place)
        direction = turned
        way.remove(direction)
        place = (place[0] + direction[0], place[1] + direction[1])
        if place == start and not steps[start]:
            break
    return np.array([*corners, start], dtype=np.float64)[:, ::-1]


def _axes(corners: np.ndarray) -> tuple[float, float]:
    hull = corners[ConvexHull(corners).vertices]
    apart = hull[:, None] - hull[None]
    squared = (apart**2).sum(axis=2)
    first, second = np.unravel_index(squared.argmax(), squared.shape)
    length = float(np.sqrt(squared.max()))
    along = apart[first, second] / length
    across = hull @ np.array([-along[1], along[0]])
    return length, min(length, float(np.ptp(across)))  # of a square both are the same but for rounding


def _simplified(corners: np.ndarray) -> np.ndarray:
    every = -(-len(corners) // (MOST_POINTS - 1))
    return corners if every == 1 else np.concatenate([corners[:-1:every], corners[-1:]])
