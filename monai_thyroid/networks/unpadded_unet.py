"""The U-Net of 2015, with convolutions that see nothing but the image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.base import check_images, init_he

__all__ = ["UnpaddedUNet", "nearest_unpadded_sizes", "unpadded_output_size"]


def _output_size(size: int, levels: int) -> int | None:
    """Height or width of the logits, None where the input size does not fit."""
    for _ in range(levels - 1):
        size -= 4
        if size <= 0 or size % 2:
            return None
        size //= 2
    size -= 4
    for _ in range(levels - 1):
        size = 2 * size - 4
    # A level that shrinks to nothing stays below zero from there on.
    return size if size > 0 else None


def nearest_unpadded_sizes(size: int, *, levels: int = 5) -> list[int]:
    """The valid input sizes around a size.

    Args:
        size: a height or width in pixels.
        levels: levels of the network.

    Returns:
        The next valid size below, where there is one, and the next above; the size alone where it is valid itself.
    """
    if _output_size(size, levels) is not None:
        return [size]
    below = next((n for n in range(size - 1, 0, -1) if _output_size(n, levels) is not None), None)
    above = max(size, 0) + 1
    while _output_size(above, levels) is None:
        above += 1
    return [above] if below is None else [below, above]


def unpadded_output_size(size: int, *, levels: int = 5) -> int:
    """How many pixels of a row or column `UnpaddedUNet` segments: 68 of 252, 388 of 572.

    With five levels the sizes 16k+12 from 188 on are valid, and the logits are the input's centre less 92 pixels on
    each side.

    Args:
        size: height or width of the images in pixels.
        levels: levels of the network.

    Returns:
        Height or width of the logits in pixels.

    Raises:
        UserError: the size does not fit; names the nearest that do.
    """
    result = _output_size(size, levels)
    if result is None:
        nearest = " and ".join(map(str, nearest_unpadded_sizes(size, levels=levels)))
        raise UserError(
            f"The unpadded U-Net cannot halve an image side of {size} pixels {levels - 1} times without a remainder, "
            f"or nothing would be left of it; the nearest valid sizes are {nearest}. Pad, crop or resize the images."
        )
    return result


def _two_convs(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3),
        nn.ReLU(inplace=True),
    )


class UnpaddedUNet(nn.Module):
    """The U-Net of 2015 as published: valid convolutions, cropped skips, no norm layers, He's initial weights.

    The logits cover the centre of the image alone, where each pixel has its full context: `unpadded_output_size`
    says how much, `monai_thyroid.transforms.field_of_view` brings a label there.

    Source: Ronneberger et al., U-Net, MICCAI 2015, doi 10.1007/978-3-319-24574-4_28.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the logits, one a class.
        filters: channels of each level from the image down; their number is the depth.
        dropout: probability that a feature is dropped in the last two levels of the contracting path. The paper names
            no number; 0.5 is that of the model its authors released.

    Raises:
        UserError: fewer than two levels.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (64, 128, 256, 512, 1024),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(filters) < 2:
            raise UserError(f"filters needs two levels or more, got {list(filters)}.")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.levels = len(filters)
        self.encoder = nn.ModuleList([_two_convs(in_channels, filters[0])])
        for above, below in itertools.pairwise(filters):
            self.encoder.append(_two_convs(above, below))
        for block in self.encoder[-2:]:
            assert isinstance(block, nn.Sequential)
            block.append(nn.Dropout(dropout))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for below, above in zip(filters[:0:-1], filters[-2::-1], strict=True):
            self.up.append(nn.ConvTranspose2d(below, above, 2, stride=2))
            self.decoder.append(_two_convs(2 * above, above))
        self.head = nn.Conv2d(filters[0], out_channels, 1)
        init_he(self)

    def forward(self, images: Tensor) -> Tensor:
        """Segment the centre of a batch of images.

        Args:
            images: (B, in_channels, H, W), floating point; H and W are 16k+12, with five levels.

        Returns:
            Logits (B, out_channels, H - 184, W - 184), with five levels.

        Raises:
            UserError: the shape or type is wrong, or the size does not fit; names the nearest that do.
        """
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            self._check(images)
        skips: list[Tensor] = []
        x = images
        for level, block in enumerate(self.encoder):
            if level > 0:
                x = F.max_pool2d(x, 2)
            x = block(x)
            skips.append(x)
        skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x = F.relu(up(x), inplace=True)
            skip = skips.pop()
            top, left = (skip.shape[2] - x.shape[2]) // 2, (skip.shape[3] - x.shape[3]) // 2
            x = block(torch.cat([skip[:, :, top : top + x.shape[2], left : left + x.shape[3]], x], dim=1))
        result: Tensor = self.head(x)
        return result

    def fitting_size(self, size: int) -> int:
        """The largest valid height or width that is not above a size.

        Raises:
            UserError: there is none; names the smallest valid one.
        """
        fitting = nearest_unpadded_sizes(size, levels=self.levels)[0]
        if fitting > size:
            unpadded_output_size(size, levels=self.levels)
        return fitting

    @torch.jit.unused
    def _check(self, images: Tensor) -> None:
        if torch.compiler.is_compiling():
            return
        check_images(images, self.in_channels)
        problems = []
        for name, size in (("height", int(images.shape[2])), ("width", int(images.shape[3]))):
            try:
                unpadded_output_size(size, levels=self.levels)
            except UserError as error:
                problems += [f"{name}: {problem}" for problem in error.problems]
        if problems:
            raise UserError(problems)
