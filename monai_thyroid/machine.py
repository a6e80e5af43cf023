"""What the processor is and can do, as far as the system tells."""

from __future__ import annotations

import platform
from pathlib import Path

__all__ = ["processor", "processor_flags"]


def _cpuinfo() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def processor() -> str:
    """The processor's name, such as ``"AMD EPYC"``."""
    for line in _cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def processor_flags() -> set[str]:
    """The instruction sets of the processor by Linux's names; empty where the system does not tell."""
    return set(_cpuinfo().split())
