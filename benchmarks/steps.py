"""Training steps of networks on this machine, side by side: which are fast here does not follow from multiply-adds.

Run: ``python benchmarks/steps.py [--config FILE]... [--networks A,B] [--size 160] [--batch 16] [--channels 3]``; FILE
are configs with networks, as for ``monai-thyroid networks``. Nothing else may run meanwhile. Unpadded networks, which
take other sizes, are left out.

Each row is the better of two layouts: forward in autocast, binary cross-entropy, backward and fused AdamW on one batch
of random images, the median of five steps after one that makes plans. A loop around it costs little
(benchmarks/training.py).
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from monai_thyroid.errors import UserError, tell_on_exit
from monai_thyroid.evaluation import default_precision
from monai_thyroid.networks import to_channels_last
from monai_thyroid.training import configured_networks

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", action="append", metavar="FILE")
    parser.add_argument("--networks", metavar="A,B")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=3)
    options = parser.parse_args()
    menu = configured_networks(options.config or [str(ROOT / "bundles" / "polyp" / "train.yaml")])
    padded = [name for name in menu if not name.startswith("unpadded")]
    names = options.networks.split(",") if options.networks else padded
    if unknown := [name for name in names if name not in menu]:
        raise UserError(f"networks {', '.join(unknown)}: the configs have {', '.join(menu)}")
    bfloat16 = default_precision("cpu") == "bfloat16"
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {'bfloat16' if bfloat16 else 'float32'}\n")
    print("| network | parameters (M) | images/s | channels last |\n|---|---:|---:|---|")
    for name in names:
        speeds = {}
        for last in (False, True):
            torch.manual_seed(0)
            network = menu[name](in_channels=options.channels, out_channels=1).train()
            if last:
                to_channels_last(network)
            images = torch.rand(options.batch, options.channels, options.size, options.size)
            speeds[last] = options.batch / step_seconds(network, images, last=last, bfloat16=bfloat16)
        last = speeds[True] > speeds[False]
        millions = sum(each.numel() for each in network.parameters()) / 1e6
        print(f"| `{name}` | {millions:.2f} | {speeds[last]:.1f} | {'yes' if last else 'no'} |", flush=True)


def step_seconds(network: torch.nn.Module, images: torch.Tensor, *, last: bool, bfloat16: bool) -> float:
    """The median time of five training steps after a first one."""
    if last:
        images = images.to(memory_format=torch.channels_last)
    labels = (torch.rand_like(images[:, :1]) > 0.5).float()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = network(images)
        binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    tell_on_exit()
    main()
