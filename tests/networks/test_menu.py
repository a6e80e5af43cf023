from __future__ import annotations

import subprocess
import sys
from typing import ClassVar

import onnxruntime
import pytest
import torch
from configured import in_full
from monai.networks.utils import convert_to_onnx
from network_contract import NetworkContract, OwnNetworkContract
from torch import nn

from monai_thyroid.networks import MENU, unpadded_output_size


class TestUNet(NetworkContract):
    name = "unet"
    arguments: ClassVar = {"features": (8, 8, 16, 16, 16, 8)}
    # Its instance norm needs two pixels at stride 16, in training or not, and the messages are torch's own.
    other_sizes = ((64, 96), (33, 47), (97, 65))
    too_small = (16, 16)
    too_small_error = ValueError
    # Its decoder asks torch.jit.isinstance, which torch.compile does not trace.
    one_graph = False

    @pytest.mark.slow
    def test_compile_graph(self) -> None:
        super().test_compile_graph()

    @pytest.mark.slow
    @in_full  # a minute for what is known to fail
    @pytest.mark.xfail(raises=AssertionError, reason="torch 2.13: inductor's replication_pad2d_backward on the CPU")
    def test_compile_inductor(self) -> None:
        super().test_compile_inductor()

    @pytest.mark.slow
    def test_compile_inductor_for_inference(self) -> None:
        self.inductor_infers()


class TestClassicUNet(TestUNet):
    name = "unet_classic"
    arguments: ClassVar = {"features": (8, 16, 16, 32, 32, 8)}
    # The same class; compiling it takes a minute and is done once, above.
    test_compile_inductor = None
    test_compile_inductor_for_inference = None


class TestUnpaddedUNet(OwnNetworkContract):
    name = "unpadded_unet"
    arguments: ClassVar = {"filters": (4, 8, 8, 16, 16), "dropout": 0.0}
    size = (188, 188)
    other_sizes = ((188, 204), (236, 188))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return unpadded_output_size(size[0]), unpadded_output_size(size[1])


class TestSegNet(OwnNetworkContract):
    name = "segnet"
    arguments: ClassVar = {"filters": (8, 8, 16, 16, 16)}
    # Its pooling indices jump.
    continuous = False


class TestResUNet(OwnNetworkContract):
    name = "resunet"
    arguments: ClassVar = {"filters": (8, 16, 16, 32)}
    shallow: ClassVar = {"filters": (8, 16, 16)}
    too_small = (8, 5)


class TestRNGUNet(OwnNetworkContract):
    name = "rngunet"
    arguments: ClassVar = {"filters": (8, 8, 16, 16, 32)}
    shallow: ClassVar = {"filters": (8, 16, 16)}
    too_small = (16, 16)

    def wake(self, network: nn.Module) -> None:
        nn.init.constant_(network.non_local.norm.weight, 0.5)


class EncoderContract(OwnNetworkContract):
    arguments: ClassVar = {"decoder_channels": (32, 16, 16, 8, 8)}
    size = (32, 64)
    too_small = (32, 32)
    other_sizes = ((64, 96), (33, 47), (7, 20))

    @pytest.mark.slow
    def test_compile_graph(self) -> None:
        super().test_compile_graph()

    @pytest.mark.slow
    def test_compile_inductor(self) -> None:
        # A training step compiles too, in minutes; the gradients of its graph are tested above.
        self.inductor_infers()


class TestVGG16UNet(EncoderContract):
    name = "vgg16_unet"


class DeeperEncoderContract(EncoderContract):
    """Of the same blocks as another one here, only more of them: what takes minutes is run on request."""

    @pytest.mark.slow
    @in_full
    def test_compile_graph(self) -> None:
        super().test_compile_graph()

    @pytest.mark.slow
    @in_full
    def test_compile_inductor(self) -> None:
        super().test_compile_inductor()

    @pytest.mark.slow
    @in_full
    def test_exports(self) -> None:
        super().test_exports()


class TestVGG19UNet(DeeperEncoderContract):
    name = "vgg19_unet"


class TestResNet50UNet(DeeperEncoderContract):
    name = "resnet50_unet"


class TestResNet50ResUNet(EncoderContract):
    name = "resnet50_resunet"


class TestMobileNetV2UNet(EncoderContract):
    name = "mobilenet_v2_unet"

    def test_exports(self) -> None:
        """Not slow, so that one network shows early what goes wrong."""
        super().test_exports()


def test_every_network_of_the_menu_is_tested() -> None:
    def names(base: type) -> set[str]:
        here = [cls for cls in base.__subclasses__() if cls.__module__ in (NetworkContract.__module__, __name__)]
        return {cls.name for cls in here if hasattr(cls, "name")}.union(*map(names, here))

    assert names(NetworkContract) == set(MENU)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("unet_classic", 31.11),
        ("unpadded_unet", 31.03),
        ("segnet", 29.44),
        ("resunet", 8.22),
        ("rngunet", 38.37),
    ],
)
def test_full_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = MENU[name](in_channels=1, out_channels=1)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(millions * 1e6, abs=5e3)


def test_import_is_light() -> None:
    heavy = "('monai', 'segmentation_models_pytorch', 'timm', 'torchvision', 'matplotlib', 'onnx', 'openvino')"
    code = f"import sys, monai_thyroid.networks; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", ["segnet", "rngunet"])
def test_monai_exports_to_onnx(name: str) -> None:
    """`monai.bundle onnx_export` goes through this function, with these arguments."""
    torch.manual_seed(0)
    network = MENU[name](in_channels=1, out_channels=1, filters=(4, 4, 8, 8, 8)).eval()
    images = torch.rand(1, 1, 64, 64)
    model = convert_to_onnx(network, [images], use_trace=False, do_constant_folding=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(logits), network(images), rtol=1e-3, atol=1e-4)
