"""What Streamlit runs for each look at the page."""

from __future__ import annotations

from monai_thyroid.deploy.web.pages import show
from monai_thyroid.deploy.web.server import current

show(current())
