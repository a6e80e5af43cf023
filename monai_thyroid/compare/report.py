"""From run folders to one report and its files."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid import __version__, pages
from monai_thyroid.compare import page
from monai_thyroid.compare.checklist import CHECKLISTS, make_checklist
from monai_thyroid.compare.contents import Options, Report, Section
from monai_thyroid.compare.ensemble import make_ensembles
from monai_thyroid.compare.pictures import SECTION, Place, Scene, draw, without_images
from monai_thyroid.compare.reading import Run, Unusable, by_dataset, comparability, find_runs, variants
from monai_thyroid.compare.sections import make_section, relative, warnings
from monai_thyroid.compare.shift import make_shift
from monai_thyroid.compare.statistics import Pair
from monai_thyroid.compare.study import Analysis, Study, analyse, declared_margin, make_study
from monai_thyroid.compare.subgroups import fit_problems, read_metadata
from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path, read_json, write_csv, write_json
from monai_thyroid.metrics import METRICS, SCORE_COLUMNS, ScoringPolicy, summarise

__all__ = ["Built", "build", "make_report"]

_FORMAT = "monai-thyroid report 1"


@dataclass(frozen=True)
class Built:
    """A report before it is written.

    Attributes:
        report: what it says; without figures yet.
        analyses: behind each of its sections.
    """

    report: Report
    analyses: list[Analysis]


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
    metadata: str | os.PathLike[str] | None = None,
    ensemble: bool = False,
    checklist: str | None = None,
) -> Path:
    """Write the report of some runs: report.html, .md, .json, summary.csv, pairwise.csv, cases.csv and figures/.

    The folder is written beside its place and moved there when complete; an older report is replaced.

    Args:
        paths: run folders, or folders above them.
        output: the report's folder; new, empty, or an older report.
        margin: of the recommendation, in the metric's unit.
        metric: of `METRICS`, one that is ``comparable``.
        part: of each dataset that is compared.
        force: compare what is not comparable, and say so on page one.
        images: False leaves every picture of a case out.
        failed: runs that left no folder, to be listed among those that could not be used.
        metadata: a table by whose columns subgroups are told, see `read_metadata`.
        ensemble: tell what the seeds of each network are worth as one model, from stored predictions.
        checklist: of `CHECKLISTS`: write ``<checklist>.md`` too, with what the run folders answer.

    Returns:
        The path of report.html.

    Raises:
        UserError: nothing can be used or compared, or the output is something else than a report.
    """
    output = Path(os.path.abspath(output))
    _check_output(output)
    building = output.with_name(f".{output.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir()
    except OSError as err:
        raise UserError(f"--output {output}: cannot be written ({err.strerror})") from None
    try:
        built = build(
            [Path(path) for path in paths],
            margin=margin,
            metric=metric,
            part=part,
            force=force,
            images=images,
            failed=failed,
            metadata=metadata,
            ensemble=ensemble,
            checklist=checklist,
        )
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
    metadata: str | os.PathLike[str] | None = None,
    ensemble: bool = False,
    checklist: str | None = None,
) -> Built:
    """Read, check, compare and judge; writes nothing.

    Args:
        paths: as for `make_report`, and so the other arguments.

    Raises:
        UserError: as `make_report`.
    """
    unknown = []
    if metric not in METRICS or not METRICS[metric].comparable:
        known = ", ".join(one.name for one in METRICS.values() if one.comparable)
        unknown.append(f"--metric {metric}: choose one of {known}")
    if checklist is not None and checklist not in CHECKLISTS:
        unknown.append(f"--checklist {checklist}: choose one of {', '.join(CHECKLISTS)}")
    if unknown:
        raise UserError(unknown)
    check_margin(margin, metric)
    about = None if metadata is None else read_metadata(Path(metadata))
    runs, unusable = find_runs(paths, part=part)
    unusable = [*unusable, *failed]
    if not runs:
        told = "\n".join(f"  {one.path}: {one.reason}" for one in unusable)
        raise UserError(f"none of {len(unusable)} runs can be used for a report:\n{told}")
    root = _root([*(run.path for run in runs), *(Path(one.path) for one in unusable if os.path.isabs(one.path))])

    sections: list[Section] = []
    analyses: list[Analysis] = []
    forced: dict[str, list[str]] = {}
    fatal, forcible = [], []
    for dataset, own in by_dataset(runs).items():
        problems, mendable = comparability(own)
        fatal += problems
        forcible += mendable
        forced[dataset] = [text.replace(f"{root}{os.sep}", "") for text in mendable]
    if fatal or (forcible and not force):
        hint = ["Give runs that belong together, or --force for a report with a warning on page one."]
        raise UserError([*fatal, *forcible, *([] if fatal else hint)])
    studies: list[Study] = []
    for own in by_dataset(runs).values():
        digits, notes = variants(own)
        labels = _labels(own, digits)
        names = [name for name in own[0].scored_classes if all(name in run.scored_classes for run in own)]
        made = [make_study(own, name=name, part=part, labels=labels) for name in names]
        studies += [replace(study, notes=[*notes, *study.notes]) for study in made]
    if about and (unfit := [problem for study in studies for problem in fit_problems(about, study)]):
        raise UserError(dict.fromkeys(unfit))
    wrong: list[str] = []
    for study in studies:
        units = {summarise(entry.rows)["distance_unit"] for entry in study.entries.values()}
        if METRICS[metric].scaled and (len(units) > 1 or "mixed" in units):
            free = ", ".join(one.name for one in METRICS.values() if one.comparable and not one.scaled)
            raise UserError(
                f"dataset {study.dataset}: {metric} is in mm where the pixel spacing is known, and here some in mm and "
                f"some in pixels; give --metric {free}"
            )
        lacking = [entry.title for entry in study.entries.values() if any(row[metric] is None for row in entry.rows)]
        if lacking:
            raise UserError(
                f"dataset {study.dataset}: {metric} is not scored in {', '.join(lacking)}: evaluate these runs again, "
                "or give another --metric"
            )
        analysis = analyse(study, metric=metric, larger_is_better=METRICS[metric].larger_is_better)
        without = without_images(analysis) if images else []
        analyses.append(analysis)
        together = None
        if ensemble:
            ensembles, absent, unusual = make_ensembles(analysis)
            together, wrong = (ensembles, absent), [*wrong, *unusual]
        sections.append(
            make_section(
                analysis,
                margin=margin,
                root=root,
                forced=forced[study.dataset],
                images=images,
                without=without,
                metadata=about,
                ensembles=together,
            )
        )
    if ensemble and not any(section.ensembles for section in sections):
        wrong += [f"--ensemble: {text}" for section in sections for text in section.ensemble_notes]
    if wrong:
        raise UserError(wrong)
    if len(sections) > 1:
        sections = [replace(section, slug=f"{number}-") for number, section in enumerate(sections, 1)]
    report = Report(
        format=_FORMAT,
        version=__version__,
        options=Options(margin, metric, part, force, images, about.path.name if about else None, ensemble, checklist),
        margin_declared=declared_margin(run.path for run in runs) == margin,
        runs_started=sorted({str(run.record["started"])[:10] for run in runs if run.record.get("started")}),
        warnings=warnings(sections),
        unusable=[replace(one, path=relative(one.path, root)) for one in unusable],
        sections=sections,
        shift=make_shift(runs, analyses),
        policy=_policies(runs),
    )
    return Built(report, analyses)


def _write(folder: Path, built: Built) -> None:
    figures = folder / "figures"
    figures.mkdir()
    report = built.report
    report = replace(
        report,
        sections=[
            replace(
                section,
                figures=draw(
                    figures,
                    Scene(analysis, section),
                    places=SECTION,
                    slug=section.slug,
                    images=report.options.images,
                ),
            )
            for section, analysis in zip(report.sections, built.analyses, strict=True)
        ],
        shift=[
            replace(table, figures=draw(figures, table, places=[Place.SHIFT], slug=table.slug))
            for table in report.shift
        ],
    )
    write_json(folder / "report.json", _plain(asdict(report)))
    blocks = page.blocks(report, figures=figures)
    for name, text in (("report.md", pages.markdown(blocks)), ("report.html", pages.html(blocks))):
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if checklist := report.options.checklist:
        with atomic_path(folder / f"{checklist}.md") as temporary:
            temporary.write_text(pages.markdown(make_checklist(checklist, report, built.analyses)), encoding="utf-8")
    for name, rows in (
        ("summary.csv", _summary(report)),
        ("pairwise.csv", _pairs(report)),
        ("cases.csv", _cases(built)),
    ):
        write_csv(folder / name, list(rows[0]) if rows else [field.name for field in fields(Pair)], rows)


def check_margin(margin: float, metric: str = "dice") -> None:
    """Refuse a margin that is none, before anything is trained for it.

    Raises:
        UserError: it is negative or no finite number.
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise UserError(f"--margin {margin}: give a number of at least 0, in the unit of {metric}")


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


