"""A class for each image from a table, where its mask tells only where something is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_thyroid.data.layouts import Item, Listing
from monai_thyroid.data.layouts.listing import read_table, rows_of_items
from monai_thyroid.images.sources import class_source

__all__ = ["classes_by_part", "give_classes"]

_TOLD = 5  # names in a sentence


def give_classes(
    listing: Listing,
    root: Path,
    *,
    table: Any,
    classes: int | Sequence[str],
    values: Any,
    unclassified: Any,
) -> None:
    """Let each item's label be its mask in the number of its class; in place, what is wrong goes into the problems.

    Args:
        listing: with masks of two levels.
        root: the dataset's folder.
        table: ``FILE:COLUMN``, the file from ``root``, with a column ``file`` (an image) or ``case`` (or group); or
            ``COLUMN`` alone, for what the layout tells of each image, as that of DDTI its ``tirads``.
        classes: names of the classes 1, 2, ...
        values: of each class the values of the column, as texts.
        unclassified: what becomes of an image without a value, and of a row without an image: ``"refuse"``, or
            ``"leave_out"`` with a note.
    """
    problems = _wrong(classes, values, unclassified)
    if not isinstance(table, str) or not table.rpartition(":")[2]:
        problems.append(f"class_table {table!r}: give FILE:COLUMN, or the COLUMN that the layout tells")
    if problems:
        listing.problems += problems
        return
    assert not isinstance(classes, int)
    found, where, unused = _told_by_layout(listing, table) if ":" not in table else _told_by_table(listing, root, table)
    if found is None:
        return
    if unused:
        if unclassified == "refuse":
            verb = "are" if len(unused) > 1 else "is"
            listing.problems.append(f"{where}: {_some(unused)} {verb} listed, but no image of the dataset")
        else:  # notes go into run.json and from there into cards: no place of data, no name of a case
            listing.notes.append(f"class_table {table}: {len(unused)} listed, but no image of the dataset")
    number = {value: index for index, name in enumerate(classes, 1) for value in _texts(values[name])}
    without = [item["case"] for item in listing.items if not found[item["case"]]]
    strange: dict[str, list[str]] = {}
    for item in listing.items:
        if (value := found[item["case"]]) and value not in number:
            strange.setdefault(value, []).append(item["case"])
    listing.problems += [
        f"{where}: {value!r} of {_some(cases)} is of no class (class_values has {', '.join(number)})"
        for value, cases in strange.items()
    ]
    if without and unclassified == "refuse":
        listing.problems.append(
            f"{where}: no value of {_some(without)}; complete it, or leave these images out (unclassified: leave_out)"
        )
    elif without:
        listing.notes.append(f"class_table {table}: {len(without)} left out, as they have no value")
        listing.items = [item for item in listing.items if found[item["case"]]]
    if not listing.items and not listing.problems:
        listing.problems.append(f"{where}: no image is left")
    for item in listing.items:
        if found[item["case"]] in number:
            item["label"] = class_source(item["label"], number[found[item["case"]]])


def classes_by_part(items: Sequence[Item], classes: Sequence[str]) -> str:
    """How many images of each class there are in each part, in words."""
    parts: dict[str, list[int]] = {}
    for item in items:
        parts.setdefault(item["part"], [0] * len(classes))[int(item["label"].split(":")[1]) - 1] += 1
    told = [
        f"{part} {', '.join(f'{count} {name}' for name, count in zip(classes, counts, strict=True))}"
        for part, counts in sorted(parts.items())
    ]
    return f"images of each class: {'; '.join(told)}"


def _wrong(classes: int | Sequence[str], values: Any, unclassified: Any) -> list[str]:
    problems = []
    if unclassified not in ("refuse", "leave_out"):
        problems.append(f"unclassified {unclassified!r}: choose refuse or leave_out")
    if isinstance(classes, int) or len(classes) < 2:
        problems.append("class_table: tells several classes apart; name two or more (classes)")
    elif not isinstance(values, Mapping) or not all(_texts(one) for one in values.values()):
        problems.append(
            f"class_values {values!r}: give of each class its values, such as {{{classes[0]}: ['1'], "
            f"{classes[1]}: ['2', '3']}}"
        )
    else:
        if lacking := [name for name in classes if name not in values]:
            problems.append(f"class_values: has nothing for the class {', '.join(lacking)}")
        if more := [str(name) for name in values if name not in classes]:
            problems.append(f"class_values: {', '.join(more)} is no class ({', '.join(classes)})")
        all_ = [text for one in values.values() for text in _texts(one)]
        if twice := sorted({text for text in all_ if all_.count(text) > 1}):
            problems.append(f"class_values: {', '.join(twice)} is there twice; a value is of one class")
    return problems


def _texts(values: Any) -> list[str]:
    """YAML reads 2 as a number, tables hold texts."""
    given = values if isinstance(values, (list, tuple)) else [values]
    return [str(one).strip() for one in given if isinstance(one, (str, int)) and not isinstance(one, bool)]


def _told_by_layout(listing: Listing, column: str) -> tuple[dict[str, str] | None, str, list[str]]:
    where = f"class_table {column}"
    if not any(column in item for item in listing.items):
        listing.problems.append(f"{where}: the layout tells nothing of that name; give FILE:COLUMN")
        return None, where, []
    return {item["case"]: item.get(column, "").strip() for item in listing.items}, where, []


def _told_by_table(listing: Listing, root: Path, table: str) -> tuple[dict[str, str] | None, str, list[str]]:
    name, _, column = table.rpartition(":")
    path = root / Path(name).expanduser()
    where = f"{path} ({column})"
    if not path.is_file():
        listing.problems.append(f"class_table {table}: there is no file {path}")
        return None, where, []
    told: list[str] = []
    rows = read_table(path, ["file", column], told)
    matched = rows_of_items(listing.items, rows)
    if not rows:  # one row a patient, then
        more: list[str] = []
        rows = read_table(path, ["case", column], more)
        by_case: dict[str, list[dict[str, str]]] = {}
        for row in rows:
            by_case.setdefault(row["case"].strip(), []).append(row)
        matched = [by_case.get(item["case"]) or by_case.get(item["group"]) or [] for item in listing.items]
        told = [] if rows and not more else told
    if told or not rows:
        listing.problems += told or [f"{path}: holds no row"]
        return None, where, []
    used = {id(row) for of_item in matched for row in of_item}
    unused = [row.get("file") or row["case"] for row in rows if id(row) not in used]
    found: dict[str, str] = {}
    for item, of_item in zip(listing.items, matched, strict=True):
        values = {row[column].strip(): row[""] for row in of_item}
        if len(values) > 1:
            (one, first), (other, second), *_ = values.items()
            listing.problems.append(f"{where}: {item['case']} is {one!r} in row {first} and {other!r} in row {second}")
        found[item["case"]] = next(iter(values), "")
    return found, where, unused


def _some(names: Sequence[str]) -> str:
    count = "" if len(names) <= _TOLD else f" and {len(names) - _TOLD} more"
    return f"{', '.join(names[:_TOLD])}{count}"
