"""Readers of dataset folders, one small module a layout: a folder becomes a list of items.

A module of this package that has ``LAYOUT`` (or ``LAYOUTS``) is a layout; adding one is adding a file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_thyroid.data.layouts.images_masks import read_images_masks
from monai_thyroid.data.layouts.listing import Item, Layout, Listing, official_part
from monai_thyroid.errors import UserError

__all__ = ["AUTO", "LAYOUTS", "Item", "Layout", "Listing", "choose_layouts", "read_images_masks", "read_layout"]

AUTO = "auto"


def _collect() -> dict[str, Layout]:
    found: dict[str, Layout] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for layout in [*getattr(module, "LAYOUTS", []), *([module.LAYOUT] if hasattr(module, "LAYOUT") else [])]:
            found[layout.name] = layout
    return found


LAYOUTS: Mapping[str, Layout] = _collect()
"""Every layout by its name."""


def choose_layouts(layout: str | Sequence[str]) -> list[Layout]:
    """The layouts meant by a name, several names, or ``"auto"`` for all.

    Raises:
        UserError: a name is unknown.
    """
    names = list(LAYOUTS) if layout == AUTO else [layout] if isinstance(layout, str) else list(layout)
    unknown = [name for name in names if name not in LAYOUTS]
    if unknown or not names:
        raise UserError(
            f"unknown dataset layout {', '.join(map(repr, unknown))}; known are {', '.join(sorted(LAYOUTS))}, {AUTO}"
        )
    return [LAYOUTS[name] for name in names]


def read_layout(root: Path, layout: str | Sequence[str] = AUTO) -> Listing:
    """Read a folder.

    One name is read as that layout, and what it lacks is told. Of several names, or ``"auto"``, the one whose form
    the folder has is taken. A folder that has none of the forms but whose subfolders do is a dataset of several
    sites, one a subfolder: the site comes before the names of its cases and groups. Subfolders called ``train``,
    ``val`` and ``test`` are parts instead.

    Args:
        root: the folder (for MedSegBench, or the file).
        layout: a name of `LAYOUTS`, several, or ``"auto"``.

    Returns:
        What was found, with its problems.

    Raises:
        UserError: the folder is missing, a name is unknown, or the folder has none of the forms, or several.
    """
    candidates = choose_layouts(layout)
    if not root.exists():
        raise UserError(f"dataset_dir {root}: no such folder ({_looked_for(candidates)})")
    fitting = [candidate for candidate in candidates if candidate.recognises(root)]
    if len(fitting) > 1:
        # A form that asks for more than another one does is the better guess.
        fitting = [one for one in fitting if not any(_more_special(other, one) for other in fitting)]
    if len(fitting) > 1:
        names = ", ".join(candidate.name for candidate in fitting)
        raise UserError(f"dataset_dir {root}: could be read as {names}; say which (layout)")
    if fitting:
        listing = fitting[0].read(root)
    else:
        sites = _sites(root, candidates)
        forms = dict.fromkeys(layout.name for _, layout in sites.values())
        if len(forms) > 1 and layout == AUTO:
            raise UserError(
                f"dataset_dir {root}: its subfolders have several forms ({', '.join(forms)}); if they are sites of "
                "one dataset, name these forms (layout), else give one of the subfolders"
            )
        if sites:
            listing = _read_sites(sites)
        elif len(candidates) == 1:
            listing = candidates[0].read(root)
        else:
            raise UserError(f"dataset_dir {root}: not a dataset folder ({_looked_for(candidates)})")
    _complete(listing)
    return listing


def _more_special(one: Layout, other: Layout) -> bool:
    """Montgomery's folder with a ``masks/`` made beside it is Montgomery's."""
    return (one.name, other.name) in {("montgomery", "shenzhen")}


def _looked_for(candidates: Sequence[Layout]) -> str:
    forms = "; ".join(f"{candidate.name}: {candidate.looks_for}" for candidate in candidates)
    return f"looked for: {forms}"


def _sites(root: Path, candidates: Sequence[Layout]) -> dict[str, tuple[Path, Layout]]:
    sites: dict[str, tuple[Path, Layout]] = {}
    if not root.is_dir():
        return sites
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        fitting = [candidate for candidate in candidates if candidate.recognises(folder)]
        fitting = [one for one in fitting if not any(_more_special(other, one) for other in fitting)]
        if len(fitting) > 1:
            names = ", ".join(candidate.name for candidate in fitting)
            raise UserError(f"dataset_dir {folder}: could be read as {names}; say which (layout)")
        if fitting:
            sites[folder.name] = folder, fitting[0]
    return sites


def _read_sites(sites: Mapping[str, tuple[Path, Layout]]) -> Listing:
    together = Listing()
    units = set()
    parts = {site: official_part(site) for site in sites}
    are_parts = all(parts.values())
    for site, (folder, layout) in sites.items():
        listing = layout.read(folder)
        for item in listing.items:
            own_group = item["group"] == item["case"] and not listing.grouped
            item["case"] = f"{site}-{item['case']}"
            if are_parts:
                item["part"] = parts[site] or "trainval"
                item["group"] = item["case"] if own_group else item["group"]
            else:
                item["site"], item["group"] = site, f"{site}-{item['group']}"
        together.items += listing.items
        together.problems += listing.problems
        together.notes += listing.notes
        together.grouped &= listing.grouped
        together.frames.update({f"{site}-{case}": part for case, part in listing.frames.items()})
        units.add(listing.unit)
        if together.classes and listing.classes and together.classes != listing.classes:
            together.problems.append(f"{folder}: its classes are {listing.classes}, other sites' {together.classes}")
        together.classes = together.classes or listing.classes
    together.unit = units.pop() if len(units) == 1 else "group"
    return together


def _complete(listing: Listing) -> None:
    """Give every item the same keys, for a batch is made key by key."""
    keys: Iterable[str] = dict.fromkeys(key for item in listing.items for key in (*item, "site"))
    for item in listing.items:
        for key in keys:
            item.setdefault(key, "")
    seen: dict[str, str] = {}
    for item in listing.items:
        if (other := seen.setdefault(item["case"], item["image"])) != item["image"]:
            listing.problems.append(f"{item['image']}: has the same name as {other}; name each image once")
