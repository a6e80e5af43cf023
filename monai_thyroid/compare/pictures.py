"""Which figures a report has, and what each one shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.compare import figures
from monai_thyroid.compare.page import axis_name
from monai_thyroid.compare.reading import CalibrationRow, CaseRow, Evaluation
from monai_thyroid.compare.statistics import Comparison
from monai_thyroid.compare.study import Analysis, Entry, Study
from monai_thyroid.metrics import reliability

__all__ = ["calibration_rows", "draw", "draw_shift", "without_images"]

_ROWS = 4  # networks in one gallery, so that it fits a page
_GALLERIES = 5
_MODELS = 20  # rows of the cross-dataset figure
_SIDE = 360  # pixels of a picture's longest side


def calibration_rows(study: Study, entry: Entry) -> list[CalibrationRow]:
    """Rows of calibration.csv of an entry's cases; none unless every run has the file."""
    kept = set(study.cases)
    found = [evaluation.calibration(study.name) for evaluation in entry.evaluations]
    return [row for rows in found for row in rows if row["case"] in kept] if all(found) else []


def draw(folder: Path, analysis: Analysis, *, section: dict[str, Any], slug: str, images: bool) -> dict[str, list[str]]:
    """Draw every figure of a section.

    Args:
        folder: must exist.
        analysis: that the section was made of.
        section: of report.json, for the names of axes.
        slug: put before every figure's name.
        images: False leaves the galleries out.

    Returns:
        Names of files without suffix, by what they show.
    """
    study, order = analysis.study, analysis.order
    labels = [f"{name} (set apart)" if name in analysis.apart else name for name in order]
    axis = axis_name(section)
    drawn: dict[str, list[str]] = {}

    def add(kind: str, function: Any, **content: Any) -> None:
        suffix = f"-{len(drawn[kind]) + 1}" if kind in drawn else ""
        drawn.setdefault(kind, []).append(function(folder, f"{slug}{kind}{suffix}", **content))

    networks = {row["network"]: row for row in section["networks"]}
    means = [networks[network]["mean_over_groups"] for network in order]
    add(
        "weights-means",
        figures.mean_bars,
        labels=labels,
        means=[one["mean"] for one in means],
        intervals=[_limits(one["low"], one["high"]) for one in means],
        ylabel=f"{axis}, mean over groups",
    )
    if analysis.weights:
        _compared(add, "weights", analysis.weights, _by_group(analysis, None), axis)
        if not analysis.weights.refusals and analysis.weights.average_ranks:
            add(
                "weights-critical-difference",
                figures.critical_difference,
                average_ranks=analysis.weights.average_ranks,
                cliques=analysis.weights.cliques,
                critical_difference=analysis.weights.critical_difference,
            )
        add(
            "weights-ranks",
            figures.rank_bars,
            shares={name: analysis.ranks[name] for name in analysis.weights.networks},
        )
    if analysis.architectures:
        comparison = analysis.architectures
        add(
            "architectures-means",
            figures.mean_bars,
            labels=comparison.networks,
            means=[comparison.means[name] for name in comparison.networks],
            intervals=[comparison.intervals[name] for name in comparison.networks],
            ylabel=f"{axis}, mean over groups and seeds",
        )
        _compared(add, "architectures", comparison, _by_group(analysis, analysis.architecture_seeds), axis)
    add(
        "cases",
        figures.case_strips,
        labels=labels,
        values=[analysis.entry(network).values(analysis.metric, study.cases) for network in order],
        ylabel=axis,
    )
    add(
        "confusion",
        figures.confusion_matrices,
        matrices={label: _confusion(analysis.entry(name)) for label, name in zip(labels, order, strict=True)},
    )
    add(
        "curves",
        figures.curves,
        histories={
            label: [run.history for one in study.of(name) for run in one.runs]
            for label, name in zip(labels, order, strict=True)
        },
    )
    curves = {name: rows for name in order if (rows := calibration_rows(study, analysis.entry(name)))}
    if curves:
        add(
            "reliability",
            figures.reliability_diagram,
            curves={name: reliability(rows) for name, rows in curves.items()},
        )
    if images:
        _galleries(add, analysis)
    return drawn


def draw_shift(folder: Path, table: dict[str, Any]) -> str:
    """Draw the Dice of every run on every dataset it was scored on; of many runs those of the chosen weights."""
    rows = table["rows"] if len(table["rows"]) <= _MODELS else [row for row in table["rows"] if row["chosen"]]
    values = [[np.nan if cell is None else cell["dice_mean"] for cell in row["cells"]] for row in rows]
    return figures.shift_heatmap(
        folder,
        f"{table['slug']}shift",
        rows=[f"{row['network']} seed {row['seed']}{_fold(row['fold'])} ({row['trained_on']})" for row in rows],
        columns=table["columns"],
        values=np.array(values, dtype=np.float64),
        in_domain=np.array([[cell is not None and cell["in_domain"] for cell in row["cells"]] for row in rows]),
    )


def _fold(fold: int | None) -> str:
    return "" if fold is None else f" fold {fold}"


def _limits(low: float | None, high: float | None) -> tuple[float, float]:
    return (np.nan, np.nan) if low is None or high is None else (low, high)


