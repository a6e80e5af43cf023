from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import nothing, shrunk
from scipy import stats

from monai_thyroid.compare.report import build


def test_a_collapse_is_counted_and_leaves_the_other_networks_as_they_are(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    for network, quality in (("good", 0.9), ("fair", 0.6), ("frail", 0.7)):
        for seed in (0, 1, 2):
            predict = nothing if (network, seed) == ("frail", 2) else shrunk(quality, network, seed)
            make_run(network, seed, predict=predict)
    (analysis,) = build([tmp_path / "runs"], images=False).analyses
    rates = analysis.collapse_rates
    assert (rates["frail"].count, rates["frail"].total) == (1, 3)
    assert rates["frail"].interval == pytest.approx(tuple(stats.binomtest(1, 3).proportion_ci(method="exact")))
    assert rates["good"].share == 0
    assert analysis.architectures is not None
    pair = next(p for p in analysis.architectures.pairs if (p.first, p.second) == ("good", "fair"))
    assert pair.claim, "the dead seed of the third would hide it, if it counted as what is typical"
    assert any(text.startswith("frail varies") for text in analysis.architectures.warnings)
    for low, high in analysis.architectures.intervals.values():
        assert math.isnan(low) or 0 <= low <= high <= 1
