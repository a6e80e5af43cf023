"""Segmenting a folder of JPEGs: `monai-thyroid predict` beside the script that people write.

Run: ``python benchmarks/predict.py RUN IMAGES [--count 500] [--rounds 3] [--cores N] [--no-amx] [--memory]``

Every contestant is a process of its own that starts, reads the same files and writes masks to disk; they take turns, so
that what else the machine does meets all of them. ``--no-amx`` forbids AMX to all of them. The script takes PyTorch in
float32, one image at a time or in batches, on all cores; it resizes with PIL and writes PNG. ``predict`` has chosen its
runtime before, on the same machine; the time of a first start, which measures, is told beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from monai_thyroid.machine import processor, processor_flags

SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import torch
from PIL import Image

weights, size, channels, batch, source, output = sys.argv[1:]
size, batch, mode = int(size), int(batch), "L" if channels == "1" else "RGB"
network = torch.jit.load(weights).eval()
paths = sorted(Path(source).iterdir())
for start in range(0, len(paths), batch):
    shapes, images = [], []
    for path in paths[start : start + batch]:
        picture = Image.open(path).convert(mode)
        shapes.append(picture.size)
        array = np.asarray(picture.resize((size, size), Image.BILINEAR), np.float32) / 255
        images.append(array[None] if mode == "L" else array.transpose(2, 0, 1))
    with torch.no_grad():
        masks = (torch.sigmoid(network(torch.from_numpy(np.stack(images)))) > 0.5).numpy()
    for path, shape, mask in zip(paths[start : start + batch], shapes, masks):
        picture = Image.fromarray(mask[0].astype(np.uint8) * 255).resize(shape, Image.NEAREST)
        picture.save(Path(output) / f"{path.stem}.png")
"""


def main() -> None:
    """Read the options and give each contestant the same surroundings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path, help="a folder of JPEGs, repeated where there are fewer than --count")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--no-amx", action="store_true")
    parser.add_argument(
        "--cores", type=int, help="of both sides; 1 is fair on a machine that others use (default: all)"
    )
    parser.add_argument("--memory", action="store_true", help="the peak memory on ten times as many images too")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment.pop(name, None)  # the script is to have all cores
    if options.no_amx:
        environment["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"
    with tempfile.TemporaryDirectory() as name:
        measure(options, Path(name), environment)


def measure(options: argparse.Namespace, folder: Path, environment: dict[str, str]) -> None:
    """Let the contestants take turns, and print their times and ratios."""
    source = copies(options.images, folder / "images", options.count)
    run = folder / "run"
    shutil.copytree(
        options.run, run, ignore=shutil.ignore_patterns("runtimes", "evaluations", "tensorboard", "last.pt")
    )
    predict = [sys.executable, "-m", "monai_thyroid", "predict", str(run), str(source), "--output"]
    first = timed([*predict, str(folder / "first")], environment)
    model = json.loads((run / "runtimes" / "model.json").read_text())["content"]
    choice = next(iter(json.loads((run / "runtimes" / "choices.json").read_text())["content"].values()))
    weights = folder / "network.ts"
    subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            "import sys, torch; from monai_thyroid.evaluation.model import Model\n"
            "from monai_thyroid.networks.exports import to_torchscript\n"
            "model = Model(sys.argv[1])\n"
            "to_torchscript(model.network, torch.zeros(1, *model.shape), sys.argv[2])",
            str(run),
            str(weights),
        ],
        check=True,
    )
    (folder / "script.py").write_text(SCRIPT)
    channels, size, _ = model["shape"]

    def script(batch: int) -> list[str]:
        given = [str(weights), str(size), str(channels), str(batch), str(source)]
        return [sys.executable, "-W", "ignore", str(folder / "script.py"), *given]

    contestants = {
        "predict": predict,
        "script, one by one": script(1),
        f"script, batches of {options.batch}": script(options.batch),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(options.rounds):
        for name, command in contestants.items():
            output = folder / f"out-{number}-{name.split(',')[-1].strip().replace(' ', '-')}"
            output.mkdir()
            seconds[name].append(timed([*command, str(output)], environment))
            masks = len(list(output.rglob("*.png")))
            if masks != options.count:
                raise SystemExit(f"{name}: {masks} masks of {options.count} images")
            shutil.rmtree(output)
    amx = "amx_bf16" in processor_flags() and not options.no_amx
    print(f"{processor()}, {len(os.sched_getaffinity(0))} cores, AMX {'used' if amx else 'not used'}, load", end=" ")
    print(f"{os.getloadavg()[0]:.1f}, {platform.python_version()}, {time.strftime('%Y-%m-%d')}")
    print(f"{options.count} JPEGs, network {size} px, runtime {choice['name']} ({choice['why']})")
    print(f"first start of predict, which measures: {first:.1f} s")
    own = seconds["predict"]
    for name, each in seconds.items():
        ratios = [a / b for a, b in zip(each, own, strict=True)]
        print(
            f"{name:<24} {statistics.median(each):7.1f} s {options.count / statistics.median(each):7.1f} images/s   "
            f"predict is {statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    empty = folder / "one"
    shutil.copytree(copies(source, folder / "single", 1), empty)
    starts = [timed([*predict[:-2], str(empty), "--output", str(folder / f"start-{n}")], environment) for n in range(3)]
    print(f"one image, start-up included: {min(starts):.2f} s")
    if options.memory:
        peaks = [
            peak(
                [
                    *predict[:-2],
                    str(copies(source, folder / f"m{count}", count)),
                    "--output",
                    str(folder / f"mo{count}"),
                ],
                environment,
            )
            for count in (options.count, 10 * options.count)
        ]
        print(f"peak memory on {options.count} images {peaks[0]} MiB, on ten times as many {peaks[1]} MiB", end="")
        print(f": {peaks[1] / peaks[0]:.3f} times")


def copies(source: Path, target: Path, count: int) -> Path:
    """So many links to a folder's JPEGs, over and over."""
    files = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    target.mkdir()
    for index in range(count):
        (target / f"{index:06d}.jpg").symlink_to(files[index % len(files)].resolve())
    return target


def timed(command: list[str], environment: dict[str, str]) -> float:
    """Seconds of a process from its start to its end."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started


def peak(command: list[str], environment: dict[str, str]) -> int:
    """MiB that a process had at most; of each in a process of its own, as the system tells the largest of all."""
    code = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=2)\n"
    code += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, check=True, capture_output=True, text=True
    )
    return int(done.stdout)


if __name__ == "__main__":
    main()
