"""Which network is better, by how much, how sure: two questions, never mixed.

*These weights*: the very models in hand, on other patients. The error is the spread over groups. `compare_weights`.

*These architectures*: the recipes, trained again and on other patients. The error is the spread over groups **and**
over trainings with other seeds. `compare_architectures`.

Cases of one group (a patient, a scene, a video) are not independent, so a group enters by the mean of its cases, and
every group counts the same, however many cases it has. All figures here are of groups, never of single cases.

Which rule is calibrated was chosen by simulation: ``benchmarks/claims.py``, ``docs/claims.md``. What it simulates are
the functions here that take leading axes: all draws at once.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import interpolate, optimize, special, stats

__all__ = [
    "ALPHA",
    "INTERVAL_ALONE",
    "INTERVAL_JOINT",
    "OVERSTATES",
    "SCOPE",
    "UNSTABLE",
    "Comparison",
    "Pair",
    "Rate",
    "ToBest",
    "bootstrap_mean",
    "chances_worse",
    "compare_architectures",
    "compare_weights",
    "exact_rate",
    "group_means",
    "rank_stability",
    "unseen",
]

ALPHA = 0.05

# What stands beside the figures, said once.
INTERVAL_ALONE = (
    "95 % interval of this figure by itself: of many such intervals side by side, some miss the truth more often "
    "than one in twenty."
)
INTERVAL_JOINT = (
    "Simultaneous 95 % interval: in 95 of 100 comparisons those of all pairs hold the truth together. An end at 0 "
    "belongs to a claim whose direction is sure and whose least size is not."
)
OVERSTATES = (
    "A difference that is claimed overstates: it was claimed because it came out large, so expect less on further "
    "patients."
)
UNSTABLE = "varies from seed to seed"
"""In the warning of a network that does so more than the others."""
SCOPE = {
    "weights": (
        "Of these trained models, on further patients like those of this test set. The correction for many pairs is "
        "within this dataset, class and question, not over several of them."
    ),
    "architectures": (
        "Of these networks trained again with other seeds on the same training images, and tested on further patients "
        "like those of this test set. What other training images would change is not in the error. The correction "
        "for many pairs is within this dataset, class and question, not over several of them."
    ),
}

# Differences below this are rounding of the means, not differences.
_DECIMALS = 10
# Beyond it the exact distribution takes long and the normal one is as good.
_EXACT_GROUPS = 200
# The median of normal variances is as good as the mean of so large a part of them.
_MEDIAN_EFFICIENCY = 2 / math.pi
# A network whose seed spread is so many times the median of the others' is warned of.
_UNSTABLE = 3.0


@dataclass(frozen=True)
class Pair:
    """Two networks, the better mean first.

    Attributes:
        first: the network with the better mean.
        second: the other one.
        difference: mean of the first minus mean of the second, over groups; at least 0 where larger is better, at
            most 0 where smaller is.
        interval: 95 % interval of the difference by itself, nan where there is none; for a claim that is picked from
            many, ``simultaneous`` is the one to quote.
        simultaneous: interval that covers together with those of all other pairs in 95 %; wider, and in agreement
            with the claims.
        p: two-sided, unadjusted; nan where no test is possible.
        p_adjusted: Shaffer's over all pairs.
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
    simultaneous: tuple[float, float]


@dataclass(frozen=True)
class ToBest:
    """A network beside the best of the others (Hsu, Annals of Statistics 1981).

    All are deficits, above 0 where the network is worse, whatever the direction of the score.

    Attributes:
        network: its name.
        deficit: mean of the best of the others less its own, below 0 for the best mean.
        low: lower end of the constrained interval, at most 0: by ``-low`` it may be better than the best of the others.
        high: upper end, at least 0: by so much it may be worse. The intervals of all networks cover together in 95 %.
            No more than what the score's best value is above its mean.
        rival: that may be better by so much; None where ``high`` is 0.
        worse_by: it is shown to be worse than the best by more than that; 0 where it is not shown to be worse. A
            lower 95 % confidence limit.
    """

    network: str
    deficit: float
    low: float
    high: float
    rival: str | None
    worse_by: float


