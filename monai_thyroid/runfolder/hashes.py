"""What identifies a run: hashes of its recipe, of all that determines its result, and of what it was scored against.

The third hash, of the data, is taken where the files are read: `monai_thyroid.data.Inspection`.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from monai_thyroid.files import canonical_hash

__all__ = [
    "differing_settings",
    "labels_digest",
    "network_definition",
    "protocol_hash",
    "references_hash",
    "run_hash",
]

# What changes neither the recipe nor a run's result: where from and to, on what machine, and the bundle's plumbing.
_PLUMBING = {"output_dir", "bundle_root", "device", "channels_last", "num_workers", "resume", "overwrite", "mlflow"}
_PLUMBING |= {
    "networks",
    "trackers",
    "session",
    "imports",
    "initialize",
    "run",
    "finalize",
    "_meta_",
    "schema_version",
    "applied",
    "score_test",
}
_SOURCES = {"dataset_dir", "split_file"}  # their content is in the data's hash
# What may differ between two runs of one race besides: which network, which seed, which of the data.
_ENTRANT = {"network", "seed", "fold"}
_SHARES = {"split_seed", "validation_fraction", "phantom_cases", "phantom_seed"}


def _recipe(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that runs of one race share."""
    left_out = _PLUMBING | _SOURCES | _ENTRANT | _SHARES
    recipe = {key: value for key, value in _untuned(config).items() if key not in left_out}
    recipe["init_from"] = recipe.get("init_from") is not None
    if recipe.get("postprocess") in (None, "none"):  # what earlier configs do not have
        recipe.pop("postprocess", None)
    return recipe


def _untuned(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with the grid in the place of what was chosen from it: a race in which each network has its own choice.

    What was tried and what came out is no part of a recipe; the grid, the budget and the seeds are.
    """
    tuning = config.get("tuning")
    if not tuning:
        return {key: value for key, value in config.items() if key != "tuning"}
    untuned = copy.deepcopy(dict(config))
    for one in tuning["grid"]:
        *above, last = str(one["option"]).split("::")
        node: Any = untuned
        for key in above:
            node = node[int(key)] if isinstance(node, list) else node.get(key, {})
        if isinstance(node, list):
            node[int(last)] = None
        else:
            node.pop(last, None)
    return {**untuned, "tuning": {key: tuning[key] for key in ("grid", "epochs", "seeds")}}


def protocol_hash(config: Mapping[str, Any]) -> str:
    """Hash of the recipe: two runs that share it run the same race (network, seed, paths and machine aside).

    Args:
        config: as executed.
    """
    return canonical_hash(_recipe(config))


def network_definition(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's network is built from, by argument: one name in a report must be one network.

    Values that tuning chose are left out, as folds may choose their own, and where the file of pretrained weights lies.

    Args:
        config: as executed.
    """
    menu = _untuned(config).get("networks")
    block = menu.get(config.get("network")) if isinstance(menu, Mapping) else None
    if not isinstance(block, Mapping):
        return {}
    own = {str(key): value for key, value in block.items() if key not in ("mean", "std")}
    if "weights" in own:
        own["weights"] = "none" if own["weights"] in (None, "null") else "pretrained"
    if isinstance(own.get("network"), Mapping):  # within an adapter
        own |= {f"network::{key}": value for key, value in own.pop("network").items()}
    return own


def run_hash(config: Mapping[str, Any], *, data_hash: str, parent_sha256: str | None) -> str:
    """Hash of all that determines a run's result; unchanged and complete means that it need not be repeated.

    Args:
        config: as executed.
        data_hash: of contents and split.
        parent_sha256: of the checkpoint the weights started from.
    """
    content = {key: value for key, value in config.items() if key not in _PLUMBING | _SOURCES | {"init_from"}}
    if content.get("postprocess") in (None, "none"):
        content.pop("postprocess", None)
    if content.pop("tuning", None):  # of which the choice is in the config, and how it came about is in no result
        content["tuning"] = _untuned(config)["tuning"]
    content["network_definition"] = config.get("networks", {}).get(config.get("network"))
    return canonical_hash([content, data_hash, parent_sha256])


def labels_digest(labels: npt.NDArray[np.integer]) -> str:
    """SHA-256 of the size and the class numbers, (height, width), of one mask, however its file holds them."""
    head = f"{labels.shape[0]} {labels.shape[1]} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(labels, dtype=np.uint8).tobytes()).hexdigest()


def references_hash(digests: Mapping[str, str]) -> str:
    """Hash of the references of a part: two evaluations that share it may be compared case by case.

    It knows neither images nor a split, so that it can be taken of masks alone.

    Args:
        digests: of each case, `labels_digest` of its reference.
    """
    return canonical_hash(dict(digests))


def differing_settings(first: Mapping[str, Any], second: Mapping[str, Any], *, of: str) -> dict[str, tuple[Any, Any]]:
    """The settings in which two configs differ and that a hash depends on.

    Args:
        first: as executed.
        second: likewise.
        of: ``"protocol_hash"`` or ``"data_hash"``.

    Returns:
        Both values by name.
    """
    if of == "protocol_hash":
        both = [_recipe(first), _recipe(second)]
    else:
        both = [{key: config[key] for key in config if key not in _PLUMBING | _ENTRANT} for config in (first, second)]
    names = sorted({*both[0], *both[1]})
    pairs = {name: (both[0].get(name), both[1].get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
