"""Which network is better, by how much, how sure: two questions, never mixed.

*These weights*: the very models in hand, on other patients. The error is the spread over groups. `compare_weights`.

*These architectures*: the recipes, trained again and on other patients. The error is the spread over groups **and**
over trainings with other seeds. `compare_architectures`.

Cases of one group (a patient, a scene, a video) are not independent, so a group enters by the mean of its cases, and
every group counts the same, however many cases it has. All figures here are of groups, never of single cases.

Which rule is calibrated was chosen by simulation: ``benchmarks/claims.py``, ``docs/claims.md``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

__all__ = [
    "ALPHA",
    "Comparison",
    "Pair",
    "bootstrap_mean",
    "compare_architectures",
    "compare_weights",
    "rank_stability",
]

ALPHA = 0.05

# Differences below this are rounding of the means, not differences.
_DECIMALS = 10
# Beyond it the exact distribution takes long and the normal one is as good.
_EXACT_GROUPS = 200


@dataclass(frozen=True)
class Pair:
    """Two networks, the better mean first.

    Attributes:
        first: the network with the better mean.
        second: the other one.
        difference: mean of the first minus mean of the second, over groups; at least 0 where larger is better, at
            most 0 where smaller is.
        interval: 95 % interval of the difference, nan where there is none.
        p: two-sided, unadjusted; nan where no test is possible.
        p_adjusted: Holm's over all pairs.
        effect: above 0 where it speaks for the first.
        effect_name: what ``effect`` is.
        wins: groups in which the first is better.
        ties: groups in which they are equal.
        losses: groups in which the second is better.
        claim: "the first is better" may be said: the adjusted p is below `ALPHA`, the interval leaves 0 out, the
            effect has the same direction, and nothing forbids it.
    """

    first: str
    second: str
    difference: float
    interval: tuple[float, float]
    p: float
    p_adjusted: float
    effect: float
    effect_name: str
    wins: int
    ties: int
    losses: int
    claim: bool


@dataclass(frozen=True)
class Comparison:
    """The answer to one question about some networks.

    Attributes:
        question: which of the two.
        method: the test, the correction and the interval, in one sentence.
        networks: best mean first.
        means: over groups (and seeds).
        intervals: 95 %, of each network by itself.
        pairs: all pairs, in the order of ``networks``.
        n_cases: cases.
        n_groups: groups.
        n_seeds: trainings a network, 1 for "weights".
        smallest_adjusted_p: the smallest adjusted p that so many groups and networks can give at all; 1 for one
            network.
        omnibus: ``friedman_chi2``, ``friedman_p``, ``iman_davenport_f``, ``iman_davenport_p``; for "weights" and
            three networks or more.
        average_ranks: over groups, 1 is best; for "weights".
        critical_difference: Nemenyi's, of average ranks, at `ALPHA`; for "weights" and two networks or more.
        cliques: the largest sets of networks of which no pair is told apart, each in the order of ``networks``.
        refusals: sentences that say what cannot be claimed and why; with any, no pair is a claim.
    """

    question: Literal["weights", "architectures"]
    method: str
    networks: list[str]
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    pairs: list[Pair]
    n_cases: int
    n_groups: int
    n_seeds: int
    smallest_adjusted_p: float
    omnibus: dict[str, float] | None
    average_ranks: dict[str, float] | None
    critical_difference: float | None
    cliques: list[list[str]]
    refusals: list[str]


def compare_weights(
    values: ArrayLike,
    *,
    networks: Sequence[str],
    groups: Sequence[str],
    larger_is_better: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the models in hand: would they come out the same on other patients?

    Paired Wilcoxon signed-rank test on group means (Demšar, JMLR 2006), two-sided, Holm over all pairs. Groups in
    which both networks score the same keep their rank and are then left out (Pratt, JASA 1959): they are evidence
    for neither, and dropping them before ranking would enlarge what is left. The null distribution is exact up to
    200 groups, ties and such zeros included, which scipy's is only without them; beyond, scipy's normal one.
    Intervals by `bootstrap_mean`. Effect: matched-pairs rank-biserial correlation, -1 to 1 (Kerby 2014).

    Args:
        values: (networks, cases), one score a case.
        networks: names, as many as rows.
        groups: of each case, as many as columns.
        larger_is_better: False for distances.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Raises:
        ValueError: shapes that do not fit, a name twice, nothing at all, a value that is not finite.
    """
    array, names, numbers = _checked(values, networks, groups, dimensions=2)
    sign = 1 if larger_is_better else -1
    scores = sign * _group_means(array, numbers)  # (networks, groups), larger is better
    order = np.argsort(-scores.mean(axis=1), kind="stable")
    scores, names = scores[order], [names[i] for i in order]
    count, n_groups = scores.shape

    chosen = list(combinations(range(count), 2))
    differences = np.array([scores[i] - scores[j] for i, j in chosen]).reshape(len(chosen), n_groups).round(_DECIMALS)
    low, high = _bootstrap(np.concatenate([scores, differences]), draws=draws, seed=seed)
    smallest, refusals = _attainable(count, n_groups)
    tests = [_signed_rank(difference) for difference in differences]
    adjusted = _holm([p for p, _ in tests])
    pairs = [
        _pair(
            names[i],
            names[j],
            difference,
            limits=(low[count + at], high[count + at]),
            sign=sign,
            p=tests[at][0],
            p_adjusted=adjusted[at],
            effect=tests[at][1],
            effect_name="matched-pairs rank-biserial",
            allowed=not refusals,
        )
        for at, ((i, j), difference) in enumerate(zip(chosen, differences, strict=True))
    ]
    ranks = stats.rankdata(-scores.round(_DECIMALS), axis=0)
    return Comparison(
        question="weights",
        method="Wilcoxon's signed-rank test on group means, two-sided, Holm's correction over all pairs; 95 % "
        f"bootstrap intervals from {draws} resamples of the groups.",
        networks=names,
        means={name: float(sign * score.mean()) for name, score in zip(names, scores, strict=True)},
        intervals={name: _interval(low[i], high[i], sign) for i, name in enumerate(names)},
        pairs=pairs,
        n_cases=array.shape[-1],
        n_groups=n_groups,
        n_seeds=1,
        smallest_adjusted_p=smallest,
        omnibus=_friedman(ranks) if count > 2 and n_groups > 1 else None,
        average_ranks={name: float(rank) for name, rank in zip(names, ranks.mean(axis=1), strict=True)},
        critical_difference=_nemenyi(count) / n_groups**0.5 if count > 1 else None,
        cliques=_cliques(names, pairs),
        refusals=refusals,
    )


