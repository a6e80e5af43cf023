"""The strong recipe on real images: train a U-Net without pretraining, score it on the original grid.

Run: ``python benchmarks/strong_recipe.py DATASET --dataset-dir DIR [--seeds 0,1,2] [--size 256] [--network resnet34]
[--epochs N | --minutes M] [--refit] [--final] --output DIR``

DATASET is ``polyp`` (HyperKvasir, official 880/120) or ``thyroid`` (TN3K's layout, split by patient). Without
``--final`` the test part is not looked at: what is printed is the validation part's, on which everything was chosen.
``--refit`` trains on the validation part, too, once everything is chosen; then there is nothing to validate on.

The recipe: AdamW without decay of biases and norms, linear warm-up and cosine per step, gradient norm 1, Dice +
cross-entropy, moving average of weights, dataset normalisation, augmentation by modality in torch on the device, the
last weights (none are picked by their validation score), mean of flips at the end.

With ``--minutes`` the schedule follows the clock, and the number of epochs comes out.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Resized

from monai_thyroid.data import Datalist, ResidentDataset, ResidentLoader, load_datalist
from monai_thyroid.evaluation import AutocastInferer, default_device, default_precision
from monai_thyroid.evaluation.environment import machine, versions
from monai_thyroid.files import write_csv, write_json
from monai_thyroid.images import read_masks
from monai_thyroid.metrics import score_case, summarise
from monai_thyroid.networks import EncoderUNet
from monai_thyroid.runfolder import CASE_COLUMNS
from monai_thyroid.training import ClipGradients, GraphedTrainer, WeightAverage, decay_groups
from monai_thyroid.transforms import BatchAugmentation, LoadMaskd, LoadScand

DATASETS: dict[str, dict[str, Any]] = {
    "polyp": {
        "layout": ["hyperkvasir"],
        "classes": ["polyp"],
        "channels": 3,
        "flips": [(), (2,), (3,), (2, 3)],
        "augmentation": {
            "flip_horizontal": 0.5,
            "flip_vertical": 0.5,
            "rotation": 180.0,
            "scale": [0.7, 1.4],
            "aspect": [0.8, 1.25],
            "shift": 0.15,
            "affine_probability": 0.9,
            "gamma": [0.7, 1.5],
            "gain": [0.7, 1.4],
            "contrast": [0.7, 1.4],
            "saturation": [0.6, 1.6],
            "hue": 15.0,
            "blur": 1.5,
            "noise": 0.04,
        },
    },
    "thyroid": {
        "layout": ["tn3k"],
        "classes": ["nodule"],
        "channels": 1,
        "flips": [(), (2,)],
        "augmentation": {
            "flip_horizontal": 0.5,
            "rotation": 45.0,
            "scale": [0.7, 1.4],
            "aspect": [0.75, 1.33],
            "shift": 0.15,
            "elastic": 0.015,
            "affine_probability": 0.9,
            "gamma": [0.6, 1.6],
            "gain": [0.7, 1.4],
            "contrast": [0.7, 1.4],
            "blur": 1.5,
            "speckle": 0.25,
            "shadow": 0.6,
        },
    },
}
WARM_UP = 200  # steps


class Schedule:
    """Sets the learning rate at each step: linear warm-up, then half a cosine down to 0.

    The cosine follows the steps; or the clock, where a training has a time and not a number of epochs.

    Args:
        optimizer: its rate, a number or a tensor that is changed in place.
        rate: the largest.
        steps: of the whole training, unless it has a time.
        end: when it is to end, by `time.perf_counter`.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, rate: float, steps: int | None = None, end: float = math.inf
    ) -> None:
        self.optimizer, self.rate, self.steps = optimizer, rate, steps
        self.begun, self.end = time.perf_counter(), end
        self.step = 0
        self.set()

    @property
    def progress(self) -> float:
        """Share of the training that is over, 0 to 1."""
        if self.steps is not None:
            return min(1.0, self.step / self.steps)
        return min(1.0, (time.perf_counter() - self.begun) / max(1.0, self.end - self.begun))

    def set(self) -> None:
        """Set the rate of the coming step."""
        warm = WARM_UP if self.steps is None else min(WARM_UP, self.steps // 10)
        rate = self.rate * min(1.0, (self.step + 1) / (warm + 1)) * 0.5 * (1 + math.cos(math.pi * self.progress))
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def attach(self, engine: Engine) -> None:
        """Listen to the trainer's steps."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Go on by a step; end the training when its time is over."""
        self.step += 1
        self.set()
        if self.steps is None and self.progress >= 1:
            engine.terminate()


def transforms(channels: int, classes: list[str], size: int) -> list[Any]:
    """Load and resize an item."""
    return [
        LoadScand("image", channels=channels),
        Resized("image", spatial_size=(size, size), mode="bilinear", anti_aliasing=True),
        LoadMaskd("label", classes=classes),
        Resized("label", spatial_size=(size, size), mode="nearest"),
    ]


def build(name: str, channels: int, classes: int) -> torch.nn.Module:
    """``unet``, or a U-Net on an encoder of segmentation_models.pytorch."""
    if name == "unet":
        return BasicUNet(
            spatial_dims=2, in_channels=channels, out_channels=classes, features=(32, 32, 64, 128, 256, 32)
        )
    return EncoderUNet(encoder=name, in_channels=channels, out_channels=classes, weights=None)


@torch.no_grad()
def probabilities(
    network: torch.nn.Module, inferer: AutocastInferer, loader: ResidentLoader, flips: list[tuple[int, ...]]
) -> torch.Tensor:
    """(N, classes, width, height): the mean over flips, in the order of the loader."""
    network.eval()
    parts = []
    for batch in loader:
        one = 0.0
        for axes in flips:
            logits = inferer(batch["image"].flip(axes), network)
            one = one + logits.sigmoid().flip(axes) / len(flips)
        parts.append(one)
    return torch.cat(parts)


def grid_dice(found: torch.Tensor, labels: torch.Tensor) -> float:
    """Mean Dice over images and classes on the network's grid."""
    masks, labels = found > 0.5, labels.bool()
    both = (masks & labels).sum(dim=(2, 3)).double()
    total = masks.sum(dim=(2, 3)) + labels.sum(dim=(2, 3))
    return float(torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0).mean())


