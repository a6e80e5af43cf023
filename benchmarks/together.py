"""Training images/s of two processes with a core each, by `multi_gpu_train.yaml`, beside one process with one thread.

Run: ``python benchmarks/together.py DATASET_DIR [--size 128] [--batch 16] [--epochs 3]``;
DATASET_DIR is in the layout of TN3K. Nothing else may run meanwhile.

Both train on the same global batch; images/s are those of all processes as `run.json` holds them, validation aside.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from monai_thyroid.files import read_json
from monai_thyroid.machine import processor

BUNDLE = Path(__file__).resolve().parents[1] / "bundles" / "thyroid"


def main() -> None:
    """Train twice, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16, help="of all processes together")
    parser.add_argument("--epochs", type=int, default=3)
    options = parser.parse_args()
    print(f"{processor()}, load {os.getloadavg()[0]:.1f}, {time.strftime('%Y-%m-%d')}, {options.size} pixels")
    one, two = (trained(options, processes) for processes in (1, 2))
    print(f"1 process, 1 thread: {one:.1f} images/s; 2 processes: {two:.1f} images/s, {two / one:.2f} times as many")


def trained(options: argparse.Namespace, processes: int) -> float:
    """Images/s of a training."""
    configs = [str(BUNDLE / "train.yaml")]
    start = [sys.executable, "-W", "ignore"]
    if processes > 1:
        configs.append(str(BUNDLE / "multi_gpu_train.yaml"))
        start += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        start += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(*start, "-m", "monai.bundle", "run", "--config_file", str(configs)),
            *("--dataset_dir", str(options.dataset.resolve()), "--output_dir", folder, "--device", "cpu"),
            *("--image_size", str(options.size), "--batch_size", str(options.batch // processes)),
            *("--max_epochs", str(options.epochs), "--val_interval", str(options.epochs), "--channels_last", "false"),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
        (record,) = Path(folder).rglob("run.json")
        return float(read_json(record)["images_per_second"])


if __name__ == "__main__":
    main()
