"""What a report says, as plain values: `dataclasses.asdict` of `Report` is report.json, and the page is made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from monai_thyroid.compare.decisions import Decision
from monai_thyroid.compare.power import Outlook
from monai_thyroid.compare.reading import Unusable
from monai_thyroid.compare.statistics import Comparison, Rate
from monai_thyroid.metrics import METRICS

__all__ = [
    "COSTS",
    "AtThreshold",
    "Coverage",
    "Degenerate",
    "Degraded",
    "Ensemble",
    "Level",
    "Mean",
    "Measured",
    "NetworkResult",
    "Options",
    "Recommendation",
    "Report",
    "RunResult",
    "Section",
    "Shift",
    "ShiftCell",
    "ShiftRow",
    "SubgroupTest",
    "Subgroups",
    "Tuned",
    "percent",
    "plural",
    "rounded",
    "shortened",
]

COSTS = ("parameters", "multiply_adds", "latency_ms", "seconds", "images_per_second")
"""Keys of run.json that say what a network costs."""


def shortened(problems: Sequence[str], most: int = 3) -> str:
    """Problems in a line: of many the first ones, and how many more there are."""
    more = len(problems) - most
    return "; ".join(problems[:most]) + (f"; and {more} more of that kind or others" if more > 0 else "")


def plural(count: int, word: str) -> str:
    """Such as ``1,200 cases``."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def percent(probability: float) -> str:
    """A probability, never told as certain."""
    return "< 1 %" if probability < 0.01 else "> 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def rounded(count: float) -> str:
    """A large count in three digits: 950, 7.77 M, 1.5 G."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {prefix}"
    return f"{count:.0f}"


@dataclass(frozen=True)
class Options:
    """What the report was asked for; see `make_report`."""

    margin: float
    metric: str
    part: str
    force: bool
    images: bool
    metadata: str | None = None
    ensemble: bool = False
    checklist: str | None = None


@dataclass(frozen=True)
class Mean:
    """A mean over groups with its 95 % interval; NaN where there is none."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Level:
    """A subgroup.

    Attributes:
        label: what its cases have in common.
        n_cases: in it.
        n_groups: they belong to.
        too_few: so few groups that it is in no test.
        means: of each network the score of its chosen weights, mean over groups.
    """

    label: str
    n_cases: int
    n_groups: int
    too_few: bool
    means: Mapping[str, Mean]


@dataclass(frozen=True)
class SubgroupTest:
    """Adjusted p that a network's score, or its advantage over the others, is the same everywhere; NaN: no test."""

    network: str
    differs: float
    interaction: float


@dataclass(frozen=True)
class Subgroups:
    """Subgroups by one variable.

    Attributes:
        name: of the variable.
        how: they came about.
        levels: subgroups.
        tests: of each network.
        n_without: cases without a value, in none of them.
    """

    name: str
    how: str
    levels: Sequence[Level]
    tests: Sequence[SubgroupTest]
    n_without: int


@dataclass(frozen=True)
class Coverage:
    """What an ensemble scores where its least agreed cases go to a person.

    Attributes:
        given: share of the cases that go.
        n_cases: that stay.
        score: of these, mean over groups.
        best_possible: the same if the worst cases were known and went.
    """

    given: float
    n_cases: int
    score: Mean
    best_possible: float


@dataclass(frozen=True)
class Ensemble:
    """The seeds of a network as one model.

    Attributes:
        network: its name.
        seeds: that are in it.
        averaged: their probabilities are averaged; else their masks vote.
        score: of this model, mean over groups.
        singles: of its seeds, mean over them.
        gain: over these, above 0 where it is better.
        gain_over_chosen: over the chosen weights.
        agreement: mean Dice of all pairs of seeds, mean over groups.
        coverage: at some shares given away.
        curve: mean score a case when 0, 1, 2, ... least agreed cases are given away, up to half of them.
    """

    network: str
    seeds: Sequence[int]
    averaged: bool
    score: Mean
    singles: Mean
    gain: Mean
    gain_over_chosen: Mean
    agreement: Mean
    coverage: Sequence[Coverage]
    curve: Sequence[float]


