from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_thyroid.compare import build
from monai_thyroid.compare.reading import comparability, find_runs
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, read_json, write_csv, write_json

MakeRun = Callable[..., Path]


def only_reason(path: Path) -> str:
    runs, unusable = find_runs([path])
    assert not runs
    assert len(unusable) == 1
    return unusable[0].reason


def test_a_run_is_read_from_the_keys_of_the_contract_alone(make_run: MakeRun) -> None:
    path = make_run("unet", 3, images=True)
    (run,), unusable = find_runs([path])
    assert not unusable
    assert (run.path, run.network, run.seed, run.fold, run.dataset) == (path.resolve(), "unet", 3, None, "neck")
    assert run.title == "unet seed 3"
    assert run.best_validation == 0.63
    assert run.grouping == "known"  # its cases have groups, although nothing says so
    assert not run.synthetic
    assert len(run.scored.of_class("nodule")) == 24
    row = run.scored.rows[0]
    raw = read_csv(path / "evaluations" / "neck-test" / "cases.csv")[0]
    assert row["tp"] == int(raw["tp"])
    assert row["dice"] == float(raw["dice"])
    assert row["pred_empty"] is False


def test_runs_are_found_below_a_folder_once_and_sorted(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", 1)
    make_run("unet", 0)
    first = make_run("segnet", 10)
    runs, _ = find_runs([tmp_path / "runs", first])
    assert [run.title for run in runs] == ["segnet seed 10", "unet seed 0", "unet seed 1"]


def test_missing_paths_and_folders_without_a_run_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        find_runs([tmp_path / "empty", tmp_path / "absent"])
    assert len(caught.value.problems) == 2
    assert "no run.json" in caught.value.problems[0]
    assert "no such folder" in caught.value.problems[1]


def test_a_failed_run_says_its_error(make_run: MakeRun) -> None:
    assert only_reason(make_run("unet", status="failed", error="out of memory")) == "the run failed: out of memory"


def test_a_run_that_is_not_complete_is_left_out(make_run: MakeRun) -> None:
    assert "status running" in only_reason(make_run("unet", status="running"))


@pytest.mark.parametrize(("losses", "value"), [((0.5, float("nan")), "nan"), ((0.5, float("inf")), "inf")])
def test_a_run_whose_loss_diverged_is_left_out(make_run: MakeRun, losses: tuple[float, ...], value: str) -> None:
    assert (
        only_reason(make_run("unet", losses=losses)) == f"its train_loss is {value} in epoch 2: the training diverged"
    )


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("history.csv", "history.csv is missing"),
        ("evaluations/neck-test/cases.csv", "cases.csv is missing"),
        ("evaluations/neck-test", "no evaluation neck-test (there is none); run the bundle's evaluate.yaml"),
    ],
)
def test_a_missing_file_is_named(make_run: MakeRun, missing: str, told: str) -> None:
    path = make_run("unet")
    target = path / missing
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink()
    assert told in only_reason(path)


def test_another_part_is_asked_for(make_run: MakeRun) -> None:
    runs, unusable = find_runs([make_run("unet")], part="validation")
    assert not runs
    assert "no evaluation neck-validation (there is neck-test)" in unusable[0].reason
    runs, _ = find_runs([make_run("segnet", parts=["test", "validation"])], part="validation")
    assert runs[0].scored.part == "validation"


def test_a_validation_dice_that_is_not_a_number_is_none(make_run: MakeRun) -> None:
    (run,), _ = find_runs([make_run("unet", val_dice=[None, 0.4, float("nan")])])
    assert run.best_validation == 0.4


@pytest.mark.parametrize("more", [{"seed": "first"}, {"classes": "nodule"}, {"classes": []}])
def test_a_record_of_another_kind_is_no_crash(make_run: MakeRun, more: dict) -> None:
    path = make_run("unet")
    write_json(path / "run.json", {**read_json(path / "run.json"), **more})
    assert next(iter(more)) in only_reason(path)


