"""Which figures a report has: each declared once, with its place, its caption, and what it shows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.compare import figures
from monai_thyroid.compare.contents import Section, Shift, plural
from monai_thyroid.compare.measures import agreement_points, measure_rows
from monai_thyroid.compare.power import curves
from monai_thyroid.compare.statistics import Comparison
from monai_thyroid.compare.study import Analysis, Entry, Study
from monai_thyroid.metrics import reliability
from monai_thyroid.runfolder import CalibrationRow, CaseRow, Evaluation

__all__ = ["FIGURES", "SECTION", "Declared", "Place", "Scene", "calibration_rows", "draw", "without_images"]

_ROWS = 4  # networks in one gallery, so that it fits a page
_GALLERIES = 5
_MODELS = 20  # rows of the cross-dataset figure
_SIDE = 360  # pixels of a picture's longest side

Plot = Callable[[Path, str], str]
"""Draws a figure into a folder, under a name without suffix, and returns the name."""


class Place(Enum):
    """Where on the page a figure stands."""

    SCORES = "scores"
    WEIGHTS = "weights"
    ARCHITECTURES = "architectures"
    STABILITY = "stability"
    CALIBRATION = "calibration"
    CASES = "cases"
    SUBGROUPS = "subgroups"
    MEASURES = "measures"
    ROBUSTNESS = "robustness"
    ENSEMBLES = "ensembles"
    OUTLOOK = "outlook"
    SHIFT = "shift"


SECTION = tuple(place for place in Place if place is not Place.SHIFT)
"""Places of one dataset and class."""


@dataclass(frozen=True)
class Scene:
    """What the figures of a section are made of."""

    analysis: Analysis
    section: Section

    @property
    def labels(self) -> dict[str, str]:
        """Of each network, in order."""
        return {row.network: row.label for row in self.section.networks}

    def comparison(self, place: Place) -> Comparison | None:
        """The answer that stands there."""
        return self.section.weights if place is Place.WEIGHTS else self.section.architectures


@dataclass(frozen=True)
class Declared:
    """A figure.

    Attributes:
        kind: its name, and start of its files' names.
        place: where on the page.
        caption: may hold ``{axis}``, ``{Axis}``, ``{size}``, ``{n}``, ``{seeds}``, ``{lacking}`` (which intervals,
            and why) and ``{class_name}``.
        plots: from a `Scene`, or a `Shift` for that place, to what is drawn; nothing where there is nothing to show.
        patients: it shows images of patients, which may be left out on request.
    """

    kind: str
    place: Place
    caption: str
    plots: Callable[[Any], Iterable[Plot]]
    patients: bool = False


def draw(
    folder: Path, subject: Scene | Shift, *, places: Collection[Place], slug: str, images: bool = True
) -> dict[str, list[str]]:
    """Draw every figure that is declared for some places.

    Args:
        folder: must exist.
        subject: what the figures are made of.
        places: of which figures.
        slug: put before every figure's name.
        images: False leaves images of patients out.

    Returns:
        Names of files without suffix, by kind.
    """
    drawn: dict[str, list[str]] = {}
    for one in FIGURES.values():
        if one.place in places and (images or not one.patients):
            for number, plot in enumerate(one.plots(subject), 1):
                name = f"{slug}{one.kind}" + (f"-{number}" if number > 1 else "")
                drawn.setdefault(one.kind, []).append(plot(folder, name))
    return drawn


def calibration_rows(study: Study, entry: Entry) -> list[CalibrationRow]:
    """Rows of calibration.csv of an entry's cases; none unless every run has the file."""
    kept = set(study.cases)
    found = [evaluation.calibration(study.name) for evaluation in entry.evaluations]
    return [row for rows in found for row in rows if row["case"] in kept] if all(found) else []


def _cases(scene: Scene) -> Iterator[Plot]:
    analysis = scene.analysis
    values = [analysis.entry(name).values(analysis.metric, analysis.study.cases) for name in scene.labels]
    yield partial(figures.case_strips, labels=list(scene.labels.values()), values=values, ylabel=scene.section.axis)


def _confusion(scene: Scene) -> Iterator[Plot]:
    matrices = {}
    for name, label in scene.labels.items():
        rows = scene.analysis.entry(name).rows
        tp, fp, fn, tn = (sum(int(row[column]) for row in rows) for column in ("tp", "fp", "fn", "tn"))
        matrices[label] = np.array([[tn, fp], [fn, tp]])
    yield partial(figures.confusion_matrices, matrices=matrices)


