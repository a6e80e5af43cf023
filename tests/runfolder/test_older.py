"""A run folder that an earlier version left (schema 1) is evaluated, applied and reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from monai.bundle import create_workflow
from PIL import Image

from monai_thyroid.compare.reading import comparability, find_runs
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import TrainedRun
from monai_thyroid.files import read_csv
from monai_thyroid.images import write_phantom
from monai_thyroid.runfolder import SCHEMA_VERSION, read_config, read_run
from monai_thyroid.runfolder.older import migrated


@pytest.fixture
def older(root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(root / "tests" / "data" / "older_run", tmp_path / "older_run"))


def execute(config_file: Path, **options: object) -> None:
    workflow = create_workflow(config_file=str(config_file), logging_file=False, device="cpu", **options)
    workflow.run()
    workflow.finalize()


def test_its_scores_come_out_again(root: Path, older: Path) -> None:
    before = read_csv(older / "evaluations" / "phantom-test" / "cases.csv")
    shutil.rmtree(older / "evaluations")
    execute(root / "bundles" / "thyroid" / "evaluate.yaml", run_dir=str(older), precision="bfloat16")
    (path,) = older.glob("evaluations/phantom-test*/cases.csv")
    after = read_csv(path)
    record, run = json.loads(path.with_name("evaluation.json").read_text()), read_run(older)
    assert record["schema_version"] == SCHEMA_VERSION
    # Another numpy rounds a few of the phantom's pixels otherwise.
    same = record["data_hash"] == run.data_hash
    assert same or np.__version__ != run["versions"]["numpy"]
    assert [row["case"] for row in after] == [row["case"] for row in before]
    for one, other in zip(before, after, strict=True):
        for name in ("dice", "iou", "recall", "nsd"):
            assert float(other[name]) == pytest.approx(float(one[name]), abs=1e-4 if same else 0.02), name
        assert float(other["hd95"]) == pytest.approx(float(one["hd95"]), rel=1e-2 if same else 0.1)


def test_it_segments_an_image(root: Path, older: Path, tmp_path: Path) -> None:
    scans = write_phantom(tmp_path / "scans", cases=10, seed=0, height=48, width=64)
    image = sorted((scans / "test-image").iterdir())[0]
    options = {"input": str(image), "output_dir": str(tmp_path / "predictions")}
    execute(root / "bundles" / "thyroid" / "inference.yaml", run_dir=str(older), **options)
    with Image.open(tmp_path / "predictions" / f"{image.stem}_mask.png") as mask:
        assert mask.size == (64, 48)
        assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_the_way_back_to_the_original_grid_is_that_of_its_test(older: Path) -> None:
    trained = TrainedRun(str(older))
    prepared = trained.parsed("image_transforms")
    trained.datalist()
    pad, invert, _ = trained.parsed("to_original_grid")
    assert type(pad).__name__ == "SpatialPadd"
    assert invert.transform.transforms[0] is prepared[0]
    assert trained.parsed("measures") == []


def test_it_is_reported(older: Path) -> None:
    runs, unusable = find_runs([older])
    assert not unusable
    assert (runs[0].grouping, runs[0].synthetic, runs[0].best_validation) == ("known", True, 0.0344119668006897)
    assert comparability(runs) == ([], [])


def test_names_that_moved_are_replaced_and_nothing_else(older: Path) -> None:
    before = yaml.safe_load((older / "config.yaml").read_text())
    after = read_config(older)
    text = yaml.safe_dump(after)
    assert "runs" not in text.replace("/oldrun", "")
    assert "monai_thyroid.data.Load" not in text
    assert after["data"]["_target_"] == "monai_thyroid.data.load_datalist"
    assert after["network_def"] == before["network_def"]
    assert after["input_size"] == "$training.input_size(@network_def, image_size=@image_size)"
    assert after["to_original_grid"] == before["test"]["postprocessing"]["transforms"]
    mine = {"a": "$runs.input_size(1) + overruns.input_size", "b": {"_target_": "mine.monai_thyroid.runs.Recorder"}}
    assert migrated(mine, version=1)["a"] == "$training.input_size(1) + overruns.input_size"
    assert migrated(mine, version=1)["b"] == mine["b"]
    assert migrated(mine, version=SCHEMA_VERSION)["a"] == mine["a"]


def test_a_run_of_a_later_version_is_refused(older: Path) -> None:
    for name, text in (
        ("config.yaml", f"schema_version: {SCHEMA_VERSION + 1}\n"),
        ("run.json", '{"schema_version": 9}'),
    ):
        (older / name).write_text(text)
        with pytest.raises(UserError, match="update it"):
            (read_config if name == "config.yaml" else read_run)(older)
