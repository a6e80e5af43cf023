"""The report as a page: made of `Report` alone, so that every form of it says the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from monai_thyroid.compare.contents import (
    Mean,
    NetworkResult,
    Recommendation,
    Report,
    Section,
    Shift,
    ShiftCell,
    Tuned,
    percent,
    plural,
    rounded,
)
from monai_thyroid.compare.decisions import DECISIONS, Decision
from monai_thyroid.compare.judge import RULE
from monai_thyroid.compare.outlook import found_sentence, outlook_sentence
from monai_thyroid.compare.pictures import FIGURES, Place
from monai_thyroid.compare.statistics import (
    ALPHA,
    INTERVAL_ALONE,
    INTERVAL_JOINT,
    OVERSTATES,
    SCOPE,
    UNSTABLE,
    Comparison,
    Pair,
    Rate,
    unseen,
)
from monai_thyroid.compare.subgroups import FEW, depends
from monai_thyroid.compare.thresholds import THRESHOLD_RULE
from monai_thyroid.metrics import METRICS, Metric
from monai_thyroid.pages import Block, Callout, Cell, Figure, Form, Heading, Items, Paragraph, Table, table

__all__ = ["blocks"]

_QUESTIONS = {
    "weights": (
        "These weights",
        "Which of the trained models in hand is better on further patients? Each network is represented by one set of "
        "weights: {chosen_by}. Nothing is said about what another training would give.",
    ),
    "architectures": (
        "These architectures",
        "Which network is better when it is trained again and tested on further patients? Compared are seeds {seeds} "
        "of each network; the error includes the spread over patients and over seeds.",
    ),
}
_OVERLAP = ("dice", "iou")  # of which there are several averages, in a table of their own
_TOLD = 4  # pairs in a sentence
_LARGEST_SVG = 600_000  # bytes; beyond, the PNG is put into the page


def _known(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def _form(form: Callable[[float], str], missing: str = "–") -> Callable[[float | None], str]:
    """Of a number, or what is told where there is none."""
    return lambda value: missing if value is None or math.isnan(value) else form(value)


def _amount(value: float) -> str:
    """Three digits, for times and speeds."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


_score = _form("{:.3f}".format)
_fine = _form("{:.4f}".format)
_count = _form("{:,.0f}".format, "not recorded")
_large = _form(rounded, "not recorded")
_time = _form(_amount, "not recorded")
_p = _form(lambda p: "<\N{NO-BREAK SPACE}0.0001" if p < 0.0001 else f"{p:.4f}", "no test")


def _interval(limits: Sequence[float | None], form: Callable[[float | None], str] = _score) -> str:
    return f"{form(limits[0])} to {form(limits[1])}" if all(map(_known, limits)) else "no interval"


def _metric_form(metric: Metric) -> Callable[[float | None], str]:
    return _form(metric.text)


def _differences(
    metric: Metric, intervals: Sequence[Sequence[float]], *, sign: Literal["+", "-"] = "-"
) -> Callable[[float | None], str]:
    """How a difference is told: in the decimals that the narrowest of its intervals warrants.

    Args:
        metric: that it is of.
        intervals: of it, or of what stands in one sentence with it.
        sign: ``"+"``: above 0 it has a sign too.
    """
    known = [(low, high) for low, high in intervals if not math.isnan(low + high)]
    decimals = metric.decimals(min(((high - low) / 2 for low, high in known), default=math.nan))
    # No limit on one side of 0 is told as 0.
    while decimals < 3 and any(low * high > 0 and not round(min(abs(low), abs(high)), decimals) for low, high in known):
        decimals += 1

    def told(value: float) -> str:
        return f"{value:{sign}.{decimals}f}".replace("-", "−") if round(value, decimals) else f"{0:.{decimals}f}"

    return _form(told)


def blocks(report: Report, *, figures: Path) -> list[Block]:
    """The page.

    Args:
        report: what it says.
        figures: folder of the files that its figures name.
    """
    several = len(report.sections) > 1
    page: list[Block] = [
        Heading(1, f"Comparison of networks: {', '.join(section.title for section in report.sections)}"),
        Paragraph(_opening(report)),
    ]
    if report.warnings:
        page.append(Callout("warning", report.warnings))
    for section in report.sections:
        page += [Heading(2, f"In short: {section.title}" if several else "In short"), *_short(section)]
    if report.unusable:
        page += [
            Heading(2, "Runs that could not be used"),
            table(
                "In no figure of this report.",
                [("Run folder", "long"), ("Network", "text"), ("Seed", "text"), ("Fold", "tight"), ("Reason", "long")],
                [[one.path, one.network, one.seed, one.fold, one.reason] for one in report.unusable],
            ),
        ]
    for section in report.sections:
        page += _section(section, figures, several=several)
    for one in report.shift:
        page += _shift(one, figures)
    page += [Heading(2, "How the scores are defined")]
    if len(report.policy) != 1:
        different = "The runs were scored by different policies."
        page.append(Paragraph(different if report.policy else "The runs did not record their scoring policy."))
    for policy in report.policy:
        page += _policy(policy)
    page.append(
        Paragraph(
            f"Made by monai-thyroid {report.version} from run folders alone. For research; not cleared for diagnosis.",
            small=True,
        )
    )
    return page


def _pictures(subject: Section | Shift, place: Place, folder: Path, **words: str) -> list[Figure]:
    """The figures of a place that were drawn, in the order of their declaration."""
    found = []
    for declared in FIGURES.values():
        if declared.place is place:
            caption = declared.caption.format(**words)
            found += [_figure(folder, name, caption) for name in subject.figures.get(declared.kind, [])]
    return found


def _figure(folder: Path, name: str, caption: str) -> Figure:
    drawing = folder / f"{name}.svg"
    small = drawing.stat().st_size <= _LARGEST_SVG
    mime, path = ("svg+xml", drawing) if small else ("png", folder / f"{name}.png")
    return Figure(caption, path.read_bytes(), mime, link=f"figures/{name}.png")