@dataclass(frozen=True)
class Measured:
    """How a clinical measure of a network's predictions agrees with the reference's, over its chosen weights.

    Attributes:
        network: its name.
        measure: in words.
        unit: of it.
        n_cases: with both.
        n_groups: they belong to.
        n_failed: with a reference, of whose prediction it could not be taken: in no figure.
        n_unknown: without a reference.
        difference: predicted less reference, mean over cases.
        sd: of a difference.
        low: the lower limit of agreement; its interval is of the limit.
        high: the upper one.
        absolute: mean absolute difference.
    """

    network: str
    measure: str
    unit: str
    n_cases: int
    n_groups: int
    n_failed: int
    n_unknown: int
    difference: Mean
    sd: float
    low: Mean
    high: Mean
    absolute: float


@dataclass(frozen=True)
class Degraded:
    """Dice when images are degraded in one way, of chosen weights, mean over groups.

    Attributes:
        name: of the degradation.
        unit: of its strength.
        strengths: in order, 0 among them, which is the image as it is.
        means: of each network at each strength; None where it was not measured.
        changes: likewise, from strength 0.
    """

    name: str
    unit: str
    strengths: Sequence[float]
    means: Mapping[str, Sequence[Mean | None]]
    changes: Mapping[str, Sequence[Mean | None]]


@dataclass(frozen=True)
class Degenerate:
    """A run whose predictions have collapsed, or that is a copy of another."""

    network: str
    seed: int
    kind: str
    sentence: str


@dataclass(frozen=True)
class AtThreshold:
    """The chosen weights at the threshold that validation chose.

    Attributes:
        thresholds: of each fold's run; one without folds.
        dice_mean: per image, there.
        configured: threshold, at which the other scores are.
        configured_dice_mean: per image, at that.
    """

    thresholds: Sequence[float]
    dice_mean: float
    configured: float
    configured_dice_mean: float


@dataclass(frozen=True)
class Tuned:
    """Which setting was chosen for a network on validation, before its runs were trained.

    Attributes:
        network: its name.
        fold: of which this is; None without folds.
        chosen: values, by option.
        tried: of each setting its values by option and its mean Dice on validation; None where the training diverged.
        epochs: at most, of each trial; None for as many as of the runs.
        seeds: with which each setting was tried.
    """

    network: str
    fold: int | None
    chosen: Mapping[str, Any]
    tried: Sequence[tuple[Mapping[str, Any], float | None]]
    epochs: int | None
    seeds: Sequence[int]


@dataclass(frozen=True)
class NetworkResult:
    """A network.

    Attributes:
        network: its name.
        set_apart: it has no usable seed, or had seen data of the test before, and is not ranked or tested with the
            others.
        chosen_seed: of the weights that stand for it.
        chosen_validation_dice: of these, best of an epoch.
        scores: of these weights, from `summarise`.
        mean_over_groups: of these, of the report's metric.
        seeds: trained.
        collapsed_seeds: of these.
        collapse: how often, with the exact interval; copies not counted.
        copied_seeds: of these.
        seed_dice: mean Dice per image of each seed.
        seeds_mean_dice: over seeds without copies, and so the next ones.
        seeds_sd_dice: None for one seed.
        seeds_range_dice: None for one seed.
        seeds_mean_dice_without_collapsed: None where none has collapsed.
        volatility: of the validation Dice, mean over its runs that have not collapsed, or over all if all have.
        worst_decile_dice: of the chosen weights.
        expected_calibration_error: of these, as the next.
        brier_score: None where not recorded.
        cost: of each of `COSTS` the median over runs; None unless every run recorded it.
        at_threshold: the same weights at the threshold that validation chose; None where it cannot be told.
        confusion: of the lesions of each class how many were given which; None unless all classes were scored as one.
    """

    network: str
    set_apart: bool
    chosen_seed: int
    chosen_validation_dice: float | None
    scores: Mapping[str, Any]
    mean_over_groups: Mean
    seeds: Sequence[int]
    collapsed_seeds: Sequence[int]
    collapse: Rate
    copied_seeds: Sequence[int]
    seed_dice: Mapping[int, float]
    seeds_mean_dice: float
    seeds_sd_dice: float | None
    seeds_range_dice: float | None
    seeds_mean_dice_without_collapsed: float | None
    volatility: float | None
    worst_decile_dice: float
    expected_calibration_error: float | None
    brier_score: float | None
    cost: Mapping[str, float | None]
    at_threshold: AtThreshold | None = None
    confusion: Mapping[str, Mapping[str, int]] | None = None

    @property
    def label(self) -> str:
        """Its name, marked where it is set apart."""
        return f"{self.network} (set apart)" if self.set_apart else self.network


