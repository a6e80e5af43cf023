"""Values of options, as a command line or a config gives them."""

from __future__ import annotations

from typing import Any

from monai_thyroid.errors import UserError

__all__ = ["boolean"]


def boolean(value: Any) -> bool:
    """Read a boolean strictly: the command line gives strings, and ``"false"`` would count as true.

    Raises:
        UserError: neither a boolean nor the words true and false.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    raise UserError(f"{value!r}: write true or false")
