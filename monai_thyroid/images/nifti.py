"""NIfTI files of one slice."""

from __future__ import annotations

import gzip
import io
import math
from typing import Any

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.images.raster import Format, Raster, check_pixels, range_of

__all__ = ["NIFTI", "NIFTI_SUFFIXES", "nifti_geometry", "nifti_volume"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")


def nifti_volume(content: bytes) -> Any:
    """The nibabel image in a NIfTI file's bytes, compressed or not, whatever its name says."""
    import nibabel

    if _is_compressed(content):
        header = _header(content)
        size = int(header.get_data_offset()) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
        # A byte more than the header accounts for, so that the end, and with it the checksum, is met.
        content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(size + 1)
    return nibabel.Nifti1Image.from_bytes(content)


def nifti_geometry(content: bytes) -> Any:
    """The 4x4 matrix from indices to mm in the patient, None where the file's header says none."""
    header = _header(content)
    return header.get_best_affine() if header["sform_code"] or header["qform_code"] else None


def _header(content: bytes) -> Any:
    """The header alone, before anything is unpacked."""
    import nibabel

    start = gzip.GzipFile(fileobj=io.BytesIO(content)) if _is_compressed(content) else io.BytesIO(content)
    return nibabel.Nifti1Header.from_fileobj(start)


def _is_compressed(content: bytes) -> bool:
    return content[:2] == b"\x1f\x8b"


def _read(name: str, content: bytes, use: str) -> Raster:
    header = _header(content)
    shape = header.get_data_shape()
    dtype = header.get_data_dtype()
    colour = bool(dtype.names)  # an RGB24 volume is a structured array
    if len(shape) < 2 or any(size != 1 for size in shape[2:]):
        raise UserError(f"{name}: has shape {shape}; give one slice a file, only 2-D is supported")
    if dtype.kind == "c":
        raise UserError(f"{name}: holds complex numbers; write their magnitude (or what is to be segmented) to a file")
    check_pixels(name, int(shape[0]), int(shape[1]))
    volume = nifti_volume(content)
    array = np.asarray(volume.dataobj)
    if colour:
        array = np.stack([array[channel] for channel in "RGB"], axis=-1)
    array = array.reshape(*shape[:2], 3) if colour else array.reshape(shape[:2])
    if not np.isfinite(array).all():
        raise UserError(f"{name}: holds numbers that are not finite")
    zooms = volume.header.get_zooms()
    known = volume.header.get_xyzt_units()[0] == "mm"
    return Raster(
        # NIfTI's first index runs along x.
        pixels=np.swapaxes(array, 0, 1),
        full_scale=range_of(array),
        spacing=(float(zooms[1]), float(zooms[0])) if known else None,
        affine=np.asarray(volume.affine, dtype=np.float64),
    )


NIFTI = Format(
    name="NIfTI",
    suffixes=NIFTI_SUFFIXES,
    recognises=lambda name, content: name.lower().endswith(NIFTI_SUFFIXES),
    read=_read,
)
