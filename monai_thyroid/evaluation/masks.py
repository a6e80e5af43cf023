"""Masks that anything made, scored like those of a run of ours and kept in a run folder without weights. No torch."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.data import PARTS, found_classes, map_files
from monai_thyroid.data.layouts.listing import GROUP_TABLES, MASK_SUFFIXES, group_in, read_table
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.environment import versions
from monai_thyroid.evaluation.outcome import by_class, over_classes, record_of_classes, save_picture, sentence
from monai_thyroid.files import canonical_hash, locked, sha256_file, write_json
from monai_thyroid.images import (
    ForeignMask,
    Raster,
    in_place_of,
    is_image,
    is_mask_file,
    made_here,
    mask_stem,
    read_foreign_mask,
    read_raster,
    save_label,
    stem,
)
from monai_thyroid.machine import processor
from monai_thyroid.metrics import ScoringPolicy, score_case
from monai_thyroid.runfolder import (
    SCHEMA_VERSION,
    Evaluation,
    EvaluationFolder,
    EvaluationRecord,
    RunFolder,
    RunRecord,
    grouping_of,
    labels_digest,
    read_config,
    read_evaluation,
    read_run,
    read_split,
    references_hash,
)
from monai_thyroid.runfolder.folder import write_yaml

__all__ = ["ScoredMasks", "score_masks"]

_PLAIN = re.compile(r"[A-Za-z0-9][\w.+-]*")
_MIRRORED = 0.2  # so much higher a pooled Dice of mirrored masks is no chance
_TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda mask: mask,
    "mirrored left to right": lambda mask: mask[:, ::-1],
    "mirrored top to bottom": lambda mask: mask[::-1],
    "turned by 180 degrees": lambda mask: mask[::-1, ::-1],
    "with rows and columns exchanged": lambda mask: mask.T,
    "turned by 90 degrees": np.rot90,
    "turned by 270 degrees": lambda mask: np.rot90(mask, 3),
    "with rows and columns exchanged, from the other end": lambda mask: mask[::-1, ::-1].T,
}


@dataclass(frozen=True)
class ScoredMasks:
    """What was scored.

    Attributes:
        path: the run folder.
        result: in words, a line or one a class.
        warnings: what should be looked at before a figure is believed.
        left_out: names of files that are no masks, and of subfolders, which are not looked into (``name/``).
    """

    path: Path
    result: str
    warnings: list[str]
    left_out: list[str]


@dataclass
class _Case:
    """A reference and what belongs to it; ``reference`` None where it is of an evaluation."""

    name: str
    reference: Path | None
    group: str
    site: str = ""
    part: str = ""
    spacing: tuple[float, float] | None = None
    prediction: Path | None = None
    image: Path | None = None


@dataclass
class _Truth:
    """What masks are scored against."""

    dataset: str
    part: str
    classes: list[str]
    cases: list[_Case]
    grouping: str
    how: str
    evaluation: Evaluation | None = None
    run: RunRecord = field(default_factory=RunRecord)


@dataclass(frozen=True)
class _Scored:
    """A case that was read and scored, or what is wrong with it."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    digest: str = ""
    prediction_digest: str = ""
    empty: bool = False
    overlaps: dict[str, int] = field(default_factory=dict)
    areas: int = 0


