"""The model card of a run or a packed bundle: what runs know of data, scores, failures and limits, in one page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from monai_thyroid.compare import FEW, bootstrap_mean
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.metrics import METRICS, summarise
from monai_thyroid.metrics.calibration import expected_calibration_error
from monai_thyroid.pages import Block, Callout, Heading, Items, Paragraph, markdown, table
from monai_thyroid.runfolder import Evaluation, RunFiles, RunRecord, grouping_of, read_evaluation, read_split

__all__ = ["model_card"]

_SHOWN = [name for name, one in METRICS.items() if one.comparable or name in ("precision", "recall")]
_AUTHOR = (
    "Who is to use it, for what, and what it must not be used for",
    "Who made it, who answers for it, and under which licence its weights may be used",
    "Where the training images are from, how patients were chosen, and what is known of them (see a dataset card)",
    "What harm a wrong mask does in its use, and who looks at it before",
)
_POOR = 0.5
"""Dice below which an image counts as failed."""


def model_card(
    runs: Sequence[tuple[RunFiles, RunRecord]],
    *,
    meta: Mapping[str, Any],
    exports: Mapping[str, Any] | None = None,
    report: bool = False,
    packed: bool = True,
) -> str:
    """Make the card in Markdown.

    Args:
        runs: the files and run.json of what was packed.
        meta: metadata.json of the bundle.
        exports: exports.json, where there are any.
        report: whether docs/report.html is there.
        packed: it is of a bundle; else of a run folder.
    """
    page: list[Block] = [
        Heading(1, meta["name"]),
        # A run folder has no version of its own; that of the package is in the table of networks.
        Paragraph(f"{meta['description']}." + (f" Version {meta['version']}." if packed else "")),
        Callout("warning", [meta["intended_use"]], title="Intended use"),
        *_model(runs, meta),
        *_data(runs),
        *_scores(runs),
        *_limits(runs),
        *_exports(exports),
        Heading(2, "For the author"),
        Items(_AUTHOR),
        *(_use(report) if packed else _use_of_run()),
    ]
    return markdown(page)


def _model(runs: Sequence[tuple[RunFiles, RunRecord]], meta: Mapping[str, Any]) -> list[Block]:
    layout = meta["network_data_format"]
    image, pred = layout["inputs"]["image"], layout["outputs"]["pred"]
    rows = [
        ("input", f"{image['num_channels']} x {_size(image)}, {meta['image_classes']}"),
        ("output", f"{pred['num_channels']} x {_size(pred)}, {meta['pred_classes']}"),
        ("classes", ", ".join(f"{number} {name}" for number, name in pred["channel_def"].items())),
        ("masks", _masks(runs[0][1])),
    ]
    about = [
        (
            record.network,
            _said(record.parameters),
            _said(record.seed),
            "none" if record.fold is None else str(record.fold),
            f"{_said(record.epochs)} (best {_said(record.best_epoch)})",
            _said(record.precision),
            _said(None if record.started is None else str(record.started)[:10]),
            *(_said((record.versions or {}).get(name)) for name in ("monai_thyroid", "torch")),
            _said(record.checkpoint_sha256),
        )
        for _, record in runs
    ]
    columns = ("network", "parameters", "seed", "fold", "epochs", "precision", "started", "monai-thyroid", "torch")
    return [
        Heading(2, "Model"),
        table("What goes in and comes out", [("", "tight"), ("", "text")], rows),
        table(
            "Trained networks" if len(runs) > 1 else "The trained network",
            [*((name, "text") for name in columns), ("SHA-256 of the weights", "long")],
            about,
        ),
    ]


def _masks(record: RunRecord) -> str:
    """What is done to the network's output; of an ensemble what its first member asks for, as `predict` does it."""
    told = Postprocessing.from_record(record.postprocessing).in_words(record.threshold or 0.5)
    return f"on the original image grid; {f'{told}, chosen on validation' if told else 'no postprocessing'}"


def _size(side: Mapping[str, Any]) -> str:
    return " x ".join(map(str, side["spatial_shape"]))


def _said(value: Any) -> str:
    return "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _data(runs: Sequence[tuple[RunFiles, RunRecord]]) -> list[Block]:
    page: list[Block] = [Heading(2, "Data")]
    rows = []
    for number, (files, record) in enumerate(runs, 1):
        parts = read_split(files.facts)["parts"] if files.split.is_file() else {}
        counts = ", ".join(_counted(name, part, record.grouping) for name, part in parts.items())
        fold = "" if record.fold is None else f" (fold {record.fold} of {record.folds})"
        row = (number, record.dataset, counts + fold or "not recorded", record.split or "not recorded")
        rows.append((*row, _GROUPING.get(str(record.grouping), "not recorded")))
    columns = ("run", "dataset", "images", "split", "groups")
    whose = "networks were" if len(runs) > 1 else "network was"
    page.append(table(f"What the {whose} trained, chosen and tested on", [(name, "text") for name in columns], rows))
    warnings = list(dict.fromkeys(text for _, record in runs for text in record.warnings or []))
    if any(record.synthetic or record.dataset == "phantom" for _, record in runs):
        warnings.insert(0, "These images are synthetic: the scores say nothing about patients.")
    if warnings:
        page.append(Callout("warning", warnings, title="Noticed about the data"))
    return page


