"""What a run says its weights had seen before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monai_thyroid.files import write_json
from monai_thyroid.training.session import _pretrained_on


def config(weights: str | None) -> dict[str, Any]:
    return {"network": "vgg", "networks": {"vgg": {"_target_": "x", "weights": weights}, "unet": {"_target_": "y"}}}


@pytest.mark.parametrize(
    ("weights", "expected"),
    [(None, []), ("null", []), ("imagenet", ["ImageNet"]), ("/models/vgg-radimagenet.pt", ["vgg-radimagenet.pt"])],
)
def test_of_an_encoders_weights(weights: str | None, expected: list[str]) -> None:
    assert _pretrained_on(config(weights), None) == expected


def test_of_a_network_without_an_encoder() -> None:
    assert _pretrained_on({**config("imagenet"), "network": "unet"}, None) == []


def test_of_a_run_all_that_it_and_its_own_start_had_seen(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {"dataset": "tn3k", "pretrained_on": ["ImageNet", "polyp"]})
    assert _pretrained_on(config(None), tmp_path / "model.pt") == ["ImageNet", "polyp", "tn3k"]
    write_json(tmp_path / "run.json", {"dataset": "tn3k"})
    assert _pretrained_on(config(None), tmp_path / "model.pt") is None
    (tmp_path / "run.json").unlink()
    assert _pretrained_on(config(None), tmp_path / "model.pt") is None
