"""Device and precision are chosen by what the machine has; logits come back as float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import AutocastInferer, default_device, default_precision


@pytest.mark.parametrize("there", [True, False])
def test_cuda_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert default_device() == ("cuda" if there else "cpu")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx2", "float32"),
        ("avx512f avx512_bf16", "bfloat16"),
        ("amx_tile amx_bf16", "bfloat16"),
        ("avx512f avx512_vnni", "float32"),
        ("no_amx_bf16_here", "float32"),
    ],
)
def test_a_processor_computes_bfloat16_if_it_says_so(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: str
) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: True)
    monkeypatch.setattr(Path, "read_text", lambda self: f"processor : 0\nflags\t\t: {flags}\n")
    assert default_precision("cpu") == default_precision(torch.device("cpu")) == expected


def test_without_proc_a_processor_computes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "is_file", lambda self: False)
    assert default_precision("cpu") == "float32"


@pytest.mark.parametrize("supported", [True, False])
def test_a_gpu_computes_bfloat16_only_in_hardware(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported or including_emulation)
    assert default_precision("cuda") == default_precision("cuda:1") == ("bfloat16" if supported else "float32")


def test_other_devices_compute_float32() -> None:
    assert default_precision("mps") == "float32"


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 2, 3, padding=1)
        self.seen: list[torch.dtype] = []

    def forward(self, image: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        logits = self.convolution(image) * scale
        self.seen.append(logits.dtype)
        return logits


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_network_alone_runs_in_the_chosen_precision(precision: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    layer, image = Layer(), torch.rand(2, 1, 5, 7)
    logits = AutocastInferer(device="cpu", precision=precision)(image, layer)
    assert layer.seen == [dtype]
    assert logits.dtype == torch.float32
    exact = layer.convolution(image)
    if precision == "float32":
        assert torch.equal(logits, exact)
    else:
        assert torch.allclose(logits, exact, atol=0.02)
        assert not torch.equal(logits, exact)
    assert not torch.is_autocast_enabled("cpu")
    logits.sum().backward()
    assert layer.convolution.weight.grad is not None
    assert layer.convolution.weight.grad.dtype == torch.float32


def test_arguments_reach_the_network() -> None:
    layer, image = Layer(), torch.rand(1, 1, 4, 4)
    inferer = AutocastInferer(device=torch.device("cpu"), precision="float32")
    assert torch.allclose(inferer(image, layer, scale=3.0), 3 * inferer(image, layer))
    assert torch.equal(inferer(image, layer, 3.0), inferer(image, layer, scale=3.0))


@pytest.mark.parametrize("precision", ["float16", "bf16", "", "FLOAT32"])
def test_other_precisions_are_refused(precision: str) -> None:
    with pytest.raises(UserError, match="choose one of float32, bfloat16"):
        AutocastInferer(device="cpu", precision=precision)
