from __future__ import annotations

import numpy as np

from monai_thyroid.metrics import add_confusion, no_confusion

CLASSES = ["low", "high"]


def test_lesions_are_counted_by_the_class_of_most_of_their_marked_pixels() -> None:
    reference = np.zeros((20, 30), np.uint8)
    reference[1:5, 1:5] = 1  # given low, though more of high is marked beside it
    reference[1:5, 10:14] = 2  # given low
    reference[10:14, 1:5] = 2  # missed
    reference[10:14, 10:14] = 2  # touches the next by a corner: one lesion, mostly high
    reference[14, 14] = 1
    found = np.zeros_like(reference)
    found[1:5, 1:4] = 1
    found[1:9, 4] = 2
    found[2, 11:13] = 1
    found[2, 10] = 2
    found[10:12, 10:14] = 2
    found[17:19, 25:28] = 2  # where nothing is
    found[0, 29] = 1
    table = no_confusion(CLASSES)
    add_confusion(table, reference, found, classes=CLASSES)
    assert table == {
        "low": {"low": 1, "high": 0, "missed": 0},
        "high": {"low": 1, "high": 1, "missed": 1},
        "nothing": {"low": 1, "high": 1},
    }
    add_confusion(table, np.zeros((3, 4), np.uint8), np.zeros((3, 4), np.uint8), classes=CLASSES)
    assert sum(sum(row.values()) for row in table.values()) == 6
