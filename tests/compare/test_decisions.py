"""Verdicts at a margin, on scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from monai_thyroid.compare.decisions import decide
from monai_thyroid.compare.statistics import compare_architectures, compare_weights

GROUPS = [f"p{number}" for number in range(30)]
NOISE = np.resize([0.004, -0.004, 0.002, -0.002], 30)  # over groups; its mean is 0


def scores(**effects: float) -> dict:
    """Groups' scores of networks that differ by constants and a little, each by another pattern."""
    difficulty = np.linspace(0.6, 0.9, 30)
    patterns = [np.roll(NOISE, shift) * (1 + shift) for shift in range(len(effects))]
    values = [difficulty + effect + pattern for effect, pattern in zip(effects.values(), patterns, strict=True)]
    return {"values": np.array(values), "networks": list(effects), "groups": GROUPS}


@pytest.mark.parametrize(
    ("ahead", "margin", "verdict", "reverse", "within"),
    [
        (0.05, 0.01, "better", "worse", False),
        (0.006, 0.01, "better", "worse", True),
        (0.0005, 0.01, "equivalent", "equivalent", True),
        (0.0005, 0.0035, "not inferior", "undecided", False),
        (0.0005, 0.0003, "undecided", "undecided", False),
    ],
)
def test_every_verdict_of_a_pair(ahead: float, margin: float, verdict: str, reverse: str, within: bool) -> None:
    comparison = compare_weights(**scores(a=ahead, b=0.0))
    (one,) = decide(comparison, margin=margin)
    assert (one.first, one.second, one.verdict, one.reverse, one.within_margin) == ("a", "b", verdict, reverse, within)
    (pair,) = comparison.pairs
    low, high = pair.simultaneous
    assert within == (-margin < low and high < margin)
    assert (reverse == "not inferior") == (pair.interval[1] < margin and verdict not in ("better", "equivalent"))


def test_distances_are_better_when_small() -> None:
    given = scores(near=2.0, far=3.0)
    comparison = compare_weights(**given, larger_is_better=False)
    (one,) = decide(comparison, margin=0.5, larger_is_better=False)
    assert (one.first, one.verdict, one.reverse) == ("near", "better", "worse")
    (one,) = decide(compare_weights(**scores(a=2.0, b=2.0005), larger_is_better=False), margin=0.5)
    assert one.verdict == "equivalent"
    skewed = compare_weights(**scores(a=2.0, b=2.0005), larger_is_better=False)
    (one,) = decide(skewed, margin=0.0035, larger_is_better=False)
    assert (one.first, one.verdict, one.reverse) == ("a", "not inferior", "undecided")


def test_architectures_are_judged_by_the_same_words() -> None:
    values = np.stack([scores(a=0.05, b=0.0, c=0.0005)["values"] + step for step in (0.0, 0.0002, -0.0002)], axis=1)
    found = decide(compare_architectures(values, networks=["a", "b", "c"], groups=GROUPS), margin=0.01)
    assert [(one.first, one.second, one.verdict, one.reverse) for one in found] == [
        ("a", "c", "better", "worse"),
        ("a", "b", "better", "worse"),
        ("c", "b", "equivalent", "equivalent"),
    ]


def test_too_few_groups_decide_nothing() -> None:
    values = np.array([[0.9] * 5, [0.89] * 5]) + np.resize([0.001, 0], 5)
    comparison = compare_weights(values, networks=["a", "b"], groups=GROUPS[:5])
    assert comparison.refusals
    (one,) = decide(comparison, margin=0.5)
    assert (one.verdict, one.reverse, one.within_margin) == ("undecided", "undecided", False)
