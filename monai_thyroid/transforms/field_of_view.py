"""Bringing a label to the centre of the image that an unpadded network segments."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

import torch
from monai.config import KeysCollection
from monai.transforms import CenterSpatialCrop, InvertibleTransform, MapTransform, Resize
from monai.utils import ensure_tuple_rep

from monai_thyroid.errors import UserError

__all__ = ["FieldOfView", "FieldOfViewd"]


class FieldOfView(InvertibleTransform):
    """Crop or resize a label (channels, width, height) to what an unpadded network gives.

    - ``crop`` keeps the centre: a pixel of the label is the pixel of the image that the logit is for. This is what
      the network computes, so train with it.
    - ``resize`` shrinks the whole label, by nearest neighbour: the network is asked for a small picture of the whole
      image, of whose border it sees all, and segments nothing of. Some published recipes train this way.

    `inverse`, and with it MONAI's `Invertd`, pads a crop with zeros, so what lies outside of the field of view is
    background, and resizes back what was resized.

    Args:
        size: width and height of the logits in pixels, or one number for both; for the unpadded U-Net
            `monai_thyroid.networks.unpadded_output_size` gives it.
        mode: ``crop`` or ``resize``.

    Raises:
        UserError: no such mode.
    """

    def __init__(self, *, size: int | Sequence[int], mode: Literal["crop", "resize"] = "crop") -> None:
        if mode not in ("crop", "resize"):
            raise UserError(
                f'The label of an unpadded network is brought there by "crop" or "resize", not by "{mode}".'
            )
        self.size = ensure_tuple_rep(size, 2)
        self.mode = mode
        self.transform = CenterSpatialCrop(self.size) if mode == "crop" else Resize(self.size, mode="nearest-exact")

    def __call__(self, label: torch.Tensor) -> torch.Tensor:
        """(channels, width, height) -> (channels, *size).

        Raises:
            UserError: the label is smaller than the logits, or its margins cannot be equal on both sides.
        """
        shape = tuple(label.shape[1:])
        if len(shape) != 2 or any(
            n < m or (self.mode == "crop" and (n - m) % 2) for n, m in zip(shape, self.size, strict=True)
        ):
            raise UserError(
                f"A label of {shape} pixels has no centre of {self.size} pixels with the same margin on both sides: "
                "bring image and label to the network's input size first."
            )
        # Resizing computes in float32.
        result: torch.Tensor = self.transform(label)
        return result.to(label.dtype)

    def inverse(self, data: torch.Tensor) -> torch.Tensor:
        """A label (channels, width, height) at its size before, of one at the field's size."""
        result: torch.Tensor = self.transform.inverse(data)
        return result


class FieldOfViewd(MapTransform, InvertibleTransform):
    """`FieldOfView` for the items of a dictionary.

    Args:
        keys: the labels; the image stays as it is.
        size: see `FieldOfView`.
        mode: see `FieldOfView`.
        allow_missing_keys: do not mind a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        size: int | Sequence[int],
        mode: Literal["crop", "resize"] = "crop",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.transform = FieldOfView(size=size, mode=mode)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with its labels cropped or resized."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.transform(result[key])
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with its labels at their size before."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.transform.inverse(result[key])
        return result
