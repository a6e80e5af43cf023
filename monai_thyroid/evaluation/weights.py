"""Finding and fitting weights: of a run, of a packed bundle, of a file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from monai_thyroid.errors import UserError
from monai_thyroid.files import sha256_file
from monai_thyroid.runfolder import read_run, run_files

__all__ = ["find_weights", "fit_weights", "load_state", "load_weights", "match_weights", "set_weights"]

logger = logging.getLogger(__name__)


def find_weights(source: str | Path) -> Path:
    """The weights file that a run folder, a packed bundle or a path to a file means.

    Raises:
        UserError: there is none, or not those that the run recorded.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return path
    for candidate in (path / "model.pt", path / "models" / "model.pt"):
        if candidate.is_file():
            _check_recorded(path, candidate)
            return candidate
    raise UserError(f"{path}: no weights there; give a run folder, a packed bundle or a model.pt")


def _check_recorded(folder: Path, weights: Path) -> None:
    """Refuse weights that are not those their own folder recorded; another folder with a model.pt records none."""
    try:
        recorded = read_run(run_files(folder).facts).checkpoint_sha256
    except UserError:
        return
    if recorded and recorded != sha256_file(weights):
        raise UserError(f"{weights}: is not the file the run recorded (its SHA-256 differs)")


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict without running any code that the file may hold.

    Raises:
        UserError: the file is not a state dict of tensors.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for broken files
        # Not torch's own text, which goes on to say how to run the code in the file nevertheless.
        raise UserError(
            f"{path}: cannot be read as weights ({type(error).__name__}); give a file of tensors by name, as "
            "torch.save(network.state_dict(), file) writes it"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("network"), dict):
        content = content["network"]  # a last.pt
    if not isinstance(content, dict) or not content or not all(map(torch.is_tensor, content.values())):
        raise UserError(f"{path}: is not a dictionary of weights by name")
    return content


def load_state(path: Path) -> dict[str, Any]:
    """Read a last.pt without running any code that the file may hold.

    Raises:
        UserError: it is none, or it was cut off.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for broken files
        raise UserError(
            f"{path}: cannot be read ({type(error).__name__}), so training cannot go on; --overwrite true starts anew"
        ) from error
    if not isinstance(content, dict) or not {"stage", "epoch", "network", "recorder"} <= set(content):
        raise UserError(f"{path}: is not the state of a training; --overwrite true starts anew")
    return content


def set_weights(network: torch.nn.Module, path: Path) -> None:
    """Give a network all of its weights from a file, and no others.

    Raises:
        UserError: they are not of this network; names the first dozen that differ.
    """
    given, replaced = match_weights(network, path)
    if replaced:
        raise UserError(f"{path}: these weights are not of this network, but of another number of classes")
    network.load_state_dict(given)


def fit_weights(network: torch.nn.Module, path: Path) -> dict[str, Any]:
    """Load weights that someone else trained; a head of other classes is left as it was made.

    Everything must fit but the last layer with weights, whose number of outputs is the number of classes.

    Args:
        network: gets the weights.
        path: a state dict.

    Returns:
        ``loaded`` (number of tensors) and ``replaced`` (names in the head that kept their fresh weights).

    Raises:
        UserError: anything else is missing, unknown or of another shape; names the first dozen, and leaves the network
            unchanged.
    """
    given, replaced = match_weights(network, path)
    own = network.state_dict()
    network.load_state_dict({**own, **{name: tensor for name, tensor in given.items() if name not in replaced}})
    logger.info("Started from %s: %d of %d tensors", path, len(own) - len(replaced), len(own))
    if replaced:
        logger.warning("Other classes: the head starts anew (%s)", ", ".join(replaced))
    return {"loaded": len(own) - len(replaced), "replaced": replaced}


def match_weights(network: torch.nn.Module, path: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What `fit_weights` would load and which names of the head it would leave; the network is not touched.

    Raises:
        UserError: as `fit_weights`.
    """
    given, own = load_weights(path), network.state_dict()
    head = _head(network)
    replaced = [name for name in own if name in head and name in given and given[name].shape != own[name].shape]
    problems = [f"{name} is missing" for name in own if name not in given]
    problems += [f"{name} is unknown to this network" for name in given if name not in own]
    problems += [
        f"{name} is {_shape(given[name])}, not {_shape(own[name])}"
        for name in own
        if name in given and name not in replaced and given[name].shape != own[name].shape
    ]
    # Another number of classes changes the outputs of the head, never its inputs.
    problems += [
        f"{name} is {_shape(given[name])}, not {_shape(own[name])}"
        for name in replaced
        if given[name].shape[1:] != own[name].shape[1:]
    ]
    if problems:
        shown = problems[:12] + ([f"and {len(problems) - 12} more"] if len(problems) > 12 else [])
        raise UserError([f"{path}: these weights are not of this network (choose the right --network):", *shown])
    return given, replaced


def _head(network: torch.nn.Module) -> set[str]:
    """Names of the tensors of the last module that has any of its own."""
    last = ""
    for name, module in network.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            last = name
    module = network.get_submodule(last)
    return {f"{last}.{name}".lstrip(".") for name in module.state_dict()}


def _shape(tensor: torch.Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
