from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from monai_thyroid.errors import UserError
from monai_thyroid.transforms import BatchAugmentation
from monai_thyroid.transforms.batched import affine_matrices, warp

ALL: dict[str, Any] = {
    "flip_horizontal": 0.5,
    "flip_vertical": 0.5,
    "rotation": 30.0,
    "scale": (0.8, 1.25),
    "aspect": (0.8, 1.25),
    "shift": 0.1,
    "elastic": 0.02,
    "gamma": (0.7, 1.4),
    "gain": (0.8, 1.2),
    "brightness": 0.1,
    "contrast": (0.7, 1.4),
    "saturation": (0.5, 1.5),
    "hue": 20.0,
    "blur": 1.5,
    "noise": 0.05,
    "speckle": 0.2,
    "shadow": 0.5,
    "cutmix": 0.5,
}


def matrices(count: int = 1, **given: Any) -> torch.Tensor:
    parameters = {
        "angle": torch.zeros(count),
        "scale": torch.ones(count),
        "aspect": torch.ones(count),
        "shift": torch.zeros(count, 2),
        "flip": torch.zeros(count, 2, dtype=torch.bool),
        **given,
    }
    return affine_matrices(**parameters)


def marker(width: int = 40, height: int = 24) -> torch.Tensor:
    """(1, 1, width, height): a bar with a foot, like no mirrored or turned copy of itself."""
    image = torch.zeros(1, 1, width, height)
    image[..., 8:12, 4:18] = 1
    image[..., 8:22, 14:18] = 1
    return image


def smooth(count: int, channels: int, width: int = 32, height: int = 24) -> torch.Tensor:
    draws = np.random.default_rng(3).random((count, channels, width, height))
    return torch.from_numpy(ndimage.gaussian_filter(draws, (0, 0, 3, 3)) * 4 - 1.5).float().clamp(0, 1)


def centroid(image: torch.Tensor) -> np.ndarray:
    return np.asarray(ndimage.center_of_mass(image[0, 0].numpy()))


def test_the_identity_changes_nothing() -> None:
    image = smooth(2, 3)
    masks = (image[:, :1] > 0.5).float()
    warped, cut = warp(image, masks, matrices(2))
    torch.testing.assert_close(warped, image, atol=1e-5, rtol=0)
    assert torch.equal(cut, masks)


