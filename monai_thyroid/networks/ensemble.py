"""Several networks as one, whose probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from monai_thyroid.errors import UserError

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """Logits whose probabilities are the mean of those of the members.

    Args:
        members: networks of the same input and the same logits.
        activation: what makes probabilities of their logits: ``"sigmoid"`` each channel by itself, ``"softmax"`` over
            the channels.

    Raises:
        UserError: no member, or another activation.
    """

    def __init__(self, members: Sequence[nn.Module], *, activation: Literal["sigmoid", "softmax"]) -> None:
        super().__init__()
        if not members or activation not in ("sigmoid", "softmax"):
            raise UserError(f"an ensemble has members, and sigmoid or softmax as activation, not {activation!r}")
        self.members = nn.ModuleList(members)
        self.softmax = activation == "softmax"
        if (fitting := getattr(members[0], "fitting_size", None)) is not None:
            self.fitting_size = fitting  # unpadded ones do not take every size

    def forward(self, images: Tensor) -> Tensor:
        """Segment a batch of images.

        Args:
            images: (B, C, H, W), as the members take them.

        Returns:
            Logits (B, channels, H', W'), as the members give them.
        """
        # In logarithms, where neither probability of a pixel becomes 0.
        inside: list[Tensor] = []
        outside: list[Tensor] = []
        for member in self.members:
            logits = member(images)
            if self.softmax:
                inside.append(torch.log_softmax(logits, 1))
            else:
                inside.append(nn.functional.logsigmoid(logits))
                outside.append(nn.functional.logsigmoid(-logits))
        mean = torch.logsumexp(torch.stack(inside), 0)
        if self.softmax:
            return mean - math.log(len(inside))
        return mean - torch.logsumexp(torch.stack(outside), 0)
