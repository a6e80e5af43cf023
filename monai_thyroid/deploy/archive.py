"""Trained runs on whole archives: files in, masks and one table out, to be stopped and started any time."""

from __future__ import annotations

import csv
import io
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_thyroid import __version__
from monai_thyroid.deploy.findings import findings
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.predictor import Prediction, Predictor
from monai_thyroid.evaluation.runtimes import cores
from monai_thyroid.files import atomic_path, locked, read_json, remove_partial, write_json
from monai_thyroid.images import (
    IMAGE_SUFFIXES,
    NIFTI_SUFFIXES,
    Raster,
    is_image,
    overlay,
    png_mark,
    read_raster,
    save_label,
    save_nifti,
    stem,
)

__all__ = ["COLUMNS", "ArchiveResult", "predict_archive"]

logger = logging.getLogger(__name__)

COLUMNS = (
    "source mask class area_px area_mm2 components largest_diameter_px largest_diameter_mm mean_probability agreement "
    "seconds error"
).split()
"""Of predictions.csv: a row an image and class; of a file that could not be segmented one row with its error."""

_SETTINGS = "predictions.json"
_TABLE = "predictions.csv"
_STARTED = "predictions.started"
_ENDINGS = ("_mask", "_overlay", "_probability")


@dataclass(frozen=True)
class ArchiveResult:
    """What `predict_archive` did.

    Attributes:
        images: segmented now.
        before: segmented by earlier starts.
        failed: by file why it could not be segmented.
        left_out: how many files were not taken for images to segment, by reason.
        seconds: of this start, from the first image to the last.
        runtimes: of each model, what computed it and why.
    """

    images: int
    before: int
    failed: dict[str, str]
    left_out: dict[str, int]
    seconds: float
    runtimes: list[tuple[str, str]]


@dataclass(frozen=True)
class _Job:
    source: str
    target: str  # relative to the output, without an ending


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
    progress: bool | None = None,
) -> ArchiveResult:
    """Segment files, and folders with all that is in them.

    ``output`` gets the folder structure of the inputs with ``<name>_mask.png`` (NIfTI for NIfTI), and
    ``predictions.csv``. An image counts as done when its mask is in place and its rows are in the table; a start after
    a kill goes on from there. Files that could not be segmented are tried again. ``predictions.started`` tells which
    files are predict's own: no other one is ever written over.

    Args:
        runs: one run folder, or several as an ensemble.
        inputs: files and folders.
        output: a folder that is new or empty, or an earlier start's of the same models and options.
        device: see `Predictor`.
        runtime: see `Predictor`.
        tta: see `Predictor`.
        probabilities: write ``<name>_probability.png`` too, 16-bit, 65535 for 1; of several classes one file each,
            ``<name>_probability_<class>.png``.
        overlays: write ``<name>_overlay.png`` too.
        progress: show a bar; None for on a terminal only.

    Raises:
        UserError: nothing to segment, no such models, an output of something else, or of a process that still works.
        OSError: something cannot be written; what is done is kept.
    """
    output = Path(output).expanduser()
    jobs, left_out = _jobs(inputs, output)
    models = [Model(run) for run in runs]
    settings = {
        "made_by": f"monai-thyroid predict {__version__}",
        "models": [{"path": str(model.path.resolve()), "checkpoint_sha256": model.weights} for model in models],
        "classes": models[0].classes,
        "threshold": models[0].threshold,
        "postprocessing": models[0].postprocessing.as_dict() if models[0].postprocessing else None,
        "tta": tta,
        "probabilities": probabilities,
        "overlays": overlays,
    }
    output.mkdir(parents=True, exist_ok=True)
    with locked(output, work="segmenting"):
        _claim(output, settings)
        done = _trimmed(output, classes=len(models[0].classes))
        todo = [job for job in jobs if job.source not in done]
        before, started, failed, runtimes = len(jobs) - len(todo), time.perf_counter(), {}, []
        if todo:
            threads = cores()
            predictor = Predictor(
                models, device=device, runtime=runtime, tta=tta, samples=_samples(todo), streams=threads
            )
            runtimes = predictor.runtimes
            if not (output / _SETTINGS).is_file():
                write_json(output / _SETTINGS, settings)
            work = _Work(predictor, output, probabilities=probabilities, overlays=overlays)
            started = time.perf_counter()
            failed = work.run(todo, threads=threads, before=before, progress=progress)
        return ArchiveResult(
            images=len(todo) - len(failed),
            before=before,
            failed=failed,
            left_out=left_out,
            seconds=time.perf_counter() - started,
            runtimes=runtimes,
        )


