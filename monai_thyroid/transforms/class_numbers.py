"""From probabilities of classes to one class a pixel."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_thyroid.errors import UserError

__all__ = ["ClassNumbersd", "class_numbers"]


def class_numbers(probabilities: torch.Tensor, *, threshold: float, activation: str) -> torch.Tensor:
    """Decide for one class a pixel: no pixel belongs to two.

    Args:
        probabilities: (channels, ...) in [0, 1]: one channel a class for sigmoid, the background's before them for
            softmax.
        threshold: sigmoid: the likeliest class is taken where its probability is above this, else background. Softmax
            takes the likeliest channel, whatever the threshold.
        activation: what made the probabilities, ``"sigmoid"`` or ``"softmax"``.

    Returns:
        uint8 of the shape without channels: 0 is background, 1 the first class.

    Raises:
        UserError: another activation.
    """
    if activation == "softmax":
        return probabilities.argmax(0).to(torch.uint8)
    if activation != "sigmoid":
        raise UserError(f"activation {activation!r}: choose sigmoid or softmax")
    highest, channel = probabilities.max(0)
    return torch.where(highest > threshold, channel + 1, 0).to(torch.uint8)


class ClassNumbersd(MapTransform):
    """`class_numbers` for items, with a channel before: (channels, width, height) -> (1, width, height).

    Args:
        keys: keys of the probabilities.
        threshold: see `class_numbers`.
        activation: see `class_numbers`.
        after: what the class numbers undergo then, (width, height), uint8.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        threshold: float,
        activation: str,
        after: Callable[[np.ndarray], np.ndarray] | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.threshold = threshold
        self.activation = activation
        self.after = after

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Decide for every key of one item; metadata are kept."""
        result = dict(data)
        for key in self.key_iterator(result):
            probabilities = result[key]
            numbers = class_numbers(probabilities, threshold=self.threshold, activation=self.activation)
            if self.after is not None:
                numbers[:] = torch.from_numpy(self.after(numbers.cpu().numpy()))
            result[key] = numbers[None]
        return result
