"""Executing planned runs: as processes of this machine, or as Ray tasks; one job, one log, one progress view."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tqdm import tqdm

from monai_thyroid.errors import UserError, optional
from monai_thyroid.files import read_json, write_json
from monai_thyroid.runfolder.folder import locked, read_run

__all__ = ["EVALUATED", "Job", "Progress", "epoch_seconds", "execute", "run_local", "run_ray", "threads_each"]

logger = logging.getLogger(__name__)

State = Literal["complete", "interrupted", "failed", "other settings", "new"]
Finished = list[tuple["Job", "str | None"]]
"""Jobs that have ended, each with why it failed or None."""

EVALUATED = ("test", "validation")
"""The parts every run is scored on: one to report, one to choose on."""

# A child dies with whoever started it, however that ends: SIGKILL loses nothing, since a run resumes exactly. As a
# program of its own, because code between fork and exec is not safe in a process with threads.
_TIED = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"  # PR_SET_PDEATHSIG, SIGKILL
    "if os.getppid() != int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)
_PATIENCE = 60.0  # seconds for a stopped training to write itself down, and for a killed one to be gone


@dataclass(frozen=True)
class Job:
    """One run of a comparison: training, then scoring.

    Attributes:
        network: name in the bundle's menu.
        seed: of weights, order and augmentation.
        fold: None without folds.
        path: the run folder.
        state: what is in it; "failed" is a training that ended with an error of its own.
        epochs: the most it trains, over all stages.
        trained: epochs that it has behind it.
        log: what its processes say.
        train: arguments of Python that train or resume it.
        evaluate: arguments of Python that score it; ``--part PART`` is added.
        cwd: folder in which they are executed, which relative paths among them start from.
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

    @property
    def name(self) -> str:
        """Such as ``"unet-seed-0-fold-1"``."""
        return f"{self.network}-{self.path.name}"

    def unscored(self) -> list[str]:
        """The parts on which the run's present weights have not been scored."""
        if not (self.path / "run.json").is_file():
            return list(EVALUATED)
        record = read_run(self.path)
        # Known by content: where sites were chosen, they are in the folder's name.
        evaluations = map(read_json, self.path.glob("evaluations/*/evaluation.json"))
        same = ("checkpoint_sha256", "data_hash")
        scored = {one["part"] for one in evaluations if all(one[key] == record[key] for key in same)}
        return [part for part in EVALUATED if record["checkpoint_sha256"] is None or part not in scored]

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state == "complete" and not self.unscored()

    def commands(self) -> Iterator[list[str]]:
        """What is to be executed, one after the other; what is to be scored is decided after the training."""
        if self.state != "complete":
            yield list(self.train)
        for part in self.unscored():
            yield [*self.evaluate, "--part", part]


