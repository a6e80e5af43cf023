"""What a layout reader is and gives back, and what the readers share."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from monai_thyroid.files import read_csv
from monai_thyroid.images import IMAGE_SUFFIXES, is_image, stem
from monai_thyroid.images.formats import printable
from monai_thyroid.images.sources import is_source

__all__ = [
    "GROUP_TABLES",
    "NEAR_IDENTICAL",
    "Item",
    "Layout",
    "Listing",
    "group_by_tables",
    "group_in",
    "make_item",
    "natural_key",
    "official_part",
    "pairs",
    "parts_from_lists",
    "parts_from_table",
    "pictures",
    "read_table",
    "rows_of_items",
]

Item = dict[str, str]
"""A case: ``image`` and ``label`` (a path, or a source of `monai_thyroid.images.sources`), ``case`` (a name no other
image of the dataset has, fit for a file name), ``group`` (patient, examination or scene), ``part``, ``site``; where a
layout knows it also ``spacing`` ("y,x" in mm) and ``circumference`` (mm). Every item of a dataset has the same keys."""

GROUP_TABLES = {"cases.csv": "case", "scenes.csv": "scene", "patients.csv": "patient", "groups.csv": "group"}
"""Files beside the images that say which of them belong together, and their column; the other column is ``file``."""

NEAR_IDENTICAL = "near-identical"
"""What a table of groups says under ``basis`` where its groups are images that look alike, patients being unknown."""

MASK_SUFFIXES = ("_mask", "_segmentation", "_seg", "_annotation", "_label", "_gt")
_STACKS = (".mp4", ".avi", ".mov", ".mkv", ".mha", ".mhd", ".nrrd", ".npy", ".gif")
_PARTS = {
    "train": "trainval",
    "training": "trainval",
    "trainval": "trainval",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


@dataclass
class Listing:
    """What a layout reader found.

    Attributes:
        items: one an image; ``part`` is ``"trainval"`` where test is given or validation is to be carved out,
            ``"validation"`` and ``"test"`` where the dataset has such a part of its own.
        grouped: whether ``group`` says which images belong together; if not, each image is its own group.
        alike: patients are unknown, and ``group`` says which images look alike.
        problems: one sentence each; a dataset with problems is not used.
        notes: one sentence each on what was left out or guessed.
        classes: names of the label values 1, 2, ... where the dataset states them.
        frames: the published split of single video frames, case to part, which leaks; used on request only.
        unit: what a group is.
    """

    items: list[Item] = field(default_factory=list)
    grouped: bool = True
    alike: bool = False
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    frames: dict[str, str] = field(default_factory=dict)
    unit: str = "group"


@dataclass(frozen=True)
class Layout:
    """One form that dataset folders have.

    Attributes:
        name: by which a bundle asks for it.
        looks_for: what `recognises` wants to see, for messages.
        recognises: whether a folder (or file) has this form; cheap, opens no image.
        read: reads it; what is wrong goes into `Listing.problems`.
        before: names of layouts that ask for less, so that this one is the better guess where both forms are there.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Listing]
    before: tuple[str, ...] = ()


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorting key in which ``2`` comes before ``10``."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    numbers = [part.lstrip("0") if part[0] in "0123456789" else None for part in parts]
    return tuple(
        (1, 0, part) if number is None else (0, len(number), number)
        for part, number in zip(parts, numbers, strict=True)
    )


def make_item(
    image: Path | str, label: Path | str, *, case: str, part: str = "trainval", group: str = "", **more: str
) -> Item:
    """An item; its group is its own where none is given."""
    return {"image": str(image), "label": str(label), "case": case, "group": group or case, "part": part, **more}


