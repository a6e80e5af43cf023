"""Masks that other tools made: every image format, ``.npy`` and DICOM SEG, read strictly, with their place in space."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.images.dicom import has_dicom_preamble
from monai_thyroid.images.formats import file_bytes, is_image, printable, read_file, stem
from monai_thyroid.images.nifti import NIFTI_SUFFIXES, nifti_geometry
from monai_thyroid.images.raster import binarise, check_pixels
from monai_thyroid.images.reading import label_problem, mask_problem

__all__ = ["ForeignMask", "in_place_of", "is_mask_file", "mask_stem", "read_foreign_mask"]

_NPY = ".npy"
_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_LABELMAP = "1.2.840.10008.5.1.4.1.1.66.7"
_FULL = (1.0, 255.0, 65535.0)  # how tools write the foreground of a mask of one class
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM's x runs to the left, its y to the back


@dataclass(frozen=True)
class ForeignMask:
    """A mask.

    Attributes:
        labels: (height, width), uint8; 0 is background, 1 to the number of classes their numbers.
        spacing: mm between pixel centres, (y, x), or None where the file does not say.
        corners: where the centres of the four corner pixels lie in the patient, (2, 2, 3), by row and column, in mm to
            the right, front and top; None where the file does not say.
    """

    labels: np.ndarray
    spacing: tuple[float, float] | None = None
    corners: np.ndarray | None = None


def is_mask_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file may be a mask: an image or an array."""
    return is_image(path) or str(path).lower().endswith(_NPY)


def mask_stem(path: str | os.PathLike[str]) -> str:
    """A mask's file name without its suffix."""
    name = Path(path).name
    return name[: -len(_NPY)] if name.lower().endswith(_NPY) else stem(path)


def read_foreign_mask(path: str | os.PathLike[str], *, classes: Sequence[str], truth: bool = False) -> ForeignMask:
    """Read a mask that says of each pixel which class it is: of a prediction, nothing is thresholded or guessed.

    Args:
        path: an image file whose numbers (of a palette, the indices) are the classes'; an array in a ``.npy`` file,
            (height, width); or a DICOM SEG of one image, whose segments' numbers are the classes'.
        classes: names of the classes 1, 2, ...; of a single class the foreground may be 1, 255 or 65535.
        truth: it is a reference: an image file is read as datasets are, where a single class may have any two levels,
            with the grey edges that JPEG leaves, see `binarise` and `mask_problem`.

    Raises:
        UserError: it cannot be read, or holds anything else: probabilities, other numbers, NaN, colours, several
            slices, segments that overlap. The message names the file.
    """
    name = printable(os.fspath(path))
    content = file_bytes(path)
    if name.lower().endswith(_NPY):
        return ForeignMask(_numbers(_array(name, content), name, classes))
    if has_dicom_preamble(content) and (dataset := _segmentation(content)) is not None:
        return _read_seg(dataset, name, classes)
    several = len(classes) > 1
    raster = read_file(path, content=content, use="label" if several or not truth else "mask")
    if several or not truth:
        labels = _numbers(raster.pixels, name, classes)
    elif problem := mask_problem(raster.pixels, lossy=name.lower().endswith((".jpg", ".jpeg"))):
        raise UserError(f"{name}: {problem}")
    else:
        labels = binarise(raster.pixels).astype(np.uint8)
    corners = None
    if name.lower().endswith(NIFTI_SUFFIXES) and (affine := nifti_geometry(content)) is not None:
        height, width = raster.pixels.shape[:2]
        corners = _corners(affine[:3, 3], affine[:3, 0], affine[:3, 1], height=height, width=width)
    return ForeignMask(labels, raster.spacing, corners)