def _of_section(section: Section, place: Place, folder: Path, comparison: Comparison | None = None) -> list[Figure]:
    return _pictures(
        section,
        place,
        folder,
        axis=section.axis,
        Axis=_sentence(section.axis),
        size=section.size,
        n=_n(comparison) if comparison else "",
        seeds=_seeds(section),
        lacking=_lacking(comparison) if comparison else "",
    )


def _lacking(comparison: Comparison) -> str:
    """A sentence for the caption where a network has no interval."""
    if comparison.n_groups == 1:
        return " No intervals: one group has no spread."
    lacking = [name for name, limits in comparison.intervals.items() if not all(map(_known, limits))]
    return f" No interval of {', '.join(lacking)}: the data leave no value out, however far." if lacking else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seeds(section: Section) -> str:
    return ", ".join(map(str, section.architecture_seeds))


def _n(comparison: Comparison) -> str:
    seeds = f", {comparison.n_seeds} seeds a network" if comparison.question == "architectures" else ""
    return f"{plural(comparison.n_cases, 'case')}, {plural(comparison.n_groups, 'group')}{seeds}"


def _opening(report: Report) -> str:
    runs = len({run.path for section in report.sections for run in section.runs})  # each class has a section
    dates, options = report.runs_started, report.options
    when = f", trained {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "") if dates else ""
    return (
        f"{plural(runs, 'run')}{when}. Compared on the part “{options.part}” by {METRICS[options.metric].title}; "
        f"margin of verdicts and recommendation {options.margin:g}"
        f"{', declared before the runs were trained' if report.margin_declared else ''}."
    )


def _short(section: Section) -> list[Block]:
    ranked = [row for row in section.networks if not row.set_apart]
    items = [
        f"{plural(len(section.networks), 'network')} in {plural(len(section.runs), 'run')}, scored on {section.size} "
        f"of the part “{section.part}”, on the original image grid."
    ]
    if useless := [name for name in section.set_apart if name not in section.contaminated]:
        items.append(f"Set apart as degenerate, neither ranked nor tested: {', '.join(useless)}.")
    if section.contaminated:
        own = {row.network: row for row in section.networks}
        told = "; ".join(
            f"{name}, {_mean(section, own[name])}, {section.set_apart[name]}" for name in section.contaminated
        )
        items.append(f"Ranked apart, as their weights may have seen the images of this test, best mean first: {told}.")
    if ranked:
        items.append(
            f"Best mean of the chosen weights: {ranked[0].network}, {_mean(section, ranked[0])}."
        )  # fmt: skip
    for question, comparison in (("weights", section.weights), ("architectures", section.architectures)):
        if comparison:
            more = _decisions(section.decisions[question])
            items.append(" ".join([f"{_QUESTIONS[question][0]}: {_claims(comparison, section)}", *more]))
    if any(pair.claim for one in (section.weights, section.architectures) if one for pair in one.pairs):
        items.append(OVERSTATES)
    items += [
        f"The advantage or lag of {', '.join(networks)} depends on {name}, see Subgroups."
        for name, networks in depends(section.subgroups).items()
    ]
    if section.outlook:
        items.append(found_sentence(section.outlook, axis=section.axis))
    if section.weights and not section.architectures:
        items.append("These architectures: nothing is claimed; why stands in the warnings above.")
    return [Items(items), _answer(section)]


def _mean(section: Section, row: NetworkResult) -> str:
    one, form = row.mean_over_groups, METRICS[section.metric].text
    told = f"95 % interval {_interval((one.low, one.high), _form(form))}; mean over {section.n_groups} groups"
    return f"{section.axis} {form(one.mean)} ({told})"


def _claims(comparison: Comparison, section: Section) -> str:
    if comparison.refusals:
        return " ".join(comparison.refusals)
    claims = [pair for pair in comparison.pairs if pair.claim]
    seeds = f", {comparison.n_seeds} seeds" if comparison.question == "architectures" else ""
    n = f"{comparison.n_groups} groups{seeds}"
    if not claims:
        return f"No network is shown to be better than another ({n}). That does not show that they are equal."
    form = _differences(METRICS[section.metric], [pair.simultaneous for pair in claims])
    told = "; ".join(_claim(pair, form) for pair in claims[:4])
    more = f"; and {len(claims) - 4} more pairs, see the table" if len(claims) > 4 else ""
    rest = len(comparison.pairs) - len(claims)
    left = ""
    if rest:
        left = (
            f" Of {len(comparison.pairs)} pairs {rest} are not shown to differ, which does not show them to be equal."
        )
    return f"{told}{more} ({section.axis}, {n}).{left}"


def _decisions(decisions: Sequence[Decision]) -> list[str]:
    """What the margin adds to the claims, in a sentence; none where it adds nothing."""
    told = [f"{one.first} and {one.second} are equivalent" for one in decisions if one.verdict == "equivalent"]
    told += [
        f"{one.first} is better than {one.second} by less than that"
        for one in decisions
        if one.verdict == "better" and one.within_margin
    ]
    fine: dict[str, list[str]] = {}
    for one in decisions:
        if one.reverse == "not inferior":
            fine.setdefault(one.first, []).append(one.second)
    told += [f"{' and '.join(seconds)} {_are(seconds)} not inferior to {first}" for first, seconds in fine.items()]
    if not told:
        return []
    shown = told if len(told) <= _TOLD else [*told[:_TOLD], f"and {len(told) - _TOLD} more, see the table"]
    return [f"At a margin of {decisions[0].margin:g}: {'; '.join(shown)}."]


def _are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _verdict(one: Decision) -> str:
    """Both directions in a few words, for a table."""
    if one.verdict == "better" and one.within_margin:
        return f"better, by less than {one.margin:g}"
    fine = one.verdict == "not inferior", one.reverse == "not inferior"
    if any(fine):
        return f"{'both' if all(fine) else 'first' if fine[0] else 'second'} not inferior"
    return one.verdict