def score(data: Datalist, part: str, found: torch.Tensor, classes: list[str]) -> list[dict[str, Any]]:
    """Rows of cases.csv: each case and class on its original grid."""
    rows = []
    for item, one in zip(data.part(part), found, strict=True):
        reference = read_masks(item["label"], classes=len(classes))
        height, width = reference.shape[1:]
        one = F.interpolate(one[None].float(), size=(width, height), mode="bilinear", align_corners=False)[0]
        masks = np.swapaxes((one > 0.5).cpu().numpy(), 1, 2)
        for name, truth, mask in zip(classes, reference, masks, strict=True):
            keys = {key: item.get(key, "") for key in ("site", "part", "case", "group")}
            rows.append({"dataset": data.name, **keys, "class": name, **score_case(truth, mask), "error": ""})
    return rows


def train(args: argparse.Namespace, data: Datalist, parts: dict[str, ResidentDataset], seed: int) -> dict[str, Any]:
    """One run; returns what its JSON holds, and leaves cases.csv beside it."""
    recipe = DATASETS[args.dataset]
    augmentation = BatchAugmentation(seed=seed, **{**recipe["augmentation"], **json.loads(args.augmentation)})
    device = torch.device(args.device)
    torch.manual_seed(seed)
    network = build(args.network, recipe["channels"], len(recipe["classes"])).to(device)
    if device.type == "cuda":
        network = network.to(memory_format=torch.channels_last)
    statistics = parts["train"].statistics()
    common = {"batch_size": args.batch_size, **statistics}
    loader = ResidentLoader(
        parts["train"], seed=seed, shuffle=True, drop_last=True, augmentation=augmentation, **common
    )
    inferer = AutocastInferer(device=device, precision=args.precision)
    cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        decay_groups(network, args.weight_decay),
        lr=torch.tensor(args.learning_rate, device=device) if cuda else args.learning_rate,
        fused=cuda,
        capturable=cuda,
    )
    schedule = Schedule(
        optimizer,
        rate=args.learning_rate,
        steps=None if args.minutes else args.epochs * len(loader),
        end=args.begun + 60 * (args.minutes or 0),
    )
    average = WeightAverage(network, decay=args.average)
    trainer = (SupervisedTrainer if args.plain else GraphedTrainer)(
        device=device,
        max_epochs=100_000 if args.minutes else args.epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(sigmoid=True, batch=args.batch_dice),
        inferer=inferer,
        decollate=False,
        optim_set_to_none=True,
        train_handlers=[ClipGradients(network, max_norm=1.0), average, schedule],
    )
    history: list[dict[str, float]] = []
    losses = torch.zeros((), device=device)
    started = time.perf_counter()
    name = f"{args.dataset} {args.network}{args.label and ' ' + args.label} seed {seed}"
    validation = None if args.refit else ResidentLoader(parts["validation"], **common)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: loader.set_epoch(trainer.state.epoch))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: losses.add_(trainer.state.output["loss"].detach()))

    def look(last: bool) -> None:
        iteration = trainer.state.iteration
        loss = float(losses) / (iteration - (history[-1]["iteration"] if history else 0))
        losses.zero_()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the training loss became {loss} before iteration {iteration}")
        seconds = round(time.perf_counter() - started, 1)
        row = {"epoch": trainer.state.epoch, "iteration": iteration, "seconds": seconds, "train_loss": loss}
        if validation is not None:
            labels = parts["validation"].labels.to(device)
            row["val_dice"] = grid_dice(probabilities(average.network, inferer, validation, [()]), labels)
            if last:
                plain = probabilities(network, inferer, validation, [()])
                row["val_dice_without_average"] = grid_dice(plain, labels)
        history.append(row)
        print(name, json.dumps(row), flush=True)

    @trainer.on(Events.EPOCH_COMPLETED)
    def epoch_completed() -> None:
        if schedule.progress < 1 and schedule.progress >= (len(history) + 1) / args.validations:
            look(last=False)

    trainer.run()
    look(last=True)
    seconds = time.perf_counter() - started
    result: dict[str, Any] = {
        "dataset": args.dataset,
        "network": args.network,
        "parameters": sum(one.numel() for one in network.parameters()),
        "seed": seed,
        "size": args.size,
        "epochs": round(trainer.state.iteration / len(loader), 2),
        "minutes": args.minutes,
        "trainer": type(trainer).__name__,
        "batch_size": args.batch_size,
        "learning_rate": args.learning_rate,
        "weight_decay": args.weight_decay,
        "average": args.average,
        "batch_dice": args.batch_dice,
        "augmentation": {**recipe["augmentation"], **json.loads(args.augmentation)},
        "normalisation": statistics,
        "train_images": len(parts["train"]),
        "refit": args.refit,
        "seconds": round(seconds, 1),
        "images_per_second": round(trainer.state.iteration * args.batch_size / seconds, 1),
        "split": data.how,
        "data_hash": args.data_hash,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "precision": args.precision,
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d"),
        "history": history,
    }
    folder = args.output / f"{args.dataset}-{args.network}{args.label and '-' + args.label}-{args.size}-seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    scored = ([] if args.refit else ["validation"]) + (["test"] if args.final else [])
    for part in scored:
        evaluated = ResidentLoader(parts[part], **common)
        found = probabilities(average.network, inferer, evaluated, recipe["flips"])
        np.savez_compressed(folder / f"{part}.npz", (found * 255).round().to(torch.uint8).cpu().numpy())
        rows = score(data, part, found, recipe["classes"])
        write_csv(folder / ("cases.csv" if part == "test" else f"cases-{part}.csv"), CASE_COLUMNS, rows)
        summary = summarise(rows)
        result[part] = {
            key: summary[key]
            for key in ("n_cases", "dice_mean", "iou_mean", "n_misses", "n_false_alarms")
            if key in summary
        }
        print(f"{name}: {part} on the original grid {json.dumps(result[part])}", flush=True)
    write_json(folder / "run.json", result)
    return result


