"""What every tutorial needs and none is about: a folder to work in, checked commands, and pictures with outlines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from PIL import Image

from monai_thyroid.drawing import LINES, PREDICTION, REFERENCE, draw_outline

__all__ = ["PREDICTION", "REFERENCE", "REPOSITORY", "begin", "data", "grid", "legend", "mask", "show"]

_HERE = Path(__file__).resolve().parent
REPOSITORY = _HERE.parent


def begin(name: str) -> None:
    """Start anew in ``tutorials/work/<name>``, where ``bundles`` is a copy of the repository's.

    A command after ``!`` then ends the notebook where it fails, instead of going on without what it should have made,
    and takes one thread, which is quicker than two on small images.
    """
    folder = _HERE / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copytree(REPOSITORY / "bundles", folder / "bundles")
    os.chdir(folder)
    os.environ.update(OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", COLUMNS="110")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plt.rcParams.update({
        "figure.dpi": 80, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False,
        "axes.prop_cycle": plt.cycler(color=LINES), "axes.titlesize": 10, "legend.frameon": False,
    })  # fmt: skip
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is not None:
        shell.system = lambda command: _run(shell.var_expand(command, depth=1))


def _run(command: str) -> None:
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-ec", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in done.stdout.splitlines():
        space = " " * (len(line) - len(line.lstrip()) + 2)
        sys.stdout.write(textwrap.fill(line, 100, subsequent_indent=space, replace_whitespace=False) + "\n")
    if done.returncode:
        raise RuntimeError(f"status {done.returncode} of: {command}")


def data(name: str, *, synthetic: str = "scans") -> str:
    """The folder ``$MONAI_THYROID_DATA/<name>`` of real images if that variable is set, else that of synthetic ones."""
    real = os.environ.get("MONAI_THYROID_DATA")
    return str(Path(real).resolve() / name) if real else synthetic


def grid(rows: int, columns: int, *, width: float = 2.6, height: float = 2.1) -> tuple[plt.Figure, np.ndarray]:
    """Axes for pictures, (rows, columns) of them, each of this size in inches."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(columns * width, rows * height), squeeze=False, layout="constrained"
    )
    for one in axes.flat:
        one.axis("off")
    return figure, axes


def mask(path: str | Path) -> np.ndarray:
    """Where a mask file is not 0, (height, width); of JPEG and of grey levels, above the half."""
    grey = np.asarray(Image.open(path).convert("L"))
    return grey > grey.max() / 2 if grey.max() else grey > 0


def show(
    axes: Axes,
    image: str | Path | np.ndarray,
    *,
    reference: np.ndarray | str | Path | None = None,
    prediction: np.ndarray | str | Path | None = None,
    title: str = "",
) -> None:
    """A grey image, the reference in solid orange, the prediction in dashed blue."""
    pixels = image if isinstance(image, np.ndarray) else np.asarray(Image.open(image).convert("L"))
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    for one, colour, style in ((reference, REFERENCE, "solid"), (prediction, PREDICTION, "dashed")):
        if one is not None:
            draw_outline(axes, one if isinstance(one, np.ndarray) else mask(one), colour=colour, style=style, width=1.5)
    axes.set_title(title)


def legend(figure: plt.Figure, names: Sequence[str] = ("reference", "network")) -> None:
    """Say below a figure which line is which."""
    lines = [
        Line2D([], [], color=colour, linestyle=style, linewidth=2, label=name)
        for name, colour, style in zip(names, (REFERENCE, PREDICTION), ("solid", "dashed"), strict=False)
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=len(lines))
