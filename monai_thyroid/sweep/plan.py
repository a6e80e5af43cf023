"""A comparison's runs, networks x seeds x folds: planned, estimated and executed."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser

from monai_thyroid.data import Datalist
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.precision import AutocastInferer
from monai_thyroid.evaluation.weights import find_weights
from monai_thyroid.files import atomic_path, canonical_hash, locked, read_json, sha256_file, write_json
from monai_thyroid.networks import listed
from monai_thyroid.options import boolean
from monai_thyroid.runfolder import finished_epochs, run_hash
from monai_thyroid.sweep.executors import Finished, run_local, run_ray, threads_each
from monai_thyroid.sweep.jobs import Job, State, state_of
from monai_thyroid.sweep.progress import Progress
from monai_thyroid.sweep.tuning import (
    Choice,
    Setting,
    Tuning,
    choose,
    diverged,
    in_words,
    setting_hash,
    trial_score,
)
from monai_thyroid.training.check import file_problems, input_size, problems_of, read_config, unknown_overrides
from monai_thyroid.training.config import executed_config
from monai_thyroid.training.constants import CONSTANTS
from monai_thyroid.training.session import TrainingSession

__all__ = ["Ray", "Sweep", "plan_sweep"]

logger = logging.getLogger(__name__)

# What `plan_sweep` sets itself, and what the user is to say instead.
_OWN = {
    "network": "use --networks",
    "seed": "use --seeds",
    "fold": "use --folds, all of which are run",
    "output_dir": "use --output, whose folder runs/ takes the run folders",
    "resume": "leave it out, runs are always resumed",
}
# What scoring takes over from training where it is given.
_FOR_SCORING = ("device", "precision", "batch_size", "num_workers")
_TRAINED = ("complete", "diverged")
Choices = dict[tuple[str, int | None], Choice | None]
# What no network is built from, so that checking the values themselves is enough.
_BUILD_NOTHING = (
    "learning_rate",
    "first_stage_learning_rate",
    "weight_decay",
    "batch_size",
    "patience",
    "val_interval",
)


@dataclass(frozen=True)
class Ray:
    """Where a comparison is executed if not by processes of this machine.

    Attributes:
        address: of the cluster; None for the one RAY_ADDRESS names, or else one of this machine alone.
        cpus: cores each run asks for.
        gpus: GPUs each run asks for; None for 1 where the device is CUDA, else 0.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float | None = None


