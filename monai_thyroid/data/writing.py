"""Writing predicted masks and overlays beside, not over, what was read."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from PIL import Image
from scipy import ndimage

from monai_thyroid.data.reading import IMAGE_SUFFIXES, NIFTI_SUFFIXES, nifti_volume, read_raster, to_channels

__all__ = ["SaveMaskd", "SaveOverlayd", "overlay", "save_label", "stem"]

logger = logging.getLogger(__name__)

# Okabe and Ito's palette, told apart by every kind of colour vision; further classes repeat it.
_COLOURS = np.array(
    [(86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0), (0, 114, 178)],
    dtype=np.uint8,
)


def stem(path: str | os.PathLike[str]) -> str:
    """A file's name without the suffix of an image, ``.nii.gz`` taken as one.

    Other dots are part of the name: scanners name DICOM files by their UID, without a suffix.
    """
    name = Path(path).name
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def save_label(labels: np.ndarray, path: str | os.PathLike[str], *, classes: int) -> None:
    """Write class numbers as a PNG that both eyes and `read_labels` understand.

    Args:
        labels: (height, width), whole numbers 0 to ``classes``.
        path: the file.
        classes: one class is written as 0 and 255; several as palette indices, each with a colour of its own.
    """
    if classes == 1:
        picture = Image.fromarray((labels > 0).astype(np.uint8) * 255)
    else:
        picture = Image.fromarray(labels.astype(np.uint8)).convert("P")
        colours = np.resize(_COLOURS, (classes, 3))
        picture.putpalette(np.concatenate([np.zeros((1, 3), np.uint8), colours]).tobytes())
    picture.save(path)


class _Saver(MapTransform):
    """A transform that writes something of each item into one folder.

    Args:
        keys: keys of class numbers, (1, width, height), 0 is background, on the original grid.
        output_dir: made when the first file is written.
        classes: names of the classes without background, or their number.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        output_dir: str,
        classes: Sequence[str] | int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = output_dir
        self.classes = classes if isinstance(classes, int) else len(classes)

    def target(self, mask: MetaTensor, ending: str) -> Path:
        """Where to write, in a folder that exists: the image's name with another ending."""
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{stem(mask.meta['filename_or_obj'])}{ending}"


class SaveMaskd(_Saver):
    """Write predicted class numbers as ``<stem>_mask.png``, or as NIfTI where the image was NIfTI.

    A PNG holds 0 and 255 for one class, palette indices for several, see `save_label`; it lies on the original image
    pixel by pixel. A NIfTI mask holds the class numbers and has its image's affine, units and shape.

    Args:
        keys: keys of class numbers, (1, width, height), 0 is background, on the original grid.
        output_dir: made when the first mask is written.
        classes: names of the classes without background, or their number.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks of one item and pass it on."""
        result = dict(data)
        for key in self.key_iterator(result):
            mask = result[key]
            source = mask.meta["filename_or_obj"]
            numbers = np.asarray(mask[0].cpu())
            if source.lower().endswith(NIFTI_SUFFIXES):
                target = self.target(mask, "_mask.nii.gz")
                _save_nifti(numbers, target, like=source)
            else:
                target = self.target(mask, "_mask.png")
                # LoadScand reads the width first, as MONAI does.
                save_label(numbers.T, target, classes=self.classes)
            logger.info("%s -> %s", source, target)
        return result


def _save_nifti(mask: np.ndarray, path: Path, *, like: str) -> None:
    """Write a mask, (width, height), with the header of its image; MONAI's writer drops an axis of one slice."""
    import nibabel

    image = nifti_volume(Path(like).read_bytes())
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header["cal_min"] = header["cal_max"] = 0  # the image's own display window
    nibabel.save(nibabel.Nifti1Image(mask.astype(np.uint8).reshape(image.shape), image.affine, header), path)


class SaveOverlayd(_Saver):
    """Write the original image with the outlines of predicted classes as ``<stem>_overlay.png``.

    Args:
        keys: keys of class numbers, (1, width, height), 0 is background, on the original grid.
        output_dir: made when the first overlay is written.
        classes: names of the classes without background, or their number.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the overlays of one item and pass it on."""
        result = dict(data)
        for key in self.key_iterator(result):
            labels = np.rint(np.asarray(result[key][0].cpu())).astype(np.uint8).T
            picture = read_raster(result[key].meta["filename_or_obj"]).normalised()
            Image.fromarray(overlay(picture, labels)).save(self.target(result[key], "_overlay.png"))
        return result


def overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw the outlines of classes on an image, pixels of the image kept everywhere else.

    The line of the first class is sky blue, of the second orange, between thin black ones, so that it shows on bright,
    dark and coloured ground and for every kind of colour vision.

    Args:
        image: (height, width) or (height, width, 3) in [0, 1].
        labels: (height, width), class numbers, or booleans for one class.

    Returns:
        uint8, (height, width, 3).
    """
    picture = np.rint(to_channels(image, 3) * 255).astype(np.uint8)
    width = max(1, round(max(labels.shape) / 400))
    numbers = range(1, int(labels.max(initial=0)) + 1)
    lines = {number: _lines(labels == number, width) for number in numbers}
    for _, dark in lines.values():
        picture[dark] = 0
    for number, (line, _) in lines.items():
        picture[line] = _COLOURS[(number - 1) % len(_COLOURS)]
    return picture


def _lines(mask: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The line along the inside of a mask's border, and the dark ones at both of its sides."""

    def shrunk(by: int) -> np.ndarray:
        result: np.ndarray = ndimage.binary_erosion(np.pad(mask, 1), iterations=by)[1:-1, 1:-1]
        return result

    dark = (ndimage.binary_dilation(mask, iterations=width) & ~mask) | (shrunk(width) & ~shrunk(2 * width))
    return mask & ~shrunk(width), dark