_GROUPING = {
    "known": "patients, videos or scenes, as far as the dataset names them: none is in two parts",
    "unknown": "not known: images of one patient may be in two parts",
    "leaky": "patients are in training and in test, on request",
}


def _counted(name: str, part: Mapping[str, Any], grouping: str | None) -> str:
    groups = part.get("groups") if grouping != "unknown" else None
    return f"{len(part.get('image_sha256', []))} {name}" + (f" (of {len(set(groups))} groups)" if groups else "")


def _scores(runs: Sequence[tuple[RunFiles, RunRecord]]) -> list[Block]:
    page: list[Block] = [
        Heading(2, "Scores"),
        Paragraph(
            "On the original image grid; means over groups, which are patients, videos or scenes where they are known, "
            "else images, with 95 % intervals from a bootstrap over them."
            + (
                " They are those of the members; the ensemble itself was not scored: evaluate it on data that none of "
                "them was trained on."
                if len(runs) > 1
                else ""
            )
        ),
    ]
    rows, failures, few = [], [], []
    tolerances: dict[str, None] = {}
    for number, (files, record) in enumerate(runs, 1):
        for folder in sorted(files.path.glob("evaluations/[!.]*/cases.csv")):
            try:
                scored = read_evaluation(folder.parent)
            except UserError as error:
                page.append(Callout("warning", [f"{folder.parent.name}: cannot be used ({error})"]))
                continue
            if tolerance := (scored.record.policy or {}).get("nsd_tolerance"):
                tolerances[f"{tolerance:g}"] = None
            for name in scored.classes:
                groups = len({row.group for row in scored.of_class(name) if not row.error})
                rows.append((number, scored.name, name, len(scored.of_class(name)), groups, *_intervals(scored, name)))
                if groups < FEW:
                    few.append(f"{scored.name}, {name}: {groups}")
                failures.append((number, scored.name, name, *_failures(scored, name)))
            if grouping_of(record, scored) == "leaky":
                page.append(Callout("warning", [f"{scored.name}: patients are in training and in test, on request."]))
    if not rows:
        tests = [(record.test or {}).get("dice_mean") for _, record in runs]
        known = ", ".join(f"{dice:.3f}" for dice in tests if dice is not None)
        told = f"all that it recorded is a mean test Dice of {known}" if known else "nothing is known of its scores"
        return [*page, Callout("warning", [f"No evaluation was kept with the run: {told}."])]
    titles = [METRICS[name].title for name in _SHOWN]
    columns = ("run", "data", "class", "images", "groups", *titles, "calibration error")
    page.append(table("Scores", [(name, "text") for name in columns], rows))
    if tolerances:
        told = " or ".join(tolerances)
        page.append(
            Paragraph(
                f"Of the normalised surface Dice the tolerance is {told} mm, or {told} pixels where their size is not "
                "known. The calibration error is expected calibration error, over pixels."
            )
        )
    if few:
        told = "; ".join(dict.fromkeys(few))
        page.append(Callout("warning", [f"So few groups that no interval is to be trusted (below {FEW}): {told}."]))
    columns = (
        "run",
        "data",
        "class",
        "missed",
        "false alarms",
        f"Dice below {_POOR:g}",
        "lowest Dice",
        "lesions found",
    )
    page += [
        Heading(2, "Failures"),
        Paragraph(
            "An object is missed where not one of its pixels is found; a false alarm is foreground in an image without."
        ),
        table("How the networks failed", [(name, "text") for name in columns], failures),
    ]
    return page


def _intervals(scored: Evaluation, name: str) -> list[str]:
    rows = [row for row in scored.of_class(name) if not row.error]
    unit = summarise(rows)["distance_unit"]
    cells = []
    for metric in _SHOWN:
        values = [(row.scores.get(metric), str(row.group)) for row in rows]
        known = [(float(value), group) for value, group in values if value is not None and math.isfinite(value)]
        if not known or len(known) < len(values):
            cells.append("not scored")
            continue
        mean, low, high = bootstrap_mean([value for value, _ in known], groups=[group for _, group in known])
        if METRICS[metric].scaled and unit == "mixed":
            cells.append("of cases in mm and in pixels")
            continue
        digits = 3 if METRICS[metric].limits[1] == 1 else 1
        limits = f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) else ""
        cells.append(f"{mean:.{digits}f}{f' {unit}' if METRICS[metric].unit else ''}{limits}")
    try:
        calibration = expected_calibration_error(scored.calibration(name))
    except (UserError, ValueError):
        calibration = math.nan
    return [*cells, f"{calibration:.3f}" if math.isfinite(calibration) else "not scored"]