def _claim(pair: Pair, form: Any) -> str:
    """A claimed difference, told as "better by"."""
    low, high = sorted(abs(limit) for limit in pair.simultaneous)
    return (
        f"{pair.first} is better than {pair.second} by {form(abs(pair.difference))} (simultaneous 95 % interval "
        f"{_interval((low, high), form)}, adjusted p {_p(pair.p_adjusted)})"
    )


def _answer(section: Section) -> Callout:
    choice = section.recommendation
    if choice is None:
        return Callout("answer", ["There are not two networks to choose from, so nothing is recommended."])
    what = f"the weights of {choice.network} seed {choice.seed}"
    if choice.blockers:
        why = "; ".join(choice.blockers)
        text = f"Nothing is recommended for use: {why}. By the rule alone {what} would be chosen."
    else:
        (row,) = (row for row in section.networks if row.network == choice.network)
        text = f"Recommended: {what}, {_mean(section, row)} on the part “{section.part}”."
    if choice.optimistic:
        text += f" Selected on {choice.selected_on}: optimistic."
    return Callout("answer", [text, _why(section, choice)])


def _why(section: Section, choice: Recommendation) -> str:
    """Where it was chosen and for what, and why it need not be the best mean of this part."""
    what = "mean over seeds" if choice.question == "architectures" else "chosen weights"
    told = (
        f"It was chosen on the part “{choice.selected_on}” ({plural(choice.n_groups, 'group')}, {what}), where "
        f"{choice.best} has the best mean"
    )
    if len(choice.eligible) == 1:
        told += f" and every other network is shown to be worse by more than {choice.margin:g}, or has no interval."
    else:
        others = [name for name in choice.eligible if name != choice.best]
        told += (
            f" and {plural(len(others), 'other network')} ({', '.join(others)}) {'is' if len(others) == 1 else 'are'} "
            f"not shown to be worse than the best by more than {choice.margin:g}: of all {len(choice.eligible)} it "
            "comes first in collapsed seeds, stability and cost."
        )
    if _known(choice.p_worse):
        chance = percent(choice.p_worse)
        told += f" Probability that it is worse than the best by more than {choice.margin:g}: {chance}."
        if choice.p_worse > 0.5:
            told += f" So it likely is: where the score counts more than stability and cost, take {choice.best}."
    front = next(row.network for row in section.networks)
    if front != choice.network and not choice.optimistic:
        told += (
            f" {front} has the better mean on “{section.part}”, which was not looked at in choosing, so that the score "
            "there stays honest."
        )
    return told


def _recommendation(section: Section) -> list[Block]:
    choice, found = section.recommendation, [_answer(section)]
    if choice is None:
        return [*found]
    on = f"the part “{choice.selected_on}” ({plural(choice.n_cases, 'case')}, {plural(choice.n_groups, 'group')})"
    form = _differences(METRICS[section.metric], [(row["low"], row["high"]) for row in choice.deficits])
    return [
        *found,
        Paragraph(
            f"The rule: {RULE} It was applied to {on}, comparing {choice.question}; the margin is {choice.margin:g}."
        ),
        Items([*choice.reasons, *choice.limits]),
        table(
            f"Each network beside the best, {section.axis}, on {on}. Limits are simultaneous, at 95 %.",
            [
                ("Network", "text"),
                ("Deficit to the best mean", form),
                ("Shown to be worse by", form),
                ("May be worse by", form),
                ("Eligible", "tight"),
                (f"Probability of being worse by more than {choice.margin:g}", _form(percent)),
            ],
            [
                [
                    row["network"],
                    row["deficit"],
                    row["low"],
                    row["high"],
                    "yes" if row["eligible"] else "no",
                    row["p_worse"],
                ]
                for row in choice.deficits
            ],
        ),
        Paragraph(f"Run folder of these weights: {', '.join(choice.paths)}"),
    ]


def _section(section: Section, figures: Path, *, several: bool) -> list[Block]:
    top, sub = (2, 3) if several else (1, 2)
    page: list[Block] = [Heading(top, section.title)] if several else []
    page += [Heading(sub, "Recommendation"), *_recommendation(section)]
    page += [Heading(sub, "Scores of the chosen weights"), *_scores(section)]
    page += _of_section(section, Place.SCORES, figures)
    if any(row.confusion for row in section.networks):
        page += [Heading(sub, "Classes of lesions"), *_class_confusion(section)]
    if section.tuned:
        page += [Heading(sub, "How each network's settings were chosen"), *_tuning(section)]
    page += [Heading(sub, _QUESTIONS["weights"][0]), *_question(section, section.weights, Place.WEIGHTS, figures)]
    page.append(Heading(sub, _QUESTIONS["architectures"][0]))
    page += _question(section, section.architectures, Place.ARCHITECTURES, figures)
    page += [Heading(sub, "Subgroups"), *_subgroups(section), *_of_section(section, Place.SUBGROUPS, figures)]
    if section.measured or section.measured_notes:
        page += [Heading(sub, "Clinical measures"), *_measured(section), *_of_section(section, Place.MEASURES, figures)]
    if section.degraded or section.degraded_notes:
        page += [Heading(sub, "Robustness"), *_degraded(section), *_of_section(section, Place.ROBUSTNESS, figures)]
    if section.ensembles is not None:
        page += [Heading(sub, "Ensembles"), *_ensembles(section), *_of_section(section, Place.ENSEMBLES, figures)]
    page += [Heading(sub, "Stability"), *_stability(section), *_of_section(section, Place.STABILITY, figures)]
    page += [Heading(sub, "Degenerate models"), *_degenerate(section)]
    page += [Heading(sub, "Calibration"), *_calibration(section), *_of_section(section, Place.CALIBRATION, figures)]
    page += [Heading(sub, "Cost"), *_cost(section)]
    page += [Heading(sub, "Cases"), *_cases(section), *_of_section(section, Place.CASES, figures)]
    page += [Heading(sub, "Every run"), *_runs(section)]
    page += [Heading(sub, "What could have been found"), *_outlook(section)]
    page += _of_section(section, Place.OUTLOOK, figures)
    return page


