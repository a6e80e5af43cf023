"""Segmentation networks on the encoders of segmentation_models.pytorch and timm."""

from __future__ import annotations

import copy
import difflib
import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.base import PaddedNetwork, init_he
from monai_thyroid.networks.blocks import PreActivationBlock
from monai_thyroid.networks.pretrained import (
    EncoderInput,
    Statistics,
    import_smp,
    load_strictly,
    named_as_in_smp,
    resolve_weights,
)

__all__ = ["EncoderUNet"]

logger = logging.getLogger(__name__)

_RESIDUAL = "resunet"
# What `EncoderUNet` says itself, and what is no part of it.
_OWN = {"self", "encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params", "kwargs"}
_OF_TIMM = {"img_size", "dynamic_img_size"}


class EncoderUNet(PaddedNetwork):
    """The U-Net of segmentation_models.pytorch on any of its encoders, with the preprocessing inside.

    Or another of its architectures, or the decoder of the residual U-Net: a `PreActivationBlock` a level, as in
    `ResUNet`, after nearest-neighbour upsampling.

    Images of any size in [0, 1]; padded to multiples of the encoder's stride (32 of most) inside, after its mean and
    std are applied. A grey image gives exactly what its three-channel copy gives (see `EncoderInput`).

    The state dict has the same entries with and without pretrained weights, preprocessing included, so a trained
    network is built again with ``weights=None`` and loaded: neither internet nor the file of the weights is needed.

    Source: Ronneberger et al., U-Net, MICCAI 2015, doi 10.1007/978-3-319-24574-4_28; Zhang et al., Road Extraction by
    Deep Residual U-Net, IEEE GRSL 2018, doi 10.1109/LGRS.2018.2802944; Iakubovskii, Segmentation Models Pytorch, 2019.

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
        architecture: ``unet``, ``resunet``, or another of the library: ``unetplusplus``, ``upernet``, ``segformer``,
            ``dpt`` (on timm's vision transformers, such as ``tu-vit_small_patch16_224``), ``manet``, ``fpn`` and so on.
        decoder_channels: of U-shaped architectures the channels of the decoder's five levels, from the bottom up; of
            others what the library means by it. Null for its own.
        arguments: further ones of the architecture by the library's names, such as ``{decoder_attention_type: scse}``,
            and ``img_size`` or ``dynamic_img_size`` of timm's transformers.

    Raises:
        UserError: no such encoder, architecture or argument, or weights that cannot be had, do not fit, or whose
            preprocessing is not known.
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
        architecture: str = "unet",
        decoder_channels: int | Sequence[int] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        kind = _architecture(architecture)
        given = {**(arguments or {})}
        if decoder_channels is not None:
            given["decoder_channels"] = decoder_channels
        _check_arguments(kind, given)
        # Before anything large is built: this is where names and files are checked.
        found = resolve_weights(encoder, weights, statistics=Statistics.given(mean, std), download=kind != "dpt")
        entrance = EncoderInput(in_channels)
        build = _residual if kind == _RESIDUAL else _of_the_library
        try:
            parts = build(kind, encoder, in_channels=entrance.channels, out_channels=out_channels, **given)
        except UserError:
            raise
        except Exception as error:  # the library's words on what does not go together
            raise UserError(f'{architecture} on the encoder "{encoder}" cannot be built: {error}') from error
        # DPT halves the deepest features once more.
        stride = int(parts[0].output_stride) * (1 + (kind == "dpt"))
        super().__init__(in_channels=in_channels, out_channels=out_channels, stride=stride)
        self.input = entrance
        self.encoder, self.decoder, self.head = parts
        if found is not None:
            state, statistics = found
            self.input.set_statistics(statistics)
            if encoder.startswith("tu-"):
                state = named_as_in_smp(state, self.encoder)
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

    def for_size(self, height: int, width: int) -> EncoderUNet:
        """The network for images of one size alone, as exports have it.

        A transformer's positions, which are interpolated for each image, are then those of that size: bicubic
        interpolation with anti-aliasing, by which timm does it, is another one in OpenVINO.

        Args:
            height: of the images.
            width: likewise.

        Returns:
            A copy, or the network itself where nothing in it depends on the size.
        """
        if not getattr(getattr(self.encoder, "model", None), "dynamic_img_size", False):
            return self
        fixed = copy.deepcopy(self)
        fixed.encoder.model.set_input_size(tuple(-(-side // self.stride) * self.stride for side in (height, width)))
        return fixed

    def prepare(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, 3, H, W), normalised."""
        result: Tensor = self.input(images)
        return result

    def logits(self, images: Tensor) -> Tensor:
        """(B, 3, H', W') -> (B, out_channels, H', W')."""
        result: Tensor = self.head(self.decoder(self.encoder(images)))
        return result