def _labels(runs: Sequence[Run], variant: Mapping[Path, str]) -> dict[Path, str]:
    """Names of networks; with the protocol's digits where one network was trained by several, and with a variant's."""

    def protocol(run: Run) -> str:
        return "masks" if run.from_masks else str(run.record.protocol_hash)[:8]

    protocols: dict[str, set[str]] = {}
    for run in runs:
        protocols.setdefault(run.network, set()).add(protocol(run))
    return {
        run.path: "-".join(
            [
                run.network,
                *([protocol(run)] if len(protocols[run.network]) > 1 else []),
                *([variant[run.path]] if run.path in variant else []),
            ]
        )
        for run in runs
    }


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


def _summary(report: Report) -> list[dict[str, Any]]:
    rows = []
    for section in report.sections:
        for run in section.runs:
            flat = {key: value for key, value in asdict(run).items() if key != "scores"}
            head = {"dataset": section.dataset, "part": section.part, "class": section.class_name}
            rows.append({**head, **flat, **run.scores})
    return _plain(rows)


def _pairs(report: Report) -> list[dict[str, Any]]:
    rows = []
    for section in report.sections:
        head = {"dataset": section.dataset, "part": section.part, "class": section.class_name}
        for comparison in filter(None, (section.weights, section.architectures)):
            for pair, decision in zip(comparison.pairs, section.decisions[comparison.question], strict=True):
                row: dict[str, Any] = {**head, "question": comparison.question, "metric": section.metric}
                for name, value in asdict(pair).items():
                    if isinstance(value, tuple):
                        prefix = "" if name == "interval" else f"{name}_"
                        row.update(zip((f"{prefix}low", f"{prefix}high"), value, strict=True))
                    else:
                        row[name] = value
                told = {name: value for name, value in asdict(decision).items() if name not in ("first", "second")}
                rows.append({**row, **told, "n_groups": comparison.n_groups, "n_seeds": comparison.n_seeds})
    return _plain(rows)


def _cases(built: Built) -> list[dict[str, Any]]:
    columns = ["network", "seed", "fold", "dataset", "site", "part", "case", "group", "class", *SCORE_COLUMNS, "error"]
    rows = []
    for analysis in built.analyses:
        for entry in analysis.study.entries.values():
            for run, evaluation in zip(entry.runs, entry.evaluations, strict=True):
                head = {"network": entry.network, "seed": entry.seed, "fold": run.fold}
                for row in evaluation.of_class(analysis.study.name):
                    rows.append({column: {**row, **head}.get(column) for column in columns})
    return rows


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
