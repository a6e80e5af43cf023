"""What a comparison can find: the power of the claim about architectures, and how many groups and seeds it takes.

The score of group g by seed s of network a is taken as ::

    difficulty[g] + effect[a] + interaction * own[a, g] + spread * seed[a, s] + chance * noise[a, s, g]

with ``own``, ``seed`` and ``noise`` standard normal. Of such scores only the means, the spreads over groups and over
seeds and the residual enter the rule, and their distributions are known: they are drawn, and judged by the rule itself.
``benchmarks/claims.py`` holds it against whole drawn comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy import stats

from monai_thyroid.compare.statistics import (
    ALPHA,
    _attainable,
    _Errors,
    _pairs_of,
    _step_down,
    _t_p,
    _with_seeds,
)

__all__ = [
    "DEFAULT",
    "Components",
    "Curves",
    "Outlook",
    "Possible",
    "components_of",
    "curves",
    "detectable",
    "groups_needed",
    "outlook",
    "power",
    "seeds_needed",
]

MOST_GROUPS, MOST_SEEDS = 10_000, 30
_HOPELESS = 1e5  # times all spreads together
# Of Wilcoxon's test beside the t test where differences are normal.
_WILCOXON = 3 / math.pi


@dataclass(frozen=True)
class Components:
    """Standard deviations, in the unit of the score.

    Attributes:
        interaction: what one network finds easier than another, of a group.
        chance: what one training finds easier than the next, of a group.
        spread: of a whole training, from one seed to the next.
        source: where they come from, in words.
        spread_interval: 95 % interval of the spread; None where it is not estimated.
    """

    interaction: float
    chance: float
    spread: float
    source: str
    spread_interval: tuple[float, float] | None = None

    @property
    def total(self) -> float:
        """Their sum; 0 where all score alike, of which nothing can be planned."""
        return self.interaction + self.chance + self.spread


DEFAULT = Components(
    0.035,
    0.056,
    0.012,
    "stated defaults (of Dice, from short trainings on thyroid nodules, an order of magnitude only; finished runs of "
    "your own, --like RUN..., say more)",
)


def components_of(values: np.ndarray, *, source: str) -> Components:
    """Estimate them from finished runs, by mean squares; a negative component is 0.

    Args:
        values: (networks, seeds, groups), two networks and groups at least. Of one seed a network nothing is known of
            the spread: it is 0, and chance a part of the interaction.
        source: see `Components`.

    Raises:
        ValueError: fewer than two networks or groups.
    """
    k, s, g = values.shape
    if k < 2 or g < 2:
        raise ValueError(f"{k} networks and {g} groups: at least two of each are needed")
    by_group, by_seed, overall = values.mean(axis=1), values.mean(axis=2), values.mean(axis=(1, 2))
    own = by_group - by_group.mean(axis=0) - overall[:, None] + overall.mean()
    interaction = float((own**2).sum() / ((k - 1) * (g - 1)))
    if s == 1:
        return Components(interaction**0.5, 0.0, 0.0, source)
    rest = values - by_group[:, None] - by_seed[..., None] + overall[:, None, None]
    chance = float((rest**2).sum() / (k * (s - 1) * (g - 1)))
    seeds = float(by_seed.var(axis=1, ddof=1).mean())
    freedom = k * (s - 1)
    low, high = (
        max(seeds * freedom / float(stats.chi2.ppf(share, freedom)) - chance / g, 0.0) ** 0.5
        for share in (1 - ALPHA / 2, ALPHA / 2)
    )
    return Components(
        max(interaction - chance / s, 0.0) ** 0.5,
        chance**0.5,
        max(seeds - chance / g, 0.0) ** 0.5,
        source,
        (low, high),
    )


def power(
    components: Components, *, networks: int, seeds: int, groups: int, difference: float, draws: int = 2000
) -> float:
    """Probability that the rule calls a network better than another one of which it is better by a difference.

    All other networks are alike. With two seeds or more it is that of the claim about architectures; with one, that
    of the claim about the weights in hand, for which Wilcoxon's test is taken as a t test of 3 / pi as many groups.

    Args:
        components: of the scores.
        networks: at least 2.
        seeds: of each.
        groups: tested.
        difference: at least 0.
        draws: of comparisons; the Monte-Carlo standard error is sqrt(p (1 - p) / draws) at most.
    """
    return _claimed(components, networks, seeds, groups, draws)(difference)


def detectable(
    components: Components, *, networks: int, seeds: int, groups: int, power: float = 0.8, draws: int = 2000
) -> float | None:
    """The difference that is found with a probability; None where so few groups allow no claim, or nothing varies.

    Args:
        components: as for `power`, and so the other arguments.
        power: the probability, above 0 and below 1.
    """
    scale = components.total
    if scale == 0:
        return None
    claimed = _claimed(components, networks, seeds, groups, draws)
    low, high = 0.0, 4 * scale
    while claimed(high) < power:
        low, high = high, 4 * high
        if high > _HOPELESS * scale:
            return None
    while high - low > 5e-3 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if claimed(middle) >= power else (middle, high)
    return high


def groups_needed(
    components: Components, *, networks: int, seeds: int, difference: float, power: float = 0.8, draws: int = 2000
) -> int | None:
    """How many groups it takes to find a difference with a probability; None where no number up to 10,000 does."""

    def enough(groups: int) -> bool:
        return _claimed(components, networks, seeds, groups, draws)(difference) >= power

    # Not by what the most groups find: with few seeds more groups can find less.
    high = 4
    while not enough(high):
        high *= 2
        if high > MOST_GROUPS:
            return None
    low = high // 2
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def seeds_needed(
    components: Components, *, networks: int, groups: int, difference: float, power: float = 0.8, draws: int = 2000
) -> int | None:
    """How many seeds, two or more, it takes with so many groups; None where 30 are too few."""

    def enough(seeds: int) -> bool:
        return _claimed(components, networks, seeds, groups, draws)(difference) >= power

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


@dataclass(frozen=True)
class Possible:
    """With so many seeds a network.

    Attributes:
        seeds: a network.
        detectable: the difference that the groups at hand find; None for none.
        groups: that each of the outlook's differences needs; None where no number up to 10,000 does.
    """

    seeds: int
    detectable: float | None
    groups: Sequence[int | None]


@dataclass(frozen=True)
class Outlook:
    """What a comparison can find.

    Attributes:
        networks: compared.
        seeds: of each; one: the question is that of the weights in hand.
        groups: tested.
        power: that is asked for.
        components: of the scores.
        detectable: the difference that is found with that probability; None for none.
        detectable_if_wide: the same if the spread over seeds were at the upper limit of its interval.
        differences: whose needs ``table`` tells.
        table: by number of seeds.
    """

    networks: int
    seeds: int
    groups: int
    power: float
    components: Components
    detectable: float | None
    detectable_if_wide: float | None
    differences: Sequence[float]
    table: Sequence[Possible]


def outlook(
    components: Components,
    *,
    networks: int,
    seeds: int,
    groups: int,
    power: float = 0.8,
    differences: Sequence[float] = (),
    most: float = math.inf,
    draws: int = 500,
) -> Outlook:
    """What a comparison of so many networks, seeds and groups can find, and others of more seeds and groups.

    Args:
        components: as for `detectable`, and so the other arguments.
        differences: of which is told how many groups they need.
        most: the largest difference there can be; what is beyond is none.
    """

    def found(of: Components, count: int) -> float | None:
        least = detectable(of, networks=networks, seeds=count, groups=groups, power=power, draws=draws)
        return None if least is None or least > most else least

    wide = components.spread_interval
    return Outlook(
        networks,
        seeds,
        groups,
        power,
        components,
        found(components, seeds),
        found(replace(components, spread=wide[1], spread_interval=None), seeds) if wide else None,
        list(differences),
        [
            Possible(
                count,
                found(components, count),
                [
                    groups_needed(components, networks=networks, seeds=count, difference=one, power=power, draws=draws)
                    for one in differences
                ],
            )
            for count in _seed_numbers(seeds, components)
        ],
    )


def _seed_numbers(seeds: int, components: Components) -> list[int]:
    """That are looked at beside the number at hand; this alone where the spread over seeds is not known."""
    return [1] if seeds == 1 and components.spread == 0 else sorted({2, 3, 5, 10, seeds})


@dataclass(frozen=True)
class Curves:
    """What a figure of an outlook shows, each by number of seeds.

    Attributes:
        differences: at which the power is told.
        power: with the groups at hand.
        groups: at which the detectable difference is told.
        detectable: NaN for none.
    """

    differences: list[float]
    power: dict[int, list[float]]
    groups: list[int]
    detectable: dict[int, list[float]]


def curves(one: Outlook, *, difference: float | None = None, draws: int = 500) -> Curves:
    """The curves of an outlook.

    Args:
        one: of which.
        difference: that must lie within the figure.
        draws: of comparisons.
    """
    known = [value for value in (one.detectable, difference) if value is not None]
    differences = np.linspace(0, 1.6 * max(known), 13) if known else np.zeros(0)
    groups = sorted({max(6, round(one.groups * factor)) for factor in (0.25, 0.5, 1, 2, 3, 6)})
    power, found = {}, {}
    for seeds in _seed_numbers(one.seeds, one.components):
        claimed = _claimed(one.components, one.networks, seeds, one.groups, 2 * draws)
        power[seeds] = [claimed(float(value)) for value in differences]
        least = [
            detectable(one.components, networks=one.networks, seeds=seeds, groups=count, power=one.power, draws=draws)
            for count in groups
        ]
        found[seeds] = [math.nan if value is None else value for value in least]
    return Curves([float(value) for value in differences], power, groups, found)


@lru_cache(maxsize=64)
def _claimed(components: Components, networks: int, seeds: int, groups: int, draws: int) -> Callable[[float], float]:
    """Comparisons without any effect, drawn once: from a difference of the first network to its share of claims."""
    k, s, g = networks, seeds, groups
    rng = np.random.default_rng(0)
    first, second = _pairs_of(k)
    by_group = components.interaction**2 + components.chance**2 / s
    means = rng.normal(size=(draws, k)) * (components.spread**2 / s * (s > 1) + by_group / g) ** 0.5
    products = _products(rng, k, g - 1, draws) * by_group
    own = np.diagonal(products, axis1=-2, axis2=-1)
    of_pairs = (own[:, first] + own[:, second] - 2 * products[:, first, second]) / (g - 1)
    plain = tuple(
        _Errors((variance / g) ** 0.5, np.full(variance.shape, g - 1.0), np.zeros(variance.shape), variance**0.5)
        for variance in (np.maximum(of_pairs, 0), own / (g - 1))
    )
    if s == 1:
        errors = plain[0]._replace(error=plain[0].error / _WILCOXON**0.5)
        means /= _WILCOXON**0.5
    else:
        by_seed = rng.normal(size=(draws, k, s)) * (components.spread**2 + components.chance**2 / g) ** 0.5
        left = (g - 1) * (s - 1)
        residual = components.chance**2 * rng.chisquare(left, size=(draws, k)) / left
        errors, _ = _with_seeds((plain[0], plain[1]), by_seed, residual, np.zeros((k, s), dtype=bool), n_groups=g)
    ahead = means[:, first] - means[:, second]
    mine = first == 0
    of_mine = _Errors(*(part[:, mine] for part in errors))
    p = _t_p(ahead, errors)  # of the other pairs they stay
    refused = bool(_attainable(k, g)[1])

    def share(difference: float) -> float:
        if refused:
            return 0.0
        planted = ahead[:, mine] + difference
        p[:, mine] = _t_p(planted, of_mine)
        claims = (_step_down(p, k)[:, mine] < ALPHA) & (planted > 0)
        return float(claims.mean())

    return share


def _products(rng: np.random.Generator, size: int, freedom: int, draws: int) -> np.ndarray:
    """Sums of squares and products of ``freedom`` standard normal vectors, (draws, size, size) (Bartlett 1933)."""
    if freedom < size:
        vectors = rng.normal(size=(draws, size, freedom))
        return np.asarray(vectors @ vectors.swapaxes(-1, -2))
    root = np.tril(rng.normal(size=(draws, size, size)), -1)
    root[:, range(size), range(size)] = rng.chisquare(freedom - np.arange(size), size=(draws, size)) ** 0.5
    return np.asarray(root @ root.swapaxes(-1, -2))
