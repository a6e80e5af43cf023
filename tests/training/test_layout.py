"""Trying both orders of axes leaves the network that is to be trained alone."""

from __future__ import annotations

import torch
from monai.inferers import SimpleInferer
from torch import nn

from monai_thyroid.training.layout import channels_last_is_faster


def test_a_network_and_the_random_state_are_left_alone() -> None:
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4), nn.Dropout())
    before, weights = torch.get_rng_state(), network[0].weight.clone()
    assert channels_last_is_faster(network, inferer=SimpleInferer(), shape=(2, 1, 8, 8)) in (False, True)
    assert type(network[1]) is nn.InstanceNorm2d
    assert network[0].weight.is_contiguous()
    assert torch.equal(network[0].weight, weights)
    assert torch.equal(torch.get_rng_state(), before)
