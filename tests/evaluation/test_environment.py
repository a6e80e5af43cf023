from __future__ import annotations

import sys

import torch

from monai_thyroid.evaluation.environment import machine, versions


def test_versions_and_machine_are_what_is_here() -> None:
    found = versions()
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"monai_thyroid", "monai", "ignite", "numpy"} <= set(found)
    assert {"system", "processor", "threads"} <= set(machine())