def _of_networks(
    section: Section, caption: str, columns: Mapping[str, tuple[Form, Callable[[NetworkResult], Any]]]
) -> Table:
    """A row a network, those set apart marked and below.

    Args:
        section: whose networks.
        caption: of the table.
        columns: by title the form, and what is told of a network.
    """
    return table(
        caption,
        [("Network", "tight"), *((title, form) for title, (form, _) in columns.items())],
        [[row.label, *(value(row) for _, value in columns.values())] for row in section.networks],
        aside=[number for number, row in enumerate(section.networks) if row.set_apart],
    )


def _from_scores(key: str) -> Callable[[NetworkResult], Any]:
    return lambda row: row.scores[key]


def _at_threshold(section: Section) -> dict[str, tuple[Form, Callable[[NetworkResult], Any]]]:
    """Columns of the same weights at the threshold that validation chose, where any network has one."""
    if not any(row.at_threshold for row in section.networks):
        return {}
    return {
        "Threshold that validation chose": (
            "tight",
            lambda row: "–" if row.at_threshold is None else ", ".join(f"{t:.3g}" for t in row.at_threshold.thresholds),
        ),
        "Dice at that, mean per image": (
            _score,
            lambda row: None if row.at_threshold is None else row.at_threshold.dice_mean,
        ),
    }


def _tuning(section: Section) -> list[Block]:
    """What was tried for each network, and what was taken."""
    budgets = {_budget(one): one for one in section.tuned}
    tuned = {one.network for one in section.tuned}
    if len(budgets) == 1 and tuned == {row.network for row in section.networks}:
        told = f"Every network had the same budget: {next(iter(budgets))}."
    else:
        own = {one.network: _budget(one) for one in section.tuned}
        told = "; ".join(f"{row.network}: {own.get(row.network, 'none')}" for row in section.networks)
        told = f"The networks had different budgets, so that their recipes are not equally good: {told}."
    alone = any(len(one.seeds) == 1 for one in section.tuned)
    options = list(dict.fromkeys(name for one in section.tuned for name in one.chosen))
    folds = any(one.fold is not None for one in section.tuned)
    columns: list[tuple[str, Form]] = [("Network", "tight"), *((name, "text") for name in options)]
    if folds:
        columns.insert(1, ("Fold", "tight"))
    columns += [("Dice on validation, mean per image", _form("{:.4f}".format, "diverged")), ("Taken", "tight")]
    return [
        Paragraph(
            f"{told} Taken was what has the best mean Dice on validation, on the original grid; the part of the report "
            "was not scored in any of these trials. The Dice on validation of what was taken is optimistic, as it was "
            "chosen by it." + (" Settings closer than seeds spread may be taken by chance." if alone else "")
        ),
        table(
            f"Each setting that was tried: {', '.join(options)}.",
            columns,
            [
                [
                    one.network,
                    *(["" if one.fold is None else str(one.fold)] if folds else []),
                    *(str(values.get(name, "")) for name in options),
                    dice,
                    "yes" if values == one.chosen else "",
                ]
                for one in section.tuned
                for values, dice in one.tried
            ],
        ),
    ]


def _budget(one: Tuned) -> str:
    long = "as many epochs as the runs" if one.epochs is None else f"at most {plural(one.epochs, 'epoch')}"
    seeds = f"seed{'s' * (len(one.seeds) > 1)} {', '.join(map(str, one.seeds))}"
    return f"{plural(len(one.tried), 'setting')} of {', '.join(one.chosen)}, {seeds}, {long} each"


def _class_confusion(section: Section) -> list[Block]:
    """Which class the lesions were given, by network."""
    told = [row for row in section.networks if row.confusion]
    page: list[Block] = [
        Paragraph(
            "Of the lesions (connected components of all classes together) of each class in the references, how many "
            "the chosen weights gave which class: that of most pixels marked within the lesion. Missed: not a pixel "
            "of it is marked. Nothing: what was marked where no lesion is. Lesions are counted, not pixels, and how "
            "well a lesion's outline fits stands in the other tables."
        )
    ]
    for row in told:
        assert row.confusion is not None
        columns = list(dict.fromkeys(name for counts in row.confusion.values() for name in counts))
        page.append(
            table(
                f"{row.label}: lesions by the reference's class (rows) and the class given (columns), {section.size}.",
                [("Reference", "tight"), *((name, _form("{:,.0f}".format)) for name in columns)],
                [[name, *(counts.get(column) for column in columns)] for name, counts in row.confusion.items()],
            )
        )
    return page


def _scores(section: Section) -> list[Block]:
    size, unit, metric = section.size, section.distance_unit, METRICS[section.metric]
    form = _metric_form(metric)
    others = {
        f"{_sentence(one.heading(unit))}, mean": (_metric_form(one), _from_scores(f"{one.name}_mean"))
        for one in METRICS.values()
        if one.name not in _OVERLAP
    }
    return [
        Paragraph(
            "Per image: the mean over images, each counting the same. Pooled: from the summed pixels of all images, so "
            "that large objects count more. Foreground IoU is of the object alone, two-class IoU the mean of object "
            f"and background. n = {size}. Chosen weights: {section.chosen_by}. {unseen(section.n_groups)}"
            + (f" {THRESHOLD_RULE}" if any(row.at_threshold for row in section.networks) else "")
        ),
        _of_networks(
            section,
            f"Overlap with the reference, {size}; best {metric.title} first.",
            {
                "Seed": (_count, lambda row: row.chosen_seed),
                f"{_sentence(section.axis)}, mean over groups": (form, lambda row: row.mean_over_groups.mean),
                "95 % interval": (
                    lambda limits: _interval(limits, form),
                    lambda row: (row.mean_over_groups.low, row.mean_over_groups.high),
                ),
                "Dice, mean per image": (_score, _from_scores("dice_mean")),
                **_at_threshold(section),
                "Dice, median per image": (_score, _from_scores("dice_median")),
                "Dice, pooled": (_score, _from_scores("dice_pooled")),
                "Foreground IoU, mean per image": (_score, _from_scores("iou_foreground_mean")),
                "Two-class IoU, mean per image": (_score, _from_scores("iou_two_class_mean")),
                "Two-class IoU, pooled": (_score, _from_scores("iou_two_class_pooled")),
            },
        ),
        _of_networks(
            section,
            "Misses (objects of which not a pixel is found), false alarms (something marked where nothing is), and the "
            f"other scores, mean per image, {size}. Distances are in {unit}; where one mask alone is empty, it is the "
            "image's diagonal.",
            {
                "Misses": (_count, _from_scores("n_misses")),
                "False alarms": (_count, _from_scores("n_false_alarms")),
                "Images without an object": (_count, _from_scores("n_empty_references")),
                **others,
            },
        ),
        _of_networks(
            section,
            f"Lesions (connected components), {size}.",
            {
                "Lesions in the references": (_count, _from_scores("n_lesions")),
                "Lesions found": (_count, _from_scores("n_lesions_found")),
                "Lesion sensitivity": (_score, _from_scores("lesion_sensitivity")),
                "False positives per image": (_score, _from_scores("false_positives_per_image")),
            },
        ),
    ]


