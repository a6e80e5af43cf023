"""The strong recipe of every bundle: it trains, is scored, applied, resumed, and keeps to a time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from monai_thyroid.deploy.pack import pack
from monai_thyroid.evaluation import Predictor
from monai_thyroid.evaluation.pixels import PixelPath
from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import read_raster, write_phantom
from monai_thyroid.runfolder import RunFolder
from monai_thyroid.training import Recorder
from monai_thyroid.training import recorder as recording


@pytest.fixture(scope="session")
def strong(train_strong: Callable[..., Path], scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `scans`; tests must not change it."""
    return train_strong(dataset_dir=str(scans), output_dir=str(tmp_path_factory.mktemp("strong")), max_epochs=3)


def history(folder: Path) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key != "seconds"} for row in read_csv(folder / "history.csv")]


def test_all_parts_are_there(strong: Path, scans: Path) -> None:
    config = yaml.safe_load((strong / "config.yaml").read_text())
    pixels = [read_raster(path).pixels for path in (scans / "trainval-image").iterdir()]
    assert config["normalisation"]["mean"][0] == pytest.approx(np.mean(pixels) / 255, abs=0.03)
    last = torch.load(strong / "last.pt", weights_only=True)
    model = torch.load(strong / "model.pt", weights_only=True)
    assert last["recorder"]["average"]["updates"] == last["recorder"]["lr_scheduler"]["step"] > 0
    assert not all(torch.equal(model[key], last["network"][key]) for key in model), "the average is delivered"
    rates = [float(row["lr"]) for row in history(strong)]
    assert rates[1] > rates[2], "the rate falls"
    assert last["recorder"]["optimizer"]["param_groups"][1]["weight_decay"] == 0


def test_predict_gives_the_masks_that_were_scored(strong: Path, scans: Path) -> None:
    predictor = Predictor(strong, device="cpu", runtime="torch-float32", tta=False)
    assert isinstance(predictor.members[0].pixels, PixelPath)
    assert predictor.members[0].flips == [0]
    folder = strong / "evaluations" / "scans-test" / "predictions"
    marked = 0
    for path in sorted((scans / "test-image").iterdir()):
        scored = np.asarray(Image.open(folder / f"{path.stem}.png")) > 0
        found = predictor(read_raster(path)).mask > 0
        np.testing.assert_array_equal(found, scored)
        marked += scored.sum()
    assert marked > 0


def test_a_training_image_is_what_is_applied(root: Path, scans: Path, tiny: dict[str, Any]) -> None:
    parser = ConfigParser()
    parser.read_config(root / "bundles" / "thyroid" / "train.yaml")
    parser.update({**tiny, "dataset_dir": str(scans), "train::dataloader::augmentation": None})
    parser.update({"train::dataloader::shuffle": False, "augmentation": []})
    first = next(iter(parser.get_parsed_content("train::dataloader")))
    item = dict(parser.get_parsed_content("data").part("train")[0])
    for transform in parser.get_parsed_content("image_transforms"):
        item = transform(item)
    step = 1 / 255 / parser.get_parsed_content("normalisation")["std"][0]
    assert torch.allclose(first["image"][0], item["image"].as_tensor(), atol=0.51 * step), "bytes, half a step apart"


def test_resuming_is_exact(
    train_strong: Callable[..., Path], strong: Path, scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = Recorder.epoch_started

    def interrupted(self: Recorder, engine: Any) -> None:
        if engine.state.epoch == 3:
            raise RuntimeError("power cut")
        started(self, engine)

    def slow(content: dict[str, Any], path: Path) -> None:
        time.sleep(0.5)
        save(content, path)

    given, save = {"dataset_dir": str(scans), "max_epochs": 3}, recording.save
    models = []
    for name in ("each", "seldom"):
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "epoch_started", interrupted)
            if name == "seldom":  # checkpoints, then; but the best weights are not lost with the training
                patch.setattr(recording, "save", slow)
                patch.setattr(recording, "_FREE_SECONDS", 0.0)
            with pytest.raises(RuntimeError):
                train_strong(**given, output_dir=str(tmp_path / name))
        (cut,) = (tmp_path / name).rglob("run.json")
        models.append(torch.load(cut.with_name("model.pt"), weights_only=True))
        last = torch.load(cut.with_name("last.pt"), weights_only=True)
        assert last["epoch"] == {"each": 2, "seldom": 1}[name]
        assert last["recorder"]["best_epoch"] == 2
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])
    resumed = train_strong(**given, output_dir=str(tmp_path / "seldom"), resume=True)
    assert history(resumed) == history(strong)
    for name in ("model.pt", "last.pt"):
        one, other = (torch.load(folder / name, weights_only=True) for folder in (strong, resumed))
        weights = (one, other) if name == "model.pt" else (one["network"], other["network"])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_other_networks_and_options(train_strong: Callable[..., Path], scans: Path, tmp_path: Path) -> None:
    given = {"dataset_dir": str(scans), "output_dir": str(tmp_path), "max_epochs": 2, "val_interval": 2}
    unpadded = {"network": "unpadded_unet", "image_size": 190, "networks::unpadded_unet::filters": [2, 2, 2, 2, 2]}
    run = train_strong(**given, **unpadded, weight_decay=0.0, channels_last=None, precision="bfloat16", channels=3)
    assert read_json(run / "run.json")["status"] == "done"
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["channels_last"] in (True, False), "what was measured stands in the run"
    assert all(math.isfinite(float(row["val_loss"])) for row in history(run)[1:])


