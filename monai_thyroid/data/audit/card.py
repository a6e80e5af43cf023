"""The dataset card: what an audit found, as a page in Markdown, and what only the author can tell."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from monai_thyroid import __version__, pages
from monai_thyroid.data.audit.findings import AuditedData, Level
from monai_thyroid.data.audit.measure import Facts
from monai_thyroid.data.audit.page import Audited, answer, facts_table
from monai_thyroid.pages import Block, Callout, Heading, Items, Paragraph

__all__ = ["dataset_card"]

_AUTHOR = (
    "Where the images are from, by whose permission, and under which licence they may be used and passed on",
    "How patients were chosen, and when; what is known of their age, sex and disease",
    "Devices, probes and settings; how images were exported and de-identified",
    "Who annotated them, with which tool and training, how often, and how disagreement was settled",
    "What the dataset is meant for, and what it must not be used for",
)


def dataset_card(audit: Audited) -> str:
    """Make the card; it names no case, as findings in a card are read by many.

    Args:
        audit: what was found.
    """
    data = audit.data
    page: list[Block] = [
        Heading(1, f"Dataset {audit.name}"),
        Paragraph(
            f"Measured by the audit of monai-thyroid {__version__} on the files as they are; what it cannot know is "
            "asked at the end."
        ),
        pages.table("In short", [("", "tight"), ("", "text")], facts_table(audit)),
        Heading(2, "Parts"),
        _parts(data),
    ]
    if data.listing.classes:
        named = [f"{number} {name}" for number, name in enumerate(data.listing.classes, 1)]
        page += [Paragraph(f"Classes: {', '.join(named)}.")]
    page += [Heading(2, "Findings"), Paragraph(answer(audit))]
    for level, tone in ((Level.PROBLEM, "problem"), (Level.WARNING, "warning"), (Level.NOTE, "note")):
        if told := [f"{one.title}: {one.text}" for one in audit.findings if one.level is level]:
            page.append(Callout(tone, told))  # type: ignore[arg-type]
    page += [Heading(2, "For the author"), Items(_AUTHOR)]
    return pages.markdown(page)


def _parts(data: AuditedData) -> pages.Table:
    parts: dict[str, list[tuple[str, Facts]]] = defaultdict(list)
    for item, facts in data.pairs():
        parts[item["part"]].append((item["group"], facts))
    rows = []
    for part, found in parts.items():
        known = [facts for _, facts in found if not math.isnan(facts.area)]
        areas = [facts.area for facts in known if facts.area > 0]
        rows.append(
            [
                part,
                f"{len(found):,}",
                f"{len({group for group, _ in found}):,}" if data.listing.grouped else "unknown",
                f"{len(known) - len(areas):,}",
                _spread(areas, ".1%"),
                _spread([facts.blobs for facts in known if facts.area > 0], ".0f"),
            ]
        )
    columns = ("part", "images", "groups", "empty masks", "marked share of the image", "objects in an image")
    return pages.table(
        "Of images with an object: median, and from 5 to 95 % of them", [(name, "text") for name in columns], rows
    )


def _spread(values: list[float] | list[int], form: str) -> str:
    if not values:
        return "none"
    low, middle, high = np.percentile(values, [5, 50, 95])
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"
