"""Packages whose names are imported when they are asked for, because some of them load torch and MONAI for seconds."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazily"]


def lazily(package: str, modules: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """What a package takes as its ``__getattr__`` (PEP 562).

    Args:
        package: its name.
        modules: by module, the names that it defines and the package offers.
    """

    def asked_for(name: str) -> Any:
        for module, names in modules.items():
            if name in names:
                return getattr(importlib.import_module(f"{package}.{module}"), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return asked_for
