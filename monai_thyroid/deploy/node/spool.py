"""Where a node keeps what it has taken: folders of files for what is to do, a table for what is done.

An instance is a file in ``incoming``; its results are a folder in ``outgoing``, which moves to ``sent`` when the PACS
has them, and is removed when it is in the table. Every step is a rename or a commit of the table, after what it rests
upon is on the disk, and every step may be done twice. So there is no moment at which a process, or the machine, could
end and lose or repeat anything: whoever opens the spool next finds each instance before or after a step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_thyroid.errors import UserError

__all__ = ["Counts", "Job", "Result", "Segmented", "Spool", "SpoolFullError", "key_of", "shown"]

_PARTIAL = ".partial-"
_ABOUT = "about.json"
_SUFFIX = ".dcm"
_RECENT = 200
_TABLE = """
CREATE TABLE IF NOT EXISTS done (
    name TEXT PRIMARY KEY, received REAL, segmented REAL, finished REAL, seconds REAL,
    images INTEGER, empty INTEGER, area_px REAL, area_mm2 REAL, agreement REAL
)
"""


class SpoolFullError(Exception):
    """No room for another instance: too many wait, or the disk is full."""


@dataclass(frozen=True, kw_only=True)
class Segmented:
    """What a model found in an instance.

    Attributes:
        datasets: the results, `pydicom.Dataset`, each with its own SOP Instance UID.
        images: how many frames.
        empty: in how many of them nothing was found.
        area_px: mean over the frames of the area found, pixels.
        area_mm2: likewise, mm², or None if the size of a pixel is unknown.
        agreement: mean over frames and classes of the ensemble's agreement; None for one model.
        review: whether somebody should look at it.
    """

    datasets: Sequence[Any]
    images: int = 1
    empty: int = 0
    area_px: float | None = None
    area_mm2: float | None = None
    agreement: float | None = None
    review: bool = False


@dataclass(frozen=True)
class Result:
    """A file to be sent.

    Attributes:
        path: where it lies.
        sop_class: UID.
        sop_instance: UID.
        transfer_syntax: UID.
    """

    path: Path
    sop_class: str
    sop_instance: str
    transfer_syntax: str


@dataclass(frozen=True)
class Job:
    """The results of an instance on their way.

    Attributes:
        name: of the instance and the model, also of the folder.
        results: to be sent.
        facts: the row of the table to be, but ``finished``.
    """

    name: str
    results: tuple[Result, ...]
    facts: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How far the work is. Means are None where there is nothing to average.

    Attributes:
        received: instances taken, each once.
        waiting: for the model.
        outgoing: segmented, and not yet with the PACS.
        sent: with the PACS, which has not yet confirmed to keep them.
        done: all of it.
        failed: in the folder ``failed``.
        seconds: of work, over all that are done.
        latency: seconds from taken to done, likewise.
        images: frames that are done.
        empty_rate: share of them in which nothing was found.
        area_px: mean over instances.
        area_mm2: likewise, of those with a known size of the pixels.
        agreement: likewise, of an ensemble.
        recent: the last four over the last 200 instances, by name: what drifts shows here.
    """

    received: int
    waiting: int
    outgoing: int
    sent: int
    done: int
    failed: int
    seconds: float
    latency: float
    images: int
    empty_rate: float | None
    area_px: float | None
    area_mm2: float | None
    agreement: float | None
    recent: dict[str, float | None]


def key_of(sop_instance: str) -> str:
    """The name of an instance in the spool and in the log: 24 hexadecimal digits, from which no UID can be read."""
    return hashlib.sha256(sop_instance.encode()).hexdigest()[:24]


def shown(name: str) -> str:
    """A key or a name as the log has it."""
    return name[:12]


