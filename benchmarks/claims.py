"""How often the rule of ``compare`` says "better" when nothing is, and how often when something is.

Run: ``OMP_NUM_THREADS=1 python benchmarks/claims.py [--draws 2000] [--seed 0] [--output docs/claims.md]``

Networks are scored on the same cases. The score of network a, seed s, case c is ::

    difficulty[c] + effect[a] + spread * seed[a, s] + interaction * own[a, c] + chance * noise[a, s, c]

``difficulty`` is shared by all networks: groups of cases, with their sizes, are drawn with replacement from a real
``cases.csv``, so that its skew and the likeness of a group's cases are those of the data. ``seed``, ``own`` and
``noise`` are standard normal: how far a whole training is off, what one architecture finds easier than another, and
what one training finds easier than the next; the last two are alike for cases of one group. ``spread`` is the standard
deviation of a whole model's mean Dice over seeds; ``interaction`` and ``chance`` come from real runs (`components`).
Scores are not cut at 1, so that the truth is known exactly. Drawn are the means of groups, all draws at once, and the
package's own functions judge them; in every cell they are held against `compare_architectures` for one draw.

Kinds of cells beside the plain one: *failures*, every training loses 0.5 Dice in 5 % of the cases, each in others;
*failing*, one network does, in the same cases in all its trainings, and is better by 0.025 in all, so that the means
are equal; *rare*, a network is worse by 0.8 in a tenth of the groups; *unstable*, one network has four times the spread
(16 times the variance); *unequal*, groups have one to some thirty cases, a third of them fewer than three; *collapsed*,
a training of the last network is worse by 0.5 and known to have collapsed.

The former rule, kept here alone, took the mean of the networks' seed variances, Satterthwaite's degrees of freedom,
Holm's correction, and a margin that a network had to be shown to lie within.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats

from monai_thyroid.compare import statistics as rule
from monai_thyroid.compare.decisions import Decision, decide, decided
from monai_thyroid.compare.power import Components, power
from monai_thyroid.compare.statistics import ALPHA, compare_architectures, compare_weights
from monai_thyroid.files import atomic_path, write_csv

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "docs/results/thyroid/unet-128-seed-0.csv"
# Of Dice, from real runs on the thyroid set: see docs/claims.md. LIKENESS is the correlation of both between cases of
# one group.
INTERACTION, CHANCE, LIKENESS = 0.035, 0.056, 0.2
FAILS, LOSS, UNSTABLE, COLLAPSE, RARE, RARE_LOSS = 0.05, 0.5, 4.0, 0.5, 0.1, 0.8
PLANTED, PLANTED_BESIDE_COLLAPSE, MARGIN = 0.03, 0.06, 0.01
WORTH = 0.03  # margin of the verdicts
NETWORKS, SEEDS, GROUPS, SPREADS = (2, 3, 5, 10), (2, 3, 5), (10, 25, 60, 120), (0.0, 0.006, 0.012, 0.03)
AT_ONCE = 4_000_000  # numbers drawn at once


@dataclass(frozen=True)
class Cell:
    """What is drawn: so many networks, seeds and groups, the spread over seeds, and which kind."""

    networks: int
    seeds: int
    groups: int
    spread: float
    kind: str = ""


@dataclass(frozen=True)
class Drawn:
    """Scores without any effect, larger is better.

    Attributes:
        scores: (draws, networks, seeds, groups).
        collapsed: (networks, seeds).
        truth: (draws, networks), of each by itself.
        seen: (draws,), whether what fails in rare cases does so in one of these at all.
    """

    scores: np.ndarray
    collapsed: np.ndarray
    truth: np.ndarray
    seen: np.ndarray


def real_groups(path: Path) -> list[np.ndarray]:
    """Dice of the cases of each group of a ``cases.csv``."""
    found = defaultdict(list)
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found[row["group"]].append(float(row["dice"]))
    return [np.array(scores) for scores in found.values()]


def components(runs: list[Path]) -> dict[str, float]:
    """Standard deviations of interaction, chance and spread from run folders, the same seeds of each network.

    Mean squares of networks by seeds by cases; a negative component is 0.
    """
    scores: dict[tuple[str, int], dict[str, float]] = {}
    for run in runs:
        record = json.loads((run / "run.json").read_text("utf-8"))
        (cases,) = run.glob("evaluations/*-test/cases.csv")
        with open(cases, newline="", encoding="utf-8") as file:
            values = {row["case"]: float(row["dice"]) for row in csv.DictReader(file)}
        scores[run.parent.name, record["seed"]] = values
    networks, seeds = sorted({network for network, _ in scores}), sorted({seed for _, seed in scores})
    names = sorted(next(iter(scores.values())))
    values = np.array([[[scores[network, seed][name] for name in names] for seed in seeds] for network in networks])
    k, s, c = values.shape
    by_case, by_seed, all_of_it = values.mean(axis=1), values.mean(axis=2), values.mean(axis=(1, 2))
    chance = ((values - by_case[:, None] - by_seed[..., None] + all_of_it[:, None, None]) ** 2).sum()
    chance /= k * (s - 1) * (c - 1)
    own = ((by_case - by_case.mean(axis=0) - all_of_it[:, None] + all_of_it.mean()) ** 2).sum() / ((k - 1) * (c - 1))
    spread = by_seed.var(axis=1, ddof=1).mean()
    return {
        "interaction": float(max(own - chance / s, 0) ** 0.5),
        "chance": float(chance**0.5),
        "spread": float(max(spread - chance / c, 0) ** 0.5),
    }


def draw(rng: np.random.Generator, pool: Sequence[np.ndarray], cell: Cell, draws: int) -> Drawn:
    """Means of groups of so many comparisons of a cell."""
    k, s, g = cell.networks, cell.seeds, cell.groups
    chosen = rng.integers(len(pool), size=(draws, g))
    sizes = np.array([len(scores) for scores in pool])[chosen]
    if cell.kind == "unequal":
        sizes = rng.geometric(0.15, size=(draws, g))
    difficulty = np.array([scores.mean() for scores in pool])[chosen]
    alike = np.sqrt(LIKENESS + (1 - LIKENESS) / sizes)[:, None, None, :]
    scores = CHANCE * rng.normal(size=(draws, k, s, g))
    scores += INTERACTION * rng.normal(size=(draws, k, 1, g))
    scores *= alike
    scores += difficulty[:, None, None, :]
    scales = np.full(k, cell.spread)
    if cell.kind == "unstable":
        scales[0] *= UNSTABLE
    shifts = scales[:, None] * rng.normal(size=(draws, k, s))
    scores += shifts[..., None]
    seen = np.ones(draws, dtype=bool)
    if cell.kind == "failing":
        failed = rng.binomial(sizes, FAILS)
        scores[:, 0] += (LOSS * (FAILS - failed / sizes))[:, None]
        seen = failed.any(axis=-1)
    if cell.kind == "failures":
        scores += LOSS * (FAILS - rng.binomial(sizes[:, None, None], FAILS, size=scores.shape) / sizes[:, None, None])
    # One seed: the truth of these weights has their shift in it.
    truth = shifts[..., 0] if s == 1 else np.zeros((draws, k))
    if cell.kind == "rare":
        scores[:, 0] -= RARE_LOSS * (rng.random((draws, g)) < RARE)[:, None]
        truth[:, 0] -= RARE_LOSS * RARE
    return Drawn(scores, np.zeros((k, s), dtype=bool), truth, seen)


def chunks(cell: Cell, draws: int) -> Iterator[int]:
    """Draws at a time, so that they fit the memory."""
    most = max(50, AT_ONCE // (cell.networks * cell.seeds * cell.groups))
    while draws > 0:
        yield min(most, draws)
        draws -= most


def generator(cell: Cell, seed: int) -> np.random.Generator:
    """One of its own for every cell."""
    return np.random.default_rng([seed, *f"{cell}".encode()])


# --- the former rule ---


def former_errors(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and degrees of freedom of all differences, (draws, pairs)."""
    k, s, g = scores.shape[1:]
    by_group, by_seed = scores.mean(axis=2), scores.mean(axis=3)
    variances = by_seed.var(axis=2, ddof=1)
    rest = scores - by_group[:, :, None] - by_seed[..., None] + by_seed.mean(axis=2)[..., None, None]
    shared = (rest**2).sum(axis=(2, 3)) / ((g - 1) * (s - 1) * g * s)
    i, j = np.triu_indices(k, 1)
    groups = (by_group[:, i] - by_group[:, j]).var(axis=2, ddof=1) / g
    seeds = np.maximum(variances[:, i] + variances[:, j], 2 * variances.mean(axis=1)[:, None]) / s
    variance = groups + np.maximum(seeds - shared[:, i] - shared[:, j], 0)
    return variance**0.5, variance**2 / (groups**2 / (g - 1) + seeds**2 / (2 * (s - 1)))