def score_masks(
    *,
    predictions: str | os.PathLike[str],
    references: str | os.PathLike[str],
    name: str,
    output: str | os.PathLike[str],
    seed: int = 0,
    dataset: str | None = None,
    part: str = "test",
    classes: Sequence[str] | None = None,
    groups_from: str | None = None,
    groups: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
    pretrained_on: Sequence[str] | None = None,
) -> ScoredMasks:
    """Score masks by the metrics of this package, and leave a run folder that reports take beside others.

    Args:
        predictions: folder of masks, one file a case, named as the references (with or without ``_mask`` and the like):
            images, ``.npy`` or DICOM SEG, see `read_foreign_mask`.
        references: folder of masks; or what a run of ours was scored against: its folder, or one of its
            ``evaluations/``, which tells classes, groups, pixel sizes, the dataset's name and the part as well.
        name: by which reports call the model.
        output: the run folder; new, empty, or an earlier one of the same name, seed, dataset and classes, whose
            evaluation of this part is replaced.
        seed: of the model's training, where there are several.
        dataset: its name; where it is not told by an evaluation, that of the folder of references if None.
        part: of the dataset.
        classes: names of the classes 1, 2, ...; None: those of the evaluation, else ``foreground``, or ``class_1``, ...
            where the references hold several.
        groups_from: regular expression that finds the patient (or video, ...) in a case's name: its first group, or
            all it matches.
        groups: a table (CSV) with the columns ``file`` (or ``case``) and ``patient``, ``scene``, ``group`` or ``case``.
        images: folder of the images, for pixel sizes and the pictures in reports; a case's image is called like it,
            with or without nnU-Net's ``_0000``.
        pretrained_on: names of the data that the model's weights had seen before; empty: none; None: not known.

    Raises:
        UserError: anything does not fit; all that was found, and nothing has been written.
    """
    output = Path(os.path.abspath(output))
    problems = _argument_problems(predictions, references, name, seed, dataset, part, classes, images)
    if groups_from is not None and groups is not None:
        problems.append("groups-from and groups both say which cases belong together; give one of them")
    if problems:
        raise UserError(problems)
    truth = _truth(Path(references), part, classes, dataset)
    earlier = _earlier(output, name, seed, truth)
    problems = _group(truth, groups_from, groups)
    left_out, unmatched = _match(truth, Path(predictions), None if images is None else Path(images))
    if problems := problems + unmatched:
        raise UserError(problems + _misfits(truth))

    started = time.perf_counter()
    run = RunRecord(
        dataset=truth.dataset,
        synthetic=truth.run.synthetic,
        grouping=truth.grouping,
        split=truth.how,
        network=name,
        seed=seed,
        fold=truth.run.fold,
        folds=truth.run.folds,
        classes=truth.classes,
        pretrained_on=None if pretrained_on is None else list(pretrained_on),
        scored_from="masks",
        versions=_versions(),
        status="running",
    )
    told = {"predictions": predictions, "references": references, "images": images, "groups": groups}
    options = {key: None if value is None else str(value) for key, value in told.items()}
    folder = RunFolder(output if earlier else output.with_name(f".partial-{os.getpid()}-{output.name}"))
    with ExitStack() as stack:
        if earlier:
            stack.enter_context(locked(folder.path, work="scoring"))
        else:
            for left in output.parent.glob(f".partial-*-{output.name}"):
                with suppress(UserError, FileNotFoundError), locked(left):  # its process is gone
                    shutil.rmtree(left)
            try:
                folder.path.mkdir(parents=True)
            except OSError as error:
                error.filename = str(output)  # the name the user knows
                raise
            stack.callback(shutil.rmtree, folder.path, ignore_errors=True)
            stack.enter_context(locked(folder.path, work="scoring"))
            folder.begin(run, config={}, split={"parts": {}})
        writer = EvaluationFolder(folder.path / "evaluations" / f"{truth.dataset}-{truth.part}")
        stack.callback(writer.abandon)
        scored = _scored(truth, writer)
        rows = [row for one in scored for row in one.rows]
        figures = by_class(truth.classes, rows)
        warnings = _warnings(scored)
        digests = {case.name: one.digest for case, one in zip(truth.cases, scored, strict=True)}
        record = EvaluationRecord(
            dataset=truth.dataset,
            part=truth.part,
            split=truth.how,
            grouping=truth.grouping,
            warnings=warnings,
            references_hash=references_hash(digests),
            classes=record_of_classes(figures, None),
            policy=ScoringPolicy().as_dict(),
            versions=_versions(),
            machine={"processor": processor()},
            seconds=round(time.perf_counter() - started, 3),
            date=time.strftime("%Y-%m-%d"),
        )
        writer.finish(record, rows=rows, calibration=None)
        marks = [one.prediction_digest for one in scored]
        run = replace(
            run, run_hash=canonical_hash([name, seed, truth.classes, digests, marks]), test=_test(truth, figures)
        )
        _complete(folder, run, truth, {**options, "groups_from": groups_from})
        if not earlier:
            with suppress(FileNotFoundError):
                output.rmdir()  # an empty one
            folder.path.rename(output)
    what = f"{name}: {truth.part} ({truth.dataset}, {len(truth.cases)} images)"
    return ScoredMasks(output, sentence(what, over_classes(figures), figures), warnings, left_out)


