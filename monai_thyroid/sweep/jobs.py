"""One run of a comparison, and its execution: training, then scoring, each a process of its own."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from monai_thyroid.errors import UserError
from monai_thyroid.files import locked
from monai_thyroid.runfolder import RunFolder, evaluation_records, read_run, same_postprocessing

__all__ = ["EVALUATED", "PATIENCE", "TIED", "Job", "State", "execute", "run_process", "state_of"]

logger = logging.getLogger(__name__)

State = Literal["complete", "interrupted", "failed", "other settings", "new", "waits", "diverged"]

EVALUATED = ("test", "validation")
"""The parts every run is scored on: one to report, one to choose on."""

# A child dies with whoever started it, however that ends: SIGKILL loses nothing, since a run resumes exactly. As a
# program of its own, because code between fork and exec is not safe in a process with threads.
TIED = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"  # PR_SET_PDEATHSIG, SIGKILL
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
"""Python that becomes ``python ARGUMENTS`` where it is given the number of its parent process and these."""
PATIENCE = 60.0
"""Seconds for a stopped training to write itself down, and for a killed one to be gone."""


@dataclass(frozen=True)
class Job:
    """One run of a comparison: training, then scoring.

    Attributes:
        network: name in the bundle's menu.
        seed: of weights, order and augmentation.
        fold: None without folds.
        path: the run folder.
        state: what is in it; "failed" is a training that ended with an error of its own, "waits" one whose setting is
            not chosen yet, "diverged" a trial that did, which is its result.
        epochs: the most it trains, over all stages, unless it trains for a time.
        trained: epochs that it has behind it.
        log: what its processes say.
        train: arguments of Python that train or resume it.
        evaluate: arguments of Python that score it; ``--part PART`` is added.
        cwd: folder in which they are executed, which relative paths among them start from.
        setting: of a trial, what is tried, in words.
        parts: on which it is scored.
        hours: for which it trains instead; None for a number of epochs.
        added: a config that goes before these arguments' options, to be written where it is to be; None for none.
    """

    network: str
    seed: int
    fold: int | None
    path: Path
    state: State
    epochs: int
    trained: int
    log: Path
    train: tuple[str, ...]
    evaluate: tuple[str, ...]
    cwd: Path
    setting: str = ""
    parts: tuple[str, ...] = EVALUATED
    hours: float | None = None
    added: tuple[Path, dict[str, Any]] | None = None

    @property
    def name(self) -> str:
        """Such as ``"unet-seed-0-fold-1"``, of a trial with what is tried."""
        return f"{self.network}-{self.path.name}" + (f" ({self.setting})" if self.setting else "")

    def unscored(self) -> list[str]:
        """The parts on which the run's present weights have not been scored."""
        if not RunFolder(self.path).started:
            return list(self.parts)
        record = read_run(self.path)
        # Known by content: the folder's name may also hold sites.
        same = ("checkpoint_sha256", "data_hash")
        evaluations = evaluation_records(self.path)
        scored = {
            one.part
            for one in evaluations
            if all(one[key] == record[key] for key in same) and same_postprocessing(record, one)
        }
        return [part for part in self.parts if record.checkpoint_sha256 is None or part not in scored]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == "diverged" or (self.state == "complete" and not self.unscored())

    def anew(self) -> Job:
        """The job, to be trained anew if its folder holds a run with other settings."""
        if self.state != "other settings":
            return self
        words = (word for word in self.train if word != "--resume=True")
        return replace(self, train=(*words, "--overwrite=True"))

    def commands(self) -> Iterator[list[str]]:
        """What is to be executed, one after the other; what is to be scored is decided after the training."""
        if self.state != "complete":
            yield list(self.train)
        for part in self.unscored():
            yield [*self.evaluate, "--part", part]


def execute(job: Job, stop: threading.Event | None = None) -> str | None:
    """Train a run and score it, each in a process of its own that dies with this one.

    Args:
        job: the run.
        stop: when set, the process is asked to end (SIGTERM: it writes itself down).

    Returns:
        Why it failed, from its log. None if all went well, or it was stopped.
    """
    stop = stop or threading.Event()
    _wait_until_free(job.path, stop)
    job.log.parent.mkdir(parents=True, exist_ok=True)
    for command in job.commands():
        if stop.is_set():
            return None
        if why := run_process(command, log=job.log, cwd=job.cwd, stop=stop):
            _note_failure(job.path, why.splitlines()[-1])
            return why
    return None


def run_process(
    command: Sequence[str],
    *,
    log: Path,
    cwd: Path | None = None,
    stop: threading.Event | None = None,
    watch: Callable[[], None] | None = None,
) -> str | None:
    """Run Python in a process of its own that dies with this one, or with the thread that called.

    Args:
        command: arguments of Python.
        log: what the process says is appended to this file.
        cwd: folder in which it is executed.
        stop: when set, the process is asked to end (SIGTERM: a training writes itself down), as it is when ``watch``
            or anything else raises here.
        watch: called several times a second while the process runs.

    Returns:
        Why it failed, from its log. None if all went well, or it was stopped.
    """
    stop = stop or threading.Event()
    with open(log, "a+b") as file:
        file.write(f"$ python {shlex.join(command)}\n".encode())
        file.flush()
        start = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-c", TIED, str(os.getpid()), *command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C on a terminal reaches this process, which then stops its children
        )
        try:
            while process.poll() is None and not stop.wait(0.2):
                if watch is not None:
                    watch()
        finally:
            _end(process)
        if process.returncode and not stop.is_set():
            file.seek(start)
            return _reason(file.read().decode("utf-8", "replace"), process.returncode)
    return None


def state_of(path: Path, now: str) -> State:
    """What is in a run folder.

    Args:
        path: the folder.
        now: hash of the run that is to be there.
    """
    if not RunFolder(path).started:
        return "new"
    record = read_run(path)
    if record.run_hash != now:
        return "other settings"
    if record.status == "done":
        return "complete"
    # A killed training could not say so, a stopped one says "interrupted".
    return "failed" if record.status == "failed" and record.error != "interrupted" else "interrupted"


def _reason(log: str, status: int) -> str:
    """Why a process failed: the first exception of a traceback, in which MONAI wraps its own, or the last lines."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    if cause := re.search(r"^[A-Za-z_][\w.]*(Error|Exception)\b.*", log, re.MULTILINE):
        return cause.group()
    return "\n".join([line for line in log.splitlines() if line.strip()][-6:]) or f"exit status {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_free(path: Path, stop: threading.Event) -> None:
    """Wait for a killed predecessor to be gone: on a lost node it may outlive the news of its loss."""
    for _ in range(int(PATIENCE)):
        if not path.is_dir():
            return
        try:
            with locked(path):
                return
        except UserError:
            if stop.wait(1):
                return


def _note_failure(path: Path, error: str) -> None:
    """Write down the end of a training that was killed and could not do so itself."""
    folder = RunFolder(path)
    if not folder.started:
        return
    try:
        with locked(path):
            if folder.open().status == "running":
                folder.update(status="failed", error=error)
    except UserError as busy:
        logger.warning("%s", busy)
