"""From run folders to one report: every figure of it as plain values, and the files."""

from __future__ import annotations

import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid import __version__
from monai_thyroid.compare import page, pictures
from monai_thyroid.compare.judge import Candidate, recommend, volatility, worst_decile
from monai_thyroid.compare.reading import Run, Unusable, by_dataset, comparability, find_runs
from monai_thyroid.compare.statistics import bootstrap_mean
from monai_thyroid.compare.study import Analysis, Entry, Study, analyse, make_study
from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path, read_json, write_csv, write_json
from monai_thyroid.metrics import SCORE_COLUMNS, ScoringPolicy, brier_score, expected_calibration_error, summarise

__all__ = ["REPORT_METRICS", "Built", "build", "make_report"]

REPORT_METRICS = {"dice": True, "iou": True, "nsd": True, "hd95": False, "asd": False}
"""The scores that networks may be compared by, and whether larger is better."""

_FORMAT = "monai-thyroid report 1"
_FEW_GROUPS = 10
_TRAINED_ON = ("train", "all")
_IN_UNITS = ("hd95", "asd", "nsd")
_COSTS = ("parameters", "multiply_adds", "latency_ms", "seconds", "images_per_second")


@dataclass(frozen=True)
class Built:
    """A report before it is written.

    Attributes:
        content: what report.json holds.
        analyses: behind each of its sections.
        runs: that are in it.
    """

    content: dict[str, Any]
    analyses: list[Analysis]
    runs: list[Run]


