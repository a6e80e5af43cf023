"""The top-level constants of a bundle, each read strictly: the command line gives strings where YAML gives numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.precision import PRECISIONS
from monai_thyroid.options import boolean
from monai_thyroid.training.distributed import processes

__all__ = ["CONSTANTS", "boolean"]


def _whole(least: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{value!r}: give a whole number of at least {least}")
        return value

    return read


def _between(low: float, high: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        try:
            number = float(value)  # YAML reads 1e-4 as a string
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not low < number < high:
            raise UserError(
                f"{value!r}: give a number above {low:g}" + ("" if high == math.inf else f", below {high:g}")
            )
        return number

    return read


def _least(low: float) -> Callable[[Any], float]:
    def read(value: Any) -> float:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if isinstance(value, bool) or not low <= number < math.inf:
            raise UserError(f"{value!r}: give a number of at least {low:g}")
        return number

    return read


def _device(value: Any) -> str:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{value!r}: no such device; give cpu, cuda or cuda:N") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{value!r}: this machine has no CUDA device that torch can use; give cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"{value!r}: there are {torch.cuda.device_count()} CUDA devices, counted from 0")
    try:
        if device.type != "cuda":
            torch.zeros(1, device=device).tolist()
    except Exception as error:  # whatever a backend raises; `meta` holds no values
        raise UserError(f"{value!r}: torch cannot compute on it on this machine; give cpu, cuda or cuda:N") from error
    return str(device)


def _precision(value: Any) -> str:
    if value not in PRECISIONS:
        raise UserError(f"{value!r}: choose one of {', '.join(PRECISIONS)}")
    return str(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise UserError(f"{value!r}: give a name or a path")
    if "::" in value:
        raise UserError(f"{value!r}: a path in a config cannot hold # or ::, which mean something to MONAI; rename it")
    return value


def _file_name(value: Any) -> str:
    """A name that a folder or a file gets."""
    if not isinstance(value, str) or not re.fullmatch(r"(?![.~ -])[^\x00-\x1f/\\:*?\"<>|]{1,100}(?<![. ])", value):
        raise UserError(f"{value!r}: becomes a name of files; give letters, digits, spaces, _ and -, a letter first")
    return value


def _names(value: Any) -> list[str]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise UserError(f"{value!r}: give a list of class names without the background")
    if twice := sorted({name for name in value if value.count(name) > 1}):
        raise UserError(f"{value!r}: {', '.join(twice)} is there twice; each class needs a name of its own")
    return [_file_name(name) for name in value]


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value in (None, "None", "null", "") else read(value)


def _optional_names(value: Any) -> list[str] | None:
    if value in (None, "None", "null", "", []):
        return None
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.strip() for name in names):
        raise UserError(f"{value!r}: give a name, or several with commas")
    return [name.strip() for name in names]


def _split(value: Any) -> str:
    if value not in ("groups", "frames"):
        raise UserError(f"{value!r}: choose groups or frames (leaky)")
    return str(value)


def _processes(value: Any) -> int:
    if value != processes():
        raise UserError(f"{value!r}: there {'is' if processes() == 1 else 'are'} {processes()}, as torchrun was told")
    return processes()


def _channels(value: Any) -> int:
    if isinstance(value, bool) or value not in (1, 3):
        raise UserError(f"{value!r}: choose 1 (grey) or 3 (colour)")
    return int(value)


def _activation(value: Any) -> str:
    if value not in ("sigmoid", "softmax"):
        raise UserError(f"{value!r}: choose sigmoid or softmax")
    return str(value)


def _postprocess(value: Any) -> str | None:
    if value not in (None, "choose", "none"):
        raise UserError(f"{value!r}: choose none, or choose")
    return None if value is None else str(value)


CONSTANTS: Mapping[str, Callable[[Any], Any]] = {
    "bundle": _file_name,
    "dataset_dir": _text,
    "output_dir": _text,
    "network": _file_name,
    "classes": _names,
    "whole": _optional(_file_name),
    "activation": _activation,
    "threshold": _between(0, 1),
    "postprocess": _postprocess,
    "channels": _channels,
    "image_size": _whole(1),
    "max_epochs": _whole(1),
    "val_interval": _whole(1),
    "batch_size": _whole(1),
    "hours": _optional(_between(0, math.inf)),
    "learning_rate": _between(0, math.inf),
    "weight_decay": _least(0),
    "first_stage_epochs": _whole(1),
    "first_stage_learning_rate": _between(0, math.inf),
    "patience": _whole(1),
    "seed": _whole(0),
    "split_seed": _whole(0),
    "validation_fraction": _between(0, 1),
    "test_fraction": _between(0, 1),
    "stratify": boolean,
    "allow_empty_parts": boolean,
    "split": _split,
    "split_file": _optional(_text),
    "folds": _optional(_whole(2)),
    "fold": _optional(_whole(0)),
    "sites": _optional_names,
    "test_sites": _optional_names,
    "phantom_cases": _whole(10),
    "phantom_seed": _whole(0),
    "device": _device,
    "precision": _precision,
    "channels_last": _optional(boolean),
    "num_workers": _whole(0),
    "processes": _processes,
    "score_test": boolean,
    "resume": boolean,
    "overwrite": boolean,
    "mlflow": boolean,
    "trust": boolean,
    "init_from": _optional(_text),
    "input": _optional(_text),
}
"""The top-level constants of a bundle and how each is read; a bundle may lack some, but none means another thing."""
