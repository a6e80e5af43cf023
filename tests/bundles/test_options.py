"""Every option that a config offers is trained with: here, or where it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, create_workflow

from monai_thyroid.files import read_csv, read_json

TINY: dict[str, Any] = {"image_size": 32, "batch_size": 4, "networks::unet::features": [4, 4, 4, 4, 4, 4]}
MANY: dict[str, Any] = {
    **{
        "bundle": "mine",
        "device": "cpu",
        "precision": "bfloat16",
        "num_workers": 1,
        "max_epochs": 3,
        "val_interval": 2,
    },
    **{"patience": 5, "seed": 3, "split_seed": 2, "validation_fraction": 0.3, "split": "frames", "stratify": True},
    **{"folds": 2, "fold": 1, "channels": 3, "classes": ["lesion"], "threshold": 0.4, "allow_empty_parts": True},
}
OF_A_PHANTOM: dict[str, Any] = {"phantom_cases": 12, "phantom_seed": 4, "test_fraction": 0.4, "max_epochs": 1}
# A second channel for what is neither, wherever probabilities are made or read.
SOFTMAX: dict[str, Any] = {
    "activation": "softmax",
    "networks::unet::out_channels": 2,
    "label_transforms::0::background": True,
    "loss": {"_target_": "DiceLoss", "softmax": True},
    "validate::postprocessing::transforms::1": {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    "validate::postprocessing::transforms::2": {
        **{"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": 2},
    },
    "to_original_grid::2": {"_target_": "Activationsd", "keys": "pred", "softmax": True},
}
ELSEWHERE = {
    "test_thyroid.py": "network learning_rate resume overwrite mlflow init_from",
    "test_bundles.py": "sites test_sites first_stage_epochs first_stage_learning_rate",
    "test_strong.py": "hours weight_decay channels_last",
    "test_postprocess.py": "postprocess",
    "../sweep/test_tuning.py": "score_test",
    "every test": "dataset_dir output_dir",
}
NO_OPTIONS = {"bundle_root", "phantom"}


def train(root: Path, **options: Any) -> Path:
    """Train the thyroid bundle with its own learning rate."""
    config = str(root / "bundles" / "thyroid" / "train_course.yaml")
    workflow = create_workflow(config_file=config, logging_file=False, trackers=[], **{**TINY, **options})
    workflow.run()
    return Path(workflow.parser.get_parsed_content("session").path)


def test_none_is_forgotten(root: Path) -> None:
    offered = set()
    for path in (root / "bundles").glob("*/train*.yaml"):
        names = list(ConfigParser.load_config_file(path))
        offered |= set(names[names.index("bundle") : names.index("networks")])
    trained = {*TINY, *MANY, *OF_A_PHANTOM, *SOFTMAX, "split_file", *" ".join(ELSEWHERE.values()).split()}
    assert offered - NO_OPTIONS <= trained


def test_many_at_once_and_the_split_again(root: Path, scans: Path, tmp_path: Path) -> None:
    run = train(root, dataset_dir=str(scans), output_dir=str(tmp_path), **MANY)
    record = read_json(run / "run.json")
    assert (record["status"], record["bundle"], record["classes"], record["fold"]) == ("done", "mine", ["lesion"], 1)
    history = read_csv(run / "history.csv")
    assert [bool(row["val_dice"]) for row in history] == [False, True, True], "the last epoch has been validated"
    assert record["best_epoch"] in (2, 3)
    again = train(
        root,
        **{"dataset_dir": str(scans), "output_dir": str(tmp_path), "max_epochs": 1, "val_interval": 5},
        **{"split_file": str(run / "split.json"), "split": "frames"},  # leaky on purpose, again
    )
    assert read_json(again / "split.json")["parts"] == read_json(run / "split.json")["parts"]
    assert read_json(again / "run.json")["best_epoch"] == 1


def test_those_of_a_phantom(root: Path, tmp_path: Path) -> None:
    run = train(root, output_dir=str(tmp_path), **OF_A_PHANTOM)
    assert read_json(run / "run.json")["synthetic"] is True


def test_softmax(root: Path, scans: Path, tmp_path: Path) -> None:
    run = train(root, dataset_dir=str(scans), output_dir=str(tmp_path), max_epochs=1, **SOFTMAX)
    assert read_json(run / "run.json")["activation"] == "softmax"
    weights = torch.load(run / "model.pt", weights_only=True)
    assert weights["final_conv.weight"].shape[0] == 2
    scores = run / "evaluations" / "scans-test" / "cases.csv"
    before = scores.read_text()
    evaluate = str(root / "bundles" / "lung" / "evaluate.yaml")
    create_workflow(config_file=evaluate, logging_file=False, run_dir=str(run)).run()
    assert scores.read_text() == before
