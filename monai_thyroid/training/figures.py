"""The curves of a training. Matplotlib without a display or global state."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

from monai_thyroid.drawing import BLUE, VERMILION
from monai_thyroid.files import atomic_path

__all__ = ["draw_curves"]


def draw_curves(history: Sequence[Mapping[str, float | None]], folder: Path) -> Path:
    """Draw losses and validation metrics over epochs as ``curves.png``; a dotted line parts two stages.

    Args:
        history: rows of history.csv.
        folder: made if it is not there.
    """
    from matplotlib.figure import Figure

    folder.mkdir(exist_ok=True)
    figure = Figure(figsize=(7.2, 3.0), dpi=200, layout="constrained")
    losses, metrics = figure.subplots(1, 2)
    for axes, curves in (
        (losses, (("train_loss", "training", BLUE, "-"), ("val_loss", "validation", VERMILION, "--"))),
        (metrics, (("val_dice", "Dice", BLUE, "-"), ("val_iou", "IoU", VERMILION, "--"))),
    ):
        for column, label, colour, style in curves:
            points = [(index + 1, row[column]) for index, row in enumerate(history) if row[column] is not None]
            x, y = zip(*points, strict=True) if points else ((), ())
            axes.plot(x, y, style, color=colour, label=label, marker=".", markersize=4)
        for before, (one, next_one) in enumerate(itertools.pairwise(history), 1):
            if one["stage"] != next_one["stage"]:
                axes.axvline(before + 0.5, color="0.5", linestyle=":", linewidth=1)
        axes.set_xlabel("Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    losses.set_ylabel("Loss (mean over images)")
    metrics.set_ylabel("Validation (network grid)")
    metrics.set_ylim(0, 1)
    path = folder / "curves.png"
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return path
