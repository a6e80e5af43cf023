"""A comparison killed in the middle and started again is the one that was never interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from monai_thyroid.files import read_csv, read_json

# Equal weights do not make equal files: torch.save writes the name of the file into it.
NOT_EQUAL = {"seconds", "images_per_second", "latency_ms", "checkpoint_sha256"}


def command(root: Path, output: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "monai_thyroid", "compare", str(root / "bundles" / "thyroid" / "train_course.yaml")),
        *("--networks", "unet,unet_classic", "--seeds", "1", "--jobs", "1", "--output", str(output)),
        *("--networks::unet::features", "[4,4,4,4,4,4]", "--networks::unet_classic::features", "[4,4,8,8,8,4]"),
        *("--phantom_cases", "10", "--image_size", "32", "--batch_size", "4", "--learning_rate", "0.01"),
        *("--max_epochs", "12", "--patience", "12", "--device", "cpu", "--precision", "float32"),
    ]


def trained(output: Path) -> dict[str, str]:
    """Status by run."""
    paths = (output / "runs").rglob("run.json")
    return {f"{path.parent.parent.name}/{path.parent.name}": read_json(path)["status"] for path in paths}


def trainings(output: Path) -> dict[str, int]:
    """How often a training was started, by run."""
    logs = {path.stem: path.read_text().splitlines() for path in (output / "logs").iterdir()}
    return {
        name: sum(line.startswith("$ ") and "train_course.yaml" in line for line in lines)
        for name, lines in logs.items()
    }


def rows(path: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key not in NOT_EQUAL} for row in read_csv(path)]


@pytest.mark.slow
@pytest.mark.timeout(1200)  # five trainings and as many scorings, mostly the start of processes
def test_killed_and_started_again_equals_uninterrupted(root: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    killed, whole = tmp_path / "killed" / "out", tmp_path / "whole" / "out"
    log = (tmp_path / "log.txt").open("w")
    for folder in (killed, whole):
        folder.parent.mkdir()
    process = subprocess.Popen(command(root, killed), stdout=log, stderr=log, env=environment)
    end = time.monotonic() + 600
    # In the middle of it: something is complete, something has begun and has epochs behind it.
    while True:
        states = trained(killed)
        begun = [path for path in (killed / "runs").rglob("history.csv") if path.read_bytes().count(b"\n") > 2]
        unfinished = [path for path in begun if read_json(path.parent / "run.json")["status"] == "running"]
        if "done" in states.values() and unfinished:
            break
        assert process.poll() is None, (tmp_path / "log.txt").read_text()
        assert time.monotonic() < end
        time.sleep(0.05)
    process.kill()
    process.wait()
    complete = {
        name: (killed / "runs" / "thyroid" / "phantom" / name) for name, state in states.items() if state == "done"
    }
    before = {name: (path / "model.pt").stat().st_mtime_ns for name, path in complete.items()}
    logs = trainings(killed)

    done = subprocess.run(command(root, killed), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "interrupted: to be resumed" in done.stdout
    assert set(trained(killed).values()) == {"done"}
    assert {name: (path / "model.pt").stat().st_mtime_ns for name, path in complete.items()} == before
    repeated = {name for name, count in trainings(killed).items() if count > 1}
    assert repeated
    assert all(logs[name] == 1 for name in repeated)
    assert not any(f"{path.parent.name.rpartition('-')[0]}-{path.name}" in repeated for path in complete.values())

    again = subprocess.run(command(root, killed), capture_output=True, text=True, env=environment, check=False)
    assert again.returncode == 0, again.stderr
    assert "2 runs, 0 of them to be executed" in again.stdout
    assert sum(trainings(killed).values()) == 2 + len(repeated)

    done = subprocess.run(command(root, whole), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert set(trainings(whole).values()) == {1}
    for model in (killed / "runs").rglob("model.pt"):
        same = torch.load(whole / model.relative_to(killed), weights_only=True)
        assert all(torch.equal(tensor, same[key]) for key, tensor in torch.load(model, weights_only=True).items())
    for name in ("summary.csv", "pairwise.csv", "cases.csv"):
        found = rows(killed / "report" / name)
        assert found == rows(whole / "report" / name), name
        assert found
