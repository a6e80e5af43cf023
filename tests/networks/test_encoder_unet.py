from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks import EncoderUNet
from monai_thyroid.networks.blocks import PreActivationBlock
from monai_thyroid.networks.pretrained import IMAGENET, Statistics, import_smp
from monai_thyroid.networks.vision import import_torchvision

SMALL = {"out_channels": 1, "decoder_channels": (16, 8, 8, 8, 8)}
# torchvision's names for their layers
VGG = {"vgg16": "D", "vgg19": "E"}
# The smallest of smp's encoders with torchvision's statistics, for what does not depend on the encoder.
FAST = {"encoder": "mobilenet_v2", **SMALL}


def lively(module: nn.Module) -> nn.Module:
    """Statistics as after training, so that a norm layer left out would show."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.uniform_(-0.1, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return module.eval()


def smp_encoder(name: str, in_channels: int = 3) -> nn.Module:
    return lively(import_smp().encoders.get_encoder(name, in_channels=in_channels, weights=None))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("weights") / "mobilenet_v2.safetensors"
    save_file(smp_encoder("mobilenet_v2").state_dict(), path)
    return str(path)


def normalised(images: Tensor) -> Tensor:
    return (images - torch.tensor(IMAGENET.mean).view(3, 1, 1)) / torch.tensor(IMAGENET.std).view(3, 1, 1)


def torchvision_features(name: str) -> tuple[dict[str, Tensor], Any]:
    """A state dict in torchvision's layout, classifier and all, and the features torchvision computes with it."""
    import_torchvision()
    from torchvision import models
    from torchvision.models.feature_extraction import create_feature_extractor

    # What the U-Net joins: the last features before each halving, and the deepest.
    nodes = {
        "vgg16": ["features.3", "features.8", "features.15", "features.22", "features.29", "features.30"],
        "vgg19": ["features.3", "features.8", "features.17", "features.26", "features.35", "features.36"],
        "resnet50": ["relu", "layer1", "layer2", "layer3", "layer4"],
        "mobilenet_v2": ["features.1", "features.3", "features.6", "features.13", "features.18"],
    }[name]
    if name in VGG:
        # models.vgg16 less the classifier, whose 123 million numbers take their time to draw
        network: nn.Module = nn.Sequential()
        network.add_module("features", models.vgg.make_layers(models.vgg.cfgs[VGG[name]]))
    else:
        network = getattr(models, name)(weights=None)
    extractor = create_feature_extractor(lively(network), nodes)
    return network.state_dict(), lambda images: list(extractor(images).values())


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "resnet50", "mobilenet_v2"])
def test_features_are_torchvisions_and_smps(name: str, tmp_path: Path) -> None:
    state, features = torchvision_features(name)
    torch.save(state, tmp_path / "weights.pth")
    network = EncoderUNet(encoder=name, in_channels=3, weights=tmp_path / "weights.pth", **SMALL).eval()
    seen: list[list[Tensor]] = []
    network.encoder.register_forward_hook(lambda _, __, output: seen.append(output))
    images = torch.rand(1, 3, 64, 32)
    reference = import_smp().encoders.get_encoder(name, weights=None).eval()
    reference.load_state_dict(dict(state))
    with torch.no_grad():
        network(images)
        theirs = features(normalised(images))
        smps = reference(normalised(images))
    ours = seen[0]
    assert len(ours) == len(smps)
    assert all(torch.equal(a, b) for a, b in zip(ours, smps, strict=True))
    # smp puts the image itself first, for encoders whose first features are at half resolution.
    for a, b in zip(ours[len(ours) - len(theirs) :], theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [(64, 64), (33, 50)])
def test_grey_gives_exactly_what_its_three_copies_give(weights: str, size: tuple[int, int]) -> None:
    colour = EncoderUNet(in_channels=3, weights=weights, **FAST).eval()
    grey = EncoderUNet(in_channels=1, weights=weights, **FAST).eval()
    grey.load_state_dict(colour.state_dict())
    images = torch.rand(1, 1, *size)
    with torch.no_grad():
        assert torch.equal(grey(images), colour(images.expand(-1, 3, -1, -1)))


