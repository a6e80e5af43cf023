"""Run folders, read without torch: which runs can be used, and which may be compared with each other."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, read_json
from monai_thyroid.metrics import METRICS, SCORE_COLUMNS, summarise

__all__ = ["Evaluation", "Run", "Unusable", "by_dataset", "comparability", "find_runs"]

_KEY_COLUMNS = ("dataset", "site", "part", "case", "group", "class")
_HISTORY_COLUMNS = ("stage", "epoch", "lr", "train_loss", "val_loss", "val_dice", "val_iou", "seconds")
_BOOLEANS = {"True": True, "False": False, "true": True, "false": False, "1": True, "0": False}
# What two runs of one race may differ in, and what has no influence on the result.
_OWN = set(
    "network seed fold output_dir bundle_root device num_workers resume overwrite mlflow imports networks trackers "
    "session initialize run finalize _meta_".split()
)


@dataclass(frozen=True)
class Evaluation:
    """One folder of ``evaluations/``.

    Attributes:
        path: the folder.
        dataset: that was scored.
        part: of it.
        rows: of cases.csv, numbers read; a row whose ``error`` is filled has no scores.
        record: evaluation.json, empty where there is none.
    """

    path: Path
    dataset: str
    part: str
    rows: list[dict[str, Any]] = field(repr=False)
    record: dict[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """``<dataset>-<part>[-<site>]``."""
        return self.path.name

    def of_data(self, run: Mapping[str, Any]) -> bool:
        """Whether the data, split included, are those of a run's run.json."""
        return self.dataset == run["dataset"] and self.record.get("data_hash") == run.get("data_hash")

    @property
    def classes(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(row["class"] for row in self.rows))

    def of_class(self, name: str) -> list[dict[str, Any]]:
        """The rows of a class."""
        return [row for row in self.rows if row["class"] == name]

    def calibration(self, name: str) -> list[dict[str, str]]:
        """The rows of calibration.csv of a class; none where there is no such file."""
        path = self.path / "calibration.csv"
        return [row for row in read_csv(path) if row.get("class") == name] if path.is_file() else []


@dataclass(frozen=True)
class Run:
    """A run folder that can be used.

    Attributes:
        path: the folder, absolute.
        record: run.json.
        history: rows of history.csv, empty fields None.
        evaluations: every one that can be read, by folder name.
        scored: the one that is compared.
        notes: what could not be read, though the run can be used.
    """

    path: Path
    record: dict[str, Any] = field(repr=False)
    history: list[dict[str, float | None]] = field(repr=False)
    evaluations: dict[str, Evaluation] = field(repr=False)
    scored: Evaluation = field(repr=False)
    notes: list[str] = field(repr=False)

    def evaluation(self, part: str) -> Evaluation | None:
        """The evaluation of a part of the run's own data, None where there is none."""
        return _own(self.evaluations, self.record, part)

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.record["network"])

    @property
    def seed(self) -> int:
        """Of weights, order and augmentation."""
        return int(self.record["seed"])

    @property
    def fold(self) -> int | None:
        """Of a cross-validation."""
        fold = self.record.get("fold")
        return None if fold is None else int(fold)

    @property
    def dataset(self) -> str:
        """It was trained on."""
        return str(self.record["dataset"])

    @property
    def classes(self) -> list[str]:
        """It marks."""
        return [str(name) for name in self.record["classes"]]

    @property
    def title(self) -> str:
        """Such as ``unet seed 0 fold 1``."""
        return f"{self.network} seed {self.seed}" + ("" if self.fold is None else f" fold {self.fold}")

    @property
    def best_validation(self) -> float | None:
        """Best validation Dice of an epoch, on the network's grid."""
        found = (row["val_dice"] for row in self.history)
        return max((value for value in found if value is not None and math.isfinite(value)), default=None)

    @property
    def grouping(self) -> str:
        """``known``, ``unknown`` or ``leaky``; unknown where no file says."""
        return str(self.record.get("grouping") or self.scored.record.get("grouping") or "unknown")

    @property
    def synthetic(self) -> bool:
        """Whether its images are computer-made."""
        return bool(self.record.get("synthetic", self.dataset == "phantom"))


@dataclass(frozen=True)
class Unusable:
    """A run that cannot be part of a report, and why."""

    path: str
    network: str
    seed: str
    fold: str
    reason: str


