"""The commands of MONAI with a stranger's run, and with what only shows while they run: one message, no traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from forked import run_module
from fuzz import World
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import TrainedRun

pytestmark = pytest.mark.slow


def bundle(root: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    config = str(root / "bundles" / "thyroid" / f"{name}.yaml")
    return run_module("monai.bundle", "run", "--config_file", config, "--device", "cpu", *options)


@pytest.fixture
def stranger(world: World, tmp_path: Path) -> tuple[Path, Path]:
    """A run that would touch a file, and the file."""
    run, mark = world.copy("run", tmp_path), tmp_path / "was run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["applied"]["image_transforms"].append({"_target_": "os.system", "command": f"touch '{mark}'"})
    config["applied"]["measures"] = f"$open({str(mark)!r}, 'w')"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run, mark


@pytest.mark.parametrize("name", ["evaluate", "inference"])
def test_a_strangers_run_executes_nothing(
    root: Path, world: World, stranger: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    run, mark = stranger
    before = sorted(run.rglob("*"))
    more = ["--input", str(world.scans / "test-image"), "--output_dir", str(tmp_path / "out")]
    done = bundle(root, name, "--run_dir", str(run), *(more if name == "inference" else []))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "applied::image_transforms::2: os.system" in done.stderr
    assert "applied::measures: the expression $open" in done.stderr
    assert "--trust true" in done.stderr
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    assert sorted(run.rglob("*")) == before


def test_check_reads_a_run_as_data(
    stranger: tuple[Path, Path], world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mark = stranger
    assert cli.main(["check", str(run / "config.yaml")]) == 1
    assert "os.system" in capsys.readouterr().err
    assert not mark.exists()
    assert cli.main(["check", str(world.run / "config.yaml")]) == 0
    assert cli.main(["check", str(world.run / "config.yaml"), "--trust", "perhaps"]) == 1
    assert "write true or false" in capsys.readouterr().err
    assert cli.main(["check", str(world.run / "config.yaml"), "--seed", "1"]) == 1
    assert "option --seed" in capsys.readouterr().err


def test_what_shows_only_while_it_runs_is_one_message(root: Path, world: World, tmp_path: Path) -> None:
    """The result folder is there, but a file of somebody else's appears in it after the check."""
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 50), 90, np.uint8)).save(source / f"{name}.png")
    out = tmp_path / "out"
    out.mkdir()
    # A folder where a file is to be written passes for "not ours" only when it is written to.
    (out / "b_overlay.png").symlink_to("/dev/full")
    done = bundle(root, "inference", "--run_dir", str(world.run), "--input", str(source), "--output_dir", str(out))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "b_overlay.png" in done.stderr


def test_inference_without_an_input_asks_for_it(root: Path, world: World) -> None:
    done = bundle(root, "inference", "--run_dir", str(world.run))
    assert done.returncode == 1
    assert "--input PATH" in done.stderr
    assert "dataset_dir" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_value_that_means_something_to_monai_is_told(
    root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.chdir(tmp_path)
    train = str(root / "bundles" / "thyroid" / "train_course.yaml")
    assert cli.main(["check", train, "--dataset_dir", "%x"]) == 1
    assert "%" in capsys.readouterr().err
    assert cli.main(["check", train, "--dataset_dir", "a#b"]) == 1
    assert "# or ::" in capsys.readouterr().err
    assert cli.main(["check", train, "--dataset_dir", "2024"]) == 1
    assert "2024: no such folder" in capsys.readouterr().err.replace("dataset_dir ", "")
    (tmp_path / "2024").symlink_to(world.scans)
    tiny = ["--image_size", "32", "--networks::unet::features", "[4,4,4,4,4,4]", "--device", "cpu"]
    assert cli.main(["check", train, "--dataset_dir", "2024", *tiny]) == 0


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--optimizer::lr", "-1", "optimizer"),
        ("--loss::_target_", "NoSuchLoss", "NoSuchLoss"),
        ("--loss::_target_", "torch.nn.CosineEmbeddingLoss", "loss"),
        ("--device", "meta", "device 'meta'"),
    ],
)
def test_a_training_that_cannot_begin_is_one_message(
    root: Path, world: World, tmp_path: Path, option: str, value: str, words: str
) -> None:
    tiny = ["--image_size", "32", "--networks::unet::features", "[4,4,4,4,4,4]", "--max_epochs", "1"]
    given = ["--dataset_dir", str(world.scans), "--output_dir", str(tmp_path / "runs"), *tiny, option, value]
    done = bundle(root, "train", *given)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert words in done.stderr
    for record in tmp_path.rglob("run.json"):
        assert '"failed"' in record.read_text()


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("to_original_grid", 0, "transform", "transforms"), [{"_target_": "torch.nn.ReLU"}], "does not fit together"),
        (("image_transforms", 1, "spatial_size"), [3, 3], "does not fit together"),
        (("to_original_grid",), [], "for an image and classes of"),
        (("network", "out_channels"), 2, "these weights are not of this network"),
    ],
)
def test_a_run_that_does_not_fit_together_is_told_before_anything_is_written(
    world: World, tmp_path: Path, place: tuple[str | int, ...], value: object, words: str
) -> None:
    run = world.copy("run", tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    node = config["applied"]
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=words) as caught:
        TrainedRun(str(run)).rehearse()
    assert str(run) in str(caught.value)


def test_a_comparison_refuses_before_it_trains(
    root: Path, world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = str(root / "bundles" / "thyroid" / "train_course.yaml")
    tiny = ["--image_size", "32", "--networks::unet::features", "[4,4,4,4,4,4]", "--device", "cpu"]
    command = ["compare", train, "--networks", "unet", "--dataset_dir", str(world.scans), *tiny]
    for margin in ("nan", "inf", "-1"):
        assert cli.main([*command, "--output", str(tmp_path / "new"), f"--margin={margin}"]) == 1
        assert "--margin" in capsys.readouterr().err
    scans = world.copy("scans", tmp_path)
    before = sorted(scans.rglob("*"))
    assert cli.main([*command, "--output", str(scans)]) == 1
    assert f"--output {scans}: holds other things than a comparison" in capsys.readouterr().err
    (tmp_path / "plan").mkdir()
    for content in ("", "[]", "{}"):
        (tmp_path / "plan" / "plan.json").write_text(content)
        assert cli.main([*command, "--output", str(tmp_path / "plan")]) == 1
        assert "is not the plan of a comparison" in capsys.readouterr().err
    assert sorted(scans.rglob("*")) == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["predict", "export"])
def test_predictions_and_exports_read_a_run_as_data(
    command: str, stranger: tuple[Path, Path], world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, mark = stranger
    more = {"predict": [str(world.scans / "test-image"), "--output", str(tmp_path / "out")], "export": []}[command]
    assert cli.main([command, str(run), *more]) == 1
    told = capsys.readouterr().err
    assert "applied::image_transforms::2: os.system" in told
    assert "--trust true" in told
    assert not mark.exists()
    assert cli.main([command, str(run), *more, "--trust", "perhaps"]) == 1
    assert "--trust 'perhaps': write true or false" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
