"""Models that the page applies, and what they made of an image."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from monai_thyroid.deploy.dicom.measure import Region, regions_of
from monai_thyroid.deploy.findings import findings
from monai_thyroid.deploy.web.opening import Opened
from monai_thyroid.errors import UserError, optional
from monai_thyroid.evaluation.predictor import Prediction, Predictor
from monai_thyroid.evaluation.runtimes import cores
from monai_thyroid.images import overlay, png_mark, save_label
from monai_thyroid.images.formats import printable
from monai_thyroid.images.raster import Raster
from monai_thyroid.runfolder import Listed, RunRecord, list_runs, read_run, run_files

if TYPE_CHECKING:
    from monai_thyroid.evaluation.trained import TrainedRun

__all__ = ["Desk", "Found", "Looked", "Served", "open_desk", "warnings_of"]

_MOST_REGIONS = 5
"""Of a class, told one by one, the largest first."""


class Served:
    """A model that the page applies; several threads may at once.

    It is computed as `monai-thyroid predict` computes a few images: by what was measured to be the fastest on this
    machine before, else by PyTorch in float32.

    Args:
        run: a run folder or a packed bundle, or the run itself.
        device: see `Predictor`.
        runtime: see `Predictor`.

    Attributes:
        title: what it is called on the page; `open_desk` makes titles differ.
        path: its folder.
        predictor: what segments.
        listed: what is known of it.
        warnings: what must be known before a score of it is believed.
        synthetic: whether it was trained on computer-made images.

    Raises:
        UserError: as `Predictor`.
    """

    def __init__(self, run: str | Path | TrainedRun, *, device: str = "auto", runtime: str = "auto") -> None:
        self.path = Path(run).expanduser() if isinstance(run, (str, Path)) else run.path
        self.predictor = Predictor(run, device=device, runtime=runtime, streams=cores())
        (self.listed,) = list_runs([self.path])
        record = read_run(run_files(self.path).facts)  # now, for the folder may go
        self.warnings, self.synthetic = warnings_of(record), _synthetic(record)
        known = self.listed
        words = [known.network or self.path.name, *([] if known.seed is None else [f"seed {known.seed}"])]
        self.title = printable(self.path.resolve().name if known.kind != "run" else " ".join(words))

    @property
    def classes(self) -> list[str]:
        """Names of its classes."""
        return self.predictor.classes

    @property
    def threshold(self) -> float | None:
        """Its own probability above which a pixel is foreground; None where the likeliest class is taken."""
        return None if self.predictor.activation == "softmax" else self.predictor.members[0].threshold

    @property
    def computed(self) -> str:
        """What computes it."""
        return ", ".join(dict.fromkeys(name for name, _ in self.predictor.runtimes))

    def document(self, name: str) -> str | None:
        """A file of a packed bundle's ``docs/``, such as ``README.md``; None where there is none."""
        path = run_files(self.path).path / "docs" / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def look(self, raster: Raster) -> Looked:
        """Segment an image.

        Raises:
            UserError: it cannot be segmented.
        """
        try:
            return Looked(self, raster, self.predictor.maps([raster])[0])
        except UserError:
            raise
        except Exception as error:  # whatever a network or its runtime raises: the page goes on
            raise UserError(f"{self.title} cannot segment it ({type(error).__name__}: {error})") from error


