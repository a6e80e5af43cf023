"""One hour on this machine, same images, same split: our bundle, the recipe that people write, and nnU-Net v2.

Run: ``python benchmarks/hour.py BUNDLE --dataset-dir DIR --output DIR [--minutes 60] [--size 160]
[--network mobilenet_v2_unet] [--sides ours,plain,nnunet] [--nnunet DIR_OF_ITS_COMMANDS] [--nnunet-steps N]``

BUNDLE is a folder of ``bundles/``; DIR its data. Nothing else may run meanwhile, because each side gets what it can do
in the time. A side that is there already is not made again, so the sides may be run on different evenings.

- *ours*: the bundle's strong recipe with ``--hours``; postprocessing chosen on its validation part.
- *plain*: segmentation_models_pytorch's U-Net on the same encoder without pretraining, Dice loss, Adam 1e-3, flips,
  float32, a Dataset that decodes and resizes each time, 128 x 128, the best epoch by validation Dice.
- *nnunet*: nnU-Net v2 from an environment of its own (``pip install nnunetv2``), 2-D, its own plan and augmentation,
  trained and validated on our two parts (splits_final.json). An epoch of its 250 steps does not fit into an hour on two
  cores, so its time is measured over the first steps and both the length of its epochs and their number, over which the
  learning rate falls, are set from that (as much of its schedule as fits, all the way down); planning and
  preprocessing are not counted. Where that was measured once, ``--nnunet-steps`` takes as many after these first ones,
  beside other work, too.

All are scored on the test part, on the original grid, by ``monai-thyroid score`` and ``report`` into DIR/report.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matrix import config_of
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from monai_thyroid.data import Datalist
from monai_thyroid.evaluation import TrainedRun
from monai_thyroid.files import write_json
from monai_thyroid.images import read_labels, read_raster, save_label, to_channels
from monai_thyroid.networks.pretrained import import_smp

PLAIN_SIZE, PLAIN_BATCH = 128, 16

# nnU-Net looks for its trainers in this folder, too (nnUNet_extTrainer).
TRAINER = '''
import os, time
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

class nnUNetTrainerHour(nnUNetTrainer):
    """nnU-Net's trainer for a stated time: as many steps as fit, in epochs that its schedule can fall over."""

    def on_train_start(self):
        super().on_train_start()
        if "OMP_NUM_THREADS" in os.environ:  # nnU-Net takes every core whatever it says
            torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
        end = time.time() + 60 * float(os.environ["HOUR_MINUTES"])
        steps = []
        for _ in range(4):
            begun = time.time()
            self.train_step(next(self.dataloader_train))
            steps.append(time.time() - begun)
        step = sorted(steps[1:])[1]
        # A validation step costs about a third of a training step; nnU-Net takes one for five of them.
        total = int(os.environ["HOUR_STEPS"]) or max(2, int((end - time.time()) / (step * (1 + 1 / 15)) * 0.95))
        self.num_iterations_per_epoch = max(1, min(250, total // 20))
        self.num_val_iterations_per_epoch = max(1, self.num_iterations_per_epoch // 5)
        self.num_epochs = max(1, total // self.num_iterations_per_epoch)
        self.lr_scheduler.max_steps = self.num_epochs
        self.print_to_log_file(
            f"{step:.2f} s a step: {self.num_epochs} epochs of {self.num_iterations_per_epoch} steps")
'''


def call(*command: Any, env: dict[str, str] | None = None, log: Path) -> float:
    """Run a command into a log; seconds it took."""
    begun = time.perf_counter()
    print("$", *command, f"> {log}", flush=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        done = subprocess.run(
            [str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})}
        )
    if done.returncode:
        sys.exit(f"{command[0]} ended with status {done.returncode}: see {log}")
    return time.perf_counter() - begun


def ours(args: argparse.Namespace) -> Path:
    """Train by the bundle's strong recipe; its run folder."""
    call(
        *(sys.executable, "-m", "monai.bundle", "run", "--config_file", config_of(args.bundle, "strong")),
        *("--dataset_dir", args.dataset_dir, "--output_dir", args.output / "ours", "--seed", args.seed),
        *("--network", args.network, "--image_size", args.size, "--hours", args.minutes / 60),
        *("--postprocess", "choose"),
        log=args.output / "ours.log",
    )
    return found_run(args)


def found_run(args: argparse.Namespace) -> Path:
    """The finished run of `ours`, whose split and references the others take."""
    runs = [path.parent for path in (args.output / "ours").rglob(f"seed-{args.seed}/run.json")]
    runs = [run for run in runs if json.loads((run / "run.json").read_text())["status"] == "done"]
    if len(runs) != 1:
        sys.exit(f"{args.output / 'ours'}: {len(runs)} finished runs of seed {args.seed}; the side `ours` comes first")
    return runs[0]


class Decoded(Dataset):
    """Images and masks, read, resized and flipped whenever they are asked for."""

    def __init__(self, items: list[dict[str, Any]], *, channels: int, classes: int, flips: bool) -> None:
        self.items, self.channels, self.classes, self.flips = items, channels, classes, flips

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        item, size = self.items[index], (PLAIN_SIZE, PLAIN_SIZE)
        image = Image.open(item["image"]).convert("L" if self.channels == 1 else "RGB").resize(size, Image.BILINEAR)
        labels = Image.fromarray(read_labels(item["label"], classes=self.classes).astype(np.uint8))
        mask = np.asarray(labels.resize(size, Image.NEAREST))
        x = torch.from_numpy(np.array(image, np.float32) / 255).reshape(PLAIN_SIZE, PLAIN_SIZE, -1).permute(2, 0, 1)
        y = torch.from_numpy(np.stack([mask == number for number in range(1, self.classes + 1)]).astype(np.float32))
        if self.flips and torch.rand(()) < 0.5:
            x, y = x.flip(-1), y.flip(-1)
        if self.flips and torch.rand(()) < 0.5:
            x, y = x.flip(-2), y.flip(-2)
        return x, y


def plain(args: argparse.Namespace, data: Datalist, run: TrainedRun) -> Path:
    """Train as people write it, for the same time; the folder of its masks."""
    smp = import_smp()
    classes, channels = len(run.classes), int(run.config["channels"])
    torch.manual_seed(args.seed)
    encoder = args.network.removesuffix("_unet")
    network = smp.Unet(encoder_name=encoder, encoder_weights=None, in_channels=channels, classes=classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    dice = smp.losses.DiceLoss(mode="binary" if classes == 1 else "multilabel")
    common: dict[str, Any] = {"channels": channels, "classes": classes}
    loader = DataLoader(Decoded(data.part("train"), flips=True, **common), PLAIN_BATCH, shuffle=True, drop_last=True)
    held = DataLoader(Decoded(data.part("validation"), flips=False, **common), PLAIN_BATCH)
    best, weights, epoch = -1.0, network.state_dict(), 0
    begun, end = time.perf_counter(), time.perf_counter() + 60 * args.minutes
    while time.perf_counter() < end:
        epoch += 1
        network.train()
        for x, y in loader:
            optimizer.zero_grad()
            dice(network(x), y).backward()
            optimizer.step()
        network.eval()
        scores = []
        with torch.no_grad():
            for x, y in held:
                mask = network(x) > 0
                both, total = (mask & (y > 0)).sum((2, 3)), mask.sum((2, 3)) + y.sum((2, 3))
                scores.append(torch.where(total > 0, 2 * both / total.clamp(min=1), 1.0).mean(1))
        score = float(torch.cat(scores).mean())
        print(f"plain: epoch {epoch}, validation Dice {score:.4f}, {time.perf_counter() - begun:.0f} s", flush=True)
        if score > best:
            best, weights = score, {key: value.clone() for key, value in network.state_dict().items()}
    network.load_state_dict(weights)
    network.eval()
    folder = args.output / "plain"
    folder.mkdir(parents=True, exist_ok=True)
    test = Decoded(data.part("test"), flips=False, **common)
    for number, item in enumerate(test.items):
        height, width = read_labels(item["label"], classes=classes).shape
        with torch.no_grad():
            found = network(test[number][0][None]).sigmoid()
        found = torch.nn.functional.interpolate(found, size=(height, width), mode="bilinear", align_corners=False)[0]
        labels = torch.where(found.amax(0) > 0.5, found.argmax(0) + 1, 0)
        save_label(labels.numpy(), folder / f"{item['case']}.png", classes=classes)
    write_json(args.output / "plain.json", {"epochs": epoch, "best": best, "seconds": time.perf_counter() - begun})
    return folder


def nnunet(args: argparse.Namespace, data: Datalist, run: TrainedRun) -> Path:
    """Plan, preprocess, train for the same time and predict with nnU-Net; the folder of its masks."""
    work = args.output / "nnunet-work"
    raw = work / "raw" / "Dataset001_Hour"
    commands, channels, classes = Path(args.nnunet), int(run.config["channels"]), len(run.classes)
    parts = {"train": "Tr", "validation": "Tr", "test": "Ts"}
    for part, name in parts.items():
        for kind in ("images", "labels"):
            (raw / f"{kind}{name}").mkdir(parents=True, exist_ok=True)
        for item in data.part(part):
            pixels = to_channels(read_raster(item["image"]).normalised(), channels)
            Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(
                raw / f"images{name}" / f"{item['case']}_0000.png"
            )
            labels = read_labels(item["label"], classes=classes).astype(np.uint8)
            Image.fromarray(labels).save(raw / f"labels{name}" / f"{item['case']}.png")
    write_json(
        raw / "dataset.json",
        {
            "channel_names": {str(number): "rgb"[number] if channels == 3 else "grey" for number in range(channels)},
            "labels": {"background": 0, **{name: number for number, name in enumerate(run.classes, start=1)}},
            "numTraining": len(data.part("train")) + len(data.part("validation")),
            "file_ending": ".png",
        },
    )
    (work / "trainers").mkdir(exist_ok=True)
    (work / "trainers" / "nnUNetTrainerHour.py").write_text(TRAINER)
    env = {
        **{f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")},
        "nnUNet_extTrainer": str(work / "trainers"),
        "nnUNet_compile": "false",
        "nnUNet_n_proc_DA": "1",
        "HOUR_MINUTES": str(args.minutes),
        "HOUR_STEPS": str(args.nnunet_steps),
    }
    log = args.output / "nnunet.log"
    call(
        *(commands / "nnUNetv2_plan_and_preprocess", "-d", 1, "-c", "2d", "--verify_dataset_integrity", "-np", 2),
        env=env,
        log=log,
    )
    split = [
        {"train" if part == "train" else "val": [item["case"] for item in data.part(part)] for part in list(parts)[:2]}
    ]
    write_json(work / "preprocessed" / "Dataset001_Hour" / "splits_final.json", split)
    train = ("-tr", "nnUNetTrainerHour")
    seconds = call(commands / "nnUNetv2_train", 1, "2d", 0, *train, "-device", "cpu", env=env, log=log)
    call(
        *(commands / "nnUNetv2_predict", "-i", raw / "imagesTs", "-o", args.output / "nnunet", "-d", 1, "-c", "2d"),
        *("-f", 0, *train, "-device", "cpu", "-npp", 1, "-nps", 1),
        env=env,
        log=log,
    )
    write_json(args.output / "nnunet.json", {"seconds_with_its_validation": seconds})
    return args.output / "nnunet"


def main() -> None:
    """Make each side that is asked for and missing, then the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--dataset-dir", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--network", default="mobilenet_v2_unet")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sides", default="ours,plain,nnunet")
    parser.add_argument(
        "--nnunet", default=os.path.dirname(sys.executable), help="folder of nnUNetv2_train and the like"
    )
    parser.add_argument("--nnunet-steps", type=int, default=0, help="0: as many as are measured to fit")
    args = parser.parse_args()
    args.output = args.output.resolve()
    (args.output / "scored").mkdir(parents=True, exist_ok=True)
    sides = args.sides.split(",")
    if "ours" in sides and not list((args.output / "ours").rglob("run.json")):
        ours(args)
    folder = found_run(args)
    run = TrainedRun(str(folder), trust=True)
    data = run.datalist()
    compared = [folder]
    for name, make in (("plain", plain), ("nnunet", nnunet)):
        scored = args.output / "scored" / name
        if name in sides and not scored.exists():
            masks = args.output / name
            if not (args.output / f"{name}.json").exists():
                make(args, data, run)
            call(
                *(sys.executable, "-m", "monai_thyroid", "score", "--predictions", masks, "--references", folder),
                *("--name", name, "--seed", args.seed, "--pretrained-on", "none", "--output", scored),
                log=args.output / f"{name}.log",
            )
        if scored.exists():
            compared.append(scored)
    call(
        *(sys.executable, "-m", "monai_thyroid", "report", *compared, "--output", args.output / "report"),
        log=args.output / "report.log",
    )
    for one in compared:
        record = json.loads((one / "run.json").read_text())
        print(record["network"], json.dumps(record["test"]))


if __name__ == "__main__":
    main()
