"""Six datasets by eight networks by one recipe, several trainings on one GPU: the time it takes, and what comes out.

Run: ``python benchmarks/matrix.py --data-dir DIR --output DIR [--recipe strong|course] [--networks NAME,...]
[--bundles NAME,...] [--images 12000] [--size 128] [--jobs 3] [--minutes M] [--device DEVICE]``

DIR holds a folder a bundle, laid out as the bundle's README says. Each dataset's networks are one
``monai-thyroid compare`` with one seed, all datasets at once, each ``--jobs`` trainings at a time. A training sees
about ``--images`` images, whatever the size of its dataset; everything else is the recipe's default. With ``--minutes``
what is not finished then is stopped, and the same command goes on with it. Prints the table (test Dice on the original
grid, mean over images and classes) and writes ``matrix-RECIPE.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_thyroid.bundles import SHIPPED
from monai_thyroid.data import Datalist
from monai_thyroid.evaluation.environment import machine, versions
from monai_thyroid.files import read_csv, read_json, write_json

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = (
    *("resnet50_unet", "vgg19_unet", "vgg16_unet", "mobilenet_v2_unet"),
    *("segnet", "rngunet", "resunet", "unet"),
)


def config_of(bundle: str, recipe: str) -> Path:
    """The bundle's config of a recipe."""
    folder = ROOT / "bundles" / bundle
    named = folder / f"train_{recipe}.yaml"
    return named if named.is_file() else folder / "train.yaml"


def epochs_of(config: Path, args: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Options for a training that sees so many images."""
    parser = ConfigParser()
    parser.read_config(str(config))
    parser["dataset_dir"] = str(folder)
    data: Datalist = parser.get_parsed_content("data")
    epochs = max(1, math.ceil(args.images / len(data.part("train"))))
    if "first_stage_epochs" not in parser.get():
        return {"max_epochs": epochs}
    first = max(1, math.ceil(epochs * 5 / 8))
    return {"first_stage_epochs": first, "max_epochs": max(1, epochs - first)}


def command_of(bundle: str, args: argparse.Namespace) -> list[str]:
    """What is run for a dataset."""
    config, folder = config_of(bundle, args.recipe), args.data_dir / bundle
    options = {"dataset_dir": folder, "image_size": args.size, **epochs_of(config, args, folder)}
    if args.device:
        options["device"] = args.device
    command = [sys.executable, "-m", "monai_thyroid", "compare", str(config), "--networks", ",".join(args.networks)]
    command += ["--seeds", "0", "--output", str(args.output / bundle), "--jobs", str(args.jobs)]
    return command + [str(text) for name, value in options.items() for text in (f"--{name}", value)]


def finished(folder: Path) -> dict[str, dict[str, Any]]:
    """By network of the runs that are complete: Dice of the test part, best Dice of the validation part, seconds."""
    found: dict[str, dict[str, Any]] = {}
    for path in folder.glob("runs/**/seed-0/run.json"):
        record = read_json(path)
        if record["status"] != "done":
            continue
        tables = [read_csv(table) for table in path.parent.glob("evaluations/*/cases.csv")]
        dice = [float(row["dice"]) for table in tables for row in table if row["part"] == "test"]
        history = read_csv(path.with_name("history.csv"))
        found[record["network"]] = {
            "test_dice": round(sum(dice) / len(dice), 5),
            "cases": len(dice),
            "val_dice": max(float(row["val_dice"]) for row in history),
            "epochs": len(history),
            "seconds": round(sum(float(row["seconds"]) for row in history), 1),
        }
    return found


def main() -> None:
    """Run all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"type": lambda text: text.split(",")}
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--recipe", choices=("strong", "course"), default="strong")
    parser.add_argument("--networks", default=list(NETWORKS), **several)
    parser.add_argument("--bundles", default=list(SHIPPED), **several)
    parser.add_argument("--images", type=int, default=12000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--device", default="")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    running = {}
    for bundle in args.bundles:
        with (args.output / f"{bundle}.log").open("a") as log:
            running[bundle] = subprocess.Popen(
                command_of(bundle, args), env=environment, stdout=log, stderr=subprocess.STDOUT
            )
    ended: dict[str, float] = {}
    stopped = False
    while len(ended) < len(running):
        time.sleep(0.5)
        passed = time.perf_counter() - begun
        for bundle, process in running.items():
            if bundle not in ended and process.poll() is not None:
                ended[bundle] = round(passed, 1)
                print(f"{bundle}: exit status {process.returncode} after {passed:.0f} s", flush=True)
        if not stopped and passed > 60 * (args.minutes or math.inf):
            stopped = True
            for process in running.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
    seconds = time.perf_counter() - begun
    table = {bundle: finished(args.output / bundle) for bundle in args.bundles}
    print(f"\n{sum(map(len, table.values()))} trainings complete after {seconds:.0f} s")
    print("| network | " + " | ".join(args.bundles) + " |\n" + "|---" * (1 + len(args.bundles)) + "|")
    for network in args.networks:
        cells = [table[bundle].get(network) for bundle in args.bundles]
        texts = ["-" if cell is None else f"{cell['test_dice']:.3f}" for cell in cells]
        print(f"| {network} | " + " | ".join(texts) + " |")
    options = json.loads(json.dumps(vars(args), default=str))
    facts = {"options": options, "seconds": round(seconds, 1), "ended": ended, "test": table}
    facts |= {"machine": machine(), "versions": versions(), "date": time.strftime("%Y-%m-%d")}
    write_json(args.output / f"matrix-{args.recipe}.json", facts)


if __name__ == "__main__":
    main()
