"""DICOM images of every kind that is segmented, small, complete, and of a patient who does not exist."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from monai_thyroid.deploy.dicom import ModelFacts, coded_class
from monai_thyroid.evaluation import Prediction

STORAGE = "1.2.840.10008.5.1.4.1.1."
KINDS = {
    "US": (STORAGE + "6.1", "US"),
    "US several": (STORAGE + "3.1", "US"),
    "ES": (STORAGE + "77.1.1", "ES"),
    "XC": (STORAGE + "77.1.4", "XC"),
    "CR": (STORAGE + "1", "CR"),
    "DX": (STORAGE + "1.1", "DX"),
    "SC": (STORAGE + "7", "US"),
}
FACTS = ModelFacts(
    name="thyroid unet",
    version="0.1.0 (weights 0123)",
    weights_sha256="0123" * 16,
    classes=(coded_class("nodule"), coded_class("gizmo")),
)


def dicom_image(
    pixels: np.ndarray, *, kind: str = "US", photometric: str | None = None, bits: int | None = None, **tags: Any
) -> Dataset:
    """An image: (height, width), (height, width, 3), or of ``US several`` with the frames before these."""
    several = kind == "US several"
    shape = pixels.shape[1:] if several else pixels.shape
    sop_class, modality = KINDS[kind]
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = sop_class
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3.4"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID, dataset.PatientSex = "Größe^Ada", "P-17", "F"
    dataset.PatientBirthDate, dataset.PatientAge = "19700102", "050Y"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20260102", "101112", "S1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName, dataset.StudyDescription = "A-1", "Doe^Jane", "Neck"
    # Things that results must not take over.
    dataset.OperatorsName, dataset.InstitutionName, dataset.StationName = "Secret^Operator", "Secret Clinic", "Secret"
    dataset.Modality, dataset.InstanceNumber, dataset.ImageType = modality, 7, ["ORIGINAL", "PRIMARY"]
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 3 if len(shape) == 3 else 1
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    if several:
        dataset.NumberOfFrames, dataset.FrameTime = len(pixels), "40"
        dataset.FrameIncrementPointer = pydicom.tag.Tag("FrameTime")
    dataset.PhotometricInterpretation = photometric or ("RGB" if len(shape) == 3 else "MONOCHROME2")
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits or dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    for name, value in tags.items():
        setattr(dataset, name, value)
    return dataset


def content(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def saved(path: Path, dataset: Dataset) -> Path:
    path.write_bytes(content(dataset))
    return path


def regions(*boxes: tuple[int, int, int, int], delta: float = 0.02, kind: int = 1) -> Sequence:
    """Ultrasound regions of tissue by left, top, right, bottom; the delta in cm."""
    items = []
    for box in boxes:
        item = Dataset()
        item.RegionSpatialFormat, item.RegionDataType = 1, kind
        keys = ("MinX0", "MinY0", "MaxX1", "MaxY1")
        for key, value in zip(keys, box, strict=True):
            setattr(item, f"RegionLocation{key}", value)
        item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
        item.PhysicalDeltaX = item.PhysicalDeltaY = delta
        items.append(item)
    return Sequence(items)


def marked(height: int = 60, width: int = 83) -> np.ndarray:
    """Class numbers that no symmetry maps to themselves: a ring of class 1 near the top left, parts of class 2."""
    mask = np.zeros((height, width), np.uint8)
    mask[5:17, 8:30] = 1
    mask[9:12, 14:20] = 0
    mask[17, 30] = 1  # touches by a corner
    mask[40:44, width - 20 : width - 3] = 2
    mask[50:53, 4:6] = 2
    return mask


def prediction(mask: np.ndarray, *, agreement: tuple[float, ...] | None = None) -> Prediction:
    planes = np.stack([mask == 1, mask == 2]).astype(np.float32) * np.float32(0.8)
    return Prediction(mask, planes, agreement)
