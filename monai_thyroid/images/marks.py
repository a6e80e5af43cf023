"""The mark in every picture that this package writes, by which it knows its own among those of others."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from PIL.PngImagePlugin import PngInfo

__all__ = ["DICOM_MARK", "MARK", "made_here", "png_mark"]

MARK = b"monai_thyroid"
"""The text ``Software`` of a PNG, the beginning of ``descrip`` of a NIfTI file, a DICOM file's implementation."""

DICOM_MARK = "MONAI_THYROID"
"""In the Image Type of a DICOM picture of results, which stays when servers send it on, unlike the implementation."""

_DESCRIP = slice(148, 148 + len(MARK))  # of a NIfTI-1 header
_DESCRIP_2 = slice(240, 240 + len(MARK))


def png_mark() -> PngInfo:
    """What Pillow is to write into a PNG."""
    mark = PngInfo()
    mark.add_text("Software", MARK.decode())
    return mark


def made_here(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a picture or a mask that this package has written."""
    path = Path(path)
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with open(path, "rb") as file:
            begin = file.read(4096)
        if begin.startswith(b"\x89PNG"):
            return b"tEXtSoftware\0" + MARK in begin
        if begin[128:132] == b"DICM":
            return MARK in begin[132:1024]
        if begin.startswith(b"\x1f\x8b"):
            with gzip.open(path) as packed:
                begin = packed.read(4096)
    except (OSError, EOFError, zlib.error):
        return False
    return MARK in (begin[_DESCRIP], begin[_DESCRIP_2])
