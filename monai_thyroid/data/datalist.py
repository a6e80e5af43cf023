"""From a dataset folder to the list of items that training, evaluation and every hash go by."""

from __future__ import annotations

import functools
import hashlib
import logging
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from monai_thyroid.data.layouts import AUTO, Item, Listing, read_images_masks, read_layout
from monai_thyroid.data.splits import PARTS, apply_split, assign_folds, carve, groups_in_two_parts, read_split_file
from monai_thyroid.errors import UserError
from monai_thyroid.files import canonical_hash
from monai_thyroid.images.phantom import phantom_views
from monai_thyroid.images.reading import (
    SOURCE_SCHEMES,
    Raster,
    binarise,
    label_problem,
    phantom_uri,
    read_raster,
    to_channels,
)

__all__ = [
    "PARTS",
    "PHANTOM",
    "Datalist",
    "Inspection",
    "carve",
    "load_datalist",
    "map_files",
    "mask_problem",
    "read_listing",
]

logger = logging.getLogger(__name__)

PHANTOM = "phantom"
_MADE = (f"{PHANTOM}:", *(f"{scheme}:" for scheme in SOURCE_SCHEMES))

_T = TypeVar("_T")


@dataclass(frozen=True)
class Inspection:
    """What reading every file of a dataset told.

    Attributes:
        problems: one sentence each; with any, the dataset is not to be used.
        warnings: what does not forbid the use but belongs into a report.
        empty_masks: cases whose mask shows nothing, which is legitimate.
        image_hashes: SHA-256 of each case's image.
        data_hash: SHA-256 of contents and split together: two runs may be compared case by case where it agrees.
    """

    problems: list[str]
    warnings: list[str]
    empty_masks: list[str]
    image_hashes: dict[str, str]
    data_hash: str


@dataclass
class Datalist:
    """The items of a dataset and how they are split.

    Attributes:
        name: ``"phantom"`` or the folder's name.
        root: the folder, absolute; None for the phantom.
        items: dicts of strings: image, label, case, group, part (train, validation, test), site.
        grouping: ``"known"``: no group is in two parts; ``"unknown"``: each image counted as its own group, so
            images of one patient may be in two parts; ``"leaky"``: groups are known and were not heeded, on request.
        how: one sentence on how the parts came about.
        classes: how many classes a label has, background not counted.
        fold: which fold of how many, None without cross-validation.
        sites: those that were asked for; empty where all there are were taken.
        notes: what the layout or the split left out or guessed.
        expected_hashes: SHA-256 of each case's image where a split file states them.
    """

    name: str
    root: Path | None
    items: list[Item]
    grouping: str
    how: str
    classes: int = 1
    fold: tuple[int, int] | None = None
    sites: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    expected_hashes: dict[str, str] = field(default_factory=dict, repr=False)
    _facts: dict[str, dict[str, Any]] | None = field(default=None, repr=False)
    _inspection: Inspection | None = field(default=None, repr=False)

    def part(self, part: str) -> list[Item]:
        """The items of a part, ``"all"`` for every one.

        Raises:
            UserError: there is no such part, or it is empty.
        """
        if part != "all" and part not in PARTS:
            raise UserError(f"part {part!r}: choose one of {', '.join(PARTS)}, all")
        items = [item for item in self.items if part in ("all", item["part"])]
        if not items:
            raise UserError(f"dataset {self.name}: nothing in its part {part!r}")
        return items

    def inspect(self) -> Inspection:
        """Read every file once and remember the result; see `Inspection`."""
        if self._inspection is None:
            facts = self._facts or _read_facts(self.items, self.classes)
            self._inspection = _inspect(self, facts)
        return self._inspection

    def split(self) -> dict[str, Any]:
        """The content of split.json."""
        hashes = self.inspect().image_hashes
        parts = {}
        for part in PARTS:
            items = [item for item in self.items if item["part"] == part]
            parts[part] = {
                "cases": [item["case"] for item in items],
                "groups": sorted({item["group"] for item in items}),
                "sites": sorted({item["site"] for item in items}),
                "image_sha256": [hashes[item["case"]] for item in items],
            }
        return {
            "dataset": self.name,
            "grouping": self.grouping,
            "how": self.how,
            "fold": None if self.fold is None else {"fold": self.fold[0], "folds": self.fold[1]},
            "data_hash": self.inspect().data_hash,
            "warnings": self.inspect().warnings,
            "parts": parts,
        }


