"""A run folder is data: what it names is made from a fixed list, and nothing else runs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.networks.nets import BasicUNet

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.components import (
    Components,
    applied_config,
    component,
    foreign,
    older_expression,
    without_pretraining,
)

SOURCE = Path("run/config.yaml")
CHOICE = {"network_def": "$@networks[@network]()"}
UNET = {
    "_target_": "monai.networks.nets.BasicUNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 1,
    "features": [4] * 6,
}


@pytest.mark.parametrize(
    "target",
    [
        "Resized",
        "Compose",
        "monai.transforms.Resized",
        "monai.transforms.spatial.dictionary.Resized",
        "LoadScand",
        "monai_thyroid.transforms.PadToSquared",
        "monai_thyroid.networks.EncoderUNet",
        "monai_thyroid.metrics.HeadCircumference",
        "monai_thyroid.data.load_datalist",
        "BasicUNet",
        "monai.losses.DiceLoss",
        "DiceMetric",
        "torch.nn.BCEWithLogitsLoss",
        "torch.nn.Conv2d",
    ],
)
def test_what_is_on_the_list(target: str) -> None:
    found = component(target)
    assert callable(found)
    assert found.__name__ == target.rpartition(".")[2]


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "monai.transforms.Lambdad",
        "monai.transforms.LambdaDict",
        "RandLambda",
        "TorchVisiond",
        "CuCIM",
        "LoadImaged",
        "SaveImage",
        "monai.transforms.SaveImaged",
        "monai.transforms.WriteFileMapping",
        "monai.transforms.io.array.SaveImage",
        "monai_thyroid.transforms.SaveMaskd",
        "monai_thyroid.transforms.saving.SaveOverlayd",
        "monai_thyroid.files.remove_partial",
        "monai_thyroid.data.datalist.load_datalist",
        "monai.networks.nets.Transchex",
        "monai.networks.nets.TorchVisionFCModel",
        "monai.losses.PerceptualLoss",
        "monai.bundle.ConfigWorkflow",
        "monai.bundle.run",
        "monai.transforms.utils.optional_import",
        "monai.networks.nets.resnet.torch",
        "monai.networks.utils.copy_model_state",
        "monai.data.Dataset",
        "torch.load",
        "torch.hub.load",
        "torch.nn.modules.module.Any",
        "torch.nn.parallel.DistributedDataParallel",
        "Conv2d",
        "monai.transforms",
        "",
        "..",
        "Resized()",
        "no.such.Thing",
    ],
)
def test_what_is_not(target: str) -> None:
    assert component(target) is None
    assert len(foreign({"_target_": target})) == 1


def test_every_strange_thing_is_named_and_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "was run"
    applied = {
        "network": {"_target_": "os.system", "command": f"touch '{mark}'"},
        "image_transforms": [
            {"_target_": "Resized", "keys": "image", "spatial_size": f"$open({str(mark)!r}, 'w')"},
            {"_target_": "monai.transforms.Lambdad", "keys": "image", "func": "x"},
            {"_target_": "Compose", "_requires_": "$print()", "transforms": [{"_target_": "SaveImage"}]},
        ],
        "to_original_grid": [{"_target_": "Invertd", "transform": "@network"}],
        "measures": "%other.yaml::x",
        "data": {"_target_": "monai_thyroid.data.load_datalist", "_mode_": "debug"},
    }
    with pytest.raises(UserError) as caught:
        Components(applied, source=SOURCE)
    first, *named, last = caught.value.problems
    assert first.startswith(f"{SOURCE}: would run")
    assert "--trust true" in last
    for words in (
        "applied::network: os.system",
        "applied::image_transforms::0::spatial_size: the expression $open",
        "applied::image_transforms::1: monai.transforms.Lambdad",
        "applied::image_transforms::2::_requires_: the expression $print()",
        "applied::image_transforms::2::transforms::0: SaveImage",
        "applied::to_original_grid::0::transform: the reference @network",
        "applied::measures: the macro %other.yaml::x",
        "applied::data: monai_thyroid.data.load_datalist in the mode debug",
    ):
        assert [one for one in named if words in one], words
    assert len(named) == 8
    assert not mark.exists()


@pytest.mark.parametrize(
    ("target", "arguments"),
    [
        ("monai.networks.nets.HoVerNet", {"pretrained_url": "http://127.0.0.1/x"}),
        ("monai.networks.nets.EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": True}),
        ("monai_thyroid.networks.EncoderUNet", {"encoder": "resnet50", "weights": "imagenet"}),
        ("monai_thyroid.networks.EncoderUNet", {"encoder": "tu-hf-hub:somebody/something"}),
    ],
)
def test_networks_fetch_nothing(target: str, arguments: dict[str, Any]) -> None:
    assert len(foreign({"_target_": target, **arguments})) == 1


def test_a_network_that_fetches_unless_told_not_to_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: Any, **more: Any) -> None:
        raise AssertionError("fetched")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    net = {"_target_": "monai.networks.nets.AHNet", "spatial_dims": 2, "layers": (3, 4, 6, 3)}
    assert isinstance(Components({"network": net}, source=SOURCE)["network"], torch.nn.Module)


def test_files_that_stand_for_millions_are_refused_at_once() -> None:
    bomb = "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    )
    assert "too long" in foreign(yaml.safe_load(bomb))[0]
    assert "too deep" in foreign(yaml.safe_load("&a [*a]"))[0]


def test_components_are_made_as_monai_makes_them_and_once() -> None:
    resize = {"_target_": "Resized", "keys": "image", "spatial_size": [8, 8], "_desc_": "small"}
    off = {"_target_": "Resized", "_disabled_": "true"}
    invert = {"_target_": "Invertd", "keys": "pred", "orig_keys": "image", "transform": {"_target_": "Compose"}}
    invert["transform"]["transforms"] = "@image_transforms"  # type: ignore[index]
    applied = {"network": UNET, "image_transforms": [resize, off], "to_original_grid": [invert]}
    components = Components(copy.deepcopy(applied), source=SOURCE)
    assert isinstance(components["network"], BasicUNet)
    (made,) = components["image_transforms"]
    assert components["to_original_grid"][0].transform.transforms[0] is made
    assert components["image_transforms"] is components["image_transforms"]
    assert "measures" not in components
    with pytest.raises(UserError, match="no applied measures"):
        components["measures"]


def test_arguments_that_a_component_refuses_are_one_message() -> None:
    for change in ({"features": "x"}, {"no_such": 1}, {"spatial_dims": 7}):
        with pytest.raises(UserError, match=r"config\.yaml: network: monai\.networks\.nets\.BasicUNet"):
            Components({"network": {**UNET, **change}}, source=SOURCE)["network"]
    for name in ("network", "image_transforms", "to_original_grid", "measures"):
        for value in (5, "x", {"_target_": "torch.nn.ReLU" if name != "network" else "Compose"}, [None, 3]):
            with pytest.raises(UserError, match=f"applied {name} is not a"):
                Components({name: value}, source=SOURCE)[name]
    with pytest.raises(UserError, match="not a mapping"):
        Components([], source=SOURCE)


# --- written when trained ---

CONFIG: dict[str, Any] = {
    "network": "unet",
    "classes": ["a", "b"],
    "image_size": 48,
    "numpy": "$__import__('numpy')",
    "networks": {"unet": {**UNET, "_mode_": "callable", "out_channels": "$len(@classes)"}},
    "network_def": "$@networks[@network]()",
    "input_size": "$@image_size // 2",
    "image_transforms": [{"_target_": "Resized", "keys": "image", "spatial_size": ["@input_size", "$@numpy.int64(9)"]}],
    "test": {"preprocessing": {"_target_": "Compose", "transforms": "@image_transforms"}},
    "to_original_grid": [{"_target_": "Invertd", "keys": "pred", "transform": "@test::preprocessing"}],
    "data": {"_target_": "monai_thyroid.data.load_datalist", "dataset_dir": "phantom", "classes": "@classes"},
}


def resolved(config: dict[str, Any]) -> dict[str, Any]:
    parser = ConfigParser(copy.deepcopy(config))
    parser.parse()
    return applied_config(parser.get(), lambda identity, text: parser.get_parsed_content(identity))


def test_a_config_is_resolved_to_plain_values() -> None:
    applied = resolved(CONFIG)
    assert applied == {
        "network": {**UNET, "out_channels": 2},
        "image_transforms": [{"_target_": "Resized", "keys": "image", "spatial_size": [24, 9]}],
        "to_original_grid": [
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": {"_target_": "Compose", "transforms": "@image_transforms"},
            }
        ],
        "data": {"_target_": "monai_thyroid.data.load_datalist", "dataset_dir": "phantom", "classes": ["a", "b"]},
        "input_size": 24,
    }
    assert yaml.safe_load(yaml.safe_dump(applied)) == applied
    assert foreign(applied) == []


def test_what_has_no_plain_value_stays_and_is_named() -> None:
    config = {**CONFIG, "image_transforms": "$[print]"}
    applied = resolved(config)
    assert applied["image_transforms"] == "$[print]"
    assert foreign(applied) == ["applied::image_transforms: the expression $[print]"]


def test_a_network_outside_of_the_menu() -> None:
    assert resolved({**CONFIG, "network_def": {**UNET, "out_channels": "$1 + 2"}})["network"]["out_channels"] == 3


# --- runs of before ---


def test_the_expressions_of_earlier_bundles_are_known_and_no_others() -> None:
    config = copy.deepcopy(CONFIG)
    config["input_size"] = "$training.input_size(@network_def, image_size=@image_size)"
    config["image_transforms"][0]["spatial_size"] = ["@input_size", "@input_size"]
    config["data"]["stratify"] = "$training.boolean(@stratify)"
    config["stratify"] = "false"
    applied = applied_config(config, older_expression(config, source=SOURCE))
    assert foreign(applied) == []
    assert applied["network"]["out_channels"] == 2
    assert applied["image_transforms"][0]["spatial_size"] == [48, 48]
    assert applied["data"]["stratify"] is False
    config["networks"]["unet"]["out_channels"] = "$len(@classes) + 0"
    applied = applied_config(config, older_expression(config, source=SOURCE))
    assert foreign(applied) == ["applied::network::out_channels: the expression $len(@classes) + 0"]


def test_an_unpadded_network_of_before_has_its_own_size() -> None:
    config = copy.deepcopy(CONFIG)
    config["networks"]["unet"] = {
        "_target_": "monai_thyroid.networks.UnpaddedUNet",
        "_mode_": "callable",
        "in_channels": 1,
        "out_channels": "$len(@classes)",
    }
    config["image_size"] = 256
    config["input_size"] = "$training.input_size(@network_def, image_size=@image_size)"
    assert applied_config(config, older_expression(config, source=SOURCE))["input_size"] == 252


def test_references_in_a_circle_end() -> None:
    config = {**CONFIG, "image_transforms": "@to_original_grid", "to_original_grid": "@x", "x": "@to_original_grid"}
    applied = applied_config(config, older_expression(config, source=SOURCE))
    assert foreign(applied)


def test_numbers_of_numpy_become_plain() -> None:
    config = {**CONFIG, "measures": [np.float32(0.5), np.arange(2), (1, 2)]}
    assert applied_config(config, older_expression(config, source=SOURCE))["measures"] == [0.5, [0, 1], [1, 2]]


# --- a network within another ---


def within(**arguments: Any) -> dict[str, Any]:
    inner = {"_target_": "monai.networks.nets.SegResNet", "_mode_": "callable", "spatial_dims": 2, "in_channels": 1}
    return {
        "_target_": "monai_thyroid.networks.AdaptedNetwork",
        "stride": 8,
        "network": {**inner, "out_channels": 1, "init_filters": 8, **arguments},
    }


def test_a_network_within_another_is_made_from_the_same_list() -> None:
    applied = applied_config({"network": "mine", "networks": {"mine": within()}, **CHOICE}, lambda *_: None)
    network = Components(applied, source=SOURCE)["network"].eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, 9, 13)).shape == (1, 1, 9, 13)
    assert foreign(within(_target_="somebody.Network"), "network") == ["network::network: somebody.Network"]
    (told,) = foreign(within(weights_file="https://example.org/x.pt"), "network")
    assert told.startswith("network::network: monai.networks.nets.SegResNet with weights_file")


def test_it_is_built_without_the_weights_it_began_with() -> None:
    encoder = {"_target_": "monai_thyroid.networks.EncoderUNet", "_mode_": "callable", "weights": "gone.pth"}
    network = {"_target_": "monai_thyroid.networks.AdaptedNetwork", "network": {**encoder, "pretrained": True}}
    found = without_pretraining(network)["network"]
    assert found == {"_target_": encoder["_target_"], "_mode_": "callable", "pretrained": False}
