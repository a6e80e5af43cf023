"""Which workflow is asking: the one place that looks up the call stack.

MONAI evaluates an expression of a config without telling it which config it stands in, and adds unknown overrides
silently. What was written on the command line can only be read from the frames of the calling workflow.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

from monai_thyroid.errors import UserError

__all__ = ["BUNDLE_ROOT", "Caller", "bundle_root", "calling_workflow", "on_command_line"]

BUNDLE_ROOT = "$training.bundle_root()"
"""What the configs of a packed bundle say of where it is; needs ``$import monai_thyroid.training as training``."""

_WORKFLOW_ARGUMENTS = frozenset(inspect.signature(ConfigWorkflow.__init__).parameters) - {"self", "override"}


@dataclass(frozen=True)
class Caller:
    """The config that is being evaluated.

    Attributes:
        parser: its parser, overrides applied.
        overrides: ids and values that were set beside the config file, None where the caller does not tell.
        config_files: the files it was read from, empty where the caller does not tell.
    """

    parser: ConfigParser
    overrides: dict[str, Any] | None
    config_files: tuple[str, ...]


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def calling_workflow() -> Caller:
    """Find the config whose expression is being evaluated.

    Raises:
        UserError: called from outside of a config.
    """
    parser: ConfigParser | None = None
    for frame in _frames():
        names = frame.f_locals
        if parser is None and isinstance(names.get("self"), ConfigParser):
            parser = names["self"]
        if (
            parser is not None
            and frame.f_code.co_name == "create_workflow"
            and frame.f_globals.get("__name__") == "monai.bundle.scripts"
        ):
            files = names.get("config_file") or ()
            if isinstance(files, str) and "," in files and not Path(files).is_file():
                files = files.split(",")  # as MONAI reads it
            given = {key: value for key, value in names["_args"].items() if key not in _WORKFLOW_ARGUMENTS}
            return Caller(parser, given, (files,) if isinstance(files, str) else tuple(map(str, files)))
    if parser is None:
        raise UserError("this can only be used from a bundle's config")
    return Caller(parser, None, ())


def bundle_root() -> str:
    """The packed bundle in whose ``configs/`` the evaluated config lies, wherever the process was started.

    Raises:
        UserError: the caller does not tell where it has read the config.
    """
    files = calling_workflow().config_files
    if not files:
        raise UserError("bundle_root: say where the bundle is, --bundle_root dist/NAME")
    return str(Path(files[0]).resolve().parent.parent)


def on_command_line() -> bool:
    """Whether the process is a command (`python -m monai.bundle`, `monai-thyroid`), not somebody's program."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    name = spec.name if spec is not None else ""
    return name in ("monai.bundle.__main__", "monai_thyroid.__main__")