def load_datalist(
    dataset_dir: str,
    *,
    layout: str | Sequence[str] = AUTO,
    split_seed: int = 0,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.2,
    phantom_cases: int = 150,
    phantom_seed: int = 0,
    classes: int | Sequence[str] = 1,
    stratify: bool = False,
    split: Literal["groups", "frames"] = "groups",
    folds: int | None = None,
    fold: int | None = None,
    split_file: str | None = None,
    sites: str | Sequence[str] | None = None,
    test_sites: str | Sequence[str] | None = None,
    group_pattern: str | None = None,
    images: str | None = None,
    masks: str | None = None,
) -> Datalist:
    """List a dataset and split it into train, validation and test.

    The parts that a dataset comes with are kept. What is lacking is carved out by group (patient, examination,
    scene), seeded; where groups are unknown, by file, and the datalist says so.

    Args:
        dataset_dir: a folder, or ``"phantom"`` for synthetic scans.
        layout: name of the folder's layout, several to choose from, or ``"auto"``; see `LAYOUTS` and `read_layout`.
        split_seed: seed of the split; apart from the training seed, so that runs of several seeds share their cases.
        validation_fraction: share of the non-test images that goes to validation, in (0, 1).
        test_fraction: share of all images that goes to test where the dataset has no test part, in (0, 1).
        phantom_cases: number of synthetic patients, a fifth of them for test.
        phantom_seed: seed of the synthetic patients.
        classes: how many classes a label has, background not counted, or their names.
        stratify: make the parts alike in lesion size, too; every mask is read for it, once.
        split: ``"groups"``, or ``"frames"`` for a random split of single images although their groups are known (or
            the dataset's published one of that kind): it leaks, reproduces such papers' figures, and is marked.
        folds: cross-validation: the number of folds, 2 or more. Where the dataset has a test part, it stays, and a
            fold is the validation part; else a fold is the test part.
        fold: which one, from 0 to ``folds`` - 1.
        split_file: take the split from this file instead, see `read_split_file`.
        sites: use these sites only (a name, several, or names with commas).
        test_sites: all images of these sites are the test part, those of the other sites are for training.
        group_pattern: regular expression that finds the group in a case's name: its first group, or all it matches.
        images: folder of images from ``dataset_dir``, with ``masks`` instead of a layout.
        masks: folder of masks.

    Raises:
        UserError: the folder cannot be used as it is; names every problem.
    """
    options = _Options(
        split_seed=split_seed,
        validation_fraction=validation_fraction,
        test_fraction=test_fraction,
        stratify=stratify,
        frames=split == "frames",
        folds=folds,
        fold=fold,
        split_file=split_file,
        test_sites=_names(test_sites),
    )
    problems = options.problems()
    if stratify not in (True, False):
        problems.append(f"stratify {stratify!r}: give true or false")
    if split not in ("groups", "frames"):
        problems.append(f"split {split!r}: choose groups or frames")
    if problems:
        raise UserError(problems)
    number = classes if isinstance(classes, int) else len(classes)
    root = None
    if dataset_dir == PHANTOM:
        logger.warning("SYNTHETIC DATA: training on computer-made phantom scans, not on patients (--dataset_dir DIR)")
        listing = Listing(items=_phantom_items(phantom_cases, phantom_seed, number))
    else:
        if not isinstance(dataset_dir, str) or not dataset_dir:
            raise UserError(f"dataset_dir {dataset_dir!r}: give a folder, or {PHANTOM}")
        root = Path(dataset_dir).expanduser().resolve()
        wanted = _names(sites)
        listing = read_listing(
            root,
            layout=layout,
            sites=[*wanted, *options.test_sites] if wanted else [],
            group_pattern=group_pattern,
            images=images,
            masks=masks,
        )
        if listing.classes and len(listing.classes) != number:
            listing.problems.append(
                f"dataset_dir {root}: has the classes {', '.join(listing.classes)}, but {number} "
                f"{'is' if number == 1 else 'are'} asked for (classes)"
            )
        if listing.problems:
            raise UserError(listing.problems)
    data = Datalist(
        name=PHANTOM if root is None else root.stem if root.is_file() else root.name,
        root=root,
        items=listing.items,
        grouping=("leaky" if options.frames else "known") if listing.grouped else "unknown",
        how="",
        classes=number,
        fold=None if folds is None or fold is None else (fold, folds),
        sites=[*_names(sites), *options.test_sites],
        notes=list(listing.notes),
    )
    _split(data, listing, options)
    return data


