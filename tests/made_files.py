"""Files of every format, made for tests."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

AFFINE = np.array([[-0.5, 0, 0, 10], [0, -0.25, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1.0]])


def marker(height: int = 37, width: int = 53) -> np.ndarray:
    """Dark ground, a bright block near the top left and a smaller one at the right: no symmetry maps it to itself."""
    image = np.full((height, width), 20, np.uint8)
    image[3:11, 5:25] = 230
    image[20:24, width - 9 : width - 3] = 150
    return image


def noise(shape: tuple[int, ...], *, seed: int = 0, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return np.random.RandomState(seed).randint(0, high, shape).astype(dtype)


def dicom(pixels: np.ndarray, *, photometric: str = "MONOCHROME2", bits: int = 8, **tags: object) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UltrasoundImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = UltrasoundImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.Modality = "US"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def save_dicom(path: Path, pixels: np.ndarray, **options: object) -> Path:
    return save_dataset(path, dicom(pixels, **options))  # type: ignore[arg-type]


def save_dataset(path: Path, dataset: Dataset) -> Path:
    buffer = io.BytesIO()
    whole = {"enforce_file_format": True} if is_pydicom3() else {"write_like_original": False}
    pydicom.dcmwrite(buffer, dataset, **whole)
    path.write_bytes(buffer.getvalue())
    return path


def is_pydicom3() -> bool:
    return int(pydicom.__version__.split(".")[0]) >= 3


def region(delta_x: float, delta_y: float, *, unit: int = 3) -> Dataset:
    item = Dataset()
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = unit
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta_x, delta_y
    return item


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray, *, unit: str | None = "mm") -> Path:
    image = nibabel.Nifti1Image(array, affine)
    if unit:
        image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


def _save_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, quality=100)


def _save_nii(path: Path, pixels: np.ndarray) -> None:
    save_nifti(path, pixels.T, AFFINE)


SAVERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "a.png": _save_png,
    "a.jpg": _save_png,
    "a.bmp": _save_png,
    "a.tif": _save_png,
    "a.dcm": save_dicom,
    "a.nii.gz": _save_nii,
}
