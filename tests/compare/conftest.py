from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import maker


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    return maker(tmp_path)
