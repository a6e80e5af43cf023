"""Comparison of finished runs: statistics, figures and one report, from run folders alone, without torch."""

from __future__ import annotations

from monai_thyroid.compare.planning import plan_power, plan_problems
from monai_thyroid.compare.reading import Run, Unusable, find_runs
from monai_thyroid.compare.report import build, check_margin, make_report
from monai_thyroid.compare.statistics import (
    Comparison,
    Pair,
    bootstrap_mean,
    compare_architectures,
    compare_weights,
    rank_stability,
)
from monai_thyroid.compare.subgroups import FEW

__all__ = [
    "FEW",
    "Comparison",
    "Pair",
    "Run",
    "Unusable",
    "bootstrap_mean",
    "build",
    "check_margin",
    "compare_architectures",
    "compare_weights",
    "find_runs",
    "make_report",
    "plan_power",
    "plan_problems",
    "rank_stability",
]