def compare_architectures(
    values: ArrayLike,
    *,
    networks: Sequence[str],
    groups: Sequence[str],
    larger_is_better: bool = True,
) -> Comparison:
    """Compare the recipes: would they come out the same on other patients after training anew?

    Two-way random effects, groups by seeds, of the means ``y[a, s, g]`` of group g under seed s of network a. The
    difference of two networks has the variance ::

        s2(groups) / G + max(s2(seeds) / S - ms(residual) / (S G), 0)

    with ``s2(groups)`` the variance over groups of the seed-averaged difference, ``s2(seeds)`` the variances over
    seeds of the mean over groups, added for the two networks, and ``ms(residual)`` their mean squares of what
    groups and seeds do not explain, which the first two both contain. ``s2(seeds)`` is the pair's own or that of
    all networks together, whichever is larger: that of a few trainings is too small too often, and that of all is
    too small for a network that often collapses. t test and 95 % interval with Satterthwaite's degrees of freedom
    (Biometrics 1946), in which ``s2(seeds)`` has the 2 (S - 1) of the pair; two-sided, Holm over all pairs. Seed 0
    of one network and seed 0 of another share the split and nothing else: they are not paired. The interval of a
    network by itself is made in the same way, and no narrower than that of `bootstrap_mean` on either side.

    Effect: the difference over the spread of one group in one training each, from the same variances.

    A t test has no smallest p. ``smallest_adjusted_p`` is that of the narrower question about the weights, which a
    claim about architectures includes.

    Args:
        values: (networks, seeds, cases), one score a case, at least two seeds.
        networks: names, as many as rows.
        groups: of each case.
        larger_is_better: False for distances.

    Raises:
        ValueError: shapes that do not fit, fewer than two seeds, a name twice, a value that is not finite.
    """
    array, names, numbers = _checked(values, networks, groups, dimensions=3)
    n_seeds = array.shape[1]
    if n_seeds < 2:
        raise ValueError(f"{n_seeds} seed a network: architectures can be compared with two seeds or more only")
    sign = 1 if larger_is_better else -1
    scores = sign * _group_means(array, numbers)  # (networks, seeds, groups), larger is better
    order = np.argsort(-scores.mean(axis=(1, 2)), kind="stable")
    scores, names = scores[order], [names[i] for i in order]
    n_groups = scores.shape[2]
    by_group, by_seed = scores.mean(axis=1), scores.mean(axis=2)
    seed_variance = by_seed.var(axis=1, ddof=1)
    residual = scores - by_group[:, None] - by_seed[..., None] + by_seed.mean(axis=1)[:, None, None]
    shared = (residual**2).sum(axis=(1, 2)) / (max(n_groups - 1, 1) * (n_seeds - 1)) / n_groups

    chosen = list(combinations(range(len(names)), 2))
    # Pairs first, then each network by itself.
    parts = np.array([np.isin(range(len(names)), pair) for pair in [*chosen, *((i,) for i in range(len(names)))]])
    differences = np.stack([*(by_group[i] - by_group[j] for i, j in chosen), *by_group]).round(_DECIMALS)
    p, low, high, effects = _t_tests(
        differences,
        seed_variance=np.maximum(parts @ seed_variance, parts.sum(axis=1) * seed_variance.mean()) / n_seeds,
        shared=parts @ shared / n_seeds,
        n_seeds=n_seeds,
        freedom=parts.sum(axis=1) * (n_seeds - 1),
    )
    # Scores by themselves are skewed, which differences are not: on neither side narrower than the bootstrap's.
    own = slice(len(chosen), None)
    wide = _bootstrap(by_group, draws=2000, seed=0)
    low[own], high[own] = np.minimum(low[own], wide[0]), np.maximum(high[own], wide[1])
    smallest, refusals = _attainable(len(names), n_groups)
    adjusted = _holm(p[: len(chosen)])
    pairs = [
        _pair(
            names[i],
            names[j],
            differences[at],
            limits=(low[at], high[at]),
            sign=sign,
            p=float(p[at]),
            p_adjusted=adjusted[at],
            effect=float(effects[at]),
            effect_name="standardised difference",
            allowed=not refusals,
        )
        for at, (i, j) in enumerate(chosen)
    ]
    return Comparison(
        question="architectures",
        method="t test of two-way random effects, groups by seeds, with Satterthwaite's degrees of freedom, two-sided, "
        "Holm's correction over all pairs; 95 % intervals by the same t.",
        networks=names,
        means={name: float(sign * score.mean()) for name, score in zip(names, by_group, strict=True)},
        intervals={name: _interval(low[at], high[at], sign) for at, name in enumerate(names, len(chosen))},
        pairs=pairs,
        n_cases=array.shape[-1],
        n_groups=n_groups,
        n_seeds=n_seeds,
        smallest_adjusted_p=smallest,
        omnibus=None,
        average_ranks=None,
        critical_difference=None,
        cliques=_cliques(names, pairs),
        refusals=refusals,
    )


