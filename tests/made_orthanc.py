"""Orthanc as the PACS, dcmtk as the sender, and a node, each a process of its own on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

TOOLS = ("Orthanc", "storescu", "echoscu")


def debian(name: str) -> str | None:
    """Where a program of Debian's packages is; not pynetdicom's storescu, which an activated environment puts first."""
    places = [place for place in os.get_exec_path() if Path(place) != Path(sys.executable).parent]
    return shutil.which(name, path=os.pathsep.join([*places, "/usr/sbin"]))


def lacking() -> list[str]:
    """Which of the programs are not installed."""
    return [tool for tool in TOOLS if debian(tool) is None]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def until(happened: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """Wait for something; fails when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := happened():
                return found
        except (OSError, ValueError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")


class Orthanc:
    """A PACS; `start` and `stop` any number of times.

    Args:
        folder: takes its storage.
        node_port: where the node listens, which it tells what it keeps.
        node_aet: AE title of the node.
        settings: further ones.
    """

    AET = "ORTHANC"

    def __init__(self, folder: Path, *, node_port: int, node_aet: str = "MONAI_THYROID", **settings: Any) -> None:
        self.folder, self.dicom_port, self.http_port = folder, free_port(), free_port()
        folder.mkdir()
        self.url = f"http://127.0.0.1:{self.http_port}"
        content = {
            "Name": "PACS of tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "DicomAet": self.AET,
            "DicomPort": self.dicom_port,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": True,
            "Plugins": ["/usr/share/orthanc/plugins"],
            "DicomWeb": {"Enable": True},
            "DicomModalities": {"node": [node_aet, "127.0.0.1", node_port]},
            **settings,
        }
        (folder / "orthanc.json").write_text(json.dumps(content))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with open(self.folder / "orthanc.log", "ab") as log:
            self._process = subprocess.Popen(
                [str(debian("Orthanc")), str(self.folder / "orthanc.json")], stdout=log, stderr=subprocess.STDOUT
            )
        until(lambda: requests.get(f"{self.url}/system", timeout=5).ok, "Orthanc listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def instances(self, modality: str | None = None) -> list[dict[str, str]]:
        """The main tags of all instances, or of those of a modality."""
        query: dict[str, Any] = {"Level": "Instance", "Query": {}, "Expand": True}
        if modality is not None:
            query["Query"] = {"Modality": modality}
        answer = requests.post(f"{self.url}/tools/find", json=query, timeout=60)
        answer.raise_for_status()
        return [{"ID": each["ID"], **each["MainDicomTags"]} for each in answer.json()]

    def file(self, identity: str) -> bytes:
        return requests.get(f"{self.url}/instances/{identity}/file", timeout=60).content

    def upload(self, content: bytes) -> str:
        answer = requests.post(f"{self.url}/instances", data=content, timeout=60)
        answer.raise_for_status()
        return str(answer.json()["ID"])


@contextmanager
def orthanc(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    server = Orthanc(folder, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class NodeProcess:
    """A node, to be killed and started again.

    Args:
        command: what runs it.
        log: file that its log is appended to.
    """

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.command, self.log = list(command), log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, seconds: float = 120) -> None:
        before = self.text().count(" ready\n")
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT)

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.text()[-2000:]
            return self.text().count(" ready\n") > before

        until(ready, "the node is ready", seconds=seconds)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Tell it to end; returns its exit status."""
        if self.process is None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


def node_command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "monai_thyroid", "pacs", *map(str, arguments)]


def send(files: Sequence[Path], *, port: int, options: Sequence[str] = ()) -> int:
    """Send by dcmtk; returns its exit status."""
    to = ["-aec", "MONAI_THYROID", "--timeout", "5", "127.0.0.1", str(port)]
    done = subprocess.run(
        [str(debian("storescu")), *options, *to, *map(str, files)],
        capture_output=True,
        timeout=120,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    return done.returncode