class Spool:
    """A node's folder.

    Several threads may use it at once, and one worker in a process of its own.

    Args:
        folder: is made where it is not there, for this user alone.
        model: SHA-256 of weights and settings, see `ModelFacts.fingerprint`; may be set until anything is taken.
        max_queue: how many instances may be on their way.
        min_free: bytes that must stay free on the disk.

    Raises:
        UserError: the folder holds something else or cannot be written to.
    """

    def __init__(self, folder: str | Path, *, model: str = "", max_queue: int = 10_000, min_free: float = 0) -> None:
        self.folder, self.model = Path(folder).expanduser(), model
        self.max_queue, self.min_free = max_queue, min_free
        self.incoming, self.outgoing, self.sent, self.failed, self.review = (
            self.folder / name for name in ("incoming", "outgoing", "sent", "failed", "review")
        )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            strange = {entry.name for entry in self.folder.iterdir()} and not self.incoming.is_dir()
            if strange:
                raise UserError(f"--spool {self.folder}: holds files that are not of a node; give a new folder")
            for path in (self.incoming, self.outgoing, self.sent, self.failed, self.review):
                path.mkdir(exist_ok=True, mode=0o700)
            self._table = sqlite3.connect(self.folder / "done.sqlite", check_same_thread=False, timeout=60)
            with self._table:
                self._table.execute("PRAGMA journal_mode=WAL")
                self._table.execute("PRAGMA synchronous=FULL")
                self._table.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"--spool {self.folder}: {getattr(error, 'strerror', None) or error}") from error
        self._lock = threading.Lock()
        self._on_their_way, self._counted = 0, -float("inf")

    def close(self) -> None:
        """Close the table."""
        self._table.close()

    def recover(self) -> None:
        """Remove what an earlier process left half done. Nobody else may use the spool meanwhile."""
        for folder in (self.incoming, self.outgoing, self.sent, self.failed, self.review):
            for path in folder.glob(f"{_PARTIAL}*"):
                _remove(path)
        for folder in (self.outgoing, self.sent):
            for path in list(folder.iterdir()):
                if self.is_done(path.name):
                    _remove(path)

    # Taking

    def name_of(self, key: str) -> str:
        """The name of an instance with this model: what is done with other weights or settings is to be done anew."""
        return f"{key}-{self.model[:8]}"

    def knows(self, key: str) -> bool:
        """Whether an instance is on its way or done, so that it is not to be taken again."""
        # In the order in which it goes, so that it cannot slip past.
        return (self.incoming / f"{key}{_SUFFIX}").exists() or self._is_segmented(key)

    def has_failed(self, key: str) -> bool:
        """Whether an instance was put aside, so that it is not to be fetched again."""
        return (self.failed / f"{key}{_SUFFIX}").exists() or (self.failed / self.name_of(key)).exists()

    def room(self) -> None:
        """Make sure that there is room for another instance.

        Raises:
            SpoolFullError: there is none; says why.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._counted > 1 or self._on_their_way >= self.max_queue:
                self._on_their_way = sum(len(os.listdir(each)) for each in (self.incoming, self.outgoing, self.sent))
                self._counted = now
            count = self._on_their_way
        if count >= self.max_queue:
            raise SpoolFullError(f"the spool is full: {count} instances are on their way (--max-queue)")
        if self.min_free and shutil.disk_usage(self.folder).free < self.min_free:
            raise SpoolFullError(f"the disk is full: less than {self.min_free / 1e9:g} GB are free (--min-free)")

    def add(self, key: str, content: bytes) -> None:
        """Take an instance. When this returns it is on the disk.

        Raises:
            SpoolFullError: it cannot be written.
        """
        self.room()
        temporary = self.incoming / f"{_PARTIAL}{uuid.uuid4().hex}"
        try:
            _write(temporary, content)
            os.replace(temporary, self.incoming / f"{key}{_SUFFIX}")
            _sync(self.incoming)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            if is_full(error):
                raise SpoolFullError("the disk is full") from error
            raise
        with self._lock:
            self._on_their_way += 1
        for old in (key, self.name_of(key)):
            for end in (_SUFFIX, ".txt", ""):
                _remove(self.failed / f"{old}{end}")

    # Working

    def waiting(self) -> list[str]:
        """Keys of the instances to be worked off, in the order of their arrival."""
        return [Path(name).stem for name in _in_order(self.incoming) if name.endswith(_SUFFIX)]

    def path(self, key: str) -> Path:
        """Where an instance lies that waits."""
        return self.incoming / f"{key}{_SUFFIX}"

    def drop_segmented(self, key: str) -> bool:
        """Remove an instance that waits although its results by this model are there; returns whether they are.

        A process that ended between the two steps leaves that. Results by other weights do not count.
        """
        if there := self._is_segmented(key):
            self.path(key).unlink(missing_ok=True)
        return there

    def segmented(self, key: str, found: Segmented, *, seconds: float) -> None:
        """Keep the results of an instance, in whose place they come.

        Raises:
            OSError: they cannot be written; the instance still waits.
        """
        name = self.name_of(key)
        if not self._is_segmented(key):
            facts = {
                "received": self.path(key).stat().st_mtime,
                "segmented": time.time(),
                "seconds": seconds,
                **_facts(found),
            }
            temporary = self.outgoing / f"{_PARTIAL}{name}"
            _remove(temporary)
            try:
                temporary.mkdir()
                results = []
                for number, dataset in enumerate(found.datasets, 1):
                    file = f"{number}{_SUFFIX}"
                    _write(temporary / file, _encoded(dataset))
                    results.append([file, *(str(uid) for uid in _uids(dataset))])
                _write(temporary / _ABOUT, json.dumps({"results": results, "facts": facts}).encode())
                _sync(temporary)
                if found.review:
                    self._copy_for_review(temporary, name)
                os.rename(temporary, self.outgoing / name)
                _sync(self.outgoing)
            except OSError:
                _remove(temporary)
                raise
        self.path(key).unlink(missing_ok=True)
        (self.failed / f"{key}.txt").unlink(missing_ok=True)

    def fail(self, key: str, reason: str) -> None:
        """Put an instance into ``failed``, beside it why."""
        _write_whole(self.failed / f"{key}.txt", reason)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path(key), self.failed / f"{key}{_SUFFIX}")
        _sync(self.failed)

    # Delivering

    def to_send(self) -> list[str]:
        """Names of what is to be sent, the oldest first."""
        return [name for name in _in_order(self.outgoing) if not name.startswith(_PARTIAL)]

    def to_confirm(self) -> list[str]:
        """Names of what the PACS has and has not confirmed, the oldest first."""
        return _in_order(self.sent)

    def job(self, name: str) -> Job:
        """What is to be sent or confirmed, by its name."""
        folder = next((each for each in (self.outgoing / name, self.sent / name) if each.is_dir()), self.sent / name)
        content = json.loads((folder / _ABOUT).read_bytes())
        return Job(name, tuple(Result(folder / file, *uids) for file, *uids in content["results"]), content["facts"])

    def mark_sent(self, names: Iterable[str]) -> None:
        """Note that the PACS has taken these."""
        for name in names:
            os.rename(self.outgoing / name, self.sent / name)
        _sync(self.sent)
        _sync(self.outgoing)

    def send_again(self, names: Iterable[str]) -> None:
        """Note that the PACS does not have these after all."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.sent / name, self.outgoing / name)
        _sync(self.outgoing)
        _sync(self.sent)

    def finish(self, names: Sequence[str]) -> None:
        """Write down that these are done, then remove them."""
        now = time.time()
        rows = [{"name": name, "finished": now, **self.job(name).facts} for name in names if not self.is_done(name)]
        columns = "name received segmented finished seconds images empty area_px area_mm2 agreement".split()
        marks = ", ".join(f":{column}" for column in columns)
        try:
            with self._lock, self._table:
                self._table.executemany(f"INSERT OR IGNORE INTO done ({', '.join(columns)}) VALUES ({marks})", rows)
        except sqlite3.OperationalError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
        for name in names:
            _remove(self.outgoing / name)
            _remove(self.sent / name)

    def give_up(self, name: str, reason: str) -> None:
        """Put results that the PACS does not take into ``failed``, beside them why."""
        _write_whole(self.failed / f"{name}.txt", reason)
        _remove(self.failed / name)
        os.rename(self.outgoing / name, self.failed / name)
        _sync(self.failed)

    def is_done(self, name: str) -> bool:
        """Whether the table has it."""
        with self._lock:
            return self._table.execute("SELECT 1 FROM done WHERE name = ?", [name]).fetchone() is not None

    def counts(self) -> Counts:
        """How far the work is."""
        means = "avg(area_px), avg(area_mm2), avg(agreement)"
        with self._lock:
            done, images, empty, seconds, latency, *overall = self._table.execute(
                "SELECT count(*), coalesce(sum(images), 0), coalesce(sum(empty), 0), coalesce(sum(seconds), 0), "
                f"coalesce(sum(finished - received), 0), {means} FROM done"
            ).fetchone()
            late = self._table.execute(
                f"SELECT 1.0 * sum(empty) / nullif(sum(images), 0), {means} "
                f"FROM (SELECT * FROM done ORDER BY rowid DESC LIMIT {_RECENT})"
            ).fetchone()
        waiting, outgoing, sent = len(self.waiting()), len(self.to_send()), len(self.to_confirm())
        failed = sum(not name.startswith(_PARTIAL) and not name.endswith(".txt") for name in os.listdir(self.failed))
        names = ("empty_rate", "area_px", "area_mm2", "agreement")
        return Counts(
            received=waiting + outgoing + sent + failed + done,
            waiting=waiting,
            outgoing=outgoing,
            sent=sent,
            done=done,
            failed=failed,
            seconds=seconds,
            latency=latency,
            images=images,
            recent=dict(zip(names, late, strict=True)),
            **dict(zip(names, [empty / images if images else None, *overall], strict=True)),
        )

    def _is_segmented(self, key: str) -> bool:
        name = self.name_of(key)
        return (self.outgoing / name).exists() or (self.sent / name).exists() or self.is_done(name)

    def _copy_for_review(self, folder: Path, name: str) -> None:
        target, temporary = self.review / name, self.review / f"{_PARTIAL}{name}"
        if target.exists():
            return
        _remove(temporary)
        temporary.mkdir()
        for path in folder.glob(f"*{_SUFFIX}"):
            shutil.copy2(path, temporary / path.name)
        os.rename(temporary, target)


def is_full(error: BaseException) -> bool:
    """Whether an error means that a disk, or a user's part of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _facts(found: Segmented) -> dict[str, Any]:
    names = ("images", "empty", "area_px", "area_mm2", "agreement")
    return {name: getattr(found, name) for name in names}


def _encoded(dataset: Any) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _uids(dataset: Any) -> tuple[str, str, str]:
    return dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.file_meta.TransferSyntaxUID


def _in_order(folder: Path) -> list[str]:
    """The names in a folder by time, those that have just gone left out."""

    def dated() -> Iterator[tuple[int, str]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    yield entry.stat().st_mtime_ns, entry.name

    return [name for _, name in sorted(dated())]


def _write(path: Path, content: bytes) -> None:
    with open(path, "xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
    try:
        _write(temporary, f"{text}\n".encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
