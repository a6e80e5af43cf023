"""Configurations of earlier versions of the schema, brought to the present one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["migrated"]

_EVALUATION = "AutocastInferer CaseScores TrainedRun default_device default_precision input_items".split()
_TRAINING = "EarlyStop Recorder boolean check_config check_file input_size output_size training_session".split()
_TRANSFORMS = "LoadMaskd LoadScand SaveMaskd SaveOverlayd".split()

# What is called something else now, by its name within the package until schema 1; configs use `runs` by itself, too.
_MOVED = {
    **{f"runs.{name}": f"evaluation.{name}" for name in _EVALUATION},
    **{f"runs.{name}": f"training.{name}" for name in _TRAINING},
    **{f"data.{name}": f"transforms.{name}" for name in _TRANSFORMS},
}
_IMPORT = "$import monai_thyroid.runs as runs"
_IMPORTS = ["$import monai_thyroid.evaluation as evaluation", "$import monai_thyroid.training as training"]
_OLD = re.compile(r"(?<![\w.])(monai_thyroid\.)?(" + "|".join(map(re.escape, _MOVED)) + r")\b")


def migrated(config: Mapping[str, Any], *, version: int) -> dict[str, Any]:
    """A run's config as the present version would have written it.

    Args:
        config: content of a config.yaml.
        version: its schema_version.
    """
    found = dict(config)
    if version < 2:
        found = {key: _renamed(value) for key, value in found.items()}
        imports = found.get("imports", [])
        found["imports"] = [new for one in imports for new in (_IMPORTS if one == _IMPORT else [one])]
    if "to_original_grid" not in found and "postprocessing" in found.get("test", {}):
        found["to_original_grid"] = found["test"]["postprocessing"]["transforms"]
    found.setdefault("measures", [])
    return found


def _renamed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _renamed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_renamed(one) for one in value]
    if isinstance(value, str):
        return _OLD.sub(lambda found: (found[1] or "") + _MOVED[found[2]], value)
    return value