def _chosen_means(scene: Scene) -> Iterator[Plot]:
    means = [row.mean_over_groups for row in scene.section.networks]
    yield partial(
        figures.mean_bars,
        labels=list(scene.labels.values()),
        means=[one.mean for one in means],
        intervals=[(one.low, one.high) for one in means],
        ylabel=f"{scene.section.axis}, mean over groups",
    )


def _architecture_means(scene: Scene) -> Iterator[Plot]:
    if comparison := scene.section.architectures:
        yield partial(
            figures.mean_bars,
            labels=comparison.networks,
            means=[comparison.means[name] for name in comparison.networks],
            intervals=[comparison.intervals[name] for name in comparison.networks],
            ylabel=f"{scene.section.axis}, mean over groups and seeds",
        )


def _differences(scene: Scene, *, place: Place) -> Iterator[Plot]:
    if comparison := scene.comparison(place):
        groups = _by_group(scene.analysis, None if place is Place.WEIGHTS else scene.section.architecture_seeds)
        yield partial(
            figures.paired_differences,
            labels=[f"{pair.first} − {pair.second}" for pair in comparison.pairs],
            differences=[groups[pair.first] - groups[pair.second] for pair in comparison.pairs],
            intervals=[pair.interval for pair in comparison.pairs],
            xlabel=f"Difference of {scene.section.axis}",
        )


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


def _significance(scene: Scene, *, place: Place) -> Iterator[Plot]:
    comparison = scene.comparison(place)
    # Where nothing may be claimed a map of significance would claim it.
    if comparison and not comparison.refusals:
        index = {name: number for number, name in enumerate(comparison.networks)}
        table = np.full((len(index), len(index)), np.nan)
        for pair in comparison.pairs:
            i, j = index[pair.first], index[pair.second]
            table[i, j] = table[j, i] = pair.p_adjusted
        yield partial(figures.significance_map, labels=comparison.networks, p_adjusted=table)


def _verdicts(scene: Scene, *, place: Place) -> Iterator[Plot]:
    comparison = scene.comparison(place)
    if comparison and not comparison.refusals:
        index = {name: number for number, name in enumerate(comparison.networks)}
        words = np.full((len(index), len(index)), "", dtype=object)
        for one in scene.section.decisions[comparison.question]:
            words[index[one.first], index[one.second]] = one.verdict
            words[index[one.second], index[one.first]] = one.reverse
        yield partial(figures.verdict_map, labels=comparison.networks, words=words)


def _average_ranks(scene: Scene) -> Iterator[Plot]:
    comparison = scene.section.weights
    if comparison and not comparison.refusals and comparison.average_ranks:
        yield partial(figures.average_ranks, average_ranks=comparison.average_ranks, cliques=comparison.cliques)


def _ranks(scene: Scene) -> Iterator[Plot]:
    if comparison := scene.section.weights:
        shares = {name: scene.section.rank_stability[name] for name in comparison.networks}
        yield partial(figures.rank_bars, shares=shares)


def _curves(scene: Scene) -> Iterator[Plot]:
    study = scene.analysis.study
    histories = {
        label: [run.history for one in study.of(name) for run in one.runs] for name, label in scene.labels.items()
    }
    yield partial(figures.curves, histories=histories)


def _reliability(scene: Scene) -> Iterator[Plot]:
    rows = {
        label: calibration_rows(scene.analysis.study, scene.analysis.entry(name))
        for name, label in scene.labels.items()
    }
    if curves := {label: reliability(own) for label, own in rows.items() if own}:
        yield partial(figures.reliability_diagram, curves=curves)


