"""Bundles, all rendered from one source: those of this repository, and new ones for other people's data."""

from __future__ import annotations

from monai_thyroid.bundles.new import NewBundle, new_bundle
from monai_thyroid.bundles.render import render_bundle, write_shipped

__all__ = ["NewBundle", "new_bundle", "render_bundle", "write_shipped"]
