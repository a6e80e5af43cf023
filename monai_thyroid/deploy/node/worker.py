"""The process that segments what waits in the spool, and the one that watches over it.

It is a process of its own because what it reads comes from anywhere: a decoder that crashes, hangs or eats the memory
takes the worker with it, not the node, and an instance that does so three times is put aside.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from monai_thyroid.deploy.node.spool import Segmented, Spool, is_full, shown
from monai_thyroid.errors import UserError, message_of
from monai_thyroid.files import locked, read_json, write_json

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

__all__ = ["Segment", "Worker", "quiet", "work"]

logger = logging.getLogger(__name__)


class Segment(Protocol):
    """Segments the instance in a file; raises `UserError` for one that it cannot segment.

    Attributes:
        model: SHA-256 of weights and settings, see `ModelFacts.fingerprint`.
    """

    model: str

    def __call__(self, path: Path) -> Segmented:
        """Segment one."""


_AT_WORK = "working.json"
_CHANCES = 3
_PAUSE = 0.05


def quiet() -> None:
    """Keep what libraries say of a patient's data out of the log."""
    import warnings

    from monai_thyroid.deploy.dicom import keep_patients_out_of_logs

    keep_patients_out_of_logs()
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom", "highdicom", "urllib3", "dicomweb_client", "py.warnings"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [logging.NullHandler()], False


def work(
    spool: Spool, segment: Callable[[Path], Segmented], *, stop: Callable[[], bool], pause: float = _PAUSE
) -> None:
    """Segment what waits until told to stop.

    Args:
        spool: its worker is this process alone.
        segment: what is done with each.
        stop: asked after each instance.
        pause: seconds between two looks at an empty spool.
    """
    while not stop():
        keys = spool.waiting()
        for key in keys:
            if stop():
                break
            work_off(spool, segment, key)
        if not keys:
            (spool.folder / _AT_WORK).unlink(missing_ok=True)
            time.sleep(pause)
    (spool.folder / _AT_WORK).unlink(missing_ok=True)


def work_off(spool: Spool, segment: Callable[[Path], Segmented], key: str) -> None:
    """Segment one instance: after this it is segmented, has failed, or waits for room on the disk."""
    at_work = spool.folder / _AT_WORK
    try:
        if spool.drop_segmented(key):
            return
        attempts = _attempts(at_work, key)
        if attempts >= _CHANCES:
            reason = f"reading or segmenting it ended the process {attempts} times, or took too long"
            logger.error("%s: failed: %s", shown(key), reason)
            spool.fail(key, reason)
            at_work.unlink(missing_ok=True)
            return
        write_json(at_work, {"key": key, "attempts": attempts + 1})
        started = time.perf_counter()
        found = segment(spool.path(key))
        seconds = time.perf_counter() - started
    except Exception as error:
        if is_full(error):
            _wait_for_the_disk(key, error)
        elif spool.path(key).exists():
            _failed(spool, key, error)
        return
    try:
        spool.segmented(key, found, seconds=seconds)
        logger.info("%s: segmented in %.2f s%s", shown(key), seconds, ", for review" if found.review else "")
    except (OSError, sqlite3.Error) as error:
        _wait_for_the_disk(key, error)
    except Exception as error:
        _failed(spool, key, error)


def _wait_for_the_disk(key: str, error: Exception) -> None:
    logger.error("%s: cannot be written (%s); trying again", shown(key), getattr(error, "strerror", error))
    time.sleep(1)


def _failed(spool: Spool, key: str, error: Exception) -> None:
    """What a library says of its own may quote the instance: that goes into the folder and not into the log."""
    known, cause = isinstance(error, UserError), error.__cause__
    path = str(spool.path(key))
    reason = told = str(error).removeprefix(f"{path}: ").replace(path, "the instance")
    if not known:
        told = f"{type(error).__name__}, see its file in failed"
    elif cause is not None and not isinstance(cause, UserError):
        told = f"{reason.partition(' (')[0]} ({type(cause).__name__}, see its file in failed)"
    logger.error("%s: failed: %s", shown(key), told)
    try:
        spool.fail(key, reason if known else f"{type(error).__name__}: {reason}")
    except OSError as full:
        logger.error("%s: cannot be moved to failed (%s)", shown(key), full.strerror)
        time.sleep(1)