def _question(section: Section, comparison: Comparison | None, place: Place, figures: Path) -> list[Block]:
    if comparison is None:
        notes = section.architecture_notes if place is Place.ARCHITECTURES else []
        return [Paragraph(" ".join(notes) or "There are not two networks to compare.")]
    explanation = _QUESTIONS[comparison.question][1].format(chosen_by=section.chosen_by, seeds=_seeds(section))
    decisions = section.decisions[comparison.question]
    return [
        Paragraph(f"{explanation} {SCOPE[comparison.question]}"),
        Paragraph(f"Method: {comparison.method}"),
        Items(_notes(section, comparison)),
        table(
            f"All pairs, the better mean first; difference of {section.axis}; {_n(comparison)}. Better, which is a "
            f"claim: adjusted p below {ALPHA:g}, the interval leaves 0 out, and nothing above forbids it. "
            f"{INTERVAL_JOINT} The other one: {INTERVAL_ALONE}{_open_intervals(comparison)}",
            [
                ("First", "text"),
                ("Second", "text"),
                (f"Verdict at {decisions[0].margin:g}", "text"),
                ("Difference", "number"),
                ("95 % interval, by itself", "number"),
                ("Simultaneous 95 % interval", "number"),
                ("p", _p),
                ("Adjusted p", _p),
                (f"Effect ({comparison.pairs[0].effect_name})", _form("{:.2f}".format)),
                ("Groups won / tied / lost", "tight"),
            ],
            [
                [
                    pair.first,
                    pair.second,
                    _verdict(decision),
                    *_difference(pair, METRICS[section.metric]),
                    pair.p,
                    pair.p_adjusted,
                    pair.effect,
                    f"{pair.wins} / {pair.ties} / {pair.losses}",
                ]
                for pair, decision in zip(comparison.pairs, decisions, strict=True)
            ],
        ),
        Paragraph(DECISIONS.format(margin=decisions[0].margin)),
        *_of_section(section, place, figures, comparison),
    ]


def _difference(pair: Pair, metric: Metric) -> list[Cell]:
    """The difference, and its two intervals."""
    form = _differences(metric, [pair.interval, pair.simultaneous], sign="+")
    limits = (pair.interval, pair.simultaneous)
    return [Cell(form(pair.difference), pair.difference), *(Cell(_interval(two, form), two[0]) for two in limits)]


def _open_intervals(comparison: Comparison) -> str:
    """A sentence for the caption where an interval is lacking."""
    limits = [value for pair in comparison.pairs for value in (*pair.interval, *pair.simultaneous)]
    return "" if all(map(_known, limits)) else " No interval: the data leave no difference out, however large."


def _notes(section: Section, comparison: Comparison) -> list[str]:
    notes = [_claims(comparison, section), *comparison.warnings]
    if comparison.question == "architectures":
        notes += section.architecture_notes
        if collapsed := [row.network for row in section.networks if row.collapsed_seeds and not row.set_apart]:
            notes.append(
                f"A collapsed seed of {', '.join(collapsed)} is in this comparison, as collapsing is part of how "
                "a network trains."
            )
    else:
        # Of a rank test alone: a t test has no smallest p.
        notes.append(
            f"The smallest adjusted p that {comparison.n_groups} groups and {len(comparison.networks)} networks can "
            f"give is {_p(comparison.smallest_adjusted_p)}."
        )
    if omnibus := comparison.omnibus:
        f = omnibus["iman_davenport_f"]
        notes.append(
            f"All networks together: Friedman χ² {omnibus['friedman_chi2']:.2f}, p {_p(omnibus['friedman_p'])}; Iman "
            f"and Davenport F {f'{f:.2f}' if math.isfinite(f) else 'infinite'}, p {_p(omnibus['iman_davenport_p'])}. "
            "This asks whether the networks are all alike. A small p says that they are not, but not which of them "
            "differ: that is for the pairs, each tested by itself and corrected for their number, so that it may be "
            "small where no pair can be told apart."
        )
    return notes


def _stability(section: Section) -> list[Block]:
    return [
        Paragraph(
            "Volatility: standard deviation of the validation Dice over the last third of the epochs, mean over the "
            "runs of a network but the collapsed ones; of a network that is set apart it says nothing, as what has "
            "collapsed stands still. "
            "Spread over seeds: standard deviation and range of the mean Dice per image from one training to the "
            f"next. Worst decile: mean Dice of the worst tenth of the {section.n_cases} cases, chosen weights."
        ),
        _of_networks(
            section,
            f"Stability, {section.size}; a dash where there is one seed, or too few validated epochs.",
            {
                "Seeds": ("tight", lambda row: ", ".join(map(str, row.seeds))),
                "Collapsed seeds (95 % interval of the rate)": ("number", lambda row: _rate(row.collapse)),
                "Volatility of the validation Dice": (_fine, lambda row: row.volatility),
                "Dice, mean over seeds": (_score, lambda row: row.seeds_mean_dice),
                "Dice, standard deviation over seeds": (_score, lambda row: row.seeds_sd_dice),
                "Dice, range over seeds": (_score, lambda row: row.seeds_range_dice),
                "Dice, worst decile": (_score, lambda row: row.worst_decile_dice),
            },
        ),
    ]