@dataclass(frozen=True)
class Looked:
    """What a model makes of an image, with its own threshold or another one.

    Attributes:
        model: that looked.
        raster: the image.
        maps: probabilities of each member, (channels, height, width).
    """

    model: Served
    raster: Raster
    maps: list[np.ndarray] = field(repr=False)

    def at(self, threshold: float | None = None) -> Prediction:
        """The mask, by another threshold than the model's own where one is given; postprocessed as ever."""
        return self.model.predictor.decided(self.maps, threshold=threshold)

    def agreement(self, number: int, threshold: float | None = None) -> np.ndarray | None:
        """The share of the members that mark a pixel, (height, width), 0 to 1; None of a single model.

        Args:
            number: of the class, from 1.
            threshold: as for `at`.
        """
        if len(self.maps) == 1:
            return None
        votes = self.model.predictor.votes(self.maps, threshold=threshold)
        return np.asarray(np.mean([vote == number for vote in votes], axis=0, dtype=np.float32))

    def findings(self, prediction: Prediction) -> list[Found]:
        """What a mask says, class by class."""
        found = []
        for number, name in enumerate(self.model.classes, 1):
            regions, _ = regions_of(prediction.mask == number, spacing=self.raster.spacing, most=_MOST_REGIONS)
            row = findings(prediction, number, spacing=self.raster.spacing)
            found.append(Found(name, row, regions))
        return found

    def mask_png(self, prediction: Prediction) -> bytes:
        """The mask as `monai-thyroid predict` writes it."""
        file = io.BytesIO()
        save_label(prediction.mask, file, classes=len(self.model.classes))
        return file.getvalue()

    def overlay_png(self, prediction: Prediction, fill: float) -> bytes:
        """The image with outlines as `monai-thyroid predict` draws them, and filled."""
        file = io.BytesIO()
        Image.fromarray(overlay(self.raster.normalised(), prediction.mask, fill=fill)).save(
            file, "PNG", pnginfo=png_mark()
        )
        return file.getvalue()

    def dicom(self, opened: Opened) -> dict[str, bytes]:
        """Report (SR), segmentation (SEG, where anything was found) and picture (SC), by the model's own threshold.

        Raises:
            UserError: none can be written; says why.
        """
        if opened.source is None:
            raise UserError(opened.no_results)
        optional("highdicom", extra="dicom")
        from monai_thyroid.deploy.dicom import model_facts, results

        facts = model_facts(
            self.model.predictor.members, tta=self.model.predictor.tta, review_below=None, tissue_only=False
        )
        kinds = {"SR": "SR", "SEG": "SEG", "OT": "SC"}
        files = {}
        for one in results(opened.source, [self.at()], model=facts):
            file = io.BytesIO()
            one.save_as(file, enforce_file_format=True)
            files[kinds[one.Modality]] = file.getvalue()
        return files


@dataclass(frozen=True)
class Found:
    """What a mask says of a class.

    Attributes:
        name: of the class.
        row: as in predictions.csv, see `monai_thyroid.deploy.findings.findings`.
        regions: the largest first, at most five.
    """

    name: str
    row: dict[str, Any]
    regions: list[Region] = field(repr=False)


def warnings_of(record: RunRecord) -> list[str]:
    """What must be known before a score of a run is believed."""
    told = list(record.warnings or [])
    if _synthetic(record):
        told.insert(0, "Trained on synthetic images: its scores say nothing about patients.")
    if record.grouping in ("unknown", "leaky"):
        told.append(f"Patients in the split: {record.grouping}.")
    return told


def _synthetic(record: RunRecord) -> bool:
    return bool(record.synthetic) or record.dataset == "phantom"


@dataclass(frozen=True)
class Desk:
    """All that the pages stand on.

    Attributes:
        models: in the order that they were given, of different titles.
        runs: folders whose runs are listed.
    """

    models: Sequence[Served] = ()
    runs: Sequence[Path] = ()

    def listed(self) -> list[Listed]:
        """The runs, as they are now.

        Raises:
            UserError: see `list_runs`.
        """
        return list_runs(self.runs)


def open_desk(
    models: Sequence[str | Path | TrainedRun],
    runs: Sequence[str | Path] = (),
    *,
    device: str = "auto",
    runtime: str = "auto",
) -> Desk:
    """Load what the pages show.

    Raises:
        UserError: there is nothing to show, or a model or a folder cannot be used; all that was found.
    """
    problems = [] if models or runs else ["give at least one --model MODEL or --runs DIR"]
    served: list[Served] = []
    for run in models:
        try:
            served.append(Served(run, device=device, runtime=runtime))
        except UserError as error:
            name = str(run if isinstance(run, (str, Path)) else run.path)
            problems += [one if one.startswith(name) else f"{name}: {one}" for one in error.problems]
    problems += [f"--runs {run}: there is no such folder" for run in runs if not Path(run).expanduser().is_dir()]
    if problems:
        raise UserError(problems)
    by_title: dict[str, list[Served]] = {}
    for one in served:
        by_title.setdefault(one.title, []).append(one)
    for same in by_title.values():
        if len(same) > 1:
            for one, word in zip(same, _told_apart([one.path.resolve() for one in same]), strict=True):
                one.title += f" ({word})"
    return Desk(served, [Path(run).expanduser() for run in runs])


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """The last part of some paths in which all differ, else their numbers."""
    for parts in zip(*(reversed(path.parts) for path in paths), strict=False):
        if len(set(parts)) == len(parts):
            return list(parts)
    return [str(number) for number in range(1, len(paths) + 1)]
