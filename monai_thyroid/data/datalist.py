"""The list of items that training, evaluation and every hash go by."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from monai_thyroid.data.inspection import Inspection, inspect_items, read_facts
from monai_thyroid.data.layouts import Item
from monai_thyroid.data.splits import PARTS
from monai_thyroid.errors import UserError

__all__ = ["Datalist"]


@dataclass
class Datalist:
    """The items of a dataset and how they are split.

    Attributes:
        name: ``"phantom"`` or the folder's name.
        root: the folder, absolute; None for the phantom.
        items: dicts of strings: image, label, case, group, part (train, validation, test), site.
        grouping: ``"known"``: no group is in two parts; ``"unknown"``: each image (or set of near-identical images)
            counted as a group of its own, so images of one patient may be in two parts; ``"leaky"``: groups are known
            and were not heeded, on request.
        how: one sentence on how the parts came about.
        classes: how many classes a label has, background not counted.
        fold: which fold of how many, None without cross-validation.
        sites: those that were asked for; empty where all there are were taken.
        notes: what the layout or the split left out or guessed.
        allow_empty_parts: whether a part may have empty masks only.
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
    allow_empty_parts: bool = False
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
            facts = self._facts or read_facts(self.items, self.classes)
            found = inspect_items(
                self.items,
                facts,
                expected_hashes=self.expected_hashes,
                allow_empty_parts=self.allow_empty_parts,
            )
            warnings = list(self.notes)
            if self.grouping == "leaky":
                warnings.append("leaky split: images of one group are in several parts, so the figures say too much")
            self._inspection = replace(found, warnings=warnings + found.warnings)
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
