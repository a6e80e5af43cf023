"""A bounded part of the attempts in fuzz.py; `MONAI_THYROID_FUZZ=1000` makes that many of each kind."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from fuzz import KINDS, World, fuzz

pytestmark = pytest.mark.slow

COUNTS = {"images": 30, "tables": 6, "runs": 12, "options": 15}
SEED = int(os.environ.get("MONAI_THYROID_FUZZ_SEED", "0"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.timeout(0 if "MONAI_THYROID_FUZZ" in os.environ else 600)
def test_nothing_breaks_it(kind: str, world: World, tmp_path: Path) -> None:
    """Status, one message that names the thing, no traceback, nothing changed or half-written: for every attempt."""
    count = int(os.environ.get("MONAI_THYROID_FUZZ", COUNTS[kind]))
    statuses: Counter[int | None] = Counter()
    faults = []
    for outcome in fuzz(kind, count, SEED, world, tmp_path):
        statuses[outcome.status] += 1
        if outcome.faults:
            faults.append(f"{outcome.what}\n{'; '.join(outcome.faults)}\ntold: {outcome.told[-1000:]}")
    assert not faults, "\n\n".join(faults)
    if kind != "tables":  # a report lists what it cannot use, and is made
        assert statuses[1] >= count // 5, "hardly anything was refused, so hardly anything was broken"
