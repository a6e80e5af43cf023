"""The networks of the comparison by name, from the one menu of all bundles, menu.yaml."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from torch import nn

__all__ = ["CONFIGS", "MENU", "MENU_FILE"]

MENU_FILE = Path(__file__).with_name("menu.yaml")
"""The menu as it stands in every bundle, comments and all."""

_OF_THE_BUNDLE = ("_mode_", "in_channels", "out_channels")
CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        name: MappingProxyType({key: value for key, value in entry.items() if key not in _OF_THE_BUNDLE})
        for name, entry in yaml.safe_load(MENU_FILE.read_text(encoding="utf-8"))["networks"].items()
    }
)
"""What the menu says of each, less what a bundle adds."""


def _build(name: str, /, *, in_channels: int, out_channels: int, **arguments: Any) -> nn.Module:
    config = {**CONFIGS[name], **arguments}
    # MONAI takes seconds to import, so not before one of its networks is built.
    module, _, target = config.pop("_target_").rpartition(".")
    constructor: Callable[..., nn.Module] = getattr(importlib.import_module(module), target)
    return constructor(in_channels=in_channels, out_channels=out_channels, **config)


MENU: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {name: functools.partial(_build, name) for name in CONFIGS}
)
"""Constructors by name: `MENU["segnet"](in_channels=1, out_channels=1)`, and any argument of the class beside."""
