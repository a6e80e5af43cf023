"""HC18: fetal heads, annotated by outlines."""

from __future__ import annotations

import re
from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, make_item, pictures, read_table
from monai_thyroid.images import stem as file_stem
from monai_thyroid.images.sources import outline_source

__all__ = ["LAYOUT", "read_hc18"]

_TABLE = "training_set_pixel_size_and_HC.csv"
_COLUMNS = ("filename", "pixel size(mm)", "head circumference (mm)")


def read_hc18(root: Path) -> Listing:
    """HC18: ``training_set/000_HC.png``, ``000_HC_Annotation.png`` (an outline) and the table of pixel sizes.

    Of van den Heuvel et al., "Automated measurement of fetal head circumference using 2D ultrasound images", PLoS
    ONE 13(8) (2018), doi 10.1371/journal.pone.0200412. ``000_HC`` and ``000_2HC`` are one examination. Items have
    ``spacing`` ("y,x" in mm) and ``circumference`` (mm). The official test set has no annotations and is not read.
    """
    listing = Listing(unit="examination")
    folder = root / "training_set" if (root / "training_set").is_dir() else root
    files = pictures(folder, listing.problems)
    outlines = {stem[: -len("_Annotation")]: path for stem, path in files.items() if stem.endswith("_Annotation")}
    images = {stem: path for stem, path in files.items() if not stem.endswith("_Annotation")}
    sizes = _sizes(next((place / _TABLE for place in (root, folder) if (place / _TABLE).is_file()), None), listing)
    listing.problems.extend(
        f"{path}: no {stem}_Annotation beside it"
        for stem, path in images.items() - outlines.items()
        if stem not in outlines
    )
    listing.problems.extend(
        f"{path}: no image {stem} beside it" for stem, path in outlines.items() if stem not in images
    )
    for stem, image in images.items():
        if stem not in outlines:
            continue
        number = re.match(r"\d+", stem)
        if number is None:
            listing.problems.append(f"{image}: its name does not begin with the number of the examination")
        spacing, circumference = sizes.get(stem, ("", ""))
        if sizes and not spacing:
            listing.problems.append(f"{_TABLE}: no row for {image.name}")
        listing.items.append(
            make_item(
                image,
                outline_source(outlines[stem]),
                case=stem,
                group=number.group() if number else stem,
                spacing=spacing,
                circumference=circumference,
            )
        )
    return listing


def _sizes(table: Path | None, listing: Listing) -> dict[str, tuple[str, str]]:
    """Spacing and circumference of each image, by stem."""
    if table is None:
        listing.notes.append(f"no {_TABLE}: without pixel sizes nothing can be given in mm")
        return {}
    sizes = {}
    for row in read_table(table, _COLUMNS, listing.problems):
        try:
            size, circumference = float(row[_COLUMNS[1]]), float(row[_COLUMNS[2]])
        except ValueError:
            listing.problems.append(f"{table}: {row['filename']}: pixel size and circumference must be numbers")
            continue
        if not (size > 0 and circumference > 0):
            listing.problems.append(f"{table}: {row['filename']}: pixel size and circumference must be above 0")
            continue
        sizes[file_stem(row["filename"])] = (f"{size:.9g},{size:.9g}", f"{circumference:.9g}")
    return sizes


LAYOUT = Layout(
    name="hc18",
    looks_for="training_set/000_HC.png and 000_HC_Annotation.png",
    recognises=lambda root: any(root.glob("training_set/*_Annotation.*")) or any(root.glob("*HC_Annotation.*")),
    read=read_hc18,
)
