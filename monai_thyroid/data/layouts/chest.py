"""Montgomery and Shenzhen: lungs in chest X-rays, by their originals' folders."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, make_item, pairs, pictures
from monai_thyroid.images import stem as file_stem
from monai_thyroid.images.sources import union_source

__all__ = ["LAYOUTS", "read_montgomery", "read_shenzhen"]

_SITES = {"MCUCXR": "montgomery", "CHNCXR": "shenzhen"}


def read_montgomery(root: Path) -> Listing:
    """Montgomery: ``CXR_png/`` and ``ManualMask/{leftMask,rightMask}``, whose union is the mask.

    Of Jaeger et al., "Two public chest X-ray datasets for computer-aided screening of pulmonary diseases",
    Quantitative Imaging in Medicine and Surgery 4(6) (2014), doi 10.3978/j.issn.2223-4292.2014.11.20. One image a
    patient.
    """
    listing = Listing(unit="patient")
    images = pictures(root / "CXR_png", listing.problems)
    left = pictures(root / "ManualMask" / "leftMask", listing.problems)
    right = pictures(root / "ManualMask" / "rightMask", listing.problems)
    for stem, image in images.items():
        lacking = [side for side, files in (("leftMask", left), ("rightMask", right)) if stem not in files]
        listing.problems.extend(f"{image}: no mask in ManualMask/{side}" for side in lacking)
        if not lacking:
            listing.items.append(make_item(image, union_source(left[stem], right[stem]), case=stem, site="montgomery"))
    for files in (left, right):
        listing.problems.extend(f"{path}: no image in CXR_png" for stem, path in files.items() if stem not in images)
    group_by_tables(listing, root)
    return listing


def _masks(root: Path) -> Path:
    return next((root / name for name in ("mask", "masks") if (root / name).is_dir()), root / "mask")


def read_shenzhen(root: Path) -> Listing:
    """Shenzhen: ``CXR_png/`` and ``mask/*_mask.png``; images without a mask (96 of 662) are left out.

    Images by Jaeger et al. (see `read_montgomery`), masks by Stirenko et al., IEEE ELNANO (2018), doi
    10.1109/ELNANO.2018.8477564. The common copy that holds both hospitals' files in ``CXR_png/ masks/`` is read too;
    the file names tell the sites apart. One image a patient.
    """
    listing = Listing(unit="patient")
    for image, mask in pairs(root / "CXR_png", _masks(root), listing, all_masked=False):
        site = _SITES.get(file_stem(image).partition("_")[0], "shenzhen")
        listing.items.append(make_item(image, mask, case=file_stem(image), site=site))
    group_by_tables(listing, root)
    return listing


LAYOUTS = [
    Layout(
        name="montgomery",
        looks_for="CXR_png/ ManualMask/leftMask/ ManualMask/rightMask/",
        recognises=lambda root: (root / "CXR_png").is_dir() and (root / "ManualMask").is_dir(),
        read=read_montgomery,
        before=("shenzhen",),  # also where masks/, united, have been put beside
    ),
    Layout(
        name="shenzhen",
        looks_for="CXR_png/ mask/",
        recognises=lambda root: (root / "CXR_png").is_dir() and _masks(root).is_dir(),
        read=read_shenzhen,
    ),
]