@pytest.mark.parametrize("text", ["", "[1, 2]", '{"network": "unet"}'])
def test_a_record_that_cannot_be_read_is_no_crash(make_run: MakeRun, text: str) -> None:
    path = make_run("unet")
    (path / "run.json").write_text(text)
    assert "run.json" in only_reason(path)


def change_cases(path: Path, change: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> None:
    file = path / "evaluations" / "neck-test" / "cases.csv"
    rows = read_csv(file)
    write_csv(file, list(rows[0]), change(rows))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: [{**rows[0], "dice": "x"}, *rows[1:]], "dice of case case-00 must be a number, got 'x'"),
        (lambda rows: [{**rows[0], "dice": "0.01"}, *rows[1:]], "dice of case case-00 is 0.01, but its counts give 0."),
        (lambda rows: [{**rows[0], "dice": ""}, *rows[1:]], "dice of case case-00"),
        (lambda rows: [rows[0], *rows], "the case case-00 more than once"),
        (lambda rows: [{**rows[0], "case": "../../a"}, *rows[1:]], "the case ../../a names files outside of the run"),
        (lambda rows: [], "cases.csv has no case"),
        (lambda rows: [{**row, "class": "gland"} for row in rows], "no scores of the class nodule"),
        (lambda rows: [{**row, "error": "unreadable"} for row in rows], "no case of the class nodule could be scored"),
    ],
)
def test_scores_that_cannot_be_used_are_named(make_run: MakeRun, change: Callable, told: str) -> None:
    path = make_run("unet")
    change_cases(path, change)
    assert told in only_reason(path)


def test_a_missing_key_column_is_named(make_run: MakeRun) -> None:
    path = make_run("unet")
    file = path / "evaluations" / "neck-test" / "cases.csv"
    rows = [{key: value for key, value in row.items() if key != "case"} for row in read_csv(file)]
    write_csv(file, list(rows[0]), rows)
    assert "lacks the columns case" in only_reason(path)


def test_scores_without_the_postprocessing_of_the_run_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", postprocessing={"threshold": 0.4, "smallest": 0.0, "fill_holes": False, "largest_only": False})
    _, (unusable,) = find_runs([tmp_path])
    assert "are of other postprocessing than the run's; evaluate" in unusable.reason


def test_a_score_that_an_older_run_lacks_is_not_scored(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("unet")
    file = path / "evaluations" / "neck-test" / "cases.csv"
    rows = [{key: value for key, value in row.items() if key != "hd95"} for row in read_csv(file)]
    write_csv(file, list(rows[0]), rows)
    record = read_json(file.with_name("evaluation.json"))
    del record["policy"]["metrics"]["hd95"]
    write_json(file.with_name("evaluation.json"), record)
    make_run("segnet")
    runs, unusable = find_runs([tmp_path])
    assert not unusable
    assert {run.network: run.scored.rows[0]["hd95"] is None for run in runs} == {"unet": True, "segnet": False}
    assert comparability(runs) == ([], [])


def test_cases_that_are_their_own_groups_are_of_unknown_grouping(make_run: MakeRun) -> None:
    path = make_run("unet")
    change_cases(path, lambda rows: [{**row, "group": row["case"]} for row in rows])
    (run,), _ = find_runs([path])
    assert run.grouping == "unknown"


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("history.csv", lambda text: text.replace("\n", "\n1,", 1), "history.csv: line 2 has 9 values for 8 columns"),
        ("history.csv", lambda text: text.replace("0.3", "1.3"), "val_dice of line 2 must be 0 to 1, got 1.3"),
        ("cases", lambda text: text.replace("case-00", '"case-00', 1), "cases.csv cannot be read"),
        ("cases", lambda text: text[: text.rindex(",")], "values for 29 columns"),
        ("cases", lambda text: text.replace("False", "perhaps", 1), "ref_empty of case case-00 must be true or false"),
    ],
)
def test_files_that_hold_nonsense_are_named(make_run: MakeRun, file: str, change: Callable, told: str) -> None:
    path = make_run("unet")
    target = path / ("evaluations/neck-test/cases.csv" if file == "cases" else file)
    target.write_text(change(target.read_text()))
    assert told in only_reason(path)


