"""Readers of dataset folders, one small module a layout: a folder becomes a list of items.

A module of this package that has ``LAYOUT`` (or ``LAYOUTS``) is a layout; adding one is adding a file. Another package
adds one by an entry point of the group ``monai_thyroid.layouts``, whose name is the layout's and whose object is a
`Layout`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
from collections.abc import Mapping, Sequence

from monai_thyroid.data.layouts.listing import Item, Layout, Listing
from monai_thyroid.errors import UserError

__all__ = ["AUTO", "GROUP", "LAYOUTS", "Item", "Layout", "Listing", "choose_layouts"]

AUTO = "auto"
GROUP = "monai_thyroid.layouts"


def _collect() -> dict[str, Layout]:
    found: dict[str, Layout] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        for layout in [*getattr(module, "LAYOUTS", []), *([module.LAYOUT] if hasattr(module, "LAYOUT") else [])]:
            found[layout.name] = layout
    return found


LAYOUTS: Mapping[str, Layout] = _collect()
"""Every layout of this package by its name."""


def _others() -> dict[str, importlib.metadata.EntryPoint]:
    """The layouts that other packages add, by name; not loaded yet."""
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP) if point.name not in LAYOUTS}


def _load(point: importlib.metadata.EntryPoint) -> Layout:
    whose = f"of {f'the package {point.dist.name}' if point.dist else 'another package'}"
    try:
        layout = point.load()
    except Exception as error:  # another's module may raise anything
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"layout {point.name} ({point.value}) {whose} cannot be loaded ({told}); mend or uninstall it"
        ) from error
    if not isinstance(layout, Layout) or layout.name != point.name:
        raise UserError(f"layout {point.name} ({point.value}) {whose} is no Layout of that name")
    return layout


def choose_layouts(layout: str | Sequence[str]) -> list[Layout]:
    """The layouts meant by a name, several names, or ``"auto"`` for all, ours before those of other packages.

    Raises:
        UserError: a name is unknown, or another package's layout cannot be loaded.
    """
    others = _others()
    known = [*LAYOUTS, *others]
    names = known if layout == AUTO else [layout] if isinstance(layout, str) else list(layout)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f"unknown dataset layout {', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}, {AUTO}"
        )
    return [LAYOUTS[name] if name in LAYOUTS else _load(others[name]) for name in names]
