"""An environment for MONAI Label, which cannot share one with the rest of this package's optional ones."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from monai_thyroid.errors import UserError

__all__ = ["REQUIREMENTS", "TORCH", "check_installed", "make_environment"]

TORCH = "torch==2.13.0"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_PYTHONS = ((3, 11), (3, 12))
"""MONAI Label imports ``cgi``, which 3.13 has no more; pinned packages have no wheels for 3.10."""
_RUN = """#!{python}
import sys

from monai_thyroid.cli import main

sys.exit(main())
"""


def check_installed() -> None:
    """Make sure that MONAI Label is installed where this runs.

    Raises:
        UserError: it is not; says how to get it.
    """
    if importlib.util.find_spec("monailabel") is None:
        raise UserError(
            "MONAI Label is not installed here, and needs an environment of its own: monai-thyroid label --make-env "
            "DIR; then start DIR/bin/monai-thyroid label ..."
        )


def make_environment(folder: str | Path) -> Path:
    """Make an environment with MONAI Label and this package, as it is installed here; its ``monai-thyroid``.

    Args:
        folder: new or empty, or an environment of an earlier call, which is brought to what is asked for now.

    Raises:
        UserError: this Python is none that MONAI Label runs on, the folder holds something else, or pip fails.
    """
    path = Path(folder).expanduser().absolute()
    if sys.version_info[:2] not in _PYTHONS:
        raise UserError(f"Python {sys.version_info[0]}.{sys.version_info[1]}: MONAI Label runs on 3.11 and 3.12")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; give a new folder")
    if path.is_dir() and any(path.iterdir()) and not (path / "pyvenv.cfg").is_file():
        raise UserError(f"{path}: holds something else; give a folder that is new or empty")
    python = path / "bin" / "python"
    _run([sys.executable, "-m", "venv", str(path)], "the environment cannot be made")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, TORCH], f"{TORCH} cannot be installed")
    _run([*pip, "--no-deps", "-r", str(REQUIREMENTS)], "MONAI Label cannot be installed")
    _install_this(path, python, pip)
    return path / "bin" / "monai-thyroid"


def _install_this(path: Path, python: Path, pip: list[str]) -> None:
    """This package as it is here: from its sources where it runs from them, else a copy of what is installed."""
    package = Path(__file__).resolve().parents[2]
    root = package.parent
    if (root / "pyproject.toml").is_file():
        _run([*pip, "--no-deps", "-e", str(root)], "monai_thyroid cannot be installed")
        return
    found = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    target = Path(found.stdout.strip())
    try:
        parts = {Path(str(file)).parts[0] for file in distribution("monai_thyroid").files or []}
    except PackageNotFoundError:
        parts = set()
    for name in {package.name, *(part for part in parts if part.endswith(".dist-info"))}:
        shutil.rmtree(target / name, ignore_errors=True)
        shutil.copytree(root / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = path / "bin" / "monai-thyroid"
    script.write_text(_RUN.format(python=python), encoding="utf-8")
    script.chmod(0o755)


def _run(command: list[str], otherwise: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise UserError(f"{otherwise}: {' '.join(lines[-3:]) or f'status {done.returncode}'}")
