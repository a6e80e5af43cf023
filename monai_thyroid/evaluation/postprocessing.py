"""What is done to a network's masks before they are delivered, and how it is chosen on validation. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
from scipy import ndimage

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.pixels import numbered
from monai_thyroid.metrics import Counts, Tally, better, label_components

__all__ = ["RULE", "Postprocessing", "ValidationCase", "choose"]

THRESHOLDS = tuple(round(0.1 + 0.05 * step, 2) for step in range(17))
SMALLEST = (0.0, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2)

RULE = (
    "First thresholds from 0.1 to 0.9 are tried, then all combinations of filling holes, removing components smaller "
    "than 0.01 % to 1 % of the image (but than no more than the least that a class has in an image for training or "
    "validation), and keeping only the largest component of a class. A setting is considered if it does not make "
    "missed objects and falsely marked images together more: one of either counts the same. Of these the one with the "
    "highest mean Dice, in which both are 0, is taken if its mean gain exceeds the standard error over groups."
)
"""How `choose` decides."""


@dataclass(frozen=True)
class Postprocessing:
    """How class numbers are changed after the network; the default changes nothing.

    Attributes:
        threshold: that replaces the configured one; None keeps it. Softmax has none.
        fill_holes: background inside of a class becomes that class.
        smallest: components (8 neighbours) of less than this share of the image's pixels are removed.
        largest_only: of each class only its largest component is kept; equally large ones all.
    """

    threshold: float | None = None
    fill_holes: bool = False
    smallest: float = 0.0
    largest_only: bool = False

    @classmethod
    def from_record(cls, record: Mapping[str, Any] | None) -> Postprocessing:
        """From ``postprocessing`` of run.json; None for nothing.

        Raises:
            UserError: it holds something else; says what is wrong.
        """
        record = record or {}
        found = {one.name: record.get(one.name, one.default) for one in fields(cls)}
        shares = [found["smallest"], *([found["threshold"]] if found["threshold"] is not None else [])]
        numbers = all(isinstance(one, (int, float)) and not isinstance(one, bool) and 0 <= one <= 1 for one in shares)
        if not numbers or not all(isinstance(found[name], bool) for name in ("fill_holes", "largest_only")):
            raise UserError(f"postprocessing holds {found}; give shares of 0 to 1, and true or false")
        return cls(**found)

    def threshold_or(self, configured: float) -> float:
        """The chosen threshold, else the configured one."""
        return configured if self.threshold is None else self.threshold

    def as_dict(self) -> dict[str, Any]:
        """The settings, for JSON."""
        return asdict(self)

    def in_words(self, configured: float) -> str:
        """What is done, beside a configured threshold; "" for nothing."""
        told = [f"threshold {self.threshold:g} instead of {configured:g}"] if self.threshold is not None else []
        told += ["holes filled"] if self.fill_holes else []
        told += [f"components below {100 * self.smallest:g} % of the image removed"] if self.smallest else []
        told += ["only the largest component of a class kept"] if self.largest_only else []
        return ", ".join(told)

    def __bool__(self) -> bool:
        return self != Postprocessing()

    def __call__(self, labels: np.ndarray) -> np.ndarray:
        """Change class numbers; the threshold has been applied before.

        Args:
            labels: (height, width), or with the axes exchanged: nothing here depends on which is which.
        """
        if not (self.fill_holes or self.smallest or self.largest_only):
            return labels
        result = labels.copy()
        for number in np.unique(labels[labels > 0]):
            mask = labels == number
            if self.fill_holes:
                mask = ndimage.binary_fill_holes(mask)
                result[mask & (labels == 0)] = number
                mask = result == number
            kept = self._kept(mask)
            result[mask & ~kept] = 0
        return result

    def _kept(self, mask: np.ndarray) -> np.ndarray:
        components, _ = label_components(mask)
        sizes = np.bincount(components.ravel())
        sizes[0] = 0
        large = sizes >= max(1.0, self.smallest * mask.size)
        if self.largest_only:
            large &= sizes == sizes.max()
        kept: np.ndarray = large[components]
        return kept


@dataclass(frozen=True)
class ValidationCase:
    """An image of the validation part.

    Attributes:
        probabilities: (channels, height, width), on its own grid.
        reference: (height, width), class numbers.
        group: patient, video or scene.
    """

    probabilities: np.ndarray
    reference: np.ndarray
    group: str


def choose(
    cases: Callable[[], Iterable[ValidationCase]],
    *,
    classes: int,
    activation: str,
    threshold: float,
    least: float = 1.0,
) -> tuple[Postprocessing, dict[str, Any]]:
    """Choose on validation, by `RULE`.

    Args:
        cases: gives the images of the validation part, again at each call: there are two passes, and the probabilities
            of a whole part may not fit into memory.
        classes: how many there are.
        activation: that made the probabilities.
        threshold: that is configured.
        least: the smallest share of an image that is marked in any; removing more could lose all that there is in one.

    Returns:
        What is best, and the record for run.json: the settings, ``rule``, ``images``, and what they give there beside
        what nothing gives (``validation``, ``validation_without``).

    Raises:
        UserError: there is no image.
    """
    best = Postprocessing()
    plain: Tally | None = None
    tally: Tally | None = None
    # Softmax takes the likeliest class, so only the other steps are left.
    for candidates in ([_thresholds(threshold)] if activation == "sigmoid" else []) + [_forms(least)]:
        settings = [replace(best, **changes) for changes in candidates]
        tallies, groups = _tried(cases(), settings, classes=classes, activation=activation, threshold=threshold)
        plain = plain or tallies[0]
        taken = better(tallies, groups)
        best, tally = settings[taken], tallies[taken]
    assert plain is not None
    assert tally is not None
    return best, {
        **best.as_dict(),
        "rule": RULE,
        "images": len(tally.dice),
        "validation": tally.as_dict(),
        "validation_without": plain.as_dict(),
    }


def _thresholds(configured: float) -> list[dict[str, Any]]:
    return [{}, *({"threshold": one} for one in THRESHOLDS if one != configured)]


def _forms(least: float) -> list[dict[str, Any]]:
    """Simple ones first, of which the first is taken where several are equally good."""
    return [
        {"smallest": smallest, "fill_holes": fill, "largest_only": largest}
        for fill in (False, True)
        for largest in (False, True)
        for smallest in SMALLEST
        if smallest <= least
    ]


def _tried(
    cases: Iterable[ValidationCase],
    settings: Sequence[Postprocessing],
    *,
    classes: int,
    activation: str,
    threshold: float,
) -> tuple[list[Tally], list[str]]:
    tallies, groups = [Tally([]) for _ in settings], []
    for case in cases:
        groups.append(case.group)
        for tally, labels in zip(tallies, _labels(case, settings, activation, threshold), strict=True):
            tally.add([Counts.of(case.reference == number, labels == number) for number in range(1, classes + 1)])
    if not groups:
        raise UserError("the validation part holds no image, so nothing can be chosen on it")
    return tallies, groups


def _labels(
    case: ValidationCase, settings: Sequence[Postprocessing], activation: str, threshold: float
) -> Iterator[np.ndarray]:
    known: dict[float, np.ndarray] = {}
    for one in settings:
        level = threshold if one.threshold is None else one.threshold
        if level not in known:
            known[level] = numbered(case.probabilities, activation=activation, threshold=level)
        yield one(known[level])
