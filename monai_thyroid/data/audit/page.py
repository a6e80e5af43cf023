"""The audit as text and as one HTML page that holds its pictures."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Protocol

import numpy as np
from PIL import Image
from scipy import ndimage

from monai_thyroid.data.audit.findings import Dataset, Finding, Level, Picture
from monai_thyroid.data.audit.measure import foreground
from monai_thyroid.errors import UserError
from monai_thyroid.images import read_raster, to_channels

__all__ = ["facts_table", "render_html", "render_text"]

_SHOWN = 10
_SHOWN_PAGE = 40
_SIDE = 260
# Okabe and Ito's colours, which every kind of colour vision tells apart; the words beside them say the same.
_COLOURS = {Level.PROBLEM: "#a3360a", Level.WARNING: "#8a5a00", Level.NOTE: "#00558c"}
_FILLS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7")

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1b1b1b; background: #fff;
  max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0; } p { margin: .4rem 0; }
.path, .cases, code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .82rem; }
.path { color: #555; overflow-wrap: anywhere; }
.verdict { border: 2px solid; border-radius: 6px; padding: .7rem 1rem; margin: 1.2rem 0; font-weight: 600; }
table { border-collapse: collapse; margin: .4rem 0; } th, td { text-align: left; padding: .22rem .9rem .22rem 0;
  border-bottom: 1px solid #ddd; vertical-align: top; } th { font-weight: 600; } td.n, th.n { text-align: right; }
.finding { border-left: 5px solid; padding: .1rem 0 .3rem 1rem; margin: 1.1rem 0; break-inside: avoid-page; }
.badge { color: #fff; border-radius: 3px; padding: .1rem .5rem; font-size: .75rem; font-weight: 700;
  letter-spacing: .04em; margin-right: .5rem; vertical-align: 1px; print-color-adjust: exact;
  -webkit-print-color-adjust: exact; }
.cases { columns: 2; column-gap: 2rem; margin: .4rem 0; padding-left: 1.1rem; overflow-wrap: anywhere; }
.cases.wide { columns: 1; }
.pictures { display: flex; flex-wrap: wrap; gap: .8rem; margin: .6rem 0; }
figure { margin: 0; width: 13.2rem; break-inside: avoid; }
figure img { width: 100%; border: 1px solid #bbb; display: block; }
figcaption { font-size: .78rem; color: #333; overflow-wrap: anywhere; }
.key { display: inline-block; width: .8em; height: .8em; margin: 0 .35em 0 1em; }
.small { color: #555; font-size: .85rem; }
@media print { body { margin: 0; max-width: none; font-size: 11px; } a { color: inherit; } figure { width: 10rem; } }
"""


class Audited(Protocol):
    """What is rendered."""

    @property
    def name(self) -> str:
        """Of the dataset."""

    @property
    def data(self) -> Dataset:
        """Its items and measurements."""

    @property
    def findings(self) -> list[Finding]:
        """The worst first."""

    @property
    def falsifies(self) -> bool:
        """Whether a problem would falsify results."""


def verdict(audit: Audited) -> str:
    """The result in one sentence."""
    problems = sum(finding.level is Level.PROBLEM for finding in audit.findings)
    warnings = sum(finding.level is Level.WARNING for finding in audit.findings)
    looks = f"; {warnings} more {'is' if warnings == 1 else 'are'} worth a look" if warnings else ""
    if problems:
        return f"{problems} {'problem' if problems == 1 else 'problems'} would falsify results{looks}."
    return f"Nothing was found that would falsify results{looks}."