@dataclass(frozen=True)
class Rate:
    """How often something happened.

    Attributes:
        count: times that it did.
        total: times that it could.
        share: of them; nan for none.
        interval: exact 95 % interval of the share (Clopper and Pearson, Biometrika 1934).
    """

    count: int
    total: int
    share: float
    interval: tuple[float, float]


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
        cliques: the largest sets of networks of which no pair is told apart, each in the order of ``networks``.
        refusals: sentences that say what cannot be claimed and why; with any, no pair is a claim.
        to_best: each network beside the best of the others, in the order of ``networks``; none where there is one
            network or one group.
        covariance: of the means, rows and columns in the order of ``networks``; nan for one group.
        freedom: degrees of freedom of the error of each of ``pairs``.
        warnings: sentences on what makes the figures less trustworthy than they look.
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
    cliques: list[list[str]]
    refusals: list[str]
    to_best: list[ToBest]
    covariance: list[list[float]]
    freedom: list[float]
    warnings: list[str]


def compare_weights(
    values: ArrayLike,
    *,
    networks: Sequence[str],
    groups: Sequence[str],
    larger_is_better: bool = True,
    limits: tuple[float, float] = (-math.inf, math.inf),
    draws: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare the models in hand: would they come out the same on other patients?

    Paired Wilcoxon signed-rank test on group means (Demšar, JMLR 2006), two-sided, Shaffer's correction over all pairs
    (`_step_down`). Groups in which both networks score the same keep their rank and are then left out (Pratt, JASA
    1959): they are evidence for neither, and dropping them before ranking would enlarge what is left. The null
    distribution is exact up to 200 groups, ties and such zeros included, which scipy's is only without them; beyond,
    scipy's normal one. Intervals by `bootstrap_mean`; simultaneous ones by Student's t at the level that Bonferroni
    leaves to each pair, and no narrower than the interval by itself. Effect: matched-pairs rank-biserial
    correlation, -1 to 1 (Kerby 2014).

    Args:
        values: (networks, cases), one score a case.
        networks: names, as many as rows.
        groups: of each case, as many as columns.
        larger_is_better: False for distances.
        limits: least and greatest possible score; no interval reaches beyond.
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

    chosen = _pairs_of(count)
    differences = (scores[chosen[0]] - scores[chosen[1]]).round(_DECIMALS)
    low, high = _bootstrap(np.concatenate([scores, differences]), draws=draws, seed=seed)
    tests = [_signed_rank(difference) for difference in differences]
    errors = _errors_of_means(differences)
    ranks = stats.rankdata(-scores.round(_DECIMALS), axis=0)
    return _comparison(
        question="weights",
        method="Wilcoxon's signed-rank test on group means, two-sided, Shaffer's correction over all pairs; 95 % "
        f"bootstrap intervals from {draws} resamples of the groups, each by itself; simultaneous intervals by "
        "Student's t with Bonferroni's correction.",
        names=names,
        scores=scores,
        differences=differences,
        errors=errors,
        p=np.array([p for p, _ in tests]),
        effects=[effect for _, effect in tests],
        effect_name="matched-pairs rank-biserial",
        ends=(low[count:], high[count:]),
        own_ends=(low[:count], high[:count]),
        covariance=_group_covariance(scores),
        sign=sign,
        limits=limits,
        n_cases=array.shape[-1],
        n_seeds=1,
        omnibus=_friedman(ranks) if count > 2 and n_groups > 1 else None,
        average_ranks={name: float(rank) for name, rank in zip(names, ranks.mean(axis=1), strict=True)},
        warnings=[],
    )


def compare_architectures(
    values: ArrayLike,
    *,
    networks: Sequence[str],
    groups: Sequence[str],
    larger_is_better: bool = True,
    limits: tuple[float, float] = (-math.inf, math.inf),
    collapsed: ArrayLike | None = None,
) -> Comparison:
    """Compare the recipes: would they come out the same on other patients after training anew?

    Two-way random effects, groups by seeds, of the means ``y[a, s, g]`` of group g under seed s of network a; error
    and degrees of freedom of a difference as in `_errors_of_architectures`. t test and 95 % interval, two-sided,
    Shaffer's correction over all pairs (`_step_down`), simultaneous intervals by the same t at the level that
    Bonferroni leaves to each pair. Seed 0 of one network and seed 0 of another share the split and nothing else: they
    are not paired. The interval of a network by itself is made in the same way, and no narrower than that of
    `bootstrap_mean` on either side.

    Effect: the difference over the spread of one group in one training each, from the same variances.

    A t test has no smallest p. ``smallest_adjusted_p`` is that of the narrower question about the weights, which a
    claim about architectures includes.

    Args:
        values: (networks, seeds, cases), one score a case, at least two seeds.
        networks: names, as many as rows.
        groups: of each case.
        larger_is_better: False for distances.
        limits: least and greatest possible score; no interval reaches beyond.
        collapsed: (networks, seeds), trainings that have collapsed: they count in means and tests as any other, and
            say nothing about the seed variance of other networks. None: none has.

    Raises:
        ValueError: shapes that do not fit, fewer than two seeds, a name twice, a value that is not finite.
    """
    array, names, numbers = _checked(values, networks, groups, dimensions=3)
    n_seeds = array.shape[1]
    if n_seeds < 2:
        raise ValueError(f"{n_seeds} seed a network: architectures can be compared with two seeds or more only")
    lost = np.zeros(array.shape[:2], dtype=bool) if collapsed is None else np.asarray(collapsed, dtype=bool)
    if lost.shape != array.shape[:2]:
        raise ValueError(f"collapsed of shape {lost.shape} does not fit {array.shape[0]} networks and {n_seeds} seeds")
    sign = 1 if larger_is_better else -1
    scores = sign * _group_means(array, numbers)  # (networks, seeds, groups), larger is better
    order = np.argsort(-scores.mean(axis=(1, 2)), kind="stable")
    scores, lost, names = scores[order], lost[order], [names[i] for i in order]
    by_group = scores.mean(axis=1)

    chosen = _pairs_of(len(names))
    differences = (by_group[chosen[0]] - by_group[chosen[1]]).round(_DECIMALS)
    errors, own = _errors_of_architectures(scores, lost)
    mean = differences.mean(axis=1)
    p = _t_p(mean, errors)
    low, high = _t_interval(mean, errors, ALPHA)
    own_low, own_high = _t_interval(by_group.mean(axis=1), own, ALPHA)
    # Scores by themselves are skewed, which differences are not: on neither side narrower than the bootstrap's.
    wide = _bootstrap(by_group, draws=2000, seed=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        effects = np.where(errors.spread > 0, mean / errors.spread, np.where(mean == 0, 0.0, np.nan))
    return _comparison(
        question="architectures",
        method="t test of two-way random effects, groups by seeds, degrees of freedom by Satterthwaite and Welch, "
        "two-sided, Shaffer's correction over all pairs; 95 % intervals by the same t, each by itself; simultaneous "
        "intervals with Bonferroni's correction.",
        names=names,
        scores=by_group,
        differences=differences,
        errors=errors,
        p=p,
        effects=[float(effect) for effect in effects],
        effect_name="standardised difference",
        ends=(low, high),
        own_ends=(np.minimum(own_low, wide[0]), np.maximum(own_high, wide[1])),
        covariance=_group_covariance(by_group) + np.diag(own.seeds),
        sign=sign,
        limits=limits,
        n_cases=array.shape[-1],
        n_seeds=n_seeds,
        omnibus=None,
        average_ranks=None,
        warnings=_seed_warnings(scores.mean(axis=2), lost, names),
    )


def _comparison(
    *,
    question: Literal["weights", "architectures"],
    method: str,
    names: list[str],
    scores: np.ndarray,
    differences: np.ndarray,
    errors: _Errors,
    p: np.ndarray,
    effects: Sequence[float],
    effect_name: str,
    ends: tuple[np.ndarray, np.ndarray],
    own_ends: tuple[np.ndarray, np.ndarray],
    covariance: np.ndarray,
    sign: int,
    limits: tuple[float, float],
    n_cases: int,
    n_seeds: int,
    omnibus: dict[str, float] | None,
    average_ranks: dict[str, float] | None,
    warnings: list[str],
) -> Comparison:
    """What both questions have in common, from (networks, groups) and (pairs, groups) in which larger is better."""
    count, n_groups = scores.shape
    smallest, refusals = _attainable(count, n_groups)
    adjusted = _step_down(p, count)
    mean, span = differences.mean(axis=1), limits[1] - limits[0]
    claims = [
        bool(not refusals and p_adjusted < ALPHA and low > 0 and effect > 0)
        # With skewed differences most groups, and with them the ranks, can point away from the mean.
        for p_adjusted, low, effect in zip(adjusted, ends[0], effects, strict=True)
    ]
    joint = _t_interval(mean, errors, ALPHA / max(len(mean), 1))
    joint = (np.minimum(joint[0], ends[0]), np.maximum(joint[1], ends[1]))
    # A claim of a later step is of its direction alone (Strassburger and Bretz, Statistics in Medicine 2008).
    joint = (np.where(claims, np.maximum(joint[0], 0), joint[0]), joint[1])
    without = int(sum(low <= -span and high >= span for low, high in zip(*ends, strict=True)))
    if without:
        warnings = [
            *warnings,
            f"No interval is given for {without} of {len(mean)} pairs: it would be as wide as the range of the score.",
        ]
    pairs = [
        Pair(
            first=names[i],
            second=names[j],
            difference=float(sign * mean[at]) + 0.0,  # no -0
            interval=_interval(ends[0][at], ends[1][at], sign, (-span, span)),
            p=float(p[at]),
            p_adjusted=float(adjusted[at]),
            effect=effects[at],
            effect_name=effect_name,
            wins=int((differences[at] > 0).sum()),
            ties=int((differences[at] == 0).sum()),
            losses=int((differences[at] < 0).sum()),
            claim=claims[at],
            simultaneous=_interval(joint[0][at], joint[1][at], sign, (-span, span)),
        )
        for at, (i, j) in enumerate(combinations(range(count), 2))
    ]
    return Comparison(
        question=question,
        method=method,
        networks=names,
        means={name: float(sign * score.mean()) for name, score in zip(names, scores, strict=True)},
        intervals={name: _interval(low, high, sign, limits) for name, low, high in zip(names, *own_ends, strict=True)},
        pairs=pairs,
        n_cases=n_cases,
        n_groups=n_groups,
        n_seeds=n_seeds,
        smallest_adjusted_p=smallest,
        omnibus=omnibus,
        average_ranks=average_ranks,
        cliques=_cliques(names, pairs),
        refusals=refusals,
        to_best=_beside_the_best(
            names, scores.mean(axis=1), errors, span=span, best=limits[1] if sign > 0 else -limits[0]
        )
        if count > 1 and n_groups > 1
        else [],
        covariance=[[float(value) for value in row] for row in covariance],
        freedom=[float(value) for value in errors.freedom],
        warnings=warnings,
    )


def unseen(n_groups: int) -> str:
    """What no figure of so many groups can know of: failures so rare that none is likely to be among them."""
    share = 1 - ALPHA ** (1 / n_groups)
    return (
        f"Whatever happens in fewer than {share:.0%} of all patients may not have happened once in these {n_groups} "
        "groups. A network that fails so seldom can look better than it is, and its interval too narrow."
    )


def exact_rate(count: int, total: int) -> Rate:
    """A share with its exact 95 % interval."""
    low = float(stats.beta.ppf(ALPHA / 2, count, total - count + 1)) if count else 0.0
    high = float(stats.beta.ppf(1 - ALPHA / 2, count + 1, total - count)) if count < total else 1.0
    return Rate(count, total, count / total if total else math.nan, (low, high))


def chances_worse(
    comparison: Comparison, *, margin: float, larger_is_better: bool = True, draws: int = 20000, seed: int = 0
) -> dict[str, float]:
    """How probable it is that each network is worse than the best of all by more than a margin.

    The means are drawn with their covariance, every difference of two from the t distribution with the pair's degrees
    of freedom (the normal draws of all pairs are widened together), as if any difference had been as plausible as any
    other before the data: with the normal distribution a few groups and seeds would say "> 99 %" of what the t test
    leaves open. So it is too high where all networks are alike, which no data can show; how it agrees with the truth
    elsewhere is simulated in ``benchmarks/claims.py``.

    Args:
        comparison: of at least two groups.
        margin: in the unit of the score, at least 0.
        larger_is_better: False for distances.
        draws: of the means.
        seed: of the draws.

    Returns:
        Probabilities by network; nan where there is no covariance.
    """
    mean = (1 if larger_is_better else -1) * np.array([comparison.means[name] for name in comparison.networks])
    covariance, freedom = np.array(comparison.covariance), np.array(comparison.freedom)
    shares = _chances_worse(mean, covariance, freedom, margin, draws=draws, seed=seed)
    return {name: float(share) for name, share in zip(comparison.networks, shares, strict=True)}


def _chances_worse(
    mean: np.ndarray, covariance: np.ndarray, freedom: np.ndarray, margin: float, *, draws: int, seed: int
) -> np.ndarray:
    """Of (..., networks), degrees of freedom (..., pairs), see `chances_worse`."""
    if not np.isfinite(covariance).all():
        return np.full(mean.shape, np.nan)
    # A root that a singular covariance has too; only differences matter.
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))[..., None, :]
    rng = np.random.default_rng(seed)
    errors = root @ rng.normal(size=(mean.shape[-1], draws))  # (..., networks, draws)
    worse = np.zeros(errors.shape, dtype=bool)
    for at, (i, j) in enumerate(zip(*_pairs_of(mean.shape[-1]), strict=True)):
        own = freedom[..., at, None]
        # Sorted, so that one draw widens all pairs alike; of the normal draws they know nothing.
        wide = (own / np.sort(rng.chisquare(own, size=(*mean.shape[:-1], draws)), axis=-1)) ** 0.5
        ahead = (mean[..., i] - mean[..., j])[..., None] + (errors[..., i, :] - errors[..., j, :]) * wide
        worse[..., j, :] |= ahead > margin + 10.0**-_DECIMALS
        worse[..., i, :] |= -ahead > margin + 10.0**-_DECIMALS
    return worse.mean(axis=-1)


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