@dataclass(frozen=True)
class _Options:
    split_seed: int
    validation_fraction: float
    test_fraction: float
    stratify: bool
    frames: bool
    folds: int | None
    fold: int | None
    split_file: str | None
    test_sites: list[str]

    def problems(self) -> list[str]:
        problems = [
            f"{name} {value!r}: give a number between 0 and 1"
            for name, value in (
                ("validation_fraction", self.validation_fraction),
                ("test_fraction", self.test_fraction),
            )
            if not 0 < value < 1
        ]
        if self.folds is not None and (not isinstance(self.folds, int) or self.folds < 2):
            problems.append(f"folds {self.folds!r}: give a whole number of at least 2")
        elif self.folds is None and self.fold is not None:
            problems.append(f"fold {self.fold}: say of how many (folds)")
        elif self.folds is not None and (not isinstance(self.fold, int) or not 0 <= self.fold < self.folds):
            problems.append(f"fold {self.fold!r}: give a whole number from 0 to {self.folds - 1}")
        if self.split_file and (self.folds is not None or self.test_sites):
            problems.append("split_file says the parts; leave out folds, fold and test_sites")
        if self.folds is not None and self.test_sites:
            problems.append("folds and test_sites both say what the test part is; give one of them")
        return problems


def read_listing(
    root: Path,
    *,
    layout: str | Sequence[str] = AUTO,
    sites: Sequence[str] = (),
    group_pattern: str | None = None,
    images: str | None = None,
    masks: str | None = None,
) -> Listing:
    """What a dataset folder holds, before it is split; see `load_datalist` for the arguments.

    Raises:
        UserError: the folder has no known form, or an argument is wrong. Faults of its files are in the listing.
    """
    if (images is None) != (masks is None):
        raise UserError("images and masks: give both folders, or a layout")
    if images is not None and masks is not None:
        if not root.is_dir():
            raise UserError(f"dataset_dir {root}: no such folder")
        listing = read_images_masks(root, images=images, masks=masks)
        for item in listing.items:
            item.setdefault("site", "")
    else:
        listing = read_layout(root, layout)
    if sites:
        known = sorted({item["site"] for item in listing.items} - {""})
        if unknown := sorted(set(sites) - set(known)):
            raise UserError(
                f"sites {', '.join(unknown)}: the dataset has {', '.join(known) or 'no sites'}; a site is a subfolder"
            )
        listing.items = [item for item in listing.items if item["site"] in sites]
    if group_pattern:
        try:
            pattern = re.compile(group_pattern)
        except re.error as error:
            raise UserError(f"group_pattern {group_pattern!r}: not a regular expression ({error})") from error
        for item in listing.items:
            match = pattern.search(item["case"])
            if group := match and (match[1] if pattern.groups else match[0]):
                item["group"] = group
            else:
                listing.problems.append(f"group_pattern {group_pattern!r}: finds nothing in {item['case']}")
        listing.grouped = True
    return listing


def _names(value: str | Sequence[str] | None) -> list[str]:
    if not value:
        return []
    names = value.split(",") if isinstance(value, str) else value
    return [name.strip() for name in names if name.strip()]