def facts_table(audit: Audited) -> list[tuple[str, str]]:
    """Counts and sizes, as name and value."""
    data = audit.data
    items, facts = data.items, data.facts
    parts = Counter(item["part"] for item in items)
    sites = Counter(item["site"] for item in items if item["site"])
    groups = len({item["group"] for item in items})
    sizes = Counter(fact.size for fact in facts if fact.size)
    rows = [("images", f"{len(items):,}")]
    if len(parts) > 1:
        rows.append(("parts", ", ".join(f"{part} {count:,}" for part, count in parts.items())))
    if sites:
        rows.append(("sites", ", ".join(f"{site} {count:,}" for site, count in sites.items())))
    rows.append(("groups", f"{groups:,} ({data.listing.unit}s)" if data.listing.grouped else "unknown"))
    if sizes:
        widths, heights = ([size[axis] for size in sizes.elements()] for axis in (0, 1))
        common, count = sizes.most_common(1)[0]
        rows.append(
            (
                "width x height",
                f"{common[0]} x {common[1]} ({count / len(facts):.0%})"
                + (
                    f", from {min(widths)} to {max(widths)} wide and {min(heights)} to {max(heights)} high"
                    if len(sizes) > 1
                    else ""
                ),
            )
        )
    kinds = Counter(fact.kind for fact in facts if fact.kind)
    rows.append(("kind", ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())))
    if data.multiclass():
        rows.append(("classes", str(max(level for fact in facts for level in fact.levels))))
    areas = np.asarray([fact.area for fact in facts if fact.area > 0])
    if areas.size:
        low, middle, high = np.quantile(areas, [0.05, 0.5, 0.95])
        rows.append(("marked area", f"median {middle:.1%} of the image, 90 % between {low:.1%} and {high:.1%}"))
        rows.append(("pieces a mask", f"median {int(np.median([fact.blobs for fact in facts if fact.area > 0]))}"))
    return rows


def render_text(audit: Audited) -> str:
    """The audit for a terminal."""
    table = facts_table(audit)
    width = max(len(name) for name, _ in table)
    lines = [f"Audit of {audit.name}: {audit.data.root}", ""]
    lines += [f"  {name:<{width}}  {value}" for name, value in table]
    for finding in audit.findings:
        lines += ["", f"{finding.level.value.upper()}: {finding.title}", f"  {finding.text}"]
        lines += [f"  - {case}" for case in finding.cases[:_SHOWN]]
        if len(finding.cases) > _SHOWN:
            lines.append(f"  ... and {len(finding.cases) - _SHOWN} more")
    return "\n".join([*lines, "", verdict(audit)])


def render_html(audit: Audited) -> str:
    """The audit as one page; its pictures are in it."""
    colour = _COLOURS[Level.PROBLEM if audit.falsifies else Level.NOTE]
    mark = "&#10007;" if audit.falsifies else "&#10003;"
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts_table(audit))
    findings = "".join(_finding(finding) for finding in audit.findings) or "<p>Nothing to say.</p>"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Audit of {escape(audit.name)}</title><style>{_STYLE}</style></head><body>"
        f'<h1>Audit of {escape(audit.name)}</h1><div class="path">{escape(str(audit.data.root))}</div>'
        f'<div class="verdict" style="color:{colour}">{mark} {escape(verdict(audit))}</div>'
        f"<h2>The dataset</h2><table>{rows}</table>{_histogram(audit.data)}"
        f"<h2>Findings</h2>{findings}"
        '<p class="small">Made by monai-thyroid audit. Not a medical device; for research on software.</p>'
        "</body></html>\n"
    )


def _finding(finding: Finding) -> str:
    colour = _COLOURS[finding.level]
    shown = finding.cases[:_SHOWN_PAGE]
    more = len(finding.cases) - len(shown)
    wide = " wide" if any(len(case) > 60 for case in shown) else ""
    cases = "".join(f"<li>{escape(case)}</li>" for case in shown)
    cases = f'<ul class="cases{wide}">{cases}</ul>' if cases else ""
    cases += f'<p class="small">... and {more} more</p>' if more else ""
    figures = "".join(_figure(picture) for picture in finding.pictures)
    figures = f'<div class="pictures">{figures}</div>' if figures else ""
    return (
        f'<section class="finding" style="border-color:{colour}"><h3>'
        f'<span class="badge" style="background:{colour}">{finding.level.value.upper()}</span>'
        f"{escape(finding.title)}</h3>"
        f"<p>{escape(finding.text)}</p>{figures}{cases}</section>"
    )


def _figure(picture: Picture) -> str:
    try:
        content = _draw(picture)
    except (UserError, ValueError) as error:
        return f"<figure><figcaption>{escape(picture.caption)}: {escape(str(error))}</figcaption></figure>"
    data = base64.b64encode(content).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'
    )


