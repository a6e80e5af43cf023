"""MONAI's BasicUNet without the padding that it does not need."""

from __future__ import annotations

from torch import nn

__all__ = ["without_padding"]


def without_padding(network: nn.Module, *, size: int | None = None) -> nn.Module:
    """Let the levels of a `BasicUNet` meet without padding, for images whose sides 16 divides.

    It pads at each level also where nothing is to be padded. That copies, under autocast on a processor in float32
    with a cast there and one back, and keeps ``torch.compile`` from its backward pass there. The result is the same.

    Args:
        network: changed in place; others than `BasicUNet` have nothing to change. Images of other sizes are refused
            from then on, by torch.
        size: height and width of the images to come; where 16 does not divide it nothing is changed.

    Returns:
        The network.
    """
    from monai.networks.nets.basic_unet import UpCat  # MONAI takes seconds to import

    if size is not None and size % 16:
        return network
    for module in network.modules():
        if isinstance(module, UpCat):
            module.is_pad = False
    return network
