# ruff: noqa: RUF009 (every `_key` is a `dataclasses.field`)
"""What the files of a run folder hold: one dataclass a record or row, which both reading and README are made from."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, TypeVar

from monai_thyroid.errors import UserError
from monai_thyroid.metrics import METRICS, SCORE_COLUMNS

__all__ = [
    "CASE_COLUMNS",
    "HISTORY_COLUMNS",
    "KEY_COLUMNS",
    "MEASURE_COLUMNS",
    "SCHEMA_VERSION",
    "CalibrationRow",
    "CaseRow",
    "EvaluationRecord",
    "HistoryRow",
    "MeasureRow",
    "Record",
    "RunRecord",
    "Score",
    "scores",
]

SCHEMA_VERSION = 2
"""Of what is written now. 1: without ``schema_version``, and with the package's earlier module names in config.yaml."""

_Self = TypeVar("_Self", bound="Record")


def _key(
    meaning: str,
    *,
    unit: str = "",
    low: float = -math.inf,
    high: float = math.inf,
    choices: Sequence[str] = (),
    nan: bool = False,
    name: str = "",
    needed: bool = False,
) -> Any:
    """A key of a record, or a column.

    Args:
        meaning: for README.
        unit: of a number.
        low: the least a number may be.
        high: the most.
        choices: the words a text may be.
        nan: whether a number may be NaN or infinite.
        name: in the file, where that is no name of Python's.
        needed: whether a report cannot be made without it.
    """
    metadata = {"meaning": meaning, "unit": unit, "low": low, "high": high, "choices": choices, "nan": nan}
    return field(default=None, metadata={**metadata, "name": name, "needed": needed})


class Record(Mapping[str, Any]):
    """A record or row of a file: attributes in code, and a read-only mapping by the names in the file.

    What a file lacks is None.
    """

    file: ClassVar[str]

    def __getitem__(self, name: str) -> Any:
        return getattr(self, _names(type(self))[name])

    def __iter__(self) -> Iterator[str]:
        return iter(_names(type(self)))

    def __len__(self) -> int:
        return len(_names(type(self)))

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        """Names in the file, in their order."""
        return tuple(_names(cls))

    @classmethod
    def needed(cls) -> tuple[str, ...]:
        """Names without which there is no report."""
        return tuple(name for name, attribute in _names(cls).items() if _field(cls, attribute).metadata["needed"])

    @classmethod
    def from_json(cls: type[_Self], content: Any) -> _Self:
        """Check the content of a JSON file; unknown keys are left out.

        Raises:
            UserError: it is no object, of a later version of the schema, or has values of a wrong kind; lists all.
        """
        if not isinstance(content, Mapping):
            raise UserError(f"{cls.file} does not hold an object of keys and values")
        version_of(content, cls.file)
        found, problems = {}, []
        for name, attribute in _names(cls).items():
            value = content.get(name)
            if _kinds(cls)[attribute] is int and isinstance(value, float) and value.is_integer():
                value = int(value)  # JSON's 5e9
            if problem := _problem(cls, attribute, value):
                problems.append(f"{cls.file}: {name} {problem}")
            found[attribute] = value
        if problems:
            raise UserError(problems)
        return cls(**found)

    @classmethod
    def from_text(cls: type[_Self], row: Mapping[str, str], where: str) -> tuple[_Self, list[str]]:
        """Read a line of a CSV file.

        Args:
            row: texts by column; empty and missing ones are None.
            where: the line, for the messages.

        Returns:
            The row and what is wrong with it.
        """
        found, problems = {}, []
        for name, attribute in _names(cls).items():
            kind = _kinds(cls)[attribute]
            value, problem = as_number(row[name], kind) if row.get(name) and kind is not str else (row.get(name), None)
            value = value if value != "" or kind is str else None
            if problem := problem or _problem(cls, attribute, value):
                problems.append(f"{cls.file}: {name} of {where} {problem}")
            found[attribute] = value
        return cls(**found), problems


def version_of(content: Mapping[str, Any], file: str) -> int:
    """The version of the schema that a file says it is of.

    Raises:
        UserError: it is none that this program knows.
    """
    version = content.get("schema_version") or 1
    if version not in range(1, SCHEMA_VERSION + 1):
        raise UserError(f"{file} is of schema_version {version!r}, this program knows 1 to {SCHEMA_VERSION}; update it")
    return int(version)


@cache
def _names(cls: type[Record]) -> dict[str, str]:
    """Attributes by their names in the file."""
    return {one.metadata["name"] or one.name: one.name for one in fields(cls) if one.metadata}  # type: ignore[arg-type]