def pictures(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Image files of a folder by stem, in natural order; DICOM files without a suffix are among them."""
    if not folder.is_dir():
        problems.append(f"{folder}: no such folder")
        return {}
    found: dict[str, Path] = {}
    stacks = []
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if path.name.startswith("."):
            continue
        if not is_image(path):
            if path.suffix.lower() in _STACKS:
                stacks.append(printable(path.name))
            continue
        name = printable(path.name)
        if name != path.name:
            problems.append(f"{folder}: the name of {name} is not UTF-8, so nothing can be written about it; rename it")
            continue
        if not path.is_file():
            problems.append(f"{path}: is a folder, a pipe, a device or a broken link, not an image file")
            continue
        if (bare := stem(path)) in found:
            problems.append(f"{path}: {found[bare].name} has the same stem; keep one of them")
        found[bare] = path
    if stacks:
        problems.append(
            f"{folder}: {stacks[0]}{f' and {len(stacks) - 1} more' if len(stacks) > 1 else ''}: videos and volumes "
            "are not read, only 2-D is supported; write one image file a frame or slice"
        )
    elif not found:
        problems.append(f"{folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return found


def pairs(
    images: Path, masks: Path, listing: Listing, *, suffixes: Iterable[str] = MASK_SUFFIXES, all_masked: bool = True
) -> list[tuple[Path, Path]]:
    """Images and masks of the same stem, the mask's with or without a suffix such as ``_mask``.

    Args:
        images: folder.
        masks: folder; may be the same one.
        listing: takes up the problems and notes.
        suffixes: that a mask's stem may have, in any case of letters.
        all_masked: an image without a mask is a problem; else it is left out, with a note.
    """
    image_files = pictures(images, listing.problems)
    mask_files = {}
    for name, path in pictures(masks, listing.problems).items():
        bare = next((name[: -len(end)] for end in suffixes if name.lower().endswith(end.lower())), name)
        mask_files[bare if name not in image_files or bare in image_files else name] = path
    if image_files and mask_files:
        alone = [path for name, path in image_files.items() if name not in mask_files]
        if all_masked:
            listing.problems.extend(f"{path}: no mask in {masks}" for path in alone)
        elif alone:
            listing.notes.append(f"{images}: {len(alone)} images without a mask are left out ({alone[0].name}, ...)")
        listing.problems.extend(
            f"{path}: no image in {images}" for name, path in mask_files.items() if name not in image_files
        )
    return [(path, mask_files[name]) for name, path in image_files.items() if name in mask_files]


def official_part(name: str) -> str | None:
    """``"trainval"``, ``"validation"`` or ``"test"`` for the names that datasets give their parts."""
    return _PARTS.get(name.strip().lower())


def read_table(table: Path, columns: Sequence[str], problems: list[str]) -> list[dict[str, str]]:
    """The rows of a CSV table that have all of the columns; what is wrong with the table goes into ``problems``.

    Each row has its number, counted as spreadsheets do, under ``""``.
    """
    try:
        rows = read_csv(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(f"{table}: cannot be read as a UTF-8 table ({error})")
        return []
    if not rows or not set(columns) <= rows[0].keys():
        problems.append(f"{table}: needs a header line with the columns {' and '.join(columns)}")
        return []
    whole = []
    for number, row in enumerate(rows, start=2):
        lacking = [column for column in columns if row[column] is None]
        if lacking or None in row:
            problems.append(
                f"{table}: row {number} has {'no ' + lacking[0] if lacking else 'more values than columns'}"
            )
        else:
            whole.append({**row, "": str(number)})
    return whole


def group_in(case: str, pattern: re.Pattern[str]) -> str | None:
    """The group that a pattern finds in a case's name: its first group, or all it matches; None for nothing."""
    match = pattern.search(case)
    return (match[1] if pattern.groups else match[0]) or None if match else None


def group_by_tables(listing: Listing, root: Path, *, tables: Mapping[str, str] = GROUP_TABLES) -> bool:
    """Take the groups from the first of `GROUP_TABLES` that lies in a folder.

    Rows are matched as `rows_of_items` says. A table whose rows have ``basis`` ``near-identical``
    (`monai-thyroid audit --write-groups`) says which images are alike, not which are of one patient.

    Returns:
        Whether there is such a table and it tells the patients.
    """
    name = next((name for name in tables if (root / name).is_file()), None)
    if name is None:
        return False
    table, column = root / name, tables[name]
    rows = read_table(table, ["file", column], listing.problems)
    told: dict[str, None] = {}
    for item, found in zip(listing.items, rows_of_items(listing.items, rows), strict=True) if rows else []:
        image = _image_of(item)
        groups = {row[column].strip(): row[""] for row in found}
        if len(groups) > 1:
            (one, first), (other, second), *_ = groups.items()
            told[f"{table}: {image.name} is in {column} {one} (row {first}) and in {column} {other} (row {second})"] = (
                None
            )
        elif group := next(iter(groups), ""):
            item["group"] = group
        else:
            told[f"{table}: no {column} for {image.name}"] = None
    listing.problems += told
    listing.alike = any(row.get("basis") == NEAR_IDENTICAL for row in rows)
    listing.unit = "set of near-identical images" if listing.alike else column
    return not listing.alike


def rows_of_items(items: Sequence[Item], rows: Sequence[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The rows of a table with a column ``file`` that are about each item.

    They are matched by the image's stem (or the case's name); where a stem is in several rows, by ``part`` if the table
    has that column, and by the folders that the rows name.
    """
    by_stem: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_stem[stem(row["file"])].append(row)
    matched = []
    for item in items:
        image = _image_of(item)
        found = by_stem.get(stem(image)) or by_stem.get(item["case"]) or []
        for fits in (_in_part(item["part"]), _in_folder(image)):
            found = [row for row in found if fits(row)] or found
        matched.append(found)
    return matched


def _image_of(item: Item) -> Path:
    return Path(item["case"] if is_source(item["image"]) else item["image"])


def _in_part(part: str) -> Callable[[Mapping[str, str]], bool]:
    return lambda row: official_part(row.get("part") or "") == part


def _in_folder(image: Path) -> Callable[[Mapping[str, str]], bool]:
    def fits(row: Mapping[str, str]) -> bool:
        folders = Path(row["file"]).parent.parts
        return bool(folders) and image.parent.parts[-len(folders) :] == folders

    return fits


def parts_from_table(listing: Listing, table: Path) -> bool:
    """Take the parts from ``split.csv`` (file, part), if it is there."""
    if not table.is_file():
        return False
    known: dict[str, tuple[str, str]] = {}
    for row in read_table(table, ["file", "part"], listing.problems):
        part = official_part(row["part"])
        if part is None:
            listing.problems.append(f"{table}: part {row['part']!r} of {row['file']}: choose train, validation or test")
        _add_part(listing, known, stem(row["file"]), part or "trainval", f"row {row['']}", table)
    _set_parts(listing, known, table)
    return True


def parts_from_lists(listing: Listing, root: Path) -> bool:
    """Take the parts from ``train.txt``, ``val.txt`` and ``test.txt`` (a name a line), if they are there.

    Where ``val.txt`` is all that is held out, it is the test part, as papers on such datasets use it.
    """
    files = {name: root / f"{name}.txt" for name in ("train", "val", "test") if (root / f"{name}.txt").is_file()}
    if not {"val", "test"} & files.keys():
        return False
    known: dict[str, tuple[str, str]] = {}
    for name, file in files.items():
        part = "test" if name == "val" and "test" not in files else official_part(name) or ""
        try:
            lines = file.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            listing.problems.append(f"{file}: cannot be read as UTF-8 text ({error})")
            continue
        for number, line in enumerate(lines, start=1):
            if bare := line.strip():
                bare = stem(bare) if bare.lower().endswith(IMAGE_SUFFIXES) else bare
                _add_part(listing, known, bare, part, f"{file.name}, line {number}", root)
    _set_parts(listing, known, root)
    return True


def _add_part(
    listing: Listing, known: dict[str, tuple[str, str]], name: str, part: str, place: str, where: Path
) -> None:
    """Note the part of an image, or that it is in two."""
    other, first = known.setdefault(name, (part, place))
    if other != part:
        listing.problems.append(f"{where}: {name} is in {other} ({first}) and in {part} ({place})")


def _set_parts(listing: Listing, known: Mapping[str, tuple[str, str]], where: Path) -> None:
    names = set()
    for item in listing.items:
        names.add(name := stem(item["image"]))
        if name in known:
            item["part"] = known[name][0]
        else:
            listing.problems.append(f"{where}: no part for {Path(item['image']).name}")
    listing.problems.extend(
        f"{where}: {name} is listed but there is no such image" for name in known if name not in names
    )
