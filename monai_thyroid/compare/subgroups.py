"""Scores of parts of the cases: by lesion size always, and by what a table of metadata says of cases or groups."""

from __future__ import annotations

import csv
import decimal
import io
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import stats

from monai_thyroid.compare.contents import Level, Mean, Subgroups, SubgroupTest, plural
from monai_thyroid.compare.statistics import ALPHA, bootstrap_mean
from monai_thyroid.compare.study import Analysis, Study
from monai_thyroid.errors import UserError

__all__ = ["FEW", "Metadata", "depends", "fit_problems", "known_to", "make_subgroups", "read_metadata"]

FEW = 10
"""Groups below which a subgroup is too small to be tested."""
_LEVELS = 12
_NUMBERS = 6  # different numbers beyond which a column is cut into thirds
_MISSING = {"", "na", "n/a", "nan"}
_KEYS = ("case", "group")


@dataclass(frozen=True)
class Metadata:
    """A table about cases or groups.

    Attributes:
        path: of the file.
        key: what a row is about.
        columns: of each further column the values by case or group; missing ones are left out.
        names: every case or group that has a row.
    """

    path: Path
    key: str
    columns: dict[str, dict[str, str]]
    names: set[str]


def read_metadata(path: Path) -> Metadata:
    """Read a CSV file with a column ``case`` or ``group`` and one or more others.

    Raises:
        UserError: it cannot be read or holds no such table; all that was found.
    """
    try:
        lines = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"), newline=""), strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"--metadata {path}: cannot be read ({error})") from error
    header = [name.strip() for name in (lines or [[]])[0]]
    found = [name for name in _KEYS if name in header]
    rest = [name for name in header if name not in _KEYS]
    problems = [f"--metadata {path}: has the column {name!r} twice" for name, n in Counter(header).items() if n > 1]
    if not found:
        commas = "; commas part its values" if len(header) == 1 and re.search("[;\t]", header[0]) else ""
        told = ", ".join(filter(None, header)) or "none"
        problems.append(f"--metadata {path}: has neither a column case nor a column group; it has {told}{commas}")
    if not rest:
        problems.append(f"--metadata {path}: has no further column, such as device, site, sex or age")
    problems += [
        f"--metadata {path}: line {number} has {len(line)} values for {len(header)} columns"
        for number, line in enumerate(lines[1:], 2)
        if line and len(line) != len(header)
    ]
    if problems:
        raise UserError(problems)
    key = found[0]
    columns: dict[str, dict[str, str]] = {name: {} for name in rest}
    first: dict[str, int] = {}
    for number, line in enumerate(lines[1:], 2):
        row = dict(zip(header, map(str.strip, line), strict=False))
        if not line:
            continue
        if not (name := row[key]):
            problems.append(f"--metadata {path}: line {number} names no {key}")
        elif name in first:
            problems.append(f"--metadata {path}: line {number} is about {key} {name}, as line {first[name]} is")
        else:
            first[name] = number
            for column in rest:
                if row[column].casefold() not in _MISSING:
                    columns[column][name] = row[column]
    if not first:
        problems.append(f"--metadata {path}: has no row")
    if problems:
        raise UserError(problems)
    return Metadata(path, key, columns, set(first))


def fit_problems(metadata: Metadata, study: Study) -> list[str]:
    """What is wrong with a table for the cases that are compared; rows about others are no matter."""
    asked = sorted(set(study.cases if metadata.key == "case" else study.groups))
    if not (lacking := [name for name in asked if name not in metadata.names]):
        return []
    shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
    return [
        f"--metadata {metadata.path}: has no row for {len(lacking)} of {plural(len(asked), metadata.key)} of dataset "
        f"{study.dataset} ({shown})"
    ]


