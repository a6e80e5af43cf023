"""DICOM images of one frame."""

from __future__ import annotations

import importlib
import io
from typing import Any

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.images.raster import Format, Raster, check_frames, check_pixels

__all__ = ["DICOM", "has_dicom_preamble"]

_MAGIC = slice(128, 132)
PREAMBLE = _MAGIC.stop
"""Bytes from which `has_dicom_preamble` tells."""
_SUFFIXES = (".dcm", ".dicom")


def has_dicom_preamble(content: bytes) -> bool:
    """Whether a file's first bytes are those of a DICOM file, whatever its name."""
    return content[_MAGIC] == b"DICM"


def _read(name: str, content: bytes, use: str) -> Raster:
    import pydicom

    try:
        pixel_module: Any = importlib.import_module("pydicom.pixels")
    except ImportError:  # pydicom 2.4
        pixel_module = importlib.import_module("pydicom.pixel_data_handlers.util")
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    if "PixelData" not in dataset:
        raise UserError(f"{name}: a DICOM object without pixels")
    check_frames(name, int(dataset.get("NumberOfFrames", 1) or 1))
    check_pixels(name, int(dataset.get("Columns") or 0), int(dataset.get("Rows") or 0))
    if not dataset.file_meta.get("TransferSyntaxUID"):  # no preamble either: then it is DICOM's default transfer syntax
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    pixels = np.asarray(dataset.pixel_array)
    interpretation = str(dataset.PhotometricInterpretation)
    spacing = _dicom_spacing(dataset)
    if pixels.ndim == 3:
        # pydicom 3 hands out RGB already, pydicom 2.4 what the file stores.
        if interpretation.startswith("YBR") and int(pydicom.__version__.split(".")[0]) < 3:
            pixels = pixel_module.convert_color_space(pixels, interpretation, "RGB")
        return Raster(pixels=pixels, full_scale=(0.0, float(2 ** int(dataset.BitsStored) - 1)), spacing=spacing)
    if interpretation == "PALETTE COLOR":
        colour = pixel_module.apply_color_lut(pixels, dataset)
        return Raster(pixels=colour, full_scale=(0.0, float(np.iinfo(colour.dtype).max)), spacing=spacing)
    # Many devices write the rescaling that changes nothing.
    rescaled = (dataset.get("RescaleSlope") or 1, dataset.get("RescaleIntercept") or 0) != (1, 0)
    rescaled = rescaled or bool(dataset.get("ModalityLUTSequence"))
    pixels = pixel_module.apply_modality_lut(pixels, dataset)
    shown = pixel_module.apply_voi_lut(pixels, dataset)
    if shown is not pixels:
        black, white = _shown_range(dataset, pixel_module)
    elif int(dataset.BitsStored) <= 8 and not rescaled and not dataset.PixelRepresentation:
        black, white = 0.0, float(2 ** int(dataset.BitsStored) - 1)
    else:
        black, white = float(pixels.min()), float(pixels.max())
    pixels = shown
    if interpretation == "MONOCHROME1":
        pixels = (black + white) - pixels.astype(np.float32)
    return Raster(pixels=pixels, full_scale=(black, white), spacing=spacing)


def _shown_range(dataset: Any, pixel_module: Any) -> tuple[float, float]:
    """What a display window, or a table of values of interest, makes of the darkest and the brightest value."""
    table = (dataset.get("VOILUTSequence") or [None])[0]
    if table is not None and table.get("LUTDescriptor") is not None and table.get("LUTData") is not None:
        return 0.0, float(2 ** int(table.LUTDescriptor[2]) - 1)
    black, white = pixel_module.apply_windowing(np.asarray([-np.inf, np.inf]), dataset)
    return float(black), float(white)


def _dicom_spacing(dataset: Any) -> tuple[float, float] | None:
    spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
    if spacing is not None and len(spacing) == 2:
        y, x = float(spacing[0]), float(spacing[1])
        return (y, x) if y > 0 and x > 0 else None
    regions = dataset.get("SequenceOfUltrasoundRegions") or []
    # Unit 3 is centimetres. Several regions (split screen) may differ in scale: then the image has no one spacing.
    found = {
        (abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10)
        for region in regions
        if region.get("PhysicalUnitsXDirection") == 3 and region.get("PhysicalUnitsYDirection") == 3
    }
    return found.pop() if len(found) == 1 and min(map(min, found)) > 0 else None


DICOM = Format(
    name="DICOM",
    suffixes=_SUFFIXES,
    recognises=lambda name, content: has_dicom_preamble(content) or name.lower().endswith(_SUFFIXES),
    read=_read,
)