def group_means(values: ArrayLike, groups: Sequence[str]) -> np.ndarray:
    """Means over the cases of each group: (..., groups), sorted by name, of (..., cases)."""
    return _group_means(np.asarray(values, dtype=np.float64), np.unique(np.asarray(groups), return_inverse=True)[1])


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


class _Errors(NamedTuple):
    """Errors of some means over groups, each (..., tests).

    Attributes:
        error: standard error, 0 where nothing varies, nan for one group.
        freedom: its degrees of freedom.
        seeds: the part of its square that is of the seeds.
        spread: standard deviation of one group in one training each.
    """

    error: np.ndarray
    freedom: np.ndarray
    seeds: np.ndarray
    spread: np.ndarray


def _pairs_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second of all pairs."""
    first, second = np.triu_indices(count, 1)
    return first, second


def _errors_of_means(values: np.ndarray) -> _Errors:
    """Of the means of (..., tests, groups), by the spread over groups alone."""
    n = values.shape[-1]
    variance = values.var(axis=-1, ddof=1) if n > 1 else np.full(values.shape[:-1], np.nan)
    variance = np.where(variance < 10.0 ** (-2 * _DECIMALS), 0, variance)
    freedom = np.full(variance.shape, max(n - 1, 1.0))
    return _Errors((variance / n) ** 0.5, freedom, np.zeros(variance.shape), variance**0.5)


def _group_covariance(scores: np.ndarray) -> np.ndarray:
    """Of the means of (..., networks, groups)."""
    n = scores.shape[-1]
    if n < 2:
        return np.full((*scores.shape[:-1], scores.shape[-2]), np.nan)
    centred = scores - scores.mean(axis=-1, keepdims=True)
    return centred @ centred.swapaxes(-1, -2) / (n * (n - 1))


def _errors_of_architectures(scores: np.ndarray, collapsed: np.ndarray) -> tuple[_Errors, _Errors]:
    """Of all differences, and of each network by itself.

    A difference has the variance ::

        s2(groups) / G + max(s2(seeds) / S - ms(residual) / (S G), 0)

    with ``s2(groups)`` the variance over groups of the seed-averaged difference, ``s2(seeds)`` the variances over
    seeds of the mean over groups, added for the two networks, and ``ms(residual)`` their mean squares of what groups
    and seeds do not explain, which the first two both contain.

    ``s2(seeds)`` is the pair's own or, if larger, twice the *median* over networks over the median factor of
    chi-square with S - 1 degrees of freedom: that of a few trainings is too small too often, and the median, unlike
    the mean, is none the larger for one network that fell apart. Trainings that collapsed are left out of it.

    Degrees of freedom of ``s2(seeds)``: the pair's by Welch (Biometrika 1947), 2 (S - 1) where both networks vary
    alike and down to S - 1 where one does all of it; of the median over K networks, if these are more than the pair,
    2 K (S - 1) / pi, but no less than 2 (S - 1). Of the whole by Satterthwaite (Biometrics 1946), never below the
    smaller of these and G - 1. The square of the part of the seeds that Satterthwaite's formula asks for is taken as
    ``s2(seeds) / S`` times what is left of it after the subtraction: with the subtraction in both, simulated coverage
    is too low, with it in neither too high.

    Args:
        scores: (..., networks, seeds, groups).
        collapsed: (networks, seeds), or with the same leading axes.
    """
    n_seeds, n = scores.shape[-2:]
    by_group, by_seed = scores.mean(axis=-2), scores.mean(axis=-1)
    rest = scores - by_group[..., None, :] - by_seed[..., None] + by_seed.mean(axis=-1)[..., None, None]
    residual = (rest**2).sum(axis=(-1, -2)) / (max(n - 1, 1) * (n_seeds - 1))
    first, second = _pairs_of(scores.shape[-3])
    differences = (by_group[..., first, :] - by_group[..., second, :]).round(_DECIMALS)
    return _with_seeds(
        (_errors_of_means(differences), _errors_of_means(by_group)), by_seed, residual, collapsed, n_groups=n
    )


def _with_seeds(
    plain: tuple[_Errors, _Errors], by_seed: np.ndarray, residual: np.ndarray, collapsed: np.ndarray, *, n_groups: int
) -> tuple[_Errors, _Errors]:
    """Errors over groups, with what the seeds add to them, see `_errors_of_architectures`.

    Args:
        plain: of all differences and of each network by itself, over groups alone.
        by_seed: (..., networks, seeds), means over groups.
        residual: (..., networks), mean squares of what groups and seeds do not explain.
        collapsed: as for `_errors_of_architectures`.
        n_groups: groups.
    """
    n_seeds, n = by_seed.shape[-1], n_groups
    variances, shared = by_seed.var(axis=-1, ddof=1), residual / (n * n_seeds)
    floor, floor_freedom = _typical_seed_variance(by_seed, collapsed)
    first, second = _pairs_of(by_seed.shape[-2])
    found = []
    for members, alone, own, twins, common in (
        (
            2,
            plain[0],
            variances[..., first] + variances[..., second],
            variances[..., first] ** 2 + variances[..., second] ** 2,
            shared[..., first] + shared[..., second],
        ),
        (1, plain[1], variances, variances**2, shared),
    ):
        least = members * floor[..., None]
        with np.errstate(divide="ignore", invalid="ignore"):
            welch = np.where(own > 0, (n_seeds - 1) * own**2 / twins, members * (n_seeds - 1.0))
            typical = np.maximum(floor_freedom[..., None], members * (n_seeds - 1.0))
            of_seeds = np.where((own >= least) | (floor_freedom[..., None] == 0), welch, typical)
            seeds = np.maximum(own, least) / n_seeds
            kept = np.maximum(seeds - common, 0)
            groups = alone.error**2
            variance = groups + kept
            freedom = variance**2 / (groups**2 / max(n - 1, 1) + seeds * kept / of_seeds)
        freedom = np.fmax(freedom, np.minimum(of_seeds, max(n - 1, 1)))
        nothing = variance < 10.0 ** (-2 * _DECIMALS)
        error = np.where(nothing, 0, variance) ** 0.5
        spread = np.where(nothing, 0, n * groups + n_seeds * kept) ** 0.5
        found.append(_Errors(error, freedom, kept, spread))
    return found[0], found[1]


def _typical_seed_variance(by_seed: np.ndarray, collapsed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median over networks of the variances of (..., networks, seeds), and its degrees of freedom, (...) each.

    Of trainings that did not collapse; a network with one of these or none is left out. The variance is 0 where no
    network is left, the degrees of freedom where no more than two are, which say nothing beyond a pair's own.
    """
    kept = np.broadcast_to(~collapsed, by_seed.shape)
    counts = kept.sum(axis=-1)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of what is empty
        variances = np.where(counts > 1, np.nanvar(np.where(kept, by_seed, np.nan), axis=-1, ddof=1), np.nan)
        typical = np.nan_to_num(np.nanmedian(variances, axis=-1), nan=0.0)
    freedom = np.where((counts > 1) & ((counts > 1).sum(axis=-1, keepdims=True) > 2), counts - 1, 0)
    most = max(by_seed.shape[-1] - 1, 1)
    return typical * most / stats.chi2.median(most), _MEDIAN_EFFICIENCY * freedom.sum(axis=-1)


