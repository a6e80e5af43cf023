"""The audit as text and as one HTML page that holds its pictures."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import Protocol

import numpy as np
from PIL import Image

from monai_thyroid import drawing, pages
from monai_thyroid.data.audit.findings import AuditedData, Finding, Level, Picture
from monai_thyroid.data.audit.measure import CLASS_LEVELS, foreground
from monai_thyroid.data.layouts import Item
from monai_thyroid.errors import UserError
from monai_thyroid.images import read_raster, to_channels

__all__ = ["facts_table", "render_html", "render_text"]

_SHOWN = 10
_SHOWN_PAGE = 40
_SIDE = 260


class Audited(Protocol):
    """What is rendered."""

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def data(self) -> AuditedData:
        """The dataset's items and measurements."""

    @property
    def findings(self) -> list[Finding]:
        """What was found, the worst first."""

    @property
    def falsifies(self) -> bool:
        """Whether a problem would falsify results."""


def answer(audit: Audited) -> str:
    """The result in one sentence."""
    problems = sum(finding.level is Level.PROBLEM for finding in audit.findings)
    warnings = sum(finding.level is Level.WARNING for finding in audit.findings)
    more = "more " if problems else ""
    looks = f"; {warnings} {more}{'finding is' if warnings == 1 else 'findings are'} worth a look" if warnings else ""
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
    colours = (f"{kind} ({count:,} {'image' if count == 1 else 'images'})" for kind, count in kinds.most_common())
    rows.append(("colour", ", ".join(colours)))
    rows += _pixels(items)
    if data.multiclass():
        rows.append(("classes", str(max(level for fact in facts for level in fact.levels))))
    areas = np.asarray([fact.area for fact in facts if fact.area > 0])
    if areas.size:
        low, middle, high = np.quantile(areas, [0.05, 0.5, 0.95])
        rows.append(("marked area", f"median {middle:.1%} of the image, 90 % between {low:.1%} and {high:.1%}"))
        rows.append(("pieces a mask", f"median {int(np.median([fact.blobs for fact in facts if fact.area > 0]))}"))
    return rows


def _pixels(items: Sequence[Item]) -> list[tuple[str, str]]:
    """How large pixels are, where a layout knows it."""
    known = np.asarray([[float(side) for side in item["spacing"].split(",")] for item in items if item.get("spacing")])
    if not len(known):
        return []
    low, middle, high = (f"{size:.3g}" for size in np.quantile(known, [0, 0.5, 1]))
    told = f"{middle} mm" if low == high else f"median {middle} mm, from {low} to {high}"
    if oblong := int((known[:, 0] != known[:, 1]).sum()):
        told += f"; not square in {oblong:,}"
    if lost := len(items) - len(known):
        told += f"; not known of {lost:,}"
    return [("pixel size", told)]


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
    return "\n".join([*lines, "", answer(audit)])


def render_html(audit: Audited) -> str:
    """The audit as one page; its pictures are in it."""
    page: list[pages.Block] = [
        pages.Heading(1, f"Audit of {audit.name}"),
        pages.Paragraph(str(audit.data.root), small=True),
        pages.Callout("answer", [f"{'✗' if audit.falsifies else '✓'} {answer(audit)}"]),
        pages.Heading(2, "The dataset"),
        pages.table("", [("", "tight"), ("", "text")], facts_table(audit)),
        *_histogram(audit.data),
        pages.Heading(2, "Findings"),
    ]
    for finding in audit.findings:
        page += _finding(finding)
    if not audit.findings:
        page.append(pages.Paragraph("Nothing to say."))
    page.append(pages.Paragraph("Made by monai-thyroid audit. Not a medical device; for research.", small=True))
    return pages.html(page)


def _finding(finding: Finding) -> list[pages.Block]:
    found: list[pages.Block] = [pages.Callout(finding.level.value, [finding.text], title=finding.title)]
    figures = []
    for picture in finding.pictures:
        try:
            figures.append(pages.Figure(picture.caption, _draw(picture), "jpeg"))
        except (UserError, ValueError) as error:
            found.append(pages.Paragraph(f"{picture.caption}: {error}", small=True))
    if figures:
        found.append(pages.Gallery(figures))
    if finding.cases:
        found.append(pages.Items(finding.cases[:_SHOWN_PAGE], code=True))
    if (more := len(finding.cases) - _SHOWN_PAGE) > 0:
        found.append(pages.Paragraph(f"... and {more} more", small=True))
    return found


def _draw(picture: Picture) -> bytes:
    raster = read_raster(picture.image, indices=picture.image.startswith("npz:"))
    grey = raster.normalised()
    if not picture.label and raster.full_scale[1] > raster.pixels.max() > 0 and raster.pixels.max() < CLASS_LEVELS:
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
    array = np.array(small)
    if mask is not None:
        drawing.paint_outlines(array, [_resize(mask, shape)], colours=[drawing.YELLOW], width=2)
    target = io.BytesIO()
    Image.fromarray(array).save(target, "JPEG", quality=85)
    return target.getvalue()


def _resize(mask: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    return np.asarray(picture.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)) > 127


def _histogram(data: AuditedData) -> list[pages.Block]:
    """Marked areas by part, on a logarithmic scale, as bars."""
    parts: dict[str, list[float]] = {}
    for item, facts in data.pairs():
        if facts.area > 0:
            parts.setdefault(item["part"], []).append(facts.area)
    if sum(map(len, parts.values())) < 10:
        return []
    everything = np.concatenate([np.asarray(found) for found in parts.values()])
    low, high = np.log10(max(everything.min(), 1e-5)), np.log10(everything.max())
    edges = np.linspace(low - 1e-9, max(high, low + 0.1) + 1e-9, 25)
    shares = {part: np.histogram(np.log10(found), edges)[0] / len(found) for part, found in parts.items()}
    top = max(float(share.max()) for share in shares.values())
    width, height, foot, head = 640, 150, 34, 24
    step = width / (len(edges) - 1)
    bar = (step - 2) / len(shares)
    bars, keys = [], []
    for number, (part, share) in enumerate(shares.items()):
        fill = drawing.LINES[number % len(drawing.LINES)]
        start = number * width / len(shares)
        keys.append(
            f'<rect x="{start:.1f}" y="{-head}" width="10" height="10" fill="{fill}"/>'
            f'<text x="{start + 15:.1f}" y="{9 - head}">{escape(part)} ({len(parts[part])})</text>'
        )
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
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-20 {-head} {width + 40} {height + foot + head}" '
        f'width="{width + 40}" height="{height + foot + head}" font-size="11" font-family="sans-serif" fill="#333">'
        f'{"".join(keys)}<line x1="0" y1="{height}" x2="{width}" y2="{height}" stroke="#555"/>'
        f"{''.join(bars)}{''.join(ticks)}</svg>"
    )
    told = (
        f"Marked areas, as shares of the image (logarithmic), {'of each part' if len(shares) > 1 else 'of all images'}."
    )
    return [pages.Figure(told, svg.encode(), "svg+xml")]
