"""Bundles, all rendered from one source: those of this repository, and new ones for other people's data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monai_thyroid.lazy import lazily

if TYPE_CHECKING:
    from monai_thyroid.bundles.new import NewBundle, new_bundle
    from monai_thyroid.bundles.render import (
        NETWORKS,
        SHIPPED,
        copy_bundle,
        recipe,
        render_bundle,
        write_bundle,
        write_shipped,
    )

__all__ = [
    "NETWORKS",
    "SHIPPED",
    "NewBundle",
    "copy_bundle",
    "new_bundle",
    "recipe",
    "render_bundle",
    "write_bundle",
    "write_shipped",
]

# `new` reads images; what is shipped needs none.
__getattr__ = lazily(
    __name__,
    {
        "new": ("NewBundle", "new_bundle"),
        "render": ("NETWORKS", "SHIPPED", "copy_bundle", "recipe", "render_bundle", "write_bundle", "write_shipped"),
    },
)