def _argument_problems(
    predictions: Any,
    references: Any,
    name: str,
    seed: int,
    dataset: str | None,
    part: str,
    classes: Sequence[str] | None,
    images: Any,
) -> list[str]:
    problems = []
    for option, folder in (("predictions", predictions), ("references", references), ("images", images)):
        if folder is not None and not Path(folder).is_dir():
            problems.append(f"{option} {folder}: no such folder")
    if not problems and Path(predictions).resolve() == Path(references).resolve():
        problems.append(f"predictions {predictions}: are the references themselves")
    for option, text in (("name", name), ("dataset", dataset)):
        if text is not None and not _PLAIN.fullmatch(text):
            problems.append(f"{option} {text!r}: use letters, digits, _, -, + and ., beginning with a letter or digit")
    if seed < 0:
        problems.append(f"seed {seed}: give a whole number of at least 0")
    if part not in (*PARTS, "all"):
        problems.append(f"part {part!r}: choose one of {', '.join(PARTS)}, all")
    if classes is not None and (not classes or len(set(classes)) < len(classes) or not all(classes)):
        problems.append(f"classes {','.join(classes)}: give different names, with commas between")
    return problems


def _truth(folder: Path, part: str, classes: Sequence[str] | None, dataset: str | None) -> _Truth:
    """What lies in a folder of references, or in what a run of ours was scored against."""
    if (folder / "run.json").is_file():
        record = read_run(folder)
        found = folder / "evaluations" / f"{record.dataset}-{part}"
        if not found.is_dir():
            raise UserError(
                f"references {folder}: that run has no evaluation {found.name}; give one of its evaluations/"
            )
        folder = found
    elif folder.name == "references" and (folder.parent / "cases.csv").is_file():
        folder = folder.parent
    if not (folder / "cases.csv").is_file() or not (folder / "references").is_dir():
        return _foreign_truth(folder, part, classes, dataset)
    try:
        evaluation = read_evaluation(folder)
    except UserError as error:
        raise UserError([f"references {folder}: {problem}" for problem in error.problems]) from error
    if classes is not None and list(classes) != evaluation.classes:
        raise UserError(f"classes {','.join(classes)}: those of {folder} are {','.join(evaluation.classes)}")
    run = RunRecord()
    with suppress(UserError):
        run = read_run(folder.parent.parent)
    if run.dataset != evaluation.dataset:  # it was evaluated on other data than its own
        run = RunRecord()
    cases = {}
    for row in evaluation.rows:
        y, x = (float(row[key]) if row[key] is not None else np.nan for key in ("spacing_y", "spacing_x"))
        spacing = (y, x) if np.isfinite(y) and np.isfinite(x) else None
        image = evaluation.picture("images", str(row.case))
        cases[str(row.case)] = _Case(
            name=str(row.case),
            reference=None,
            group=str(row.group),
            site=row.site or "",
            part=str(row.part),
            spacing=spacing,
            image=image if image.is_file() else None,
        )
    return _Truth(
        dataset=dataset or evaluation.dataset,
        part=evaluation.part,
        classes=evaluation.classes,
        cases=list(cases.values()),
        grouping=grouping_of(run, evaluation),
        how=str(evaluation.record.split or run.split or f"as in {folder.name}"),
        evaluation=evaluation,
        run=run,
    )


