"""Scores of degraded images, as `monai-thyroid robustness` kept them: how they fall with the strength."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from monai_thyroid.compare.contents import Degraded, Mean, shortened
from monai_thyroid.compare.statistics import bootstrap_mean
from monai_thyroid.compare.study import Analysis
from monai_thyroid.errors import UserError

__all__ = ["make_degraded"]

_Scores = dict[tuple[str, float], np.ndarray]


def make_degraded(analysis: Analysis) -> tuple[list[Degraded], list[str]]:
    """Dice of each network's chosen weights by degradation and strength.

    Returns:
        The degradations, as they were first seen; and of which networks there is nothing that fits, and why.
    """
    groups = analysis.study.groups
    scores: dict[str, _Scores] = {}
    units: dict[str, str] = {}
    notes = []
    for network in analysis.order:
        found = _scores(analysis, network, units)
        if isinstance(found, str):
            notes.append(found)
        elif found:
            scores[network] = found
    if not scores:
        return [], notes
    notes += [
        f"{network}: not measured; monai-thyroid robustness does."
        for network in analysis.order
        if network not in scores and not any(note.startswith(f"{network}: ") for note in notes)
    ]
    made = []
    for name, unit in units.items():
        strengths = sorted({strength for own in scores.values() for one, strength in own if one == name})
        means: dict[str, list[Mean | None]] = {}
        changes: dict[str, list[Mean | None]] = {}
        for network, own in scores.items():
            if (name, 0.0) not in own:  # which was not measured of this network
                continue
            clean = own[name, 0.0]
            values = [own.get((name, strength)) for strength in strengths]
            means[network] = [None if one is None else Mean(*bootstrap_mean(one, groups=groups)) for one in values]
            changes[network] = [
                None if one is None else Mean(*bootstrap_mean(one - clean, groups=groups)) for one in values
            ]
        made.append(Degraded(name, unit, strengths, means, changes))
    return made, list(dict.fromkeys(notes))


def _scores(analysis: Analysis, network: str, units: dict[str, str]) -> _Scores | str:
    """Dice of every case by degradation and strength; nothing where it was not measured, or why it cannot be used."""
    study, entry = analysis.study, analysis.entry(network)
    by_case: dict[tuple[str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    seen: dict[tuple[str, float], set[tuple[str, Path]]] = defaultdict(set)
    own: dict[str, str] = {}
    for evaluation in entry.evaluations:
        try:
            rows = evaluation.robustness()
        except UserError as error:
            return f"{network}: {shortened(error.problems)}"
        if not rows and (evaluation.path / "robustness.csv").is_file():
            return f"{network}: its robustness.csv has no rows; measure it again."
        clean = {row["case"]: float(row["dice"]) for row in evaluation.of_class(study.name) if not row["error"]}
        for row in rows:
            if row.class_name != study.name or row.dice is None or row.strength is None:
                continue
            if row.strength == 0 and clean.get(str(row.case)) != row.dice:
                return f"{network}: its robustness.csv is of other scores than cases.csv; measure it again."
            own.setdefault(str(row.degradation), str(row.unit or ""))
            key = (str(row.degradation), row.strength)
            if (str(row.case), evaluation.path) in seen[key]:
                return f"{network}: its robustness.csv has {row.case} twice at {key[0]} {key[1]:g}; measure it again."
            seen[key].add((str(row.case), evaluation.path))
            by_case[key][str(row.case)].append(row.dice)
    if without := sorted({name for name, _ in by_case} - {name for name, strength in by_case if strength == 0}):
        return f"{network}: its robustness.csv lacks strength 0 of {', '.join(without)}; measure it again."
    lacking = {case for of_case in by_case.values() for case in study.cases if case not in of_case}
    if lacking:
        return f"{network}: its robustness.csv lacks {len(lacking)} of {len(study.cases)} cases; measure it again."
    for name, unit in own.items():
        if units.setdefault(name, unit) != unit:
            return f"{network}: its strengths of {name} are in {unit}, not {units[name]}; measure it again."
    return {key: np.array([np.mean(found[case]) for case in study.cases]) for key, found in by_case.items()}
