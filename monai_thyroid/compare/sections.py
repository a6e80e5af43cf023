"""What a report says of one dataset and class: scores, stability, cost, the recommendation, and the warnings."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from monai_thyroid.compare.contents import (
    COSTS,
    Degenerate,
    Ensemble,
    Mean,
    NetworkResult,
    Recommendation,
    RunResult,
    Section,
    Tuned,
)
from monai_thyroid.compare.decisions import decide
from monai_thyroid.compare.judge import Candidate, recommend, volatility, worst_decile
from monai_thyroid.compare.measures import make_measured
from monai_thyroid.compare.pictures import calibration_rows
from monai_thyroid.compare.power import Outlook, detectable, outlook
from monai_thyroid.compare.reading import Run
from monai_thyroid.compare.robustness import make_degraded
from monai_thyroid.compare.statistics import bootstrap_mean
from monai_thyroid.compare.study import Analysis, Entry, Study, analyse, components_here, make_study
from monai_thyroid.compare.subgroups import Metadata, known_to, make_subgroups
from monai_thyroid.compare.thresholds import at_threshold
from monai_thyroid.errors import UserError
from monai_thyroid.metrics import METRICS, brier_score, expected_calibration_error, summarise

__all__ = ["FOLDS", "TRAINED_ON", "make_section", "relative", "warnings"]

FOLDS = {
    "disjoint": "cross-validation. The test cases of the folds are pooled, each scored by the model that has not seen "
    "it. Training sets of folds overlap, so folds are not independent trainings: no claim about architectures is made "
    "from folds alone.",
    "shared": "several folds were scored on the same test cases; each case's score is its mean over the folds. "
    "Training sets of folds overlap, so folds are not independent trainings: no claim about architectures is made "
    "from folds alone.",
}
TRAINED_ON = ("train", "all")
"""Parts that hold training images."""
_FEW_GROUPS = 10


def relative(path: str | Path, root: Path) -> str:
    """A run's path as it is told: from the folder above all runs."""
    return os.path.relpath(path, root) if os.path.isabs(path) else str(path)


def make_section(
    analysis: Analysis,
    *,
    margin: float,
    root: Path,
    forced: Sequence[str],
    images: bool,
    without: Sequence[str],
    metadata: Metadata | None = None,
    ensembles: tuple[Sequence[Ensemble], Sequence[str]] | None = None,
) -> Section:
    """Put together what the page will say; without figures yet.

    Args:
        analysis: of the dataset and class.
        margin: of the recommendation.
        root: folder above all runs.
        forced: what makes the runs incomparable.
        images: False where pictures are left out on request.
        without: networks that kept no pictures.
        metadata: by which subgroups are told, beside lesion size.
        ensembles: and of which networks there is none; None where they are not asked for.
    """
    study = analysis.study
    runs = [run for entry in study.entries.values() for run in entry.runs]
    grouping = {run.grouping for run in runs}
    networks = [_network(analysis, network) for network in analysis.order]
    results = [
        _run(analysis, entry, index, root) for entry in study.entries.values() for index in range(len(entry.runs))
    ]
    units = {str(network.scores["distance_unit"]) for network in networks}
    synthetic = any(run.synthetic for run in runs)
    measured, measured_notes = make_measured(analysis)
    degraded, degraded_notes = make_degraded(analysis)
    state = "leaky" if "leaky" in grouping else "unknown" if "unknown" in grouping else "known"
    return Section(
        dataset=study.dataset,
        class_name=study.name,
        part=study.part,
        metric=analysis.metric,
        larger_is_better=analysis.larger_is_better,
        distance_unit=units.pop() if len(units) == 1 else "mixed",
        synthetic=synthetic,
        grouping=state,
        split=sorted({str(run.record["split"]) for run in runs if isinstance(run.record.get("split"), str)}),
        n_cases=len(study.cases),
        n_groups=len(set(study.groups)),
        folds=study.folds,
        n_folds=len({run.fold for run in runs}),
        forced=forced,
        notes=study.notes,
        chosen_by=analysis.chosen_by,
        set_apart=analysis.apart,
        contaminated=analysis.contaminated,
        pretrained_on={
            network: before
            for network in analysis.order
            if (
                before := list(
                    dict.fromkeys(
                        name
                        for entry in study.of(network)
                        for run in entry.runs
                        for name in run.record.pretrained_on or []
                    )
                )
            )
        },
        degenerate=[
            Degenerate(network, seed, one.kind, one.sentence) for (network, seed), one in analysis.verdicts.items()
        ],
        networks=networks,
        runs=results,
        weights=analysis.weights,
        rank_stability=analysis.ranks,
        architectures=analysis.architectures,
        architecture_seeds=analysis.architecture_seeds,
        architecture_notes=analysis.architecture_notes,
        machines=sorted({_machine(run) for run in runs if not run.from_masks}),
        precisions=sorted({str(run.record["precision"]) for run in runs if run.record.get("precision")}),
        started_from=sorted(
            f"{entry.title}{_pretraining(entry)}"
            for entry in study.entries.values()
            if any(run.record.parent_sha256 or run.record.pretrained_on for run in entry.runs)
            and not entry.runs[0].from_masks
        ),
        from_masks=[_made_elsewhere(entry) for entry in study.entries.values() if entry.runs[0].from_masks],
        run_warnings=_run_warnings(study),
        recommendation=_recommendation(
            analysis, networks, results, margin=margin, grouping=state, synthetic=synthetic, forced=bool(forced)
        ),
        without_images=list(without) if images else None,
        decisions={
            comparison.question: decide(comparison, margin=margin, larger_is_better=analysis.larger_is_better)
            for comparison in (analysis.weights, analysis.architectures)
            if comparison
        },
        subgroups=make_subgroups(analysis, metadata),
        known_to=known_to(analysis),
        ensembles=None if ensembles is None else ensembles[0],
        ensemble_notes=[] if ensembles is None else ensembles[1],
        outlook=_outlook(analysis, margin=margin),
        measured=measured,
        measured_notes=measured_notes,
        degraded=degraded,
        degraded_notes=degraded_notes,
        tuned=_tuned(study),
    )


