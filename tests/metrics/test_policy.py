from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from monai_thyroid.metrics import METRICS, SCORE_COLUMNS, ScoringPolicy, score_case

NOTHING = np.zeros((3, 4), dtype=bool)
SOME = np.eye(3, 4, dtype=bool)
EDGES = {"both_empty": (NOTHING, NOTHING), "missed": (SOME, NOTHING), "false_alarm": (NOTHING, SOME)}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("metric", METRICS)
def test_the_printed_table_is_what_the_code_does(metric: str, edge: str) -> None:
    stated = ScoringPolicy().as_dict()["metrics"][metric][edge]
    row = score_case(*EDGES[edge])
    by_definition = {
        "specificity": row["tn"] / (row["tn"] + row["fp"]),
        "accuracy": (row["tp"] + row["tn"]) / 12,
    }
    expected = {"diagonal": 5.0, "computed": by_definition.get(metric)}.get(stated, stated)
    assert row[metric] == expected


def test_every_metric_has_a_rule_and_a_row() -> None:
    assert set(METRICS) < set(SCORE_COLUMNS)
    lines = ScoringPolicy().describe().splitlines()
    for metric in METRICS:
        rule = ScoringPolicy().as_dict()["metrics"][metric]
        (row,) = (line for line in lines if line.split(" ")[0] == metric)
        assert [cell.strip() for cell in row.split("|")][1] == rule["definition"]
        assert rule["source"] in row
        assert f"{metric}: {rule['note']}." in lines


def test_description_names_the_parameters() -> None:
    text = ScoringPolicy(nsd_tolerance=0.75, match_iou=0.25, connectivity=4).describe()
    assert "0.75 of the same unit" in text
    assert "IoU of 0.25 or more" in text
    assert "4-connected" in text
    assert "IoU of" not in ScoringPolicy(match_iou=0).describe()


def test_as_dict_survives_json() -> None:
    policy = ScoringPolicy(nsd_tolerance=1.0)
    stored = json.loads(json.dumps(policy.as_dict(), allow_nan=False))
    assert stored == policy.as_dict()
    parameters = {name: stored[name] for name in ("nsd_tolerance", "match_iou", "connectivity")}
    assert ScoringPolicy(**parameters) == policy


def test_policy_cannot_change() -> None:
    with pytest.raises(FrozenInstanceError):
        ScoringPolicy().nsd_tolerance = 3.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "parameters",
    [
        {"nsd_tolerance": -1},
        {"nsd_tolerance": math.nan},
        {"nsd_tolerance": math.inf},
        {"match_iou": -0.1},
        {"match_iou": 1.1},
        {"match_iou": math.nan},
        {"connectivity": 6},
    ],
)
def test_bad_parameters_are_refused(parameters: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(parameters))):
        ScoringPolicy(**parameters)


def test_tolerance_is_used() -> None:
    reference, prediction = np.zeros((2, 20, 20), dtype=bool)
    reference[5:15, 5:15], prediction[8:18, 5:15] = True, True
    strict, loose = (
        score_case(reference, prediction, policy=ScoringPolicy(nsd_tolerance=tolerance))["nsd"] for tolerance in (0, 3)
    )
    assert strict < loose == 1.0