def holm(p: np.ndarray) -> np.ndarray:
    """Adjusted p of (..., tests)."""
    order = np.argsort(p, axis=-1)
    steps = np.take_along_axis(p, order, axis=-1) * np.arange(p.shape[-1], 0, -1)
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(np.maximum.accumulate(steps, axis=-1), 1), axis=-1)
    return adjusted


# --- cells of architectures ---


def claims(adjusted: np.ndarray, cell: Cell) -> np.ndarray:
    """Which pairs are called different; none where the rule refuses."""
    return (adjusted < ALPHA) & (not rule._attainable(cell.networks, cell.groups)[1])


def judged(drawn: Drawn, cell: Cell) -> tuple[np.ndarray, rule._Errors, np.ndarray, np.ndarray]:
    """Differences of means, their errors by the rule, and error and degrees of freedom by the former one."""
    means = drawn.scores.mean(axis=(2, 3))
    i, j = np.triu_indices(cell.networks, 1)
    errors, _ = rule._errors_of_architectures(drawn.scores, drawn.collapsed)
    error, freedom = former_errors(drawn.scores)
    return means[:, i] - means[:, j], errors, error, freedom


def hold(drawn: Drawn, difference: np.ndarray, errors: rule._Errors, cell: Cell) -> None:
    """The functions that judge all draws at once say what the rule says of the first."""
    names = [f"n{at:02d}" for at in range(cell.networks)]
    said = compare_architectures(
        drawn.scores[0], networks=names, groups=[f"g{at}" for at in range(cell.groups)], collapsed=drawn.collapsed
    )
    found = {frozenset((pair.first, pair.second)): pair for pair in said.pairs}
    adjusted = rule._step_down(rule._t_p(difference[0], rule._Errors(*(part[0] for part in errors))), cell.networks)
    for at, (first, second) in enumerate(combinations(names, 2)):
        pair = found[frozenset((first, second))]
        assert np.isclose(pair.p_adjusted, adjusted[at], rtol=1e-6), (cell, pair)
        assert pair.claim == bool(claims(adjusted, cell)[at]), (cell, pair)