def main() -> None:
    """Train each seed, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=DATASETS)
    parser.add_argument("--dataset-dir", required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--network", default="resnet34")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--minutes", type=float, help="of everything, start-up included, instead of epochs")
    parser.add_argument("--plain", action="store_true", help="MONAI's own trainer, without a CUDA graph")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--average", type=float, default=0.998)
    parser.add_argument("--batch-dice", action="store_true")
    parser.add_argument("--augmentation", default="{}", help="JSON that changes the recipe's")
    parser.add_argument("--label", default="", help="names the folder of a variant")
    parser.add_argument("--refit", action="store_true")
    parser.add_argument("--final", action="store_true")
    parser.add_argument("--validations", type=int, default=12)
    parser.add_argument("--device", default=default_device())
    parser.add_argument("--precision", default=None)
    parser.add_argument("--images", type=int, help="only the first of each part, to try the script")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    args.begun = time.perf_counter()
    args.precision = args.precision or default_precision(args.device)
    torch.backends.cudnn.benchmark = True
    recipe = DATASETS[args.dataset]
    data = load_datalist(args.dataset_dir, layout=recipe["layout"], classes=recipe["classes"])
    args.data_hash = data.inspect().data_hash
    loading = transforms(recipe["channels"], recipe["classes"], args.size)
    if args.images:
        seen: dict[str, int] = {}
        for item in data.items:
            seen[item["part"]] = seen.get(item["part"], 0) + 1
            item["keep"] = seen[item["part"]] <= args.images
        data.items = [item for item in data.items if item.pop("keep")]
    wanted = ["train", "validation", *(["test"] if args.final else [])]
    items = {part: data.part(part) for part in wanted}
    if args.refit:
        items["train"] = items["train"] + items.pop("validation")
    parts = {part: ResidentDataset(some, loading, device=args.device) for part, some in items.items()}
    print(
        f"{args.dataset}: { ({part: len(one) for part, one in parts.items()}) }, {data.how}, "
        f"{time.perf_counter() - args.begun:.1f} s to read",
        flush=True,
    )
    for seed in args.seeds.split(","):
        train(args, data, parts, int(seed))


if __name__ == "__main__":
    main()
