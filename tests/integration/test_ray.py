"""A comparison, and the segmentation of an archive, on a Ray cluster that loses a node during the work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_trained import made_trained
from monai.bundle import create_workflow
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.deploy import predict_archive
from monai_thyroid.files import read_csv, read_json

TINY: dict[str, Any] = {
    "phantom_cases": 10,
    "image_size": 32,
    "batch_size": 4,
    "learning_rate": 0.01,
    "max_epochs": 25,
    "patience": 25,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "device": "cpu",
    "precision": "float32",
}


NODE: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100 * 2**20}
IMAGES = 200


def epochs(path: Path) -> int:
    return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def trainings(log: str) -> int:
    return sum(line.startswith("$ ") and "train_course.yaml" in line for line in log.splitlines())


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head does no work, and that keeps to the loopback interface."""
    # Read when Ray is imported.
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    yield made
    made.shutdown()


@pytest.mark.slow
def test_an_archive_is_segmented_once_though_a_node_is_lost(
    cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made_trained(tmp_path / "run", bright=True, image_size=48)
    source, output = tmp_path / "in", tmp_path / "out"
    pixels = np.full((40, 60), 5, np.uint8)
    pixels[5:20, 10:40] = 250
    for index in range(IMAGES):
        path = source / f"site{index % 3}" / f"scan{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(pixels, index % 20, axis=1)).save(path)
    broken = source / "site0" / "broken.png"
    broken.write_bytes(b"no picture")
    first = cluster.add_node(**NODE)
    table = output / "predictions.csv"
    words = ["predict", str(run), str(source), "--output", str(output), "--runtime", "torch", "--overlays"]
    words += ["--engine", "ray", "--address", cluster.address]
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(cli.main, words)
        end = time.monotonic() + 120
        while not epochs(table) and not status.done() and time.monotonic() < end:
            time.sleep(0.01)
        # The other comes when the one there is has gone: starting it lasts longer than what is left to do.
        at_loss = epochs(table)
        cluster.remove_node(first, allow_graceful=False)
        cluster.add_node(**NODE)
        assert status.result(240) == 1, "for the sake of the broken file"
    printed = capsys.readouterr()
    assert f"{IMAGES} images segmented" in printed.out
    assert str(broken) in printed.err
    assert 0 < at_loss < IMAGES, "no node was lost during the work"
    rows = read_csv(table)
    assert [row["source"] for row in rows if row["error"]] == [str(broken)]
    assert sorted(row["source"] for row in rows) == sorted(map(str, source.rglob("*.png")))
    there = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    masks = {row["mask"] for row in rows if not row["error"]}
    overlays = {mask.replace("_mask", "_overlay") for mask in masks}
    assert there == masks | overlays | {"predictions.csv", "predictions.json"}

    # What is left goes on, there or here, and the masks are the same.
    Image.fromarray(pixels).save(broken)
    (output / min(masks)).unlink()
    assert cli.main(words) == 0
    assert "2 images segmented" in (said := capsys.readouterr().out)
    assert f"{IMAGES - 1} before" in said
    predict_archive([run], [source], output=tmp_path / "here", runtime="torch", overlays=True, device="cpu")
    for row in read_csv(tmp_path / "here" / "predictions.csv"):
        assert (output / row["mask"]).read_bytes() == (tmp_path / "here" / row["mask"]).read_bytes()


@pytest.mark.slow
def test_runs_of_a_lost_node_go_on_elsewhere(
    root: Path, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = cluster.add_node(**NODE)
    cluster.add_node(**NODE)
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
