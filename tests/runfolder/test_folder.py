"""The run folder's files: the history survives interruptions, and one process at a time writes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import yaml

from monai_thyroid.errors import UserError
from monai_thyroid.files import locked
from monai_thyroid.runfolder import HistoryRow, RunFolder, dataset_path, read_history, read_run
from monai_thyroid.runfolder.folder import write_yaml
from monai_thyroid.runfolder.schema import HISTORY_COLUMNS


def row(epoch: int, *, stage: int = 1, dice: float | None = 0.5) -> HistoryRow:
    values = dict.fromkeys(HISTORY_COLUMNS, 0.25)
    return HistoryRow(**{**values, "stage": stage, "epoch": epoch, "val_dice": dice})


def test_the_history_grows_by_lines(tmp_path: Path) -> None:
    folder, path = RunFolder(tmp_path), tmp_path / "history.csv"
    for epoch in (1, 2, 3):
        folder.append(row(epoch, dice=None if epoch == 2 else 1 / 3))
    lines = path.read_text().splitlines()
    assert lines[0] == "stage,epoch,lr,train_loss,val_loss,val_dice,val_iou,seconds"
    assert len(lines) == 4
    history = folder.history()
    assert [one.epoch for one in history] == [1, 2, 3]
    assert [one.val_dice for one in history] == [1 / 3, None, 1 / 3]


@pytest.mark.parametrize("kept", [0, 1, 2, 3, 9])
def test_the_history_is_trimmed_to_an_epoch(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "history.csv"
    for epoch in (1, 2, 3):
        RunFolder(path.parent).append(row(epoch))
    before = path.read_text().splitlines()
    RunFolder(path.parent).trim(stage=1, epoch=kept)
    assert path.read_text().splitlines() == before[: 1 + min(kept, 3)]
    RunFolder(path.parent).append(row(kept + 1))
    assert [one.epoch for one in read_history(path)] == [*range(1, min(kept, 3) + 1), kept + 1]


def test_earlier_stages_stay_and_later_ones_go(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for stage, epoch in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1)):
        RunFolder(path.parent).append(row(epoch, stage=stage))
    RunFolder(path.parent).trim(stage=2, epoch=1)
    assert [(one.stage, one.epoch) for one in read_history(path)] == [(1, 1), (1, 2), (2, 1)]


def test_a_line_cut_anywhere_is_dropped(tmp_path: Path) -> None:
    whole = tmp_path / "whole" / "history.csv"
    whole.parent.mkdir()
    for epoch in (1, 2, 3):
        RunFolder(whole.parent).append(row(epoch))
    content = whole.read_bytes()
    end_of_second = len(content) - len(content.splitlines(keepends=True)[-1])
    path = tmp_path / "history.csv"
    for length in range(end_of_second, len(content) + 1):
        path.write_bytes(content[:length])
        RunFolder(path.parent).trim(stage=1, epoch=2)
        assert path.read_bytes() == content[:end_of_second]


def test_a_header_that_is_cut_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    for content in ("", "stage,ep", "\0" * 40, ",".join(HISTORY_COLUMNS)):
        path.write_text(content)
        RunFolder(path.parent).trim(stage=1, epoch=0)
        RunFolder(path.parent).append(row(1))
        assert [one.epoch for one in read_history(path)] == [1]


def test_a_tail_of_zeros_after_a_power_failure_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    RunFolder(path.parent).append(row(1))
    before = path.read_bytes()
    path.write_bytes(before + b"\0" * 64)
    RunFolder(path.parent).trim(stage=1, epoch=1)
    assert path.read_bytes() == before


def test_without_a_history_there_is_nothing_to_trim(tmp_path: Path) -> None:
    RunFolder(tmp_path).trim(stage=1, epoch=3)
    assert list(tmp_path.iterdir()) == []


def test_only_run_folders_are_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="not a run folder"):
            read_run(path)
    (tmp_path / "run.json").write_text('{"status": ')
    with pytest.raises(UserError, match=r"run\.json: cannot be read, or is not valid JSON"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{"status": "done"}')
    record = read_run(tmp_path)
    assert record.status == record["status"] == "done"
    assert record.network is None


def test_yaml_keeps_order_and_language(tmp_path: Path) -> None:
    content = {"z": 1, "a": ["ä", None, 1e-4], "expression": "$@a + 1"}
    write_yaml(tmp_path / "a.yaml", content)
    read = yaml.safe_load((tmp_path / "a.yaml").read_text("utf-8"))
    assert read == content
    assert list(read) == list(content)
    assert "ä" in (tmp_path / "a.yaml").read_text("utf-8")


def test_clearing_takes_what_a_run_left_and_nothing_else(tmp_path: Path) -> None:
    names = ("config.yaml", "split.json", "run.json", "history.csv", "model.pt", "last.pt", "notes.txt")
    for name in names:
        (tmp_path / name).write_text("x")
    for folder in ("evaluations/phantom-test", "figures", "tensorboard"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "x").write_text("x")
    RunFolder(tmp_path).clear()
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    RunFolder(tmp_path).clear()


def test_a_dataset_is_looked_for_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "recorded").mkdir()
    (tmp_path / "given").mkdir()
    recorded, given, gone = (str(tmp_path / name) for name in ("recorded", "given", "gone"))
    assert dataset_path(tmp_path, given, recorded) == recorded
    assert dataset_path(tmp_path, given, gone) == given
    assert dataset_path(tmp_path, "phantom", None) == "phantom"
    with pytest.raises(UserError, match="--dataset_dir") as caught:
        dataset_path(tmp_path, gone + "2", gone)
    assert gone in str(caught.value)


# --- the lock ---


def test_another_process_is_refused_until_the_first_one_dies(tmp_path: Path) -> None:
    ready, told = os.pipe()
    holder = os.fork()
    if holder == 0:
        with locked(tmp_path):
            os.write(told, b"held")
            time.sleep(30)
        os._exit(0)
    try:
        assert os.read(ready, 4) == b"held"
        with pytest.raises(UserError, match="another process"), locked(tmp_path):
            pytest.fail("two processes hold one folder")
    finally:
        os.kill(holder, signal.SIGKILL)
        os.waitpid(holder, 0)
        os.close(ready)
        os.close(told)
    with locked(tmp_path):
        pass


def test_the_lock_goes_with_the_block_also_when_it_fails(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"), locked(tmp_path):
            raise RuntimeError("broken")
    with locked(tmp_path), pytest.raises(UserError, match="another process"), locked(tmp_path):
        pytest.fail("held twice")
    with locked(tmp_path):
        assert list(tmp_path.iterdir()) == []


def test_two_folders_do_not_exclude_each_other(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with locked(tmp_path / "a"), locked(tmp_path / "b"), pytest.raises(UserError), locked(tmp_path / "b"):
        pytest.fail("held twice")
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        pass


def test_loader_processes_that_outlive_a_killed_training_do_not_hold_its_lock(tmp_path: Path) -> None:
    ready, told = os.pipe()
    trainer = os.fork()
    if trainer == 0:  # a training with one loader process
        with locked(tmp_path):
            loader = os.fork()
            if loader == 0:
                time.sleep(30)
                os._exit(0)
            os.write(told, f"{loader}\n".encode())
            time.sleep(30)
        os._exit(0)
    loader = int(os.read(ready, 20))
    try:
        with pytest.raises(UserError, match="another process"), locked(tmp_path):
            pytest.fail("the training holds it")
        os.kill(trainer, signal.SIGKILL)
        os.waitpid(trainer, 0)
        os.kill(loader, 0)  # still there
        with locked(tmp_path):
            pass
    finally:
        os.kill(loader, signal.SIGKILL)
        os.close(ready)
        os.close(told)


def test_a_forked_process_does_not_give_up_its_parents_lock(tmp_path: Path) -> None:
    with locked(tmp_path):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                with locked(tmp_path):
                    pass
            except UserError:
                status = 0
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with pytest.raises(UserError), locked(tmp_path):
            pytest.fail("the child let it go")
