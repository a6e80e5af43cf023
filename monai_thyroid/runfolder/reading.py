"""Reading the files of a run folder: tolerant of what older runs lack, strict about nonsense; each file once."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.files import read_json
from monai_thyroid.metrics import METRICS
from monai_thyroid.metrics.registry import Counts, evaluate
from monai_thyroid.runfolder.hashes import labels_digest, references_hash
from monai_thyroid.runfolder.older import migrated
from monai_thyroid.runfolder.schema import (
    AgreementRow,
    CalibrationRow,
    CaseKey,
    CaseRow,
    EvaluationRecord,
    HistoryRow,
    MeasureRow,
    RobustnessRow,
    RunRecord,
    Score,
    as_number,
    range_problem,
    scores,
    version_of,
)

__all__ = [
    "Evaluation",
    "evaluation_records",
    "finished_epochs",
    "grouping_of",
    "load_yaml",
    "picture_path",
    "read_config",
    "read_evaluation",
    "read_evaluation_record",
    "read_history",
    "read_run",
    "read_split",
    "same_postprocessing",
]

_Row = TypeVar("_Row", bound=CaseKey)
_ROUNDING = 6e-4  # of scores that somebody rounded to three decimals


@dataclass(frozen=True)
class Evaluation:
    """One folder of ``evaluations/``.

    Attributes:
        path: the folder.
        dataset: that was scored.
        part: of it.
        rows: of cases.csv; a row whose ``error`` is filled has no scores.
        record: evaluation.json, everything None where there is none.
    """

    path: Path
    dataset: str
    part: str
    rows: list[CaseRow] = field(repr=False)
    record: EvaluationRecord = field(repr=False)

    @property
    def name(self) -> str:
        """Of the folder: ``<dataset>-<part>[-<site>]``."""
        return self.path.name

    def of_data(self, run: Mapping[str, Any]) -> bool:
        """Whether the data, split included, are those of a run's run.json."""
        return self.dataset == run["dataset"] and self.record.data_hash == run.get("data_hash")

    @property
    def classes(self) -> list[str]:
        """In the order of the rows."""
        return list(dict.fromkeys(row["class"] for row in self.rows))

    def of_class(self, name: str) -> list[CaseRow]:
        """The rows of a class."""
        return [row for row in self.rows if row.class_name == name]

    def picture(self, kind: str, case: str) -> Path:
        """Where the file of a case is: of ``"predictions"``, ``"references"`` or ``"images"``."""
        return picture_path(self.path, kind, case)

    def mask(self, kind: str, case: str, name: str) -> npt.NDArray[np.bool_]:
        """The pixels of a class in a prediction or reference, (height, width).

        Args:
            kind: ``"predictions"`` or ``"references"``.
            case: its name.
            name: of the class.

        Raises:
            OSError: the file is missing or no image.
        """
        labels = self.labels(kind, case)
        found: npt.NDArray[np.bool_] = labels > 0
        if name != self.record.whole:
            found = labels == self.classes.index(name) + 1
        return found

    def labels(self, kind: str, case: str) -> npt.NDArray[np.uint8]:
        """The class numbers of a prediction or reference, (height, width); see `mask`."""
        # One class is 0 and 255, several are numbers in the order of the classes.
        with Image.open(self.picture(kind, case)) as picture:
            if len(self.classes) > 1:
                return np.asarray(picture, dtype=np.uint8)
            return (np.asarray(picture.convert("L")) > 0).astype(np.uint8)

    def references_hash(self) -> str | None:
        """Of what it was scored against: as recorded, else from its pictures; None where some are missing."""
        if self.record.references_hash is not None:
            return self.record.references_hash
        try:
            return references_hash(
                {case: labels_digest(self.labels("references", case)) for case in {str(row.case) for row in self.rows}}
            )
        except OSError:
            return None

    def calibration(self, name: str) -> list[CalibrationRow]:
        """The rows of calibration.csv of a class; none where there is no such file.

        Raises:
            UserError: the file cannot be used.
        """
        path = self.path / "calibration.csv"
        rows = _case_rows(path, CalibrationRow, _read_sums) if path.is_file() else []
        return [row for row in rows if row.class_name == name]

    def measures(self) -> list[MeasureRow]:
        """The rows of measures.csv; none where there is no such file.

        Raises:
            UserError: the file cannot be used.
        """
        path = self.path / "measures.csv"
        return _case_rows(path, MeasureRow, lambda row, read, where: []) if path.is_file() else []

    def agreements(self) -> list[AgreementRow]:
        """The rows of agreement.csv; none where there is no such file, as a single model has none.

        Raises:
            UserError: the file cannot be used.
        """
        path = self.path / "agreement.csv"
        return _case_rows(path, AgreementRow, _read_agreement) if path.is_file() else []

    def robustness(self) -> list[RobustnessRow]:
        """The rows of robustness.csv; none where there is no such file.

        Raises:
            UserError: the file cannot be used.
        """
        path = self.path / "robustness.csv"
        return _case_rows(path, RobustnessRow, _read_degraded) if path.is_file() else []


