"""The seeds of one network as one model: what was scored of it, else a vote of their stored masks; its agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from monai_thyroid.compare.contents import Coverage, Ensemble, Mean, plural
from monai_thyroid.compare.statistics import bootstrap_mean
from monai_thyroid.compare.study import Analysis, Entry
from monai_thyroid.errors import UserError
from monai_thyroid.metrics import METRICS, ScoringPolicy, score_case
from monai_thyroid.metrics.registry import Counts, evaluate
from monai_thyroid.runfolder import CaseRow, Evaluation, ensemble_path, read_evaluation, same_postprocessing

__all__ = ["GIVEN", "make_ensembles"]

GIVEN = (0.0, 0.1, 0.2, 0.3)
"""Shares of the least agreed cases that go to a person."""
_Mask = npt.NDArray[np.bool_]


def make_ensembles(analysis: Analysis) -> tuple[list[Ensemble], list[str], list[str]]:
    """What the seeds of every network that has two or more are worth as one model.

    Where `monai-thyroid ensemble` has scored the mean of their probabilities, it is that. Else their vote: a pixel is
    foreground where more than half of the seeds mark it (of two: both). Seeds that collapsed or are copies are in
    neither. Agreement is that of `monai-thyroid predict`: the mean Dice of all pairs of seeds.

    Args:
        analysis: of a dataset and class.

    Returns:
        The ensembles, best first; of which networks there is none, and why; and what is wrong with stored masks.
    """
    found, notes, problems = [], [], []
    if analysis.study.folds == "shared":
        return [], ["Not made: several folds were scored on the same cases, so there is no one model a seed."], []
    for network in analysis.order:
        voters = [entry for entry in analysis.study.of(network) if (network, entry.seed) not in analysis.verdicts]
        if len(voters) < 2:
            notes.append(f"{network}: {plural(len(voters), 'usable seed')}, an ensemble takes two.")
            continue
        try:
            scored = _scored_before(analysis, voters)
        except UserError as error:
            problems += [f"--ensemble: {network}: {problem}" for problem in error.problems]
            continue
        if scored:
            found.append(_summed_up(analysis, network, voters, *scored, averaged=True))
            continue
        kept = [_kept(entry) for entry in voters]
        lacking = [
            f"seed {entry.seed} of {sum(case not in own for case in analysis.study.cases)}"
            for entry, own in zip(voters, kept, strict=True)
            if any(case not in own for case in analysis.study.cases)
        ]
        if lacking:
            notes.append(
                f"{network}: no stored prediction and reference of all {plural(len(analysis.study.cases), 'case')} "
                f"(they lack for {', '.join(lacking)})."
            )
            continue
        made = _made(analysis, network, voters, kept)
        if isinstance(made, str):
            problems.append(made)
        else:
            found.append(made)
    sign = 1 if analysis.larger_is_better else -1
    return sorted(found, key=lambda one: -sign * one.score.mean), notes, problems


def _scored_before(analysis: Analysis, voters: Sequence[Entry]) -> tuple[np.ndarray, np.ndarray] | None:
    """Score and agreement of each case, (cases,), of the ensemble of these very weights; None where there is none.

    Raises:
        UserError: its files cannot be used, or are of other cases or references than the runs.
    """
    study = analysis.study
    if any(len(entry.runs) > 1 for entry in voters):
        return None
    runs = [entry.runs[0] for entry in voters]
    hashes = [run.record.checkpoint_sha256 for run in runs]
    if None in hashes:
        return None
    folders = [ensemble_path(run.path, [str(one) for one in hashes]) / "evaluations" for run in runs]
    scored = voters[0].evaluations[0]
    there = [
        (run, one)
        for run, folder in zip(runs, folders, strict=True)
        if (one := folder / scored.name / "cases.csv").is_file()
    ]
    if not there:
        return None
    first, path = there[0]
    try:
        evaluation = read_evaluation(path.parent)
        agreements = {row.case: row.agreement for row in evaluation.agreements() if row.class_name == study.name}
    except UserError as error:
        raise UserError([f"{path.parent}: {problem}" for problem in error.problems]) from error
    if not same_postprocessing(first.record, evaluation.record):
        raise UserError(f"{path.parent}: is of other postprocessing than {first.path}; score the ensemble again")
    rows = {row["case"]: row for row in evaluation.of_class(study.name)}
    truth = {row["case"]: row["tp"] + row["fn"] for row in voters[0].rows}
    unfit = [
        case
        for case in study.cases
        if case not in rows
        or rows[case]["error"]
        or agreements.get(case) is None
        or rows[case][analysis.metric] is None
        or rows[case]["tp"] + rows[case]["fn"] != truth[case]
    ]
    own, other = scored.references_hash(), evaluation.references_hash()
    if unfit or (own and other and own != other):
        what = f"{len(unfit)} cases are lacking or have other references" if unfit else "has other references"
        raise UserError(f"{path.parent}: {what}; score the ensemble again")
    values = [[float(rows[case][analysis.metric]), float(agreements[case] or 0)] for case in study.cases]
    scores, agreed = np.array(values).T
    return scores, agreed


def _kept(entry: Entry) -> dict[str, tuple[Evaluation, CaseRow]]:
    """Evaluation and row of each case whose prediction and reference are stored."""
    scored = {row["case"]: row for row in entry.rows}
    found: dict[str, tuple[Evaluation, CaseRow]] = {}
    for evaluation in entry.evaluations:
        for case in {row["case"] for row in evaluation.rows} & scored.keys():
            if all(evaluation.picture(kind, case).is_file() for kind in ("references", "predictions")):
                found[case] = evaluation, scored[case]
    return found


def _made(
    analysis: Analysis, network: str, voters: Sequence[Entry], kept: Sequence[Mapping[str, tuple[Evaluation, CaseRow]]]
) -> Ensemble | str:
    """The ensemble, or what is wrong with its masks."""
    study, metric = analysis.study, analysis.metric
    try:
        policy = _policy(next(iter(kept[0].values()))[0])
    except (TypeError, ValueError) as error:
        return f"--ensemble: {network}: its scoring policy is not one that this version knows ({error})"
    scores, agreements, other = [], [], []
    for case in study.cases:
        try:
            masks = [own[case][0].mask("predictions", case, study.name) for own in kept]
            reference = kept[0][case][0].mask("references", case, study.name)
        except OSError as error:
            return f"--ensemble: {network}, case {case}: a stored mask cannot be read ({error})"
        if any(
            mask.shape != reference.shape or not _scored(Counts.of(reference, mask), own[case][1])
            for mask, own in zip(masks, kept, strict=True)
        ):
            other.append(case)
            continue
        vote = 2 * np.sum(masks, axis=0) > len(masks)
        scores.append(_score(metric, reference, vote, kept[0][case][1], policy))
        pairs = [evaluate(METRICS["dice"], Counts.of(a, b)) for a, b in combinations(masks, 2)]
        agreements.append(float(np.mean(pairs)))
    if other:
        shown = ", ".join(other[:5]) + (f" and {len(other) - 5} more" if len(other) > 5 else "")
        return (
            f"--ensemble: the stored masks of {network} are not those that were scored in {len(other)} of "
            f"{plural(len(study.cases), 'case')} ({shown}); evaluate these runs again"
        )
    return _summed_up(analysis, network, voters, np.array(scores), np.array(agreements), averaged=False)


def _summed_up(
    analysis: Analysis, network: str, voters: Sequence[Entry], voted: np.ndarray, agreed: np.ndarray, *, averaged: bool
) -> Ensemble:
    """From the score and the agreement of each case."""
    study, metric = analysis.study, analysis.metric
    sign = 1 if analysis.larger_is_better else -1
    singles = np.mean([entry.values(metric, study.cases) for entry in voters], axis=0)
    chosen = analysis.entry(network).values(metric, study.cases)

    def mean(values: np.ndarray, kept: np.ndarray | None = None) -> Mean:
        if kept is None:
            return Mean(*bootstrap_mean(values, groups=study.groups))
        return Mean(*bootstrap_mean(values[kept], groups=[study.groups[place] for place in kept]))

    order = np.lexsort((np.array(study.cases), agreed))  # least agreed first
    worst = np.argsort(sign * voted, kind="stable")
    coverage = []
    for given in GIVEN:
        left = math.floor(given * len(order) + 1e-9)
        coverage.append(
            Coverage(
                given=given,
                n_cases=len(order) - left,
                score=mean(voted, np.sort(order[left:])),
                best_possible=mean(voted, np.sort(worst[left:])).mean,
            )
        )
    return Ensemble(
        network=network,
        seeds=[entry.seed for entry in voters],
        averaged=averaged,
        score=mean(voted),
        singles=mean(singles),
        gain=mean(sign * (voted - singles)),
        gain_over_chosen=mean(sign * (voted - chosen)),
        agreement=mean(agreed),
        coverage=coverage,
        curve=[float(voted[order[left:]].mean()) for left in range(len(order) // 2 + 1)],
    )


def _scored(counts: Counts, row: CaseRow) -> bool:
    return (counts.tp, counts.fp, counts.fn, counts.tn) == tuple(row[name] for name in ("tp", "fp", "fn", "tn"))


def _score(metric: str, reference: _Mask, prediction: _Mask, row: CaseRow, policy: ScoringPolicy) -> float:
    if METRICS[metric].pooled:
        return float(evaluate(METRICS[metric], Counts.of(reference, prediction)))
    y, x = row["spacing_y"], row["spacing_x"]
    spacing = None if y is None or x is None or math.isnan(y) or math.isnan(x) else (y, x)
    return float(score_case(reference, prediction, spacing=spacing, policy=policy)[metric])


def _policy(evaluation: Evaluation) -> ScoringPolicy:
    """As it was recorded; this version's own where nothing was."""
    record = evaluation.record.policy or {}
    known = {name: record[name] for name in ("nsd_tolerance", "match_iou", "connectivity") if name in record}
    return ScoringPolicy(**known)