def _by_group(analysis: Analysis, seeds: Sequence[int] | None) -> dict[str, np.ndarray]:
    """Mean of each group, (groups,), of the chosen weights or over some seeds."""
    study = analysis.study
    numbers = np.unique(study.groups, return_inverse=True)[1]
    sizes = np.bincount(numbers)
    found = {}
    for network in analysis.compared:
        own = [study.entries.get((network, seed)) for seed in (seeds or [analysis.chosen[network]])]
        if None in own:
            continue
        values = np.mean([one.values(analysis.metric, study.cases) for one in own if one], axis=0)
        found[network] = np.bincount(numbers, weights=values) / sizes
    return found


def _compared(add: Any, kind: str, comparison: Comparison, groups: dict[str, np.ndarray], axis: str) -> None:
    pairs = comparison.pairs
    add(
        f"{kind}-differences",
        figures.paired_differences,
        labels=[f"{pair.first} − {pair.second}" for pair in pairs],
        differences=[groups[pair.first] - groups[pair.second] for pair in pairs],
        intervals=[pair.interval for pair in pairs],
        xlabel=f"Difference of {axis}",
    )
    # Where nothing may be claimed a map of significance would claim it.
    if not comparison.refusals:
        place = {name: index for index, name in enumerate(comparison.networks)}
        table = np.full((len(place), len(place)), np.nan)
        for pair in pairs:
            i, j = place[pair.first], place[pair.second]
            table[i, j] = table[j, i] = pair.p_adjusted
        add(f"{kind}-significance", figures.significance_map, labels=comparison.networks, p_adjusted=table)


def _confusion(entry: Entry) -> np.ndarray:
    """Pixels, (2, 2): rows the reference, columns the prediction, background first."""
    tp, fp, fn, tn = (sum(int(row[name]) for row in entry.rows) for name in ("tp", "fp", "fn", "tn"))
    return np.array([[tn, fp], [fn, tp]])


def _galleries(add: Any, analysis: Analysis) -> None:
    """Worst, median and best case of each network, and the cases on which networks disagree most."""
    study = analysis.study
    rows = []
    for network in analysis.order:
        found = _pictured(analysis.entry(network))
        ranked = sorted(found, key=lambda case: (found[case][1]["dice"], case))
        if not ranked:
            continue
        chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
        rows.append([_panel(study, case, *found[case], f"{network}: {word}") for word, case in chosen.items()])
    for start in range(0, min(len(rows), _ROWS * _GALLERIES), _ROWS):
        add("gallery", figures.gallery, rows=rows[start : start + _ROWS])

    ranked_networks = [network for network in analysis.order if network not in analysis.apart]
    pictured = {network: _pictured(analysis.entry(network)) for network in ranked_networks}
    if len(pictured) < 2:
        return
    common = sorted(set.intersection(*map(set, pictured.values())))
    spread = {case: float(np.ptp([found[case][1]["dice"] for found in pictured.values()])) for case in common}
    most = sorted((case for case in common if spread[case] > 0), key=lambda case: (-spread[case], case))[:3]
    if most:
        rows = [[_panel(study, case, *found[case], name) for name, found in pictured.items()] for case in most]
        add("disagreement", figures.gallery, rows=rows)


def without_images(analysis: Analysis) -> list[str]:
    """Networks whose chosen weights kept no picture of any case."""
    return [network for network in analysis.order if not _pictured(analysis.entry(network))]


def _pictured(entry: Entry) -> dict[str, tuple[Evaluation, CaseRow]]:
    """Evaluation and row of each case of which image, reference and prediction are kept."""
    kept = {row["case"] for row in entry.rows}
    found: dict[str, tuple[Evaluation, CaseRow]] = {}
    for evaluation in entry.evaluations:
        for row in evaluation.rows:
            case = row["case"]
            if case not in kept or case in found or row["error"] or row["class"] != entry.rows[0]["class"]:
                continue
            if all(path.is_file() for path in _files(evaluation, case)):
                found[case] = evaluation, row
    return found


def _files(evaluation: Evaluation, case: str) -> tuple[Path, Path, Path]:
    return (
        evaluation.path / "images" / f"{case}.jpg",
        evaluation.path / "references" / f"{case}.png",
        evaluation.path / "predictions" / f"{case}.png",
    )


def _panel(study: Study, case: str, evaluation: Evaluation, row: CaseRow, title: str) -> figures.Panel:
    from PIL import Image

    image, reference, prediction = (Image.open(path) for path in _files(evaluation, case))
    scale = min(1.0, _SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    grey = image.mode in ("L", "I", "I;16", "1")
    pixels = np.asarray(image.convert("L" if grey else "RGB").resize(size, Image.Resampling.BILINEAR)) / 255
    # One class is 0 and 255, several are numbers in the order of the classes.
    names = evaluation.classes
    masks = []
    for mask in (reference, prediction):
        marked = (
            np.asarray(mask) == names.index(study.name) + 1 if len(names) > 1 else np.asarray(mask.convert("L")) > 0
        )
        small = Image.fromarray(marked.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BILINEAR)
        masks.append(np.asarray(small) > 127)
    return figures.Panel(pixels, masks[0], masks[1], f"{title}\n{case}\nDice {row['dice']:.3f}")