def in_place_of(mask: ForeignMask, reference: ForeignMask) -> np.ndarray:
    """The numbers of a mask on the grid of another one, turned or mirrored where both files say that they lie so.

    Raises:
        ValueError: they are of different size, or do not lie in the same place; says what is wrong.
    """
    labels = mask.labels
    if mask.corners is not None and reference.corners is not None:
        pixel = np.linalg.norm(reference.corners[1, 1] - reference.corners[0, 0]) / max(reference.labels.shape)
        for transposed, *flips in itertools.product((False, True), repeat=3):
            corners, turned = mask.corners, labels
            if transposed:
                corners, turned = corners.swapaxes(0, 1), turned.T
            for axis in (0, 1):
                if flips[axis]:
                    corners, turned = np.flip(corners, axis), np.flip(turned, axis)
            if np.abs(corners - reference.corners).max() <= 0.1 * pixel:
                labels = turned
                break
        else:
            raise ValueError("lies elsewhere in the patient than its reference, by the positions in both files")
    if labels.shape != reference.labels.shape:
        sizes = [f"{shape[1]} x {shape[0]}" for shape in (labels.shape, reference.labels.shape)]
        raise ValueError(
            f"is {sizes[0]} (width x height) but its reference {sizes[1]}; map predictions back to the original grid"
        )
    return labels


def _array(name: str, content: bytes) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, EOFError, ValueError, MemoryError) as error:
        raise UserError(f"{name}: cannot be read as an array ({error})") from error
    shape = array.shape
    if len(shape) != 2:
        kept = tuple(size for size in shape if size != 1)
        if len(kept) != 2:
            raise UserError(f"{name}: has shape {shape}; give class numbers (height, width), one array a file")
        array = array.reshape(kept)
    check_pixels(name, array.shape[1], array.shape[0])
    return np.asarray(array)


def _numbers(pixels: np.ndarray, name: str, classes: Sequence[str]) -> np.ndarray:
    """Class numbers, (height, width), uint8.

    Raises:
        UserError: the pixels are something else.
    """
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8)
    if pixels.dtype.kind not in "uif" or 0 in pixels.shape:
        raise UserError(f"{name}: holds {pixels.dtype} of shape {pixels.shape}; give class numbers, a pixel each")
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise UserError(f"{name}: holds numbers that are not finite (NaN or infinite)")
    if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    if len(classes) == 1 and pixels.ndim == 2:
        high = pixels.max()
        if float(high) in _FULL and ((pixels == 0) | (pixels == high)).all():
            pixels = pixels == high
    problem = label_problem(pixels, classes=len(classes))
    if problem is None:
        found: np.ndarray = (pixels[..., 0] if pixels.ndim == 3 else pixels).astype(np.uint8)
        return found
    if pixels.ndim == 2 and (whole := np.floor(pixels) != pixels).any():
        raise UserError(
            f"{name}: is a soft mask (such as {float(pixels[whole].flat[0]):g}); decide each pixel before scoring"
        )
    if len(classes) == 1 and pixels.ndim == 2 and len(levels := np.unique(pixels)) > 2:
        raise UserError(
            f"{name}: holds {len(levels)} grey levels, of a soft mask or a lossy format; decide each pixel before "
            "scoring, and save 0 and 255, or 0 and 1"
        )
    if len(classes) == 1 and pixels.ndim == 2:
        raise UserError(f"{name}: {problem.partition(';')[0]}; of one class the background is 0, the rest 1 or 255")
    raise UserError(f"{name}: {problem}")


def _segmentation(content: bytes) -> Any:
    """The DICOM object if it is a segmentation, None if it is an image."""
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(content))
    return dataset if str(dataset.get("SOPClassUID", "")) in (_SEG, _LABELMAP) else None