def _jobs(inputs: Sequence[str | Path], output: Path) -> tuple[list[_Job], dict[str, int]]:
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
    owners: dict[str, str] = {}
    for source, target in targets.items():
        if (other := owners.setdefault(target, source)) != source:
            problems.append(f"{source}: would have the same mask as {other}; segment their folders into two outputs")
    if problems:
        raise UserError(problems)
    return [_Job(source, target) for source, target in targets.items()], dict(left_out)


def _files(folder: Path, output: Path, left_out: Counter[str]) -> Iterator[str]:
    """The images below a folder, sorted, without what predictions left there."""
    own = os.path.abspath(output)
    for parent, folders, names in os.walk(folder):
        if os.path.abspath(parent) == own or _SETTINGS in names:
            left_out["in the output of predictions"] += len(names)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        beside = {stem(name) for name in names}
        for name in sorted(names):
            path = os.path.join(parent, name)
            without = next((stem(name).removesuffix(end) for end in _ENDINGS if stem(name).endswith(end)), None)
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
    path = output / _SETTINGS
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
        for name in ("classes", "threshold", "postprocessing", "tta", "probabilities", "overlays")
        if found.get(name) != settings[name]
    ]
    if problems:
        raise UserError(problems)


def _trimmed(output: Path, *, classes: int) -> set[str]:
    """The images that are done. What else is in the table is taken out: errors, and what a kill left half written."""
    path = output / _TABLE
    if not path.is_file():
        return set()
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1].decode("utf-8", errors="replace")
    rows = list(csv.reader(io.StringIO(whole, newline="")))
    sound = [row for row in rows[1:] if len(row) == len(COLUMNS) and not row[-1]] if rows[:1] == [COLUMNS] else []
    counts = Counter(row[0] for row in sound)
    done = {row[0] for row in sound if counts[row[0]] == classes and (output / row[1]).is_file()}
    kept = [row for row in sound if row[0] in done]
    if len(kept) != len(rows) - 1 or len(whole.encode()) != len(content):
        with atomic_path(path) as temporary:
            temporary.write_text(_lines([COLUMNS, *kept]), encoding="utf-8")
    return done


