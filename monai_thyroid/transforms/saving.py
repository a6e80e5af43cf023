"""Predictions of an item, written beside, not over, what was read."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path
from monai_thyroid.images import (
    NIFTI_SUFFIXES,
    made_here,
    overlay,
    png_mark,
    read_raster,
    save_label,
    save_nifti,
    stem,
)

__all__ = ["SaveMaskd", "SaveOverlayd"]

logger = logging.getLogger(__name__)


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

    @contextmanager
    def target(self, mask: MetaTensor, ending: str) -> Iterator[Path]:
        """Where to write: the image's name with another ending, put in its place when complete.

        Raises:
            UserError: a file is there that this package has not written.
        """
        folder = Path(self.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stem(mask.meta['filename_or_obj'])}{ending}"
        if path.exists() and not made_here(path):
            raise UserError(f"{path}: would be replaced, but monai_thyroid has not written it; give another folder")
        with atomic_path(path) as temporary:
            yield temporary
        logger.info("%s -> %s", mask.meta["filename_or_obj"], path)


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
                with self.target(mask, "_mask.nii.gz") as file:
                    save_nifti(numbers, file, like=source)
            else:
                with self.target(mask, "_mask.png") as file:
                    # LoadScand reads the width first, as MONAI does.
                    save_label(numbers.T, file, classes=self.classes)
        return result


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
            with self.target(result[key], "_overlay.png") as file:
                Image.fromarray(overlay(picture, labels)).save(file, pnginfo=png_mark())
        return result
