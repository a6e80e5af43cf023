"""The networks of the comparison by name."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

__all__ = ["CONFIGS", "MENU"]

# What a bundle's menu says of each, less in_channels and out_channels.
CONFIGS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "unet": {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2},
        "unet_classic": {
            "_target_": "monai.networks.nets.BasicUNet",
            "spatial_dims": 2,
            "features": [64, 128, 256, 512, 1024, 64],
        },
        "unpadded_unet": {"_target_": "monai_thyroid.networks.UnpaddedUNet"},
        "segnet": {"_target_": "monai_thyroid.networks.SegNet"},
        "resunet": {"_target_": "monai_thyroid.networks.ResUNet"},
        "rngunet": {"_target_": "monai_thyroid.networks.RNGUNet"},
        "vgg16_unet": {"_target_": "monai_thyroid.networks.EncoderUNet", "encoder": "vgg16"},
        "vgg19_unet": {"_target_": "monai_thyroid.networks.EncoderUNet", "encoder": "vgg19"},
        "resnet50_unet": {"_target_": "monai_thyroid.networks.EncoderUNet", "encoder": "resnet50"},
        "mobilenet_v2_unet": {"_target_": "monai_thyroid.networks.EncoderUNet", "encoder": "mobilenet_v2"},
    }
)


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
