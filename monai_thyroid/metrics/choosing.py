"""Choosing a setting on validation, with the caution that few patients ask for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from monai_thyroid.metrics.registry import METRICS, Counts, evaluate

__all__ = ["Tally", "better"]


@dataclass
class Tally:
    """What a setting gives: a Dice an image (mean over classes), and how many misses and false alarms."""

    dice: list[float]
    misses: int = 0
    false_alarms: int = 0

    def add(self, counts: Sequence[Counts]) -> None:
        """Take up an image.

        Args:
            counts: of each class, one or more.
        """
        self.misses += sum(one.tp == 0 and one.fn > 0 for one in counts)
        self.false_alarms += sum(one.edge == "false_alarm" for one in counts)
        self.dice.append(float(np.mean([evaluate(METRICS["dice"], one) for one in counts])))

    @property
    def errors(self) -> int:
        """Misses and false alarms together."""
        return self.misses + self.false_alarms

    def as_dict(self) -> dict[str, Any]:
        """Mean Dice and counts, for JSON."""
        return {"dice_mean": float(np.mean(self.dice)), "n_misses": self.misses, "n_false_alarms": self.false_alarms}


def better(tallies: Sequence[Tally], groups: Sequence[str]) -> int:
    """Which setting to take: the best mean Dice of those that do not err more often than the first.

    Args:
        tallies: of the settings, the one so far first; of the same images.
        groups: patient, video or scene of each image.

    Returns:
        Its index; 0 where the gain does not exceed its standard error over groups.
    """
    first = tallies[0]
    allowed = [index for index, one in enumerate(tallies) if one.errors <= first.errors]
    best = max(allowed, key=lambda index: (round(float(np.mean(tallies[index].dice)), 12), -index))
    gains: dict[str, list[float]] = defaultdict(list)
    for group, before, after in zip(groups, first.dice, tallies[best].dice, strict=True):
        gains[group].append(after - before)
    by_group = np.array([np.mean(values) for values in gains.values()])
    if len(by_group) < 2 or by_group.mean() <= by_group.std(ddof=1) / math.sqrt(len(by_group)):
        return 0
    return best
