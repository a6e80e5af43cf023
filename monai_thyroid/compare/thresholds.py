"""Scores at the threshold that a run's validation part chooses, from the counts that its evaluations keep.

calibration.csv counts the pixels of each case by their probability, and the foreground among them. So the Dice at each
limit between two bins is exact, and no network is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from monai_thyroid.compare.contents import AtThreshold
from monai_thyroid.compare.reading import Run
from monai_thyroid.compare.study import Entry, Study
from monai_thyroid.metrics import METRICS, Counts, Tally, better
from monai_thyroid.metrics.registry import evaluate
from monai_thyroid.runfolder import CalibrationRow, CaseRow, Evaluation

__all__ = ["THRESHOLD_RULE", "at_threshold"]

THRESHOLD_RULE = (
    "At the threshold that validation chose: of the limits of the calibration's bins between 0.1 and 0.9 the one with "
    "the best mean Dice on the run's validation images that makes misses and false alarms together no more; taken if "
    "its gain exceeds its standard error over groups, else the configured threshold stays. The part of the report has "
    "no say in it."
)


def at_threshold(study: Study, entry: Entry) -> AtThreshold | None:
    """Mean Dice of an entry's cases at the configured threshold and at that which validation chose.

    None where it cannot be told: without scores and calibration of the validation part, of several classes (of which
    the likeliest is taken), of softmax, and of what was scored from masks. So it is where the run itself
    chose its postprocessing on validation: its scores are of masks that were made with that.
    """
    dice: dict[str, list[float]] = {}
    plain: dict[str, list[float]] = {}
    chosen = []
    for run, evaluation in zip(entry.runs, entry.evaluations, strict=True):
        threshold = _chosen(run, study.name)
        if threshold is None or run.record.threshold is None:
            return None
        rows = {row["case"]: row for row in evaluation.of_class(study.name)}
        at_it = {case: float(row["dice"]) for case, row in rows.items() if not row["error"]}
        if threshold != run.record.threshold:
            bins = evaluation.calibration(study.name)
            at_it = {str(row.case): _dice(_counts(row, threshold)) for row in bins}
        for case in study.cases:
            if case in rows:
                if case not in at_it:
                    return None
                dice.setdefault(case, []).append(at_it[case])
                plain.setdefault(case, []).append(float(rows[case]["dice"]))
        chosen.append(threshold)
    return AtThreshold(
        thresholds=chosen,
        dice_mean=float(np.mean([np.mean(one) for one in dice.values()])),
        configured=float(entry.runs[0].record.threshold or 0),
        configured_dice_mean=float(np.mean([np.mean(one) for one in plain.values()])),
    )


def _chosen(run: Run, name: str) -> float | None:
    record, validation = run.record, run.evaluation("validation")
    single = len(run.classes) == 1 or name == run.scored.record.whole
    if validation is None or run.from_masks or record.activation != "sigmoid" or not single or record.postprocessing:
        return None
    if validation.record.checkpoint_sha256 != run.scored.record.checkpoint_sha256:
        return None
    return _choose(validation, name, float(record.threshold or 0))


def _choose(validation: Evaluation, name: str, configured: float) -> float | None:
    rows = {row["case"]: row for row in validation.of_class(name) if not row["error"]}
    bins = {str(row.case): row for row in validation.calibration(name) if row.case in rows}
    if not rows or bins.keys() != rows.keys():
        return None
    limits = _limits(next(iter(bins.values())))
    tallies = [Tally([]) for _ in range(len(limits) + 1)]
    for case, row in rows.items():
        tallies[0].add([_scored(row)])
        for tally, limit in zip(tallies[1:], limits, strict=True):
            tally.add([_counts(bins[case], limit)])
    taken = better(tallies, [str(row["group"] or case) for case, row in rows.items()])
    return limits[taken - 1] if taken else configured


def _limits(row: CalibrationRow) -> Sequence[float]:
    bins = sum(name.startswith("count_") for name in row.sums)
    return [index / bins for index in range(1, bins) if 0.1 <= index / bins <= 0.9]


def _scored(row: CaseRow) -> Counts:
    return Counts(*(int(row[name]) for name in ("tp", "fp", "fn", "tn")))


def _counts(row: CalibrationRow, threshold: float) -> Counts:
    """Pixels whose probability is above a limit between two bins."""
    bins = sum(name.startswith("count_") for name in row.sums)
    first = round(threshold * bins)
    pixels = [row.sums[f"count_{index:02d}"] for index in range(bins)]
    object_ = [row.sums[f"reference_sum_{index:02d}"] for index in range(bins)]
    tp, marked = round(sum(object_[first:])), round(sum(pixels[first:]))
    fn = round(sum(object_)) - tp
    return Counts(tp, marked - tp, fn, round(sum(pixels)) - marked - fn)


def _dice(counts: Counts) -> float:
    return float(evaluate(METRICS["dice"], counts))
