"""Which DICOM objects are images to segment, and what else they are refused for."""

from __future__ import annotations

import os
import re
from typing import Any, BinaryIO

from monai_thyroid.errors import UserError
from monai_thyroid.images.dicom import DicomImage, check_inflated, is_dicomdir
from monai_thyroid.images.formats import file_bytes, printable
from monai_thyroid.images.marks import DICOM_MARK
from monai_thyroid.images.raster import max_pixels

__all__ = [
    "IMAGE_CLASSES",
    "OTHER_CLASSES",
    "Source",
    "check_kind",
    "check_source",
    "keep_patients_out_of_logs",
    "read_source",
]

Source = DicomImage
"""A DICOM image that may be segmented; see `DicomImage`."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURES = {_STORAGE + end for end in ("7", "7.1", "7.2", "7.3", "7.4")}
IMAGE_CLASSES = _CAPTURES | {
    _STORAGE + end
    for end in (
        *("6.1", "6", "3.1", "3"),  # ultrasound, of one frame and several; those without .1 are retired
        *("77.1.1", "77.1.1.1", "77.1.4", "77.1.4.1"),  # endoscopy and photography, pictures and videos
        *("1", "1.1", "1.1.1"),  # CR, DX for presentation and for processing
    )
}
_RESULTS = {
    _STORAGE + "66.4": "a segmentation",
    _STORAGE + "66.7": "a segmentation",
    _STORAGE + "88.11": "a report",
    _STORAGE + "88.22": "a report",
    _STORAGE + "88.33": "a report",
    _STORAGE + "88.34": "a report",
    _STORAGE + "88.35": "a report",
}
# CT, MR, PET, nuclear medicine, and their enhanced and 3-D kin.
_VOLUMES = ("2", "2.1", "2.2", "4", "4.1", "4.2", "4.3", "4.4", "6.2", "20", "128", "128.1", "130", "13.1.1", "13.1.2")
OTHER_CLASSES = frozenset(_RESULTS) | {_STORAGE + end for end in _VOLUMES}
"""SOP classes that are refused with a word of their own."""
_MODALITIES = {"US", "IVUS", "XC", "ES", "GM", "CR", "DX", "RG", "OT", "SC"}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_IDENTITY = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_PIXELS = ("SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation")
_FRAMES_TIMES = 4
"""All frames together may have so many times the pixels that one may have."""


def read_source(
    path_or_file: str | os.PathLike[str] | bytes | BinaryIO, *, content: bytes | None = None, tissue_only: bool = False
) -> Source:
    """Read a DICOM image, so that it can be segmented and results can be written for it.

    The header is read and checked at once, and the first frame is decoded; other frames when they are asked for.

    Args:
        path_or_file: a path, the bytes of a file, or a file opened for reading bytes.
        content: what the path holds, if it has been read already.
        tissue_only: blacken what lies outside of the ultrasound regions that show tissue, such as burned-in names.

    Raises:
        UserError: it is no DICOM image, of a kind that is not segmented (a 3-D series, a report, a segmentation, this
            package's own results), lacks what results refer to, is too large, or its pixels are broken or cut off. One
            sentence, without anything of the patient.
    """
    if isinstance(path_or_file, bytes):
        name, content = "DICOM object", path_or_file
    elif isinstance(path_or_file, (str, os.PathLike)):
        name = printable(os.fspath(path_or_file))
        content = file_bytes(path_or_file) if content is None else content
    else:
        name, content = printable(str(getattr(path_or_file, "name", "DICOM object"))), path_or_file.read()
    source = check_source(name, content, tissue_only=tissue_only)
    _ = source.frames[0]
    return source


def check_source(name: str, content: bytes, *, tissue_only: bool = False) -> Source:
    """Read and check all of a DICOM image but its pixels, of which no frame is decoded.

    Args:
        name: of the file, for messages.
        content: its bytes.
        tissue_only: as for `read_source`.

    Raises:
        UserError: as `read_source`, but for pixels that cannot be decoded.
    """
    if is_dicomdir(name):
        raise UserError(f"{name}: is an index of images, not an image")
    check_inflated(name, content)
    check_kind(name, _header(name, content))
    source = DicomImage(name, content, tissue_only=tissue_only)
    _check_header(source)
    _check_length(source)
    try:
        _ = source.spacing, source.tissue
    except Exception as error:
        raise UserError(f"{name}: its spacing or its ultrasound regions cannot be read") from error
    return source


def _header(name: str, content: bytes) -> Any:
    import io

    import pydicom

    try:
        return pydicom.dcmread(io.BytesIO(content), force=True, specific_tags=["SOPClassUID", "Modality", "ImageType"])
    except Exception as error:  # whatever a parser raises on bytes of something else
        raise UserError(f"{name}: is no DICOM file, or its header is broken ({type(error).__name__})") from error


def check_kind(name: str, header: Any) -> None:
    """Make sure by an object's SOP class, modality and Image Type that it is an image of a kind that is segmented.

    Raises:
        UserError: it is not; one sentence that begins with the name.
    """
    try:
        kind, modality = str(header.get("SOPClassUID") or ""), str(header.get("Modality") or "")
        image_type = header.get("ImageType") or []
        told = [image_type] if isinstance(image_type, str) else list(map(str, image_type))
    except Exception as error:
        raise UserError(f"{name}: its header cannot be read ({type(error).__name__})") from error
    if not kind:
        raise UserError(f"{name}: is no DICOM file, or says no SOP Class UID")
    if kind in _RESULTS:
        raise UserError(f"{name}: is {_RESULTS[kind]}, not an image to segment")
    if DICOM_MARK in told:
        raise UserError(f"{name}: is a result of monai_thyroid, not an image to segment")
    if kind.removeprefix(_STORAGE) in _VOLUMES:
        raise UserError(f"{name}: belongs to a 3-D series ({_shown(kind)}); only 2-D images are segmented")
    if kind not in IMAGE_CLASSES:
        raise UserError(
            f"{name}: is of a kind that is not segmented ({_shown(kind)}); ultrasound, endoscopy, photography, CR and "
            "DX are"
        )
    if kind in _CAPTURES and modality and modality not in _MODALITIES:
        shown = modality if re.fullmatch(r"[A-Z]{1,16}", modality) else "an unknown one"
        raise UserError(f"{name}: is a picture of the modality {shown}, which is not segmented")


def _shown(uid: str) -> str:
    import pydicom

    name = str(pydicom.uid.UID(uid).name)
    return name if name != uid else "an unknown SOP class"


def _check_header(source: Source) -> None:
    """That it holds what results refer to and what decoding takes."""
    name, problems = source.name, []
    for keyword in (*_IDENTITY, *_PIXELS):
        try:
            value = source.dataset.get(keyword)
            text = "" if value is None else str(value)
        except Exception:
            problems.append(f"its {keyword} cannot be read")
            continue
        if not text:
            problems.append(f"lacks {keyword}")
        elif keyword in _IDENTITY and not (len(text) <= 64 and _UID.fullmatch(text)):
            problems.append(f"its {keyword} is no UID")
    if problems:
        raise UserError(f"{name}: {', '.join(problems)}")
    everything = len(source.frames) * source.height * source.width
    if everything > _FRAMES_TIMES * max_pixels():
        raise UserError(
            f"{name}: its {len(source.frames)} frames have {everything / 1e6:.0f} megapixels together, more than the "
            f"{_FRAMES_TIMES * max_pixels() / 1e6:g} that are read; cut it into shorter ones"
        )


def _check_length(source: Source) -> None:
    """That no pixels lack where they are not compressed; else decoding tells."""
    dataset = source.dataset
    try:
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            return
        samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else int(dataset.SamplesPerPixel)
        bits = source.height * source.width * len(source.frames) * samples * int(dataset.BitsAllocated)
        found = len(dataset.PixelData)
    except Exception as error:
        raise UserError(f"{source.name}: its pixels cannot be read ({type(error).__name__})") from error
    if found < (bits + 7) // 8:
        raise UserError(f"{source.name}: its pixels are cut off ({found} of {(bits + 7) // 8} bytes)")


def keep_patients_out_of_logs() -> None:
    """Let pydicom and highdicom be silent of values that they find odd, in this process: they quote them.

    For programs that own their process, such as a command or a server.
    """
    import logging
    import warnings

    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for name in ("pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