class ResidualDecoder(nn.Module):
    """The decoder of `ResUNet` for the features of any encoder: upsampling, concatenation, a residual unit.

    Args:
        encoder_channels: channels of the encoder's features, from the image itself down.
        channels: channels of each level, from the bottom up; the last one has no skip.

    Raises:
        UserError: not a number a level.
    """

    def __init__(self, encoder_channels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        *above, below = encoder_channels
        skips = [*above[:0:-1], 0]
        if len(channels) != len(skips):
            raise UserError(f"decoder_channels {list(channels)}: this encoder has {len(skips)} levels")
        self.blocks = nn.ModuleList()
        for skip, out in zip(skips, channels, strict=True):
            self.blocks.append(PreActivationBlock(below + skip, out))
            below = out

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features of decreasing size, the image's first, -> (B, channels[-1], H, W)."""
        x = features[-1]
        place = len(features) - 2
        for block in self.blocks:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            if place > 0:
                x = torch.cat([features[place], x], dim=1)
            x = block(x)
            place -= 1
        return x


class _WithTokens(nn.Module):
    """A decoder that takes features and prefix tokens, as one of what its encoder gives."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, found: tuple[list[Tensor], list[Tensor]]) -> Tensor:
        """(features, tokens) -> (B, C, H, W)."""
        result: Tensor = self.decoder(found[0], found[1])
        return result


def _residual(
    kind: str,
    encoder: str,
    *,
    in_channels: int,
    out_channels: int,
    decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
) -> tuple[Any, nn.Module, nn.Module]:
    """Encoder, decoder and head of the residual U-Net."""
    made = import_smp().encoders.get_encoder(encoder, in_channels=in_channels, depth=5, weights=None)
    decoder = ResidualDecoder(made.out_channels, decoder_channels)
    head = nn.Conv2d(decoder_channels[-1], out_channels, 1)
    init_he(decoder)
    init_he(head)
    return made, decoder, head


def _of_the_library(
    kind: str, encoder: str, *, in_channels: int, out_channels: int, **arguments: Any
) -> tuple[Any, nn.Module, nn.Module]:
    """Encoder, decoder and head: its parts and not the whole, which has ways of its own to freeze and to load."""
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    whole = import_smp().create_model(
        kind, encoder, encoder_weights=None, in_channels=in_channels, classes=out_channels, **arguments
    )
    decoder: nn.Module = whole.decoder
    if kind == "dpt":
        decoder = _WithTokens(decoder)
        # What comes after the last features would never be trained.
        whole.encoder.model.reset_classifier(0)
        whole.encoder.model.norm = nn.Identity()
    return whole.encoder, decoder, whole.segmentation_head


def _architecture(name: str) -> str:
    known = [_RESIDUAL, *import_smp().MODEL_ARCHITECTURES_MAPPING]
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f'did you mean "{near[0]}"? ' if near else ""
        raise UserError(f'There is no architecture "{name}": {hint}There are {", ".join(sorted(known))}.')
    return name.lower()


def _check_arguments(kind: str, given: Mapping[str, Any]) -> None:
    """Only what the architecture names itself: it hands the rest on to timm, which would fetch files for some."""
    if kind == _RESIDUAL:
        accepted = {"decoder_channels"}
    else:
        accepted = {*inspect.signature(import_smp().MODEL_ARCHITECTURES_MAPPING[kind].__init__).parameters} - _OWN
        accepted |= _OF_TIMM
    if unknown := [name for name in given if name not in accepted]:
        raise UserError(
            f"{kind} has no argument {', '.join(map(str, unknown))}; there are {', '.join(sorted(accepted))}."
        )