def _rate(rate: Rate) -> Cell:
    low, high = rate.interval
    return Cell(f"{rate.count} of {rate.total} ({100 * low:.0f} to {100 * high:.0f} %)", rate.share)


def _degenerate(section: Section) -> list[Block]:
    if not section.degenerate:
        return [
            Paragraph(
                "None: no run marks nothing, everything, or the same share of every image, and no two runs agree in "
                "every pixel count."
            )
        ]
    items = [f"{one.network} seed {one.seed}, {one.kind}: {one.sentence}" for one in section.degenerate]
    for row in section.networks:
        if row.set_apart and row.network not in section.contaminated:
            items.append(
                f"{row.network}: no usable seed is left, so it is set apart from ranking, tests and recommendation; "
                "its figures stand in the tables."
            )
        elif row.collapsed_seeds:
            items.append(
                f"{row.network} stays in: a collapse is part of how it trains. Mean Dice over "
                f"{plural(len(row.seeds) - len(row.copied_seeds), 'seed')} {_score(row.seeds_mean_dice)}, "
                f"without the collapsed {_score(row.seeds_mean_dice_without_collapsed)}. "
                + (
                    "The chosen weights themselves have collapsed on this part, though not on validation."
                    if row.chosen_seed in row.collapsed_seeds
                    else "The chosen weights are of another seed."
                )
            )
        if row.copied_seeds and not row.set_apart:
            told = ", ".join(map(str, row.copied_seeds))
            items.append(f"{row.network} seed {told} is a copy and counted nowhere as a training of its own.")
    return [Items(items)]


def _calibration(section: Section) -> list[Block]:
    if all(row.expected_calibration_error is None for row in section.networks):
        return [Paragraph("Not recorded: the evaluations hold no calibration.csv.")]
    return [
        Paragraph(
            "How far predicted probabilities can be taken at their word, over all pixels, chosen weights. Both figures "
            "are better when small. Easy background dominates them: read the curve beside."
        ),
        _of_networks(
            section,
            f"Calibration, {section.size}.",
            {
                "Expected calibration error": (_fine, lambda row: row.expected_calibration_error),
                "Brier score": (_fine, lambda row: row.brier_score),
            },
        ),
    ]


def _cost(section: Section) -> list[Block]:
    machines = "; ".join(section.machines) or "not recorded"
    page: list[Block] = []
    if len(section.machines) > 1:
        text = f"Times were taken on different machines or devices and cannot be compared: {machines}"
        page.append(Callout("warning", [text]))
    columns: dict[str, tuple[str, Form]] = {
        "parameters": ("Parameters", _large),
        "multiply_adds": ("Multiply-adds of one image", _large),
        "latency_ms": ("Latency of one image [ms]", _time),
        "seconds": ("Training [s]", _time),
        "images_per_second": ("Training [images/s]", _time),
    }

    def cost(key: str) -> Callable[[NetworkResult], Any]:
        return lambda row: row.cost[key]

    return [
        *page,
        _of_networks(
            section,
            f"Cost, median over the runs of a network; k, M, G: thousands, millions, billions. "
            f"Machine{'s' * (len(section.machines) > 1)}: {machines}.",
            {title: (form, cost(key)) for key, (title, form) in columns.items()},
        ),
    ]


def _cases(section: Section) -> list[Block]:
    if section.without_images is None:
        return [Paragraph("Patient images were left out on request.")]
    told = ", ".join(section.without_images)
    return [Paragraph(f"No images, references and predictions were kept of: {told}.")] if told else []


def _runs(section: Section) -> list[Block]:
    columns: dict[str, tuple[Form, Callable[[Any], Any]]] = {
        "Network": ("text", lambda row: row.network),
        "Seed": (_count, lambda row: row.seed),
        "Fold": ("tight", lambda row: "" if row.fold is None else str(row.fold)),
        "Weights": ("tight", lambda row: "chosen" if row.chosen else ""),
        "Degenerate": ("text", lambda row: row.verdict),
        "Validation Dice, best epoch (network grid)": (_score, lambda row: row.best_validation_dice),
        f"Dice on {section.part}, mean per image": (_score, lambda row: row.scores["dice_mean"]),
        "Misses": (_count, lambda row: row.scores["n_misses"]),
        "False alarms": (_count, lambda row: row.scores["n_false_alarms"]),
        "Epochs": (_count, lambda row: row.epochs),
        "Run folder": ("long", lambda row: row.path),
    }
    for title in ("Fold", "Degenerate"):
        if not any(columns[title][1](row) for row in section.runs):
            del columns[title]
    split = []
    if before := "; ".join(f"{name} on {', '.join(names)}" for name, names in section.pretrained_on.items()):
        split.append(
            Paragraph(f"Pretrained: {before}. Whether such data hold images of this test is told by their names alone.")
        )
    split += [Paragraph(f"How the parts came about: {'; '.join(section.split)}.")] if section.split else []
    return [
        *split,
        table(
            f"Every run, {section.size}. Its other scores are in summary.csv and cases.csv.",
            [(title, form) for title, (form, _) in columns.items()],
            [[value(row) for _, value in columns.values()] for row in section.runs],
        ),
    ]


