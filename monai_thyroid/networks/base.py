"""What every network of the menu that is not MONAI's own shares: the contract of input and output sizes."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError

__all__ = ["PaddedNetwork", "check_images", "init_he", "pad_to_multiple"]


def check_images(images: Tensor, in_channels: int) -> None:
    """Refuse what is not a batch of images of the expected channels.

    Args:
        images: what a network was called with.
        in_channels: how many channels it was built for.

    Raises:
        UserError: not (B, in_channels, H, W) with at least one pixel, or not of a floating-point type.
    """
    if images.ndim != 4 or images.shape[1] != in_channels or 0 in images.shape:
        raise UserError(
            f"The network expects images of shape (B, {in_channels}, H, W), but got {tuple(images.shape)}: "
            "check the transforms, or build it with another in_channels."
        )
    if not images.is_floating_point():
        raise UserError(f"The network expects floating-point images, but got {images.dtype}: scale them to [0, 1].")


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Append zero rows and columns until both sides are multiples of a number.

    Args:
        images: (B, C, H, W).
        multiple: the number, at least 1.

    Returns:
        (B, C, H', W') with the smallest H' >= H and W' >= W.
    """
    height, width = images.shape[2], images.shape[3]
    # Unconditional, so that a traced or exported graph holds for every size.
    return F.pad(images, [0, (multiple - width % multiple) % multiple, 0, (multiple - height % multiple) % multiple])


def init_he(network: nn.Module) -> None:
    """Draw the weights of all convolutions from He's normal distribution and set their biases to zero.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015, doi 10.1109/ICCV.2015.123.

    Args:
        network: changed in place, with torch's global random generator.
    """
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            fan = module.in_channels // module.groups * math.prod(module.kernel_size)
            if isinstance(module, nn.ConvTranspose2d):
                # Its strides share the kernel out among the pixels of the result.
                fan //= math.prod(module.stride)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class PaddedNetwork(nn.Module):
    """A network whose stride divides its input, made to accept any size: it pads with zeros and crops the logits.

    Subclasses implement `logits`, and `prepare` where something comes before the padding.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the logits, one a class.
        stride: the number both sides must be multiples of inside.
    """

    def __init__(self, *, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Segment a batch of images.

        Args:
            images: (B, in_channels, H, W), floating point, of any height and width.

        Returns:
            Logits (B, out_channels, H, W).

        Raises:
            UserError: the shape or type is wrong, or a norm layer cannot train on so small a batch of so small images.
        """
        return self.padded_logits(images) if torch.jit.is_scripting() else self._explained(images)  # type: ignore[attr-defined]

    def prepare(self, images: Tensor) -> Tensor:
        """What is done to the images before they are padded: nothing.

        Args:
            images: (B, in_channels, H, W).

        Returns:
            (B, C, H, W).
        """
        return images

    def logits(self, images: Tensor) -> Tensor:
        """Segment images whose sides are multiples of the stride.

        Args:
            images: (B, C, H', W').

        Returns:
            Logits (B, out_channels, H', W').
        """
        raise NotImplementedError

    def padded_logits(self, images: Tensor) -> Tensor:
        """The whole way without its checks.

        Args:
            images: (B, in_channels, H, W).

        Returns:
            Logits (B, out_channels, H, W).
        """
        height, width = images.shape[2], images.shape[3]
        padded = self.logits(pad_to_multiple(self.prepare(images), self.stride))
        return padded[:, :, :height, :width]

    @torch.jit.unused
    def _explained(self, images: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self.padded_logits(images)
        check_images(images, self.in_channels)
        try:
            return self.padded_logits(images)
        except ValueError as error:
            # torch's own words, from torch.nn.functional.batch_norm
            if "more than 1 value per channel when training" not in str(error):
                raise
            height, width = images.shape[2:]
            # Where the stride leaves more than one, the network averages over all of the image.
            large = height > self.stride or width > self.stride
            place = "averaged over all of it" if large else f"at stride {self.stride}"
            more = "" if large else f", or images larger than {self.stride} x {self.stride}"
            raise UserError(
                f"Batch normalisation cannot train on a single value a channel, which is what {images.shape[0]} image "
                f"of {height} x {width} pixels leaves {place}: use a batch of 2 or more{more}."
            ) from error
