"""The strong recipe on real images: train a U-Net without pretraining, score it on the original grid.

Run: ``python benchmarks/strong_recipe.py DATASET --dataset-dir DIR [--seeds 0,1,2] [--size 256] [--network resnet34]
[--epochs N | --minutes M] [--refit] [--final] --output DIR``

DATASET is ``polyp`` (HyperKvasir, official 880/120) or ``thyroid`` (TN3K's layout, split by patient). Without
``--final`` the test part is not looked at: what is printed is the validation part's, on which everything was chosen.
``--refit`` trains on the validation part, too, once everything is chosen; then there is nothing to validate on.

The recipe: AdamW without decay of biases and norms, linear warm-up and cosine per step, gradient norm 1, Dice +
cross-entropy, moving average of weights, dataset normalisation, augmentation by modality in torch on the device, the
last weights (none are picked by their validation score), mean of flips at the end.

With ``--minutes`` the number of epochs is fixed from the speed of the first steps, while the rate still warms up.
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
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.losses import DiceCELoss
from monai.networks.nets import BasicUNet
from monai.transforms import Resized

from monai_thyroid.data import Datalist, ResidentDataset, ResidentLoader, load_datalist
from monai_thyroid.evaluation import AutocastInferer, default_device, default_precision
from monai_thyroid.evaluation.scoring import CASE_COLUMNS
from monai_thyroid.files import write_csv, write_json
from monai_thyroid.images import read_masks
from monai_thyroid.metrics import score_case, summarise
from monai_thyroid.networks import EncoderUNet
from monai_thyroid.runfolder.folder import machine, versions
from monai_thyroid.training import ClipGradients, WeightAverage, decay_groups
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
    """Factor of the learning rate at a step: linear warm-up, then half a cosine to 0.

    Its length is set once it is known.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total

    def __call__(self, step: int) -> float:
        """The factor at a step, from 0."""
        warm = WARM_UP if self.total is None else min(WARM_UP, self.total // 5)
        if step < warm or self.total is None:
            return min(1.0, (step + 1) / (warm + 1))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, self.total - warm))))


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
    optimizer = torch.optim.AdamW(
        decay_groups(network, args.weight_decay), lr=args.learning_rate, fused=device.type == "cuda"
    )
    schedule = Schedule(None if args.minutes else args.epochs * len(loader))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    average = WeightAverage(network, decay=args.average)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=100_000 if args.minutes else args.epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(sigmoid=True, batch=args.batch_dice),
        inferer=inferer,
        decollate=False,
        optim_set_to_none=True,
        train_handlers=[
            ClipGradients(network, max_norm=1.0),
            LrScheduleHandler(scheduler, print_lr=False, epoch_level=False),
            average,
        ],
    )
    history: list[dict[str, float]] = []
    losses = torch.zeros((), device=device)
    started = time.perf_counter()
    name = f"{args.dataset} {args.network} {args.label} seed {seed}"
    validation = None if args.refit else ResidentLoader(parts["validation"], **common)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: loader.set_epoch(trainer.state.epoch))
    measured: dict[str, float] = {}

    @trainer.on(Events.ITERATION_COMPLETED)
    def add_loss() -> None:
        losses.add_(trainer.state.output["loss"].detach())
        step = trainer.state.iteration
        if schedule.total is None and step in (args.measure // 4, args.measure):
            if device.type == "cuda":
                torch.cuda.synchronize()
            measured[str(step)] = time.perf_counter()
            if step == args.measure:
                rate = (step - args.measure // 4) / (measured[str(step)] - measured[str(args.measure // 4)])
                left = max(0.0, args.minutes * 60 - (time.perf_counter() - args.begun))
                trainer.state.max_epochs = max(1, int((step + rate * left) / len(loader)))
                schedule.total = trainer.state.max_epochs * len(loader)
                print(
                    f"{name}: {rate * args.batch_size:.0f} images/s, so {trainer.state.max_epochs} epochs", flush=True
                )

    @trainer.on(Events.EPOCH_COMPLETED)
    def epoch_completed() -> None:
        epoch, last = trainer.state.epoch, trainer.state.epoch == trainer.state.max_epochs
        every = max(1, trainer.state.max_epochs // args.validations) if schedule.total else 50
        if not (last or epoch % every == 0):
            return
        loss = float(losses) / (len(loader) * (epoch - (history[-1]["epoch"] if history else 0)))
        losses.zero_()
        if not math.isfinite(loss):
            raise FloatingPointError(f"the training loss became {loss} before epoch {epoch}")
        row = {"epoch": epoch, "seconds": round(time.perf_counter() - started, 1), "train_loss": loss}
        if validation is not None:
            found = probabilities(average.network, inferer, validation, [()])
            row["val_dice"] = grid_dice(found, parts["validation"].labels.to(device))
            if last:
                plain = probabilities(network, inferer, validation, [()])
                row["val_dice_without_average"] = grid_dice(plain, parts["validation"].labels.to(device))
        history.append(row)
        print(name, json.dumps(row), flush=True)

    trainer.run()
    seconds = time.perf_counter() - started
    result: dict[str, Any] = {
        "dataset": args.dataset,
        "network": args.network,
        "parameters": sum(one.numel() for one in network.parameters()),
        "seed": seed,
        "size": args.size,
        "epochs": trainer.state.max_epochs,
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
        torch.save(found.half().cpu(), folder / f"{part}.pt")
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
    parser.add_argument("--minutes", type=float, help="of everything, start-up included; sets the epochs")
    parser.add_argument("--measure", type=int, default=160, help="steps to measure the speed by")
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
