"""What the scores of a part come to, whoever made the masks: figures, a sentence, pictures for galleries. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_thyroid.images import Raster
from monai_thyroid.metrics import expected_calibration_error, summarise

__all__ = ["by_class", "finite", "over_classes", "record_of_classes", "save_picture", "sentence"]

_LONGEST_SIDE = 1024  # of the pictures kept for galleries, in pixels


def by_class(classes: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The figures of a part by class; see `summarise`."""
    return {name: summarise([row for row in rows if row["class"] == name]) for name in classes}


def over_classes(figures_by_class: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Those of the only class; of several, the means over classes of Dice and IoU and the sums of misses and false
    alarms.
    """
    figures = list(figures_by_class.values())
    if len(figures) == 1:
        return dict(figures[0])
    return {
        "n_cases": figures[0]["n_cases"],
        **{key: sum(one[key] for one in figures) / len(figures) for key in ("dice_mean", "iou_foreground_mean")},
        **{key: sum(one[key] for one in figures) for key in ("n_misses", "n_false_alarms")},
    }


def record_of_classes(
    figures_by_class: Mapping[str, Mapping[str, Any]], calibration: Sequence[Mapping[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    """``classes`` of evaluation.json.

    Args:
        figures_by_class: from `by_class`.
        calibration: rows of calibration.csv; None without probabilities.
    """
    record = {}
    for name, summary in figures_by_class.items():
        error = None
        if calibration is not None:
            error = finite(expected_calibration_error([row for row in calibration if row["class"] == name]))
        record[name] = {**{key: finite(value) for key, value in summary.items()}, "expected_calibration_error": error}
    return record


def sentence(what: str, summary: Mapping[str, Any], figures_by_class: Mapping[str, Mapping[str, Any]]) -> str:
    """The result in a line, with a further one for each of several classes.

    Args:
        what: was scored.
        summary: from `over_classes`.
        figures_by_class: from `by_class`.
    """
    figures = {"": summary, **(figures_by_class if len(figures_by_class) > 1 else {})}
    lines = [
        f"{name and '  '}{name or what}: Dice {one['dice_mean']:.4f}, IoU {one['iou_foreground_mean']:.4f}, "
        f"misses {one['n_misses']}, false alarms {one['n_false_alarms']}"
        for name, one in figures.items()
    ]
    return "\n".join(lines)


def save_picture(raster: Raster, path: Path) -> None:
    """Keep what an image looks like for the galleries of reports, which read run folders alone."""
    picture = Image.fromarray(np.rint(raster.normalised() * 255).astype(np.uint8))
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    picture.save(path, quality=90)


def finite(value: Any) -> Any:
    """None for NaN and infinities, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
