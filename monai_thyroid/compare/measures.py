"""Clinical measures of the predictions beside those of the references: limits of agreement for each network."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from monai_thyroid.compare.contents import Mean, Measured, shortened
from monai_thyroid.compare.study import Analysis
from monai_thyroid.errors import UserError
from monai_thyroid.metrics import limits_of_agreement
from monai_thyroid.runfolder import MeasureRow

__all__ = ["agreement_points", "make_measured", "measure_rows"]


def measure_rows(analysis: Analysis, network: str) -> dict[str, list[MeasureRow]]:
    """Rows of measures.csv of a network's chosen weights, of the class and cases of the study, by measure.

    Raises:
        UserError: a file cannot be used.
    """
    kept = set(analysis.study.cases)
    found: dict[str, list[MeasureRow]] = defaultdict(list)
    for evaluation in analysis.entry(network).evaluations:
        for row in evaluation.measures():
            if row.class_name == analysis.study.name and row.case in kept and row.measure:
                found[row.measure].append(row)
    return dict(found)


def agreement_points(rows: list[MeasureRow]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Mean of reference and prediction, predicted less reference, and the group, of each row that has both."""
    both = [row for row in rows if row.reference is not None and row.predicted is not None]
    pairs = np.array([(row.reference, row.predicted) for row in both], dtype=np.float64).reshape(-1, 2)
    return pairs.mean(axis=1), pairs[:, 1] - pairs[:, 0], [str(row.group) for row in both]


def make_measured(analysis: Analysis) -> tuple[list[Measured], list[str]]:
    """How measures agree, by measure and network in the order of the report.

    Returns:
        The agreements; and of which networks measures are lacking that others have.
    """
    of: dict[str, dict[str, list[MeasureRow]]] = {}
    found, notes = [], []
    for name in analysis.order:
        try:
            of[name] = measure_rows(analysis, name)
        except UserError as error:
            notes.append(f"{name}: {shortened(error.problems)}")
    measures = list(dict.fromkeys(name for rows in of.values() for name in rows))
    for measure in measures:
        for network in of:
            rows = of[network].get(measure, [])
            _, differences, groups = agreement_points(rows)
            if not len(differences):
                failed = sum(row.reference is not None for row in rows)
                told = f", as none of {failed} predictions could be measured" if failed else ""
                notes.append(f"{network}: no {measure.replace('_', ' ')} to compare{told}.")
                continue
            limits = limits_of_agreement(list(differences), groups=groups)
            found.append(
                Measured(
                    network=network,
                    measure=measure.replace("_", " "),
                    unit=str(rows[0].unit or ""),
                    n_cases=limits.n,
                    n_groups=limits.n_groups,
                    n_failed=sum(row.reference is not None and row.predicted is None for row in rows),
                    n_unknown=sum(row.reference is None for row in rows),
                    difference=Mean(limits.mean, *limits.mean_interval),
                    sd=limits.sd,
                    low=Mean(limits.low, *limits.low_interval),
                    high=Mean(limits.high, *limits.high_interval),
                    absolute=float(np.abs(differences).mean()),
                )
            )
    return found, notes
