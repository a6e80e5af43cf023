"""What computes a network on this machine: PyTorch, OpenVINO or ONNX Runtime, and which of them is fastest here."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import logging
import os
import queue
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_thyroid.errors import UserError, optional
from monai_thyroid.evaluation.model import Model
from monai_thyroid.files import atomic_path, canonical_hash, read_json, sha256_file
from monai_thyroid.images import Raster
from monai_thyroid.machine import processor, processor_flags

__all__ = [
    "AGREEMENT",
    "REFERENCE",
    "RUNTIMES",
    "Choice",
    "Compute",
    "built",
    "candidates",
    "chosen",
    "cores",
    "exports_of",
    "mean_dice",
    "onnx_compute",
    "openvino_compute",
    "openvino_core",
    "save_openvino",
]

logger = logging.getLogger(__name__)

Compute = Callable[[np.ndarray], np.ndarray]
"""From images (B, C, W, H) to logits (B, channels, *output), both float32; several threads may call it."""

RUNTIMES = ("torch", "openvino", "onnx")
REFERENCE = "torch-float32"
AGREEMENT = 0.998
"""Smallest mean Dice between the masks of a runtime and those of PyTorch in float32, on the images it is chosen on."""


class Choice(NamedTuple):
    """Which runtime was taken, such as ``"openvino-bfloat16"``, and why."""

    name: str
    why: str


def candidates(model: Model, *, device: str, family: str = "auto") -> list[str]:
    """Names of the runtimes that can compute a model here, `REFERENCE` first.

    Args:
        model: the run; its exports count.
        device: ``"cpu"`` or ``"cuda"``; on CUDA there is PyTorch alone.
        family: one of `RUNTIMES`, or ``"auto"`` for all.
    """
    bfloat16 = device == "cuda" or bool({"amx_bf16", "avx512_bf16"} & processor_flags())
    names = [REFERENCE, "torch-float32-channels_last"]
    if bfloat16:
        names += ["torch-bfloat16", "torch-bfloat16-channels_last"]
    if device == "cpu":
        exported = exports_of(model)
        if importlib.util.find_spec("openvino") is not None:
            names += ["openvino-float32"] + ["openvino-bfloat16"] * bfloat16
            names += ["openvino-int8"] * bool(exported.get("openvino-int8", {}).get("taken"))
        if importlib.util.find_spec("onnxruntime") is not None:
            names += [
                f"onnx-{kind}"
                for kind in ("float32", "int8")
                if exported.get(_EXPORTED[f"onnx-{kind}"], {}).get("taken")
            ]
    return [name for name in names if family in ("auto", name.split("-")[0])]


_EXPORTED = {"openvino-int8": "openvino-int8", "onnx-float32": "onnx", "onnx-int8": "onnx-int8"}


def exports_of(model: Model) -> dict[str, Any]:
    """By format what ``monai-thyroid export`` wrote of these weights; empty where it wrote nothing, or of others."""
    path = model.files.exports / "exports.json"
    if not path.is_file():
        return {}
    try:
        content = read_json(path)
        if content["checkpoint_sha256"] != model.weights:
            logger.warning("%s: is of other weights than model.pt; export anew", path)
            return {}
        found = {str(name): dict(row) for name, row in content["exports"].items()}
        for row in found.values():
            for name in (row["file"], *dict(row.get("sha256", {}))):
                if not (path.parent / name).resolve().is_relative_to(path.parent.resolve()):
                    raise ValueError(f"{name} lies elsewhere")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        logger.warning("%s: cannot be used (%s: %s); export anew", path, type(error).__name__, error)
        return {}
    return found


def built(model: Model, name: str, *, device: str = "cpu", streams: int = 1) -> Compute:
    """Make a runtime ready.

    Args:
        model: the run.
        name: one of `candidates`.
        device: for PyTorch.
        streams: how many threads will call it at once, each of which then gets its share of the processor's cores.

    Raises:
        UserError: there is no such runtime, or what it needs is missing.
    """
    family, _, kind = name.partition("-")
    if family == "torch":
        return _torch(model, kind, device=device, streams=streams)
    if device != "cpu":
        raise UserError(f"runtime {name}: computes on the CPU only; leave --device {device} out, or take torch")
    if family == "openvino":
        return _openvino(model, kind, streams=streams)
    if family == "onnx":
        return _onnx(model, name, streams=streams)
    raise UserError(f"runtime {name!r}: choose auto, {', '.join(RUNTIMES)}")


def _torch(model: Model, kind: str, *, device: str, streams: int) -> Compute:
    import copy

    import torch

    from monai_thyroid.networks import to_channels_last

    precision, _, layout = kind.partition("-")
    if streams > 1 and device == "cpu":
        # Threads made later inherit it.
        torch.set_num_threads(max(1, cores() // streams))
    network = model.network
    if device != "cpu" or layout:
        network = copy.deepcopy(network).to(device)
    memory_format = torch.channels_last if layout else torch.contiguous_format
    if layout:
        to_channels_last(network)

    def compute(images: np.ndarray) -> np.ndarray:
        with (
            torch.inference_mode(),
            torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=precision == "bfloat16"),
        ):
            batch = torch.from_numpy(images).to(device).contiguous(memory_format=memory_format)
            logits: np.ndarray = network(batch).float().cpu().numpy()
        return logits

    return compute


def _openvino(model: Model, kind: str, *, streams: int) -> Compute:
    optional("openvino", extra="onnx")
    network = _export(model, "openvino-int8") if kind == "int8" else _openvino_model(model)
    return openvino_compute(network, model.shape, bfloat16=kind == "bfloat16", streams=streams)


def openvino_compute(network: Any, shape: tuple[int, int, int], *, bfloat16: bool = False, streams: int = 1) -> Compute:
    """Compile an ``openvino.Model``, or its file, for images of this shape (channels, width, height)."""
    options: dict[str, Any] = {
        # int8 says so in the model; what remains beside it is float32.
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "PERFORMANCE_HINT": "THROUGHPUT" if streams > 1 else "LATENCY",
    }
    if streams > 1:
        options |= {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": cores()}
    compiled = openvino_core().compile_model(network, "CPU", options)
    # A request serves one thread at a time. Each is used once here: OpenVINO's first touch of an array initialises its
    # bindings while it holds the interpreter's lock, and two threads that do so at once wait for each other for ever.
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for _ in range(streams):
        request = compiled.create_infer_request()
        request.infer([np.zeros((1, *shape), np.float32)])
        request.get_output_tensor(0).data.astype(np.float32)
        requests.put(request)

    def compute(images: np.ndarray, *, _owner: Any = compiled) -> np.ndarray:
        logits = []
        request = requests.get()  # of the owner, which must not be gone before
        try:
            for image in images:
                request.infer([image[None]])
                logits.append(request.get_output_tensor(0).data[0].astype(np.float32))
        finally:
            requests.put(request)
        return np.stack(logits)

    return compute


@functools.cache
def openvino_core() -> Any:
    """One for the process: its plugins must outlive whatever they compiled."""
    return optional("openvino", extra="onnx").Core()


def _openvino_model(model: Model) -> Any:
    """The exported model, or one converted before, or converted now and kept."""
    if exports_of(model).get("openvino", {}).get("taken"):
        return _export(model, "openvino")
    kept = model.path / "runtimes" / "openvino.xml"
    if model.kept("openvino.json", model.weights) is not None and kept.is_file() and kept.with_suffix(".bin").is_file():
        return str(kept)
    import openvino
    import torch

    from monai_thyroid.networks.exports import to_openvino

    network = to_openvino(model.network, torch.zeros(1, *model.shape))
    try:
        kept.parent.mkdir(exist_ok=True)
        (kept.parent / "openvino.json").unlink(missing_ok=True)
        save_openvino(openvino, network, kept)
        model.keep("openvino.json", model.weights, {})
    except (OSError, RuntimeError) as error:
        logger.info("%s: cannot keep its conversion there (%s)", model.path, error)
    return network


def save_openvino(openvino: Any, network: Any, path: Path) -> None:
    """Write an OpenVINO model as ``<path>.xml`` and ``.bin``, in the precision it has, each by renaming."""
    with atomic_path(path) as temporary, atomic_path(path.with_suffix(".bin")) as weights:
        openvino.save_model(network, str(temporary), compress_to_fp16=False)
        temporary.with_suffix(".bin").replace(weights)


def _onnx(model: Model, name: str, *, streams: int) -> Compute:
    optional("onnxruntime", extra="onnx")
    return onnx_compute(_export(model, _EXPORTED.get(name, name)), streams=streams)


def onnx_compute(path: str, *, streams: int = 1) -> Compute:
    """Open an ONNX file in ONNX Runtime."""
    onnxruntime = optional("onnxruntime", extra="onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, cores() // streams)
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name

    def compute(images: np.ndarray) -> np.ndarray:
        return np.concatenate([session.run(None, {given: image[None]})[0] for image in images])

    return compute


def _export(model: Model, kind: str) -> str:
    known = exports_of(model).get(kind)
    if known is None:
        words = f"--format {kind.removesuffix('-int8')}" + " --int8" * kind.endswith("-int8")
        raise UserError(
            f"{model.path}: no such export of its weights; first: monai-thyroid export {model.path} {words}"
        )
    folder = model.files.exports
    for name, sha256 in known.get("sha256", {}).items():
        if not (folder / name).is_file() or sha256_file(folder / name) != sha256:
            raise UserError(f"{folder / name}: is not what was exported (its SHA-256 differs); export anew")
    return str(folder / known["file"])


def cores() -> int:
    """Processor cores that this process may use, by the system and by OMP_THREAD_LIMIT."""
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_THREAD_LIMIT", "")
    return min(there, max(1, int(limit))) if limit.isdigit() else there


def chosen(model: Model, samples: Sequence[Raster], *, device: str, family: str, streams: int) -> Choice:
    """The fastest runtime whose masks are those of PyTorch in float32, by measuring or as measured before.

    Each candidate computes the samples, in as many threads as it will be used by; what is within the agreement is taken
    by its time. The choice is kept in the run folder by machine, versions, weights and threads.

    Args:
        model: the run.
        samples: a few images like those to come; without any, and none measured before, PyTorch in float32 is taken.
        device: ``"cpu"`` or ``"cuda"``.
        family: ``"auto"``, or one of `RUNTIMES` to choose within.
        streams: threads that will call the runtime.

    Raises:
        UserError: the family has no candidate, or none that agrees.
    """
    names = candidates(model, device=device, family=family)
    if not names:
        # It says what is missing.
        built(model, {"onnx": "onnx-float32"}.get(family, f"{family}-float32"), device=device, streams=streams)
    key = canonical_hash([_machine(), model.weights, model.shape, names, device, streams, exports_of(model)])
    kept = model.kept("choices.json", model.weights) or {}
    if key in kept:
        return Choice(kept[key]["name"], f"{kept[key]['why']}, measured before")
    if len(names) == 1:
        return Choice(names[0], "the only one there is")
    if not samples:
        if REFERENCE in names:
            return Choice(REFERENCE, "too few images to measure which is the fastest")
        return Choice(names[0], "too few images to measure which is the fastest")
    choice, measured = _measured(model, samples, names, device=device, streams=streams)
    model.keep(
        "choices.json", model.weights, {**kept, key: {**choice._asdict(), "measured": measured, "machine": _machine()}}
    )
    return choice


def _machine() -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in ("torch", "openvino", "onnxruntime"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    wanted = sorted({"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2"} & processor_flags())
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return {"processor": processor(), "instructions": wanted, "max_isa": isa, "cores": cores(), "versions": versions}


def _measured(
    model: Model, samples: Sequence[Raster], names: Sequence[str], *, device: str, streams: int
) -> tuple[Choice, dict[str, Any]]:
    prepared = [model.prepare(raster) for raster in samples]
    images = [image[None] for image, _ in prepared]
    measured: dict[str, Any] = {}
    masks: dict[str, list[np.ndarray]] = {}
    for name in dict.fromkeys([REFERENCE, *names]):
        try:
            compute = built(model, name, device=device, streams=streams)
            seconds, logits = _timed(compute, images, streams=streams)
        except Exception as error:  # whatever a runtime raises: it is not the one to take
            if name == REFERENCE:
                raise
            told = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            logger.warning("%s: %s is left out (%s)", model.path, name, told)
            measured[name] = {"error": told}
            continue
        masks[name] = [model.decided(back(each[0])) for (_, back), each in zip(prepared, logits, strict=True)]
        dice = mean_dice(masks[REFERENCE], masks[name], classes=len(model.classes))
        measured[name] = {"ms": round(1000 * seconds, 2), "dice": round(dice, 5)}
    fit = [name for name in names if measured[name].get("dice", 0) >= AGREEMENT]
    if not fit:
        raise UserError(f"no such runtime gives the masks of PyTorch (mean Dice {AGREEMENT}): {json.dumps(measured)}")
    best = min(fit, key=lambda name: measured[name]["ms"])
    why = (
        f"{measured[best]['ms']:.3g} ms an image, PyTorch float32 {measured[REFERENCE]['ms']:.3g} ms; mean Dice "
        f"between their masks {measured[best]['dice']:.4f} on {len(samples)} images"
    )
    return Choice(best, why), measured


def _timed(compute: Compute, images: Sequence[np.ndarray], *, streams: int) -> tuple[float, list[np.ndarray]]:
    """Seconds an image, the best of three rounds, or of one that took long enough to tell; and the logits."""
    rounds: list[float] = []
    with ThreadPoolExecutor(streams) as pool:
        while len(rounds) < 3 and sum(rounds) < 2:
            started = time.perf_counter()
            logits = list(pool.map(compute, images))
            rounds.append(time.perf_counter() - started)
    return min(rounds) / len(images), logits


def mean_dice(one: Sequence[np.ndarray], other: Sequence[np.ndarray], *, classes: int) -> float:
    """Mean Dice over images and classes of two lists of masks; two empty ones agree."""
    scores = []
    for a, b in zip(one, other, strict=True):
        for number in range(1, classes + 1):
            in_a, in_b = a == number, b == number
            total = int(in_a.sum()) + int(in_b.sum())
            scores.append(2 * int((in_a & in_b).sum()) / total if total else 1.0)
    return float(np.mean(scores))
