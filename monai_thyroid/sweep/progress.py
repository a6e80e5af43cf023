"""How far many jobs are, seen from their files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from monai_thyroid.runfolder import finished_epochs
from monai_thyroid.sweep.executors import Finished
from monai_thyroid.sweep.jobs import Job

__all__ = ["Progress"]


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
        epochs = {job.name: len(finished_epochs(job.path / "history.csv")) for job in self.jobs}
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
