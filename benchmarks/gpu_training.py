"""Training images/s of the whole loop beside the network's own step, on synthetic images that lie on the GPU.

Run: ``python benchmarks/gpu_training.py [--batch-sizes 16,32,64,128] [--modes eager,channels_last,compiled]
[--precisions bfloat16] [--norms instance] [--size 256] [--steps 60] [--output FILE.json]``; on a processor with
``--device cpu --batch-sizes 8 --steps 4 --images 32``, beside other work with ``--clock process`` (processor time).

Both sides have the same network (BasicUNet 32-32-64-128-256-32), loss (Dice + cross-entropy), optimiser (fused AdamW)
and precision (bf16 autocast). The bare step repeats forward, loss, backward and optimiser on one batch of floats. The
whole loop is MONAI's `SupervisedTrainer` with what a training has: batches drawn from bytes, augmentation, gradient
clipping, a schedule a step, a moving average of weights, the mean loss of the epoch.

``eager`` is the network as it comes; ``channels_last`` and ``compiled`` (which is channels_last, too) leave out the
padding of its decoder, which copies although there is nothing to pad at sizes that 16 divides.

The roofline is the time in which the GPU could move the bytes that a step must move, at the speed of a large copy that
is measured first: each convolution reads its input and writes its output once, and twice that on the way back; each
norm with its activation reads its input twice and writes once, and reads two tensors twice and writes one on the way
back; each pooling, upsampling and concatenation reads and writes once either way. Weights are left out.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from torch import nn

from monai_thyroid.data import ResidentDataset, ResidentLoader
from monai_thyroid.evaluation import AutocastInferer, default_device, default_precision
from monai_thyroid.files import write_json
from monai_thyroid.machine import processor
from monai_thyroid.networks import to_channels_last, without_padding
from monai_thyroid.training import ClipGradients, WeightAverage, decay_groups
from monai_thyroid.transforms import BatchAugmentation

AUGMENTATION: dict[str, Any] = {
    "flip_horizontal": 0.5,
    "rotation": 45.0,
    "scale": (0.7, 1.4),
    "shift": 0.15,
    "gamma": (0.7, 1.5),
    "gain": (0.7, 1.4),
    "speckle": 0.2,
    "shadow": 0.5,
}


@dataclass(frozen=True)
class Case:
    """What is trained, and how."""

    device: torch.device
    precision: str
    norm: str
    mode: str
    batch: int
    size: int
    steps: int
    clock: Callable[[], float]

    def network(self) -> tuple[nn.Module, nn.Module]:
        """The network, and what is called in its place."""
        torch.manual_seed(0)
        network = unet(self.norm).to(self.device)
        if self.mode != "eager":
            network = without_padding(to_channels_last(network))
        return network, torch.compile(network, dynamic=False) if self.mode == "compiled" else network

    def inferer(self) -> AutocastInferer:
        """Runs the network at the precision."""
        return AutocastInferer(device=self.device, precision=self.precision)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def unet(norm: str) -> nn.Module:
    """BasicUNet with instance norm, or with batch norm and ReLU."""
    layers: dict[str, Any] = {"norm": "batch", "act": "relu"} if norm == "batch" else {}
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=(32, 32, 64, 128, 256, 32), **layers)


def optimiser(network: nn.Module, device: torch.device) -> torch.optim.Optimizer:
    """AdamW as the strong recipe has it."""
    return torch.optim.AdamW(decay_groups(network, 0.01), lr=1e-4, fused=device.type == "cuda")


def moved_bytes(size: int, width: int = 2) -> float:
    """Bytes a training step must move for one image; see the module's text."""
    network = unet("instance")
    total = 0.0

    def count(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        read, written = sum(one.numel() for one in inputs if one is not None), output.numel()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            total += (read + written) * 3 * width
        elif isinstance(module, nn.InstanceNorm2d):
            total += (3 + 5) * written * width
        elif isinstance(module, nn.MaxPool2d):
            total += (read + written) * 2 * width
        elif type(module).__name__ == "UpCat":
            total += 2 * 2 * read * width

    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, size, size))
    return total


def operations(size: int) -> float:
    """Floating-point operations of a training step for one image: three times those of the convolutions forward."""
    from torch.utils.flop_counter import FlopCounterMode

    network = unet("instance")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, size, size))
    return 3.0 * counter.get_total_flops()


