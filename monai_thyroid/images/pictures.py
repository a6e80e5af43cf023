"""PNG, JPEG, BMP and TIFF pictures, turned as their EXIF says and viewers show them."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from monai_thyroid.errors import UserError
from monai_thyroid.images.raster import (
    Format,
    Raster,
    binarise,
    check_frames,
    check_pixels,
    max_pixels,
    range_of,
    too_large,
)

__all__ = ["PICTURE", "open_picture", "shown_size", "upright"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_ORIENTATION = 0x0112
# Those that others call by one of the suffixes; not those that Pillow hands to a program, such as EPS.
_DECODERS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "GIF", "WEBP", "JPEG2000", "PPM")


@contextmanager
def open_picture(name: str, content: bytes) -> Iterator[Image.Image]:
    """Open a picture without decoding it, its size checked.

    Raises:
        UserError: it is no picture, or too large.
    """
    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit  # the user asked for more than Pillow's own guard lets pass
    Image.init()
    decoders = [one for one in _DECODERS if one in Image.OPEN]  # Pillow can be built without some
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            picture = Image.open(io.BytesIO(content), formats=decoders)
        except UnidentifiedImageError as error:
            raise UserError(
                f"{name}: cannot be read as an image (of no known format, or its beginning is broken)"
            ) from error
        except Image.DecompressionBombError as error:
            raise too_large(name, "has") from error
    with picture:
        check_pixels(name, *picture.size)
        yield picture


def _orientation(picture: Image.Image) -> int:
    value = picture.getexif().get(_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def shown_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture as viewers show it."""
    if picture.format == "TIFF":
        picture.load()  # Pillow turns it then, and some releases tell its turned size before
    width, height = picture.size
    return (height, width) if _orientation(picture) >= 5 else (width, height)


def upright(pixels: np.ndarray, picture: Image.Image) -> np.ndarray:
    """Turn the pixels of a decoded picture as its EXIF says; Pillow has done so itself for TIFF.

    Args:
        pixels: (height, width, ...), of the picture as it lies in its file.
        picture: decoded.
    """
    orientation = _orientation(picture)
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _read(name: str, content: bytes, use: str) -> Raster:
    with open_picture(name, content) as picture:
        check_frames(name, getattr(picture, "n_frames", 1))
        orientation = _orientation(picture)
        picture.load()
        pixels = upright(_pixels(name, picture, use), picture)
    return Raster(pixels=pixels, full_scale=range_of(pixels), orientation=orientation)


def _pixels(name: str, picture: Image.Image, use: str) -> np.ndarray:
    mode = picture.mode
    if mode == "P" and use == "label":
        return np.asarray(picture)
    if use != "image" and (alpha := _mask_in_alpha(name, picture)) is not None:
        return alpha
    if mode in ("1", "L", "LA", "La"):
        return np.asarray(picture.convert("L"))
    if mode in ("P", "PA"):
        # A palette of greys is a grey image; its indices are not intensities.
        colour = np.asarray(picture.convert("RGB"))
        grey = (colour[..., 0] == colour[..., 1]).all() and (colour[..., 1] == colour[..., 2]).all()
        return colour[..., 0] if grey else colour
    if mode in ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB"):
        return np.asarray(picture.convert("RGB"))
    if mode.startswith(("I", "F")):
        pixels = np.asarray(picture)
        if not np.isfinite(pixels).all():
            raise UserError(f"{name}: holds numbers that are not finite")
        return pixels
    raise UserError(f"{name}: pixel mode {mode} is neither grey nor colour")


def _mask_in_alpha(name: str, picture: Image.Image) -> np.ndarray | None:
    """The alpha channel of a mask whose colours hold nothing, None where the colours are the mask.

    Raises:
        UserError: both hold something, and not the same.
    """
    palette = picture.mode == "P"
    if picture.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and not (palette and "transparency" in picture.info):
        return None
    both = np.asarray(picture.convert("RGBA"))
    colours, alpha = both[..., :3], both[..., 3]
    if (colours == colours[0, 0]).all():
        return alpha if alpha.min() < 255 else None
    if palette or alpha.min() == alpha.max():
        return None
    seen = alpha > 0
    bright = binarise(colours)
    if not any(
        (one == other).all() for one, other in ((bright, seen), (bright, binarise(alpha)), (colours.any(2), seen))
    ):
        raise UserError(
            f"{name}: its colours and its alpha channel (transparency) show two different masks; save the right one "
            "without an alpha channel"
        )
    return None


PICTURE = Format(name="picture", suffixes=_SUFFIXES, recognises=lambda name, content: True, read=_read)
