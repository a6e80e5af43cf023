"""One shape of output for networks that anybody wrote: logits of the image's size, and in training those of depths."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.base import pad_to_multiple

__all__ = ["AdaptedNetwork", "listed"]


def listed(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """What a network gave, as a list: of one tensor, or of all that deep supervision looks at."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class AdaptedNetwork(nn.Module):
    """A network of another library, made to take images of any size and to give logits as those of the menu do.

    It pads with zeros to multiples of ``stride`` and crops, and finds the logits in what the network gives: a tensor,
    a list or tuple of tensors, a dictionary of them, or a stack (B, depths, classes, H, W) as MONAI's DynUNet makes.

    With ``deep_supervision`` it gives, in training alone, a list: the logits, then those of the other depths. The loss
    must take that: `monai.losses.DeepSupervisionLoss` weighs the depths 1, 1/2, 1/4 and so on. Otherwise, and always
    in evaluation, it gives the logits.

    In a config the network within is a block of its own, with ``_mode_: callable``, so that it is built only when it
    is chosen.

    Args:
        network: builds the network.
        stride: the number both sides of its images must be multiples of; 1 where it takes any size.
        output: where the logits of the image's own size are: a number in a list, tuple or stack, a key of a dictionary.
            A negative number also turns the order of the other depths around.
        upsample: logits of fewer pixels than the image has are made as large, bilinearly; otherwise they are refused.
        deep_supervision: see above; the network's own switch is another matter and stands in its own block.
        unused: names of modules, with ``*`` as in file names, that the network has and never uses. They are taken out:
            weights without a gradient are never trained, and torch's `DistributedDataParallel` refuses them.

    Raises:
        UserError: ``network`` builds no network, ``stride`` is below 1, or it has no module that is ``unused``.
    """

    def __init__(
        self,
        *,
        network: Callable[[], nn.Module],
        stride: int = 1,
        output: int | str = 0,
        upsample: bool = False,
        deep_supervision: bool = False,
        unused: str | Sequence[str] = (),
    ) -> None:
        super().__init__()
        if isinstance(network, nn.Module) or not callable(network):
            raise UserError(f"network: is {type(network).__name__}, not something that builds one: _mode_: callable")
        if stride < 1:
            raise UserError(f"stride {stride}: give 1 or more")
        made: Any = network()
        if not isinstance(made, nn.Module):
            raise UserError(f"network: builds {type(made).__name__}, not a torch.nn.Module")
        for pattern in [unused] if isinstance(unused, str) else unused:
            _take_out(made, pattern)
        self.network = made
        self.stride = stride
        self.output = output
        self.upsample = upsample
        self.deep_supervision = deep_supervision

    def forward(self, images: Tensor) -> Tensor:
        """Segment a batch of images.

        Args:
            images: (B, C, H, W), floating point, of any height and width.

        Returns:
            Logits (B, classes, H, W); in training with ``deep_supervision`` a list, of which these are the first.

        Raises:
            UserError: what the network gives is not that.
        """
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._outputs(images)
        # Only a network that gives one tensor can be scripted; others are traced.
        height, width = images.shape[2], images.shape[3]
        logits: Tensor = self.network(pad_to_multiple(images, self.stride))
        return logits[:, :, :height, :width]

    @torch.jit.unused
    def _outputs(self, images: Tensor) -> Tensor:
        if images.ndim != 4 or not images.is_floating_point():
            raise UserError(
                f"The network expects floating-point images (B, C, H, W), but got {images.dtype} {tuple(images.shape)}."
            )
        height, width = images.shape[2], images.shape[3]
        padded = pad_to_multiple(images, self.stride)
        first, *others = self._ordered(self._given(padded))
        if first.shape[2:] != padded.shape[2:]:
            if not self.upsample:
                raise UserError(
                    f"The network gives {_size(first)} for {_size(padded)} pixels: name another output, or let it be "
                    "made as large with upsample: true."
                )
            first = F.interpolate(first, size=padded.shape[2:], mode="bilinear", align_corners=False)
        logits = first[:, :, :height, :width]
        if not (self.deep_supervision and self.training):
            return logits
        if not others:
            raise UserError("deep_supervision: in training the network gives one output only; set its own switch, too.")
        outputs: Any = [logits, *(_cropped(one, like=logits, padded=padded) for one in others)]
        return outputs

    def _given(self, padded: Tensor) -> Any:
        if torch.compiler.is_compiling():
            return self.network(padded)
        try:
            return self.network(padded)
        except ValueError as error:
            # torch's own words, from torch.nn.functional.instance_norm and batch_norm
            if not re.search(r"more than 1 (spatial element|value per channel) when training", str(error)):
                raise
            raise UserError(
                f"The network cannot train on {padded.shape[0]} images of {_size(padded)} pixels, which its levels "
                "halve until one value is left for a norm layer: take larger images, or fewer levels (strides)."
            ) from error

    def _ordered(self, found: Any) -> list[Tensor]:
        """The outputs, that of the image's size first."""
        if isinstance(found, Mapping):
            if self.output not in found:
                raise UserError(f"The network gives {', '.join(map(str, found))}: name the logits, output: KEY.")
            tensors = [found[self.output], *(value for key, value in found.items() if key != self.output)]
        elif isinstance(found, Tensor) and found.ndim != 5:
            tensors = [found]  # whatever is said: many networks give more than the logits in training only
        else:
            tensors = list(found.unbind(1) if isinstance(found, Tensor) else found) if _several(found) else []
            if isinstance(self.output, str) or not -len(tensors) <= self.output < len(tensors):
                raise UserError(f"output {self.output}: the network gives {_told(found)}.")
            chosen = tensors.pop(self.output)
            tensors = [chosen, *(reversed(tensors) if self.output < 0 else tensors)]
        if not all(isinstance(one, Tensor) and one.ndim == 4 for one in tensors):
            raise UserError(f"The network gives {_told(found)}, not logits (B, classes, H, W).")
        return tensors


def _take_out(network: nn.Module, pattern: str) -> None:
    found = [name for name, _ in network.named_modules() if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise UserError(f"unused {pattern}: the network has no module of such a name")
    for name in found:
        network.set_submodule(name, nn.Identity())


def _several(found: Any) -> bool:
    return isinstance(found, (Tensor, list, tuple))


def _cropped(output: Tensor, *, like: Tensor, padded: Tensor) -> Tensor:
    """An output of less resolution without what belongs to the padding, to whole pixels of its own."""
    sides = [-(-like.shape[side] * output.shape[side] // padded.shape[side]) for side in (2, 3)]
    return output[:, :, : sides[0], : sides[1]]


def _size(images: Tensor) -> str:
    return f"{images.shape[2]} x {images.shape[3]}"


def _told(found: Any) -> str:
    """Kind and shapes of what a network gave, for a message."""
    if isinstance(found, Tensor):
        return f"a tensor {tuple(found.shape)}"
    if isinstance(found, Mapping):
        return "a dictionary of " + ", ".join(f"{key}: {_told(value)}" for key, value in found.items())
    if isinstance(found, (list, tuple)):
        return f"a {type(found).__name__} of {', '.join(map(_told, found)) or 'nothing'}"
    return f"an object {type(found).__name__}"