@dataclass
class Sweep:
    """What a comparison will do; made by `plan_sweep`.

    Attributes:
        output: the comparison's folder; ``runs/``, ``logs/`` and ``plan.json`` are in it, and ``tuning/``.
        jobs: every run, complete ones included; with tuning, as far as their settings are chosen, and else "waits".
        content: of plan.json.
        overwrite: whether runs with other settings are trained anew.
        device: on which the runs are computed.
        train_images: in the training part of the (first) fold.
        validation_images: in its validation part.
        test_groups: patients, scenes or videos (single images where they are unknown) in the test parts of all folds.
        parsers: the config with each network chosen.
        trials: trainings by which each network's setting is chosen, of which the test part knows nothing.
        choices: of each network and fold the setting that is chosen; None where every setting diverged.
    """

    output: Path
    jobs: list[Job]
    content: dict[str, Any]
    overwrite: bool
    device: str
    train_images: int
    validation_images: int
    test_groups: int
    parsers: dict[str, ConfigParser]
    trials: list[Job] = field(default_factory=list)
    choices: Choices = field(default_factory=dict)
    _chosen: Callable[[], tuple[Choices, list[Job]]] | None = None

    def table(self, *, at_once: int = 1, ray: Ray | None = None) -> str:
        """The plan as text, with an estimate of the time, for which networks without any history are probed.

        Args:
            at_once: as for `execute`.
            ray: as for `execute`.
        """
        jobs = [*self.trials, *self.jobs]
        each, probed = self._epoch_seconds(threads_each(at_once) if ray is None else max(1, int(ray.cpus)))
        rows = [("run", "state", "epochs", "about")]
        total = 0.0
        for job in jobs:
            left = 0 if job.state in _TRAINED else job.epochs - job.trained
            seconds = left * each.get((job.network, job.setting), 0.0)
            epochs = f"{job.trained} of {job.epochs}"
            if job.hours is not None:
                seconds, epochs = job.hours * 3600 * bool(left), f"{job.trained}, in {job.hours:g} h"
            total += seconds
            rows.append((job.name, _in_words(job), epochs, _duration(seconds) if left else "-"))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in rows]
        unfinished = [job for job in jobs if not job.finished]
        lines.append(f"{len(jobs)} runs, {len(unfinished)} of them to be executed, in {self.output / 'runs'}")
        if self.trials:
            lines[-1] = (
                f"{len(jobs)} runs, {len(unfinished)} of them to be executed: {len(self.trials)} trials in "
                f"{self.output / 'tuning'}, by whose Dice on validation each network's setting is chosen (the test "
                f"part is not scored there), then {len(self.jobs)} in {self.output / 'runs'}"
            )
            lines += self.told_choices()
        if total:
            bases = ["the hours that were asked for"] if any(job.hours for job in unfinished) else []
            if probed:
                bases.append(f"a few steps of {', '.join(probed)} on random images on this machine")
            if {network for network, _ in each} - set(probed):
                bases.append("epochs that were timed before")
            time_ = f"{_duration(total)} of computing"
            if ray is None:
                time_ = f"{_duration(total / min(at_once, max(1, len(unfinished))))} with {at_once} at a time ({time_})"
            lines.append(
                f"Estimate: {time_}, from {' and '.join(bases)}. An upper bound of epochs: training may stop early. "
                "Start, loading and scoring come on top."
            )
        return "\n".join(lines)

    def told_choices(self) -> list[str]:
        """A sentence on each network's choice, as far as it is made."""
        return [
            f"{network}{'' if fold is None else f', fold {fold}'}: "
            f"{'no setting, as the training diverged with all of them' if choice is None else choice.sentence()}"
            for (network, fold), choice in self.choices.items()
        ]

    def _epoch_seconds(self, threads: int) -> tuple[dict[tuple[str, str], float], list[str]]:
        """Seconds an epoch by network and setting, of what has something left to train, and which networks were
        probed.
        """
        found: dict[tuple[str, str], float] = {}
        probed: dict[str, float] = {}
        for job in [*self.trials, *self.jobs]:
            if (job.network, job.setting) in found or job.state in _TRAINED or job.hours is not None:
                continue
            # Other seeds and folds of the same recipe, of this plan or an earlier one.
            histories = job.path.parent.glob("seed-*/history.csv")
            seconds = [row.seconds or 0.0 for path in sorted(histories) for row in finished_epochs(path)]
            if seconds:
                found[job.network, job.setting] = sum(seconds) / len(seconds)
                continue
            if job.network not in probed:
                image = _image_seconds(self.parsers[job.network], threads)
                # Without its backward pass a step takes about a third.
                probed[job.network] = image * (self.train_images + self.validation_images / 3)
            found[job.network, job.setting] = probed[job.network]
        return found, list(probed)

    def execute(self, *, at_once: int = 1, ray: Ray | None = None) -> dict[str, str]:
        """Train and score what is not complete; a run that fails does not stop the others.

        With tuning, trials come first, and `jobs` and `choices` are then those of what they chose. A network of which
        a trial failed by anything but a diverging loss is left out, for it has not had what the others had.

        Args:
            at_once: processes at a time, without Ray.
            ray: execute on a cluster.

        Returns:
            Why runs failed, by their names; their logs tell more.

        Raises:
            UserError: run folders hold runs with other settings, or another comparison is at work in the folder.
            KeyboardInterrupt: stopped by Ctrl-C or SIGTERM; the running trainings have written themselves down.
        """
        self._refuse_others(self.trials + self.jobs)
        self.output.mkdir(parents=True, exist_ok=True)
        with locked(self.output):
            write_json(self.output / "plan.json", self.content)
            if self._chosen is None:
                return self._execute(self.jobs, at_once=at_once, ray=ray)
            failures = self._execute(self.trials, at_once=at_once, ray=ray)
            failures = {
                job.name: failures[job.name] for job in self.trials if job.name in failures and not diverged(job.path)
            }
            self.choices, self.jobs = self._chosen()  # of what is there by now
            for text in self.told_choices():
                logger.info("Chosen for %s", text)
            self._refuse_others(self.jobs)
            ready = [job for job in self.jobs if job.state != "waits"]
            return failures | self._execute(ready, at_once=at_once, ray=ray)

    def _refuse_others(self, jobs: Sequence[Job]) -> None:
        other = [job.path for job in jobs if job.state == "other settings"]
        if other and not self.overwrite:
            raise UserError(
                f"{path}: holds a run of other settings or data; --overwrite true trains it anew, another --output "
                "keeps it, and so does another name of the network in a --config of yours"
                for path in other
            )

    def _execute(self, jobs: Sequence[Job], *, at_once: int, ray: Ray | None) -> dict[str, str]:
        jobs = [job for job in jobs if not job.finished]
        for job in jobs:
            if job.added is not None:
                file, content = job.added
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(file) as temporary:
                    temporary.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        steps: Generator[Finished, None, None]
        if ray is None or not jobs:
            steps = run_local(jobs, at_once=at_once)
        else:
            gpus = ray.gpus if ray.gpus is not None else float(self.device.startswith("cuda"))
            steps = run_ray(jobs, address=ray.address, cpus=ray.cpus, gpus=gpus)
        with Progress(jobs) as progress, closing(steps):
            for finished in steps:
                progress.update(finished)
        return progress.failures