def _seed_warnings(by_seed: np.ndarray, collapsed: np.ndarray, names: Sequence[str]) -> list[str]:
    """What the simulation showed to make false claims more frequent than 5 %."""
    found = []
    if by_seed.shape[1] == 2:
        found.append(
            "Two seeds a network say little about the spread from one training to the next: intervals are wide, and "
            "false claims can be more frequent than 5 %. Three seeds or more are advised."
        )
    spreads = by_seed.std(axis=1, ddof=1)
    for at, name in enumerate(names):
        typical = float(np.median(np.delete(spreads, at))) if len(names) > 1 else math.inf
        if spreads[at] > max(_UNSTABLE * typical, 10.0**-_DECIMALS):
            lost = " (a seed of it collapsed)" if collapsed[at].any() else ""
            found.append(
                f"{name} {UNSTABLE} by more than {_UNSTABLE:g} times as much as the others{lost}, "
                f"standard deviation {spreads[at]:.3g} beside a median of {typical:.3g}: false claims about it can be "
                "more frequent than 5 %. More seeds of it are advised."
            )
    return found


def _t_p(mean: np.ndarray, errors: _Errors) -> np.ndarray:
    """Two-sided; 1 for an equal constant, nan for a different one."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * stats.t.sf(np.abs(mean) / errors.error, errors.freedom)
    return np.where(errors.error == 0, np.where(np.abs(mean) < 10.0**-_DECIMALS, 1, np.nan), p)


def _t_interval(mean: np.ndarray, errors: _Errors, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Two-sided limits, missed with the probability ``level``."""
    half = stats.t.ppf(1 - level / 2, errors.freedom) * errors.error
    return mean - half, mean + half


