"""The networks of bundles/networks, narrow enough for tests."""

from __future__ import annotations

import copy
import functools
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_thyroid.networks.menu import MENU_FILE
from monai_thyroid.training.check import read_menu

FILES = sorted((Path(__file__).parents[2] / "bundles" / "networks").glob("*.yaml"))
SIZE = 64

# What takes minutes in all, of networks that others keep well: run them with MONAI_THYROID_ALL_NETWORKS=1.
IN_FULL = bool(os.environ.get("MONAI_THYROID_ALL_NETWORKS"))
in_full = pytest.mark.skipif(not IN_FULL, reason="set MONAI_THYROID_ALL_NETWORKS=1 to run them all")

_DYNUNET: dict[str, Any] = {
    "stride": 8,
    "network::filters": [8, 16, 32, 32],
    "network::kernel_size": [3, 3, 3, 3],
    "network::strides": [1, 2, 2, 2],
    "network::upsample_kernel_size": [2, 2, 2],
}
_MEDNEXT: dict[str, Any] = {
    "network::init_filters": 8,
    "network::blocks_down": [1, 1, 1, 1],
    "network::blocks_up": [1, 1, 1, 1],
    "network::blocks_bottleneck": 1,
}
_RESENC: dict[str, Any] = {"filters": [8, 16, 32, 32], "blocks": [1, 1, 1, 1]}
NARROW: dict[str, dict[str, Any]] = {
    "mednext": _MEDNEXT,
    "mednext_ds": _MEDNEXT,
    "swin_unetr": {"network::feature_size": 12, "network::depths": [1, 1, 1, 1]},
    "unetr": {"network::hidden_size": 48, "network::mlp_dim": 96, "network::num_heads": 4, "network::feature_size": 8},
    "attention_unet": {"stride": 8, "network::channels": [8, 16, 32, 32], "network::strides": [2, 2, 2]},
    "dynunet": _DYNUNET,
    "dynunet_ds": {**_DYNUNET, "network::deep_supr_num": 2},
    "segresnet": {"network::init_filters": 8},
    "resenc_unet": _RESENC,
    "resenc_unet_ds": _RESENC,
    "resnet34_unet": {"encoder": "resnet18", "decoder_channels": [32, 16, 16, 8, 8]},
    "resnet50_unetplusplus": {"encoder": "resnet18", "decoder_channels": [32, 16, 16, 8, 8]},
    "convnext_upernet": {"encoder": "tu-convnext_atto", "decoder_channels": 32},
    "mit_b2_segformer": {"encoder": "mit_b0", "arguments": {"decoder_segmentation_channels": 32}},
    "vit_small_dpt": {
        "encoder": "tu-vit_tiny_patch16_224",
        "arguments": {
            "dynamic_img_size": True,
            "decoder_intermediate_channels": [16, 16, 32, 32],
            "decoder_fusion_channels": 32,
        },
    },
    "efficientnetv2_unet": {"encoder": "tu-tf_efficientnet_lite0", "decoder_channels": [32, 16, 16, 8, 8]},
}


@functools.cache
def _read() -> dict[str, Any]:
    config: dict[str, Any] = read_menu([MENU_FILE, *FILES]).get()
    return config


def configured(
    name: str, *, in_channels: int = 1, out_channels: int = 1, narrow: bool = True, size: int = SIZE
) -> nn.Module:
    """A network of the files, narrow or as it is shipped, for images of 64 x 64 or another size."""
    if name.startswith("resenc"):
        pytest.importorskip("dynamic_network_architectures")
    parser = ConfigParser(copy.deepcopy(_read()))
    parser["image_size"], parser["channels"] = size, in_channels
    parser["classes"] = [str(number) for number in range(out_channels)]
    for argument, value in NARROW[name].items() if narrow else ():
        parser[f"networks::{name}::{argument}"] = value
    network = parser.get_parsed_content(f"networks::{name}")()
    assert isinstance(network, nn.Module)
    return network


def outputs_of(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    found = network(images)
    return [found] if isinstance(found, torch.Tensor) else found
