"""Every promise of docs/reliability.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


def promises(root: Path) -> list[tuple[str, list[str]]]:
    lines = (root / "docs" / "reliability.md").read_text("utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("| ") and "held by" not in line]
    return [(row[0].strip(), re.findall(r"`(tests/[^`]+)`", row[1])) for row in rows]


def test_every_promise_is_held_by_a_test(root: Path) -> None:
    found = promises(root)
    assert len(found) > 15
    for sentence, tests in found:
        assert tests, sentence
        for test in tests:
            file, _, name = test.partition("::")
            assert (root / file).is_file(), test
            tree = ast.parse((root / file).read_text("utf-8"))
            assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, test


@pytest.mark.parametrize("page", ["docs/reliability.md", "SECURITY.md"])
def test_what_the_pages_link_to_is_there(root: Path, page: str) -> None:
    text = (root / page).read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert ((root / page).parent / target).exists(), target


def test_security_names_every_component_that_is_left_out(root: Path) -> None:
    from monai_thyroid.evaluation.components import component

    text = (root / "SECURITY.md").read_text("utf-8")
    for name in ("Lambdad", "TorchVisiond", "TorchIOd", "CuCIMd", "LoadImaged", "SaveImaged", "WriteFileMappingd"):
        assert component(f"monai.transforms.{name}") is None
        assert re.sub("d$", "", name) in text
    for name in ("Transchex", "TorchVisionFCModel", "NetAdapter"):
        assert component(f"monai.networks.nets.{name}") is None
        assert name in text