def find_runs(paths: Iterable[str | Path], *, part: str = "test") -> tuple[list[Run], list[Unusable]]:
    """Read every run folder at or below some paths.

    Args:
        paths: run folders, or folders above them.
        part: of each run's own dataset that is to be compared; a run without scores of it cannot be used.

    Returns:
        The usable runs, by dataset, network, seed and fold; and the others.

    Raises:
        UserError: a path is missing, or there is no run.json below it.
    """
    folders: dict[Path, None] = {}
    problems = []
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            problems.append(f"{path}: there is no such folder; give run folders or folders above them")
            continue
        found = [file.parent.resolve() for file in sorted(path.rglob("run.json"))]
        if not found:
            problems.append(f"{path}: no run in it or below it (no run.json); give the output_dir of trained runs")
        folders.update(dict.fromkeys(found))
    if problems:
        raise UserError(problems)

    runs, unusable = [], []
    for folder in folders:
        try:
            runs.append(_read_run(folder, part))
        except _UnusableError as error:
            unusable.append(
                Unusable(
                    path=str(folder),
                    network=str(error.record.get("network", "")),
                    seed=str(error.record.get("seed", "")),
                    fold="" if error.record.get("fold") is None else str(error.record["fold"]),
                    reason=str(error),
                )
            )
    runs.sort(key=lambda run: (run.dataset, run.network, run.seed, -1 if run.fold is None else run.fold, str(run.path)))
    unusable.sort(key=lambda one: one.path)
    return runs, unusable