def threads_each(at_once: int) -> int:
    """Threads for each of several processes: an equal share of the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // at_once)


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
    with open(job.log, "a+b") as log:
        for command in job.commands():
            if stop.is_set():
                return None
            log.write(f"$ python {shlex.join(command)}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                [sys.executable, "-c", _TIED, str(os.getpid()), *command],
                cwd=job.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C on a terminal reaches this process, which then stops its children
            )
            try:
                while process.poll() is None and not stop.wait(0.2):
                    pass
            finally:
                _end(process)
            if process.returncode and not stop.is_set():
                log.seek(start)
                why = _reason(log.read().decode("utf-8", "replace"), process.returncode)
                _note_failure(job.path, why.splitlines()[-1])
                return why
    return None


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
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_free(path: Path, stop: threading.Event) -> None:
    """Wait for a killed predecessor to be gone: on a lost node it may outlive the news of its loss."""
    for _ in range(int(_PATIENCE)):
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
    if not (path / "run.json").is_file():
        return
    try:
        with locked(path):
            record = read_run(path)
            if record["status"] == "running":
                write_json(path / "run.json", {**record, "status": "failed", "error": error})
    except UserError as busy:
        logger.warning("%s", busy)


def run_local(jobs: Sequence[Job], *, at_once: int) -> Generator[Finished, None, None]:
    """Execute jobs as processes of this machine.

    Args:
        jobs: what to do, in this order.
        at_once: processes at a time; each computes with its share of the cores unless OMP_NUM_THREADS is set.

    Yields:
        The jobs that have ended, each with why it failed or None; a list at least every second, often empty.
    """
    os.environ.setdefault("OMP_NUM_THREADS", str(threads_each(at_once)))
    stop = threading.Event()
    pool = ThreadPoolExecutor(at_once)
    pending: dict[Future[str | None], Job] = {pool.submit(execute, job, stop): job for job in jobs}
    try:
        with _sigterm_interrupts():
            while pending:
                done, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                yield [(pending.pop(future), _outcome(future)) for future in done]
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _outcome(future: Future[str | None]) -> str | None:
    error = future.exception()
    return future.result() if error is None else f"{type(error).__name__}: {error}"


def run_ray(jobs: Sequence[Job], *, address: str | None, cpus: float, gpus: float) -> Generator[Finished, None, None]:
    """Execute jobs as tasks of a Ray cluster whose nodes share this machine's file system.

    A task whose node or worker is lost is started again elsewhere and goes on from the run's last epoch.

    Args:
        jobs: what to do, in this order.
        address: of the cluster; None for the one RAY_ADDRESS names, or else one of this machine alone.
        cpus: cores that a task asks for.
        gpus: GPUs that a task asks for; a fraction shares one.

    Yields:
        As `run_local`.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith(("local", "127.")):
        # Ray takes this machine's public address even where it is told the loopback one, unless it thinks that the
        # system cannot have clusters. Read when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = optional("ray", extra="ray")
    try:
        ray.init(address=address, log_to_driver=False, **({"include_dashboard": False} if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--address {address}: no Ray cluster can be reached there ({error})") from error
    pending = {}
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
            logger.warning("No node of the cluster has %g CPUs and %g GPUs now: the runs wait for one", cpus, gpus)
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(_execute_task)
        pending = {task.options(name=job.name).remote(job): job for job in jobs}
        with _sigterm_interrupts():
            while pending:
                done, _ = ray.wait(list(pending), timeout=1)
                yield [(pending.pop(reference), _answer(ray, reference)) for reference in done]
    finally:
        for reference in pending:
            ray.cancel(reference)
        if pending:
            ray.wait(list(pending), num_returns=len(pending), timeout=_PATIENCE)
        ray.shutdown()


def _execute_task(job: Job) -> str | None:
    # Ray cancels a task by SIGINT, which is ignored where a shell has started the cluster in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return execute(job)


def _answer(ray: Any, reference: Any) -> str | None:
    try:
        failure: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return str(error)
    return failure


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, do what Ctrl-C does, also where Ray has set a handler."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Progress:
    """Show how far jobs are, from their files: a bar on a terminal, and a line at each change.

    Args:
        jobs: what is being executed.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = list(jobs)
        self.failures: dict[str, str] = {}
        self._log_sizes = {job.name: _size(job.log) for job in jobs}
        self._running: set[str] = set()
        self._ended: set[str] = set()
        trained = sum(job.trained for job in jobs)
        self._bar = tqdm(total=sum(job.epochs for job in jobs), initial=trained, disable=None, unit="epoch")

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def update(self, finished: Finished) -> None:
        """Look at the run folders, and take note of the jobs that have ended."""
        for job, failure in finished:
            self._note_start(job)
            self._ended.add(job.name)
            if failure is not None:
                self.failures[job.name] = failure
            self._say(f"{job.name}: {'done' if failure is None else f'FAILED, see {job.log}'}")
        for job in self.jobs:
            if _size(job.log) > self._log_sizes[job.name]:
                self._note_start(job)
        epochs = {job.name: len(epoch_seconds(job.path / "history.csv")) for job in self.jobs}
        running = [job for job in self.jobs if job.name in self._running - self._ended]
        # A run that stopped early has nothing left to do.
        self._bar.n = sum(job.epochs if job.name in self._ended else epochs[job.name] for job in self.jobs)
        failed, ended = len(self.failures), len(self._ended)
        self._bar.set_description(f"{ended - failed} done, {len(running)} running, {failed} failed", refresh=False)
        self._bar.set_postfix_str(", ".join(f"{job.name} {epochs[job.name]}/{job.epochs}" for job in running))

    def _note_start(self, job: Job) -> None:
        if job.name not in self._running:
            self._running.add(job.name)
            self._say(f"{job.name}: {'started' if job.state == 'new' else 'going on'}")

    def _say(self, line: str) -> None:
        tqdm.write(f"{line} ({len(self._ended)} of {len(self.jobs)} ended)", file=sys.stderr)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def epoch_seconds(path: Path) -> list[float]:
    """Seconds of each epoch in a history.csv that may be being written, or whose writer was killed: of whole lines."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:-1] if path.is_file() else []
    return [float(line.rpartition(",")[2]) for line in lines]