def plan_sweep(
    config_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    networks: Sequence[str],
    seeds: Sequence[int],
    output: str | os.PathLike[str],
    folds: int | None = None,
    overrides: Mapping[str, Any] | None = None,
    elsewhere: bool = False,
    margin: float | None = None,
    tuning: Tuning | None = None,
    wrong: Sequence[str] = (),
) -> Sweep:
    """Find out which runs a comparison consists of and what is there of each; writes nothing.

    Args:
        config_file: a bundle's train.yaml, with its evaluate.yaml beside it, or several files of which it is the first.
        networks: names in its menu.
        seeds: at least 0 each.
        output: the comparison's folder; new, empty, or that of the same bundle on the same data.
        folds: number of folds, all of which are run; None for the dataset's own split.
        overrides: further ids and values, for every run. ``overwrite``: runs with other settings are trained anew.
        elsewhere: the runs are computed on other machines: a CUDA device need not be on this one.
        margin: of the report's recommendation, which the plan keeps: the first plan of a folder declares it, before
            anything is trained, and no later one changes it.
        tuning: settings of which each network's (and each fold's) is chosen on validation.
        wrong: what the caller has found to be wrong with other options, to be told with the rest.

    Raises:
        UserError: something is wrong with the options, the config, the data or the folder; all that was found.
    """
    files = [config_file] if isinstance(config_file, (str, os.PathLike)) else config_file
    config, output = [Path(file).absolute() for file in files], Path(output).expanduser().absolute()
    given = dict(overrides or {})
    problems = [*wrong, *(f"option --{name}: {hint}" for name, hint in _OWN.items() if name in given)]
    problems += file_problems([*config, *_unless_there(config[0].with_name("evaluate.yaml"))])
    problems += [f"{what}: give at least one" for what, all_ in (("networks", networks), ("seeds", seeds)) if not all_]
    problems += [f"{what}: {name} is named twice" for what, name in _twice(networks, seeds)]
    problems += [f"seeds {seed}: give whole numbers of at least 0" for seed in seeds if seed < 0]
    if folds is not None and folds < 2:
        problems.append(f"folds {folds}: give at least 2")
    overwrite = False
    try:
        overwrite = boolean(given.pop("overwrite", False))
    except UserError as error:
        problems.append(f"overwrite {error}")
    if len(problems) > len(wrong):  # without these nothing else can be read
        raise UserError(problems)

    read = dict(given)
    if elsewhere and str(given.get("device", "")).startswith("cuda") and not torch.cuda.is_available():
        read["device"] = "cpu"  # changes neither a hash nor a folder
    fixed = {**read, "output_dir": str(output / "runs")} | ({} if folds is None else {"folds": folds, "fold": 0})
    known = _load(config).get()
    problems = [*wrong, *unknown_overrides(fixed, known)]
    if tuning is not None:
        problems += _tuning_problems(tuning, given, known)
    fixed = {name: value for name, value in fixed.items() if not unknown_overrides({name: value}, known)}
    planner = _Planner(config, given=given, fixed=fixed, folds=folds, output=output, elsewhere=elsewhere)
    parsers = {name: planner.parser(name, seed=seeds[0]) for name in networks}
    problems += _problems(list(parsers.values()), planner.cases, given=given)
    planner.plain = parsers
    if tuning is not None and len(problems) == len(wrong):
        building = Tuning({name: tuning.grid[name] for name in tuning.grid if name not in _BUILD_NOTHING}, tuning.seeds)
        for setting in building.settings if building.grid else ():
            built = [planner.parser(name, seed=seeds[0], added=tuning.trial(setting)) for name in networks]
            wrong = _problems(built, planner.cases)
            problems += [f"--tune {in_words(setting)}: {one}" for one in wrong]
    if problems:
        raise UserError(dict.fromkeys(problems))

    def tried() -> list[Job]:
        if tuning is None:
            return []
        made = [job for one in tuning.settings for job in planner.jobs(networks, tuning.seeds, trial=(tuning, one))]
        return [job.anew() for job in made] if overwrite else made

    def chosen(trials: Sequence[Job]) -> tuple[Choices, list[Job]]:
        choices: Choices = {} if tuning is None else _choices(tuning, trials)
        made = planner.jobs(networks, seeds, waiting=tuning, choices=choices)
        return choices, [job.anew() for job in made] if overwrite else made

    trials = tried()
    choices, jobs = chosen(trials)
    if planner.problems:
        raise UserError(dict.fromkeys(planner.problems))
    first = next(iter(planner.cases.values()))
    content = {
        "config": _named(config),
        "bundle": parsers[networks[0]].get()["bundle"],
        "dataset": first.name,
        "dataset_dir": str(first.root) if first.root else None,
        "networks": list(networks),
        "seeds": list(seeds),
        "folds": folds,
        "overrides": given,
        "data_hashes": planner.hashes,
        "margin": margin,
        **({} if tuning is None else {"tuning": tuning.record()}),
    }
    if earlier := _same_comparison(output / "plan.json", content):
        content["margin"] = earlier.get("margin")
    return Sweep(
        output=output,
        jobs=jobs,
        content=content,
        overwrite=overwrite,
        device=str(given.get("device", planner.device)),
        train_images=len(first.part("train")),
        validation_images=len(first.part("validation")),
        test_groups=len({item["group"] for one in planner.cases.values() for item in one.part("test")}),
        parsers=parsers,
        trials=trials,
        choices=choices,
        _chosen=None if tuning is None else lambda: chosen(tried()),
    )


