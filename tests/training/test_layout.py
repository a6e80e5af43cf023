"""Trying both orders of axes leaves the network that is to be trained alone."""

from __future__ import annotations

import torch
from monai.inferers import SimpleInferer
from torch import nn

from monai_thyroid.training.layout import channels_last_is_faster


def test_a_network_and_the_random_state_are_left_alone() -> None:
    convolution, norm = nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4)
    network = nn.Sequential(convolution, norm, nn.Dropout())
    before, weights = torch.get_rng_state(), convolution.weight.clone()
    assert channels_last_is_faster(network, inferer=SimpleInferer(), shape=(2, 1, 8, 8)) in (False, True)
    assert type(norm) is nn.InstanceNorm2d
    assert convolution.weight.is_contiguous()
    assert torch.equal(convolution.weight, weights)
    assert torch.equal(torch.get_rng_state(), before)
