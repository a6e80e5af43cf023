"""How long `monai-thyroid audit` takes on a large dataset.

Run: ``python benchmarks/audit.py DATASET... [--count 5000] [--scale 2]``

The images and masks of real datasets, enlarged to the size that archives have and each made a little different by
mirroring, brightness and noise, are written into a temporary folder, and audited there by a process of its own. The
time includes its start and the page with pictures; processor seconds are told beside, for a machine that others use.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from monai_thyroid.data.folders import read_listing
from monai_thyroid.data.layouts import Item
from monai_thyroid.images import read_raster
from monai_thyroid.machine import processor


def main() -> None:
    """Write the images, audit them, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+", help="whose images and masks are taken in turn")
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--scale", type=float, default=2, help="of the images' sides (default %(default)g)")
    options = parser.parse_args()
    items = [read_listing(path.resolve()).items for path in options.datasets]
    chosen = [
        (number, each[number // len(items) % len(each)])
        for number in range(options.count)
        for each in [items[number % len(items)]]
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("images", "masks"):
            (folder / "set" / kind).mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            sizes = list(pool.map(partial(write, folder=folder / "set", scale=options.scale), chosen, chunksize=50))
        command = [sys.executable, "-m", "monai_thyroid", "audit", str(folder / "set")]
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        done = subprocess.run([*command, "--output", str(folder / "audit.html")], capture_output=True, text=True)
        seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if "page" in done.stderr or "Traceback" in done.stderr:
        raise SystemExit(done.stderr)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    width, height = np.median(sizes, axis=0)
    print(
        f"{processor()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, "
        f"{platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )
    print(
        f"audit of {options.count} images, {width:.0f} x {height:.0f} pixels in the middle: {seconds:.1f} s, "
        f"{busy:.1f} s of processor time, {options.count / seconds:.0f} images/s"
    )


def write(chosen: tuple[int, Item], *, folder: Path, scale: float) -> tuple[int, int]:
    """Write one image and its mask; returns width and height."""
    number, item = chosen
    chance = np.random.default_rng(number)
    pixels = np.rint(read_raster(item["image"]).normalised() * 255).astype(np.uint8)
    mask = read_raster(item["label"], mask=True).pixels
    mask = mask[..., 0] if mask.ndim == 3 else mask
    mask = ((mask > mask.max() / 2) * 255).astype(np.uint8)
    if chance.random() < 0.5:
        pixels, mask = pixels[:, ::-1], mask[:, ::-1]
    size = round(pixels.shape[1] * scale), round(pixels.shape[0] * scale)
    large = np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC), np.float32)
    noisy = large * chance.uniform(0.8, 1.2) + chance.normal(0, 3, large.shape)
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(folder / "images" / f"{number:06d}.jpg", quality=90)
    Image.fromarray(np.ascontiguousarray(mask)).resize(size, Image.Resampling.NEAREST).save(
        folder / "masks" / f"{number:06d}.png"
    )
    return size


if __name__ == "__main__":
    main()
