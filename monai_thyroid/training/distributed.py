"""Which of several training processes this is."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["agreed", "processes", "rank"]


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Of this process, from 0; the first one writes."""
    return torch.distributed.get_rank() if _together() else 0


def processes() -> int:
    """How many train together."""
    return torch.distributed.get_world_size() if _together() else 1


def agreed(value: Any) -> Any:
    """What the first process says, for all: clocks differ."""
    if processes() > 1:
        box = [value]
        torch.distributed.broadcast_object_list(box)
        value = box[0]
    return value
