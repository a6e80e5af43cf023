"""What masks undergo after the network, and how it is chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from made_trained import made_trained

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import TrainedRun
from monai_thyroid.evaluation.postprocessing import Postprocessing, ValidationCase, choose


def labels() -> np.ndarray:
    """(20, 30), 600 pixels: a ring of class 1 with a pixel of class 2 in its hole, and small pieces of both."""
    found = np.zeros((20, 30), np.uint8)
    found[2:10, 2:10], found[4:8, 4:8], found[5, 5] = 1, 0, 2
    found[15, 15:18] = 1
    found[18, 25:27], found[17, 27] = 2, 2  # three pixels, joined at a corner
    return found


def test_nothing_is_the_default() -> None:
    assert not Postprocessing()
    np.testing.assert_array_equal(Postprocessing()(labels()), labels())
    assert Postprocessing.from_record(None) == Postprocessing() == Postprocessing.from_record({"rule": "any"})


def test_each_step_does_what_it_says() -> None:
    filled = Postprocessing(fill_holes=True)(labels())
    assert (filled[2:10, 2:10] == np.where(np.arange(64).reshape(8, 8) == 27, 2, 1)).all()
    np.testing.assert_array_equal(filled[10:], labels()[10:])
    cut = Postprocessing(smallest=3 / 600)(labels())
    assert cut[5, 5] == 0
    assert (cut[15, 15:18] == 1).all()
    assert cut[17, 27] == 2
    assert not Postprocessing(smallest=4 / 600)(labels())[12:].any()
    largest = Postprocessing(largest_only=True)(labels())
    assert not largest[15].any()
    assert largest[17, 27] == 2
    assert largest[5, 5] == 0


@pytest.mark.parametrize(
    "post", [Postprocessing(fill_holes=True, smallest=0.005, largest_only=True), Postprocessing(largest_only=True)]
)
def test_the_order_of_the_axes_does_not_matter(post: Postprocessing) -> None:
    given = labels()
    given[0, 20:23] = given[0:3, 29] = 1  # equally large ones
    np.testing.assert_array_equal(post(given.T).T, post(given))
    np.testing.assert_array_equal(post(given[:, ::-1])[:, ::-1], post(given))


@pytest.mark.parametrize(
    "record", [{"threshold": 2}, {"threshold": "0.5"}, {"smallest": -1}, {"fill_holes": 1}, {"largest_only": None}]
)
def test_nonsense_in_a_record_is_refused(record: dict) -> None:
    with pytest.raises(UserError, match="postprocessing holds"):
        Postprocessing.from_record(record)


def disc(level: float = 0.9, *, speck: float = 0.0, background: float = 0.05) -> np.ndarray:
    found = np.full((40, 40), background, np.float32)
    found[10:30, 10:30] = level
    found[2:4, 2:4] = max(speck, background)
    return found[None]


def truth(there: bool = True) -> np.ndarray:
    found = np.zeros((40, 40), np.uint8)
    found[10:30, 10:30] = there
    return found


def given(*pairs: tuple[np.ndarray, np.ndarray]) -> Callable[[], Iterable[ValidationCase]]:
    return lambda: iter([ValidationCase(one, other, f"p{index}") for index, (one, other) in enumerate(pairs)])


def chosen(*pairs: tuple[np.ndarray, np.ndarray]) -> tuple[Postprocessing, dict]:
    return choose(given(*pairs), classes=1, activation="sigmoid", threshold=0.5)


def test_specks_are_removed_and_the_threshold_stays() -> None:
    post, record = chosen(*[(disc(speck=0.95), truth())] * 5)
    assert post == Postprocessing(smallest=0.005)  # 4 of 1600 pixels are 0.0025
    assert record["images"] == 5
    assert record["validation"]["dice_mean"] == 1
    assert record["validation_without"]["dice_mean"] == pytest.approx(800 / 804)
    assert "one of either counts the same" in record["rule"]


def test_no_more_is_removed_than_the_smallest_object_has() -> None:
    cases = given(*[(disc(speck=0.95), truth())] * 5)
    for least, smallest in ((1.0, 0.005), (0.005, 0.005), (0.004, 0.0)):
        post, _ = choose(cases, classes=1, activation="sigmoid", threshold=0.5, least=least)
        assert post.smallest == smallest


def test_a_network_that_is_too_careful_gets_a_lower_threshold() -> None:
    post, record = chosen(*[(disc(level=0.32), truth())] * 5)
    assert post.threshold is not None
    assert 0.05 < post.threshold < 0.32
    assert (record["validation_without"]["n_misses"], record["validation"]["n_misses"]) == (5, 0)


def test_nothing_is_chosen_where_nothing_is_shown_to_be_better() -> None:
    assert chosen(*[(disc(), truth())] * 5)[0] == Postprocessing()
    # One image alone gains, by more than nothing and less than its own standard error.
    assert chosen((disc(speck=0.95), truth()), *[(disc(), truth())] * 5)[0] == Postprocessing()
    assert chosen((disc(speck=0.95), truth()))[0] == Postprocessing()  # a single group has no spread


def test_false_alarms_are_not_bought_with_as_many_misses() -> None:
    """Removing what is marked in empty images would lose the small objects too."""
    alarm = (disc(level=0.05, speck=0.95), truth(False))
    small = np.zeros((40, 40), np.uint8)
    small[2:4, 2:4] = 1
    found = disc(level=0.05, speck=0.95), small
    post, record = chosen(*[alarm] * 12, *[found] * 4)
    assert post == Postprocessing(smallest=0.005)  # twelve false alarms for four misses
    assert (record["validation"]["n_false_alarms"], record["validation"]["n_misses"]) == (0, 4)
    poor = disc(level=0.05, speck=0.95), small.copy()
    poor[1][2:12, 2:12] = 1  # found in part: a Dice of 0.08 is little to lose, and a miss nevertheless
    post, record = chosen(*[alarm] * 3, *[poor] * 4)
    assert post == Postprocessing()
    assert (record["validation"]["n_false_alarms"], record["validation"]["n_misses"]) == (3, 0)


def test_softmax_keeps_its_likeliest_class() -> None:
    both = np.concatenate([1 - disc(speck=0.95), disc(speck=0.95)])
    post, _ = choose(given(*[(both, truth())] * 4), classes=1, activation="softmax", threshold=0.5)
    assert post == Postprocessing(smallest=0.005)


def test_no_image_is_an_error() -> None:
    with pytest.raises(UserError, match="holds no image"):
        chosen()


def test_nonsense_in_a_run_is_told_with_its_folder(tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run", postprocessing={"smallest": 3})
    with pytest.raises(UserError, match=rf"{run}: run\.json: postprocessing holds"):
        TrainedRun(str(run))
