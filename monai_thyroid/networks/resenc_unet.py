"""nnU-Net's U-Net with a residual encoder, from the package that nnU-Net takes it from."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from monai_thyroid.errors import UserError, optional
from monai_thyroid.networks.adapted import AdaptedNetwork

__all__ = ["ResEncUNet"]


class ResEncUNet(AdaptedNetwork):
    """nnU-Net's residual-encoder U-Net in two dimensions: instance norm, leaky ReLU, as its planner sets it up.

    Images of any size; padded to multiples of 2^(levels - 1) inside, and not so small that a single pixel is left of
    them there. The defaults are seven levels, which bring 256 pixels to 4; nnU-Net's planner would fit their number to
    the images and a GPU's memory.

    Source: Isensee et al., nnU-Net Revisited, MICCAI 2024, doi 10.1007/978-3-031-72114-4_47.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the logits, one a class.
        filters: channels of each level from the image down; their number is the depth.
        blocks: residual blocks of each level of the encoder.
        deep_supervision: gives, in training, also the logits of the lower levels: see `AdaptedNetwork`.

    Raises:
        UserError: the package is not installed, ``filters`` and ``blocks`` differ in length or have fewer than two.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int] = (32, 64, 128, 256, 512, 512, 512),
        blocks: Sequence[int] = (1, 3, 4, 6, 6, 6, 6),
        deep_supervision: bool = False,
    ) -> None:
        if len(filters) < 2 or len(filters) != len(blocks):
            raise UserError(
                f"filters and blocks have a number a level, two levels or more; got {list(filters)} and {list(blocks)}."
            )
        levels = len(filters)

        def build() -> nn.Module:
            package = optional("dynamic_network_architectures.architectures.unet", extra="nnunet")
            network: nn.Module = package.ResidualEncoderUNet(
                input_channels=in_channels,
                n_stages=levels,
                features_per_stage=list(filters),
                conv_op=nn.Conv2d,
                kernel_sizes=3,
                strides=[1] + [2] * (levels - 1),
                n_blocks_per_stage=list(blocks),
                num_classes=out_channels,
                n_conv_per_stage_decoder=1,
                conv_bias=True,
                norm_op=nn.InstanceNorm2d,
                norm_op_kwargs={"eps": 1e-5, "affine": True},
                nonlin=nn.LeakyReLU,
                nonlin_kwargs={"inplace": True},
                deep_supervision=deep_supervision,
            )
            return network.apply(package.ResidualEncoderUNet.initialize)

        # The package builds the logits of the lower levels in any case.
        unused = [] if deep_supervision else [f"decoder.seg_layers.{level}" for level in range(levels - 2)]
        super().__init__(network=build, stride=2 ** (levels - 1), deep_supervision=deep_supervision, unused=unused)
