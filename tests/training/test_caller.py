"""Who is asking is read from the call stack, in one place."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from monai_thyroid.errors import UserError
from monai_thyroid.training.caller import Caller, calling_workflow, on_command_line

CONFIG = """
imports:
- $import monai_thyroid.training.caller as caller
- $seen = []
size: 3
nested: {part: [1, 2]}
again: $caller.calling_workflow()
initialize:
- $seen.append(caller.calling_workflow())
- $seen.append(@again)
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(
        CONFIG.replace("$seen = []", "$import collected_callers").replace("seen.", "collected_callers.seen.")
    )
    monkeypatch.setitem(sys.modules, "collected_callers", SimpleNamespace(seen=[]))
    return path


def seen() -> list[Caller]:
    return sys.modules["collected_callers"].seen  # type: ignore[attr-defined]


def test_the_overrides_of_a_workflow_are_those_that_were_given(config: Path) -> None:
    overrides = {"size": 4, "nested::part::0": 5, "surprise": "x"}
    workflow = create_workflow(config_file=str(config), workflow_type="train", logging_file=False, **overrides)
    assert len(seen()) == 2
    for caller in seen():
        assert caller.parser is workflow.parser
        assert caller.overrides == overrides
        assert caller.config_files == (str(config),)
        assert caller.parser["size"] == 4


def test_no_override_is_an_empty_dictionary(config: Path) -> None:
    create_workflow(config_file=[str(config)])
    assert seen()[0].overrides == {}
    assert seen()[0].config_files == (str(config),)


def test_the_arguments_in_a_file_count_as_given(config: Path, tmp_path: Path) -> None:
    (tmp_path / "arguments.yaml").write_text(f"config_file: {config}\nsize: 7\n")
    create_workflow(args_file=str(tmp_path / "arguments.yaml"), surprise=1)
    assert seen()[0].overrides == {"size": 7, "surprise": 1}
    assert seen()[0].config_files == (str(config),)


def test_a_workflow_that_was_made_by_hand_does_not_tell(config: Path) -> None:
    workflow = ConfigWorkflow(config_file=str(config), logging_file=False, size=4)
    workflow.initialize()
    assert seen()[0] == Caller(workflow.parser, None, ())


def test_a_parser_alone_is_found(config: Path) -> None:
    parser = ConfigParser(ConfigParser.load_config_file(str(config)))
    caller = parser.get_parsed_content("again")
    assert caller == Caller(parser, None, ())


def test_the_nearest_of_two_parsers_is_the_caller() -> None:
    inner = ConfigParser({"imports": ["$import monai_thyroid.training.caller as c"], "who": "$c.calling_workflow()"})
    outer = ConfigParser({"inner": inner, "answer": "$@inner.get_parsed_content('who')"})
    assert outer.get_parsed_content("answer").parser is inner


def test_outside_of_a_config_it_is_refused() -> None:
    with pytest.raises(UserError, match="only be used from a bundle's config"):
        calling_workflow()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("monai.bundle.__main__", True),
        ("monai_thyroid.__main__", True),
        ("pytest.__main__", False),
        ("monai.apps.__main__", False),
        (None, False),
    ],
)
def test_a_command_is_known_by_its_main_module(
    monkeypatch: pytest.MonkeyPatch, name: str | None, expected: bool
) -> None:
    main = SimpleNamespace(__spec__=None if name is None else ModuleSpec(name, None))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert on_command_line() is expected


def test_a_test_is_no_command() -> None:
    assert not on_command_line()