def _split(data: Datalist, listing: Listing, options: _Options) -> None:
    """Give every item its part, in place, and say how."""
    by = "group" if listing.grouped and not options.frames else "case"
    unit = listing.unit if by == "group" else "file, because groups are unknown"
    if options.frames and listing.grouped:
        unit = f"single image although the {listing.unit} is known: LEAKY, images of one are in several parts"
    if options.split_file:
        _split_by_file(data, listing, options)
        return
    if options.test_sites:
        known = sorted({item["site"] for item in data.items})
        if unknown := sorted(set(options.test_sites) - set(known)):
            raise UserError(f"test_sites {', '.join(unknown)}: the dataset has {', '.join(known)}")
        for item in data.items:
            item["part"] = "test" if item["site"] in options.test_sites else "trainval"
    if options.frames and listing.frames and not options.test_sites:
        lost = [item["case"] for item in data.items if item["case"] not in listing.frames]
        if lost:
            raise UserError(f"the published split of frames does not name {', '.join(lost[:5])} ({len(lost)} images)")
        for item in data.items:
            item["part"] = listing.frames[item["case"]]
    elif by == "group" and (problems := groups_in_two_parts(data.items)):
        raise UserError(problems)
    sizes = None
    if options.stratify:
        data._facts = _read_facts(data.items, data.classes)
        sizes = {case: fact["size"] for case, fact in data._facts.items()}
    alike = ", alike in lesion size" if options.stratify else ""
    seed = options.split_seed
    parts = {item["part"] for item in data.items}
    how = []
    if "test" in parts:
        how.append(f"test: {'site ' + ', '.join(options.test_sites) if options.test_sites else 'official part'}")
    if options.folds is not None and options.fold is not None:
        held = "validation" if "test" in parts else "test"
        pool = [item for item in data.items if item["part"] != "test"]
        fold_of = assign_folds(pool, folds=options.folds, seed=seed, by=by, sizes=sizes)
        for item in pool:
            item["part"] = held if fold_of[item["case"]] == options.fold else "trainval"
        how.append(f"{held}: fold {options.fold} of {options.folds}, by {unit}{alike} (seed {seed})")
        parts = {item["part"] for item in data.items}
    elif "test" not in parts:
        share = options.test_fraction
        carve(data.items, fraction=share, seed=seed, part="test", rest=None, by=by, sizes=sizes)
        how.append(f"test: {share:g} of all, by {unit}{alike} (seed {seed})")
    if "validation" in parts:
        for item in data.items:
            item["part"] = "train" if item["part"] == "trainval" else item["part"]
        if options.folds is None:
            how.append("validation: official part")
    else:
        share = options.validation_fraction
        carve(data.items, fraction=share, seed=seed, by=by, sizes=sizes)
        how.append(f"validation: {share:g} of the rest, by {unit}{alike} (seed {seed})")
    data.how = "; ".join(how)


def _split_by_file(data: Datalist, listing: Listing, options: _Options) -> None:
    assert options.split_file is not None
    split, about = read_split_file(options.split_file)
    data.items, problems, notes = apply_split(data.items, split, source=f"split_file {options.split_file}")
    if listing.grouped and not options.frames:
        mixed = groups_in_two_parts(data.items)
        problems += mixed
        if mixed and about.get("grouping") == "leaky":
            problems.append(f"split_file {options.split_file}: was made leaky on purpose; say so again (split: frames)")
    if problems:
        raise UserError(problems)
    data.notes += notes
    data.how = f"as in {Path(options.split_file).name}" + (f" ({about['how']})" if about.get("how") else "")
    if options.frames and listing.grouped and "LEAKY" not in data.how:
        data.how += f"; LEAKY: images of one {listing.unit} may be in several parts"
    for part in about.get("parts", {}).values():
        data.expected_hashes.update(zip(part["cases"], part.get("image_sha256", []), strict=False))


