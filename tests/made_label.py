"""MONAI Label's server as ``monai-thyroid label`` starts it, and its client, each a process of its own on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from made_orthanc import free_port, until

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = "MONAI_THYROID_LABEL_ENV"


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


class LabelError(Exception):
    """What the server told the client."""


class LabelServer:
    """A server and a client to it.

    Args:
        env: the environment that ``--make-env`` made.
        folder: takes the log and what the client receives; the server works in ``folder/label``.
        arguments: of ``monai-thyroid label``.
    """

    def __init__(self, env: Path, folder: Path, *arguments: object) -> None:
        self.env, self.folder = env, folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.place = folder / "label"
        self.log = folder / "server.log"
        self.arguments = [*map(str, arguments), "--port", str(self.port), "--output", str(self.place)]
        self.process: subprocess.Popen[bytes] | None = None
        self._client: subprocess.Popen[str] | None = None

    def run(self, *, timeout: float = 400) -> subprocess.CompletedProcess[str]:
        """Start it where it must refuse."""
        command = [str(self.env / "bin" / "monai-thyroid"), "label", *self.arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=_environment())

    def start(self) -> None:
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [str(self.env / "bin" / "monai-thyroid"), "label", *self.arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=_environment(),
            )
        process = self.process

        def answers() -> bool:
            assert process.poll() is None, self.log.read_text()[-3000:]
            return requests.get(f"{self.url}/info/", timeout=60).ok

        until(answers, "MONAI Label answers", seconds=500)
        self._client = subprocess.Popen(
            [
                str(self.env / "bin" / "python"),
                str(ROOT / "tests" / "integration" / "label_client.py"),
                self.url,
                str(self.folder),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )

    def __getattr__(self, method: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            assert self._client is not None
            assert self._client.stdin is not None
            assert self._client.stdout is not None
            self._client.stdin.write(json.dumps([method, arguments, options]) + "\n")
            self._client.stdin.flush()
            told = json.loads(self._client.stdout.readline())
            if "error" in told:
                raise LabelError(told["error"])
            return told["result"]

        return call

    def trained(self, *, seconds: float = 300) -> dict[str, Any]:
        """Wait for the end of a training; how it ended."""

        def ended() -> Any:
            task = requests.get(f"{self.url}/train/", timeout=60).json()
            return task if task["status"] in ("DONE", "ERROR", "STOPPED") else None

        return dict(until(ended, "the training ends", seconds=seconds))

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._client is not None:
            assert self._client.stdin is not None
            self._client.stdin.close()
            self._client.wait(120)
            self._client = None
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(120)
            self.process = None


@contextmanager
def label_server(env: Path, folder: Path, *arguments: object) -> Iterator[LabelServer]:
    server = LabelServer(env, folder, *arguments)
    server.start()
    try:
        yield server
    finally:
        server.stop()
