"""The report as a page: made of the content of report.json alone, so that every form of it says the same."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

__all__ = ["FOLDS", "METRIC_NAMES", "axis_name", "blocks", "html", "markdown"]

Block = dict[str, Any]

METRIC_NAMES = {
    "dice": "Dice",
    "iou": "foreground IoU",
    "nsd": "normalised surface Dice",
    "hd95": "95th percentile Hausdorff distance",
    "asd": "average surface distance",
}
FOLDS = {
    "disjoint": "cross-validation. The test cases of the folds are pooled, each scored by the model that has not seen "
    "it. Training sets of folds overlap, so folds are not independent trainings: no claim about architectures is made "
    "from folds alone.",
    "shared": "several folds were scored on the same test cases; each case's score is its mean over the folds. "
    "Training sets of folds overlap, so folds are not independent trainings: no claim about architectures is made "
    "from folds alone.",
}
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
_LARGEST_SVG = 600_000  # bytes; beyond, the PNG is put into the page


def axis_name(section: dict[str, Any]) -> str:
    """Name of the metric, with its unit where it is a distance."""
    name = METRIC_NAMES[section["metric"]]
    return name if section["larger_is_better"] else f"{name} [{section['distance_unit']}]"


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _fine(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.4f}"


def _p(value: float | None) -> str:
    if value is None:
        return "no test"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _count(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:,.0f}"


def _amount(value: float | None) -> str:
    """Three digits, for times and speeds."""
    if value is None:
        return "not recorded"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _interval(low: float | None, high: float | None, form: Callable[[float | None], str] = _score) -> str:
    return "no interval" if low is None or high is None else f"{form(low)} to {form(high)}"


def blocks(content: dict[str, Any]) -> list[Block]:
    """The page as headings, texts, lists, tables and figures.

    Args:
        content: of report.json.
    """
    sections = content["sections"]
    several = len(sections) > 1
    names = ", ".join(_title(section) for section in sections)
    page: list[Block] = [
        _heading(1, f"Comparison of networks: {names}"),
        _text(_opening(content)),
    ]
    if content["warnings"]:
        page.append({"kind": "warnings", "items": content["warnings"]})
    for section in sections:
        page += [_heading(2, f"In short: {_title(section)}" if several else "In short"), *_short(section)]
    if content["unusable"]:
        page += [
            _heading(2, "Runs that could not be used"),
            _table(
                "In no figure of this report.",
                [("Run folder", "long"), ("Network", "text"), ("Seed", "text"), ("Fold", "tight"), ("Reason", "long")],
                [[one[key] for key in ("path", "network", "seed", "fold", "reason")] for one in content["unusable"]],
            ),
        ]
    for section in sections:
        page += _section(section, several=several)
    page += _shift(content["shift"])
    page += [_heading(2, "How the scores are defined")]
    if len(content["policy"]) != 1:
        page.append(
            _text(
                "The runs did not record their scoring policy."
                if not content["policy"]
                else "The runs were scored by different policies."
            )
        )
    for policy in content["policy"]:
        page += _policy(policy)
    page.append(
        _text(
            f"Made by monai-thyroid {content['version']} from run folders alone. For research; not cleared for "
            "diagnosis."
        )
    )
    used: set[str] = set()
    for block in page:
        if block["kind"] == "heading":
            block["id"] = f"part-{len(used) + 1}"
            used.add(block["id"])
    return page


def _heading(level: int, text: str) -> Block:
    return {"kind": "heading", "level": level, "text": text}


def _text(text: str) -> Block:
    return {"kind": "text", "text": text}


def _list(items: Sequence[str]) -> Block:
    return {"kind": "list", "items": list(items)}


# How a column is shown: by a form that makes text of its numbers; or it is text that wraps, text that must not, or
# text so long that it may break anywhere.
Kind = Callable[[Any], str] | Literal["text", "tight", "long"]


def _table(caption: str, columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[Any]]) -> Block:
    """Of numbers the value itself is kept to sort by."""
    return {
        "kind": "table",
        "caption": caption,
        "columns": [{"title": title, "kind": "number" if callable(kind) else kind} for title, kind in columns],
        "rows": [
            [
                {"text": kind(value), "value": value} if callable(kind) else {"text": str(value), "value": None}
                for value, (_, kind) in zip(row, columns, strict=True)
            ]
            for row in rows
        ],
    }


def _figures(section: dict[str, Any], kind: str, caption: str) -> list[Block]:
    return [{"kind": "figure", "name": name, "caption": caption} for name in section["figures"].get(kind, [])]


def _title(section: dict[str, Any]) -> str:
    return (
        f"{section['dataset']} ({section['class']})" if section["class"] != section["dataset"] else section["dataset"]
    )


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _opening(content: dict[str, Any]) -> str:
    runs = sum(len(section["runs"]) for section in content["sections"])
    dates = content["runs_started"]
    when = f", trained {dates[0]}" + (f" to {dates[-1]}" if len(dates) > 1 else "") if dates else ""
    options = content["options"]
    return (
        f"{_plural(runs, 'run')}{when}. Compared on the part “{options['part']}” by "
        f"{METRIC_NAMES[options['metric']]}; margin of the recommendation {options['margin']:g}, declared beforehand."
    )


def _size(section: dict[str, Any]) -> str:
    unknown = ", grouping unknown" if section["grouping"] == "unknown" else ""
    return f"{_plural(section['n_cases'], 'case')} ({_plural(section['n_groups'], 'group')}{unknown})"


def _short(section: dict[str, Any]) -> list[Block]:
    networks = section["networks"]
    ranked = [row for row in networks if not row["set_apart"]]
    items = [
        f"{_plural(len(networks), 'network')} in {_plural(len(section['runs']), 'run')}, scored on "
        f"{_size(section)} of the part “{section['part']}”, on the original image grid."
    ]
    if section["set_apart"]:
        told = ", ".join(one["network"] for one in section["set_apart"])
        items.append(f"Set apart as degenerate, neither ranked nor tested: {told}.")
    if ranked:
        best = ranked[0]["mean_over_groups"]
        items.append(
            f"Best mean of the chosen weights: {ranked[0]['network']}, {axis_name(section)} {_score(best['mean'])} "
            f"(95 % interval {_interval(best['low'], best['high'])}; mean over {section['n_groups']} groups)."
        )
    for question in ("weights", "architectures"):
        if comparison := section[question]:
            items.append(f"{_QUESTIONS[question][0]}: {_claims(comparison, section)}")
    if section["weights"] and not section["architectures"]:
        items.append("These architectures: nothing is claimed; why stands in the warnings above.")
    return [_list(items), *_recommendation(section, short=True)]


def _claims(comparison: dict[str, Any], section: dict[str, Any]) -> str:
    if comparison["refusals"]:
        return " ".join(comparison["refusals"])
    claims = [pair for pair in comparison["pairs"] if pair["claim"]]
    n = f"{comparison['n_groups']} groups" + (
        f", {comparison['n_seeds']} seeds" if comparison["question"] == "architectures" else ""
    )
    if not claims:
        return f"No network is shown to be better than another ({n}). That does not show that they are equal."
    told = "; ".join(
        f"{pair['first']} is better than {pair['second']} by {_fine(abs(pair['difference']))} "
        f"(95 % interval {_better(pair['interval'])}, adjusted p {_p(pair['p_adjusted'])})"
        for pair in claims[:4]
    )
    more = f"; and {len(claims) - 4} more pairs, see the table" if len(claims) > 4 else ""
    rest = len(comparison["pairs"]) - len(claims)
    open_ = f" {_plural(rest, 'pair')} of {len(comparison['pairs'])} cannot be told apart." if rest else ""
    return f"{told}{more} ({axis_name(section)}, {n}).{open_}"


def _better(interval: Sequence[float]) -> str:
    """The interval of a claimed difference, told as "better by"."""
    low, high = sorted(abs(limit) for limit in interval)
    return _interval(low, high, form=_fine)


def _recommendation(section: dict[str, Any], *, short: bool = False) -> list[Block]:
    choice = section["recommendation"]
    if choice is None:
        few = "There are not two networks to choose from, so nothing is recommended."
        return [{"kind": "verdict", "text": few}]
    what = f"the weights of {choice['network']} seed {choice['seed']}"
    reported = choice["reported"]
    score = (
        f"{axis_name(section)} {_score(reported['mean'])} on the part “{reported['part']}” (95 % interval "
        f"{_interval(reported['low'], reported['high'])}, mean over {section['n_groups']} groups)"
    )
    if choice["blockers"]:
        why = "; ".join(choice["blockers"])
        text = f"Nothing is recommended for use: {why}. By the rule alone {what} would be chosen."
    else:
        text = f"Recommended: {what}, {score}."
    if choice["optimistic"]:
        text += f" Selected on {choice['selected_on']}: optimistic."
    found: list[Block] = [{"kind": "verdict", "text": text}]
    if short:
        return found
    on = f"the part “{choice['selected_on']}” ({choice['n_cases']} cases, {choice['n_groups']} groups)"
    question = "architectures" if choice["question"] == "architectures" else "weights"
    found.append(
        _text(
            f"The rule: eligible are the best mean and every network whose 95 % interval of the deficit to it lies "
            f"within {choice['margin']:g}. Among them count, in this order, the fewest collapsed seeds, the steadiest "
            f"validation curve, and the cost. It was applied to {on}, comparing {question}."
        )
    )
    found.append(_list([*choice["reasons"], *(f"{text}" for text in choice["limits"])]))
    found.append(
        _table(
            f"Deficit of each network to the best mean, {axis_name(section)}, on {on}.",
            [("Network", "text"), ("Deficit", _fine), ("95 % interval", "tight"), ("Eligible", "tight")],
            [
                [row["network"], row["deficit"], _deficit(row, choice), "yes" if row["eligible"] else "no"]
                for row in choice["deficits"]
            ],
        )
    )
    found.append(_text(f"Run folder of these weights: {', '.join(choice['paths'])}"))
    return found


def _deficit(row: dict[str, Any], choice: dict[str, Any]) -> str:
    return "the best mean" if row["network"] == choice["best"] else _interval(row["low"], row["high"], form=_fine)


def _section(section: dict[str, Any], *, several: bool) -> list[Block]:
    top, sub = (2, 3) if several else (1, 2)
    page: list[Block] = [_heading(top, _title(section))] if several else []
    page += [_heading(sub, "Recommendation"), *_recommendation(section)]
    page += [_heading(sub, "Scores of the chosen weights"), *_scores(section)]
    page += _question(section, "weights", sub)
    page += _question(section, "architectures", sub)
    page += [_heading(sub, "Stability"), *_stability(section)]
    page += [_heading(sub, "Degenerate models"), *_degenerate(section)]
    page += [_heading(sub, "Calibration"), *_calibration(section)]
    page += [_heading(sub, "Cost"), *_cost(section)]
    page += [_heading(sub, "Cases"), *_gallery(section)]
    page += [_heading(sub, "Every run"), *_runs(section)]
    return page


def _scores(section: dict[str, Any]) -> list[Block]:
    networks, size = section["networks"], _size(section)
    rows = [(row["network"] + (" (set apart)" if row["set_apart"] else ""), row, row["scores"]) for row in networks]
    unit = section["distance_unit"]
    axis = axis_name(section)
    first = [
        [
            name,
            row["chosen_seed"],
            row["mean_over_groups"]["mean"],
            _interval(row["mean_over_groups"]["low"], row["mean_over_groups"]["high"]),
            *(
                scores[key]
                for key in (
                    *("dice_mean", "dice_median", "dice_pooled"),
                    *("iou_foreground_mean", "iou_two_class_mean", "iou_two_class_pooled"),
                )
            ),
        ]
        for name, row, scores in rows
    ]
    keys = ("n_misses", "n_false_alarms", "n_empty_references", "precision_mean", "recall_mean", "specificity_mean")
    lesion = ("n_lesions", "n_lesions_found", "lesion_sensitivity", "false_positives_per_image")
    return [
        _text(
            "Per image: the mean over images, each counting the same. Pooled: from the summed pixels of all images, so "
            "that large objects count more. Foreground IoU is of the object alone, two-class IoU the mean of object "
            f"and background. n = {size}. Chosen weights: {section['chosen_by']}."
        ),
        _table(
            f"Overlap with the reference, {size}; best {METRIC_NAMES[section['metric']]} first.",
            [
                ("Network", "text"),
                ("Seed", _count),
                (f"{axis[0].upper()}{axis[1:]}, mean over groups", _score),
                ("95 % interval", "tight"),
                ("Dice, mean per image", _score),
                ("Dice, median per image", _score),
                ("Dice, pooled", _score),
                ("Foreground IoU, mean per image", _score),
                ("Two-class IoU, mean per image", _score),
                ("Two-class IoU, pooled", _score),
            ],
            first,
        ),
        _table(
            f"Misses (objects of which not a pixel is found), false alarms (something marked where nothing is) and "
            f"distances, {size}. Distances are in {unit}; where one mask alone is empty, it is the image's diagonal.",
            [
                ("Network", "text"),
                ("Misses", _count),
                ("False alarms", _count),
                ("Images without an object", _count),
                ("Precision, mean per image", _score),
                ("Recall, mean per image", _score),
                ("Specificity, mean per image", _score),
                (f"95th percentile Hausdorff distance, mean [{unit}]", _amount),
                (f"Average surface distance, mean [{unit}]", _amount),
                ("Normalised surface Dice, mean", _score),
            ],
            [
                [name, *(scores[key] for key in (*keys, "hd95_mean", "asd_mean", "nsd_mean"))]
                for name, _, scores in rows
            ],
        ),
        _table(
            f"Lesions (connected components), {size}.",
            [
                ("Network", "text"),
                ("Lesions in the references", _count),
                ("Lesions found", _count),
                ("Lesion sensitivity", _score),
                ("False positives per image", _score),
            ],
            [[name, *(scores[key] for key in lesion)] for name, _, scores in rows],
        ),
        *_figures(section, "cases", f"{axis[0].upper()}{axis[1:]} of every case, chosen weights, {size}."),
        *_figures(
            section,
            "confusion",
            f"Pixels of all images together, chosen weights: share of the reference's row, and count; {size}.",
        ),
    ]


def _question(section: dict[str, Any], question: str, level: int) -> list[Block]:
    title, explanation = _QUESTIONS[question]
    page = [_heading(level, title)]
    seeds = ", ".join(map(str, section["architecture_seeds"]))
    comparison = section[question]
    if comparison is None:
        notes = section["architecture_notes"] if question == "architectures" else []
        return [*page, _text(" ".join(notes) or "There are not two networks to compare.")]
    axis = axis_name(section)
    page.append(_text(explanation.format(chosen_by=section["chosen_by"], seeds=seeds)))
    page.append(_text(f"Method: {comparison['method']}"))
    n = f"{comparison['n_cases']} cases, {comparison['n_groups']} groups" + (
        f", {comparison['n_seeds']} seeds a network" if question == "architectures" else ""
    )
    notes = [_claims(comparison, section)]
    if question == "architectures":
        notes += section["architecture_notes"]
        if collapsed := [
            row["network"] for row in section["networks"] if row["collapsed_seeds"] and not row["set_apart"]
        ]:
            notes.append(
                f"A collapsed seed of {', '.join(collapsed)} is in this comparison, as collapsing is part of how it "
                "trains. It widens the interval of every pair: to compare the others more sharply, make a report "
                "without its runs, and say so."
            )
    notes.append(
        f"The smallest adjusted p that {comparison['n_groups']} groups and {len(comparison['networks'])} networks can "
        f"give is {comparison['smallest_adjusted_p']:.2g}."
    )
    if omnibus := comparison["omnibus"]:
        f = omnibus["iman_davenport_f"]
        notes.append(
            f"All networks together: Friedman χ² {omnibus['friedman_chi2']:.2f}, p {_p(omnibus['friedman_p'])}; Iman "
            f"and Davenport F {'infinite' if f is None else f'{f:.2f}'}, p {_p(omnibus['iman_davenport_p'])} ({n})."
        )
    page.append(_list(notes))
    kind = "chosen weights" if question == "weights" else f"mean over seeds {seeds}"
    page += _figures(section, f"{question}-means", f"{_sentence(axis)} with its 95 % interval, {kind}; {n}.")
    page.append(
        _table(
            f"All pairs, the better mean first; difference of {axis}; {n}. Claim that the first is better: adjusted p "
            "below 0.05, the interval leaves 0 out, and nothing above forbids it.",
            [
                ("First", "text"),
                ("Second", "text"),
                ("Difference", _signed),
                ("95 % interval", "tight"),
                ("p", _p),
                ("Adjusted p (Holm)", _p),
                (f"Effect ({comparison['pairs'][0]['effect_name']})", _score),
                ("Groups won / tied / lost", "tight"),
                ("Claim", "text"),
            ],
            [
                [
                    pair["first"],
                    pair["second"],
                    pair["difference"],
                    _interval(pair["interval"][0], pair["interval"][1], form=_signed),
                    pair["p"],
                    pair["p_adjusted"],
                    pair["effect"],
                    f"{pair['wins']} / {pair['ties']} / {pair['losses']}",
                    "yes" if pair["claim"] else "no",
                ]
                for pair in comparison["pairs"]
            ],
        )
    )
    page += _figures(
        section, f"{question}-differences", f"Difference of {axis} in each group, and its mean with 95 % interval; {n}."
    )
    page += _figures(section, f"{question}-significance", f"Adjusted p of every pair (Holm); {n}.")
    if question == "weights":
        page += _figures(
            section,
            "weights-critical-difference",
            "Average ranks over groups, 1 is best; bars join networks that the adjusted pairwise tests do not tell "
            f"apart; {n}.",
        )
        page += _figures(
            section,
            "weights-ranks",
            "Rank stability: how often each network takes each rank when the groups are resampled (1,000 resamples).",
        )
    return page


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _stability(section: dict[str, Any]) -> list[Block]:
    size = _size(section)
    rows = [
        [
            row["network"],
            ", ".join(map(str, row["seeds"])),
            row["volatility"],
            row["seeds_mean_dice"],
            row["seeds_sd_dice"],
            row["seeds_range_dice"],
            row["worst_decile_dice"],
        ]
        for row in section["networks"]
    ]
    return [
        _text(
            "Volatility: standard deviation of the validation Dice over the last third of the epochs, mean over the "
            "runs of a network. Spread over seeds: standard deviation and range of the mean Dice per image from one "
            f"training to the next. Worst decile: mean Dice of the worst tenth of the {section['n_cases']} cases, "
            "chosen weights."
        ),
        _table(
            f"Stability, {size}; a dash where there is one seed, or too few validated epochs.",
            [
                ("Network", "text"),
                ("Seeds", "tight"),
                ("Volatility of the validation Dice", _fine),
                ("Dice, mean over seeds", _score),
                ("Dice, standard deviation over seeds", _fine),
                ("Dice, range over seeds", _fine),
                ("Dice, worst decile", _score),
            ],
            rows,
        ),
        *_figures(
            section,
            "curves",
            "Loss in training and validation, and validation Dice (network grid), of every run.",
        ),
    ]


def _degenerate(section: dict[str, Any]) -> list[Block]:
    if not section["degenerate"]:
        return [
            _text(
                "None: no run marks nothing, everything, or the same share of every image, and no two runs agree in "
                "every pixel count."
            )
        ]
    items = [f"{one['network']} seed {one['seed']}, {one['kind']}: {one['sentence']}" for one in section["degenerate"]]
    for row in section["networks"]:
        if row["set_apart"]:
            items.append(
                f"{row['network']}: no usable seed is left, so it is set apart from ranking, tests and recommendation; "
                "its figures stand in the tables."
            )
        elif row["collapsed_seeds"]:
            items.append(
                f"{row['network']} stays in: a collapse is part of how it trains. Mean Dice over "
                f"{_plural(len(row['seeds']) - len(row['copied_seeds']), 'seed')} {_score(row['seeds_mean_dice'])}, "
                f"without the collapsed {_score(row['seeds_mean_dice_without_collapsed'])}. "
                + (
                    "The chosen weights themselves have collapsed on this part, though not on validation."
                    if row["chosen_seed"] in row["collapsed_seeds"]
                    else "The chosen weights are of another seed."
                )
            )
        if row["copied_seeds"] and not row["set_apart"]:
            told = ", ".join(map(str, row["copied_seeds"]))
            items.append(f"{row['network']} seed {told} is a copy and counted nowhere as a training of its own.")
    return [_list(items)]


def _calibration(section: dict[str, Any]) -> list[Block]:
    size = _size(section)
    rows = [
        [row["network"], row["expected_calibration_error"], row["brier_score"]] for row in section["networks"]
    ]  # fmt: skip
    if not any(row[1] is not None for row in rows):
        return [_text("Not recorded: the evaluations hold no calibration.csv.")]
    return [
        _text(
            "How far predicted probabilities can be taken at their word, over all pixels, chosen weights. Both figures "
            "are better when small. Easy background dominates them: read the curve beside."
        ),
        _table(
            f"Calibration, {size}.",
            [("Network", "text"), ("Expected calibration error", _fine), ("Brier score", _fine)],
            rows,
        ),
        *_figures(section, "reliability", f"Reliability of the probabilities over all pixels, {size}."),
    ]


def _cost(section: dict[str, Any]) -> list[Block]:
    page: list[Block] = []
    machines = section["machines"]
    if len(machines) > 1:
        page.append(
            {
                "kind": "warnings",
                "items": [
                    "Times were taken on different machines or devices and cannot be compared: " + "; ".join(machines)
                ],
            }
        )
    columns: list[tuple[str, Kind]] = [
        ("Network", "text"),
        ("Parameters", _count),
        ("Multiply-adds of one image", _count),
        ("Latency of one image [ms]", _amount),
        ("Training [s]", _amount),
        ("Training [images/s]", _amount),
    ]
    keys = ("parameters", "multiply_adds", "latency_ms", "seconds", "images_per_second")
    return [
        *page,
        _table(
            f"Cost, median over the runs of a network. {'Machine' if len(machines) == 1 else 'Machines'}: "
            f"{'; '.join(machines)}.",
            columns,
            [[row["network"], *(row["cost"][key] for key in keys)] for row in section["networks"]],
        ),
    ]


def _gallery(section: dict[str, Any]) -> list[Block]:
    if section["without_images"] is None:
        return [_text("Patient images were left out on request.")]
    page: list[Block] = []
    if section["without_images"]:
        told = ", ".join(section["without_images"])
        page.append(_text(f"No images, references and predictions were kept of: {told}."))
    return [
        *page,
        *_figures(
            section,
            "gallery",
            "Worst, median and best case of each network by Dice, chosen weights. Solid line: reference. Dashed line: "
            "prediction. Hatched: missed; dotted: marked wrongly.",
        ),
        *_figures(section, "disagreement", "The cases on which the networks disagree most (largest range of Dice)."),
    ]


def _runs(section: dict[str, Any]) -> list[Block]:
    rows = [
        [
            row["network"],
            row["seed"],
            "" if row["fold"] is None else str(row["fold"]),
            "chosen" if row["chosen"] else "",
            row["verdict"],
            row["best_validation_dice"],
            row["scores"]["dice_mean"],
            row["scores"]["n_misses"],
            row["scores"]["n_false_alarms"],
            row["epochs"],
            row["path"],
        ]
        for row in section["runs"]
    ]
    columns: list[tuple[str, Kind]] = [
        ("Network", "text"),
        ("Seed", _count),
        ("Fold", "tight"),
        ("Weights", "tight"),
        ("Degenerate", "text"),
        ("Validation Dice, best epoch (network grid)", _score),
        (f"Dice on {section['part']}, mean per image", _score),
        ("Misses", _count),
        ("False alarms", _count),
        ("Epochs", _count),
        ("Run folder", "long"),
    ]
    empty = [index for index in (2, 4) if not any(row[index] for row in rows)]
    columns = [column for index, column in enumerate(columns) if index not in empty]
    rows = [[cell for index, cell in enumerate(row) if index not in empty] for row in rows]
    page: list[Block] = []
    if section["split"]:
        page.append(_text(f"How the parts came about: {'; '.join(section['split'])}."))
    page.append(
        _table(f"Every run, {_size(section)}. Its other scores are in summary.csv and cases.csv.", columns, rows)
    )
    return page


def _shift(tables: Sequence[dict[str, Any]]) -> list[Block]:
    page: list[Block] = []
    for table in tables:
        folds = any(row["fold"] is not None for row in table["rows"])
        page.append(_heading(2, f"Across datasets: {table['class']}"))
        page.append(
            _text(
                "Mean Dice per image of every model on every dataset it was scored on, with the number of images. "
                "An asterisk marks the dataset that the model was trained on (in-domain), other parts of it than the "
                "training's; a dagger marks figures that include training images and are therefore too good."
            )
        )
        if table["unlike"]:
            page.append(
                {
                    "kind": "warnings",
                    "items": [
                        "Not all models were scored on the same images of: " + ", ".join(table["unlike"]) + ". Do not "
                        "compare these columns from row to row."
                    ],
                }
            )
        columns: list[tuple[str, Kind]] = [("Network", "text"), ("Trained on", "text"), ("Seed", _count)]
        if folds:
            columns.append(("Fold", "tight"))
        rows = []
        for row in table["rows"]:
            fold = "" if row["fold"] is None else row["fold"]
            head = [row["network"], row["trained_on"], row["seed"], *([fold] if folds else [])]
            rows.append([*head, *row["cells"]])
        page.append(
            _table(
                f"Dice, mean per image (n images), class {table['class']}.",
                [*columns, *((name, _cell) for name in table["columns"])],
                rows,
            )
        )
        caption = (
            f"Dice of each model (trained on) on every dataset, class {table['class']}; framed: tested on the dataset "
            "of its training. Of more than 20 runs, the chosen weights of each network."
        )
        page += [{"kind": "figure", "name": name, "caption": caption} for name in table["figures"]]
    return page


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    mark = "†" if cell["holds_training_images"] else "*" if cell["in_domain"] else ""
    return f"{_score(cell['dice_mean'])}{mark} ({cell['n_cases']})"


def _policy(text: str) -> list[Block]:
    """The policy's own words; the lines of its table become a table."""
    lines = [line for line in text.splitlines() if line]
    head, *rows = [[cell.strip() for cell in line.split(" | ")] for line in lines if " | " in line] or [[]]
    prose = [line for line in lines if " | " not in line]
    notes = [line for line in prose if line.split(":")[0] in {row[0] for row in rows}]
    found = [_text(line) for line in prose if line not in notes]
    if rows:
        found.append(_table("What every score is where masks are empty.", [(title, "text") for title in head], rows))
    return [*found, _list(notes)] if notes else found