def _field(cls: type[Record], attribute: str) -> Any:
    return cls.__dataclass_fields__[attribute]  # type: ignore[attr-defined]


@cache
def _kinds(cls: type[Record]) -> dict[str, Any]:
    """Types of attributes, without None."""
    found = {}
    for name, hint in typing.get_type_hints(cls).items():
        options = [one for one in typing.get_args(hint) if one is not type(None)]
        found[name] = (
            options[0] if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union else hint
        )
    return found


def as_number(text: str, kind: type) -> tuple[Any, str | None]:
    """Read a number or boolean from text; the value and what is wrong."""
    if kind is bool:
        words = {"true": True, "1": True, "false": False, "0": False}
        value = words.get(text.lower())
        return value, None if value is not None else f"must be true or false, got {text!r}"
    try:
        number = float(text)
    except ValueError:
        return None, f"must be a number, got {text!r}"
    if kind is int:
        if not math.isfinite(number) or number != int(number):
            return None, f"must be a whole number, got {text!r}"
        return int(number), None
    return number, None


def _problem(cls: type[Record], attribute: str, value: Any) -> str | None:
    """What is wrong with a value; None is never wrong."""
    if value is None:
        return None
    kind, about = _kinds(cls)[attribute], _field(cls, attribute).metadata
    base = typing.get_origin(kind) or kind
    if base is float and isinstance(value, int):
        value = float(value) if not isinstance(value, bool) else value
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    if not isinstance(value, base) or (base is not bool and isinstance(value, bool)):
        return f"must be {words.get(base, 'an object of keys and values')}, got {value!r}"
    if base is list and (part := typing.get_args(kind)) and not all(isinstance(one, part[0]) for one in value):
        return f"must be a list of {'texts' if part[0] is str else 'objects'}, got {value!r}"
    if about["choices"] and value not in about["choices"]:
        return f"must be one of {', '.join(about['choices'])}, got {value!r}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return range_problem(value, low=about["low"], high=about["high"], nan=about["nan"])
    return None


def range_problem(value: float, *, low: float, high: float, nan: bool = False) -> str | None:
    """What is wrong with a number."""
    if not math.isfinite(value):
        return None if nan else f"must be a finite number, got {value}"
    if not low <= value <= high:
        return f"must be {f'{low:g} to {high:g}' if high < math.inf else f'at least {low:g}'}, got {value}"
    return None


@dataclass
class RunRecord(Record):
    """Content of run.json."""

    file: ClassVar[str] = "run.json"

    schema_version: int | None = _key(f"version of these files' schema: {SCHEMA_VERSION}; left out: 1", low=1)
    bundle: str | None = _key("name of the bundle")
    dataset: str | None = _key("name of the dataset: that of its folder, or `phantom`", needed=True)
    dataset_dir: str | None = _key("absolute path of its folder; null for the phantom")
    synthetic: bool | None = _key("whether its images are computer-made; left out: whether `dataset` is `phantom`")
    grouping: str | None = _key(
        "`known` (no patient, video or scene is in two parts), `unknown` (every image counts by itself) or `leaky` (on "
        "request); left out: known if cases.csv has groups that are not the cases themselves",
        choices=("known", "unknown", "leaky"),
    )
    split: str | None = _key("how the parts came about, in words")
    warnings: list[str] | None = _key("what was noticed about the data")
    network: str | None = _key("name of the network, an entry of the report", needed=True)
    seed: int | None = _key("of weights, order and augmentation", low=0, needed=True)
    fold: int | None = _key("which fold of a cross-validation, from 0; null without", low=0)
    folds: int | None = _key("of how many", low=2)
    stage: int | None = _key("training stage of the best epoch, from 1", low=1)
    stages: list[dict] | None = _key("of each stage `stage epochs best_val_dice images training_seconds parent_sha256`")
    classes: list[str] | None = _key("names of the classes without the background", needed=True)
    whole: str | None = _key("name of all classes together, which are scored as one besides; null: they are not")
    activation: str | None = _key("`sigmoid` or `softmax`", choices=("sigmoid", "softmax"))
    threshold: float | None = _key("probability above which a pixel is foreground", low=0, high=1)
    postprocessing: dict | None = _key(
        "chosen on validation and applied to every mask that the run gives: `threshold` (null: as above) `fill_holes "
        "smallest` (share of the image) `largest_only`; besides `rule images`, and the scores there, "
        "`validation` and `validation_without` it; null: none"
    )
    data_hash: str | None = _key("of contents and split: runs that share it may be compared case by case")
    protocol_hash: str | None = _key("of the recipe, without network, seed, fold, paths and machine: the same race?")
    run_hash: str | None = _key("of all that determines the result: is the run complete and unchanged?")
    checkpoint_sha256: str | None = _key("SHA-256 of model.pt; null before the end")
    parent_sha256: str | None = _key("SHA-256 of the weights that training started from; null if it started anew")
    init_from: dict | None = _key("of such weights `path loaded replaced test_dice_before`")
    pretrained_on: list[str] | None = _key(
        "names of the data that these weights, or those they started from, had seen before this training; an empty "
        "list: none; null: not known"
    )
    scored_from: str | None = _key(
        "`masks`: masks that something else made were scored, so there are no weights and no history; null: the run's "
        "own weights",
        choices=("masks",),
    )
    tuning: dict | None = _key(
        "of a network whose settings `compare --tune` chose on validation: `grid` (`option values` each) `epochs` "
        "(null: as many as here) `seeds`; `tried`: of each setting its `values`, mean `dice` (null: it diverged) and "
        "`dice_of_seeds`; the values `chosen`"
    )
    versions: dict | None = _key("of Python and packages, by name")
    machine: dict | None = _key("`system processor threads`, and `gpu` where there is one")
    device: str | None = _key("such as `cpu` or `cuda:0`")
    precision: str | None = _key("such as `float32` or `bfloat16`")
    parameters: int | None = _key("weights of the network", low=0)
    multiply_adds: int | None = _key("of one image through the network", low=0)
    latency_ms: float | None = _key("of one image through the network", unit="ms", low=0)
    images_per_second: float | None = _key("trained, validation aside", unit="1/s", low=0)
    seconds: float | None = _key("of all epochs, validation included", unit="s", low=0)
    epochs: int | None = _key("trained, over all stages; left out: the rows of history.csv", low=0)
    best_epoch: int | None = _key("of its stage, from 1", low=0)
    started: str | None = _key("date and time, ISO 8601")
    status: str | None = _key("`running`, `done` or `failed`", choices=("running", "done", "failed"), needed=True)
    error: str | None = _key("why it failed; null otherwise")
    test: dict | None = _key("`dice_mean iou_foreground_mean n_cases` of the test part, and the Dice of each class")
    threshold_baseline: dict | None = _key("one intensity threshold: `threshold foreground train_dice test_dice`")


