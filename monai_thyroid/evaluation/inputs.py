"""Which images are to be segmented, and that their results replace nothing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from monai_thyroid.data import map_files
from monai_thyroid.errors import UserError
from monai_thyroid.images import IMAGE_SUFFIXES, is_image, made_here, mask_suffix, read_raster, stem

__all__ = ["input_items"]

logger = logging.getLogger(__name__)

RESULTS = ("_mask", "_overlay")
"""How the names of masks and of overlays end, before the suffix."""


def input_items(source: str | None, *, output_dir: str | None = None) -> list[dict[str, str]]:
    """The images of a file or of a folder (not of its subfolders), as items to infer; every one can be read.

    In a folder what is named like a mask or an overlay, or is one that this package has written, is left out with a
    warning. A single file is taken whatever its name, unless this package has written it.

    Args:
        source: the file or the folder.
        output_dir: where results will be written; None where nothing will be.

    Raises:
        UserError: nothing is there, two files would have the same result file, some cannot be read, results would lie
            among the images or replace what this package has not written; lists all.
    """
    if not source:
        raise UserError("input: say which image or folder of images to segment, --input PATH")
    path = Path(source).expanduser()
    if path.is_dir():
        files = _images(path)
    elif path.exists():
        if made_here(path):
            raise UserError(f"input {path}: is a result that monai_thyroid has written, not an image")
        files = [path]
    else:
        raise UserError(f"input {path}: no such file or folder")
    problems = []
    names: dict[str, Path] = {}
    for file in files:
        if (other := names.setdefault(stem(file), file)) != file:
            problems.append(f"{file}: has the same name as {other.name}, so their masks would be one file")
    if output_dir is not None:
        problems += _output_problems(files, Path(output_dir))
    problems += [problem for found in map_files(_unreadable, files, "Checking files") for problem in found]
    if problems:
        raise UserError(problems)
    return [{"image": str(file)} for file in files]


def _images(folder: Path) -> list[Path]:
    visible = (file for file in folder.iterdir() if not file.name.startswith("."))
    files = sorted(file for file in visible if file.is_file() and is_image(file))
    if not files:
        raise UserError(f"input {folder}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    results = [file for file in files if stem(file).lower().endswith(RESULTS) or made_here(file)]
    if len(results) == len(files):
        raise UserError(
            f"input {folder}: holds masks and overlays only, by their names ({results[0].name}); give one by itself to "
            "segment it nevertheless"
        )
    if results:
        shown = ", ".join(file.name for file in results[:3]) + (", ..." if len(results) > 3 else "")
        logger.warning("%s: left out %d that look like masks or overlays (%s)", folder, len(results), shown)
    return [file for file in files if file not in set(results)]


def _output_problems(files: Sequence[Path], output: Path) -> list[str]:
    if output.resolve() in {file.parent.resolve() for file in files}:
        return [f"output_dir {output}: holds the images; results go into a folder of their own, say {output / 'masks'}"]
    return [
        f"{target}: would be replaced, but monai_thyroid has not written it; give another --output_dir"
        for file in files
        for target in result_files(file, output)
        if target.exists() and not made_here(target)
    ]


def result_files(image: Path, output: Path) -> list[Path]:
    """Where the mask and the overlay of an image are written."""
    return [output / f"{stem(image)}_mask{mask_suffix(image)}", output / f"{stem(image)}_overlay.png"]


def _unreadable(path: Path) -> list[str]:
    try:
        read_raster(path)
    except UserError as error:
        return error.problems
    return []
