"""Images and masks that are not one file: outlines, halves, contours in XML, a class for a mask, arrays, phantoms.

An item holds strings only, so such an image or mask is named by a string too: ``<scheme>:<rest>``. `read_raster`
reads it as it reads a path, and so do all that build on it.
"""

from __future__ import annotations

import functools
import json
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw

from monai_thyroid.errors import UserError
from monai_thyroid.images.formats import file_bytes, read_file, stem
from monai_thyroid.images.outlines import fill_outline
from monai_thyroid.images.phantom import phantom_scan
from monai_thyroid.images.pictures import open_picture, shown_size
from monai_thyroid.images.raster import Raster, binarise, check_pixels, range_of

__all__ = [
    "SOURCES",
    "class_source",
    "contours_source",
    "is_source",
    "mask_of_class",
    "npz_source",
    "open_arrays",
    "outline_source",
    "phantom_uri",
    "read_contours",
    "union_source",
]

_AND = "|"
# What numpy and zipfile raise on a broken file of arrays; RuntimeError on an unknown compression or a password.
_BROKEN = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)
Contour = list[tuple[float, float]]


def outline_source(path: Path | str) -> str:
    """The area inside the outline that a file shows, see `fill_outline`."""
    return f"outline:{path}"


def union_source(*paths: Path | str) -> str:
    """The union of several masks of one size."""
    return "union:" + _AND.join(map(str, paths))


def contours_source(image: Path | str, table: Path | str) -> str:
    """The union of the contours that a DDTI file of contours holds for an image, on that image's grid."""
    return f"contours:{image}{_AND}{table}"


def class_source(mask: Path | str, number: int) -> str:
    """A mask of two levels whose foreground is of the class ``number``, 1 or more."""
    return f"class:{number}:{mask}"


def mask_of_class(name: str) -> str | None:
    """The mask behind a `class_source`, None of anything else."""
    scheme, _, rest = name.partition(":")
    return rest.partition(":")[2] if scheme == "class" else None


def npz_source(path: Path | str, key: str, index: int) -> str:
    """One image of an array of images in an ``.npz`` file."""
    return f"npz:{key}:{index}:{path}"


def phantom_uri(kind: Literal["image", "label"], *, case: int, view: int, seed: int, classes: int = 1) -> str:
    """A synthetic scan, see `phantom_scan`.

    Args:
        kind: the scan or its label.
        case: index of the patient.
        view: index of the scan.
        seed: of the synthetic patients.
        classes: of the label: 1 nodule; 2 gland, nodule; 3 gland, benign-looking and malignant-looking nodule.
    """
    kind_name = f"{kind}{classes}" if kind == "label" and classes > 1 else kind
    return f"phantom:{seed}:{case}:{view}:{kind_name}"


def is_source(name: str) -> bool:
    """Whether a name is that of a source, not of a file."""
    return name.partition(":")[0] in SOURCES and ":" in name


def _mask(mask: np.ndarray, spacing: tuple[float, float] | None = None) -> Raster:
    return Raster(pixels=mask.astype(np.uint8) * np.uint8(255), full_scale=(0.0, 255.0), spacing=spacing)


def _read_outline(path: str) -> Raster:
    raster = read_file(path, use="mask")
    try:
        return _mask(fill_outline(binarise(raster.pixels)), raster.spacing)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _read_class(rest: str) -> Raster:
    number, _, name = rest.partition(":")
    scheme, _, inner = name.partition(":")
    raster = SOURCES[scheme](inner) if is_source(name) else read_file(name, use="mask")
    labels = binarise(raster.pixels).astype(np.uint8) * np.uint8(number)
    return Raster(pixels=labels, full_scale=(0.0, 255.0), spacing=raster.spacing)


def _read_union(paths: str) -> Raster:
    names = paths.split(_AND)
    rasters = [read_file(name, use="mask") for name in names]
    masks = [binarise(raster.pixels) for raster in rasters]
    if len({mask.shape for mask in masks}) > 1:
        sizes = ", ".join(f"{name} {mask.shape[1]} x {mask.shape[0]}" for name, mask in zip(names, masks, strict=True))
        raise UserError(f"masks to be united differ in size: {sizes}")
    return _mask(np.logical_or.reduce(masks), rasters[0].spacing)


def _read_contour_mask(rest: str) -> Raster:
    image, table = rest.split(_AND)
    contours, fault = read_contours(table, stem(image).rpartition("_")[2])
    if not contours:
        raise UserError(f"{table}: {fault}")
    # As drawn on the picture that viewers show.
    with open_picture(image, file_bytes(image)) as picture:
        size = shown_size(picture)
    canvas = Image.new("L", size)
    draw = ImageDraw.Draw(canvas)
    for contour in contours:
        draw.polygon(contour, fill=255, outline=255)
    return Raster(pixels=np.asarray(canvas), full_scale=(0.0, 255.0))


