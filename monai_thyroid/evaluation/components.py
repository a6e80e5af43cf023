"""What of a run is applied to images: components of a fixed list with plain arguments. A run folder is no program.

A config of MONAI is a program: ``$`` runs Python, and ``_target_`` calls whatever it names. The config that a user
starts is his own. A run folder may come from anyone, so what applies its model is written down resolved when it is
trained (`applied_config`), and made again (`Components`) from nothing but the list below.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.metrics import Metric
from monai.transforms import Transform

from monai_thyroid.errors import UserError
from monai_thyroid.options import boolean

__all__ = [
    "APPLIED",
    "Components",
    "Expression",
    "applied_config",
    "component",
    "foreign",
    "older_expression",
    "without_pretraining",
]

APPLIED = ("network", "image_transforms", "to_original_grid", "measures", "data", "input_size")
"""What a run's config.yaml holds resolved under ``applied``."""

Expression = Callable[[str, str], Any]
"""Gives the value of an expression of a config: (its id, its text)."""

_NOT_ARGUMENTS = {"_target_", "_mode_", "_disabled_", "_requires_", "_desc_"}
_IMAGE_TRANSFORMS = "@image_transforms"  # the one reference: what is inverted is what prepared the image
_MOST, _DEEPEST = 20_000, 40  # of values in an `applied`, and of levels


@dataclass(frozen=True)
class _Shelf:
    """A place whose components may be used.

    Attributes:
        module: where they are looked up.
        home: beginning of the name of the modules in which they are defined: not whatever else these have imported.
        kind: what they are.
        never: those that run code they are given by name, fetch it, or read and write files.
    """

    module: str
    home: str
    kind: type
    never: str = "(?!)"


_SHELVES = (
    _Shelf("monai.transforms", "monai.transforms.", Transform, r"(Rand)?(Lambda|TorchVision|TorchIO|CuCIM).*"),
    _Shelf("monai.networks.nets", "monai.networks.nets.", torch.nn.Module, "Transchex|TorchVisionFCModel|NetAdapter"),
    _Shelf("monai.networks.blocks", "monai.networks.blocks.", torch.nn.Module),
    _Shelf("monai.networks.layers", "monai.networks.layers.", torch.nn.Module),
    _Shelf("monai.losses", "monai.losses.", torch.nn.Module, "PerceptualLoss"),
    _Shelf("monai.metrics", "monai.metrics.", Metric),
    _Shelf("monai_thyroid.transforms", "monai_thyroid.transforms.", Transform, "Save.*"),
    _Shelf("monai_thyroid.networks", "monai_thyroid.networks.", torch.nn.Module),
    _Shelf("monai_thyroid.metrics", "monai_thyroid.metrics.measures", object),
    _Shelf("torch.nn", "torch.nn.modules.", torch.nn.Module),
    _Shelf("segmentation_models_pytorch", "segmentation_models_pytorch.", torch.nn.Module),
)
_NEVER_FROM = ("monai.transforms.io.", "monai_thyroid.transforms.saving")
_FUNCTIONS = ("monai_thyroid.data.load_datalist",)
# What makes a network fetch weights, or itself, from elsewhere. The weights of the run are in its model.pt.
_FETCHING = re.compile(r"pretrained.*|(encoder_)?weights|(.*_)?(url|path|file|dir|repo|checkpoint)(_.*)?")
_NOT_PRETRAINED = {"pretrained": False, "encoder_weights": None}
_ELSEWHERE = re.compile(r".*(hf[-_]hub|local-dir|://).*", re.DOTALL)


@functools.lru_cache(maxsize=256)
def component(target: str) -> Callable[..., Any] | None:
    """The component of a name, full or short, None where it is not on the list.

    A short name is looked up among MONAI's transforms, networks, losses and metrics, and among ours.
    """
    package, _, name = target.rpartition(".")
    if not re.fullmatch(r"\w+", name):
        return None
    if target in _FUNCTIONS:
        return getattr(importlib.import_module(package), name)
    for shelf in _SHELVES:
        if package and not f"{package}.".startswith(f"{shelf.module}."):
            continue
        if not package and shelf.module.split(".")[0] not in ("monai", "monai_thyroid"):
            continue
        try:
            found = getattr(importlib.import_module(package or shelf.module), name, None)
        except ImportError:
            continue
        if not inspect.isclass(found) or not issubclass(found, shelf.kind):
            continue
        home = f"{found.__module__}."
        if home.startswith(shelf.home.rstrip(".") + ".") and not home.startswith(_NEVER_FROM):
            # By the name of the class: `LambdaD` and `LambdaDict` are `Lambdad`.
            return None if re.fullmatch(shelf.never, found.__name__) else found
    return None