def by_dataset(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by the dataset they were trained on."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.dataset].append(run)
    return dict(sorted(found.items()))


def comparability(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """What forbids to compare the runs of one dataset.

    Args:
        runs: of one dataset.

    Returns:
        What nothing can mend (other classes, one run twice, folds beside none), and what ``--force`` may override
        (other data, another protocol, other cases, another scoring policy). One paragraph each.
    """
    first = runs[0]
    fatal, forcible = [], []
    where = f"dataset {first.dataset}: "
    if len({tuple(run.classes) for run in runs}) > 1:
        listed = _listed(runs, lambda run: ", ".join(run.classes))
        fatal.append(f"{where}the runs mark different classes and cannot be compared.\n{listed}")
    if len({run.fold is None for run in runs}) > 1:
        listed = _listed(runs, lambda run: "no fold" if run.fold is None else f"fold {run.fold}")
        fatal.append(f"{where}some runs are folds of a cross-validation and some are not; give one kind.\n{listed}")
    same: dict[tuple, list[Run]] = defaultdict(list)
    for run in runs:
        same[run.network, run.seed, run.fold, run.record.get("protocol_hash")].append(run)
    for twice in same.values():
        if len(twice) > 1:
            listed = "\n".join(f"  {run.path}" for run in twice)
            fatal.append(f"{where}{twice[0].title} is there more than once; leave out all but one.\n{listed}")

    for fold in sorted({run.fold for run in runs}, key=lambda fold: -1 if fold is None else fold):
        of_fold = [run for run in runs if run.fold == fold]
        forcible += _hash_problem(of_fold, "data_hash", f"{where}the runs were made on different data or splits")
    forcible += _hash_problem(runs, "protocol_hash", f"{where}the runs were made by different protocols (recipes)")
    forcible += _case_problems(runs, where)
    policies = {repr(run.scored.record["policy"]) for run in runs if run.scored.record.get("policy")}
    if len(policies) > 1:
        forcible.append(f"{where}the runs were scored by different policies; evaluate them anew with one version.")
    return fatal, forcible


class _UnusableError(Exception):
    def __init__(self, reason: str, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.record = dict(record or {})


def _read_run(folder: Path, part: str) -> Run:
    try:
        record = read_json(folder / "run.json")
    except (ValueError, OSError) as error:
        raise _UnusableError(f"run.json cannot be read ({error})") from error
    if not isinstance(record, dict):
        raise _UnusableError("run.json does not hold the record of a run")
    if missing := [key for key in ("dataset", "network", "seed", "classes", "status") if record.get(key) is None]:
        raise _UnusableError(f"run.json lacks {', '.join(missing)}", record)
    if not isinstance(record["seed"], int) or not isinstance(record.get("fold"), (int, type(None))):
        raise _UnusableError("run.json: seed and fold must be whole numbers", record)
    if not isinstance(record["classes"], list) or not record["classes"]:
        raise _UnusableError("run.json: classes must be a list of names", record)
    status = record["status"]
    if status == "failed":
        raise _UnusableError(f"the run failed: {record.get('error') or 'no reason was recorded'}", record)
    if status != "done":
        raise _UnusableError(f"the run is not complete (status {status}); resume it with --resume true", record)

    history = _read_history(folder / "history.csv", record)
    evaluations, notes = {}, []
    for path in sorted((folder / "evaluations").glob("*")):
        if path.is_dir() and not path.name.startswith("."):
            try:
                evaluations[path.name] = _read_evaluation(path)
            except ValueError as error:
                notes.append(f"evaluation {path.name}: {error}")
    name = f"{record['dataset']}-{part}"
    own = _own(evaluations, record, part)
    if own is None:
        reason = next((note for note in notes if note.startswith(f"evaluation {name}: ")), None)
        there = f"there is {', '.join(evaluations)}" if evaluations else "there is none"
        raise _UnusableError(
            reason or f"no evaluation {name} ({there}); run the bundle's evaluate.yaml with --part {part}", record
        )
    name = own.name
    scored, current = own.record.get("checkpoint_sha256"), record.get("checkpoint_sha256")
    if scored and current and scored != current:
        raise _UnusableError(f"the scores in evaluations/{name} are of other weights than the run's; evaluate", record)
    if missing := [one for one in record["classes"] if one not in own.classes]:
        raise _UnusableError(f"evaluations/{name} has no scores of the class {', '.join(missing)}", record)
    data, scored_data = record.get("data_hash"), own.record.get("data_hash")
    if data and scored_data and data != scored_data:
        notes.append(f"evaluation {name} is of other data than the training's (data hash {str(scored_data)[:8]})")
    return Run(folder, record, history, evaluations, own, notes)


def _own(evaluations: Mapping[str, Evaluation], record: Mapping[str, Any], part: str) -> Evaluation | None:
    """The evaluation of a part of the run's own data."""
    named = evaluations.get(f"{record['dataset']}-{part}")
    if named or not record.get("data_hash"):
        return named
    # Where sites were chosen, they are in the folder's name.
    return next((one for one in evaluations.values() if one.part == part and one.of_data(record)), None)


def _read_history(path: Path, record: Mapping[str, Any]) -> list[dict[str, float | None]]:
    if not path.is_file():
        raise _UnusableError("history.csv is missing", record)
    try:
        rows = [
            {name: float(row[name]) if row.get(name) else None for name in _HISTORY_COLUMNS} for row in read_csv(path)
        ]
    except ValueError as error:
        raise _UnusableError(f"history.csv cannot be read ({error})", record) from error
    if not rows:
        raise _UnusableError("history.csv has no epoch", record)
    for row in rows:
        for name in ("train_loss", "val_loss"):
            value = row.get(name)
            if value is not None and not math.isfinite(value):
                epoch = "?" if row.get("epoch") is None else f"{row['epoch']:.0f}"
                raise _UnusableError(f"its {name} is {value} in epoch {epoch}: the training diverged", record)
    return rows


def _read_evaluation(path: Path) -> Evaluation:
    """Read a folder of scores.

    Raises:
        ValueError: a file is missing or cannot be used; says what.
    """
    record: dict[str, Any] = {}
    if (path / "evaluation.json").is_file():
        record = dict(read_json(path / "evaluation.json"))
    if not (path / "cases.csv").is_file():
        raise ValueError("cases.csv is missing")
    raw = read_csv(path / "cases.csv")
    if not raw:
        raise ValueError("cases.csv has no case")
    if missing := [name for name in (*_KEY_COLUMNS, *SCORE_COLUMNS, "error") if name not in raw[0]]:
        raise ValueError(f"cases.csv lacks the columns {', '.join(missing)}")
    rows = [_read_row(row) for row in raw]
    for name in dict.fromkeys(row["class"] for row in rows):
        of_class = [row for row in rows if row["class"] == name]
        twice = [case for case, count in Counter(row["case"] for row in of_class).items() if count > 1]
        if twice:
            raise ValueError(f"cases.csv has the case {twice[0]} more than once")
        summarise(of_class)
        if all(row["error"] for row in of_class):
            raise ValueError(f"no case of the class {name} could be scored ({of_class[0]['error']})")
    first = raw[0]
    return Evaluation(
        path, str(record.get("dataset") or first["dataset"]), str(record.get("part") or first["part"]), rows, record
    )


def _read_row(row: Mapping[str, str]) -> dict[str, Any]:
    read: dict[str, Any] = dict(row)
    if row["error"]:
        return read
    for name in SCORE_COLUMNS:
        value = row[name]
        if name in ("ref_empty", "pred_empty"):
            read[name] = _BOOLEANS.get(value, value)
        elif value == "":
            read[name] = math.nan
        else:
            try:
                read[name] = float(value) if name in METRICS or name.startswith("spacing") else int(float(value))
            except ValueError as error:
                raise ValueError(f"{name} of case {row['case']} must be a number, got {value!r}") from error
    return read


def _hash_problem(runs: Sequence[Run], key: str, sentence: str) -> list[str]:
    hashes = [run.record.get(key) for run in runs]
    if len(set(hashes)) <= 1:
        return []
    listed = _listed(runs, lambda run: f"{key} {str(run.record.get(key))[:8]}")
    # Of each further hash, the first run that has it beside the first run.
    others = {run.record.get(key): run for run in reversed(runs) if run.record.get(key) != hashes[0]}
    told = [_settings(runs[0], run, key) for run in sorted(others.values(), key=lambda run: str(run.path))]
    return ["\n".join([f"{sentence}, so their scores cannot be compared.", listed, *told])]


def _settings(first: Run, second: Run, key: str) -> str:
    """Which settings differ, from both config.yaml."""
    import yaml

    configs = []
    for run in (first, second):
        path = run.path / "config.yaml"
        try:
            configs.append(dict(yaml.safe_load(path.read_text(encoding="utf-8"))))
        except (OSError, TypeError, ValueError, yaml.YAMLError):
            return f"  {path} cannot be read, so which settings differ is not known."
    differing = []
    for name in sorted({*configs[0], *configs[1]} - _OWN):
        values = [config.get(name) for config in configs]
        if values[0] == values[1]:
            continue
        if any(isinstance(value, dict) or (isinstance(value, list) and len(str(value)) > 60) for value in values):
            differing.append(f"{name} (a section of the config)")
        else:
            differing.append(f"{name} ({values[0]} / {values[1]})")
    told = ", ".join(differing) or "none in config.yaml: the files of the dataset themselves, or its version"
    names = " / ".join(f"{run.title} of {str(run.record.get(key))[:8]}" for run in (first, second))
    return f"  settings that differ, {names}: {told}"


def _case_problems(runs: Sequence[Run], where: str) -> list[str]:
    problems = []
    folds: dict[int | None, list[Run]] = defaultdict(list)
    for run in runs:
        folds[run.fold].append(run)
    for of_fold in folds.values():
        first = of_fold[0]
        for name in first.classes:
            expected = {row["case"]: row for row in first.scored.of_class(name)}
            for run in of_fold[1:]:
                rows = {row["case"]: row for row in run.scored.of_class(name)}
                both = f"{first.title} ({first.path}) and {run.title} ({run.path})"
                missing, more = sorted(set(expected) - set(rows)), sorted(set(rows) - set(expected))
                if missing or more:
                    told = [
                        f"{len(cases)} only in {one.title} ({_some(cases)})"
                        for one, cases in ((first, missing), (run, more))
                        if cases
                    ]
                    problems.append(f"{where}{both} were scored on different cases: {'; '.join(told)}.")
                shared = [case for case in expected if case in rows]
                if other := [case for case in shared if _other_reference(expected[case], rows[case])]:
                    problems.append(
                        f"{where}{both} were scored against different references or groups in {len(other)} of "
                        f"{len(shared)} cases of the same name ({_some(other)})."
                    )
    return list(dict.fromkeys(problems))


def _other_reference(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether what does not depend on the prediction differs."""
    if first["error"] or second["error"]:
        return False
    told = [
        (row["group"], row["tp"] + row["fn"], row["tp"] + row["fp"] + row["fn"] + row["tn"], row["n_ref"])
        for row in (first, second)
    ]
    return told[0] != told[1]


def _some(cases: Sequence[str], most: int = 5) -> str:
    return ", ".join(cases[:most]) + (f" and {len(cases) - most} more" if len(cases) > most else "")


def _listed(runs: Sequence[Run], value: Any) -> str:
    """Runs by what distinguishes them, a line each."""
    ordered = sorted(runs, key=lambda run: str(value(run)))
    lines = []
    for told, members in itertools.groupby(ordered, key=lambda run: str(value(run))):
        lines += [f"  {told}: {run.title} ({run.path})" for run in members]
    return "\n".join(lines)
