from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_thyroid.errors import UserError
from monai_thyroid.transforms import ClassNumbersd, class_numbers


def test_sigmoid_takes_the_likeliest_class_above_the_threshold() -> None:
    probabilities = torch.tensor([[[0.4, 0.9, 0.6, 0.5]], [[0.3, 0.2, 0.7, 0.5]]])
    assert class_numbers(probabilities, threshold=0.5, activation="sigmoid").tolist() == [[0, 1, 2, 0]]
    assert class_numbers(probabilities, threshold=0.25, activation="sigmoid").tolist() == [[1, 1, 2, 1]]


def test_one_class_is_the_threshold_alone() -> None:
    probabilities = torch.rand(1, 5, 7, generator=torch.Generator().manual_seed(0))
    found = class_numbers(probabilities, threshold=0.3, activation="sigmoid")
    assert found.dtype == torch.uint8
    assert torch.equal(found, (probabilities[0] > 0.3).to(torch.uint8))


def test_softmax_takes_the_likeliest_channel_of_which_the_first_is_background() -> None:
    logits = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0))
    found = class_numbers(logits.softmax(0), threshold=0.99, activation="softmax")
    assert torch.equal(found.long(), logits.argmax(0))


def test_items_keep_their_metadata() -> None:
    item = {"pred": MetaTensor(torch.rand(2, 4, 3), meta={"filename_or_obj": "a.png"}), "other": 1}
    result = ClassNumbersd("pred", threshold=0.5, activation="sigmoid")(item)
    assert result["pred"].shape == (1, 4, 3)
    assert result["pred"].meta["filename_or_obj"] == "a.png"
    assert result["other"] == 1


def test_another_activation_is_refused() -> None:
    with pytest.raises(UserError, match="sigmoid or softmax"):
        class_numbers(torch.rand(1, 2, 2), threshold=0.5, activation="tanh")