def _failures(scored: Evaluation, name: str) -> list[str]:
    rows = [row.scores for row in scored.of_class(name) if not row.error]
    with_object = [row for row in rows if row["tp"] + row["fn"] > 0]
    without = [row for row in rows if row["tp"] + row["fn"] == 0]
    dice = [row["dice"] for row in rows if row.get("dice") is not None]
    lesions, found = sum(row["n_ref"] for row in rows), sum(row["n_matched"] for row in rows)
    return [
        f"{sum(row['tp'] == 0 for row in with_object)} of {len(with_object)}",
        f"{sum(row['fp'] > 0 for row in without)} of {len(without)}",
        f"{sum(value < _POOR for value in dice)} of {len(dice)}",
        f"{min(dice):.3f}" if dice else "not scored",
        f"{found} of {lesions}",
    ]


def _limits(runs: Sequence[tuple[RunFiles, RunRecord]]) -> list[Block]:
    first = runs[0][1]
    items = [
        f"Trained on {first.dataset}{_before(runs)}: on images of other devices, sites or patients it may be worse, "
        "and only an evaluation there can tell.",
        _no_diagnosis(first),
    ]
    groupings = {record.grouping for _, record in runs}
    if groupings != {"known"}:
        items.append(
            "Patients were not known, or not kept apart: images of one patient may be in training and in test, so the "
            "scores may be too good."
        )
    if first.threshold_baseline and first.threshold_baseline.get("test_dice") is not None:
        items.append(
            f"A plain intensity threshold reaches Dice {first.threshold_baseline['test_dice']:.3f} on the test."
        )
    items.append("Its weights may be bound by the licence of the data they were trained on, whatever LICENSE says.")
    return [Heading(2, "Limits"), Items(items)]


def _before(runs: Sequence[tuple[RunFiles, RunRecord]]) -> str:
    """What the weights had seen besides, as far as it is known."""
    seen = list(dict.fromkeys(name for _, record in runs for name in record.pretrained_on or []))
    if seen:
        return f", from weights that had seen {', '.join(seen)}"
    if any(record.pretrained_on is None for _, record in runs):
        return "; what its weights had seen before is not recorded"
    return " alone"


def _no_diagnosis(record: RunRecord) -> str:
    """What its masks do not say: of a lesion of several classes the class is marked, which is no pathology."""
    if record.whole:
        told = f"It gives a {record.whole} the class that the reference's labels taught it, which is no diagnosis"
    else:
        told = "It marks pixels; it does not tell benign from malignant"
    return f"{told}, nor does it know when an image is none of its kind."


def _exports(exports: Mapping[str, Any] | None) -> list[Block]:
    if not exports:
        return []
    rows = [
        (name, row["file"], f"{row['bytes'] / 1e6:.1f}", f"{row['dice_to_checkpoint']:.4f}", f"{row['dice']:.4f}")
        for name, row in exports["exports"].items()
    ]
    columns = ("format", "file in models/", "MB", "Dice to the checkpoint", "Dice to the reference")
    caption = f"Exports, on {exports['images']} validation images"
    return [Heading(2, "Exports"), table(caption, [(name, "text") for name in columns], rows)]


def _use_of_run() -> list[Block]:
    items = [
        "monai-thyroid predict RUN INPUT... --output DIR",
        "python -m monai.bundle run --config_file BUNDLE/evaluate.yaml --run_dir RUN --dataset_dir DIR",
        "monai-thyroid pack RUN --output dist/NAME",
    ]
    return [Heading(2, "Use"), Items(items, code=True)]


def _use(report: bool) -> list[Block]:
    page: list[Block] = [
        Heading(2, "Use"),
        Items(
            [
                "monai-thyroid predict BUNDLE INPUT... --output DIR",
                "python -m monai.bundle run --config_file BUNDLE/configs/inference.yaml --input PATH",
                "python -m monai.bundle run --config_file BUNDLE/configs/evaluate.yaml --dataset_dir DIR",
                "python -m monai.bundle run --config_file BUNDLE/configs/train.yaml --dataset_dir DIR",
            ],
            code=True,
        ),
        Paragraph(
            "The configs are programs, as those of every MONAI bundle: run them only if you trust where they come "
            "from. monai-thyroid reads the bundle as data. SHA256SUMS lists what was packed: sha256sum -c SHA256SUMS."
        ),
    ]
    if report:
        page.append(Paragraph("docs/report.html is the full report of the training and its scores."))
    return page
