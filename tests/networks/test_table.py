from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from configured import FILES
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_thyroid.errors import UserError
from monai_thyroid.networks import MENU, SegNet
from monai_thyroid.networks.exports import agrees, exported_logits, to_openvino, to_torchscript
from monai_thyroid.networks.menu import MENU_FILE
from monai_thyroid.networks.table import (
    _step_bytes,
    multiply_adds,
    network_table,
    parameters,
    render_markdown,
    render_page,
    render_text,
    training_memory,
)
from monai_thyroid.training import configured_networks

PAGE = Path(__file__).parents[2] / "docs" / "networks.md"


@pytest.mark.parametrize("name", ["unet", "segnet", "rngunet", "mobilenet_v2_unet"])
def test_memory_of_fake_tensors_is_that_of_real_ones(name: str) -> None:
    small = {"segnet": {"filters": (8, 8, 8, 8, 8)}, "rngunet": {"filters": (8, 8, 16)}}

    def make() -> nn.Module:
        return MENU[name](in_channels=1, out_channels=1, **small.get(name, {}))

    assert training_memory(make, size=64, batch=2) == _step_bytes(make(), torch.zeros(2, 1, 64, 64))


class Reads(nn.Module):
    """Reads a number while it is built, which fake tensors cannot give."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, int(torch.linspace(1, 4, 2)[1].item()), 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def test_a_network_that_reads_numbers_while_it_is_built() -> None:
    assert parameters(Reads) == 36
    assert multiply_adds(Reads, size=8) == 36 * 64
    assert training_memory(Reads, size=8, batch=2) == _step_bytes(Reads(), torch.zeros(2, 1, 8, 8))


def test_memory_of_a_convolution_by_hand() -> None:
    def make() -> nn.Module:
        return nn.Conv2d(1, 4, 3, padding=1, bias=False)

    image, logits, weights = 16 * 16 * 4, 4 * 16 * 16 * 4, 4 * 9 * 4
    peak = training_memory(make, size=16, batch=1)
    # Weights and moments, image, logits and labels at the loss, and what the loss makes of them.
    assert 3 * weights + image + 2 * logits < peak <= 4 * weights + image + 5 * logits


def test_multiply_adds_by_hand() -> None:
    assert multiply_adds(lambda: nn.Conv2d(1, 4, 3, padding=1), size=16) == 16 * 16 * 9 * 4
    network = SegNet(in_channels=1, out_channels=1, filters=(4, 4, 4, 4, 4))
    with FlopCounterMode(display=False) as counter:
        network(torch.rand(1, 1, 32, 32))
    make = lambda: SegNet(in_channels=1, out_channels=1, filters=(4, 4, 4, 4, 4))  # noqa: E731
    assert multiply_adds(make, size=32) == counter.get_total_flops() // 2


def test_what_does_not_export_is_a_no() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * (2 if float(x.sum()) > 0 else 3)

    results = exported_logits(Twice().eval(), torch.ones(1, 1, 2, 2))
    logits = torch.full((1, 1, 2, 2), 2.0)
    assert agrees(results["TorchScript"], logits)
    assert isinstance(results["ONNX"], Exception)
    assert not agrees(results["ONNX"], logits)
    assert not agrees(logits + 1, logits)
    assert not agrees(logits[0], logits)


class Sized(nn.Module):
    """Takes images of any size; ONNX and OpenVINO are given what it is for one."""

    def __init__(self, sides: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.sides = sides

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (2.0 if self.sides is None else float(self.sides[1]))

    def for_size(self, height: int, width: int) -> nn.Module:
        return Sized((height, width))


def test_openvino_goes_through_onnx_where_it_cannot_read_pytorch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = pytest.importorskip("openvino")
    images = torch.rand(1, 1, 2, 3)
    given: list[nn.Module] = []

    def refuse(network: nn.Module, **_: object) -> None:
        given.append(network)
        raise RuntimeError("no operator for that\nand a long trace")

    monkeypatch.setattr(openvino, "convert_model", refuse)
    with caplog.at_level("INFO"):
        model = to_openvino(Sized(), images)
    assert "converted from ONNX, for it cannot be from PyTorch (no operator for that)" in caplog.text
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    torch.testing.assert_close(torch.from_numpy(compiled(images.numpy())[0].copy()), 3 * images)
    assert [one.sides for one in given] == [(2, 3)]


class Scaled(nn.Module):
    """Cannot be scripted, for what it takes its number from has no type there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * {"a": 1, "b": (2, 3)}["b"][0]


class PerBatch(Scaled):
    """Nor traced, for it does another thing with a single image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * (1 if len(x) == 1 else 5)


def test_what_cannot_be_scripted_is_traced_for_any_batch(tmp_path: Path) -> None:
    assert not to_torchscript(nn.Conv2d(1, 1, 1).eval(), torch.ones(1, 1, 2, 2), tmp_path / "scripted.ts")
    network = nn.Sequential(nn.Conv2d(1, 1, 1), Scaled()).eval()
    assert to_torchscript(network, torch.ones(1, 1, 2, 2), tmp_path / "traced.ts")
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(torch.jit.load(tmp_path / "traced.ts")(images), network(images))
    with pytest.raises(ValueError, match="neither be scripted, nor traced"):
        to_torchscript(PerBatch().eval(), torch.ones(1, 1, 2, 2), tmp_path / "none.ts")
    assert not (tmp_path / "none.ts").exists()


def test_rendering() -> None:
    rows = network_table(["unet"], exports=False)
    assert "| unet | 256 x 256 | 1.98 | 4.95 | 191 | 2,717 |" in render_markdown(rows)
    header, line = render_text(rows).splitlines()
    assert header.index("parameters") == line.index("1.98")
    page = render_page(rows, command="monai-thyroid networks unet")
    assert render_markdown(rows) in page
    assert "Made by `monai-thyroid networks unet` on " in page
    further = "## Written by hand\n"
    again = render_page([], command="other", page=page + further)
    assert "| unet |" not in again
    assert again.endswith(further)
    with pytest.raises(UserError, match=r"unett\. There are unet, "):
        network_table(["unett"])


def test_the_page_in_docs_is_not_stale() -> None:
    """Its numbers are those of today; memory and exports take longer and are measured when it is made."""
    lines = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    lines = [line for line in lines if line[2].strip().endswith(" x 256") or line[2].strip() == "252 x 252"]
    written = [tuple(cell.strip() for cell in line[1:5]) for line in lines]
    further = [name for name in configured_networks([str(MENU_FILE), *map(str, FILES)]) if name not in MENU]
    assert sorted(one[0] for one in written[len(MENU) :]) == sorted(one for one in further if not one.endswith("_ds"))
    written = written[: len(MENU)]
    measured = []
    for name, make in MENU.items():
        build = functools.partial(make, in_channels=1, out_channels=1)
        size = 252 if name == "unpadded_unet" else 256
        work = f"{multiply_adds(build, size=size) / 1e9:.2f}"
        measured.append((name, f"{size} x {size}", f"{parameters(build) / 1e6:.2f}", work))
    assert written == measured
