"""The formats of image files, and reading a file by whichever is its own."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from monai_thyroid.errors import UserError
from monai_thyroid.images.dicom import DICOM, PREAMBLE, has_dicom_preamble, is_dicomdir
from monai_thyroid.images.nifti import NIFTI
from monai_thyroid.images.pictures import PICTURE
from monai_thyroid.images.raster import Raster

__all__ = ["FORMATS", "IMAGE_SUFFIXES", "file_bytes", "is_image", "printable", "read_file", "stem"]

FORMATS = (NIFTI, DICOM, PICTURE)
"""Every format; a file is of the first that recognises it."""

IMAGE_SUFFIXES = PICTURE.suffixes + DICOM.suffixes + NIFTI.suffixes
_LONGEST_FIRST = sorted(IMAGE_SUFFIXES, key=len, reverse=True)


def printable(name: str) -> str:
    """A name as it can be printed and written: bytes that are no UTF-8 as ``\\udc..``."""
    return name.encode("utf-8", "backslashreplace").decode()


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether a file is an image this package reads: by its name, or, as scanners write DICOM files, by its content.

    Opens only regular files whose name tells nothing.
    """
    if str(path).lower().endswith(IMAGE_SUFFIXES):
        return True
    if is_dicomdir(path):
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as file:
            return has_dicom_preamble(file.read(PREAMBLE))
    except OSError:
        return False


def stem(path: str | os.PathLike[str]) -> str:
    """A file's name without the suffix of an image, ``.nii.gz`` taken as one.

    Other dots are part of the name: scanners name DICOM files by their UID, without a suffix.
    """
    name = Path(path).name
    return next((name[: -len(end)] for end in _LONGEST_FIRST if name.lower().endswith(end)), name)


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file that is one, and holds something.

    Raises:
        UserError: it is missing, empty, unreadable, a folder, or a pipe or device, which is not opened.
    """
    name = printable(os.fspath(path))
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise UserError(f"{name}: is a folder, not a file")
        if not stat.S_ISREG(mode):
            raise UserError(f"{name}: is a pipe, socket or device, not a file")
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from error
    if not content:
        raise UserError(f"{name}: is an empty file")
    return content


def read_file(path: str | os.PathLike[str], *, content: bytes | None = None, use: str = "image") -> Raster:
    """Read one image file.

    Args:
        path: the file.
        content: its bytes where they are already in memory.
        use: ``"image"``, ``"mask"`` or ``"label"``, see `monai_thyroid.images.raster.Format`.

    Raises:
        UserError: as `monai_thyroid.images.reading.read_raster`.
    """
    name = printable(os.fspath(path))
    if content is None:
        content = file_bytes(path)
    try:
        return next(one for one in FORMATS if one.recognises(name, content)).read(name, content, use)
    except UserError:
        raise
    except Exception as error:  # decoders raise nearly anything on a broken file
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{name}: cannot be read as an image ({told})") from error
