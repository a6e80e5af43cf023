"""What a layout reader is and gives back, and what the readers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from monai_thyroid.files import read_csv
from monai_thyroid.images.reading import IMAGE_SUFFIXES, NIFTI_SUFFIXES

__all__ = [
    "GROUP_TABLES",
    "Item",
    "Layout",
    "Listing",
    "group_by_tables",
    "make_item",
    "natural_key",
    "official_part",
    "pairs",
    "parts_from_lists",
    "parts_from_table",
    "pictures",
    "stem_of",
]

Item = dict[str, str]
"""A case: ``image`` and ``label`` (a path, or a source of `monai_thyroid.images.sources`), ``case`` (a name no other
image of the dataset has, fit for a file name), ``group`` (patient, examination or scene), ``part``, ``site``; where a
layout knows it also ``spacing`` ("y,x" in mm) and ``circumference`` (mm). Every item of a dataset has the same keys."""

GROUP_TABLES = {"cases.csv": "case", "scenes.csv": "scene", "patients.csv": "patient", "groups.csv": "group"}
"""Files beside the images that say which of them belong together, and their column; the other column is ``file``."""

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
        problems: one sentence each; a dataset with problems is not used.
        notes: one sentence each on what was left out or guessed.
        classes: names of the label values 1, 2, ... where the dataset states them.
        frames: the published split of single video frames, case to part, which leaks; used on request only.
        unit: what a group is.
    """

    items: list[Item] = field(default_factory=list)
    grouped: bool = True
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
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Listing]


def stem_of(path: Path) -> str:
    """A file's name without its suffix, ``.nii.gz`` taken as one."""
    name = path.name
    for suffix in sorted(NIFTI_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """Sorting key in which ``2`` comes before ``10``."""
    return tuple((0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", name) if part)


def make_item(
    image: Path | str, label: Path | str, *, case: str, part: str = "trainval", group: str = "", **more: str
) -> Item:
    """An item; its group is its own where none is given."""
    return {"image": str(image), "label": str(label), "case": case, "group": group or case, "part": part, **more}


def pictures(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Image files of a folder by stem, in natural order."""
    if not folder.is_dir():
        problems.append(f"{folder}: no such folder")
        return {}
    found: dict[str, Path] = {}
    stacks = []
    for path in sorted(folder.iterdir(), key=lambda path: natural_key(path.name)):
        if path.name.startswith("."):
            continue
        if not path.name.lower().endswith(IMAGE_SUFFIXES):
            if path.suffix.lower() in _STACKS:
                stacks.append(path.name)
            continue
        stem = stem_of(path)
        if stem in found:
            problems.append(f"{path}: {found[stem].name} has the same stem; keep one of them")
        found[stem] = path
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
    for stem, path in pictures(masks, listing.problems).items():
        bare = next((stem[: -len(end)] for end in suffixes if stem.lower().endswith(end.lower())), stem)
        mask_files[bare if stem not in image_files or bare in image_files else stem] = path
    if image_files and mask_files:
        alone = [path for stem, path in image_files.items() if stem not in mask_files]
        if all_masked:
            listing.problems.extend(f"{path}: no mask in {masks}" for path in alone)
        elif alone:
            listing.notes.append(f"{images}: {len(alone)} images without a mask are left out ({alone[0].name}, ...)")
        listing.problems.extend(
            f"{path}: no image in {images}" for stem, path in mask_files.items() if stem not in image_files
        )
    return [(path, mask_files[stem]) for stem, path in image_files.items() if stem in mask_files]


def official_part(name: str) -> str | None:
    """``"trainval"``, ``"validation"`` or ``"test"`` for the names that datasets give their parts."""
    return _PARTS.get(name.strip().lower())


def _rows(table: Path, columns: set[str], problems: list[str]) -> list[dict[str, str]]:
    try:
        rows = read_csv(table)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{table}: cannot be read as a UTF-8 table ({error})")
        return []
    if not rows or not columns <= rows[0].keys():
        problems.append(f"{table}: needs a header line with the columns {' and '.join(sorted(columns))}")
        return []
    return rows


def group_by_tables(listing: Listing, root: Path, *, tables: Mapping[str, str] = GROUP_TABLES) -> bool:
    """Take the groups from the first of `GROUP_TABLES` that lies in a folder.

    Items are matched by their image's stem, and by part where the table has that column.

    Returns:
        Whether there is such a table.
    """
    name = next((name for name in tables if (root / name).is_file()), None)
    if name is None:
        return False
    table, column = root / name, tables[name]
    known: dict[tuple[str, str], str] = {}
    rows = _rows(table, {"file", column}, listing.problems)
    for row in rows:
        group = (row[column] or "").strip()
        stem = stem_of(Path(row["file"]))
        known[stem, official_part(row.get("part") or "") or ""] = group
        known.setdefault((stem, ""), group)
    for item in listing.items if rows else []:
        stem = stem_of(Path(item["image"]))
        if found := known.get((stem, item["part"])) or known.get((stem, "")):
            item["group"] = found
        else:
            listing.problems.append(f"{table}: no {column} for {Path(item['image']).name}")
    listing.unit = column
    return True


def parts_from_table(listing: Listing, table: Path) -> bool:
    """Take the parts from ``split.csv`` (file, part), if it is there."""
    if not table.is_file():
        return False
    known: dict[str, str] = {}
    for row in _rows(table, {"file", "part"}, listing.problems):
        part = official_part(row["part"] or "")
        if part is None:
            listing.problems.append(f"{table}: part {row['part']!r} of {row['file']}: choose train, validation or test")
        known[stem_of(Path(row["file"]))] = part or "trainval"  # reported above
    _set_parts(listing, known, table)
    return True


def parts_from_lists(listing: Listing, root: Path) -> bool:
    """Take the parts from ``train.txt``, ``val.txt`` and ``test.txt`` (a name a line), if they are there.

    Where ``val.txt`` is all that is held out, it is the test part, as papers on such datasets use it.
    """
    files = {name: root / f"{name}.txt" for name in ("train", "val", "test") if (root / f"{name}.txt").is_file()}
    if not {"val", "test"} & files.keys():
        return False
    known: dict[str, str] = {}
    for name, file in files.items():
        part = "test" if name == "val" and "test" not in files else official_part(name) or ""
        for line in file.read_text(encoding="utf-8").split("\n"):
            if not (stem := line.strip()):
                continue
            stem = stem_of(Path(stem)) if stem.lower().endswith(IMAGE_SUFFIXES) else stem
            if known.setdefault(stem, part) != part:
                listing.problems.append(f"{file}: {stem} is in another part as well")
    _set_parts(listing, known, root)
    return True


def _set_parts(listing: Listing, known: Mapping[str, str], where: Path) -> None:
    stems = set()
    for item in listing.items:
        stem = stem_of(Path(item["image"]))
        stems.add(stem)
        if part := known.get(stem):
            item["part"] = part
        else:
            listing.problems.append(f"{where}: no part for {Path(item['image']).name}")
    lost = [stem for stem in known if stem not in stems]
    listing.problems.extend(f"{where}: {stem} is listed but there is no such image" for stem in lost)
