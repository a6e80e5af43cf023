"""Execute tutorials, and keep what they show: ``python tutorials/execute.py [NAME ...]`` writes ``tutorials/*.ipynb``.

Each tutorial is written as text, ``<name>.py``, in jupytext's percent format; the notebook of the same name is made
from it, and never edited.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from PIL import Image

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
        notebook, timeout=600, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(HERE)}}
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
    """A picture in base64, of 96 colours, which speckle and curves do with."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    written = io.BytesIO()
    picture.quantize(96, dither=Image.Dither.NONE).save(written, "png", optimize=True)
    return base64.b64encode(written.getvalue()).decode()


def main() -> None:
    """Execute those that are named, or all."""
    names = sys.argv[1:] or [path.stem for path in TUTORIALS]
    for path in TUTORIALS:
        if any(path.stem.startswith(name) for name in names):
            nbformat.write(executed(path), path.with_suffix(".ipynb"))


if __name__ == "__main__":
    main()
