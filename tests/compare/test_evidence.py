"""What a report hands in beside its scores: clinical measures, and a checklist that guesses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_thyroid import cli
from monai_thyroid.compare import build, make_report
from monai_thyroid.compare.checklist import CHECKLISTS, make_checklist
from monai_thyroid.compare.page import blocks
from monai_thyroid.compare.power import Components, detectable
from monai_thyroid.files import read_csv, write_csv, write_json
from monai_thyroid.metrics import limits_of_agreement
from monai_thyroid.pages import markdown
from monai_thyroid.runfolder import MeasureRow
from monai_thyroid.runfolder.schema import RobustnessRow

MakeRun = Callable[..., Path]


def measured(run: Path, seed: int, *, lost: int = 0) -> list[dict[str, object]]:
    """Give a run a measures.csv; of ``lost`` cases nothing could be measured."""
    folder = run / "evaluations" / "neck-test"
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for number, case in enumerate(read_csv(folder / "cases.csv")):
        reference = 150.0 + number
        predicted = None if number < lost else reference + float(rng.normal(1, 2))
        difference = None if predicted is None else predicted - reference
        row: dict[str, object] = {name: case[name] for name in ("dataset", "site", "part", "case", "group", "class")}
        row |= {"measure": "head_circumference", "unit": "mm", "reference": reference, "predicted": predicted}
        row |= {"difference": difference, "absolute_difference": None if difference is None else abs(difference)}
        rows.append({**row, "error": "" if predicted else "the prediction shows nothing that could be measured"})
    write_csv(folder / "measures.csv", MeasureRow.columns(), rows)
    return rows


def test_clinical_measures_are_in_the_report(make_run: MakeRun, tmp_path: Path) -> None:
    rows = measured(make_run("unet"), 0, lost=2)
    make_run("segnet")
    page = make_report([tmp_path / "runs"], output=tmp_path / "report", images=False, checklist="claim")
    (section,) = build([tmp_path / "runs"]).report.sections
    (one,) = section.measured
    kept = rows[2:]
    expected = limits_of_agreement(
        [float(str(row["difference"])) for row in kept], groups=[str(row["group"]) for row in kept]
    )
    assert (one.network, one.unit, one.n_cases, one.n_groups, one.n_failed) == ("unet", "mm", 22, 11, 2)
    assert (one.low.mean, one.high.mean) == pytest.approx((expected.low, expected.high))
    assert (one.low.low, one.low.high) == pytest.approx(expected.low_interval)
    assert one.difference.mean == pytest.approx(np.mean([float(str(row["difference"])) for row in kept]))
    assert list(section.measured_notes) == ["segnet: no head circumference to compare."]
    assert "Clinical measures" in page.read_text("utf-8")
    assert (tmp_path / "report" / "figures" / "agreement.png").is_file()
    assert (tmp_path / "report" / "claim.md").read_text("utf-8").startswith("# CLAIM 2024: neck")


def test_without_measures_the_report_says_nothing_of_them(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    built = build([tmp_path / "runs"])
    (section,) = built.report.sections
    assert not any((section.measured, section.measured_notes, section.degraded, section.degraded_notes))


def test_degraded_scores_without_rows_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    (next(make_run("unet").glob("evaluations/*")) / "robustness.csv").write_text("")
    (section,) = build([tmp_path / "runs"]).report.sections
    assert section.degraded_notes == ["unet: its robustness.csv has no rows; measure it again."]


def degraded(run: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    folder = next(run.glob("evaluations/*"))
    rows = [
        {**row, "degradation": "blur", "strength": strength, "unit": "%"}
        for strength in (0, 1)
        for row in read_csv(folder / "cases.csv")
    ]
    kept = [{name: row.get(name) for name in RobustnessRow.columns()} for row in change(rows)]
    write_csv(folder / "robustness.csv", RobustnessRow.columns(), kept)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [{**row, "dice": ""} for row in rows], "dice of case case-00 is empty; "),
        (lambda rows: [row for row in rows if row["strength"]], "lacks strength 0 of blur"),
        (lambda rows: [*rows, rows[-1]], "has case-05 twice at blur 1"),
    ],
)
def test_degraded_scores_that_cannot_be_used_are_told_in_a_line(
    make_run: MakeRun, tmp_path: Path, change: Any, words: str
) -> None:
    degraded(make_run("unet", cases=range(6)), change)
    section = build([tmp_path / "runs"], images=False).report.sections[0]
    (note,) = section.degraded_notes
    assert words in note
    assert len(note) < 250
    assert not section.degraded


def test_measures_of_which_there_are_none_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    runs = [make_run(name, cases=range(6)) for name in ("segnet", "unet")]
    measured(runs[0], 0, lost=6)
    measured(runs[1], 1)
    file = next(runs[1].glob("evaluations/*")) / "measures.csv"
    write_csv(file, MeasureRow.columns(), [{**row, "predicted": "ten"} for row in read_csv(file)])
    built = build([tmp_path / "runs"], images=False)
    section = built.report.sections[0]
    lost, broken = sorted(section.measured_notes)
    assert lost == "segnet: no head circumference to compare, as none of 6 predictions could be measured."
    assert broken.startswith("unet: measures.csv: predicted of case case-00 must be a number, got 'ten'; ")
    assert any(lost in str(block) for block in blocks(built.report, figures=tmp_path))


def test_scores_that_are_all_alike_end(make_run: MakeRun, tmp_path: Path) -> None:
    """What could have been found has no answer where nothing varies."""
    for name in ("segnet", "unet"):
        make_run(name, cases=range(12), predict=lambda mask, case: mask)
    assert build([tmp_path / "runs"], images=False, metric="hd95").report.sections[0].outlook is None
    assert detectable(Components(0.0, 0.0, 0.0, "none"), networks=2, seeds=2, groups=30) is None


def filled(runs: Path) -> list[str]:
    built = build([runs])
    return markdown(make_checklist("claim", built.report, built.analyses)).splitlines()


def test_the_checklist_answers_what_runs_say_and_nothing_else(make_run: MakeRun, tmp_path: Path) -> None:
    kept = {"split": "test: official part", "grouping": "known", "versions": {"torch": "2.13.0"}, "pretrained_on": []}
    for network in ("unet", "segnet"):
        run = make_run(network, **kept)
        write_json(run / "split.json", {"parts": {"test": {"cases": ["a", "b"], "groups": ["p"], "sites": [""]}}})
    lines = filled(tmp_path / "runs")
    items = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and line[2].isdigit()]
    assert [int(item[0]) for item in items] == list(range(1, 45))
    answers = {int(item[0]): item[2] for item in items}
    sources = {int(item[0]): item[3].strip() for item in items if len(item) > 3}
    for number in (2, 3, 4, 5, 6, 8, 10, 11, 13, 14, 15, 16, 17, 18, 31, 34, 41, 44):
        assert answers[number].strip() == "for the author"
    assert answers[9].startswith("for the author")  # these configs name no transforms
    part = " (in part; the rest is for the author)"
    assert answers[33] == f"None of these runs was scored on another dataset{part}"
    assert answers[21].startswith("24 cases (12 groups) of the part “test”. With 2 networks, 1 seed each, and 12 g")
    assert answers[19] == f"test: official part{part}"
    assert answers[23] == "torch 2.13.0"
    assert "2 images (1 group)" in answers[35]
    assert "not pretrained" in answers[24]
    assert "image\\_size" not in answers[22]
    assert "input of 96 pixels" in answers[22]
    # A network's name is no description of it, a few constants are no recipe, one part is not all of them.
    # Nor is what CLAIM asks besides answered: why several models were tested, which level the groups are of, how the
    # weights were drawn at random, how the test differs from the training.
    for number in (20, 21, 22, 24, 25, 26, 32, 37):
        assert answers[number].endswith(part)
    assert answers[38].startswith("Asked of classification, which this is not.")
    assert "paraphrased" in "\n".join(lines)
    assert "against the paper" in "\n".join(lines)
    for number, answer in answers.items():
        assert answer.strip() == "for the author" or any(file in sources[number] for file in (".json", ".csv", ".yaml"))


def test_the_checklist_tells_recipe_and_grid_of_the_training(make_run: MakeRun, tmp_path: Path) -> None:
    record = {"grid": [{"option": "learning_rate", "values": [0.001, 0.01]}], "epochs": 2, "seeds": [0]}
    tried = [{"values": [0.001], "dice": 0.5}, {"values": [0.01], "dice": None}]
    recipe = {
        "loss": {"_target_": "DiceCELoss", "sigmoid": True},
        "augmentation": [{"_target_": "RandFlipd"}, {"_target_": "monai.transforms.RandAffined"}],
    }
    for network in ("unet", "segnet"):
        make_run(network, settings=recipe, tuning={**record, "tried": tried, "chosen": [0.001]})
    (item,) = (line for line in filled(tmp_path / "runs") if line.startswith("| 25 "))
    told = (
        "loss DiceCELoss; augmentation RandFlipd > RandAffined; ",
        "learning_rate varied over 0.001, 0.01 and chosen on validation (segnet: 0.001; unet: 0.001)",
        "tuning",
    )
    assert all(one in item.replace("\\_", "_").replace("\\>", ">") for one in told), item


def test_what_a_record_leaves_out_is_not_answered_from_it(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        make_run(network, grouping=None, parent_sha256=None, pretrained_on=None)
    items = {line[2:4]: line for line in filled(tmp_path / "runs") if line.startswith("| ")}
    assert "where it is left out, cases.csv: group" in items["20"]
    assert "no other run's weights recorded" in items["24"]
    assert ".." not in items["29"]


def test_of_masks_no_training_is_told(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("nnunet", scored_from="masks", checkpoint_sha256=None, protocol_hash=None)
    (run / "history.csv").unlink()
    lines = filled(tmp_path / "runs")
    answers = {line.split(" | ")[0].strip("| "): line.split(" | ")[2] for line in lines if line.startswith("| ")}
    for number in ("1", "9", "22", "23", "24", "25", "26", "43"):
        assert answers[number] == "for the author", number


def test_a_checklist_that_is_not_known_writes_nothing(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("unet")
    arguments = ["report", str(tmp_path / "runs"), "--output", str(tmp_path / "report"), "--checklist", "stard"]
    assert cli.main([*arguments, "--metric", "beauty"]) == 1
    told = capsys.readouterr().err
    assert "--checklist stard: choose one of claim" in told
    assert "--metric beauty" in told
    assert not (tmp_path / "report").exists()
    assert list(CHECKLISTS) == ["claim"]