@dataclass(frozen=True)
class RunResult:
    """A run; the attributes are those of `NetworkResult` or keys of run.json, ``verdict`` is a kind of `Degenerate`."""

    network: str
    seed: int
    fold: int | None
    path: str
    chosen: bool
    verdict: str
    best_validation_dice: float | None
    best_epoch: Any
    epochs: Any
    volatility: float | None
    worst_decile_dice: float
    scores: Mapping[str, Any]
    expected_calibration_error: float | None
    brier_score: float | None
    parameters: Any
    multiply_adds: Any
    latency_ms: Any
    seconds: Any
    images_per_second: Any
    machine: str
    precision: Any
    data_hash: Any
    protocol_hash: Any
    checkpoint_sha256: Any


@dataclass(frozen=True)
class Recommendation:
    """Which weights to use, and why.

    Attributes:
        network: chosen by the rule.
        seed: of its weights.
        paths: of their run folders.
        best: network with the best mean where it was chosen.
        eligible: networks that stability and cost chose among.
        deficits: of each network to the best, see `recommend`.
        p_worse: probability that the network is worse than the best by more than the margin; NaN where unknown.
        reasons: sentences, the deciding one last.
        selected_on: the part that chose.
        optimistic: the same part gives its score.
        question: that was compared there.
        margin: in the metric's unit.
        n_cases: that chose.
        n_groups: that chose.
        blockers: why nothing is recommended for use after all.
        limits: what has to be known about the choice.
        reported: score of the weights on the report's part.
    """

    network: str
    seed: int
    paths: Sequence[str]
    best: str
    eligible: Sequence[str]
    deficits: Sequence[Mapping[str, Any]]
    p_worse: float
    reasons: Sequence[str]
    selected_on: str
    optimistic: bool
    question: str
    margin: float
    n_cases: int
    n_groups: int
    blockers: Sequence[str]
    limits: Sequence[str]
    reported: Mean


