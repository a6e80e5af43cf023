"""One way to read an image or a mask, whatever the file: intensities in [0, 1], the channels that were asked for."""

from __future__ import annotations

import gzip
import importlib
import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.images.phantom import phantom_scan

__all__ = [
    "DICOM_SUFFIXES",
    "IMAGE_SUFFIXES",
    "NIFTI_SUFFIXES",
    "PICTURE_SUFFIXES",
    "SOURCE_SCHEMES",
    "Raster",
    "binarise",
    "class_numbers_of",
    "is_image",
    "label_problem",
    "masks_by_class",
    "nifti_volume",
    "phantom_uri",
    "read_labels",
    "read_mask",
    "read_masks",
    "read_raster",
    "to_channels",
]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
DICOM_SUFFIXES = (".dcm", ".dicom")
NIFTI_SUFFIXES = (".nii", ".nii.gz")
IMAGE_SUFFIXES = PICTURE_SUFFIXES + DICOM_SUFFIXES + NIFTI_SUFFIXES

_PHANTOM = "phantom"

SOURCE_SCHEMES = ("outline", "union", "contours", "npz")
"""What the name of an image that is not one picture file begins with, see `monai_thyroid.images.sources`."""
_SOURCES = tuple(f"{scheme}:" for scheme in SOURCE_SCHEMES)


@dataclass(frozen=True)
class Raster:
    """An image as it is in its file.

    Attributes:
        pixels: (height, width) or (height, width, 3), the file's own numbers; MONOCHROME1 already inverted, colour
            spaces already turned to RGB, alpha dropped, palettes looked up.
        full_scale: ``(black, white)``: the numbers that stand for 0 and 1. By the bit depth where it is 8 (or 1);
            else by the file's display window, else by the smallest and largest pixel.
        spacing: mm between pixel centres, (y, x), or None where the file does not say.
        affine: the 4x4 matrix of a NIfTI file, else None.
    """

    pixels: np.ndarray
    full_scale: tuple[float, float]
    spacing: tuple[float, float] | None = None
    affine: np.ndarray | None = None

    def normalised(self) -> np.ndarray:
        """The pixels as float32 in [0, 1]."""
        black, white = self.full_scale
        scaled = (self.pixels.astype(np.float32) - black) / max(white - black, 1e-12)
        return np.clip(scaled, 0.0, 1.0)


def is_image(path: str | os.PathLike[str]) -> bool:
    """Whether the file's name ends like an image this package reads."""
    return str(path).lower().endswith(IMAGE_SUFFIXES)


def phantom_uri(kind: Literal["image", "label"], *, case: int, view: int, seed: int, classes: int = 1) -> str:
    """A name under which `read_raster` makes a synthetic scan instead of reading a file.

    Args:
        kind: the scan or its label.
        case: index of the patient.
        view: index of the scan.
        seed: of the synthetic patients.
        classes: of the label: 1 nodule; 2 gland, nodule; 3 gland, benign-looking and malignant-looking nodule.
    """
    kind_name = f"{kind}{classes}" if kind == "label" and classes > 1 else kind
    return f"{_PHANTOM}:{seed}:{case}:{view}:{kind_name}"


def read_raster(path: str | os.PathLike[str], *, content: bytes | None = None, indices: bool = False) -> Raster:
    """Read one 2-D image.

    Args:
        path: PNG, JPEG, BMP, TIFF, DICOM (also without a suffix), NIfTI, a name from `phantom_uri`, or a source of
            `monai_thyroid.images.sources`.
        content: the file's bytes where they are already in memory.
        indices: give the indices of a picture with a palette, which number the classes of a label, not its colours.

    Raises:
        UserError: the file is missing, unreadable, truncated, of more than one frame or slice, or of a mode that is
            neither grey nor colour. The message names the file.
    """
    name = os.fspath(path)
    if name.startswith(_PHANTOM + ":"):
        return _make_phantom(name)
    if name.startswith(_SOURCES):
        from monai_thyroid.images.sources import read_source  # it reads the files behind a source with this module

        return read_source(name)
    try:
        if content is None:
            content = Path(name).read_bytes()
        if name.lower().endswith(NIFTI_SUFFIXES):
            return _read_nifti(name, content)
        if content[128:132] == b"DICM" or name.lower().endswith(DICOM_SUFFIXES):
            return _read_dicom(name, content)
        return _read_picture(name, content, indices=indices)
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file") from error
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise UserError(f"{name}: cannot be read as an image ({type(error).__name__}: {error})") from error


