"""Write docs/results.md from every kept score: each bundle, seeds, intervals, and what others publish beside it.

Run: ``python benchmarks/results.py [RUN_OR_FOLDER ...] [--output docs/results.md]``

Reads ``docs/results/<bundle>/results.json``, which says what was trained on what, where and when, and the ``cases.csv``
that it names. Run folders that are given are added at the end, one table a dataset; theirs say it all themselves.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.compare import Run, bootstrap_mean, find_runs
from monai_thyroid.errors import UserError, tell_on_exit
from monai_thyroid.files import atomic_path, read_csv, read_json
from monai_thyroid.metrics import agreement, summarise

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "results.md"
ORDER = ("thyroid", "thyroid_gland", "fetal_head", "nerve", "polyp", "lung")

HEAD = """# Results

Made by `python benchmarks/results.py` from the kept scores of every case (`results/`), and from the run folders that it
is given. By hand is only what stands in `results/*/results.json`: data, split, machine, date, and what others publish.

How to read the tables:

- **Dice [95 %]**: the mean over groups (patients, examinations, scenes) of the mean over their images, and its
  bootstrap interval over groups; of several seeds each image's mean over them. Where patients are unknown, every image
  is a group, and the interval is too narrow by what images of one patient share. An interval says nothing of another
  training: that is what the seeds are for. *Per image* is the plain mean over images, which most others publish.
- Everything is scored on the original image grid; an image without an object scores 1 if nothing is marked and 0
  otherwise, a missed object 0 ([scoring.md](scoring.md)). *Misses*: images with an object of which no pixel was found.
  *False alarms*: images without one in which something was marked.
