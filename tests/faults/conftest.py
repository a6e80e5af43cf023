from __future__ import annotations

from pathlib import Path

import pytest
from fuzz import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small dataset, a run trained on it, and scored runs; not to be changed."""
    return World(Path(tmp_path_factory.mktemp("world")))
