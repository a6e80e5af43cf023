"""How much worse a run becomes on its own images when these become worse, by a stated strength."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.figures import draw_degraded
from monai_thyroid.evaluation.predictor import Predictor, device_of
from monai_thyroid.evaluation.scoring import CaseScores
from monai_thyroid.evaluation.trained import TrainedRun
from monai_thyroid.files import locked, write_csv
from monai_thyroid.images import Raster, read_labels, read_raster
from monai_thyroid.images.degrading import DEGRADATIONS, degrade
from monai_thyroid.metrics import METRICS
from monai_thyroid.metrics.registry import Counts, evaluate
from monai_thyroid.runfolder import (
    ROBUSTNESS_COLUMNS,
    Evaluation,
    read_evaluation,
    same_postprocessing,
)

__all__ = ["Robustness", "asked_strengths", "measure_robustness", "robustness_table"]

logger = logging.getLogger(__name__)

_AT_ONCE = 8  # images in memory
_COUNTS = ("tp", "fp", "fn", "tn")
_UNLIKE = 0.005
"""Mean difference of Dice on clean images beyond which the scores of a run are of something else."""


@dataclass(frozen=True)
class Robustness:
    """What `measure_robustness` found out about a run.

    Attributes:
        run: the run folder.
        path: robustness.csv.
        dice: by degradation and strength, from 0; mean over cases, of several classes over these too, without that of
            all together.
        unlike: mean difference of Dice on clean images to the run's own scores; 0 where every pixel is the same.
    """

    run: Path
    path: Path
    dice: dict[str, dict[float, float]]
    unlike: float


@dataclass(frozen=True)
class _Work:
    """A run, and what is to be done with it."""

    trained: TrainedRun
    evaluation: Evaluation
    items: dict[str, dict[str, Any]] = field(repr=False)


def asked_strengths(texts: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Degradations and their strengths from texts such as ``blur`` or ``gain=-6,6``; all of them from none.

    Raises:
        UserError: one does not exist, is asked for twice, or has no such strength; lists all.
    """
    found: dict[str, tuple[float, ...]] = {}
    problems = []
    for text in texts or DEGRADATIONS:
        name, equals, given = text.partition("=")
        if name not in DEGRADATIONS:
            problems.append(f"degradation {name!r}: choose of {', '.join(DEGRADATIONS)}")
            continue
        one = DEGRADATIONS[name]
        try:
            strengths = tuple(float(word) for word in given.split(",")) if equals else one.strengths
        except ValueError:
            problems.append(f"{text}: give numbers with commas between, such as {name}=1,2 ({one.unit})")
            continue
        if name in found:
            problems.append(f"{name}: is asked for twice; give all its strengths at once")
        problems += [problem for strength in strengths if (problem := one.problem(strength))]
        found[name] = tuple(sorted({*strengths} - {0.0}))
        if not found[name]:
            problems.append(f"{text}: 0 is always measured; give another strength")
    if problems:
        raise UserError(problems)
    return found


def measure_robustness(
    runs: Sequence[str | Path | TrainedRun],
    *,
    strengths: Mapping[str, Sequence[float]] | None = None,
    part: str = "test",
    dataset_dir: str | None = None,
    device: str = "auto",
    runtime: str = "torch",
) -> list[Robustness]:
    """Segment degraded images of each run's own data, score them on the original grid, and keep that with its scores.

    It writes ``robustness.csv`` into the run's evaluation of the part, and a figure of a case as it was seen. Strength
    0 is the run's own cases.csv. Random numbers come from a case's name, so that a second time gives the same.

    Args:
        runs: run folders whose part was scored before.
        strengths: by name of `DEGRADATIONS`; None for all of them by their own.
        part: of their data.
        dataset_dir: where the data are now, if they moved.
        device: see `Predictor`.
        runtime: likewise.

    Raises:
        UserError: a run without weights, or whose part was not scored, or by other weights or from other data; all
            that is wrong with any run, before anything is written.
    """
    asked = {name: tuple(values) for name, values in (strengths or asked_strengths([])).items()}
    device_of(device)
    works, problems = [], []
    for run in runs:
        try:
            trained = run if isinstance(run, TrainedRun) else TrainedRun(str(run))
            works.append(_work(trained, part, dataset_dir))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    found = [_measured(work, asked, device=device, runtime=runtime) for work in works]
    if problems := [one for one in found if isinstance(one, str)]:
        raise UserError(problems)
    return [_written(work, asked, one) for work, one in zip(works, found, strict=True) if not isinstance(one, str)]


