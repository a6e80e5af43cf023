"""Pretrained encoder weights: where they come from, and the preprocessing that belongs to them."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from monai_thyroid.errors import UserError, optional
from monai_thyroid.networks.vision import import_torchvision

__all__ = [
    "IMAGENET",
    "EncoderInput",
    "Statistics",
    "import_smp",
    "load_strictly",
    "named_as_in_smp",
    "normalises",
    "read_weights",
    "resolve_weights",
]

# Parts of a classifier that no encoder has.
_HEADS = ("classifier.", "fc.", "last_linear.", "head.", "_fc.")
# What timm has behind the features.
_BEHIND = ("conv_head.", "bn2.", "norm.", "fc_norm.", "norm_head.", *_HEADS)
# Families whose published ImageNet weights all use torchvision's statistics.
_TORCHVISION_FAMILIES = ("vgg", "resnet", "resnext", "mobilenet_v2", "densenet")


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What an encoder's weights expect of their input, as (image * input_range - mean) / std for images in [0, 1].

    Args:
        mean: a value a channel, red first, on the scale of `input_range`.
        std: a value a channel, all above zero.
        input_range: the largest value of an image the weights were trained on: 1 or 255.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    input_range: float = 1.0

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0 or self.input_range not in (1, 255):
            raise UserError(
                "The preprocessing of the encoder weights needs as many means as standard deviations, these above "
                f"zero, and a range of 1 or 255; got mean {self.mean}, std {self.std}, range {self.input_range}."
            )

    @classmethod
    def given(cls, mean: Sequence[float] | None, std: Sequence[float] | None) -> Statistics | None:
        """From arguments that come together or not at all, for images in [0, 1].

        Raises:
            UserError: one without the other.
        """
        if mean is None and std is None:
            return None
        if mean is None or std is None:
            raise UserError("mean and std of the encoder weights go together: give both or neither.")
        return cls(mean=tuple(mean), std=tuple(std))


IMAGENET = Statistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class EncoderInput(nn.Module):
    """The first step of a network with a pretrained encoder: grey to three channels, then mean and std.

    Grey is copied, not summed into a one-channel kernel: as each channel has its own mean, and the convolution pads
    with zeros after the mean is taken off, no such kernel gives at the border what the three copies give.

    The statistics are buffers, so they travel with the weights and into every export. Without pretrained weights they
    are 0 and 1, and the module has the same shape: a checkpoint of a network that started from pretrained weights
    loads into one that was built without.

    Args:
        in_channels: channels of the images; 1 becomes 3, another number stays.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.grey = in_channels == 1
        self.channels = 3 if self.grey else in_channels
        # Declared here and not in the class, where TorchScript would stumble over the annotation.
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(1, self.channels, 1, 1))
        self.register_buffer("std", torch.ones(1, self.channels, 1, 1))

    def set_statistics(self, statistics: Statistics) -> None:
        """Apply the preprocessing of pretrained weights from now on.

        Raises:
            UserError: the weights expect other channels than the network has.
        """
        if len(statistics.mean) != self.channels:
            raise UserError(
                f"Pretrained weights see {len(statistics.mean)} channels, the network {self.channels}: "
                "in_channels must be 1 (grey) or 3, or weights null."
            )
        shape = self.mean.shape
        self.mean.copy_(torch.tensor(statistics.mean).reshape(shape) / statistics.input_range)
        self.std.copy_(torch.tensor(statistics.std).reshape(shape) / statistics.input_range)

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_channels, H, W) in [0, 1] -> (B, channels, H, W), normalised."""
        if self.grey:
            images = images.expand(-1, 3, -1, -1)
        return (images - self.mean) / self.std


def normalises(network: nn.Module) -> bool:
    """Whether a network applies the mean and standard deviation of its pretrained weights to its input."""
    return any(
        isinstance(part, EncoderInput) and bool(part.mean.any() or (part.std != 1).any()) for part in network.modules()
    )


def import_smp() -> ModuleType:
    """segmentation_models_pytorch, also where torchvision is linked against a CUDA that is not there.

    Raises:
        UserError: it is not installed; names the extra.
    """
    import_torchvision()
    return optional("segmentation_models_pytorch", extra="encoders")


def _settings(encoder: str) -> Mapping[str, Any]:
    """The pinned pretrained weights of an encoder, or an error that names those that sound like it."""
    smp = import_smp()
    names = list(smp.encoders.get_encoder_names())
    if encoder in names:
        settings: Mapping[str, Any] = smp.encoders.encoders[encoder]["pretrained_settings"]
        return settings
    # "tu-" is smp's door to all of timm.
    timm = optional("timm", extra="encoders")
    if encoder.startswith("tu-") and timm.is_model(encoder[3:]):
        return {"imagenet": {}} if timm.models.is_model_pretrained(encoder[3:]) else {}
    names += [f"tu-{name}" for name in timm.list_models()]
    near = difflib.get_close_matches(encoder, names, n=5, cutoff=0.5)
    raise UserError(
        f'There is no encoder "{encoder}". '
        + (f"Nearest: {', '.join(near)}." if near else "segmentation_models.pytorch lists those there are.")
    )


def resolve_weights(
    encoder: str, weights: str | Path | None, *, statistics: Statistics | None = None, download: bool = True
) -> tuple[Mapping[str, Tensor], Statistics] | None:
    """Find pretrained weights and their preprocessing.

    Args:
        encoder: name of the encoder in segmentation_models.pytorch.
        weights: the name of weights the library has pinned for it (``imagenet``), which are downloaded, or a file,
            .safetensors or .pth.
        statistics: the preprocessing of the file, where it is known. Otherwise that of a ``config.json`` beside it, as
            the library publishes it, or torchvision's for the families that were all trained with it.
        download: whether weights of that name can be; those of another class of encoder are files alone.

    Returns:
        The state dict of the encoder and the preprocessing it needs, or None for no weights.

    Raises:
        UserError: no such encoder, weights or file, no download, or no known preprocessing.
    """
    settings = _settings(encoder)
    if weights in (None, "null"):  # which the command line gives as a text
        if statistics is not None:
            raise UserError("mean and std belong to pretrained weights, but weights is null: leave them out.")
        return None
    if isinstance(weights, str) and (weights in settings or weights == "imagenet"):
        if weights not in settings:
            raise UserError(f'There are no "{weights}" weights for "{encoder}", but: {", ".join(settings) or "none"}.')
        if statistics is not None:
            raise UserError(f'The "{weights}" weights bring their own mean and std: leave these out.')
        if not download:
            raise UserError(f'The "{weights}" weights of "{encoder}" cannot be downloaded here: give them as a file.')
        return _download(encoder, weights, settings[weights])
    path = Path(weights)
    if not path.is_file():
        named = "".join(f'"{name}", ' for name in settings)
        raise UserError(f'No weights "{weights}" for "{encoder}": neither {named}null nor a file that exists.')
    return read_weights(path), statistics or _statistics_beside(path, encoder)


def _download(encoder: str, weights: str, setting: Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Statistics]:
    smp = import_smp()
    try:
        chosen: str | bool = True if encoder.startswith("tu-") else weights
        module = smp.encoders.get_encoder(encoder, in_channels=3, weights=chosen)
        found = smp.encoders.get_preprocessing_params(encoder, pretrained=weights)
    except Exception as error:  # whatever the hub's client of the day raises
        where = "the model hub"
        if setting:
            where = f"https://huggingface.co/{setting['repo_id']}/tree/{setting['revision']}"
        raise UserError(
            f'The "{weights}" weights of "{encoder}" could not be downloaded ({type(error).__name__}: {error}). '
            f"Without internet, fetch model.safetensors and config.json from {where} on another machine and give "
            "the file: weights: /path/to/model.safetensors"
        ) from error
    return module.state_dict(), _as_statistics(found, source=f'the "{weights}" weights of "{encoder}"')


def _statistics_beside(path: Path, encoder: str) -> Statistics:
    config = path.with_name("config.json")
    if config.is_file():
        try:
            return _as_statistics(json.loads(config.read_text(encoding="utf-8")), source=str(config))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{config} does not give the mean and std of the weights beside it: {error!r}.") from error
    if encoder.startswith(_TORCHVISION_FAMILIES):
        return IMAGENET
    raise UserError(
        f'The preprocessing of the weights {path} is not known for the encoder "{encoder}": put the config.json that '
        "is published with them beside the file, or give mean and std."
    )


def _as_statistics(found: Mapping[str, Any], *, source: str) -> Statistics:
    low, high = found.get("input_range") or (0, 1)
    if low != 0 or (found.get("input_space") or "RGB") != "RGB":
        raise UserError(f"{source} expects {found.get('input_space')} in [{low}, {high}], which is not supported.")
    return Statistics(mean=tuple(found["mean"]), std=tuple(found["std"]), input_range=float(high))


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict; nothing in the file is executed.

    Args:
        path: .safetensors, or .pth, .pt, .bin as torch saves them, plain or under the key ``state_dict``.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        UserError: another ending, an unreadable file, or something else than a state dict in it.
    """
    if path.suffix not in (".safetensors", ".pth", ".pt", ".bin"):
        raise UserError(f"Weights must be a .safetensors or .pth file, got {path}.")
    try:
        if path.suffix == ".safetensors":
            state: Any = optional("safetensors.torch", extra="encoders").load_file(path, device="cpu")
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # pickle, zip and safetensors each have their own
        raise UserError(f"The weights {path} cannot be read ({type(error).__name__}: {error}).") from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict, that is, tensors by name.")
    return state


