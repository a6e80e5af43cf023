"""A cached dataset whose random transforms depend on (seed, epoch, item) and on nothing else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from monai.data import CacheDataset

__all__ = ["SeededCacheDataset"]

logger = logging.getLogger(__name__)


class SeededCacheDataset(CacheDataset):
    """MONAI's `CacheDataset`, with every item's random transforms reseeded from (seed, epoch, index).

    So an epoch is the same for any number of workers, and the same after an interruption as without one.

    Args:
        data: items, as for `CacheDataset`.
        transform: one or several; what precedes its first random transform is computed once and kept in memory.
        seed: training seed.
        progress: whether to show a bar while the cache is filled.
    """

    def __init__(
        self, data: Sequence[Any], transform: Callable | Sequence[Callable], *, seed: int, progress: bool = False
    ) -> None:
        self.seed = seed
        self.epoch = 0
        logger.info("Reading %d images for training into memory", len(data))
        super().__init__(data=data, transform=transform, progress=progress, num_workers=2)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, before its data loader is iterated."""
        self.epoch = epoch

    def _transform(self, index: int) -> Any:
        state = np.random.SeedSequence([self.seed, self.epoch, index % len(self)]).generate_state(1)
        self.transform.set_random_state(seed=int(state[0]))
        return super()._transform(index)
