"""From a dataset folder to its listing: which layout it has, its sites, its groups."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from monai_thyroid.data.layouts import AUTO, LAYOUTS, choose_layouts
from monai_thyroid.data.layouts.images_masks import read_images_masks
from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, group_in, official_part
from monai_thyroid.errors import UserError
from monai_thyroid.images.formats import printable

__all__ = ["read_layout", "read_listing"]


def read_listing(
    root: Path,
    *,
    layout: str | Sequence[str] = AUTO,
    sites: Sequence[str] = (),
    group_pattern: str | None = None,
    images: str | None = None,
    masks: str | None = None,
) -> Listing:
    """What a dataset folder holds, before it is split; see `load_datalist` for the arguments.

    Items whose names are not UTF-8 are left out, with a problem each, for results could not be written by their names.

    Raises:
        UserError: the folder has no known form, or an argument is wrong. Faults of its files are in the listing.
    """
    if printable(str(root)) != str(root):
        raise UserError(f"dataset_dir {printable(str(root))}: its name is not UTF-8; rename it")
    if (images is None) != (masks is None):
        raise UserError("images and masks: give both folders, or a layout")
    if images is not None and masks is not None:
        if not root.is_dir():
            raise UserError(f"dataset_dir {root}: no such folder")
        listing = read_images_masks(root, images=images, masks=masks)
        _complete(listing)
    else:
        listing = read_layout(root, layout)
    nameless = [item for item in listing.items if any(printable(text) != text for text in item.values())]
    listing.problems += [f"{printable(item['image'])}: its name is not UTF-8; rename it" for item in nameless]
    listing.items = [item for item in listing.items if item not in nameless]
    if sites:
        known = sorted({item["site"] for item in listing.items} - {""})
        if unknown := sorted(set(sites) - set(known)):
            raise UserError(
                f"sites {', '.join(unknown)}: the dataset has {', '.join(known) or 'no sites'}; a site is a subfolder"
            )
        listing.items = [item for item in listing.items if item["site"] in sites]
    if group_pattern:
        try:
            pattern = re.compile(group_pattern)
        except re.error as error:
            raise UserError(f"group_pattern {group_pattern!r}: not a regular expression ({error})") from error
        for item in listing.items:
            if group := group_in(item["case"], pattern):
                item["group"] = group
            else:
                listing.problems.append(f"group_pattern {group_pattern!r}: finds nothing in {item['case']}")
        listing.grouped, listing.unit = True, "group" if listing.alike else listing.unit
    listing.alike &= not listing.grouped
    return listing


def read_layout(root: Path, layout: str | Sequence[str] = AUTO) -> Listing:
    """Read a folder.

    One name is read as that layout, and what it lacks is told. Of several names, or ``"auto"``, the one whose form
    the folder has is taken. A folder that has none of the forms but whose subfolders do is a dataset of several
    sites, one a subfolder: the site comes before the names of its cases and groups. Subfolders called ``train``,
    ``val`` and ``test`` are parts instead.

    Args:
        root: the folder (for MedSegBench, or the file).
        layout: a layout's name, several, or ``"auto"``; then those of other packages are asked after ours.

    Returns:
        What was found, with its problems.

    Raises:
        UserError: the folder is missing, a name is unknown, or the folder has none of the forms, or several.
    """
    candidates = choose_layouts(layout)
    if not root.exists():
        raise UserError(f"dataset_dir {root}: no such folder ({_looked_for(candidates)})")
    if fitting := _fitting(root, candidates, auto=layout == AUTO):
        listing = fitting.read(root)
    else:
        sites = _sites(root, candidates, auto=layout == AUTO)
        forms = dict.fromkeys(form.name for _, form in sites.values())
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
    if not listing.grouped and not listing.alike and root.is_dir():
        listing.grouped = group_by_tables(listing, root)
    _complete(listing)
    return listing


def _fitting(root: Path, candidates: Sequence[Layout], *, auto: bool) -> Layout | None:
    """The layout whose form a folder has, None if it has none.

    Raises:
        UserError: it has several.
    """
    fitting = [candidate for candidate in candidates if candidate.recognises(root)]
    if auto and any(one.name in LAYOUTS for one in fitting):
        fitting = [one for one in fitting if one.name in LAYOUTS]
    fitting = [one for one in fitting if not any(one.name in other.before for other in fitting)]
    if len(fitting) > 1:
        names = ", ".join(candidate.name for candidate in fitting)
        raise UserError(f"dataset_dir {root}: could be read as {names}; say which (layout)")
    return fitting[0] if fitting else None


def _looked_for(candidates: Sequence[Layout]) -> str:
    forms = "; ".join(f"{candidate.name}: {candidate.looks_for}" for candidate in candidates)
    return f"looked for: {forms}"


def _sites(root: Path, candidates: Sequence[Layout], *, auto: bool) -> dict[str, tuple[Path, Layout]]:
    sites: dict[str, tuple[Path, Layout]] = {}
    if not root.is_dir():
        return sites
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if fitting := _fitting(folder, candidates, auto=auto):
            sites[folder.name] = folder, fitting
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
        together.alike |= listing.alike
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
