"""The residual U-Net."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.base import PaddedNetwork, init_he
from monai_thyroid.networks.blocks import PreActivationBlock

__all__ = ["ResUNet"]


class ResUNet(PaddedNetwork):
    """Residual U-Net: pre-activation residual units, strided convolutions in place of pooling, concatenated skips.

    Images of any size; padded to multiples of 2^(levels - 1) inside. The default
    filters make the paper's 7.8 million parameters, and 0.4 million in the shortcuts that change channels.

    Source: Zhang et al., Road Extraction by Deep Residual U-Net, IEEE GRSL 2018, doi 10.1109/LGRS.2018.2802944.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the logits, one a class.
        filters: channels of each level from the image down to the bridge; their number is the depth.

    Raises:
        UserError: fewer than two levels.
    """

    def __init__(self, *, in_channels: int, out_channels: int, filters: Sequence[int] = (64, 128, 256, 512)) -> None:
        if len(filters) < 2:
            raise UserError(f"filters needs two levels or more, got {list(filters)}.")
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=2 ** (len(filters) - 1))
        self.encoder = nn.ModuleList([PreActivationBlock(in_channels, filters[0], first=True)])
        for above, below in itertools.pairwise(filters):
            self.encoder.append(PreActivationBlock(above, below, stride=2))
        self.decoder = nn.ModuleList()
        for below, above in zip(filters[:0:-1], filters[-2::-1], strict=True):
            self.decoder.append(PreActivationBlock(below + above, above))
        self.head = nn.Conv2d(filters[0], out_channels, 1)
        init_he(self)

    def logits(self, images: Tensor) -> Tensor:
        """(B, in_channels, H', W') -> (B, out_channels, H', W')."""
        skips: list[Tensor] = []
        x = images
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.decoder:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([skips.pop(), x], dim=1))
        result: Tensor = self.head(x)
        return result