def _draw(picture: Picture) -> bytes:
    raster = read_raster(picture.image, indices=picture.image.startswith("npz:"))
    grey = raster.normalised()
    if not picture.label and raster.full_scale[1] > raster.pixels.max() > 0 and raster.pixels.max() < 32:
        grey = raster.pixels / raster.pixels.max()  # a mask of class numbers would be black
    mask = None
    if picture.label:
        mask = foreground(read_raster(picture.label, indices=True).pixels)
        mask = _resize(mask, grey.shape[:2]) if mask.shape != grey.shape[:2] else mask
    scale = _SIDE / max(grey.shape[:2])
    shape = max(1, round(grey.shape[0] * scale)), max(1, round(grey.shape[1] * scale))
    colour = np.rint(to_channels(np.asarray(grey, np.float32), 3) * 255).astype(np.uint8)
    small = Image.fromarray(colour).resize(
        shape[::-1], Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    )
    array = np.asarray(small)
    if mask is not None:
        array = _outlined(array, _resize(mask, shape))
    target = io.BytesIO()
    Image.fromarray(array).save(target, "JPEG", quality=85)
    return target.getvalue()


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A thick yellow line between black ones: seen on any ground, small, by every kind of colour vision."""
    picture = picture.copy()
    padded = np.pad(mask, 4)
    grown = [ndimage.binary_dilation(padded, iterations=steps)[4:-4, 4:-4] if steps else mask for steps in (0, 1, 2)]
    shrunk = [ndimage.binary_erosion(padded, iterations=steps)[4:-4, 4:-4] for steps in (1, 2)]
    picture[grown[2] & ~shrunk[1]] = 0
    picture[grown[1] & ~shrunk[0]] = (240, 228, 66)
    return picture


def _resize(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)) > 127


def _histogram(data: Dataset) -> str:
    """Marked areas by part, on a logarithmic scale, as bars."""
    parts: dict[str, list[float]] = {}
    for item, facts in data.pairs():
        if facts.area > 0:
            parts.setdefault(item["part"], []).append(facts.area)
    if sum(map(len, parts.values())) < 10:
        return ""
    everything = np.concatenate([np.asarray(found) for found in parts.values()])
    low, high = np.log10(max(everything.min(), 1e-5)), np.log10(everything.max())
    edges = np.linspace(low - 1e-9, max(high, low + 0.1) + 1e-9, 25)
    shares = {part: np.histogram(np.log10(found), edges)[0] / len(found) for part, found in parts.items()}
    top = max(float(share.max()) for share in shares.values())
    width, height, foot = 640, 150, 34
    step = width / (len(edges) - 1)
    bar = (step - 2) / len(shares)
    bars, keys = [], []
    for number, (part, share) in enumerate(shares.items()):
        fill = _FILLS[number % len(_FILLS)]
        keys.append(f'<span class="key" style="background:{fill}"></span>{escape(part)} ({len(parts[part])})')
        for index, value in enumerate(share):
            if value:
                tall = value / top * (height - 8)
                left = index * step + 1 + number * bar
                place = f'x="{left:.1f}" y="{height - tall:.1f}" width="{bar:.1f}" height="{tall:.1f}"'
                bars.append(f'<rect {place} fill="{fill}"/>')
    ticks = []
    for exponent in range(-5, 1):
        for factor in (1, 2, 5):
            size = factor * 10.0**exponent
            x = float((np.log10(size) - low) / (edges[-1] - edges[0])) * width
            if 0 <= x <= width:
                ticks.append(
                    f'<line x1="{x:.1f}" y1="{height}" x2="{x:.1f}" y2="{height + 5}" stroke="#555"/>'
                    f'<text x="{x:.1f}" y="{height + 18}" text-anchor="middle">{size * 100:g} %</text>'
                )
    return (
        f"<p><b>Marked area</b>, share of the image:{''.join(keys)}</p>"
        f'<svg viewBox="-20 0 {width + 40} {height + foot}" width="100%" style="max-width:{width + 40}px" role="img" '
        'aria-label="histogram of marked areas by part" font-size="11" font-family="sans-serif" fill="#333">'
        f'<line x1="0" y1="{height}" x2="{width}" y2="{height}" stroke="#555"/>{"".join(bars)}{"".join(ticks)}</svg>'
    )
