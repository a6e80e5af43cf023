"""Training images/s on a processor: a bundle's whole run beside a bare loop, and beside the loop that people write.

Run: ``python benchmarks/training.py DATASET_DIR [--size 256] [--batch 8] [--images 160] [--norms instance,batch]
[--threads N] [--no-amx] [--output FILE.json]``; DATASET_DIR is in the layout of TN3K. It takes about four minutes on
two cores. Nothing else may run meanwhile.

Three sides, each a process of its own, of the same network (BasicUNet 32-32-64-128-256-32) on the same images:

- *whole run*: ``python -m monai.bundle run`` of bundles/thyroid/train.yaml, validation off, with the settings that it
  chooses on this machine; the seconds of an epoch that is neither the first (which makes plans) nor the last (which is
  validated), checkpoints and all. BasicUNet's instance norm, or batch norm and ReLU.
- *bare loop*: forward, the same loss, backward and optimiser on one batch of floats in memory, by the same precision
  and in the same layout. The whole run should reach 0.95 of it.
- *plain loop*: float32, Adam, Dice loss, a Dataset that decodes and resizes its image each time, as a first script has
  it. The whole run should be 2.5 times as fast, with batch norm on a processor with AMX 4 times.

``--no-amx`` lets oneDNN use everything but AMX, for all sides. ``--clock process --threads 1`` counts the processor's
seconds of one thread instead, for a machine that others use.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from monai.losses import DiceCELoss, DiceLoss
from monai.networks.nets import BasicUNet
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from monai_thyroid.evaluation import AutocastInferer, default_precision
from monai_thyroid.files import write_json
from monai_thyroid.machine import processor, processor_flags
from monai_thyroid.networks import to_channels_last, without_padding
from monai_thyroid.training import decay_groups

ROOT = Path(__file__).resolve().parents[1]
NORMS: dict[str, dict[str, Any]] = {"instance": {}, "batch": {"norm": "batch", "act": "relu"}}


class Decoded(Dataset):
    """Images and masks, read and resized whenever they are asked for."""

    def __init__(self, folder: Path, size: int) -> None:
        self.files = sorted((folder / "trainval-image").iterdir())
        self.size = (size, size)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        path = self.files[index]
        (mask,) = (path.parents[1] / "trainval-mask").glob(f"{path.stem}.*")
        image = Image.open(path).convert("L").resize(self.size, Image.Resampling.BILINEAR)
        label = Image.open(mask).convert("L").resize(self.size, Image.Resampling.NEAREST)
        pixels = torch.from_numpy(np.asarray(image, np.float32)[None] / 255)
        return pixels, torch.from_numpy(np.asarray(label)[None] > 127).float()


def unet(norm: str) -> BasicUNet:
    """The network of the menu."""
    torch.manual_seed(0)
    features = (32, 32, 64, 128, 256, 32)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=features, **NORMS[norm])


def timed(steps: Iterator[Any], count: int, batch: int, *, clock: Callable[[], float]) -> float:
    """Images/s of some steps after one that is not counted."""
    next(steps)
    began = clock()
    for _ in range(count):
        next(steps)
    return count * batch / (clock() - began)


def busy(process: int) -> float:
    """Seconds of the processor that a process has had so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare(args: argparse.Namespace) -> Iterator[None]:
    """Steps on one batch in memory."""
    network = without_padding(unet(args.norms), size=args.size)
    if args.channels_last:
        network = to_channels_last(network)
    inferer = AutocastInferer(device="cpu", precision=default_precision("cpu"))
    optimizer = torch.optim.AdamW(decay_groups(network, 0.05), lr=1e-3, fused=True)
    loss = DiceCELoss(sigmoid=True)
    images = torch.rand(args.batch, 1, args.size, args.size)
    labels = (torch.rand(images.shape) > 0.9).float()
    while True:
        optimizer.zero_grad(set_to_none=True)
        loss(inferer(images, network), labels).backward()
        optimizer.step()
        yield


def plain(args: argparse.Namespace) -> Iterator[None]:
    """Steps as a first script makes them."""
    network = unet(args.norms)
    optimizer, loss = torch.optim.Adam(network.parameters(), lr=1e-3), DiceLoss(sigmoid=True)
    loader = DataLoader(Decoded(Path(args.dataset_dir), args.size), batch_size=args.batch, shuffle=True, drop_last=True)
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            value = loss(network(images), labels)
            value.backward()
            optimizer.step()
            value.item()
            yield


