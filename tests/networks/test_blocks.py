"""The blocks against the same sums written plainly in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks.blocks import AttentionGate, NonLocalBlock, PreActivationBlock, ResidualBlock, UpConv


def pointwise(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """A 1x1 convolution of (B, C, N)."""
    result = np.einsum("oc,bcn->bon", conv.weight.detach().numpy()[:, :, 0, 0], x)
    return result if conv.bias is None else result + conv.bias.detach().numpy()[None, :, None]


def randomised(block: nn.Module) -> nn.Module:
    """Weights, biases and statistics that are neither 0 nor 1."""
    generator = torch.Generator().manual_seed(0)
    for value in block.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * 0.3)
    return block.double().eval()


def normalised(norm: nn.BatchNorm2d, x: np.ndarray) -> np.ndarray:
    mean, var, gamma, beta = (
        value.detach().numpy()[None, :, None] for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (x - mean) / np.sqrt(var + norm.eps) * gamma + beta


@pytest.mark.parametrize("key_pooling", [1, 2])
def test_non_local_block(key_pooling: int) -> None:
    block = randomised(NonLocalBlock(6, key_pooling=key_pooling))
    x = torch.randn(2, 6, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    flat = x.numpy().reshape(2, 6, 24)
    source = x.numpy()
    if key_pooling == 2:
        source = source.reshape(2, 6, 2, 2, 3, 2).max((3, 5))
    source = source.reshape(2, 6, -1)
    similarity = np.einsum("bci,bcj->bij", pointwise(block.theta, flat), pointwise(block.phi, source))
    weights = np.exp(similarity - similarity.max(2, keepdims=True))
    weights /= weights.sum(2, keepdims=True)
    attended = np.einsum("bij,bcj->bci", weights, pointwise(block.g, source))
    expected = flat + normalised(block.norm, pointwise(block.out, attended))
    np.testing.assert_allclose(block(x).detach().numpy().reshape(2, 6, 24), expected, rtol=1e-9)


def test_non_local_block_starts_as_the_identity() -> None:
    block = NonLocalBlock(4)
    x = torch.rand(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    block(x).sum().backward()
    assert block.norm.weight.grad.any()


def test_non_local_block_refuses_too_many_positions() -> None:
    x = torch.zeros(1, 2, 64, 65)
    with pytest.raises(UserError, match=r"64 x 65 = 4160 positions .*key_pooling=2"):
        NonLocalBlock(2)(x)
    assert NonLocalBlock(2)(x[..., :1]).shape == (1, 2, 64, 1)
    assert NonLocalBlock(2, key_pooling=2, max_positions=40)(torch.zeros(1, 2, 8, 8)).shape == (1, 2, 8, 8)
    with pytest.raises(UserError, match="key_pooling=2"):
        NonLocalBlock(2, max_positions=40)(torch.zeros(1, 2, 8, 8))
    with pytest.raises(UserError, match="use smaller images\\."):
        NonLocalBlock(2, max_positions=2)(torch.zeros(1, 2, 8, 8))
    with pytest.raises(UserError, match="1 or more"):
        NonLocalBlock(2, key_pooling=0)


def test_attention_gate() -> None:
    gate = randomised(AttentionGate(6))
    generator = torch.Generator().manual_seed(1)
    skip, signal = (torch.randn(2, 6, 3, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    flat = skip.numpy().reshape(2, 6, 12)
    inner = np.maximum(pointwise(gate.skip, flat) + pointwise(gate.gate, signal.numpy().reshape(2, 6, 12)), 0)
    alpha = 1 / (1 + np.exp(-pointwise(gate.psi, inner)))
    assert alpha.shape == (2, 1, 12)
    np.testing.assert_allclose(gate(skip, signal).detach().numpy().reshape(2, 6, 12), alpha * flat, rtol=1e-9)


def batch_norm(x: torch.Tensor, norm: nn.BatchNorm2d) -> torch.Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


@pytest.mark.parametrize("out_channels", [4, 6])
def test_residual_block(out_channels: int) -> None:
    block = randomised(ResidualBlock(4, out_channels))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    inner = batch_norm(F.conv2d(x, block.conv1.weight, padding=1), block.norm1).clamp(min=0)
    inner = batch_norm(F.conv2d(inner, block.conv2.weight, padding=1), block.norm2)
    short = x if out_channels == 4 else batch_norm(F.conv2d(x, block.shortcut[0].weight), block.shortcut[1])
    torch.testing.assert_close(block(x), (inner + short).clamp(min=0))


@pytest.mark.parametrize(("out_channels", "stride", "first"), [(4, 1, False), (6, 2, False), (6, 1, True)])
def test_pre_activation_block(out_channels: int, stride: int, first: bool) -> None:
    block = randomised(PreActivationBlock(4, out_channels, stride=stride, first=first))
    x = torch.randn(2, 4, 6, 8, dtype=torch.float64)
    inner = x if first else batch_norm(x, block.before[0]).clamp(min=0)
    inner = batch_norm(F.conv2d(inner, block.conv1.weight, padding=1, stride=stride), block.norm).clamp(min=0)
    inner = F.conv2d(inner, block.conv2.weight, padding=1)
    short = x
    if out_channels != 4:
        short = batch_norm(F.conv2d(x, block.shortcut[0].weight, stride=stride), block.shortcut[1])
    torch.testing.assert_close(block(x), inner + short)


def test_up_conv() -> None:
    block = randomised(UpConv(3, 2))
    x = torch.randn(1, 3, 3, 4, dtype=torch.float64)
    wide = torch.from_numpy(x.numpy().repeat(2, 2).repeat(2, 3))
    torch.testing.assert_close(
        block(x), batch_norm(F.conv2d(wide, block.conv.weight, padding=1), block.norm).clamp(min=0)
    )
