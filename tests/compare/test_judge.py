from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from made_runs import everything, nearly_nothing, nothing, reference, shrunk, the_same

from monai_thyroid.compare.judge import Candidate, copies, recommend, verdict, volatility, worst_decile
from monai_thyroid.compare.statistics import compare_architectures, compare_weights
from monai_thyroid.metrics import score_case


def rows(predict: Callable[[np.ndarray, int], np.ndarray], cases: Sequence[int] = range(24)) -> list[dict[str, Any]]:
    scored = []
    for case in cases:
        truth = reference(case, "test")
        scored.append({"case": str(case), **score_case(truth, predict(truth, case))})
    return scored


@pytest.mark.parametrize(
    ("predict", "kind", "told"),
    [
        (nothing, "all background", "24 of 24 cases are empty"),
        (everything, "all foreground", "whole image in 24 of 24 cases"),
        (the_same, "constant", "the same share of every image (25.0%"),
        (nearly_nothing, "nearly collapsed", "not a pixel of the object in 23 of 24 cases"),
        (
            lambda mask, case: mask if case < 2 else np.ones_like(mask),
            "nearly collapsed",
            "the whole image in 22 of 24 cases",
        ),
    ],
)
def test_a_collapsed_model_is_found(predict: Callable, kind: str, told: str) -> None:
    found = verdict(rows(predict))
    assert found is not None
    assert found.kind == kind
    assert told in found.sentence


@pytest.mark.parametrize(
    "predict",
    [
        shrunk(0.3, "poor", 0),
        lambda mask, case: mask,  # perfect: the same Dice in every case, and rightly
        lambda mask, case: mask if case % 5 == 0 else np.zeros_like(mask),  # misses 80 %
    ],
)
def test_a_poor_model_has_not_collapsed(predict: Callable) -> None:
    assert verdict(rows(predict)) is None


def test_images_without_an_object_need_no_prediction() -> None:
    empty = np.zeros((8, 8), dtype=bool)
    assert verdict([{"case": str(case), **score_case(empty, empty)} for case in range(5)]) is None


def test_objects_of_one_size_do_not_make_a_model_constant() -> None:
    scored = []
    for case in range(6):
        truth = np.zeros((16, 16), dtype=bool)
        truth[case : case + 8, 2:10] = True
        scored.append({"case": str(case), **score_case(truth, np.roll(truth, case % 3, axis=1))})
    assert verdict(scored) is None


def test_copies_agree_in_every_count() -> None:
    first, second = rows(shrunk(0.8, "a", 0)), rows(shrunk(0.8, "b", 0))
    changed = [*first[:-1], {**first[-1], "fp": first[-1]["fp"] + 1}]
    assert copies([first, second, list(reversed(first)), changed]) == {2: 0}


def history(dice: Sequence[float | None], stage: float = 1.0) -> list[dict[str, float | None]]:
    return [{"stage": stage, "epoch": index + 1.0, "val_dice": value} for index, value in enumerate(dice)]


def test_volatility_is_of_the_last_third_of_the_last_stage() -> None:
    assert volatility(history([0.1, 0.9, 0.2, 0.8, 0.5, 0.7])) == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert volatility(history([0.1] * 5 + [0.5, 0.6, 0.8])) == pytest.approx(np.std([0.5, 0.6, 0.8], ddof=1))
    assert volatility([*history([0.1, 0.9]), *history([0.2, 0.3, 0.5, 0.7], stage=2)]) == pytest.approx(
        np.std([0.5, 0.7], ddof=1)
    )
    assert volatility(history([0.5, None, 0.5, None])) is None
    assert volatility([]) is None


def test_the_worst_decile_is_rounded_up() -> None:
    values = np.arange(25)[::-1] / 25
    assert worst_decile(values) == pytest.approx((0 + 1 + 2) / 3 / 25)


def choose(scores: dict[str, float], margin: float = 0.01, cost: str | None = "parameters", **known: tuple) -> dict:
    """Networks whose groups differ from the first's by a constant and a little noise."""
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.9, 40)
    values = np.array([base + value + rng.normal(0, 0.001, 40) for value in scores.values()])
    comparison = compare_weights(values, networks=list(scores), groups=[str(i) for i in range(40)])
    candidates = {
        name: Candidate(name, *known.get(name, (0.01, 0, 3, 100.0)))  # volatility, collapsed, seeds, cost
        for name in scores
    }
    return recommend(comparison, candidates=candidates, margin=margin, metric="Dice", cost=cost)


def test_within_the_margin_the_steadiest_is_chosen() -> None:
    choice = choose({"best": 0.05, "near": 0.045, "far": 0.0}, best=(0.05, 0, 3, 1.0), far=(0.001, 0, 3, 1.0))
    assert choice["best"] == "best"
    assert choice["eligible"] == ["best", "near"]
    assert choice["network"] == "near"
    assert any("near is the most stable" in reason for reason in choice["reasons"])
    assert any(
        "worse than the best by more than the margin of 0.01: far by at least 0.0" in r for r in choice["reasons"]
    )
    assert choice["deficits"][2]["low"] > 0.04
    assert choice["p_worse"] == choice["deficits"][1]["p_worse"] == 0
    assert choice["deficits"][2]["p_worse"] == 1


