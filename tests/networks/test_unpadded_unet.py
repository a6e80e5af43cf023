from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks import UnpaddedUNet, nearest_unpadded_sizes, unpadded_output_size


@pytest.mark.parametrize(("size", "expected"), [(572, 388), (252, 68), (188, 4), (204, 20)])
def test_output_size(size: int, expected: int) -> None:
    assert unpadded_output_size(size) == expected


def test_valid_sizes_are_those_of_the_network() -> None:
    network = UnpaddedUNet(in_channels=1, out_channels=1, filters=(2, 2, 2)).eval()
    for size in range(1, 80):
        nearest = nearest_unpadded_sizes(size, levels=3)
        images = torch.zeros(1, 1, size, nearest[-1])
        if nearest == [size]:
            assert network(images).shape[2] == unpadded_output_size(size, levels=3)
            assert size % 4 == 0
        else:
            with pytest.raises(UserError, match=f"height: .* {' and '.join(map(str, nearest))}"):
                network(images)


def test_error_names_the_nearest_sizes_of_both_sides() -> None:
    network = UnpaddedUNet(in_channels=1, out_channels=1, filters=(2,) * 5)
    with pytest.raises(UserError) as caught:
        network(torch.zeros(1, 1, 256, 100))
    height, width = caught.value.problems
    assert "256" in height
    assert "252 and 268" in height
    assert "188" in width


def padded(network: UnpaddedUNet, x: Tensor) -> Tensor:
    """The same weights with padding: the U-Net of today, as an image of this size goes in and out."""

    def convs(block: nn.Sequential, x: Tensor) -> Tensor:
        for layer in block:
            if isinstance(layer, nn.Conv2d):
                x = F.relu(F.conv2d(x, layer.weight, layer.bias, padding=1))
        return x

    skips = []
    for block in network.encoder:
        x = convs(block, F.max_pool2d(x, 2) if skips else x)
        skips.append(x)
    skips.pop()
    for up, block in zip(network.up, network.decoder, strict=True):
        x = convs(block, torch.cat([skips.pop(), F.relu(up(x))], dim=1))
    return network.head(x)


def test_equals_the_padded_computation_inside() -> None:
    """Where no border reaches, padding changes nothing.

    The pooling windows of both fall together if the unpadded network sees the image from pixel 2 on (2 modulo 16).
    """
    torch.manual_seed(0)
    network = UnpaddedUNet(in_channels=1, out_channels=2, filters=(4, 4, 6, 6, 8)).double().eval()
    image = torch.rand(1, 1, 224, 240, dtype=torch.float64)
    with torch.no_grad():
        whole = padded(network, image)
        part = network(image[:, :, 2:206, 18:222])
    assert part.shape == (1, 2, 20, 20)
    torch.testing.assert_close(part, whole[:, :, 2 + 92 : 2 + 92 + 20, 18 + 92 : 18 + 92 + 20], rtol=1e-9, atol=1e-9)
    # The windows matter: a pixel further on nothing fits.
    with torch.no_grad():
        off = network(image[:, :, 3:207, 19:223])
    assert not torch.allclose(off, whole[:, :, 95:115, 111:131], rtol=1e-3)


def test_dropout_is_at_the_end_of_the_contracting_path() -> None:
    network = UnpaddedUNet(in_channels=1, out_channels=1)
    assert [any(isinstance(layer, nn.Dropout) for layer in block) for block in network.encoder] == [False] * 3 + [
        True
    ] * 2
    assert network.encoder[-1][-1].p == 0.5
