"""The palette, and the outline of a mask, painted into pixels or drawn into a figure; the same look everywhere.

Okabe and Ito's colours are told apart by every kind of colour vision. A bright line between dark ones shows on any
ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BLUE",
    "CLASSES",
    "LINES",
    "PREDICTION",
    "REFERENCE",
    "SKY_BLUE",
    "VERMILION",
    "YELLOW",
    "draw_outline",
    "paint_outlines",
    "rgb",
]

BLACK, ORANGE, SKY_BLUE, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"

REFERENCE, PREDICTION = ORANGE, SKY_BLUE
CLASSES = (SKY_BLUE, ORANGE, GREEN, YELLOW, PURPLE, VERMILION, BLUE)
"""Of masks, by class; further classes repeat it."""
LINES = (BLUE, VERMILION, GREEN, PURPLE, BLACK, SKY_BLUE, ORANGE)
"""Of curves, without yellow, which white paper swallows."""


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of ``#rrggbb``."""
    red, green, blue = bytes.fromhex(colour[1:])
    return red, green, blue


def paint_outlines(
    picture: npt.NDArray[np.uint8], masks: Sequence[npt.NDArray[np.bool_]], *, colours: Sequence[str], width: int
) -> None:
    """Paint the border of each mask, along its inside, with dark lines at both sides.

    Args:
        picture: (height, width, 3); changed in place.
        masks: (height, width) each; a later one is on top.
        colours: of the masks, used again where there are more masks.
        width: of a line, in pixels.
    """
    from scipy import ndimage

    def shrunk(mask: npt.NDArray[np.bool_], by: int) -> npt.NDArray[np.bool_]:
        result: npt.NDArray[np.bool_] = ndimage.binary_erosion(np.pad(mask, 1), iterations=by)[1:-1, 1:-1]
        return result

    # Every dark line first, so that none covers the bright one of a neighbour.
    for mask in masks:
        outer = ndimage.binary_dilation(mask, iterations=width) & ~mask
        picture[outer | (shrunk(mask, width) & ~shrunk(mask, 2 * width))] = 0
    for number, mask in enumerate(masks):
        picture[mask & ~shrunk(mask, width)] = rgb(colours[number % len(colours)])


def draw_outline(axes: Any, mask: npt.NDArray[np.bool_], *, colour: str, style: str = "solid", width: float) -> None:
    """Draw the border of a mask between its pixels, also along the edge of the image; nothing for an empty one.

    Args:
        axes: matplotlib axes that show the image.
        mask: (height, width).
        colour: any matplotlib colour.
        style: a matplotlib line style.
        width: of the line, in points.
    """
    from matplotlib.patheffects import withStroke

    if not mask.any():
        return
    height, length = mask.shape
    lines = axes.contour(
        np.arange(-1, length + 1),
        np.arange(-1, height + 1),
        np.pad(mask, 1).astype(float),
        levels=[0.5],
        colors=colour,
        linestyles=style,
        linewidths=width,
    )
    lines.set_path_effects([withStroke(linewidth=1.8 * width, foreground="black")])
    axes.set(xlim=(-0.5, length - 0.5), ylim=(height - 0.5, -0.5))
