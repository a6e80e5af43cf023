"""Trained runs on whole archives: files in, masks and one table out, to be stopped and started any time."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from monai_thyroid import __version__
from monai_thyroid.deploy.engines import SETTINGS, Engine, Task, local_threads, ray_cluster
from monai_thyroid.deploy.segmenting import Job
from monai_thyroid.errors import UserError, optional
from monai_thyroid.evaluation.model import members
from monai_thyroid.files import atomic_path, locked, read_json, remove_partial, write_json
from monai_thyroid.images import IMAGE_SUFFIXES, is_image, stem
from monai_thyroid.images.dicom import DICOM, dicomdir_files, is_dicomdir

__all__ = ["COLUMNS", "ArchiveResult", "predict_archive"]

logger = logging.getLogger(__name__)

COLUMNS = (
    "source mask class area_px area_mm2 components largest_diameter_px largest_diameter_mm mean_probability agreement "
    "frame frames seconds error"
).split()
"""Of predictions.csv: a row an image and class; of a file that could not be segmented one row with its error.

``frame`` (from 1) and ``frames`` are empty where a file holds one image.
"""

_TABLE = "predictions.csv"
_FRAME = re.compile(r"(.+)_frame\d+", re.DOTALL)
_ONE_IMAGE = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix not in DICOM.suffixes)
_ENDINGS = ("_mask", "_overlay", "_probability", "_sr.dcm", "_seg.dcm", "_sc.dcm")


@dataclass(frozen=True)
class ArchiveResult:
    """What `predict_archive` did.

    Attributes:
        images: segmented now.
        before: segmented by earlier starts.
        failed: by file why it could not be segmented.
        left_out: how many files were not taken for images to segment, by reason.
        seconds: of this start, from the first image to the last.
        models: the folders of those that were applied, of a packed ensemble of its members.
        runtimes: of each of them, what computed it and why; empty where nothing was to do.
    """

    images: int
    before: int
    failed: dict[str, str]
    left_out: dict[str, int]
    seconds: float
    models: list[Path]
    runtimes: list[tuple[str, str]]


def predict_archive(
    runs: Sequence[str | Path],
    inputs: Sequence[str | Path],
    *,
    output: str | Path,
    device: str = "auto",
    runtime: str = "auto",
    tta: bool = False,
    probabilities: bool = False,
    overlays: bool = False,
    dicom: bool = False,
    review_below: float | None = None,
    tissue_only: bool = False,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    progress: bool | None = None,
) -> ArchiveResult:
    """Segment files, and folders with all that is in them.

    ``output`` gets the folder structure of the inputs with ``<name>_mask.png`` (NIfTI for NIfTI;
    ``<name>_frame<n>_mask.png`` for each frame of a DICOM file of several), and ``predictions.csv``. An image counts as
    done when its mask is in place and its rows are in the table; a start after a kill goes on from there. Files that
    could not be segmented are tried again. No file that this package has not written is ever written over.

    Args:
        runs: one run folder or packed bundle, or several as an ensemble.
        inputs: files and folders; a DICOMDIR stands for the images that it lists.
        output: a folder that is new or empty, or an earlier start's of the same models and options.
        device: see `Predictor`.
        runtime: see `Predictor`.
        tta: see `Predictor`.
        probabilities: write ``<name>_probability.png`` too, 16-bit, 65535 for 1; of several classes one file each,
            ``<name>_probability_<class>.png``.
        overlays: write ``<name>_overlay.png`` too.
        dicom: write the results of DICOM images as DICOM too: ``<name>_sr.dcm``, ``_seg.dcm`` (where anything was
            found) and ``_sc.dcm``; see `monai_thyroid.deploy.dicom.results`. Of DICOM files only what `read_source`
            takes is segmented then. Not done unasked, because these files hold the patient's name.
        review_below: mark DICOM results whose ensemble agrees by less.
        tissue_only: blacken what lies outside of the ultrasound regions before segmenting; files that do not tell
            where tissue is are refused.
        engine: ``"local"`` for this machine, ``"ray"`` for a cluster, see `ray_cluster`.
        address: of the cluster; None for the one RAY_ADDRESS names, or else one of this machine alone.
        progress: show a bar; None for on a terminal only.

    Raises:
        UserError: nothing to segment, no such models, an output of something else, or of a process that still works.
        OSError: something cannot be written; what is done is kept.
    """
    output = Path(output).expanduser()
    jobs, left_out = _jobs(inputs, output)
    models = [model for run in runs for model in members(run)]
    if dicom:
        optional("highdicom", extra="dicom")
    if review_below is not None and not (dicom and len(models) > 1 and 0 <= review_below <= 1):
        raise UserError(
            f"--review-below {review_below:g}: is a Dice between 0 and 1, for DICOM results of an ensemble; give "
            "--dicom and --with MODEL too"
        )
    settings = {
        "made_by": f"monai-thyroid predict {__version__}",
        "models": [{"path": str(model.path.resolve()), "checkpoint_sha256": model.weights} for model in models],
        "classes": models[0].classes,
        "threshold": models[0].threshold,
        "postprocessing": models[0].postprocessing.as_dict() if models[0].postprocessing else None,
        "tta": tta,
        "probabilities": probabilities,
        "overlays": overlays,
        "dicom": dicom,
        "review_below": review_below,
        "tissue_only": tissue_only,
    }
    output.mkdir(parents=True, exist_ok=True)
    with locked(output, work="segmenting"):
        _claim(output, settings)
        done = _trimmed(output, classes=len(models[0].classes))
        todo = [job for job in jobs if job.source not in done]
        before, started, failures, runtimes = len(jobs) - len(todo), time.perf_counter(), {}, []
        if todo:
            task = Task(
                [*runs] if engine == "ray" else models,
                output,
                overlays=overlays,
                probabilities=probabilities,
                device=device,
                runtime=runtime,
                tta=tta,
                dicom=dicom,
                review_below=review_below,
                tissue_only=tissue_only,
            )
            with ray_cluster(task, todo, address=address) if engine == "ray" else local_threads(task, todo) as ready:
                runtimes = ready.runtimes
                if not (output / SETTINGS).is_file():
                    write_json(output / SETTINGS, settings)
                started = time.perf_counter()
                failures = _done(ready, todo, output, before=before, progress=progress)
        return ArchiveResult(
            images=len(todo) - len(failures),
            before=before,
            failed=failures,
            left_out=left_out,
            seconds=time.perf_counter() - started,
            models=[model.path for model in models],
            runtimes=runtimes,
        )


def _done(engine: Engine, jobs: Sequence[Job], output: Path, *, before: int, progress: bool | None) -> dict[str, str]:
    """Have all segmented and enter them into the table; returns by file why it could not be."""
    from tqdm import tqdm

    folders = {(output / job.target).parent for job in jobs}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        remove_partial(folder)
    failures: dict[str, str] = {}
    hidden = None if progress is None else not progress
    bar = tqdm(total=len(jobs) + before, initial=before, unit="image", desc="segmenting", disable=hidden)
    with bar, _Table(output / _TABLE) as table:
        for some in engine.run():
            for job, rows in some:
                table.append(rows)
                if error := rows[0].get("error"):
                    failures[job.source] = error
                bar.update()
    for folder in folders:  # what a lost machine left
        remove_partial(folder)
    return failures


def _jobs(inputs: Sequence[str | Path], output: Path) -> tuple[list[Job], dict[str, int]]:
    """What to segment, in order, and how many files were left out for which reason."""
    left_out: Counter[str] = Counter()
    found: dict[str, str] = {}  # by absolute path, where it lies in its input
    problems = []
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            if os.path.abspath(path) == os.path.abspath(output):
                problems.append(f"--output {output}: is the input itself, not of predict; give a new folder")
            for file in _files(path, output, left_out):
                found.setdefault(os.path.abspath(file), os.path.relpath(file, path))
        elif is_dicomdir(path) and path.is_file():
            try:
                for listed in dicomdir_files(path):
                    found.setdefault(os.path.abspath(listed), os.path.relpath(listed, path.parent))
            except UserError as error:
                problems += error.problems
        elif path.exists():
            found.setdefault(os.path.abspath(path), path.name)
        else:
            problems.append(f"input {path}: no such file or folder")
    if not found and not problems:
        problems.append(f"input {', '.join(map(str, inputs))}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    targets = {source: os.path.join(os.path.dirname(place), stem(place)) for source, place in found.items()}
    # Of files that differ by their suffix alone, each keeps it.
    shared = Counter(targets.values())
    targets = {source: found[source] if shared[target] > 1 else target for source, target in targets.items()}
    several = {target: source for source, target in targets.items() if not source.lower().endswith(_ONE_IMAGE)}
    owners: dict[str, str] = {}
    for source, target in targets.items():
        # What is called like a frame of a DICOM file beside it keeps its suffix, too.
        if (frame := _FRAME.fullmatch(target)) and (whole := several.get(frame[1], source)) != source:
            targets[source] = target = found[source]
            if _FRAME.fullmatch(target):
                problems.append(
                    f"{source}: may have the same mask as a frame of {whole}; segment them into two outputs"
                )
        if (other := owners.setdefault(target, source)) != source:
            problems.append(f"{source}: would have the same mask as {other}; segment their folders into two outputs")
    if problems:
        raise UserError(problems)
    return [Job(source, target) for source, target in targets.items()], dict(left_out)


def _files(folder: Path, output: Path, left_out: Counter[str]) -> Iterator[str]:
    """The images below a folder, sorted, without what predictions left there."""
    own = os.path.abspath(output)
    for parent, folders, names in os.walk(folder):
        if os.path.abspath(parent) == own or SETTINGS in names:
            left_out["in the output of predictions"] += len(names)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        beside = {stem(name) for name in names}
        for name in sorted(names):
            path = os.path.join(parent, name)
            bare = (name, stem(name))
            without = next((one.removesuffix(end) for one in bare for end in _ENDINGS if one.endswith(end)), None)
            if name.startswith("."):
                left_out["hidden"] += 1
            elif not is_image(path):
                left_out["no image"] += 1
            elif without in beside:
                left_out["mask, overlay or probability of an image beside it"] += 1
            else:
                yield path


def _claim(output: Path, settings: dict[str, Any]) -> None:
    """Refuse an output that holds something else."""
    path = output / SETTINGS
    if not path.is_file():
        if any(not entry.name.startswith(".partial-") for entry in output.iterdir()):
            raise UserError(f"--output {output}: holds files that are not of predict; give a new folder")
        return
    try:
        found = read_json(path)
        weights = [model["checkpoint_sha256"] for model in found["models"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a new folder as --output") from error
    wanted = [model["checkpoint_sha256"] for model in settings["models"]]
    problems = (
        [] if weights == wanted else [f"--output {output}: holds predictions of other weights; give a new folder"]
    )
    problems += [
        f"--output {output}: holds predictions with {name} {found.get(name)}, not {settings[name]}; give a new folder"
        for name in (
            *("classes", "threshold", "postprocessing", "tta", "probabilities", "overlays"),
            *("dicom", "review_below", "tissue_only"),
        )
        if (found.get(name) or None) != (settings[name] or None)  # older ones lack some
    ]
    if problems:
        raise UserError(problems)


def _trimmed(output: Path, *, classes: int) -> set[str]:
    """The images that are done. What else is in the table is taken out: errors, what a kill left half written, and
    images that have changed since.
    """
    path = output / _TABLE
    if not path.is_file():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    rows = list(csv.reader(io.StringIO(whole, newline="")))
    sound = [row for row in rows[1:] if len(row) == len(COLUMNS) and not row[-1]] if rows[:1] == [COLUMNS] else []
    counts, frames = Counter(row[0] for row in sound), COLUMNS.index("frames")
    lost = {row[0] for row in sound if not _newer(output / row[1], Path(row[0]))}
    done = {row[0] for row in sound if counts[row[0]] == classes * int(row[frames] or 1)} - lost
    kept = [row for row in sound if row[0] in done]
    if len(kept) != len(rows) - 1 or len(whole.encode()) != len(content):
        with atomic_path(path) as temporary:
            temporary.write_text(_lines([COLUMNS, *kept]), encoding="utf-8")
    return done


def _newer(mask: Path, source: Path) -> bool:
    """Whether a mask is there, with content, and of the image as it is by now."""
    if not mask.is_file():
        return False
    made = mask.stat()
    return made.st_size > 0 and not (source.is_file() and source.stat().st_mtime > made.st_mtime)


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


class _Table:
    """predictions.csv, appended to; on the disk at the latest a second later, and at the end."""

    def __init__(self, path: Path) -> None:
        new = not path.is_file() or path.stat().st_size == 0
        self._file = open(path, "a", encoding="utf-8", newline="")  # noqa: SIM115 - closed by __exit__
        self._synced = time.monotonic()
        if new:
            self._file.write(_lines([COLUMNS]))

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add the rows of one image, all of them at once."""
        self._file.write(_lines([["" if row.get(name) is None else row[name] for name in COLUMNS] for row in rows]))
        self._file.flush()
        if time.monotonic() - self._synced > 1:
            self._sync()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._sync()
        self._file.close()
