"""RNGU-Net and its ablation down to the classic U-Net."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.base import PaddedNetwork, init_he
from monai_thyroid.networks.blocks import AttentionGate, DoubleConv, NonLocalBlock, ResidualBlock, UpConv

__all__ = ["RNGUNet"]


class RNGUNet(PaddedNetwork):
    """RNGU-Net: residual blocks, a non-local block at the bottleneck, gates on the skip connections.

    Images of any size; padded to multiples of 2^(levels - 1) inside. With all three flags off it is the classic U-Net
    with batch norm: two 3x3 convolutions a level, 2x2 max-pooling, x2 upsampling with a 3x3 convolution, concatenation.

    The filter counts are not published in text; 64-128-256-512 with a bridge of 1024 makes 38.4 million parameters.

    Source: RNGU-Net, PeerJ Computer Science 2024, e1780, doi 10.7717/peerj-cs.1780.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the logits, one a class.
        filters: channels of each level from the image down to the bridge; their number is the depth.
        residual: `ResidualBlock` in place of `DoubleConv`, in encoder and decoder.
        non_local: `NonLocalBlock` after the bridge.
        gate: `AttentionGate` on each skip connection.
        key_pooling: see `NonLocalBlock`.
        max_positions: see `NonLocalBlock`.

    Raises:
        UserError: fewer than two levels.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (64, 128, 256, 512, 1024),
        residual: bool = True,
        non_local: bool = True,
        gate: bool = True,
        key_pooling: int = 1,
        max_positions: int = 4096,
    ) -> None:
        if len(filters) < 2:
            raise UserError(f"filters needs two levels or more, got {list(filters)}.")
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=2 ** (len(filters) - 1))
        block = ResidualBlock if residual else DoubleConv
        self.encoder = nn.ModuleList([block(in_channels, filters[0])])
        for above, below in itertools.pairwise(filters):
            self.encoder.append(block(above, below))
        self.non_local: nn.Module = nn.Identity()
        if non_local:
            self.non_local = NonLocalBlock(filters[-1], key_pooling=key_pooling, max_positions=max_positions)
        self.up = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for below, above in zip(filters[:0:-1], filters[-2::-1], strict=True):
            self.up.append(UpConv(below, above))
            self.gates.append(AttentionGate(above) if gate else Ungated())
            self.decoder.append(block(2 * above, above))
        self.head = nn.Conv2d(filters[0], out_channels, 1)
        init_he(self)

    def logits(self, images: Tensor) -> Tensor:
        """(B, in_channels, H', W') -> (B, out_channels, H', W')."""
        skips: list[Tensor] = []
        x = images
        for level, block in enumerate(self.encoder):
            if level > 0:
                x = F.max_pool2d(x, 2)
            x = block(x)
            skips.append(x)
        skips.pop()
        x = self.non_local(x)
        for up, gate, block in zip(self.up, self.gates, self.decoder, strict=True):
            x = up(x)
            x = block(torch.cat([gate(skips.pop(), x), x], dim=1))
        result: Tensor = self.head(x)
        return result


class Ungated(nn.Module):
    """The skip connection as it is, in the place of an `AttentionGate`."""

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """The first of the two."""
        return skip