- **Pooled**: of the pixels of all images together, as many publish them: large objects decide.
- **The second table** is of images, not groups; of several seeds each figure is the mean over them, the median too.
- Differences of a few hundredths between tables say nothing: other data, other splits, one seed. Which network is
  better is asked in [comparison.md](comparison.md), by the rule of [claims.md](claims.md).
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN_OR_FOLDER")
    parser.add_argument("--output", default=str(PAGE), metavar="FILE")
    options = parser.parse_args()
    text = page(options.runs)
    with atomic_path(options.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(options.output)


def page(runs: Sequence[str] = ()) -> str:
    """The whole page in Markdown, ending with a line break.

    Args:
        runs: run folders, or folders above them, to be added.

    Raises:
        UserError: a kept table is named by no results.json or the other way round, or a run cannot be read.
    """
    check_kept()
    lines = [HEAD]
    for bundle in ORDER:
        lines += _of_bundle(bundle, read_json(KEPT / bundle / "results.json"))
    lines += _of_runs(runs)
    return "\n".join(lines).rstrip() + "\n"


def check_kept() -> None:
    """Raise a `UserError` where a kept table is named nowhere, or a named one is not kept."""
    problems = []
    others = "".join(
        path.read_text("utf-8") for path in (*ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.py")) if path != PAGE
    )
    for folder in sorted(path for path in KEPT.iterdir() if path.is_dir()):
        if folder.name not in ORDER:
            if f"results/{folder.name}" not in others:
                problems.append(f"{folder}: neither a bundle's, nor told of by a page or a benchmark")
            continue
        if not (folder / "results.json").is_file():
            problems.append(f"{folder}: no results.json says what these are")
            continue
        try:
            book = read_json(folder / "results.json")
        except ValueError as error:
            problems.append(f"{folder / 'results.json'}: is no JSON ({error})")
            continue
        named = {name for one in book["results"] for name in _files(one)}
        kept = {path.name for path in folder.glob("*.csv")}
        problems += [f"{folder / name}: named by no results.json" for name in sorted(kept - named)]
        problems += [f"{folder / name}: named by results.json, but not there" for name in sorted(named - kept)]
        if named <= kept:
            problems += [problem for one in book["results"] for row in one["rows"] for problem in _unlike(folder, row)]
    if problems:
        raise UserError(problems)


def _unlike(folder: Path, row: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the tables of a row: no case, no Dice, or other cases than those of another seed."""
    first: set[tuple[str, str]] | None = None
    for name in (*row.get("folds", []), *row.get("seeds", {}).values()):
        lines = read_csv(folder / name)
        cases = {(line["case"], line["class"]) for line in lines if _is_number(line["dice"])}
        if not lines:
            yield f"{folder / name}: holds no case"
        elif len(cases) < len(lines):
            yield f"{folder / name}: {len(lines) - len(cases)} of {len(lines)} rows have no Dice, or a case twice"
        elif "seeds" in row and cases != (first := first or cases):
            yield f"{folder / name}: other cases than those of another seed"


def _is_number(text: str) -> bool:
    """Whether a field of a table is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _files(result: Mapping[str, Any]) -> Iterator[str]:
    for row in result["rows"]:
        yield from row.get("seeds", {}).values()
        yield from row.get("folds", [])
    yield from (name for _, name in result.get("measures", []))


def _of_bundle(bundle: str, book: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {book['title']}\n"
    yield f"Bundle [{bundle}](../bundles/{bundle}/README.md).\n"
    for result in book["results"]:
        yield f"### {result['title']}\n"
        yield from _facts(result)
        rows = []
        for row in result["rows"]:
            seeds, tables = _tables(KEPT / bundle, row)
            rows += [_row(row["name"], seeds, name, of) for name, of in _by_class(tables).items()]
        yield from _scores(rows)
        for name, file in result.get("measures", []):
            yield from _measure(name, read_csv(KEPT / bundle / file))
        yield from _sentences(result)
        files = ", ".join(
            f"[{name.removesuffix('.csv')}](results/{bundle}/{name})" for name in dict.fromkeys(_files(result))
        )
        details = (
            f"; settings and histories: [{result['details']}](results/{bundle}/{result['details']})"
            if "details" in result
            else ""
        )
        yield f"Every case: {files}{details}.\n"
    if "synthetic" in book:
        yield book["synthetic"]["note"] + "\n"
        yield from _table(book["synthetic"]["columns"], book["synthetic"]["rows"])
    yield from _others(book)


def _facts(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"- **Data**: {result['data']}"
    yield f"- **Split**: {result['split']}"
    yield f"- **Protocol**: {result['protocol']}"
    yield f"- **Machine and date**: {result['machine']}; {result['date']}\n"
    yield f"```bash\n{result['command']}\n```\n"


def _tables(folder: Path, row: Mapping[str, Any]) -> tuple[str, list[list[dict[str, str]]]]:
    """The seeds in words, and of each the rows of its cases.csv; folds are one table."""
    if "folds" in row:
        return str(row["seed"]), [[line for name in row["folds"] for line in read_csv(folder / name)]]
    return ", ".join(row["seeds"]), [read_csv(folder / name) for name in row["seeds"].values()]


def _by_class(tables: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, list[list[Mapping[str, Any]]]]:
    """Of each class the rows of each seed; the name is empty where there is one class only."""
    names = list(dict.fromkeys(row["class"] for row in tables[0]))
    return {
        name if len(names) > 1 else "": [[row for row in table if row["class"] == name] for table in tables]
        for name in names
    }


def _row(name: str, seeds: str, class_name: str, tables: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    order = [row["case"] for row in tables[0]]
    dice = np.array([[float({row["case"]: row["dice"] for row in table}[case]) for case in order] for table in tables])
    groups = [row["group"] for row in tables[0]]
    mean, low, high = bootstrap_mean(dice.mean(axis=0), groups=groups)
    summaries = [summarise(table) for table in tables]

    def average(key: str, decimals: int = 3) -> str:
        return f"{np.mean([float(one[key]) for one in summaries]):.{decimals}f}"

    def counted(key: str, of: int) -> str:
        return f"{', '.join(str(one[key]) for one in summaries)} of {of}" if of else "–"

    empty = int(summaries[0]["n_empty_references"])
    by_seed = f" ({', '.join(f'{value:.3f}' for value in dice.mean(axis=1))})" if len(tables) > 1 else ""
    unit = str(summaries[0]["distance_unit"])
    return [
        f"{name}, {class_name}" if class_name else name,
        seeds,
        f"{len(order)} ({len(set(groups))})",
        f"**{mean:.3f}** [{low:.3f}, {high:.3f}]",
        f"{average('dice_mean')}{by_seed}",
        counted("n_misses", len(order) - empty),
        counted("n_false_alarms", empty),
        average("dice_median"),
        average("iou_mean"),
        f"{average('precision_mean')} / {average('recall_mean')}",
        f"{average('hd95_mean', 1)} {'px' if unit == 'pixels' else unit}",
        " / ".join(average(f"{key}_pooled") for key in ("dice", "precision", "recall", "accuracy")),
    ]


_SCORES = (
    *("network", "seeds", "images (groups)", "Dice [95 %]", "per image (each seed)", "misses", "false alarms"),
    *("median", "IoU", "precision / recall", "HD95", "pooled Dice / precision / recall / accuracy"),
)
_FIRST = 7  # columns of the first of two tables, of which neither is too wide for a page


def _scores(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield from _table(_SCORES[:_FIRST], [row[:_FIRST] for row in rows])
    yield from _table((_SCORES[0], *_SCORES[_FIRST:]), [(row[0], *row[_FIRST:]) for row in rows])


def _measure(name: str, rows: Sequence[Mapping[str, str]]) -> Iterator[str]:
    kind, unit, found = rows[0]["measure"].replace("_", " "), rows[0]["unit"], agreement(rows)
    yield from _table(
        (f"{kind}, predicted less reference", "mean", "mean absolute", "95 % limits of agreement", "not measurable"),
        [
            [
                name,
                f"{found['mean_difference']:+.1f} {unit}",
                f"{found['mean_absolute_difference']:.1f} {unit}",
                f"{found['limit_low']:+.1f} to {found['limit_high']:+.1f} {unit}",
                f"{found['n_failed']} of {len(rows)}",
            ]
        ],
    )


def _sentences(result: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{result[key]}\n" for key in ("beside", "notes") if key in result)


def _others(book: Mapping[str, Any]) -> Iterator[str]:
    if book["published"]:
        yield "**Published**, not measured here:\n"
        yield from _table(("on", "figure", "source", "to know"), book["published"])
    if source := book["source"]:
        yield f"**The source project's own table** ({source['by']}): {source['claims']}.\n"
        yield f"- What is wrong with it: {source['wrong']}"
        yield f"- Reproduced: {source['reproduced']}\n"


def _of_runs(paths: Sequence[str]) -> Iterator[str]:
    """A table a dataset of the runs in some folders, one row a network, protocol and class."""
    if not paths:
        return
    runs, unusable = find_runs(paths)
    if unusable:
        raise UserError([f"{one.path}: {one.reason}" for one in unusable])
    races: dict[tuple[str, Any], dict[tuple[str, Any], list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda one: (one.network, one.seed)):
        races[run.dataset, run.data_hash][run.network, run.record.protocol_hash].append(run)
    for (dataset, _), networks in races.items():
        every = [run for members in networks.values() for run in members]
        machines = {f"{run.record.device}, {run.record.precision}" for run in every}
        synthetic = " Synthetic scans: they say nothing about patients." if every[0].synthetic else ""
        yield f"## Further runs: {dataset}\n"
        yield f"- **Data**: {dataset}.{synthetic}"
        yield f"- **Split**: {every[0].record.split} (groups {every[0].grouping})"
        yield f"- **Protocol**: config.yaml of each run; {', '.join(sorted({str(key)[:8] for _, key in networks}))}"
        yield f"- **Machine and date**: {', '.join(sorted(machines))}; {', '.join(_days(every))}\n"
        rows = []
        for (network, _), members in networks.items():
            evaluations = [run.evaluation("test") for run in members]
            if any(one is None for one in evaluations):
                raise UserError([f"{run.path}: the test part has not been scored" for run in members])
            tables = [one.rows for one in evaluations if one is not None]
            seeds = ", ".join(str(run.seed) for run in members)
            rows += [_row(f"`{network}`", seeds, name, of) for name, of in _by_class(tables).items()]
        yield from _scores(rows)


def _days(runs: Iterable[Run]) -> list[str]:
    return sorted({str(run.record.started or "unknown")[:10] for run in runs})


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


if __name__ == "__main__":
    tell_on_exit()
    main()