def _make_phantom(name: str) -> Raster:
    _, seed, case, view, kind = name.split(":")
    classes = int(kind[len("label") :] or 1) if kind.startswith("label") else 1
    scan = phantom_scan(int(case), int(view), seed=int(seed), multiclass=classes > 1)
    if kind == "image":
        return Raster(pixels=scan.image, full_scale=(0.0, 255.0))
    if classes > 1:
        return Raster(pixels=np.minimum(scan.label, np.uint8(classes)), full_scale=(0.0, 255.0))
    return Raster(pixels=scan.label * np.uint8(255), full_scale=(0.0, 255.0))


def _read_picture(name: str, content: bytes, *, indices: bool) -> Raster:
    with warnings.catch_warnings(), Image.open(io.BytesIO(content)) as picture:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        if getattr(picture, "n_frames", 1) > 1:
            raise UserError(f"{name}: holds {picture.n_frames} frames; give one image a file, only 2-D is supported")
        mode = picture.mode
        if mode in ("1", "L", "LA", "La"):
            return Raster(pixels=np.asarray(picture.convert("L")), full_scale=(0.0, 255.0))
        if mode == "P" and indices:
            return Raster(pixels=np.asarray(picture), full_scale=(0.0, 255.0))
        if mode in ("P", "PA"):
            # A palette of greys is a grey image; its indices are not intensities.
            colour = np.asarray(picture.convert("RGB"))
            grey = (colour[..., 0] == colour[..., 1]).all() and (colour[..., 1] == colour[..., 2]).all()
            return Raster(pixels=colour[..., 0] if grey else colour, full_scale=(0.0, 255.0))
        if mode in ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"):
            return Raster(pixels=np.asarray(picture.convert("RGB")), full_scale=(0.0, 255.0))
        if mode.startswith(("I", "F")):
            pixels = np.asarray(picture)
            if not np.isfinite(pixels).all():
                raise UserError(f"{name}: holds numbers that are not finite")
            return Raster(pixels=pixels, full_scale=(float(pixels.min()), float(pixels.max())))
        raise UserError(f"{name}: pixel mode {mode} is neither grey nor colour")


def _read_dicom(name: str, content: bytes) -> Raster:
    import pydicom

    try:
        pixel_module: Any = importlib.import_module("pydicom.pixels")
    except ImportError:  # pydicom 2.4
        pixel_module = importlib.import_module("pydicom.pixel_data_handlers.util")
    dataset = pydicom.dcmread(io.BytesIO(content), force=True)
    if "PixelData" not in dataset:
        raise UserError(f"{name}: a DICOM object without pixels")
    frames = int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        raise UserError(f"{name}: holds {frames} frames; give one image a file, only 2-D is supported")
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


def nifti_volume(content: bytes) -> Any:
    """The nibabel image in a NIfTI file's bytes, compressed or not, whatever its name says."""
    import nibabel

    return nibabel.Nifti1Image.from_bytes(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)


