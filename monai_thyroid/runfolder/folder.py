"""The run folder: its files, read and written; no network, no training."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path, read_csv, read_json
from monai_thyroid.machine import processor

__all__ = [
    "HISTORY_COLUMNS",
    "RUN_FILES",
    "append_history",
    "dataset_path",
    "locked",
    "machine",
    "read_history",
    "read_run",
    "trim_history",
    "versions",
    "write_yaml",
]

HISTORY_COLUMNS = ("stage", "epoch", "lr", "train_loss", "val_loss", "val_dice", "val_iou", "seconds")
"""Means over images; ``val_dice`` and ``val_iou`` are of the network grid, not of the original one."""

# run.json first: a folder that is cleared only in part must not look like a run.
RUN_FILES = ("run.json", "config.yaml", "split.json", "history.csv", "model.pt", "last.pt")


def write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    """Write YAML in the given order, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True), encoding="utf-8")


def read_run(path: Path) -> dict[str, Any]:
    """Read run.json.

    Raises:
        UserError: the folder is not a run folder.
    """
    if not (path / "run.json").is_file():
        raise UserError(f"{path}: is not a run folder (no run.json in it)")
    try:
        record = read_json(path / "run.json")
    except ValueError as error:
        raise UserError(f"{path / 'run.json'}: is not valid JSON ({error})") from error
    return dict(record)


def append_history(path: Path, row: Mapping[str, Any]) -> None:
    """Append one epoch to history.csv; the header first where the file is new."""
    new = not path.exists() or path.stat().st_size == 0
    fields = ["" if row[column] is None else str(row[column]) for column in HISTORY_COLUMNS]
    with open(path, "a", encoding="utf-8", newline="") as file:
        file.write((",".join(HISTORY_COLUMNS) + "\n" if new else "") + ",".join(fields) + "\n")
        file.flush()
        os.fsync(file.fileno())


def read_history(path: Path) -> list[dict[str, float | None]]:
    """Read history.csv; empty fields become None."""
    return [{key: float(value) if value else None for key, value in row.items()} for row in read_csv(path)]


def trim_history(path: Path, *, stage: int, epoch: int) -> None:
    """Cut off what came after an epoch, half-written lines included."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = lines[:1] if lines[:1] == [",".join(HISTORY_COLUMNS)] else [",".join(HISTORY_COLUMNS)]
    for line in lines[1:]:
        fields = line.split(",")
        if len(fields) == len(HISTORY_COLUMNS) and (int(fields[0]), int(fields[1])) <= (stage, epoch):
            kept.append(line)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(kept) + "\n", encoding="utf-8")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; the lock goes with the process, however that ends.

    Raises:
        UserError: another process holds it.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    _locks.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{path}: another process is training there; wait for it or stop it") from error
        yield
    finally:
        if descriptor in _locks:
            _locks.remove(descriptor)
            os.close(descriptor)


def _leave_locks() -> None:
    """In a forked process (a data loader's), so that it cannot hold its parent's lock beyond the parent's death."""
    while _locks:
        os.close(_locks.pop())


_locks: set[int] = set()
os.register_at_fork(after_in_child=_leave_locks)


def clear(path: Path) -> None:
    """Remove what a run left in its folder, the folder aside."""
    for target in (
        *(path / name for name in (*RUN_FILES, "evaluations", "figures", "tensorboard")),
        *path.glob("stage-*.pt"),
    ):
        if target.is_dir():
            shutil.rmtree(target)
        else:
            target.unlink(missing_ok=True)


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


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    names = {"monai_thyroid": "monai_thyroid", "monai": "monai", "torch": "torch", "ignite": "pytorch-ignite"}
    found = {"python": platform.python_version(), **{key: version(name) for key, name in names.items()}}
    found["numpy"] = importlib.import_module("numpy").__version__
    return found


def machine() -> dict[str, Any]:
    """What computes: processor, threads, GPU."""
    found: dict[str, Any] = {"system": platform.system(), "processor": processor(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