def make_subgroups(analysis: Analysis, metadata: Metadata | None) -> list[Subgroups]:
    """Scores of the chosen weights by lesion size and by every column of a table, with tests.

    A model's score differs between subgroups: Alexander and Govern's test (Journal of Educational Statistics 1994)
    for means of unequal variances, on group means. Its advantage differs (the interaction): the same of what it is
    above the mean of all compared networks in that group. Holm's correction over all networks and variables, for each
    of the two questions. A group whose cases lie in several subgroups counts in a test where most of them lie; a
    subgroup of fewer than `FEW` groups is left out of it.

    Args:
        analysis: of a dataset and class.
        metadata: that fits; None for size alone.
    """
    study = analysis.study
    variables = [_sizes(analysis)]
    for column, values in (metadata.columns if metadata else {}).items():
        of_key = study.cases if metadata and metadata.key == "case" else study.groups
        variables.append(_levels(column, [values.get(name) for name in of_key]))
    found = [_told(analysis, one) for one in variables]
    tests = [test for one in found for test in one.tests]
    differs = iter(_holm([test.differs for test in tests]))
    interaction = iter(_holm([test.interaction for test in tests]))
    return [
        replace(
            one,
            tests=[replace(test, differs=next(differs), interaction=next(interaction)) for test in one.tests],
        )
        for one in found
    ]


def known_to(analysis: Analysis) -> list[tuple[int, float]]:
    """To how much the score of a subgroup of 10, 25 and 100 groups is known: half of the 95 % interval.

    By the median over networks of the spread over groups of the chosen weights.
    """
    spreads = [
        float(np.std(_of_groups(analysis, network)[1], ddof=1)) if len(set(analysis.study.groups)) > 1 else math.nan
        for network in analysis.order
    ]
    spread = float(np.median(spreads))
    return [(n, float(stats.t.ppf(1 - ALPHA / 2, n - 1)) * spread / n**0.5) for n in (FEW, 25, 100)]


def _of_groups(analysis: Analysis, network: str) -> tuple[list[str], np.ndarray]:
    values = analysis.entry(network).values(analysis.metric, analysis.study.cases)
    names, numbers = np.unique(analysis.study.groups, return_inverse=True)
    return [str(name) for name in names], np.bincount(numbers, weights=values) / np.bincount(numbers)


@dataclass(frozen=True)
class _Variable:
    """Of each case the level, of the levels their order, and how they came about."""

    name: str
    labels: Sequence[str | None]
    order: Sequence[str]
    how: str


def _sizes(analysis: Analysis) -> _Variable:
    """Thirds of the reference's size."""
    entry = next(iter(analysis.study.entries.values()))
    rows = {row["case"]: row for row in entry.rows}
    spacing = [(row["spacing_y"], row["spacing_x"]) for row in rows.values()]
    metric = all(y is not None and x is not None and y * x > 0 for y, x in spacing)
    values: list[float | None] = []
    for case in analysis.study.cases:
        row = rows[case]
        pixels, total = row["tp"] + row["fn"], row["tp"] + row["fp"] + row["fn"] + row["tn"]
        size = pixels * row["spacing_y"] * row["spacing_x"] if metric else 100 * pixels / total
        values.append(size if pixels else None)
    unit = "mm²" if metric else "% of the image"
    labels, order = _thirds(values, names=("small", "medium", "large"), unit=f" {unit}")
    how = f"thirds of the cases by the area of the reference in {unit}; without empty ones"
    return _Variable("lesion size", labels, order, how)


def _levels(name: str, values: Sequence[str | None]) -> _Variable:
    """Categories, or thirds of numbers; no level where there are too many words."""
    known = {value for value in values if value is not None}
    numbers = {value: _number(value) for value in known}
    if len(known) > _NUMBERS and all(map(math.isfinite, numbers.values())):
        labels, order = _thirds([None if value is None else numbers[value] for value in values])
        return _Variable(name, labels, order, "thirds of the cases")
    if len(known) > _LEVELS:
        return _Variable(name, [None] * len(values), [], f"left out: {len(known)} different words, over {_LEVELS}")
    if len(known) < 2:
        return _Variable(name, [None] * len(values), [], "left out: all cases have the same value, or none")
    order = sorted(known, key=lambda one: (numbers[one] if math.isfinite(numbers[one]) else math.inf, one))
    return _Variable(name, list(values), order, "as given")


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        return math.nan


