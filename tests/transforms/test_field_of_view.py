from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Flipd, Invertd

from monai_thyroid.errors import UserError
from monai_thyroid.networks import unpadded_output_size
from monai_thyroid.transforms.field_of_view import FieldOfView, FieldOfViewd

# Not square, and without any symmetry.
SIZE = (204, 236)
FIELD = tuple(unpadded_output_size(n) for n in SIZE)


def label() -> MetaTensor:
    return MetaTensor(torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0)) > 0.5)


def test_crop_is_where_the_network_looks() -> None:
    # tests/networks/test_unpadded_unet.py shows that a logit is for the pixel 92 further on.
    assert torch.equal(FieldOfView(size=FIELD)(label()), label()[:, 92:-92, 92:-92])


def test_resize_shrinks_the_whole_and_keeps_the_values() -> None:
    half = MetaTensor(torch.zeros(1, *SIZE, dtype=torch.uint8))
    half[:, : SIZE[0] // 2] = 2
    small = FieldOfView(size=FIELD, mode="resize")(half)
    assert small.shape == (1, *FIELD)
    assert small.dtype == torch.uint8
    assert small.unique().tolist() == [0, 2]
    assert (small == 2).float().mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("mode", ["crop", "resize"])
def test_prediction_goes_back_to_the_original_grid(mode: str) -> None:
    preprocessing = Compose([Flipd("label", 0), FieldOfViewd("label", size=FIELD, mode=mode)])
    item = preprocessing({"label": label()})
    item["pred"] = item["label"].clone()
    back = Invertd("pred", preprocessing, orig_keys="label", nearest_interp=True)(item)["pred"]
    assert back.shape == (1, *SIZE)
    if mode == "crop":
        assert torch.equal(back[:, 92:-92, 92:-92], label()[:, 92:-92, 92:-92].float())
        assert back.sum() == back[:, 92:-92, 92:-92].sum()


def test_refuses() -> None:
    for size in (70, 67):
        with pytest.raises(UserError, match="same margin"):
            FieldOfView(size=size)(torch.zeros(1, 69, 68))
    with pytest.raises(UserError, match='not by "pad"'):
        FieldOfView(size=68, mode="pad")
