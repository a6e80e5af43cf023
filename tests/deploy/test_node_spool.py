"""The spool, the work and the delivery: no moment at which an end could lose or repeat anything."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_node import FolderPacs, encoded, instance, result_uid, stand_in

from monai_thyroid.deploy.node.delivery import Delivery
from monai_thyroid.deploy.node.spool import Spool, SpoolFullError, key_of
from monai_thyroid.deploy.node.worker import work_off
from monai_thyroid.errors import UserError

MODEL = "ab" * 32
DATASETS = [instance(number) for number in range(2)]
CONTENTS = {key_of(each.SOPInstanceUID): encoded(each) for each in DATASETS}
RESULTS = sorted(result_uid(each.SOPInstanceUID) for each in DATASETS)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", model=MODEL)


def delivery(spool: Spool, pacs: FolderPacs) -> Delivery:
    made = Delivery(spool, pacs, first=0.01, longest=0.05)
    pacs.reported = made.reported
    return made


def deliver(spool: Spool, pacs: FolderPacs) -> None:
    """Rounds until there is nothing to do."""
    made = delivery(spool, pacs)
    while not made._round():
        pass


def whole_way(folder: Path, pacs: FolderPacs) -> None:
    """All that happens to two instances, by one process; what was acknowledged is not sent again."""
    os.fsync = lambda descriptor: None  # a kill is no power cut, and this takes most of the time
    spool = Spool(folder / "spool", model=MODEL)
    spool._table.execute("PRAGMA synchronous=OFF")
    spool.recover()
    acknowledged = folder / "acknowledged"
    for key, content in CONTENTS.items():
        if key not in (acknowledged.read_text() if acknowledged.exists() else ""):
            if not spool.knows(key):
                spool.add(key, content)
            with open(acknowledged, "a") as file:
                file.write(f"{key}\n")
    for key in spool.waiting():
        work_off(spool, stand_in, key)
    deliver(spool, pacs)
    spool.close()


def forked(work: Callable[[], None]) -> int:
    """Do something in a process of its own; returns how it ended."""
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException:
            logging.exception("in the fork")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(step: int) -> None:
    """Let this process kill itself at its n-th change of the disk."""
    left = [step]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)

        return call

    for name in ("replace", "rename", "unlink", "mkdir", "rmdir", "open"):
        setattr(os, name, counted(getattr(os, name)))


@pytest.mark.parametrize("commits", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_killed_at_every_step_nothing_is_lost_or_repeated(tmp_path: Path, commits: bool) -> None:
    step, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        folder = tmp_path / str(step)
        folder.mkdir()
        pacs = FolderPacs(folder)
        pacs.commits = commits

        def dying(step: int = step, folder: Path = folder, pacs: FolderPacs = pacs) -> None:
            kill_at(step)
            whole_way(folder, pacs)

        ended = forked(dying)
        # Twice: the second end comes in the middle of clearing up.
        if step % 3 == 0:
            forked(lambda folder=folder, pacs=pacs: (kill_at(6), whole_way(folder, pacs)))  # type: ignore[misc]
        assert forked(lambda folder=folder, pacs=pacs: whole_way(folder, pacs)) == 0  # type: ignore[misc]
        stored = Counter(pacs.stored())
        assert sorted(stored) == RESULTS, step
        spool = Spool(folder / "spool", model=MODEL)
        counts = spool.counts()
        assert (counts.done, counts.received) == (2, 2), step
        for each in (spool.incoming, spool.outgoing, spool.sent, spool.failed):
            assert not list(each.iterdir()), (step, each)
        spool.close()
        shutil.rmtree(folder)
        step += 1 if commits else 5
    assert ended == 0
    assert step > 10


def test_an_instance_is_on_the_disk_before_it_is_acknowledged(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    happened = []
    sync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        happened.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name.partition('-')[0]}")
        sync(descriptor)

    def replaced(old: Any, new: Any) -> None:
        happened.append(f"rename to {Path(new).suffix}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    key, content = next(iter(CONTENTS.items()))
    spool.add(key, content)
    assert happened == ["sync .partial", "rename to .dcm", "sync incoming"]
    assert spool.path(key).read_bytes() == content


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_takes_nothing_and_leaves_nothing(spool: Spool, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def full(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpoolFullError, match="disk is full"):
        spool.add("a" * 24, b"content")
    assert not list(spool.incoming.iterdir())


def test_there_is_a_limit_on_what_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", model=MODEL, max_queue=2)
    spool.add("a" * 24, b"one")
    spool.add("b" * 24, b"two")
    with pytest.raises(SpoolFullError, match="2 instances are on their way"):
        spool.add("c" * 24, b"three")
    spool.path("a" * 24).unlink()
    spool.add("c" * 24, b"three")


def test_the_disk_is_not_filled_to_the_brim(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", model=MODEL, min_free=1 << 60)
    with pytest.raises(SpoolFullError, match="are free"):
        spool.add("a" * 24, b"one")


def test_what_cannot_be_written_for_want_of_room_waits(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key, content = next(iter(CONTENTS.items()))
    spool.add(key, content)
    monkeypatch.setattr("monai_thyroid.deploy.node.worker.time.sleep", lambda seconds: None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        work_off(spool, stand_in, key)
    assert spool.waiting() == [key]
    assert not list(spool.outgoing.iterdir())
    assert not list(spool.failed.iterdir())
    work_off(spool, stand_in, key)
    assert spool.to_send() == [spool.name_of(key)]


def test_what_cannot_be_segmented_is_kept_with_the_reason(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    broken = instance(7)
    del broken.PixelData
    key = key_of(broken.SOPInstanceUID)
    spool.add(key, encoded(broken))
    work_off(spool, stand_in, key)
    assert (spool.failed / f"{key}.txt").read_text() == "a DICOM object without pixels\n"
    assert (spool.failed / f"{key}.dcm").is_file()
    assert not spool.waiting()
    assert "failed: a DICOM object without pixels" in caplog.text
    # It is tried again when it comes again.
    assert not spool.knows(key)
    spool.add(key, encoded(broken))
    assert not list(spool.failed.iterdir())


@pytest.mark.parametrize("reworded", [False, True])
def test_what_a_library_says_of_a_patient_is_not_logged(
    spool: Spool, caplog: pytest.LogCaptureFixture, reworded: bool
) -> None:
    def quoting(path: Path) -> Any:
        try:
            raise ValueError("PatientName SECRET^PATIENT is no number")
        except ValueError as error:
            if reworded:
                raise UserError(f"{path}: cannot be read ({error})") from error
            raise

    key, content = next(iter(CONTENTS.items()))
    spool.add(key, content)
    work_off(spool, quoting, key)
    assert "ValueError" in caplog.text
    assert "SECRET" not in caplog.text
    assert "SECRET" in (spool.failed / f"{key}.txt").read_text()


def test_what_ends_the_process_three_times_is_put_aside(spool: Spool) -> None:
    def crashing(path: Path) -> Any:
        os._exit(9)

    key, content = next(iter(CONTENTS.items()))
    spool.add(key, content)
    for _ in range(3):
        assert forked(lambda: work_off(Spool(spool.folder, model=MODEL), crashing, key)) == 9
    work_off(spool, crashing, key)
    assert "3 times" in (spool.failed / f"{key}.txt").read_text()


def test_other_weights_are_other_work(spool: Spool, tmp_path: Path) -> None:
    key, content = next(iter(CONTENTS.items()))
    pacs = FolderPacs(tmp_path)
    spool.add(key, content)
    work_off(spool, stand_in, key)
    deliver(spool, pacs)
    assert spool.knows(key)
    assert not Spool(spool.folder, model="cd" * 32).knows(key)


def test_results_by_other_weights_do_not_replace_what_waits(spool: Spool) -> None:
    key, content = next(iter(CONTENTS.items()))
    spool.add(key, content)
    work_off(spool, stand_in, key)
    other = Spool(spool.folder, model="cd" * 32)
    other.add(key, content)
    Spool(spool.folder).recover()  # as a node does that does not know its weights yet
    assert other.waiting() == [key]
    work_off(other, stand_in, key)
    assert sorted(other.to_send()) == [f"{key}-abababab", f"{key}-cdcdcdcd"]
    spool.path(key).write_bytes(content)  # what a kill after the last step but one leaves
    work_off(spool, lambda path: pytest.fail("segmented again"), key)
    assert not spool.waiting()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="not of a node"):
        Spool(tmp_path, model=MODEL)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def segmented(spool: Spool) -> list[str]:
    for key, content in CONTENTS.items():
        spool.add(key, content)
        work_off(spool, stand_in, key)
    return spool.to_send()


def test_while_the_pacs_is_down_everything_stays(spool: Spool, tmp_path: Path) -> None:
    names = segmented(spool)
    pacs = FolderPacs(tmp_path)
    pacs.down = True
    made = delivery(spool, pacs)
    made.start()
    while made.trouble is None:
        pass
    assert spool.to_send() == names
    pacs.down = False
    while spool.counts().done < 2:
        pass
    made.stop()
    assert made.trouble is None
    assert sorted(pacs.stored()) == RESULTS


def test_results_are_kept_until_the_pacs_says_that_it_keeps_them(spool: Spool, tmp_path: Path) -> None:
    names = segmented(spool)
    pacs = FolderPacs(tmp_path)
    made = delivery(spool, pacs)
    asked = []
    pacs.confirm = lambda jobs, transaction: bool(asked.append((jobs, transaction)) or True)  # type: ignore[method-assign]
    made._round()
    assert spool.to_confirm() == names
    assert made._round(), "asked once"
    ((jobs, transaction),) = asked
    assert not made.reported("1.2.3", {each.sop_instance for job in jobs for each in job.results}), "not asked for"
    assert made.reported(transaction, {jobs[0].results[0].sop_instance})
    made._heed()
    # One is safe; the other one is sent again.
    assert spool.counts().done == 1
    assert spool.to_send() == [jobs[1].name]
    assert not spool.to_confirm()


def test_a_pacs_that_does_not_answer_is_asked_again(spool: Spool, tmp_path: Path) -> None:
    segmented(spool)
    pacs = FolderPacs(tmp_path)
    made = Delivery(spool, pacs, patience=0)
    asked = []
    pacs.confirm = lambda jobs, transaction: bool(asked.append(transaction) or True)  # type: ignore[method-assign]
    for _ in range(3):
        made._round()
    assert len(set(asked)) == 3
    assert len(pacs.stored()) == 2, "nothing is sent twice"


def test_what_the_pacs_declines_does_not_hold_up_the_rest(spool: Spool, tmp_path: Path) -> None:
    segmented(spool)
    pacs = FolderPacs(tmp_path)
    pacs.declines = {RESULTS[0]}
    made = delivery(spool, pacs)
    made.start()
    while spool.counts().failed < 1:
        pass
    made.stop()
    assert spool.counts().done == 1
    assert pacs.stored() == [RESULTS[1]]
    (reason,) = (path.read_text() for path in spool.failed.glob("*.txt"))
    assert reason == "the PACS refuses it with status A900, 5 times\n"
    assert len(list(spool.failed.glob("*/1.dcm"))) == 1


def test_a_table_that_cannot_be_written_loses_nothing(spool: Spool, tmp_path: Path) -> None:
    segmented(spool)
    pacs = FolderPacs(tmp_path)
    other = sqlite3.connect(spool.folder / "done.sqlite", isolation_level=None)
    spool._table.execute("PRAGMA busy_timeout = 10")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(OSError, match="locked"):
        delivery(spool, pacs)._round()
    other.execute("ROLLBACK")
    deliver(spool, pacs)
    assert spool.counts().done == 2
    assert sorted(pacs.stored()) == RESULTS


def test_numbers_are_those_of_what_is_done(spool: Spool, tmp_path: Path) -> None:
    segmented(spool)
    deliver(spool, FolderPacs(tmp_path))
    counts = spool.counts()
    assert (counts.received, counts.done, counts.images, counts.empty_rate) == (2, 2, 2, 0)
    assert (counts.area_px, counts.area_mm2, counts.agreement) == (100, 25, 0.9)
    assert counts.recent == {"empty_rate": 0, "area_px": 100, "area_mm2": 25, "agreement": 0.9}
    assert 0 < counts.seconds < 10
