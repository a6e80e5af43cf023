"""What an ensemble and mirror images give on a run's own images, beside what they cost."""

from __future__ import annotations

import logging
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.outcome import by_class, over_classes
from monai_thyroid.evaluation.predictor import Predictor
from monai_thyroid.images import read_labels, read_raster
from monai_thyroid.metrics import score_case

__all__ = ["Gain", "gain_table", "measure_gain"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gain:
    """One way to segment the images of a part.

    Attributes:
        name: of the way.
        dice: mean over images, of several classes over these too.
        gain: of this Dice over that of the first way, mean over groups.
        error: its standard error over groups; NaN of a single group and of the first way.
        misses: objects of which nothing is found.
        false_alarms: empty images that are marked.
        ms: median of an image, from the decoded picture to its mask.
    """

    name: str
    dice: float
    gain: float
    error: float
    misses: int
    false_alarms: int
    ms: float


def measure_gain(
    runs: Sequence[str | Path],
    *,
    tta: bool = False,
    part: str = "validation",
    dataset_dir: str | None = None,
    device: str = "auto",
    runtime: str = "torch",
) -> list[Gain]:
    """Segment a part by each run alone, by all together, and with ``tta`` by each of these with mirror images.

    Args:
        runs: run folders, trained on the same data and split.
        tta: see `Predictor`.
        part: of their data; choose on ``validation``, and look at ``test`` once.
        dataset_dir: where the data are now, if they moved.
        device: see `Predictor`.
        runtime: likewise.

    Returns:
        A row a way, the first run alone first.

    Raises:
        UserError: runs of other data or another split, of whose training this part may be; or as `Predictor`.
    """
    models = [Model(run) for run in runs]
    first = models[0]
    if problems := [
        f"{model.path}: was trained on other data or another split than {first.path}, so images of the part {part} may "
        "be among those it was trained on"
        for model in models[1:]
        if model.trained.record.data_hash != first.trained.record.data_hash
    ]:
        raise UserError(problems)
    members: dict[str, list[Model]] = {str(model.path): [model] for model in models}
    if len(models) > 1:
        members[f"all {len(models)} together"] = models
    items = first.trained.datalist(dataset_dir).part(part)
    ways = {
        f"{name}{', mirror images' if mirrored else ''}": Predictor(
            own, device=device, runtime=runtime, tta=mirrored, samples=[read_raster(items[0]["image"])]
        )
        for mirrored in ([False, True] if tta else [False])
        for name, own in members.items()
    }
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    dice: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seconds: dict[str, list[float]] = defaultdict(list)
    for item in items:
        image = read_raster(item["image"])
        reference = read_labels(item["label"], classes=len(first.classes))
        for name, predictor in ways.items():
            started = time.perf_counter()
            mask = predictor(image).mask
            seconds[name].append(time.perf_counter() - started)
            scores = [
                {"class": one, **score_case(reference == number, mask == number)}
                for number, one in enumerate(first.classes, 1)
            ]
            rows[name] += scores
            dice[name][item["group"]].append(float(np.mean([one["dice"] for one in scores])))
    plain = dice[next(iter(ways))]
    return [_gain(name, rows[name], dice[name], plain, seconds[name], first.classes) for name in ways]


def _gain(
    name: str,
    rows: list[dict[str, Any]],
    dice: dict[str, list[float]],
    plain: dict[str, list[float]],
    seconds: list[float],
    classes: Sequence[str],
) -> Gain:
    summary = over_classes(by_class(classes, rows))
    gains = [float(np.mean(dice[group]) - np.mean(plain[group])) for group in plain]
    known = len(gains) > 1 and dice is not plain
    return Gain(
        name=name,
        dice=summary["dice_mean"],
        gain=float(np.mean(gains)),
        error=statistics.stdev(gains) / math.sqrt(len(gains)) if known else math.nan,
        misses=summary["n_misses"],
        false_alarms=summary["n_false_alarms"],
        ms=1000 * statistics.median(seconds),
    )


def gain_table(gains: Sequence[Gain]) -> str:
    """The rows for people."""
    table = [("", "Dice", "gain", "standard error", "misses", "false alarms", "ms", "times the cost")]
    for one in gains:
        error = "" if math.isnan(one.error) else f"{one.error:.4f}"
        gain = "" if one is gains[0] else f"{one.gain:+.4f}"
        counts = (str(one.misses), str(one.false_alarms), f"{one.ms:.1f}", f"{one.ms / gains[0].ms:.1f}")
        table.append((one.name, f"{one.dice:.4f}", gain, error, *counts))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    return "\n".join(line.rstrip() for line in lines)
