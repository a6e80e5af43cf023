"""MONAI Label's web application with a door, and with words where it has none for what went wrong.

Pages of other origins may not read patients' images. Its own setting for that, MONAI_LABEL_CORS_ORIGINS, stops its
start in release 0.8.5 (an address is no JSON), and without it everybody may.
"""

from __future__ import annotations

import json
import os

from fastapi import Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.app import app
from monailabel.interfaces.exception import MONAILabelException

__all__ = ["ORIGINS", "app"]

ORIGINS = "MONAI_THYROID_LABEL_ORIGINS"
"""The variable with the origins of viewers that may, separated by blanks."""

app.user_middleware = [one for one in app.user_middleware if one.cls is not CORSMiddleware]
if allowed := os.environ.get(ORIGINS, "").split():
    app.add_middleware(CORSMiddleware, allow_origins=allowed, allow_methods=["*"], allow_headers=["*"])


async def _told(request: Request, error: Exception) -> JSONResponse:
    """Instead of the bare words "Internal Server Error"."""
    if isinstance(error, MONAILabelException):
        return JSONResponse({"detail": error.msg}, 400)
    if isinstance(error, json.JSONDecodeError):
        return JSONResponse({"detail": f"params: is no JSON ({error})"}, 400)
    return JSONResponse({"detail": f"{type(error).__name__}: {error}; the server's log says more"}, 500)


for _kind in (MONAILabelException, json.JSONDecodeError, Exception):
    app.add_exception_handler(_kind, _told)