def named_as_in_smp(state: Mapping[str, Tensor], encoder: nn.Module) -> Mapping[str, Tensor]:
    """A timm model's weights by the names that they have in an encoder of segmentation_models.pytorch made of it.

    Args:
        state: as timm publishes them; what has the encoder's names already stays as it is.
        encoder: for which they are.

    Returns:
        The same tensors, less those that lie behind the features.
    """
    expected = encoder.state_dict()
    if any(name in expected for name in state):
        return state
    named = {}
    for name, tensor in state.items():
        # stages.0 where it is a list of timm's, stages_0 where it was flattened for its features.
        flat = re.sub(r"^([a-z]+)\.([0-9]+)\.", r"\1_\2.", name)
        names = [f"model.{name}", f"model.{flat}"]
        found = [one for one in names if one in expected]
        if found or not name.startswith(_BEHIND):
            named[(found or names)[0]] = tensor
    return named


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load an encoder's weights, all of them and nothing else but a classifier's head, which is left out.

    Args:
        module: the encoder.
        state: its tensors by name.
        source: what to call the weights in an error.

    Raises:
        UserError: tensors are missing, unexpected or of another shape; names them.
    """
    expected = module.state_dict()
    given = {key: value for key, value in state.items() if not key.startswith(_HEADS) or key in expected}
    # Files older than torch 0.4.1 do not count batches, and nothing here uses the count.
    missing = [key for key in expected if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in expected]
    shapes = [
        f"{key} {tuple(value.shape)} for {tuple(expected[key].shape)}"
        for key, value in given.items()
        if key in expected and value.shape != expected[key].shape
    ]
    problems = [
        f"{source}: {len(keys)} {what}: {_some(keys)}"
        for what, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if problems:
        raise UserError([*problems, "The file must hold the state dict of exactly this encoder."])
    nn.Module.load_state_dict(module, {**expected, **given})


def _some(keys: Sequence[str], most: int = 5) -> str:
    return ", ".join(keys[:most]) + (", ..." if len(keys) > most else "")
