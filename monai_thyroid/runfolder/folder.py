"""The run folder: where its files are, who may write, and the one writer of each."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path, canonical_hash, locked, read_json, remove_partial, write_csv, write_json
from monai_thyroid.metrics import CALIBRATION_COLUMNS
from monai_thyroid.runfolder.reading import load_yaml, picture_path, read_history, read_run
from monai_thyroid.runfolder.schema import (
    AGREEMENT_COLUMNS,
    CASE_COLUMNS,
    HISTORY_COLUMNS,
    KEY_COLUMNS,
    MEASURE_COLUMNS,
    SCHEMA_VERSION,
    EvaluationRecord,
    HistoryRow,
    RunRecord,
)

__all__ = ["EvaluationFolder", "RunFolder", "dataset_path", "ensemble_path", "evaluation_path", "run_path"]

# run.json first: a folder that is cleared only in part must not look like a run.
_FILES = ("run.json", "config.yaml", "split.json", "history.csv", "model.pt", "last.pt")
_FOLDERS = ("evaluations", "ensembles", "figures", "tensorboard")
_PICTURES = ("predictions", "references", "images")
_BUILDING = ".building-"


def run_path(
    output_dir: str | Path, *, bundle: str, dataset: str, network: str, protocol_hash: str, seed: int, fold: int | None
) -> Path:
    """Where a run's folder is; another recipe or image size never collides with a finished run."""
    name = f"seed-{seed}" + ("" if fold is None else f"-fold-{fold}")
    return Path(output_dir) / bundle / dataset / f"{network}-{protocol_hash[:8]}" / name