def make_report(
    paths: Iterable[str | os.PathLike[str]],
    *,
    output: str | os.PathLike[str],
    margin: float = 0.01,
    metric: str = "dice",
    part: str = "test",
    force: bool = False,
    images: bool = True,
    failed: Sequence[Unusable] = (),
) -> Path:
    """Write the report of some runs: report.html, .md, .json, summary.csv, pairwise.csv, cases.csv and figures/.

    The folder is written beside its place and moved there when complete; an older report is replaced.

    Args:
        paths: run folders, or folders above them.
        output: the report's folder; new, empty, or an older report.
        margin: of the recommendation, in the metric's unit.
        metric: of `REPORT_METRICS`.
        part: of each dataset that is compared.
        force: compare what is not comparable, and say so on page one.
        images: False leaves every picture of a case out.
        failed: runs that left no folder, to be listed among those that could not be used.

    Returns:
        The path of report.html.

    Raises:
        UserError: nothing can be used or compared, or the output is something else than a report.
    """
    output = Path(os.path.abspath(output))
    _check_output(output)
    built = build(
        [Path(path) for path in paths],
        margin=margin,
        metric=metric,
        part=part,
        force=force,
        images=images,
        failed=failed,
    )
    building = output.with_name(f".{output.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        _write(building, built)
        before = output.with_name(f".{output.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        if output.is_dir():
            output.rename(before)
        building.rename(output)
        shutil.rmtree(before, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return output / "report.html"


def build(
    paths: Sequence[Path],
    *,
    margin: float = 0.01,
    metric: str = "dice",
    part: str = "test",
    force: bool = False,
    images: bool = True,
    failed: Sequence[Unusable] = (),
) -> Built:
    """Read, check, compare and judge; writes nothing.

    Args:
        paths: as for `make_report`, and so the other arguments.

    Raises:
        UserError: as `make_report`.
    """
    if metric not in REPORT_METRICS:
        raise UserError(f"--metric {metric}: choose one of {', '.join(REPORT_METRICS)}")
    if not (math.isfinite(margin) and margin >= 0):
        raise UserError(f"--margin {margin}: give a number of at least 0, in the unit of {metric}")
    runs, unusable = find_runs(paths, part=part)
    unusable = [*unusable, *failed]
    if not runs:
        told = "\n".join(f"  {one.path}: {one.reason}" for one in unusable)
        raise UserError(f"none of {len(unusable)} runs can be used for a report:\n{told}")
    root = _root([*(run.path for run in runs), *(Path(one.path) for one in unusable if os.path.isabs(one.path))])

    sections: list[dict[str, Any]] = []
    analyses: list[Analysis] = []
    forced: dict[str, list[str]] = {}
    fatal, forcible = [], []
    for dataset, own in by_dataset(runs).items():
        problems, mendable = comparability(own)
        fatal += problems
        forcible += mendable
        forced[dataset] = mendable
    if fatal or (forcible and not force):
        hint = ["Give runs that belong together, or --force for a report with a warning on page one."]
        raise UserError([*fatal, *forcible, *([] if fatal else hint)])
    for dataset, own in by_dataset(runs).items():
        labels = _labels(own)
        for name in own[0].classes:
            study = make_study(own, name=name, part=part, labels=labels)
            if metric in _IN_UNITS and "mixed" in {summarise(e.rows)["distance_unit"] for e in study.entries.values()}:
                raise UserError(
                    f"dataset {dataset}: {metric} is in mm where the pixel spacing is known, and here some in mm and "
                    "some in pixels; give --metric dice or iou"
                )
            analysis = analyse(study, metric=metric, larger_is_better=REPORT_METRICS[metric])
            analyses.append(analysis)
            section = _section(
                analysis,
                margin=margin,
                root=root,
                forced=[text.replace(f"{root}{os.sep}", "") for text in forced[dataset]],
            )
            section["without_images"] = pictures.without_images(analysis) if images else None
            section["figures"] = {}
            sections.append(section)
    for section in sections:
        section["slug"] = _slug(section, sections)
    content = {
        "format": _FORMAT,
        "version": __version__,
        "options": {"margin": margin, "metric": metric, "part": part, "force": force, "images": images},
        "runs_started": sorted({str(run.record["started"])[:10] for run in runs if run.record.get("started")}),
        "warnings": _warnings(sections),
        "unusable": [{**asdict(one), "path": _relative(one.path, root)} for one in unusable],
        "sections": sections,
        "shift": _shift(runs, analyses),
        "policy": _policies(runs),
    }
    return Built(_plain(content), analyses, runs)


def _write(folder: Path, built: Built) -> None:
    figures = folder / "figures"
    figures.mkdir(parents=True)
    content = built.content
    for section, analysis in zip(content["sections"], built.analyses, strict=True):
        section["figures"] = pictures.draw(
            figures, analysis, section=section, slug=section["slug"], images=content["options"]["images"]
        )
    for table in content["shift"]:
        table["figures"] = [pictures.draw_shift(figures, table)]
    write_json(folder / "report.json", content)
    blocks = page.blocks(content)
    for name, text in (("report.md", page.markdown(blocks)), ("report.html", page.html(blocks, figures=figures))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    write_csv(folder / "summary.csv", *_summary_table(content))
    write_csv(folder / "pairwise.csv", *_pairwise_table(content))
    write_csv(folder / "cases.csv", *_case_table(built))


def _check_output(output: Path) -> None:
    if not output.exists():
        if not output.parent.is_dir():
            raise UserError(f"--output {output}: its folder {output.parent} does not exist")
        return
    if not output.is_dir():
        raise UserError(f"--output {output}: is a file; give a folder that is new")
    if not any(output.iterdir()):
        return
    try:
        ours = str(read_json(output / "report.json")["format"]).startswith("monai-thyroid report")
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UserError(f"--output {output}: holds something else than a report; give a folder that is new or empty")


def _root(paths: Sequence[Path]) -> Path:
    """The folder above all runs; a run's path in the report is told from there."""
    return Path(os.path.commonpath([path.parent.parent for path in paths]))


def _relative(path: str | Path, root: Path) -> str:
    return os.path.relpath(path, root) if os.path.isabs(path) else str(path)


def _labels(runs: Sequence[Run]) -> dict[Path, str]:
    """Names of networks; with the protocol's digits where one network was trained by several."""
    protocols: dict[str, set[str]] = {}
    for run in runs:
        protocols.setdefault(run.network, set()).add(str(run.record.get("protocol_hash")))
    return {
        run.path: run.network
        if len(protocols[run.network]) == 1
        else f"{run.network}-{str(run.record.get('protocol_hash'))[:8]}"
        for run in runs
    }


def _slug(section: dict[str, Any], sections: Sequence[dict[str, Any]]) -> str:
    """Start of the names of a section's figures; nothing where there is one section only."""
    if len(sections) == 1:
        return ""
    return f"{sections.index(section) + 1}-"


def _section(analysis: Analysis, *, margin: float, root: Path, forced: list[str]) -> dict[str, Any]:
    study = analysis.study
    runs = [run for entry in study.entries.values() for run in entry.runs]
    grouping = sorted({run.grouping for run in runs})
    section: dict[str, Any] = {
        "dataset": study.dataset,
        "class": study.name,
        "part": study.part,
        "metric": analysis.metric,
        "larger_is_better": analysis.larger_is_better,
        "distance_unit": "",
        "synthetic": any(run.synthetic for run in runs),
        "grouping": "leaky" if "leaky" in grouping else "unknown" if "unknown" in grouping else "known",
        "split": sorted({str(run.record["split"]) for run in runs if isinstance(run.record.get("split"), str)}),
        "n_cases": len(study.cases),
        "n_groups": len(set(study.groups)),
        "folds": study.folds,
        "n_folds": len({run.fold for run in runs}),
        "forced": forced,
        "notes": list(study.notes),
        "chosen_by": analysis.chosen_by,
        "set_apart": [{"network": network, "reason": reason} for network, reason in analysis.apart.items()],
        "degenerate": [
            {"network": network, "seed": seed, "kind": one.kind, "sentence": one.sentence}
            for (network, seed), one in analysis.verdicts.items()
        ],
        "networks": [_network(analysis, network) for network in analysis.order],
        "runs": [_run(analysis, entry, index, root) for entry in study.entries.values() for index in _each(entry.runs)],
        "weights": analysis.weights and {**asdict(analysis.weights), "rank_stability": analysis.ranks},
        "architectures": analysis.architectures and asdict(analysis.architectures),
        "architecture_seeds": analysis.architecture_seeds,
        "architecture_notes": analysis.architecture_notes,
        "machines": sorted({_machine(run) for run in runs}),
        "precisions": sorted({str(run.record["precision"]) for run in runs if run.record.get("precision")}),
        "started_from": sorted(
            f"{entry.title}"
            for entry in study.entries.values()
            if any(r.record.get("parent_sha256") for r in entry.runs)
        ),
        "run_warnings": _run_warnings(study),
    }
    units = {str(network["scores"]["distance_unit"]) for network in section["networks"]}
    section["distance_unit"] = units.pop() if len(units) == 1 else "mixed"
    section["recommendation"] = _recommendation(analysis, section, margin=margin)
    return section


def _each(runs: Sequence[Run]) -> range:
    return range(len(runs))


def _network(analysis: Analysis, network: str) -> dict[str, Any]:
    study, chosen = analysis.study, analysis.entry(network)
    entries = study.of(network)
    dice = {entry.seed: float(entry.values("dice", study.cases).mean()) for entry in entries}
    copied = [entry.seed for entry in entries if _kind(analysis, entry) == "copy"]
    collapsed = [entry.seed for entry in entries if _kind(analysis, entry) not in (None, "copy")]
    own = [value for seed, value in dice.items() if seed not in copied] or list(dice.values())
    sound = [value for seed, value in dice.items() if seed not in [*copied, *collapsed]]
    swings = [value for entry in entries for run in entry.runs if (value := volatility(run.history)) is not None]
    mean, low, high = bootstrap_mean(chosen.values(analysis.metric, study.cases), groups=study.groups)
    calibration = _calibration(study, chosen)
    return {
        "network": network,
        "set_apart": network in analysis.apart,
        "chosen_seed": chosen.seed,
        "chosen_validation_dice": chosen.best_validation,
        "scores": summarise(chosen.rows),
        "mean_over_groups": {"metric": analysis.metric, "mean": mean, "low": low, "high": high},
        "seeds": list(dice),
        "collapsed_seeds": collapsed,
        "copied_seeds": copied,
        "seed_dice": {str(seed): value for seed, value in dice.items()},
        "seeds_mean_dice": float(np.mean(own)),
        "seeds_sd_dice": float(np.std(own, ddof=1)) if len(own) > 1 else None,
        "seeds_range_dice": float(np.ptp(own)) if len(own) > 1 else None,
        "seeds_mean_dice_without_collapsed": float(np.mean(sound)) if sound and collapsed else None,
        "volatility": float(np.mean(swings)) if swings else None,
        "worst_decile_dice": worst_decile(chosen.values("dice", study.cases)),
        **calibration,
        "cost": {name: _cost([run for entry in entries for run in entry.runs], name) for name in _COSTS},
    }


def _kind(analysis: Analysis, entry: Entry) -> str | None:
    one = analysis.verdicts.get((entry.network, entry.seed))
    return one.kind if one else None


def _calibration(study: Study, entry: Entry) -> dict[str, float | None]:
    rows = pictures.calibration_rows(study, entry)
    if not rows:
        return {"expected_calibration_error": None, "brier_score": None}
    return {"expected_calibration_error": expected_calibration_error(rows), "brier_score": brier_score(rows)}


def _cost(runs: Sequence[Run], name: str) -> float | None:
    """Median over runs; None unless every run recorded it."""
    values = [run.record.get(name) for run in runs]
    found = [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]
    return float(np.median(found)) if len(found) == len(values) else None


def _run(analysis: Analysis, entry: Entry, index: int, root: Path) -> dict[str, Any]:
    run, evaluation, study = entry.runs[index], entry.evaluations[index], analysis.study
    kept = set(study.cases)
    rows = [row for row in evaluation.of_class(study.name) if row["case"] in kept]
    calibration = [row for row in evaluation.calibration(study.name) if row["case"] in kept]
    one = analysis.verdicts.get((entry.network, entry.seed))
    return {
        "network": entry.network,
        "seed": entry.seed,
        "fold": run.fold,
        "path": _relative(run.path, root),
        "chosen": analysis.chosen[entry.network] == entry.seed,
        "verdict": one.kind if one else "",
        "best_validation_dice": run.best_validation,
        "best_epoch": run.record.get("best_epoch"),
        "epochs": run.record.get("epochs") or len(run.history),
        "volatility": volatility(run.history),
        "worst_decile_dice": worst_decile(np.array([row["dice"] for row in rows])),
        "scores": summarise(rows),
        "expected_calibration_error": expected_calibration_error(calibration) if calibration else None,
        "brier_score": brier_score(calibration) if calibration else None,
        **{name: run.record.get(name) for name in _COSTS},
        "machine": _machine(run),
        "precision": run.record.get("precision"),
        "data_hash": run.record.get("data_hash"),
        "protocol_hash": run.record.get("protocol_hash"),
        "checkpoint_sha256": run.record.get("checkpoint_sha256"),
    }


def _machine(run: Run) -> str:
    record = run.record.get("machine") or {}
    parts = [record.get("gpu"), record.get("processor")]
    if record.get("threads"):
        parts.append(f"{record['threads']} thread{'s' * (record['threads'] != 1)}")
    told = ", ".join(str(part) for part in parts if part)
    device = run.record.get("device")
    return f"{told or 'machine not recorded'} ({device})" if device else told or "not recorded"


def _run_warnings(study: Study) -> list[str]:
    """What runs and their evaluations warn of; said once where several say the same."""
    told: dict[str, list[str]] = {}
    for entry in study.entries.values():
        for run, evaluation in zip(entry.runs, entry.evaluations, strict=True):
            own = [*(run.record.get("warnings") or []), *(evaluation.record.get("warnings") or []), *run.notes]
            for text in dict.fromkeys(map(str, own)):
                told.setdefault(text, []).append(entry.title)
    total = len(study.entries)
    return [
        f"{text} ({'all runs' if len(set(of)) == total else ', '.join(dict.fromkeys(of))})" for text, of in told.items()
    ]


def _recommendation(analysis: Analysis, section: dict[str, Any], *, margin: float) -> dict[str, Any] | None:
    """Chosen on validation where every run was scored there, else on the part of the report."""
    study = analysis.study
    chooser, why_not = _on_validation(analysis)
    on = "validation"
    if chooser is None:
        chooser, on = analysis, study.part
    comparison = chooser.architectures or chooser.weights
    if comparison is None:
        return None
    costs = {row["network"]: row["cost"] for row in section["networks"]}
    cost = next((name for name in _COSTS[1::-1] if all(costs[n][name] for n in comparison.networks)), None)
    by_name = {row["network"]: row for row in section["networks"]}
    choice = recommend(
        comparison,
        candidates={
            network: Candidate(
                network,
                volatility=by_name[network]["volatility"],
                collapsed=len(by_name[network]["collapsed_seeds"]),
                seeds=len(by_name[network]["seeds"]),
                cost=None if cost is None else costs[network][cost],
            )
            for network in comparison.networks
        },
        margin=margin,
        metric=page.METRIC_NAMES[analysis.metric],
        cost={"multiply_adds": "multiply-adds", "parameters": "parameters", None: None}[cost],
        larger_is_better=analysis.larger_is_better,
    )
    winner = by_name[choice["network"]]
    runs = [row for row in section["runs"] if row["network"] == winner["network"] and row["chosen"]]
    blockers = []
    if section["grouping"] == "leaky":
        blockers.append("the split is LEAKY: images of one group are in training and in test")
    if study.part in _TRAINED_ON:
        blockers.append("the scores are of images that the models were trained on")
    if section["synthetic"]:
        blockers.append("the images are synthetic and say nothing about patients")
    if section["forced"]:
        blockers.append("the comparison was forced: the runs differ in more than the network")
    if comparison.refusals or comparison.n_groups < _FEW_GROUPS:
        blockers.append(f"{comparison.n_groups} groups are too few to choose by ({_FEW_GROUPS} at least)")
    limits = []
    if on == study.part:
        limits.append(f"Selected on {on}: optimistic. The cases that chose the network also give its score{why_not}.")
    else:
        limits.append("Validation also chose each run's epoch and weights; the score that counts is that of the test.")
    if comparison.question == "weights":
        limits.append(
            "The choice is between these weights, not between architectures: the spread from one training to the next "
            "is not known."
        )
    if section["grouping"] == "unknown":
        limits.append("Groups are unknown: images of one patient may count as several, and intervals be too narrow.")
    if winner["collapsed_seeds"]:
        limits.append(
            f"{len(winner['collapsed_seeds'])} of {len(winner['seeds'])} seeds of {winner['network']} collapsed: a new "
            "training may collapse as well."
        )
    if missing := [row["network"] for row in section["networks"] if row["network"] not in comparison.networks]:
        limits.append(f"Not considered, as degenerate or trained with one seed only: {', '.join(missing)}.")
    if study.folds != "none":
        limits.append("There is a set of weights for each fold; retrain on all data, or average their predictions.")
    return {
        **choice,
        "selected_on": on,
        "optimistic": on == study.part,
        "question": comparison.question,
        "margin": margin,
        "n_cases": comparison.n_cases,
        "n_groups": comparison.n_groups,
        "blockers": blockers,
        "limits": limits,
        "seed": winner["chosen_seed"],
        "paths": [row["path"] for row in runs],
        "reported": {"part": study.part, **winner["mean_over_groups"]},
    }


def _on_validation(analysis: Analysis) -> tuple[Analysis | None, str]:
    study = analysis.study
    runs = [run for entry in study.entries.values() for run in entry.runs]
    if study.part == "validation":
        return None, ""
    validated = {run.path: one for run in runs if (one := run.evaluation("validation"))}
    if len(validated) < len(runs):
        return None, "; evaluate every run with --part validation to choose there"
    if any(study.name not in one.classes for one in validated.values()):
        return None, f"; not every evaluation of the validation part has the class {study.name}"
    labels = {run.path: entry.network for entry in study.entries.values() for run in entry.runs}
    cases = Counter(
        frozenset(row["case"] for row in validated[run.path].of_class(study.name))
        for run in runs
        if run.fold == runs[0].fold
    )
    if len(cases) > 1:
        return None, "; the validation cases differ from run to run"
    try:
        validation = make_study(runs, name=study.name, part="validation", labels=labels)
    except UserError:
        return None, "; the folds' validation cases overlap in part"
    return analyse(validation, metric=analysis.metric, larger_is_better=analysis.larger_is_better, like=analysis), ""


def _warnings(sections: Sequence[dict[str, Any]]) -> list[str]:
    """What has to be read before any number, the gravest first."""
    found: list[tuple[int, str]] = []

    for section in sections:
        where = section["dataset"]

        def warn(order: int, text: str, where: str = where) -> None:
            found.append((order, f"{where}: {text}"))

        for problem in section["forced"]:
            found.append((0, f"FORCED COMPARISON. {problem}"))
        if section["grouping"] == "leaky":
            warn(
                1,
                "LEAKY SPLIT. Groups were not heeded: images of one patient are in training and in test, so every "
                "score is too good.",
            )
        if section["part"] in _TRAINED_ON:
            warn(1, f"TRAINING IMAGES are in the part “{section['part']}”: every score is too good.")
        if section["synthetic"]:
            warn(
                2,
                "SYNTHETIC DATA. The images are computer-made: they show that the machinery works, and nothing about "
                "patients.",
            )
        if section["grouping"] == "unknown":
            warn(
                3,
                "groups are unknown. Every image counts as its own patient; where patients have several images, "
                "training and test may share them and the intervals are too narrow.",
            )
        for question in ("weights", "architectures"):
            for text in (section[question] or {}).get("refusals", []):
                warn(4, text)
        if section["weights"] and not section["architectures"]:
            warn(5, f"no claim about architectures. {' '.join(section['architecture_notes'])}")
        if section["folds"] != "none":
            warn(5, page.FOLDS[section["folds"]])
        for one in section["degenerate"]:
            warn(6, f"{one['network']} seed {one['seed']} is degenerate ({one['kind']}). {one['sentence']}")
        if len(section["precisions"]) > 1:
            warn(7, f"the runs were made in different precision ({', '.join(section['precisions'])}).")
        if section["started_from"]:
            warn(7, f"not trained from the start but from other weights: {', '.join(section['started_from'])}.")
        for text in [*section["notes"], *section["run_warnings"]]:
            warn(8, text)
    return list(dict.fromkeys(text for _, text in sorted(found, key=lambda one: one[0])))


def _shift(runs: Sequence[Run], analyses: Sequence[Analysis]) -> list[dict[str, Any]]:
    """Every model on every dataset and site that it was scored on, a table a class; none without such scores."""
    labels = {
        run.path: entry.network
        for analysis in analyses
        for entry in analysis.study.entries.values()
        for run in entry.runs
    }
    chosen = {
        run.path
        for analysis in analyses
        for network in analysis.chosen
        for run in analysis.entry(network).runs
    }  # fmt: skip
    tables = []
    for classes in sorted({tuple(run.classes) for run in runs}):
        own = [run for run in runs if tuple(run.classes) == classes and run.path in labels]
        # Beside the parts of their own dataset: other datasets, or single sites.
        parts = ("train", "validation", "test", "all")
        foreign = any(key not in {f"{run.dataset}-{part}" for part in parts} for run in own for key in run.evaluations)
        for name in classes if foreign else ():
            columns = sorted({key for run in own for key, one in run.evaluations.items() if name in one.classes})
            rows: list[dict[str, Any]] = []
            for run in own:
                cells: list[dict[str, Any] | None] = []
                for column in columns:
                    one = run.evaluations.get(column)
                    of_class = one.of_class(name) if one else []
                    if one is None or not of_class:
                        cells.append(None)
                        continue
                    scores = summarise(of_class)
                    # Another site of the run's dataset is another domain.
                    own_domain = one.dataset == run.dataset and (not one.record.get("sites") or one.of_data(run.record))
                    cells.append(
                        {
                            "dice_mean": scores["dice_mean"],
                            "n_cases": scores["n_cases"],
                            "in_domain": own_domain,
                            "holds_training_images": own_domain and one.part in _TRAINED_ON,
                            "data_hash": one.record.get("data_hash"),
                        }
                    )
                rows.append(
                    {
                        "trained_on": run.dataset,
                        "network": labels[run.path],
                        "seed": run.seed,
                        "fold": run.fold,
                        "chosen": run.path in chosen,
                        "cells": cells,
                    }
                )
            unlike = [
                column
                for index, column in enumerate(columns)
                if len({row["cells"][index]["n_cases"] for row in rows if row["cells"][index]}) > 1
                or len({row["cells"][index]["data_hash"] for row in rows if row["cells"][index]}) > 1
            ]
            tables.append({"class": name, "columns": columns, "rows": rows, "unlike": unlike})
    for index, table in enumerate(tables):
        table["slug"] = "" if len(tables) == 1 else f"{index + 1}-"
        table["figures"] = []
    return tables


def _policies(runs: Sequence[Run]) -> list[str]:
    """The scoring policy in words, as each evaluation recorded it."""
    records = [run.scored.record.get("policy") for run in runs]
    found = []
    for record in records:
        if not isinstance(record, dict):
            continue
        try:
            found.append(
                ScoringPolicy(
                    nsd_tolerance=float(record["nsd_tolerance"]),
                    match_iou=float(record["match_iou"]),
                    connectivity=record["connectivity"],
                ).describe()
            )
        except (KeyError, TypeError, ValueError):
            found.append(f"A policy that this version does not know: {record}")
    return list(dict.fromkeys(found))


def _summary_table(content: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    rows = []
    for section in content["sections"]:
        for run in section["runs"]:
            flat = {key: value for key, value in run.items() if key != "scores"}
            head = {"dataset": section["dataset"], "part": section["part"], "class": section["class"]}
            rows.append({**head, **flat, **run["scores"]})
    return list(rows[0]), rows


def _pairwise_table(content: dict[str, Any]) -> tuple[list[str], list[dict[str, Any]]]:
    columns = [
        *("dataset", "part", "class", "question", "metric", "first", "second", "difference", "low", "high", "p"),
        *("p_adjusted", "effect", "effect_name", "wins", "ties", "losses", "n_groups", "n_seeds", "claim"),
        *("simultaneous_low", "simultaneous_high"),
    ]
    rows = []
    for section in content["sections"]:
        for question in ("weights", "architectures"):
            comparison = section[question] or {"pairs": []}
            for pair in comparison["pairs"]:
                low, high = pair["interval"]
                rest = {key: value for key, value in pair.items() if key not in ("interval", "simultaneous")}
                rest["simultaneous_low"], rest["simultaneous_high"] = pair["simultaneous"]
                head = {key: section[key] for key in ("dataset", "part", "class", "metric")}
                counts = {"n_groups": comparison["n_groups"], "n_seeds": comparison["n_seeds"]}
                rows.append({**head, "question": question, **rest, "low": low, "high": high, **counts})
    return columns, rows


def _case_table(built: Built) -> tuple[list[str], list[dict[str, Any]]]:
    columns = ["network", "seed", "fold", "dataset", "site", "part", "case", "group", "class", *SCORE_COLUMNS, "error"]
    rows = []
    for analysis in built.analyses:
        for entry in analysis.study.entries.values():
            for run, evaluation in zip(entry.runs, entry.evaluations, strict=True):
                head = {"network": entry.network, "seed": entry.seed, "fold": run.fold}
                for row in evaluation.of_class(analysis.study.name):
                    rows.append({column: {**row, **head}[column] for column in columns})
    return columns, rows


def _plain(value: Any) -> Any:
    """As JSON knows it: NaN and infinities become None."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
