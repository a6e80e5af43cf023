"""What computes a result: versions and machine, for the record."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import numpy as np

from monai_thyroid.machine import processor

__all__ = ["machine", "versions"]


def versions() -> dict[str, str]:
    """Versions of what computes the result."""
    names = {"monai_thyroid": "monai_thyroid", "monai": "monai", "torch": "torch", "ignite": "pytorch-ignite"}
    found = {"python": platform.python_version(), **{key: version(name) for key, name in names.items()}}
    return {**found, "numpy": np.__version__}


def machine() -> dict[str, Any]:
    """What computes: processor, threads, GPU."""
    import torch  # which takes seconds, and scores of masks need none of it

    found: dict[str, Any] = {"system": platform.system(), "processor": processor(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found
