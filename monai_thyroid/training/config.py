"""The executed configuration of a bundle: overrides applied, constants evaluated and checked."""

from __future__ import annotations

import copy
import functools
import os
import warnings
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_thyroid.errors import UserError
from monai_thyroid.training.constants import CONSTANTS

__all__ = ["check_constants", "executed_config", "has", "load_config_file", "mistake_behind", "problems_behind"]


def load_config_file(file: str | os.PathLike[str]) -> Any:
    """What a config file holds, as MONAI reads it; parsed once as long as it is the same.

    Raises:
        Exception: whatever reading and parsing raise.
    """
    return copy.deepcopy(_parsed(str(file), Path(file).read_bytes()))


@functools.lru_cache(maxsize=32)
def _parsed(file: str, content: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Duplicate key")  # of which MONAI takes the last
        return ConfigParser.load_config_file(file)


def has(parser: ConfigParser, name: str) -> bool:
    """Whether a config has an id; the parser itself, asked for one that it lacks, looks for similar ones at length."""
    return name.partition("::")[0] in parser.get() and name in parser


def check_constants(parser: ConfigParser) -> tuple[dict[str, Any], list[str]]:
    """Evaluate and read the constants that a config has.

    Returns:
        Their values by name (without those that cannot be read), and one sentence for each that cannot.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for name, read in CONSTANTS.items():
        # Inference calls its input dataset_dir as well, for MONAI's sake.
        if not has(parser, name) or (name, parser[name]) == ("dataset_dir", "@input"):
            continue
        try:
            values[name] = read(parser.get_parsed_content(name))
        except UserError as error:
            problems.append(f"{name} {error}")
        except Exception as error:  # an expression that fails, perhaps for another constant's sake
            mistake = mistake_behind(error)
            told = f"{name} {parser[name]!r}: cannot be evaluated ({error.__cause__ or error})"
            problems += mistake.problems if mistake else [told]
    return values, problems


def mistake_behind(error: BaseException) -> UserError | None:
    """The user's mistake that MONAI has wrapped in errors of its own, if that is what it was."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    return cause


def problems_behind(error: BaseException, what: str) -> list[str]:
    """What to tell the user of an error: the mistake behind it, or else the first of the errors that wrap each other.

    Args:
        error: as MONAI raised it.
        what: was tried.
    """
    if mistake := mistake_behind(error):
        return mistake.problems
    while error.__cause__ is not None:
        error = error.__cause__
    return [f"{what}: {type(error).__name__}: {error}"]


def executed_config(parser: ConfigParser) -> dict[str, Any]:
    """The config as it is executed: overrides applied, macros resolved, constants evaluated to plain values.

    Raises:
        UserError: a constant cannot be read.
    """
    values, problems = check_constants(parser)
    if problems:
        raise UserError(problems)
    config = copy.deepcopy({key: value for key, value in parser.get().items() if key != "_meta_"})
    return {**config, **values}
