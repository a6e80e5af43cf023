"""Images and masks of an item: a marker lands on the same pixels from every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_files import AFFINE, SAVERS, marker, noise
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.transforms import LoadMaskd, LoadScand


@pytest.mark.parametrize("name", SAVERS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_marker_lands_on_the_same_pixels_from_every_format(tmp_path: Path, name: str, channels: int) -> None:
    SAVERS[name](tmp_path / name, marker())
    image = LoadScand("image", channels=channels)({"image": str(tmp_path / name), "case": "a"})["image"]
    assert tuple(image.shape) == (channels, 53, 37)
    assert image.dtype.is_floating_point
    for channel in image:
        np.testing.assert_allclose(channel.numpy().T, marker() / 255, atol=3 / 255 if name == "a.jpg" else 1e-6)
    assert image.meta["filename_or_obj"] == str(tmp_path / name)
    known = name == "a.nii.gz"
    np.testing.assert_allclose(np.asarray(image.affine), AFFINE if known else np.eye(4))
    np.testing.assert_allclose(image.meta["spacing_yx"], (0.25, 0.5) if known else (np.nan, np.nan))


@pytest.mark.parametrize("name", SAVERS)
def test_a_mask_lands_on_the_same_pixels_from_every_format(tmp_path: Path, name: str) -> None:
    truth = marker() > 200
    SAVERS[name](tmp_path / name, truth * np.uint8(255))
    mask = LoadMaskd("label")({"label": str(tmp_path / name)})["label"]
    assert tuple(mask.shape) == (1, 53, 37)
    np.testing.assert_array_equal(mask[0].numpy().T, truth.astype(np.float32))


def test_the_colours_keep_their_order(tmp_path: Path) -> None:
    colour = noise((37, 53, 3))
    Image.fromarray(colour).save(tmp_path / "a.png")
    image = LoadScand("image", channels=3)({"image": str(tmp_path / "a.png")})["image"].numpy()
    np.testing.assert_allclose(image, np.transpose(colour, (2, 1, 0)) / 255, atol=1e-6)


def test_keys_that_are_absent_are_skipped_only_on_request() -> None:
    assert LoadScand("image", allow_missing_keys=True)({"case": "a"}) == {"case": "a"}
    with pytest.raises(KeyError):
        LoadScand("image")({"case": "a"})


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(UserError, match=r"1 \(grey\) or 3 \(RGB\)"):
        LoadScand("image", channels=channels)
