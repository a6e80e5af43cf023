"""Trying both orders of axes leaves the network that is to be trained alone."""

from __future__ import annotations

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from monai_thyroid.training.layout import _compared, channels_last_is_faster


def test_a_network_and_the_random_state_are_left_alone() -> None:
    convolution, norm = nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4)
    network = nn.Sequential(convolution, norm, nn.Dropout())
    before, weights = torch.get_rng_state(), convolution.weight.clone()
    assert channels_last_is_faster(network, inferer=SimpleInferer(), shape=(2, 1, 8, 8)) in (False, True)
    assert type(norm) is nn.InstanceNorm2d
    assert convolution.weight.is_contiguous()
    assert torch.equal(convolution.weight, weights)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("rounds", "expected", "taken"),
    [
        ([(9.0, 9.0), (2.0, 1.0)], (2.0, 1.0), 2),  # clear: a training waits for it
        ([(9.0, 9.0), (1.0, 2.0)], (1.0, 2.0), 2),
        ([(9.0, 9.0), (1.2, 1.0), (1.1, 1.3), (1.3, 0.9)], (1.1, 0.9), 4),
    ],
)
def test_a_clear_comparison_takes_no_further_steps(
    rounds: list[tuple[float, float]], expected: tuple[float, float], taken: int
) -> None:
    made = iter(rounds)
    assert _compared(lambda: next(made)) == expected
    assert len(list(made)) == len(rounds) - taken
