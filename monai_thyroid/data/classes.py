"""How many classes the labels of a dataset have, by looking at them."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_thyroid.data.folders import read_listing
from monai_thyroid.data.layouts import AUTO
from monai_thyroid.data.loading import PHANTOM
from monai_thyroid.data.mapping import map_files
from monai_thyroid.errors import UserError
from monai_thyroid.images import mask_problem, read_raster

__all__ = ["found_classes"]

MOST_CLASSES = 20
_TWO_LEVELS = ("outline:", "union:", "contours:")  # sources that make masks of two levels
_IGNORE = 255.0


@dataclass(frozen=True)
class _Levels:
    """What a mask's file holds.

    Attributes:
        path: of the file.
        values: the numbers in it; None where they do not matter.
        problem: why it can be neither class numbers nor a mask of two levels.
        soft: whether it could be both: few indices of a palette of greys that look like a mask with grey edges.
        unreadable: whether it could not be read.
    """

    path: str
    values: frozenset[float] | None = None
    problem: str | None = None
    soft: bool = False
    unreadable: bool = False

    def shown(self) -> str:
        found = sorted(self.values or ())
        return ", ".join(f"{value:g}" for value in found[:5]) + (", ..." if len(found) > 5 else "")


def found_classes(
    dataset_dir: str,
    *,
    names: Sequence[str] | None = None,
    layout: str | Sequence[str] = AUTO,
    images: str | None = None,
    masks: str | None = None,
) -> list[str]:
    """The classes of a dataset's labels, background not counted; every mask is read, but for JPEG ones.

    Masks of any two levels (0 and 255, 0 and 1, grey edges, two colours) have one class. Masks that hold the numbers
    0, 1, 2, ... and together more than two of them have as many classes as the highest number. JPEG keeps no class
    numbers, so such masks have one class. Files that cannot be read, and single ones that do not fit the others, are
    left to `Datalist.inspect`, which names them.

    Args:
        dataset_dir: a folder, or ``"phantom"``, which has one class unless more are asked for.
        names: of the classes 1, 2, ..., as many as there may be; ``class_1``, ... if None.
        layout: as for `load_datalist`.
        images: likewise.
        masks: likewise.

    Returns:
        The names that are needed. The dataset's own where it states them (nnU-Net's ``dataset.json``).

    Raises:
        UserError: the folder has no usable form, there are more classes than names, or the masks do not tell.
    """
    if dataset_dir == PHANTOM:
        return _named(1, names, dataset_dir)
    if not isinstance(dataset_dir, str) or not dataset_dir:
        raise UserError(f"dataset_dir {dataset_dir!r}: give a folder, or {PHANTOM}")
    root = Path(dataset_dir).expanduser().resolve()
    listing = read_listing(root, layout=layout, images=images, masks=masks)
    if listing.classes:
        return list(listing.classes)
    if not listing.items:
        raise UserError(listing.problems or [f"dataset_dir {root}: holds no image with a mask"])
    limit = max(MOST_CLASSES, len(names or ()))
    labels = list(dict.fromkeys(item["label"] for item in listing.items))
    found = map_files(functools.partial(_levels, limit=limit), labels, "Looking for classes")
    return _named(_number(found, limit, most=None if names is None else len(names), root=root), names, str(root))


def _named(number: int, names: Sequence[str] | None, where: str) -> list[str]:
    if names is None:
        return [f"class_{index + 1}" for index in range(number)]
    if number > len(names):
        raise UserError(
            f"dataset_dir {where}: its masks hold {number} classes, but {len(names)} "
            f"{'is' if len(names) == 1 else 'are'} named ({', '.join(names)}); name them all (classes)"
        )
    return list(names[:number])


def _levels(path: str, *, limit: int) -> _Levels:
    if path.startswith(_TWO_LEVELS) or path.lower().endswith((".jpg", ".jpeg")):
        return _Levels(path)
    try:
        pixels = read_raster(path, indices=True).pixels
        if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
            pixels = pixels[..., 0]
        if pixels.ndim == 3:  # coloured
            return _Levels(path, problem=mask_problem(pixels))
        values = np.flatnonzero(np.bincount(pixels.ravel())) if pixels.dtype == np.uint8 else np.unique(pixels)
        numbers = _numbers(values, limit)
        problem, soft = None, False
        if len(values) > 2:
            shown = read_raster(path, mask=True).pixels  # a palette's colours, not its indices
            two_levels = mask_problem(shown)
            problem = None if numbers else two_levels
            soft = numbers and two_levels is None and shown.ndim == 2 and bool(shown.max() > limit)
        elif not numbers:
            return _Levels(path)
        return _Levels(path, values=frozenset(map(float, values)), problem=problem, soft=soft)
    except UserError:
        return _Levels(path, unreadable=True)


def _numbers(values: Sequence[float] | np.ndarray | frozenset[float], limit: int) -> bool:
    return all(0 <= value <= limit and value == int(value) for value in values)


def _number(found: Sequence[_Levels], limit: int, *, most: int | None, root: Path) -> int:
    """How many classes, ``most`` if that is known; an error where the masks do not tell."""
    hint = "say which classes there are (classes), or make the masks alike"
    read = [one for one in found if not one.unreadable]
    if not read:
        return 1  # there is nothing to tell apart, and the inspection names the files
    small = [one for one in read if one.values is not None and _numbers(one.values, limit)]
    other = [one for one in read if one.values is None or not _numbers(one.values, limit)]
    masks = [one for one in other if one.problem is None]
    numbers = frozenset[float]().union(*(one.values or () for one in small))
    # Every value a class number but for 255, which many use for "do not count".
    ignoring = [one for one in masks if one.values is not None and len(one.values) > 2]
    if ignoring and all(_numbers((one.values or frozenset()) - {_IGNORE}, limit) for one in ignoring):
        raise UserError(
            f"{ignoring[0].path}: holds {ignoring[0].shown()}: two levels, or classes and pixels to be ignored "
            f"({_IGNORE:g})? The latter are not supported; give each pixel one class"
        )
    if len(numbers) > 2:
        several = max(small, key=lambda one: len(one.values or ()))
        if masks:
            raise UserError(
                f"dataset_dir {root}: {several.path} holds the class numbers {several.shown()}, but {masks[0].path} is "
                f"a mask of two other levels; {hint}"
            )
        if several.soft and all(one.soft for one in small if len(one.values or ()) > 2):
            raise UserError(
                f"{several.path}: has a palette of greys, and could be a mask of two levels or class numbers; save the "
                "masks without a palette"
            )
        number = int(max(numbers))
        lacking = set(range(1, number + 1)) - numbers
        if lacking and most is None:
            raise UserError(
                f"dataset_dir {root}: its masks hold {', '.join(f'{value:g}' for value in sorted(numbers))} but not "
                f"{', '.join(map(str, sorted(lacking)))}; {hint}"
            )
        return number
    if masks:
        return 1
    if other:
        raise UserError(
            f"dataset_dir {root}: its masks have neither two levels nor class numbers 0, 1, 2, ... up to "
            f"{limit}; {other[0].path}: {other[0].problem}"
        )
    if numbers == {0.0} and most != 1:
        raise UserError(f"dataset_dir {root}: every mask is empty, so they do not tell the classes; {hint}")
    return 1
