from __future__ import annotations

from pathlib import Path

import pytest

from monai_thyroid.images import write_phantom


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset in the TN3K layout; tests must not change it."""
    return write_phantom(tmp_path_factory.mktemp("data") / "scans", cases=12, seed=0, height=48, width=64)
