"""Execute tutorials, and keep what they show: ``python tutorials/execute.py [NAME ...]`` writes ``tutorials/*.ipynb``.

Each tutorial is written as text, ``<name>.py``, in jupytext's percent format; the notebook of the same name is made
from it, and never edited.
"""

from __future__ import annotations

import base64
import functools
import io
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
from nbclient import NotebookClient
from PIL import Image

from monai_thyroid.drawing import CLASSES, LINES, rgb

HERE = Path(__file__).resolve().parent
TUTORIALS = sorted(HERE.glob("[0-9]_*.py"))
_PLACES = re.compile(rf"(file://)?{re.escape(str(HERE))}/work/\w+/?")


def executed(path: Path) -> nbformat.NotebookNode:
    """The notebook of a tutorial with what its cells show.

    Args:
        path: of its text.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    notebook = jupytext.read(path)
    notebook.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "file_extension": ".py"},
    }
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    NotebookClient(
        notebook, timeout=None, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(HERE)}}
    ).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"{path.stem[0]}-{number}"  # the same each time, so that a difference is one
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.text = _PLACES.sub("", output.text)
            elif "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
    return notebook


def _smaller(png: str) -> str:
    """A picture in base64, of greys and of shades of the figures' own colours, which is all that it has."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))
    colours, where = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    distances = ((colours[:, None].astype(int) - _palette()) ** 2).sum(axis=2)
    picture = Image.fromarray(distances.argmin(axis=1).astype(np.uint8)[where].reshape(pixels.shape[:2]))
    picture.putpalette(_palette().astype(np.uint8).tobytes())
    written = io.BytesIO()
    picture.save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


@functools.cache
def _palette() -> np.ndarray:
    """(n, 3): 64 greys, and each colour mixed with white and with black."""
    greys = np.round(np.linspace(0, 255, 64))[:, None].repeat(3, axis=1)
    own = np.array([rgb(colour) for colour in sorted({*LINES, *CLASSES} - {"#000000"})])
    light = [255 - share * (255 - own) for share in (1, 0.85, 0.7, 0.55, 0.4, 0.25, 0.12)]
    dark = [share * own for share in (0.8, 0.6, 0.4, 0.2)]
    return np.round(np.concatenate([greys, *light, *dark])).astype(int)


def main() -> None:
    """Execute those that are named, or all."""
    names = sys.argv[1:] or [path.stem for path in TUTORIALS]
    for path in TUTORIALS:
        if any(path.stem.startswith(name) for name in names):
            nbformat.write(executed(path), path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