def _foreign_truth(folder: Path, part: str, classes: Sequence[str] | None, dataset: str | None) -> _Truth:
    files, others = _masks(folder)
    if not files:
        raise UserError(f"references {folder}: holds no mask{_in_subfolders(others)}")
    names = list(classes) if classes is not None else ["foreground"]
    if all(is_image(file) for file in files):
        with_images = found_classes(str(folder), names=classes, images=".", masks=".")
        if classes is None and len(with_images) > 1:
            names = with_images
    cases: dict[str, _Case] = {}
    problems = []
    for file in files:
        bare = _bare(mask_stem(file))
        if (other := cases.get(bare)) is not None and other.reference is not None:
            problems.append(f"{file}: {other.reference.name} has the same name but for its ending; keep one of them")
        cases[bare] = _Case(bare, file, group=bare, part=part)
    if problems:
        raise UserError(problems)
    name = dataset or folder.resolve().name
    if not _PLAIN.fullmatch(name):
        raise UserError(f"references {folder}: say the dataset's name (dataset)")
    return _Truth(name, part, names, list(cases.values()), "unknown", f"masks of {folder.resolve().name}")


def _masks(folder: Path) -> tuple[list[Path], list[str]]:
    """The masks of a folder, and the names of its other files and of its subfolders."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    masks = [path for path in visible if path.is_file() and is_mask_file(path) and not _pictured(path)]
    known = set(masks)
    return masks, [f"{path.name}/" if path.is_dir() else path.name for path in visible if path not in known]


def _in_subfolders(others: Sequence[str]) -> str:
    """Where else masks may be, of what is no mask."""
    folders = [name for name in others if name.endswith("/")]
    return f" (its subfolders are not looked into: {', '.join(folders)})" if folders else ""


def _pictured(path: Path) -> bool:
    """Whether it is what `predict` writes beside its masks."""
    name = mask_stem(path)
    return (name.endswith("_overlay") or "_probability" in name) and made_here(path)


def _bare(name: str) -> str:
    """A name without a mask's suffix, such as ``_mask``."""
    return next((name[: -len(end)] for end in MASK_SUFFIXES if name.lower().endswith(end)), name)


def _earlier(output: Path, name: str, seed: int, truth: _Truth) -> bool:
    """Whether the output is an earlier run folder of the same; refuse it where it is something else."""
    standing = next(path for path in output.parents if path.exists())
    if not standing.is_dir():
        raise UserError(f"output {output}: {standing} is a file")
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return False
    try:
        record = read_run(output)
    except UserError as error:
        raise UserError(f"output {output}: holds something else; give a folder that is new or empty") from error
    given = {"network": name, "seed": seed, "dataset": truth.dataset, "classes": truth.classes, "fold": truth.run.fold}
    if record.scored_from != "masks" or any(record[key] != value for key, value in given.items()):
        raise UserError(f"output {output}: holds another run; give a folder that is new or empty")
    return True


def _group(truth: _Truth, pattern: str | None, table: str | os.PathLike[str] | None) -> list[str]:
    """Give each case its group, in place; what is wrong."""
    problems: list[str] = []
    found: dict[str, str | None] = {}
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            return [f"groups-from {pattern!r}: not a regular expression ({error})"]
        for case in truth.cases:
            found[case.name] = group_in(case.name, compiled)
        where = f"groups-from {pattern!r}"
    elif table is not None:
        where = f"groups {table}"
        listed = _listed_groups(Path(table), problems)
        if problems:
            return problems
        for case in truth.cases:
            values = listed.get(case.name, set())
            if len(values) > 1:
                problems.append(f"{where}: {case.name} is in {' and in '.join(sorted(values))}")
            found[case.name] = next(iter(values), None)
    else:
        return []
    lacking = [name for name, group in found.items() if not group]
    if lacking:
        problems.append(f"{where}: finds no group for {', '.join(lacking)}")
    for case in truth.cases:
        case.group = found[case.name] or case.group
    truth.grouping = "known"
    return problems


