"""Writing predicted masks and overlays beside, not over, what was read."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, SaveImage
from PIL import Image
from scipy import ndimage

from monai_thyroid.data.reading import IMAGE_SUFFIXES, NIFTI_SUFFIXES, nifti_volume, read_raster, to_channels

__all__ = ["SaveMaskd", "SaveOverlayd", "overlay", "stem"]

logger = logging.getLogger(__name__)


def stem(path: str | os.PathLike[str]) -> str:
    """A file's name without the suffix of an image, ``.nii.gz`` taken as one.

    Other dots are part of the name: scanners name DICOM files by their UID, without a suffix.
    """
    name = Path(path).name
    for suffix in sorted(IMAGE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


class _Saver(MapTransform):
    """A transform that writes something of each item into one folder.

    Args:
        keys: keys of masks of 0 and 1, (1, width, height), on the original grid.
        output_dir: made when the first file is written.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __init__(self, keys: KeysCollection, *, output_dir: str, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir = output_dir

    def target(self, mask: MetaTensor, ending: str) -> Path:
        """Where to write, in a folder that exists: the image's name with another ending."""
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{stem(mask.meta['filename_or_obj'])}{ending}"


class SaveMaskd(_Saver):
    """Write a predicted mask as ``<stem>_mask.png`` of 0 and 255, or as NIfTI of 0 and 1 where the image was NIfTI.

    Pictures are written by MONAI's `SaveImage`, which undoes the axis order in which `LoadScand` reads, so that the
    mask lies on the original image pixel by pixel; a NIfTI mask has its image's affine, units and shape.

    Args:
        keys: keys of masks of 0 and 1, (1, width, height), on the original grid.
        output_dir: made when the first mask is written.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the masks of one item and pass it on."""
        result = dict(data)
        for key in self.key_iterator(result):
            mask = result[key]
            source = mask.meta["filename_or_obj"]
            if source.lower().endswith(NIFTI_SUFFIXES):
                target = self.target(mask, "_mask.nii.gz")
                _save_nifti(np.asarray(mask[0].cpu()), target, like=source)
            else:
                target = self.target(mask, "_mask.png")
                saver = SaveImage(output_dir=self.output_dir, output_ext=".png", output_dtype=np.uint8, print_log=False)
                saver(mask * 255, filename=str(target).removesuffix(".png"))
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
    """Write the original image with the outline of a predicted mask as ``<stem>_overlay.png``.

    Args:
        keys: keys of masks of 0 and 1, (1, width, height), on the original grid.
        output_dir: made when the first overlay is written.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the overlays of one item and pass it on."""
        result = dict(data)
        for key in self.key_iterator(result):
            mask = np.swapaxes(np.asarray(result[key][0].cpu()) > 0.5, 0, 1)
            picture = overlay(read_raster(result[key].meta["filename_or_obj"]).normalised(), mask)
            Image.fromarray(picture).save(self.target(result[key], "_overlay.png"))
        return result


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw the outline of a mask on an image, pixels of the image kept everywhere else.

    The line is sky blue between thin black ones, so that it shows on bright, dark and coloured ground and for every
    kind of colour vision.

    Args:
        image: (height, width) or (height, width, 3) in [0, 1].
        mask: bool, (height, width).

    Returns:
        uint8, (height, width, 3).
    """
    picture = np.rint(to_channels(image, 3) * 255).astype(np.uint8)
    width = max(1, round(max(mask.shape) / 400))
    padded = np.pad(mask, 1)
    inner = mask & ~ndimage.binary_erosion(padded, iterations=width)[1:-1, 1:-1]
    dark = (ndimage.binary_dilation(mask, iterations=width) & ~mask) | (
        ndimage.binary_erosion(padded, iterations=width)[1:-1, 1:-1]
        & ~ndimage.binary_erosion(padded, iterations=2 * width)[1:-1, 1:-1]
    )
    picture[dark] = 0
    picture[inner] = (86, 180, 233)
    return picture
