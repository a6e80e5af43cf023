"""What a decision needs of a pair of networks and a margin: better, worse, equivalent, not inferior, or undecided."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monai_thyroid.compare.statistics import Comparison

__all__ = ["DECISIONS", "Decision", "Word", "decide", "decided"]

Word = Literal["better", "worse", "equivalent", "not inferior", "undecided"]

DECISIONS = (
    "Verdicts. Better and worse: the claims. Equivalent: the simultaneous 95 % interval of the difference lies within "
    "the margin of {margin:g} on both sides; of 100 comparisons, those of all pairs are right together in 95. Not "
    "inferior: the first is not worse than the second by more than the margin, as the 95 % interval of this pair by "
    "itself leaves that out (one-sided 2.5 % for each pair, not corrected for their number). Undecided: these data "
    "show none of it, which is no evidence that the two are alike."
)


@dataclass(frozen=True)
class Decision:
    """What may be said of a pair at a margin.

    Attributes:
        first: the network with the better mean.
        second: the other one.
        verdict: of the first beside the second.
        reverse: of the second beside the first.
        within_margin: the two are shown to differ by less than the margin, whatever the verdict: a network can be
            better by less than matters.
        margin: in the unit of the score.
    """

    first: str
    second: str
    verdict: Word
    reverse: Word
    within_margin: bool
    margin: float


def decide(comparison: Comparison, *, margin: float, larger_is_better: bool = True) -> list[Decision]:
    """Judge every pair of a comparison.

    Better, worse and equivalent come from the simultaneous intervals and the adjusted claims that these agree with
    (equivalence as two one-sided tests, Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics 1987), so that all
    of them hold together in 95 %; not inferior from the pair's interval by itself. Where the comparison refuses claims
    all is undecided.

    Args:
        comparison: of any question.
        margin: that matters, at least 0, in the unit of the score.
        larger_is_better: False for distances.
    """
    found = []
    for pair in comparison.pairs:
        alone, joint = (
            interval if larger_is_better else (-interval[1], -interval[0])
            for interval in (pair.interval, pair.simultaneous)
        )
        if comparison.refusals:
            alone = joint = (math.nan, math.nan)
        better, equivalent, fine, reverse_fine = (
            bool(one) for one in decided(np.array(pair.claim), np.array(joint), np.array(alone), margin)
        )
        verdict: Word = "better" if better else "equivalent" if equivalent else "not inferior" if fine else "undecided"
        reverse: Word = (
            "worse" if better else "equivalent" if equivalent else "not inferior" if reverse_fine else "undecided"
        )
        found.append(Decision(pair.first, pair.second, verdict, reverse, equivalent, margin))
    return found


def decided(
    claim: np.ndarray, joint: np.ndarray, alone: np.ndarray, margin: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of differences of which larger speaks for the first: whether it is better, whether the two are equivalent, and
    whether the first, and the second, is not inferior. NaN decides nothing.

    Args:
        claim: (...), that the first is better.
        joint: (..., 2) or (2,), simultaneous limits.
        alone: likewise, limits of the pair by itself.
        margin: at least 0.
    """
    equivalent = (joint[..., 0] > -margin) & (joint[..., 1] < margin)
    return claim, equivalent, alone[..., 0] > -margin, alone[..., 1] < margin