def test_all_that_is_wrong_with_a_run_is_in_one_list(make_run: MakeRun) -> None:
    path = make_run("unet", losses=(float("nan"),))
    change_cases(path, lambda rows: [{**rows[0], "dice": "1.5", "tp": "inf"}, {**rows[1], "n_ref": "0.5"}, *rows[2:]])
    reason = only_reason(path)
    for told in (
        "its train_loss is nan in epoch 1",
        "dice of case case-00 must be 0 to 1, got 1.5",
        "tp of case case-00 must be a whole number, got 'inf'",
        "n_ref of case case-01 must be a whole number, got '0.5'",
    ):
        assert told in reason


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"threshold": "0.5"}, "threshold must be a number, got '0.5'"),
        ({"threshold": 1.5}, "threshold must be 0 to 1, got 1.5"),
        ({"status": "finished"}, "status must be one of running, done, failed, got 'finished'"),
        ({"schema_version": 99}, "schema_version 99"),
        ({"seed": True}, "seed must be a whole number, got True"),
    ],
)
def test_a_record_that_holds_nonsense_is_named(make_run: MakeRun, more: dict, told: str) -> None:
    path = make_run("unet")
    write_json(path / "run.json", {**read_json(path / "run.json"), **more})
    assert told in only_reason(path)


def test_the_evaluation_of_the_runs_own_data_is_found_by_their_hash(make_run: MakeRun, tmp_path: Path) -> None:
    """Before, an evaluation of another folder of the same name took the place of the run's own without a word."""
    path = make_run("unet")
    make_run("segnet")
    plain = path / "evaluations" / "neck-test"
    record = read_json(plain / "evaluation.json")
    own_hash = read_json(path / "run.json")["data_hash"]
    shutil.copytree(plain, plain.with_name("neck-test-0000"))
    write_json(plain.with_name("neck-test-0000") / "evaluation.json", {**record, "data_hash": own_hash})
    write_json(plain / "evaluation.json", {**record, "data_hash": "f" * 64})
    runs, _ = find_runs([tmp_path])
    assert [run.scored.name for run in runs] == ["neck-test", "neck-test-0000"]
    assert comparability(runs) == ([], [])
    shutil.rmtree(plain.with_name("neck-test-0000"))
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "different data or splits" in problem
    assert "data_hash ffffffff: unet seed 0" in problem


@pytest.mark.parametrize("name", ["split_seed", "validation_fraction", "phantom_cases", "split_file", "mlflow"])
def test_what_is_no_part_of_the_recipe_is_not_blamed(make_run: MakeRun, tmp_path: Path, name: str) -> None:
    make_run("unet")
    make_run("segnet", protocol="other", settings={"image_size": 128, name: 7})
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "image_size" in problem
    assert name not in problem


def test_scores_of_other_weights_are_not_taken_for_the_runs(make_run: MakeRun) -> None:
    path = make_run("unet")
    file = path / "evaluations" / "neck-test" / "evaluation.json"
    write_json(file, {**read_json(file), "checkpoint_sha256": "0" * 64})
    assert "of other weights" in only_reason(path)


