"""What is compared with what: the cases, groups and seeds of one dataset, part and class, and the two comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from monai_thyroid.compare.judge import Verdict, copies, verdict
from monai_thyroid.compare.power import Components, components_of
from monai_thyroid.compare.pretraining import contamination
from monai_thyroid.compare.reading import Run, by_fold
from monai_thyroid.compare.statistics import (
    Comparison,
    Rate,
    compare_architectures,
    compare_weights,
    exact_rate,
    group_means,
    rank_stability,
)
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_json
from monai_thyroid.metrics import METRICS
from monai_thyroid.runfolder import CaseRow, Evaluation

__all__ = ["Analysis", "Entry", "Study", "analyse", "components_here", "declared_margin", "make_study"]


@dataclass(frozen=True)
class Entry:
    """A network trained with one seed: one run, or one a fold.

    Attributes:
        network: its name in the report.
        seed: of the training.
        runs: by fold.
        evaluations: of each run, on the part that is compared.
        rows: of cases.csv, of the class and cases of the study, of all runs.
    """

    network: str
    seed: int
    runs: list[Run] = field(repr=False)
    evaluations: list[Evaluation] = field(repr=False)
    rows: list[CaseRow] = field(repr=False)

    @property
    def title(self) -> str:
        """Such as ``unet seed 0``."""
        return f"{self.network} seed {self.seed}"

    @property
    def best_validation(self) -> float | None:
        """Best validation Dice of an epoch, mean over the folds; None where a run has none."""
        found = [value for run in self.runs if (value := run.best_validation) is not None]
        return float(np.mean(found)) if len(found) == len(self.runs) else None

    def values(self, metric: str, cases: Sequence[str]) -> np.ndarray:
        """One score a case, (cases,); the mean over the folds that scored it."""
        scores = defaultdict(list)
        for row in self.rows:
            scores[row["case"]].append(float(row[metric]))
        return np.array([np.mean(scores[case]) for case in cases])


@dataclass(frozen=True)
class Study:
    """Runs of one dataset, scored on one part of it, in one class.

    Attributes:
        dataset: that the runs were trained on.
        name: of the class.
        part: that was scored.
        entries: by network and seed, in this order.
        cases: scored by every entry.
        groups: of each case.
        folds: how the cases of several folds relate; ``"none"`` without folds.
        notes: sentences on what was left out.
    """

    dataset: str
    name: str
    part: str
    entries: dict[tuple[str, int], Entry]
    cases: list[str]
    groups: list[str]
    folds: Literal["none", "disjoint", "shared"]
    notes: list[str]

    @property
    def networks(self) -> list[str]:
        """Names of the networks, sorted."""
        return sorted({network for network, _ in self.entries})

    def of(self, network: str) -> list[Entry]:
        """The entries of a network, by seed."""
        return [entry for (name, _), entry in self.entries.items() if name == network]


def make_study(runs: Sequence[Run], *, name: str, part: str, labels: Mapping[Path, str]) -> Study:
    """Bring the runs of one dataset to the same cases.

    Args:
        runs: that `comparability` lets pass, or that are compared by force.
        name: of the class.
        part: that was scored; every run must have an evaluation of it.
        labels: of each run folder, the network's name in the report.

    Raises:
        UserError: no case is common to all runs, folds overlap in part, or no network has all folds.
    """
    where = f"dataset {runs[0].dataset}, part {part}"
    scored = {run.path: one for run in runs if (one := run.evaluation(part))}
    rows = {run.path: {row["case"]: row for row in scored[run.path].of_class(name)} for run in runs}
    failed = {case for of_run in rows.values() for case, row in of_run.items() if row["error"]}
    notes = []
    if failed:
        notes.append(
            f"{len(failed)} cases could not be scored in every run and are left out of every figure: "
            f"{', '.join(sorted(failed)[:10])}{' ...' if len(failed) > 10 else ''}."
        )

    folds = sorted({run.fold for run in runs}, key=by_fold)
    of_folds: dict[int | None, list[str]] = {}
    for fold in folds:
        of_fold = [rows[run.path] for run in runs if run.fold == fold]
        shared = set.intersection(*map(set, of_fold)) - failed
        of_folds[fold] = sorted(shared)
        if other := len(set.union(*map(set, of_fold)) - failed - shared):
            notes.append(f"{other} cases were not scored by every run and are left out of every figure.")
    everything = [case for cases in of_folds.values() for case in cases]
    kind: Literal["none", "disjoint", "shared"] = "none"
    if len(folds) > 1:
        if len(set(everything)) == len(everything):
            kind = "disjoint"
        elif all(cases == of_folds[folds[0]] for cases in of_folds.values()):
            kind = "shared"
        else:
            raise UserError(f"{where}: the folds share some of their cases and not others; give runs of one plan")
    if not everything:
        raise UserError(f"{where}: no case was scored by every run, so nothing can be compared, not even by --force")

    members: dict[tuple[str, int], list[Run]] = defaultdict(list)
    for run in runs:
        members[labels[run.path], run.seed].append(run)
    entries = {}
    for (network, seed), own in sorted(members.items()):
        lacking = [str(fold) for fold in folds if fold not in {run.fold for run in own}]
        if lacking:
            notes.append(f"{network} seed {seed} lacks fold {', '.join(lacking)} and is left out.")
            continue
        own = sorted(own, key=lambda run: by_fold(run.fold))
        kept = [rows[run.path][case] for run in own for case in of_folds[run.fold]]
        entries[network, seed] = Entry(network, seed, own, [scored[run.path] for run in own], kept)
    if not entries:
        raise UserError(f"{where}: no network has runs of all folds; give the missing ones, or one fold only")
    group_of = {row["case"]: str(row["group"]) for entry in reversed(entries.values()) for row in entry.rows}
    cases = sorted(set(everything))
    return Study(runs[0].dataset, name, part, entries, cases, [group_of[case] for case in cases], kind, notes)


@dataclass(frozen=True)
class Analysis:
    """A study, judged and compared.

    Attributes:
        study: what was compared.
        metric: by which score.
        larger_is_better: False for distances.
        verdicts: of entries that have collapsed or are copies.
        compared: networks that are ranked.
        apart: networks that are set apart, and why.
        contaminated: of these the ones whose weights had seen the data, best mean first.
        chosen: of every network the seed with the best validation Dice.
        chosen_by: what the choice went by.
        weights: the chosen weights of the compared networks; None for fewer than two.
        ranks: shares of resamplings with each rank, of these weights.
        architectures: None where there are not two networks of two common seeds.
        architecture_seeds: that are compared.
        architecture_notes: which networks and seeds were left out, or why the question is not asked.
        collapse_rates: of every network how many of its seeds have collapsed, copies not counted.
    """

    study: Study
    metric: str
    larger_is_better: bool
    verdicts: dict[tuple[str, int], Verdict]
    compared: list[str]
    apart: dict[str, str]
    contaminated: list[str]
    chosen: dict[str, int]
    chosen_by: str
    weights: Comparison | None
    ranks: dict[str, list[float]]
    architectures: Comparison | None
    architecture_seeds: list[int]
    architecture_notes: list[str]
    collapse_rates: dict[str, Rate]

    @property
    def order(self) -> list[str]:
        """The compared networks, best mean of the chosen weights first, then those set apart."""
        return [*(self.weights.networks if self.weights else self.compared), *self.apart]

    def entry(self, network: str) -> Entry:
        """The chosen weights of a network."""
        return self.study.entries[network, self.chosen[network]]


def analyse(study: Study, *, metric: str, larger_is_better: bool, like: Analysis | None = None) -> Analysis:
    """Find what has collapsed, choose weights by validation, and ask both questions.

    Args:
        study: what is compared.
        metric: a column of cases.csv.
        larger_is_better: False for distances.
        like: an analysis of another part whose verdicts and choices hold here too, for the networks that are here.
    """
    if like:
        verdicts, chosen, by = like.verdicts, like.chosen, like.chosen_by
        compared = [network for network in like.compared if network in study.networks]
        apart = {network: why for network, why in like.apart.items() if network in study.networks}
        contaminated = [network for network in like.contaminated if network in apart]
    else:
        verdicts = _verdicts(study)
        compared, apart = [], {}
        for network in study.networks:
            bad = [verdicts.get((network, entry.seed)) for entry in study.of(network)]
            if all(bad):
                apart[network] = "; ".join(
                    f"seed {entry.seed}: {one.sentence}"
                    for entry, one in zip(study.of(network), bad, strict=True)
                    if one
                )
            else:
                compared.append(network)
        chosen, by = _choose(study, verdicts)
        seen = {
            network: why
            for network in compared
            if (why := contamination(run for entry in study.of(network) for run in entry.runs))
        }
        compared = [network for network in compared if network not in seen]
        means = {
            network: group_means(
                study.entries[network, chosen[network]].values(metric, study.cases), study.groups
            ).mean()
            for network in seen
        }
        contaminated = sorted(seen, key=lambda network: -means[network] if larger_is_better else means[network])
        apart = {**{network: seen[network] for network in contaminated}, **apart}

    def matrix(networks: Sequence[str], seeds: Sequence[int] | None = None) -> np.ndarray:
        return np.array(
            [
                [study.entries[network, seed].values(metric, study.cases) for seed in (seeds or [chosen[network]])]
                for network in networks
            ]
        )

    weights, ranks, architectures = None, {}, None
    options: dict[str, Any] = {"groups": study.groups, "larger_is_better": larger_is_better}
    limits = METRICS[metric].limits
    if len(compared) > 1:
        values = matrix(compared)[:, 0]
        weights = compare_weights(values, networks=compared, limits=limits, **options)
        ranks = rank_stability(values, networks=compared, **options)
    networks, seeds, notes = _balanced(study, compared, verdicts)
    if seeds:
        collapsed = [[_is_collapsed(verdicts, study.entries[network, seed]) for seed in seeds] for network in networks]
        architectures = compare_architectures(
            matrix(networks, seeds), networks=networks, limits=limits, collapsed=collapsed, **options
        )
    rates = {}
    for network in study.networks:
        own = [entry for entry in study.of(network) if not _is_copy(verdicts, entry)]
        rates[network] = exact_rate(sum(_is_collapsed(verdicts, entry) for entry in own), len(own))
    return Analysis(
        study,
        metric,
        larger_is_better,
        verdicts,
        compared,
        apart,
        contaminated,
        chosen,
        by,
        weights,
        ranks,
        architectures,
        seeds,
        notes,
        rates,
    )


def components_here(analysis: Analysis) -> Components | None:
    """Variance components of the runs that were compared; None where two networks without a collapse are lacking.

    Of the seeds that all networks have, where the question about architectures was asked; else of the chosen weights.
    """
    study = analysis.study
    asked = analysis.architectures
    sound = [
        network
        for network in (asked.networks if asked else analysis.compared)
        if not any(
            _is_collapsed(analysis.verdicts, study.entries[network, seed])
            for seed in (analysis.architecture_seeds if asked else [analysis.chosen[network]])
        )
    ]
    if len(sound) < 2:
        return None
    seeds = {n: analysis.architecture_seeds if asked else [analysis.chosen[n]] for n in sound}
    values = np.array(
        [[study.entries[n, seed].values(analysis.metric, study.cases) for seed in seeds[n]] for n in sound]
    )
    told = f"{', '.join(sound)} on {study.dataset} ({study.name})"
    source = f"these runs: {told}" + (f", seeds {', '.join(map(str, analysis.architecture_seeds))}" if asked else "")
    return components_of(group_means(values, study.groups), source=source)


def declared_margin(folders: Iterable[Path]) -> float | None:
    """The margin that a comparison's plan recorded before its runs were trained.

    Only of such a margin may be said that it was declared beforehand.

    Args:
        folders: of runs.

    Returns:
        None where not all runs lie below the folder of one ``plan.json``, or it records no margin.
    """
    plans = {
        next((parent / "plan.json" for parent in folder.parents if (parent / "plan.json").is_file()), None)
        for folder in folders
    }
    if len(plans) != 1 or (plan := plans.pop()) is None:
        return None
    margin = read_json(plan).get("margin")
    return float(margin) if isinstance(margin, (int, float)) else None


def _verdicts(study: Study) -> dict[tuple[str, int], Verdict]:
    found: dict[tuple[str, int], Verdict] = {}
    for key, entry in study.entries.items():
        for run, evaluation in zip(entry.runs, entry.evaluations, strict=True):
            of_run = [row for row in evaluation.of_class(study.name) if not row["error"]]
            if one := verdict(of_run):
                fold = "" if run.fold is None else f"Fold {run.fold}: "
                found.setdefault(key, Verdict(one.kind, fold + one.sentence))
    # Collapsed models are all alike and are told apart by their own verdict.
    others = [entry for key, entry in study.entries.items() if key not in found]
    for copy, of in copies([entry.rows for entry in others]).items():
        same = others[of]
        found[others[copy].network, others[copy].seed] = Verdict(
            "copy",
            f"Its pixel counts equal those of {same.title} in all of {len(study.cases)} cases: the same model twice.",
        )
    return found


def _choose(study: Study, verdicts: Mapping[tuple[str, int], Verdict]) -> tuple[dict[str, int], str]:
    """The seed of each network by validation alone: a choice by test scores would flatter."""
    own = {
        network: [e for e in study.of(network) if not _is_copy(verdicts, e)] or study.of(network)
        for network in study.networks
    }
    # What was scored from masks has no validation of ours, and cannot decide how the others are chosen.
    masks = {network for network, entries in own.items() if all(run.from_masks for e in entries for run in e.runs)}
    if any(entry.best_validation is None for network in own.keys() - masks for entry in own[network]):
        return {network: entries[0].seed for network, entries in own.items()}, (
            "the lowest seed of each network, as not every run has a validation Dice"
        )
    chosen = {
        network: max(entries, key=lambda entry: (entry.best_validation or 0.0, -entry.seed)).seed
        for network, entries in own.items()
    }
    by = ["of each network the seed with the best validation Dice of an epoch"] if own.keys() - masks else []
    by += [f"of what was scored from masks ({', '.join(sorted(masks))}) the lowest seed"] if masks else []
    return chosen, "; ".join(by)


def _is_copy(verdicts: Mapping[tuple[str, int], Verdict], entry: Entry) -> bool:
    one = verdicts.get((entry.network, entry.seed))
    return one is not None and one.kind == "copy"


def _is_collapsed(verdicts: Mapping[tuple[str, int], Verdict], entry: Entry) -> bool:
    return (entry.network, entry.seed) in verdicts and not _is_copy(verdicts, entry)


def _balanced(
    study: Study, compared: Sequence[str], verdicts: Mapping[tuple[str, int], Verdict]
) -> tuple[list[str], list[int], list[str]]:
    """Networks and seeds of which every combination was trained; no seeds where the question cannot be asked."""
    notes = []
    seeds = {
        network: [entry.seed for entry in study.of(network) if not _is_copy(verdicts, entry)] for network in compared
    }
    several = [network for network in compared if len(seeds[network]) > 1]
    if len(compared) < 2:
        return [], [], ["There are not two networks to compare."]
    if len(several) < 2:
        single = ", ".join(f"{network} {len(seeds[network])}" for network in compared)
        return [], [], [
            "Not asked: it takes two networks trained with two seeds or more, as the spread from one training to the "
            f"next is otherwise unknown. Seeds of each network: {single}. Nothing is claimed beyond these weights."
        ]  # fmt: skip
    if single_seed := [network for network in compared if network not in several]:
        notes.append(f"Left out, as trained with one seed only: {', '.join(single_seed)}.")
    common = sorted(set.intersection(*(set(seeds[network]) for network in several)))
    if len(common) < 2:
        told = "; ".join(f"{network} {', '.join(map(str, seeds[network]))}" for network in several)
        return [], [], [*notes, f"Not asked: the networks have fewer than two seeds in common. Seeds: {told}."]
    for network in several:
        if more := [str(seed) for seed in seeds[network] if seed not in common]:
            notes.append(f"Left out, as not all networks have it: {network} seed {', '.join(more)}.")
    return several, common, notes
