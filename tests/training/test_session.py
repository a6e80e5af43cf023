from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import write_phantom


def _command(root: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "monai.bundle", "run"),
        *("--config_file", str(root / "bundles" / "thyroid" / "train.yaml")),
        *("--image_size", "32", "--batch_size", "4", "--networks::unet::features", "[4,4,4,4,4,4]"),
        *options,
    ]


def _wait_for(path: Path, lines: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 120
    while not path.is_file() or len(path.read_text().splitlines()) < lines:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not grow"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_is_written_down_and_goes_on(root: Path, tmp_path: Path, stop: signal.Signals) -> None:
    scans = write_phantom(tmp_path / "scans", cases=10, seed=0, height=48, width=64)
    options = ("--dataset_dir", str(scans), "--output_dir", str(tmp_path / "runs"), "--max_epochs", "500")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        _command(root, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        # A shell's background job, as which tests may run, has SIGINT ignored, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # type: ignore[arg-type, return-value]
    )
    deadline = time.monotonic() + 120
    while not (found := list((tmp_path / "runs").rglob("history.csv"))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    folder = found[0].parent
    _wait_for(folder / "history.csv", 3, process)

    if stop is signal.SIGINT:  # once is enough
        second = subprocess.run(
            _command(root, *options, "--resume", "true"), capture_output=True, text=True, timeout=120, env=environment
        )
        assert second.returncode == 1
        assert "another process is training there" in second.stderr
        assert "Traceback" not in second.stderr

    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume true goes on" in errors
    record = read_json(folder / "run.json")
    assert (record["status"], record["error"]) == ("failed", "interrupted")
    assert len(read_csv(folder / "history.csv")) >= 2