def some_images(source: Path, target: Path, count: int) -> Path:
    """A dataset of the first images of another."""
    for part, most in (("trainval", count), ("test", 4)):
        for kind in ("image", "mask"):
            (target / f"{part}-{kind}").mkdir(parents=True)
        for path in sorted((source / f"{part}-image").iterdir())[:most]:
            (mask,) = (source / f"{part}-mask").glob(f"{path.stem}.*")
            (target / f"{part}-image" / path.name).symlink_to(path.resolve())
            (target / f"{part}-mask" / mask.name).symlink_to(mask.resolve())
    return target


def whole(args: argparse.Namespace, norm: str, dataset: Path, output: Path, environment: dict[str, str]) -> Any:
    """Images/s of a bundle's run, its layout, and what an image waits for until the first step is done."""
    options = {"dataset_dir": dataset, "output_dir": output, "image_size": args.size, "batch_size": args.batch}
    options |= {"max_epochs": 3, "val_interval": 1000, "device": "cpu"}
    options |= {f"networks::unet::{name}": value for name, value in NORMS[norm].items()}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    config = str(ROOT / "bundles" / "thyroid" / "train.yaml")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", config, *words]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    had: list[float] = []  # at the end of each epoch
    while process.poll() is None:
        if len([row for file in output.rglob("history.csv") for row in file.open()]) > len(had) + 1:
            had.append(busy(process.pid))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(process.returncode)
    (history,) = output.rglob("history.csv")
    second = list(csv.DictReader(history.open()))[1]
    seconds = had[1] - had[0] if args.clock == "process" else float(second["seconds"])
    images = json.loads((history.parent / "split.json").read_text())["parts"]["train"]["cases"]
    steps = len(images) // args.batch
    layout = yaml.safe_load((history.parent / "config.yaml").read_text())["channels_last"]
    return steps * args.batch / seconds, layout


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset_dir")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--norms", default="instance,batch")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-amx", action="store_true")
    parser.add_argument("--clock", choices=("wall", "process"), default="wall")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--side", choices=("bare", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=12, help=argparse.SUPPRESS)
    parser.add_argument("--channels-last", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        clock = time.process_time if args.clock == "process" else time.perf_counter
        steps = {"bare": bare, "plain": plain}[args.side](args)
        sys.stdout.write(str(timed(steps, args.steps, args.batch, clock=clock)))
        return
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    if args.no_amx:
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"
    amx = "amx_bf16" in processor_flags() and not args.no_amx
    facts = {"processor": processor(), "amx": amx, "threads": args.threads, "torch": torch.__version__}
    facts |= {"precision": default_precision("cpu"), "size": args.size, "batch": args.batch}
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print("| norm | layout | whole run | bare loop | plain loop | whole / bare (0.95) | whole / plain (2.5 or 4) |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for norm in args.norms.split(","):
        with tempfile.TemporaryDirectory() as folder:
            dataset = some_images(Path(args.dataset_dir), Path(folder) / "some", args.images)
            run, last = whole(args, norm, dataset, Path(folder) / "runs", environment)
            sides = {}
            for side, steps in (("bare", args.steps), ("plain", max(2, args.steps // 3))):
                command = [sys.executable, __file__, str(dataset), "--side", side, "--norms", norm]
                command += ["--size", str(args.size), "--batch", str(args.batch), "--steps", str(steps)]
                command += ["--clock", args.clock]
                command += ["--channels-last"] if last else []
                done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
                sides[side] = float(done.stdout.split()[-1])
        layout = "channels last" if last else "channels first"
        rows.append({"norm": norm, "layout": layout, "whole": run, **sides})
        figures = f"{run:.2f} | {sides['bare']:.2f} | {sides['plain']:.2f}"
        ratios = f"{run / sides['bare']:.3f} | {run / sides['plain']:.2f}"
        print(f"| {norm} | {layout} | {figures} | {ratios} |", flush=True)
    if args.output:
        write_json(args.output, {**facts, "rows": rows})


if __name__ == "__main__":
    main()