def test_runs_of_one_race_are_comparable(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    make_run("segnet", 1)
    assert comparability(find_runs([tmp_path])[0]) == ([], [])


def test_another_protocol_is_refused_with_the_settings_that_differ(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    make_run("segnet", protocol="other", settings={"image_size": 128, "loss": {"a": 1}}, seed=4)
    fatal, forcible = comparability(find_runs([tmp_path])[0])
    assert not fatal
    (problem,) = forcible
    assert "different protocols" in problem
    assert "image_size (128 / 96)" in problem
    assert "loss (a section of the config)" in problem
    assert "batch_size" not in problem
    assert "network (" not in problem
    assert "seed (" not in problem
    for name in ("unet seed 0", "segnet seed 4"):
        assert name in problem


def test_other_data_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    make_run("segnet", data="other", settings={"dataset_dir": "/data/neck-2"})
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "different data or splits" in problem
    assert "dataset_dir (/data/neck-2 / /data/neck)" in problem


def test_folds_have_data_hashes_of_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        for fold in (0, 1):
            make_run(network, fold=fold, cases=range(12 * fold, 12 * fold + 12))
    assert comparability(find_runs([tmp_path])[0]) == ([], [])
    make_run("resunet", fold=1, data="other", cases=range(12, 24))
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "different data" in problem
    assert "fold 0" not in problem


def test_other_test_cases_are_refused_with_the_difference(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("segnet")
    make_run("unet", cases=range(2, 26))
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "2 only in segnet seed 0 (case-00, case-01)" in problem
    assert "2 only in unet seed 0 (case-24, case-25)" in problem


def test_other_references_under_the_same_names_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("segnet")
    change_cases(make_run("unet"), lambda rows: [{**rows[0], "n_ref": str(int(rows[0]["n_ref"]) + 1)}, *rows[1:]])
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "different references or groups in 1 of 24 cases of the same name (case-00)" in problem


def test_another_scoring_policy_is_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("segnet")
    file = make_run("unet") / "evaluations" / "neck-test" / "evaluation.json"
    record = read_json(file)
    write_json(file, {**record, "policy": {**record["policy"], "nsd_tolerance": 5.0}})
    (problem,) = comparability(find_runs([tmp_path])[0])[1]
    assert "different policies" in problem


def test_what_no_force_can_mend(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    make_run("unet", root="again")
    make_run("segnet", classes=["gland"])
    make_run("resunet", fold=1)
    fatal, _ = comparability(find_runs([tmp_path])[0])
    assert "different classes" in fatal[0]
    assert "some are not" in fatal[1]
    assert "unet seed 0 is there more than once" in fatal[2]
    assert str(tmp_path / "runs") in fatal[2]
    assert str(tmp_path / "again") in fatal[2]


def test_one_name_of_two_networks_is_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    """Same recipe and name, other arguments: seeds of two networks are not seeds of one."""

    def menu(**arguments: Any) -> dict[str, Any]:
        return {"networks": {"unet": {"_target_": "x.Net", "weights": None, "features": [4, 4], **arguments}}}

    for seed, arguments in enumerate([{}, {}, {"features": [8, 8]}]):
        make_run("unet", seed, settings=menu(**arguments))
    make_run("unet", 0, root="runs/pretrained", settings=menu(weights="/a/file.pth"))
    make_run("unet", 1, root="runs/pretrained", settings=menu(weights="/b/file.pth"))
    make_run("segnet", 0, settings=menu(features=[1]))
    section = build([tmp_path / "runs"], images=False).report.sections[0]
    seeds = {
        row.network: sorted(run.seed for run in section.runs if run.network == row.network) for row in section.networks
    }
    assert seeds.pop("segnet") == [0]
    assert all(re.fullmatch(r"unet-[0-9a-f]{8}", name) for name in seeds)
    assert sorted(map(str, seeds.values())) == ["[0, 1]", "[0, 1]", "[2]"]
    (note,) = [note for note in section.notes if "not the same" in note]
    assert "features [8, 8], weights none" in note
    assert "features [4, 4], weights pretrained" in note


def test_values_that_folds_chose_make_no_other_network(make_run: MakeRun, tmp_path: Path) -> None:
    for fold, width in enumerate((4, 8)):
        grid = [{"option": "networks::unet::features", "values": [4, 8]}]
        tried = [{"values": [4], "dice": 0.5}, {"values": [8], "dice": 0.6}]
        tuning = {"grid": grid, "epochs": 5, "seeds": [0], "tried": tried, "chosen": [width]}
        settings = {"networks": {"unet": {"_target_": "x.Net", "features": width}}, "tuning": tuning}
        make_run("unet", fold=fold, settings=settings, tuning=tuning, cases=range(12 * fold, 12 * fold + 12))
    section = build([tmp_path / "runs"], images=False).report.sections[0]
    assert [row.network for row in section.networks] == ["unet"]
