"""docs/results.md is what its script makes of the kept scores, and of run folders that it is given."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from made_runs import maker

from monai_thyroid.bundles import SHIPPED
from monai_thyroid.errors import UserError


@pytest.fixture(scope="module")
def results(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("results", root / "benchmarks" / "results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def text(results: ModuleType) -> str:
    return str(results.page())


def test_the_page_is_what_the_script_makes(results: ModuleType, text: str) -> None:
    assert results.PAGE.read_text("utf-8") == text, "python benchmarks/results.py"


def test_every_bundle_has_its_place_and_every_table_says_what_it_is(root: Path, results: ModuleType, text: str) -> None:
    assert set(results.ORDER) == set(SHIPPED)
    for name in SHIPPED:
        book = json.loads((results.KEPT / name / "results.json").read_text("utf-8"))
        assert f"\n## {book['title']}\n" in text
        anchor = book["title"].lower().replace(" ", "-")
        assert f"docs/results.md#{anchor})" in (root / "bundles" / name / "README.md").read_text("utf-8")
        for one in book["results"]:
            for key in ("data", "split", "protocol", "machine", "date", "command"):
                assert one[key], f"{name}: {one['title']} does not say its {key}"


def test_figures_that_were_published_before_come_out_again(text: str) -> None:
    """Of docs/performance.md and the comparison, made by other code from the same cases."""
    (strong,) = re.findall(r"\| `resnet34_unet` \| 0, 1, 2 \| 120 .*", text)
    assert "| **0.858** [0.825, 0.888] | 0.858 (0.856, 0.860, 0.856) |" in strong
    leaky = re.findall(r"\| `unet`, \*\*frames: leaky\*\* .*", text)
    assert "| 0.821 | 2 of 143 |" in leaky[0]
    assert "| 0.855 | 0.715 |" in leaky[1]
    assert "| `unet` | +2.0 mm | 3.2 mm | -7.9 to +11.9 mm | 0 of 81 |" in text


@pytest.fixture
def kept(results: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what is kept, which the script reads."""
    folder = shutil.copytree(results.KEPT, tmp_path / "results")
    monkeypatch.setattr(results, "KEPT", folder)
    return folder


def problems_of(results: ModuleType) -> list[str]:
    with pytest.raises(UserError) as told:
        results.page()
    return [problem.partition("results/")[2] for problem in told.value.problems]


def test_a_table_that_nothing_names_is_told(results: ModuleType, kept: Path) -> None:
    (kept / "lung" / "unet-128-seed-0-shenzhen.csv").rename(kept / "lung" / "other.csv")
    (kept / "mine").mkdir()
    assert problems_of(results) == [
        "lung/other.csv: named by no results.json",
        "lung/unet-128-seed-0-shenzhen.csv: named by results.json, but not there",
        "mine: neither a bundle's, nor told of by a page or a benchmark",
    ]


def test_a_table_that_is_cut_off_or_of_other_cases_is_told(results: ModuleType, kept: Path) -> None:
    (kept / "lung" / "results.json").write_text("{")
    empty = kept / "nerve" / "unet-128-seed-0.csv"
    empty.write_text(empty.read_text().partition("\n")[0] + "\n")
    short = kept / "polyp" / "resnet34_unet-256-strong-seed-1.csv"
    short.write_text(short.read_text().rstrip().rpartition("\n")[0] + "\n")
    assert problems_of(results) == [
        "lung/results.json: is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        "nerve/unet-128-seed-0.csv: holds no case",
        "polyp/resnet34_unet-256-strong-seed-1.csv: other cases than those of another seed",
    ]


def test_runs_that_are_given_are_added(results: ModuleType, text: str, tmp_path: Path) -> None:
    make: Callable[..., Any] = maker(tmp_path)
    for network, quality in (("unet", 0.7), ("segnet", 0.8)):
        for seed in (0, 1):
            make(network, quality=quality, seed=seed)
    with_runs = results.page([str(tmp_path)])
    added = with_runs.removeprefix(text.rstrip())
    assert added != with_runs
    assert re.search(r"## Further runs: \w+", added)
    rows = [row.split(" | ")[:2] for row in re.findall(r"\| (`.*)", added)]
    assert rows[:2] == [["`segnet`", "0, 1"], ["`unet`", "0, 1"]]
    assert [name for name, _ in rows[2:]] == ["`segnet`", "`unet`"]
