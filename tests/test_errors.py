"""The one exception for what the user can mend, and the asking for optional packages."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from monai_thyroid.errors import UserError, optional


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