def _work(trained: TrainedRun, part: str, dataset_dir: str | None) -> _Work:
    data = trained.datalist(dataset_dir)
    path = CaseScores(run=trained, data=data, part=part).folder
    if not path.is_dir():
        raise UserError(f"{path}: is not there; score the run with its evaluate.yaml and --part {part} first")
    try:
        evaluation = read_evaluation(path)
    except UserError as error:
        raise UserError([f"{path}: {problem}" for problem in error.problems]) from error
    scored = evaluation.record.checkpoint_sha256
    if scored and scored != trained.checkpoint_sha256:
        raise UserError(f"{path}: is of other weights than the run's; evaluate it again")
    if not same_postprocessing(trained.record, evaluation.record):
        raise UserError(f"{path}: is of other postprocessing than the run's; evaluate it again")
    items = {item["case"]: item for item in data.part(part)}
    cases = {str(row.case) for row in evaluation.rows if not row.error}
    if lacking := sorted(cases - items.keys()):
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise UserError(f"{path}: has the cases {', '.join(lacking[:3])}{more}, which {data.root} has not")
    return _Work(trained, evaluation, {case: items[case] for case in sorted(cases)})


@dataclass(frozen=True)
class _Found:
    """Rows of robustness.csv without strength 0, of the clean images, and of a case the pictures and masks."""

    rows: list[dict[str, Any]]
    unlike: float
    shown: dict[str, list[tuple[float, np.ndarray, np.ndarray]]]
    reference: np.ndarray


def _measured(work: _Work, asked: Mapping[str, Sequence[float]], *, device: str, runtime: str) -> _Found | str:
    """What was found, or why the clean scores are not the run's own."""
    trained, classes = work.trained, work.trained.classes
    items = list(work.items.values())
    predictor = Predictor(trained, device=device, runtime=runtime, samples=[read_raster(items[0]["image"])])
    keys = {(str(row.case), str(row.class_name)): row for row in work.evaluation.rows if not row.error}
    middle = _middle(work.evaluation)
    rows: list[dict[str, Any]] = []
    unlike: list[float] = []
    shown: dict[str, list[tuple[float, np.ndarray, np.ndarray]]] = {}
    seen = np.zeros((1, 1), np.uint8)
    for case, item in work.items.items():
        raster = read_raster(item["image"])
        clean = raster.normalised()
        reference = read_labels(item["label"], classes=len(classes))
        tried = [("", 0.0), *((name, strength) for name, values in asked.items() for strength in values)]
        for start in range(0, len(tried), _AT_ONCE):
            some = tried[start : start + _AT_ONCE]
            pictures = [degrade(clean, name, s, case=case, mask=reference > 0) if name else clean for name, s in some]
            masks = [one.mask for one in predictor.batch([Raster(picture, (0.0, 1.0)) for picture in pictures])]
            for (degradation, strength), picture, mask in zip(some, pictures, masks, strict=True):
                for name, true, marked in _classes(trained, reference, mask):
                    key = keys.get((case, name))
                    if key is None:  # of this class it could not be scored
                        continue
                    counts = Counts.of(true, marked)
                    if degradation:
                        rows.append(_row(key, degradation, strength, counts))
                    else:
                        unlike.append(abs(evaluate(METRICS["dice"], counts) - float(key["dice"])))
                if case == middle:
                    seen = reference
                    shown.setdefault(degradation, []).append((strength, picture, mask))
    difference = float(np.mean(unlike))
    if difference > _UNLIKE:
        return (
            f"{work.evaluation.path}: on these images as they are Dice differs by {difference:.3f} from what was "
            "scored (other images, or other arithmetic); evaluate the run again"
        )
    if difference:
        logger.info("%s: Dice of clean images differs by %.5f from what was scored", trained.path, difference)
    clean_one = shown.pop("")
    return _Found(rows, difference, {name: [*clean_one, *own] for name, own in shown.items()}, seen)


