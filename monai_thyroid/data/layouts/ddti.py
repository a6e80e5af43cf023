"""DDTI: thyroid nodules as their archive has them, contours in XML."""

from __future__ import annotations

import functools
from pathlib import Path
from xml.etree import ElementTree

from monai_thyroid.data.layouts.listing import Layout, Listing, make_item, natural_key, pictures
from monai_thyroid.images.formats import file_bytes
from monai_thyroid.images.sources import contours_source, read_contours

__all__ = ["LAYOUT", "read_ddti"]


def read_ddti(root: Path) -> Listing:
    """DDTI: ``<case>_<n>.jpg`` beside ``<case>.xml``, which holds the contours of every image of the case.

    Of Pedraza et al., "An open access thyroid ultrasound image database", SPIE 9287 (2015), doi 10.1117/12.2073532.
    An image may have several contours; its mask is their union. Images whose contours are missing, empty or cut off
    are left out, with a note each: what is not marked is not known to be healthy. An item's ``tirads`` is the text that
    the case's file has of that name.
    """
    listing = Listing(unit="case")
    tables = {path.stem: path for path in sorted(root.glob("*.xml"), key=lambda path: natural_key(path.name))}
    if not tables:
        listing.problems.append(f"{root}: holds no <case>.xml")
    with_image = set()
    for stem, image in pictures(root, listing.problems).items():
        case, _, number = stem.rpartition("_")
        if case not in tables:
            listing.problems.append(f"{image}: no {case or stem}.xml beside it")
            continue
        with_image.add(case)
        contours, fault = read_contours(tables[case], number)
        if fault:
            listing.notes.append(f"{tables[case].name}: {fault}{'' if contours else f'; {image.name} is left out'}")
        if contours:
            source = contours_source(image, tables[case])
            listing.items.append(make_item(image, source, case=stem, group=case, tirads=_tirads(tables[case])))
    listing.problems.extend(
        f"{tables[case]}: no image {case}_<n> beside it" for case in tables if case not in with_image
    )
    return listing


@functools.lru_cache(maxsize=1)
def _tirads(table: Path) -> str:
    """Of a file whose contours could be read; empty where it does not tell."""
    found = ElementTree.fromstring(file_bytes(table)).iter("tirads")
    return next(((one.text or "").strip() for one in found), "")


LAYOUT = Layout(
    name="ddti",
    looks_for="<case>_<n>.jpg beside <case>.xml",
    recognises=lambda root: root.is_dir() and any(root.glob("*.xml")) and any(root.glob("*_[0-9]*.*")),
    read=read_ddti,
)
