"""Executing many jobs: as processes of this machine, or as tasks of a Ray cluster."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from monai_thyroid.cluster import joined, raise_interrupts, sigterm_interrupts
from monai_thyroid.sweep.jobs import PATIENCE, Job, execute

__all__ = ["Finished", "run_local", "run_ray", "threads_each"]

logger = logging.getLogger(__name__)

Finished = list[tuple[Job, "str | None"]]
"""Jobs that have ended, each with why it failed or None."""


def threads_each(at_once: int) -> int:
    """Threads for each of several processes: an equal share of the cores this process may use."""
    return max(1, len(os.sched_getaffinity(0)) // at_once)


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
        with sigterm_interrupts():
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
    with joined(address) as ray:
        pending = {}
        try:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
                logger.warning("No node of the cluster has %g CPUs and %g GPUs now: the runs wait for one", cpus, gpus)
            task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=3)(_execute_task)
            pending = {task.options(name=job.name).remote(job): job for job in jobs}
            with sigterm_interrupts():
                while pending:
                    done, _ = ray.wait(list(pending), timeout=1)
                    yield [(pending.pop(reference), _answer(ray, reference)) for reference in done]
        finally:
            for reference in pending:
                ray.cancel(reference)
            if pending:
                ray.wait(list(pending), num_returns=len(pending), timeout=PATIENCE)


def _execute_task(job: Job) -> str | None:
    raise_interrupts()
    return execute(job)


def _answer(ray: Any, reference: Any) -> str | None:
    try:
        failure: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        return str(error)
    return failure