def read_run(folder: Path) -> RunRecord:
    """Read run.json.

    Raises:
        UserError: the folder is not a run folder, or the file holds nonsense; all that was found.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise UserError(f"{folder}: is not a run folder (no run.json in it)")
    record = RunRecord.from_json(_json(path))
    if record.tuning is not None and (problem := _tuning_problem(record.tuning)):
        raise UserError(f"run.json: tuning {problem}")
    return record


def _tuning_problem(tuning: Mapping[str, Any]) -> str | None:
    """What is wrong with the record of how settings were chosen."""
    grid, tried, chosen = (tuning.get(name) for name in ("grid", "tried", "chosen"))
    epochs, seeds = tuning.get("epochs"), tuning.get("seeds")
    if not _objects(grid) or not all(isinstance(one.get("option"), str) for one in grid or []) or not grid:
        return f"must have a grid, a list of objects with an option each, got {grid!r}"
    if not isinstance(chosen, list) or len(chosen) != len(grid):
        return f"must have chosen, a list of {len(grid)} values, got {chosen!r}"
    if not tried or not _objects(tried):
        return f"must have tried, a list of objects, got {tried!r}"
    for one in tried or []:
        values, dice = one.get("values"), one.get("dice")
        if not isinstance(values, list) or len(values) != len(grid):
            return f"must have {len(grid)} values in each of tried, got {values!r}"
        if dice is not None and not (isinstance(dice, (int, float)) and 0 <= dice <= 1):
            return f"must have a dice of 0 to 1 or null in each of tried, got {dice!r}"
    if epochs is not None and (isinstance(epochs, bool) or not isinstance(epochs, int)):
        return f"must have epochs, a whole number or null, got {epochs!r}"
    if not isinstance(seeds, list) or not all(isinstance(seed, int) for seed in seeds):
        return f"must have seeds, a list of whole numbers, got {seeds!r}"
    return None


def _objects(found: Any) -> bool:
    return isinstance(found, list) and all(isinstance(one, Mapping) for one in found)


def evaluation_records(folder: Path) -> list[EvaluationRecord]:
    """Every evaluation.json of a run.

    Raises:
        UserError: one cannot be used.
    """
    return [
        EvaluationRecord.from_json(_json(path)) for path in sorted(folder.glob("evaluations/[!.]*/evaluation.json"))
    ]


def read_evaluation_record(folder: Path) -> EvaluationRecord:
    """Read evaluation.json of an evaluation, everything None where there is none.

    Raises:
        UserError: it cannot be used.
    """
    path = folder / "evaluation.json"
    return EvaluationRecord.from_json(_json(path)) if path.is_file() else EvaluationRecord()


def read_split(folder: Path) -> dict[str, Any]:
    """Read split.json.

    Raises:
        UserError: it is not there or is not a split.
    """
    content = _json(folder / "split.json")
    parts = content.get("parts") if isinstance(content, dict) else None
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise UserError(f"{folder / 'split.json'}: does not hold the parts of a split")
    return dict(content)


def load_yaml(path: Path) -> Any:
    """What a file says, by libyaml where it is there, which takes a tenth of the time."""
    return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.yaml, brought to the present schema.

    Raises:
        UserError: it is not there or cannot be read.
    """
    path = folder / "config.yaml"
    try:
        content = load_yaml(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not the configuration of a run")
    return migrated(content, version=version_of(content, path.name))


def read_history(path: Path) -> list[HistoryRow]:
    """Read history.csv.

    Raises:
        UserError: it is not there, has no epoch, or holds nonsense; all that was found.
    """
    if not path.is_file():
        raise UserError("history.csv is missing")
    rows, problems = [], []
    for number, line in enumerate(_table(path), 2):  # the header is line 1
        row, wrong = HistoryRow.from_text(line, f"line {number}")
        rows.append(row)
        problems += wrong
    if problems:
        raise UserError(problems)
    if not rows:
        raise UserError("history.csv has no epoch")
    return rows


def finished_epochs(path: Path) -> list[HistoryRow]:
    """The epochs in a history.csv that may be being written, or whose writer was killed: whole lines only."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    header, *lines = text.split("\n")[:-1] or [""]
    columns = header.split(",")
    rows = []
    for line in lines:
        fields = line.split(",")
        row, wrong = HistoryRow.from_text(dict(zip(columns, fields, strict=False)), "")
        if len(fields) == len(columns) and not wrong:
            rows.append(row)
    return rows


def read_evaluation(folder: Path) -> Evaluation:
    """Read the scores of an evaluation.

    Raises:
        UserError: a file is missing or holds nonsense; all that was found.
    """
    record = read_evaluation_record(folder)
    if not (folder / "cases.csv").is_file():
        raise UserError("cases.csv is missing")
    rows = _case_rows(folder / "cases.csv", CaseRow, _read_scores)
    if not rows:
        raise UserError("cases.csv has no case")
    problems = []
    counts = Counter((row.class_name, row.case) for row in rows)
    problems += [f"cases.csv has the case {case} more than once" for (_, case), count in counts.items() if count > 1]
    problems += [  # a run may be from elsewhere, and its pictures are shown
        f"cases.csv: the case {case} names files outside of the run folder"
        for case in dict.fromkeys(str(row.case) for row in rows)
        if Path(case).is_absolute() or ".." in Path(case).parts
    ]
    for name in dict.fromkeys(row.class_name for row in rows):
        of_class = [row for row in rows if row.class_name == name]
        if all(row.error for row in of_class):
            problems.append(f"no case of the class {name} could be scored ({of_class[0].error})")
    if problems:
        raise UserError(problems)
    return Evaluation(folder, str(record.dataset or rows[0].dataset), str(record.part or rows[0].part), rows, record)


def grouping_of(run: RunRecord, scored: Evaluation) -> str:
    """``known``, ``unknown`` or ``leaky``; where no file says, known if the cases have groups other than themselves."""
    grouped = any(row.group not in (None, "", row.case) for row in scored.rows)
    return run.grouping or scored.record.grouping or ("known" if grouped else "unknown")


def same_postprocessing(run: RunRecord, scored: EvaluationRecord) -> bool:
    """Whether the masks that were scored are those that the run gives now, as far as postprocessing goes."""
    settings = ("threshold", "fill_holes", "smallest", "largest_only")
    chosen, applied = run.postprocessing or {}, scored.postprocessing or {}
    return all((chosen.get(key) or None) == (applied.get(key) or None) for key in settings)


def picture_path(folder: Path, kind: str, case: str) -> Path:
    """Where an evaluation keeps a case's file: of ``"predictions"``, ``"references"`` or ``"images"``."""
    return folder / kind / f"{case}.{'jpg' if kind == 'images' else 'png'}"


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, or is not valid JSON ({error})") from error


def _table(path: Path) -> list[dict[str, str]]:
    """A CSV file's lines by column.

    Raises:
        UserError: it is no such file, or lines are longer or shorter than the header; all that was found.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        header, *lines = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path.name} cannot be read ({error})") from error
    problems = [f"{path.name} has the column {name} twice" for name, count in Counter(header).items() if count > 1]
    problems += [
        f"{path.name}: line {number} has {len(line)} values for {len(header)} columns"
        for number, line in enumerate(lines, 2)
        if line and len(line) != len(header)
    ]
    if problems:
        raise UserError(problems)
    return [dict(zip(header, line, strict=True)) for line in lines if line]


def _case_rows(
    path: Path, cls: type[_Row], read_values: Callable[[Mapping[str, str], _Row, str], list[str]]
) -> list[_Row]:
    table = _table(path)
    if table and (missing := [name for name in cls.needed() if name not in table[0]]):
        raise UserError(f"{path.name} lacks the columns {', '.join(missing)}")
    rows, problems = [], []
    for line in table:
        where = f"case {line['case']}"
        row, wrong = cls.from_text(line, where)
        problems += wrong + [f"{path.name}: {name} of {where} is empty" for name in CaseKey.needed() if not row[name]]
        row.group = row.group or row.case
        problems += read_values(line, row, where)
        rows.append(row)
    if problems:
        raise UserError(problems)
    return rows


def _read_scores(line: Mapping[str, str], row: CaseRow, where: str) -> list[str]:
    row.error = line.get("error", "")
    problems = []
    for name, score in scores().items():
        text = line.get(name)
        row.scores[name], problem = (None, None) if text is None or row.error else _score(text, score)
        if problem:
            problems.append(f"cases.csv: {name} of {where} {problem}")
    return problems or _contradictions(row, where)


def _contradictions(row: CaseRow, where: str) -> list[str]:
    """Scores that the row's own counts of pixels contradict; where a mask is empty, the policy decides."""
    tp, fp, fn, tn = (row.scores.get(name) for name in ("tp", "fp", "fn", "tn"))
    if tp is None or fp is None or fn is None or tn is None or (counts := Counts(tp, fp, fn, tn)).edge:
        return []
    problems = []
    for metric in METRICS.values():
        value = row.scores.get(metric.name)
        if metric.pooled and value is not None and abs(value - (expected := evaluate(metric, counts))) > _ROUNDING:
            problems.append(f"cases.csv: {metric.name} of {where} is {value:g}, but its counts give {expected:.4f}")
    return problems


def _score(text: str, score: Score) -> tuple[Any, str | None]:
    if text == "" and score.nan:
        return math.nan, None
    value, problem = as_number(text, score.kind)
    if problem is None and score.kind is not bool:
        if score.nan and math.isnan(value):
            return value, None
        problem = range_problem(value, low=0, high=score.high)
    return value, problem


def _read_agreement(line: Mapping[str, str], row: AgreementRow, where: str) -> list[str]:
    return [f"agreement.csv: agreement of {where} is empty"] if row.agreement is None else []


def _read_degraded(line: Mapping[str, str], row: RobustnessRow, where: str) -> list[str]:
    return [
        f"robustness.csv: {name} of {where} is empty"
        for name in ("degradation", "strength", "dice")
        if row[name] in (None, "")
    ]


def _read_sums(line: Mapping[str, str], row: CalibrationRow, where: str) -> list[str]:
    problems = []
    for name in line:
        if name not in CalibrationRow.columns():
            value, problem = as_number(line[name], float)
            if problem := problem or range_problem(value, low=0, high=math.inf):
                problems.append(f"calibration.csv: {name} of {where} {problem}")
            row.sums[name] = value
    return problems