@dataclass
class EvaluationRecord(Record):
    """Content of evaluation.json."""

    file: ClassVar[str] = "evaluation.json"

    schema_version: int | None = _key("as in run.json", low=1)
    dataset: str | None = _key("that was scored; left out, as the whole file may be: that of cases.csv")
    dataset_dir: str | None = _key("absolute path of its folder; null for the phantom")
    part: str | None = _key("`train`, `validation`, `test` or `all`; left out: that of cases.csv")
    sites: list[str] | None = _key("where the dataset was restricted to some")
    split: str | None = _key("as in run.json")
    grouping: str | None = _key("as in run.json", choices=("known", "unknown", "leaky"))
    data_hash: str | None = _key("of the data that were scored; the run's own where it was scored on its own data")
    warnings: list[str] | None = _key("as in run.json")
    references_hash: str | None = _key(
        "of cases and pixels of the reference masks: where it agrees, scores may be compared case by case, whatever "
        "the models were trained on"
    )
    checkpoint_sha256: str | None = _key("SHA-256 of the weights that were scored; null of masks")
    threshold: float | None = _key("as in run.json", low=0, high=1)
    classes: dict | None = _key("of each class the figures of the whole part, all from cases.csv and calibration.csv")
    postprocessing: dict | None = _key("what was applied to the masks that were scored; null: nothing")
    classes_without_postprocessing: dict | None = _key("the figures of `classes` had nothing been applied")
    whole: str | None = _key("as in run.json; in cases.csv its rows come after those of the classes")
    confusion: dict | None = _key(
        "with `whole`: of the lesions (connected components of all classes) of each class how many were given which "
        "class, or `missed`; `nothing`: what was marked away from every lesion"
    )
    measures: dict | None = _key("of each clinical measure its agreement, from measures.csv")
    policy: dict | None = _key(
        "what empty masks and misses mean for each metric; runs of differing policies are not compared"
    )
    versions: dict | None = _key("as in run.json")
    machine: dict | None = _key("as in run.json")
    seconds: float | None = _key("of the scoring", unit="s", low=0)
    date: str | None = _key("ISO 8601")


