"""Run trainings in forked processes and kill them at chosen moments; a script of its own, so that no test's threads
are forked.

    python tests/training/interrupted.py CONFIG OVERRIDES.json FOLDER MOMENTS

Trains once without interruption, then MOMENTS times killed at a seeded moment and resumed, and prints a JSON list of
{"kind", "moment", "output_dir"}; the first entry is the uninterrupted run.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.bundle import run
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from monai_thyroid.runfolder import HistoryRow, RunFolder

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked import import_once


class Moments:
    """Counts what a training does, and kills the process within the one that was asked for."""

    def __init__(self, kill_at: int | None, log: Path) -> None:
        self.kill_at = kill_at
        self.log = log
        self.count = 0
        SupervisedTrainer._iteration = self.around("step", SupervisedTrainer._iteration)
        SupervisedEvaluator._iteration = self.around("validation", SupervisedEvaluator._iteration)
        RunFolder.append = self.half_line(RunFolder.append)
        torch.save = self.half_file(torch.save)
        os.replace = self.around("rename", os.replace)

    def reached(self, kind: str) -> bool:
        with self.log.open("a") as file:
            file.write(kind + "\n")
        self.count += 1
        return self.count - 1 == self.kill_at

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def around(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.reached(f"before {kind}"):
                self.die()
            result = function(*args, **kwargs)
            if self.reached(f"after {kind}"):
                self.die()
            return result

        return wrapped

    def half_file(self, save: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(content: Any, file: io.BufferedWriter) -> None:
            whole = io.BytesIO()
            save(content, whole)
            if self.reached("within checkpoint"):
                file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
                file.flush()
                self.die()
            file.write(whole.getvalue())

        return wrapped

    def half_line(self, append: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(folder: RunFolder, row: HistoryRow) -> None:
            path = folder.path / "history.csv"
            if self.reached("within history"):
                before = path.read_text() if path.exists() else ""
                append(folder, row)
                written = path.read_text()
                path.write_text(written[: len(before) + (len(written) - len(before)) // 2])
                self.die()
            append(folder, row)

        return wrapped


def train(config: str, overrides: dict[str, Any], kill_at: int | None, log: Path) -> int:
    """Train in a forked process; return how it ended, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            Moments(kill_at, log)
            with contextlib.redirect_stdout(io.StringIO()):
                run(config_file=config, **overrides)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(config: str, overrides_file: str, folder: str, moments: str) -> None:
    import_once()
    logging.disable(logging.CRITICAL)
    overrides = json.loads(Path(overrides_file).read_text())
    base = Path(folder)
    base.mkdir()
    events = base / "events.txt"
    whole = {**overrides, "output_dir": str(base / "whole")}
    assert train(config, whole, None, events) == 0, "the uninterrupted run failed"
    kinds = events.read_text().splitlines()
    # One moment of each kind first, then any.
    generator = random.Random(0)
    order = generator.sample(range(len(kinds)), len(kinds))
    first = list({kinds[moment]: moment for moment in order}.values())
    chosen = (first + [moment for moment in order if moment not in first])[: int(moments)]
    results = [{"kind": "whole", "moment": -1, "output_dir": whole["output_dir"]}]
    for moment in chosen:
        given = {**overrides, "output_dir": str(base / f"killed-{moment}")}
        assert train(config, given, moment, base / "log.txt") == -signal.SIGKILL, f"not killed at {moment}"
        assert train(config, {**given, "resume": True}, None, base / "log.txt") == 0, (
            f"resuming failed after {kinds[moment]} (moment {moment})"
        )
        results.append({"kind": kinds[moment], "moment": moment, "output_dir": given["output_dir"]})
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
