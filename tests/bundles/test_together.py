"""Several processes train one network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from bundle_files import course, strong
from monai.bundle import ConfigParser

from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import write_phantom

pytestmark = pytest.mark.slow

TINY: dict[str, Any] = {
    "image_size": 32,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "device": "cpu",
    "precision": "float32",
    # What rounding makes of a gradient of nearly nothing, Adam makes a step of.
    "optimizer::_target_": "torch.optim.SGD",
    "learning_rate": 0.1,
    "val_interval": 1,
}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}


def files(root: Path, bundle: str, recipe: Callable[[str], str] = course) -> list[str]:
    return [str(root / "bundles" / bundle / f"{start}{recipe(bundle)}") for start in ("", "multi_gpu_")]


def run_folder(output: Path) -> Path:
    (path,) = output.rglob("run.json")
    return path.parent


def test_two_processes_train_as_one_does_with_their_batches(
    root: Path, tmp_path: Path, train: Callable[..., Path], environment: dict[str, str]
) -> None:
    """By the command of the documentation, on parts of odd numbers of images."""
    scans = write_phantom(tmp_path / "scans", cases=14, seed=0, height=48, width=64)
    given = {**TINY, "max_epochs": 3, "dataset_dir": str(scans)}
    words = [f"--{name}={value!r}" for name, value in given.items()]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "-m", "monai.bundle", "run"),
            *("--config_file", str(files(root, "thyroid")), "--batch_size", "4"),
            *("--output_dir", str(tmp_path / "two"), *words),
        ],
        **{"capture_output": True, "text": True, "timeout": 240, "env": environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("images for training into memory") == 1, "the first process speaks for all"
    two = run_folder(tmp_path / "two")
    one = train(**given, batch_size=8, output_dir=str(tmp_path / "one"))
    parts = read_json(one / "split.json")["parts"]
    assert parts == read_json(two / "split.json")["parts"]
    assert len(parts["validation"]["cases"]) % 2 == 1, "so that one has to be padded, if anything is"
    assert len(parts["train"]["cases"]) % 2 == 0
    mine, theirs = (read_csv(folder / "history.csv") for folder in (two, one))
    assert len(mine) == 3
    for row, expected in zip(mine, theirs, strict=True):
        for name in ("train_loss", "val_loss", "val_dice", "val_iou", "lr"):
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-5), name
    weights = [torch.load(folder / "last.pt", weights_only=True)["network"] for folder in (two, one)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-5, rtol=1e-4)
    records = [read_json(folder / "run.json") for folder in (two, one)]
    assert records[0]["protocol_hash"] != records[1]["protocol_hash"], "another batch size is another recipe"
    assert records[0]["test"]["dice_mean"] == pytest.approx(records[1]["test"]["dice_mean"], abs=1e-3)


def test_they_resume_refuse_and_train_two_stages(
    root: Path, scans: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    def job(bundle: str, **options: Any) -> dict[str, Any]:
        small = {name: value for name, value in TINY.items() if "optimizer" not in name}
        given = {**small, "batch_size": 4, "trackers": [], "output_dir": str(tmp_path / bundle), **options}
        return {"processes": 2, "options": {"config_file": files(root, bundle), **given}}

    normed = {"dataset_dir": str(scans), "networks::unet::norm": "batch", "max_epochs": 2}
    jobs = [
        job("thyroid", **normed),
        job("thyroid", **normed, resume=True),
        job("thyroid", **normed),
        job("polyp", phantom_cases=10, first_stage_epochs=2, max_epochs=1),
        job("thyroid", **normed, config_file=files(root, "thyroid", strong), output_dir=str(tmp_path / "strong")),
    ]
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run(
        [sys.executable, str(root / "tests" / "bundles" / "together.py"), str(tmp_path / "jobs.json")],
        **{"capture_output": True, "text": True, "timeout": 300, "env": environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, complete, refused, stages, other = json.loads(done.stdout)
    assert first["status"] == [0, 0], first["said"]
    assert complete["status"] == [0, 0]
    assert "complete and unchanged" in complete["said"]
    # The other process must not wait for ever for one that refuses.
    assert refused["status"] == [1, -signal.SIGKILL]
    assert "finished run" in refused["said"]
    assert stages["status"] == [0, 0], stages["said"]
    polyp = run_folder(tmp_path / "polyp")
    assert read_json(polyp / "run.json")["status"] == "done"
    assert [row["stage"] for row in read_csv(polyp / "history.csv")] == ["1", "1", "2"]

    assert other["status"] == [0, 0], other["said"]
    assert read_json(run_folder(tmp_path / "strong") / "run.json")["status"] == "done"

    # Both validated one network, the one that was saved, though each has seen statistics of its own.
    folder = run_folder(tmp_path / "thyroid")
    assert read_json(folder / "run.json")["status"] == "done"
    rows = read_csv(folder / "history.csv")
    assert [row["epoch"] for row in rows] == ["1", "2"]
    parser = ConfigParser(yaml.safe_load((folder / "config.yaml").read_text()))
    evaluator = parser.get_parsed_content("validate::evaluator")
    state = torch.load(folder / "last.pt", weights_only=True)["network"]
    parser.get_parsed_content("network_def").load_state_dict(state)
    evaluator.run()
    for name in ("val_loss", "val_dice", "val_iou"):
        assert evaluator.state.metrics[name] == pytest.approx(float(rows[-1][name]), abs=1e-5), name
