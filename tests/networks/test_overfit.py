"""Each network learns 8 real images by heart: what cannot do that is wired wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from configured import NARROW, configured, in_full
from monai.losses import DeepSupervisionLoss
from PIL import Image
from torch import Tensor, nn

from monai_thyroid.networks import MENU, listed

# As many as it takes, and no more than this.
STEPS = 250
# Eight cases with a nodule in the centre, which is all that the unpadded network sees.
IMAGES = [f"{number}.jpg" for number in ("101_1", "104_1", "108_1", "109_1", "10_1", "112_1", "114_2", "118_1")]
# Small widths and few steps, so that all take three minutes on two cores.
NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"features": (16, 16, 32, 32, 64, 16)},
    "unet_classic": {"features": (16, 32, 64, 64, 64, 16)},
    "unpadded_unet": {"filters": (12, 16, 24, 32, 48), "dropout": 0.0},
    "segnet": {"filters": (16, 32, 32, 48, 48)},
    "resunet": {"filters": (16, 32, 48, 64)},
    "rngunet": {"filters": (16, 24, 32, 48, 64)},
    "vgg16_unet": {"decoder_channels": (64, 32, 32, 16, 16)},
    "vgg19_unet": {"decoder_channels": (64, 32, 32, 16, 16)},
    "resnet50_unet": {"decoder_channels": (64, 32, 32, 16, 16)},
    "mobilenet_v2_unet": {"decoder_channels": (64, 32, 32, 16, 16)},
    "resnet50_resunet": {"decoder_channels": (64, 32, 32, 16, 16)},
}
# VGG19 (as VGG16, with three layers more) and those of bundles/networks are trained on request; of the latter these as
# they are shipped, in bfloat16: learning rate, most steps, size. docs/own-networks.md has what they took.
SHIPPED: dict[str, tuple[float, int, int]] = {
    "resnet34_unet": (1e-3, 100, 64),
    "efficientnetv2_unet": (1e-3, 100, 64),
    "mit_b2_segformer": (1e-3, 150, 64),
    "convnext_upernet": (3e-4, 150, 64),
    "segresnet": (2e-3, 300, 64),
    "unetr": (1e-3, 150, 64),
    "vit_small_dpt": (3e-4, 200, 64),
    # Seven levels: at 64 pixels one would be left.
    "dynunet_ds": (1e-3, 60, 128),
    "resenc_unet": (1e-3, 60, 128),
    "resenc_unet_ds": (1e-3, 60, 128),
}
FURTHER = [pytest.param(name, marks=in_full) for name in NARROW]


def read(path: Path, size: int) -> Tensor:
    """(1, size, size) in [0, 1]."""
    image = Image.open(path).convert("L").resize((size, size), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """(B,) of the masks at threshold a half."""
    found = (logits > 0).float()
    return 2 * (found * labels).sum((1, 2, 3)) / (found.sum((1, 2, 3)) + labels.sum((1, 2, 3)))


class Loss(nn.Module):
    """Cross-entropy and Dice loss of a batch."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        probability = logits.sigmoid()
        overlap = 2 * (probability * labels).sum() / (probability.sum() + labels.sum())
        return F.binary_cross_entropy_with_logits(logits, labels) + 1 - overlap


def learns(
    network: nn.Module,
    data_dir: Path,
    *,
    size: int = 64,
    margin: int = 0,
    rate: float = 1e-3,
    steps: int = STEPS,
    bfloat16: bool = False,
) -> None:
    """Train on the eight images until their mean Dice is above 0.95."""
    folder = data_dir / "thyroid"
    images = torch.stack([read(folder / "trainval-image" / image, size) for image in IMAGES])
    labels = torch.stack([read(folder / "trainval-mask" / image, size) for image in IMAGES]).gt(0.5).float()
    labels = labels[:, :, margin : size - margin, margin : size - margin]
    optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
    loss = DeepSupervisionLoss(Loss())
    for _ in range(steps):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            outputs = [one.float() for one in listed(network(images))]
        scores = dice(outputs[0].detach(), labels)
        if scores.mean() > 0.95:
            break
        optimizer.zero_grad()
        loss(outputs, labels).backward()
        optimizer.step()
    assert scores.mean() > 0.95, scores


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=in_full) if name == "vgg19_unet" else name for name in MENU])
def test_overfits(name: str, data_dir: Path) -> None:
    torch.manual_seed(0)
    network = MENU[name](in_channels=1, out_channels=1, **NETWORKS.get(name, {}))
    unpadded = {"size": 252, "margin": 92} if name == "unpadded_unet" else {}
    learns(network, data_dir, **unpadded)


@pytest.mark.slow
@pytest.mark.parametrize("name", FURTHER)
def test_further_networks_overfit(name: str, data_dir: Path) -> None:
    torch.manual_seed(0)
    if name not in SHIPPED:
        return learns(configured(name), data_dir)
    rate, steps, size = SHIPPED[name]
    return learns(configured(name, narrow=False, size=size), data_dir, size=size, rate=rate, steps=steps, bfloat16=True)
