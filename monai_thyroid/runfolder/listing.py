"""Many run folders at a glance: what was trained on what, how far it is, and what it reached. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from monai_thyroid.errors import UserError
from monai_thyroid.files import is_locked
from monai_thyroid.metrics import summarise
from monai_thyroid.runfolder.places import RunFiles, run_files
from monai_thyroid.runfolder.reading import (
    finished_epochs,
    read_config,
    read_evaluation,
    read_evaluation_record,
    read_run,
    same_postprocessing,
)
from monai_thyroid.runfolder.schema import EvaluationRecord, RunRecord

__all__ = ["Listed", "Order", "list_runs", "runs_table", "sorted_runs"]

Order = Literal["data", "dice", "date"]


@dataclass(frozen=True)
class Listed:
    """A run folder or packed bundle in a list; None is not known.

    Attributes:
        path: the folder, absolute.
        kind: whether it is a run folder, a packed bundle, or one of several members.
        members: how many of an ensemble.
        network: its name.
        dataset: that it was trained on.
        bundle: by which it was trained.
        seed: of weights, order and augmentation.
        fold: of a cross-validation.
        status: as in run.json, or ``"broken"`` where that cannot be used.
        epoch: trained so far, over all stages.
        epochs: the most that it will train.
        dice: mean of the test part, on the original grid; of several classes their mean.
        misses: objects of which not a pixel was found there, over all classes.
        validation: best mean Dice of an epoch on the validation part, on the network's grid.
        images_per_second: trained.
        started: date and time, ISO 8601.
        note: what is wrong, or must be known of the figures; empty if nothing.
    """

    path: str
    kind: Literal["run", "packed", "ensemble"] = "run"
    members: int | None = None
    network: str | None = None
    dataset: str | None = None
    bundle: str | None = None
    seed: int | None = None
    fold: int | None = None
    status: str = "broken"
    epoch: int | None = None
    epochs: int | None = None
    dice: float | None = None
    misses: int | None = None
    validation: float | None = None
    images_per_second: float | None = None
    started: str | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON, without NaN."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def told(self) -> str:
        """The status in words: how far a run is that is not done, and what a packed bundle is."""
        if self.kind == "packed" and self.status == "done":
            return "packed"
        if self.kind == "ensemble":
            return f"packed, {self.members} members"
        far = "" if self.status in ("done", "broken") or self.epoch is None else f" {self.epoch}"
        return f"{self.status}{far}" + (f"/{self.epochs}" if far and self.epochs else "")


def list_runs(paths: Iterable[str | Path]) -> list[Listed]:
    """Find every run folder and packed bundle at or below some folders, as `sorted_runs` sorts them by data.

    A run that cannot be read is listed with its reason. What is inside of a run folder or a packed bundle is not
    listed for itself, and hidden folders are not looked into.

    Raises:
        UserError: a path is no folder, or there is nothing at or below it; all that was found.
    """
    found: dict[str, Listed] = {}
    problems = []
    for given in paths:
        path = Path(given).expanduser()
        if not path.is_dir():
            problems.append(f"{given}: there is no such folder; give run folders or folders above them")
            continue
        count = 0
        for one in _found(path):
            count += 1
            found.setdefault(os.path.realpath(one.path), one)
        if not count:
            problems.append(f"{given}: no run in it or below it (no run.json); give the output_dir of trained runs")
    if problems:
        raise UserError(problems)
    return sorted_runs(found.values())


def sorted_runs(runs: Iterable[Listed], by: Order = "data") -> list[Listed]:
    """Sort: by dataset, network, fold and seed; by Dice, the best first; or by date, the newest first.

    What has none comes after the others, and broken runs come last.
    """

    def of_data(one: Listed) -> tuple:
        numbers = (-1 if number is None else number for number in (one.fold, one.seed))
        return (one.status == "broken", one.dataset or "", one.network or "", *numbers, one.path)

    ordered = sorted(runs, key=of_data)
    if by == "dice":
        ordered.sort(key=lambda one: math.inf if one.dice is None else -one.dice)
    elif by == "date":
        ordered.sort(key=lambda one: one.started or "", reverse=True)
    return ordered


def runs_table(runs: Sequence[Listed], *, start: str | Path | None = None) -> str:
    """The list as text: a line a run, then a line for each note.

    Args:
        runs: in the order of the lines.
        start: the folder that paths are shown from; where it does not hold them, they are absolute.
    """
    rows: list[tuple[str, ...]] = [
        ("network", "data", "seed", "fold", "status", "Dice", "misses", "val Dice", "images/s", "started", "path")
    ]
    for one in runs:
        rows.append(
            (
                *(_text(value) for value in (one.network, one.dataset, one.seed, one.fold)),
                one.told,
                *(_text(value, form) for value, form in ((one.dice, ".4f"), (one.misses, "d"))),
                *(_text(value, form) for value, form in ((one.validation, ".4f"), (one.images_per_second, ".1f"))),
                _text((one.started or "")[:16].replace("T", " ") or None),
                _from(start, one.path),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {2, 3, 5, 6, 7, 8}
    lines = [
        "  ".join(
            text.rjust(width) if number in right else text.ljust(width)
            for number, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *(one_line(f"{_from(start, one.path)}: {one.note}") for one in runs if one.note)])


def _text(value: Any, form: str = "") -> str:
    """A value in its column, which one that is odd must not make too wide for all."""
    text = "-" if value is None else one_line(format(value, form))
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"


def one_line(text: str) -> str:
    """A text on one line, without what is obeyed and not seen, for what a run holds may be from elsewhere.

    Ends of lines become spaces; control characters, marks that turn the direction of writing and what is no UTF-8 a
    question mark.
    """
    return "".join(char if char.isprintable() else " " if char.isspace() else "?" for char in text)


def _from(start: str | Path | None, path: str) -> str:
    if start is None:
        return one_line(path)
    shown = os.path.relpath(path, os.path.realpath(start))
    return one_line(path if shown.startswith(os.pardir) else shown)


def _found(top: Path) -> Iterator[Listed]:
    unreadable: list[OSError] = []
    for folder, folders, names in os.walk(top, onerror=unreadable.append):
        path = Path(folder)
        packed = "configs" in folders and (path / "configs" / "metadata.json").is_file()
        if "run.json" in names or packed:
            folders.clear()
            yield _listed(path)
        elif "history.csv" in names or {"config.yaml", "split.json"} <= set(names):
            folders.clear()
            yield _broken(path, "has no run.json: a training was starting or clearing it when it was stopped")
        else:
            folders[:] = sorted(name for name in folders if not name.startswith("."))
    for error in unreadable:
        yield _broken(Path(str(error.filename)), f"cannot be looked into ({error.strerror})")


def _broken(path: Path, note: str, **known: Any) -> Listed:
    return Listed(str(path.resolve()), note=note, **known)


def _listed(path: Path) -> Listed:
    try:
        files = run_files(path)
        record = read_run(files.facts)
    except UserError as error:
        return _broken(path, "; ".join(error.problems).removeprefix(f"{path}: ").removeprefix(f"{path}/"))
    kind: Literal["run", "packed", "ensemble"] = "ensemble" if files.members else "packed" if files.packed else "run"
    known: dict[str, Any] = {
        "kind": kind,
        "members": len(files.members) or None,
        **{name: record[name] for name in ("network", "dataset", "bundle", "seed", "fold", "started")},
        "images_per_second": record.images_per_second,
    }
    needed = [name for name in record.needed() if not (kind == "ensemble" and name == "seed")]
    if missing := [name for name in needed if record[name] in (None, [])]:
        return _broken(path, f"run.json lacks {', '.join(missing)}", **known)
    epochs = [] if files.packed else finished_epochs(files.facts / "history.csv")
    validated = [row.val_dice for row in epochs if row.val_dice is not None and math.isfinite(row.val_dice)]
    dice, misses, notes = _scores(files, record)
    if record.status == "failed":
        notes.insert(0, record.error or "failed, and no reason was recorded")
    if record.status == "running" and not is_locked(path):
        notes.insert(
            0, "no process of this machine works there: it was stopped (--resume true goes on), or is elsewhere"
        )
    return Listed(
        str(path.resolve()),
        **known,
        status=str(record.status),
        epoch=len(epochs) or (record.epochs if record.status == "done" else 0),
        epochs=record.epochs if record.status == "done" else _planned(files),
        dice=dice,
        misses=misses,
        validation=max(validated, default=None),
        note="; ".join(notes),
    )


def _planned(files: RunFiles) -> int | None:
    """The most epochs that a run trains, over all stages, by its config; None where that does not say."""
    try:
        config = read_config(files.facts)
    except UserError:
        return None
    found = []
    for part in config.values():
        trainer = part.get("trainer") if isinstance(part, Mapping) else None
        if isinstance(trainer, Mapping):
            value = trainer.get("max_epochs")
            found.append(config.get(value[1:]) if isinstance(value, str) and value.startswith("@") else value)
    whole = [one for one in found if isinstance(one, int)]
    return sum(whole) if whole and len(whole) == len(found) else None


def _scores(files: RunFiles, record: RunRecord) -> tuple[float | None, int | None, list[str]]:
    """Dice and misses of the test part of the run's own data, and what must be known of them."""
    notes: list[str] = []
    found: dict[str, EvaluationRecord] = {}
    for path in sorted(files.facts.glob("evaluations/[!.]*/")):
        try:
            found[path.name] = read_evaluation_record(path)
        except UserError as error:
            notes.append(f"evaluation {path.name}: {error}")
    own = (record.dataset, "test", record.data_hash)
    by_data = [name for name, one in found.items() if own[2] and (one.dataset, one.part, one.data_hash) == own]
    name = by_data[0] if by_data else f"{record.dataset}-test"
    if name not in found:
        dice = (record.test or {}).get("dice_mean")
        return (float(dice) if isinstance(dice, (int, float)) and math.isfinite(dice) else None), None, notes
    scored = found[name]
    weights = (scored.checkpoint_sha256, record.checkpoint_sha256)
    if all(weights) and len(set(weights)) > 1:
        return None, None, [*notes, f"evaluation {name} is of other weights than the run's; evaluate"]
    if not same_postprocessing(record, scored):
        return None, None, [*notes, f"evaluation {name} is of other postprocessing than the run's; evaluate"]
    # All classes together are none beside the others.
    by_class = {one: figures for one, figures in (scored.classes or {}).items() if one != scored.whole}
    figures = [one for one in by_class.values() if isinstance(one, Mapping)]
    if not figures or any(not isinstance(one.get(key), (int, float)) for one in figures for key in _FIGURES):
        try:
            evaluation = read_evaluation(files.facts / "evaluations" / name)
            figures = [summarise(evaluation.of_class(one)) for one in evaluation.classes if one != scored.whole]
        except (UserError, ValueError) as error:
            return None, None, [*notes, f"evaluation {name}: {error}"]
    return sum(one["dice_mean"] for one in figures) / len(figures), sum(one["n_misses"] for one in figures), notes


_FIGURES = ("dice_mean", "n_misses")

_WIDEST = 40
"""Characters of a column but the last."""
