"""What the pages say, as Markdown that no name can break."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from monai_thyroid.deploy.web.opening import Opened
from monai_thyroid.deploy.web.serving import Found, Looked, Served
from monai_thyroid.runfolder import Listed, one_line

__all__ = [
    "ONLY",
    "about_image",
    "about_model",
    "card_text",
    "cell",
    "found_text",
    "plain",
    "result_name",
    "run_rows",
]

ONLY = "For research only. Not for diagnosis."

_MARKED = re.compile(r"([\\`*_{}\[\]()#+\-!|$:~<>&])")


def plain(text: str) -> str:
    """A text whose every character is shown as it is."""
    return _MARKED.sub(r"\\\1", one_line(text))


def about_image(opened: Opened) -> str:
    """Size of an image, and of its pixels."""
    height, width = opened.raster.pixels.shape[:2]
    size = f"{plain(opened.name)}: {width} x {height} pixels"
    if opened.raster.spacing is None:
        return f"{size}. Lengths are in pixels: {plain(opened.spacing_note)}."
    y, x = opened.raster.spacing
    each = f"{x:.4g} mm" if math.isclose(x, y, rel_tol=1e-3) else f"{x:.4g} mm across, {y:.4g} mm down"
    return f"{size} of {each} ({plain(opened.spacing_note)})."


def found_text(found: Sequence[Found], *, spacing: bool) -> str:
    """What a mask says, class by class; the regions numbered as they are in the picture.

    Args:
        found: of the mask.
        spacing: whether the size of a pixel is known.
    """
    area, length = ("mm²", "mm") if spacing else ("pixels", "pixels")
    lines: list[str] = []
    rows: list[str] = []
    for one in found:
        row, name = one.row, plain(one.name)
        if not row["area_px"]:
            lines.append(f"**{name}**: none found")
            continue
        parts = f"{row['components']} regions, " if row["components"] > 1 else ""
        exact = f"{row['area_px']:,} pixels"
        size = f"{row['area_mm2']:,.1f} mm² ({exact})" if spacing else exact
        diameter = row["largest_diameter_mm"] if spacing else row["largest_diameter_px"]
        lines.append(
            f"**{name}**: {parts}area {size}, largest diameter {diameter:.1f} {length}, "
            f"mean probability {row['mean_probability']:.2f}"
        )
        for region in one.regions:
            label = f"{len(rows) + 1}" + (f" {name}" if len(found) > 1 else "")
            rows.append(
                f"| {label} | {region.area:,.{1 if spacing else 0}f} | "
                f"{region.long_axis:.1f} x {region.short_axis:.1f} |"
            )
        if hidden := row["components"] - len(one.regions):
            lines[-1] += f"; the {hidden} smallest are not told one by one"
    told = {plain(one.name): one.row["agreement"] for one in found}
    if agreements := [f"{name} {value:.2f}" for name, value in told.items() if value is not None]:
        lines.append(f"Agreement of the members (mean Dice of all pairs): {', '.join(agreements)}")
    text = "\n\n".join(lines)
    if rows:
        head = f"| region | area, {area} | long x short axis, {length} |\n|---|---:|---:|"
        text += "\n\n" + "\n".join([head, *rows])
    return text


def result_name(opened: Opened, looked: Looked, ending: str, *, alone: bool) -> str:
    """The name of a result's file: as `monai-thyroid predict` names it; of several models with the model's title."""
    from monai_thyroid.images import stem

    base = re.sub(r"[^\w.+-]+", "_", stem(opened.name)) or "image"
    title = "" if alone else "_" + re.sub(r"[^\w.+-]+", "-", looked.model.title).strip("-")
    return f"{base}{title}{ending}"


def about_model(model: Served) -> list[tuple[str, str]]:
    """Facts of a model in pairs of a word and what is known."""
    known, first = model.listed, model.predictor.members[0]
    facts = [
        ("folder", str(model.path)),
        ("trained on", f"{known.dataset or 'not recorded'} (bundle {known.bundle or 'not recorded'})"),
        ("network", f"{known.network or 'not recorded'}{_members(known)}"),
        ("classes", ", ".join(model.classes)),
        ("threshold", "none: the likeliest class" if model.threshold is None else f"{model.threshold:g}"),
        ("after the network", "as chosen on validation" if first.postprocessing else "nothing"),
        *_scores(known),
        ("computed by", model.computed),
        ("SHA-256 of the weights", ", ".join(member.weights for member in model.predictor.members)),
    ]
    return [*facts, *([("note", known.note)] if known.note else [])]


def _members(known: Listed) -> str:
    return f", {known.members} members whose probabilities are averaged" if known.members else ""


def _scores(known: Listed) -> list[tuple[str, str]]:
    if known.dice is None:
        return [("test Dice", "not scored")]
    misses = [] if known.misses is None else [("misses in the test", str(known.misses))]
    return [("test Dice", f"{known.dice:.4f}"), *misses]


def card_text(card: str) -> str:
    """A model card whose pictures are links, so that nothing is fetched from anywhere when it is shown."""
    return re.sub(r"!\s*\[", "[", card)


def run_rows(runs: Sequence[Listed]) -> list[dict[str, Any]]:
    """The list of runs as rows of a table, by the titles of its columns, without those that are empty."""
    rows: list[dict[str, Any]] = [
        {
            "network": one.network,
            "data": one.dataset,
            "seed": one.seed,
            "fold": one.fold,
            "status": one.told,
            "test Dice": one.dice,
            "misses": one.misses,
            "best val Dice": one.validation,
            "images/s": one.images_per_second,
            "started": (one.started or "")[:16].replace("T", " "),
            "note": one.note,
            "folder": one.path,
        }
        for one in runs
    ]
    told = {name for row in rows for name, value in row.items() if value not in (None, "")}
    return [{name: cell(value) for name, value in row.items() if name in told} for row in rows]


def cell(value: Any) -> Any:
    """A value as a table of the browser can hold it: text in UTF-8, whole numbers of 64 bits."""
    if isinstance(value, int) and value.bit_length() > 63:
        return float(value) if value.bit_length() < 1000 else math.inf
    return one_line(value) if isinstance(value, str) else value