def _classes(trained: TrainedRun, reference: np.ndarray, mask: np.ndarray) -> Iterator[tuple[str, Any, Any]]:
    """Name, reference and prediction of each class, and of all together where these are scored, too."""
    for number, name in enumerate(trained.classes, 1):
        yield name, reference == number, mask == number
    if trained.whole is not None:
        yield trained.whole, reference > 0, mask > 0


def _middle(evaluation: Evaluation) -> str:
    """The case of median Dice among those with an object."""
    ranked = sorted((float(row["dice"]), str(row.case)) for row in evaluation.rows if not row.error and row["n_ref"])
    return ranked[len(ranked) // 2][1] if ranked else str(evaluation.rows[0].case)


def _row(key: Mapping[str, Any], degradation: str, strength: float, counts: Counts) -> dict[str, Any]:
    return {
        **{name: key[name] for name in ("dataset", "site", "part", "case", "group", "class")},
        **{"degradation": degradation, "strength": strength, "unit": DEGRADATIONS[degradation].unit},
        **{name: getattr(counts, name) for name in _COUNTS},
        "dice": float(evaluate(METRICS["dice"], counts)),
    }


def _written(work: _Work, asked: Mapping[str, Sequence[float]], found: _Found) -> Robustness:
    """Keep what was found, strength 0 from cases.csv before it."""
    own = [row for row in work.evaluation.rows if not row.error]
    clean = [
        {**_row(row, name, 0.0, Counts(*(row[column] for column in _COUNTS))), "dice": row["dice"]}
        for name in asked
        for row in own
    ]
    rows = [*clean, *found.rows]
    order = {name: place for place, name in enumerate(asked)}
    rows.sort(key=lambda row: (order[row["degradation"]], row["strength"], row["case"], row["class"]))
    path = work.evaluation.path / "robustness.csv"
    with locked(path.parent.parent, work="writing", wait=True):
        write_csv(path, ROBUSTNESS_COLUMNS, rows)
    figures = work.trained.path / "figures"
    figures.mkdir(exist_ok=True)
    draw_degraded(
        {f"{name} [{DEGRADATIONS[name].unit}]": shown for name, shown in found.shown.items()},
        figures / f"{work.evaluation.name}-robustness.png",
        reference=found.reference,
        classes=len(work.trained.classes),
    )
    means = _means(rows, whole=work.trained.whole)
    return Robustness(work.trained.path, path, means, found.unlike)


def _means(rows: Sequence[Mapping[str, Any]], *, whole: str | None) -> dict[str, dict[float, float]]:
    """Mean Dice by degradation and strength over cases and classes; all classes together are none beside the others."""
    dice: dict[str, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["class"] != whole:
            dice[row["degradation"]][row["strength"]].append(row["dice"])
    return {name: {s: float(np.mean(values)) for s, values in sorted(one.items())} for name, one in dice.items()}


def robustness_table(found: Sequence[Robustness]) -> str:
    """The means for people."""
    lines = []
    for one in found:
        lines.append(str(one.run))
        for name, means in one.dice.items():
            told = "  ".join(f"{'clean' if s == 0 else f'{s:g}'} {dice:.3f}" for s, dice in _from_clean(means))
            lines.append(f"  {name} [{DEGRADATIONS[name].unit}]: {told}")
    return "\n".join(lines)


def _from_clean(means: Mapping[float, float]) -> list[tuple[float, float]]:
    return sorted(means.items(), key=lambda pair: (pair[0] != 0, pair[0]))
