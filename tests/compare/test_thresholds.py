"""What a report says of choices made on validation: thresholds, tuned settings, and classes of lesions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import KEYS, reference, shrunk

from monai_thyroid.compare import build, page
from monai_thyroid.files import read_csv, read_json, write_csv, write_json
from monai_thyroid.metrics import CALIBRATION_COLUMNS, calibration_case
from monai_thyroid.pages import Table

MakeRun = Callable[..., Path]


def doubtful(run: Path, part: str, network: str, *, missed: float) -> None:
    """Let what a model misses of an object have this probability, 0.1 what lies outside."""
    path = run / "evaluations" / f"neck-{part}" / "calibration.csv"
    rows: list[dict[str, Any]] = []
    for case, row in enumerate(read_csv(path)):
        truth = reference(case, f"neck{part}")
        found = shrunk(0.6, network, 0)(truth, case)
        probability = np.where(found, 0.9, np.where(truth, missed, 0.1))
        rows.append({**{key: row[key] for key in KEYS}, **calibration_case(truth, probability)})
    write_csv(path, (*KEYS, *CALIBRATION_COLUMNS), rows)


def table(blocks: list[Any], start: str) -> list[dict[str, str]]:
    (found,) = (one for one in blocks if isinstance(one, Table) and one.caption.startswith(start))
    return [{column.title: cell.text for column, cell in zip(found.columns, row, strict=True)} for row in found.rows]


def test_the_threshold_is_validations_and_the_score_exact(make_run: MakeRun, tmp_path: Path) -> None:
    runs = {
        name: make_run(name, quality=0.6, parts=["test", "validation"], grouping="known") for name in ("sure", "shy")
    }
    for part in ("test", "validation"):
        doubtful(runs["shy"], part, "shy", missed=0.3)
    made = build([tmp_path / "runs"], images=False).report
    told = {row.network: row.at_threshold for row in made.sections[0].networks}
    assert told["sure"].thresholds == [0.5], "nothing is gained there"
    assert told["sure"].dice_mean == told["sure"].configured_dice_mean
    # At 2/15 and 3/15 all of the object is above: the lower is the first.
    assert told["shy"].thresholds == [pytest.approx(2 / 15)]
    assert told["shy"].dice_mean == 1
    assert told["shy"].configured_dice_mean < 0.8
    rows = {row["Network"]: row for row in table(page.blocks(made, figures=tmp_path), "Overlap")}
    assert rows["shy"]["Threshold that validation chose"] == "0.133"
    assert rows["shy"]["Dice at that, mean per image"] == "1.000"

    # Whatever test would have liked better: it has no say.
    doubtful(runs["shy"], "test", "shy", missed=0.01)
    doubtful(runs["sure"], "test", "sure", missed=0.3)
    told = {
        row.network: row.at_threshold for row in build([tmp_path / "runs"], images=False).report.sections[0].networks
    }
    assert told["shy"].thresholds == [pytest.approx(2 / 15)]
    assert told["shy"].dice_mean < 0.8
    assert told["sure"].thresholds == [0.5]


@pytest.mark.parametrize("changes", [{"activation": "softmax"}, {"classes": ["a", "b"]}, {"parts": ["test"]}])
def test_what_cannot_be_told_is_absent(make_run: MakeRun, tmp_path: Path, changes: dict[str, Any]) -> None:
    for name in ("one", "two"):
        make_run(name, **{"parts": ["test", "validation"], **changes})
    made = build([tmp_path / "runs"], images=False).report
    assert all(row.at_threshold is None for section in made.sections for row in section.networks)
    assert not any("Threshold" in one.title for block in page.blocks(made, figures=tmp_path) if isinstance(block, Table)
                   for one in block.columns)  # fmt: skip


def test_the_choice_of_settings_is_told_with_what_was_tried(make_run: MakeRun, tmp_path: Path) -> None:
    grid = [{"option": "learning_rate", "values": [0.01, 0.001]}]
    for network, chosen in (("unet", 0.01), ("segnet", 0.001)):
        tried = [{"values": [0.01], "dice": 0.7, "dice_of_seeds": [0.7]}]
        tried.append({"values": [0.001], "dice": None, "dice_of_seeds": [None]})
        for seed in (0, 1):
            make_run(
                network, seed,
                tuning={"grid": grid, "epochs": 5, "seeds": [0], "tried": tried, "chosen": [chosen]},
            )  # fmt: skip
    made = build([tmp_path / "runs"], images=False).report
    assert [(one.network, one.chosen) for one in made.sections[0].tuned] == [
        ("segnet", {"learning_rate": 0.001}),
        ("unet", {"learning_rate": 0.01}),
    ]
    rows = table(page.blocks(made, figures=tmp_path), "Each setting that was tried")
    assert [tuple(row.values()) for row in rows] == [
        ("segnet", "0.01", "0.7000", ""),
        ("segnet", "0.001", "diverged", "yes"),
        ("unet", "0.01", "0.7000", "yes"),
        ("unet", "0.001", "diverged", ""),
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grid": None}, "must have a grid"),
        ({"grid": [3]}, "must have a grid"),
        ({"chosen": []}, "must have chosen, a list of 1 values"),
        ({"tried": None}, "must have tried"),
        ({"tried": [{"values": [1, 2], "dice": 0.5}]}, "must have 1 values in each"),
        ({"tried": [{"values": [1], "dice": "good"}]}, "a dice of 0 to 1"),
        ({"epochs": "five"}, "must have epochs"),
        ({"seeds": 0}, "must have seeds"),
    ],
)
def test_a_choice_of_settings_that_is_none_is_told(
    make_run: MakeRun, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    right = {"grid": [{"option": "learning_rate", "values": [1]}], "tried": [{"values": [1], "dice": 0.5}]}
    make_run("unet")
    make_run("segnet", tuning={**right, "chosen": [1], "epochs": 5, "seeds": [0], **change})
    (unusable,) = build([tmp_path / "runs"], images=False).report.unusable
    assert unusable.reason.startswith("run.json: tuning must have")
    assert words in unusable.reason


def test_all_classes_together_have_a_section_with_the_classes_of_lesions(make_run: MakeRun, tmp_path: Path) -> None:
    confusion = {"low": {"low": 3, "high": 4, "missed": 1}, "nothing": {"low": 5, "high": 6}}
    for name in ("one", "two"):
        run = make_run(name, classes=["low", "high", "lesion"], whole="lesion")
        write_json(run / "run.json", {**read_json(run / "run.json"), "classes": ["low", "high"]})
        file = run / "evaluations" / "neck-test" / "evaluation.json"
        write_json(file, {**read_json(file), "whole": "lesion", "confusion": confusion})
    made = build([tmp_path / "runs"], images=False).report
    assert [section.class_name for section in made.sections] == ["low", "high", "lesion"]
    assert [bool(section.networks[0].confusion) for section in made.sections] == [False, False, True]
    rows = table(page.blocks(made, figures=tmp_path), "one: lesions")
    assert [tuple(row.values()) for row in rows] == [("low", "3", "4", "1"), ("nothing", "5", "6", "–")]