def copy_speed(device: torch.device) -> float:
    """Bytes/s of a large copy, read and written counted."""
    size = 2**31 if device.type == "cuda" else 2**26
    source = torch.empty(size, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    seconds = []
    for _ in range(8):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2 * size / sorted(seconds)[4]


def bare(case: Case) -> float:
    """Images/s of the network's own step on one batch."""
    (network, called), inferer = case.network(), case.inferer()
    optimizer, loss_function = optimiser(network, case.device), DiceCELoss(sigmoid=True)
    images = torch.rand(case.batch, 1, case.size, case.size, device=case.device)
    labels = (torch.rand(images.shape, device=case.device) > 0.9).float()
    network.train()
    first = 5 if case.device.type == "cuda" else 1  # compile and choose algorithms
    for step in range(case.steps + first):
        if step == first:
            case.wait()
            started = case.clock()
        optimizer.zero_grad(set_to_none=True)
        loss_function(inferer(images, called), labels).backward()
        optimizer.step()
    case.wait()
    return case.steps * case.batch / (case.clock() - started)


def whole(case: Case, dataset: ResidentDataset) -> float:
    """Images/s of a training, its first epoch left out."""
    device, (network, called) = case.device, case.network()
    optimizer = optimiser(network, device)
    loader = ResidentLoader(
        dataset,
        batch_size=case.batch,
        seed=0,
        shuffle=True,
        drop_last=True,
        augmentation=BatchAugmentation(seed=0, **AUGMENTATION),
        **dataset.statistics(),
    )
    epochs = 1 + max(1, round(case.steps / len(loader)))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=epochs * len(loader), pct_start=0.05, cycle_momentum=False
    )
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=epochs,
        train_data_loader=loader,
        network=called,
        optimizer=optimizer,
        loss_function=DiceCELoss(sigmoid=True),
        inferer=case.inferer(),
        decollate=False,
        optim_set_to_none=True,
        train_handlers=[
            ClipGradients(network, max_norm=1.0),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            WeightAverage(network),
        ],
    )
    losses = torch.zeros((), device=device)
    times: list[float] = []
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: loader.set_epoch(trainer.state.epoch))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.add_(trainer.state.output["loss"].detach()))

    @trainer.on(Events.EPOCH_COMPLETED)
    def epoch_completed() -> None:
        if not torch.isfinite(losses):  # waits, once an epoch
            raise FloatingPointError("the training loss is not finite")
        losses.zero_()
        times.append(case.clock())

    if device.type == "cuda":
        # A step that waits for the GPU warns, with its line; the first epoch and the ends of epochs may wait.
        trainer.add_event_handler(
            Events.GET_BATCH_STARTED, lambda: torch.cuda.set_sync_debug_mode("warn" if times else "default")
        )
        trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: torch.cuda.set_sync_debug_mode("default"))
    trainer.run()
    return (len(times) - 1) * len(loader) * case.batch / (times[-1] - times[0])


def attempt(function: Callable[..., float], *args: Any) -> float:
    """Images/s, or NaN where memory does not do."""
    try:
        return function(*args)
    except torch.cuda.OutOfMemoryError:
        return float("nan")
    finally:
        torch.compiler.reset()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", default="16,32,64,128")
    parser.add_argument("--modes", default="eager,channels_last,compiled")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--precisions", default=None)
    parser.add_argument("--norms", default="instance")
    parser.add_argument("--clock", choices=("wall", "process"), default="wall")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    device = torch.device(args.device)
    precisions = (args.precisions or default_precision(device)).split(",")
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    speed, size = copy_speed(device), args.size
    per_image = moved_bytes(size, width=4 if precisions == ["float32"] else 2)
    print(
        f"{name}, torch {torch.__version__}, {size}x{size}; a copy moves {speed / 1e12:.2f} TB/s; "
        f"an image must move {per_image / 1e6:.0f} MB and takes {operations(size) / 1e9:.0f} GFLOP: at most "
        f"{speed / per_image:.0f} images/s by memory",
        flush=True,
    )
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (args.images, 1, size, size), dtype=torch.uint8, generator=generator)
    labels = (torch.rand(args.images, 1, size // 8, size // 8, generator=generator) > 0.8).to(torch.uint8)
    labels = labels.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    dataset = ResidentDataset.of_tensors(images, labels, device=device)
    rows = []
    print("| precision | norm | mode | batch | step alone, images/s | whole loop, images/s | ratio | of the roofline |")
    print("|---|---|---|---|---|---|---|---|")
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    choices = (precisions, args.norms.split(","), args.modes.split(","), map(int, args.batch_sizes.split(",")))
    for precision, norm, mode, batch in itertools.product(*choices):
        case = Case(device, precision, norm, mode, batch, size, args.steps, clock)
        alone, loop = attempt(bare, case), attempt(whole, case, dataset)
        names = f"{precision} | {norm} | {mode} | {batch}"
        rows.append({"case": names, "step": alone, "loop": loop})
        share = loop * per_image / speed
        print(f"| {names} | {alone:.4g} | {loop:.4g} | {loop / alone:.3f} | {share:.2f} |", flush=True)
    if args.output:
        facts = {"device": name, "torch": torch.__version__, "size": size, "clock": args.clock}
        write_json(args.output, {**facts, "copy_bytes_per_second": speed, "bytes_per_image": per_image, "rows": rows})


if __name__ == "__main__":
    main()
