"""Padding to a square keeps the image in the middle and can be undone."""

from __future__ import annotations

import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from monai_thyroid.transforms.square import PadToSquare, PadToSquared


def test_shorter_side_is_padded_evenly() -> None:
    image = torch.ones(2, 5, 8)
    padded = PadToSquare()(image)
    assert padded.shape == (2, 8, 8)
    assert torch.equal(padded.sum(dim=(0, 2)), torch.tensor([0, 16, 16, 16, 16, 16, 0, 0.0]))
    assert PadToSquare()(torch.ones(1, 6, 6)).shape == (1, 6, 6)
    assert PadToSquare(value=3.0)(image)[0, 0, 0] == 3


def test_inversion_takes_the_padding_off() -> None:
    pre = Compose([PadToSquared(["image", "label"])])
    image = torch.rand(1, 7, 4)
    item = pre({"image": MetaTensor(image), "label": MetaTensor(torch.ones(1, 7, 4))})
    assert item["image"].shape == item["label"].shape == (1, 7, 7)
    item["pred"] = MetaTensor(item["image"].clone())
    back = Invertd("pred", transform=pre, orig_keys="image")(item)["pred"]
    assert torch.equal(back.as_tensor(), image)
