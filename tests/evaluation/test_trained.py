"""A run folder is enough to use its model, and says what it lacks where it is not."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.networks.nets import BasicUNet
from PIL import Image

from monai_thyroid.data import load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import TrainedRun
from monai_thyroid.evaluation.components import without_pretraining
from monai_thyroid.files import sha256_file, write_json
from monai_thyroid.networks import EncoderUNet
from monai_thyroid.runfolder.folder import write_yaml

FEATURES = (4, 4, 8, 8, 8, 4)
SHAPE = (24, 30)


def write_scans(root: Path, *, seed: int = 0) -> Path:
    for part, count in (("trainval", 4), ("test", 2)):
        for index in range(count):
            random = np.random.RandomState(seed + 10 * len(part) + index)
            mask = np.zeros(SHAPE, np.uint8)
            mask[4:12, 6:20] = 255
            for kind, pixels in (("image", random.randint(0, 256, SHAPE).astype(np.uint8)), ("mask", mask)):
                path = root / f"{part}-{kind}" / f"{part}{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return write_scans(tmp_path / "scans")


def network() -> BasicUNet:
    torch.manual_seed(5)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=FEATURES)


@pytest.fixture
def run(tmp_path: Path, scans: Path) -> Path:
    """A folder with what a finished training leaves that its users read."""
    folder = tmp_path / "run"
    folder.mkdir()
    data = {"_target_": "monai_thyroid.data.load_datalist", "dataset_dir": "@dataset_dir", "layout": "tn3k"}
    unet = {"_target_": "monai.networks.nets.BasicUNet", "_mode_": "callable", "features": list(FEATURES)}
    config: dict[str, Any] = {
        "dataset_dir": str(scans),
        "network": "unet",
        "networks": {"unet": {**unet, "spatial_dims": 2, "in_channels": 1, "out_channels": "$len(@classes)"}},
        "network_def": "$@networks[@network]()",
        "classes": ["nodule"],
        "data": data,
        "image_transforms": [{"_target_": "monai_thyroid.transforms.LoadScand", "keys": "image"}],
    }
    write_yaml(folder / "config.yaml", config)
    torch.save(network().state_dict(), folder / "model.pt")
    datalist = load_datalist(str(scans), layout="tn3k")
    write_json(folder / "split.json", datalist.split())
    record = {
        "status": "done",
        "dataset": "scans",
        "dataset_dir": str(scans),
        "data_hash": datalist.inspect().data_hash,
        "classes": ["nodule"],
        "activation": "sigmoid",
        "threshold": 0.4,
        "checkpoint_sha256": sha256_file(folder / "model.pt"),
    }
    write_json(folder / "run.json", record)
    return folder


def change(run: Path, **values: Any) -> None:
    record = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", {**record, **values})


def test_a_run_gives_its_network_its_transforms_and_its_threshold(run: Path) -> None:
    trained = TrainedRun(str(run))
    given = trained.network()
    assert not given.training
    expected = network().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in given.state_dict().items())
    assert (trained.classes, trained.threshold) == (["nodule"], 0.4)
    assert trained.checkpoint_sha256 == sha256_file(run / "model.pt")
    (load,) = trained.parsed("image_transforms")
    assert type(load).__name__ == "LoadScand"


@pytest.mark.parametrize("trust", [True, False])
def test_reading_the_dataset_does_not_part_the_transforms_from_their_inverse(run: Path, trust: bool) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    both = {"_target_": "Compose", "transforms": "@image_transforms"}
    invert = {"_target_": "Invertd", "keys": "pred", "transform": both, "orig_keys": "image"}
    write_yaml(run / "config.yaml", {**config, "to_original_grid": [invert], "measures": ["$1 + 1"] if trust else []})
    trained = TrainedRun(str(run), trust=trust)
    before = trained.parsed("image_transforms")
    trained.datalist()
    (inverse,) = trained.parsed("to_original_grid")
    assert inverse.transform.transforms[0] is before[0]
    assert trained.parsed("measures") == ([2] if trust else [])


def test_a_run_of_before_the_grid_had_a_name_is_read(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    chain = [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]
    config["test"] = {"postprocessing": {"_target_": "Compose", "transforms": chain}, "scores": "@absent"}
    write_yaml(run / "config.yaml", config)
    trained = TrainedRun(str(run))
    (activation,) = trained.parsed("to_original_grid")
    assert type(activation).__name__ == "Activationsd"
    assert trained.parsed("measures") == []


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_run_must_be_named(nothing: str | None) -> None:
    with pytest.raises(UserError, match="--run_dir runs/"):
        TrainedRun(nothing)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="is not a run folder") as caught:
            TrainedRun(str(path))
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("removed", "words"),
    [
        (["model.pt"], "has no model.pt;"),
        (["config.yaml"], "has no config.yaml;"),
        (["config.yaml", "model.pt"], "has no config.yaml and no model.pt;"),
    ],
)
def test_a_run_that_did_not_get_far_says_what_it_lacks(run: Path, removed: list[str], words: str) -> None:
    for name in removed:
        (run / name).unlink()
    with pytest.raises(UserError) as caught:
        TrainedRun(str(run))
    assert words in str(caught.value)


def test_weights_that_changed_are_refused(run: Path) -> None:
    content = bytearray((run / "model.pt").read_bytes())
    content[-1] ^= 1
    (run / "model.pt").write_bytes(bytes(content))
    with pytest.raises(UserError, match="SHA-256 differs") as caught:
        TrainedRun(str(run))
    assert str(run / "model.pt") in str(caught.value)


def test_files_that_contradict_each_other_are_refused_at_once(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    write_yaml(run / "config.yaml", {**config, "classes": ["gland"], "threshold": 0.6, "activation": "softmax"})
    weights = network().state_dict()
    weights["final_conv.bias"][:] = float("nan")
    torch.save(weights, run / "model.pt")
    change(run, checkpoint_sha256=sha256_file(run / "model.pt"))
    with pytest.raises(UserError) as caught:
        TrainedRun(str(run))
    told = caught.value.problems
    assert len(told) == 4
    for name, problem in zip(("classes", "activation", "threshold"), told, strict=False):
        assert f"{name} is" in problem
        assert "in config.yaml" in problem
    assert "no finite numbers (final_conv.bias)" in told[3]


def test_a_run_without_classes_is_refused(run: Path) -> None:
    change(run, classes=None)
    with pytest.raises(UserError, match=r"run\.json: lacks classes"):
        TrainedRun(str(run))


class Foreign(BasicUNet):
    """Somebody else's network, whose arguments have names that our pretrained ones use for something else."""

    def __init__(self, weights: int, mean: float = 0.0, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.given = weights, mean


def test_a_foreign_network_keeps_its_arguments(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["networks"]["unet"] |= {"_target_": f"{__name__}.Foreign", "weights": 3, "mean": 0.5}
    write_yaml(run / "config.yaml", config)
    with pytest.raises(UserError, match=rf"applied::network: {__name__}\.Foreign(.|\n)*--trust true"):
        TrainedRun(str(run))
    for trust in (True, "true", "True"):
        assert TrainedRun(str(run), trust=trust).network().given == (3, 0.5)
    with pytest.raises(UserError, match="trust 'yes': write true or false"):
        TrainedRun(str(run), trust="yes")


def test_a_strangers_run_executes_nothing(run: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["imports"] = [f"$__import__('pathlib').Path({str(mark)!r}).touch()"]
    config["image_transforms"].append({"_target_": "os.system", "command": f"touch {mark}"})
    config["unused"] = f"$open({str(mark)!r}, 'w')"
    write_yaml(run / "config.yaml", config)
    with pytest.raises(UserError, match=r"applied::image_transforms::1: os\.system"):
        TrainedRun(str(run))
    config["image_transforms"].pop()
    write_yaml(run / "config.yaml", config)
    trained = TrainedRun(str(run))
    trained.network()
    trained.datalist()
    for name in ("image_transforms", "measures"):
        trained.parsed(name)
    for name in ("unused", "imports"):
        with pytest.raises(UserError, match=f"holds no applied {name}"):
            trained.parsed(name)
    assert not mark.exists()


def test_what_was_resolved_when_trained_is_what_is_used(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    applied = {
        "network": {**config["networks"]["unet"], "out_channels": 1},
        "image_transforms": config["image_transforms"],
        "data": {**config["data"], "dataset_dir": config["dataset_dir"]},
    }
    del applied["network"]["_mode_"]
    config["networks"]["unet"]["out_channels"] = "$open('/dev/null').fileno()"
    write_yaml(run / "config.yaml", {**config, "applied": applied})
    trained = TrainedRun(str(run))
    expected = network().state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in trained.network().state_dict().items())
    assert len(trained.datalist().part("all")) == 6


def test_weights_of_another_network_are_one_message(run: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, run / "model.pt")
    change(run, checkpoint_sha256=None)
    with pytest.raises(UserError, match="these weights are not of this network") as caught:
        TrainedRun(str(run)).network()
    assert str(run / "model.pt") in caught.value.problems[0]


def test_our_own_pretrained_networks_need_their_weights_no_more() -> None:
    segnet = {"_target_": "monai_thyroid.networks.SegNet", "weights": "gone.pth", "in_channels": 1}
    assert without_pretraining(segnet) == {"_target_": "monai_thyroid.networks.SegNet", "in_channels": 1}
    assert set(EncoderUNet.pretraining_arguments) == {"weights", "mean", "std"}


def test_an_unfinished_run_is_used_with_a_warning(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    change(run, status="running", checkpoint_sha256=None)
    with caplog.at_level(logging.WARNING):
        TrainedRun(str(run)).network()
    assert "is not finished (running)" in caplog.text


def test_the_runs_own_dataset_is_read_without_a_word(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="monai_thyroid.evaluation"):
        data = TrainedRun(str(run)).datalist()
    assert data.inspect().data_hash == json.loads((run / "run.json").read_text())["data_hash"]
    assert caplog.messages == []


def test_a_dataset_that_moved_is_looked_for_and_then_asked_for(run: Path, scans: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "archive" / "scans"
    elsewhere.parent.mkdir()
    shutil.move(scans, elsewhere)
    trained = TrainedRun(str(run))
    with pytest.raises(UserError, match="--dataset_dir DIR") as caught:
        trained.datalist()
    assert str(scans) in str(caught.value)
    assert len(trained.datalist(str(elsewhere)).part("all")) == 6


def test_a_relative_dataset_is_found_from_another_folder(
    run: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace(f"dataset_dir: {scans}", "dataset_dir: ./scans"))
    monkeypatch.chdir(run)
    assert TrainedRun(str(run)).dataset_dir == str(scans)


def test_data_that_changed_is_said(run: Path, scans: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(scans / "test-mask" / "test0.png")
    with caplog.at_level(logging.WARNING):
        TrainedRun(str(run)).datalist()
    assert "is not what it was when this run was trained" in caplog.text


def test_images_that_were_trained_on_are_counted(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trained = TrainedRun(str(run))
    other = write_scans(tmp_path / "other", seed=1000)
    with caplog.at_level(logging.WARNING):
        trained.datalist(str(other))
    assert "training part" not in caplog.text
    split = json.loads((run / "split.json").read_text())
    seen = split["parts"]["train"]["cases"][0]
    shutil.copy(tmp_path / "scans" / "trainval-image" / f"{seen}.png", other / "test-image" / "test0.png")
    with caplog.at_level(logging.WARNING):
        trained.datalist(str(other))
    assert "1 of the images of other were in this run's training part" in caplog.text


def test_a_run_of_the_former_code_is_applied_without_evaluating_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monai.bundle.config_item.ConfigExpression.evaluate", None)
    trained = TrainedRun(str(root / "tests" / "data" / "older_run"))
    trained.rehearse()
    assert list(trained.parsed("image_transforms")[1].resizer.spatial_size) == [32, 32]
    assert trained.parsed("measures") == []