def _listed_groups(table: Path, problems: list[str]) -> dict[str, set[str]]:
    """The groups of each case's name in a table."""
    rows = read_table(table, [], problems)
    if not rows:
        return {}
    key = "file" if "file" in rows[0] else "case"
    columns = [column for column in ("patient", "scene", "group", "case") if column in rows[0] and column != key]
    if key not in rows[0] or not columns:
        told = ", ".join(dict.fromkeys(GROUP_TABLES.values()))
        problems.append(f"groups {table}: needs the column file (or case), and one of {told}")
        return {}
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        name = stem(row[key]) if key == "file" else row[key]
        for one in {name, _bare(name)}:
            found[one].add(row[columns[0]].strip())
    return found


def _match(truth: _Truth, predictions: Path, images: Path | None) -> tuple[list[str], list[str]]:
    """Find each case's prediction and image by name, in place.

    Returns:
        Names of what is no mask of the folder; every file and case without a counterpart.
    """
    cases = {case.name: case for case in truth.cases}
    masks, left_out = _masks(predictions)
    problems = []
    for file in masks:
        name = mask_stem(file)
        case = cases.get(name) or cases.get(_bare(name))
        if case is None:
            problems.append(f"{file}: no reference of that name")
        elif case.prediction is not None:
            problems.append(f"{file}: {case.prediction.name} is of the same case; keep one of them")
        else:
            case.prediction = file
    if not masks:
        return left_out, [f"predictions {predictions}: holds no mask{_in_subfolders(left_out)}"]
    unfound = [case.name for case in truth.cases if case.prediction is None]
    problems += [f"{name}: no prediction in {predictions}{_in_subfolders(left_out)}" for name in unfound]
    if images is not None:
        there = {stem(path): path for path in sorted(images.iterdir()) if path.is_file() and is_image(path)}
        for case in truth.cases:
            case.image = there.get(case.name) or there.get(f"{case.name}_0000")
            if case.image is None:
                problems.append(f"{case.name}: no image in {images}")
    return left_out, problems


def _scored(truth: _Truth, writer: EvaluationFolder) -> list[_Scored]:
    """Every case, scored.

    Raises:
        UserError: some do not fit; lists all.
    """
    scored = map_files(lambda case: _score(case, truth, writer), truth.cases, "Scoring masks")
    if problems := [problem for one in scored for problem in one.problems]:
        raise UserError(problems)
    return scored


def _misfits(truth: _Truth) -> list[str]:
    """What would not fit in the cases that have a prediction, so that all is told at once."""
    matched = [case for case in truth.cases if case.prediction is not None]
    found = map_files(lambda case: _score(case, truth, None), matched, "Reading masks")
    return [problem for one in found for problem in one.problems]


