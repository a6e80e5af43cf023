"""MedSegBench: many datasets, each as one file of arrays."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, make_item
from monai_thyroid.errors import UserError
from monai_thyroid.images.sources import npz_source, open_arrays

__all__ = ["LAYOUT", "read_medsegbench"]

_PARTS = {"train": "trainval", "val": "validation", "test": "test"}


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root] if root.suffix.lower() == ".npz" else []
    return sorted(root.glob("*.npz"))


def read_medsegbench(root: Path) -> Listing:
    """MedSegBench: ``<name>_<size>.npz`` with ``train_images``, ``train_label``, the same for ``val`` and ``test``.

    Of Kuş and Aydin, "MedSegBench: a comprehensive benchmark for medical image segmentation in diverse data
    modalities", Scientific Data 11 (2024), doi 10.1038/s41597-024-04159-2. Images are (n, height, width) or (n,
    height, width, 3), labels (n, height, width). Patients are not known; its parts are kept. ``root`` is the file or
    a folder that holds just one.
    """
    listing = Listing(grouped=False)
    files = _files(root)
    if len(files) != 1:
        names = ", ".join(file.name for file in files) or "none"
        listing.problems.append(f"{root}: one .npz file is looked for, found {names}; name one as the dataset")
        return listing
    try:
        arrays = open_arrays(files[0])
    except UserError as error:
        listing.problems += error.problems
        return listing
    for name, part in _PARTS.items():
        images, labels = f"{name}_images", f"{name}_label"
        if images not in arrays and labels not in arrays:
            continue
        if images not in arrays or labels not in arrays:
            listing.problems.append(f"{files[0]}: has {images} or {labels} but not both")
            continue
        shapes = arrays[images], arrays[labels]
        if len(shapes[0]) not in (3, 4) or (len(shapes[0]) == 4 and shapes[0][3] not in (1, 3)):
            listing.problems.append(
                f"{files[0]}: {images} has shape {shapes[0]}; stacks are refused, only 2-D is supported"
            )
        elif shapes[0][:3] != shapes[1][:3]:
            listing.problems.append(f"{files[0]}: {images} {shapes[0]} and {labels} {shapes[1]} do not agree")
        else:
            for index in range(shapes[0][0]):
                listing.items.append(
                    make_item(
                        npz_source(files[0], images, index),
                        npz_source(files[0], labels, index),
                        case=f"{name}-{index:05d}",
                        part=part,
                    )
                )
    if not listing.items and not listing.problems:
        listing.problems.append(f"{files[0]}: train_images and train_label are looked for; has {', '.join(arrays)}")
    return listing


LAYOUT = Layout(
    name="medsegbench",
    looks_for="one .npz file with train_images and train_label",
    recognises=lambda root: bool(_files(root)),
    read=read_medsegbench,
)