def _subgroups(section: Section) -> list[Block]:
    form = _metric_form(METRICS[section.metric])
    known = ", ".join(f"{form(half)} with {n} groups" for n, half in section.known_to)
    page: list[Block] = [
        Paragraph(
            "Chosen weights, mean over groups and 95 % interval of each by itself. How small is too small: as the "
            f"groups spread here, half of the interval of a subgroup's {section.axis} is about {known}; one of fewer "
            f"than {FEW} groups is marked and in no test. Tests, corrected (Holm) over all networks and variables: "
            "whether a network's score differs between subgroups, which is mostly how hard they are; and whether its "
            "advantage does (interaction): what it is above the mean of all compared networks. That no dependence is "
            "shown does not show that there is none. A group whose cases lie in several subgroups counts in a test "
            "where most of them lie."
        )
    ]
    for name, networks in depends(section.subgroups).items():
        page.append(Callout("note", [f"The advantage or lag of {', '.join(networks)} depends on {name}."]))
    for one in section.subgroups:
        lacking = f" {plural(one.n_without, 'case')} without a value." if one.n_without else ""
        if not one.levels:
            page.append(Paragraph(f"By {one.name}: {one.how}."))
            continue
        names = [(row.network, row.label) for row in section.networks]
        page.append(
            table(
                f"By {one.name}, {one.how}; {section.axis}.{lacking}",
                [
                    ("Subgroup", "text"),
                    ("Cases", _count),
                    ("Groups", _count),
                    *((label, "number") for _, label in names),
                ],
                [
                    [
                        level.label + (" (too few)" if level.too_few else ""),
                        level.n_cases,
                        level.n_groups,
                        *(_with_interval(level.means[name], form) for name, _ in names),
                    ]
                    for level in one.levels
                ],
            )
        )
        page.append(
            table(
                f"By {one.name}: adjusted p that it makes no difference.",
                [("Network", "tight"), ("Score differs", _p), ("Advantage differs (interaction)", _p)],
                [[test.network, test.differs, test.interaction] for test in one.tests],
            )
        )
    return page


def _measured(section: Section) -> list[Block]:
    page: list[Block] = [
        Paragraph(
            "Predicted less reference, chosen weights. Between the limits of agreement 95 % of such differences are "
            "expected to lie, if they are distributed normally and alike at small and large values, as the figure "
            "shows or not: whether that is close enough is a clinical question. Intervals (95 %) by Bland and Altman "
            "1999; where a group has several images, its differences count as dependent (variance components, "
            "jackknife over groups). A prediction that cannot be measured is in none of the means: read them together."
        )
    ]
    if section.measured_notes:
        page.append(Items(section.measured_notes))
    labels = {row.network: row.label for row in section.networks}
    for measure, unit in dict.fromkeys((one.measure, one.unit) for one in section.measured):
        rows = [one for one in section.measured if one.measure == measure]
        widths = [one.difference.high - one.difference.low for one in rows if _known(one.difference.low)]
        form = _form(_signed(1 if min(widths, default=1) >= 0.2 else 2))
        page.append(
            table(
                f"{_sentence(measure)} [{unit}].",
                [
                    ("Network", "tight"),
                    ("Images (groups)", "tight"),
                    ("Not measurable", _count),
                    ("Mean difference", "number"),
                    ("Lower limit of agreement", "number"),
                    ("Upper limit of agreement", "number"),
                    ("Standard deviation", form),
                    ("Mean absolute difference", form),
                ],
                [
                    [
                        labels[one.network],
                        f"{one.n_cases:,} ({one.n_groups:,})",
                        one.n_failed,
                        *(_with_interval(each, form) for each in (one.difference, one.low, one.high)),
                        one.sd,
                        one.absolute,
                    ]
                    for one in rows
                ],
                aside=[number for number, one in enumerate(rows) if one.network in section.set_apart],
            )
        )
        if unknown := max(one.n_unknown for one in rows):
            page.append(Paragraph(f"Of {plural(unknown, 'image')} there is no reference of the {measure}.", small=True))
    return page


def _degraded(section: Section) -> list[Block]:
    page: list[Block] = []
    if section.degraded:
        page.append(
            Paragraph(
                "Dice of the chosen weights on the same images made worse, mean over groups, with the 95 % interval of "
                "each by itself, and the change from the images as they are. What each strength looks like is in "
                "figures/*-robustness.png of the run folders. Degradations are computed: they stand for other devices "
                "and settings, and do not replace an evaluation on images of these. Calipers are set by the reference, "
                "so that they may also help a network."
            )
        )
    if section.degraded_notes:
        page.append(Items(section.degraded_notes))
    tried = {network for one in section.degraded for network in one.means}
    labels = {row.network: row.label for row in section.networks if row.network in tried}
    every = [cell for one in section.degraded for own in one.changes.values() for cell in own if cell]
    change = _differences(METRICS["dice"], [(cell.low, cell.high) for cell in every if cell.low < cell.high], sign="+")
    for caption, form, clean in (
        ("Dice of degraded images.", _metric_form(METRICS["dice"]), True),
        ("Change of Dice from the images as they are.", change, False),
    ):
        rows = []
        for one in section.degraded:
            for place, strength in enumerate(one.strengths):
                if strength or clean:
                    of = one.means if clean else one.changes
                    cells = [of[network][place] if network in of else None for network in labels]
                    told = _signed(None)(strength) if strength else "as it is"
                    rows.append([f"{one.name} [{one.unit}]", Cell(told, strength), *(_cell_of(c, form) for c in cells)])
        if rows:
            columns: list[tuple[str, Form]] = [("Degradation", "text"), ("Strength", "number")]
            page.append(table(caption, [*columns, *((label, "number") for label in labels.values())], rows))
    return page


def _signed(decimals: int | None) -> Callable[[float], str]:
    """A number with a minus as long as a plus, in so many decimals, or as many as it has."""
    return lambda value: (f"{value:g}" if decimals is None else f"{value:.{decimals}f}").replace("-", "−")


def _cell_of(one: Mean | None, form: Callable[[float | None], str]) -> Cell:
    return Cell("–") if one is None else _with_interval(one, form)


