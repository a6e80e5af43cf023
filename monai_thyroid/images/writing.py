"""Writing predicted masks and overlays beside, not over, what was read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from monai_thyroid.drawing import CLASSES, paint_outlines, rgb
from monai_thyroid.images.marks import MARK, png_mark
from monai_thyroid.images.nifti import NIFTI_SUFFIXES, nifti_volume
from monai_thyroid.images.raster import to_channels

__all__ = ["mask_suffix", "overlay", "save_label", "save_mask", "save_overlay"]


def mask_suffix(image: str | os.PathLike[str]) -> str:
    """How the name of an image's mask ends: that of NIfTI is NIfTI too, that of all else PNG."""
    return ".nii.gz" if os.fspath(image).lower().endswith(NIFTI_SUFFIXES) else ".png"


def save_mask(mask: np.ndarray, path: Path, *, image: str, classes: int) -> None:
    """Write the mask of an image, marked as ours: as `save_label`, or with the header of an image that is NIfTI.

    Args:
        mask: (height, width), whole numbers 0 to ``classes``, pixel by pixel that of the image.
        path: a file that ends in `mask_suffix`.
        image: the image's file.
        classes: how many there are.
    """
    if mask_suffix(image) == ".png":
        save_label(mask, path, classes=classes)
    else:
        _save_nifti(mask.T, path, like=image)


def save_overlay(image: np.ndarray, mask: np.ndarray, path: Path) -> None:
    """Write `overlay` as a PNG, marked as ours."""
    Image.fromarray(overlay(image, mask)).save(path, pnginfo=png_mark())


def save_label(labels: np.ndarray, path: str | os.PathLike[str] | BinaryIO, *, classes: int) -> None:
    """Write class numbers as a marked PNG that both eyes and `read_labels` understand.

    Args:
        labels: (height, width), whole numbers 0 to ``classes``.
        path: the file, or one that is open for writing.
        classes: one class is written as 0 and 255; several as palette indices, each with a colour of its own.
    """
    if classes == 1:
        picture = Image.fromarray((labels > 0).astype(np.uint8) * 255)
    else:
        picture = Image.fromarray(labels.astype(np.uint8)).convert("P")
        colours = np.resize(np.array([rgb(colour) for colour in CLASSES], np.uint8), (classes, 3))
        picture.putpalette(np.concatenate([np.zeros((1, 3), np.uint8), colours]).tobytes())
    picture.save(path, "PNG", pnginfo=png_mark())


def _save_nifti(mask: np.ndarray, path: Path, *, like: str) -> None:
    """Write a marked mask, (width, height), with the header of its image; MONAI's writer drops an axis of one slice."""
    import nibabel

    image = nifti_volume(Path(like).read_bytes())
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # the image's own display window
    header["descrip"] = MARK
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8).reshape(image.shape), image.affine, header), path)


def overlay(image: np.ndarray, labels: np.ndarray, *, fill: float = 0.0) -> np.ndarray:
    """Draw the outlines of classes on an image, pixels of the image kept everywhere else.

    The line of the first class is sky blue, of the second orange, between thin black ones, so that it shows on bright,
    dark and coloured ground and for every kind of colour vision.

    Args:
        image: (height, width) or (height, width, 3) in [0, 1].
        labels: (height, width), class numbers, or booleans for one class.
        fill: how opaque the inside is filled with the class's colour, 0 (not at all) to 1.

    Returns:
        uint8, (height, width, 3).
    """
    picture = np.rint(to_channels(image, 3) * 255).astype(np.uint8)
    masks = [labels == number for number in range(1, int(labels.max(initial=0)) + 1)]
    for number, mask in enumerate(masks if fill else []):
        colour = np.array(rgb(CLASSES[number % len(CLASSES)]), np.float32)
        picture[mask] = np.rint((1 - fill) * picture[mask] + fill * colour).astype(np.uint8)
    paint_outlines(picture, masks, colours=CLASSES, width=max(1, round(max(labels.shape) / 400)))
    return picture