def _read_nifti(name: str, content: bytes) -> Raster:
    volume = nifti_volume(content)
    array = np.asarray(volume.dataobj)
    colour = bool(array.dtype.names)
    if colour:  # an RGB24 volume is a structured array
        array = np.stack([array[channel] for channel in "RGB"], axis=-1)
        while array.ndim > 3 and array.shape[2] == 1:
            array = array[:, :, 0]
    else:
        while array.ndim > 2 and array.shape[-1] == 1:
            array = array[..., 0]
    if array.ndim != (3 if colour else 2):
        raise UserError(f"{name}: has shape {volume.shape}; give one slice a file, only 2-D is supported")
    if not np.isfinite(array).all():
        raise UserError(f"{name}: holds numbers that are not finite")
    zooms = volume.header.get_zooms()
    known = volume.header.get_xyzt_units()[0] == "mm"
    scale = (0.0, 255.0) if array.dtype == np.uint8 else (float(array.min()), float(array.max()))
    return Raster(
        # NIfTI's first index runs along x.
        pixels=np.swapaxes(array, 0, 1),
        full_scale=scale,
        spacing=(float(zooms[1]), float(zooms[0])) if known else None,
        affine=np.asarray(volume.affine, dtype=np.float64),
    )


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Turn (H, W) or (H, W, 3) in [0, 1] into the number of channels a network expects.

    Grey from colour is the luma of ITU-R BT.601, as Pillow does it; colour from grey is three equal channels.

    Args:
        image: (height, width) or (height, width, 3).
        channels: 1 or 3.

    Returns:
        (height, width) for one channel, (height, width, 3) for three.
    """
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if channels == 1 and image.ndim == 3:
        return image @ np.asarray([0.299, 0.587, 0.114], dtype=image.dtype)
    if channels == 3 and image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return image


def binarise(pixels: np.ndarray) -> np.ndarray:
    """Turn a mask of any two grey levels into booleans.

    The threshold is half-way between the darkest and the brightest pixel, so that the grey edges that JPEG and
    interpolation leave fall to the nearer side. A mask of one level is empty where that level is 0, else full.

    Args:
        pixels: (height, width), or (height, width, 3) for a mask stored in colour.

    Returns:
        bool, (height, width).
    """
    grey = to_channels(pixels.astype(np.float32), 1)
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return np.full(grey.shape, high > 0)
    return grey > (low + high) / 2


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a two-level mask as booleans, (height, width); see `read_raster` and `binarise`."""
    return binarise(read_raster(path).pixels)


def label_problem(pixels: np.ndarray, *, classes: int) -> str | None:
    """Say why an array cannot be a label of several classes, or None if it can.

    Args:
        pixels: (height, width), or (height, width, 3) with three equal channels; 0 is background, 1 to ``classes``
            number the classes.
        classes: how many there are, background not counted.
    """
    if pixels.ndim == 3:
        if (pixels[..., :1] != pixels).any():
            return f"is coloured; classes are numbered 1 to {classes} by grey level or palette index"
        pixels = pixels[..., 0]
    # A table of counts is a hundred times faster than sorting all pixels.
    if pixels.dtype == np.uint8:
        found = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256)).astype(np.float64)
    else:
        found = np.unique(pixels).astype(np.float64)
    strange = [f"{value:g}" for value in found if value not in range(classes + 1)]
    if not strange:
        return None
    shown = ", ".join(strange[:5]) + (f" and {len(strange) - 5} more values" if len(strange) > 5 else "")
    return f"holds {shown}; 0 is background and the {classes} classes are numbered 1 to {classes}"


def read_labels(path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read a label as class numbers.

    Args:
        path: as for `read_raster`.
        classes: how many classes there are, background not counted. With one, any two levels are told apart, see
            `binarise`; with more, the pixels (or palette indices) are the numbers.

    Returns:
        uint8, (height, width), 0 to ``classes``.

    Raises:
        UserError: as `read_raster`, or the file holds other numbers, see `label_problem`.
    """
    return class_numbers_of(read_raster(path, indices=classes > 1).pixels, path, classes=classes)


def read_masks(path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read a label as one mask a class: bool, (classes, height, width); see `read_labels`."""
    return masks_by_class(read_labels(path, classes=classes), classes)


def class_numbers_of(pixels: np.ndarray, path: str | os.PathLike[str], *, classes: int) -> np.ndarray:
    """Read the pixels of a label as class numbers; see `read_labels`, which reads the file too."""
    if classes == 1:
        return binarise(pixels).astype(np.uint8)
    if problem := label_problem(pixels, classes=classes):
        raise UserError(f"{os.fspath(path)}: {problem}")
    return (pixels[..., 0] if pixels.ndim == 3 else pixels).astype(np.uint8)


def masks_by_class(labels: np.ndarray, classes: int) -> np.ndarray:
    """Part class numbers, (height, width), into one mask a class: bool, (classes, height, width)."""
    masks: np.ndarray = labels[None] == np.arange(1, classes + 1, dtype=np.uint8)[:, None, None]
    return masks
