"""What happens to a training is in its run.json and in one message: a full disk, a signal, files that were cut off."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fuzz import World

from monai_thyroid.data import load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_json
from monai_thyroid.training.recorder import Recorder, save
from monai_thyroid.training.session import TrainingSession


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        **{"bundle": "thyroid", "output_dir": str(tmp_path / "runs"), "network": "unet", "seed": 0},
        **{"classes": ["nodule"], "activation": "sigmoid", "threshold": 0.5, "device": "cpu", "precision": "float32"},
        **{"resume": False, "overwrite": False, "init_from": None, "networks": {"unet": {}}},
    }


def session(world: World, config: dict[str, Any], **options: Any) -> TrainingSession:
    return TrainingSession({**config, **options}, load_datalist(str(world.scans), layout="tn3k"))


@pytest.fixture
def begun(world: World, config: dict[str, Any]) -> TrainingSession:
    """A training that was killed after its folder was made."""
    made = session(world, config)
    made.path.mkdir(parents=True)
    made._open()
    return made


@pytest.fixture
def execute(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Executes a session whose training is replaced by a function."""

    def run(made: TrainingSession, training: Any) -> None:
        monkeypatch.setattr(Recorder, "of", staticmethod(lambda trainer: SimpleNamespace(stage=1)))
        monkeypatch.setattr(made, "_announce", training)
        made.execute(object(), test=None, scores=None)  # type: ignore[arg-type]

    return run


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_of_a_save_is_interrupted(
    world: World, config: dict[str, Any], execute: Any, stop: signal.Signals
) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def save_meanwhile() -> None:
        try:
            os.kill(os.getpid(), stop)
            signal.sigtimedwait([], 1)
        except KeyboardInterrupt:
            raise RuntimeError("unexpected pos 64 vs 0") from None  # as torch makes of it

    made = session(world, config)
    try:
        with pytest.raises(KeyboardInterrupt):
            execute(made, save_meanwhile)
    finally:
        signal.signal(signal.SIGINT, before)
    record = read_json(made.path / "run.json")
    assert (record["status"], record["error"]) == ("failed", "interrupted")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_full_disk_is_named_in_run_json(world: World, config: dict[str, Any], execute: Any) -> None:
    made = session(world, config)

    def fill() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(made.path / "model.pt"))

    with pytest.raises(OSError, match="No space"):
        execute(made, fill)
    record = read_json(made.path / "run.json")
    assert record["status"] == "failed"
    assert record["error"] == f"{made.path / 'model.pt'}: the disk is full; free some space and start again"


def test_a_disk_that_stays_full_hides_nothing(
    world: World, config: dict[str, Any], execute: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = session(world, config)

    def fill() -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        save({"a": torch.zeros(1)}, made.path / "model.pt")

    with pytest.raises(OSError, match="No space") as caught:
        execute(made, fill)
    assert caught.value.filename == str(made.path / "model.pt")
    monkeypatch.undo()
    assert read_json(made.path / "run.json")["status"] == "running"
    assert sorted(path.name for path in made.path.iterdir()) == ["config.yaml", "run.json", "split.json"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", "a list"])
def test_a_state_that_was_cut_off_is_a_failed_run(
    begun: TrainingSession, world: World, config: dict[str, Any], content: bytes | str
) -> None:
    last = begun.path / "last.pt"
    if isinstance(content, bytes):
        last.write_bytes(content)
    else:
        torch.save([1], last)
    with pytest.raises(UserError, match=r"last\.pt: .*--overwrite true starts anew"):
        session(world, config, resume=True)._open()
    record = read_json(begun.path / "run.json")
    assert record["status"] == "failed"
    assert "last.pt" in record["error"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"status": 5}', "\0"])
def test_an_unreadable_run_json_is_told_and_can_be_overwritten(
    begun: TrainingSession, world: World, config: dict[str, Any], content: str
) -> None:
    path = begun.path / "run.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        session(world, config, resume=True)._open()
    assert "run.json" in str(caught.value)
    assert caught.value.problems[-1].endswith("--overwrite true starts anew")
    assert path.read_text() == content
    session(world, config, overwrite=True)._open()
    assert read_json(path)["status"] == "running"


@pytest.mark.parametrize("name", ["../../x", "a/b", "", ".", "..", ".hidden", "a\\b", "a\nb", "x" * 101, "-x", 5, "e."])
@pytest.mark.parametrize("constant", ["bundle", "network", "classes"])
def test_names_that_become_files_stay_in_their_folder(constant: str, name: Any) -> None:
    from monai_thyroid.training.constants import CONSTANTS

    with pytest.raises(UserError):
        CONSTANTS[constant]([name] if constant == "classes" else name)


@pytest.mark.parametrize("name", ["thyroid", "mobilenet_v2", "Schilddrüse", "left lung", "mine-2.1", "nodule (benign)"])
def test_names_as_people_give_them_are_fine(name: str) -> None:
    from monai_thyroid.training.constants import CONSTANTS

    assert CONSTANTS["bundle"](name) == name
    assert CONSTANTS["classes"]([name]) == [name]


def test_two_classes_of_one_name_are_refused() -> None:
    from monai_thyroid.training.constants import CONSTANTS

    with pytest.raises(UserError, match="nodule is there twice"):
        CONSTANTS["classes"](["nodule", "gland", "nodule"])
