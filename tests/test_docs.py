"""The documentation is true: its Python examples print what it shows, and its pages are found and linked."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```\n)?", re.DOTALL)
PAGES = [path for path in sorted((ROOT / "docs").glob("*.md")) if "\n```text\n" in path.read_text("utf-8")]


def with_outputs(text: str) -> str:
    """A page with the output below each of its Python blocks that has one made anew."""
    names: dict[str, object] = {}

    def made(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(found[1], "example", "exec"), names)
        shown = "" if found[2] is None else f"\n```text\n{printed.getvalue()}```\n"
        return f"```python\n{found[1]}```\n{shown}"

    return BLOCK.sub(made, text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_print_what_the_page_shows(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = page.read_text("utf-8")
    assert with_outputs(text) == text, "python tests/test_docs.py"


def test_there_are_such_pages() -> None:
    assert {"scoring.md", "statistics.md"} <= {page.name for page in PAGES}


def test_links_lead_to_files() -> None:
    """The slow test below follows them all; the site has no page for a folder."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("bundles/*/*.md")]
    wrong = []
    for page in pages:
        text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL)
        links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
        wrong += [(page.name, link) for link in links if link and not (page.parent / link).is_file()]
    assert wrong == []


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_nobody(tmp_path: Path) -> None:
    """Every link within the repository is followed: one that leads nowhere is a warning."""
    words = [
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        str(tmp_path / "trees"),
        "-c",
        "docs",
        ".",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {f"docs/{path.stem}.html" for path in (ROOT / "docs").glob("*.md")} <= pages
    assert "docs/api/metrics.html" in pages
    text = (tmp_path / "site" / "docs" / "api" / "metrics.html").read_text("utf-8")
    assert "monai_thyroid.metrics.ScoringPolicy" in text
    assert "boundary distance that counts as agreement for nsd" in text
    for page in pages:
        asked = re.findall(
            r'<(?:script|img|link|iframe)[^>]* (?:src|href)="(https?:[^"]*)',
            (tmp_path / "site" / page).read_text("utf-8"),
        )
        assert asked == [], page


if __name__ == "__main__":
    os.chdir(ROOT)
    for one in PAGES:
        one.write_text(with_outputs(one.read_text("utf-8")), encoding="utf-8")
