"""Weights are found, read without running code, and fitted with a report of everything that does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.networks.nets import BasicUNet, UNet

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.weights import find_weights, fit_weights, load_weights


def network(*, classes: int = 1, seed: int = 0, features: tuple[int, ...] = (4, 4, 8, 8, 8, 4)) -> BasicUNet:
    torch.manual_seed(seed)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=classes, features=features)


def saved(content: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def copied(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(module: torch.nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


# --- finding ---


def test_a_run_folder_a_packed_bundle_and_a_file_hold_weights(tmp_path: Path) -> None:
    for folder in ("run", "bundle/models"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "model.pt").touch()
    assert find_weights(tmp_path / "run") == tmp_path / "run" / "model.pt"
    assert find_weights(str(tmp_path / "bundle")) == tmp_path / "bundle" / "models" / "model.pt"
    file = tmp_path / "run" / "model.pt"
    assert find_weights(file) == file


def test_the_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.pt").touch()
    assert find_weights("~/model.pt") == tmp_path / "model.pt"


def test_nothing_found_is_said(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.pt"):
        with pytest.raises(UserError, match="no weights there; give a run folder, a packed bundle"):
            find_weights(path)


# --- reading ---


def test_a_state_dict_and_a_last_pt_are_read(tmp_path: Path) -> None:
    weights = network().state_dict()
    for content in (weights, {"epoch": 3, "network": weights, "recorder": {"seconds": 1.0}}):
        read = load_weights(saved(content, tmp_path / "a.pt"))
        assert list(read) == list(weights)
        assert all(torch.equal(read[name], weights[name]) for name in weights)


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain", [True, False])
def test_code_in_a_file_is_not_run(tmp_path: Path, plain: bool) -> None:
    trap = tmp_path / "it ran"
    path = tmp_path / "a.pt"
    content = {"conv.weight": torch.zeros(2), "extra": Malicious(trap)}
    if plain:
        path.write_bytes(pickle.dumps(content))
    else:
        saved(content, path)
    with pytest.raises(UserError, match="cannot be read as weights") as caught:
        load_weights(path)
    assert not trap.exists()
    assert str(path) in str(caught.value)
    # torch's own message tells how to run the code nevertheless
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [{}, {"a": 1}, {"a": torch.zeros(1), "b": "text"}, [torch.zeros(1)], torch.zeros(3), None, {"network": {}}],
    ids=["empty", "numbers", "mixed", "list", "tensor", "none", "empty network"],
)
def test_what_is_no_dictionary_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    path = saved(content, tmp_path / "a.pt")
    with pytest.raises(UserError, match="is not a dictionary of weights by name") as caught:
        load_weights(path)
    assert str(path) in str(caught.value)


def test_a_whole_module_and_a_broken_file_are_refused(tmp_path: Path) -> None:
    whole = saved(network(), tmp_path / "module.pt")
    half = tmp_path / "half.pt"
    content = saved(network().state_dict(), tmp_path / "a.pt").read_bytes()
    half.write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pt").write_text("weights")
    (tmp_path / "empty.pt").touch()
    for path in (whole, half, tmp_path / "text.pt", tmp_path / "empty.pt"):
        with pytest.raises(UserError, match="cannot be read as weights") as caught:
            load_weights(path)
        assert str(path) in str(caught.value)


# --- fitting ---


def test_weights_of_the_same_network_are_all_loaded(tmp_path: Path) -> None:
    parent, child = network(seed=1), network(seed=2)
    report = fit_weights(child, saved(parent.state_dict(), tmp_path / "a.pt"))
    assert report == {"loaded": len(parent.state_dict()), "replaced": []}
    assert unchanged(child, parent.state_dict())


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (4, 2)])
def test_the_head_of_other_classes_starts_anew(tmp_path: Path, before: int, after: int) -> None:
    parent, child = network(seed=1, classes=before), network(seed=2, classes=after)
    fresh = copied(child)
    report = fit_weights(child, saved(parent.state_dict(), tmp_path / "a.pt"))
    assert report["replaced"] == ["final_conv.weight", "final_conv.bias"]
    assert report["loaded"] == len(fresh) - 2
    for name, tensor in child.state_dict().items():
        expected = fresh[name] if name.startswith("final_conv") else parent.state_dict()[name]
        assert torch.equal(tensor, expected), name


def test_buffers_are_loaded_too(tmp_path: Path) -> None:
    def normalised(seed: int, classes: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Conv2d(3, classes, 1))

    parent, child = normalised(1, 1), normalised(2, 2)
    parent.train()(torch.rand(4, 1, 8, 8))
    report = fit_weights(child, saved(parent.state_dict(), tmp_path / "a.pt"))
    assert report["replaced"] == ["2.weight", "2.bias"]
    assert torch.equal(child[1].running_mean, parent[1].running_mean)  # type: ignore[index]
    assert int(child[1].num_batches_tracked) == 1  # type: ignore[index]


def test_another_network_is_refused_with_all_that_does_not_fit(tmp_path: Path) -> None:
    child = network(seed=2)
    before = copied(child)
    given = dict(network(seed=1).state_dict())
    del given["conv_0.conv_0.conv.weight"], given["final_conv.bias"]
    given["extra.weight"] = torch.zeros(1)
    given["conv_0.conv_0.conv.bias"] = torch.zeros(7)
    with pytest.raises(UserError) as caught:
        fit_weights(child, saved(given, tmp_path / "a.pt"))
    first, *problems = caught.value.problems
    assert str(tmp_path / "a.pt") in first
    assert sorted(problems) == [
        "conv_0.conv_0.conv.bias is 7, not 4",
        "conv_0.conv_0.conv.weight is missing",
        "extra.weight is unknown to this network",
        "final_conv.bias is missing",
    ]
    assert unchanged(child, before)


def test_a_head_of_other_inputs_is_another_network(tmp_path: Path) -> None:
    child = network(seed=2)
    before = copied(child)
    given = dict(network(seed=1).state_dict())
    given["final_conv.weight"] = torch.zeros(3, 5, 1, 1)
    given["final_conv.bias"] = torch.zeros(3)
    with pytest.raises(UserError, match=r"final_conv\.weight is 3x5x1x1, not 1x4x1x1"):
        fit_weights(child, saved(given, tmp_path / "a.pt"))
    assert unchanged(child, before)


def test_a_long_list_is_counted_to_its_end(tmp_path: Path) -> None:
    child = network(seed=2)
    before = copied(child)
    other = UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8, 16), strides=(2, 2)).state_dict()
    with pytest.raises(UserError) as caught:
        fit_weights(child, saved(other, tmp_path / "a.pt"))
    *shown, last = caught.value.problems[1:]
    assert int(last.split()[1]) + len(shown) == len(set(before) ^ set(other))
    assert unchanged(child, before)


def test_wider_layers_are_another_network(tmp_path: Path) -> None:
    child = network(seed=2)
    before = copied(child)
    path = saved(network(seed=1, features=(8, 8, 16, 16, 16, 8)).state_dict(), tmp_path / "a.pt")
    with pytest.raises(UserError, match="not of this network"):
        fit_weights(child, path)
    assert unchanged(child, before)
