"""A trained run as TorchScript, ONNX or OpenVINO, also in int8, each verified against the checkpoint on real images."""

from __future__ import annotations

import logging
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_thyroid.errors import UserError, optional
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.pixels import ToProbabilities
from monai_thyroid.evaluation.runtimes import (
    AGREEMENT,
    REFERENCE,
    Compute,
    built,
    exports_of,
    mean_dice,
    onnx_compute,
    openvino_compute,
    save_openvino,
)
from monai_thyroid.files import atomic_path, sha256_file, write_json
from monai_thyroid.images import read_labels, read_raster
from monai_thyroid.machine import processor

if TYPE_CHECKING:
    from monai_thyroid.data import Datalist
    from monai_thyroid.evaluation import TrainedRun

__all__ = ["FORMATS", "INT8_COST", "export", "export_table"]

logger = logging.getLogger(__name__)

FORMATS = ("torchscript", "onnx", "openvino")
INT8_COST = 0.005
"""What an int8 export may lose of the checkpoint's Dice to the reference, and still be taken by ``--runtime auto``."""

_FILES = {
    "torchscript": "model.ts",
    "onnx": "model.onnx",
    "onnx-int8": "model-int8.onnx",
    "openvino": "openvino/model.xml",
    "openvino-int8": "openvino-int8/model.xml",
}


@dataclass(frozen=True)
class _Case:
    image: np.ndarray  # (1, channels, width, height)
    back: ToProbabilities
    reference: np.ndarray


def export(
    run: str | Path | TrainedRun,
    *,
    formats: Sequence[str] = FORMATS,
    int8: bool = False,
    dataset_dir: str | None = None,
    data: Datalist | None = None,
    images: int = 64,
) -> dict[str, Any]:
    """Write exports into ``<run>/exports/``, of a packed bundle into ``models/``, and ``exports.json`` beside them.

    Every export segments images of the run's validation part beside the checkpoint in PyTorch float32. int8 is made by
    post-training quantisation (NNCF), calibrated on images of the training part.

    Args:
        run: a run folder or a packed bundle, or the run itself.
        formats: of `FORMATS`.
        int8: quantise too, what can be: ONNX and OpenVINO.
        dataset_dir: where the run's dataset is now, if it moved.
        data: the run's dataset, where it has been read.
        images: at most so many of the validation part to verify on, and four times as many to calibrate on.

    Returns:
        The content of exports.json: by format ``file``, ``sha256`` (by file), ``bytes``, ``ms`` (median of single
        images, network alone), ``dice_to_checkpoint`` (between the masks of both), ``dice`` (to the reference),
        ``taken`` (by ``--runtime auto``) and ``why``; the same of the checkpoint.

    Raises:
        UserError: an unknown format, no dataset, a package that is not installed, or what an exporter said; formats
            that were exported before are kept.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise UserError(f"--format {','.join(unknown)}: choose of {','.join(FORMATS)}")
    if int8 and not {"onnx", "openvino"} & set(formats):
        raise UserError("--int8: can be made of onnx and openvino; add one of them to --format")
    for needed in ["nncf"] * int8 + ["openvino"] * ("openvino" in formats) + ["onnxruntime"] * ("onnx" in formats):
        optional(needed, extra="onnx")
    model = Model(run)
    data = data if data is not None else model.trained.datalist(dataset_dir)
    cases, calibration = _images(model, data, images=images, calibrate=4 * images if int8 else 0)
    folder = model.files.exports
    known = exports_of(model)
    reference = built(model, REFERENCE)
    expected, ms = _masks(model, reference, cases)
    checkpoint = {
        "file": os.path.relpath(model.files.model, folder),
        "bytes": model.files.model.stat().st_size,
        "ms": ms,
        "dice": _dice(expected, [case.reference for case in cases], model),
    }
    content: dict[str, Any] = {
        "checkpoint_sha256": model.weights,
        "processor": processor(),
        "images": len(cases),
        "calibrated_on": len(calibration) or None,
        "checkpoint": checkpoint,
        "exports": known,
    }
    folder.mkdir(exist_ok=True)
    for name in [name for each in formats for name in (each, f"{each}-int8") if name in _FILES]:
        if name.endswith("-int8") and not int8:
            continue
        path = folder / _FILES[name]
        path.parent.mkdir(exist_ok=True)
        try:
            compute = _written(model, name, path, calibration)
        except UserError:
            raise
        except Exception as error:  # whatever the exporter of the day raises
            raise UserError(f"{name}: cannot be exported ({type(error).__name__}: {str(error)[:500]})") from error
        masks, ms = _masks(model, compute, cases)
        written = sorted(file for file in path.parent.glob(f"{path.stem}.*") if _of(path, file))
        row = {
            "file": _FILES[name],
            "sha256": {str(file.relative_to(folder)): sha256_file(file) for file in written},
            "bytes": sum(file.stat().st_size for file in written),
            "ms": ms,
            "dice_to_checkpoint": mean_dice(masks, expected, classes=len(model.classes)),
            "dice": _dice(masks, [case.reference for case in cases], model),
        }
        content["exports"][name] = {**row, **_judged(name, row, checkpoint)}
        write_json(folder / "exports.json", content)
    return content


def _of(path: Path, file: Path) -> bool:
    return file == path or path.suffix == ".xml"


def _judged(name: str, row: dict[str, Any], checkpoint: dict[str, Any]) -> dict[str, Any]:
    lost = checkpoint["dice"] - row["dice"]
    if name.endswith("-int8") and lost > INT8_COST:
        return {"taken": False, "why": f"costs {lost:.4f} Dice, more than {INT8_COST}"}
    if row["dice_to_checkpoint"] < AGREEMENT:
        return {"taken": False, "why": f"its masks are not those of the checkpoint (mean Dice below {AGREEMENT})"}
    return {"taken": True, "why": "as good as the checkpoint"}


def _images(model: Model, data: Datalist, *, images: int, calibrate: int) -> tuple[list[_Case], list[np.ndarray]]:
    cases = []
    for item in _some(data.part("validation"), images):
        image, back = model.prepare(read_raster(item["image"]))
        cases.append(_Case(image[None], back, read_labels(item["label"], classes=len(model.classes))))
    if not cases:
        raise UserError(f"{data.name}: has no validation part to verify an export on")
    training = [model.prepare(read_raster(item["image"]))[0][None] for item in _some(data.part("train"), calibrate)]
    return cases, training


def _some(items: Sequence[Any], count: int) -> list[Any]:
    """So many of a list, from all over it."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def _masks(model: Model, compute: Compute, cases: Sequence[_Case]) -> tuple[list[np.ndarray], float]:
    compute(cases[0].image)
    masks, times = [], []
    for case in cases:
        started = time.perf_counter()
        logits = compute(case.image)[0]
        times.append(time.perf_counter() - started)
        masks.append(model.decided(case.back(logits)))
    return masks, round(1000 * statistics.median(times), 3)