def applied_config(config: Mapping[str, Any], evaluate: Expression) -> dict[str, Any]:
    """What applying a run needs, of `APPLIED` what its config has: components as they are, arguments as values.

    Args:
        config: a training's config, references and expressions in it.
        evaluate: computes its expressions. What gives no plain value stays as it is written, and `foreign` names it.

    Returns:
        Under each name plain data; ``@image_transforms`` in ``to_original_grid`` is what that inverts.

    Raises:
        UserError: it is too long, as references to references can make it.
    """
    resolved = _Resolver(config, evaluate)
    others = [name for name in APPLIED if name in config and name != "network"]
    return {"network": resolved.network(), **{name: resolved(name) for name in others}}


def older_expression(config: Mapping[str, Any], *, source: Path) -> Expression:
    """Computes, without running them, the expressions that the bundles of before ``applied`` wrote; no others.

    Args:
        config: a run's, with today's names.
        source: its file, for messages.
    """

    def simple(identity: str, text: str) -> Any:
        if text == "$len(@classes)":
            return len(config["classes"])
        if switch := re.fullmatch(r"\$training\.boolean\(@(stratify|allow_empty_parts)\)", text):
            return boolean(config[switch[1]])
        raise ValueError(f"{identity}: {text}")

    def value(identity: str, text: str) -> Any:
        if text != "$training.input_size(@network_def, image_size=@image_size)":
            return simple(identity, text)
        network = _Resolver(config, simple).network()
        if foreign(network):  # which refuses the run
            return None
        fitting = getattr(Components({"network": network}, source=source)["network"], "fitting_size", None)
        return config["image_size"] if fitting is None else fitting(config["image_size"])

    return value


def without_pretraining(network: Mapping[str, Any]) -> dict[str, Any]:
    """A network's component without the weights its training began with: model.pt holds them, trained further.

    They need not be there any more, nor the internet they came from. A network of ours says itself which of its
    arguments these are, in ``pretraining_arguments``: of another's, ``weights`` or ``mean`` may be anything. So does
    one within another, as in `AdaptedNetwork`.
    """
    begun = getattr(component(str(network["_target_"])), "pretraining_arguments", ())
    off = {name: value for name, value in _NOT_PRETRAINED.items() if network.get(name)}
    within = {
        name: without_pretraining(value)
        for name, value in network.items()
        if isinstance(value, Mapping) and isinstance(value.get("_target_"), str)
    }
    return {**{name: value for name, value in network.items() if name not in begun}, **within, **off}


class _Resolver:
    """Follows the references of a config and computes its expressions."""

    def __init__(self, config: Mapping[str, Any], evaluate: Expression) -> None:
        self._config = config
        self._evaluate = evaluate
        self._left = _MOST

    def network(self) -> Any:
        """The chosen network, as a component that is made at once."""
        config = self._config
        menu = config.get("network_def") == "$@networks[@network]()"
        network = self(f"networks::{config.get('network')}" if menu else "network_def")
        if not isinstance(network, dict) or not isinstance(network.get("_target_"), str):
            return network
        network.pop("_mode_", None)
        return without_pretraining(network)

    def __call__(self, identity: str, depth: int = 0) -> Any:
        """The plain content of an id."""
        self._left -= 1
        if self._left < 0:
            raise UserError(f"{identity}: is too long or too deep for what a run needs")
        node: Any = self._config
        try:
            for key in identity.split("::"):
                node = node[int(key)] if isinstance(node, list) else node[key]
        except (KeyError, IndexError, ValueError, TypeError):
            return f"@{identity}"
        if depth > _DEEPEST:  # two that refer to each other
            return f"@{identity}"
        if isinstance(node, dict):
            return {key: self(f"{identity}::{key}", depth + 1) for key in node}
        if isinstance(node, list):
            return [self(f"{identity}::{number}", depth + 1) for number in range(len(node))]
        if not isinstance(node, str):
            try:
                return _plain(node)
            except ValueError:
                return str(node)
        if node == _IMAGE_TRANSFORMS and "image_transforms" in self._config:
            return node
        if re.fullmatch(r"@\w+((::|#)\w+)*", node):
            return self(node[1:].replace("#", "::"), depth + 1)
        if not node.startswith("$"):
            return node
        try:
            return _plain(self._evaluate(identity, node))
        except ValueError:
            return node


def _plain(value: Any) -> Any:
    """A value as JSON could hold it.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(one) for key, one in value.items()}
    raise ValueError(f"{type(value).__name__} is no plain value")


def foreign(content: Any, where: str = "applied") -> list[str]:
    """What a run's ``applied`` holds that is not on the list, a phrase each: nothing of it has been run."""
    found = []
    for number, (place, value, level) in enumerate(_walk(content, where)):
        if number > _MOST or level > _DEEPEST:
            return [f"{place}: is too long or too deep for what a run needs"]
        if isinstance(value, str) and value[:1] in tuple("$@%") and value != _IMAGE_TRANSFORMS:
            what = {"$": "the expression", "@": "the reference", "%": "the macro"}[value[0]]
            found.append(f"{place}: {what} {_short(value)}")
        elif isinstance(value, Mapping) and "_target_" in value:
            found += _foreign_component(value, place)
    return found


