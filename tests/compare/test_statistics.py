from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import scikit_posthocs
from autorank import autorank
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from monai_thyroid.compare.statistics import (
    Comparison,
    Pair,
    _deficits,
    _dunnett,
    _Errors,
    _errors_of_architectures,
    _shaffer,
    _step_down,
    bootstrap_mean,
    chances_worse,
    compare_architectures,
    compare_weights,
    exact_rate,
    rank_stability,
    unseen,
)

FIVE = list("abcde")


@pytest.fixture(autouse=True)
def _no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def names(n: int) -> list[str]:
    return [f"p{i:03d}" for i in range(n)]


def scores(networks: int, groups: int, *, seed: int = 0, step: float = 0.03) -> np.ndarray:
    """(networks, groups): a shared difficulty, steps between the networks, noise."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(networks, groups)) * 0.08
    return 0.7 + rng.normal(size=groups) * 0.15 + step * np.arange(networks)[:, None] + noise


def by_name(comparison: Comparison) -> dict[frozenset[str], Pair]:
    return {frozenset((pair.first, pair.second)): pair for pair in comparison.pairs}


# --- these weights: p-values ---


def test_five_groups_by_hand() -> None:
    # Ranks 1 2 3 4 for the first, 5 against it. Ten of the 32 sets of ranks sum to at most 5.
    values = [[0.1, 0.2, 0.3, 0.4, 0.0], [0.0, 0.0, 0.0, 0.0, 0.5]]
    (pair,) = compare_weights(values, networks=["a", "b"], groups=names(5)).pairs
    assert (pair.first, pair.wins, pair.ties, pair.losses) == ("a", 4, 0, 1)
    assert pair.p == pytest.approx(2 * 10 / 32)
    assert pair.effect == pytest.approx((10 - 5) / 15)
    assert pair.difference == pytest.approx(0.1)
    assert not pair.claim


# What the ordered p of all pairs of 3, 4, 5 and 6 networks are multiplied by, written down by hand. Of 4 networks, 6
# pairs can be equal, or 3 (three networks), 2 (two and two), 1 or 0; of 5, also 10 and 4 (three and two), of 6 also
# 15 and 7 (four and two); 6 of 6 networks are two and two threes, and 3 two of each.
SHAFFER = {
    3: [3, 1, 1],
    4: [6, 3, 3, 3, 2, 1],
    5: [10, 6, 6, 6, 6, 4, 4, 3, 2, 1],
    6: [15, 10, 10, 10, 10, 10, 7, 7, 7, 6, 4, 4, 3, 2, 1],
}


@pytest.mark.parametrize("count", SHAFFER)
def test_shaffers_steps_are_those_by_hand_and_of_all_partitions(count: int) -> None:
    assert _shaffer(count).tolist() == SHAFFER[count]
    equal = set()
    for labels in itertools.product(range(count), repeat=count):  # every way to call networks equal
        equal.add(sum(a == b for a, b in itertools.combinations(labels, 2)))
    pairs = len(SHAFFER[count])
    assert SHAFFER[count] == [max(n for n in equal if n <= pairs - differ) for differ in range(pairs)]


def test_shaffers_adjusted_p_by_hand() -> None:
    p = np.array([0.03, 0.001, 0.02, 0.3, 0.012, 0.011])  # of four networks
    expected = [max(3 * 0.012, 3 * 0.02, 2 * 0.03), 6 * 0.001, 3 * 0.02, 0.3, 3 * 0.012, 3 * 0.011]
    assert _step_down(p, 4) == pytest.approx(expected)
    untested = _step_down(np.array([0.001, np.nan, 0.02]), 3)
    assert untested[[0, 2]] == pytest.approx([0.003, 0.02])
    assert np.isnan(untested[1])


def test_shaffer_by_hand() -> None:
    # Six groups: 2/64 for a network that wins everywhere; c loses its smallest difference to b: 4/64.
    values = np.zeros((3, 6))
    values[0] = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    values[1] = values[0] - [0.1, 0.2, 0.3, 0.4, 0.45, 0.48]
    values[2] = values[1] - [-0.01, 0.02, 0.03, 0.04, 0.05, 0.06]
    found = by_name(compare_weights(values, networks=["a", "b", "c"], groups=names(6)))
    assert found[frozenset("ab")].p == pytest.approx(2 / 64)
    assert found[frozenset("bc")].p == pytest.approx(4 / 64)
    assert found[frozenset("ab")].p_adjusted == pytest.approx(3 * 2 / 64)
    assert found[frozenset("ac")].p_adjusted == pytest.approx(3 * 2 / 64)
    assert found[frozenset("bc")].p_adjusted == pytest.approx(3 * 2 / 64), "not below that of a smaller p"


@pytest.mark.parametrize("groups", [9, 30, 120])
def test_p_values_are_those_of_scipy_and_scikit_posthocs(groups: int) -> None:
    values = scores(5, groups)
    comparison = compare_weights(values, networks=FIVE, groups=names(groups))
    plain = {
        frozenset((FIVE[i], FIVE[j])): stats.wilcoxon(values[i] - values[j], method="exact").pvalue
        for i, j in itertools.combinations(range(5), 2)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = scikit_posthocs.posthoc_wilcoxon(values, method="exact", sort=False)
    assert len(comparison.pairs) == 10
    ordered = sorted(plain, key=lambda key: plain[key])
    steps = np.maximum.accumulate([plain[key] * step for key, step in zip(ordered, SHAFFER[5], strict=True)])
    for key, pair in by_name(comparison).items():
        i, j = (FIVE.index(name) for name in key)
        assert pair.p == pytest.approx(plain[key], rel=1e-9)
        assert pair.p == pytest.approx(other.iloc[i, j], rel=1e-9)
        assert pair.p_adjusted == pytest.approx(min(1, steps[ordered.index(key)]), rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_ties_and_zeros_are_exact_as_all_sign_changes_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    differences = np.append(rng.integers(-2, 5, size=10), 0) / 10  # zeros, and many ties
    (pair,) = compare_weights([0.5 + differences, np.full(11, 0.5)], networks=["a", "b"], groups=names(11)).pairs
    ranks = stats.rankdata(abs(differences))  # Pratt: zeros are ranked, and then left out
    signed = ranks[differences != 0] * np.sign(differences[differences != 0])
    changed = [np.dot(signs, abs(signed)) for signs in itertools.product((-1, 1), repeat=len(signed))]
    assert pair.p == pytest.approx(np.mean(np.abs(changed) >= abs(signed.sum()) - 1e-9))
    assert pair.ties == (differences == 0).sum()


def test_ties_and_zeros_are_those_of_scipy() -> None:
    differences = np.array([0, 0, 1, 1, 2, 3, -1, 4, 5, 5]) / 10
    (pair,) = compare_weights([0.5 + differences, np.full(10, 0.5)], networks=["a", "b"], groups=names(10)).pairs
    exact = stats.PermutationMethod(n_resamples=np.inf)
    assert pair.p == pytest.approx(stats.wilcoxon(differences.round(3), zero_method="pratt", method=exact).pvalue)


def test_many_groups_take_the_normal_distribution() -> None:
    values = scores(2, 300, step=0.01)
    (pair,) = compare_weights(values, networks=["a", "b"], groups=names(300)).pairs
    assert pair.p == pytest.approx(stats.wilcoxon(values[0] - values[1], method="asymptotic").pvalue)
    (exact,) = compare_weights(values[:, :200], networks=["a", "b"], groups=names(200)).pairs
    assert exact.p == pytest.approx(stats.wilcoxon(values[0, :200] - values[1, :200], method="exact").pvalue)


# --- these weights: the rest ---


# Demšar, JMLR 2006, table 6: AUC of four learners on 14 data sets, ranks printed there.
DEMSAR = np.array(
    """.763 .768 .771 .798 .599 .591 .590 .569 .954 .971 .968 .967 .628 .661 .654 .657 .882 .888 .886 .898
    .936 .931 .916 .931 .661 .668 .609 .685 .583 .583 .563 .625 .775 .838 .866 .875 1 1 1 1 .940 .962 .965 .962
    .619 .666 .614 .669 .972 .981 .9751 .9749 .957 .978 .946 .970""".split(),
    dtype=float,
).reshape(14, 4)


def test_ranks_of_a_published_example() -> None:
    comparison = compare_weights(DEMSAR.T, networks=["C4.5", "m", "cf", "m+cf"], groups=names(14))
    assert comparison.average_ranks == pytest.approx({"C4.5": 3.143, "m": 2.0, "cf": 2.893, "m+cf": 1.964}, abs=5e-4)
    chi2 = stats.friedmanchisquare(*DEMSAR.T)
    assert comparison.omnibus is not None
    assert comparison.omnibus["friedman_chi2"] == pytest.approx(chi2.statistic)
    assert comparison.omnibus["friedman_p"] == pytest.approx(chi2.pvalue)
    # Printed: 9.28, without the correction for ties, of which there are three of two and one of four.
    assert comparison.omnibus["friedman_chi2"] * (1 - (3 * 6 + 60) / (14 * 60)) == pytest.approx(9.28, abs=5e-3)
    assert comparison.omnibus["iman_davenport_f"] == pytest.approx(13 * chi2.statistic / (14 * 3 - chi2.statistic))
    assert comparison.omnibus["iman_davenport_p"] == pytest.approx(
        stats.f.sf(comparison.omnibus["iman_davenport_f"], 3, 39)
    )


def test_ranks_and_omnibus_are_those_of_autorank() -> None:
    values = scores(5, 30)
    comparison = compare_weights(values, networks=FIVE, groups=names(30))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = autorank(pd.DataFrame(values.T, columns=FIVE), force_mode="nonparametric")
    assert result.omnibus == "friedman"
    assert comparison.omnibus is not None
    assert comparison.omnibus["friedman_p"] == pytest.approx(result.pvalue)
    assert comparison.average_ranks == pytest.approx(result.rankdf["meanrank"].to_dict())


def test_the_same_order_in_all_groups_has_conovers_p() -> None:
    omnibus = compare_weights([[1, 2], [3, 4], [5, 6]], networks=["a", "b", "c"], groups=names(2)).omnibus
    assert omnibus is not None
    assert omnibus["friedman_chi2"] == pytest.approx(4)
    assert omnibus["iman_davenport_f"] == math.inf
    assert omnibus["iman_davenport_p"] == pytest.approx(1 / 6)


def test_groups_weigh_the_same_however_many_cases_they_have() -> None:
    values = np.array([[0.2, 0.4, 0.9, 0.5], [0.1, 0.1, 0.8, 0.3]])
    comparison = compare_weights(values, networks=["a", "b"], groups=["p", "p", "q", "r"])
    assert comparison.means == pytest.approx({"a": (0.3 + 0.9 + 0.5) / 3, "b": (0.1 + 0.8 + 0.3) / 3})
    assert (comparison.n_cases, comparison.n_groups, comparison.n_seeds) == (4, 3, 1)
    assert comparison.pairs[0].difference == pytest.approx((0.2 + 0.1 + 0.2) / 3)
    assert bootstrap_mean(values[0], groups=["p", "p", "q", "r"])[0] == pytest.approx(1.7 / 3)


def test_the_order_of_cases_and_networks_does_not_matter() -> None:
    values, groups = scores(5, 24), np.repeat(names(12), 2)
    one = compare_weights(values, networks=FIVE, groups=groups)
    order = np.random.default_rng(1).permutation(24)
    other = compare_weights(values[::-1][:, order], networks=FIVE[::-1], groups=groups[order])
    assert one.networks == other.networks
    for pair, twin in zip(one.pairs, other.pairs, strict=True):
        assert pair.p_adjusted == pytest.approx(twin.p_adjusted)
        assert pair.interval == pytest.approx(twin.interval)


@pytest.mark.parametrize("seeds", [1, 3])
def test_smaller_is_better_mirrors(seeds: int) -> None:
    values = np.stack([scores(3, 20, seed=seed) for seed in range(seeds)], axis=1)
    compare = compare_architectures if seeds > 1 else compare_weights
    values = values if seeds > 1 else values[:, 0]
    larger = compare(values, networks=FIVE[:3], groups=names(20))
    smaller = compare(10 - values, networks=FIVE[:3], groups=names(20), larger_is_better=False)
    assert larger.networks == smaller.networks
    assert smaller.average_ranks == larger.average_ranks
    assert smaller.means["a"] == pytest.approx(10 - larger.means["a"])
    assert smaller.intervals["a"] == pytest.approx((10 - larger.intervals["a"][1], 10 - larger.intervals["a"][0]))
    for pair, mirrored in zip(larger.pairs, smaller.pairs, strict=True):
        assert (mirrored.first, mirrored.wins, mirrored.claim) == (pair.first, pair.wins, pair.claim)
        assert mirrored.difference == pytest.approx(-pair.difference)
        assert mirrored.interval == pytest.approx((-pair.interval[1], -pair.interval[0]))
        assert mirrored.effect == pytest.approx(pair.effect)
        assert mirrored.p_adjusted == pytest.approx(pair.p_adjusted)


def test_ranks_that_point_away_from_the_mean_are_no_claim() -> None:
    # b is better in 28 of 30 groups by a little, a in two by very much: Wilcoxon is sure, but not of the mean.
    difference = np.concatenate([[0.6, 0.7], -np.linspace(0.01, 0.03, 28)])
    (pair,) = compare_weights([0.3 + difference, np.full(30, 0.3)], networks=["a", "b"], groups=names(30)).pairs
    assert pair.first == "a"
    assert pair.p_adjusted < 0.05
    assert pair.effect < 0
    assert not pair.claim


def test_bootstrap_interval_is_scipys_with_wider_levels() -> None:
    rng = np.random.default_rng(3)
    values = rng.beta(5, 2, size=8)
    _, low, high = bootstrap_mean(values, groups=names(8), draws=50000)
    level = 1 - 2 * stats.norm.sf(math.sqrt(8 / 7) * stats.t.ppf(0.975, 7))
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=level, method="percentile", n_resamples=50000, rng=rng
    ).confidence_interval
    assert high - low == pytest.approx(expected.high - expected.low, rel=0.02)
    assert (low, high) == pytest.approx(tuple(expected), abs=0.005)
    # Near to Student's, as it is meant to be; the plain one is a quarter narrower here.
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 7) * stats.sem(values), rel=0.1)


def test_intervals_are_resampled_by_group_not_by_case() -> None:
    values = np.random.default_rng(0).normal(size=12)
    once = bootstrap_mean(values, groups=names(12))
    thrice = bootstrap_mean(np.repeat(values, 3), groups=np.repeat(names(12), 3))
    assert thrice == pytest.approx(once)


def test_rank_stability() -> None:
    values = np.array([np.linspace(0.5, 0.9, 12), np.linspace(0.5, 0.9, 12), np.linspace(0.1, 0.2, 12)])
    shares = rank_stability(values, networks=["a", "twin", "c"], groups=names(12))
    assert shares == {"a": [1, 0, 0], "twin": [1, 0, 0], "c": [0, 0, 1]}
    assert rank_stability(values, networks=["a", "twin", "c"], groups=names(12), larger_is_better=False)["c"][0] == 1
    close = rank_stability(scores(4, 15, step=0.01), networks=list("abcd"), groups=names(15), draws=500)
    assert np.array(list(close.values())).sum(axis=0) == pytest.approx(np.ones(4))
    assert 0 < close["d"][0] < 1


# --- these architectures ---


def test_two_seeds_and_three_groups_by_hand() -> None:
    # a: seed means 6 and 8, groups 5 7 9, no residual; b: seed means 3 and 3, groups 2 2 5, residuals +-1, -+1, 0.
    a = [[4, 6, 8], [6, 8, 10]]
    b = [[3, 1, 5], [1, 3, 5]]
    comparison = compare_architectures([a, b], networks=["a", "b"], groups=names(3))
    (pair,) = comparison.pairs
    assert comparison.means == pytest.approx({"a": 7, "b": 3})
    assert pair.difference == pytest.approx(4)  # in the groups 3 5 4
    from_groups = 1 / 3  # the variance of 3 5 4 is 1
    # Variances 2 and 0 of the seed means: the pair's own is 2. Their median is 1, and that of chi-square with one
    # degree of freedom 0.45494; twice that is more than 2.
    seeds = 2 * (1 / 0.4549364231) / 2
    residual = (0 + 4 / 2) / (2 * 3)  # four squares of 1, 2 degrees of freedom, over S G
    variance = from_groups + seeds - residual
    # Welch's degrees of freedom of the seeds: (2 + 0)^2 / (2^2 + 0^2).
    freedom = variance**2 / (from_groups**2 / 2 + seeds * (seeds - residual) / 1)
    assert pair.p == pytest.approx(2 * stats.t.sf(4 / math.sqrt(variance), freedom))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    assert pair.interval == pytest.approx((4 - half, 4 + half))
    # Effect: over the spread of one group in one training each.
    assert pair.effect == pytest.approx(4 / math.sqrt(1 + 2 * (seeds - residual)))
    assert (pair.wins, pair.ties, pair.losses) == (3, 0, 0)


def anova(values: np.ndarray) -> pd.DataFrame:
    """Two-way table without interaction of (seeds, groups)."""
    rows = [(s, g, values[s, g]) for s in range(values.shape[0]) for g in range(values.shape[1])]
    return anova_lm(ols("y ~ C(s) + C(g)", data=pd.DataFrame(rows, columns=["s", "g", "y"])).fit())


@pytest.mark.parametrize("shaky", [False, True])
def test_variance_is_that_of_the_mean_squares_of_statsmodels(shaky: bool) -> None:
    rng = np.random.default_rng(5)
    n_seeds, groups = 4, 12
    values = rng.normal(size=(3, n_seeds, groups)) * 0.05 + rng.normal(size=(3, n_seeds, 1)) * 0.03 + 0.7
    values[1 if shaky else 2] += 0.2 * rng.normal(size=(n_seeds, 1))
    values[0] += 0.05
    comparison = compare_architectures(values, networks=["a", "b", "c"], groups=names(groups))
    pair = by_name(comparison)[frozenset("ab")]
    squares = [anova(one)["mean_sq"] for one in values]
    variances = [table["C(s)"] / groups for table in squares]
    residual = sum(table["Residual"] for table in squares[:2]) / (n_seeds * groups)
    # Welch's degrees of freedom of the pair's own, or those of the median of three, 2 K (S - 1) / pi.
    own, typical = variances[0] + variances[1], 2 * sorted(variances)[1] / (stats.chi2.ppf(0.5, 3) / 3)
    assert (own > typical) == shaky
    of_seeds = 3 * own**2 / (variances[0] ** 2 + variances[1] ** 2) if shaky else max(6, 2 / math.pi * 9)
    seeds = max(own, typical) / n_seeds
    # The pair's groups: the two-way table of the differences of the seed means, which has one row a group.
    from_groups = stats.sem(values[0].mean(axis=0) - values[1].mean(axis=0)) ** 2
    assert seeds > residual
    variance = from_groups + seeds - residual
    freedom = variance**2 / (from_groups**2 / (groups - 1) + seeds * (seeds - residual) / of_seeds)
    assert pair.p == pytest.approx(2 * stats.t.sf(abs(pair.difference) / variance**0.5, freedom))


def test_where_one_network_does_all_of_the_varying_the_degrees_of_freedom_are_its_own() -> None:
    # Seed means 0 1 2 and 0 0 0, the same in all groups: variances 1 and 0. Welch: 2 (1 + 0)^2 / (1^2 + 0) = 2.
    values = np.stack([np.array([0.0, 1, 2]), np.zeros(3), np.zeros(3)])[..., None].repeat(30, axis=-1)
    errors, _ = _errors_of_architectures(values, np.zeros((3, 3), dtype=bool))
    assert errors.freedom[0] == pytest.approx(2)
    assert errors.error[0] == pytest.approx((1 / 3) ** 0.5)


def test_degrees_of_freedom_do_not_vanish() -> None:
    # The residual nearly takes away what the seeds and the groups give: without a floor the degrees of freedom are
    # close to 0, and the interval of the difference has a length with twenty digits.
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=(3, 2, 10))
        errors, own = _errors_of_architectures(values, np.zeros((3, 2), dtype=bool))
        assert (errors.freedom >= 1).all()
        assert (own.freedom >= 1).all()
        comparison = compare_architectures(values, networks=FIVE[:3], groups=names(10))
        assert all(abs(limit) < 300 for pair in comparison.pairs for limit in pair.interval)


def test_without_any_seed_variance_it_is_the_paired_t_test() -> None:
    values = np.repeat(scores(2, 15)[:, None], 3, axis=1)
    comparison = compare_architectures(values, networks=["a", "b"], groups=names(15))
    expected = stats.ttest_rel(*values[[1, 0], 0])
    (pair,) = comparison.pairs
    assert pair.first == "b"
    assert pair.p == pytest.approx(expected.pvalue)
    assert pair.interval == pytest.approx(tuple(expected.confidence_interval()))
    alone = stats.ttest_1samp(values[0, 0], 0).confidence_interval()
    _, low, high = bootstrap_mean(values[0, 0], groups=names(15))
    assert comparison.intervals["a"] == pytest.approx((min(alone.low, low), max(alone.high, high)))


def steady_and_shaky() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    groups = scores(1, 12)[0]
    noise = np.random.default_rng(0).normal(size=(4, 12)) * 0.03
    steady = np.stack([groups + noise[0]] * 3)
    also = np.stack([groups + noise[1] - 0.03] * 3)
    shaky = np.stack([groups + noise[2] + shift for shift in (-0.03, 0.02, 0.07)])
    too = np.stack([groups + noise[3] + shift for shift in (-0.06, 0.01, 0.04)])
    return steady, also, shaky, too


def width(*networks: np.ndarray, collapsed: np.ndarray | None = None) -> float:
    comparison = compare_architectures(
        np.stack(networks), networks=FIVE[: len(networks)], groups=names(12), collapsed=collapsed
    )
    low, high = by_name(comparison)[frozenset("ab")].interval
    return high - low


def test_seed_variance_is_the_pairs_own_or_the_typical_one_if_larger() -> None:
    steady, also, shaky, too = steady_and_shaky()
    assert width(steady, also, shaky, too) > 1.5 * width(steady, also), "four trainings say more of chance than two"
    assert width(steady, also, shaky) == pytest.approx(width(steady, also)), "one of three is not typical"
    assert width(shaky, also, steady) == pytest.approx(width(shaky, also, steady, also + 0.01)), "its own is the larger"


def test_a_dead_seed_of_another_network_leaves_a_comparison_as_it_is() -> None:
    values = np.random.default_rng(1).normal(size=(3, 3, 40)) * 0.05 + 0.7
    values[0] += 0.08
    values += np.random.default_rng(2).normal(size=(3, 3, 1)) * 0.008
    dead = values.copy()
    dead[2, 1] = 0.0
    collapsed = np.zeros((3, 3), dtype=bool)
    collapsed[2, 1] = True
    one, with_dead = (
        by_name(compare_architectures(array, networks=["a", "b", "c"], groups=names(40), collapsed=lost))
        for array, lost in ((values, None), (dead, collapsed))
    )
    before, after = one[frozenset("ab")], with_dead[frozenset("ab")]
    assert before.claim
    assert after.claim
    assert after.interval == pytest.approx(before.interval, abs=0.02)
    assert not with_dead[frozenset("ac")].claim, "whose own error is what the collapse makes it"


def test_seeds_are_not_paired_between_networks() -> None:
    values = np.stack([scores(3, 12, seed=seed) for seed in range(3)], axis=1)
    one = compare_architectures(values, networks=FIVE[:3], groups=names(12))
    values[0] = values[0, [2, 0, 1]]
    other = compare_architectures(values, networks=FIVE[:3], groups=names(12))
    for pair, twin in zip(one.pairs, other.pairs, strict=True):
        assert pair.p == pytest.approx(twin.p)


def test_a_difference_between_trainings_is_none_between_architectures() -> None:
    # Two trainings each; the seed moves a whole network by more than the networks differ.
    rng = np.random.default_rng(0)
    base = rng.normal(size=40) * 0.1 + 0.7
    noise = rng.normal(size=(2, 2, 40)) * 0.01
    values = base + noise + np.array([[0.06, 0.0], [0.0, 0.0]])[..., None]
    (weights,) = compare_weights(values[:, 0], networks=["a", "b"], groups=names(40)).pairs
    (architectures,) = compare_architectures(values, networks=["a", "b"], groups=names(40)).pairs
    assert weights.claim
    assert not architectures.claim
    averaged = stats.wilcoxon(values[0].mean(axis=0) - values[1].mean(axis=0)).pvalue
    assert averaged < 1e-6, "which a test that averages the seeds away would claim"


def test_seldom_false_where_averaging_seeds_away_often_is() -> None:
    rng = np.random.default_rng(0)
    false = averaged = 0
    for _ in range(60):
        values = rng.normal(size=60) * 0.15 + rng.normal(size=(5, 3, 1)) * 0.02 + rng.normal(size=(5, 3, 60)) * 0.06
        false += any(pair.claim for pair in compare_architectures(values, networks=FIVE, groups=names(60)).pairs)
        by_rank = compare_weights(values.mean(axis=1), networks=FIVE, groups=names(60), draws=10)
        averaged += any(pair.p_adjusted < 0.05 for pair in by_rank.pairs)
    assert false <= 6, "6 or fewer of 60 in 97 % of the times that it is 5 %"
    assert averaged >= 20


# --- more than one figure at a time ---


@pytest.mark.parametrize("seeds", [1, 3])
def test_simultaneous_intervals_are_wider_and_agree_with_the_claims(seeds: int) -> None:
    values = np.stack([scores(5, 40, seed=seed) for seed in range(seeds)], axis=1)
    compare = compare_architectures if seeds > 1 else compare_weights
    comparison = compare(values if seeds > 1 else values[:, 0], networks=FIVE, groups=names(40))
    claims = [pair for pair in comparison.pairs if pair.claim]
    assert claims
    assert len(claims) < 10
    for pair in comparison.pairs:
        assert pair.simultaneous[1] > pair.interval[1]
        if pair.claim:
            assert pair.simultaneous[0] >= 0
        else:
            assert pair.simultaneous[0] < pair.interval[0]
            assert pair.simultaneous[0] < 0
    if seeds == 1:
        # Student's t at 0.05 over ten pairs.
        pair = claims[0]
        difference = values[FIVE.index(pair.first), 0] - values[FIVE.index(pair.second), 0]
        expected = stats.ttest_1samp(difference, 0).confidence_interval(1 - 0.05 / 10)
        assert pair.simultaneous == pytest.approx(tuple(expected))


def test_no_interval_reaches_beyond_the_range_of_the_score() -> None:
    values = np.random.default_rng(0).random((3, 2, 3))
    values[0, 0] *= 0.05
    free = compare_architectures(values, networks=FIVE[:3], groups=names(3))
    held = compare_architectures(values, networks=FIVE[:3], groups=names(3), limits=(0, 1))
    assert any(pair.interval[0] < -1 for pair in free.pairs)
    for pair, other in zip(held.pairs, free.pairs, strict=True):
        if other.interval[0] <= -1 and other.interval[1] >= 1:
            assert all(math.isnan(limit) for limit in pair.interval), "one that leaves nothing out says nothing"
        else:
            assert pair.interval == pytest.approx((max(-1, other.interval[0]), min(1, other.interval[1])))
    assert any("as wide as the range of the score" in text for text in held.warnings)
    for low, high in held.intervals.values():
        assert math.isnan(low) or 0 <= low <= high <= 1
    distances = compare_architectures(
        values, networks=FIVE[:3], groups=names(3), larger_is_better=False, limits=(0, math.inf)
    )
    assert all(low >= 0 for low, _ in distances.intervals.values())


# Dunnett, JASA 1955, table 1a: one-sided 5 % points for 2, 4 and 9 treatments beside the control.
@pytest.mark.parametrize(
    ("freedom", "points"), [(5, (2.44, 2.85, 3.30)), (10, (2.15, 2.47, 2.81)), (20, (2.03, 2.30, 2.60))]
)
def test_dunnetts_points_are_those_of_his_table(freedom: int, points: tuple[float, ...]) -> None:
    found = [float(_dunnett(others, np.array(float(freedom)))) for others in (2, 4, 9)]
    assert found == pytest.approx(points, abs=0.006)


def test_dunnetts_points_are_the_multivariate_t() -> None:
    for others, freedom in ((1, 4.0), (3, 7.3), (4, 2.2), (9, 300.0)):
        point = float(_dunnett(others, np.array(freedom)))
        shape = np.full((others, others), 0.5) + 0.5 * np.eye(others)
        chance = (
            stats.multivariate_t(shape=shape, df=freedom, seed=0).cdf(np.full(others, point))
            if others > 1
            else stats.t.cdf(point, freedom)
        )
        assert chance == pytest.approx(0.95, abs=1e-3)


def test_comparisons_with_the_best_are_those_of_scipys_dunnett() -> None:
    rng = np.random.default_rng(4)
    samples = [rng.normal(mean, 1, size=12) for mean in (10.0, 9.6, 8.4, 10.3)]
    means = np.array([sample.mean() for sample in samples])
    pooled = np.mean([sample.var(ddof=1) for sample in samples])
    errors = _Errors(np.full(6, (pooled * 2 / 12) ** 0.5), np.full(6, 4 * 11.0), np.zeros(6), np.zeros(6))
    low, high, rivals, shown = _deficits(means, errors)
    # Dunnett's lower limits of every other one over each in turn as the control.
    over = np.full((4, 4), -np.inf)
    for control in range(4):
        others = [at for at in range(4) if at != control]
        result = stats.dunnett(
            *(samples[at] for at in others),
            control=samples[control],
            alternative="greater",
            rng=np.random.default_rng(0),
        )
        over[control, others] = result.confidence_interval(0.95).low
    assert shown == pytest.approx(np.maximum(over.max(axis=1), 0), abs=0.01)
    assert shown[2] > 0
    possible = [at for at in range(4) if over[at].max() <= 0]
    assert possible == [0, 1, 3]
    assert low == pytest.approx([min(0, over[at].max()) for at in range(4)], abs=0.01)
    # It may be worse than each that may be the best by the upper limit of that one over it.
    for at in range(4):
        half = [means[other] - means[at] - over[at, other] for other in range(4)]
        expected = max(0, *(means[other] - means[at] + half[other] for other in possible if other != at))
        assert high[at] == pytest.approx(expected, abs=0.02)
        assert high[at] == 0 or (rivals[at] in possible and rivals[at] != at)


def test_each_network_beside_the_best_of_the_others() -> None:
    values = scores(3, 40, step=0.1)
    comparison = compare_weights(values, networks=["a", "b", "c"], groups=names(40))
    best, second, last = comparison.to_best
    assert [one.network for one in comparison.to_best] == ["c", "b", "a"]
    assert best.deficit == pytest.approx(-second.deficit)
    assert (best.high, best.worse_by) == (0, 0), "shown to be the best"
    assert best.low < best.deficit < 0
    assert second.low == last.low == 0, "shown not to be the best"
    assert 0 < second.worse_by < second.deficit < second.high
    mirrored = compare_weights(-values, networks=["a", "b", "c"], groups=names(40), larger_is_better=False)
    assert mirrored.to_best == comparison.to_best
    alike = compare_weights(scores(3, 40, step=0.0), networks=["a", "b", "c"], groups=names(40))
    assert all(one.low < 0 < one.high and one.worse_by == 0 for one in alike.to_best)


def one_collapsed() -> np.ndarray:
    """Five networks, three seeds, 20 groups; of the third one seed fell to 0.05."""
    rng = np.random.default_rng(0)
    base = rng.normal(0.78, 0.03, 20) + np.array([0.01, 0, 0.005, -0.005, -0.01])[:, None, None]
    values = base + rng.normal(0, 0.004, (5, 3, 1)) + rng.normal(0, 0.01, (5, 3, 20))
    values[2, 1] = 0.05
    return values


@pytest.mark.parametrize("larger", [True, False])
def test_no_network_may_be_worse_by_more_than_is_left_above_it(larger: bool) -> None:
    values, limits = one_collapsed(), (0.0, 1.0)
    lost = values.mean(axis=2) < 0.1
    if not larger:
        values, limits = 1 - values, (0.0, math.inf)  # the best is 0, the worst has no bound
    comparison = compare_architectures(
        values, networks=FIVE, groups=names(20), larger_is_better=larger, limits=limits, collapsed=lost
    )
    for one in comparison.to_best:
        left = abs((1 if larger else 0) - comparison.means[one.network])
        assert 0 <= one.deficit <= one.high <= left + 1e-12 or one.deficit < 0 <= one.high <= left + 1e-12
    assert {one.rival for one in comparison.to_best if one.network != FIVE[2]} == {FIVE[2]}
    assert comparison.to_best[0].high == pytest.approx(abs((1 if larger else 0) - comparison.means[FIVE[0]]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_chance_of_two_to_be_worse_is_that_of_students_t(seeds: int) -> None:
    values = np.stack([scores(2, 20, seed=seed, step=0.02) for seed in range(seeds)], axis=1)
    compare = compare_architectures if seeds > 1 else compare_weights
    comparison = compare(values if seeds > 1 else values[:, 0], networks=["a", "b"], groups=names(20))
    (pair,) = comparison.pairs
    covariance = np.array(comparison.covariance)
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    if seeds == 1:
        assert error == pytest.approx(stats.sem(values[0, 0] - values[1, 0]))
    chances = chances_worse(comparison, margin=0.01)
    assert chances[pair.second] == pytest.approx(
        stats.t.sf((0.01 - pair.difference) / error, comparison.freedom[0]), abs=0.01
    )
    assert chances[pair.first] == pytest.approx(
        stats.t.sf((0.01 + pair.difference) / error, comparison.freedom[0]), abs=0.01
    )


def test_with_few_degrees_of_freedom_no_eligible_network_is_surely_worse() -> None:
    rng = np.random.default_rng(3)
    lower = np.array([0.0, 0.12])[:, None, None] + np.array([[0.0, 0.025], [0.0, 0.03]])[..., None]
    values = 0.8 + rng.normal(0, 0.01, (1, 1, 5)) - lower + rng.normal(0, 0.005, (2, 2, 5))
    comparison = compare_architectures(values, networks=["a", "b"], groups=names(5))
    assert comparison.freedom[0] < 3
    covariance = np.array(comparison.covariance)
    error = (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) ** 0.5
    assert stats.norm.sf((0.01 - comparison.pairs[0].difference) / error) > 0.99, "what the normal distribution says"
    assert comparison.to_best[1].worse_by < 0.06
    margin = comparison.to_best[1].worse_by
    assert chances_worse(comparison, margin=margin)["b"] == pytest.approx(0.95, abs=0.01), "a one-sided 95 % limit"


@pytest.mark.parametrize(("count", "total"), [(0, 3), (1, 3), (2, 5), (5, 5)])
def test_a_rate_has_the_exact_interval(count: int, total: int) -> None:
    rate = exact_rate(count, total)
    assert rate.share == count / total
    assert rate.interval == pytest.approx(tuple(stats.binomtest(count, total).proportion_ci(method="exact")))


def test_what_a_test_set_cannot_have_seen_is_told_by_the_rule_of_three() -> None:
    assert "fewer than 11% of all patients" in unseen(25)
    assert "in these 300 groups" in unseen(300)
    assert "fewer than 1%" in unseen(300)  # 3 in 300


def test_two_seeds_and_an_unstable_network_are_warned_of() -> None:
    steady, also, shaky, _ = steady_and_shaky()
    values = np.stack([steady + np.array([0, 0.01, 0.02])[:, None], also, shaky])
    values[1] += np.array([0.01, 0.0, 0.02])[:, None]
    groups = names(12)
    (text,) = compare_architectures(values, networks=["a", "b", "c"], groups=groups).warnings
    assert text.startswith("c varies from seed to seed by more than 3 times as much as the others, ")
    assert compare_architectures(values[:2], networks=["a", "b"], groups=groups).warnings == []
    (text,) = compare_architectures(values[:2, :2], networks=["a", "b"], groups=groups).warnings
    assert text.startswith("Two seeds a network")
    assert compare_weights(values[:, 0], networks=["a", "b", "c"], groups=groups).warnings == []


# --- what cannot be claimed ---


@pytest.mark.parametrize("seeds", [1, 3])
def test_five_networks_need_nine_groups(seeds: int) -> None:
    rng = np.random.default_rng(0)
    values = 0.1 * np.arange(5)[:, None, None] + 0.01 * rng.random((5, seeds, 9))

    def compare(groups: int) -> Comparison:
        part = values[..., :groups]
        if seeds == 1:
            return compare_weights(part[:, 0], networks=FIVE, groups=names(groups))
        return compare_architectures(part, networks=FIVE, groups=names(groups))

    eight, nine = compare(8), compare(9)
    assert eight.smallest_adjusted_p == pytest.approx(10 * 2 / 2**8)
    assert not any(pair.claim for pair in eight.pairs)
    (sentence,) = eight.refusals
    assert "5 networks" in sentence
    assert "8 groups" in sentence
    assert "0.078" in sentence
    assert "9 groups or more" in sentence
    assert eight.cliques == [["e", "d", "c", "b", "a"]]
    assert nine.smallest_adjusted_p == pytest.approx(10 * 2 / 2**9)
    assert all(pair.claim for pair in nine.pairs)
    assert nine.refusals == []
    assert nine.cliques == []
    if seeds == 1:
        assert min(pair.p_adjusted for pair in nine.pairs) == pytest.approx(nine.smallest_adjusted_p)


@pytest.mark.parametrize("seed", range(8))
def test_cliques_are_the_largest_sets_without_a_claim(seed: int) -> None:
    comparison = compare_weights(scores(6, 20, seed=seed, step=0.05), networks=list("abcdef"), groups=names(20))
    claims = {key for key, pair in by_name(comparison).items() if pair.claim}
    assert claims
    subsets = [set(c) for n in range(2, 7) for c in itertools.combinations("abcdef", n)]
    alike = [s for s in subsets if not any(frozenset(p) in claims for p in itertools.combinations(s, 2))]
    largest = [s for s in alike if not any(s < other for other in alike)]
    assert sorted(map(sorted, comparison.cliques)) == sorted(map(sorted, largest))
    for clique in comparison.cliques:
        assert clique == sorted(clique, key=comparison.networks.index)


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("constant", [False, True])
def test_identical_models(seeds: int, constant: bool) -> None:
    one = np.full(12, 0.3) if constant else scores(1, 12)[0]
    values = np.broadcast_to(one, (3, seeds, 12))
    if seeds == 1:
        comparison = compare_weights(values[:, 0], networks=FIVE[:3], groups=names(12))
        assert comparison.omnibus is not None
        assert comparison.omnibus["friedman_p"] == 1
        assert comparison.average_ranks == {"a": 2, "b": 2, "c": 2}
    else:
        comparison = compare_architectures(values, networks=FIVE[:3], groups=names(12))
    for pair in comparison.pairs:
        assert (pair.difference, pair.p, pair.p_adjusted, pair.effect, pair.ties) == (0, 1, 1, 0, 12)
        assert pair.interval == (0, 0)
        assert not pair.claim
    assert comparison.cliques == [["a", "b", "c"]]
    if constant:
        assert comparison.intervals["a"] == pytest.approx((0.3, 0.3))


def test_a_constant_difference_has_no_t_test_but_a_sign() -> None:
    values = np.stack([np.full((2, 12), 0.4), np.full((2, 12), 0.3), np.full((2, 12), 0.3)])
    found = by_name(compare_architectures(values, networks=["a", "b", "c"], groups=names(12)))
    assert math.isnan(found[frozenset("ab")].p)
    assert math.isnan(found[frozenset("ab")].p_adjusted)
    assert not found[frozenset("ab")].claim
    assert found[frozenset("bc")].p_adjusted == 1
    weights = by_name(compare_weights(values[:, 0], networks=["a", "b", "c"], groups=names(12)))
    assert weights[frozenset("ab")].p == pytest.approx(2 / 2**12)
    assert weights[frozenset("ab")].claim


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_group(seeds: int) -> None:
    values = np.random.default_rng(0).random((3, seeds, 4))
    groups = ["only"] * 4
    if seeds == 1:
        comparison = compare_weights(values[:, 0], networks=FIVE[:3], groups=groups)
        assert comparison.omnibus is None
    else:
        comparison = compare_architectures(values, networks=FIVE[:3], groups=groups)
    assert comparison.n_groups == 1
    assert comparison.smallest_adjusted_p == 1
    assert "1 group " in comparison.refusals[0]
    assert not any(pair.claim for pair in comparison.pairs)
    assert all(math.isnan(limit) for limit in comparison.intervals["a"])
    assert all(math.isnan(limit) for pair in comparison.pairs for limit in pair.interval)
    assert comparison.means["a"] == pytest.approx(values[0].mean())


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_network(seeds: int) -> None:
    values = np.random.default_rng(0).random((1, seeds, 12))
    if seeds == 1:
        comparison = compare_weights(values[:, 0], networks=["a"], groups=names(12))
        assert comparison.intervals["a"] == pytest.approx(bootstrap_mean(values[0, 0], groups=names(12))[1:])
    else:
        comparison = compare_architectures(values, networks=["a"], groups=names(12))
    assert comparison.pairs == []
    assert comparison.cliques == []
    assert "nothing to compare" in comparison.refusals[0]
    low, high = comparison.intervals["a"]
    assert low < comparison.means["a"] < high


def test_two_networks_have_no_omnibus() -> None:
    comparison = compare_weights(scores(2, 12), networks=["a", "b"], groups=names(12))
    assert comparison.omnibus is None


def test_what_is_refused() -> None:
    values = scores(3, 6)
    broken = values.copy()
    broken[1, 2:4] = np.nan, np.inf
    for function in (compare_weights, rank_stability):
        with pytest.raises(ValueError, match=r"not finite: b \(2\)$"):
            function(broken, networks=FIVE[:3], groups=names(6))
        with pytest.raises(ValueError, match=r"\(3, 6\).* 2 networks"):
            function(values, networks=FIVE[:2], groups=names(6))
        with pytest.raises(ValueError, match=r"5 cases"):
            function(values, networks=FIVE[:3], groups=names(5))
        with pytest.raises(ValueError, match="named twice: a, b, a"):
            function(values, networks=["a", "b", "a"], groups=names(6))
        with pytest.raises(ValueError, match="nothing to compare"):
            function(np.zeros((3, 0)), networks=FIVE[:3], groups=[])
    with pytest.raises(ValueError, match="not finite"):
        bootstrap_mean(broken[1], groups=names(6))
    with pytest.raises(ValueError, match=r"not finite: b \(4\)"):
        compare_architectures(np.stack([broken, broken], axis=1), networks=FIVE[:3], groups=names(6))
    with pytest.raises(ValueError, match="two seeds or more"):
        compare_architectures(values[:, None], networks=FIVE[:3], groups=names(6))
    with pytest.raises(ValueError, match="do not fit"):
        compare_architectures(values, networks=FIVE[:3], groups=names(6))
