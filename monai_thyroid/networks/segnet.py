"""SegNet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.base import PaddedNetwork, init_he
from monai_thyroid.networks.pretrained import EncoderInput, Statistics, load_strictly, resolve_weights

__all__ = ["SegNet", "max_unpool"]

_VGG16_FILTERS = (64, 128, 256, 512, 512)
_VGG16_CONVS = (2, 2, 3, 3, 3)


def max_unpool(pooled: Tensor, indices: Tensor, size: tuple[int, int]) -> Tensor:
    """Put pooled values back where `F.max_pool2d` found them, zeros elsewhere.

    Equal to `nn.MaxUnpool2d` for windows that do not overlap, in operations that ONNX and OpenVINO have too.

    Args:
        pooled: (B, C, h, w).
        indices: (B, C, h, w), as ``F.max_pool2d(..., return_indices=True)`` returns them: row * W + column.
        size: (H, W), height and width before the pooling.

    Returns:
        (B, C, H, W).
    """
    height, width = size
    empty = pooled.new_zeros([pooled.shape[0], pooled.shape[1], height * width])
    return empty.scatter(2, indices.flatten(2), pooled.flatten(2)).unflatten(2, [height, width])


class _Convs(nn.Module):
    """3x3 convolution, batch norm, ReLU; a number of times."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for before, after in itertools.pairwise(channels):
            self.layers.append(nn.Conv2d(before, after, 3, padding=1))
            self.layers.append(nn.BatchNorm2d(after))
            self.layers.append(nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x)
        return result


class SegNet(PaddedNetwork):
    """SegNet: VGG16's convolutions, the decoder its mirror image, max-pooling indices instead of skip connections.

    Images of any size, scaled to [0, 1] where pretrained weights are used; padded to multiples of 32 inside. Grey is
    copied to three channels, with and without pretrained weights (see `EncoderInput`).

    Source: Badrinarayanan et al., SegNet, IEEE TPAMI 2017, doi 10.1109/TPAMI.2016.2644615.

    Args:
        in_channels: channels of the images; 1 or 3 with pretrained weights.
        out_channels: channels of the logits, one a class.
        filters: channels of each block of the encoder.
        convs: convolutions in each block.
        weights: VGG16 weights with batch norm for the encoder: ``imagenet`` downloads them, a path is a file in the
            layout of torchvision's ``vgg16_bn``, null leaves the encoder random.
        mean: of the file, a value a channel, where it is not ImageNet's and no config.json lies beside the file.
        std: likewise.

    Raises:
        UserError: weights that cannot be had or do not fit; filters and convs of different length.
    """

    pretraining_arguments = ("weights", "mean", "std")
    """What a network that is built for trained weights can do without."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = _VGG16_FILTERS,
        convs: Sequence[int] = _VGG16_CONVS,
        weights: str | Path | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if len(filters) != len(convs) or not filters or min(convs) < 1:
            raise UserError(f"filters {list(filters)} and convs {list(convs)} must go together, 1 or more each.")
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=2 ** len(filters))
        self._is_vgg16 = (tuple(filters), tuple(convs)) == (_VGG16_FILTERS, _VGG16_CONVS)
        self.input = EncoderInput(in_channels)
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        before = self.input.channels
        for level, (after, number) in enumerate(zip(filters, convs, strict=True)):
            self.encoder.append(_Convs([before, *[after] * number]))
            # The last convolution of the whole is the classifier below, so the first block has one less.
            back = [after] * number if level == 0 else [*[after] * number, before]
            self.decoder.insert(0, _Convs(back))
            before = after
        self.head = nn.Conv2d(filters[0], out_channels, 3, padding=1)
        init_he(self)
        self._load(weights, mean, std)

    def _load(self, weights: str | Path | None, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        statistics = Statistics.given(mean, std)
        if weights is None and statistics is None:
            return
        if not self._is_vgg16:
            raise UserError("VGG16 weights fit SegNet's own filters and convs alone: leave these out, or weights null.")
        found = resolve_weights("vgg16_bn", weights, statistics=statistics)
        assert found is not None
        state, statistics = found
        self.input.set_statistics(statistics)
        # torchvision's flat layout: the same layers, and a pooling layer without weights after each block.
        features = nn.Sequential()
        for block in self.encoder:
            assert isinstance(block, _Convs)
            features.extend([*block.layers, nn.Identity()])
        load_strictly(nn.ModuleDict({"features": features}), state, source=f"SegNet weights {weights}")

    def prepare(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 3, H, W), normalised."""
        result: Tensor = self.input(images)
        return result

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H', W') -> (B, out_channels, H', W')."""
        sizes: list[tuple[int, int]] = []
        indices: list[Tensor] = []
        x = images
        for block in self.encoder:
            x = block(x)
            sizes.append((x.shape[2], x.shape[3]))
            x, index = F.max_pool2d(x, 2, return_indices=True)
            indices.append(index)
        for block in self.decoder:
            x = block(max_unpool(x, indices.pop(), sizes.pop()))
        result: Tensor = self.head(x)
        return result