def _ensembles(section: Section) -> list[Block]:
    metric = METRICS[section.metric]
    form, made = _metric_form(metric), section.ensembles or []
    gains = [(one.low, one.high) for row in made for one in (row.gain, row.gain_over_chosen)]
    gain = _differences(metric, gains, sign="+")
    shares = [one.given for one in made[0].coverage] if made else []
    page: list[Block] = [
        Paragraph(
            "The seeds of a network as one model. Mean: of their probabilities, as `monai-thyroid ensemble` has scored "
            "it. Vote, where it has not: a pixel is foreground where more than half of their stored masks mark it. "
            "Seeds that collapsed or are copies are in neither. Gain: above 0 where the one model is better, with the "
            "95 % interval of each by itself, over groups; it is of these trainings, and costs as many times the time "
            "as there are seeds. Agreement: mean Dice of all pairs of seeds, as `monai-thyroid predict --with` tells "
            "it for each image. Seeds can agree on what is wrong."
        )
    ]
    if section.ensemble_notes:
        page.append(Items(section.ensemble_notes))
    if made:
        labels = {row.network: row.label for row in section.networks}
        aside = [number for number, one in enumerate(made) if one.network in section.set_apart]
        page.append(
            table(
                f"Seeds as one model, {section.axis}, mean over groups; {section.size}.",
                [
                    ("Network", "tight"),
                    ("Seeds", "tight"),
                    ("Kind", "tight"),
                    ("As one", "number"),
                    ("One seed, mean", form),
                    ("Gain over one seed", "number"),
                    ("Gain over the chosen weights", "number"),
                    ("Agreement", _score),
                ],
                [
                    [
                        labels[one.network],
                        ", ".join(map(str, one.seeds)),
                        "mean" if one.averaged else "vote",
                        _with_interval(one.score, form),
                        one.singles.mean,
                        _with_interval(one.gain, gain),
                        _with_interval(one.gain_over_chosen, gain),
                        one.agreement.mean,
                    ]
                    for one in made
                ],
                aside=aside,
            )
        )
        page.append(
            table(
                f"{_sentence(section.axis)} of the rest, mean over groups, if the least agreed cases go to a person; "
                "in brackets: if the worst had been known and gone.",
                [("Network", "tight"), *((f"{100 * share:.0f} % given", "number") for share in shares)],
                [
                    [
                        labels[one.network],
                        *(
                            Cell(
                                f"{_with_interval(each.score, form).text} [{form(each.best_possible)}]", each.score.mean
                            )
                            for each in one.coverage
                        ),
                    ]
                    for one in made
                ],
                aside=aside,
            )
        )
    return page


def _with_interval(one: Mean, form: Callable[[float | None], str]) -> Cell:
    return Cell(f"{form(one.mean)} ({_interval((one.low, one.high), form)})", one.mean)


def _outlook(section: Section) -> list[Block]:
    one = section.outlook
    if one is None:
        return [Paragraph("Not known: there are not two networks and two groups to tell it from.")]
    form = _differences(METRICS[section.metric], [])
    told = [outlook_sentence(one, axis=section.axis, form=form)]
    if one.seeds > 1:
        told.append(
            "Where the spread over seeds rules, more groups find no smaller difference; with few seeds even a larger "
            "one, as little is then known of the error."
        )
    if section.architectures and any(UNSTABLE in text for text in section.architectures.warnings):
        told.append(
            "One spread over seeds is taken for all networks, and one of them varies more than the others (see the "
            "warnings): between the others smaller differences are found than told here, with it only larger ones."
        )
    if section.grouping == "unknown":
        told.append("Groups are unknown, so each image is taken as a patient.")
    needed = _form("{:,.0f}".format, "none up to 10,000")
    return [
        Paragraph(" ".join(told)),
        table(
            f"What it takes, for {plural(one.networks, 'network')} and a probability of {100 * one.power:.0f} %; true "
            f"difference of {section.axis}.",
            [
                ("Seeds a network", _count),
                (f"Found with these {one.groups} groups", form),
                *((f"Groups needed for {value:g}", needed) for value in one.differences),
            ],
            [[row.seeds, row.detectable, *row.groups] for row in one.table],
        ),
    ]


def _shift(one: Shift, figures: Path) -> list[Block]:
    folds = any(row.fold is not None for row in one.rows)
    page: list[Block] = [
        Heading(2, f"Across datasets: {one.class_name}"),
        Paragraph(
            "Dice of every model on every dataset it was scored on: mean over groups, its 95 % interval (of this model "
            "on further patients of that dataset, by bootstrap over groups), and the number of groups. An asterisk "
            "marks the dataset that the model was trained on (in-domain), other parts of it than the training's; a "
            "dagger marks figures that include training images, or data that the weights had seen before, and are "
            "therefore too good."
        ),
    ]
    if one.unlike:
        told = ", ".join(one.unlike)
        text = (
            f"Not all models were scored on the same images of: {told}. Do not compare these columns from row to row."
        )
        page.append(Callout("warning", [text]))
    columns: list[tuple[str, Form]] = [("Network", "text"), ("Trained on", "text"), ("Seed", _count)]
    if folds:
        columns.append(("Fold", "tight"))
    rows = []
    for row in one.rows:
        fold = [] if not folds else ["" if row.fold is None else row.fold]
        rows.append([row.network, row.trained_on, row.seed, *fold, *map(_cell, row.cells)])
    columns += [(name, "number") for name in one.columns]
    page.append(table(f"Dice, mean over groups (95 % interval; n groups), class {one.class_name}.", columns, rows))
    return [*page, *_pictures(one, Place.SHIFT, figures, class_name=one.class_name)]


def _cell(cell: ShiftCell | None) -> Cell:
    if cell is None:
        return Cell("–")
    mark = "†" if cell.holds_training_images else "*" if cell.in_domain else ""
    interval = _interval((cell.dice.low, cell.dice.high))
    return Cell(f"{_score(cell.dice.mean)}{mark} ({interval}; {cell.n_groups})", cell.dice.mean)


def _policy(text: str) -> list[Block]:
    """The policy's own words; the lines of its table become a table."""
    lines = [line for line in text.splitlines() if line]
    head, *rows = [[cell.strip() for cell in line.split(" | ")] for line in lines if " | " in line] or [[]]
    prose = [line for line in lines if " | " not in line]
    notes = [line for line in prose if line.split(":")[0] in {row[0] for row in rows}]
    found: list[Block] = [Paragraph(line) for line in prose if line not in notes]
    if rows:
        found.append(table("What every score is where masks are empty.", [(title, "text") for title in head], rows))
    return [*found, Items(notes)] if notes else found