def _tuned(study: Study) -> list[Tuned]:
    """The choice of each network and fold, said once for all seeds."""
    found: dict[tuple[str, int | None], Tuned] = {}
    for entry in study.entries.values():
        for run in entry.runs:
            if record := run.record.tuning:
                options = [str(one["option"]) for one in record["grid"]]
                found[entry.network, run.fold] = Tuned(
                    network=entry.network,
                    fold=run.fold,
                    chosen=dict(zip(options, record["chosen"], strict=True)),
                    tried=[(dict(zip(options, one["values"], strict=True)), one["dice"]) for one in record["tried"]],
                    epochs=record["epochs"],
                    seeds=record["seeds"],
                )
    return list(found.values())


def _confusion(study: Study, entry: Entry) -> dict[str, dict[str, int]] | None:
    """Of the whole of all classes, summed over folds whose cases differ; of folds that share theirs, of the first."""
    records = [one.record for one in entry.evaluations]
    if any(one.confusion is None or one.whole != study.name for one in records):
        return None
    if study.folds == "shared":
        records = records[:1]
    total: dict[str, dict[str, int]] = {}
    for one in records:
        for row, counts in (one.confusion or {}).items():
            into = total.setdefault(row, dict.fromkeys(counts, 0))
            for column, count in counts.items():
                into[column] += int(count)
    return total


def _outlook(analysis: Analysis, *, margin: float) -> Outlook | None:
    """Of the question about architectures where it was asked, else of the weights; from these runs' own components."""
    comparison = analysis.architectures or analysis.weights
    if comparison is None or comparison.n_groups < 2:
        return None
    sound = components_here(analysis)
    if sound is None or sound.total == 0:
        return None
    of_this = {"networks": len(comparison.networks), "seeds": comparison.n_seeds, "groups": comparison.n_groups}
    least = detectable(sound, **of_this, draws=500)
    differences = sorted({margin, *([] if least is None else [float(f"{least / 2:.1g}")])} - {0.0})
    low, high = METRICS[analysis.metric].limits
    return outlook(sound, **of_this, differences=differences, most=high - low)


