"""The one exception for what the user can mend, and the asking for optional packages."""

from __future__ import annotations

import copy
import errno
import math
import os
import pickle
import subprocess
import sys

import pytest
import torch

from monai_thyroid.errors import UserError, message_of, optional


def test_one_problem_or_several_are_all_in_the_message() -> None:
    assert UserError("a").problems == ["a"]
    several = UserError(problem for problem in ("a", "b"))
    assert several.problems == ["a", "b"]
    assert str(several) == "a\nb"


@pytest.mark.parametrize("problems", ["one", ["a", "b"]])
def test_it_passes_between_processes(problems: str | list[str]) -> None:
    error = UserError(problems)
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is UserError
        assert again.problems == error.problems
        assert str(again) == str(error)


def test_a_package_that_is_there_is_given() -> None:
    assert optional("math", extra="test") is math


def test_a_package_that_is_not_names_the_extra() -> None:
    with pytest.raises(UserError, match=r'"no_such_package_here".*pip install "monai_thyroid\[web\]"') as caught:
        optional("no_such_package_here.part", extra="web")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_that_is_broken_is_not_called_missing(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "broken_package_here.py").write_text("raise RuntimeError('built for another machine')")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(RuntimeError, match="another machine"):
        optional("broken_package_here", extra="web")


def wrapped(error: Exception) -> Exception:
    """As MONAI gives what an expression of a config has raised."""
    try:
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("Failed to evaluate ConfigExpression") from cause
    except RuntimeError as outer:
        return outer


def full_disk(name: str | None = None) -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError(["a", "b"]), "a\nb"),
        (KeyboardInterrupt(), "stopped"),
        (full_disk("runs/run.json"), "runs/run.json: the disk is full; free some space and start again"),
        (full_disk(), "the disk is full; free some space and start again"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the memory does not suffice (CUDA"),
    ],
)
def test_what_is_told_of_an_exception(error: BaseException, message: str) -> None:
    assert (message_of(error) or "").startswith(message)
    if isinstance(error, Exception):
        assert (message_of(wrapped(wrapped(error))) or "").startswith(message)


@pytest.mark.parametrize("error", [ValueError("x"), wrapped(KeyError("x")), OSError("no number"), RuntimeError("x")])
def test_a_fault_of_the_program_has_no_message(error: Exception) -> None:
    assert message_of(error) is None


def test_what_was_raised_while_a_file_failed_is_told_as_that() -> None:
    """As torch does, which ends its archive after the disk is full and fails again."""
    error = RuntimeError("unexpected pos 1024 vs 918")
    error.__context__ = full_disk("last.pt")
    assert (message_of(error) or "").startswith("last.pt: the disk is full")


class Broken(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        raise UserError(["x.png: cannot be read", "y.png: neither"])


def test_a_mistake_in_a_worker_comes_without_its_traceback() -> None:
    with pytest.raises(UserError) as caught:
        list(torch.utils.data.DataLoader(Broken(), num_workers=1))
    assert "Traceback" in str(caught.value)
    assert message_of(caught.value) == "x.png: cannot be read\ny.png: neither"


@pytest.mark.parametrize(
    ("statement", "told", "traceback"),
    [("raise RuntimeError from UserError('a mistake')", "a mistake", False), ("1 / 0", "ZeroDivisionError", True)],
)
def test_an_exception_that_ends_the_process_is_told(statement: str, told: str, traceback: bool) -> None:
    program = f"from monai_thyroid.errors import UserError, tell_on_exit; tell_on_exit(); {statement}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert told in done.stderr
    assert ("Traceback" in done.stderr) is traceback
