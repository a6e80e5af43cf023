"""Run folders, read without torch: which runs can be used, and which may be compared with each other."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai_thyroid.errors import UserError
from monai_thyroid.files import canonical_hash
from monai_thyroid.runfolder import (
    Evaluation,
    HistoryRow,
    RunRecord,
    differing_settings,
    grouping_of,
    network_definition,
    read_config,
    read_evaluation,
    read_history,
    read_run,
    same_postprocessing,
)

__all__ = ["Run", "Unusable", "by_dataset", "by_fold", "comparability", "find_runs", "variants"]


@dataclass(frozen=True)
class Run:
    """A run folder that can be used.

    Attributes:
        path: the folder, absolute.
        record: run.json.
        history: rows of history.csv.
        evaluations: every one that can be read, by folder name.
        scored: the one that is compared.
        notes: what could not be read, though the run can be used.
    """

    path: Path
    record: RunRecord = field(repr=False)
    history: list[HistoryRow] = field(repr=False)
    evaluations: dict[str, Evaluation] = field(repr=False)
    scored: Evaluation = field(repr=False)
    notes: list[str] = field(repr=False)

    def evaluation(self, part: str) -> Evaluation | None:
        """The evaluation of a part of the run's own data, None where there is none."""
        return _own(self.evaluations, self.record, part)

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.record.network)

    @functools.cached_property
    def definition(self) -> dict[str, Any]:
        """What the network is built from, see `network_definition`; nothing where no config of ours can be read."""
        try:
            return network_definition(read_config(self.path))
        except (UserError, LookupError, TypeError, ValueError, AttributeError):
            return {}

    @property
    def seed(self) -> int:
        """The seed of weights, order and augmentation."""
        return int(self.record["seed"])

    @property
    def fold(self) -> int | None:
        """The fold of a cross-validation, None without."""
        return self.record.fold

    @property
    def dataset(self) -> str:
        """Name of the dataset that it was trained on."""
        return str(self.record.dataset)

    @property
    def classes(self) -> list[str]:
        """Names of the classes that it marks."""
        return list(self.record.classes or [])

    @property
    def scored_classes(self) -> list[str]:
        """The classes, and after them all of them together where these were scored as one."""
        whole = self.scored.record.whole
        return [*self.classes, *([whole] if whole and whole in self.scored.classes else [])]

    @property
    def from_masks(self) -> bool:
        """Whether masks that something else made were scored, so that there are no weights and no history."""
        return self.record.scored_from == "masks"

    @property
    def title(self) -> str:
        """What it is called in a report, such as ``unet seed 0 fold 1``."""
        return f"{self.network} seed {self.seed}" + ("" if self.fold is None else f" fold {self.fold}")

    @property
    def best_validation(self) -> float | None:
        """Best validation Dice of an epoch, on the network's grid."""
        found = (row.val_dice for row in self.history)
        return max((value for value in found if value is not None and math.isfinite(value)), default=None)

    @property
    def grouping(self) -> str:
        """What is known of its groups: ``known``, ``unknown`` or ``leaky``."""
        return grouping_of(self.record, self.scored)

    @property
    def synthetic(self) -> bool:
        """Whether its images are computer-made."""
        return self.dataset == "phantom" if self.record.synthetic is None else self.record.synthetic

    @property
    def data_hash(self) -> str | None:
        """Hash of the data that were scored."""
        return self.scored.record.data_hash or self.record.data_hash


@dataclass(frozen=True)
class Unusable:
    """A run that cannot be part of a report, and why."""

    path: str
    network: str
    seed: str
    fold: str
    reason: str


def find_runs(paths: Iterable[str | Path], *, part: str = "test") -> tuple[list[Run], list[Unusable]]:
    """Read every run folder at or below some paths.

    Args:
        paths: run folders, or folders above them.
        part: of each run's own dataset that is to be compared; a run without scores of it cannot be used.

    Returns:
        The usable runs, by dataset, network, seed and fold; and the others.

    Raises:
        UserError: a path is missing, or there is no run.json below it.
    """
    folders: dict[Path, None] = {}
    problems = []
    for given in paths:
        path = Path(given)
        if not path.is_dir():
            problems.append(f"{path}: there is no such folder; give run folders or folders above them")
            continue
        found = [file.parent.resolve() for file in sorted(path.rglob("run.json"))]
        if not found:
            problems.append(f"{path}: no run in it or below it (no run.json); give the output_dir of trained runs")
        folders.update(dict.fromkeys(found))
    if problems:
        raise UserError(problems)

    runs, unusable = [], []
    for folder in folders:
        try:
            runs.append(_read_run(folder, part))
        except _UnusableError as error:
            unusable.append(
                Unusable(
                    path=str(folder),
                    **{
                        key: "" if error.record[key] is None else str(error.record[key])
                        for key in ("network", "seed", "fold")
                    },
                    reason=str(error),
                )
            )
    runs.sort(key=lambda run: (run.dataset, run.network, run.seed, by_fold(run.fold), str(run.path)))
    unusable.sort(key=lambda one: one.path)
    return runs, unusable