def architectures(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """Shares of draws or of pairs, in percent, of the rule and of the former one."""
    rng = generator(cell, seed)
    sums: dict[str, float] = defaultdict(float)
    widths: dict[str, list[float]] = defaultdict(list)
    of_first = np.triu_indices(cell.networks, 1)[0] == 0
    pairs = len(of_first)
    for size in chunks(cell, draws):
        drawn = draw(rng, pool, cell, size)
        difference, errors, error, freedom = judged(drawn, cell)
        if not sums:
            hold(drawn, difference, errors, cell)
        planted = difference + PLANTED * of_first
        for name, one, degrees, adjust in (
            ("", errors.error, errors.freedom, lambda p: rule._step_down(p, cell.networks)),
            ("former ", error, freedom, holm),
        ):
            p = 2 * stats.t.sf(np.abs(difference) / one, degrees)
            wrong = claims(adjust(p), cell).any(axis=-1)
            sums[f"{name}false"] += wrong.sum()
            sums[f"{name}false seen"] += (wrong & drawn.seen).sum()
            sums[f"{name}covered"] += (p >= ALPHA).mean(axis=-1).sum()
            joint = p * pairs >= ALPHA if not name else p >= ALPHA
            sums[f"{name}joint"] += joint.all(axis=-1).sum()
            said = claims(adjust(2 * stats.t.sf(np.abs(planted) / one, degrees)), cell) & (planted > 0)
            sums[f"{name}power"] += said[:, of_first].mean(axis=-1).sum()
            mine = said & of_first
            sums[f"{name}claims"] += mine.sum()
            sums[f"{name}overstated"] += planted[mine].sum() / PLANTED
            # Of claimed pairs the interval that is quoted beside them: formerly each by itself.
            sums[f"{name}claimed missed"] += (mine & ~joint).sum()
            widths[f"{name}width"] += (2 * stats.t.ppf(1 - ALPHA / 2, degrees) * one).mean(axis=-1).tolist()
        sums["seen"] += drawn.seen.sum()
        sums["warned"] += sum(
            bool(rule._seed_warnings(by_seed, drawn.collapsed, [str(at) for at in range(cell.networks)]))
            for by_seed in drawn.scores[: min(size, 200)].mean(axis=3)
        ) * (size / min(size, 200))
        low, high, *_ = rule._deficits(drawn.scores.mean(axis=(2, 3)), errors)
        sums["best joint"] += ((low <= 0) & (high >= 0)).all(axis=-1).sum()  # all are equal
    found = {name: 100 * total / draws for name, total in sums.items()}
    for name in ("", "former "):
        found[f"{name}false seen"] = 100 * sums[f"{name}false seen"] / max(sums["seen"], 1)
        made = max(sums[f"{name}claims"], 1)
        found[f"{name}overstated"] = sums[f"{name}overstated"] / made if sums[f"{name}claims"] >= 20 else np.nan
        found[f"{name}claimed missed"] = 100 * sums[f"{name}claimed missed"] / made
        found[f"{name}width"] = float(np.median(widths[f"{name}width"]))
    return found


def quoted(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """One network is better: whether all intervals as they are quoted, ends at 0 of later steps too, hold the truth."""
    rng = generator(cell, seed)
    of_first = np.triu_indices(cell.networks, 1)[0] == 0
    sums: dict[str, float] = defaultdict(float)
    for size in chunks(cell, draws):
        drawn = draw(rng, pool, cell, size)
        difference, errors, _, _ = judged(drawn, cell)
        missed = (rule._t_p(difference, errors) * len(of_first) < ALPHA).any(axis=-1)
        planted = difference + PLANTED * of_first
        said = claims(rule._step_down(rule._t_p(planted, errors), cell.networks), cell)
        wrong = (said & (~of_first | (planted < 0))).any(axis=-1)
        sums["false"] += wrong.sum()
        sums["joint"] += (~missed & ~wrong).sum()
    return {name: 100 * total / draws for name, total in sums.items()}


def averaged(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """False claims of what others do: seeds averaged away, or one seed, a test over groups, Holm's correction."""
    rng = generator(cell, seed)
    i, j = np.triu_indices(cell.networks, 1)
    sums: dict[str, float] = defaultdict(float)
    for size in chunks(cell, draws):
        means = draw(rng, pool, cell, size).scores.mean(axis=2)
        differences = means[:, i] - means[:, j]
        for name, p in (
            ("t", stats.ttest_1samp(differences, 0, axis=-1).pvalue),
            ("Wilcoxon", stats.wilcoxon(differences, axis=-1, method="approx").pvalue),
        ):
            sums[name] += (holm(p) < ALPHA).any(axis=-1).sum()
    return {name: 100 * total / draws for name, total in sums.items()}


def beside_collapse(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """Power for a network that is better by 0.06 over those but the last, without and with a collapse of that."""
    rng = generator(cell, seed)
    sums: dict[str, float] = defaultdict(float)
    i, j = np.triu_indices(cell.networks, 1)
    others = j < cell.networks - 1
    wanted = others & (i == 0)
    for size in chunks(cell, draws):
        drawn = draw(rng, pool, cell, size)
        lost = drawn.collapsed.copy()
        lost[-1, 0] = True
        worse = drawn.scores.copy()
        worse[:, -1, 0] -= COLLAPSE
        for suffix, one in (("without", drawn), ("with", Drawn(worse, lost, drawn.truth, drawn.seen))):
            difference, errors, error, freedom = judged(one, cell)
            planted = difference + PLANTED_BESIDE_COLLAPSE * (i == 0)
            for name, of, degrees, adjust in (
                ("", errors.error, errors.freedom, lambda p: rule._step_down(p, cell.networks)),
                ("former ", error, freedom, holm),
            ):
                said = claims(adjust(2 * stats.t.sf(np.abs(planted) / of, degrees)), cell) & (planted > 0)
                sums[f"{name}power {suffix}"] += said[:, wanted].mean(axis=-1).sum()
                first = 2 * stats.t.sf(np.abs(planted) / of, degrees) * len(i) < ALPHA
                sums[f"{name}first step {suffix}"] += first[:, wanted].mean(axis=-1).sum()
                said = claims(adjust(2 * stats.t.sf(np.abs(difference) / of, degrees)), cell)
                sums[f"{name}false {suffix}"] += said[:, others].any(axis=-1).sum()
    return {name: 100 * total / draws for name, total in sums.items()}


# --- the choice ---


def choice(pool: Sequence[np.ndarray], cell: Cell, effect: float, draws: int, seed: int) -> dict[str, float]:
    """What is eligible and chosen when the networks' effects are normal with that standard deviation.

    Stability and cost have nothing to do with the score here: the choice among the eligible is by chance.
    """
    rng = generator(cell, seed + round(1000 * effect))
    sums: dict[str, float] = defaultdict(float)
    i, j = np.triu_indices(cell.networks, 1)
    itself = np.eye(cell.networks, dtype=bool)
    for size in chunks(cell, draws):
        drawn = draw(rng, pool, cell, size)
        effects = effect * rng.normal(size=(size, cell.networks))
        means = drawn.scores.mean(axis=(2, 3)) + effects
        truth = drawn.truth + effects
        by_group = drawn.scores.mean(axis=2)
        if cell.seeds > 1:
            errors, own = rule._errors_of_architectures(drawn.scores, drawn.collapsed)
            covariance = rule._group_covariance(by_group) + own.seeds[..., None] * np.eye(cell.networks)
            error, freedom = former_errors(drawn.scores)
        else:
            errors = rule._errors_of_means(by_group[:, i] - by_group[:, j])
            covariance = rule._group_covariance(by_group)
            error, freedom = errors.error, errors.freedom
        low, high, _, shown = rule._deficits(means, errors)
        to_others = np.where(itself, -np.inf, truth[:, None, :] - truth[:, :, None]).max(axis=-1)
        sums["joint"] += ((low <= to_others) & (to_others <= high)).all(axis=-1).sum()
        deficit = truth.max(axis=-1, keepdims=True) - truth
        order = rng.permuted(np.tile(np.arange(cell.networks), (size, 1)), axis=1)
        eligible = shown <= MARGIN
        half = np.zeros((size, cell.networks, cell.networks))
        half[:, i, j] = half[:, j, i] = stats.t.ppf(1 - ALPHA / 2, freedom) * error
        best = means.argmax(axis=-1)
        rows = np.arange(size)
        within = means[rows, best][:, None] - means + half[rows, best] <= MARGIN
        within[rows, best] = True
        for name, one in (("", eligible), ("former ", within)):
            chosen = np.where(one, order, cell.networks).argmin(axis=-1)
            sums[f"{name}eligible"] += one.sum() / 100
            sums[f"{name}has best"] += one[rows, truth.argmax(axis=-1)].sum()
            sums[f"{name}worse"] += (deficit[rows, chosen] > MARGIN).sum()
            if not name:
                said = rule._chances_worse(means, covariance, errors.freedom, MARGIN, draws=500, seed=seed)
                sums["said"] += said[rows, chosen].sum()
    return {name: 100 * total / draws for name, total in sums.items()}


# --- cells of weights, and of networks by themselves ---


def weights(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """As `architectures`, for one seed: the truth of these weights contains the luck of their seed."""
    rng = generator(cell, seed)
    names = [f"n{at:02d}" for at in range(cell.networks)]
    groups = [f"g{at}" for at in range(cell.groups)]
    sums: dict[str, float] = defaultdict(float)
    for _ in range(draws):
        drawn = draw(rng, pool, cell, 1)
        truth = dict(zip(names, drawn.truth[0], strict=True))
        found = compare_weights(drawn.scores[0, :, 0], networks=names, groups=groups, draws=1000)
        pairs = len(found.pairs)
        real = [truth[pair.first] - truth[pair.second] for pair in found.pairs]
        sums["false"] += any(pair.claim and one <= 0 for pair, one in zip(found.pairs, real, strict=True))
        holds = [pair.interval[0] <= one <= pair.interval[1] for pair, one in zip(found.pairs, real, strict=True)]
        sums["covered"] += sum(holds) / pairs
        sums["former joint"] += all(holds)
        sums["joint"] += all(
            pair.simultaneous[0] <= one <= pair.simultaneous[1] for pair, one in zip(found.pairs, real, strict=True)
        )
        corrected = holm(np.array([pair.p for pair in found.pairs]))
        sums["former false"] += any(
            p < ALPHA and pair.interval[0] > 0 and pair.effect > 0 and one <= 0
            for pair, p, one in zip(found.pairs, corrected, real, strict=True)
        )
        planted = drawn.scores[0, :, 0].copy()
        planted[0] += PLANTED
        better = compare_weights(planted, networks=names, groups=groups, draws=1000)
        said = [pair.claim and pair.first == names[0] for pair in better.pairs]
        sums["power"] += sum(said) / (cell.networks - 1)
        corrected = holm(np.array([pair.p for pair in better.pairs]))
        sums["former power"] += sum(
            p < ALPHA and pair.interval[0] > 0 and pair.effect > 0 and pair.first == names[0]
            for pair, p in zip(better.pairs, corrected, strict=True)
        ) / (cell.networks - 1)
    return {name: 100 * total / draws for name, total in sums.items()}


def alone(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """How many intervals of networks by themselves hold the truth; of the failing one, and of all."""
    rng = generator(cell, seed)
    population = float(np.mean([scores.mean() for scores in pool]))
    covered = np.zeros(cell.networks)
    for _ in range(draws):
        drawn = draw(rng, pool, cell, 1)
        names, groups = [f"n{at}" for at in range(cell.networks)], [f"g{at}" for at in range(cell.groups)]
        if cell.seeds > 1:
            found = compare_architectures(drawn.scores[0], networks=names, groups=groups)
        else:
            found = compare_weights(drawn.scores[0, :, 0], networks=names, groups=groups)
        truth = population + drawn.truth[0]
        covered += [low <= one <= high for one, (low, high) in zip(truth, map(found.intervals.get, names), strict=True)]
    return {"first": 100 * covered[0] / draws, "others": 100 * covered[1:].mean() / draws}


# --- verdicts at a margin, and the plan ---


def verdicts(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """Verdicts where all networks are alike, and where every other one is worse by exactly the margin.

    The second is where an equivalence and a "not inferior" are false and most often said. With one seed they are
    those on the weights; there must be no spread, as it would be a part of the truth.
    """
    rng = generator(cell, seed)
    names, groups = [f"n{at:02d}" for at in range(cell.networks)], [f"g{at}" for at in range(cell.groups)]
    i, j = np.triu_indices(cell.networks, 1)
    effects = -WORTH * (np.arange(cell.networks) % 2)
    sums: dict[str, float] = defaultdict(float)
    for number, size in enumerate(chunks(cell, draws) if cell.seeds > 1 else [1] * draws):
        drawn = draw(rng, pool, cell, size)
        for name, shift in (("alike", np.zeros(cell.networks)), ("apart", effects)):
            real = shift[i] - shift[j]
            if cell.seeds == 1:
                found = compare_weights(
                    drawn.scores[0, :, 0] + shift[:, None], networks=names, groups=groups, draws=1000
                )
                words, alone, joint = (np.array(part)[None] for part in in_order(found, names))
            else:
                words, alone, joint = at_once(drawn, cell, real)
                if not number:
                    shifted = drawn.scores[0] + shift[:, None, None]
                    package = in_order(compare_architectures(shifted, networks=names, groups=groups), names)
                    assert (words[0] == package[0]).all(), (cell, name)
                    assert np.allclose(joint[0], package[2], atol=1e-6), (cell, name)
            better, worse, equivalent, fine, reverse_fine = (words[..., at] for at in range(5))
            sums[f"{name} covered"] += ((alone[..., 0] <= real) & (real <= alone[..., 1])).mean(axis=-1).sum()
            sums[f"{name} jointly"] += ((joint[..., 0] <= real) & (real <= joint[..., 1])).all(axis=-1).sum()
            if name == "alike":
                sums["false better"] += (better | worse).any(axis=-1).sum()
                sums["equivalent"] += equivalent.mean(axis=-1).sum()
                sums["not inferior"] += (fine | reverse_fine).mean(axis=-1).sum()
            else:
                apart, behind = real != 0, real < 0
                sums["false equivalent"] += (equivalent & apart).any(axis=-1).sum()
                wrong = np.where(behind, fine, reverse_fine)[:, apart]
                sums["false not inferior"] += wrong.mean(axis=-1).sum()
                astray = (better & ~(real > 0)) | (worse & ~behind) | (equivalent & apart)
                sums["any false"] += astray.any(axis=-1).sum()
                sums["better"] += np.where(behind, worse, better)[:, apart].mean(axis=-1).sum()
    return {name: 100 * total / draws for name, total in sums.items()}


def at_once(drawn: Drawn, cell: Cell, real: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Words (draws, pairs, 5) and both intervals (draws, pairs, 2) of all draws, as `in_order` has them of one."""
    difference, errors, _, _ = judged(drawn, cell)
    means = difference + real
    said = claims(rule._step_down(rule._t_p(means, errors), cell.networks), cell)
    better, worse = said & (means > 0), said & (means < 0)
    alone = np.stack(rule._t_interval(means, errors, ALPHA), axis=-1)
    joint = np.stack(rule._t_interval(means, errors, ALPHA / len(real)), axis=-1)
    joint[..., 0] = np.where(better, np.maximum(joint[..., 0], 0), joint[..., 0])
    joint[..., 1] = np.where(worse, np.minimum(joint[..., 1], 0), joint[..., 1])
    _, equivalent, fine, reverse_fine = decided(better, joint, alone, WORTH)
    return np.stack([better, worse, equivalent, fine, reverse_fine], axis=-1), alone, joint


def in_order(found: rule.Comparison, names: Sequence[str]) -> tuple[list, list, list]:
    """Words and both intervals of the package for each pair of the networks in the order of their names.

    Words are better, worse, equivalent, not inferior, and not inferior the other way round; several can be true.
    """
    words, alone, joint = [], [], []
    both = {frozenset((pair.first, pair.second)): (pair, one) for pair, one in paired(found)}
    for first, second in combinations(names, 2):
        pair, one = both[frozenset((first, second))]
        turned = one.first == second
        own, together = ((-x[1], -x[0]) if turned else x for x in (pair.interval, pair.simultaneous))
        better = one.verdict == "better"
        _, _, fine, reverse_fine = decided(np.array(better), np.array(together), np.array(own), WORTH)
        words.append([better and not turned, better and turned, one.within_margin, bool(fine), bool(reverse_fine)])
        alone.append(own)
        joint.append(together)
    return words, alone, joint


def paired(found: rule.Comparison) -> Iterator[tuple[rule.Pair, Decision]]:
    """Every pair with the decision on it."""
    return zip(found.pairs, decide(found, margin=WORTH), strict=True)


def planned(pool: Sequence[np.ndarray], cell: Cell, draws: int, seed: int) -> dict[str, float]:
    """The power for 0.03 by simulation, and as the planner tells it from the same components."""
    simulated = (architectures if cell.seeds > 1 else weights)(pool, cell, draws, seed)["power"]
    # The root of the mean square over the sizes of groups.
    alike = float(np.mean([LIKENESS + (1 - LIKENESS) / len(scores) for scores in pool])) ** 0.5
    components = Components(INTERACTION * alike, CHANCE * alike, cell.spread, "the simulation")
    said = power(
        components, networks=cell.networks, seeds=cell.seeds, groups=cell.groups, difference=PLANTED, draws=10_000
    )
    share = simulated / 100
    return {"simulated": simulated, "planned": 100 * said, "error": 100 * (share * (1 - share) / draws) ** 0.5}


# --- the document ---


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """As Markdown; numbers with one decimal."""

    def text(value: object) -> str:
        if isinstance(value, float):
            return "–" if np.isnan(value) else f"{value:.1f}"
        return str(value)

    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *(f"| {' | '.join(map(text, row))} |" for row in rows)])


def span(values: Sequence[float]) -> str:
    """From least to greatest."""
    low, high = ("0.0" if -0.05 < value < 0 else f"{value:.1f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


Found = dict[Cell, dict[str, float]]


def summary(found: Found, kinds: Sequence[str]) -> str:
    """Of each number of networks and seeds, the range over groups and spreads."""
    columns = [
        *("networks", "seeds", "kind", 'false "better" %, most', "at groups, spread", "former, most"),
        *("pairs covered %", "former"),
        *("all pairs jointly %, least", "former", "power for 0.03 %, mean", "former", "warned %"),
    ]
    rows = []
    for kind in kinds:
        for k in NETWORKS:
            for s in SEEDS:
                own = [one for cell, one in found.items() if (cell.networks, cell.seeds, cell.kind) == (k, s, kind)]
                if not own:
                    continue

                def of(name: str, own: list[dict[str, float]] = own) -> list[float]:
                    return [one[name] for one in own]

                worst = max(found, key=lambda cell: (found[cell] in own, found[cell]["false"]))
                rows.append(
                    [
                        *(k, s, kind or "plain", max(of("false")), f"{worst.groups}, {worst.spread:g}"),
                        max(of("former false")),
                        *(span(of("covered")), span(of("former covered")), min(of("joint")), min(of("former joint"))),
                        *(float(np.mean(of("power"))), float(np.mean(of("former power"))), span(of("warned"))),
                    ]
                )
    return table(columns, rows)


def findings(every: Sequence[dict[str, object]]) -> str:
    """What the cells say, in sentences."""

    def of(what: str, name: str, kinds: str = "", seeds: Sequence[int] = (3, 5), **fixed: object) -> list[float]:
        return [
            one[name]
            for one in every
            if one["of"] == what
            and one["kind"] in kinds.split(",")
            and one["seeds"] in seeds
            and all(one[key] == value for key, value in fixed.items())
        ]

    def lost(networks: Sequence[int], seeds: Sequence[int], name: str = "power") -> str:
        of_cell = {"what": "beside_collapse", "kinds": "collapsed", "seeds": seeds}
        return span(
            [
                before - after
                for k in networks
                for before, after in zip(
                    of(name=f"{name} without", networks=k, **of_cell),
                    of(name=f"{name} with", networks=k, **of_cell),
                    strict=True,
                )
            ]
        )

    def choices(effect: float, name: str) -> list[float]:
        return of("choice", name, seeds=(1, 3), effect=effect)

    def most(name: str, kinds: str = "", seeds: Sequence[int] = (3, 5), what: str = "architectures", **fixed) -> str:
        return f"{max(of(what, name, kinds, seeds, **fixed)):.1f}"

    def least(name: str, seeds: Sequence[int] = (3, 5), what: str = "architectures") -> str:
        return f"{min(of(what, name, '', seeds)):.1f}"

    def covered(name: str, seeds: Sequence[int]) -> str:
        return span(of("architectures", name, "", seeds))

    def missed(name: str) -> list[float]:
        shares = of("architectures", f"{name}claimed missed", "", any_)
        return [x for x, n in zip(shares, of("architectures", f"{name}claims", "", any_), strict=True) if n >= 5]

    both, two, any_ = (1, 3), (2,), (2, 3, 5)
    warned = [np.mean(of("architectures", "warned", "unstable", spread=0.03)), np.mean(of("architectures", "warned"))]
    said, true = ({effect: choices(effect, name) for effect in (0.0, 0.01, 0.03)} for name in ("said", "worse"))
    apart = max(abs(x - y) for x, y in zip(said[0.03], true[0.03], strict=True))
    overstated = [x for x in of("architectures", "overstated", "", any_) if not np.isnan(x)]
    told = [
        f"**False claims** with three seeds or five: at most {most('false')} % in the plain cells (former rule "
        f"{most('former false')} %), {most('false', 'unequal,failures')} % with unequal groups or with failures of "
        "every "
        f"training ({most('former false', 'unequal,failures')} %). With two seeds {most('false', '', two)} % "
        f"({most('former false', '', two)} %), before which the report warns.",
        f"**One unstable network**: at most {most('false', 'unstable')} % with three seeds or five, "
        f"{most('false', 'unstable', two)} % with two (former rule {most('former false', 'unstable')} and "
        f"{most('former false', 'unstable', two)} %). With three seeds or five the report warns of it in "
        f"{warned[0]:.0f} % "
        f"of draws where the spread is 0.03, and in {warned[1]:.0f} % of the plain ones.",
        "**One network that fails in rare cases** and is a little better in all others is the exception: up to "
        f"{most('false', 'failing')} % (former rule {most('former false', 'failing')} %). Most of it comes of test "
        "sets in "
        "which not one failure occurs (table below), and no test of such a set can know. The report says what so many "
        "groups cannot have seen.",
        f"**Intervals of pairs** cover {covered('covered', (3, 5))} % in plain cells with three seeds or five "
        "(former rule "
        f"{covered('former covered', (3, 5))} %), {covered('covered', two)} % with two "
        f"({covered('former covered', two)} %). All pairs together are covered by simultaneous intervals in "
        f"{least('joint')} % at least, with two seeds {least('joint', two)} %; by the former ones, each by itself, in "
        f"{least('former joint')} %.",
        f"**A collapsed seed of another network** costs {lost((5, 10), (3, 5))} points of power with five or ten "
        f"networks and three seeds or five, {lost((3,), (3, 5))} with three networks; with two seeds "
        f"{lost((3, 5, 10), two)}. Under the former rule the power was "
        f"{most('former power with', 'collapsed', any_, 'beside_collapse')} % at most. With three networks a part of "
        "it is "
        "not of the error: without a collapse the best differs from the third as well, which lets the correction step "
        f"down. The share of simultaneous intervals that leave 0 out falls by {lost((3,), (3, 5), 'first step')} "
        "points.",
        f"**The choice**: {span(of('choice', 'eligible', '', both))} networks are eligible on average, formerly "
        f"{span(of('choice', 'former eligible', '', both))}; the truly best is among them in "
        f"{least('has best', both, 'choice')} % at least, formerly in {least('former has best', both, 'choice')} %. "
        "Hsu's "
        f"intervals cover together in {least('joint', both, 'choice')} % at least. Where networks differ by a standard "
        "deviation of 0.03, the choice is said to be worse than the best by more than 0.01 with a probability of "
        f"{np.mean(said[0.03]):.1f} % on average and is so in {np.mean(true[0.03]):.1f} %, apart by at most "
        f"{apart:.1f} "
        f"points in a cell; by 0.01, {np.mean(said[0.01]):.1f} and {np.mean(true[0.01]):.1f} %; where all are equal, "
        f"{np.mean(said[0.0]):.1f} % are said and none is true. It errs to the side of doubt.",
        f"**Where one network is better** (by 0.03, 60 groups), {most('false', 'one better', what='quoted')} % of "
        "draws at "
        "most have a false claim, and all intervals as they are quoted, those that end at 0 too, hold the truth in "
        f"{min(of('quoted', 'joint', 'one better')):.1f} % at least: with three networks the last step of the "
        "correction "
        "has 5 % to itself, which Bonferroni's intervals have spent.",
        f"**A claim overstates** the difference, 0.03 here, by a factor of {span(overstated)}. Where one draw in "
        "twenty has a claim, the simultaneous interval beside it misses the truth in "
        f"{max(missed('')):.1f} % of claims at most, the former one in {max(missed('former ')):.1f} %.",
    ]
    return "\n".join(f"- {text}" for text in told)


def run(pool: Sequence[np.ndarray], draws: int, seed: int) -> tuple[dict[str, str], list[dict[str, object]]]:
    """The tables of the document, and every cell."""
    every: list[dict[str, object]] = []

    def all_of(cells: Iterable[Cell], simulate, draws: int, **more) -> Found:
        found: Found = {}
        for cell in cells:
            found[cell] = simulate(pool, cell, draws=draws, seed=seed, **more)
            every.append({"of": simulate.__name__, **vars(cell), **more, "draws": draws, **found[cell]})
            print(f"{time.perf_counter() - START:.0f} s {every[-1]}", flush=True)
        return found

    texts = {}
    plain = [Cell(k, s, g, spread) for k in NETWORKS for s in SEEDS for g in GROUPS for spread in SPREADS]
    found = all_of(plain, architectures, draws)
    texts["plain"] = summary(found, [""])
    odd = [
        Cell(k, s, g, spread, kind)
        for kind, spreads in (
            *((kind, (0.0, 0.012)) for kind in ("unequal", "failures", "failing")),
            ("unstable", SPREADS[1:]),
        )
        for k in NETWORKS
        for s in SEEDS
        for g in GROUPS
        for spread in spreads
    ]
    strange = all_of(odd, architectures, draws)
    texts["odd"] = summary(strange, ["unequal", "failures", "failing", "unstable"])
    texts["unseen"] = table(
        [
            *("networks", "seeds", "groups", "a failure is among them %", 'false "better" %, then'),
            *("otherwise", "former, then", "otherwise"),
        ],
        [
            [
                *(c.networks, c.seeds, c.groups, one["seen"], one["false seen"], _rest(one, "")),
                *(one["former false seen"], _rest(one, "former ")),
            ]
            for c, one in strange.items()
            if c.kind == "failing" and c.spread == 0 and c.networks in (2, 5) and c.seeds in (3, 5)
        ],
    )
    texts["claimed"] = table(
        [
            *("networks", "seeds", "groups", "spread", "power for 0.03 %", "a claim overstates, times"),
            *("claimed pairs whose quoted interval misses %", "the former interval misses %"),
        ],
        [
            [
                *(c.networks, c.seeds, c.groups, f"{c.spread:g}", one["power"], one["overstated"]),
                *(one["claimed missed"], one["former claimed missed"]),
            ]
            for c, one in found.items()
            if c.networks in (3, 5) and c.seeds == 3 and c.groups in (25, 60) and c.spread in (0.0, 0.012)
        ],
    )
    collapse = all_of(
        [Cell(k, s, g, x, "collapsed") for k in (3, 5, 10) for s in SEEDS for g in (30, 60) for x in (0.006, 0.012)],
        beside_collapse,
        draws,
    )
    texts["collapse"] = table(
        [
            *("networks", "seeds", "groups", "spread", "power without %", "with %", "first step without %", "with %"),
            *("former power without %", "with %", 'false "better" with %'),
        ],
        [
            [
                *(c.networks, c.seeds, c.groups, f"{c.spread:g}", one["power without"], one["power with"]),
                *(one["first step without"], one["first step with"]),
                *(one["former power without"], one["former power with"], one["false with"]),
            ]
            for c, one in collapse.items()
        ],
    )
    rows = []
    for effect in (0.0, 0.01, 0.03):
        cells = [Cell(k, s, g, 0.006 * (s > 1)) for k in NETWORKS for s in (1, 3) for g in (25, 60)]
        for c, one in all_of(cells, choice, draws, effect=effect).items():
            rows.append(
                [
                    *(f"{effect:g}", c.networks, c.seeds, c.groups, f"{one['eligible']:.2f}"),
                    *(f"{one['former eligible']:.2f}", one["has best"], one["former has best"], one["joint"]),
                    *(one["said"], one["worse"], one["former worse"]),
                ]
            )
    texts["choice"] = table(
        [
            *("effects", "networks", "seeds", "groups", "eligible", "former", "truly best is eligible %", "former"),
            *("Hsu's intervals jointly %", "said to be worse by > 0.01 %", "is worse %", "former choice is worse %"),
        ],
        rows,
    )
    usual = [Cell(5, s, g, spread, "averaged") for s in (1, 3, 5) for g in (25, 60, 120) for spread in SPREADS]
    texts["averaged"] = table(
        ["seeds", "groups", "spread", "paired t test: false %", "Wilcoxon's test: false %"],
        [
            [c.seeds, c.groups, f"{c.spread:g}", one["t"], one["Wilcoxon"]]
            for c, one in all_of(usual, averaged, draws).items()
        ],
    )
    better = [Cell(k, s, 60, spread, "one better") for k in NETWORKS for s in (3, 5) for spread in (0.006, 0.012)]
    all_of(better, quoted, draws)
    few = max(draws // 4, 50)
    ones = [Cell(5, 1, g, spread, kind) for kind in ("", "failing") for g in (10, 25, 60, 120) for spread in (0.0,)]
    ones += [Cell(5, 1, 60, 0.012), Cell(2, 1, 25, 0.0), Cell(3, 1, 25, 0.0), Cell(10, 1, 60, 0.0)]
    texts["weights"] = table(
        [
            *("networks", "groups", "spread", "kind", 'false "better" %', "Holm", "pairs covered %"),
            *("all pairs jointly %", "each by itself, jointly %", "power for 0.03 %", "Holm"),
        ],
        [
            [
                *(c.networks, c.groups, f"{c.spread:g}", c.kind or "plain", one["false"], one["former false"]),
                *(one["covered"], one["joint"], one["former joint"], one["power"], one["former power"]),
            ]
            for c, one in all_of(ones, weights, few).items()
        ],
    )
    texts["alone"] = table(
        ["kind", "seeds", "groups", "failing network covered %", "others covered %"],
        [
            [c.kind, c.seeds, c.groups, one["first"], one["others"]]
            for c, one in all_of(
                [
                    Cell(3, s, g, 0.006 * (s > 1), kind)
                    for kind in ("failing", "rare")
                    for s in (1, 3)
                    for g in (10, 60)
                ],
                alone,
                few,
            ).items()
        ],
    )
    texts["findings"] = findings(every)
    return {**texts, **decisions(pool, draws, seed, every)}, every


def decisions(pool: Sequence[np.ndarray], draws: int, seed: int, every: list[dict[str, object]]) -> dict[str, str]:
    """The tables on verdicts and on the planner."""

    def each(cells: Iterable[Cell], simulate) -> Iterator[tuple[Cell, dict[str, float]]]:
        for cell in cells:
            count = draws if cell.seeds > 1 else max(draws // 4, 50)
            found = simulate(pool, cell, draws=count, seed=seed)
            every.append({"of": simulate.__name__, **vars(cell), "draws": count, **found})
            print(f"{time.perf_counter() - START:.0f} s {every[-1]}", flush=True)
            yield cell, found

    cells = [Cell(k, s, g, x) for k in (2, 3, 5) for s in (3, 5) for g in (25, 120) for x in (0.0, 0.006, 0.012)]
    cells += [Cell(5, 1, g, 0.0) for g in (25, 120)]
    texts = {
        "verdicts": table(
            [
                *("networks", "seeds", "groups", "spread", 'false "better" %', 'false "equivalent" %'),
                *("any of the two false %", 'false "not inferior" %, each', "pairs covered %", "all pairs jointly %"),
                *('alike: "equivalent" %', '"not inferior" %', 'apart: "better" %'),
            ],
            [
                [
                    *(c.networks, c.seeds, c.groups, f"{c.spread:g}", one["false better"], one["false equivalent"]),
                    *(one["any false"], one["false not inferior"], one["apart covered"], one["apart jointly"]),
                    *(one["equivalent"], one["not inferior"], one["better"]),
                ]
                for c, one in each(cells, verdicts)
            ],
        )
    }
    cells = [
        *(Cell(2, s, g, x) for s, g, x in ((2, 60, 0.006), (3, 25, 0.0), (3, 60, 0.012), (5, 120, 0.012))),
        *(Cell(3, s, g, x) for s, g, x in ((2, 120, 0.012), (3, 60, 0.006), (5, 25, 0.012))),
        *(Cell(5, s, g, x) for s, g, x in ((3, 60, 0.0), (3, 60, 0.006), (3, 60, 0.012), (5, 60, 0.012))),
        *(Cell(10, s, g, x) for s, g, x in ((3, 120, 0.006), (5, 60, 0.012))),
        *(Cell(k, 1, g, 0.0) for k, g in ((2, 25), (5, 60), (5, 120))),
    ]
    texts["planned"] = table(
        ["networks", "seeds", "groups", "spread", "simulated %", "planned %", "apart", "Monte-Carlo error"],
        [
            [
                *(c.networks, c.seeds, c.groups, f"{c.spread:g}", one["simulated"], one["planned"]),
                *(one["planned"] - one["simulated"], one["error"]),
            ]
            for c, one in each(cells, planned)
        ],
    )
    return texts


def _rest(one: dict[str, float], name: str) -> float:
    """False claims where no failure was among the cases, in percent of these."""
    left = one[f"{name}false"] - one[f"{name}false seen"] * one["seen"] / 100
    return 100 * left / (100 - one["seen"]) if one["seen"] < 99.5 else np.nan


START = time.perf_counter()


def main() -> None:
    """Simulate, print and write the tables between the markers of the document, and every cell beside it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-decisions", action="store_true", help="make only the tables on verdicts and planner")
    parser.add_argument("--runs", type=Path, nargs="+", help="only print the components of these run folders")
    parser.add_argument("--interaction", type=float, default=INTERACTION, help="default %(default)s")
    parser.add_argument("--chance", type=float, default=CHANCE, help="default %(default)s")
    parser.add_argument("--output", type=Path, help="document whose tables are replaced")
    arguments = parser.parse_args()
    globals().update(INTERACTION=arguments.interaction, CHANCE=arguments.chance)
    if arguments.runs:
        print(components(arguments.runs))
        return
    every: list[dict[str, object]] = []
    if arguments.only_decisions:
        texts = decisions(real_groups(CASES), arguments.draws, arguments.seed, every)
    else:
        texts, every = run(real_groups(CASES), arguments.draws, arguments.seed)
    error = 100 * (ALPHA * (1 - ALPHA) / arguments.draws) ** 0.5
    only = " --only-decisions" * arguments.only_decisions
    texts["about decisions" if only else "about"] = (
        f"`OMP_NUM_THREADS=1 python benchmarks/claims.py --draws {arguments.draws} --seed {arguments.seed}{only} "
        f"--output docs/claims.md`, {datetime.date.today()}, {processor()}, one core, "
        f"{(time.perf_counter() - START) / 60:.0f} min. {arguments.draws} draws a cell, "
        "a quarter of them where each is judged by itself (weights, networks by themselves): the Monte-Carlo standard "
        f"error of 5 % is {error:.1f} or {2 * error:.1f} points. "
        f"Interaction {INTERACTION}, chance {CHANCE}, likeness {LIKENESS}."
    )
    for name, text in texts.items():
        print(f"\n{name}\n{text}")
    if arguments.output:
        text = arguments.output.read_text("utf-8")
        for name, content in texts.items():
            begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
            before, rest = text.split(begin)
            text = before + begin + content + "\n" + end + rest.split(end)[1]
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(text, "utf-8")
        columns = list(dict.fromkeys(name for row in every for name in row))
        rows = [{name: _short(row.get(name)) for name in columns} for row in every]
        write_csv(arguments.output.parent / "results" / f"claims{'-decisions' * bool(only)}.csv", columns, rows)


def _short(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


if __name__ == "__main__":
    main()
