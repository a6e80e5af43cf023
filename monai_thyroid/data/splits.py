"""Dividing a dataset into train, validation and test: by group, seeded, alike in lesion size; or as a file says.

scikit-learn's grouped splitters do not do this: `GroupShuffleSplit` takes a share of the groups, not of the images, and
knows no strata, `StratifiedGroupKFold` takes no share at all, and the splits of both depend on the order of the images.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.data.layouts import Item
from monai_thyroid.data.layouts.listing import official_part, read_table
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_json
from monai_thyroid.images import stem

__all__ = ["PARTS", "SplitFile", "apply_split", "assign_folds", "carve", "groups_in_two_parts", "read_split_file"]

PARTS = ("train", "validation", "test")
_STRATA = 4

SplitFile = dict[str, list[str]]
"""Cases of each part."""


def carve(
    items: Sequence[Item],
    *,
    fraction: float,
    seed: int,
    part: str = "validation",
    rest: str | None = "train",
    by: str = "group",
    sizes: Mapping[str, float] | None = None,
) -> None:
    """Give some of the items whose part is ``"trainval"`` to another part, whole groups at a time, in place.

    Args:
        items: all of the dataset; those of other parts are left alone.
        fraction: share of the ``"trainval"`` images to give away, in (0, 1); met as nearly as whole groups allow.
        seed: of the choice.
        part: to which they are given.
        rest: part of those that stay; None to leave them ``"trainval"``.
        by: key of what must stay together; ``"case"`` divides single images.
        sizes: lesion size of each case (share of the image, NaN where unknown); with it, the parts are alike in it:
            groups are divided within quarters of their median size.

    Raises:
        UserError: fewer than two groups are there to be divided.
    """
    pool = [item for item in items if item["part"] == "trainval"]
    members = _members(pool, by)
    groups = sorted(members)
    if len(groups) < 2:
        raise UserError(
            f"{len(groups)} group(s) to divide into {rest or 'train'} and {part}: at least two patients or "
            "examinations are needed"
        )
    np.random.RandomState(seed).shuffle(groups)
    chosen: set[str] = set()
    if sizes is None:
        wanted, count = max(1, round(fraction * len(pool))), 0
        for group in groups[:-1]:
            if count >= wanted:
                break
            chosen.add(group)
            count += len(members[group])
    else:
        chosen = _balanced(groups, members, strata=_strata(members, sizes), fraction=fraction)
    for item in pool:
        if item[by] in chosen:
            item["part"] = part
        elif rest is not None:
            item["part"] = rest


def _balanced(
    groups: Sequence[str], members: Mapping[str, Sequence[Item]], *, strata: Mapping[str, int], fraction: float
) -> set[str]:
    """Choose groups so that each stratum gives its share of images, as nearly as whole groups allow."""
    chosen: set[str] = set()
    debt = 0.0  # what earlier strata gave too few, the next gives more
    for stratum in sorted(set(strata.values())):
        own = [group for group in groups if strata[group] == stratum]
        wanted = fraction * sum(len(members[group]) for group in own) + debt
        given = 0
        for group in own:
            # Taken where that comes nearer to what is wanted than leaving it.
            if given + len(members[group]) / 2 <= wanted:
                chosen.add(group)
                given += len(members[group])
        debt = wanted - given
    if not chosen:
        chosen.add(min(groups, key=lambda group: len(members[group])))
    if len(chosen) == len(groups):
        chosen.discard(max(groups, key=lambda group: len(members[group])))
    return chosen


def assign_folds(
    items: Sequence[Item],
    *,
    folds: int,
    seed: int,
    by: str = "group",
    sizes: Mapping[str, float] | None = None,
) -> dict[str, int]:
    """Divide items into folds of about equally many images, no group in two.

    Args:
        items: to be divided.
        folds: how many, 2 or more.
        seed: of the order in which groups of equal size are dealt.
        by: as for `carve`.
        sizes: as for `carve`; the folds are alike in it as far as whole groups allow.

    Returns:
        The fold of each case, from 0.

    Raises:
        UserError: there are fewer groups than folds.
    """
    members = _members(items, by)
    if len(members) < folds:
        raise UserError(f"folds {folds}: only {len(members)} groups are there to be divided; give fewer folds")
    groups = sorted(members)
    np.random.RandomState(seed).shuffle(groups)
    # Large groups first, so that small ones can even out what they leave.
    groups.sort(key=lambda group: -len(members[group]))
    strata = _strata(members, sizes) if sizes is not None else dict.fromkeys(groups, 0)
    ideal = len(items) / folds
    total = [0] * folds
    in_stratum: dict[int, list[int]] = defaultdict(lambda: [0] * folds)
    fold_of: dict[str, int] = {}
    for position, group in enumerate(groups):
        size, counts = len(members[group]), in_stratum[strata[group]]
        empty = [fold for fold in range(folds) if not total[fold]]
        # So many groups are left that each empty fold must get one of them.
        allowed = empty if len(groups) - position <= len(empty) else range(folds)
        fold = min(allowed, key=lambda k: (max(0.0, total[k] + size - 1.05 * ideal), counts[k], total[k], k))
        total[fold] += size
        counts[fold] += size
        fold_of.update(dict.fromkeys((item["case"] for item in members[group]), fold))
    return fold_of


def _members(items: Sequence[Item], by: str) -> dict[str, list[Item]]:
    members: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        members[item[by]].append(item)
    return dict(members)


def _strata(members: Mapping[str, Sequence[Item]], sizes: Mapping[str, float]) -> dict[str, int]:
    """Which quarter of lesion sizes a group is in, by the median of its images; unknown sizes count as empty."""
    typical = {
        group: float(np.median([0.0 if math.isnan(size := sizes[item["case"]]) else size for item in own]))
        for group, own in members.items()
    }
    cuts = np.quantile(list(typical.values()), np.arange(1, _STRATA) / _STRATA)
    return {group: int(np.searchsorted(cuts, size, side="left")) for group, size in typical.items()}


def groups_in_two_parts(items: Sequence[Item]) -> list[str]:
    """One sentence for each group whose images are in more than one part."""
    parts: dict[str, set[str]] = {}
    for item in items:
        parts.setdefault(item["group"], set()).add(item["part"])
    return [
        f"case {group} is in {' and in '.join(sorted(found))}: images of one patient must stay in one part"
        for group, found in sorted(parts.items())
        if len(found) > 1
    ]


def read_split_file(path: str | Path) -> tuple[SplitFile, dict[str, Any]]:
    """Read which case is in which part.

    Args:
        path: the split.json of a run, a JSON file ``{"train": [...], "validation": [...], "test": [...]}``, or a CSV
            file with the columns ``case`` (or ``file``) and ``part``.

    Returns:
        Cases of each part, and the rest of a split.json (empty for the other forms).

    Raises:
        UserError: it is none of these, or has a case twice.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"split_file {path}: no such file")
    about: dict[str, Any] = {}
    problems: list[str] = []
    entries: list[tuple[str, str, str]] = []  # part, case, and where it stands
    try:
        if path.suffix.lower() == ".csv":
            for row in read_table(path, ["part"], problems):
                entries.append((row["part"], row.get("case") or stem(row["file"]), f" (row {row['']})"))
        else:
            content = read_json(path)
            if "parts" in content:
                about = content
                content = {part: rows["cases"] for part, rows in content["parts"].items()}
            entries += [(part, str(case), "") for part, cases in content.items() for case in cases]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"split_file {path}: neither the split.json of a run, nor lists of cases under train, validation and "
            f"test, nor a table with the columns case and part ({type(error).__name__}: {error})"
        ) from error
    split: SplitFile = {part: [] for part in PARTS}
    seen: dict[str, tuple[str, str]] = {}
    unknown: dict[str, None] = {}
    for name, case, place in entries:
        if (known := official_part(name)) is None:
            unknown[f"split_file {path}: unknown part {name!r}; choose {', '.join(PARTS)}"] = None
            continue
        part = "train" if known == "trainval" else known
        if case in seen:
            other, first = seen[case]
            problems.append(f"split_file {path}: case {case} is in {other}{first} and in {part}{place}")
        else:
            seen[case] = part, place
            split[part].append(case)
    problems += unknown
    if not entries and not problems:
        problems.append(f"split_file {path}: names no case")
    if problems:
        raise UserError(problems)
    return split, about


def apply_split(items: Sequence[Item], split: SplitFile, *, source: str) -> tuple[list[Item], list[str], list[str]]:
    """Give the items the parts of a split file.

    Args:
        items: of the whole dataset; changed in place.
        split: cases of each part.
        source: of the split, for messages.

    Returns:
        The items that the split names, in their order; problems (cases that the dataset does not have); notes.
    """
    part_of = {case: part for part, cases in split.items() for case in cases}
    known = {item["case"] for item in items}
    problems = [f"{source}: case {case} is not in the dataset" for case in part_of if case not in known]
    kept = []
    for item in items:
        if item["case"] in part_of:
            item["part"] = part_of[item["case"]]
            kept.append(item)
    notes = []
    if left := len(items) - len(kept):
        notes.append(f"{source}: names no part for {left} of {len(items)} images; they are left out")
    return kept, problems, notes
