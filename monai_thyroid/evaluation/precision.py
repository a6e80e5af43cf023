"""On what and how exactly the network is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer
from torch import nn
from torch.func import functional_call

from monai_thyroid.errors import UserError
from monai_thyroid.machine import processor_flags

__all__ = ["PRECISIONS", "AutocastInferer", "CastInferer", "default_device", "default_precision"]

PRECISIONS = ("float32", "bfloat16")


def default_device() -> str:
    """``"cuda"`` where there is one, else ``"cpu"``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def default_precision(device: str | torch.device) -> str:
    """``"bfloat16"`` where the device computes it in hardware (CUDA; CPUs with AMX or AVX512-BF16), else float32."""
    device = torch.device(device)
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device.type == "cpu":
        return "bfloat16" if {"amx_bf16", "avx512_bf16"} & processor_flags() else "float32"
    return "float32"


class AutocastInferer(Inferer):
    """Whole-image inference at a chosen precision; logits come back as float32.

    The loss and everything after it is computed in float32; only the network runs under autocast. MONAI's own `amp`
    flag knows CUDA and float16 alone.

    Args:
        device: where the network is.
        precision: ``"float32"`` or ``"bfloat16"``.

    Raises:
        UserError: another precision.
    """

    def __init__(self, *, device: str | torch.device, precision: str) -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
        self.device_type = torch.device(device).type
        self.enabled = precision == "bfloat16"

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        """Run the network on (B, C, H, W) and return its logits, float32."""
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.enabled):
            logits = network(inputs, *args, **kwargs)
        return logits.float()


class CastInferer(Inferer):
    """Whole-image inference with bfloat16 weights, whose float32 originals are what is trained and saved.

    The kernels of convolutions and linear layers are cast once a step and gradients flow back to the originals; norm
    layers keep their float32 parameters and statistics, and sum in float32. Autocast on a CPU computes norms in float32
    throughout: about a third of its training step are casts of activations, which this leaves out.
    """

    def __call__(self, inputs: torch.Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the network on (B, C, H, W) and return its logits, float32."""
        cast = {
            f"{name}.{key}" if name else key: parameter.to(torch.bfloat16)
            for name, module in network.named_modules()
            if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear))
            for key, parameter in module.named_parameters(recurse=False)
        }
        logits: torch.Tensor = functional_call(network, cast, (inputs.to(torch.bfloat16), *args), kwargs)
        return logits.float()
