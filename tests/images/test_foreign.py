"""Masks that other tools made, asymmetric ones, so that nothing mirrored or turned passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from made_files import save_dataset
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from monai_thyroid.errors import UserError
from monai_thyroid.images import ForeignMask, in_place_of, read_foreign_mask

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"


def marker() -> np.ndarray:
    """Two classes, (6, 9): no mirror image or turn of it equals it."""
    labels = np.zeros((6, 9), np.uint8)
    labels[1:3, 1:5], labels[3, 1], labels[0, 8] = 1, 1, 2
    return labels


def seg(
    path: Path,
    labels: np.ndarray,
    *,
    names: dict[int, str],
    kind: str = "BINARY",
    frames: list[int] | None = None,
    place: bool = False,
    flipped: bool = False,
) -> Path:
    """A DICOM segmentation of one image, a frame a segment; by hand, as no library is to vouch for itself."""
    numbers = frames if frames is not None else sorted(names)
    stack = np.stack([labels == number for number in numbers])
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = LABELMAP if kind == "LABELMAP" else SEG
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.Modality, dataset.SegmentationType = "SEG", kind
    dataset.Rows, dataset.Columns = labels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.NumberOfFrames = 1 if kind == "LABELMAP" else len(numbers)
    bits = 1 if kind == "BINARY" else 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.SegmentSequence = [_segment(number, name) for number, name in names.items()]
    dataset.PerFrameFunctionalGroupsSequence = [_frame(number) for number in numbers][: dataset.NumberOfFrames]
    if place:
        shared, measures, orientation, position = Dataset(), Dataset(), Dataset(), Dataset()
        measures.PixelSpacing = [0.5, 0.25]
        orientation.ImageOrientationPatient = [-1 if flipped else 1, 0, 0, 0, 1, 0]
        position.ImagePositionPatient = [0.25 * (labels.shape[1] - 1) if flipped else 0, 0, 0]
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        shared.PlanePositionSequence = [position]
        dataset.SharedFunctionalGroupsSequence = [shared]
    if kind == "BINARY":
        packed = np.packbits(stack.astype(bool), bitorder="little").tobytes()
        dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    elif kind == "LABELMAP":
        dataset.PixelData = labels.tobytes() + b"\0" * (labels.size % 2)
    else:
        dataset.MaximumFractionalValue = 200
        content = np.where(stack, 200, 0).astype(np.uint8).tobytes()
        dataset.PixelData = content + b"\0" * (len(content) % 2)
    return save_dataset(path, dataset)


def _segment(number: int, name: str) -> Dataset:
    segment = Dataset()
    segment.SegmentNumber, segment.SegmentLabel = number, name
    return segment


def _frame(number: int) -> Dataset:
    frame, identity = Dataset(), Dataset()
    identity.ReferencedSegmentNumber = number
    frame.SegmentIdentificationSequence = [identity]
    return frame


def nifti(path: Path, labels: np.ndarray, affine: np.ndarray | None = None, dtype: Any = np.uint8) -> Path:
    nibabel.save(nibabel.Nifti1Image(labels.T[..., None].astype(dtype), np.eye(4) if affine is None else affine), path)
    return path


def test_every_format_gives_the_same_numbers_the_right_way_round(tmp_path: Path) -> None:
    labels = marker()
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(labels).save(tmp_path / "grey.tif")
    palette = Image.fromarray(labels).convert("P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    np.save(tmp_path / "plain.npy", labels.astype(np.float32))
    np.save(tmp_path / "one-more.npy", labels[None].astype(np.int64))
    nifti(tmp_path / "slice.nii.gz", labels, dtype=np.float32)
    names = {1: "gland", 2: "nodule"}
    seg(tmp_path / "binary.dcm", labels, names=names)
    seg(tmp_path / "swapped-frames.dcm", labels, names=names, frames=[2, 1])
    seg(tmp_path / "fractional.dcm", labels, names=names, kind="FRACTIONAL")
    seg(tmp_path / "labelmap.dcm", labels, names={0: "Background", **names}, kind="LABELMAP")
    (tmp_path / "no-suffix").write_bytes((tmp_path / "binary.dcm").read_bytes())
    for path in sorted(tmp_path.iterdir()):
        found = read_foreign_mask(path, classes=["gland", "nodule"])
        np.testing.assert_array_equal(found.labels, labels, err_msg=path.name)
        assert found.labels.dtype == np.uint8


def test_a_segment_without_a_frame_is_empty(tmp_path: Path) -> None:
    labels = np.where(marker() == 1, 1, 0)
    path = seg(tmp_path / "a.dcm", labels, names={1: "gland", 2: "nodule"}, frames=[1])
    np.testing.assert_array_equal(read_foreign_mask(path, classes=["gland", "nodule"]).labels, labels)


@pytest.mark.parametrize("high", [1, 255, True, 1.0])
def test_a_single_class_is_1_or_255(tmp_path: Path, high: Any) -> None:
    np.save(tmp_path / "a.npy", np.where(marker() > 0, high, type(high)(0)))
    np.testing.assert_array_equal(read_foreign_mask(tmp_path / "a.npy", classes=["x"]).labels, marker() > 0)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.where(marker() > 0, 0.7, 0.1), "soft mask"),
        (np.arange(54, dtype=np.uint8).reshape(6, 9), "54 grey levels"),
        (np.where(marker() > 0, 7, 0), "holds 7; of one class"),
        (np.where(marker() > 0, np.nan, 0), "not finite"),
        (np.where(marker() > 0, -1, 0), "-1"),
        (np.zeros((3, 6, 9), np.uint8), "shape (3, 6, 9)"),
        (np.zeros((6, 9), complex), "complex128"),
        (np.zeros((0, 9), np.uint8), "shape (0, 9)"),
    ],
)
def test_whatever_is_no_mask_of_one_class_is_refused(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError) as caught:
        read_foreign_mask(tmp_path / "a.npy", classes=["x"])
    assert said in str(caught.value)
    assert "a.npy" in str(caught.value)


def test_wrong_numbers_of_several_classes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", marker() * 2)
    with pytest.raises(UserError, match="holds 4; 0 is background and the 2 classes"):
        read_foreign_mask(tmp_path / "a.npy", classes=["gland", "nodule"])


def test_an_array_of_python_objects_is_not_unpacked(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read as an array"):
        read_foreign_mask(tmp_path / "a.npy", classes=["x"])


@pytest.mark.parametrize(
    ("options", "classes", "said"),
    [
        ({"names": {1: "gland", 2: "nodule"}}, ["gland"], r"segment 2 \(nodule\); the 1 classes"),
        ({"names": {1: "Nodule", 2: "Gland"}}, ["gland", "nodule"], "segment 1 is called Nodule, which is class 2"),
        ({"names": {1: "gland"}, "frames": [1, 1]}, ["gland"], "2 frames of 1 segments"),
    ],
)
def test_segmentations_of_something_else_are_refused(
    tmp_path: Path, options: dict[str, Any], classes: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        read_foreign_mask(seg(tmp_path / "a.dcm", marker(), **options), classes=classes)


def test_segments_that_overlap_are_refused(tmp_path: Path) -> None:
    path = seg(tmp_path / "a.dcm", marker(), names={1: "gland", 2: "nodule"}, kind="FRACTIONAL")
    dataset = pydicom.dcmread(path)
    dataset.PixelData = b"\xc8" * len(dataset.PixelData)
    dataset.save_as(path)
    with pytest.raises(UserError, match="segments overlap"):
        read_foreign_mask(path, classes=["gland", "nodule"])


def test_a_fractional_segmentation_that_is_soft_is_refused(tmp_path: Path) -> None:
    path = seg(tmp_path / "a.dcm", marker(), names={1: "gland", 2: "nodule"}, kind="FRACTIONAL")
    dataset = pydicom.dcmread(path)
    dataset.MaximumFractionalValue = 255
    dataset.save_as(path)
    with pytest.raises(UserError, match="soft mask"):
        read_foreign_mask(path, classes=["gland", "nodule"])


def test_masks_come_back_to_where_their_reference_lies(tmp_path: Path) -> None:
    """Mirrored, turned and exchanged in the file, and by what the file says of space not at all."""
    labels = marker()
    affine = np.diag([-0.25, -0.5, 1, 1])
    reference = read_foreign_mask(nifti(tmp_path / "reference.nii.gz", labels, affine), classes=["gland", "nodule"])
    width = labels.shape[1]
    mirrored = affine.copy()
    mirrored[:3, 3] = affine[:3, :3] @ [width - 1, 0, 0]
    mirrored[:3, 0] *= -1
    exchanged = affine[:, [1, 0, 2, 3]]
    stored = {"same": (labels, affine), "mirrored": (labels[:, ::-1], mirrored), "exchanged": (labels.T, exchanged)}
    for name, (array, matrix) in stored.items():
        mask = read_foreign_mask(nifti(tmp_path / f"{name}.nii.gz", array, matrix), classes=["gland", "nodule"])
        np.testing.assert_array_equal(in_place_of(mask, reference), labels, err_msg=name)
    elsewhere = read_foreign_mask(nifti(tmp_path / "identity.nii.gz", labels), classes=["gland", "nodule"])
    with pytest.raises(ValueError, match="lies elsewhere in the patient"):
        in_place_of(elsewhere, reference)
    np.testing.assert_array_equal(in_place_of(ForeignMask(labels), reference), labels)


def test_a_segmentation_lies_where_dicom_says(tmp_path: Path) -> None:
    """DICOM's x and y run the other way round than NIfTI's."""
    labels, names = marker(), {1: "gland", 2: "nodule"}
    reference = read_foreign_mask(
        nifti(tmp_path / "reference.nii.gz", labels, np.diag([-0.25, -0.5, 1, 1])), classes=list(names.values())
    )
    straight = seg(tmp_path / "straight.dcm", labels, names=names, place=True)
    flipped = seg(tmp_path / "flipped.dcm", labels[:, ::-1], names=names, place=True, flipped=True)
    for path in (straight, flipped):
        mask = read_foreign_mask(path, classes=list(names.values()))
        assert mask.spacing == (0.5, 0.25)
        np.testing.assert_array_equal(in_place_of(mask, reference), labels, err_msg=path.name)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"is 9 x 6 \(width x height\) but its reference 6 x 9"):
        in_place_of(ForeignMask(marker()), ForeignMask(marker().T))


def test_a_reference_may_have_grey_edges_and_a_prediction_may_not(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=60)
    np.testing.assert_array_equal(read_foreign_mask(tmp_path / "a.jpg", classes=["x"], truth=True).labels, mask > 0)
    with pytest.raises(UserError, match="lossy format"):
        read_foreign_mask(tmp_path / "a.jpg", classes=["x"])