@dataclass
class HistoryRow(Record):
    """An epoch: a line of history.csv. Means are over images."""

    file: ClassVar[str] = "history.csv"

    stage: int | None = _key("training stage, from 1", low=1)
    epoch: int | None = _key("of the stage, from 1", low=1)
    lr: float | None = _key("learning rate", low=0)
    train_loss: float | None = _key("mean over the images of the training part", nan=True)
    val_loss: float | None = _key("mean over those of validation; empty without a validation", nan=True)
    val_dice: float | None = _key("likewise, on the network's grid, not the original one", low=0, high=1, nan=True)
    val_iou: float | None = _key("likewise", low=0, high=1, nan=True)
    seconds: float | None = _key("of the epoch, validation included", unit="s", low=0)


HISTORY_COLUMNS = HistoryRow.columns()
"""Means over images; ``val_dice`` and ``val_iou`` are of the network grid, not of the original one."""


@dataclass
class CaseKey(Record):
    """What a line of the tables of an evaluation is about."""

    dataset: str | None = _key("that was scored", needed=True)
    site: str | None = _key("where the image is from, empty if unknown")
    part: str | None = _key("of the dataset", needed=True)
    case: str | None = _key(
        "name of the image, and of its files in `predictions/`, `references/`, `images/`", needed=True
    )
    group: str | None = _key("patient, video or scene: what is independent of the others; the case if unknown")
    class_name: str | None = _key("name of the class", name="class", needed=True)


KEY_COLUMNS = CaseKey.columns()


@dataclass
class CaseRow(CaseKey):
    """A line of cases.csv: the scores of one case and class on the original image grid.

    Attributes:
        scores: by column; None is not scored.
        error: why it could not be scored; empty if it could.
    """

    file: ClassVar[str] = "cases.csv"

    scores: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @classmethod
    def needed(cls) -> tuple[str, ...]:
        """Names without which there is no report."""
        return (*super().needed(), *(name for name, score in scores().items() if score.needed))

    def __getitem__(self, name: str) -> Any:
        if name == "error":
            return self.error
        return self.scores[name] if name in self.scores else super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter((*KEY_COLUMNS, *self.scores, "error"))

    def __len__(self) -> int:
        return len(KEY_COLUMNS) + len(self.scores) + 1


@dataclass(frozen=True)
class Score:
    """A column of scores in cases.csv."""

    meaning: str
    unit: str = ""
    kind: type = int
    high: float = math.inf
    nan: bool = False
    needed: bool = False


@cache
def scores() -> dict[str, Score]:
    """The columns of scores, by name."""
    found = {
        "tp": Score("foreground in reference and prediction", "pixels", needed=True),
        "fp": Score("foreground in the prediction only", "pixels", needed=True),
        "fn": Score("foreground in the reference only", "pixels", needed=True),
        "tn": Score("background in both", "pixels", needed=True),
        "n_ref": Score("objects (connected components) in the reference", needed=True),
        "n_pred": Score("objects in the prediction", needed=True),
        "n_matched": Score("objects of the reference that one of the prediction meets", needed=True),
        "ref_empty": Score("whether the reference has no foreground", kind=bool),
        "pred_empty": Score("whether the prediction has none", kind=bool),
        "height": Score("of the original image", "pixels"),
        "width": Score("likewise", "pixels"),
        "spacing_y": Score("height of a pixel; nan if unknown", "mm", kind=float, nan=True),
        "spacing_x": Score("width of a pixel; nan if unknown", "mm", kind=float, nan=True),
    }
    for name, metric in METRICS.items():
        unit = "mm; pixels where their size is unknown" if metric.unit else "0 to 1"
        found[name] = Score(metric.definition, unit, float, high=metric.limits[1])
    return {name: found[name] for name in SCORE_COLUMNS}


CASE_COLUMNS = (*KEY_COLUMNS, *SCORE_COLUMNS, "error")
"""Columns of cases.csv, the only source of every table and test in a report."""


@dataclass
class CalibrationRow(CaseKey):
    """A line of calibration.csv.

    Attributes:
        sums: by column, however many bins there are.
    """

    file: ClassVar[str] = "calibration.csv"

    sums: dict[str, float] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.sums[name] if name in self.sums else super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        return iter((*KEY_COLUMNS, *self.sums))

    def __len__(self) -> int:
        return len(KEY_COLUMNS) + len(self.sums)


@dataclass
class MeasureRow(CaseKey):
    """A line of measures.csv; a difference is predicted less reference."""

    file: ClassVar[str] = "measures.csv"

    measure: str | None = _key("name of the clinical measure")
    unit: str | None = _key("of the next four columns")
    reference: float | None = _key("the dataset's own figure, else that of the reference mask")
    predicted: float | None = _key("of the predicted mask")
    difference: float | None = _key("predicted less reference")
    absolute_difference: float | None = _key("without its sign", low=0)
    error: str | None = _key("why there is no difference; empty otherwise")


MEASURE_COLUMNS = MeasureRow.columns()
