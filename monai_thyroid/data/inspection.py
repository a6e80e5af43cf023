"""What reading every file of a dataset tells: faults, hashes, empty masks."""

from __future__ import annotations

import functools
import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monai_thyroid.data.layouts import Item
from monai_thyroid.data.mapping import map_files
from monai_thyroid.errors import UserError
from monai_thyroid.files import canonical_hash
from monai_thyroid.images import Raster, binarise, label_problem, mask_problem, read_raster
from monai_thyroid.images.formats import file_bytes
from monai_thyroid.images.sources import is_source, mask_of_class

__all__ = ["Inspection", "empty_parts", "inspect_items", "read_facts"]


@dataclass(frozen=True)
class Inspection:
    """What reading every file of a dataset told.

    Attributes:
        problems: one sentence each; with any, the dataset is not to be used.
        warnings: what does not forbid the use but belongs into a report.
        empty_masks: cases whose mask shows nothing, which is legitimate.
        shares: of each case, the part of its image that each class has, 0 to 1; none where the label cannot be read.
        image_hashes: SHA-256 of each case's image.
        data_hash: SHA-256 of contents and split together: two runs may be compared case by case where it agrees.
    """

    problems: list[str]
    warnings: list[str]
    empty_masks: list[str]
    shares: dict[str, list[float]]
    image_hashes: dict[str, str]
    data_hash: str


def read_facts(items: Sequence[Item], classes: int) -> dict[str, dict[str, Any]]:
    """What each case's files tell, by case: problems, hashes, whether the label is empty, its share of the image."""
    facts = map_files(functools.partial(_inspect_item, classes=classes), items, "Checking files")
    return {item["case"]: fact for item, fact in zip(items, facts, strict=True)}


def inspect_items(
    items: Sequence[Item],
    facts_of: Mapping[str, dict[str, Any]],
    *,
    expected_hashes: Mapping[str, str],
    allow_empty_parts: bool,
) -> Inspection:
    """What the facts of a dataset's items tell together.

    Args:
        items: with their parts.
        facts_of: what `read_facts` gave.
        expected_hashes: SHA-256 that the images of these cases must have.
        allow_empty_parts: a part all of whose masks are empty is no problem.
    """
    facts = [facts_of[item["case"]] for item in items]
    problems = [problem for fact in facts for problem in fact["problems"]]
    problems += [
        f"{item['image']}: is not the image of that name that the split file was made with (its SHA-256 differs)"
        for item, fact in zip(items, facts, strict=True)
        if fact["image"] and expected_hashes.get(item["case"], fact["image"]) != fact["image"]
    ]
    if not allow_empty_parts:
        problems += empty_parts((item["part"], fact["empty"]) for item, fact in zip(items, facts, strict=True))
    warnings = _absent_classes((item["part"], fact["shares"]) for item, fact in zip(items, facts, strict=True))
    by_hash: dict[str, Item] = {}
    for item, fact in zip(items, facts, strict=True):
        if not fact["image"]:
            continue
        first = by_hash.setdefault(fact["image"], item)
        if first["part"] != item["part"]:
            warnings.append(
                f"{first['case']} ({first['part']}) and {item['case']} ({item['part']}) are the same image, byte for "
                "byte: the figures of one part leak from the other"
            )
    rows = [
        [item["part"], item["case"], item["group"], item["site"], fact["image"], fact["label"]]
        for item, fact in zip(items, facts, strict=True)
    ]
    return Inspection(
        problems=problems,
        warnings=warnings,
        empty_masks=[item["case"] for item, fact in zip(items, facts, strict=True) if fact["empty"]],
        shares={item["case"]: fact["shares"] for item, fact in zip(items, facts, strict=True)},
        image_hashes={item["case"]: fact["image"] for item, fact in zip(items, facts, strict=True)},
        data_hash=canonical_hash(sorted(rows)),
    )


def empty_parts(masks: Iterable[tuple[str, bool | None]]) -> list[str]:
    """One sentence for each part without any foreground, where whatever marks nothing would score 1.

    Args:
        masks: part of each image, and whether its mask is empty; None where that is not known.
    """
    parts: dict[str, list[bool | None]] = defaultdict(list)
    for part, empty in masks:
        parts[part].append(empty)
    return [
        f"all {len(empty)} masks of the part {part} are empty, so marking nothing would be perfect there; if that is "
        "right, allow it (allow_empty_parts: true)"
        for part, empty in parts.items()
        if all(empty)
    ]


def _absent_classes(masks: Iterable[tuple[str, Sequence[float]]]) -> list[str]:
    """One sentence for each class that no mask of a part holds, although other classes are there.

    Args:
        masks: part of each image, and the share of it that each class has; none where that is not known.
    """
    parts: dict[str, list[Sequence[float]]] = defaultdict(list)
    for part, shares in masks:
        if shares:
            parts[part].append(shares)
    return [
        f"no mask of the part {part} holds class {number} of {len(known[0])}: marking none of it scores 1 there"
        for part, known in parts.items()
        for number, of_class in enumerate(zip(*known, strict=True), 1)
        if not any(of_class) and any(map(any, known))
    ]


def _inspect_item(item: Item, *, classes: int) -> dict[str, Any]:
    """Read both files of an item; ``empty`` is None where the label cannot be read."""
    problems: list[str] = []
    rasters: dict[str, Raster | None] = {}
    hashes: dict[str, str] = {}
    for key in ("image", "label"):
        name = item[key]
        try:
            content = None if is_source(name) else file_bytes(name)
            raster = read_raster(name, content=content, mask=key == "label", indices=key == "label" and classes > 1)
            rasters[key] = raster
            hashes[key] = hashlib.sha256(raster.pixels.tobytes() if content is None else content).hexdigest()
        except UserError as error:
            problems += error.problems
            rasters[key], hashes[key] = None, ""
    if (behind := mask_of_class(item["label"])) is not None and rasters["label"] is not None:
        lossy = behind.lower().endswith(("jpg", "jpeg"))
        if problem := mask_problem(read_raster(behind, mask=True).pixels, lossy=lossy):
            problems.append(f"{behind}: {problem}")
    image, label = rasters["image"], rasters["label"]
    if image is not None and label is not None and image.pixels.shape[:2] != label.pixels.shape[:2]:
        problems.append(
            f"{item['label']}: is {_size(label)} (width x height) but its image is {_size(image)}; they must agree"
        )
    empty: bool | None = None
    size = math.nan
    shares: list[float] = []
    if label is not None:
        if classes > 1:
            problem = label_problem(label.pixels, classes=classes)
        else:
            problem = mask_problem(label.pixels, lossy=item["label"].lower().endswith(("jpg", "jpeg")))
        if problem:
            problems.append(f"{item['label']}: {problem}")
        mask = label.pixels > 0 if classes > 1 else binarise(label.pixels)
        empty, size = not mask.any(), float(mask.mean())
        shares = [float((label.pixels == number).mean()) for number in range(1, classes + 1)] if classes > 1 else [size]
    hashed = {"image": hashes["image"], "label": hashes["label"]}
    return {"problems": problems, **hashed, "empty": empty, "size": size, "shares": shares}


def _size(raster: Raster) -> str:
    return f"{raster.pixels.shape[1]} x {raster.pixels.shape[0]}"
