"""What one image and its mask tell, measured once, small enough to keep for every image of a dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from scipy import ndimage

from monai_thyroid.data.layouts import Item
from monai_thyroid.errors import UserError
from monai_thyroid.images import Raster, binarise, mask_problem, read_raster, to_channels

__all__ = ["CLASS_LEVELS", "THUMB", "Facts", "Marks", "find_marks", "foreground", "measure"]

THUMB = 32
CLASS_LEVELS = 32
"""Masks whose levels are all below this hold class numbers, not greys."""

_SPECK = 1e-4  # of the image
_TEXT_LINE = 3  # characters
_MAX_BLOBS = 3000


@dataclass(frozen=True)
class Marks:
    """What seems to be burned into an image; a guess.

    Attributes:
        characters: bright pieces on black ground that stand in lines, as letters do.
        calipers: bright plus signs and crosses.
        coloured: pixels with colour in a picture that is grey elsewhere.
    """

    characters: int = 0
    calipers: int = 0
    coloured: int = 0


@dataclass
class Facts:
    """What one item tells; sizes in pixels.

    Attributes:
        problems: why the image or mask cannot be used.
        size: width and height of the image, None where it cannot be read.
        label_size: likewise of the mask.
        orientation: what the image's EXIF asks for, 1 to 8; it is turned so already.
        label_orientation: likewise of the mask.
        kind: ``"grey"``, ``"RGB"`` or ``"16 bit grey"``.
        image_hash: SHA-256 of the image's pixels, "" where it cannot be read.
        thumb: float32 (32, 32), the image in [0, 1].
        mask_thumb: float32 (32, 32), share of foreground.
        flat: the image has one level.
        levels: grey levels of the mask.
        level_problem: why it is not a mask of two levels (or class numbers).
        grey_edges: it has levels in between, near its edges only.
        area: share of foreground in [0, 1].
        blobs: connected pieces of foreground.
        specks: those of them that are tiny.
        box: left, top, right, bottom of the foreground, as shares of the image; None where there is none.
        marks: what seems burned in.
    """

    problems: list[str] = field(default_factory=list)
    size: tuple[int, int] | None = None
    label_size: tuple[int, int] | None = None
    orientation: int = 1
    label_orientation: int = 1
    kind: str = ""
    image_hash: str = ""
    thumb: np.ndarray | None = None
    mask_thumb: np.ndarray | None = None
    flat: bool = False
    levels: frozenset[int] = frozenset()
    level_problem: str | None = None
    grey_edges: bool = False
    area: float = float("nan")
    blobs: int = 0
    specks: int = 0
    box: tuple[float, float, float, float] | None = None
    marks: Marks = Marks()


def measure(item: Item) -> Facts:
    """Read an item's image and mask and measure them; what cannot be read is told, not raised."""
    facts = Facts()
    if (image := _read(item["image"], facts, indices=False)) is not None:
        facts.orientation = image.orientation
        facts.size = image.pixels.shape[1], image.pixels.shape[0]
        facts.image_hash = hashlib.sha256(image.pixels.tobytes()).hexdigest()
        normal = image.normalised()
        grey = to_channels(normal, 1)
        facts.kind = "RGB" if image.pixels.ndim == 3 else "grey" if image.full_scale[1] <= 255 else "16 bit grey"
        facts.flat = float(grey.max()) - float(grey.min()) < 1 / 255
        facts.thumb = _shrink(grey)
        facts.marks = find_marks(grey, normal if normal.ndim == 3 else None)
    if (label := _read(item["label"], facts, indices=True)) is not None:
        _measure_label(label, facts, lossy=item["label"].lower().endswith((".jpg", ".jpeg")))
    return facts


def _read(name: str, facts: Facts, *, indices: bool) -> Raster | None:
    try:
        return read_raster(name, indices=indices)
    except UserError as error:
        facts.problems += error.problems
    return None


def foreground(pixels: np.ndarray) -> np.ndarray:
    """Which pixels of a mask are of any class: bool (height, width); class numbers and greys are told apart."""
    grey = to_channels(pixels, 1) if pixels.ndim == 3 else pixels
    return grey > 0 if grey.max() < CLASS_LEVELS else binarise(pixels)


def _measure_label(label: Raster, facts: Facts, *, lossy: bool) -> None:
    pixels = label.pixels
    facts.label_orientation = label.orientation
    facts.label_size = pixels.shape[1], pixels.shape[0]
    grey = np.rint(to_channels(pixels.astype(np.float32), 1)) if pixels.ndim == 3 else pixels
    small = grey.dtype == np.uint8
    found = np.flatnonzero(np.bincount(grey.ravel(), minlength=256)) if small else np.unique(grey)
    facts.levels = frozenset(int(level) for level in found[:1000])
    if len(found) > 2 and found[-1] >= CLASS_LEVELS:
        facts.level_problem = mask_problem(pixels, lossy=lossy)
        facts.grey_edges = facts.level_problem is None
    elif len(found) == 1 and found[0] > 0:
        facts.level_problem = f"all foreground (every pixel is {int(found[0])})"
    elif lossy and found[-1] - found[0] < 64 and len(found) > 1:
        facts.level_problem = mask_problem(pixels, lossy=True)
    mask = foreground(pixels)
    facts.mask_thumb = _shrink(mask.astype(np.float32))
    facts.area = float(mask.mean())
    if not mask.any():
        return
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    facts.box = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    blobs, facts.blobs = ndimage.label(inner, np.ones((3, 3), bool))
    sizes = np.bincount(blobs.ravel())[1:]
    facts.specks = int((sizes < max(9, _SPECK * mask.size)).sum())


