"""A reporting checklist, filled as far as run folders answer it: each answer with where it stands, nothing guessed.

CLAIM, the Checklist for Artificial Intelligence in Medical Imaging, in its update of 2024: Tejani, Klontzas, Gatti,
Mongan, Moy, Park, Kahn, Radiology: Artificial Intelligence 2024, doi 10.1148/ryai.240300. Number, order, heading and
meaning of its items are those of the checklist and of its explanation (doi 10.1148/ryai.260835) as the panel keeps them
at https://github.com/RSNA/CLAIM, read on 2026-11-27.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_thyroid.compare.contents import Report, Section, plural
from monai_thyroid.compare.outlook import found_sentence
from monai_thyroid.compare.reading import Run
from monai_thyroid.compare.study import Analysis
from monai_thyroid.errors import UserError
from monai_thyroid.metrics import METRICS
from monai_thyroid.pages import Block, Heading, Items, Paragraph, table
from monai_thyroid.runfolder import read_config, read_split

__all__ = ["CHECKLISTS", "Answer", "Facts", "make_checklist"]


@dataclass(frozen=True)
class Answer:
    """What run folders say to an item.

    Attributes:
        text: the answer.
        source: file and key that it stands in.
        whole: whether nothing is left for the author.
    """

    text: str
    source: str
    whole: bool = True


@dataclass(frozen=True)
class Facts:
    """What answers are made of.

    Attributes:
        report: what it says.
        runs: in it.
        configs: config.yaml of each run that has one and was not scored from masks.
        splits: split.json of each run that has one.
    """

    report: Report
    runs: Sequence[Run]
    configs: Sequence[Mapping[str, Any]]
    splits: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, report: Report, analyses: Sequence[Analysis]) -> Facts:
        """Read what a report was made from."""
        entries = [entry for analysis in analyses for entry in analysis.study.entries.values()]
        runs = list({run.path: run for entry in entries for run in entry.runs}.values())
        configs: list[Mapping[str, Any]] = []
        splits: list[Mapping[str, Any]] = []
        for run in runs:
            for read, into in ((read_config, configs), (read_split, splits)):
                try:
                    content: Mapping[str, Any] = read(run.path)
                except UserError:
                    continue
                if read is read_split or not run.from_masks:
                    into.append(content)
        return cls(report, runs, configs, splits)

    def recorded(self, name: str) -> list[Any]:
        """The values that run.json of the trained runs has, each once."""
        values = [run.record[name] for run in self.runs if not run.from_masks]
        return _once(value for value in values if value is not None)

    def configured(self, name: str) -> list[Any]:
        """Those that config.yaml has, each once."""
        return _once(config[name] for config in self.configs if config.get(name) is not None)


def _once(values: Iterable[Any]) -> list[Any]:
    return list({repr(value): value for value in values}.values())


def _listed(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in values)


def _of_each(facts: Facts, tell: Callable[[Section], str]) -> str:
    """What is told of each dataset and class, its name before it where there are several."""
    sections = facts.report.sections
    told = [(section.title, tell(section)) for section in sections]
    return "; ".join((f"{title}: {text}" if len(sections) > 1 else text) for title, text in told if text)


def _technology(facts: Facts) -> Answer | None:
    networks = _once(run.network for run in facts.runs if not run.from_masks)
    if not networks:
        return None
    return Answer(f"Deep learning, segmentation by {_listed(networks)}", "run.json: network", whole=False)


def _sources(facts: Facts) -> Answer | None:
    sites = _once(site for split in facts.splits for part in split["parts"].values() for site in part.get("sites", []))
    named = [site for site in sites if site]
    told = _listed(_once(run.dataset for run in facts.runs)) + (f"; sites {_listed(named)}" if named else "")
    return Answer(f"Dataset by its folder's name: {told}", "run.json: dataset; split.json: parts", whole=False)


def _preprocessing(facts: Facts) -> Answer | None:
    found = []
    for config in facts.configs:
        applied = config.get("applied")
        steps = applied.get("image_transforms") if isinstance(applied, Mapping) else config.get("image_transforms")
        if isinstance(steps, list) and all(map(_is_step, steps)):
            found.append(" > ".join(_step(step) for step in steps))
    if not found:
        return None
    return Answer("; ".join(_once(found)), "config.yaml: applied, image_transforms", whole=False)


def _is_step(step: Any) -> bool:
    return isinstance(step, Mapping) and "_target_" in step


def _step(step: Mapping[str, Any]) -> str:
    name = str(step["_target_"]).rpartition(".")[2]
    told = [f"{key} {value}" for key, value in step.items() if key not in ("_target_", "keys")]
    return f"{name} ({_listed(told)})" if told else name


def _missing(facts: Facts) -> Answer:
    failed, total = 0, 0
    for run in facts.runs:
        failed += len({row.case for row in run.scored.rows if row.error})
        total += len({row.case for row in run.scored.rows})
    told = f"{failed} of {total} scored images (over all runs) could not be scored and are left out of every figure"
    return Answer(told, "evaluations/*/cases.csv: error", whole=False)


def _partitions(facts: Facts) -> Answer | None:
    told = _once(run.record.split for run in facts.runs if run.record.split)
    return Answer("; ".join(told), "run.json: split", whole=False) if told else None


_LEVELS = {
    "known": "by patient, video or scene, as far as the dataset names them: none is in two parts",
    "unknown": "by image; which images are of one patient is not known",
    "leaky": "none: images of one patient are in training and in test",
}


def _disjoint(facts: Facts) -> Answer:
    found = _once(run.grouping for run in facts.runs)
    kept = all(run.record.grouping is not None for run in facts.runs)
    source = "run.json: grouping" + ("" if kept else "; where it is left out, cases.csv: group")
    # Of what is known it is not recorded whether it is the patient.
    return Answer("; ".join(_LEVELS[one] for one in found), source, whole=False)


def _sample(facts: Facts) -> Answer:
    def tell(section: Section) -> str:
        size = f"{section.size} of the part “{section.part}”"
        return f"{size}. {found_sentence(section.outlook, axis=section.axis)}" if section.outlook else size

    return Answer(_of_each(facts, tell), "evaluations/*/cases.csv; report.json: outlook", whole=False)


def _model(facts: Facts) -> Answer | None:
    told = []
    for run in facts.runs:
        record = run.record
        if not run.from_masks:
            size = "" if record.parameters is None else f", {record.parameters:,} weights"
            told.append(
                f"{run.network}{size}; classes {_listed(run.classes)}; {record.activation or 'activation unknown'}"
            )
    if not told:
        return None
    sides = facts.configured("image_size")
    grid = f"; input of {_listed(sides)} pixels" if sides else ""
    source = "run.json: network, parameters, classes, activation; config.yaml: applied, network"
    return Answer("; ".join(_once(told)) + grid, source, whole=False)


def _software(facts: Facts) -> Answer | None:
    told = [_listed(f"{name} {version}" for name, version in one.items()) for one in facts.recorded("versions") if one]
    return Answer("; ".join(told), "run.json: versions") if told else None


def _start(facts: Facts) -> Answer | None:
    trained = [run for run in facts.runs if not run.from_masks]
    if not trained:
        return None
    told = []
    for run in trained:
        before = run.record.pretrained_on
        if run.record.parent_sha256:
            start = f"from the weights {run.record.parent_sha256[:12]}"
        else:
            start = "no other run's weights recorded"
        data = "data they had seen before not recorded" if before is None else f"pretrained on {_listed(before)}"
        told.append(f"{run.network}: {start}, {'not pretrained' if before == [] else data}")
    # How the rest was drawn at random is each network's own code.
    return Answer("; ".join(_once(told)), "run.json: parent_sha256, pretrained_on", whole=False)


_RECIPE = ("max_epochs", "hours", "batch_size", "learning_rate", "weight_decay")
_STEPS = ("loss", "optimizer", "lr_scheduler", "augmentation")


def _training(facts: Facts) -> Answer | None:
    told = [f"{name} {_listed(values)}" for name in _RECIPE if (values := facts.configured(name))]
    told += [f"{name} {_listed(values)}" for name in _STEPS if (values := _once(_named(facts.configured(name))))]
    kept = (("seeds", "seed"), ("epochs trained", "epochs"), ("precision", "precision"), ("device", "device"))
    told += [f"{word} {_listed(values)}" for word, name in kept if (values := facts.recorded(name))]
    if not told:
        return None
    names = [*(name for _, name in kept), *(["tuning"] if (tuned := _of_each(facts, _tuned)) else [])]
    told += [tuned] if tuned else []
    source = f"config.yaml: {_listed((*_RECIPE, *_STEPS))}, and the whole recipe; run.json: {_listed(names)}"
    return Answer("; ".join(told), source, whole=False)


def _named(blocks: Iterable[Any]) -> Iterable[str]:
    """The classes of what a config builds, in their order."""
    for block in blocks:
        parts = block if isinstance(block, list) else [block]
        names = [str(part["_target_"]).rpartition(".")[2] for part in parts if _is_step(part)]
        if names:
            yield " > ".join(names)


def _tuned(section: Section) -> str:
    told = []
    for option in _once(name for one in section.tuned for name in one.chosen):
        tried = _once(values[option] for one in section.tuned for values, _ in one.tried if option in values)
        taken = [
            f"{one.network}{'' if one.fold is None else f', fold {one.fold}'}: {one.chosen[option]}"
            for one in section.tuned
            if option in one.chosen
        ]
        told.append(f"{option} varied over {_listed(tried)} and chosen on validation ({'; '.join(taken)})")
    return _listed(told)


def _selection(facts: Facts) -> Answer | None:
    if not facts.recorded("best_epoch"):
        return None

    def tell(section: Section) -> str:
        one = section.recommendation
        if one is None or one.blockers:
            return section.chosen_by
        return f"{section.chosen_by}; recommended {one.network}, chosen on the part “{one.selected_on}”"

    source = "run.json: best_epoch; history.csv: val_dice; report.json: chosen_by, recommendation"
    # Where several are scored on the test, it is asked why.
    whole = all(len(section.networks) == 1 for section in facts.report.sections)
    return Answer(f"Of each training the epoch of best validation; {_of_each(facts, tell)}", source, whole)


def _ensembles(facts: Facts) -> Answer | None:
    def tell(section: Section) -> str:
        kinds = {True: "mean of the probabilities", False: "vote of the masks"}
        return _listed(
            f"{one.network}, seeds {_listed(one.seeds)}: {kinds[one.averaged]}" for one in section.ensembles or []
        )

    told = _of_each(facts, tell)
    return Answer(told, "report.json: ensembles") if told else None


def _metrics(facts: Facts) -> Answer:
    names = _listed(one.title for one in METRICS.values())
    return Answer(f"{names}; definitions in the report", "evaluation.json: policy; cases.csv", whole=False)


def _statistics(facts: Facts) -> Answer | None:
    found = [one for section in facts.report.sections for one in (section.weights, section.architectures) if one]
    told = "95 % intervals by bootstrap over groups" + "".join(
        f". {one.question.capitalize()}: {one.method.rstrip('.')}"
        for one in {one.question: one for one in found}.values()
    )
    told = f"{told}. Computed by monai-thyroid {facts.report.version}"
    return Answer(told, "report.json: weights, architectures, networks, version")


def _robustness(facts: Facts) -> Answer | None:
    def tell(section: Section) -> str:
        told = [f"degraded images ({_listed(one.name for one in section.degraded)})"] if section.degraded else []
        told += [f"subgroups by {one.name}" for one in section.subgroups if one.levels]
        return _listed(told)

    told = _of_each(facts, tell)
    whole = all(section.degraded for section in facts.report.sections)
    source = "report.json: degraded, subgroups" + ("; evaluations/*/robustness.csv" if whole else "")
    return Answer(told, source, whole) if told else None


def _internal(facts: Facts) -> Answer:
    told = _of_each(facts, lambda section: f"{section.size} of the part “{section.part}”")
    return Answer(told, "evaluations/*/cases.csv", whole=False)


def _external(facts: Facts) -> Answer:
    other = _once(one.name for run in facts.runs for one in run.evaluations.values() if one.dataset != run.dataset)
    source = "evaluations/*/evaluation.json: dataset"
    if not other:
        return Answer("None of these runs was scored on another dataset", source, whole=False)
    return Answer(f"Scored on {_listed(other)}; whether these are external is for the author", source, whole=False)


def _numbers(facts: Facts) -> Answer | None:
    told = []
    for split in facts.splits:
        parts = [
            f"{name} {plural(len(part['cases']), 'image')}"
            + (f" ({plural(len(part['groups']), 'group')})" if part.get("groups") else "")
            for name, part in split["parts"].items()
            if part.get("cases")
        ]
        if parts:
            told.append(_listed(parts))
    source = "split.json: parts"
    return Answer(f"Included: {'; '.join(_once(told))}", source, whole=False) if told else None


def _characteristics(facts: Facts) -> Answer | None:
    def tell(section: Section) -> str:
        return "; ".join(
            f"by {one.name}: " + _listed(f"{level.label} ({plural(level.n_cases, 'case')})" for level in one.levels)
            for one in section.subgroups
            if one.levels
        )

    told = _of_each(facts, tell)
    return Answer(f"Of the scored part {told}", "report.json: subgroups", whole=False) if told else None


def _performance(facts: Facts) -> Answer:
    def tell(section: Section) -> str:
        form = METRICS[section.metric].text
        return _listed(
            f"{one.network} {section.axis} {form(one.mean_over_groups.mean)}"
            + (
                f" ({form(one.mean_over_groups.low)} to {form(one.mean_over_groups.high)})"
                if math.isfinite(one.mean_over_groups.low)
                else ""
            )
            for one in section.networks
        )

    return Answer(
        f"{_of_each(facts, tell)}; the other scores are in the report",
        "evaluations/*/cases.csv; summary.csv",
        whole=False,
    )


def _diagnostic(facts: Facts) -> Answer:
    def tell(section: Section) -> str:
        return _listed(
            f"{one.network} found {one.scores['n_lesions_found']} of {one.scores['n_lesions']} objects, "
            f"{one.scores['false_positives_per_image']:.2f} false positives an image"
            for one in section.networks
        )

    told = f"Asked of classification, which this is not. As segmentation: {_of_each(facts, tell)}"
    return Answer(told, "cases.csv: n_ref, n_pred, n_matched", whole=False)


def _failures(facts: Facts) -> Answer:
    def tell(section: Section) -> str:
        return _listed(
            f"{one.network}: {plural(one.scores['n_misses'], 'missed object')}, "
            f"{plural(one.scores['n_false_alarms'], 'false alarm')}, worst tenth Dice {one.worst_decile_dice:.3f}"
            for one in section.networks
        )

    shown = "; worst cases in the report's gallery" if facts.report.options.images else ""
    return Answer(f"{_of_each(facts, tell)}{shown}", "cases.csv; report.json: degenerate", whole=False)


def _limitations(facts: Facts) -> Answer | None:
    told = _once(
        limit for section in facts.report.sections if section.recommendation for limit in section.recommendation.limits
    )
    told = [*facts.report.warnings, *told]
    return Answer(" ".join(told), "report.json: warnings, recommendation", whole=False) if told else None


def _protocol(facts: Facts) -> Answer | None:
    told = [str(one)[:12] for one in facts.recorded("protocol_hash")]
    if not told:
        return None
    return Answer(
        f"The recipe as executed; protocol {_listed(told)}", "config.yaml; run.json: protocol_hash", whole=False
    )


def _availability(facts: Facts) -> Answer | None:
    told = [str(one)[:12] for one in facts.recorded("checkpoint_sha256")]
    if not told:
        return None
    text = f"Made with monai-thyroid {facts.report.version}; SHA-256 of the weights {_listed(told)}"
    return Answer(text, "run.json: checkpoint_sha256", whole=False)


Asked = tuple[str, Callable[[Facts], Answer | None] | None]
_CLAIM: dict[str, Sequence[Asked]] = {
    "Title and abstract": [
        ("Identified as a study of AI, with the technology used", _technology),
        ("Abstract: summary of design, methods, results and conclusions", None),
    ],
    "Introduction": [
        ("Scientific and clinical background, intended use and role of the AI", None),
        ("Aims, objectives and hypotheses", None),
    ],
    "Methods: study design": [
        ("Prospective or retrospective", None),
        ("Goal of the study", None),
    ],
    "Methods: data": [
        ("Data sources", _sources),
        ("Inclusion and exclusion criteria", None),
        ("Preprocessing", _preprocessing),
        ("Selection of subsets of the data", None),
        ("De-identification", None),
        ("How missing data were handled", _missing),
        ("Image acquisition protocol", None),
    ],
    "Methods: reference standard": [
        ("Definition of the reference standard", None),
        ("Rationale for its choice", None),
        ("Source of its annotations", None),
        ("Annotation of the test set", None),
        ("Variability between and within annotators", None),
    ],
    "Methods: data partitions": [
        ("How data were assigned to partitions", _partitions),
        ("Level at which partitions are disjoint", _disjoint),
    ],
    "Methods: testing data": [("Intended sample size", _sample)],
    "Methods: model": [
        ("Detailed description of the model", _model),
        ("Software libraries, frameworks and packages", _software),
        ("Initialisation of the parameters", _start),
    ],
    "Methods: training": [
        ("Details of the training", _training),
        ("How the final model was selected", _selection),
        ("Ensembling", _ensembles),
    ],
    "Methods: evaluation": [
        ("Metrics of performance", _metrics),
        ("Statistical measures of significance and uncertainty", _statistics),
        ("Robustness or sensitivity analysis", _robustness),
        ("Methods for explainability or interpretability", None),
        ("Evaluation on internal data", _internal),
        ("Testing on external data", _external),
        ("Registration of a clinical trial", None),
    ],
    "Results: data": [
        ("Numbers of patients or examinations included and excluded", _numbers),
        ("Demographic and clinical characteristics in each partition", _characteristics),
    ],
    "Results: model performance": [
        ("Performance with its uncertainty", _performance),
        ("Diagnostic accuracy with its precision, of classification", _diagnostic),
        ("Failure analysis of incorrect results", _failures),
    ],
    "Discussion": [
        ("Limitations", _limitations),
        ("Implications for practice, intended use and clinical role", None),
    ],
    "Other information": [
        ("Full study protocol, or further technical details", _protocol),
        ("Availability of software, trained model and data", _availability),
        ("Sources of funding and other support; role of the funders", None),
    ],
}

_INTRODUCTION: dict[str, tuple[str, str]] = {
    "claim": (
        "CLAIM 2024",
        "Checklist for Artificial Intelligence in Medical Imaging, update of 2024 (Tejani et al., Radiology: AI "
        "2024, doi 10.1148/ryai.240300). Numbers and order are those of its 44 items, whose words are paraphrased "
        "here, not quoted: check each answer against the paper and its explanation (doi 10.1148/ryai.260835) before "
        "you hand this in. Any item may be not applicable; that, too, is for the author to say.",
    )
}
CHECKLISTS: dict[str, Mapping[str, Sequence[Asked]]] = {"claim": _CLAIM}
"""By name, sections with their items, numbered through from 1."""


def make_checklist(name: str, report: Report, analyses: Sequence[Analysis]) -> list[Block]:
    """Fill a checklist.

    Args:
        name: of `CHECKLISTS`.
        report: that it stands beside.
        analyses: behind its sections.

    Returns:
        The page.
    """
    facts = Facts.of(report, analyses)
    title, words = _INTRODUCTION[name]
    page: list[Block] = []
    number, whole, in_part = 0, 0, 0
    for section, items in CHECKLISTS[name].items():
        rows = []
        for asked, find in items:
            number += 1
            answer = find(facts) if find else None
            if answer is None:
                rows.append([str(number), asked, "for the author", ""])
                continue
            whole, in_part = whole + answer.whole, in_part + (not answer.whole)
            rest = "" if answer.whole else " (in part; the rest is for the author)"
            rows.append([str(number), asked, answer.text + rest, answer.source])
        first = number - len(items) + 1
        caption = f"Item {number}" if len(items) == 1 else f"Items {first} to {number}"
        columns = [("Item", "tight"), ("Asked", "text"), ("Answer", "text"), ("From", "text")]
        page += [Heading(2, section), table(caption, columns, rows)]  # type: ignore[arg-type]
    return [
        Heading(1, f"{title}: {', '.join(section.title for section in report.sections)}"),
        Paragraph(words),
        Items(
            [
                f"{whole} of {number} items are answered from the run folders, {in_part} in part, "
                f"{number - whole - in_part} are for the author.",
                "Nothing is guessed: each answer names the file and key it was read from. Page and line of the "
                "manuscript are for the author in all of them.",
            ]
        ),
        *page,
    ]