def _score(case: _Case, truth: _Truth, writer: EvaluationFolder | None) -> _Scored:
    """Read and score a case, and write its pictures; only read it without a writer."""
    problems: list[str] = []
    found: list[ForeignMask | None] = []
    for path, is_truth in ((case.reference, True), (case.prediction, False)):
        try:
            found.append(_read(case, path, truth, is_truth))
        except (UserError, OSError) as error:
            problems += error.problems if isinstance(error, UserError) else [f"{case.name}: {error}"]
            found.append(None)
    reference, prediction = found
    image: Raster | None = None
    if case.image is not None:
        try:
            image = read_raster(case.image)
        except UserError as error:
            problems += error.problems
    if reference is None or prediction is None or problems:
        return _Scored(problems=problems)
    try:
        labels = in_place_of(prediction, reference)
    except ValueError as error:
        return _Scored(problems=[f"{case.prediction}: {error}"])
    truth_labels = reference.labels
    spacing = case.spacing or reference.spacing
    if truth.evaluation is None and image is not None:
        if image.pixels.shape[:2] != truth_labels.shape:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (image.pixels.shape, truth_labels.shape)]
            return _Scored(problems=[f"{case.image}: is {sizes[0]} (width x height) but its reference {sizes[1]}"])
        spacing = image.spacing or spacing
    if writer is None:
        return _Scored()
    key = {"dataset": truth.dataset, "site": case.site, "part": case.part, "case": case.name, "group": case.group}
    rows = []
    for number, name in enumerate(truth.classes, 1):
        scores = score_case(truth_labels == number, labels == number, spacing=spacing)
        rows.append({**key, "class": name, **scores, "error": ""})
    for kind, content in (("predictions", labels), ("references", truth_labels)):
        save_label(content, writer.picture(kind, case.name), classes=len(truth.classes))
    if image is not None:
        save_picture(image, writer.picture("images", case.name))
    marked, true = labels > 0, truth_labels > 0
    turned = {words: turn(marked) for words, turn in _TURNS.items()}
    return _Scored(
        rows=rows,
        digest=labels_digest(truth_labels),
        prediction_digest=labels_digest(labels),
        empty=not true.any(),
        overlaps={words: int((mask & true).sum()) for words, mask in turned.items() if mask.shape == true.shape},
        areas=int(marked.sum() + true.sum()),
    )


def _read(case: _Case, path: Path | None, truth: _Truth, is_truth: bool) -> ForeignMask:
    if path is None:
        assert truth.evaluation is not None
        return ForeignMask(truth.evaluation.labels("references", case.name))
    return read_foreign_mask(path, classes=truth.classes, truth=is_truth)


def _warnings(scored: Sequence[_Scored]) -> list[str]:
    found = []
    areas = max(1, sum(one.areas for one in scored))
    turns = [words for words in _TURNS if all(words in one.overlaps for one in scored)]
    own, *others = (2 * sum(one.overlaps[words] for one in scored) / areas for words in turns)
    if max(others) > own + _MIRRORED:
        found.append(
            f"the masks fit their references better {turns[1 + int(np.argmax(others))]} (Dice of all pixels "
            f"{max(others):.2f} instead of {own:.2f}): was their orientation lost when they were saved?"
        )
    if all(one.empty for one in scored):
        found.append("every reference is empty, so marking nothing is perfect here")
    return found


def _versions() -> dict[str, str]:
    """Of what scored; what made the masks is not known."""
    return {key: value for key, value in versions().items() if key in ("python", "monai_thyroid", "numpy")}


def _test(truth: _Truth, figures: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """``test`` of run.json."""
    if truth.part != "test":
        return None
    summary = over_classes(figures)
    return {
        **{key: summary[key] for key in ("dice_mean", "iou_foreground_mean", "n_cases")},
        "classes": {name: one["dice_mean"] for name, one in figures.items()},
    }


def _complete(folder: RunFolder, run: RunRecord, truth: _Truth, options: Mapping[str, str | None]) -> None:
    """Write what belongs to the run, what it says of other parts kept."""
    part: dict[str, Any] = {
        "cases": [case.name for case in truth.cases],
        "groups": sorted({case.group for case in truth.cases}),
        "sites": sorted({case.site for case in truth.cases}),
    }
    if truth.evaluation is None and all(case.image for case in truth.cases):
        part["image_sha256"] = [sha256_file(case.image) for case in truth.cases if case.image]
    split = {
        **{"dataset": truth.dataset, "grouping": truth.grouping, "how": truth.how, "fold": None, "data_hash": None},
        **{"warnings": [], "parts": {**read_split(folder.path)["parts"], truth.part: part}},
    }
    told = {**read_config(folder.path).get("score", {}), truth.part: dict(options)}
    config = {"schema_version": SCHEMA_VERSION, "name": run.network, "seed": run.seed, "score": told}
    write_yaml(folder.path / "config.yaml", config)
    write_json(folder.path / "split.json", split)
    before = folder.open()
    folder.update(**{**replace(run, schema_version=SCHEMA_VERSION, test=run.test or before.test), "status": "done"})