def _shrink(array: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(array.astype(np.float32, copy=False))
    return np.asarray(picture.resize((THUMB, THUMB), Image.Resampling.BOX))


def find_marks(grey: np.ndarray, colour: np.ndarray | None = None) -> Marks:
    """Guess what is burned into an image: text, caliper crosses, coloured overlays.

    Letters are looked for on black ground, beside the scan, where machines write them; crosses on any dark ground.

    Args:
        grey: (height, width) in [0, 1].
        colour: (height, width, 3) in [0, 1], None for a grey image. A picture in full colour, such as an endoscope's,
            is not searched for crosses: its highlights look like them.
    """
    coloured, full_colour = 0, False
    if colour is not None:
        red, green, blue = np.moveaxis(colour, 2, 0)
        # Of each pixel the largest less the smallest: numpy takes ten times as long over a last axis of three.
        spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
        saturated = float((found := spread > 0.25).mean())
        full_colour = saturated >= 0.05
        coloured = int(found.sum()) if 2e-5 < saturated < 0.05 else 0
    black = ndimage.uniform_filter((grey < 0.1).astype(np.float32), 15, mode="nearest")
    letters = [
        (place[0].start, place[0].stop - place[0].start, place[1].start, place[1].stop - place[1].start)
        for place, shape in _pieces((grey > 0.35) & (black > 0.45), grey, ground=0.08, widest=8)
        if 0.2 <= shape.mean() <= 0.85 and min(shape.shape) >= 2
    ]
    calipers = 0
    if not full_colour:
        crosses = _pieces(grey > 0.7, grey, ground=0.5, widest=1.5)
        calipers = sum(_is_cross(shape) for _, shape in crosses)
    return Marks(characters=_in_lines(letters), calipers=calipers, coloured=coloured)


def _pieces(
    bright: np.ndarray, grey: np.ndarray, *, ground: float, widest: float
) -> Iterator[tuple[tuple[slice, slice], np.ndarray]]:
    """Connected pieces of the size of letters, on ground below a level: their place and their shape."""
    labels, count = ndimage.label(bright, np.ones((3, 3), bool))
    if not 0 < count <= _MAX_BLOBS:
        return
    tallest = max(12, grey.shape[0] // 12)
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        height, width = (axis.stop - axis.start for axis in place)
        if not (5 <= height <= tallest and 2 <= width <= widest * height):
            continue
        around = tuple(slice(max(0, axis.start - 2), axis.stop + 2) for axis in place)
        beside = grey[around][labels[around] == 0]
        if beside.size and float(np.median(beside)) <= ground:
            yield place, labels[place] == number


def _is_cross(shape: np.ndarray) -> bool:
    height, width = shape.shape
    if min(height, width) < 5 or max(height, width) > 1.5 * min(height, width) or shape.mean() > 0.6:
        return False
    rows, columns = slice(height // 2 - 1, height // 2 + 2), slice(width // 2 - 1, width // 2 + 2)
    plus = shape[rows].any(axis=0).mean() > 0.95 and shape[:, columns].any(axis=1).mean() > 0.95
    off = shape.copy()
    off[rows], off[:, columns] = False, False
    if plus and off.sum() <= 0.15 * shape.sum():
        return True
    # An x: its pixels lie near the two diagonals, and all four corners are taken.
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / (height - 1), x / (width - 1)
    near = (np.abs(y - x) < 0.25) | (np.abs(y + x - 1) < 0.25)
    corners = [shape[:2, :2], shape[:2, -2:], shape[-2:, :2], shape[-2:, -2:]]
    edges = shape[0, width // 2] or shape[-1, width // 2] or shape[height // 2, 0] or shape[height // 2, -1]
    return bool((shape & ~near).sum() <= 0.1 * shape.sum() and all(corner.any() for corner in corners) and not edges)


def _in_lines(letters: list[tuple[int, int, int, int]]) -> int:
    """How many characters the pieces (top, height, left, width) that stand in rows of equals amount to.

    Small letters run into each other, so a wide piece counts as several.
    """
    count = 0
    left = sorted(letters, key=lambda piece: piece[2])
    used: set[int] = set()
    for start, first in enumerate(left):
        if start in used:
            continue
        line, last = [start], first
        for index in range(start + 1, len(left)):
            piece = left[index]
            if piece[2] - (last[2] + last[3]) > 1.5 * first[1]:
                break
            level = abs(2 * piece[0] + piece[1] - 2 * last[0] - last[1]) <= 0.5 * first[1]
            if index not in used and level and 0.6 * first[1] <= piece[1] <= 1.6 * first[1]:
                line.append(index)
                last = piece
        used.update(line)
        characters = sum(max(1, round(left[index][3] / (0.75 * left[index][1]))) for index in line)
        if characters >= _TEXT_LINE:
            count += characters
    return count
