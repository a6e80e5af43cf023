"""From a dataset folder to the list of items that training, evaluation and every hash go by."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from monai_thyroid.data.layouts import Item, read_layout
from monai_thyroid.data.phantom import phantom_views
from monai_thyroid.data.reading import Raster, binarise, phantom_uri, read_raster, to_channels
from monai_thyroid.errors import UserError
from monai_thyroid.files import canonical_hash

__all__ = ["PARTS", "PHANTOM", "Datalist", "Inspection", "carve", "load_datalist", "map_files", "mask_problem"]

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
PHANTOM = "phantom"

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
            images of one patient may be in two parts.
        how: one sentence on how the parts came about.
    """

    name: str
    root: Path | None
    items: list[Item]
    grouping: str
    how: str
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
            self._inspection = _inspect(self.items)
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
            "data_hash": self.inspect().data_hash,
            "warnings": self.inspect().warnings,
            "parts": parts,
        }


def load_datalist(
    dataset_dir: str,
    *,
    layout: str,
    split_seed: int = 0,
    validation_fraction: float = 0.15,
    phantom_cases: int = 150,
    phantom_seed: int = 0,
) -> Datalist:
    """List a dataset and split it into train, validation and test.

    The test part is the layout's own. Validation is carved out of the rest by group (patient, examination), seeded;
    where groups are unknown, by file, and the datalist says so.

    Args:
        dataset_dir: a folder, or ``"phantom"`` for synthetic scans.
        layout: name of the folder's layout, see `LAYOUTS`.
        split_seed: seed of the validation split; apart from the training seed, so that runs of several seeds share
            their cases.
        validation_fraction: share of the non-test images that goes to validation, in (0, 1).
        phantom_cases: number of synthetic patients, a fifth of them for test.
        phantom_seed: seed of the synthetic patients.

    Raises:
        UserError: the folder cannot be used as it is; names every problem.
    """
    if not 0 < validation_fraction < 1:
        raise UserError(f"validation_fraction {validation_fraction!r}: give a number between 0 and 1")
    if dataset_dir == PHANTOM:
        logger.warning("SYNTHETIC DATA: training on computer-made phantom scans, not on patients (--dataset_dir DIR)")
        items, grouped, name, root = _phantom_items(phantom_cases, phantom_seed), True, PHANTOM, None
    else:
        if not isinstance(dataset_dir, str) or not dataset_dir:
            raise UserError(f"dataset_dir {dataset_dir!r}: give a folder, or {PHANTOM}")
        root = Path(dataset_dir).expanduser().resolve()
        listing = read_layout(root, layout)
        problems = list(listing.problems)
        problems += _groups_in_two_parts(listing.items)
        if problems:
            raise UserError(problems)
        items, grouped, name = listing.items, listing.grouped, root.name
    carve(items, fraction=validation_fraction, seed=split_seed)
    unit = "group" if grouped else "file, because groups are unknown"
    return Datalist(
        name=name,
        root=root,
        items=items,
        grouping="known" if grouped else "unknown",
        how=f"test: official part; validation: {validation_fraction:g} of the rest, by {unit} (seed {split_seed})",
    )


def carve(items: Sequence[Item], *, fraction: float, seed: int) -> None:
    """Turn the part ``"trainval"`` of items into ``"train"`` and ``"validation"``, whole groups at a time, in place.

    Raises:
        UserError: fewer than two groups are there to be divided.
    """
    rest = [item for item in items if item["part"] == "trainval"]
    groups = sorted({item["group"] for item in rest})
    if len(groups) < 2:
        raise UserError(
            f"{len(groups)} group(s) to divide into train and validation: at least two patients or examinations are "
            "needed"
        )
    np.random.RandomState(seed).shuffle(groups)
    wanted, validation, count = max(1, round(fraction * len(rest))), set(), 0
    for group in groups[:-1]:
        if count >= wanted:
            break
        validation.add(group)
        count += sum(item["group"] == group for item in rest)
    for item in rest:
        item["part"] = "validation" if item["group"] in validation else "train"


def _phantom_items(cases: int, seed: int) -> list[Item]:
    if not isinstance(cases, int) or cases < 10:
        raise UserError(f"phantom_cases {cases!r}: give a whole number of at least 10")
    order = np.random.RandomState(seed).permutation(cases)
    test = set(order[: cases // 5].tolist())
    return [
        {
            "image": phantom_uri("image", case=case, view=view, seed=seed),
            "label": phantom_uri("label", case=case, view=view, seed=seed),
            "case": f"{case:04d}_{view}",
            "group": f"{case:04d}",
            "part": "test" if case in test else "trainval",
            "site": "",
        }
        for case in range(cases)
        for view in range(phantom_views(case, seed=seed))
    ]


def _groups_in_two_parts(items: Sequence[Item]) -> list[str]:
    parts: dict[str, set[str]] = {}
    for item in items:
        parts.setdefault(item["group"], set()).add(item["part"])
    return [
        f"case {group} is in {' and in '.join(sorted(found))}: images of one patient must stay in one part"
        for group, found in sorted(parts.items())
        if len(found) > 1
    ]


def _inspect(items: Sequence[Item]) -> Inspection:
    facts = map_files(_inspect_item, items, "Checking files")
    problems = [problem for fact in facts for problem in fact["problems"]]
    warnings = []
    by_hash: dict[str, Item] = {}
    for item, fact in zip(items, facts, strict=True):
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
    """Apply a function that reads files to every item, on a few threads, with a bar where that takes a while."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(tqdm(pool.map(function, items), total=len(items), desc=what, disable=None, leave=False))


def _inspect_item(item: Item) -> dict[str, Any]:
    problems: list[str] = []
    rasters: dict[str, Raster | None] = {}
    hashes: dict[str, str] = {}
    for key in ("image", "label"):
        name = item[key]
        try:
            content = None if name.startswith(PHANTOM + ":") else Path(name).read_bytes()
            rasters[key] = raster = read_raster(name, content=content)
            hashes[key] = hashlib.sha256(raster.pixels.tobytes() if content is None else content).hexdigest()
        except (UserError, OSError) as error:
            problems.append(str(error))
            rasters[key], hashes[key] = None, ""
    image, label = rasters["image"], rasters["label"]
    if image is not None and label is not None and image.pixels.shape[:2] != label.pixels.shape[:2]:
        problems.append(
            f"{item['label']}: is {_size(label)} (width x height) but its image is {_size(image)}; they must agree"
        )
    if label is not None and (problem := mask_problem(label.pixels, lossy=item["label"].lower().endswith("jpg"))):
        problems.append(f"{item['label']}: {problem}")
    empty = label is not None and not label.pixels.any()
    return {"problems": problems, "image": hashes["image"], "label": hashes["label"], "empty": empty}


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
    if stray > 0.002 * mask.size:
        levels = len(np.unique(grey.round()))
        return f"not a mask of two levels: {levels} grey levels, {stray} of them in-between pixels away from any edge"
    return None
