"""Images of an archive, from their files to masks, pictures and the rows of its table."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_thyroid.deploy.findings import findings
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.predictor import Prediction, Predictor
from monai_thyroid.files import atomic_path
from monai_thyroid.images import (
    NIFTI_SUFFIXES,
    Raster,
    made_here,
    overlay,
    png_mark,
    read_raster,
    save_label,
    save_nifti,
)

__all__ = ["Done", "Job", "Segmenter", "failed"]


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
    """

    def __init__(self, predictor: Predictor, output: Path, *, overlays: bool, probabilities: bool) -> None:
        self.predictor, self.output = predictor, output
        self.overlays, self.probabilities = overlays, probabilities
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
        errors: dict[Job, str] = {}
        rasters: dict[Job, Raster] = {}
        for job in jobs:
            try:
                rasters[job] = read_raster(job.source)
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
        places: dict[Job, Path] = {}
        for job, prediction in predictions.items():
            try:
                places[job] = self._written(job, rasters[job], prediction)
            except UserError as error:
                errors[job] = str(error)
        seconds = round((time.perf_counter() - started) / len(jobs), 4)
        result = []
        for job in jobs:
            if job in errors:
                result.append(failed(job, errors[job], seconds=seconds))
                continue
            mask = os.path.relpath(places[job], self.output)
            rows = [
                {
                    **{"source": job.source, "mask": mask, "class": name, "seconds": seconds},
                    **findings(predictions[job], number, spacing=rasters[job].spacing),
                }
                for number, name in enumerate(self.predictor.classes, 1)
            ]
            result.append((job, rows))
        return result

    def _written(self, job: Job, raster: Raster, prediction: Prediction) -> Path:
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
        if taken := [path for path in (mask, *pictures) if os.path.lexists(path) and not made_here(path)]:
            raise UserError(f"{job.source}: {taken[0]} is there already and not of predict; move it away")
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