def test_starting_from_a_run_takes_its_normalisation(
    train_strong: Callable[..., Path], strong: Path, trained: Path, tmp_path: Path
) -> None:
    other = write_phantom(tmp_path / "other", cases=8, seed=5, height=48, width=48)
    given = {"dataset_dir": str(other), "output_dir": str(tmp_path / "runs"), "max_epochs": 1}
    kept = {}
    packed = pack([strong], output=tmp_path / "packed", report=False).path
    for name, parent in (("strong", strong), ("packed", packed), ("course", trained), ("none", None)):
        run = train_strong(**given, init_from=parent and str(parent), overwrite=True)
        kept[name] = yaml.safe_load((run / "config.yaml").read_text())["normalisation"]
    assert kept["strong"] == yaml.safe_load((strong / "config.yaml").read_text())["normalisation"]
    assert kept["packed"] == kept["strong"]
    card = (packed / "docs" / "README.md").read_text("utf-8")
    assert "normalised by the training images |" in card
    assert "| 0 | none |" in card, "seed and fold"
    assert kept["course"] == {"mean": [0.0], "std": [1.0]}
    assert kept["none"]["mean"] not in (kept["strong"]["mean"], [0.0])


def test_a_pretrained_encoder_keeps_its_own_normalisation(root: Path, scans: Path, tmp_path: Path) -> None:
    from monai_thyroid.networks import EncoderUNet

    encoder = EncoderUNet(encoder="mobilenet_v2", in_channels=3, out_channels=1).encoder
    torch.save(encoder.state_dict(), tmp_path / "encoder.pth")
    parser = ConfigParser()
    parser.read_config(root / "bundles" / "thyroid" / "train.yaml")
    parser.update({"dataset_dir": str(scans), "image_size": 32, "network": "mobilenet_v2_unet"})
    parser["networks::mobilenet_v2_unet::weights"] = str(tmp_path / "encoder.pth")
    assert parser.get_parsed_content("normalisation") == {"mean": [0.0], "std": [1.0]}


def test_a_training_keeps_to_its_time_and_resumes_to_the_same_end(
    train_strong: Callable[..., Path],
    scans: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A clock that goes on with each step, whatever this machine does.
    clock = Clock(monkeypatch)
    given = {"dataset_dir": str(scans), "hours": 45 / 3600}
    began, decided = clock.now, []
    decide = RunFolder.decide
    monkeypatch.setattr(
        RunFolder,
        "decide",
        lambda folder, **values: (
            decided.append(clock.steps) if "max_epochs" in values else None,
            decide(folder, **values),
        ),
    )
    with caplog.at_level("INFO"):
        whole = train_strong(**given, output_dir=str(tmp_path / "whole"))
    epochs = len(history(whole))
    assert yaml.safe_load((whole / "config.yaml").read_text())["max_epochs"] == epochs
    assert f"{epochs} epochs of {clock.steps / epochs:.1f} s fit into" in caplog.text
    assert clock.now - began == pytest.approx(45, rel=0.1)
    assert float(history(whole)[-1]["lr"]) < 0.1 * max(float(row["lr"]) for row in history(whole))

    clock.power_cut = clock.steps + clock.steps // 2
    with pytest.raises(RuntimeError):
        train_strong(**given, output_dir=str(tmp_path / "cut"))
    clock.power_cut, clock.step = None, 5.0  # a slower machine: the same end nevertheless
    resumed = train_strong(**given, output_dir=str(tmp_path / "cut"), resume=True)
    assert history(resumed) == history(whole)
    assert resumed.relative_to(tmp_path / "cut") == whole.relative_to(tmp_path / "whole"), "one protocol"

    with monkeypatch.context() as patch:  # soon after it was decided, and no other checkpoint was written since
        patch.setattr(recording, "_FREE_SECONDS", -1.0)
        clock.step, clock.power_cut = 1.0, clock.steps + decided[0] + 1
        with pytest.raises(RuntimeError):
            train_strong(**given, output_dir=str(tmp_path / "soon"))
    clock.power_cut = None
    assert history(train_strong(**given, output_dir=str(tmp_path / "soon"), resume=True)) == history(whole)

    clock.power_cut = clock.steps + 1  # before anything was decided
    with pytest.raises(RuntimeError):
        train_strong(**given, output_dir=str(tmp_path / "early"))
    clock.power_cut, clock.step = None, 1.0
    assert history(train_strong(**given, output_dir=str(tmp_path / "early"), resume=True)) == history(whole)

    with caplog.at_level("WARNING"):
        short = train_strong(**{**given, "hours": 1e-9}, output_dir=str(tmp_path / "short"))
    assert len(history(short)) == 1
    assert "1e-09 hours are over after 1 epochs" in caplog.text


class Clock:
    """`time.perf_counter` as a count of training steps, and a power cut at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.step, self.steps = 1000.0, 1.0, 0
        self.power_cut: int | None = None
        completed = Recorder.iteration_completed

        def stepped(recorder: Recorder, engine: Any) -> None:
            self.steps += 1
            if self.steps == self.power_cut:
                raise RuntimeError("power cut")
            self.now += self.step
            completed(recorder, engine)

        monkeypatch.setattr(Recorder, "iteration_completed", stepped)
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
