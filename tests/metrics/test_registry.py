"""A metric is one entry: everything that is said or done with it comes from there."""

from __future__ import annotations

import ast
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import monai_thyroid
from monai_thyroid.metrics import METRICS, ScoringPolicy, score_case, summarise
from monai_thyroid.metrics.registry import Counts, evaluate

PACKAGE = Path(monai_thyroid.__file__).parent
NEW = """

@_metric(
    name="f2",
    title="F2 score",
    definition="5tp / (5tp + 4fn + fp)",
    both_empty=1.0,
    missed=0.0,
    false_alarm=0.0,
    note="recall counts more than precision",
    source="10.1002/asi.4630300209",
    pooled=True,
    comparable=True,
)
def _f2(pair: Counts) -> float:
    return 5 * pair.tp / (5 * pair.tp + 4 * pair.fn + pair.fp)
"""
USE = """
import sys
from pathlib import Path
import numpy as np
from monai_thyroid import cli
from monai_thyroid.compare import make_report
from monai_thyroid.metrics import SCORE_COLUMNS, ScoringPolicy, score_case, summarise
from made_runs import maker
row = score_case(np.array([[1, 1, 0, 0]]), np.array([[1, 0, 0, 0]]))
assert row["f2"] == 5 / 9, row
assert summarise([row, row])["f2_pooled"] == 5 / 9
assert "F2" not in SCORE_COLUMNS and "f2" in SCORE_COLUMNS
assert "f2: recall counts more than precision." in ScoringPolicy().describe()
folder = Path(sys.argv[1])
for network, quality in (("unet", 0.7), ("segnet", 0.8)):
    maker(folder)(network, quality=quality)
text = make_report([folder / "runs"], output=folder / "report", metric="f2", images=False).read_text("utf-8")
assert "F2 score, mean over groups" in text and "F2 score of every case" in text and ">F2 score, mean<" in text
cli.main(["report", "--help"])
"""


def test_a_metric_is_added_in_one_place(tmp_path: Path) -> None:
    """With nothing but a function and its facts at the end of one file, from cases.csv to the page."""
    shutil.copytree(PACKAGE, tmp_path / "monai_thyroid", ignore=shutil.ignore_patterns("__pycache__", "bundles"))
    with (tmp_path / "monai_thyroid" / "metrics" / "registry.py").open("a") as file:
        file.write(NEW)
    path = os.pathsep.join([str(tmp_path), str(PACKAGE.parent / "tests" / "compare")])
    done = subprocess.run(
        [sys.executable, "-c", USE, str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, timeout=300, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert "f2 (F2 score)" in " ".join(done.stdout.split())


def test_nothing_else_names_the_metrics() -> None:
    """But Dice and IoU, which training watches too, and the names that scikit-learn or torch give to other things."""
    names = {*METRICS} - {"dice", "iou", "precision", "recall", "accuracy"}
    titles = {one.title for one in METRICS.values()} - {"Dice", "precision", "recall", "accuracy"}
    for path in PACKAGE.rglob("*.py"):
        if path.name == "registry.py" and path.parent.name == "metrics":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        assert not said & (names | {f"{name}_mean" for name in names} | titles), path


def test_the_policy_says_which_of_two_definitions_is_used() -> None:
    text = ScoringPolicy().describe()
    assert "larger of the two directed 95th percentiles" in text
    assert "MedPy takes one percentile over the distances of both directions" in text
    assert "boundaries are counted in pixels" in text
    assert "DeepMind's surface-distance weighs them by the length of the contour" in text


@pytest.mark.parametrize("counts", [(0, 0, 0, 9), (0, 4, 0, 5), (0, 0, 4, 5), (0, 2, 3, 4), (3, 2, 1, 3), (9, 0, 0, 0)])
def test_a_metric_of_counts_is_the_same_from_masks(counts: tuple[int, int, int, int]) -> None:
    tp, fp, fn, _ = counts
    reference, prediction = np.zeros((2, 9), bool)
    reference[: tp + fn] = True
    prediction[:tp] = prediction[tp + fn : tp + fn + fp] = True
    row = score_case(reference[None], prediction[None])
    assert tuple(row[name] for name in ("tp", "fp", "fn", "tn")) == counts
    for name, metric in METRICS.items():
        if metric.pooled:
            assert evaluate(metric, Counts(*counts)) == row[name]


def test_rows_of_before_a_metric_are_not_scored_by_it() -> None:
    row = score_case(np.eye(3), np.eye(3))
    older = {key: value for key, value in row.items() if key != "nsd"}
    summary = summarise([older, older])
    assert math.isnan(summary["nsd_mean"])
    assert summary["dice_mean"] == 1
    with pytest.raises(ValueError, match="nsd of case 1 must be a number"):
        summarise([row, older])


@pytest.mark.parametrize(
    ("name", "width", "decimals"),
    [("dice", 0.05, 2), ("dice", 0.036, 2), ("dice", 0.02, 3), ("dice", 0.009, 3), ("dice", 0.0001, 3),
     ("dice", 0.4, 2), ("dice", float("nan"), 3), ("hd95", 12.0, 1), ("hd95", 2.3, 1), ("hd95", 0.05, 2)],
)  # fmt: skip
def test_differences_have_the_decimals_that_their_interval_warrants(name: str, width: float, decimals: int) -> None:
    assert METRICS[name].decimals(width) == decimals
