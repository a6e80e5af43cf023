"""Images of an archive, from their files to masks, pictures and the rows of its table."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_thyroid.deploy.findings import findings
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.predictor import Prediction, Predictor
from monai_thyroid.files import atomic_path
from monai_thyroid.images import Raster, made_here, mask_suffix, overlay, png_mark, read_raster, save_mask
from monai_thyroid.images.dicom import DicomImage, is_dicom
from monai_thyroid.images.formats import file_bytes

__all__ = ["Done", "Job", "Segmenter", "failed"]

_DICOM_ENDINGS = {"SR": "_sr.dcm", "SEG": "_seg.dcm", "OT": "_sc.dcm"}
"""Of the names of results in DICOM, by modality."""


@dataclass(frozen=True)
class Job:
    """An image to segment.

    Attributes:
        source: its file, absolute.
        target: where its results go, relative to the output, without an ending.
    """

    source: str
    target: str


Done = tuple[Job, list[dict[str, Any]]]
"""A job and its rows of the table, one a class; of an image that could not be segmented one row with its error."""


def failed(job: Job, error: str, *, seconds: float | None = None) -> Done:
    """A job that could not be done, and why."""
    return job, [{"source": job.source, "seconds": seconds, "error": error}]


class Segmenter:
    """Reads, computes and writes; several threads may call it at once.

    Args:
        predictor: the models.
        output: the folder that takes what is written, which has the folders of all targets.
        overlays: write ``<name>_overlay.png`` beside each mask.
        probabilities: write ``<name>_probability.png`` beside each mask.
        dicom: write results of DICOM images as DICOM too, see `monai_thyroid.deploy.dicom.results`.
        review_below: see there.
        tissue_only: blacken what lies outside of the ultrasound regions first.
    """

    def __init__(
        self,
        predictor: Predictor,
        output: Path,
        *,
        overlays: bool,
        probabilities: bool,
        dicom: bool = False,
        review_below: float | None = None,
        tissue_only: bool = False,
    ) -> None:
        self.predictor, self.output = predictor, output
        self.overlays, self.probabilities = overlays, probabilities
        self.review_below, self.tissue_only = review_below, tissue_only
        self.facts = None
        if dicom:
            from monai_thyroid.deploy.dicom import model_facts

            self.facts = model_facts(
                predictor.members, tta=predictor.tta, review_below=review_below, tissue_only=tissue_only
            )
        # A GPU wants several at once; on the CPU each thread has a core, and one image fills it.
        self.batch = 16 if predictor.device == "cuda" else 1

    def all_of(self, jobs: Sequence[Job], *, threads: int) -> list[Done]:
        """Segment many in several threads."""
        batches = [jobs[start : start + self.batch] for start in range(0, len(jobs), self.batch)]
        with ThreadPoolExecutor(threads) as pool:
            return [done for some in pool.map(self, batches) for done in some]

    def __call__(self, jobs: Sequence[Job]) -> list[Done]:
        """Segment a few together.

        Raises:
            OSError: something cannot be written.
        """
        started = time.perf_counter()
        rows: dict[Job, list[dict[str, Any]]] = {}
        errors: dict[Job, str] = {}
        rasters: dict[Job, Raster] = {}
        for job in jobs:
            try:
                image = self._opened(job)
                if isinstance(image, Raster):
                    rasters[job] = image
                else:
                    rows[job] = self._segmented_dicom(job, image)
            except UserError as error:
                errors[job] = str(error)
        predictions: dict[Job, Prediction] = {}
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
                self._check_free(job, self._paths(job))
                rows[job] = self._written(job, rasters[job], prediction)
            except UserError as error:
                errors[job] = str(error)
        seconds = round((time.perf_counter() - started) / len(jobs), 4)
        return [
            failed(job, errors[job], seconds=seconds)
            if job in errors
            else (job, [{**row, "seconds": seconds} for row in rows[job]])
            for job in jobs
        ]

    def _opened(self, job: Job) -> Raster | DicomImage:
        """An image, or a DICOM file that holds more than one, or whose results are wanted as DICOM."""
        content = file_bytes(job.source)
        if not is_dicom(job.source, content):
            if self.tissue_only:
                raise UserError(f"{job.source}: is no DICOM file and does not tell where tissue is (--tissue-only)")
            if self.facts is not None:
                raise UserError(f"{job.source}: is no DICOM file, so it has no results in DICOM (--dicom)")
            return read_raster(job.source, content=content)
        if self.facts is not None:
            from monai_thyroid.deploy.dicom import read_source

            return read_source(job.source, content=content, tissue_only=self.tissue_only)
        image = DicomImage(job.source, content, tissue_only=self.tissue_only)
        if image.made_here:
            raise UserError(f"{job.source}: is a result of monai_thyroid, not an image to segment")
        return image if len(image.frames) > 1 else image.frames[0]

    def _segmented_dicom(self, job: Job, image: DicomImage) -> list[dict[str, Any]]:
        """Segment a DICOM file and write all of its results, or none where a frame fails; returns its rows."""
        count = len(image.frames)
        frames = [job]
        if count > 1:
            frames = [Job(job.source, f"{job.target}_frame{n:0{len(str(count))}d}") for n in range(1, count + 1)]
        objects = [] if self.facts is None else [self.output / f"{job.target}{end}" for end in _DICOM_ENDINGS.values()]
        written = [*(path for frame in frames for path in self._paths(frame)), *objects]
        self._check_free(job, written)
        rows: list[dict[str, Any]] = []

        def predictions() -> Iterator[Prediction]:
            for start in range(0, count, self.batch):
                rasters = image.frames[start : start + self.batch]
                for number, (raster, prediction) in enumerate(
                    zip(rasters, self.predictor.batch(rasters), strict=True), start
                ):
                    told = {"frame": number + 1, "frames": count} if count > 1 else {}
                    rows.extend({**row, **told} for row in self._written(frames[number], raster, prediction))
                    yield prediction

        try:
            if self.facts is None:
                for _ in predictions():
                    pass
            else:
                from monai_thyroid.deploy.dicom import results

                for one in results(image, predictions(), model=self.facts, review_below=self.review_below):
                    path = self.output / f"{job.target}{_DICOM_ENDINGS[one.Modality]}"
                    with self._telling(path), atomic_path(path) as temporary:
                        one.save_as(temporary, enforce_file_format=True)
        except OSError:
            raise
        except Exception as error:  # whatever a network or its runtime raises: the others go on
            for path in written:
                path.unlink(missing_ok=True)
            if isinstance(error, UserError):
                raise
            raise UserError(f"{job.source}: cannot be segmented ({type(error).__name__}: {error})") from error
        return rows

    def _paths(self, job: Job) -> list[Path]:
        """The files of one image, its mask first."""
        base, classes = str(self.output / job.target), self.predictor.classes
        paths = [f"{base}_mask{mask_suffix(job.source)}"]
        if self.overlays:
            paths.append(f"{base}_overlay.png")
        if self.probabilities:
            paths += [f"{base}_probability{'' if len(classes) == 1 else f'_{name}'}.png" for name in classes]
        return list(map(Path, paths))

    @staticmethod
    def _check_free(job: Job, paths: Sequence[Path]) -> None:
        if taken := [path for path in paths if os.path.lexists(path) and not made_here(path)]:
            raise UserError(f"{job.source}: {taken[0]} is there already and not of predict; move it away")

    def _written(self, job: Job, raster: Raster, prediction: Prediction) -> list[dict[str, Any]]:
        """Write the files of one image, the mask last; returns its rows."""
        mask, *others = self._paths(job)
        pictures: list[np.ndarray] = [overlay(raster.normalised(), prediction.mask)] if self.overlays else []
        if self.probabilities:
            pictures += [np.rint(plane * 65535).astype(np.uint16) for plane in prediction.probabilities]
        with self._telling(mask):
            for path, pixels in zip(others, pictures, strict=True):
                with atomic_path(path) as temporary:
                    Image.fromarray(pixels).save(temporary, pnginfo=png_mark())
            with atomic_path(mask) as temporary:
                save_mask(prediction.mask, temporary, image=job.source, classes=len(self.predictor.classes))
        same = {"source": job.source, "mask": os.path.relpath(mask, self.output)}
        return [
            {**same, "class": name, **findings(prediction, number, spacing=raster.spacing)}
            for number, name in enumerate(self.predictor.classes, 1)
        ]

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
