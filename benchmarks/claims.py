"""How often the rule of ``compare`` says "better" when nothing is, and how often when something is.

Run: ``OMP_NUM_THREADS=1 python benchmarks/claims.py [--draws 400] [--seed 0] [--output docs/claims.md]``

Five networks are scored on the same cases. The score of network a, seed s, case c is ::

    difficulty[c] + effect[a] + spread * seed[a, s] + interaction * own[a, c] + chance * noise[a, s, c]

``difficulty`` is shared by all networks: whole groups of cases, with their sizes, are drawn with replacement from a
real ``cases.csv``, so that its skew and the likeness of a group's cases are those of the data. ``seed``, ``own`` and
``noise`` are standard normal: how far a whole training is off, what one architecture finds easier than another, and
what one training finds easier than the next; the last two are alike for cases of one group. ``spread`` is the standard
deviation of a whole model's mean Dice over seeds, varied in the table; ``interaction`` and ``chance`` come from real
runs (`components`). Scores are not cut at 1, so that the truth is known exactly.

With one seed the question is about these weights, whose truth contains the luck of their seed: "better" is false where
the better network's own truth is not larger. With more seeds it is about architectures, and ``effect`` is the truth.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import gc
import json
import platform
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from monai_thyroid.compare.statistics import ALPHA, Comparison, compare_architectures, compare_weights
from monai_thyroid.files import atomic_path

CASES = Path(__file__).resolve().parents[1] / "docs/results/thyroid/unet-128-seed-0.csv"
# Of Dice, from real runs on the thyroid set: see docs/claims.md. LIKENESS is the correlation of both between cases of
# one group.
INTERACTION, CHANCE, LIKENESS = 0.035, 0.056, 0.2

GROUPS = (10, 30, 60, 120)
SEEDS = (1, 3, 5)
SPREADS = (0.0, 0.006, 0.012, 0.02)
# Beyond the grid: two seeds; networks of which one has twice the spread and two have none; equal means of which one
# comes about by failing in some cases and being a little better in all others.
SCALES = {"": (1.0,) * 5, "unequal": (2.0, 1.0, 0.5, 0.0, 0.0), "failing": (1.0,) * 5}
FAILS, LOSS = 0.05, 0.5
HARDER = [(g, 2, 0.02, "") for g in GROUPS] + [(g, s, 0.02, "unequal") for s in (2, 3, 5) for g in (60, 120)]
HARDER += [(g, s, 0.0, "failing") for s in (1, 3) for g in (10, 60, 120)]
NETWORKS = list("abcde")
PLANTED = 0.03
BOOTSTRAP = 1000


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


def draw(
    rng: np.random.Generator, pool: list[np.ndarray], n_groups: int, n_seeds: int, spread: float, kind: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (networks, seeds, cases) without any effect, groups (cases,), and the seeds' shifts (networks, seeds)."""
    chosen = [pool[i] for i in rng.integers(len(pool), size=n_groups)]
    groups = np.repeat(np.arange(n_groups), [len(scores) for scores in chosen])
    difficulty = np.concatenate(chosen)
    shifts = spread * np.array(SCALES[kind])[:, None] * rng.normal(size=(5, n_seeds))

    def normal(seeds: int) -> np.ndarray:
        shared, alone = rng.normal(size=(5, seeds, n_groups)), rng.normal(size=(5, seeds, difficulty.size))
        return LIKENESS**0.5 * shared[..., groups] + (1 - LIKENESS) ** 0.5 * alone

    own, noise = INTERACTION * normal(1), CHANCE * normal(n_seeds)
    values = difficulty + shifts[..., None] + own + noise
    if kind == "failing":
        values[0] += LOSS * (FAILS - (rng.random(difficulty.size) < FAILS))
    return values, groups, shifts


def naive(values: np.ndarray, truth: np.ndarray) -> bool:
    """Whether the paired t test over images (of the seed averages, with Holm) says something false."""
    pairs = list(combinations(range(5), 2))
    differences = np.array([values[i] - values[j] for i, j in pairs])
    return false_claim(differences.mean(axis=1), stats.ttest_1samp(differences, 0, axis=1).pvalue, truth)


def false_claim(differences: np.ndarray, p: np.ndarray, truth: np.ndarray) -> bool:
    """Whether a pair is called different in a direction that is not true."""
    claimed = multipletests(p, alpha=ALPHA, method="holm")[1] < ALPHA
    true = np.array([truth[i] - truth[j] for i, j in combinations(range(5), 2)])
    return bool((claimed & (differences * true <= 0)).any())


def ask(values: np.ndarray, groups: np.ndarray) -> Comparison:
    """The rule: the question that so many seeds allow."""
    if values.shape[1] == 1:
        return compare_weights(values[:, 0], networks=NETWORKS, groups=groups, draws=BOOTSTRAP)
    return compare_architectures(values, networks=NETWORKS, groups=groups)


