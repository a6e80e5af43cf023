"""What is worth saying about a dataset, from the measurements of its images."""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import sparse

from monai_thyroid.data.audit.likeness import detail_likeness, near_duplicates
from monai_thyroid.data.audit.measure import CLASS_LEVELS, Facts
from monai_thyroid.data.inspection import empty_parts
from monai_thyroid.data.layouts import Item, Listing
from monai_thyroid.data.layouts.listing import natural_key
from monai_thyroid.files import read_json

__all__ = ["AuditedData", "Finding", "Level", "Picture", "find_all"]

_PICTURES = 6
_NEIGHBOURS = 0.9


class Level(str, Enum):
    """How bad a finding is."""

    PROBLEM = "problem"
    """Would falsify results: mend it before training."""
    WARNING = "warning"
    """Can falsify results, or may be a fault: look at it."""
    NOTE = "note"
    """Good to know."""


@dataclass(frozen=True)
class Picture:
    """An example: an image with the outline of a mask.

    Attributes:
        caption: what it shows.
        image: path or source.
        label: path or source of the mask; "" for none.
    """

    caption: str
    image: str
    label: str = ""


@dataclass(frozen=True)
class Finding:
    """One thing that is worth saying.

    Attributes:
        level: how bad it is.
        title: in a few words.
        text: what it is and what to do.
        cases: one line each, the worst first.
        pictures: examples.
    """

    level: Level
    title: str
    text: str
    cases: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