def test_flips_and_shifts_of_a_non_square_image() -> None:
    image = marker()
    mirrored, mask = warp(image, image, matrices(flip=torch.tensor([[True, False]])))
    torch.testing.assert_close(mirrored, image.flip(2), atol=1e-5, rtol=0)
    assert torch.equal(mask, image.flip(2))
    upside_down, _ = warp(image, image, matrices(flip=torch.tensor([[False, True]])))
    torch.testing.assert_close(upside_down, image.flip(3), atol=1e-5, rtol=0)
    moved, _ = warp(image, image, matrices(shift=torch.tensor([[5.0, -3.0]])))
    torch.testing.assert_close(moved, image.roll((5, -3), (2, 3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("degrees", [90.0, 30.0, -17.0])
def test_a_turn_is_a_turn_in_pixels(degrees: float) -> None:
    """In normalised coordinates it would shear an image that is not square."""
    image, angle = marker(), math.radians(degrees)
    turned, mask = warp(image, image, matrices(angle=torch.tensor([angle])))
    cosine, sine = math.cos(angle), math.sin(angle)
    inverse = np.array([[cosine, sine], [-sine, cosine]])
    centre = np.array([19.5, 11.5])
    expected = ndimage.affine_transform(image[0, 0].numpy(), inverse, centre - inverse @ centre, order=1)
    np.testing.assert_allclose(turned[0, 0], expected, atol=1e-4)
    assert torch.equal(mask[0, 0].bool(), turned[0, 0] > 0.5)
    # From the first axis towards the second: what lay on the left goes where the angle says.
    forward = np.array([[cosine, -sine], [sine, cosine]])
    assert np.allclose(centroid(turned), centre + forward @ (centroid(image) - centre), atol=0.3)


def test_scale_enlarges_and_aspect_widens() -> None:
    image = marker(64, 48).roll((17, 13), (2, 3))
    area = image.sum()
    larger, _ = warp(image, image, matrices(scale=torch.tensor([1.3])))
    assert float(larger.sum() / area) == pytest.approx(1.69, rel=0.03)
    wider, _ = warp(image, image, matrices(aspect=torch.tensor([1.44])))
    assert float(wider.sum() / area) == pytest.approx(1, rel=0.03)
    extent = [(one[0, 0] > 0.5).any(1).sum().item() for one in (image, wider)]
    assert extent[1] / extent[0] == pytest.approx(1.2, abs=0.1)


def test_a_displacement_is_in_pixels_of_its_axis() -> None:
    image = marker()
    displacement = torch.zeros(1, 2, *image.shape[2:])
    displacement[:, 0], displacement[:, 1] = -4, 2
    moved, _ = warp(image, image, matrices(), displacement=displacement)
    torch.testing.assert_close(moved, image.roll((4, -2), (2, 3)), atol=1e-5, rtol=0)


def test_each_image_goes_its_own_way() -> None:
    image = marker().expand(2, -1, -1, -1)
    warped, _ = warp(image, image, matrices(2, shift=torch.tensor([[0.0, 0.0], [3.0, 0.0]])))
    torch.testing.assert_close(warped[0], image[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(warped[1], image[1].roll(3, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_and_masks_stay_together(channels: int) -> None:
    """Masks of several classes are cut from the same map as the image that shows them."""
    classes = torch.cat([marker(), marker().flip(3) * (1 - marker())], dim=1)
    images = (classes * torch.tensor([1.0, 0.5])[:, None, None]).sum(1, keepdim=True).repeat(6, channels, 1, 1)
    masks = classes.repeat(6, 1, 1, 1)
    geometry = {name: ALL[name] for name in ("flip_horizontal", "rotation", "scale", "aspect", "shift", "elastic")}
    augmented, found = BatchAugmentation(seed=1, **geometry)(images, masks)
    assert augmented.shape == images.shape
    assert set(found.unique().tolist()) <= {0.0, 1.0}
    assert found.sum(1).max() <= 1
    # Where a class is, its intensity is, but for the interpolated border.
    for index, value in enumerate((1.0, 0.5)):
        inside = torch.from_numpy(ndimage.binary_erosion(found[:, index].numpy(), np.ones((1, 3, 3))))
        assert inside.any()
        assert (augmented[:, 0][inside] - value).abs().max() < 0.3
        assert (augmented[:, 0][inside] - value).abs().mean() < 0.02


def test_the_background_is_what_no_class_is() -> None:
    marks = marker().repeat(4, 1, 1, 1)
    masks = torch.cat([1 - marks, marks], dim=1)
    _, found = BatchAugmentation(seed=0, rotation=40.0, shift=0.3, background=True)(marks, masks)
    assert torch.equal(found.sum(1), torch.ones_like(found[:, 0]))
    assert found[:, 1].any()


def test_without_options_nothing_changes() -> None:
    images = smooth(3, 3)
    masks = (images[:, :1] > 0.5).float()
    augmented, found = BatchAugmentation(seed=0)(images, masks)
    assert torch.equal(augmented, images)
    assert torch.equal(found, masks)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_option_does_something_and_stays_in_range(name: str, channels: int) -> None:
    images = smooth(8, channels)
    masks = (images[:, :1] > 0.5).float()
    augmented, found = BatchAugmentation(seed=0, probability=1.0, **{name: ALL[name]})(images, masks)
    assert augmented.shape == images.shape
    assert augmented.dtype == images.dtype
    assert float(augmented.min()) >= 0
    assert float(augmented.max()) <= 1
    assert torch.isfinite(augmented).all()
    colour = name in ("saturation", "hue")
    assert torch.equal(augmented, images) == (colour and channels == 1)
    moves = name.startswith("flip") or name in ("rotation", "scale", "aspect", "shift", "elastic", "cutmix")
    assert torch.equal(found, masks) != moves


def test_colour_leaves_grey_alone() -> None:
    grey = smooth(4, 1).expand(-1, 3, -1, -1)
    augmented, _ = BatchAugmentation(seed=0, probability=1.0, hue=60.0, saturation=(0.2, 3.0))(grey, grey[:, :1])
    torch.testing.assert_close(augmented, grey, atol=1e-5, rtol=0)


def test_a_hue_of_120_degrees_moves_the_channels_on() -> None:
    augmentation = BatchAugmentation(seed=0, probability=1.0, hue=120.0)
    augmentation._rand = lambda *shape: torch.ones(shape) * 0.999999  # type: ignore[method-assign]
    augmentation.chances["probability"] = 1.1
    images = smooth(1, 3)
    augmented, _ = augmentation(images, images[:, :1])
    torch.testing.assert_close(augmented, images.roll(1, 1), atol=1e-3, rtol=0)


def test_a_blur_is_a_gaussian_with_its_own_width_for_each_image() -> None:
    images = torch.zeros(6, 1, 31, 31)
    images[:, :, 15, 15] = 1
    blurred, _ = BatchAugmentation(seed=2, probability=1.0, blur=2.0)(images, images)
    torch.testing.assert_close(blurred.sum((1, 2, 3)), torch.ones(6), atol=1e-4, rtol=0)
    peaks = blurred[:, 0, 15, 15]
    assert len(peaks.unique()) == 6
    for image in blurred[:, 0].numpy():
        rows = (image.sum(1) * (np.arange(31) - 15) ** 2).sum()
        columns = (image.sum(0) * (np.arange(31) - 15) ** 2).sum()
        assert rows == pytest.approx(columns, rel=1e-3)
        assert rows <= 4.01


def test_a_shadow_falls_downwards() -> None:
    """MONAI's pictures have their height last."""
    images = torch.ones(16, 1, 48, 64)
    shaded, _ = BatchAugmentation(seed=0, probability=1.0, shadow=0.8)(images, images)
    assert ((shaded[..., 1:] - shaded[..., :-1]) < 1e-5).all()
    assert float(shaded[..., -1].min()) < 0.5


def test_cutmix_takes_image_and_mask_from_the_same_place() -> None:
    images = torch.arange(4.0)[:, None, None, None].expand(4, 1, 20, 30) / 4
    mixed, masks = BatchAugmentation(seed=0, cutmix=1.0)(images, (images > 0.4).float())
    assert torch.equal(masks, (mixed > 0.4).float())
    shares = [(one == other).float().mean().item() for one, other in zip(mixed, images.roll(1, 0), strict=True)]
    assert all(0.03 < share < 0.6 for share in shares)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    images = smooth(4, 3)
    masks = (images[:, :1] > 0.5).float()

    def epoch(augmentation: BatchAugmentation, number: int) -> list[torch.Tensor]:
        augmentation.set_epoch(number)
        return [one for _ in range(2) for one in augmentation(images, masks)]

    first = BatchAugmentation(seed=5, **ALL)
    runs = [epoch(first, 1), epoch(first, 2)]
    resumed = epoch(BatchAugmentation(seed=5, **ALL), 2)
    assert all(torch.equal(one, other) for one, other in zip(runs[1], resumed, strict=True))
    assert not torch.equal(runs[0][0], runs[1][0])
    assert not torch.equal(runs[0][0], runs[0][2])
    assert not torch.equal(runs[0][0], epoch(BatchAugmentation(seed=6, **ALL), 1)[0])


def test_the_global_generator_is_left_alone() -> None:
    images = smooth(2, 1)
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    BatchAugmentation(seed=0, **ALL)(images, images.round())
    assert torch.equal(torch.rand(3), expected)


def test_every_wrong_option_is_named() -> None:
    with pytest.raises(UserError) as caught:
        BatchAugmentation(seed=0, flip_horizontal=2.0, rotation=-1.0, gamma=(1.5, 0.5), gain=(0.0, 1.0), shadow=1.5)
    assert [problem.split()[0] for problem in caught.value.problems] == [
        "flip_horizontal",
        "shadow",
        "rotation",
        "gamma",
        "gain",
    ]
