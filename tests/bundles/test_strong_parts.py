"""The parts of a strong recipe in a bundle's training, put there by a second file, as multi_gpu_train.yaml is."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import create_workflow

from monai_thyroid.files import read_json
from monai_thyroid.training import Recorder

STRONG: dict[str, Any] = {
    "augmentation": {
        "_target_": "monai_thyroid.transforms.BatchAugmentation",
        "seed": "@seed",
        "flip_horizontal": 0.5,
        "rotation": 45.0,
        "scale": [0.7, 1.4],
        "shift": 0.15,
        "gamma": [0.6, 1.6],
        "gain": [0.7, 1.4],
        "speckle": 0.25,
        "shadow": 0.6,
    },
    "average": {"_target_": "monai_thyroid.training.WeightAverage", "network": "@model", "decay": 0.9},
    "loss": {"_target_": "DiceCELoss", "sigmoid": True},
    "optimizer": {
        "_target_": "torch.optim.AdamW",
        "params": "$training.decay_groups(@model, 0.05)",
        "lr": "@learning_rate",
    },
    "lr_scheduler": {
        "_target_": "torch.optim.lr_scheduler.OneCycleLR",
        "optimizer": "@optimizer",
        "max_lr": "@learning_rate",
        "total_steps": "$@max_epochs * len(@train::dataloader)",
        "pct_start": 0.05,
        "cycle_momentum": False,
    },
    "train::preprocessing": {
        "_target_": "Compose",
        "transforms": "$@image_transforms + @label_transforms",
    },
    "train::dataset": {
        "_target_": "monai_thyroid.data.ResidentDataset",
        "data": "$@data.part('train')",
        "transform": "@train::preprocessing",
        "device": "@device",
    },
    "train::dataloader": {
        "_target_": "monai_thyroid.data.ResidentLoader",
        "dataset": "@train::dataset",
        "batch_size": "@batch_size",
        "seed": "@seed",
        "shuffle": True,
        "drop_last": True,
        "augmentation": "@augmentation",
        "field_of_view": "@output_size",
    },
    "train::handlers": [
        {"_target_": "monai_thyroid.training.ClipGradients", "network": "@model", "max_norm": 1.0},
        {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": False, "epoch_level": False},
        "@average",
        {"_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": "@val_interval"},
        {"_target_": "monai_thyroid.training.LastValidation", "validator": "@validate::evaluator"},
        {
            "_target_": "monai_thyroid.training.EarlyStop",
            "validator": "@validate::evaluator",
            "metric": "val_dice",
            "patience": "@patience",
        },
        {
            "_target_": "monai_thyroid.training.Recorder",
            "folder": "$@session.folder",
            "seed": "@seed",
            "network": "@network_def",
            "optimizer": "@optimizer",
            "lr_scheduler": "@lr_scheduler",
            "early_stop": "@train::handlers::5",
            "validator": "@validate::evaluator",
            "dataset": "@train::dataloader",
            "average": "@average",
        },
    ],
    "train::trainer::_target_": "monai_thyroid.training.GraphedTrainer",
    "validate::dataset": {
        "_target_": "monai_thyroid.data.ResidentDataset",
        "data": "$@data.part('validation')",
        "transform": "@validate::preprocessing",
        "device": "@device",
    },
    "validate::dataloader": {
        "_target_": "monai_thyroid.data.ResidentLoader",
        "dataset": "@validate::dataset",
        "batch_size": "@batch_size",
    },
    "validate::evaluator::network": "$@average.network",
}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def train(root: Path, tiny: dict[str, Any], tmp_path: Path) -> Callable[..., Path]:
    """Train the thyroid bundle with these parts and tiny settings, and return the run folder."""
    strong = tmp_path / "strong.yaml"
    strong.write_text(yaml.safe_dump(STRONG), encoding="utf-8")

    def run(**overrides: Any) -> Path:
        workflow = create_workflow(
            config_file=[str(root / "bundles" / "thyroid" / "train.yaml"), str(strong)],
            **{"trackers": [], "logging_file": False, **tiny, "max_epochs": 3, **overrides},
        )
        workflow.run()
        workflow.finalize()
        return Path(workflow.parser.get_parsed_content("session").path)

    return run


def test_a_run_of_these_parts_resumes_exactly(
    train: Callable[..., Path], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(dataset_dir=str(scans), output_dir=str(tmp_path / "whole"))
    assert read_json(whole / "run.json")["status"] == "done"
    rows = history(whole)
    assert len(rows) == 3
    rates = [float(row["lr"]) for row in rows]
    assert rates[2] < rates[1], "the rate falls step by step"

    started = Recorder.epoch_started

    def interrupted(self: Recorder, engine: Any) -> None:
        if engine.state.epoch == 3:
            raise RuntimeError("power cut")
        started(self, engine)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "epoch_started", interrupted)
        with pytest.raises(RuntimeError):
            train(dataset_dir=str(scans), output_dir=str(tmp_path / "cut"))
    resumed = train(dataset_dir=str(scans), output_dir=str(tmp_path / "cut"), resume=True)
    assert history(resumed) == rows
    for name in ("model.pt", "last.pt"):
        one, other = (torch.load(folder / name, weights_only=True) for folder in (whole, resumed))
        weights = (one, other) if name == "model.pt" else (one["network"], other["network"])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    # What is delivered and scored is the average.
    last = torch.load(whole / "last.pt", weights_only=True)
    assert last["recorder"]["average"]["updates"] > 0
    model = torch.load(whole / "model.pt", weights_only=True)
    assert not all(torch.equal(model[key], last["network"][key]) for key in model)
