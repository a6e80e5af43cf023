from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Several test processes on a small machine otherwise fight for its cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real images for tests; a skip where they are absent, a failure where they must not be (CI)."""
    path = Path(os.environ.get("MONAI_THYROID_DATA", ROOT.parent / "shared" / "data")).resolve()
    if not path.is_dir():
        reason = f"no real images at {path} (set MONAI_THYROID_DATA)"
        if os.environ.get("MONAI_THYROID_DATA_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT
