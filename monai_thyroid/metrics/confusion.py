"""Which class a lesion was given: counts of lesions, not of pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from monai_thyroid.metrics.components import label_components

__all__ = ["MISSED", "NOTHING", "add_confusion", "no_confusion"]

MISSED = "missed"
"""Column of lesions of which not a pixel is marked."""
NOTHING = "nothing"
"""Row of what was marked away from every lesion."""

Confusion = dict[str, dict[str, int]]


def no_confusion(classes: Sequence[str]) -> Confusion:
    """A table of zeros: a row a class of the reference and `NOTHING`, a column a class marked and `MISSED`."""
    table = {name: dict.fromkeys((*classes, MISSED), 0) for name in classes}
    return {**table, NOTHING: dict.fromkeys(classes, 0)}


def add_confusion(
    table: Confusion,
    reference: npt.NDArray[np.integer],
    prediction: npt.NDArray[np.integer],
    *,
    classes: Sequence[str],
) -> None:
    """Count the lesions of one image, in place.

    A lesion is a connected component (8 neighbours) of all classes together. Its class is that of most of its pixels,
    of equally many the first. It was given the class of most pixels that are marked within it, and is `MISSED` where
    none is. What is marked and touches no lesion counts in the row `NOTHING`.

    Args:
        table: from `no_confusion`.
        reference: (H, W), class numbers from 1, 0 is background.
        prediction: likewise.
        classes: names of the numbers.
    """
    lesions, count = label_components(reference > 0)
    for number in range(1, count + 1):
        within = lesions == number
        given = prediction[within & (prediction > 0)]
        column = classes[_most(given) - 1] if given.size else MISSED
        table[classes[_most(reference[within]) - 1]][column] += 1
    marked, count = label_components(prediction > 0)
    for number in sorted(set(range(1, count + 1)) - set(np.unique(marked[reference > 0]).tolist())):
        table[NOTHING][classes[_most(prediction[marked == number]) - 1]] += 1


def _most(numbers: npt.NDArray[np.integer]) -> int:
    return int(np.bincount(numbers).argmax())
