"""Programs of others that these tests need, from Debian's packages."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_orthanc import debian


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Finds a program by name: a skip where it is not installed, a failure where it must be (CI)."""

    def find(name: str) -> str:
        found = debian(name) or shutil.which(name, path=Path(sys.executable).parent)  # pip's
        if found is None:
            reason = f"no program {name} (see .ci/run for what installs it)"
            if os.environ.get("MONAI_THYROID_PROGRAMS_REQUIRED"):
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    return find
