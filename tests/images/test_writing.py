"""Writing masks and overlays, and the names they go by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from skimage.segmentation import find_boundaries

from monai_thyroid.images import overlay, read_labels, save_label, stem


def test_more_classes_than_colours_keep_their_numbers(tmp_path: Path) -> None:
    labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    save_label(labels, tmp_path / "a.png", classes=19)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", classes=19), labels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a"),
        ("dir.x/a.b.nii.gz", "a.b"),
        ("a.NII.GZ", "a"),
        ("a.nii", "a"),
        ("IM0001", "IM0001"),
        ("1.2.840.113619.2.5", "1.2.840.113619.2.5"),
        ("1.2.840.113619.2.5.dcm", "1.2.840.113619.2.5"),
    ],
)
def test_the_stem_is_the_name_without_the_suffix_of_an_image(name: str, expected: str) -> None:
    assert stem(name) == expected
    assert stem(Path(name)) == expected


# --- the overlay ---


def colours(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the picture is of the outline's colour, and where it is black."""
    return (picture == (86, 180, 233)).all(axis=2), (picture == 0).all(axis=2)


@pytest.mark.parametrize("shape", [(60, 90), (500, 900)])
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_away_from_the_outline_are_those_of_the_image(shape: tuple[int, int], colour: bool) -> None:
    image = np.random.RandomState(0).randint(1, 256, (*shape, 3) if colour else shape).astype(np.uint8)
    mask = np.zeros(shape, bool)
    mask[10:40, 20:60] = True
    picture = overlay(image / np.float32(255), mask)
    assert picture.dtype == np.uint8
    width = max(1, round(max(shape) / 400))
    line, black = colours(picture)
    original = image if colour else np.repeat(image[..., None], 3, axis=2)
    drawn = line | black
    np.testing.assert_array_equal(picture[~drawn], original[~drawn])
    # the line is the mask's own border, as thick as said, and the dark lines are beside it
    border = find_boundaries(mask, mode="inner", connectivity=1)
    assert line[border].all()
    assert (line <= mask).all()
    y, x = np.nonzero(drawn)
    distance = np.abs(np.stack([y - 9.5, y - 39.5, x - 19.5, x - 59.5])).min(axis=0)
    assert distance.max() <= 2 * width
    assert black[5:45, 15:65].any()


def test_an_empty_mask_changes_nothing_and_a_full_one_marks_the_frame() -> None:
    image = np.random.RandomState(0).randint(1, 256, (60, 90)).astype(np.uint8)
    untouched = np.repeat(image[..., None], 3, axis=2)
    np.testing.assert_array_equal(overlay(image / 255, np.zeros((60, 90), bool)), untouched)
    picture = overlay(image / 255, np.ones((60, 90), bool))
    frame = np.ones((60, 90), bool)
    frame[1:-1, 1:-1] = False
    np.testing.assert_array_equal(colours(picture)[0], frame)
    np.testing.assert_array_equal(picture[5:-5, 5:-5], untouched[5:-5, 5:-5])


def test_a_mask_of_one_pixel_is_seen() -> None:
    mask = np.zeros((60, 90), bool)
    mask[0, 89] = True
    line, _ = colours(overlay(np.full((60, 90), 0.5), mask))
    np.testing.assert_array_equal(line, mask)