def _read_seg(dataset: Any, name: str, classes: Sequence[str]) -> ForeignMask:
    height, width = int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0)
    check_pixels(name, width, height)
    segments = {int(one.SegmentNumber): str(one.get("SegmentLabel", "")) for one in dataset.get("SegmentSequence", [])}
    if str(dataset.SOPClassUID) == _LABELMAP:
        segments.pop(0, None)  # the background
    _check_segments(segments, name, classes)
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or []
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    kind = "LABELMAP" if str(dataset.SOPClassUID) == _LABELMAP else str(dataset.get("SegmentationType", "BINARY"))
    pixels = np.asarray(dataset.pixel_array).reshape(count, height, width)
    if kind == "FRACTIONAL":
        highest = int(dataset.get("MaximumFractionalValue", 255))
        if not np.isin(pixels, (0, highest)).all():
            raise UserError(f"{name}: is a soft mask (a fractional segmentation); decide each pixel before scoring")
        pixels = pixels > 0
    if kind == "LABELMAP":
        if count > 1:
            raise UserError(f"{name}: holds {count} frames; give a segmentation of one image a file")
        if problem := label_problem(pixels[0], classes=len(classes)):
            raise UserError(f"{name}: {problem}")
        labels = pixels[0].astype(np.uint8)
    else:
        numbers = [_segment_of(frame, dataset) for frame in frames] if frames else sorted(segments)[:count]
        if len(numbers) != count or len(set(numbers)) < count:
            raise UserError(
                f"{name}: holds {count} frames of {len(set(numbers))} segments; give a segmentation of one image a file"
            )
        if count and (np.count_nonzero(pixels, axis=0) > 1).any():
            raise UserError(f"{name}: its segments overlap, but each pixel is of one class; part them before scoring")
        labels = np.zeros((height, width), np.uint8)
        for number, frame in zip(numbers, pixels, strict=True):
            labels[frame > 0] = number
    spacing, corners = _place(dataset, frames[0] if frames else None, height=height, width=width)
    return ForeignMask(labels, spacing, corners)


def _check_segments(segments: dict[int, str], name: str, classes: Sequence[str]) -> None:
    """Refuse segments that are none of the classes, or that say that they are another class."""
    if strange := sorted(number for number in segments if not 1 <= number <= len(classes)):
        told = ", ".join(f"{number} ({segments[number]})" for number in strange)
        raise UserError(f"{name}: has the segment {told}; the {len(classes)} classes are numbered 1 to {len(classes)}")
    known = {one.casefold(): number for number, one in enumerate(classes, 1)}
    for number, label in segments.items():
        if (named := known.get(label.casefold(), number)) != number:
            raise UserError(f"{name}: its segment {number} is called {label}, which is class {named} ({label})")


def _segment_of(frame: Any, dataset: Any) -> int:
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]
    for groups in (frame, shared):
        if groups is not None and groups.get("SegmentIdentificationSequence"):
            return int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    return 0


def _place(
    dataset: Any, frame: Any, *, height: int, width: int
) -> tuple[tuple[float, float] | None, np.ndarray | None]:
    """Spacing and corners by a segmentation's functional groups."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [None])[0]

    def found(sequence: str, attribute: str) -> np.ndarray | None:
        for groups in (frame, shared):
            if groups is not None and groups.get(sequence) and groups[sequence][0].get(attribute) is not None:
                return np.array([float(value) for value in groups[sequence][0].get(attribute)])
        return None

    measure = found("PixelMeasuresSequence", "PixelSpacing")
    direction = found("PlaneOrientationSequence", "ImageOrientationPatient")
    position = found("PlanePositionSequence", "ImagePositionPatient")
    if measure is None or len(measure) != 2 or (measure <= 0).any():
        return None, None
    spacing = (float(measure[0]), float(measure[1]))
    if direction is None or position is None:
        return spacing, None
    across, down = direction[:3] * spacing[1] * _TO_RAS, direction[3:] * spacing[0] * _TO_RAS
    return spacing, _corners(position * _TO_RAS, across, down, height=height, width=width)


def _corners(origin: np.ndarray, across: np.ndarray, down: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Of the centres of the corner pixels; ``across`` and ``down`` are the steps from pixel to pixel."""
    return np.array([[origin + across * x + down * y for x in (0, width - 1)] for y in (0, height - 1)])
