"""Run trainings of several processes; a script of its own, so that no test's threads are forked, and libraries are
imported once for all of them.

    python tests/bundles/together.py JOBS.json

JOBS.json lists {"processes": N, "options": {...}}, the options of `monai.bundle.run`. Each job's processes are joined
as torchrun joins them: when one fails the others are ended. Prints a JSON list of {"status": [...], "said": "..."},
said by the first process.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from monai.bundle import run

sys.path.insert(0, str(Path(__file__).parents[1]))
from forked import import_once


def train(processes: int, options: dict[str, Any]) -> dict[str, Any]:
    """Fork the processes of a job and wait for them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder) / "said"
        children = {}
        for rank in range(processes):
            child = os.fork()
            if child == 0:
                os._exit(work(rank, processes, port, options, said))
            children[child] = rank
        status: list[int | None] = [None] * processes
        waiting = set(children)
        while waiting:
            child, raw = os.wait()
            waiting.discard(child)
            status[children[child]] = os.waitstatus_to_exitcode(raw)
            if raw:
                for other in waiting:
                    os.kill(other, signal.SIGKILL)
        return {"status": status, "said": said.read_text()}


def work(rank: int, processes: int, port: int, options: dict[str, Any], said: Path) -> int:
    """Train in this process; returns its exit status."""
    os.environ.update(
        {
            **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)},
            **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"},
        }
    )
    torch.set_num_threads(1)
    with open(said if rank == 0 else os.devnull, "w") as file, contextlib.redirect_stdout(file):
        try:
            run(**options)
        except BaseException:
            traceback.print_exc(file=file)
            return 1
        return 0


if __name__ == "__main__":
    import_once()
    jobs = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write(json.dumps([train(**job) for job in jobs]))