def _gallery(scene: Scene) -> Iterator[Plot]:
    """Worst, median and best case of each network."""
    rows = []
    for network in scene.labels:
        found = _pictured(scene.analysis.entry(network))
        ranked = sorted(found, key=lambda case: (found[case][1]["dice"], case))
        if not ranked:
            continue
        chosen = {"worst": ranked[0], "median": ranked[len(ranked) // 2], "best": ranked[-1]}
        panels = chosen.items()
        rows.append([_panel(scene.analysis.study, case, *found[case], f"{network}: {word}") for word, case in panels])
    for start in range(0, min(len(rows), _ROWS * _GALLERIES), _ROWS):
        yield partial(figures.gallery, rows=rows[start : start + _ROWS])


def _disagreement(scene: Scene) -> Iterator[Plot]:
    """The cases on which networks disagree most."""
    pictured = {name: _pictured(scene.analysis.entry(name)) for name in scene.analysis.compared}
    if len(pictured) < 2:
        return
    common = sorted(set.intersection(*map(set, pictured.values())))
    spread = {case: float(np.ptp([found[case][1]["dice"] for found in pictured.values()])) for case in common}
    most = sorted((case for case in common if spread[case] > 0), key=lambda case: (-spread[case], case))[:3]
    study, order = scene.analysis.study, [name for name in scene.labels if name in pictured]
    if most:
        rows = [[_panel(study, case, *pictured[name][case], name) for name in order] for case in most]
        yield partial(figures.gallery, rows=rows)


def _subgroups(scene: Scene) -> Iterator[Plot]:
    for one in scene.section.subgroups:
        if one.levels:
            yield partial(
                figures.subgroup_intervals,
                levels=[f"{level.label}\n{plural(level.n_groups, 'group')}" for level in one.levels],
                means={
                    label: [
                        (level.means[name].mean, level.means[name].low, level.means[name].high) for level in one.levels
                    ]
                    for name, label in scene.labels.items()
                },
                pale=[level.too_few for level in one.levels],
                xlabel=f"{scene.section.axis}, by {one.name}",
            )


def _agreement(scene: Scene) -> Iterator[Plot]:
    told_of = {one.network for one in scene.section.measured}
    rows = {network: measure_rows(scene.analysis, network) for network in scene.labels if network in told_of}
    for measure in dict.fromkeys(name for own in rows.values() for name in own):
        told = measure.replace("_", " ")
        limits = {one.network: one for one in scene.section.measured if one.measure == told}
        if limits:
            yield partial(
                figures.bland_altman,
                points={scene.labels[name]: agreement_points(rows[name][measure])[:2] for name in limits},
                limits={
                    scene.labels[name]: [
                        (each.mean, each.low, each.high) for each in (one.low, one.difference, one.high)
                    ]
                    for name, one in limits.items()
                },
                measure=told,
                unit=next(iter(limits.values())).unit,
            )


def _degraded(scene: Scene) -> Iterator[Plot]:
    if made := scene.section.degraded:
        yield partial(
            figures.degradation_curves,
            panels={
                f"{one.name} [{one.unit}]": {
                    scene.labels[name]: [
                        (strength, cell.mean, cell.low, cell.high)
                        for strength, cell in zip(one.strengths, own, strict=True)
                        if cell
                    ]
                    for name, own in one.means.items()
                }
                for one in made
            },
            ylabel="Dice, mean over groups",
        )


def _coverage(scene: Scene) -> Iterator[Plot]:
    if made := scene.section.ensembles:
        yield partial(
            figures.coverage_curves,
            curves={scene.labels[one.network]: one.curve for one in made},
            marks=[one.given for one in made[0].coverage],
            ylabel=f"{scene.section.axis} of the rest, mean per image",
        )


def _power(scene: Scene) -> Iterator[Plot]:
    if one := scene.section.outlook:
        found = curves(one)
        if found.differences:
            yield partial(
                figures.power_curves,
                differences=found.differences,
                power=found.power,
                groups=found.groups,
                detectable=found.detectable,
                asked=one.power,
                here=one.groups,
                difference=None,
                axis=scene.section.axis,
            )


def _shift(table: Shift) -> Iterator[Plot]:
    """The Dice of every run on every dataset it was scored on; of many runs those of the chosen weights."""
    rows = table.rows if len(table.rows) <= _MODELS else [row for row in table.rows if row.chosen]
    values = [[np.nan if cell is None else cell.dice.mean for cell in row.cells] for row in rows]
    folds = ["" if row.fold is None else f" fold {row.fold}" for row in rows]
    yield partial(
        figures.shift_heatmap,
        rows=[f"{row.network} seed {row.seed}{fold} ({row.trained_on})" for row, fold in zip(rows, folds, strict=True)],
        columns=table.columns,
        values=np.array(values, dtype=np.float64),
        in_domain=np.array([[cell is not None and cell.in_domain for cell in row.cells] for row in rows]),
    )


_DIFFERENCES = "Difference of {axis} in each group, and its mean with the 95 % interval of the pair by itself; {n}."
_SIGNIFICANCE = "Adjusted p of every pair; {n}."
_VERDICTS = "Verdict on every pair at the margin; {n}."
FIGURES: dict[str, Declared] = {
    one.kind: one
    for one in (
        Declared("cases", Place.SCORES, "{Axis} of every case, chosen weights, {size}.", _cases),
        Declared(
            "confusion",
            Place.SCORES,
            "Pixels of all images together, chosen weights: share of the reference's row, and count; {size}.",
            _confusion,
        ),
        Declared(
            "weights-means",
            Place.WEIGHTS,
            "{Axis} with the 95 % interval of each network by itself, chosen weights; {n}.{lacking}",
            _chosen_means,
        ),
        Declared("weights-differences", Place.WEIGHTS, _DIFFERENCES, partial(_differences, place=Place.WEIGHTS)),
        Declared("weights-significance", Place.WEIGHTS, _SIGNIFICANCE, partial(_significance, place=Place.WEIGHTS)),
        Declared("weights-verdicts", Place.WEIGHTS, _VERDICTS, partial(_verdicts, place=Place.WEIGHTS)),
        Declared(
            "weights-average-ranks",
            Place.WEIGHTS,
            "Average ranks over groups, 1 is best; bars join networks that the adjusted pairwise tests do not tell "
            "apart; {n}.",
            _average_ranks,
        ),
        Declared(
            "weights-ranks",
            Place.WEIGHTS,
            "Rank stability: how often each network takes each rank when the groups are resampled (1,000 resamples).",
            _ranks,
        ),
        Declared(
            "architectures-means",
            Place.ARCHITECTURES,
            "{Axis} with the 95 % interval of each network by itself, mean over seeds {seeds}; {n}.{lacking}",
            _architecture_means,
        ),
        Declared(
            "architectures-differences",
            Place.ARCHITECTURES,
            _DIFFERENCES,
            partial(_differences, place=Place.ARCHITECTURES),
        ),
        Declared(
            "architectures-significance",
            Place.ARCHITECTURES,
            _SIGNIFICANCE,
            partial(_significance, place=Place.ARCHITECTURES),
        ),
        Declared(
            "architectures-verdicts", Place.ARCHITECTURES, _VERDICTS, partial(_verdicts, place=Place.ARCHITECTURES)
        ),
        Declared(
            "curves",
            Place.STABILITY,
            "Loss in training and validation, and validation Dice (network grid), of every run.",
            _curves,
        ),
        Declared(
            "reliability", Place.CALIBRATION, "Reliability of the probabilities over all pixels, {size}.", _reliability
        ),
        Declared(
            "gallery",
            Place.CASES,
            "Worst, median and best case of each network by Dice, chosen weights. Solid line: reference. Dashed line: "
            "prediction. Hatched: missed; dotted: marked wrongly.",
            _gallery,
            patients=True,
        ),
        Declared(
            "disagreement",
            Place.CASES,
            "The cases on which the networks disagree most (largest range of Dice).",
            _disagreement,
            patients=True,
        ),
        Declared(
            "subgroups",
            Place.SUBGROUPS,
            "{Axis} of the chosen weights in subgroups, mean over groups, with the 95 % interval of each by itself; "
            "hollow: fewer than 10 groups.",
            _subgroups,
        ),
        Declared(
            "agreement",
            Place.MEASURES,
            "Difference of each image's measure, predicted less reference, over the mean of both. Solid: mean; dashed: "
            "limits of agreement; bars at the right: their 95 % intervals; dotted: no difference.",
            _agreement,
        ),
        Declared(
            "robustness",
            Place.ROBUSTNESS,
            "Dice of the chosen weights at each strength of a degradation (evenly spaced), mean over groups with the "
            "95 % interval of each by itself; {size}.",
            _degraded,
        ),
        Declared(
            "risk-coverage",
            Place.ENSEMBLES,
            "{Axis} of the cases that stay with a network's seeds as one model when those on which the seeds agree "
            "least go to a person; marked: 0, 10, 20 and 30 %.",
            _coverage,
        ),
        Declared(
            "power",
            Place.OUTLOOK,
            "What a comparison of so many networks can find, by numbers of seeds: left, how probable the claim is with "
            "the groups of this one, by the true difference of {axis}; right, the difference that is found.",
            _power,
        ),
        Declared(
            "shift",
            Place.SHIFT,
            "Dice, mean over groups, of each model (trained on) on every dataset, class {class_name}; framed: tested "
            "on the dataset of its training. Of more than 20 runs, the chosen weights of each network.",
            _shift,
        ),
    )
}
"""By kind, in the order of the page."""


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
            if all(evaluation.picture(kind, case).is_file() for kind in ("images", "references", "predictions")):
                found[case] = evaluation, row
    return found


def _panel(study: Study, case: str, evaluation: Evaluation, row: CaseRow, title: str) -> figures.Panel:
    from PIL import Image

    image = Image.open(evaluation.picture("images", case))
    scale = min(1.0, _SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    grey = image.mode in ("L", "I", "I;16", "1")
    pixels = np.asarray(image.convert("L" if grey else "RGB").resize(size, Image.Resampling.BILINEAR)) / 255
    masks = []
    for kind in ("references", "predictions"):
        marked = evaluation.mask(kind, case, study.name)
        small = Image.fromarray(marked.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BILINEAR)
        masks.append(np.asarray(small) > 127)
    return figures.Panel(pixels, masks[0], masks[1], f"{title}\n{case}\nDice {row['dice']:.3f}")
