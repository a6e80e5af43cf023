"""Scenes of a video: where the picture's size or content jumps from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.images import read_raster, to_channels
from monai_thyroid.images.formats import file_bytes
from monai_thyroid.images.pictures import open_picture, shown_size, upright

__all__ = ["find_scenes", "thumbnail"]

_SIDE = 32


def thumbnail(path: str, *, side: int = _SIDE) -> tuple[np.ndarray, tuple[int, int]]:
    """A small grey copy of an image.

    Returns:
        float32 (side, side) in [0, 1], and the original's height and width.
    """
    try:
        with open_picture(path, file_bytes(path)) as picture:
            width, height = shown_size(picture)
            picture.draft("L", (2 * side, 2 * side))  # a JPEG is decoded at that scale, many times faster
            if picture.mode in ("L", "RGB"):
                small = picture.convert("L").resize((side, side), Image.Resampling.BOX)
                return upright(np.asarray(small, dtype=np.float32), picture) / 255, (height, width)
    except (OSError, UserError):
        pass
    grey = to_channels(read_raster(path).normalised(), 1)
    small = Image.fromarray(grey.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(small), (grey.shape[0], grey.shape[1])


def find_scenes(paths: Sequence[str], *, likeness: float = 0.75) -> list[int]:
    """Number the scenes of frames that are in the order of their video.

    A scene ends where the size of the picture changes or the correlation of two neighbours' 32 x 32 thumbnails falls
    below ``likeness``. It is a heuristic: a video that pans far is cut more often than need be, and two videos whose
    frames look alike, one after the other, stay together.

    Args:
        paths: the frames, in order; a frame that cannot be read begins no new scene.
        likeness: correlation in [-1, 1].

    Returns:
        A number a frame, from 0, in order.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        frames = list(pool.map(_thumbnail_or_none, paths))
    scenes, scene = [], 0
    last: tuple[np.ndarray, tuple[int, int]] | None = None
    for frame in frames:
        if frame is not None:
            if last is not None and (frame[1] != last[1] or _correlation(frame[0], last[0]) < likeness):
                scene += 1
            last = frame
        scenes.append(scene)
    return scenes


def _thumbnail_or_none(path: str) -> tuple[np.ndarray, tuple[int, int]] | None:
    try:
        return thumbnail(path)
    except Exception:  # the dataset's inspection says what is wrong with the file
        return None


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / max(float(np.sqrt((one**2).sum() * (other**2).sum())), 1e-9))
