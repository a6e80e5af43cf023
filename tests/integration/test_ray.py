"""A comparison on a Ray cluster of two nodes, one of which is lost during the work."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import create_workflow

from monai_thyroid import cli
from monai_thyroid.files import read_csv, read_json

TINY: dict[str, Any] = {
    "phantom_cases": 10,
    "image_size": 32,
    "batch_size": 4,
    "learning_rate": 0.01,
    "max_epochs": 60,
    "patience": 60,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "device": "cpu",
    "precision": "float32",
}


def epochs(path: Path) -> int:
    return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def trainings(log: str) -> int:
    return sum(line.startswith("$ ") and "train_course.yaml" in line for line in log.splitlines())


@pytest.mark.slow
def test_runs_of_a_lost_node_go_on_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Read when Ray is imported: it keeps to the loopback interface.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    lost = cluster.add_node(**node)
    folders = [tmp_path / "out" / "runs" / "thyroid" / "phantom" / "unet" / f"seed-{seed}" for seed in (0, 1)]
    at_loss: list[int] = []

    def lose() -> None:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            found = sorted((tmp_path / "out").rglob("history.csv"))
            if len(found) == 2 and all(epochs(path) >= 2 for path in found):
                folders[:] = [path.parent for path in found]
                at_loss.extend(map(epochs, found))
                cluster.remove_node(lost, allow_graceful=False)
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=lose, daemon=True)
    watcher.start()
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    try:
        status = cli.main(
            [
                *(
                    "compare",
                    str(root / "bundles" / "thyroid" / "train_course.yaml"),
                    "--networks",
                    "unet",
                    "--seeds",
                    "0,1",
                ),
                *("--engine", "ray", "--address", cluster.address, "--output", str(tmp_path / "out"), *words),
            ]
        )
    finally:
        watcher.join(10)
        cluster.shutdown()
    printed = capsys.readouterr()
    assert status == 0, printed.err
    assert all(2 <= count < TINY["max_epochs"] for count in at_loss)
    assert len(at_loss) == 2, "no node was lost"
    logs = {path.name: path.read_text() for path in (tmp_path / "out" / "logs").iterdir()}
    starts = sorted(map(trainings, logs.values()))
    assert starts == [1, 2], "the run of the lost node is started once more, the other one is not"
    assert sum("Resuming after epoch" in text for text in logs.values()) == 1
    for folder in folders:
        assert read_json(folder / "run.json")["status"] == "done"
        numbers = [int(row["epoch"]) for row in read_csv(folder / "history.csv")]
        assert numbers == [*range(1, TINY["max_epochs"] + 1)]
        assert {path.name for path in (folder / "evaluations").iterdir()} == {"phantom-test", "phantom-validation"}
    assert (tmp_path / "out" / "report" / "report.html").is_file()

    (resumed,) = (name for name, text in logs.items() if trainings(text) == 2)
    seed = int(resumed.removesuffix(".log").rpartition("-")[2])
    workflow = create_workflow(
        config_file=str(root / "bundles" / "thyroid" / "train_course.yaml"),
        **{**TINY, "seed": seed, "trackers": [], "logging_file": False, "output_dir": str(tmp_path / "alone")},
    )
    workflow.run()
    workflow.finalize()
    (alone,) = (tmp_path / "alone").rglob("model.pt")
    (other,) = (folder for folder in folders if folder.name == f"seed-{seed}")
    weights = torch.load(other / "model.pt", weights_only=True)
    for name, tensor in torch.load(alone, weights_only=True).items():
        assert torch.equal(tensor, weights[name]), name
