"""2-D medical image segmentation on MONAI: trained, compared honestly, put to work in a clinic."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
