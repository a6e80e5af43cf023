"""What a predicted mask says, in numbers that a table can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from monai_thyroid.evaluation.predictor import Prediction
from monai_thyroid.metrics import label_components

__all__ = ["findings"]


def findings(prediction: Prediction, number: int, *, spacing: tuple[float, float] | None) -> dict[str, Any]:
    """Area, components, diameter and probability of one class.

    Args:
        prediction: of an image.
        number: of the class, from 1.
        spacing: mm between pixel centres, (y, x), or None where it is unknown.

    Returns:
        ``area_px``, ``area_mm2``, ``components`` (8-connected), ``largest_diameter_px`` and ``largest_diameter_mm``,
        ``mean_probability`` (inside the mask) and ``agreement`` (of an ensemble). The diameter is the greatest distance
        between two corners of pixels of one component, and the largest of all components. None stands for what is not
        known or has no meaning.
    """
    mask = prediction.mask == number
    area = int(np.count_nonzero(mask))
    row: dict[str, Any] = {
        "area_px": area,
        "area_mm2": None if spacing is None else round(area * spacing[0] * spacing[1], 4),
        "components": 0,
        "largest_diameter_px": None,
        "largest_diameter_mm": None,
        "mean_probability": None,
        "agreement": None if prediction.agreement is None else round(prediction.agreement[number - 1], 5),
    }
    if area:
        outlines, row["components"] = _outlines(mask)
        row["largest_diameter_px"] = round(max(_diameter(outline) for outline in outlines), 3)
        if spacing is not None:
            row["largest_diameter_mm"] = round(max(_diameter(outline * spacing) for outline in outlines), 4)
        row["mean_probability"] = round(float(prediction.probabilities[number - 1][mask].mean()), 5)
    return row


def _outlines(mask: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Of each component that may be the longest, the corners at both ends of each of its rows: (points, 2), y and x."""
    labels, count = label_components(mask)
    boxes = ndimage.find_objects(labels)
    # The box's diagonal bounds a component's diameter, and its longer side is reached by it: specks cannot win.
    sides = np.array([[box[0].stop - box[0].start, box[1].stop - box[1].start] for box in boxes])
    diagonals, reached = np.hypot(*sides.T), sides.max(axis=1)
    outlines = []
    # By millimetres too, whose two axes may differ by a factor.
    for index in np.flatnonzero(diagonals * 4 >= reached.max()):
        box = boxes[index]
        part = labels[box] == index + 1
        rows = np.flatnonzero(part.any(axis=1))
        first = part[rows].argmax(axis=1)
        last = part.shape[1] - part[rows, ::-1].argmax(axis=1)
        ends = [(rows + below, side) for below in (0, 1) for side in (first, last)]
        outlines.append(np.concatenate([np.stack(end, axis=1) for end in ends]).astype(np.float64))
    return outlines, count


def _diameter(points: np.ndarray) -> float:
    """The greatest distance between two points, of which the ends of the convex hull are enough."""
    if len(points) > 64:
        points = _extreme(points)
    apart = points[:, None] - points[None]
    return float(np.sqrt((apart**2).sum(axis=2).max()))


def _extreme(points: np.ndarray) -> np.ndarray:
    """The corners of the convex hull (monotone chain), (points, 2)."""
    ordered = sorted(map(tuple, points))

    def half(path: list[tuple[float, float]]) -> list[tuple[float, float]]:
        kept: list[tuple[float, float]] = []
        for y, x in path:
            while len(kept) > 1 and (kept[-1][0] - kept[-2][0]) * (x - kept[-2][1]) <= (kept[-1][1] - kept[-2][1]) * (
                y - kept[-2][0]
            ):
                kept.pop()
            kept.append((y, x))
        return kept[:-1]

    return np.array(half(ordered) + half(ordered[::-1]))
