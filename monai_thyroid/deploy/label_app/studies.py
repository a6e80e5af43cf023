"""A folder of images as MONAI Label's server can have it: copied, converted where it or a viewer would misread them."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from PIL import Image

from monai_thyroid.deploy.dicom import check_kind
from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path, read_csv, sha256_file, write_csv
from monai_thyroid.images import IMAGE_SUFFIXES, Raster, is_image, made_here, read_raster, stem
from monai_thyroid.images.dicom import DICOM, DicomImage, is_dicom
from monai_thyroid.images.formats import file_bytes
from monai_thyroid.images.nifti import NIFTI_SUFFIXES

__all__ = ["COLUMNS", "NO_IMAGES", "SUFFIXES", "Prepared", "group_of_patient", "prepare_images", "save_picture"]

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".nii", ".nii.gz")
"""Of the images as the server has them."""
COLUMNS = ("id", "source", "frame", "group", "source_sha256")
"""Of images.csv; ``group`` is of DICOM files only, ``frame`` (from 1) of those with several."""
NO_IMAGES = ("SEG", "SR", "PR", "KO", "DOC", "REG", "RTSTRUCT", "PLAN", "AU")
"""Modalities of what refers to images."""
_NOT_DICOM = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in DICOM.suffixes)
_LABELS = "labels"  # where an earlier server of MONAI Label left its labels in a folder of images
_LONGEST = 200
"""Bytes of an id, which becomes the name of files, to which more is added."""
_JFIF = b"\xff\xd8\xff\xe0"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Prepared:
    """What `prepare_images` did.

    Attributes:
        images: how many the server has.
        new: of these, which were not there before.
        left_out: how many files were not taken for images, by reason.
    """

    images: int
    new: int
    left_out: dict[str, int]


def prepare_images(folder: Path, output: Path, table: Path) -> Prepared:
    """Copy the images of a folder and of its subfolders, those that are not there yet.

    PNG, JPEG and NIfTI stay what they are, but for a JPEG's dots per inch, which viewers would take for a size in mm;
    everything else, and pictures that their EXIF turns, becomes PNG: of 8 bits, black and white where the file's own
    display window has them. A DICOM file of several frames becomes one image a frame. The originals stay untouched.

    An image's id is its path within the folder, without the suffix and with ``-`` for ``/``.

    Args:
        folder: with the images.
        output: takes them, ``<id>.png`` and so on; is made.
        table: of COLUMNS, which maps them back.

    Raises:
        UserError: there is no image, some cannot be read, two would have one id, or a file has changed since its copy
            was made; lists all.
    """
    files, left_out = _images(folder)
    if not files:
        raise UserError(f"studies {folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    output.mkdir(parents=True, exist_ok=True)
    there: dict[str, list[dict[str, str]]] = {}
    for row in read_csv(table) if table.is_file() else []:
        there.setdefault(row["source"], []).append(row)
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    # Of originals that are gone the copies and their labels stay.
    gone = [row for source, before in there.items() if Path(source) not in set(files) for row in before]
    owner = {row["id"].casefold(): Path(row["source"]) for row in gone}
    new = 0
    for file in files:
        identity = "-".join((*file.relative_to(folder).parent.parts, stem(file)))
        if (other := owner.setdefault(identity.casefold(), file)) != file:
            problems.append(f"{file}: would be called {identity}, as {other} is; rename it")
            continue
        if len(identity.encode()) > _LONGEST:
            problems.append(f"{file}: its path within the folder is longer than {_LONGEST} bytes; rename it")
            continue
        digest = sha256_file(file)
        before = there.get(str(file), [])
        if any(row["source_sha256"] != digest for row in before):
            problems.append(f"{file}: has changed since it was taken in, and its labels are of what it was; rename it")
            continue
        if before and all(_copy(output, row["id"]) for row in before):
            rows += before
            continue
        try:
            made = list(_copied(file, identity, output))
        except UserError as error:
            problems += error.problems
            continue
        rows += [
            {"id": name, "source": str(file), "frame": frame, "group": group, "source_sha256": digest}
            for name, frame, group in made
        ]
        new += len(made)
    if problems:
        raise UserError(problems)
    rows += gone
    write_csv(table, COLUMNS, rows)
    kept = {_copy(output, row["id"]) for row in rows}
    for path in output.iterdir():  # what a start that was refused left
        if path.name.endswith(SUFFIXES) and path not in kept:
            path.unlink()
    return Prepared(len(rows), new, left_out)


def group_of_patient(identity: str) -> str:
    """What stands for a patient, without telling who it is: 10 hexadecimal digits."""
    return hashlib.sha256(f"patient {identity}".encode()).hexdigest()[:10]


def save_picture(raster: Raster, path: Path) -> None:
    """Write an image as PNG of 8 bits, as it is displayed."""
    pixels = raster.pixels
    if pixels.dtype != np.uint8 or raster.full_scale != (0.0, 255.0):
        pixels = np.rint(raster.normalised() * 255).astype(np.uint8)
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def _images(folder: Path) -> tuple[list[Path], dict[str, int]]:
    left_out: dict[str, int] = {}
    images = []
    for path in _files(folder):
        if not is_image(path):
            reason = "of other kinds"
        elif made_here(path):
            reason = "results of monai_thyroid"
        elif _modality(path) in NO_IMAGES:
            reason = "reports, segmentations and the like in DICOM"
        else:
            images.append(path)
            continue
        left_out[reason] = left_out.get(reason, 0) + 1
    return images, left_out


def _modality(path: Path) -> str:
    """Of a DICOM file; empty of others."""
    if path.name.lower().endswith(_NOT_DICOM):
        return ""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Modality"])
        return str(header.get("Modality") or "")
    except Exception:  # whatever is wrong with it is told when it is read
        return ""


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.relative_to(folder).parts[0] != _LABELS
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _copy(output: Path, identity: str) -> Path | None:
    return next((path for suffix in SUFFIXES if (path := output / f"{identity}{suffix}").is_file()), None)


def _copied(file: Path, identity: str, output: Path) -> Iterator[tuple[str, str, str]]:
    """Write what a file becomes; id, frame and group of each image."""
    content = file_bytes(file)
    if is_dicom(str(file), content):
        image = DicomImage(str(file), content)
        check_kind(str(file), image.dataset)
        patient = str(image.dataset.get("PatientID") or "").strip()
        group = group_of_patient(patient) if patient else ""
        count = len(image.frames)
        for number in range(1, count + 1):
            name = identity if count == 1 else f"{identity}_frame{number:0{len(str(count))}d}"
            save_picture(image.frames[number - 1], output / f"{name}.png")
            yield name, str(number) if count > 1 else "", group
        return
    raster = read_raster(file, content=content)
    lower = file.name.lower()
    if lower.endswith(NIFTI_SUFFIXES):
        target = output / f"{identity}{'.nii.gz' if lower.endswith('.gz') else '.nii'}"
        with atomic_path(target) as temporary:
            shutil.copyfile(file, temporary)
    elif raster.orientation == 1 and content.startswith((_PNG, _JFIF[:2])):
        suffix = ".png" if content.startswith(_PNG) else ".jpg"
        with atomic_path(output / f"{identity}{suffix}") as temporary:
            temporary.write_bytes(_without_density(content))
    else:
        save_picture(raster, output / f"{identity}.png")
    yield identity, "", ""


def _without_density(content: bytes) -> bytes:
    """A JPEG without dots per inch, which ITK, and so 3D Slicer, takes for a size in mm."""
    if content.startswith(_JFIF) and content[6:11] == b"JFIF\0":
        return content[:13] + b"\0\0\1\0\1" + content[18:]
    return content