def _environment(*, escape: bool) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("monai_thyroid.compare", "templates"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def markdown(page: Sequence[Block]) -> str:
    """The page for a repository or a terminal, figures as links."""
    environment = _environment(escape=False)
    environment.filters["plain"] = _escaped
    return str(environment.get_template("report.md.j2").render(page=page))


def _escaped(text: str) -> str:
    """No name is read as markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>")
    for character in "\\`*_|[]":
        text = text.replace(character, f"\\{character}")
    return text


def html(page: Sequence[Block], *, figures: Path) -> str:
    """The page as one file that needs nothing else.

    Args:
        page: from `blocks`.
        figures: folder of the files.
    """
    environment = _environment(escape=True)
    environment.globals["picture"] = lambda name: _data_uri(figures, name)
    environment.filters["sortable"] = _sortable
    return str(environment.get_template("report.html.j2").render(page=page))


def _sortable(value: Any) -> str:
    """What a cell is sorted by; nothing for one that has no number."""
    if isinstance(value, dict):
        value = value["dice_mean"]
    return "" if value is None or not math.isfinite(value) else repr(float(value))


def _data_uri(folder: Path, name: str) -> str:
    drawing = folder / f"{name}.svg"
    kind, path = ("svg+xml", drawing) if drawing.stat().st_size <= _LARGEST_SVG else ("png", folder / f"{name}.png")
    return f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
