from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks import ResUNet, RNGUNet
from monai_thyroid.networks.blocks import AttentionGate, DoubleConv, NonLocalBlock, ResidualBlock

SMALL = {"in_channels": 1, "out_channels": 2, "filters": (4, 6, 8)}


def classic_unet(state: dict[str, Tensor], x: Tensor, levels: int) -> tuple[list[Tensor], Tensor]:
    """The classic U-Net with batch norm, written from the drawing of 2015 and from nothing else.

    Two padded 3x3 convolutions with batch norm and ReLU a level, 2x2 max-pooling on the way down; on the way up twice
    the size and a 3x3 convolution, the skip connection beside it, two convolutions; a 1x1 convolution at the end.

    Args:
        state: weights, each of which must be used once: they are taken out.
        x: (B, C, H, W).
        levels: with the bottom one.

    Returns:
        The features after each block, and the logits.
    """

    def conv(x: Tensor, name: str, norm: str) -> Tensor:
        x = F.conv2d(x, state.pop(f"{name}.weight"), padding=1)
        mean, var, gamma, beta = (
            state.pop(f"{norm}.{key}")[:, None, None] for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((x - mean) / torch.sqrt(var + 1e-5) * gamma + beta).clamp(min=0)

    def block(x: Tensor, name: str) -> Tensor:
        return conv(conv(x, f"{name}.conv1", f"{name}.norm1"), f"{name}.conv2", f"{name}.norm2")

    features = [block(x, "encoder.0")]
    for level in range(1, levels):
        features.append(block(F.max_pool2d(features[-1], 2), f"encoder.{level}"))
    x, skips = features[-1], features[:-1]
    for level in range(levels - 1):
        x = conv(x.repeat_interleave(2, 2).repeat_interleave(2, 3), f"up.{level}.conv", f"up.{level}.norm")
        x = block(torch.cat([skips.pop(), x], 1), f"decoder.{level}")
        features.append(x)
    return features, F.conv2d(x, state.pop("head.weight"), state.pop("head.bias"))


def test_without_its_parts_it_is_the_classic_unet_block_for_block() -> None:
    torch.manual_seed(0)
    network = RNGUNet(**SMALL, residual=False, non_local=False, gate=False).double()
    # Statistics that are not 0 and 1.
    for _ in range(3):
        network(torch.rand(2, 1, 16, 24, dtype=torch.float64))
    network.eval()
    seen: list[Tensor] = []
    for block in [*network.encoder, *network.decoder]:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    images = torch.rand(2, 1, 16, 24, dtype=torch.float64)
    state = {key: value for key, value in network.state_dict().items() if "num_batches" not in key}
    with torch.no_grad():
        logits = network(images)
        features, expected = classic_unet(state, images, levels=3)
    assert not state, "the network has more than the classic U-Net"
    assert len(seen) == len(features)
    for ours, theirs in zip(seen, features, strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize(("residual", "non_local", "gate"), [*itertools.product([False, True], repeat=3)])
def test_each_flag_adds_its_part_and_no_other(residual: bool, non_local: bool, gate: bool) -> None:
    network = RNGUNet(**SMALL, residual=residual, non_local=non_local, gate=gate)

    def count(kind: type) -> int:
        return sum(isinstance(module, kind) for module in network.modules())

    assert (count(ResidualBlock), count(DoubleConv)) == ((5, 0) if residual else (0, 5))
    assert count(NonLocalBlock) == int(non_local)
    assert count(AttentionGate) == (2 if gate else 0)
    assert network(torch.rand(2, 1, 9, 12)).shape == (2, 2, 9, 12)


def test_starts_as_if_without_the_non_local_block() -> None:
    torch.manual_seed(0)
    network = RNGUNet(**SMALL)
    plain = RNGUNet(**SMALL, non_local=False)
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("non_local")})
    images = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(network(images), plain(images))


def test_positions_are_limited() -> None:
    network = RNGUNet(in_channels=1, out_channels=1, filters=(2, 2, 2), max_positions=64).eval()
    assert network(torch.rand(1, 1, 32, 32)).shape == (1, 1, 32, 32)
    with pytest.raises(UserError, match=r"9 x 8 = 72 positions .*key_pooling=2"):
        network(torch.rand(1, 1, 36, 32))


@pytest.mark.parametrize("network", [ResUNet, RNGUNet])
def test_needs_two_levels(network: type[nn.Module]) -> None:
    with pytest.raises(UserError, match="two levels"):
        network(in_channels=1, out_channels=1, filters=(4,))
