"""Instance and group norm channels last compute what torch's own do, and leave the order of axes alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from monai_thyroid.networks import to_channels_last


class Small(nn.Sequential):
    def __init__(self, *, affine: bool) -> None:
        norm = nn.InstanceNorm2d(5, affine=affine, eps=1e-3)
        super().__init__(nn.Conv2d(3, 5, 3, padding=1), norm, nn.LeakyReLU(0.1))
        if affine:
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("training", [False, True])
def test_values_and_gradients_are_those_of_instance_norm(affine: bool, batch: int, training: bool) -> None:
    torch.manual_seed(0)
    network = Small(affine=affine).train(training)
    other = to_channels_last(copy.deepcopy(network))
    images = torch.randn(batch, 3, 9, 14)
    wanted = network(images)
    found = other(images.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(wanted)
    for logits in (wanted, found):
        (logits * weights).sum().backward()
    for (name, one), (same, two) in zip(network.named_parameters(), other.named_parameters(), strict=True):
        assert name == same
        torch.testing.assert_close(two.grad, one.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_is_as_precise_as_channels_first(groups: int) -> None:
    """torch's own is off by more than 1 here."""
    torch.manual_seed(0)
    images = 5 + 0.01 * torch.randn(2, 4, 32, 32)
    network = nn.GroupNorm(groups, 4)
    wanted = copy.deepcopy(network).double()(images.double())
    found = to_channels_last(network)(images.contiguous(memory_format=torch.channels_last))
    assert found.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(found.double(), wanted, atol=1e-3, rtol=0)
    torch.testing.assert_close(network(images).double(), wanted, atol=1e-3, rtol=0)
    assert network(images[:, :, 0]).shape == (2, 4, 32)


def test_weights_move_between_both() -> None:
    network = Small(affine=True)
    other = to_channels_last(copy.deepcopy(network))
    other.load_state_dict(network.state_dict())
    network.load_state_dict(other.state_dict())
    assert list(other.state_dict()) == list(network.state_dict())


def test_norms_that_keep_statistics_and_images_channels_first_stay_as_they_are() -> None:
    keeping, batch = nn.InstanceNorm2d(4, track_running_stats=True), nn.BatchNorm2d(4)
    to_channels_last(nn.Sequential(keeping, batch))
    assert type(keeping) is nn.InstanceNorm2d
    assert type(batch) is nn.BatchNorm2d
    norm, images = nn.InstanceNorm2d(4), torch.randn(2, 4, 6, 7)
    wanted = norm(images)
    torch.testing.assert_close(to_channels_last(norm)(images), wanted, atol=0, rtol=0)
    torch.testing.assert_close(norm(images[0]), wanted[0])  # without a batch


def test_in_bfloat16_it_is_as_near_to_float32() -> None:
    torch.manual_seed(0)
    network = Small(affine=True)
    other = to_channels_last(copy.deepcopy(network))
    images = torch.randn(2, 3, 32, 32)
    exact = network(images).detach()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        usual, found = (
            one(each).float()
            for one, each in ((network, images), (other, images.contiguous(memory_format=torch.channels_last)))
        )
    assert (found - exact).abs().mean() < 1.2 * (usual - exact).abs().mean() + 1e-4
