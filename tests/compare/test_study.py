from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from made_runs import nothing, shrunk
from scipy import stats

from monai_thyroid.compare.report import build
from monai_thyroid.compare.study import declared_margin
from monai_thyroid.files import write_json


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


def test_a_margin_is_declared_where_the_plan_recorded_it(tmp_path: Path) -> None:
    runs = [tmp_path / "one" / "runs" / "a" / "seed-0", tmp_path / "one" / "runs" / "b" / "seed-0"]
    assert declared_margin(runs) is None
    (tmp_path / "one").mkdir()
    write_json(tmp_path / "one" / "plan.json", {"networks": ["a", "b"]})
    assert declared_margin(runs) is None
    write_json(tmp_path / "one" / "plan.json", {"networks": ["a", "b"], "margin": 0.02})
    assert declared_margin(runs) == 0.02
    assert declared_margin([*runs, tmp_path / "two" / "c" / "seed-0"]) is None
    assert declared_margin([]) is None
