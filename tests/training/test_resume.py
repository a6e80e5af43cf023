from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_thyroid.files import read_json, sha256_file
from monai_thyroid.images import write_phantom

TINY = {
    "image_size": 32,
    "max_epochs": 4,
    "batch_size": 4,
    "learning_rate": 0.01,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "trackers": [],
}


def _run_folder(output_dir: str) -> Path:
    found = list(Path(output_dir).glob("*/*/unet-*/seed-0"))
    assert len(found) == 1
    return found[0]


def _history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "file", "workers", "moments"),
    [
        ("thyroid", "train_course.yaml", 0, 12),
        ("thyroid", "train_course.yaml", 2, 2),
        ("polyp", "train_course.yaml", 0, 10),
        ("thyroid", "train.yaml", 0, 4),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, root: Path, bundle: str, file: str, workers: int, moments: int
) -> None:
    scans = write_phantom(tmp_path / "scans", cases=10, seed=0, height=48, width=64)
    epochs = TINY["max_epochs"]
    overrides = {**TINY, "dataset_dir": str(scans)}
    overrides |= {"channels_last": False} if file == "train.yaml" else {"num_workers": workers}
    if bundle == "polyp":  # two stages, and another layout
        for kind in ("image", "mask"):
            for path in sorted((scans / f"test-{kind}").iterdir()):
                path.rename(scans / f"trainval-{kind}" / path.name)
            (scans / f"test-{kind}").rmdir()
            (scans / f"trainval-{kind}").rename(scans / f"{kind}s")
        (scans / "cases.csv").unlink()
        stages = {"first_stage_epochs": 2, "first_stage_learning_rate": 0.01, "max_epochs": 2}
        overrides = {**overrides, **stages}
    (tmp_path / "overrides.json").write_text(json.dumps(overrides))
    done = subprocess.run(
        [
            sys.executable,
            str(root / "tests" / "training" / "interrupted.py"),
            str(root / "bundles" / bundle / file),
            *map(str, (tmp_path / "overrides.json", tmp_path / "runs", moments)),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, *killed = json.loads(done.stdout)
    kinds = {result["kind"].split()[-1] for result in killed}
    assert {"step", "validation", "checkpoint", "history", "rename"} <= kinds or moments < 10
    assert len(killed) == moments

    reference = _run_folder(whole["output_dir"])
    history = _history(reference)
    assert len(history) == epochs
    assert [row["stage"] for row in history] == (["1", "1", "2", "2"] if bundle == "polyp" else ["1"] * epochs)
    last = torch.load(reference / "last.pt", weights_only=True)
    scores = (reference / "evaluations" / "scans-test" / "cases.csv").read_text()
    for result in killed:
        folder = _run_folder(result["output_dir"])
        assert read_json(folder / "run.json")["status"] == "done", result
        assert _history(folder) == history, result
        assert sha256_file(folder / "model.pt") == sha256_file(reference / "model.pt"), result
        again = torch.load(folder / "last.pt", weights_only=True)
        for name, tensor in again["network"].items():
            assert torch.equal(tensor, last["network"][name]), (result, name)
        assert again["recorder"].get("early_stop") == last["recorder"].get("early_stop"), result
        assert (folder / "evaluations" / "scans-test" / "cases.csv").read_text() == scores, result
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in reference.iterdir())