def _network(analysis: Analysis, network: str) -> NetworkResult:
    study, chosen = analysis.study, analysis.entry(network)
    entries = study.of(network)
    dice = {entry.seed: float(entry.values("dice", study.cases).mean()) for entry in entries}
    copied = [entry.seed for entry in entries if _kind(analysis, entry) == "copy"]
    collapsed = [entry.seed for entry in entries if _kind(analysis, entry) not in (None, "copy")]
    own = [value for seed, value in dice.items() if seed not in copied] or list(dice.values())
    sound = [value for seed, value in dice.items() if seed not in [*copied, *collapsed]]
    # What has collapsed stands still: it would make the network look the steadier the more often it fails.
    trained = [entry for entry in entries if entry.seed not in collapsed] or entries
    swings = [value for entry in trained for run in entry.runs if (value := volatility(run.history)) is not None]
    ece, brier = _calibration(study, chosen)
    return NetworkResult(
        network=network,
        set_apart=network in analysis.apart,
        chosen_seed=chosen.seed,
        chosen_validation_dice=chosen.best_validation,
        scores=summarise(chosen.rows),
        mean_over_groups=Mean(*bootstrap_mean(chosen.values(analysis.metric, study.cases), groups=study.groups)),
        seeds=list(dice),
        collapsed_seeds=collapsed,
        collapse=analysis.collapse_rates[network],
        copied_seeds=copied,
        seed_dice=dice,
        seeds_mean_dice=float(np.mean(own)),
        seeds_sd_dice=float(np.std(own, ddof=1)) if len(own) > 1 else None,
        seeds_range_dice=float(np.ptp(own)) if len(own) > 1 else None,
        seeds_mean_dice_without_collapsed=float(np.mean(sound)) if sound and collapsed else None,
        volatility=float(np.mean(swings)) if swings else None,
        worst_decile_dice=worst_decile(chosen.values("dice", study.cases)),
        expected_calibration_error=ece,
        brier_score=brier,
        cost={name: _cost([run for entry in entries for run in entry.runs], name) for name in COSTS},
        at_threshold=at_threshold(study, chosen),
        confusion=_confusion(study, chosen),
    )


def _kind(analysis: Analysis, entry: Entry) -> str | None:
    one = analysis.verdicts.get((entry.network, entry.seed))
    return one.kind if one else None


def _calibration(study: Study, entry: Entry) -> tuple[float | None, float | None]:
    rows = calibration_rows(study, entry)
    return (expected_calibration_error(rows), brier_score(rows)) if rows else (None, None)