class _Planner:
    """Makes the runs of a comparison from its config.

    Args:
        config: the files.
        given: overrides, for every run.
        fixed: what configs are read with to plan.
        folds: number of folds, None without.
        output: the comparison's folder.
        elsewhere: the runs are computed on other machines.

    Attributes:
        cases: the data that were read, by what they depend on.
        hashes: of the data, by fold.
        problems: of the data.
        device: that the config names.
        plain: the config with each network chosen, without anything tuned.
    """

    def __init__(
        self,
        config: Sequence[Path],
        *,
        given: Mapping[str, Any],
        fixed: Mapping[str, Any],
        folds: int | None,
        output: Path,
        elsewhere: bool,
    ) -> None:
        self.config, self.given, self.fixed, self.folds = config, dict(given), dict(fixed), folds
        self.output, self.elsewhere = output, elsewhere
        self.cases: dict[str, Datalist] = {}
        self.hashes: dict[str, str] = {}
        self.problems: list[str] = []
        self.device = ""
        self.plain: dict[str, ConfigParser] = {}

    def parser(
        self, network: str, *, seed: int, added: Mapping[str, Any] | None = None, folder: str = "runs"
    ) -> ConfigParser:
        """The config of a network as its run will read it."""
        here = {"output_dir": str(self.output / folder), "network": network, "seed": seed}
        parser = _load(self.config, {**self.fixed, **(added or {}), **here})
        if network in self.plain:
            parser["classes"] = self.plain[network]["classes"]  # which some bundles find by reading every mask
        return parser

    def jobs(
        self,
        networks: Sequence[str],
        seeds: Sequence[int],
        *,
        trial: tuple[Tuning, Setting] | None = None,
        waiting: Tuning | None = None,
        choices: Choices | None = None,
    ) -> list[Job]:
        """Seed by seed, so that a comparison that is stopped has something of every network.

        Args:
            networks: names in the menu.
            seeds: of each.
            trial: the setting that is tried.
            waiting: settings are to be chosen from these; runs of what is not in ``choices`` wait.
            choices: what was chosen.
        """
        made: list[Job] = []
        parsers: dict[Any, ConfigParser] = {}
        for seed in seeds:
            for fold in [None] if self.folds is None else range(self.folds):
                for network in networks:
                    added, file, folder = None, None, "runs"
                    choice = (choices or {}).get((network, fold))
                    if trial is not None:
                        tag = setting_hash(trial[1])
                        added, folder = trial[0].trial(trial[1]), f"tuning/{tag}"
                        file = self.output / "tuning" / tag / "trial.yaml"
                        if "max_epochs" in added and "hours" in self.plain[network].get():
                            added["hours"] = None
                    elif choice is not None and waiting is not None:
                        added = waiting.tuned(choice)
                        name = network if fold is None else f"{network}-fold-{fold}"
                        file = self.output / "tuning" / f"{name}.yaml"
                    key = (network, None if choice is None else fold)
                    if key not in parsers:
                        parsers[key] = (
                            self.plain[network]
                            if added is None
                            else self.parser(network, seed=seed, added=added, folder=folder)
                        )
                    parser = parsers[key]
                    parser["seed"] = seed
                    if fold is not None:
                        parser["fold"] = fold
                    parser.parse(reset=True)
                    job = self._job(parser, fold=fold, added=added, file=file, folder=folder)
                    if trial is not None:
                        name = f"{network}-{job.path.name}-{setting_hash(trial[1])}.log"
                        state: State = "diverged" if job.state == "failed" and diverged(job.path) else job.state
                        log = self.output / "logs" / name
                        job = replace(job, setting=in_words(trial[1]), parts=("validation",), log=log, state=state)
                    elif waiting is not None and choice is None:
                        job = replace(job, state="waits", trained=0)
                    made.append(job)
        return made

    def _job(
        self,
        parser: ConfigParser,
        *,
        fold: int | None,
        added: dict[str, Any] | None,
        file: Path | None,
        folder: str,
    ) -> Job:
        executed = executed_config(parser)
        self.device = executed["device"]
        data = _data(parser, self.cases)
        self.problems += data.inspect().problems
        data_hash = data.inspect().data_hash
        if self.hashes.setdefault("own split" if fold is None else f"fold {fold}", data_hash) != data_hash:
            raise UserError(
                "data: depends on the network or the seed, so the runs would not be scored on the same cases; "
                "set split_seed to a number"
            )
        given = {name: value for name, value in self.given.items() if name not in (added or {})}
        if self.elsewhere and "precision" in executed:
            # Its default depends on the machine, and is part of the recipe.
            given["precision"] = executed["precision"]
        job = _job(
            [*self.config, *([] if file is None else [file])],
            executed,
            data,
            fold=fold,
            epochs=_epochs(parser),
            given=given,
            output=self.output,
        )
        return job if file is None or added is None else replace(job, added=(file, added))


