"""A page in the browser: an image in, what models make of it out; and the runs of a folder.

What the pages show is made in `opening` (images), `serving` (models), `drawing` (pictures) and `telling` (words), none
of which knows Streamlit; `pages` and `run_pages` put it on the screen, and `server` starts it.
"""

from __future__ import annotations

from monai_thyroid.deploy.web.server import check_address, serve
from monai_thyroid.deploy.web.serving import Desk, open_desk

__all__ = ["Desk", "check_address", "open_desk", "serve"]