def _cost(runs: Sequence[Run], name: str) -> float | None:
    """Median over runs; None unless every run recorded it."""
    values = [run.record.get(name) for run in runs]
    found = [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    return float(np.median(found)) if len(found) == len(values) else None


def _run(analysis: Analysis, entry: Entry, index: int, root: Path) -> RunResult:
    run, evaluation, study = entry.runs[index], entry.evaluations[index], analysis.study
    kept = set(study.cases)
    rows = [row for row in evaluation.of_class(study.name) if row["case"] in kept]
    calibration = [row for row in evaluation.calibration(study.name) if row["case"] in kept]
    one = analysis.verdicts.get((entry.network, entry.seed))
    return RunResult(
        network=entry.network,
        seed=entry.seed,
        fold=run.fold,
        path=relative(run.path, root),
        chosen=analysis.chosen[entry.network] == entry.seed,
        verdict=one.kind if one else "",
        best_validation_dice=run.best_validation,
        best_epoch=run.record.get("best_epoch"),
        epochs=run.record.get("epochs") or len(run.history),
        volatility=volatility(run.history),
        worst_decile_dice=worst_decile(np.array([row["dice"] for row in rows])),
        scores=summarise(rows),
        expected_calibration_error=expected_calibration_error(calibration) if calibration else None,
        brier_score=brier_score(calibration) if calibration else None,
        **{name: run.record.get(name) for name in COSTS},
        machine=_machine(run),
        precision=run.record.get("precision"),
        data_hash=run.record.get("data_hash"),
        protocol_hash=run.record.get("protocol_hash"),
        checkpoint_sha256=run.record.get("checkpoint_sha256"),
    )


def _pretraining(entry: Entry) -> str:
    before = list(dict.fromkeys(name for run in entry.runs for name in run.record.pretrained_on or []))
    return f" (pretrained on: {', '.join(before)})" if before else ""


def _made_elsewhere(entry: Entry) -> str:
    before = entry.runs[0].record.pretrained_on
    told = "not stated" if before is None else ", ".join(before) or "nothing"
    return f"{entry.title} (pretrained on: {told})"


def _machine(run: Run) -> str:
    record = run.record.get("machine") or {}
    parts = [record.get("gpu"), record.get("processor")]
    if record.get("threads"):
        parts.append(f"{record['threads']} thread{'s' * (record['threads'] != 1)}")
    told = ", ".join(str(part) for part in parts if part)
    device = run.record.get("device")
    return f"{told or 'machine not recorded'} ({device})" if device else told or "not recorded"


def _run_warnings(study: Study) -> list[str]:
    """What runs and their evaluations warn of; said once where several say the same."""
    told: dict[str, list[str]] = {}
    for entry in study.entries.values():
        for run, evaluation in zip(entry.runs, entry.evaluations, strict=True):
            own = [*(run.record.get("warnings") or []), *(evaluation.record.get("warnings") or []), *run.notes]
            for text in dict.fromkeys(map(str, own)):
                told.setdefault(text, []).append(entry.title)
    total = len(study.entries)
    return [
        f"{text} ({'all runs' if len(set(of)) == total else ', '.join(dict.fromkeys(of))})" for text, of in told.items()
    ]


def _recommendation(
    analysis: Analysis,
    networks: Sequence[NetworkResult],
    runs: Sequence[RunResult],
    *,
    margin: float,
    grouping: str,
    synthetic: bool,
    forced: bool,
) -> Recommendation | None:
    """Chosen on validation where every run was scored there, else on the part of the report."""
    study = analysis.study
    chooser, why_not = _on_validation(analysis)
    on = "validation"
    if chooser is None:
        chooser, on = analysis, study.part
    comparison = chooser.architectures or chooser.weights
    if comparison is None:
        return None
    by_name = {row.network: row for row in networks}
    cost = next((name for name in COSTS[1::-1] if all(by_name[n].cost[name] for n in comparison.networks)), None)
    choice = recommend(
        comparison,
        candidates={
            network: Candidate(
                network,
                volatility=by_name[network].volatility,
                collapsed=len(by_name[network].collapsed_seeds),
                seeds=len(by_name[network].seeds),
                cost=None if cost is None else by_name[network].cost[cost],
            )
            for network in comparison.networks
        },
        margin=margin,
        metric=METRICS[analysis.metric].title,
        cost={"multiply_adds": "multiply-adds", "parameters": "parameters", None: None}[cost],
        larger_is_better=analysis.larger_is_better,
    )
    winner = by_name[choice["network"]]
    blockers = []
    if grouping == "leaky":
        blockers.append("the split is LEAKY: images of one group are in training and in test")
    if study.part in TRAINED_ON:
        blockers.append("the scores are of images that the models were trained on")
    if synthetic:
        blockers.append("the images are synthetic and say nothing about patients")
    if forced:
        blockers.append("the comparison was forced: the runs differ in more than the network")
    if comparison.refusals or comparison.n_groups < _FEW_GROUPS:
        blockers.append(f"{comparison.n_groups} groups are too few to choose by ({_FEW_GROUPS} at least)")
    limits = []
    if on == study.part:
        limits.append(f"Selected on {on}: optimistic. The cases that chose the network also give its score{why_not}.")
    else:
        limits.append("Validation also chose each run's epoch and weights; the score that counts is that of the test.")
    if comparison.question == "weights":
        limits.append(
            "The choice is between these weights, not between architectures: the spread from one training to the next "
            "is not known."
        )
    if grouping == "unknown":
        limits.append("Groups are unknown: images of one patient may count as several, and intervals be too narrow.")
    if winner.collapsed_seeds:
        limits.append(
            f"{len(winner.collapsed_seeds)} of {len(winner.seeds)} seeds of {winner.network} collapsed: a new "
            "training may collapse as well."
        )
    if analysis.contaminated:
        limits.append(
            f"Not considered, as their weights had seen data of this test before: {', '.join(analysis.contaminated)}."
        )
    missing = [
        row.network
        for row in networks
        if row.network not in comparison.networks and row.network not in analysis.contaminated
    ]
    masks = [name for name in missing if all(run.from_masks for entry in study.of(name) for run in entry.runs)]
    if masks:
        limits.append(f"Not considered, as scored from masks on the part “{study.part}” alone: {', '.join(masks)}.")
    if missing := [name for name in missing if name not in masks]:
        limits.append(f"Not considered, as degenerate or trained with one seed only: {', '.join(missing)}.")
    if study.folds != "none":
        limits.append("There is a set of weights for each fold; retrain on all data, or average their predictions.")
    return Recommendation(
        network=winner.network,
        seed=winner.chosen_seed,
        paths=[row.path for row in runs if row.network == winner.network and row.chosen],
        best=choice["best"],
        eligible=choice["eligible"],
        deficits=choice["deficits"],
        p_worse=choice["p_worse"],
        reasons=choice["reasons"],
        selected_on=on,
        optimistic=on == study.part,
        question=comparison.question,
        margin=margin,
        n_cases=comparison.n_cases,
        n_groups=comparison.n_groups,
        blockers=blockers,
        limits=limits,
        reported=winner.mean_over_groups,
    )


def _on_validation(analysis: Analysis) -> tuple[Analysis | None, str]:
    study = analysis.study
    runs = [run for entry in study.entries.values() for run in entry.runs]
    if study.part == "validation":
        return None, ""
    validated = {run.path: one for run in runs if (one := run.evaluation("validation"))}
    masks = {run.path for run in runs if run.from_masks and run.path not in validated}
    if len({run.network for run in runs if run.path not in masks}) > 1:
        runs = [run for run in runs if run.path not in masks]
    if len(validated) < len(runs):
        return None, "; evaluate every run with --part validation to choose there"
    if any(study.name not in one.classes for one in validated.values()):
        return None, f"; not every evaluation of the validation part has the class {study.name}"
    labels = {run.path: entry.network for entry in study.entries.values() for run in entry.runs}
    cases = Counter(
        frozenset(row["case"] for row in validated[run.path].of_class(study.name))
        for run in runs
        if run.fold == runs[0].fold
    )
    if len(cases) > 1:
        return None, "; the validation cases differ from run to run"
    try:
        validation = make_study(runs, name=study.name, part="validation", labels=labels)
    except UserError:
        return None, "; the folds' validation cases overlap in part"
    return analyse(validation, metric=analysis.metric, larger_is_better=analysis.larger_is_better, like=analysis), ""


def warnings(sections: Sequence[Section]) -> list[str]:
    """What has to be read before any number, the gravest first."""
    found: list[tuple[int, str]] = []

    for section in sections:
        where = section.dataset

        def warn(order: int, text: str, where: str = where) -> None:
            found.append((order, f"{where}: {text}"))

        for problem in section.forced:
            found.append((0, f"FORCED COMPARISON. {problem}"))
        if section.grouping == "leaky":
            warn(
                1,
                "LEAKY SPLIT. Groups were not heeded: images of one patient are in training and in test, so every "
                "score is too good.",
            )
        if section.part in TRAINED_ON:
            warn(1, f"TRAINING IMAGES are in the part “{section.part}”: every score is too good.")
        if section.synthetic:
            warn(
                2,
                "SYNTHETIC DATA. The images are computer-made: they show that the machinery works, and nothing about "
                "patients.",
            )
        if section.grouping == "unknown":
            warn(
                3,
                "groups are unknown. Every image counts as its own patient; where patients have several images, "
                "training and test may share them and the intervals are too narrow.",
            )
        for network in section.contaminated:
            warn(
                1,
                f"{network} may have seen these images: {section.set_apart[network]}. Its score may be too good; it is "
                "ranked apart.",
            )
        for comparison in (section.weights, section.architectures):
            for text in [*comparison.refusals, *comparison.warnings] if comparison else []:
                warn(4, text)
        if section.weights and not section.architectures:
            warn(5, f"no claim about architectures. {' '.join(section.architecture_notes)}")
        if section.folds != "none":
            warn(5, FOLDS[section.folds])
        for one in section.degenerate:
            warn(6, f"{one.network} seed {one.seed} is degenerate ({one.kind}). {one.sentence}")
        if len(section.precisions) > 1:
            warn(7, f"the runs were made in different precision ({', '.join(section.precisions)}).")
        if section.from_masks:
            warn(
                7,
                "scored from masks that something else made; its recipe, time and training data are not known here: "
                f"{'; '.join(section.from_masks)}.",
            )
        if section.started_from:
            warn(7, f"not trained from the start but from other weights: {', '.join(section.started_from)}.")
        for text in [*section.notes, *section.run_warnings]:
            warn(8, text)
    return list(dict.fromkeys(text for _, text in sorted(found, key=lambda one: one[0])))
