"""Where the images of an archive are segmented: in threads of this process, or by the machines of a Ray cluster."""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from monai_thyroid.cluster import joined, raise_interrupts, sigterm_interrupts
from monai_thyroid.deploy.segmenting import Done, Job, Segmenter, failed
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.predictor import Predictor
from monai_thyroid.evaluation.runtimes import cores
from monai_thyroid.files import sha256_file
from monai_thyroid.images import Raster, read_raster

if TYPE_CHECKING:
    from monai_thyroid.evaluation.model import Model
    from monai_thyroid.evaluation.trained import TrainedRun

__all__ = ["SETTINGS", "Engine", "Task", "local_threads", "ray_cluster"]

logger = logging.getLogger(__name__)

SETTINGS = "predictions.json"
"""What an output holds the predictions of; written before the first mask."""

_IMAGES_A_CORE = 16  # of a task on a cluster: seconds of work, so that little is lost with a machine
_RETRIES = 3  # of a task whose process or machine is lost
_PATIENCE = 30.0  # seconds for cancelled tasks to end


@dataclass(frozen=True)
class Task:
    """What is to be done with every image of an archive.

    Attributes:
        runs: see `Predictor`.
        output: takes the results; see `Segmenter`.
        overlays: see `Segmenter`.
        probabilities: see `Segmenter`.
        device: see `Predictor`.
        runtime: see `Predictor`.
        tta: see `Predictor`.
        dicom: see `Segmenter`.
        review_below: see `Segmenter`.
        tissue_only: see `Segmenter`.
    """

    runs: Sequence[str | Path | TrainedRun | Model]
    output: Path
    overlays: bool
    probabilities: bool
    device: str
    runtime: str | Sequence[str]
    tta: bool
    dicom: bool = False
    review_below: float | None = None
    tissue_only: bool = False

    def segmenter(self, samples: Sequence[Job], *, threads: int) -> Segmenter:
        """What segments in that many threads, its runtime measured on samples."""
        predictor = Predictor(
            self.runs,
            device=self.device,
            runtime=self.runtime,
            tta=self.tta,
            samples=_read(samples),
            streams=threads,
        )
        return Segmenter(
            predictor,
            self.output,
            overlays=self.overlays,
            probabilities=self.probabilities,
            dicom=self.dicom,
            review_below=self.review_below,
            tissue_only=self.tissue_only,
        )


class Engine(NamedTuple):
    """Something that is ready to do a `Task`.

    Attributes:
        runtimes: of each model, what computes it and why.
        run: does all jobs; yields what is done, a few at a time and in any order.
    """

    runtimes: list[tuple[str, str]]
    run: Callable[[], Iterator[list[Done]]]


_SAMPLES = 8


def _samples(jobs: Sequence[Job], *, least: int = 24) -> Sequence[Job]:
    """Images from all over the archive to measure runtimes on; none where it would take longer than it saves."""
    return jobs[:: max(1, len(jobs) // (2 * _SAMPLES))] if len(jobs) >= least else []


def _read(jobs: Sequence[Job]) -> list[Raster]:
    """The first few of them that can be read."""
    found: list[Raster] = []
    for job in jobs:
        if len(found) == _SAMPLES:
            break
        try:
            found.append(read_raster(job.source))
        except UserError:
            continue
    return found


@contextmanager
def local_threads(task: Task, jobs: Sequence[Job]) -> Iterator[Engine]:
    """A thread a core of this machine, each of which reads, computes and writes."""
    threads = cores()
    segment = task.segmenter(_samples(jobs), threads=threads)

    def run() -> Iterator[list[Done]]:
        chunks = _chunks(jobs, segment.batch)
        running: set[Future[list[Done]]] = set()
        with ThreadPoolExecutor(threads) as pool:
            try:
                while True:
                    while len(running) < 2 * threads and (chunk := next(chunks, None)):
                        running.add(pool.submit(segment, chunk))
                    if not running:
                        return
                    ready, running = wait(running, return_when=FIRST_COMPLETED)
                    yield [done for future in ready for done in future.result()]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    yield Engine(segment.predictor.runtimes, run)


def _chunks(jobs: Sequence[Job], size: int) -> Iterator[Sequence[Job]]:
    return (jobs[start : start + size] for start in range(0, len(jobs), size))


# --- a cluster ---


@contextmanager
def ray_cluster(task: Task, jobs: Sequence[Job], *, address: str | None) -> Iterator[Engine]:
    """The machines of a Ray cluster that share this one's file system, and have this package.

    A machine does a few images at once, on all its cores (of a machine with several GPUs: on one and its share of the
    cores). All compute by the runtime that was chosen on one of them. What a lost machine had not reported is done
    again elsewhere; an image at which process after process dies is reported as failed.

    Args:
        task: what is to be done.
        jobs: all there is to do.
        address: see `joined`.

    Raises:
        UserError: there is no such cluster, or its machines cannot do it.
    """
    with joined(address) as ray, sigterm_interrupts():
        share = _share(ray, task)
        resources = {"num_cpus": share.cpus, "num_gpus": share.gpus, "max_retries": _RETRIES}
        absolute = replace(task, runs=[_to_send(run) for run in task.runs], output=task.output.absolute())
        wanted = replace(absolute, device=share.device)
        device, runtimes = _answer(
            ray, ray.remote(**resources)(_ready).remote(wanted, _samples(jobs), threads=share.cpus)
        )
        settled = replace(absolute, device=device, runtime=[name for name, _ in runtimes])

        def run() -> Iterator[list[Done]]:
            segment = ray.remote(**resources)(_segmented)
            shared = ray.put(
                _Shared(settled, uuid.uuid4().hex, sha256_file(settled.output / SETTINGS), threads=share.cpus)
            )
            chunks, lost = _chunks(jobs, _IMAGES_A_CORE * share.cpus), deque[Sequence[Job]]()
            pending: dict[Any, Sequence[Job]] = {}
            try:
                while True:
                    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 0)) // share.cpus)  # machines may join
                    while len(pending) < at_once and (chunk := lost.popleft() if lost else next(chunks, None)):
                        pending[segment.remote(shared, chunk)] = chunk
                    if not pending:
                        return
                    ready, _ = ray.wait(list(pending), timeout=1)
                    for reference in ready:
                        chunk = pending.pop(reference)
                        try:
                            yield _answer(ray, reference)
                        except ray.exceptions.RayError as error:
                            if len(chunk) > 1:  # perhaps for the sake of one of them: each by itself
                                lost.extend([job] for job in chunk)
                                continue
                            reason = f"{type(error).__name__}: {error}".splitlines()[0]
                            yield [failed(chunk[0], f"{chunk[0].source}: what segmented it was lost ({reason})")]
            finally:
                for reference in pending:
                    ray.cancel(reference)
                if pending:
                    ray.wait(list(pending), num_returns=len(pending), timeout=_PATIENCE)

        yield Engine(runtimes, run)