@dataclass(frozen=True)
class Section:
    """One dataset and class.

    Attributes:
        dataset: that the runs were trained on.
        class_name: that was scored.
        part: of the dataset.
        metric: by which networks are compared.
        larger_is_better: whether it is.
        distance_unit: ``"mm"``, ``"pixels"`` or ``"mixed"``.
        synthetic: computer-made images.
        grouping: ``"known"``, ``"unknown"`` or ``"leaky"``.
        split: how the parts came about.
        n_cases: compared.
        n_groups: compared.
        folds: how the cases of several folds relate.
        n_folds: of the runs.
        forced: what makes the runs incomparable, where compared all the same.
        notes: on what was left out.
        chosen_by: how each network's weights were chosen.
        set_apart: network and reason.
        contaminated: of these the ones whose weights had seen data of the test, best mean first.
        pretrained_on: of each network what its weights are known to have seen before.
        degenerate: runs.
        networks: best mean first, those set apart last.
        runs: all of them.
        weights: the comparison of the models in hand.
        rank_stability: shares of resamplings with each rank, of these.
        architectures: the comparison of what was trained several times.
        architecture_seeds: in it.
        architecture_notes: what was left out, or why it was not asked.
        machines: that trained.
        precisions: of the arithmetic.
        started_from: runs that began with other weights.
        from_masks: what was scored from masks, and what is known of its making.
        run_warnings: of runs and evaluations.
        recommendation: None where there is nothing to choose from.
        without_images: networks that kept no pictures; None where pictures are left out on request.
        decisions: on every pair at the margin, by question.
        subgroups: by lesion size, and by what was asked for.
        known_to: of numbers of groups, to how much a score of so many is known, half of its 95 % interval.
        ensembles: of the seeds of each network, best first; None where they are not asked for.
        ensemble_notes: of which networks there is none, and why.
        outlook: what these groups and seeds could have found; None where nothing was compared.
        measured: clinical measures, where there are any.
        measured_notes: of which networks they are lacking.
        degraded: scores of degraded images, where they were measured.
        degraded_notes: of which networks they are lacking, and why.
        tuned: the choice of each network's settings; empty where there was none.
        slug: start of the names of its figures.
        figures: names of files, by kind.
    """

    dataset: str
    class_name: str
    part: str
    metric: str
    larger_is_better: bool
    distance_unit: str
    synthetic: bool
    grouping: str
    split: Sequence[str]
    n_cases: int
    n_groups: int
    folds: str
    n_folds: int
    forced: Sequence[str]
    notes: Sequence[str]
    chosen_by: str
    set_apart: Mapping[str, str]
    contaminated: Sequence[str]
    pretrained_on: Mapping[str, Sequence[str]]
    degenerate: Sequence[Degenerate]
    networks: Sequence[NetworkResult]
    runs: Sequence[RunResult]
    weights: Comparison | None
    rank_stability: Mapping[str, Sequence[float]]
    architectures: Comparison | None
    architecture_seeds: Sequence[int]
    architecture_notes: Sequence[str]
    machines: Sequence[str]
    precisions: Sequence[str]
    started_from: Sequence[str]
    from_masks: Sequence[str]
    run_warnings: Sequence[str]
    recommendation: Recommendation | None
    without_images: Sequence[str] | None
    decisions: Mapping[str, Sequence[Decision]]
    subgroups: Sequence[Subgroups]
    known_to: Sequence[tuple[int, float]]
    ensembles: Sequence[Ensemble] | None
    ensemble_notes: Sequence[str]
    outlook: Outlook | None
    measured: Sequence[Measured]
    measured_notes: Sequence[str]
    degraded: Sequence[Degraded]
    degraded_notes: Sequence[str]
    tuned: Sequence[Tuned] = ()
    slug: str = ""
    figures: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Heading: the dataset, and the class where it has another name."""
        return self.dataset if self.class_name == self.dataset else f"{self.dataset} ({self.class_name})"

    @property
    def axis(self) -> str:
        """The metric's title, with its unit where it is a distance."""
        return METRICS[self.metric].heading(self.distance_unit)

    @property
    def size(self) -> str:
        """How many cases and groups were compared, in words."""
        unknown = ", grouping unknown" if self.grouping == "unknown" else ""
        return f"{plural(self.n_cases, 'case')} ({plural(self.n_groups, 'group')}{unknown})"


@dataclass(frozen=True)
class ShiftCell:
    """A model on a dataset.

    Attributes:
        dice: mean over groups.
        n_cases: scored.
        n_groups: they belong to.
        in_domain: the dataset of its training.
        holds_training_images: or data that the weights had seen before, so that the score is too good.
        data_hash: of what was scored.
    """

    dice: Mean
    n_cases: int
    n_groups: int
    in_domain: bool
    holds_training_images: bool
    data_hash: Any


@dataclass(frozen=True)
class ShiftRow:
    """A model; None of a dataset that it was not scored on."""

    trained_on: str
    network: str
    seed: int
    fold: int | None
    chosen: bool
    cells: Sequence[ShiftCell | None]


@dataclass(frozen=True)
class Shift:
    """Models by datasets, for one class; ``unlike`` are datasets of which not all models were scored on the same."""

    class_name: str
    columns: Sequence[str]
    rows: Sequence[ShiftRow]
    unlike: Sequence[str]
    slug: str = ""
    figures: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """Everything that a report says.

    Attributes:
        format: by which an older report is known.
        version: of the package.
        options: asked for.
        margin_declared: the plan of the comparison recorded the margin before the runs were trained.
        runs_started: days.
        warnings: to be read before any number, the gravest first.
        unusable: runs that are not in it.
        sections: by dataset and class.
        shift: across datasets.
        policy: in words, one for each way that runs were scored.
    """

    format: str
    version: str
    options: Options
    margin_declared: bool
    runs_started: Sequence[str]
    warnings: Sequence[str]
    unusable: Sequence[Unusable]
    sections: Sequence[Section]
    shift: Sequence[Shift]
    policy: Sequence[str]