def _beside_the_best(
    names: Sequence[str], means: np.ndarray, errors: _Errors, *, span: float, best: float
) -> list[ToBest]:
    """See `ToBest`; means of which larger is better, at most ``best``."""
    count = len(names)
    others = ~np.eye(count, dtype=bool)
    deficits = np.where(others, means[None, :] - means[:, None], -np.inf).max(axis=1)
    low, high, rivals, shown = _deficits(means, errors)
    high = np.clip(high, 0, np.maximum(best - means, 0))
    return [
        ToBest(
            network=name,
            deficit=float(deficits[at]),
            low=float(max(low[at], -span)) + 0.0,
            high=float(high[at]) + 0.0,
            rival=names[rivals[at]] if high[at] > 0 else None,
            worse_by=float(shown[at]) + 0.0,
        )
        for at, name in enumerate(names)
    ]


def _deficits(means: np.ndarray, errors: _Errors) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Constrained intervals of multiple comparisons with the best, who sets their upper ends, and what each is shown
    to be worse by.

    Each network in turn is the control of Dunnett's one-sided comparison with all others; if the one that is truly
    best is covered, which has the probability 95 %, all intervals are right (Edwards and Hsu, JASA 1983). Where the
    errors differ, every pair has its own error and degrees of freedom, as in Games and Howell's procedure.

    Args:
        means: (..., networks), larger is better.
        errors: (..., pairs).
    """
    count = means.shape[-1]
    first, second = _pairs_of(count)
    half = np.zeros((*means.shape, count))
    half[..., first, second] = _dunnett(count - 1, errors.freedom) * errors.error
    half[..., second, first] = half[..., first, second]
    ahead = means[..., :, None] - means[..., None, :]  # of the row over the column
    itself = np.eye(count, dtype=bool)
    upper = np.where(itself, np.inf, ahead + half).min(axis=-1)
    possible = upper >= 0  # may be the best
    rivals = possible[..., None, :] & ~itself
    below = np.where(rivals, ahead - half, np.inf)
    lower = below.min(axis=-1)
    lower = np.where(rivals.any(axis=-1), np.minimum(lower, 0), 0)
    return -np.maximum(upper, 0), -lower, below.argmin(axis=-1), np.maximum(-upper, 0)


def _dunnett(others: int, freedom: np.ndarray) -> np.ndarray:
    """One-sided 5 % point of the largest of some t that share a control and their error."""
    if others == 1:
        return stats.t.ppf(1 - ALPHA, freedom)
    return np.exp(_dunnett_curve(others)(1 / np.maximum(freedom, 1)))


@lru_cache(maxsize=64)
def _dunnett_curve(others: int) -> interpolate.CubicSpline:
    """Logarithm of the point over 1 / degrees of freedom, 0 to 1 (Dunnett, JASA 1955), right to 1e-3."""
    x, weights = np.polynomial.hermite_e.hermegauss(40)  # of the control
    u, shares = np.polynomial.legendre.leggauss(80)  # of the error
    u, shares = (u + 1) / 2, shares / 2
    nodes = np.linspace(0, 1, 21)

    def point(node: float) -> float:
        scale = np.ones(len(u)) if node == 0 else (stats.chi2.ppf(u, 1 / node) * node) ** 0.5

        def missed(value: float) -> float:
            below = special.ndtr(x[:, None] + 2**0.5 * value * scale) ** others
            return float(weights @ below @ shares / weights.sum()) - (1 - ALPHA)

        return float(optimize.brentq(missed, 0.5, 1000))

    return interpolate.CubicSpline(nodes, np.log([point(node) for node in nodes]))


def _step_down(p: np.ndarray, count: int) -> np.ndarray:
    """Adjusted p of all pairs of some networks, (..., pairs): Shaffer's static correction (JASA 1986).

    Holm's multiplies the smallest p by the number of pairs, the next by one less, and so on. But once a pair differs,
    fewer of the others can all be equal: of three networks, if a and b differ, c equals one of them at most. A pair
    that could not be tested counts as one, and stays nan.
    """
    order = np.argsort(p, axis=-1)  # nan last
    ordered = np.nan_to_num(np.take_along_axis(p, order, axis=-1), nan=1.0)
    steps = np.maximum.accumulate(np.minimum(ordered * _shaffer(count), 1), axis=-1)
    adjusted = np.empty_like(steps)
    np.put_along_axis(adjusted, order, steps, axis=-1)
    return np.where(np.isnan(p), np.nan, adjusted)


@lru_cache(maxsize=64)
def _shaffer(count: int) -> np.ndarray:
    """By what the ordered p of all pairs are multiplied: how many can be equal if so many, 0, 1, ..., differ."""
    pairs = count * (count - 1) // 2
    equal = _numbers_of_equal_pairs(count)
    return np.array([max(number for number in equal if number <= pairs - step) for step in range(pairs)], dtype=float)


@lru_cache(maxsize=64)
def _numbers_of_equal_pairs(count: int) -> frozenset[int]:
    """How many pairs of some networks can be equal at once: one set of equal ones, and what is left in sets."""
    if count < 2:
        return frozenset({0})
    return frozenset(
        size * (size - 1) // 2 + number
        for size in range(1, count + 1)
        for number in _numbers_of_equal_pairs(count - size)
    )


def _attainable(n_networks: int, n_groups: int) -> tuple[float, list[str]]:
    """The smallest adjusted p there can be, and why nothing can be claimed, if so.

    Wilcoxon's two-sided p is least, 2 / 2^groups, where one network is better in all groups; Shaffer, like Holm,
    multiplies the least of all by the number of pairs.
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


def _interval(low: float, high: float, sign: int, limits: tuple[float, float]) -> tuple[float, float]:
    """Limits in the units of the score, within its range; nan for one that leaves nothing out."""
    if sign < 0:
        low, high = -high, -low
    if low <= limits[0] and high >= limits[1]:
        return math.nan, math.nan
    return float(max(low, limits[0])) + 0.0, float(min(high, limits[1])) + 0.0


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