@dataclass(frozen=True)
class AuditedData:
    """What is looked at: the items and their facts, in the same order.

    Attributes:
        root: the folder.
        listing: what the layout reader found; the items' parts are those of a split, where one was given.
        facts: of each item.
        split: whether the parts are those of a split file.
    """

    root: Path
    listing: Listing
    facts: Sequence[Facts]
    split: bool = False

    @property
    def items(self) -> list[Item]:
        """The items."""
        return self.listing.items

    def pairs(self) -> Iterable[tuple[Item, Facts]]:
        """Items with their facts."""
        return zip(self.items, self.facts, strict=True)

    @cached_property
    def usable(self) -> list[int]:
        """Indices of the images that can be compared."""
        return [index for index, facts in enumerate(self.facts) if facts.thumb is not None and not facts.flat]

    @cached_property
    def exact(self) -> list[tuple[int, int, float]]:
        """Pairs of images equal pixel by pixel: two indices and the likeness."""
        by_hash: dict[str, list[int]] = defaultdict(list)
        for index in self.usable:
            by_hash[self.facts[index].image_hash].append(index)
        return [(group[0], index, 1.0) for group in by_hash.values() for index in group[1:]]

    @cached_property
    def near(self) -> list[tuple[int, int, float]]:
        """Pairs of images that are almost the same picture, as `exact`."""
        if len(self.usable) < 2:
            return []
        pairs = near_duplicates(np.stack([_thumb(self.facts[index]) for index in self.usable]))
        found = [(self.usable[pair.first], self.usable[pair.second], pair.likeness) for pair in pairs]
        return [pair for pair in found if self.facts[pair[0]].image_hash != self.facts[pair[1]].image_hash]

    @cached_property
    def neighbours(self) -> tuple[list[int], list[bool]]:
        """Indices in the order of file names, and whether each looks like the next; none does if it is no video."""
        folder = {index: str(Path(self.items[index]["image"]).parent) for index in self.usable}
        order = sorted(self.usable, key=lambda index: (folder[index], natural_key(self.items[index]["case"])))
        if len(order) < 10:
            return order, []
        detail = detail_likeness(np.stack([_thumb(self.facts[index]) for index in order]))
        likeness = np.einsum("ij,ij->i", detail[1:], detail[:-1])
        together = [folder[one] == folder[other] for one, other in itertools.pairwise(order)]
        alike = [bool(like >= _NEIGHBOURS) and same for like, same in zip(likeness, together, strict=True)]
        return order, alike if sum(alike) >= max(5, 0.05 * len(order)) else []

    def sets_alike(self) -> list[int]:
        """The number of each image's set, from 0; images are in one that are linked by pairs that look alike."""
        order, alike = self.neighbours
        frames = [(order[k], order[k + 1]) for k, same in enumerate(alike) if same]
        links = np.array([*(pair[:2] for pair in (*self.exact, *self.near)), *frames], dtype=int).reshape(-1, 2)
        size = len(self.items)
        graph = sparse.coo_array((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(size, size))
        _, labels = sparse.csgraph.connected_components(graph, directed=False)
        return [int(label) for label in labels]

    def multiclass(self) -> bool:
        """Whether the masks hold class numbers above 1."""
        levels = frozenset[int]().union(*(facts.levels for facts in self.facts))
        return bool(levels) and len(levels) > 2 and max(levels) < CLASS_LEVELS


def find_all(data: AuditedData) -> list[Finding]:
    """Every finding, the worst first."""
    looks: Sequence[Callable[[AuditedData], Iterable[Finding]]] = (
        _files,
        _sizes,
        _orientations,
        _levels,
        _empty,
        _specks,
        _flat,
        _boxes,
        _groups,
        _same_images,
        _neighbours,
        _marks,
        _kinds,
    )
    findings = [finding for look in looks for finding in look(data)]
    order = list(Level)
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _picture(item: Item, caption: str = "", *, mask: bool = True) -> Picture:
    return Picture(caption or item["case"], item["image"], item["label"] if mask else "")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _files(data: AuditedData) -> Iterable[Finding]:
    unreadable = [problem for facts in data.facts for problem in facts.problems]
    if unreadable:
        text = (
            f"{_count(len(unreadable), 'file')} cannot be read. Restore them from the original, or take the image out."
        )
        yield Finding(Level.PROBLEM, "Unreadable files", text, unreadable)
    if data.listing.problems:
        text = "The folder is not whole: training refuses it as it is."
        yield Finding(Level.PROBLEM, "Files and pairs", text, list(data.listing.problems))
    if data.listing.notes:
        yield Finding(Level.NOTE, "Left out or guessed", "While the folder was read:", list(data.listing.notes))


def _sizes(data: AuditedData) -> Iterable[Finding]:
    lines: list[str] = []
    pictures: list[Picture] = []
    for item, facts in data.pairs():
        if facts.size and facts.label_size and facts.size != facts.label_size:
            turned = " (as if turned by 90 degrees)" if facts.size == facts.label_size[::-1] else ""
            lines.append(
                f"{item['case']}: image {facts.size[0]} x {facts.size[1]}, "
                f"mask {facts.label_size[0]} x {facts.label_size[1]}{turned}"
            )
            pictures.append(_picture(item, f"{item['case']}: the image", mask=False))
            pictures.append(Picture(f"{item['case']}: its mask", item["label"]))
    if lines:
        text = (
            "An image and its mask must have the same width and height. The mask is another image's, scaled, or turned."
        )
        yield Finding(Level.PROBLEM, "Image and mask differ in size", text, lines, pictures[:_PICTURES])


def _orientations(data: AuditedData) -> Iterable[Finding]:
    turned = [(item, facts) for item, facts in data.pairs() if (facts.orientation, facts.label_orientation) != (1, 1)]
    if not turned:
        return
    alone = [(item, facts) for item, facts in turned if facts.orientation != facts.label_orientation]
    text = (
        f"{_count(len(turned), 'image')} of {len(data.facts)} or their masks ask by EXIF to be turned or mirrored. "
        "They are read as viewers show them. "
    ) + (
        f"In {len(alone)} image and mask ask for different things: right where the mask was drawn on what a viewer "
        "showed, wrong where the program that made it does not heed EXIF. Look whether the outlines fit."
        if alone
        else "Programs that do not heed EXIF see them otherwise."
    )
    lines = [
        f"{item['case']}: EXIF orientation {facts.orientation}, mask {facts.label_orientation}"
        for item, facts in turned
    ]
    pictures = [_picture(item) for item, _ in (alone or turned)[:_PICTURES]]
    yield Finding(Level.WARNING if alone else Level.NOTE, "Turned by EXIF", text, lines, pictures)


def _levels(data: AuditedData) -> Iterable[Finding]:
    bad = [(item, facts.level_problem) for item, facts in data.pairs() if facts.level_problem]
    if bad:
        text = "These masks do not tell foreground from background: nothing true can be learned from them."
        lines = [f"{item['case']}: {problem}" for item, problem in bad]
        pictures = [Picture(f"{item['case']}: the mask", item["label"]) for item, _ in bad[:_PICTURES]]
        yield Finding(Level.PROBLEM, "Masks that are no masks", text, lines, pictures)
    grey = [(item, facts) for item, facts in data.pairs() if facts.grey_edges]
    if grey:
        levels = int(np.median([len(facts.levels) for _, facts in grey]))
        text = (
            f"{len(grey)} of {len(data.facts)} masks have grey edges ({levels} levels, typically), as JPEG and "
            "interpolation leave them. Threshold half-way, as this package does; a threshold at 0 makes every "
            "structure larger."
        )
        worst = sorted(grey, key=lambda pair: -len(pair[1].levels))
        pictures = [Picture(f"{item['case']}: the mask", item["label"]) for item, _ in worst[:2]]
        yield Finding(Level.NOTE, "Grey mask edges", text, [], pictures)
    if data.multiclass():
        values = Counter(level for facts in data.facts for level in facts.levels)
        lines = [f"value {value}: in {values[value]} masks" for value in sorted(values)]
        yield Finding(Level.NOTE, "Several classes", "The masks hold class numbers:", lines)


def _empty(data: AuditedData) -> Iterable[Finding]:
    known = [(item["part"], facts.area == 0 if facts.label_size else None) for item, facts in data.pairs()]
    if parts := empty_parts(known):
        yield Finding(Level.PROBLEM, "Parts without foreground", "Training and evaluation refuse such a part.", parts)
    empty = [item for item, facts in data.pairs() if facts.label_size and facts.area == 0]
    if empty:
        text = (
            f"{len(empty)} of {len(data.facts)} masks ({len(empty) / len(data.facts):.0%}) are empty. That is right "
            "where the image shows no lesion; say how such images are scored before comparing mean Dice."
        )
        lines = [item["case"] for item in empty]
        yield Finding(Level.NOTE, "Empty masks", text, lines, [_picture(item) for item in empty[:3]])


def _specks(data: AuditedData) -> Iterable[Finding]:
    found = [(item, facts) for item, facts in data.pairs() if facts.specks]
    if found:
        only = sum(facts.specks == facts.blobs for _, facts in found)
        text = (
            f"{_count(len(found), 'mask')} with pieces of a few pixels (below 0.01 % of the image), mostly slips of "
            f"the pen; in {only} there is nothing else. They count as lesions in per-lesion figures and distort "
            "surface distances."
        )
        found.sort(key=lambda pair: -pair[1].specks)
        lines = [f"{item['case']}: {facts.specks} of {facts.blobs} pieces" for item, facts in found]
        pictures = [_picture(item) for item, _ in found[:3]]
        yield Finding(Level.WARNING if only else Level.NOTE, "Tiny specks", text, lines, pictures)


def _flat(data: AuditedData) -> Iterable[Finding]:
    flat = [item for item, facts in data.pairs() if facts.flat]
    if flat:
        text = "These images have one grey level. The export that made them failed."
        yield Finding(Level.PROBLEM, "Blank images", text, [item["case"] for item in flat])


def _boxes(data: AuditedData) -> Iterable[Finding]:
    """Compare masks with the boxes that HyperKvasir and Kvasir-SEG have beside them."""
    table = next(
        (
            path
            for folder in (data.root, data.root / "segmented-images")
            for path in (folder / "bounding-boxes.json", folder / "kavsir_bboxes.json")
            if path.is_file()
        ),
        None,
    )
    if table is None:
        return
    try:
        boxes = {
            name: (
                [[box[side] for side in ("xmin", "ymin", "xmax", "ymax")] for box in entry["bbox"]],
                (entry["width"], entry["height"]),
            )
            for name, entry in read_json(table).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding(Level.WARNING, "Boxes", f"{table.name} cannot be read ({error}).")
        return
    found: list[tuple[float, Item]] = []
    for item, facts in data.pairs():
        stated, (width, height) = boxes.get(Path(item["image"]).stem, ([], (1, 1)))
        if not stated or facts.box is None:
            continue
        wanted = np.asarray(stated, float) / [width, height, width, height]
        whole = (wanted[:, 0].min(), wanted[:, 1].min(), wanted[:, 2].max(), wanted[:, 3].max())
        if (overlap := _box_overlap(whole, facts.box)) < 0.5:
            found.append((overlap, item))
    found.sort(key=lambda pair: pair[0])
    for level, title, some in (
        (Level.PROBLEM, "Masks outside their boxes", [pair for pair in found if pair[0] < 0.25]),
        (Level.WARNING, "Masks beside their boxes", [pair for pair in found if pair[0] >= 0.25]),
    ):
        if some:
            text = f"These masks are not where {table.name} says the lesion is: swapped, turned, or a wrong box."
            lines = [f"{item['case']}: overlap of box and mask {overlap:.2f}" for overlap, item in some]
            yield Finding(level, title, text, lines, [_picture(item) for _, item in some[:_PICTURES]])


def _box_overlap(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


def _groups(data: AuditedData) -> Iterable[Finding]:
    unit = data.listing.unit
    if data.listing.alike:
        text = (
            "A table says which images are near-identical, and splits keep these together. Which images show the same "
            "patient is still unknown."
        )
        yield Finding(Level.WARNING, "Patients unknown", text)
    elif not data.listing.grouped:
        text = (
            "Nothing says which images show the same patient, so a random split may put one into training and test. "
            "Add a table (groups.csv with the columns file and group), or a pattern of the file names."
        )
        yield Finding(Level.WARNING, "Groups unknown", text)
        return
    parts: dict[str, set[str]] = defaultdict(set)
    for item in data.items:
        parts[item["group"]].add(item["part"])
    mixed = sorted((group for group, found in parts.items() if len(found) > 1), key=natural_key)
    if mixed:
        text = f"Images of one {unit} are in several parts: the test part is not independent of training."
        lines = [f"{unit} {group}: {' and '.join(sorted(parts[group]))}" for group in mixed]
        yield Finding(Level.PROBLEM, "Groups in several parts", text, lines)


def _same_images(data: AuditedData) -> Iterable[Finding]:
    exact, near = data.exact, data.near
    yield from _duplicates(data, exact, exact=True)
    yield from _duplicates(data, near, exact=False)
    contrary = [pair for pair in (*exact, *near) if _contrary(data.facts[pair[0]], data.facts[pair[1]])]
    if contrary:
        text = "The same picture, or nearly so, was marked differently: one of the two masks is wrong or another's."
        lines = [f"{data.items[a]['case']} and {data.items[b]['case']}" for a, b, _ in contrary]
        pictures = [_picture(data.items[i]) for a, b, _ in contrary[: _PICTURES // 2] for i in (a, b)]
        yield Finding(Level.WARNING, "Same picture, different masks", text, lines, pictures)


def _thumb(facts: Facts) -> np.ndarray:
    assert facts.thumb is not None
    return facts.thumb


def _contrary(one: Facts, other: Facts) -> bool:
    if one.mask_thumb is None or other.mask_thumb is None:
        return False
    total = float(one.mask_thumb.sum() + other.mask_thumb.sum())
    return total > 2 and 2 * float(np.minimum(one.mask_thumb, other.mask_thumb).sum()) / total < 0.5


def _duplicates(data: AuditedData, pairs: Sequence[tuple[int, int, float]], *, exact: bool) -> Iterable[Finding]:
    kind = "Identical images" if exact else "Near-identical images"
    same = "images equal pixel by pixel" if exact else "almost the same picture (perceptual hash and detail agree)"
    across_parts, across_groups, within = [], [], []
    for pair in sorted(pairs, key=lambda pair: -pair[2]):
        one, other = data.items[pair[0]], data.items[pair[1]]
        if one["part"] != other["part"]:
            across_parts.append(pair)
        elif one["group"] != other["group"]:
            across_groups.append(pair)
        elif exact:
            within.append(pair)
    where = "the split" if data.split else "the dataset's own parts"
    known = data.listing.grouped or data.listing.alike
    for level, title, found, text in (
        (Level.PROBLEM, f"{kind} in two parts", across_parts, f"of {same}: with {where}, test figures leak."),
        (
            Level.PROBLEM,
            f"{kind} in two {data.listing.unit}s" if known else kind,
            across_groups,
            f"of {same}: give them one group, or a split will part them."
            if known
            else f"of {same}, and as groups are unknown a split will part some of them. A table of groups keeps them "
            "together: monai-thyroid audit DIR --write-groups DIR/groups.csv.",
        ),
        (Level.NOTE, f"{kind} within a {data.listing.unit}", within, f"of {same}; they only count double."),
    ):
        if not found:
            continue
        lines = [
            f"{_place(data.items[a])} and {_place(data.items[b])}" + ("" if exact else f" (likeness {likeness:.3f})")
            for a, b, likeness in found
        ]
        pictures = [_picture(data.items[i], mask=False) for a, b, _ in found[: _PICTURES // 2] for i in (a, b)]
        yield Finding(level, title, f"{_count(len(found), 'pair')} {text}", lines, pictures)


def _place(item: Item) -> str:
    where = [item["part"]] + ([f"group {item['group']}"] if item["group"] != item["case"] else [])
    return f"{item['case']} ({', '.join(where)})"


def _neighbours(data: AuditedData) -> Iterable[Finding]:
    """A video in disguise: files whose neighbours by name are almost the same picture."""
    order, alike = data.neighbours
    if not (count := sum(alike)):
        return
    runs: list[list[int]] = [[order[0]]]
    for k, same in enumerate(alike):
        if same:
            runs[-1].append(order[k + 1])
        else:
            runs.append([order[k + 1]])
    runs = sorted((run for run in runs if len(run) > 2), key=len, reverse=True)
    unit = data.listing.unit
    torn = [k for k in range(len(alike)) if alike[k] and _torn(data.items[order[k]], data.items[order[k + 1]])]
    text = (
        f"{count} of {len(alike)} neighbours in the order of file names are almost the same picture (detail "
        f"correlates by {_NEIGHBOURS} or more): these are frames of videos, and a split by image would test on what "
        "it trained on. "
    )
    if torn:
        level = Level.PROBLEM
        text += f"{len(torn)} such neighbours are in different parts."
    elif data.listing.grouped or data.listing.alike:
        level = Level.WARNING
        text += f"Groups are known: split by {unit}, never by image."
    else:
        level = Level.PROBLEM
        text += "Groups are unknown here: say which frames belong together (groups.csv) before splitting."
    lines = [f"{data.items[run[0]]['case']} to {data.items[run[-1]]['case']}: {len(run)} frames" for run in runs]
    pictures = [_picture(data.items[index]) for run in runs[:2] for index in run[:3]]
    yield Finding(level, "Near-identical neighbours (a video)", text, lines, pictures)


def _torn(one: Item, other: Item) -> bool:
    return one["part"] != other["part"]


def _marks(data: AuditedData) -> Iterable[Finding]:
    best_effort = " This is a guess by simple rules: it overlooks faint marks and takes some anatomy for letters."
    text_items = [(item, facts.marks.characters) for item, facts in data.pairs() if facts.marks.characters >= 6]
    if text_items:
        text_items.sort(key=lambda pair: -pair[1])
        text = (
            f"{_count(len(text_items), 'image')} with what seems to be burned-in text. It may name patients, and a "
            "network may learn from it which machine or hospital an image is from." + best_effort
        )
        lines = [f"{item['case']}: about {count} characters" for item, count in text_items]
        pictures = [_picture(item, mask=False) for item, _ in text_items[:3]]
        yield Finding(Level.NOTE, "Burned-in text", text, lines, pictures)
    crossed = [
        (item, facts.marks) for item, facts in data.pairs() if facts.marks.calipers or facts.marks.coloured >= 20
    ]
    if crossed and (len(crossed) < 0.95 * len(data.facts) or any(marks.calipers for _, marks in crossed)):
        crossed.sort(key=lambda pair: (-pair[1].calipers, -pair[1].coloured))
        text = (
            f"{_count(len(crossed), 'image')} with what seem to be caliper crosses or coloured marks, often set at the "
            "lesion's border: "
            "a network may find the marks instead of the lesion." + best_effort
        )
        lines = [
            f"{item['case']}: {_count(marks.calipers, 'cross', 'crosses')}"
            + (f", {marks.coloured} coloured pixels" if marks.coloured else "")
            for item, marks in crossed
        ]
        pictures = [_picture(item, mask=False) for item, _ in crossed[:3]]
        yield Finding(Level.NOTE, "Caliper and coloured marks", text, lines, pictures)


def _kinds(data: AuditedData) -> Iterable[Finding]:
    kinds = Counter(facts.kind for facts in data.facts if facts.kind)
    if len(kinds) > 1:
        lines = [f"{kind}: {count} images" for kind, count in kinds.most_common()]
        text = "Images are converted to one kind when they are read; look whether they come from different sources."
        yield Finding(Level.NOTE, "Grey and colour mixed", text, lines)
    areas: Mapping[str, list[float]] = defaultdict(list)
    for item, facts in data.pairs():
        if not math.isnan(facts.area) and facts.area > 0:
            areas[item["part"]].append(facts.area)
    middle = {part: float(np.median(found)) for part, found in areas.items() if len(found) >= 20}
    if len(middle) > 1 and max(middle.values()) > 2 * min(middle.values()):
        lines = [f"{part}: {share:.2%} of the image" for part, share in middle.items()]
        text = (
            "The median marked area is more than twice as large in one part as in another: their figures are not alike."
        )
        yield Finding(Level.WARNING, "Parts differ in marked area", text, lines)
