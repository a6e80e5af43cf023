from __future__ import annotations

import copy

import pytest
import torch
from monai.networks.nets import BasicUNet

from monai_thyroid.networks import EncoderUNet, without_padding


def test_the_result_is_the_same_where_nothing_was_to_pad() -> None:
    torch.manual_seed(0)
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=2, features=(4, 4, 8, 8, 8, 4))
    bare = without_padding(copy.deepcopy(network))
    assert bare.state_dict().keys() == network.state_dict().keys()
    images = torch.rand(2, 1, 48, 64)
    expected, found = network(images), bare(images)
    assert torch.equal(found, expected)
    gradients = [
        torch.autograd.grad(logits.sum(), model.parameters()) for logits, model in ((expected, network), (found, bare))
    ]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
    with pytest.raises(RuntimeError, match="size"):
        bare(torch.rand(2, 1, 40, 64))


def test_under_autocast_no_activation_is_cast_back_to_float32() -> None:
    """Its padding is computed in float32 there."""

    def joined(model: torch.nn.Module) -> list[torch.dtype]:
        """What the levels of the decoder are given."""
        seen: list[torch.dtype] = []
        for name, module in model.named_modules():
            if name.startswith("upcat") and name.endswith("convs"):
                module.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0].dtype))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(torch.rand(1, 1, 32, 32))
        return seen

    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=1, features=(4, 4, 8, 8, 8, 4))
    bare = without_padding(copy.deepcopy(network))
    assert joined(network) == [torch.float32] * 4
    assert joined(bare) == [torch.bfloat16] * 4


def test_other_networks_stay_as_they_are() -> None:
    network = EncoderUNet(encoder="mobilenet_v2", in_channels=1, out_channels=1)
    assert without_padding(network) is network