def by_fold(fold: int | None) -> int:
    """Sorting key of folds: no fold comes first."""
    return -1 if fold is None else fold


def by_dataset(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by the dataset they were trained on."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.dataset].append(run)
    return dict(sorted(found.items()))


def comparability(runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """What forbids to compare the runs of one dataset.

    Args:
        runs: of one dataset.

    Returns:
        What nothing can mend (other classes, one run twice, folds beside none), and what ``--force`` may override
        (other data, another protocol, other references or cases, another scoring policy). One paragraph each. Of runs
        that were scored from masks neither data nor protocol are known: their references must be the same.
    """
    first = runs[0]
    fatal, forcible = [], []
    where = f"dataset {first.dataset}: "
    if len({tuple(run.classes) for run in runs}) > 1:
        listed = _listed(runs, lambda run: ", ".join(run.classes))
        fatal.append(f"{where}the runs mark different classes and cannot be compared.\n{listed}")
    if len({run.fold is None for run in runs}) > 1:
        listed = _listed(runs, lambda run: "no fold" if run.fold is None else f"fold {run.fold}")
        fatal.append(f"{where}some runs are folds of a cross-validation and some are not; give one kind.\n{listed}")
    same: dict[tuple, list[Run]] = defaultdict(list)
    of = variants(runs)[0]
    for run in runs:
        same[run.network, of.get(run.path), run.seed, run.fold, run.record.protocol_hash].append(run)
    for twice in same.values():
        if len(twice) > 1:
            listed = "\n".join(f"  {run.path}" for run in twice)
            fatal.append(f"{where}{twice[0].title} is there more than once; leave out all but one.\n{listed}")

    trained = [run for run in runs if not run.from_masks]
    for fold in sorted({run.fold for run in runs}, key=by_fold):
        of_fold = [run for run in trained if run.fold == fold]
        forcible += _hash_problem(of_fold, "data_hash", f"{where}the runs were made on different data or splits")
        forcible += _reference_problems([run for run in runs if run.fold == fold], where)
    forcible += _hash_problem(trained, "protocol_hash", f"{where}the runs were made by different protocols (recipes)")
    forcible += _case_problems(runs, where)
    if _policies_differ([run.scored.record.policy for run in runs]):
        forcible.append(f"{where}the runs were scored by different policies; evaluate them anew with one version.")
    return fatal, forcible


def variants(runs: Sequence[Run]) -> tuple[dict[Path, str], list[str]]:
    """Runs whose networks share a name and are not the same: built with other arguments, or pretrained or not.

    Args:
        runs: of one dataset.

    Returns:
        Of the runs of such a network the first digits of its definition's hash, and in a sentence what differs. A run
        without a config that can be read is taken for none of them.
    """
    named: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    built: dict[str, dict[str, Any]] = {}
    several = {name for name, count in Counter(run.network for run in runs if not run.from_masks).items() if count > 1}
    for run in runs:
        if run.network not in several or run.from_masks:
            continue
        if run.definition:
            digits = canonical_hash(run.definition)[:8]
            built[digits] = run.definition
            named[run.network][digits].append(run.path)
    digits_of: dict[Path, str] = {}
    told = []
    for name, found in named.items():
        if len(found) < 2:
            continue
        digits_of.update({path: digits for digits, paths in found.items() for path in paths})
        keys = sorted({key for one in found for key in built[one]})
        differing = [key for key in keys if len({str(built[one].get(key)) for one in found}) > 1]
        arguments = "; ".join(
            f"{name}-{one}: {', '.join(f'{key} {_short(built[one].get(key))}' for key in differing)}" for one in found
        )
        told.append(f"The name {name} stands for networks that are not the same and are told apart: {arguments}.")
    return digits_of, told


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


class _UnusableError(Exception):
    def __init__(self, reasons: str | Sequence[str], record: RunRecord | None = None) -> None:
        super().__init__(reasons if isinstance(reasons, str) else "; ".join(reasons))
        self.record = record or RunRecord()


def _read_run(folder: Path, part: str) -> Run:
    try:
        record = read_run(folder)
    except UserError as error:
        raise _UnusableError(error.problems) from error
    if missing := [key for key in record.needed() if record[key] in (None, [])]:
        raise _UnusableError(f"run.json lacks {', '.join(missing)}", record)
    if record.status == "failed":
        raise _UnusableError(f"the run failed: {record.error or 'no reason was recorded'}", record)
    if record.status != "done":
        raise _UnusableError(f"the run is not complete (status {record.status}); resume it with --resume true", record)

    problems: list[str] = []
    history: list[HistoryRow] = []
    try:
        history = [] if record.scored_from else read_history(folder / "history.csv")
    except UserError as error:
        problems += error.problems
    diverged = (_divergence(row) for row in history)
    problems += itertools.islice(filter(None, diverged), 1)
    evaluations: dict[str, Evaluation] = {}
    unreadable: dict[str, list[str]] = {}
    for path in sorted((folder / "evaluations").glob("[!.]*/")):
        try:
            evaluations[path.name] = read_evaluation(path)
        except UserError as error:
            unreadable[path.name] = error.problems
    name = f"{record.dataset}-{part}"
    own = _own(evaluations, record, part)
    if own is None or (name in unreadable and not own.of_data(record)):
        there = f"there is {', '.join(evaluations)}" if evaluations else "there is none"
        lacking = f"no evaluation {name} ({there}); run the bundle's evaluate.yaml with --part {part}"
        told = [f"evaluation {name}: {problem}" for problem in unreadable.get(name, [])] or [lacking]
        raise _UnusableError([*problems, *told], record)
    scored, current = own.record.checkpoint_sha256, record.checkpoint_sha256
    if scored and current and scored != current:
        problems.append(f"the scores in evaluations/{own.name} are of other weights than the run's; evaluate")
    if not same_postprocessing(record, own.record):
        problems.append(f"the scores in evaluations/{own.name} are of other postprocessing than the run's; evaluate")
    if absent := [one for one in record.classes or [] if one not in own.classes]:
        problems.append(f"evaluations/{own.name} has no scores of the class {', '.join(absent)}")
    if problems:
        raise _UnusableError(problems, record)
    notes = [f"evaluation {name}: {'; '.join(told)}" for name, told in unreadable.items()]
    data, scored_data = record.data_hash, own.record.data_hash
    if data and scored_data and data != scored_data:
        notes.append(f"evaluation {own.name} is of other data than the training's (data hash {scored_data[:8]})")
    return Run(folder, record, history, evaluations, own, notes)


def _divergence(row: HistoryRow) -> str | None:
    for name in ("train_loss", "val_loss"):
        if row[name] is not None and not math.isfinite(row[name]):
            epoch = "?" if row.epoch is None else row.epoch
            return f"its {name} is {row[name]} in epoch {epoch}: the training diverged"
    return None


def _own(evaluations: Mapping[str, Evaluation], record: RunRecord, part: str) -> Evaluation | None:
    """The evaluation of a part of the run's own data, known by their hash; by name where that tells nothing."""
    by_data = [one for one in evaluations.values() if record.data_hash and one.part == part and one.of_data(record)]
    return by_data[0] if by_data else evaluations.get(f"{record.dataset}-{part}")


def _policies_differ(policies: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether two policies differ in what both have: a metric that one of them lacks was not scored."""

    def flat(policy: Mapping[str, Any]) -> dict[str, str]:
        metrics = policy.get("metrics") if isinstance(policy.get("metrics"), dict) else {}
        return {key: repr(value) for key, value in {**policy, **(metrics or {})}.items() if key != "metrics"}

    found: dict[str, str] = {}
    return any(
        found.setdefault(key, value) != value for policy in policies if policy for key, value in flat(policy).items()
    )


def _hash_problem(runs: Sequence[Run], key: str, sentence: str) -> list[str]:
    def hashed(run: Run) -> str | None:
        return run.data_hash if key == "data_hash" else run.record.protocol_hash

    hashes = [hashed(run) for run in runs]
    if len(set(hashes)) <= 1:
        return []
    listed = _listed(runs, lambda run: f"{key} {str(hashed(run))[:8]}")
    # Of each further hash, the first run that has it beside the first run.
    others = {hashed(run): run for run in reversed(runs) if hashed(run) != hashes[0]}
    told = []
    for run in sorted(others.values(), key=lambda run: str(run.path)):
        names = " / ".join(f"{one.title} of {str(hashed(one))[:8]}" for one in (runs[0], run))
        told.append(_settings(runs[0], run, key, names))
    return ["\n".join([f"{sentence}, so their scores cannot be compared.", listed, *told])]


def _reference_problems(runs: Sequence[Run], where: str) -> list[str]:
    """Runs scored from masks that were not scored against the very references of the others."""
    trained = [run for run in runs if not run.from_masks]
    first = (trained or list(runs))[0]
    expected = first.scored.references_hash()
    problems = []
    for run in runs:
        if not run.from_masks or run is first:
            continue
        both = f"{run.title} ({run.path}), scored from masks, and {first.title} ({first.path})"
        found = run.scored.references_hash()
        if expected is None or found is None:
            lacking = run if found is None else first
            problems.append(
                f"{where}whether {both} were scored against the same references is not known, as {lacking.path} has "
                "neither references_hash nor its references; evaluate it again."
            )
        elif found != expected:
            problems.append(
                f"{where}{both} were scored against different references or cases (references_hash {found[:8]} / "
                f"{expected[:8]}); score the masks against what that run was: --references {first.scored.path}"
            )
    return problems


def _settings(first: Run, second: Run, key: str, names: str) -> str:
    """Which settings differ, from both config.yaml."""
    try:
        pairs = differing_settings(read_config(first.path), read_config(second.path), of=key)
    except UserError as error:
        return f"  {error}, so which settings differ is not known."
    differing = [
        f"{name} (a section of the config)"
        if any(isinstance(value, dict) or (isinstance(value, list) and len(str(value)) > 60) for value in values)
        else f"{name} ({values[0]} / {values[1]})"
        for name, values in pairs.items()
    ]
    told = ", ".join(differing) or "none in config.yaml: the files of the dataset themselves, or its version"
    return f"  settings that differ, {names}: {told}"


def _case_problems(runs: Sequence[Run], where: str) -> list[str]:
    problems = []
    folds: dict[int | None, list[Run]] = defaultdict(list)
    for run in runs:
        folds[run.fold].append(run)
    for of_fold in folds.values():
        first = of_fold[0]
        for name in first.classes:
            expected = {row["case"]: row for row in first.scored.of_class(name)}
            for run in of_fold[1:]:
                rows = {row["case"]: row for row in run.scored.of_class(name)}
                both = f"{first.title} ({first.path}) and {run.title} ({run.path})"
                missing, more = sorted(set(expected) - set(rows)), sorted(set(rows) - set(expected))
                if missing or more:
                    told = [
                        f"{len(cases)} only in {one.title} ({_some(cases)})"
                        for one, cases in ((first, missing), (run, more))
                        if cases
                    ]
                    problems.append(f"{where}{both} were scored on different cases: {'; '.join(told)}.")
                shared = [case for case in expected if case in rows]
                if other := [case for case in shared if _other_reference(expected[case], rows[case])]:
                    problems.append(
                        f"{where}{both} were scored against different references or groups in {len(other)} of "
                        f"{len(shared)} cases of the same name ({_some(other)})."
                    )
    return list(dict.fromkeys(problems))


def _other_reference(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether what does not depend on the prediction differs."""
    if first["error"] or second["error"]:
        return False
    told = [
        (row["group"], row["tp"] + row["fn"], row["tp"] + row["fp"] + row["fn"] + row["tn"], row["n_ref"])
        for row in (first, second)
    ]
    return told[0] != told[1]


def _some(cases: Sequence[str], most: int = 5) -> str:
    return ", ".join(cases[:most]) + (f" and {len(cases) - most} more" if len(cases) > most else "")


def _listed(runs: Sequence[Run], value: Any) -> str:
    """Runs by what distinguishes them, a line each."""
    ordered = sorted(runs, key=lambda run: str(value(run)))
    lines = []
    for told, members in itertools.groupby(ordered, key=lambda run: str(value(run))):
        lines += [f"  {told}: {run.title} ({run.path})" for run in members]
    return "\n".join(lines)
