"""Milliseconds of one image, from array to mask on its own grid, by every runtime of this machine; the process is warm.

Run: ``python benchmarks/latency.py RUN IMAGES [--repeats 50]``
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from monai_thyroid.evaluation import Predictor
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.runtimes import candidates, mean_dice
from monai_thyroid.images import is_image, read_raster
from monai_thyroid.machine import processor


def main() -> None:
    """Print a line a runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, help="a folder of images")
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    model = Model(options.run)
    rasters = [read_raster(path) for path in sorted(options.images.iterdir()) if is_image(path)][: options.repeats]
    print(f"{processor()}, {time.strftime('%Y-%m-%d')}, input {model.shape}, {len(rasters)} images")
    predictors = {name: Predictor(model, device="cpu", runtime=name) for name in candidates(model, device="cpu")}
    times: dict[str, list[float]] = {name: [] for name in predictors}
    masks: dict[str, list] = {name: [] for name in predictors}
    for predictor in predictors.values():
        predictor(rasters[0])
    for raster in rasters:  # in turns, so that what else the machine does meets all of them
        for name, predictor in predictors.items():
            started = time.perf_counter()
            masks[name].append(predictor(raster).mask)
            times[name].append(1000 * (time.perf_counter() - started))
    for name, each in times.items():
        dice = mean_dice(masks[name], masks["torch-float32"], classes=len(model.classes))
        print(f"{name:<30} median {statistics.median(each):7.1f} ms, least {min(each):7.1f} ms, mean Dice {dice:.4f}")


if __name__ == "__main__":
    main()
