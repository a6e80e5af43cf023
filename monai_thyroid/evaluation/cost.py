"""What one image costs a trained network."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["inference_cost"]


def inference_cost(
    network: torch.nn.Module, inferer: Callable[..., torch.Tensor], *, shape: Sequence[int], repeats: int = 10
) -> dict[str, Any]:
    """Count and time the network on one image; the network is left as it was.

    Args:
        network: where it is.
        inferer: called as ``inferer(images, network)``, as in evaluation.
        shape: (channels, width, height) of its input.
        repeats: how often to time it, after two warm-up passes.

    Returns:
        ``multiply_adds`` (of convolutions and matrix products) and ``latency_ms``, the median of the repeats: network
        alone, batch of one, neither reading nor writing.
    """
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    image = torch.zeros(1, *shape, device=device)
    training = network.training
    network.eval()
    times = []
    try:
        with torch.no_grad():
            with FlopCounterMode(display=False) as counter:
                network(image)
            for _ in range(repeats + 2):
                started = time.perf_counter()
                inferer(image, network)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(time.perf_counter() - started)
    finally:
        network.train(training)
    return {
        "multiply_adds": int(counter.get_total_flops()) // 2,
        "latency_ms": round(1000 * statistics.median(times[2:]), 3),
    }