def test_among_equally_steady_networks_cost_decides() -> None:
    choice = choose({"best": 0.05, "cheap": 0.045}, best=(0.0149, 0, 3, 500.0), cheap=(0.0151, 0, 3, 20.0))
    assert choice["network"] == "cheap"
    assert any("cheap costs least (parameters: cheap 20; best 500)" in reason for reason in choice["reasons"])


def test_without_known_costs_the_best_mean_decides() -> None:
    choice = choose({"other": 0.045, "best": 0.05}, cost=None, best=(0.012, 0, 3, None), other=(0.012, 0, 3, None))
    assert choice["network"] == "best"
    assert any("cost is not recorded" in reason for reason in choice["reasons"])


def test_a_collapsed_seed_counts_before_everything_else() -> None:
    choice = choose({"best": 0.05, "sound": 0.045}, best=(0.001, 1, 3, 1.0), sound=(0.02, 0, 3, 900.0))
    assert choice["network"] == "sound"
    assert any("Collapsed seeds: sound 0 of 3; best 1 of 3" in reason for reason in choice["reasons"])


def test_what_is_shown_to_be_worse_is_not_eligible() -> None:
    choice = choose({"best": 0.05, "near": 0.049}, margin=0)
    assert choice["eligible"] == ["best"]
    assert "So best is the only eligible network." in choice["reasons"]


def test_what_cannot_be_told_from_the_best_is_eligible() -> None:
    rng = np.random.default_rng(0)
    values = (
        rng.uniform(0.6, 0.9, size=(1, 25)) + rng.normal(size=(4, 25)) * 0.06 + np.array([[0.02], [0], [0], [-0.2]])
    )
    names = ["a", "b", "c", "bad"]
    comparison = compare_weights(values, networks=names, groups=[str(i) for i in range(25)])
    choice = recommend(
        comparison,
        candidates={name: Candidate(name, 0.01, 0, 1, cost) for name, cost in zip(names, (9, 2, 5, 1), strict=True)},
        margin=0.01,
        metric="Dice",
        cost="parameters",
    )
    assert set(choice["eligible"]) == {"a", "b", "c"}, "the former rule asked for a proof that none could give"
    assert choice["network"] == "b", "the cheapest of them"
    row = next(row for row in choice["deficits"] if row["network"] == "b")
    assert choice["p_worse"] == row["p_worse"]
    assert 0 < choice["p_worse"] < 1
    assert choice["reasons"][-1].startswith("Probability that b is worse than the best by more than 0.01: ")
    assert not any("shown to lie within" in reason.lower() for reason in choice["reasons"])


def test_a_network_without_an_interval_is_not_eligible() -> None:
    comparison = compare_weights([[0.8, 0.9], [0.8, 0.89]], networks=["a", "b"], groups=["one", "one"])
    choice = recommend(
        comparison,
        candidates={name: Candidate(name, 0.01, 0, 1, 1.0) for name in ("a", "b")},
        margin=1.0,
        metric="Dice",
        cost="parameters",
    )
    assert choice["eligible"] == ["a"]
    assert math.isnan(choice["deficits"][1]["high"])
    assert "Not eligible, as there is no interval: b." in choice["reasons"]
    assert math.isnan(choice["p_worse"])


def test_deficits_of_distances_are_positive_too() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(5, 9, 20)
    comparison = compare_weights(
        [base, base + 2 + rng.normal(0, 0.1, 20)],
        networks=["near", "far"],
        groups=[str(i) for i in range(20)],
        larger_is_better=False,
    )
    choice = recommend(
        comparison,
        candidates={name: Candidate(name, 0.01, 0, 1, 1.0) for name in ("near", "far")},
        margin=3,
        metric="distance",
        cost=None,
        larger_is_better=False,
    )
    assert choice["best"] == "near"
    far = choice["deficits"][1]
    assert 0 < far["low"] < far["deficit"] < far["high"] < 3
    assert far["deficit"] == pytest.approx(2, abs=0.1)
    assert far["eligible"]


def test_the_rival_that_makes_the_limits_wide_is_named_and_chances_are_never_certain() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0.78, 0.03, 20) + rng.normal(0, 0.004, (3, 3, 1)) + rng.normal(0, 0.01, (3, 3, 20))
    values += np.array([0.01, 0.0, 0.005])[:, None, None]
    values[2, 1] = 0.05
    comparison = compare_architectures(values, networks=["a", "b", "c"], groups=[str(i) for i in range(20)])
    choice = recommend(
        comparison,
        candidates={name: Candidate(name, 0.01, int(name == "c"), 3, 1.0) for name in ("a", "b", "c")},
        margin=0.01,
        metric="Dice",
        cost=None,
    )
    said = next(reason for reason in choice["reasons"] if "is set by" in reason)
    assert said.startswith("How much a, b may be worse is set by c (1 of 3 seeds collapsed), not by the best mean")
    sure = choose({"best": 0.05, "near": 0.045}, best=(0.05, 0, 3, 1.0))
    assert sure["reasons"][-1].endswith(": < 1 %.")
    assert "is set by" not in " ".join(sure["reasons"])
