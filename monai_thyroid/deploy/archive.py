"""Trained runs on whole archives: files in, masks and one table out, to be stopped and started any time."""

from __future__ import annotations

import csv
import io
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from monai_thyroid import __version__
from monai_thyroid.deploy.findings import findings
from monai_thyroid.errors import UserError, optional
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
from monai_thyroid.images.dicom import DicomImage, dicomdir_files, is_dicom, is_dicomdir
from monai_thyroid.images.formats import file_bytes

if TYPE_CHECKING:
    from monai_thyroid.deploy.dicom import ModelFacts

__all__ = ["COLUMNS", "ArchiveResult", "predict_archive"]

logger = logging.getLogger(__name__)

COLUMNS = (
    "source mask class area_px area_mm2 components largest_diameter_px largest_diameter_mm mean_probability agreement "
    "frame frames seconds error"
).split()
"""Of predictions.csv: a row an image and class; of a file that could not be segmented one row with its error.

``frame`` (from 1) and ``frames`` are empty where a file holds one image."""

_SETTINGS = "predictions.json"
_TABLE = "predictions.csv"
_STARTED = "predictions.started"
_ENDINGS = ("_mask", "_overlay", "_probability", "_sr", "_seg", "_sc")
_DICOM_ENDINGS = {"SR": "_sr.dcm", "SEG": "_seg.dcm", "OT": "_sc.dcm"}


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
        dicom: DICOM objects written now.
    """

    images: int
    before: int
    failed: dict[str, str]
    left_out: dict[str, int]
    seconds: float
    runtimes: list[tuple[str, str]]
    dicom: int = 0


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
    dicom: bool = False,
    review_below: float | None = None,
    tissue_only: bool = False,
    progress: bool | None = None,
) -> ArchiveResult:
    """Segment files, and folders with all that is in them.

    ``output`` gets the folder structure of the inputs with ``<name>_mask.png`` (NIfTI for NIfTI;
    ``<name>_frame<n>_mask.png`` for each frame of a DICOM file of several), and ``predictions.csv``. An image counts as
    done when its mask is in place and its rows are in the table; a start after a kill goes on from there. Files that
    could not be segmented are tried again. ``predictions.started`` tells which files are predict's own: no other one is
    ever written over.

    Args:
        runs: one run folder, or several as an ensemble.
        inputs: files and folders; a DICOMDIR stands for the images that it lists.
        output: a folder that is new or empty, or an earlier start's of the same models and options.
        device: see `Predictor`.
        runtime: see `Predictor`.
        tta: see `Predictor`.
        probabilities: write ``<name>_probability.png`` too, 16-bit, 65535 for 1; of several classes one file each,
            ``<name>_probability_<class>.png``.
        overlays: write ``<name>_overlay.png`` too.
        dicom: write the results of DICOM images as DICOM too: ``<name>_sr.dcm``, ``_seg.dcm`` (where anything was
            found) and ``_sc.dcm``; see `monai_thyroid.deploy.dicom.results`. Only what `read_source` takes is segmented
            then. Not done unasked, because these files hold the patient's name.
        review_below: mark DICOM results whose ensemble agrees by less.
        tissue_only: blacken what lies outside of the ultrasound regions before segmenting; files that do not tell
            where tissue is are refused.
        progress: show a bar; None for on a terminal only.

    Raises:
        UserError: nothing to segment, no such models, an output of something else, or of a process that still works.
        OSError: something cannot be written; what is done is kept.
    """
    output = Path(output).expanduser()
    jobs, left_out = _jobs(inputs, output)
    if dicom:
        optional("highdicom", extra="dicom")
    if review_below is not None and not (dicom and len(runs) > 1):
        raise UserError("review_below: is about DICOM results of an ensemble; give --dicom and --with MODEL too")
    models = [Model(run) for run in runs]
    settings = {
        "made_by": f"monai-thyroid predict {__version__}",
        "models": [{"path": str(model.path.resolve()), "checkpoint_sha256": model.weights} for model in models],
        "classes": models[0].classes,
        "threshold": models[0].threshold,
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
        before, started, failed, runtimes, objects = len(jobs) - len(todo), time.perf_counter(), {}, [], 0
        if todo:
            threads = cores()
            predictor = Predictor(
                models, device=device, runtime=runtime, tta=tta, samples=_samples(todo), streams=threads
            )
            runtimes = predictor.runtimes
            if not (output / _SETTINGS).is_file():
                write_json(output / _SETTINGS, settings)
            work = _Work(
                predictor,
                output,
                probabilities=probabilities,
                overlays=overlays,
                dicom=_facts(models) if dicom else None,
                review_below=review_below,
                tissue_only=tissue_only,
            )
            started = time.perf_counter()
            failed = work.run(todo, threads=threads, before=before, progress=progress)
            objects = work.objects
        return ArchiveResult(
            images=len(todo) - len(failed),
            before=before,
            failed=failed,
            left_out=left_out,
            seconds=time.perf_counter() - started,
            runtimes=runtimes,
            dicom=objects,
        )


def _facts(models: Sequence[Model]) -> ModelFacts:
    from monai_thyroid.deploy.dicom import model_facts

    return model_facts(models)


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
        for name in (
            *("classes", "threshold", "tta", "probabilities", "overlays"),
            *("dicom", "review_below", "tissue_only"),
        )
        if (found.get(name) or None) != (settings[name] or None)  # older ones lack some
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
    place, frames = COLUMNS.index("mask"), COLUMNS.index("frames")
    lost = {row[0] for row in sound if not (output / row[place]).is_file()}
    done = {row[0] for row in sound if counts[row[0]] == classes * int(row[frames] or 1)} - lost
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

    def __init__(
        self,
        predictor: Predictor,
        output: Path,
        *,
        probabilities: bool,
        overlays: bool,
        dicom: ModelFacts | None,
        review_below: float | None,
        tissue_only: bool,
    ) -> None:
        self.predictor, self.output = predictor, output
        self.probabilities, self.overlays = probabilities, overlays
        self.dicom, self.review_below, self.tissue_only = dicom, review_below, tissue_only
        self.objects = 0
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
                            if rows[0].get("error"):
                                failed[job.source] = rows[0]["error"]
                            bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return failed

    def _segmented(self, jobs: Sequence[_Job]) -> list[tuple[_Job, list[dict[str, Any]]]]:
        started = time.perf_counter()
        result: list[tuple[_Job, list[dict[str, Any]]]] = []
        rasters: dict[_Job, Raster] = {}
        for job in jobs:
            try:
                image = self._opened(job)
                if isinstance(image, Raster):
                    rasters[job] = image
                else:
                    result.append((job, self._segmented_dicom(job, image)))
            except UserError as error:
                result.append((job, [{"source": job.source, "error": str(error)}]))
        predictions: dict[_Job, Prediction] = {}
        errors: dict[_Job, str] = {}
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
        for job, prediction in predictions.items():
            try:
                files = self._files(job, rasters[job], prediction)
                self._announce(job, list(files))
                self._write(files, job)
                result.append((job, self._rows(job, rasters[job], prediction)))
            except UserError as error:
                errors[job] = str(error)
        result += [(job, [{"source": job.source, "error": error}]) for job, error in errors.items()]
        seconds = round((time.perf_counter() - started) / len(jobs), 4)
        return [(job, [{**row, "seconds": seconds} for row in rows]) for job, rows in result]

    def _opened(self, job: _Job) -> Raster | DicomImage:
        """An image, or a DICOM file that is more than one image, or whose results are wanted as DICOM."""
        content = file_bytes(job.source)
        if not is_dicom(job.source, content):
            if self.tissue_only:
                raise UserError(f"{job.source}: is no DICOM file and does not tell where tissue is (--tissue-only)")
            return read_raster(job.source, content=content)
        if self.dicom is not None:
            from monai_thyroid.deploy.dicom import read_source

            return read_source(job.source, tissue_only=self.tissue_only)
        image = DicomImage(job.source, content, tissue_only=self.tissue_only)
        if image.made_here:
            raise UserError(f"{job.source}: is a result of monai_thyroid, not an image to segment")
        return image if len(image.frames) > 1 else image.frames[0]

    def _segmented_dicom(self, job: _Job, image: DicomImage) -> list[dict[str, Any]]:
        """Segment a DICOM file and write all of its results, or none where a frame fails; returns its rows."""
        count = len(image.frames)
        frames = [job]
        if count > 1:
            frames = [_Job(job.source, f"{job.target}_frame{n:0{len(str(count))}d}") for n in range(1, count + 1)]
        objects = [self.output / f"{job.target}{ending}" for ending in _DICOM_ENDINGS.values()] if self.dicom else []
        self._announce(job, [path for frame in frames for path in self._paths(frame)] + objects)
        rows: list[dict[str, Any]] = []

        def predictions() -> Iterator[Prediction]:
            for start in range(0, count, self.batch):
                rasters = image.frames[start : start + self.batch]
                for offset, prediction in enumerate(self.predictor.batch(rasters)):
                    frame = frames[start + offset]
                    self._write(self._files(frame, rasters[offset], prediction), frame)
                    told = {"frame": start + offset + 1, "frames": count} if count > 1 else {}
                    rows.extend({**row, **told} for row in self._rows(frame, rasters[offset], prediction))
                    yield prediction

        try:
            if self.dicom is None:
                for _ in predictions():
                    pass
            else:
                self._write_dicom(job, image, predictions())
        except Exception as error:
            if isinstance(error, OSError):
                raise
            for path in [path for frame in frames for path in self._paths(frame)] + objects:
                path.unlink(missing_ok=True)
            if isinstance(error, UserError):
                raise
            raise UserError(f"{job.source}: cannot be segmented ({type(error).__name__}: {error})") from error
        return rows

    def _write_dicom(self, job: _Job, image: DicomImage, predictions: Iterator[Prediction]) -> None:
        from monai_thyroid.deploy.dicom import results

        assert self.dicom is not None
        for one in results(image, predictions, model=self.dicom, review_below=self.review_below):
            path = self.output / f"{job.target}{_DICOM_ENDINGS[one.Modality]}"
            with self._telling(path), atomic_path(path) as temporary:
                one.save_as(temporary, enforce_file_format=True)
            with self._lock:
                self.objects += 1

    def _rows(self, job: _Job, raster: Raster, prediction: Prediction) -> list[dict[str, Any]]:
        same = {"source": job.source, "mask": os.path.relpath(self._paths(job)[0], self.output)}
        return [
            {**same, "class": name, **findings(prediction, number, spacing=raster.spacing)}
            for number, name in enumerate(self.predictor.classes, 1)
        ]

    def _paths(self, job: _Job) -> list[Path]:
        """The files of one image, its mask first."""
        base, classes = str(self.output / job.target), self.predictor.classes
        nifti = job.source.lower().endswith(NIFTI_SUFFIXES)
        paths = [f"{base}_mask{'.nii.gz' if nifti else '.png'}"]
        if self.overlays:
            paths.append(f"{base}_overlay.png")
        if self.probabilities:
            paths += [f"{base}_probability{'' if len(classes) == 1 else f'_{name}'}.png" for name in classes]
        return list(map(Path, paths))

    def _files(self, job: _Job, raster: Raster, prediction: Prediction) -> dict[Path, np.ndarray]:
        """The content of the files of one image."""
        contents = [prediction.mask]
        if self.overlays:
            contents.append(overlay(raster.normalised(), prediction.mask))
        if self.probabilities:
            contents += [np.rint(plane * 65535).astype(np.uint16) for plane in prediction.probabilities]
        return dict(zip(self._paths(job), contents, strict=True))

    def _write(self, files: Mapping[Path, np.ndarray], job: _Job) -> None:
        """Write the files of one image, the mask last."""
        mask, *others = files
        for path in (*others, mask):
            with self._telling(mask), atomic_path(path) as temporary:
                if path != mask:
                    Image.fromarray(files[path]).save(temporary, pnginfo=png_mark())
                elif mask.name.endswith(NIFTI_SUFFIXES):
                    save_nifti(files[mask].T, temporary, like=job.source)
                else:
                    save_label(files[mask], temporary, classes=len(self.predictor.classes))

    @staticmethod
    @contextmanager
    def _telling(path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # A full disk, for one: nothing after it would succeed.
            raise OSError(
                f"{path}: cannot be written ({error}); what is done is kept, the same command goes on"
            ) from error

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
