"""What was trained, put to work outside of its run folder."""

from __future__ import annotations

from monai_thyroid.deploy.archive import ArchiveResult, predict_archive

__all__ = ["ArchiveResult", "predict_archive"]
