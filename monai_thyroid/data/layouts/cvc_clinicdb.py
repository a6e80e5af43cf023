"""CVC-ClinicDB: polyps in frames of colonoscopy videos."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, make_item, pairs, read_table
from monai_thyroid.images import stem

__all__ = ["LAYOUT", "read_cvc_clinicdb"]

_PLACES = ("", "PNG", "TIF")


def _place(root: Path) -> tuple[Path, Path] | None:
    for place in _PLACES:
        for masks in ("Ground Truth", "GroundTruth"):
            if (root / place / "Original").is_dir() and (root / place / masks).is_dir():
                return root / place / "Original", root / place / masks
    return None


def read_cvc_clinicdb(root: Path) -> Listing:
    """CVC-ClinicDB: ``Original/`` and ``Ground Truth/``, also below ``PNG/`` or ``TIF/``; ``metadata.csv`` if there.

    Of Bernal et al., "WM-DOVA maps for accurate polyp highlighting in colonoscopy", Computerized Medical Imaging and
    Graphics 43 (2015), doi 10.1016/j.compmedimag.2015.02.007: 612 frames of 29 sequences, whose neighbours are alike.
    ``metadata.csv`` (frame_id, sequence_id) of a common copy gives the groups.
    """
    listing = Listing(unit="sequence")
    place = _place(root)
    if place is None:
        listing.problems.append(f"{root}: {LAYOUT.looks_for} is looked for")
        return listing
    for image, mask in pairs(*place, listing):
        listing.items.append(make_item(image, mask, case=stem(image)))
    listing.grouped = group_by_tables(listing, root)
    metadata = root / "metadata.csv"
    if not listing.grouped and metadata.is_file():
        rows = read_table(metadata, ["frame_id", "sequence_id"], listing.problems)
        sequences = {row["frame_id"]: row["sequence_id"] for row in rows}
        for item in listing.items:
            if sequence := sequences.get(item["case"]):
                item["group"] = f"sequence{sequence}"
            else:
                listing.problems.append(f"{metadata}: no sequence_id for frame_id {item['case']}")
        listing.grouped = True
    return listing


LAYOUT = Layout(
    name="cvc_clinicdb",
    looks_for="Original/ and Ground Truth/ (also below PNG/ or TIF/)",
    recognises=lambda root: _place(root) is not None,
    read=read_cvc_clinicdb,
)
