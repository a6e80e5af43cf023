"""A packed bundle gives the results of the runs it was made of, to MONAI and to this package, and refuses what is not."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from made_trained import made_trained, marker
from monai.bundle import create_workflow
from PIL import Image

from monai_thyroid.cli import main
from monai_thyroid.deploy import pack as packing
from monai_thyroid.deploy import predict_archive
from monai_thyroid.deploy.pack import pack
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor, TrainedRun
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.weights import find_weights
from monai_thyroid.files import read_json, sha256_file, write_json
from monai_thyroid.runfolder import run_files

SIZES = ((75, 110), (31, 97), (64, 64))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made_trained(folder / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def one(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed run; tests must not change it."""
    return pack(runs[:1], output=tmp_path_factory.mktemp("dist") / "one", report=False).path


@pytest.fixture(scope="module")
def ensemble(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed ensemble; tests must not change it."""
    return pack(runs, output=tmp_path_factory.mktemp("dist") / "two", report=False).path


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(one, tmp_path / "one", ignore=shutil.ignore_patterns("runtimes")))


def images(channels: int = 1) -> list[np.ndarray]:
    made = [marker(*size) for size in SIZES]
    return [np.stack([each, each // 2, 255 - each], 2) if channels == 3 else each for each in made]


def loaded(bundle: Path, kind: str = "train") -> torch.nn.Module:
    network: torch.nn.Module = monai.bundle.load(
        bundle.name, bundle_dir=str(bundle.parent), workflow_type=kind, device="cpu"
    )
    return network.eval()


def probabilities(model: Any, given: list[np.ndarray]) -> list[np.ndarray]:
    return [each.probabilities for each in Predictor(model, device="cpu", runtime="torch-float32").batch(given)]


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_network_with_its_weights(one: Path, runs: list[Path], kind: str) -> None:
    batch = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(one, kind)(batch), TrainedRun(str(runs[0])).network()(batch))


@pytest.mark.parametrize(
    ("bundle", "channels", "options"),
    [
        ("thyroid", 1, {}),
        ("polyp", 3, {}),
        ("nerve", 1, {"classes": ["nerve", "vessel"]}),
        (
            "fetal_head",
            1,
            {"network": "unpadded_unet", "networks::unpadded_unet::features": [4, 4, 4, 4, 4], "image_size": 200},
        ),
    ],
)
def test_masks_are_those_of_the_run(bundle: str, channels: int, options: dict[str, Any], tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run", bundle, **options)
    packed = pack([run], output=tmp_path / "packed", report=False).path
    expected = probabilities(run, images(channels))
    for found, each in zip(probabilities(packed, images(channels)), expected, strict=True):
        assert np.array_equal(found, each)
    assert any(each.std() > 0.01 for each in expected)
    layout = read_json(packed / "configs" / "metadata.json")["network_data_format"]
    image, pred = layout["inputs"]["image"], layout["outputs"]["pred"]
    assert (image["num_channels"], len(image["channel_def"])) == (channels, channels)
    with torch.no_grad():
        logits = loaded(packed)(torch.zeros(1, channels, *image["spatial_shape"]))
    assert list(logits.shape[1:]) == [pred["num_channels"], *pred["spatial_shape"]]
    classes = TrainedRun(str(run)).classes
    assert pred["channel_def"] == {str(number): name for number, name in enumerate(["background", *classes])}


def test_an_ensemble_is_the_average_of_its_members(ensemble: Path, runs: list[Path]) -> None:
    batch = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        members = [torch.sigmoid(TrainedRun(str(run)).network()(batch)) for run in runs]
        assert torch.allclose(torch.sigmoid(loaded(ensemble)(batch)), sum(members) / 2, atol=1e-6)
    given = images()
    each = [probabilities(run, given) for run in runs]
    together = Predictor(ensemble, device="cpu", runtime="torch-float32").batch(given)
    beside = Predictor(runs, device="cpu", runtime="torch-float32").batch(given)
    for first, second, found, expected in zip(*each, together, beside, strict=True):
        assert np.allclose(found.probabilities, (first + second) / 2, atol=1e-6)
        assert np.array_equal(found.mask, expected.mask)
        assert found.agreement == expected.agreement
        assert found.agreement is not None


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_network_of_an_ensemble_averages_probabilities(activation: Any) -> None:
    from monai_thyroid.networks import Ensemble

    torch.manual_seed(0)
    members = [torch.nn.Conv2d(1, 3, 3) for _ in range(3)]
    batch = 300 * torch.randn(2, 1, 9, 7)  # where a probability of float32 would be 0 or 1
    both = Ensemble(members, activation=activation)
    act = torch.sigmoid if activation == "sigmoid" else lambda logits: torch.softmax(logits, 1)
    with torch.no_grad():
        expected = sum(act(member(batch).double()) for member in members) / 3
        found = both(batch)
        assert found.isfinite().all()
        assert torch.allclose(act(found.double()), expected, atol=1e-5)
        assert torch.allclose(torch.jit.script(both)(batch), found)
    with pytest.raises(UserError, match="an ensemble has members"):
        Ensemble([], activation=activation)
