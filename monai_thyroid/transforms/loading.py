"""Images and masks of an item, loaded from their paths."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data import MetaTensor
from monai.transforms import MapTransform

from monai_thyroid.errors import UserError
from monai_thyroid.images import Raster, class_numbers_of, masks_by_class, read_raster, to_channels

__all__ = ["LoadMaskd", "LoadScand"]


class LoadScand(MapTransform):
    """Replace the path under each key by the image as a `MetaTensor` (channels, width, height), float32 in [0, 1].

    Width comes before height because that is MONAI's order for pictures, which `SaveImage` undoes when it writes a
    PNG. MONAI's own `LoadImaged` keeps whatever channels a file has, and turns to other readers where one refuses a
    file. The metadata hold ``spacing_yx`` in mm (NaN where unknown) and, for NIfTI, the affine. Where the file does
    not tell the spacing, an item's own ``spacing`` ("y,x" in mm, as HC18's table gives it) stands in.

    Args:
        keys: keys of the paths.
        channels: 1 (grey) or 3 (RGB): images are converted, whatever their file holds.
        allow_missing_keys: skip keys that an item lacks.

    Raises:
        UserError: as `read_raster`.
    """

    def __init__(self, keys: KeysCollection, *, channels: int = 1, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3):
            raise UserError(f"channels must be 1 (grey) or 3 (RGB), not {channels!r}")
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key of one item."""
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            raster = read_raster(loaded[key])
            if raster.spacing is None and loaded.get("spacing"):
                y, x = (float(size) for size in loaded["spacing"].split(","))
                raster = replace(raster, spacing=(y, x))
            loaded[key] = self.tensor(raster, name=loaded[key])
        return loaded

    def tensor(self, raster: Raster, *, name: PathLike = "") -> MetaTensor:
        """What an image that was read already is loaded as; its name goes to the metadata."""
        return _meta_tensor(to_channels(raster.normalised(), self.channels), raster, name)


class LoadMaskd(MapTransform):
    """Replace the path under each key by masks: a `MetaTensor` (classes, width, height) of 0 and 1, float32.

    Args:
        keys: keys of the paths.
        classes: how many classes a label has, background not counted; one channel each, see `read_labels`. May be
            given as their names.
        background: put a channel of the background before them, as softmax wants it.
        allow_missing_keys: skip keys that an item lacks.

    Raises:
        UserError: as `read_labels`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        classes: int | Sequence[str] = 1,
        background: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.classes = classes if isinstance(classes, int) else len(classes)
        self.background = background

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key of one item."""
        loaded = dict(data)
        for key in self.key_iterator(loaded):
            raster = read_raster(loaded[key], mask=True, indices=self.classes > 1)
            masks = masks_by_class(class_numbers_of(raster.pixels, loaded[key], classes=self.classes), self.classes)
            if self.background:
                masks = np.concatenate([~masks.any(axis=0, keepdims=True), masks])
            loaded[key] = _meta_tensor(np.moveaxis(masks, 0, 2).astype(np.float32), raster, loaded[key])
        return loaded


def _meta_tensor(array: np.ndarray, raster: Raster, name: PathLike) -> MetaTensor:
    channel_first = array[None] if array.ndim == 2 else np.moveaxis(array, 2, 0)
    tensor = torch.from_numpy(np.ascontiguousarray(np.swapaxes(channel_first, 1, 2)))
    affine = torch.from_numpy(np.eye(4) if raster.affine is None else raster.affine)
    meta = {
        "filename_or_obj": os.fspath(name),
        "original_affine": affine.clone(),
        "spatial_shape": np.asarray(tensor.shape[1:]),
        "original_channel_dim": float("nan"),
        "space": "RAS",
        "spacing_yx": np.asarray(raster.spacing or (float("nan"), float("nan"))),
    }
    return MetaTensor(tensor, affine=affine, meta=meta)