def read_contours(table: Path | str, number: str) -> tuple[list[Contour], str | None]:
    """The contours that a DDTI file has for one image of its case.

    Args:
        table: ``<case>.xml``, with ``<mark><image>n</image><svg>[{"points": [{"x": .., "y": ..}, ...]}]</svg></mark>``.
        number: n, as in the image's file name.

    Returns:
        Contours of at least three points, (x, y) in pixels, and what is wrong with the annotation, None if nothing.
        No contours means that the image cannot be used.
    """
    try:
        root = ElementTree.fromstring(file_bytes(table))
    except (UserError, ElementTree.ParseError) as error:
        return [], f"cannot be read as XML ({error})"
    marks = [mark for mark in root.iter("mark") if (mark.findtext("image") or "").strip() == number]
    texts = [(mark.findtext("svg") or "").strip() for mark in marks]
    if not any(texts):
        return [], f"image {number} has no contour"
    contours: list[Contour] = []
    faults = []
    for text in texts:
        shapes, whole = _shapes(text)
        if not whole and text.count('"points"') > len(shapes):
            return [], f"the contours of image {number} are cut off"
        if not whole:
            faults.append(f"the annotation of image {number} is cut off after its last contour")
        try:
            found = [[(float(point["x"]), float(point["y"])) for point in shape] for shape in shapes]
        except (KeyError, TypeError, ValueError):
            return [], f"the contours of image {number} are not lists of x and y"
        contours += [contour for contour in found if len(contour) >= 3]
        if any(len(contour) < 3 for contour in found):
            faults.append(f"a contour of image {number} has fewer than three points")
    if not contours and not faults:
        faults.append(f"image {number} has no contour")
    return contours, "; ".join(faults) or None


def _shapes(text: str) -> tuple[list[list[dict[str, float]]], bool]:
    """Lists of points, and whether the text is whole; of a text that is cut off, the lists that are complete."""
    try:
        return [shape["points"] for shape in json.loads(text)] if text else [], True
    except (ValueError, KeyError, TypeError):
        return [json.loads(points) for points in re.findall(r'"points":\s*(\[[^\]]*\])', text)], False


def open_arrays(path: Path | str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays in an ``.npz`` file, without reading them.

    Raises:
        UserError: it is not such a file, or holds Python objects.
    """
    shapes = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shapes[name.removesuffix(".npy")] = read(file)[0]
    except _BROKEN as error:
        raise UserError(f"{path}: cannot be read as an .npz file ({error})") from error
    return shapes


def _read_npz(rest: str) -> Raster:
    key, index, path = rest.split(":", 2)
    try:
        pixels = _array(path, key, os.stat(path).st_mtime_ns)[int(index)]
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except (KeyError, IndexError, *_BROKEN) as error:
        raise UserError(f"{path}: {key} {index} cannot be read ({error})") from error
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    return Raster(pixels=pixels, full_scale=range_of(pixels))


@functools.lru_cache(maxsize=6)
def _array(path: str, key: str, changed: int) -> np.ndarray:
    """A whole array, kept: it is compressed as one, so its images cannot be read one by one."""
    shape = open_arrays(path)[key]
    if len(shape) < 3:
        raise ValueError(f"it has shape {shape}, which is no row of images")
    check_pixels(f"{path}: {key}", shape[2], shape[1])
    with np.load(path, allow_pickle=False) as arrays:
        array: np.ndarray = arrays[key]
    if array.dtype.kind not in "buif" or not np.isfinite(array).all():
        raise ValueError("it holds complex numbers, or ones that are not finite")
    return array


def _draw_phantom(rest: str) -> Raster:
    seed, case, view, kind = rest.split(":")
    classes = int(kind[len("label") :] or 1) if kind.startswith("label") else 1
    scan = phantom_scan(int(case), int(view), seed=int(seed), multiclass=classes > 1)
    if kind == "image":
        return Raster(pixels=scan.image, full_scale=(0.0, 255.0))
    if classes > 1:
        return Raster(pixels=np.minimum(scan.label, np.uint8(classes)), full_scale=(0.0, 255.0))
    return _mask(scan.label > 0)


SOURCES: Mapping[str, Callable[[str], Raster]] = {
    "outline": _read_outline,
    "union": _read_union,
    "contours": _read_contour_mask,
    "class": _read_class,
    "npz": _read_npz,
    "phantom": _draw_phantom,
}
"""What reads the rest of a source's name, by its scheme."""
