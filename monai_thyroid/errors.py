"""The one exception type for mistakes that the user can mend, and the one way to ask for an optional package."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

__all__ = ["UserError", "optional"]


class UserError(Exception):
    """Something the user can mend: a folder, a file, an option.

    Args:
        problems: one sentence or several, each saying what is wrong, where, and what to do. All that was found,
            not the first only.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple:
        return type(self), (self.problems,)


def optional(module: str, *, extra: str) -> ModuleType:
    """Import a package that only some features need.

    Args:
        module: dotted name, such as ``"segmentation_models_pytorch"``.
        extra: the extra of this package that installs it.

    Raises:
        UserError: it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f'This needs the package "{error.name}", which is not installed: pip install "monai_thyroid[{extra}]"'
        ) from error
