"""Pixels are brought to the network and back as MONAI's transforms do it, of every size."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Activationsd, Compose, Invertd, Resized, SpatialPadd

from monai_thyroid.evaluation.pixels import PixelPath, activated, numbered, resizing
from monai_thyroid.images import Raster
from monai_thyroid.transforms import LoadScand, PadToSquared, class_numbers

SHAPES = [(57, 81), (81, 57), (32, 32), (20, 31), (130, 33), (33, 150)]


def raster(shape: tuple[int, int], *, colour: bool = False, seed: int = 0) -> Raster:
    pixels = np.random.RandomState(seed).randint(0, 256, (*shape, 3) if colour else shape).astype(np.uint8)
    return Raster(pixels=pixels, full_scale=(0.0, 255.0))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("output", "outside"), [(32, "pad"), (14, "pad"), (14, "resize")])
@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize(("channels", "activation"), [(1, "sigmoid"), (3, "softmax")])
def test_the_matrices_do_what_the_transforms_do(
    shape: tuple[int, int],
    output: int,
    outside: Literal["pad", "resize"],
    square: bool,
    channels: int,
    activation: str,
) -> None:
    image = raster(shape, colour=channels == 3)
    resize = Resized(keys="image", spatial_size=(32, 32), mode="bilinear", anti_aliasing=True)
    before = Compose([PadToSquared(keys="image"), resize] if square else [resize])
    first: Any = SpatialPadd(keys="pred", spatial_size=(32, 32), value=-20)
    if outside == "resize":
        first = Resized(keys="pred", spatial_size=(32, 32), mode="bilinear")
    inversion = Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=False)
    after = Compose([first, inversion, Activationsd(keys="pred", **{activation: True})])
    item = before({"image": LoadScand("image", channels=channels).tensor(image)})
    logits = np.random.RandomState(1).normal(scale=4, size=(3, output, output)).astype(np.float32)
    expected = after({**item, "pred": MetaTensor(torch.from_numpy(logits))})["pred"].numpy()

    path = PixelPath(channels, activation, (32, 32), (output, output), square, outside)
    given, probabilities = path.prepare(image)
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    np.testing.assert_allclose(given, item["image"].numpy(), atol=2e-6)
    np.testing.assert_allclose(probabilities(logits), np.swapaxes(expected, 1, 2), atol=1e-5)
    assert PixelPath.from_dict(path.as_dict()) == path


@pytest.mark.parametrize(("length", "size"), [(96, 257), (257, 96), (400, 256), (31, 32), (5, 5), (1, 4), (9, 1)])
def test_a_matrix_resizes_as_torch_does(length: int, size: int) -> None:
    expected = torch.nn.functional.interpolate(torch.eye(length)[None], size=size, mode="linear")[0].numpy().T
    np.testing.assert_array_equal(resizing(length, size), expected)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_probabilities_and_classes_are_those_of_the_evaluation(activation: str) -> None:
    logits = np.random.RandomState(2).normal(scale=30, size=(4, 9, 7)).astype(np.float32)
    logits[:, 0, 0] = 1e4
    tensor = torch.from_numpy(logits)
    expected = tensor.sigmoid() if activation == "sigmoid" else tensor.softmax(0)
    probabilities = activated(logits, activation)
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-6)
    for several in (probabilities, probabilities[:1] if activation == "sigmoid" else probabilities[:2]):
        numbers = class_numbers(torch.from_numpy(several), threshold=0.3, activation=activation)
        np.testing.assert_array_equal(numbered(several, activation=activation, threshold=0.3), numbers.numpy())
