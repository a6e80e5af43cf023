"""Bundles for other people's data, written from templates."""

from __future__ import annotations

from monai_thyroid.bundles.new import NewBundle, new_bundle

__all__ = ["NewBundle", "new_bundle"]