def _dice(masks: Sequence[np.ndarray], references: Sequence[np.ndarray], model: Model) -> float:
    return mean_dice(masks, references, classes=len(model.classes))


def _written(model: Model, name: str, path: Path, calibration: Sequence[np.ndarray]) -> Compute:
    """Write an export and open it from there."""
    import torch

    from monai_thyroid.networks.exports import to_onnx, to_openvino, to_torchscript

    example = torch.zeros(1, *model.shape)
    if name == "torchscript":
        with atomic_path(path) as temporary:
            to_torchscript(model.network, example, temporary)
        return _torchscript_compute(path)
    if name == "onnx":
        with atomic_path(path) as temporary, torch.no_grad():
            to_onnx(model.network, example, temporary)
        return onnx_compute(str(path))
    if name == "onnx-int8":
        onnx = optional("onnx", extra="onnx")
        network = onnx.load(str(path.with_name(_FILES["onnx"])))
        given = network.graph.input[0].name
        quantised = _quantised(network, [{given: image} for image in calibration])
        with atomic_path(path) as temporary:
            onnx.save(quantised, str(temporary))
        return onnx_compute(str(path))
    network = to_openvino(model.network, example)
    if name == "openvino-int8":
        network = _quantised(network, calibration)
    save_openvino(optional("openvino", extra="onnx"), network, path)
    return openvino_compute(str(path), model.shape)


def _quantised(network: Any, images: Sequence[Any]) -> Any:
    nncf = optional("nncf", extra="onnx")
    logging.getLogger("nncf").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nncf.quantize(network, nncf.Dataset(list(images)), subset_size=len(images))


def _torchscript_compute(path: Path) -> Compute:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network = torch.jit.load(str(path)).eval()

    def compute(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits: np.ndarray = network(torch.from_numpy(images)).numpy()
        return logits

    return compute


def export_table(content: dict[str, Any]) -> str:
    """exports.json for people."""
    rows = [("", "MB", "ms", "Dice to checkpoint", "Dice to reference", "")]
    entries = {"checkpoint": {**content["checkpoint"], "dice_to_checkpoint": 1.0, "why": ""}, **content["exports"]}
    for name, row in entries.items():
        note = row["why"] if row.get("taken", True) else f"not taken: {row['why']}"
        numbers = (
            f"{row['bytes'] / 1e6:.1f}",
            f"{row['ms']:.1f}",
            f"{row['dice_to_checkpoint']:.4f}",
            f"{row['dice']:.4f}",
        )
        rows.append((name, *numbers, note))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
