"""Judge the kept comparisons of docs/comparison.md anew, from every case of every run.

Run: ``python benchmarks/recompare.py [docs/results/comparison]``

Reads ``<name>-cases.csv`` and, for the chosen weights, ``<name>-summary.csv``; writes ``<name>-pairwise.csv`` and
prints what changed in the claims, and each network beside the best. No seed of these comparisons collapsed.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from monai_thyroid.compare.statistics import chances_worse, compare_architectures, compare_weights
from monai_thyroid.files import read_csv, write_csv

COLUMNS = (
    "dataset part class question metric first second difference low high p p_adjusted effect effect_name wins ties "
    "losses n_groups n_seeds claim simultaneous_low simultaneous_high"
).split()


def main() -> None:
    """Judge every comparison of a folder."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/results/comparison")
    for file in sorted(folder.glob("*-cases.csv")):
        name = file.name.removesuffix("-cases.csv")
        dice: dict[tuple[str, int], dict[str, float]] = defaultdict(dict)
        groups = {}
        for row in read_csv(file):
            dice[row["network"], int(row["seed"])][row["case"]] = float(row["dice"])
            groups[row["case"]] = row["group"]
        networks, seeds, cases = sorted({n for n, _ in dice}), sorted({s for _, s in dice}), sorted(groups)
        summary = read_csv(folder / f"{name}-summary.csv")
        chosen = {row["network"]: int(row["seed"]) for row in summary if row["chosen"] == "True"}
        values = np.array([[[dice[n, s][case] for case in cases] for s in seeds] for n in networks])
        own = np.array([values[at, seeds.index(chosen[network])] for at, network in enumerate(networks)])
        options = {"networks": networks, "groups": [groups[case] for case in cases], "limits": (0.0, 1.0)}
        former = {
            (row["question"], frozenset((row["first"], row["second"]))): row["claim"] == "True"
            for row in read_csv(folder / f"{name}-pairwise.csv")
        }
        rows = []
        for comparison in (compare_weights(own, **options), compare_architectures(values, **options)):
            changed = []
            for pair in comparison.pairs:
                if former[comparison.question, frozenset((pair.first, pair.second))] != pair.claim:
                    changed.append(f"{pair.first} over {pair.second} {'is' if pair.claim else 'is no longer'} claimed")
                head = {key: summary[0][key] for key in ("dataset", "part", "class")}
                rows.append(
                    {
                        **head,
                        **{key: value for key, value in vars(pair).items() if key in COLUMNS},
                        **{"question": comparison.question, "metric": "dice"},
                        **dict(zip(("low", "high"), pair.interval, strict=True)),
                        **dict(zip(("simultaneous_low", "simultaneous_high"), pair.simultaneous, strict=True)),
                        **{"n_groups": comparison.n_groups, "n_seeds": comparison.n_seeds},
                    }
                )
                if pair.claim:
                    print(
                        f"  {pair.first} over {pair.second}: {pair.difference:.3f}, by itself {_told(pair.interval)}, "
                        f"simultaneous {_told(pair.simultaneous)}, adjusted p {pair.p_adjusted:.2g}"
                    )
            print(f"{name}, {comparison.question}: {'; '.join(changed) or 'no claim changed'}")
            worse = chances_worse(comparison, margin=0.01)
            for one in comparison.to_best:
                low, high = comparison.intervals[one.network]
                print(
                    f"  {one.network}: {comparison.means[one.network]:.3f} ({low:.3f} to {high:.3f}); shown to be "
                    f"worse than the best by more than {one.worse_by:.3f}, at most {one.high:.3f}; worse by more than "
                    f"0.01 with probability {worse[one.network]:.0%}"
                )
            for text in comparison.warnings:
                print(f"  {text}")
        write_csv(folder / f"{name}-pairwise.csv", COLUMNS, rows)


def _told(interval: tuple[float, float]) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}"


if __name__ == "__main__":
    main()
