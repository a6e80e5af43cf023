"""The blocks that the residual and attention U-Nets are made of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError

__all__ = ["AttentionGate", "DoubleConv", "NonLocalBlock", "PreActivationBlock", "ResidualBlock", "UpConv"]


class DoubleConv(nn.Module):
    """Two times 3x3 convolution, batch norm and ReLU: the block of the classic U-Net, padded.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)


class ResidualBlock(nn.Module):
    """`DoubleConv` with a shortcut: conv-BN-ReLU-conv-BN plus the input, ReLU after the sum.

    Where the channels change, the shortcut is a 1x1 convolution and a batch norm.

    Source: He et al., Deep Residual Learning, CVPR 2016, doi 10.1109/CVPR.2016.90.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)), inplace=True)))
        return F.relu(residual + self.shortcut(x), inplace=True)


class PreActivationBlock(nn.Module):
    """The residual unit of the residual U-Net: BN-ReLU-conv-BN-ReLU-conv plus the input.

    Where the channels change, the shortcut is a 1x1 convolution and a batch norm.

    Source: Zhang et al., Road Extraction by Deep Residual U-Net, IEEE GRSL 2018, doi 10.1109/LGRS.2018.2802944.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
        stride: 2 halves height and width, in the first convolution.
        first: the block sees the image itself, so the leading BN and ReLU are left out, as in the paper.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, first: bool = False) -> None:
        super().__init__()
        self.before: nn.Module = (
            nn.Identity() if first else nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True))
        )
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.shortcut: nn.Module = nn.Identity()
        self.stride = stride
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride)."""
        residual: Tensor = self.conv2(F.relu(self.norm(self.conv1(self.before(x))), inplace=True))
        # Not a stride of the 1x1 convolution: torch 2.13's CPU kernel crashes on that in channels_last with 8 channels.
        return residual + self.shortcut(x[:, :, :: self.stride, :: self.stride])


class UpConv(nn.Module):
    """Nearest-neighbour upsampling by two, 3x3 convolution, batch norm and ReLU.

    Nearest, because its gradient on a GPU is deterministic and bilinear's is not.

    Args:
        in_channels: channels that come in.
        out_channels: channels that go out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, 2H, 2W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.relu(self.norm(self.conv(x)), inplace=True)


class NonLocalBlock(nn.Module):
    """Every position attends to all positions: embedded Gaussian, inner channels half.

    y = x + BN(W sum_j softmax_j(theta(x_i) . phi(x_j)) g(x_j)). The batch norm's gamma starts at zero, and with it the
    block as the identity. The attention matrix has positions x keys entries an image: 64 x 64 positions, which is a
    1024 x 1024 image at stride 16, make 16.8 million.

    Source: Wang et al., Non-local Neural Networks, CVPR 2018, doi 10.1109/CVPR.2018.00813.

    Args:
        channels: channels that come in and go out.
        key_pooling: keys and values are max-pooled by this number in height and width (the paper's subsampling trick;
            2 makes the matrix a quarter as large). 1 pools nothing.
        max_positions: an attention matrix larger than this number squared is refused.
    """

    def __init__(self, channels: int, *, key_pooling: int = 1, max_positions: int = 4096) -> None:
        super().__init__()
        if key_pooling < 1 or max_positions < 1:
            raise UserError(f"key_pooling ({key_pooling}) and max_positions ({max_positions}) must be 1 or more.")
        self.key_pooling = key_pooling
        self.max_positions = max_positions
        inner = max(channels // 2, 1)
        self.theta = nn.Conv2d(channels, inner, 1)
        self.phi = nn.Conv2d(channels, inner, 1)
        self.g = nn.Conv2d(channels, inner, 1)
        self.out = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.reset_gamma()

    def reset_gamma(self) -> None:
        """Make the block the identity."""
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, channels, H, W).

        Raises:
            UserError: the attention matrix would be too large.
        """
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check(x)
        height, width = x.shape[2], x.shape[3]
        source = x
        if self.key_pooling > 1:
            source = F.max_pool2d(x, self.key_pooling, ceil_mode=True)
        query = self.theta(x).flatten(2).transpose(1, 2)
        attention = torch.softmax(torch.matmul(query, self.phi(source).flatten(2)), dim=-1)
        attended = torch.matmul(attention, self.g(source).flatten(2).transpose(1, 2))
        attended = attended.transpose(1, 2).unflatten(2, [height, width])
        result: Tensor = x + self.norm(self.out(attended))
        return result

    @torch.jit.unused
    def _check(self, x: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        height, width = int(x.shape[2]), int(x.shape[3])

        def entries(pooling: int) -> int:
            return height * width * math.ceil(height / pooling) * math.ceil(width / pooling)

        if entries(self.key_pooling) > self.max_positions**2:
            enough = next((n for n in range(2, max(height, width) + 1) if entries(n) <= self.max_positions**2), None)
            advice = "use smaller images" + (f" or key_pooling={enough}" if enough else "")
            raise UserError(
                f"The non-local block would compare {height} x {width} = {height * width} positions with "
                f"{math.ceil(height / self.key_pooling) * math.ceil(width / self.key_pooling)} keys, more than "
                f"{self.max_positions} with {self.max_positions}: {advice}."
            )


class AttentionGate(nn.Module):
    """Additive attention that weighs the pixels of a skip connection by what the decoder knows.

    alpha = sigmoid(psi . relu(W_x x + W_g g + b_g) + b_psi), result alpha * x.

    Source: Oktay et al., Attention U-Net, MIDL 2018, arXiv 1804.03999.

    Args:
        channels: channels of the skip connection and of the decoder's features; the inner channels are half of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.skip = nn.Conv2d(channels, inner, 1, bias=False)
        self.gate = nn.Conv2d(channels, inner, 1)
        self.psi = nn.Conv2d(inner, 1, 1)

    def forward(self, skip: Tensor, gate: Tensor) -> Tensor:
        """(B, channels, H, W) twice -> the skip connection, weighed, (B, channels, H, W)."""
        return skip * torch.sigmoid(self.psi(F.relu(self.skip(skip) + self.gate(gate), inplace=True)))
