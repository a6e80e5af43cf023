from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks import SegNet
from monai_thyroid.networks.pretrained import IMAGENET
from monai_thyroid.networks.segnet import max_unpool
from monai_thyroid.networks.vision import import_torchvision


def numpy_pool_and_unpool(x: np.ndarray) -> np.ndarray:
    """Each 2x2 window keeps its largest value, the first of equals, where it was."""
    result = np.zeros_like(x)
    for b, c, i, j in np.ndindex(x.shape[0], x.shape[1], x.shape[2] // 2, x.shape[3] // 2):
        window = x[b, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), (2, 2))
        result[b, c, 2 * i + row, 2 * j + column] = window[row, column]
    return result


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_unpooling(memory_format: torch.memory_format) -> None:
    # Few values, so that windows hold equals.
    x = torch.randint(-3, 3, (2, 3, 6, 8), generator=torch.Generator().manual_seed(0)).float()
    x = x.to(memory_format=memory_format)
    pooled, indices = F.max_pool2d(x, 2, return_indices=True)
    result = max_unpool(pooled, indices, (6, 8))
    np.testing.assert_array_equal(result.numpy(), numpy_pool_and_unpool(x.numpy()))
    assert torch.equal(result, nn.MaxUnpool2d(2)(pooled, indices, output_size=[6, 8]))


def test_unpooling_passes_gradients_on() -> None:
    x = torch.rand(1, 1, 4, 4, requires_grad=True)
    weight = torch.rand(1, 1, 4, 4)
    for unpool in (lambda p, i: max_unpool(p, i, (4, 4)), nn.MaxUnpool2d(2)):
        x.grad = None
        (unpool(*F.max_pool2d(x, 2, return_indices=True)) * weight).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), np.where(numpy_pool_and_unpool(x.detach().numpy()), weight, 0))


def test_no_features_reach_the_decoder_but_through_the_bottom() -> None:
    """With the values from the bottom zeroed, the logits know nothing of the image."""
    network = SegNet(in_channels=1, out_channels=1, filters=(4, 4), convs=(1, 1)).eval()
    network.decoder[0].register_forward_pre_hook(lambda _, inputs: (torch.zeros_like(inputs[0]),))
    with torch.no_grad():
        assert torch.equal(network(torch.rand(1, 1, 8, 8)), network(torch.rand(1, 1, 8, 8)))


@pytest.fixture(scope="module")
def vgg16_bn() -> nn.Module:
    import_torchvision()
    from torchvision.models.vgg import cfgs, make_layers

    torch.manual_seed(0)
    # vgg16_bn less its classifier of 123 million numbers
    network = nn.ModuleDict({"features": make_layers(cfgs["D"], batch_norm=True)}).eval()
    for module in network["features"]:
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def weights(vgg16_bn: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "vgg16_bn.pth"
    # As published, with a classifier, of which two numbers stand in.
    torch.save({**vgg16_bn.state_dict(), "classifier.0.bias": torch.zeros(2)}, path)
    return str(path)


@pytest.mark.parametrize("in_channels", [1, 3])
def test_encoder_is_torchvisions(vgg16_bn: nn.Module, weights: str, in_channels: int) -> None:
    network = SegNet(in_channels=in_channels, out_channels=1, weights=weights).eval()
    seen = []
    for block in network.encoder:
        block.register_forward_hook(lambda _, __, output: seen.append(output))
    images = torch.rand(1, in_channels, 32, 64)
    with torch.no_grad():
        network(images)
        x = (images - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)
        expected = []
        for layer in vgg16_bn["features"]:
            if isinstance(layer, nn.MaxPool2d):
                expected.append(x)
            x = layer(x)
    assert len(seen) == len(expected) == 5
    for ours, theirs in zip(seen, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_trained_network_needs_no_weights_file(weights: str) -> None:
    network = SegNet(in_channels=1, out_channels=1, weights=weights).eval()
    again = SegNet(in_channels=1, out_channels=1).eval()
    again.load_state_dict(network.state_dict())
    images = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), again(images))


def test_refuses(weights: str) -> None:
    with pytest.raises(UserError, match="VGG16 weights fit SegNet's own"):
        SegNet(in_channels=1, out_channels=1, filters=(8, 8, 8, 8, 8), weights=weights)
    with pytest.raises(UserError, match="in_channels must be 1"):
        SegNet(in_channels=2, out_channels=1, weights=weights)
    with pytest.raises(UserError, match="go together"):
        SegNet(in_channels=1, out_channels=1, filters=(8, 8))
    with pytest.raises(UserError, match="mean and std belong to pretrained weights"):
        SegNet(in_channels=1, out_channels=1, mean=[0.5] * 3, std=[0.2] * 3)
