"""Figures of an evaluation: cases and clinical measures. Matplotlib without a display or global state."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid import drawing
from monai_thyroid.files import atomic_path
from monai_thyroid.images import read_masks, read_raster

__all__ = ["draw_agreement", "draw_cases", "draw_degraded"]

_LETTERS = 100  # of 8 points, side by side across a page


def draw_cases(
    groups: Mapping[str, Sequence[tuple[dict[str, Any], Path, float]]], path: Path, *, classes: Sequence[str] = ("",)
) -> None:
    """Draw images with both outlines: the reference solid, the prediction dashed.

    Args:
        groups: for each column's title, some (item, path of the predicted label, Dice).
        path: the PNG to write.
        classes: names of a label's; of several, each is drawn with a thinner line than the one before.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = max(1, *(len(cases) for cases in groups.values()))
    widths = np.linspace(1.5, 0.6, len(classes)) if len(classes) > 1 else [1.0]
    figure = Figure(dpi=200)
    grid = figure.subplots(rows, len(groups), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    tallest = np.full(rows, 0.1)  # picture of each row, height over width
    for column, (title, cases) in enumerate(groups.items()):
        for row, (item, predicted, dice) in enumerate(cases):
            axes = grid[row, column]
            image = read_raster(item["image"]).normalised()
            tallest[row] = max(tallest[row], image.shape[0] / image.shape[1])
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            for source, colour, style in (
                (item["label"], drawing.REFERENCE, "solid"),
                (predicted, drawing.PREDICTION, "dashed"),
            ):
                for mask, width in zip(read_masks(source, classes=len(classes)), widths, strict=True):
                    drawing.draw_outline(axes, mask, colour=colour, style=style, width=width)
            heading = f"{title}: " if row == 0 else ""
            name = _shortened(str(item["case"]), _LETTERS // len(groups) - len(heading))
            axes.set_title(f"{heading}{name}\nDice {dice:.2f}", fontsize=8, parse_math=False)
    handles = [
        Line2D([], [], color=drawing.REFERENCE, linestyle="solid", label="reference"),
        Line2D([], [], color=drawing.PREDICTION, linestyle="dashed", label="prediction"),
        *(
            Line2D([], [], color="0.3", linewidth=width, label=name)
            for name, width in zip(classes, widths, strict=True)
            if len(classes) > 1
        ),
    ]
    columns = min(len(handles), 4)
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=8)
    # Inches: each row as high as its pictures need, within what a page bears, below two lines of title.
    pictures, above = 7.2 / max(1, len(groups)) * np.minimum(tallest, 1.5), 0.45
    below = 0.12 + 0.18 * math.ceil(len(handles) / columns)
    height = float(pictures.sum()) + rows * above + below
    figure.set_size_inches(7.2, height)
    grid[0, 0].get_gridspec().set_height_ratios(pictures)
    sides = {"left": 0.01, "right": 0.99, "bottom": below / height, "top": 1 - above / height}
    figure.subplots_adjust(**sides, wspace=0.04, hspace=above / float(pictures.mean()))
    figure.savefig(path)


def _shortened(name: str, letters: int) -> str:
    """A name that is longer than that, without its middle."""
    if len(name) <= letters:
        return name
    half = max(1, (letters - 1) // 2)
    return f"{name[:half]}…{name[-half:]}"


def draw_agreement(rows: Sequence[Mapping[str, Any]], summary: Mapping[str, float], path: Path) -> None:
    """Draw a Bland-Altman plot: differences of a measure over the means of both, with the limits of agreement.

    Args:
        rows: of measures.csv, one measure; those with a number for both.
        summary: from `agreement`.
        path: the PNG to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.4), dpi=200, layout="constrained")
    axes = figure.subplots()
    reference = np.array([row["reference"] for row in rows], dtype=float)
    predicted = np.array([row["predicted"] for row in rows], dtype=float)
    axes.plot((reference + predicted) / 2, predicted - reference, ".", color=drawing.BLUE, markersize=4, alpha=0.7)
    axes.axhline(0, color="0.7", linewidth=0.8)
    for key, label, style in (
        ("limit_high", "+1.96 sd", "--"),
        ("mean_difference", "mean", "-"),
        ("limit_low", "-1.96 sd", "--"),
    ):
        value = summary[key]
        if np.isfinite(value):
            axes.axhline(value, color=drawing.VERMILION, linestyle=style, linewidth=1.2)
            axes.annotate(
                f"{label} {value:+.1f}",
                (1.01, value),
                xycoords=("axes fraction", "data"),
                fontsize=8,
                va="center",
                annotation_clip=False,
            )
    name, unit = rows[0]["measure"].replace("_", " "), rows[0]["unit"]
    axes.set_xlabel(f"Mean of predicted and reference {name} ({unit})")
    axes.set_ylabel(f"Predicted less reference ({unit})")
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def draw_degraded(
    rows: Mapping[str, Sequence[tuple[float, np.ndarray, np.ndarray]]],
    path: Path,
    *,
    reference: np.ndarray,
    classes: int,
) -> None:
    """Draw a case as it was seen: a degradation a row, a strength a column, the reference solid, the mask dashed.

    Args:
        rows: of each degradation some (strength, image in [0, 1], label of the prediction).
        path: the PNG to write.
        reference: label of the reference, (height, width).
        classes: of the labels.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = max(len(row) for row in rows.values())
    high = 7.2 / columns * reference.shape[0] / reference.shape[1] + 0.32
    figure = Figure(figsize=(7.2, high * len(rows)), dpi=200, layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for places, (title, row) in zip(grid, rows.items(), strict=True):
        for axes, (strength, image, label) in zip(places, row, strict=False):
            axes.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            for number in range(1, classes + 1):
                drawing.draw_outline(axes, reference == number, colour=drawing.REFERENCE, width=0.7)
                drawing.draw_outline(axes, label == number, colour=drawing.PREDICTION, style="dashed", width=0.7)
            heading = f"{title}\n" if strength == 0 else ""
            axes.set_title(
                f"{heading}{'as it is' if strength == 0 else f'{strength:g}'}", fontsize=7, loc="left", pad=2
            )
    handles = [
        Line2D([], [], color=drawing.REFERENCE, linestyle="solid", label="reference"),
        Line2D([], [], color=drawing.PREDICTION, linestyle="dashed", label="prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