def _lines(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _samples(jobs: Sequence[_Job], *, wanted: int = 8, least: int = 24) -> list[Raster]:
    """A few images from all over the archive to measure runtimes on; none where it would take longer than it saves."""
    if len(jobs) < least:
        return []
    samples = []
    for job in jobs[:: max(1, len(jobs) // (2 * wanted))]:
        try:
            samples.append(read_raster(job.source))
        except UserError:
            continue
        if len(samples) == wanted:
            break
    return samples


class _Work:
    """The images of an archive in several threads, each of which reads, computes and writes."""

    def __init__(self, predictor: Predictor, output: Path, *, probabilities: bool, overlays: bool) -> None:
        self.predictor, self.output = predictor, output
        self.probabilities, self.overlays = probabilities, overlays
        # A GPU wants several at once; on the CPU each thread has a core, and one image fills it.
        self.batch = 16 if predictor.device == "cuda" else 1
        self._started = output / _STARTED
        self._ours: set[str] = set()
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[_Job], *, threads: int, before: int, progress: bool | None) -> dict[str, str]:
        """Segment all; returns by file why it could not be."""
        from tqdm import tqdm

        for folder in {(self.output / job.target).parent for job in jobs}:
            folder.mkdir(parents=True, exist_ok=True)
            remove_partial(folder)
        if self._started.is_file():
            self._ours = set(self._started.read_text(encoding="utf-8").splitlines())
        failed: dict[str, str] = {}
        chunks = (jobs[start : start + self.batch] for start in range(0, len(jobs), self.batch))
        running: set[Future[list[tuple[_Job, list[dict[str, Any]]]]]] = set()
        hidden = None if progress is None else not progress
        bar = tqdm(total=len(jobs) + before, initial=before, unit="image", desc="segmenting", disable=hidden)
        with bar, _Table(self.output / _TABLE) as table, ThreadPoolExecutor(threads) as pool:
            try:
                more = True
                while running or more:
                    while more and len(running) < 2 * threads:
                        chunk = next(chunks, None)
                        more = chunk is not None
                        if chunk is not None:
                            running.add(pool.submit(self._segmented, chunk))
                    ready, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in ready:
                        for job, rows in future.result():
                            table.append(rows)
                            if rows[0]["error"]:
                                failed[job.source] = rows[0]["error"]
                            bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return failed

    def _segmented(self, jobs: Sequence[_Job]) -> list[tuple[_Job, list[dict[str, Any]]]]:
        started = time.perf_counter()
        errors: dict[_Job, str] = {}
        rasters: dict[_Job, Raster] = {}
        for job in jobs:
            try:
                rasters[job] = read_raster(job.source)
            except UserError as error:
                errors[job] = str(error)
        predictions: dict[_Job, Prediction] = {}
        try:
            predictions = (
                dict(zip(rasters, self.predictor.batch(list(rasters.values())), strict=True)) if rasters else {}
            )
        except Exception:  # one of them, or all of them together: by itself each tells
            for job, raster in rasters.items():
                try:
                    predictions[job] = self.predictor(raster)
                except Exception as error:  # whatever a network or its runtime raises: the others go on
                    errors[job] = f"{job.source}: cannot be segmented ({type(error).__name__}: {error})"
        places: dict[_Job, Path] = {}
        for job, prediction in predictions.items():
            try:
                places[job] = self._written(job, rasters[job], prediction)
            except UserError as error:
                errors[job] = str(error)
        seconds = round((time.perf_counter() - started) / len(jobs), 4)
        result = []
        for job in jobs:
            same = {"source": job.source, "seconds": seconds, "error": errors.get(job)}
            if job in errors:
                result.append((job, [same]))
                continue
            same["mask"] = os.path.relpath(places[job], self.output)
            rows = [
                {**same, "class": name, **findings(predictions[job], number, spacing=rasters[job].spacing)}
                for number, name in enumerate(self.predictor.classes, 1)
            ]
            result.append((job, rows))
        return result

    def _written(self, job: _Job, raster: Raster, prediction: Prediction) -> Path:
        """Write the files of one image; the mask last, whose place is returned."""
        base, classes = str(self.output / job.target), self.predictor.classes
        nifti = job.source.lower().endswith(NIFTI_SUFFIXES)
        mask = Path(f"{base}_mask{'.nii.gz' if nifti else '.png'}")
        pictures: dict[Path, np.ndarray] = {}
        if self.overlays:
            pictures[Path(f"{base}_overlay.png")] = overlay(raster.normalised(), prediction.mask)
        if self.probabilities:
            for name, plane in zip(classes, prediction.probabilities, strict=True):
                ending = "" if len(classes) == 1 else f"_{name}"
                pictures[Path(f"{base}_probability{ending}.png")] = np.rint(plane * 65535).astype(np.uint16)
        self._announce(job, [mask, *pictures])
        try:
            for path, pixels in pictures.items():
                with atomic_path(path) as temporary:
                    Image.fromarray(pixels).save(temporary, pnginfo=png_mark())
            with atomic_path(mask) as temporary:
                if nifti:
                    save_nifti(prediction.mask.T, temporary, like=job.source)
                else:
                    save_label(prediction.mask, temporary, classes=len(classes))
        except OSError as error:
            # A full disk, for one: nothing after it would succeed.
            raise OSError(
                f"{mask}: cannot be written ({error}); what is done is kept, the same command goes on"
            ) from error
        return mask

    def _announce(self, job: _Job, paths: Sequence[Path]) -> None:
        """Note down what is about to be written, so that what lies there otherwise is known to be somebody else's."""
        with self._lock:
            if job.target not in self._ours:
                if taken := [path for path in paths if os.path.lexists(path)]:
                    raise UserError(f"{job.source}: {taken[0]} is there already and not of predict; move it away")
                self._ours.add(job.target)
                with open(self._started, "a", encoding="utf-8") as file:
                    file.write(f"{job.target}\n")


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