def _thirds(
    values: Sequence[float | None], *, names: Sequence[str] = (), unit: str = ""
) -> tuple[list[str | None], list[str]]:
    """Labels of numbers by thirds, and their order; of one or two different numbers the numbers themselves."""
    known = [value for value in values if value is not None]
    if len(set(known)) < 3:
        return [None if one is None else f"{one:.3g}{unit}" for one in values], [
            f"{one:.3g}{unit}" for one in sorted(set(known))
        ]
    low, high = (_short(float(limit), known) for limit in np.quantile(known, [1 / 3, 2 / 3]))
    low_told, high_told = (np.format_float_positional(one, trim="-") for one in (low, high))
    spans = [f"up to {low_told}{unit}", f"{low_told} to {high_told}{unit}", f"over {high_told}{unit}"]
    order = [f"{name} ({span})" for name, span in zip(names, spans, strict=True)] if names else spans
    return [None if one is None else order[int(one > low) + int(one > high)] for one in values], order


def _short(limit: float, known: Sequence[float]) -> float:
    """A limit in the fewest digits, from three on, that leave every number on its side of it."""
    below = max(one for one in known if one <= limit)
    for digits in range(3, 18):
        # The nearest one, or the next above all that lie below.
        up = decimal.Context(prec=digits, rounding=decimal.ROUND_CEILING).create_decimal(repr(below))
        for told in (float(f"{limit:.{digits}g}"), float(up)):
            if all((one > told) == (one > limit) for one in known):
                return told
    return limit


def _told(analysis: Analysis, variable: _Variable) -> Subgroups:
    study, labels = analysis.study, variable.labels
    groups = np.array(study.groups)
    chosen = {network: analysis.entry(network).values(analysis.metric, study.cases) for network in analysis.order}
    levels = []
    for label in [label for label in variable.order if label in labels]:
        here = np.array([one == label for one in labels])
        own = [str(group) for group in groups[here]]
        levels.append(
            Level(
                label,
                n_cases=int(here.sum()),
                n_groups=len(set(own)),
                too_few=len(set(own)) < FEW,
                means={network: Mean(*bootstrap_mean(values[here], groups=own)) for network, values in chosen.items()},
            )
        )
    parts = _parts(study, labels, [level.label for level in levels if not level.too_few])
    together = np.mean([chosen[network] for network in analysis.compared], axis=0) if analysis.compared else None
    tests = [
        SubgroupTest(
            network,
            differs=_test(chosen[network], parts),
            interaction=_test(chosen[network] - together, parts)
            if together is not None and len(analysis.compared) > 1 and network in analysis.compared
            else math.nan,
        )
        for network in analysis.order
    ]
    return Subgroups(variable.name, variable.how, levels, tests, n_without=sum(label is None for label in labels))


def _parts(study: Study, labels: Sequence[str | None], kept: Sequence[str]) -> list[list[np.ndarray]]:
    """Of each level that is tested, of each group that counts there, the places of its cases."""
    places: dict[str, dict[str, list[int]]] = {}
    for place, (group, label) in enumerate(zip(study.groups, labels, strict=True)):
        if label in kept and label is not None:
            places.setdefault(group, {}).setdefault(label, []).append(place)
    found: dict[str, list[np.ndarray]] = {label: [] for label in kept}
    for of_group in places.values():
        label = max(of_group, key=lambda one: (len(of_group[one]), -list(kept).index(one)))
        found[label].append(np.array(of_group[label]))
    return list(found.values())


def _test(values: np.ndarray, parts: Sequence[Sequence[np.ndarray]]) -> float:
    """p of the test that group means are alike in all parts; NaN where it cannot be made."""
    samples = [np.array([values[places].mean() for places in part]) for part in parts if len(part) > 2]
    if len(samples) < 2 or any(np.ptp(sample) < 1e-12 for sample in samples):
        return math.nan
    return float(stats.alexandergovern(*samples).pvalue)


def _holm(p: Sequence[float]) -> list[float]:
    """Adjusted p, NaN for what was not tested."""
    made = [index for index, one in enumerate(p) if not math.isnan(one)]
    adjusted, most = list(p), 0.0
    for rank, index in enumerate(sorted(made, key=lambda at: p[at])):
        most = max(most, min(1.0, (len(made) - rank) * p[index]))
        adjusted[index] = most
    return adjusted


def depends(subgroups: Sequence[Subgroups]) -> Mapping[str, list[str]]:
    """Of each variable the networks whose advantage is shown to depend on it."""
    return {
        one.name: found
        for one in subgroups
        if (found := [test.network for test in one.tests if test.interaction < ALPHA])
    }
