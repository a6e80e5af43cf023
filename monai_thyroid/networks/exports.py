"""Export a network, load what was exported, run it: whether an export works is asked of the export itself."""

from __future__ import annotations

import io
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from monai_thyroid.errors import UserError, optional

__all__ = ["EXPORTS", "agrees", "exported_logits", "to_onnx", "to_openvino", "to_torchscript"]

logger = logging.getLogger(__name__)

EXPORTS = ("TorchScript", "ONNX", "OpenVINO")


def exported_logits(network: nn.Module, images: Tensor) -> dict[str, Tensor | Exception]:
    """Export a network to each format, load it from there and run it.

    TorchScript by scripting or else by tracing, ONNX through torch.export and onnxruntime, OpenVINO in float32: as
    `to_torchscript`, `to_onnx` and `to_openvino`, which `export` and `predict` use, write them.

    Args:
        network: in evaluation mode, on the CPU.
        images: (B, C, H, W) on the CPU.

    Returns:
        By format, the logits or why there are none.

    Raises:
        UserError: a package that an export needs is not installed; names the extra.
    """
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        onnx = Path(folder, "model.onnx")
        steps: dict[str, Callable[[], Tensor]] = {
            "TorchScript": lambda: _torchscript(network, images),
            "ONNX": lambda: _onnx(network, images, onnx),
            "OpenVINO": lambda: _openvino(network, images),
        }
        return {name: _attempt(steps[name]) for name in EXPORTS}


def agrees(exported: Tensor | Exception, logits: Tensor, *, tolerance: float = 1e-3) -> bool:
    """Whether an export computes what the network computes.

    The mean decides and not the worst pixel: where two values of a SegNet pooling window are equal up to rounding, the
    runtimes may choose differently, and around that window the logits differ by per cents. The other networks agree
    to a ten-thousandth everywhere.

    Args:
        exported: the logits of the export, or why there are none.
        logits: the logits of the network.
        tolerance: largest mean difference, as a part of the largest logit.

    Returns:
        Same shape and no mean difference above the tolerance.
    """
    if isinstance(exported, Exception) or exported.shape != logits.shape:
        return False
    return bool((exported - logits).abs().mean() <= tolerance * logits.abs().max())


def _attempt(step: Callable[[], Tensor]) -> Tensor | Exception:
    try:
        return step()
    except UserError:  # a missing package says nothing of the network
        raise
    except Exception as error:  # whatever the exporter of the day raises: that is the answer
        return error


def to_torchscript(network: nn.Module, images: Tensor, path: str | Path | io.BytesIO) -> bool:
    """Write a network as TorchScript, for any batch and size that it takes itself.

    What cannot be scripted, as many networks of others, is traced: that holds for images of this size, in batches of
    any number, which is tried.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W), as it will see them.
        path: of the file.

    Returns:
        Whether it was traced.

    Raises:
        ValueError: traced it computes something else for another batch.
    """
    with warnings.catch_warnings():
        # torch announces TorchScript's end; MONAI's bundles still ask for it.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            written, why = _scripted(network, images), None
        except Exception as error:  # whatever its compiler does not know
            written, why = _traced(network, images), error
        torch.jit.save(written, path if isinstance(path, io.BytesIO) else str(path))
    if why is not None:
        size = f"{images.shape[2]} x {images.shape[3]}"
        logger.info("TorchScript: traced for images of %s, for it cannot be scripted (%s)", size, _line(why))
    return why is not None


def _scripted(network: nn.Module, images: Tensor) -> Any:
    scripted = torch.jit.script(network)
    with torch.no_grad():
        if not agrees(scripted(images), network(images)):
            raise ValueError("scripted it computes something else")
    return scripted


def _traced(network: nn.Module, images: Tensor) -> Any:
    with warnings.catch_warnings(), torch.no_grad():
        # Which the comparison below answers.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        traced = torch.jit.trace(network, images, check_trace=False)
        others = torch.rand(len(images) + 1, *images.shape[1:], generator=torch.Generator().manual_seed(0))
        others = others.to(images.device)
        if not agrees(traced(others), network(others)):
            raise ValueError("it can neither be scripted, nor traced for batches of several numbers")
    return traced


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:100]


def to_onnx(network: nn.Module, images: Tensor, path: str | Path) -> None:
    """Write a network as ONNX, for images of this shape.

    Raises:
        UserError: the packages are not installed; names the extra.
    """
    optional("onnxscript", extra="onnx")
    program: Any = torch.onnx.export(_of_size(network, images), (images,), dynamo=True, verbose=False)
    program.save(str(path))


def to_openvino(network: nn.Module, images: Tensor) -> Any:
    """The network as an ``openvino.Model`` in float32, for images of this shape.

    From PyTorch, or through ONNX where OpenVINO cannot read that: MONAI's SwinUNETR is such a one.

    Raises:
        UserError: the package is not installed; names the extra.
    """
    openvino = optional("openvino", extra="onnx")
    fixed = _of_size(network, images)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # Checks of the input's size, which tracing takes as they come out.
            warnings.filterwarnings("ignore", message="Converting a tensor to a Python")
            warnings.simplefilter("ignore", DeprecationWarning)
            return openvino.convert_model(fixed, example_input=images, input=list(images.shape))
    except Exception as error:  # whatever its reader of PyTorch does not know
        logger.info("OpenVINO: converted from ONNX, for it cannot be from PyTorch (%s)", _line(error))
    with tempfile.TemporaryDirectory() as folder:
        to_onnx(network, images, Path(folder, "model.onnx"))
        return openvino.Core().read_model(Path(folder, "model.onnx"))


def _of_size(network: nn.Module, images: Tensor) -> nn.Module:
    """What a network offers for images of one size alone, as ONNX and OpenVINO have them."""
    fit: Any = getattr(network, "for_size", None)
    return network if fit is None else cast("nn.Module", fit(*images.shape[2:]))


def _torchscript(network: nn.Module, images: Tensor) -> Tensor:
    buffer = io.BytesIO()
    to_torchscript(network, images, buffer)
    buffer.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        result: Tensor = torch.jit.load(buffer)(images)
    return result


def _onnx(network: nn.Module, images: Tensor, path: Path) -> Tensor:
    onnxruntime = optional("onnxruntime", extra="onnx")
    to_onnx(network, images, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def _openvino(network: nn.Module, images: Tensor) -> Tensor:
    openvino = optional("openvino", extra="onnx")
    compiled = openvino.Core().compile_model(to_openvino(network, images), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # A copy, as the array belongs to the compiled model.
    return torch.from_numpy(compiled(images.numpy())[0].copy())
