"""Gain and cost of an ensemble and of mirror images."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_trained import made_trained

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import TrainedRun, measure_gain
from monai_thyroid.files import read_json, write_json
from monai_thyroid.images import write_phantom

MIRRORING = {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with other weights, on the same scans."""
    folder = tmp_path_factory.mktemp("gain")
    scans = write_phantom(folder / "scans", cases=10, seed=0, height=48, width=64)
    made = []
    for seed in (0, 1):
        run = made_trained(folder / f"seed-{seed}", seed=seed, dataset_dir=str(scans), augmentation=[MIRRORING])
        write_json(run / "split.json", {"parts": {}})
        data_hash = TrainedRun(str(run)).datalist(str(scans)).inspect().data_hash
        write_json(run / "run.json", {**read_json(run / "run.json"), "dataset_dir": str(scans), "data_hash": data_hash})
        made.append(run)
    return made


def test_each_way_is_beside_the_first_run(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    gains = measure_gain(runs, tta=True, device="cpu")
    names = [str(runs[0]), str(runs[1]), "all 2 together"]
    assert [one.name for one in gains] == [*names, *(f"{name}, mirror images" for name in names)]
    assert gains[0].gain == 0
    assert len({one.dice for one in gains}) > 3
    assert all(one.ms > 0 for one in gains)
    alone = measure_gain([runs[1]], device="cpu")
    assert [one.dice for one in alone] == [gains[1].dice]
    assert cli.main(["gain", *map(str, runs), "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[3].startswith("all 2 together")
    assert f"{gains[2].dice:.4f}" in lines[3]


def test_runs_of_another_split_are_refused(runs: list[Path], tmp_path: Path) -> None:
    other = made_trained(tmp_path / "other", seed=2)
    with pytest.raises(UserError, match="images of the part validation may be among those it was trained on"):
        measure_gain([runs[0], other], device="cpu")
