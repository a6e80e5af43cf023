"""MONAI Label's web application with a door: pages of other origins may not read patients' images.

Its own setting for that, MONAI_LABEL_CORS_ORIGINS, stops its start in release 0.8.5 (an address is no JSON), and
without it everybody may.
"""

from __future__ import annotations

import os

from fastapi.middleware.cors import CORSMiddleware
from monailabel.app import app

__all__ = ["ORIGINS", "app"]

ORIGINS = "MONAI_THYROID_LABEL_ORIGINS"
"""The variable with the origins of viewers that may, separated by blanks."""

app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
if allowed := os.environ.get(ORIGINS, "").split():
    app.add_middleware(CORSMiddleware, allow_origins=allowed, allow_methods=["*"], allow_headers=["*"])