class _Share(NamedTuple):
    """What one task takes of a machine, and what it computes on."""

    cpus: int
    gpus: int
    device: str


def _share(ray: Any, task: Task) -> _Share:
    """The whole of the smallest machine, or one of its GPUs with what belongs to it."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    with_gpu = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    on_cpu = isinstance(task.runtime, str) and task.runtime.startswith(("openvino", "onnx"))
    cuda = task.device == "cuda" or (task.device == "auto" and bool(with_gpu) and not on_cpu)
    if cuda and not with_gpu:
        raise UserError("device cuda: no machine of the cluster has a GPU")
    if not machines:
        logger.warning("No machine of the cluster has a CPU to give now: the images wait for one")
        return _Share(1, 0, "cpu")
    if cuda:
        return _Share(max(1, min(int(one["CPU"] // one["GPU"]) for one in with_gpu)), 1, "cuda")
    return _Share(min(int(one["CPU"]) for one in machines), 0, "cpu")


class _Trusted(NamedTuple):
    """A run that is read with trust, to be read again elsewhere."""

    path: str


def _to_send(run: Any) -> Any:
    """A run by what another machine reads it by."""
    if isinstance(run, (str, Path)):
        return str(Path(run).expanduser().absolute())
    return _Trusted(str(run.path.absolute())) if run.trust else str(run.path.absolute())


def _received(task: Task) -> Task:
    from monai_thyroid.evaluation.trained import TrainedRun

    return replace(
        task, runs=[TrainedRun(run.path, trust=True) if isinstance(run, _Trusted) else run for run in task.runs]
    )


def _answer(ray: Any, reference: Any) -> Any:
    """What a task gave, or what it raised."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (UserError, OSError)):
            raise error.cause from None
        raise UserError(f"--engine ray: a machine of the cluster cannot segment ({error.cause})") from error


class _Shared(NamedTuple):
    """What all tasks are told."""

    task: Task
    key: str
    settings_sha256: str
    threads: int


_segmenters: dict[str, Segmenter] = {}  # of this process, which does task after task


def _ready(task: Task, samples: Sequence[Job], *, threads: int) -> tuple[str, list[tuple[str, str]]]:
    """On a machine: choose what computes."""
    raise_interrupts()
    os.environ["OMP_THREAD_LIMIT"] = str(threads)
    predictor = _received(task).segmenter(samples, threads=threads).predictor
    return predictor.device, predictor.runtimes


def _segmented(shared: _Shared, jobs: Sequence[Job]) -> list[Done]:
    """On a machine: segment."""
    raise_interrupts()
    os.environ["OMP_THREAD_LIMIT"] = str(shared.threads)
    if shared.key not in _segmenters:
        settings = shared.task.output / SETTINGS
        if not settings.is_file() or sha256_file(settings) != shared.settings_sha256:
            raise UserError(
                f"--engine ray: {platform.node()} does not see {settings}; the machines of the cluster must share the "
                "file system of this one"
            )
        _segmenters.clear()
        _segmenters[shared.key] = _received(shared.task).segmenter([], threads=shared.threads)
    return _segmenters[shared.key].all_of(jobs, threads=shared.threads)
