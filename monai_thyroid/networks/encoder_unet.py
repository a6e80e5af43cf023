"""U-Nets on the encoders of segmentation_models.pytorch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from monai_thyroid.networks.base import PaddedNetwork
from monai_thyroid.networks.pretrained import EncoderInput, Statistics, import_smp, load_strictly, resolve_weights

__all__ = ["EncoderUNet"]

logger = logging.getLogger(__name__)


class EncoderUNet(PaddedNetwork):
    """The U-Net of segmentation_models.pytorch on any of its encoders, with the preprocessing inside.

    Images of any size in [0, 1]; padded to multiples of 32 inside, after the encoder's mean and std are applied. A
    grey image gives exactly what its three-channel copy gives (see `EncoderInput`).

    The state dict has the same entries with and without pretrained weights, preprocessing included, so a trained
    network is built again with ``weights=None`` and loaded: neither internet nor the file of the weights is needed.

    Source: Ronneberger et al., U-Net, MICCAI 2015, doi 10.1007/978-3-319-24574-4_28; Iakubovskii, Segmentation Models
    Pytorch, 2019.

    Args:
        encoder: name of the encoder, such as ``resnet50``; ``tu-`` before a name takes timm's.
        in_channels: channels of the images; 1 or 3 with pretrained weights.
        out_channels: channels of the logits, one a class.
        weights: ``imagenet``, or another name the library has pinned for this encoder, downloads them; a path is a
            .safetensors or .pth file with the encoder's state dict; null leaves the encoder random.
        mean: of the file, a value a channel for images in [0, 1], where no config.json lies beside it and the encoder
            is not one of torchvision's.
        std: likewise.
        freeze_encoder: the encoder is not trained, its norm layers keep their statistics.
        decoder_channels: channels of the decoder's five levels, from the bottom up.

    Raises:
        UserError: no such encoder, or weights that cannot be had, do not fit, or whose preprocessing is not known.
    """

    pretraining_arguments = ("weights", "mean", "std")
    """What a network that is built for trained weights can do without."""

    def __init__(
        self,
        *,
        encoder: str,
        in_channels: int,
        out_channels: int,
        weights: str | Path | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        freeze_encoder: bool = False,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=32)
        # Before anything large is built: this is where names and files are checked.
        found = resolve_weights(encoder, weights, statistics=Statistics.given(mean, std))
        self.input = EncoderInput(in_channels)
        unet = import_smp().Unet(
            encoder,
            encoder_weights=None,
            in_channels=self.input.channels,
            classes=out_channels,
            decoder_channels=tuple(decoder_channels),
        )
        # Its parts and not the whole, which has ways of its own to freeze and to load.
        self.encoder: nn.Module = unet.encoder
        self.decoder: nn.Module = unet.decoder
        self.head: nn.Module = unet.segmentation_head
        if found is not None:
            state, statistics = found
            self.input.set_statistics(statistics)
            load_strictly(self.encoder, state, source=f'{weights} for "{encoder}"')
        self.frozen = freeze_encoder
        if freeze_encoder:
            self.encoder.requires_grad_(False)
            self.encoder.eval()
            if found is None:
                logger.warning('The encoder "%s" is frozen and random: load a trained checkpoint into it.', encoder)

    def train(self, mode: bool = True) -> EncoderUNet:
        """Set the training mode; a frozen encoder stays as in evaluation."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def prepare(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 3, H, W), normalised."""
        result: Tensor = self.input(images)
        return result

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H', W') -> (B, out_channels, H', W')."""
        result: Tensor = self.head(self.decoder(self.encoder(images)))
        return result