def _tuning_problems(tuning: Tuning, given: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """Options of a grid that the config does not have or that are given besides; a budget it does not have."""
    unknown = unknown_overrides(tuning.grid, known)
    problems = [f"--tune: {problem}" for problem in unknown]
    for name, values in tuning.grid.items():
        for value in values if name in CONSTANTS and name in known else ():
            try:
                CONSTANTS[name](value)
            except UserError as error:
                problems.append(f"--tune {name} {error}")
    problems += [f"--tune {name}: is also given as --{name}; give one of them" for name in tuning.grid if name in given]
    if tuning.epochs is not None and "max_epochs" not in known:
        problems.append("--tune-epochs: the config has no max_epochs")
    return problems


def _choices(tuning: Tuning, trials: Sequence[Job]) -> Choices:
    """What is chosen for each network and fold all of whose trials have ended."""
    by_run: dict[tuple[str, int | None], list[Job]] = {}
    for job in trials:
        by_run.setdefault((job.network, job.fold), []).append(job)
    found: Choices = {}
    for key, jobs in by_run.items():
        if all(job.finished for job in jobs):
            scores = [
                [trial_score(job.path) for job in jobs if job.setting == in_words(one)] for one in tuning.settings
            ]
            found[key] = choose(tuning.settings, scores)
    return found


def _unless_there(file: Path) -> list[Path]:
    return [] if file.is_file() else [file]


def _twice(networks: Sequence[str], seeds: Sequence[int]) -> set[tuple[str, Any]]:
    return {
        (what, value)
        for what, values in (("networks", networks), ("seeds", seeds))
        for value in values
        if list(values).count(value) > 1
    }


def _load(config: Sequence[Path], overrides: Mapping[str, Any] | None = None) -> ConfigParser:
    """The config as `python -m monai.bundle run` reads it."""
    parser = read_config(config)
    for name, value in (overrides or {}).items():
        parser[name] = value
    return parser


def _problems(parsers: Sequence[ConfigParser], cases: dict[str, Datalist], *, given: Collection[str] = ()) -> list[str]:
    """What is wrong with the config of each network; the files of the data are read for the first one only."""
    problems: list[str] = []
    for parser in parsers:
        parser.parse(reset=True)
        if cases:
            parser.ref_resolver.resolved_content["data"] = next(iter(cases.values()))
        found = problems_of(parser, given=given)
        problems += found
        if not found and not cases:
            data, classes = (parser.get_parsed_content(name) for name in ("data", "classes"))
            cases[_key(parser)] = data
            for each in parsers:
                each["classes"] = classes  # which some bundles find by reading every mask
    return problems


def _key(parser: ConfigParser) -> str:
    """What a config's data depend on."""
    parser.parse(reset=True)
    key = canonical_hash(parser.get_parsed_content("data", instantiate=False).get_config())
    parser.parse(reset=True)  # MONAI keeps what was not instantiated
    return key


def _data(parser: ConfigParser, cases: dict[str, Datalist]) -> Datalist:
    """A config's data, whose files are read once however many runs share them."""
    key = _key(parser)
    if key not in cases:
        cases[key] = parser.get_parsed_content("data")
    return cases[key]


def _epochs(parser: ConfigParser) -> int:
    """The most epochs a run trains, over all stages."""
    trainers = [key for key, part in parser.get().items() if isinstance(part, Mapping) and "trainer" in part]
    return sum(int(parser.get_parsed_content(f"{key}::trainer::max_epochs")) for key in trainers)


def _job(
    config: Sequence[Path],
    executed: dict[str, Any],
    data: Datalist,
    *,
    fold: int | None,
    epochs: int,
    given: Mapping[str, Any],
    output: Path,
) -> Job:
    session = TrainingSession(executed, data)
    path, executed = session.path, session.config
    parent = executed.get("init_from")
    now = run_hash(
        executed,
        data_hash=data.inspect().data_hash,
        parent_sha256=sha256_file(find_weights(parent)) if parent else None,
    )
    network, seed = executed["network"], executed["seed"]
    state = state_of(path, now)
    folds = {} if fold is None else {"folds": executed["folds"], "fold": fold}
    where = {"output_dir": executed["output_dir"], "resume": True}
    options = {**given, "network": network, "seed": seed, **folds, **where}
    scoring_file = [config[0].with_name("evaluate.yaml")]
    known = _load(scoring_file).get()
    scoring = {name: given[name] for name in _FOR_SCORING if name in given and name in known}
    return Job(
        network=network,
        seed=seed,
        fold=fold,
        path=path,
        state=state,
        epochs=epochs,
        trained=0 if state == "other settings" else min(epochs, len(finished_epochs(path / "history.csv"))),
        log=output / "logs" / f"{network}-{path.name}.log",
        train=_command(config, options),
        evaluate=_command(scoring_file, {**scoring, "run_dir": str(path)}),
        cwd=Path.cwd(),
        hours=executed.get("hours"),
    )


def _named(config: Sequence[Path]) -> str:
    """Files as MONAI's command line takes them: one by its path, several as a list."""
    return str(config[0]) if len(config) == 1 else str([str(file) for file in config])


def _command(config: Sequence[Path], options: Mapping[str, Any]) -> tuple[str, ...]:
    # Written as Python writes them, so that MONAI reads a string that looks like a number as a string.
    words = [f"--{name}={value!r}" for name, value in options.items()]
    return ("-m", "monai.bundle", "run", "--config_file", _named(config), *words)


def _same_comparison(path: Path, content: Mapping[str, Any]) -> dict[str, Any] | None:
    """The earlier plan, if any. Refuses to mix comparisons in a folder; other networks, seeds and settings are fine."""
    folder = path.parent
    if not path.is_file():
        there = [one.name for one in folder.iterdir()] if folder.is_dir() else [folder.name] if folder.exists() else []
        if strange := sorted({*there} - {"runs", "logs", "report", "tuning", "power.png", "power.svg"}):
            raise UserError(
                f"--output {folder}: holds other things than a comparison ({strange[0]}); give a new folder"
            )
        return None
    try:
        earlier = {"data_hashes": None, "dataset_dir": None, **read_json(path)}
        _ = [earlier[key] for key in ("bundle", "dataset", "folds")]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: is not the plan of a comparison ({error}); choose another --output") from error
    problems = [
        f"{path.parent}: holds a comparison with {key} {earlier[key]}, this one is with {key} {content[key]}"
        for key in ("bundle", "dataset", "folds")
        if earlier[key] != content[key]
    ]
    if not problems and earlier.get("data_hashes") != content["data_hashes"]:
        problems.append(
            f"{path.parent}: holds a comparison on other data (dataset {earlier['dataset']}, "
            f"{earlier['dataset_dir'] or 'synthetic'}: other files or another split than now)"
        )
    if problems:
        raise UserError([f"{problem}; choose another --output" for problem in problems])
    return earlier


def _image_seconds(parser: ConfigParser, threads: int) -> float:
    """Seconds a training step takes for one image, measured on random ones at the real batch and image size."""
    parser.parse(reset=True)
    executed = executed_config(parser)
    device = torch.device(executed["device"])
    network = parser.get_parsed_content("network_def").to(device).train()
    parser.parse(reset=True)  # so that it is not kept
    size, batch = input_size(network, image_size=executed["image_size"]), executed["batch_size"]
    images = torch.rand(batch, executed["channels"], size, size, device=device)
    inferer = AutocastInferer(device=device, precision=executed["precision"])
    optimizer = torch.optim.Adam(network.parameters())
    threads_before = torch.get_num_threads()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", threads)))
    seconds: list[float] = []
    try:
        # The first step allocates; a slow one says enough.
        while len(seconds) < 4 and sum(seconds) < 10:
            start = time.perf_counter()
            optimizer.zero_grad()
            torch.stack([logits.square().mean() for logits in listed(inferer(images, network))]).sum().backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads_before)
    return min(seconds) / batch


def _in_words(job: Job) -> str:
    if job.state == "other settings":
        return "other settings: to be trained anew" if "--overwrite=True" in job.train else "other settings"
    if job.state == "failed":
        return "failed before: to be tried again"
    if job.state == "waits":
        return "waits for its setting"
    if job.state == "interrupted":
        return "interrupted: to be resumed"
    if job.state == "complete" and (parts := job.unscored()):
        return f"complete, to be scored on {' and '.join(parts)}"
    return str(job.state)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
