"""Exports are verified on the run's own images, and used by predictions where they are as good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from made_trained import with_data

from monai_thyroid.cli import main
from monai_thyroid.deploy.export import _judged, export
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.runtimes import candidates, exports_of, mean_dice
from monai_thyroid.files import read_json, write_json
from monai_thyroid.images import read_raster


@pytest.fixture(scope="module")
def exported(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run = with_data(tmp_path_factory.mktemp("runs") / "run", scans)
    return run, export(run, int8=True, images=4)


def test_every_format_is_written_and_compared(exported: tuple[Path, dict[str, Any]]) -> None:
    run, content = exported
    assert content == json.loads((run / "exports" / "exports.json").read_text())
    assert set(content["exports"]) == {"torchscript", "onnx", "openvino", "onnx-int8", "openvino-int8"}
    for name, row in content["exports"].items():
        assert (run / "exports" / row["file"]).is_file(), name
        assert row["bytes"] > 1000, name
        assert row["ms"] > 0, name
        if not name.endswith("int8"):
            assert row["dice_to_checkpoint"] > 0.9999, name
            assert row["dice"] == pytest.approx(content["checkpoint"]["dice"], abs=1e-3), name
            assert row["taken"], name
    assert content["images"] == 4
    assert content["calibrated_on"] > 4


def test_predictions_use_what_was_exported(exported: tuple[Path, dict[str, Any]], scans: Path) -> None:
    run, content = exported
    names = candidates(Model(run), device="cpu")
    assert "onnx-float32" in names
    for name in ("openvino", "onnx"):
        assert (f"{name}-int8" in names) == content["exports"][f"{name}-int8"]["taken"]
    images = [read_raster(path) for path in sorted(scans.rglob("test-image/*"))][:3]
    expected = [each.mask for each in Predictor(run, device="cpu", runtime="torch-float32").batch(images)]
    for name in ("onnx-float32", "openvino-float32"):
        masks = [each.mask for each in Predictor(run, device="cpu", runtime=name).batch(images)]
        assert mean_dice(masks, expected, classes=1) > 0.9999
    assert not (run / "runtimes" / "openvino.xml").exists()  # the export serves


def test_an_int8_that_costs_too_much_is_not_taken() -> None:
    checkpoint = {"dice": 0.80}
    assert _judged("onnx-int8", {"dice": 0.796, "dice_to_checkpoint": 0.999}, checkpoint)["taken"]
    # What --runtime auto would leave is not called taken.
    other = _judged("onnx-int8", {"dice": 0.80, "dice_to_checkpoint": 0.985}, checkpoint)
    assert other == {"taken": False, "why": "its masks are not those of the checkpoint (mean Dice below 0.998)"}
    verdict = _judged("onnx-int8", {"dice": 0.794, "dice_to_checkpoint": 0.99}, checkpoint)
    assert verdict == {"taken": False, "why": "costs 0.0060 Dice, more than 0.005"}
    assert not _judged("onnx", {"dice": 0.8, "dice_to_checkpoint": 0.99}, checkpoint)["taken"]


def test_exports_of_other_weights_do_not_count(scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = with_data(tmp_path / "run", scans)
    content = export(run, formats=["torchscript"], images=2)
    assert set(content["exports"]) == {"torchscript"}
    assert set(export(run, formats=["openvino"], images=2)["exports"]) == {"torchscript", "openvino"}
    write_json(run / "exports" / "exports.json", {**content, "checkpoint_sha256": "0" * 64})
    assert exports_of(Model(run)) == {}
    assert "other weights" in caplog.text


def test_what_cannot_be_exported_is_said(scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = with_data(tmp_path / "run", scans)
    with pytest.raises(UserError, match="choose of torchscript,onnx,openvino"):
        export(run, formats=["coreml"])
    with pytest.raises(UserError, match="add one of them"):
        export(run, formats=["torchscript"], int8=True)
    assert main(["export", str(run), "--format", "torchscript"]) == 0
    assert "Dice to checkpoint" in capsys.readouterr().out
    record = read_json(run / "run.json")
    config = (run / "config.yaml").read_text().replace(str(scans), str(tmp_path / "gone"))
    (run / "config.yaml").write_text(config)
    write_json(run / "run.json", {**record, "dataset_dir": str(tmp_path / "gone")})
    assert main(["export", str(run), "--format", "torchscript"]) == 1
    assert "--dataset_dir" in capsys.readouterr().err
    assert main(["export", str(run), "--format", "torchscript", "--dataset_dir", str(scans)]) == 0
