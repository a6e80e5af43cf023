"""Predictions of an item, written beside, not over, what was read."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import MapTransform

from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path
from monai_thyroid.images import made_here, mask_suffix, read_raster, save_mask, save_overlay, stem

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

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write what belongs to one item and pass it on.

        Raises:
            UserError: a file is there that this package has not written.
        """
        result = dict(data)
        folder = Path(self.output_dir)
        for key in self.key_iterator(result):
            image = result[key].meta["filename_or_obj"]
            # LoadScand reads the width first, as MONAI does.
            mask = np.rint(np.asarray(result[key][0].cpu())).astype(np.uint8).T
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{stem(image)}{self.ending(image)}"
            if path.exists() and not made_here(path):
                raise UserError(f"{path}: would be replaced, but monai_thyroid has not written it; give another folder")
            with atomic_path(path) as temporary:
                self.write(mask, temporary, image)
            logger.info("%s -> %s", image, path)
        return result

    @abstractmethod
    def ending(self, image: str) -> str:
        """What the name of the file has behind the image's."""

    @abstractmethod
    def write(self, mask: np.ndarray, path: Path, image: str) -> None:
        """Write the file of a mask, (height, width), uint8."""


class SaveMaskd(_Saver):
    """Write predicted class numbers as ``<stem>_mask.png``, or as NIfTI where the image was NIfTI; see `save_mask`.

    A PNG lies on the original image pixel by pixel. A NIfTI mask has its image's affine, units and shape.

    Args:
        keys: keys of class numbers, (1, width, height), 0 is background, on the original grid.
        output_dir: made when the first mask is written.
        classes: names of the classes without background, or their number.
        allow_missing_keys: skip keys that an item lacks.
    """

    def ending(self, image: str) -> str:
        """As `mask_suffix`."""
        return f"_mask{mask_suffix(image)}"

    def write(self, mask: np.ndarray, path: Path, image: str) -> None:
        """As `save_mask`."""
        save_mask(mask, path, image=image, classes=self.classes)


class SaveOverlayd(_Saver):
    """Write the original image with the outlines of predicted classes as ``<stem>_overlay.png``.

    Args:
        keys: keys of class numbers, (1, width, height), 0 is background, on the original grid.
        output_dir: made when the first overlay is written.
        classes: names of the classes without background, or their number.
        allow_missing_keys: skip keys that an item lacks.
    """

    def ending(self, image: str) -> str:
        """Always a PNG's."""
        return "_overlay.png"

    def write(self, mask: np.ndarray, path: Path, image: str) -> None:
        """As `save_overlay`."""
        save_overlay(read_raster(image).normalised(), mask, path)