def _phantom_items(cases: int, seed: int, classes: int) -> list[Item]:
    if not 1 <= classes <= 3:
        raise UserError(f"classes: the phantom has 1 (nodule), 2 (gland, nodule) or 3 classes, not {classes}")
    if not isinstance(cases, int) or cases < 10:
        raise UserError(f"phantom_cases {cases!r}: give a whole number of at least 10")
    order = np.random.RandomState(seed).permutation(cases)
    test = set(order[: cases // 5].tolist())
    return [
        {
            "image": phantom_uri("image", case=case, view=view, seed=seed),
            "label": phantom_uri("label", case=case, view=view, seed=seed, classes=classes),
            "case": f"{case:04d}_{view}",
            "group": f"{case:04d}",
            "part": "test" if case in test else "trainval",
            "site": "",
        }
        for case in range(cases)
        for view in range(phantom_views(case, seed=seed))
    ]


def _read_facts(items: Sequence[Item], classes: int) -> dict[str, dict[str, Any]]:
    """What each case's files tell, by case; see `_inspect_item`."""
    facts = map_files(functools.partial(_inspect_item, classes=classes), items, "Checking files")
    return {item["case"]: fact for item, fact in zip(items, facts, strict=True)}


def _inspect(data: Datalist, facts_of: Mapping[str, dict[str, Any]]) -> Inspection:
    items = data.items
    facts = [facts_of[item["case"]] for item in items]
    problems = [problem for fact in facts for problem in fact["problems"]]
    problems += [
        f"{item['image']}: is not the image of that name that the split file was made with (its SHA-256 differs)"
        for item, fact in zip(items, facts, strict=True)
        if fact["image"] and data.expected_hashes.get(item["case"], fact["image"]) != fact["image"]
    ]
    warnings = list(data.notes)
    if data.grouping == "leaky":
        warnings.append("leaky split: images of one group are in several parts, so the figures say too much")
    by_hash: dict[str, Item] = {}
    for item, fact in zip(items, facts, strict=True):
        if not fact["image"]:
            continue
        first = by_hash.setdefault(fact["image"], item)
        if first["part"] != item["part"]:
            warnings.append(
                f"{first['case']} ({first['part']}) and {item['case']} ({item['part']}) are the same image, byte for "
                "byte: the figures of one part leak from the other"
            )
    rows = [
        [item["part"], item["case"], item["group"], item["site"], fact["image"], fact["label"]]
        for item, fact in zip(items, facts, strict=True)
    ]
    return Inspection(
        problems=problems,
        warnings=warnings,
        empty_masks=[item["case"] for item, fact in zip(items, facts, strict=True) if fact["empty"]],
        image_hashes={item["case"]: fact["image"] for item, fact in zip(items, facts, strict=True)},
        data_hash=canonical_hash(sorted(rows)),
    )


def map_files(function: Callable[[Any], _T], items: Sequence[Any], what: str) -> list[_T]:
    """Apply a function that reads files to every item, on a few threads, with a bar on a terminal, else a line."""
    if not sys.stderr.isatty():
        logger.info("%s: %d", what, len(items))
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(tqdm(pool.map(function, items), total=len(items), desc=what, disable=None, leave=False))


def _inspect_item(item: Item, *, classes: int) -> dict[str, Any]:
    """Read both files of an item: problems, hashes, whether the label is empty, its share of the image (size)."""
    problems: list[str] = []
    rasters: dict[str, Raster | None] = {}
    hashes: dict[str, str] = {}
    for key in ("image", "label"):
        name = item[key]
        try:
            content = None if name.startswith(_MADE) else Path(name).read_bytes()
            raster = read_raster(name, content=content, indices=key == "label" and classes > 1)
            rasters[key] = raster
            hashes[key] = hashlib.sha256(raster.pixels.tobytes() if content is None else content).hexdigest()
        except (UserError, OSError) as error:
            problems += error.problems if isinstance(error, UserError) else [f"{name}: {error.strerror or error}"]
            rasters[key], hashes[key] = None, ""
    image, label = rasters["image"], rasters["label"]
    if image is not None and label is not None and image.pixels.shape[:2] != label.pixels.shape[:2]:
        problems.append(
            f"{item['label']}: is {_size(label)} (width x height) but its image is {_size(image)}; they must agree"
        )
    empty, size = False, math.nan
    if label is not None:
        if classes > 1:
            problem = label_problem(label.pixels, classes=classes)
        else:
            problem = mask_problem(label.pixels, lossy=item["label"].lower().endswith(("jpg", "jpeg")))
        if problem:
            problems.append(f"{item['label']}: {problem}")
        mask = label.pixels > 0 if classes > 1 else binarise(label.pixels)
        empty, size = not label.pixels.any(), float(mask.mean())
    return {"problems": problems, "image": hashes["image"], "label": hashes["label"], "empty": empty, "size": size}


def _size(raster: Raster) -> str:
    return f"{raster.pixels.shape[1]} x {raster.pixels.shape[0]}"


def mask_problem(pixels: np.ndarray, *, lossy: bool = False) -> str | None:
    """Say why an array cannot be a two-level mask, or None if it can.

    Grey pixels are allowed near the border of the foreground, where JPEG and interpolation leave them, not elsewhere.
    An empty mask is legitimate.

    Args:
        pixels: (height, width), or (height, width, 3).
        lossy: it comes from a JPEG file, where a mask of few, close levels is noise around a constant.
    """
    grey = to_channels(pixels.astype(np.float32), 1)
    low, high = float(grey.min()), float(grey.max())
    if low == high:
        return None if high == 0 else f"all foreground (every pixel is {high:g}); an empty mask must be all 0"
    if lossy and high - low < 64:
        return f"levels {low:g} to {high:g} are the noise of a JPEG file, not a mask of two levels"
    quarter = (high - low) / 4
    between = (grey > low + quarter) & (grey < high - quarter)
    if not between.any():
        return None
    mask = binarise(pixels)
    edge = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_erosion(mask, iterations=3)
    stray = int((between & ~edge).sum())
    levels = len(np.unique(grey.round()))
    if stray > 0.002 * mask.size:
        return f"not a mask of two levels: {levels} grey levels, and {stray} pixels of them away from any edge"
    # In noise every pixel is near an edge.
    if between.mean() > 0.25:
        return f"not a mask of two levels: {levels} grey levels, and {between.mean():.0%} of its pixels in between"
    return None
