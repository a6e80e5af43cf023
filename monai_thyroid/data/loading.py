"""From a dataset folder to a datalist: read, and split into train, validation and test."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from monai_thyroid.data.case_classes import classes_by_part, give_classes
from monai_thyroid.data.datalist import Datalist
from monai_thyroid.data.folders import read_listing
from monai_thyroid.data.inspection import read_facts
from monai_thyroid.data.layouts import AUTO, Item, Listing
from monai_thyroid.data.splits import apply_split, assign_folds, carve, groups_in_two_parts, read_split_file
from monai_thyroid.errors import UserError
from monai_thyroid.images.phantom import phantom_views
from monai_thyroid.images.sources import phantom_uri

__all__ = ["PHANTOM", "load_datalist"]

logger = logging.getLogger(__name__)

PHANTOM = "phantom"


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
    allow_empty_parts: bool = False,
    class_table: str | None = None,
    class_values: Mapping[str, Sequence[str]] | None = None,
    unclassified: Literal["refuse", "leave_out"] = "refuse",
) -> Datalist:
    """List a dataset and split it into train, validation and test.

    The parts that a dataset comes with are kept. What is lacking is carved out by group (patient, examination,
    scene), seeded; where groups are unknown, by file, and the datalist says so.

    Args:
        dataset_dir: a folder, or ``"phantom"`` for synthetic scans.
        layout: name of the folder's layout, several to choose from, or ``"auto"``; see
            `monai_thyroid.data.folders.read_layout`.
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
        allow_empty_parts: accept a part all of whose masks are empty; else the inspection calls it a problem, for
            there whatever marks nothing scores 1.
        class_table: what tells each image's class where its mask has two levels, see `give_classes`.
        class_values: of each of the ``classes`` the values there.
        unclassified: what becomes of an image without a value there.

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
    if allow_empty_parts not in (True, False):
        problems.append(f"allow_empty_parts {allow_empty_parts!r}: give true or false")
    if split not in ("groups", "frames"):
        problems.append(f"split {split!r}: choose groups or frames")
    if problems:
        raise UserError(problems)
    number = classes if isinstance(classes, int) else len(classes)
    root = None
    if dataset_dir == PHANTOM:
        if class_table is not None:
            raise UserError(f"class_table {class_table}: the phantom has none, but classes of its own; give a folder")
        logger.warning("SYNTHETIC DATA: computer-made phantom scans, not patients (--dataset_dir DIR)")
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
        if class_table is not None:
            give_classes(
                listing, root, table=class_table, classes=classes, values=class_values, unclassified=unclassified
            )
        elif listing.classes and len(listing.classes) != number:
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
        allow_empty_parts=bool(allow_empty_parts),
    )
    _split(data, listing, options)
    if class_table is not None and not isinstance(classes, int):
        data.notes.append(classes_by_part(data.items, classes))
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


def _names(value: str | Sequence[str] | None) -> list[str]:
    if not value:
        return []
    names = value.split(",") if isinstance(value, str) else value
    return [name.strip() for name in names if name.strip()]


def _split(data: Datalist, listing: Listing, options: _Options) -> None:
    """Give every item its part, in place, and say how."""
    by = "group" if (listing.grouped or listing.alike) and not options.frames else "case"
    unit = listing.unit if by == "group" else "file, because groups are unknown"
    if listing.alike and by == "group":
        unit += ", because patients are unknown"
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
        data._facts = read_facts(data.items, data.classes)
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
