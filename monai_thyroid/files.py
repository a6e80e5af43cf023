"""Writing files so that a reader sees the old content or the new, never half of it, and one process at a time."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from monai_thyroid.errors import UserError

__all__ = [
    "atomic_path",
    "canonical_hash",
    "in_folder",
    "is_locked",
    "locked",
    "own_path",
    "read_csv",
    "read_json",
    "remove_partial",
    "sha256_file",
    "with_made_part",
    "write_csv",
    "write_json",
]

_PARTIAL = ".partial-"


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside ``path`` to write to; it takes the place of ``path`` when the block ends well.

    A process that dies inside the block leaves ``path`` as it was. The suffix is kept, because some writers choose
    the format by it.

    Args:
        path: the file to (re)place; its folder must exist.
    """
    path = Path(path)
    temporary = path.with_name(f"{_PARTIAL}{os.getpid()}-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename is None or Path(os.fsdecode(error.filename)) == temporary:
            error.filename, error.filename2 = str(path), None  # the name the user knows
        raise
    finally:
        with suppress(OSError):  # not there, or on a disk that has become read-only
            temporary.unlink()


def in_folder(option: str, path: str | os.PathLike[str]) -> Path:
    """A file's path, whose folder must exist.

    Raises:
        UserError: it does not; names the option that said so.
    """
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise UserError(f"{option} {path}: no such folder as {path.parent}")
    return path


def own_path(option: str, path: str | os.PathLike[str], *, mark: str, what: str) -> Path:
    """Where a page may be written: a new file, or one that ends with a mark of the program's own.

    Args:
        option: that named the path, for the message.
        path: of the file.
        mark: what the program writes near the end of such a file.
        what: such a file is.

    Raises:
        UserError: its folder does not exist, or it is something else that is there already.
    """
    path = in_folder(option, path)
    if path.exists() or path.is_symlink():
        tail = b""
        if path.is_file():
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - 4096))
                tail = file.read()
        if mark.encode() not in tail:
            raise UserError(f"{option} {path}: is there and no {what}, so it is kept; take another name")
    return path


def with_made_part(text: str, made: str, *, start: str, end: str, where: str) -> str:
    """A text with what stands between two marks made anew; what people wrote around them is kept.

    Args:
        text: that has both marks once, in their order.
        made: what goes between them.
        start: the first mark.
        end: the second mark.
        where: the text is, for the message.

    Raises:
        UserError: it has not both marks once.
    """
    if (text.count(start), text.count(end)) != (1, 1) or text.index(start) > text.index(end):
        raise UserError(f"{where}: needs the lines {start} and {end} once each, and what is made goes between them")
    return f"{text[: text.index(start)]}{start}\n{made}\n{text[text.index(end) :]}"


def remove_partial(folder: str | os.PathLike[str]) -> None:
    """Remove what killed processes left of `atomic_path` in a folder that no other process writes to."""
    for path in Path(folder).glob(f"{_PARTIAL}*"):
        path.unlink()


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write strict JSON (no NaN: such a number must become ``None`` before), indented, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file written in UTF-8.

    Raises:
        ValueError: it is none, or nested deeper than any of ours.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def write_csv(path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows atomically; ``None`` becomes an empty field, a missing or unknown column is an error.

    Raises:
        KeyError: a row lacks one of ``columns``.
        ValueError: a row has a column that is not in ``columns``.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        if unknown := set(row) - set(columns):
            raise ValueError(f"unknown columns {sorted(unknown)}")
        writer.writerow([row[column] for column in columns])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """Read a CSV file with a header line; every value is a string."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def canonical_hash(content: Any) -> str:
    """SHA-256 of JSON-able content, independent of the order of keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def locked(path: str | os.PathLike[str], *, work: str = "training", wait: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder; the lock goes with the process, however that ends.

    Args:
        path: the folder.
        work: what is done there, for the message.
        wait: for another process to leave, instead of refusing.

    Raises:
        UserError: another process holds it.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    _locks.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise UserError(f"{path}: another process is {work} there; wait for it or stop it") from error
        yield
    finally:
        if descriptor in _locks:
            _locks.remove(descriptor)
            os.close(descriptor)


def is_locked(path: str | os.PathLike[str]) -> bool:
    """Whether a process of this machine holds a folder, see `locked`."""
    import fcntl

    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _leave_locks() -> None:
    """In a forked process (a data loader's), so that it cannot hold its parent's lock beyond the parent's death."""
    while _locks:
        os.close(_locks.pop())


_locks: set[int] = set()
os.register_at_fork(after_in_child=_leave_locks)