def test_padding_comes_after_the_mean(weights: str) -> None:
    network = EncoderUNet(in_channels=3, weights=weights, **FAST).eval()
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        padded = torch.nn.functional.pad(normalised(images), (0, 14, 0, 24))
        torch.testing.assert_close(network(images), network.logits(padded)[:, :, :40, :50])


def test_pooling_over_the_whole_image_asks_for_a_batch_and_not_for_larger_images() -> None:
    network = EncoderUNet(encoder="mobilenet_v2", architecture="upernet", in_channels=1, out_channels=1)
    with pytest.raises(UserError, match=r"averaged over all of it: use a batch of 2 or more\.$"):
        network(torch.rand(1, 1, 64, 64))


def test_positions_of_a_transformer_are_fixed_for_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ONNX and OpenVINO need it, for whom interpolating them is not the same; nothing else is copied."""
    network = EncoderUNet(
        encoder="tu-vit_tiny_patch16_224",
        architecture="dpt",
        in_channels=1,
        out_channels=1,
        arguments={
            "dynamic_img_size": True,
            "decoder_intermediate_channels": [8, 8, 8, 8],
            "decoder_fusion_channels": 8,
        },
    ).eval()
    modes: list[str] = []
    interpolate = torch.nn.functional.interpolate

    def watched(*args: Any, **options: Any) -> Tensor:
        modes.append(options.get("mode", "nearest"))
        return interpolate(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", watched)
    images = torch.rand(1, 1, 40, 70)
    with torch.no_grad():
        expected = network(images)
        assert "bicubic" in modes
        fixed = network.for_size(40, 70)
        modes.clear()
        assert torch.equal(fixed(images), expected)
        assert "bicubic" not in modes
        network(images)
    assert "bicubic" in modes  # the network itself is as it was
    plain = EncoderUNet(in_channels=1, **FAST)
    assert plain.for_size(40, 70) is plain


def test_statistics_travel_with_the_weights(weights: str) -> None:
    """A trained network is built without its pretrained weights: no internet, no file."""
    trained = EncoderUNet(in_channels=1, weights=weights, freeze_encoder=True, **FAST).eval()
    again = EncoderUNet(in_channels=1, **FAST).eval()
    assert not again.input.mean.any()
    again.load_state_dict(trained.state_dict())
    images = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(trained(images), again(images))


def test_frozen_encoder(weights: str, caplog: pytest.LogCaptureFixture) -> None:
    network = EncoderUNet(in_channels=1, weights=weights, freeze_encoder=True, **FAST).train()
    before = {key: value.clone() for key, value in network.encoder.state_dict().items()}
    network(torch.rand(2, 1, 64, 64)).sum().backward()
    assert all(parameter.grad is None for parameter in network.encoder.parameters())
    assert all(parameter.grad is not None for parameter in network.decoder.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.encoder.state_dict().items())
    assert network.decoder.training
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        EncoderUNet(in_channels=1, freeze_encoder=True, **FAST)
    assert "frozen and random" in caplog.text


@pytest.mark.parametrize("name", ["resnet18", "tu-resnet10t"])
def test_any_encoder_by_name(name: str) -> None:
    network = EncoderUNet(encoder=name, in_channels=2, **SMALL)
    assert network(torch.rand(2, 2, 40, 64)).shape == (2, 1, 40, 64)


@pytest.mark.parametrize(
    ("name", "near"), [("resnet5", "resnet50"), ("vgg-16", "vgg16"), ("tu-resnet5", "tu-resnet50")]
)
def test_unknown_encoder_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f'no encoder "{name}".*{near}'):
        EncoderUNet(encoder=name, in_channels=1, **SMALL)


# --- other architectures ---


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"architecture": "unett"}, 'no architecture "unett": did you mean "unet"'),
        ({"arguments": {"checkpoint_path": "x.pt"}}, "unet has no argument checkpoint_path; there are decoder_att"),
        ({"arguments": {"encoder_weights": "imagenet"}}, "unet has no argument encoder_weights"),
        ({"architecture": "resunet", "arguments": {"decoder_use_norm": True}}, "there are decoder_channels"),
        ({"architecture": "resunet", "decoder_channels": [8, 8]}, "this encoder has 5 levels"),
        ({"architecture": "unetplusplus", "encoder": "mit_b0"}, 'unetplusplus on the encoder "mit_b0" cannot be built'),
        ({"architecture": "dpt"}, "Only Timm encoders"),
    ],
)
def test_an_architecture_that_cannot_be(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        EncoderUNet(**{"encoder": "resnet18", "in_channels": 1, "out_channels": 1, **arguments})


def test_the_encoder_of_a_resunet_is_that_of_the_unet(tmp_path: Path) -> None:
    """Pretrained weights go where they went before, and the decoder alone is another one."""
    torch.save(smp_encoder("resnet18").state_dict(), tmp_path / "resnet18.pth")
    common: dict[str, Any] = {"encoder": "resnet18", "weights": tmp_path / "resnet18.pth", "in_channels": 1}
    unet, resunet = (EncoderUNet(**common, **SMALL, architecture=name).eval() for name in ("unet", "resunet"))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(unet.encoder(images), resunet.encoder(images), strict=True):
            assert torch.equal(one, other)
    assert sum(isinstance(part, PreActivationBlock) for part in resunet.modules()) == 5
    assert not any(isinstance(part, PreActivationBlock) for part in unet.modules())


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050"])
def test_weights_as_timm_publishes_them(name: str, tmp_path: Path) -> None:
    import_smp()
    import timm

    state = lively(timm.create_model(name)).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    file: dict[str, Any] = {"weights": tmp_path / "weights.pth", "mean": [0.5] * 3, "std": [0.5] * 3}
    network = EncoderUNet(encoder=f"tu-{name}", in_channels=1, **file, **SMALL).eval()
    images = torch.rand(1, 3, 64, 64)
    expected = timm.create_model(name, features_only=True)
    expected.load_state_dict({key: state[_published(key)] for key in expected.state_dict()})
    with torch.no_grad():
        theirs = expected.eval()(images)
        assert all(torch.equal(a, b) for a, b in zip(network.encoder(images)[-len(theirs) :], theirs, strict=True))


def _published(key: str) -> str:
    return re.sub(r"^([a-z]+)_([0-9]+)\.", r"\1.\2.", key)


class TestWeightFiles:
    def refuses(self, match: str, **arguments: Any) -> UserError:
        with pytest.raises(UserError, match=match) as caught:
            EncoderUNet(**{**FAST, "in_channels": 1, **arguments})
        return caught.value

    def test_names_every_key_that_does_not_fit(self, tmp_path: Path) -> None:
        state = smp_encoder("mobilenet_v2").state_dict()
        state["extra.weight"] = torch.zeros(1)
        del state["features.0.0.weight"]
        state["features.0.1.weight"] = torch.zeros(7)
        torch.save(state, tmp_path / "weights.pth")
        error = self.refuses("1 missing: features.0.0.weight", weights=str(tmp_path / "weights.pth"))
        assert "1 unexpected: extra.weight" in str(error)
        assert "1 of another shape: features.0.1.weight (7,) for (32,)" in str(error)

    def test_another_encoders_weights(self, weights: str) -> None:
        self.refuses("missing: conv1.weight", encoder="resnet18", weights=weights)

    def test_wrapped_and_old_files(self, tmp_path: Path, weights: str) -> None:
        state = smp_encoder("mobilenet_v2").state_dict()
        old = {key: value for key, value in state.items() if "num_batches_tracked" not in key}
        torch.save({"state_dict": old, "epoch": 3}, tmp_path / "weights.pth")
        network = EncoderUNet(in_channels=1, weights=tmp_path / "weights.pth", **FAST)
        assert torch.equal(network.encoder.state_dict()["features.0.0.weight"], state["features.0.0.weight"])

    def test_what_is_no_state_dict(self, tmp_path: Path) -> None:
        self.refuses('neither "imagenet", null nor a file', weights=str(tmp_path / "none.pth"))
        (tmp_path / "weights.onnx").touch()
        self.refuses("safetensors or .pth", weights=str(tmp_path / "weights.onnx"))
        for name in ("weights.pth", "weights.safetensors"):
            (tmp_path / name).write_bytes(b"<!DOCTYPE html>")
            self.refuses("cannot be read", weights=str(tmp_path / name))
        torch.save([1, 2], tmp_path / "weights.pth")
        self.refuses("holds no state dict", weights=str(tmp_path / "weights.pth"))
        # A pickle that would run code is not loaded.
        torch.save({"weight": Path("x")}, tmp_path / "weights.pth")
        self.refuses("cannot be read", weights=str(tmp_path / "weights.pth"))

    def test_statistics_are_never_forgotten(self, tmp_path: Path) -> None:
        path = tmp_path / "weights.safetensors"
        save_file(smp_encoder("efficientnet-b0").state_dict(), path)
        self.refuses("preprocessing .* is not known", encoder="efficientnet-b0", weights=path)
        own = EncoderUNet(
            encoder="efficientnet-b0", in_channels=1, weights=path, mean=[0.5] * 3, std=[0.25] * 3, **SMALL
        )
        assert own.input.mean.flatten().tolist() == [0.5] * 3
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"mean": [127.5] * 3, "std": [51.0] * 3, "input_range": [0, 255]}))
        beside = EncoderUNet(encoder="efficientnet-b0", in_channels=1, weights=path, **SMALL)
        torch.testing.assert_close(beside.input(torch.ones(1, 1, 1, 1)).flatten(), torch.full((3,), 2.5))
        config.write_text(json.dumps({"mean": [0.5] * 3, "std": [0.2] * 3, "input_space": "BGR"}))
        self.refuses("BGR", encoder="efficientnet-b0", weights=path)
        config.write_text("{}")
        self.refuses("does not give the mean", encoder="efficientnet-b0", weights=path)

    def test_arguments_that_contradict(self, weights: str) -> None:
        self.refuses("mean and std belong to pretrained weights", mean=[0.5] * 3, std=[0.2] * 3)
        self.refuses("go together", weights=weights, mean=[0.5] * 3)
        self.refuses("in_channels must be 1", weights=weights, in_channels=2)
        self.refuses("bring their own", weights="imagenet", mean=[0.5] * 3, std=[0.2] * 3)
        with pytest.raises(UserError, match="above zero"):
            Statistics(mean=(0.5,), std=(0.0,))


class TestDownload:
    """The library's own way to the hub, up to the hub."""

    def test_comes_with_its_statistics(self, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        config = tmp_path / "config.json"
        config.write_text(json.dumps({"mean": [0.4] * 3, "std": [0.2] * 3, "input_range": [0, 1]}))

        def hub(repo_id: str, filename: str, revision: str) -> str:
            asked.append((repo_id, revision))
            return weights if filename == "model.safetensors" else str(config)

        monkeypatch.setattr(import_smp().encoders, "hf_hub_download", hub)
        network = EncoderUNet(in_channels=1, weights="imagenet", **FAST)
        pinned = ("smp-hub/mobilenet_v2.imagenet", "e67aa804e17f7b404b629127eabbd224c4e0690b")
        assert set(asked) == {pinned}
        expected = load_file(weights)
        assert all(torch.equal(value, expected[key]) for key, value in network.encoder.state_dict().items())
        torch.testing.assert_close(network.input(torch.full((1, 1, 1, 1), 0.8)).flatten(), torch.full((3,), 2.0))

    def test_without_internet_is_an_error_with_a_way_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def hub(*_: Any, **__: Any) -> str:
            raise ConnectionError("no route to host")

        monkeypatch.setattr(import_smp().encoders, "hf_hub_download", hub)
        with pytest.raises(UserError) as caught:
            EncoderUNet(in_channels=1, weights="imagenet", **FAST)
        for part in ("no route to host", "smp-hub/mobilenet_v2.imagenet", "e67aa804", "weights: /path/to/model"):
            assert part in str(caught.value)

    def test_encoder_without_such_weights(self) -> None:
        with pytest.raises(UserError, match='no "imagenet" weights for "resnext101_32x16d", but: instagram'):
            EncoderUNet(encoder="resnext101_32x16d", in_channels=1, weights="imagenet", **SMALL)