class RunFolder:
    """A run's folder and its writer.

    Args:
        path: the folder.

    Attributes:
        record: content of run.json; empty before `begin` or `open`.
        writes: whether this process is the one to write; its users look, the methods do not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writes = True
        self.record = RunRecord()

    @property
    def model(self) -> Path:
        """The best weights on validation."""
        return self.path / "model.pt"

    @property
    def last(self) -> Path:
        """All that resuming needs."""
        return self.path / "last.pt"

    @property
    def figures(self) -> Path:
        """Curves and pictures of cases."""
        return self.path / "figures"

    def stage_file(self, stage: int) -> Path:
        """The best weights of a stage that is not the last, from which the next one started."""
        return self.path / f"stage-{stage}.pt"

    @property
    def started(self) -> bool:
        """Whether a run is there."""
        return (self.path / "run.json").is_file()

    def open(self) -> RunRecord:
        """Read run.json and remove what killed writers left.

        Raises:
            UserError: it cannot be used.
        """
        remove_partial(self.path)
        self.record = read_run(self.path)
        return self.record

    def begin(self, record: RunRecord, *, config: Mapping[str, Any], split: Mapping[str, Any]) -> None:
        """Replace what there is by a new run.

        Args:
            record: content of run.json.
            config: content of config.yaml, as executed.
            split: content of split.json.
        """
        remove_partial(self.path)
        self.clear()
        write_yaml(self.path / "config.yaml", {"schema_version": SCHEMA_VERSION, **config})
        write_json(self.path / "split.json", split)
        self.record = replace(record, schema_version=SCHEMA_VERSION)
        self.update()

    def decided(self) -> dict[str, Any]:
        """What config.yaml says by now."""
        content: dict[str, Any] = load_yaml(self.path / "config.yaml")
        return content

    def decide(self, **values: Any) -> None:
        """Write into config.yaml what a training has decided by measurement, and a resumed one keeps."""
        write_yaml(self.path / "config.yaml", {**self.decided(), **values})

    def update(self, **changes: Any) -> None:
        """Change run.json."""
        self.record = replace(self.record, **changes)
        RunRecord.from_json(self.record)  # nothing is written that would be refused when read
        write_json(self.path / "run.json", dict(self.record))

    def clear(self) -> None:
        """Remove what a run left in its folder, the folder aside."""
        for target in (*(self.path / name for name in (*_FILES, *_FOLDERS)), *self.path.glob("stage-*.pt")):
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)

    def history(self) -> list[HistoryRow]:
        """The rows of history.csv."""
        return read_history(self.path / "history.csv")

    def append(self, row: HistoryRow) -> None:
        """Append an epoch to history.csv; the header first where the file is new."""
        path = self.path / "history.csv"
        new = not path.exists() or path.stat().st_size == 0
        fields = ["" if value is None else str(value) for value in row.values()]
        with open(path, "a", encoding="utf-8", newline="") as file:
            file.write((",".join(HISTORY_COLUMNS) + "\n" if new else "") + ",".join(fields) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def trim(self, *, stage: int, epoch: int) -> None:
        """Cut off of history.csv what came after an epoch, half-written lines included."""
        path = self.path / "history.csv"
        if not path.is_file():
            return
        kept = [",".join(HISTORY_COLUMNS)]
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
            fields = line.split(",")
            with suppress(ValueError):
                if len(fields) == len(HISTORY_COLUMNS) and (int(fields[0]), int(fields[1])) <= (stage, epoch):
                    kept.append(line)
        with atomic_path(path) as temporary:
            temporary.write_text("\n".join(kept) + "\n", encoding="utf-8")


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write YAML in the given order, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")


def dataset_path(path: Path, given: str, recorded: str | None) -> str:
    """Where a run's dataset is: as the run's command gave it, or at the absolute path it had then.

    Args:
        path: the run folder, for the message.
        given: ``dataset_dir`` in the run's config.
        recorded: the absolute path in its run.json; None for the phantom.

    Raises:
        UserError: neither is there.
    """
    if recorded is None:
        return given
    for candidate in (recorded, given):
        if Path(candidate).is_dir():
            return candidate
    raise UserError(
        f"{path}: its dataset is neither at {recorded} nor at {given}; say where it is now with --dataset_dir DIR"
    )


def evaluation_path(
    run: Path, *, dataset: str, part: str, sites: Sequence[str], data_hash: str, own: tuple[str | None, str | None]
) -> Path:
    """Where an evaluation is kept: ``evaluations/<dataset>-<part>[-<site>]``.

    Folders of one name are told apart by the data's hash: the run's own data keep the plain name, and other data whose
    name is taken get the first digits of their hash behind it.

    Args:
        run: the run folder.
        dataset: name of the dataset that is scored.
        part: of it.
        sites: it was restricted to.
        data_hash: of it.
        own: name and hash of the data of the run; None where not known.
    """
    path = run / "evaluations" / "-".join([dataset, part, *sites])
    if own[1] is None or own == (dataset, data_hash):
        return path
    taken = dataset == own[0] and not sites
    with suppress(OSError, ValueError):
        taken = taken or read_json(path / "evaluation.json").get("data_hash") != data_hash
    return path.with_name(f"{path.name}-{data_hash[:8]}") if taken else path


def ensemble_path(run: Path, hashes: Sequence[str]) -> Path:
    """Where a run keeps the scores of an ensemble with others: ``ensembles/<8 digits>``.

    Args:
        run: the folder of its first member.
        hashes: SHA-256 of the weights of all members.
    """
    return run / "ensembles" / canonical_hash(sorted(hashes))[:8]


class EvaluationFolder:
    """An evaluation being written: in a folder of this process's own, which takes its place when it is complete.

    Args:
        path: its place.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.parent, wait=True):
            for left in path.parent.glob(f"{_BUILDING}*"):
                with suppress(UserError, FileNotFoundError), locked(left):  # its process is gone
                    shutil.rmtree(left)
            self.building = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=path.parent))
            self._stack.enter_context(locked(self.building))
        os.chmod(self.building, 0o777 & ~_umask())
        for name in _PICTURES:
            (self.building / name).mkdir()

    def picture(self, kind: str, case: str) -> Path:
        """Where a prediction, reference or image of a case is to be written."""
        return picture_path(self.building, kind, case)

    def finish(
        self,
        record: EvaluationRecord,
        *,
        rows: Sequence[Mapping[str, Any]],
        calibration: Sequence[Mapping[str, Any]] | None,
        measures: Sequence[Mapping[str, Any]] | None = None,
        agreements: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Write the tables, and put the folder in its place.

        Args:
            record: content of evaluation.json.
            rows: of cases.csv.
            calibration: rows of calibration.csv; None without probabilities.
            measures: rows of measures.csv; None without clinical measures.
            agreements: rows of agreement.csv; None of a single model.
        """
        write_csv(self.building / "cases.csv", CASE_COLUMNS, rows)
        if calibration is not None:
            write_csv(self.building / "calibration.csv", (*KEY_COLUMNS, *CALIBRATION_COLUMNS), calibration)
        if measures is not None:
            write_csv(self.building / "measures.csv", MEASURE_COLUMNS, measures)
        if agreements is not None:
            write_csv(self.building / "agreement.csv", AGREEMENT_COLUMNS, agreements)
        write_json(self.building / "evaluation.json", dict(replace(record, schema_version=SCHEMA_VERSION)))
        with locked(self.path.parent, wait=True):
            before = self.path.with_name(f"{_BUILDING}before-{os.getpid()}-{time.monotonic_ns()}")
            if self.path.is_dir():
                self.path.rename(before)
            self.building.rename(self.path)
            shutil.rmtree(before, ignore_errors=True)
        self._stack.close()

    def abandon(self) -> None:
        """Remove what was written, unless it is complete and in its place."""
        if self.building.is_dir():
            shutil.rmtree(self.building)
        self._stack.close()


def _umask() -> int:
    mask = os.umask(0o22)
    os.umask(mask)
    return mask
