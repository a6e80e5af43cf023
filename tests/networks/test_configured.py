"""The contract of the menu, kept by the networks that a further config names: bundles/networks."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
import yaml
from configured import FILES, NARROW, SIZE, configured, in_full, outputs_of
from monai.losses import DeepSupervisionLoss, DiceCELoss
from network_contract import NetworkContract
from torch import nn

from monai_thyroid.errors import UserError

pytestmark = in_full


class ConfiguredContract(NetworkContract):
    other_sizes = ((64, 96), (33, 47))
    # Whether torch can compile them is their makers' business.
    test_compile_graph = None
    test_compile_inductor = None

    def make(self, in_channels: int = 1, out_channels: int = 1, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return configured(self.name, in_channels=in_channels, out_channels=out_channels)


class LongContract(ConfiguredContract):
    """As the others, but what takes long only on request."""

    @in_full
    def test_seed_save_and_load(self, tmp_path: Any) -> None:
        super().test_seed_save_and_load(tmp_path)

    @in_full
    def test_takes_what_monai_feeds(self) -> None:
        super().test_takes_what_monai_feeds()

    @in_full
    def test_exports(self) -> None:
        super().test_exports()

    @in_full
    def test_bf16_autocast(self) -> None:
        super().test_bf16_autocast()

    @in_full
    def test_channels_last(self) -> None:
        super().test_channels_last()


class TestMedNeXt(ConfiguredContract):
    name = "mednext"


class TestSwinUNETR(LongContract):
    name = "swin_unetr"
    # OpenVINO computes attention in one fused kernel of less precision: 1.5e-3, and 1.4e-6 with SNIPPETS_MODE=DISABLE.
    worst: ClassVar = {"OpenVINO": 5e-3}


class TestUNETR(LongContract):
    name = "unetr"
    # Its positions are those of one size, which the stride of 16 pads to.
    other_sizes: ClassVar = ((64, 64), (49, 62))


class TestAttentionUNet(LongContract):
    name = "attention_unet"


class TestDynUNet(LongContract):
    name = "dynunet"


class TestSegResNet(LongContract):
    name = "segresnet"


class TestResEncUNet(LongContract):
    name = "resenc_unet"

    def wake(self, network: nn.Module) -> None:
        # nnU-Net starts each block as the identity.
        for module in network.modules():
            if isinstance(module, nn.InstanceNorm2d):
                nn.init.constant_(module.weight, 0.5)


class TestResNet34UNet(LongContract):
    name = "resnet34_unet"


class TestUNetPlusPlus(LongContract):
    name = "resnet50_unetplusplus"


class TestUPerNet(LongContract):
    name = "convnext_upernet"

    def test_batch_of_one_trains(self) -> None:
        """Not this one: it has a batch norm of the mean of the whole image."""
        with pytest.raises(UserError, match=r"use a batch of 2 or more\.$"):
            self.build()(self.images(1))


class TestSegformer(LongContract):
    name = "mit_b2_segformer"


class TestDPT(LongContract):
    name = "vit_small_dpt"
    # Batch norm of 8 values a channel, in training: 0.098, and as much by noise of 0.004 in the images. 0.004 without.
    bf16: ClassVar = 0.2


class TestTimm(LongContract):
    name = "efficientnetv2_unet"


def test_every_network_of_the_files_is_narrow_here() -> None:
    blocks = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in FILES]
    assert {key.removeprefix("networks::") for one in blocks for key in one if key.startswith("networks::")} == {
        *NARROW
    }


@pytest.mark.parametrize("name", [name for name in NARROW if name.endswith("_ds")])
def test_deep_supervision(name: str) -> None:
    """Several outputs in training, weighted 1, 1/2, ...; one in evaluation."""
    torch.manual_seed(0)
    network = configured(name)
    images, labels = torch.rand(2, 1, SIZE, SIZE - 6), torch.ones(2, 1, SIZE, SIZE - 6)
    outputs = outputs_of(network, images)
    assert len(outputs) > 2
    assert outputs[0].shape == labels.shape
    loss = DiceCELoss(sigmoid=True)
    found = DeepSupervisionLoss(loss)(outputs, labels)
    expected = sum(
        max(0.5**level, 1 / 16) * float(loss(one, torch.ones_like(one))) for level, one in enumerate(outputs)
    )
    assert float(found.detach()) == pytest.approx(expected, rel=1e-5)
    found.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert outputs_of(network.eval(), images)[0].shape == labels.shape
    assert len(outputs_of(network, images)) == 1
