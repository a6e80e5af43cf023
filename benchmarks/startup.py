"""What a user waits for before anything is computed: imports, `monai-thyroid check`, the first training step.

Run: ``python benchmarks/startup.py DATASET [--bundle bundles/thyroid] [--rounds 3]``

Each is a process of its own, the best of some rounds; processor seconds are told beside, for a machine that others use.
What `predict` waits for stands in ``benchmarks/predict.py``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from monai_thyroid.machine import processor

FIRST_STEP = "First training step done"


def main() -> None:
    """Start everything some times, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--bundle", type=Path, default=Path("bundles/thyroid"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    given = ["--dataset_dir", str(options.dataset.resolve())]
    config = str(options.bundle / "train.yaml")
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{processor()}, {cores} cores, load {load:.1f}, {time.strftime('%Y-%m-%d')}")
    for what, words in {
        "import torch": ["-c", "import torch"],
        "import monai": ["-c", "import monai"],
        "the same without mlflow": ["-c", "import sys; sys.modules['mlflow'] = None; import monai"],
        "import monai_thyroid.training": ["-c", "import monai_thyroid.training"],
        "import monai_thyroid.data.audit": ["-c", "import monai_thyroid.data.audit"],
        "monai-thyroid check --quick": ["-m", "monai_thyroid", "check", config, "--quick", *given],
        "to the first training step": ["-m", "monai.bundle", "run", "--config_file", config, "--max_epochs=1", *given],
    }.items():
        rounds = [started([sys.executable, "-W", "ignore", *words]) for _ in range(options.rounds)]
        seconds, busy = zip(*rounds, strict=True)
        print(f"{what:<34} {min(seconds):6.2f} s, {min(busy):6.2f} s of processor time")


def started(command: list[str]) -> tuple[float, float]:
    """Seconds, and those of the processor, of a process until it ends or has taken its first training step."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if "run" in command:
            command = [*command, "--output_dir", folder]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if FIRST_STEP in line:
                process.kill()
                break
        seconds = time.perf_counter() - began
        process.wait()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