def rank_stability(
    values: ArrayLike,
    *,
    networks: Sequence[str],
    groups: Sequence[str],
    larger_is_better: bool = True,
    draws: int = 1000,
    seed: int = 0,
) -> dict[str, list[float]]:
    """How often each network comes first, second, ... by its mean, when the groups are resampled.

    Networks with the same mean share the better rank.

    Args:
        values: (networks, cases), one score a case.
        networks: names, as many as rows.
        groups: of each case.
        larger_is_better: False for distances.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Returns:
        For each network the shares of draws with rank 1, 2, ..., which sum to 1.

    Raises:
        ValueError: as `compare_weights`.
    """
    array, names, numbers = _checked(values, networks, groups, dimensions=2)
    scores = (1 if larger_is_better else -1) * _group_means(array, numbers)
    means = _resamples(scores.shape[1], draws, seed) @ scores.T
    ranks = stats.rankdata(-means.round(_DECIMALS), axis=1, method="min")
    return {
        name: [float((ranks[:, i] == rank + 1).mean()) for rank in range(len(names))] for i, name in enumerate(names)
    }


def bootstrap_mean(
    values: ArrayLike, *, groups: Sequence[str], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over groups of one model and its 95 % interval.

    Percentile bootstrap over groups, its two levels widened as Student's t is wider than the normal distribution and
    the sample's variance smaller than the population's (Hesterberg, The American Statistician 2015): the plain one
    covers about 90 % with ten groups.

    Args:
        values: (cases,).
        groups: of each case.
        draws: bootstrap draws.
        seed: of the bootstrap.

    Returns:
        Mean, lower and upper limit; the limits are nan for one group.

    Raises:
        ValueError: as `compare_weights`.
    """
    array, _, numbers = _checked(np.asarray(values, dtype=np.float64)[None], ["the model"], groups, dimensions=2)
    means = _group_means(array, numbers)
    low, high = _bootstrap(means, draws=draws, seed=seed)
    return float(means.mean()), float(low[0]), float(high[0])


def _checked(
    values: ArrayLike, networks: Sequence[str], groups: Sequence[str], *, dimensions: int
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Values as float64, names as a list, groups as numbers from 0."""
    array, names = np.asarray(values, dtype=np.float64), list(networks)
    expected = (len(names), *array.shape[1:-1], len(groups))
    if array.ndim != dimensions or array.shape != expected:
        raise ValueError(
            f"values of shape {array.shape} do not fit {len(names)} networks and the groups of {len(groups)} cases"
        )
    if not array.size:
        raise ValueError(f"nothing to compare: values have the shape {array.shape}")
    if len(set(names)) < len(names):
        raise ValueError(f"a network is named twice: {', '.join(names)}")
    wrong = ~np.isfinite(array).reshape(len(names), -1)
    if wrong.any():
        found = ", ".join(f"{name} ({row.sum()})" for name, row in zip(names, wrong, strict=True) if row.any())
        raise ValueError(f"values that are not finite: {found}")
    return array, names, np.unique(np.asarray(groups), return_inverse=True)[1]


def _group_means(values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Means over the cases (last axis) of each group."""
    indicator = numbers[:, None] == np.arange(numbers.max() + 1)
    return values @ (indicator / indicator.sum(axis=0))


@lru_cache(maxsize=8)
def _resamples(n: int, draws: int, seed: int) -> np.ndarray:
    """Weights (draws, n) of n things in each draw of n with replacement."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws) / n


def _bootstrap(values: np.ndarray, *, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % limits of the mean of each row of (rows, groups), see `bootstrap_mean`."""
    n = values.shape[1]
    if n < 2:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    tail = stats.norm.sf((n / (n - 1)) ** 0.5 * stats.t.ppf(1 - ALPHA / 2, n - 1))
    low, high = np.quantile(_resamples(n, draws, seed) @ values.T, [tail, 1 - tail], axis=0)
    return low, high


def _signed_rank(difference: np.ndarray) -> tuple[float, float]:
    """p and rank-biserial correlation of one pair, see `compare_weights`."""
    ranks = stats.rankdata(np.abs(difference))
    up, down = float(ranks[difference > 0].sum()), float(ranks[difference < 0].sum())
    effect = (up - down) / float(ranks.sum())
    if up == down:
        return 1.0, 0.0
    if difference.size > _EXACT_GROUPS:
        return float(stats.wilcoxon(difference, zero_method="pratt").pvalue), effect
    below = _signed_rank_distribution(tuple(sorted(int(2 * rank) for rank in ranks[difference != 0])))
    return min(1.0, 2 * float(below[int(2 * min(up, down))])), effect


@lru_cache(maxsize=256)
def _signed_rank_distribution(doubled: tuple[int, ...]) -> np.ndarray:
    """Probability that the sum of those (doubled, hence whole) ranks whose sign is plus is at most 0, 1, 2, ..."""
    chances = np.ones(1)
    for rank in doubled:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    return chances.cumsum()


def _t_tests(
    differences: np.ndarray, *, seed_variance: np.ndarray, shared: np.ndarray, n_seeds: int, freedom: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """p, 95 % limits and standardised effects of means over groups, see `compare_architectures`.

    Args:
        differences: (tests, groups).
        seed_variance: (tests,), of the mean, from the seeds.
        shared: (tests,), of the mean, what the groups' variance has of it already.
        n_seeds: seeds.
        freedom: (tests,), degrees of freedom of ``seed_variance``.
    """
    n, mean = differences.shape[1], differences.mean(axis=1)
    if n < 2:
        p, low, high, effect = np.full((4, len(mean)), np.nan)
        return p, low, high, effect
    from_groups, from_seeds = differences.var(axis=1, ddof=1) / n, np.maximum(seed_variance - shared, 0)
    variance = from_groups + from_seeds
    constant = variance < 10.0 ** (-2 * _DECIMALS)
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = variance**2 / (from_groups**2 / (n - 1) + seed_variance**2 / freedom)
        p = 2 * stats.t.sf(np.abs(mean) / variance**0.5, degrees)
        effect = mean / (n * from_groups + n_seeds * from_seeds) ** 0.5
    half = np.where(constant, 0, stats.t.ppf(1 - ALPHA / 2, degrees) * variance**0.5)
    # Without any spread: equal, or different with nothing to test it by.
    equal = np.abs(mean) < 10.0**-_DECIMALS
    p = np.where(constant, np.where(equal, 1, np.nan), p)
    effect = np.where(constant, np.where(equal, 0, np.nan), effect)
    return p, mean - half, mean + half, effect


def _holm(p: ArrayLike) -> list[float]:
    """Adjusted p of all pairs; one that could not be tested still counts as a pair, and stays nan."""
    array = np.asarray(p, dtype=np.float64)
    if not array.size:
        return []
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(np.nan_to_num(array, nan=1.0), alpha=ALPHA, method="holm")[1]
    return [float(value) for value in np.where(np.isnan(array), np.nan, adjusted)]


def _attainable(n_networks: int, n_groups: int) -> tuple[float, list[str]]:
    """The smallest adjusted p there can be, and why nothing can be claimed, if so.

    Wilcoxon's two-sided p is least, 2 / 2^groups, where one network is better in all groups; Holm multiplies the
    least of all by the number of pairs.
    """
    pairs = n_networks * (n_networks - 1) // 2
    if not pairs:
        return 1.0, ["There is one network: nothing to compare it with."]
    smallest = min(1.0, pairs * 2.0 ** (1 - n_groups))
    if smallest < ALPHA:
        return smallest, []
    needed = next(n for n in range(1, 100) if pairs * 2.0 ** (1 - n) < ALPHA)
    return smallest, [
        f"No difference can be claimed: with {n_networks} networks in {n_groups} group{'s' * (n_groups > 1)} the "
        f"smallest adjusted p there can be is {smallest:.2g}, not below {ALPHA}. {needed} groups or more are needed."
    ]


def _interval(low: float, high: float, sign: int) -> tuple[float, float]:
    """Limits in the units of the score."""
    return (float(low), float(high)) if sign > 0 else (float(-high), float(-low))


def _pair(
    first: str,
    second: str,
    difference: np.ndarray,
    *,
    limits: tuple[float, float],
    sign: int,
    p: float,
    p_adjusted: float,
    effect: float,
    effect_name: str,
    allowed: bool,
) -> Pair:
    """A pair from its differences by group, in which larger is better, as in ``limits``."""
    return Pair(
        first=first,
        second=second,
        difference=float(sign * difference.mean()) + 0.0,  # no -0
        interval=_interval(*limits, sign),
        p=p,
        p_adjusted=p_adjusted,
        effect=effect,
        effect_name=effect_name,
        wins=int((difference > 0).sum()),
        ties=int((difference == 0).sum()),
        losses=int((difference < 0).sum()),
        # With skewed differences most groups, and with them the ranks, can point away from the mean.
        claim=bool(allowed and p_adjusted < ALPHA and limits[0] > 0 and effect > 0),
    )


def _friedman(ranks: np.ndarray) -> dict[str, float]:
    """Friedman's test and Iman and Davenport's F (Communications in Statistics 1980) from ranks (networks, groups)."""
    count, n = ranks.shape
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        chi2, p = (float(value) for value in stats.friedmanchisquare(*ranks))
    if not np.isfinite(chi2):  # all equal in all groups
        return {"friedman_chi2": 0.0, "friedman_p": 1.0, "iman_davenport_f": 0.0, "iman_davenport_p": 1.0}
    left = n * (count - 1) - chi2
    # The same order in all groups: F is infinite, and the p exact (Conover, Practical Nonparametric Statistics).
    perfect = left < 1e-9 * n * count
    f = np.inf if perfect else (n - 1) * chi2 / left
    f_p = math.factorial(count) ** (1.0 - n) if perfect else float(stats.f.sf(f, count - 1, (count - 1) * (n - 1)))
    return {"friedman_chi2": chi2, "friedman_p": p, "iman_davenport_f": f, "iman_davenport_p": f_p}


@lru_cache(maxsize=32)
def _nemenyi(n_networks: int) -> float:
    """Nemenyi's critical difference of average ranks in one group; divide by the root of their number."""
    quantile = float(stats.studentized_range.ppf(1 - ALPHA, n_networks, np.inf))
    return quantile * (n_networks * (n_networks + 1) / 12) ** 0.5


def _cliques(names: list[str], pairs: list[Pair]) -> list[list[str]]:
    """The largest sets, of two or more, without a claim inside (Bron and Kerbosch, CACM 1973)."""
    alike: dict[str, set[str]] = {name: set() for name in names}
    for pair in pairs:
        if not pair.claim:
            alike[pair.first].add(pair.second)
            alike[pair.second].add(pair.first)
    found: list[list[str]] = []

    def grow(members: set[str], candidates: set[str], done: set[str]) -> None:
        if not candidates and not done and len(members) > 1:
            found.append(sorted(members, key=names.index))
        for name in [name for name in names if name in candidates]:
            grow(members | {name}, candidates & alike[name], done & alike[name])
            candidates, done = candidates - {name}, done | {name}

    grow(set(), set(names), set())
    return sorted(found, key=lambda clique: [names.index(name) for name in clique])