def simulate(
    pool: list[np.ndarray], n_groups: int, n_seeds: int, spread: float, kind: str, draws: int, seed: int
) -> dict[str, float]:
    """Shares of draws, of pairs or of networks for one cell of the grid."""
    rng = np.random.default_rng([seed, n_groups, n_seeds, round(1e4 * spread), list(SCALES).index(kind)])
    population = float(np.mean([scores.mean() for scores in pool]))
    sums: dict[str, float] = defaultdict(float)
    widths = []
    for _ in range(draws):
        values, groups, shifts = draw(rng, pool, n_groups, n_seeds, spread, kind)
        # One seed: the truth of these weights has their shift in it.
        truth = shifts[:, 0] if n_seeds == 1 else np.zeros(5)
        own_truth = dict(zip(NETWORKS, truth, strict=True))
        found = ask(values, groups)
        sums["false"] += any(pair.claim and own_truth[pair.first] <= own_truth[pair.second] for pair in found.pairs)
        for pair in found.pairs:
            difference = own_truth[pair.first] - own_truth[pair.second]
            sums["covered"] += (pair.interval[0] <= difference <= pair.interval[1]) / 10
            widths.append(pair.interval[1] - pair.interval[0])
        for name, (low, high) in found.intervals.items():
            sums["covered_alone"] += (low <= population + own_truth[name] <= high) / 5

        # What others do, read as it is read: about architectures, which do not differ.
        averaged = values.mean(axis=1)
        sums["naive"] += naive(averaged, np.zeros(5))
        by_rank = compare_weights(averaged, networks=NETWORKS, groups=groups, draws=1) if n_seeds > 1 else found
        sums["wilcoxon"] += any(pair.p_adjusted < ALPHA for pair in by_rank.pairs)

        values[0] += PLANTED
        better = ask(values, groups)
        said = sum(pair.claim and pair.first == "a" for pair in better.pairs)
        sums["power"] += said / 4
        sums["any"] += said > 0
    return {**{name: total / draws for name, total in sums.items()}, "width": float(np.median(widths))}


def row(groups: int, seeds: int, spread: float, kind: str, cell: dict[str, float]) -> str:
    """A line of the table."""
    shares = [cell[name] for name in ("false", "power", "any", "covered", "covered_alone", "naive", "wilcoxon")]
    first, *rest = [f"{100 * share:.1f}" for share in shares]
    question = "weights" if seeds == 1 else "architectures"
    spread_text = f"{spread:g}, {kind}" if kind else f"{spread:g}"
    fields = [question, groups, seeds, spread_text, first, *rest[:3], f"{cell['width']:.3f}", *rest[3:]]
    return f"| {' | '.join(map(str, fields))} |"


COLUMNS = (
    "question",
    "groups",
    "seeds",
    "spread",
    'false "better" %',
    "power, pair %",
    "power, any %",
    "pairs covered %",
    "width",
    "networks covered %",
    "naive t: false %",
    "averaged Wilcoxon: false %",
)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def tables(pool: list[np.ndarray], draws: int, seed: int) -> tuple[str, str]:
    """The grid and what is beyond it, as Markdown."""
    grid = [(g, s, spread, "") for s in SEEDS for g in GROUPS for spread in SPREADS]
    texts = []
    for cells in (grid, HARDER):
        lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
        for cell in cells:
            lines.append(row(*cell, simulate(pool, *cell, draws, seed)))
            print(lines[-1], flush=True)
        texts.append("\n".join(lines))
    return texts[0], texts[1]


def main() -> None:
    """Simulate, print and write the tables between the markers of the document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, nargs="+", help="only print the components of these run folders")
    parser.add_argument("--interaction", type=float, default=INTERACTION, help="default %(default)s")
    parser.add_argument("--chance", type=float, default=CHANCE, help="default %(default)s")
    parser.add_argument("--output", type=Path, help="document whose tables are replaced")
    arguments = parser.parse_args()
    globals().update(INTERACTION=arguments.interaction, CHANCE=arguments.chance)
    if arguments.runs:
        print(components(arguments.runs))
        return
    pool = real_groups(CASES)
    # statsmodels collects garbage in every correction: let there be little to look through.
    gc.collect()
    gc.freeze()
    start = time.perf_counter()
    grid, harder = tables(pool, arguments.draws, arguments.seed)
    error = 100 * (ALPHA * (1 - ALPHA) / arguments.draws) ** 0.5
    about = (
        f"`OMP_NUM_THREADS=1 python benchmarks/claims.py --draws {arguments.draws} --seed {arguments.seed}`, "
        f"{datetime.date.today()}, {processor()}, one core, {(time.perf_counter() - start) / 60:.0f} min. "
        f"{arguments.draws} draws a row: the Monte-Carlo standard error of 5 % is {error:.1f} points. "
        f"Interaction {INTERACTION}, chance {CHANCE}, likeness {LIKENESS}."
    )
    print(about)
    if arguments.output:
        text = arguments.output.read_text("utf-8")
        for name, content in {"about": about, "grid": grid, "harder": harder}.items():
            begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
            before, rest = text.split(begin)
            text = before + begin + content + "\n" + end + rest.split(end)[1]
        with atomic_path(arguments.output) as temporary:
            temporary.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
