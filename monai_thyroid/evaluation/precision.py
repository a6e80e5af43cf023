"""On what and how exactly the network is computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import Inferer

from monai_thyroid.errors import UserError
from monai_thyroid.machine import processor_flags

__all__ = ["PRECISIONS", "AutocastInferer", "default_device", "default_precision"]

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
        self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> torch.Tensor | list[torch.Tensor]:
        """Run the network on (B, C, H, W) and return its logits, float32.

        Of a network with deep supervision that is in training, those of all depths: see `AdaptedNetwork`.
        """
        with torch.autocast(self.device_type, dtype=torch.bfloat16, enabled=self.enabled):
            logits = network(inputs, *args, **kwargs)
        return logits.float() if isinstance(logits, torch.Tensor) else [one.float() for one in logits]
