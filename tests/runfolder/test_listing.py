"""Many runs as a list: what is told of each, and that none is too broken to be listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.files import is_locked, locked, write_json
from monai_thyroid.metrics import METRICS
from monai_thyroid.runfolder import list_runs, runs_table, sorted_runs

HISTORY = "stage,epoch,lr,train_loss,val_loss,val_dice,val_iou,seconds"


def made(folder: Path, *, epochs: int = 2, dice: float | None = 0.75, misses: int = 1, **changes: Any) -> Path:
    """A run folder of what a list reads."""
    record = {
        **{"bundle": "thyroid", "dataset": "neck", "network": "unet", "seed": 0, "classes": ["nodule"]},
        **{"status": "done", "images_per_second": 12.5, "started": "2026-11-20T10:00:00+0000", "epochs": epochs},
    }
    folder.mkdir(parents=True)
    write_json(folder / "run.json", record | changes)
    config = {"schema_version": 2, "max_epochs": 40, "first": 5, "train": {"trainer": {"max_epochs": "@max_epochs"}}}
    config["warm_up"] = {"trainer": {"max_epochs": "@first"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [f"1,{epoch},0.1,0.5,0.5,{epoch / 10},,1" for epoch in range(1, epochs + 1)]
    (folder / "history.csv").write_text("\n".join([HISTORY, *lines]) + "\n")
    if dice is not None:
        scored = folder / "evaluations" / "neck-test"
        scored.mkdir(parents=True)
        classes = {"nodule": {"dice_mean": dice, "n_misses": misses}}
        write_json(scored / "evaluation.json", {"dataset": "neck", "part": "test", "classes": classes})
    return folder


def test_what_is_told_of_a_run(tmp_path: Path) -> None:
    made(tmp_path / "a" / "seed-3", seed=3, fold=1)
    (one,) = list_runs([tmp_path])
    assert one.as_dict() == {
        **{"path": str(tmp_path / "a" / "seed-3"), "kind": "run", "members": None, "note": "", "bundle": "thyroid"},
        **{"network": "unet", "dataset": "neck", "seed": 3, "fold": 1, "status": "done", "epoch": 2, "epochs": 2},
        **{"dice": 0.75, "misses": 1, "validation": 0.2, "images_per_second": 12.5},
        "started": "2026-11-20T10:00:00+0000",
    }
    header, line = runs_table([one], start=tmp_path).splitlines()
    assert header.split()[:7] == ["network", "data", "seed", "fold", "status", "Dice", "misses"]
    assert line.split() == "unet neck 3 1 done 0.7500 1 0.2000 12.5 2026-11-20 10:00 a/seed-3".split()


def test_all_classes_together_are_none_beside_the_others(tmp_path: Path) -> None:
    run = made(tmp_path / "run", classes=["low", "high"])
    classes = {
        "low": {"dice_mean": 0.2, "n_misses": 3},
        "high": {"dice_mean": 0.4, "n_misses": 1},
        "lesion": {"dice_mean": 0.9, "n_misses": 2},
    }
    about = {"dataset": "neck", "part": "test", "classes": classes, "whole": "lesion"}
    write_json(run / "evaluations" / "neck-test" / "evaluation.json", about)
    (one,) = list_runs([run])
    assert one.dice == pytest.approx(0.3)
    assert one.misses == 4


def test_runs_are_listed_by_data_by_dice_and_by_date(tmp_path: Path) -> None:
    made(tmp_path / "1", network="unet", dice=0.5, started="2026-11-22T10:00:00+0000")
    made(tmp_path / "2", network="segnet", seed=10, dice=0.9)
    made(tmp_path / "3", network="segnet", seed=2, dice=None, started=None)
    found = list_runs([tmp_path, tmp_path / "1"])
    assert [Path(one.path).name for one in found] == ["3", "2", "1"]
    assert [Path(one.path).name for one in sorted_runs(found, "dice")] == ["2", "1", "3"]
    assert [Path(one.path).name for one in sorted_runs(found, "date")] == ["1", "2", "3"]


def test_a_running_one_says_how_far_it_is_and_whether_anybody_works_there(tmp_path: Path) -> None:
    run = made(tmp_path / "run", status="running", dice=None, epochs=7)
    with locked(run):
        (one,) = list_runs([run])
    assert (one.told, one.epoch, one.epochs, one.note) == ("running 7/45", 7, 45, "")
    (one,) = list_runs([run])
    assert one.told == "running 7/45"
    assert "no process of this machine works there" in one.note
    assert not is_locked(run)


def test_what_is_broken_is_listed_last_with_its_reason(tmp_path: Path) -> None:
    made(tmp_path / "sound", network="zunet")
    made(tmp_path / "failed", status="failed", error="the disk is full", dice=None)
    made(tmp_path / "lacking", dataset=None)
    (made(tmp_path / "no-json") / "run.json").write_text("{")
    (made(tmp_path / "cleared") / "run.json").unlink()
    (made(tmp_path / "newer", schema_version=99) / "history.csv").write_bytes(b"\xff\x00")
    other = made(tmp_path / "scores")
    (other / "evaluations" / "neck-test" / "evaluation.json").write_text("[]")
    stale = made(tmp_path / "stale", checkpoint_sha256="b" * 64)
    scored = {"dataset": "neck", "part": "test", "checkpoint_sha256": "a" * 64}
    write_json(stale / "evaluations" / "neck-test" / "evaluation.json", scored)
    found = {Path(one.path).name: one for one in list_runs([tmp_path])}
    assert {name: one.status for name, one in found.items() if one.status != "done"} == {
        **{"failed": "failed", "lacking": "broken", "no-json": "broken", "cleared": "broken", "newer": "broken"},
    }
    assert list(found)[-4:] == ["cleared", "newer", "no-json", "lacking"]
    assert found["failed"].note == "the disk is full"
    assert found["lacking"].note == "run.json lacks dataset"
    assert found["no-json"].note.startswith("run.json: cannot be read")
    assert "no run.json" in found["cleared"].note
    assert "schema_version 99" in found["newer"].note
    assert (found["scores"].dice, found["stale"].dice) == (None, None)
    assert "does not hold an object" in found["scores"].note
    assert "other weights" in found["stale"].note
    assert runs_table(list(found.values())).splitlines()[-1].startswith(f"{tmp_path}/lacking: ")


def test_a_line_is_a_run_whatever_it_holds(tmp_path: Path) -> None:
    made(
        tmp_path / "a\nb",
        network="u\x1b[31mnet\r",
        dataset="neck" * 99,
        status="failed",
        error="first\n\x1b]0;title\x07second",
    )
    text = runs_table(list_runs([tmp_path]), start=tmp_path)
    assert [char for char in text.replace("\n", "") if not char.isprintable()] == []
    assert len(text.splitlines()) == 3
    assert max(map(len, text.splitlines())) < 200
    assert text.endswith("a b: first ?]0;title?second")


def test_scores_come_from_the_cases_where_no_summary_is_there(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    scored = run / "evaluations" / "neck-test"
    (scored / "evaluation.json").unlink()
    names = ["dataset", "part", "case", "class", "tp", "fp", "fn", "tn", "n_ref", "n_pred", "n_matched", *METRICS]
    rows = []
    for case, (tp, fn) in enumerate([(4, 0), (0, 4)]):
        values = dict.fromkeys(METRICS, 1 if tp else 0) | {"specificity": 1, "accuracy": (96 + tp) / 100}
        counts = {"tp": tp, "fp": 0, "fn": fn, "tn": 96, "n_ref": 1, "n_pred": bool(tp), "n_matched": bool(tp)}
        row = {"dataset": "neck", "part": "test", "case": case, "class": "nodule", **counts, **values}
        rows.append(",".join(str(int(row[name]) if row[name] in (True, False) else row[name]) for name in names))
    (scored / "cases.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    (one,) = list_runs([run])
    assert (one.dice, one.misses, one.note) == (0.5, 1, "")


def test_what_is_inside_of_a_run_or_packed_bundle_is_not_listed_for_itself(tmp_path: Path) -> None:
    packed = tmp_path / "dist" / "two"
    for number in (1, 2):
        made(packed / "models" / "members" / str(number))
    made(packed / "run", dice=None, seed=None, network="ensemble", epochs=0, test={"dice_mean": 0.8})
    write_json(packed / "run" / "members.json", ["a" * 64, "b" * 64])
    (packed / "configs").mkdir()
    write_json(packed / "configs" / "metadata.json", {})
    made(tmp_path / ".hidden" / "run")
    (one,) = list_runs([tmp_path])
    assert (one.path, one.kind, one.told, one.dice) == (str(packed), "ensemble", "packed, 2 members", 0.8)
    (packed / "run" / "run.json").unlink()
    (one,) = list_runs([tmp_path])
    assert one.status == "broken"
    assert "no run/run.json" in one.note


def test_folders_without_a_run_are_named_all_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError) as caught:
        list_runs([tmp_path / "empty", tmp_path / "absent"])
    assert [problem.split(": ")[1][:12] for problem in caught.value.problems] == ["no run in it", "there is no "]


def test_the_command_lists_runs_without_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "run")
    assert cli.main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("  run")
    program = (
        "import sys; from monai_thyroid.cli import main; status = main(sys.argv[1:]); "
        "assert not {'torch', 'monai', 'scipy', 'matplotlib'} & set(sys.modules); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "runs", str(tmp_path), "--json", "--sort", "dice"],
        **{"capture_output": True, "text": True, "check": False, "timeout": 60, "env": {**os.environ}},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)[0]["dice"] == 0.75
