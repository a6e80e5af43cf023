"""What a version is called, what CONTRIBUTING promises, and that an installed wheel works away from the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import monai_thyroid
from monai_thyroid.bundles import SHIPPED
from monai_thyroid.compare import figures
from monai_thyroid.data import layouts
from monai_thyroid.networks.menu import CONFIGS
from monai_thyroid.runfolder import read_run


def test_the_version_is_the_same_everywhere(root: Path) -> None:
    project = (root / "pyproject.toml").read_text("utf-8")
    citation = yaml.safe_load((root / "CITATION.cff").read_text("utf-8"))
    changes = (root / "CHANGELOG.md").read_text("utf-8")
    (heading,) = re.findall(r"^## (\S+) \((.*)\)$", changes, re.MULTILINE)[:1]
    assert re.search(r'^version = "(.*)"$', project, re.MULTILINE)[1] == monai_thyroid.__version__
    assert citation["version"] == heading[0] == monai_thyroid.__version__
    assert str(citation["date-released"]) == heading[1]


def test_the_hooks_are_the_tools_of_the_test_environment(root: Path) -> None:
    config = yaml.safe_load((root / ".pre-commit-config.yaml").read_text("utf-8"))
    (local,) = config["repos"]
    assert local["repo"] == "local"
    assert {hook["entry"].split()[0] for hook in local["hooks"]} == {"ruff", "mypy"}
    assert all(hook["language"] == "system" for hook in local["hooks"])


# --- CONTRIBUTING ---


@pytest.fixture(scope="module")
def contributing(root: Path) -> str:
    return (root / "CONTRIBUTING.md").read_text("utf-8")


def test_every_file_that_contributing_names_is_there(root: Path, contributing: str) -> None:
    named = re.findall(r"`([^`\s]+)`", re.sub(r"```.*?```", "", contributing, flags=re.DOTALL))
    paths = [name for name in named if "NAME" not in name and ("/" in name or re.search(r"\.(py|md|toml|cff)$", name))]
    assert len(paths) > 20
    assert [path for path in paths if not (root / path).exists()] == []
    modules = re.findall(r"python -m (monai_thyroid[\w.]+)", contributing)
    missing = [name for name in modules if not (root / name.replace(".", "/")).with_suffix(".py").is_file()]
    assert [name for name in missing if not (root / name.replace(".", "/") / "__main__.py").is_file()] == []
    assert [
        file for file in re.findall(r"python ((?:docs|benchmarks)\S+\.py)", contributing) if not (root / file).is_file()
    ] == []


def test_every_network_is_where_contributing_says(root: Path) -> None:
    tests = "".join(path.read_text("utf-8") for path in (root / "tests" / "networks").glob("test_*.py"))
    overfit = (root / "tests" / "networks" / "test_overfit.py").read_text("utf-8")
    table = (root / "docs" / "networks.md").read_text("utf-8")
    readme = (root / "README.md").read_text("utf-8")
    for name in CONFIGS:
        assert f'name = "{name}"' in tests, f"{name}: no subclass of NetworkContract"
        assert f'"{name}":' in overfit, name
        assert f"| {name} |" in table, f"{name}: monai-thyroid networks --output docs/networks.md"
        assert f"`{name}`" in readme, name


def test_a_layout_is_a_file(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (root / "monai_thyroid" / "data" / "layouts" / "ddti.py").read_text("utf-8")
    (tmp_path / "another_one.py").write_text(source.replace('name="ddti"', 'name="another_one"'))
    monkeypatch.setattr(layouts, "__path__", [*layouts.__path__, str(tmp_path)])
    assert set(layouts._collect()) - set(layouts.LAYOUTS) == {"another_one"}
    monkeypatch.delitem(sys.modules, "monai_thyroid.data.layouts.another_one")


def test_every_figure_is_drawn_and_tested(root: Path) -> None:
    drawn = "".join(
        (root / "monai_thyroid" / "compare" / f"{name}.py").read_text() for name in ("pictures", "planning")
    )
    tested = (root / "tests" / "compare" / "test_comparison_figures.py").read_text("utf-8")
    functions = [name for name in figures.__all__ if name.islower()]
    assert [name for name in functions if f"figures.{name}" not in drawn] == []
    assert [name for name in functions if f"figures.{name}" not in tested] == []


def test_every_bundle_is_where_contributing_says(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    for name in SHIPPED:
        assert (root / "monai_thyroid" / "bundles" / "recipes" / f"{name}.md").is_file(), name
        assert f"[{name}](bundles/{name}/README.md)" in readme


# --- the wheel ---


@pytest.fixture(scope="module")
def installed(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, installed into a folder of its own; what it needs is that of the environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves files
    shutil.copytree(root / "monai_thyroid", source / "monai_thyroid", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, source)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run(build, check=True, timeout=200)
    (wheel,) = folder.glob("*.whl")
    site = folder / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-compile", "--target", str(site), str(wheel)], check=True, timeout=200
    )
    return site


def run(site: Path, folder: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_wheel_trains_a_copied_bundle(installed: Path, tmp_path: Path, root: Path) -> None:
    where = run(installed, tmp_path, "-c", "import monai_thyroid; print(monai_thyroid.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    run(installed, tmp_path, "-m", "monai_thyroid", "bundles", "--copy", "thyroid", "mine")
    run(installed, tmp_path, "-m", "monai_thyroid", "bundles", "--copy", "networks", "more")
    assert {path.name for path in (tmp_path / "more").iterdir()} >= {"encoders.yaml", "monai.yaml"}
    copied, shipped = tmp_path / "mine", root / "bundles" / "thyroid"
    assert {path.name for path in copied.iterdir()} == {path.name for path in shipped.iterdir()}
    for path in copied.iterdir():
        assert path.read_text().replace("mine/", "bundles/thyroid/") == shipped_text(shipped / path.name), path.name
    options = ["--config_file", "mine/train_course.yaml", "--image_size", "32", "--max_epochs", "1"]
    tiny = ["--networks::unet::features", "[4,4,8,8,8,4]", "--phantom_cases", "10", "--device", "cpu"]
    run(installed, tmp_path, "-m", "monai.bundle", "run", *options, *tiny, "--output_dir", "runs")
    (record,) = (tmp_path / "runs").rglob("run.json")
    assert read_run(record.parent).status == "done"
    assert json.loads((copied / "metadata.json").read_text())["name"]


def shipped_text(path: Path) -> str:
    """As it stands away from the repository, where pages of the documentation have no link."""
    return re.sub(r"\[([\w/.]+)\]\(\.\./\.\./[^)]*\)", r"\1 of monai_thyroid's repository", path.read_text("utf-8"))
