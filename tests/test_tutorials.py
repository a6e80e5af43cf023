"""The tutorials run, and the notebooks that are kept are theirs."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import jupytext
import nbformat
import pytest

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"
TEXTS = sorted(TUTORIALS.glob("[0-9]_*.py"))


def shown(notebook: nbformat.NotebookNode) -> str:
    """All that its cells show as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    parts = [output.get("text", "") for output in outputs]
    return "\n".join(parts + [text for one in outputs for kind, text in one.get("data", {}).items() if "text" in kind])


def test_there_are_seven_and_the_readme_links_them(root: Path) -> None:
    assert [path.stem[0] for path in TEXTS] == list("1234567")
    readme = (root / "README.md").read_text()
    assert [path.name for path in TEXTS if f"(tutorials/{path.stem}.ipynb)" not in readme] == []


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_the_notebook_is_its_text_executed(path: Path) -> None:
    kept = path.with_suffix(".ipynb")
    assert kept.stat().st_size < 400_000
    notebook, text = nbformat.read(kept, as_version=4), jupytext.read(path)
    nbformat.validate(notebook)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in text.cells
    ], f"python tutorials/execute.py {path.stem[0]}"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    pictures = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    assert pictures
    seen = shown(notebook)
    assert not [
        word for word in ("/work/", "/tmp/", "/home/", "UserWarning", "FutureWarning", "site-packages") if word in seen
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_it_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MONAI_THYROID_DATA", raising=False)  # on synthetic scans
    shown(runpy.run_path(str(TUTORIALS / "execute.py"))["executed"](path))
    (place,) = re.findall(r'^desk\.begin\("(\w+)"\)$', path.read_text(), re.MULTILINE)
    records = [json.loads(run.read_text()) for run in (TUTORIALS / "work" / place).glob("**/run.json")]
    trained = [record for record in records if record.get("threshold_baseline")]
    assert trained
    # A figure of a network that has learned nothing tells nothing; of one tutorial that is what one is for.
    for record in (record for record in trained if record["network"] != "shallow"):
        assert record["test"]["dice_mean"] > record["threshold_baseline"]["test_dice"] + 0.1
