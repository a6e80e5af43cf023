"""Time per case of the scores, beside MONAI computing the same figures on a part of the cases.

Run: ``OMP_NUM_THREADS=1 python benchmarks/metrics.py [--cases 1000] [--size 256] [--monai-cases 100]``
"""

from __future__ import annotations

import argparse
import os
import platform
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
    get_confusion_matrix,
)
from scipy import ndimage

from monai_thyroid.metrics import calibration_case, score_case

SPACING = (0.08, 0.1)
TOLERANCE = 2.0


def blobs(size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One to three wobbly ellipses, a prediction that differs at the outline, and its probability map.

    One case in twenty is a miss, one in twenty a false alarm, one in ten has specks in the prediction.
    """
    y, x = np.mgrid[:size, :size] / size
    field = np.full((size, size), -1.0)
    for _ in range(rng.integers(1, 4)):
        (cy, cx), (ry, rx) = rng.uniform(0.2, 0.8, 2), rng.uniform(0.05, 0.25, 2)
        field = np.maximum(field, 1 - np.hypot((y - cy) / ry, (x - cx) / rx))
    wobble = ndimage.zoom(rng.normal(size=(2, 16, 16)), (1, size / 16, size / 16), order=1)
    reference = field + 0.1 * wobble[0] > 0
    logits = 12 * (field + 0.1 * wobble[0] + 0.1 * wobble[1])
    kind = rng.uniform()
    if kind < 0.05:
        logits -= logits.max() + 1
    elif kind < 0.1:
        reference[:] = False
    elif kind < 0.2:
        logits += 20 * (rng.uniform(size=(size, size)) > 0.998)
    probability = (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)
    return reference, probability > 0.5, probability


def seconds(function: Callable[[int], object], cases: int) -> tuple[float, list]:
    """Seconds per case and the results, the first call left out for its imports and caches."""
    function(0)
    start = time.perf_counter()
    results = [function(index) for index in range(cases)]
    return (time.perf_counter() - start) / cases, results


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--monai-cases", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="monai")

    rng = np.random.default_rng(0)
    cases = [blobs(arguments.size, rng) for _ in range(arguments.cases)]
    part = min(arguments.monai_cases, arguments.cases)
    tensors = [(torch.from_numpy(r)[None, None].float(), torch.from_numpy(p)[None, None].float()) for r, p, _ in cases]

    ours, rows = seconds(lambda i: score_case(cases[i][0], cases[i][1], spacing=SPACING), len(cases))
    calibration, _ = seconds(lambda i: calibration_case(cases[i][0], cases[i][2]), len(cases))

    monai: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "dice": lambda r, p: compute_dice(p, r, ignore_empty=False),
        "iou": lambda r, p: compute_iou(p, r, ignore_empty=False),
        "tp": lambda r, p: get_confusion_matrix(p, r)[..., 0],
        "hd95": lambda r, p: compute_hausdorff_distance(p, r, include_background=True, percentile=95, spacing=SPACING),
        "asd": lambda r, p: compute_average_surface_distance(
            p, r, include_background=True, symmetric=True, spacing=SPACING
        ),
        "nsd": lambda r, p: compute_surface_dice(p, r, [TOLERANCE], include_background=True, spacing=SPACING),
    }
    plain = [i for i in range(part) if not (rows[i]["ref_empty"] or rows[i]["pred_empty"])]
    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread; {arguments.size}x{arguments.size}")
    print(f"MONAI on the first {part} cases; largest difference over the {len(plain)} of them without an empty mask\n")
    print(f"{'figure':<32}{'ms a case':>12}{'difference':>14}")
    total = 0.0
    for name, function in monai.items():
        spent, results = seconds(lambda i, f=function: f(*tensors[i]), part)  # type: ignore[misc]
        total += spent
        worst = max(abs(float(results[i].squeeze()) - float(rows[i][name])) for i in plain)
        print(f"{'MONAI ' + name:<32}{1e3 * spent:>12.2f}{worst:>14.1e}")
    ours_part, _ = seconds(lambda i: score_case(cases[i][0], cases[i][1], spacing=SPACING), part)
    print(f"{'MONAI, all of the above':<32}{1e3 * total:>12.2f}")
    print(f"{'score_case, the same cases':<32}{1e3 * ours_part:>12.2f}{'':>14}   {total / ours_part:.1f} times as fast")
    print(f"{f'score_case, {len(cases)} cases':<32}{1e3 * ours:>12.2f}{'':>14}   {ours * len(cases):.1f} s in all")
    print(
        f"{f'calibration_case, {len(cases)} cases':<32}{1e3 * calibration:>12.2f}{'':>14}"
        f"   {calibration * len(cases):.1f} s in all"
    )


if __name__ == "__main__":
    main()
