"""Constants are read strictly, and each hash changes with what it stands for and with nothing else."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from monai_thyroid.errors import UserError
from monai_thyroid.options import boolean
from monai_thyroid.runfolder import protocol_hash, run_hash
from monai_thyroid.training.config import check_constants, executed_config
from monai_thyroid.training.constants import CONSTANTS

TRAIN = Path(__file__).resolve().parents[2] / "bundles" / "thyroid" / "train_course.yaml"
METADATA = TRAIN.with_name("metadata.json")


def parser(**overrides: Any) -> ConfigParser:
    made = ConfigParser()
    made.read_config(str(TRAIN))
    made.read_meta(str(METADATA))
    made.update({"device": "cpu", "precision": "float32", **overrides})
    made.parse()
    return made


def config(**overrides: Any) -> dict[str, Any]:
    return executed_config(parser(**overrides))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (False, False), ("true", True), ("True", True), (" FALSE ", False), ("false", False)],
)
def test_booleans_are_read(value: object, expected: bool) -> None:
    assert boolean(value) is expected


@pytest.mark.parametrize("value", [0, 1, None, "", "0", "1", "yes", "no", "None", [], 1.0, "truee"])
def test_what_is_no_boolean_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="write true or false"):
        boolean(value)


GOOD: dict[str, list[tuple[object, object]]] = {
    "dataset_dir": [("phantom", "phantom"), ("../data", "../data")],
    "classes": [(["a", "b"], ["a", "b"])],
    "activation": [("sigmoid", "sigmoid"), ("softmax", "softmax")],
    "threshold": [(0.3, 0.3), ("0.3", 0.3)],
    "channels": [(3, 3)],
    "seed": [(0, 0), (7, 7)],
    "learning_rate": [("1e-4", 1e-4), (1, 1.0)],
    "device": [("cpu", "cpu"), (torch.device("cpu"), "cpu")],
    "precision": [("bfloat16", "bfloat16")],
    "resume": [("false", False), (True, True)],
    "init_from": [(None, None), ("None", None), ("", None), ("null", None), ("runs/x", "runs/x")],
    "stratify": [("false", False), ("True", True)],
    "split": [("groups", "groups"), ("frames", "frames")],
    "folds": [(None, None), ("None", None), (2, 2)],
    "fold": [(None, None), (0, 0)],
    "sites": [(None, None), ("None", None), ("a", ["a"]), ("a, b", ["a", "b"]), (("a", "b"), ["a", "b"])],
}
BAD: dict[str, list[object]] = {
    "dataset_dir": [None, "", 5, ["a"], "/data/x::1"],
    "split": ["cases", None, 1],
    "stratify": ["yes", 1, None],
    "test_fraction": [0, 1, "half"],
    "folds": [1, "3", True],
    "fold": [-1, 0.5],
    "sites": [5, [1], ["a", ""], "a,,b"],
    "first_stage_epochs": [0],
    "output_dir": [None, "", False],
    "network": [None, 3],
    "classes": [[], "nodule", [1], None, {"a": 1}],
    "activation": ["relu", None, True],
    "threshold": [0, 1, -0.1, "half", None, True, "nan"],
    "channels": [0, 2, 4, "1", True, None, [1]],
    "image_size": [0, -32, "32", 32.0, [32, 32]],
    "max_epochs": [0, "ten"],
    "batch_size": [0, None],
    "learning_rate": [0, -1, "fast", True, "inf", "nan", None],
    "patience": [0],
    "seed": [-1, 0.5, "0", False],
    "validation_fraction": [0, 1, 1.5],
    "phantom_cases": [9, True],
    "device": ["gpu", 5.0, "cuda:x", None, "", "meta", "xla", "hpu:0"],
    "precision": ["float16", 32, None, ["float32"]],
    "num_workers": [-1, "2"],
    "resume": [1, "yes", None],
    "mlflow": [0],
    "init_from": [5, True],
}


@pytest.mark.parametrize(
    ("name", "value", "expected"), [(name, *pair) for name, pairs in GOOD.items() for pair in pairs]
)
def test_constants_are_read(name: str, value: object, expected: object) -> None:
    read = CONSTANTS[name](value)
    assert read == expected
    assert type(read) is type(expected)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_constants_that_cannot_be_are_named(name: str, value: object) -> None:
    made = ConfigParser({name: value, "seed" if name != "seed" else "patience": 3})
    values, problems = check_constants(made)
    assert name not in values
    assert len(values) == 1
    (problem,) = problems
    assert problem.startswith(f"{name} ")


def test_every_constant_that_is_wrong_is_named_at_once() -> None:
    made = ConfigParser({"seed": -1, "resume": 1, "threshold": "$1 / 0", "channels": 1, "unrelated": -1})
    values, problems = check_constants(made)
    assert values == {"channels": 1}
    assert sorted(problem.split()[0] for problem in problems) == ["resume", "seed", "threshold"]
    with pytest.raises(UserError) as caught:
        executed_config(made)
    assert caught.value.problems == problems


def test_a_constant_that_another_one_breaks_is_named_too() -> None:
    _, problems = check_constants(ConfigParser({"image_size": "$32 if @dataset else 1", "seed": 0}))
    assert [problem.split()[0] for problem in problems] == ["image_size"]


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        CONSTANTS["device"](name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert CONSTANTS["device"](name) == name
    with pytest.raises(UserError, match="1 CUDA devices, counted from 0"):
        CONSTANTS["device"]("cuda:1")


def test_the_bundle_has_every_constant_of_the_command_line() -> None:
    promised = "dataset_dir output_dir image_size max_epochs batch_size learning_rate seed device precision num_workers"
    promised += " resume overwrite init_from network"
    content = yaml.safe_load(TRAIN.read_text())
    assert set(promised.split()) <= set(content)
    assert set(promised.split()) <= set(CONSTANTS)


def test_the_executed_config_has_plain_constants_and_no_metadata() -> None:
    made = config(learning_rate="1e-3", resume="False")
    for name in CONSTANTS:
        if name in made:
            assert not (isinstance(made[name], str) and made[name].startswith(("$", "@", "%"))), name
    assert made["learning_rate"] == 1e-3
    assert made["resume"] is False
    assert made["image_size"] == 96
    assert "_meta_" not in made
    assert yaml.safe_load(yaml.safe_dump(made)) == made


def test_the_executed_config_is_a_copy() -> None:
    original = parser()
    executed_config(original)["networks"]["unet"]["features"][0] = 99
    assert original["networks"]["unet"]["features"][0] != 99


def test_the_executed_config_reads_as_it_was_executed() -> None:
    first = config(image_size=64, learning_rate=2e-4)
    again = ConfigParser(copy.deepcopy(first))
    again.parse()
    assert executed_config(again) == first
    assert protocol_hash(executed_config(again)) == protocol_hash(first)


SAME_RACE = {
    "network": {"network": "segnet"},
    "menu": {"networks::unet::features": [4, 4, 8, 8, 8, 4]},
    "seed": {"seed": 5},
    "split seed": {"split_seed": 5},
    "phantom seed": {"phantom_seed": 5},
    "paths": {"output_dir": "/elsewhere", "bundle_root": "/bundle"},
    "workers": {"num_workers": 4},
    "resume": {"resume": True},
    "overwrite": {"overwrite": "true"},
    "mlflow": {"mlflow": True},
}
OTHER_RACE = {
    "image_size": {"image_size": 64},
    "learning_rate": {"learning_rate": 2e-3},
    "max_epochs": {"max_epochs": 15},
    "batch_size": {"batch_size": 7},
    "patience": {"patience": 3},
    "val_interval": {"val_interval": 2},
    "threshold": {"threshold": 0.4},
    "channels": {"channels": 3},
    "precision": {"precision": "bfloat16"},
    "loss": {"loss::sigmoid": False},
    "optimizer": {"optimizer::_target_": "torch.optim.SGD"},
    "schedule": {"lr_scheduler::patience": 6},
    "augmentation": {"augmentation::0::prob": 0.4},
    "init_from": {"init_from": "model.pt"},
}


@pytest.mark.parametrize("overrides", SAME_RACE.values(), ids=SAME_RACE)
def test_the_same_race_has_the_same_protocol(overrides: dict[str, Any]) -> None:
    assert protocol_hash(config(**overrides)) == protocol_hash(config())


@pytest.mark.parametrize("overrides", OTHER_RACE.values(), ids=OTHER_RACE)
def test_another_race_has_another_protocol_and_run(overrides: dict[str, Any]) -> None:
    plain, other = config(), config(**overrides)
    assert protocol_hash(other) != protocol_hash(plain)
    if "init_from" not in overrides:
        keys = {"data_hash": "d", "parent_sha256": None}
        assert run_hash(other, **keys) != run_hash(plain, **keys)


def test_the_dataset_and_the_device_are_no_part_of_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = {"image_size": 96, "max_epochs": 14, "learning_rate": 1e-3, "batch_size": 8}
    on_phantom = config(**recipe)
    on_folder = config(dataset_dir=str(tmp_path), **recipe)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    on_gpu = config(device="cuda", **recipe)
    assert protocol_hash(on_phantom) == protocol_hash(on_folder) == protocol_hash(on_gpu)
    assert len({run_hash(one, data_hash="d", parent_sha256=None) for one in (on_phantom, on_folder, on_gpu)}) == 1


def test_the_protocol_knows_that_there_was_a_parent_but_not_where() -> None:
    one, other = config(init_from="a.pt"), config(init_from="elsewhere/b.pt")
    assert protocol_hash(one) == protocol_hash(other)
    assert run_hash(one, data_hash="d", parent_sha256="x") == run_hash(other, data_hash="d", parent_sha256="x")
    assert run_hash(one, data_hash="d", parent_sha256="x") != run_hash(other, data_hash="d", parent_sha256="y")


RUN_KEYS = {"data_hash": "d", "parent_sha256": None}


@pytest.mark.parametrize("name", ["network", "menu", "seed", "split seed", "phantom seed"])
def test_another_entrant_is_another_run(name: str) -> None:
    assert run_hash(config(**SAME_RACE[name]), **RUN_KEYS) != run_hash(config(), **RUN_KEYS)


@pytest.mark.parametrize("name", ["paths", "workers", "resume", "overwrite", "mlflow"])
def test_where_and_how_a_run_is_started_does_not_change_it(name: str) -> None:
    assert run_hash(config(**SAME_RACE[name]), **RUN_KEYS) == run_hash(config(), **RUN_KEYS)


def test_a_network_that_is_only_on_the_menu_does_not_change_a_run() -> None:
    longer = config()
    longer["networks"]["another"] = {"_target_": "monai.networks.nets.UNet"}
    assert run_hash(longer, **RUN_KEYS) == run_hash(config(), **RUN_KEYS)


def test_other_data_is_another_run_of_the_same_race() -> None:
    assert run_hash(config(), data_hash="e", parent_sha256=None) != run_hash(config(), **RUN_KEYS)


def _reversed(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _reversed(content[key]) for key in reversed(content)}
    return [_reversed(value) for value in content] if isinstance(content, list) else content


def test_the_order_of_keys_is_no_content() -> None:
    plain = config()
    turned = _reversed(plain)
    assert list(turned) != list(plain)
    assert protocol_hash(turned) == protocol_hash(plain)
    assert run_hash(turned, **RUN_KEYS) == run_hash(plain, **RUN_KEYS)
    swapped = copy.deepcopy(plain)
    swapped["augmentation"].reverse()
    assert protocol_hash(swapped) != protocol_hash(plain)


def test_not_choosing_postprocessing_is_the_recipe_of_before_there_was_a_choice() -> None:
    before, off, on = (
        {"seed": 0, "networks": {}, **more} for more in ({}, {"postprocess": "none"}, {"postprocess": "choose"})
    )
    assert protocol_hash(off) == protocol_hash(before) != protocol_hash(on)
    hashes = [run_hash(one, data_hash="a", parent_sha256=None) for one in (before, off, on)]
    assert hashes[0] == hashes[1] != hashes[2]
