"""Judgements on runs that are no tests: what has collapsed, what is stable, what to deploy, each told in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from monai_thyroid.compare.contents import percent, plural, rounded
from monai_thyroid.compare.statistics import Comparison, chances_worse

__all__ = ["RULE", "Candidate", "Verdict", "copies", "recommend", "verdict", "volatility", "worst_decile"]

RULE = (
    "Eligible is every network that is not shown to be worse than the best by more than the margin (multiple "
    "comparisons with the best, Hsu 1981). The truly best network is among them in 95 of 100 comparisons. Of the "
    "eligible ones count, in this order, the fewest collapsed seeds, the steadiest validation curve, the smallest cost "
    "and the best mean."
)

_NEARLY = 0.9
_FULL = 0.999
_SAME_SHARE = 0.01
_FEW = 3
# Volatilities of the validation Dice closer than this count as equal, and the cost decides.
STABILITY_STEP = 0.005


@dataclass(frozen=True)
class Verdict:
    """What is wrong with a run's predictions.

    Attributes:
        kind: for tables.
        sentence: what was found, with its numbers.
    """

    kind: Literal["all background", "all foreground", "constant", "nearly collapsed", "copy"]
    sentence: str


def verdict(rows: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """Whether a model has collapsed, judged by the areas it marks in the cases of one class.

    - all background: not a pixel in any case, though objects are there.
    - all foreground: 99.9 % of the pixels or more in every case, though the objects are smaller.
    - constant: three cases or more, the marked share of the image varies by less than 1 % of its mean, and that of
      the objects by more than 5 %; or one Dice below 1 in all cases.
    - nearly collapsed: in 90 % or more of the cases with an object (three or more) not a pixel of it is found, or in
      90 % or more of all cases 99.9 % of the image is marked.

    Args:
        rows: of cases.csv, without those that have an error.

    Returns:
        None for a model that has not collapsed.
    """
    tp, fp, fn, tn = (np.array([row[name] for row in rows], dtype=np.float64) for name in ("tp", "fp", "fn", "tn"))
    pixels = tp + fp + fn + tn
    marked, true = (tp + fp) / pixels, (tp + fn) / pixels
    n, objects = len(rows), true > 0
    n_objects = int(objects.sum())
    if n_objects and not marked.any():
        return Verdict(
            "all background", f"It marks nothing at all: {n} of {n} cases are empty, {n_objects} of them wrongly."
        )
    full, small = marked >= _FULL, true < _FULL
    if small.any() and full.all():
        return Verdict("all foreground", f"It marks the whole image in {n} of {n} cases, as if all were foreground.")
    missed = int((objects & (tp == 0)).sum())
    if n_objects >= _FEW and missed >= _NEARLY * n_objects:
        return Verdict(
            "nearly collapsed", f"It finds not a pixel of the object in {missed} of {n_objects} cases that have one."
        )
    if n >= _FEW and small.any() and full.mean() >= _NEARLY:
        return Verdict("nearly collapsed", f"It marks the whole image in {int(full.sum())} of {n} cases.")
    if n >= _FEW and marked.mean() > 0:
        dice = np.array([row["dice"] for row in rows], dtype=np.float64)
        varies = marked.std() / marked.mean()
        if varies < _SAME_SHARE and true.mean() > 0 and true.std() / true.mean() > 5 * _SAME_SHARE:
            return Verdict(
                "constant",
                f"It marks the same share of every image ({marked.mean():.1%}, varying by {varies:.2%} of that over "
                f"{n} cases), whatever the image shows.",
            )
        if np.ptp(dice) < 1e-9 and dice[0] < 1:
            return Verdict("constant", f"It has the same Dice, {dice[0]:.3f}, in all of {n} cases.")
    return None


def copies(rows: Sequence[Sequence[Mapping[str, Any]]]) -> dict[int, int]:
    """Which runs have the same pixel counts as an earlier one in every case.

    Args:
        rows: of each run; runs of other cases are never copies of each other.

    Returns:
        For each copy the index of the run that it equals.
    """
    seen: dict[tuple, int] = {}
    found = {}
    for index, of_run in enumerate(rows):
        key = tuple(sorted((row["case"], row["tp"], row["fp"], row["fn"], row["tn"]) for row in of_run))
        if key in seen:
            found[index] = seen[key]
        else:
            seen[key] = index
    return found


def volatility(history: Sequence[Mapping[str, float | None]]) -> float | None:
    """Standard deviation of the validation Dice over the last third of the epochs of the last stage.

    Returns:
        None where fewer than two of these epochs were validated.
    """
    last = max((row.get("stage") or 1 for row in history), default=1)
    epochs = [row for row in history if (row.get("stage") or 1) == last]
    third = epochs[-math.ceil(len(epochs) / 3) :] if epochs else []
    dice = [value for row in third if (value := row.get("val_dice")) is not None and math.isfinite(value)]
    return float(np.std(dice, ddof=1)) if len(dice) > 1 else None


def worst_decile(values: np.ndarray) -> float:
    """Mean of the worst tenth (rounded up) of some scores of which larger is better."""
    count = math.ceil(len(values) / 10)
    return float(np.sort(values)[:count].mean())


@dataclass(frozen=True)
class Candidate:
    """What the recommendation knows of a network besides its scores.

    Attributes:
        network: its name.
        volatility: of the validation Dice, mean over its runs that have not collapsed; None where not recorded.
        collapsed: how many of its seeds have collapsed.
        seeds: how many it has.
        cost: a number that is better when small, None where not recorded.
    """

    network: str
    volatility: float | None
    collapsed: int
    seeds: int
    cost: float | None


def recommend(
    comparison: Comparison,
    *,
    candidates: Mapping[str, Candidate],
    margin: float,
    metric: str,
    cost: str | None,
    larger_is_better: bool = True,
) -> dict[str, Any]:
    """Choose a network by a rule that was fixed before: `RULE`.

    Volatilities count in steps of 0.005 Dice. A network without any interval is not eligible unless it has the best
    mean.

    Args:
        comparison: that chooses.
        candidates: by network, all of the comparison's.
        margin: in the metric's unit.
        metric: its name, for the sentences.
        cost: what the candidates' cost is, such as ``"multiply-adds"``; None where it is not known of all.
        larger_is_better: False for distances.

    Returns:
        ``network``, ``best`` (the best mean), ``eligible``, ``reasons``, ``p_worse`` (probability that the chosen
        network is worse than the best by more than the margin, `chances_worse`; nan where it cannot be told) and
        ``deficits``, a row a network: ``network``; ``deficit`` to the best mean; ``low`` (shown to be worse than the
        best by more than that) and ``high`` (may be worse by so much), both at least 0; ``rival`` (that
        may be better by so much, None where there is none); ``eligible``; ``p_worse``.
    """
    best, names = comparison.networks[0], comparison.networks
    beside = {one.network: one for one in comparison.to_best}
    chances = chances_worse(comparison, margin=margin, larger_is_better=larger_is_better)
    table: list[dict[str, Any]] = []
    for name in names:
        to_best = beside.get(name)
        table.append(
            {
                "network": name,
                "deficit": abs(comparison.means[best] - comparison.means[name]),
                "low": to_best.worse_by if to_best else math.nan,
                "high": to_best.high if to_best else math.nan,
                "rival": to_best.rival if to_best else None,
                "eligible": name == best or (to_best is not None and to_best.worse_by <= margin),
                "p_worse": chances[name],
            }
        )
    eligible = [str(row["network"]) for row in table if row["eligible"]]
    steady = min((c.volatility for n, c in candidates.items() if n in eligible and c.volatility is not None), default=0)

    def level(candidate: Candidate) -> float:
        if candidate.volatility is None:
            return math.inf
        return math.floor((candidate.volatility - steady) / STABILITY_STEP)

    def key(network: str) -> tuple:
        one = candidates[network]
        return one.collapsed, level(one), math.inf if one.cost is None or cost is None else one.cost

    chosen = min(eligible, key=key)
    others = [network for network in eligible if network != chosen]
    seeds = f" and {comparison.n_seeds} seeds" if comparison.question == "architectures" else ""
    unit = f"{metric} {comparison.means[best]:.3f}, mean over {comparison.n_groups} groups{seeds}"
    reasons = [f"{best} has the best mean ({unit})."]
    if near := [row for row in table if row["eligible"] and row["network"] != best]:
        told = ", ".join(f"{row['network']} by up to {row['high']:.3f}" for row in near)
        reasons.append(
            f"Not shown to be worse than the best by more than the margin of {margin:g}, and so eligible too: "
            f"{', '.join(row['network'] for row in near)}. They may be worse: {told} (simultaneous 95 % intervals)."
        )
    reasons += _rivals(table, names, candidates)
    if lacking := [row["network"] for row in table if not row["eligible"] and math.isnan(row["low"])]:
        reasons.append(f"Not eligible, as there is no interval: {', '.join(lacking)}.")
    if worse := [row for row in table if not row["eligible"] and not math.isnan(row["low"])]:
        told = ", ".join(f"{row['network']} by at least {row['low']:.3f}" for row in worse)
        reasons.append(f"Shown to be worse than the best by more than the margin of {margin:g}: {told}.")
    if not others:
        reasons.append(f"So {chosen} is the only eligible network.")
    else:
        one = candidates[chosen]
        if any(candidates[network].collapsed > one.collapsed for network in others):
            told = ", ".join(f"{n} {candidates[n].collapsed} of {candidates[n].seeds}" for n in others)
            reasons.append(f"Collapsed seeds: {chosen} {one.collapsed} of {one.seeds}; {told}.")
        spread = "; ".join(f"{network} {_told(candidates[network].volatility)}" for network in eligible)
        reasons.append(
            f"Volatility of the validation Dice over the last third of the epochs: {spread} (steps of "
            f"{STABILITY_STEP:g} count)."
        )
        rivals = [network for network in others if key(network)[:2] == key(chosen)[:2]]
        if not rivals:
            reasons.append(f"{chosen} is the most stable of the eligible networks.")
        elif cost is not None:
            listed = "; ".join(f"{network} {rounded(candidates[network].cost or 0)}" for network in [chosen, *rivals])
            reasons.append(
                f"Equally stable are {', '.join([chosen, *rivals])}; {chosen} costs least ({cost}: {listed})."
            )
        else:
            reasons.append(f"Equally stable are {', '.join([chosen, *rivals])}; their cost is not recorded.")
    if not math.isnan(chances[chosen]):
        reasons.append(
            f"Probability that {chosen} is worse than the best by more than {margin:g}: {percent(chances[chosen])}."
        )
    return {
        "network": chosen,
        "best": best,
        "eligible": eligible,
        "deficits": table,
        "p_worse": chances[chosen],
        "reasons": reasons,
    }


def _rivals(table: Sequence[Mapping[str, Any]], names: Sequence[str], candidates: Mapping[str, Candidate]) -> list[str]:
    """Who makes the limits wide, where it is not the best mean of the others."""
    wide: dict[str, list[str]] = {}
    for row in table:
        if row["rival"] not in (None, names[row["network"] == names[0]]):
            wide.setdefault(row["rival"], []).append(row["network"])
    return [
        f"How much {', '.join(networks)} may be worse is set by {rival}"
        + (f" ({one.collapsed} of {plural(one.seeds, 'seed')} collapsed)" if one.collapsed else "")
        + f", not by the best mean of the others: the mean of {rival} is less certain and may lie above it."
        for rival, networks in wide.items()
        for one in [candidates[rival]]
    ]


def _told(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:.4f}"
