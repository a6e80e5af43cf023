"""What is dropped onto the page, opened in memory; nothing of it is written anywhere."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image

from monai_thyroid.deploy.dicom import OTHER_CLASSES, Source, check_kind, check_source
from monai_thyroid.errors import UserError
from monai_thyroid.images import Raster, phantom_scan
from monai_thyroid.images.dicom import DicomImage, is_dicom
from monai_thyroid.images.formats import printable, read_file

__all__ = ["EXAMPLES", "Opened", "open_image"]


@dataclass(frozen=True)
class Opened:
    """An image to look at.

    Attributes:
        name: of its file.
        raster: its pixels.
        spacing_note: where its spacing is from, or why there is none; a clause.
        source: what results in DICOM are written for, None where none can be.
        no_results: why not; a sentence.
    """

    name: str
    raster: Raster
    spacing_note: str
    source: Source | None = None
    no_results: str = "Results in DICOM are written for DICOM images only."


def open_image(name: str, content: bytes) -> Opened:
    """Open an image by the name and the bytes of its file.

    Raises:
        UserError: it is empty, broken, too large (see `monai_thyroid.images.raster.max_pixels`), of several frames or
            slices, of a 3-D series, or no image to segment; one sentence that begins with the name.
    """
    name = printable(name)
    if not content:
        raise UserError(f"{name}: is an empty file")
    if is_dicom(name, content):
        return _dicom(name, content)
    # Not `read_raster`: a name must not be taken for a source, which names other files.
    raster = read_file(name, content=content)
    told = "by its header" if raster.spacing else "the file does not say the size of its pixels"
    return Opened(name, raster, told)


def _dicom(name: str, content: bytes) -> Opened:
    image = DicomImage(name, content)
    kind = str(image.dataset.get("SOPClassUID") or "")
    if kind in OTHER_CLASSES or image.made_here:
        check_kind(name, image.dataset)
    if len(image.frames) > 1:
        raise UserError(
            f"{name}: holds {len(image.frames)} frames and this page shows single images; monai-thyroid predict "
            "segments every frame of it"
        )
    source, why = None, ""
    try:
        source = check_source(name, content)
    except UserError as error:
        why = f"No results in DICOM can be written for it: {error}."
    raster = image.frames[0] if source is None else source.frames[0]
    return Opened(name, raster, image.spacing_note, source, why)


def _png(case: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_drawn(case)).save(file, "PNG")
    return file.getvalue()


def _drawn(case: int) -> np.ndarray:
    return phantom_scan(case, 0, seed=2026).image


def _us(case: int) -> bytes:
    """An ultrasound image of nobody, 0.25 mm a pixel."""
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage

    from monai_thyroid.deploy.dicom.facts import result_uid

    pixels = _drawn(case)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in {
        "SOPClassUID": UltrasoundImageStorage,
        **{f"{level}InstanceUID": result_uid("example", level, str(case)) for level in ("SOP", "Series", "Study")},
        **{"PatientName": "Synthetic^Example", "PatientID": "EXAMPLE", "StudyDate": "20260101", "StudyTime": "120000"},
        **{"PatientBirthDate": "", "PatientSex": "", "AccessionNumber": "", "StudyID": "", "Laterality": ""},
        **{"ReferringPhysicianName": "", "Manufacturer": "monai_thyroid", "SeriesNumber": 1, "InstanceNumber": 1},
        **{"Modality": "US", "ImageType": ["ORIGINAL", "PRIMARY"], "PixelSpacing": [0.25, 0.25]},
        **{"Rows": pixels.shape[0], "Columns": pixels.shape[1], "SamplesPerPixel": 1},
        **{"PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
        **{"PixelRepresentation": 0, "PixelData": pixels.tobytes()},
    }.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = io.BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    return file.getvalue()


EXAMPLES: Mapping[str, tuple[str, Callable[[], bytes]]] = {
    "Synthetic neck scan 1 (PNG)": ("synthetic-1.png", cache(lambda: _png(1))),
    "Synthetic neck scan 2 (PNG)": ("synthetic-2.png", cache(lambda: _png(2))),
    "Synthetic neck scan 3 (DICOM, 0.25 mm a pixel)": ("synthetic-3.dcm", cache(lambda: _us(3))),
}
"""What comes with the page, computer-made: by their titles, the names and the makers of files."""