def _foreign_component(content: Mapping[Any, Any], where: str) -> list[str]:
    target = content["_target_"]
    if isinstance(target, str) and target.startswith("$"):
        return []  # told as an expression
    made = component(target) if isinstance(target, str) else None
    if made is None:
        return [f"{where}: {_short(str(target))}"]
    found = []
    if content.get("_mode_", "default") not in ("default", "callable"):
        found.append(f"{where}: {target} in the mode {_short(str(content['_mode_']))}")
    if inspect.isclass(made) and issubclass(made, torch.nn.Module):
        found += [
            f"{where}: {target} with {name} {_short(str(value))}"
            for name, value in content.items()
            if (value is True and name == "pretrained")
            or (isinstance(value, str) and (_FETCHING.fullmatch(str(name)) or _ELSEWHERE.fullmatch(value)))
        ]
    return found


def _short(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:100]}..."


def _walk(content: Any, where: str) -> Iterator[tuple[str, Any, int]]:
    """Every value, where it is and how deep; lazily, because a YAML file of a few lines can stand for millions."""
    pending = [(where, content, 0)]
    while pending:
        place, value, level = pending.pop()
        yield place, value, level
        if isinstance(value, (Mapping, list)):
            parts = list(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
            pending += [(f"{place}::{key}", part, level + 1) for key, part in reversed(parts)]


_MEANT: Mapping[str, tuple[Any, str]] = {
    "network": (torch.nn.Module, "a network"),
    "image_transforms": (Transform, "a list of transforms"),
    "to_original_grid": (Transform, "a list of transforms"),
    "measures": (Callable, "a list of measures"),
}


def _fits(name: str, made: Any) -> bool:
    if name not in _MEANT:
        return True
    kind = _MEANT[name][0]
    if name == "network":
        return isinstance(made, kind)
    return isinstance(made, list) and all(isinstance(one, kind) for one in made)


class Components:
    """The components of a run, each made once.

    Args:
        applied: from `applied_config`, as read from a file.
        source: the file, for messages.

    Raises:
        UserError: something in it is not on the list; names each, and how to run it nevertheless.
    """

    def __init__(self, applied: Any, *, source: Path) -> None:
        if not isinstance(applied, Mapping):
            raise UserError(f"{source}: applied is not a mapping of {', '.join(APPLIED)}")
        if strange := foreign(applied):
            raise UserError(
                [
                    f"{source}: would run what is neither MONAI's, torch's nor this package's, so nothing was run:",
                    *(f"  {one}" for one in strange),
                    "--trust true runs it; say so only of a run from people whose programs you would run, too",
                ]
            )
        self._applied = applied
        self._source = source
        self._made: dict[str, Any] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._applied

    def __getitem__(self, name: str) -> Any:
        """What a name of `APPLIED` means; the same object each time.

        Raises:
            UserError: there is no such name, or its component refuses its arguments.
        """
        if name not in self._made:
            made = self.make(name)
            if not _fits(name, made):
                raise UserError(f"{self._source}: applied {name} is not {_MEANT[name][1]}")
            self._made[name] = made
        return self._made[name]

    def make(self, name: str, **changes: Any) -> Any:
        """Make it anew, with other arguments.

        Raises:
            UserError: as for looking it up.
        """
        if name not in self._applied:
            raise UserError(f"{self._source}: holds no applied {name}")
        content = self._applied[name]
        return self._make({**content, **changes} if changes else content, name)

    def _make(self, content: Any, where: str) -> Any:
        if content == _IMAGE_TRANSFORMS and not where.startswith("image_transforms"):
            return self["image_transforms"]
        if isinstance(content, list):
            made = [self._make(one, f"{where}::{number}") for number, one in enumerate(content)]
            # As MONAI leaves components out of a list.
            return [one for one, given in zip(made, content, strict=True) if one is not None or given is None]
        if not isinstance(content, Mapping):
            return content
        arguments = {
            key: self._make(one, f"{where}::{key}") for key, one in content.items() if key not in _NOT_ARGUMENTS
        }
        if "_target_" not in content:
            return arguments
        if str(content.get("_disabled_", False)).strip().lower() == "true":
            return None
        target = component(content["_target_"])
        assert target is not None  # or the constructor would have refused it
        try:
            accepted = inspect.signature(target).parameters
            for name, value in _NOT_PRETRAINED.items():  # which some are where nothing is said
                if name in accepted and accepted[name].default:
                    arguments.setdefault(name, value)
            if content.get("_mode_") == "callable":
                return functools.partial(target, **arguments)
            return target(**arguments)
        except UserError as error:
            if where == "data":  # tells of the dataset, not of the run
                raise
            raise UserError([f"{self._source}: {where}: {problem}" for problem in error.problems]) from error
        except Exception as error:  # whatever it raises on arguments that it cannot take
            raise UserError(f"{self._source}: {where}: {content['_target_']}: {error}") from error
