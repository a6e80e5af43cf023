"""torchvision's broken import is mended, a working one is left alone; which only a process of its own can show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monai_thyroid.errors import UserError
from monai_thyroid.networks import EncoderUNet, vision

FAKE = """
import torch
library = torch.library.Library("torchvision", "FRAGMENT")
{declare}
torch.library.register_fake("torchvision::nms")(lambda dets, scores, iou_threshold: dets)
"""


def run(code: str, *, path: Path | None = None) -> str:
    setup = f"import sys; sys.path.insert(0, {str(path)!r})\n" if path else ""
    done = subprocess.run([sys.executable, "-c", setup + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def fake_torchvision(folder: Path, *, loads: bool) -> Path:
    """A torchvision whose operators load, or do not."""
    declare = f'library.define("nms{vision._SCHEMA}")' if loads else ""
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(FAKE.format(declare=declare), encoding="utf-8")
    return folder


CODE = """
from monai_thyroid.networks import vision
vision.import_torchvision()
import torchvision
vision.import_torchvision()
print(len(vision._declared))
"""


@pytest.mark.slow
def test_declares_only_after_a_failed_import(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "works").mkdir()
    assert run(CODE, path=fake_torchvision(tmp_path / "broken", loads=False)) == "1"
    assert run(CODE, path=fake_torchvision(tmp_path / "works", loads=True)) == "0"


def test_another_failure_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: str, **__: str) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr(vision, "optional", fails)
    with pytest.raises(RuntimeError, match="something else"):
        vision.import_torchvision()


def test_missing_torchvision_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(UserError, match=r"monai_thyroid\[encoders\]"):
        EncoderUNet(encoder="resnet18", in_channels=1, out_channels=1)


@pytest.mark.slow
def test_the_installed_one_works_after_monai_failed_on_it() -> None:
    code = """
import monai.networks.nets
from monai_thyroid.networks.vision import import_torchvision
import_torchvision()
import torch, torchvision, timm, segmentation_models_pytorch
print(torchvision.models.resnet18(weights=None).eval()(torch.rand(1, 3, 32, 32)).shape[1])
"""
    assert run(code) == "1000"