def _attempts(at_work: Path, key: str) -> int:
    """How often this instance was begun by a process that did not come to its end."""
    try:
        content = read_json(at_work)
        return int(content["attempts"]) if content["key"] == key else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _main(
    make: Callable[[], Segment],
    folder: str,
    told: Connection,
    stopping: Any,
    level: int,
) -> None:
    """The worker's process."""
    os.umask(0o077)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the node tells it when to stop
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(message)s")
    quiet()
    try:
        segment = make()
        spool = Spool(folder, model=segment.model)
        # A worker of a node that was just killed may still be ending.
        with locked(spool.incoming, work="working", wait=True):
            told.send((segment.model, None))
            work(spool, segment, stop=stopping.is_set)
    except Exception as error:
        message = message_of(error)
        if message is None:
            logger.exception("the worker ended")
            message = f"{type(error).__name__}, see above"
        with suppress(OSError):
            told.send((None, message))
        raise SystemExit(1) from None


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


class Worker:
    """Keeps a process at work, and starts another one when it ends.

    Args:
        make: makes what segments, in the process; must be picklable.
        spool: where it works.
        patience: seconds that one instance may take.
    """

    def __init__(self, make: Callable[[], Segment], spool: Spool, *, patience: float = 600) -> None:
        self._make, self._spool, self._patience = make, spool, patience
        self._context = multiprocessing.get_context("spawn")
        self._stopping = self._context.Event()
        self._thread = threading.Thread(target=self._watch, name="worker", daemon=True)
        self._process: Any = None
        self._ready = 0.0

    def start(self) -> None:
        """Start it and wait until it is ready; the spool then knows its model.

        Raises:
            UserError: it cannot work, as for want of a sound model.
        """
        told = self._begin()
        message = self._answer(told)
        if message is not None:
            raise UserError(message)
        self._ready = time.time()
        self._thread.start()

    def stop(self, *, wait: float = 30) -> None:
        """Let it finish the instance it is at, and end."""
        self._stopping.set()
        if self._process is not None:
            self._process.join(wait)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
                (self._spool.folder / _AT_WORK).unlink(missing_ok=True)  # it was not the instance that ended it

    @property
    def pid(self) -> int:
        """Of its process."""
        return int(self._process.pid)

    def _begin(self) -> Connection:
        told, tells = self._context.Pipe(duplex=False)
        level = logging.getLogger().getEffectiveLevel()
        self._process = self._context.Process(
            target=_main,
            args=(self._make, str(self._spool.folder), tells, self._stopping, level),
            daemon=True,
        )
        self._process.start()
        tells.close()
        return told

    def _answer(self, told: Connection) -> str | None:
        try:
            model, message = told.recv()
            if message is None:
                self._spool.model = str(model)
            return None if message is None else str(message)
        except EOFError:
            self._process.join()
            return f"the worker's process ended at its start ({_how(self._process.exitcode)})"

    def _watch(self) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            self._process.join(0.5)
            if self._process.is_alive():
                self._end_what_hangs()
                continue
            if self._stopping.is_set():
                return
            logger.error("the worker ended (%s); starting another one", _how(self._process.exitcode))
            message = self._answer(self._begin())
            if message is None:
                pause, self._ready = 1.0, time.time()
            else:
                logger.error("the worker cannot start, trying again in %.0f s: %s", pause, message)
                self._stopping.wait(pause)
                pause = min(2 * pause, 60)

    def _end_what_hangs(self) -> None:
        try:
            age = time.time() - max(self._ready, (self._spool.folder / _AT_WORK).stat().st_mtime)
        except OSError:
            return
        if age > self._patience:
            logger.error("an instance takes longer than %.0f s; ending the worker", self._patience)
            self._process.kill()
            self._process.join()


def _how(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"status {code}"
