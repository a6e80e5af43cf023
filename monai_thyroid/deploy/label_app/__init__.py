"""Annotating with MONAI Label: its server, run with our models, strategies, scores and trainings."""

from __future__ import annotations

from monai_thyroid.deploy.label_app.environment import check_installed, make_environment
from monai_thyroid.deploy.label_app.start import check_port, prepare, run_server

__all__ = ["check_installed", "check_port", "make_environment", "prepare", "run_server"]
