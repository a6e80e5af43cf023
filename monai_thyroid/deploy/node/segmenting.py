"""A model applied to one DICOM instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monai_thyroid.deploy.node.spool import Segmented
from monai_thyroid.errors import UserError, optional

if TYPE_CHECKING:
    from monai_thyroid.deploy.dicom import Source
    from monai_thyroid.evaluation.predictor import Prediction

__all__ = ["Segmenter"]


class Segmenter:
    """Reads an instance, segments it frame by frame, and makes its results.

    Args:
        models: run folders or packed bundles, several as an ensemble.
        device: see `Predictor`.
        runtime: see `Predictor`.
        tta: see `Predictor`.
        review_below: agreement of an ensemble below which a result is marked for review.
        tissue_only: blacken what lies outside of the ultrasound regions that show tissue.

    Attributes:
        model: SHA-256 of the weights and of all settings that decide the results.

    Raises:
        UserError: a model cannot be used, one alone has no agreement, or the extra ``dicom`` is not installed.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        device: str = "auto",
        runtime: str = "auto",
        tta: bool = False,
        review_below: float | None = None,
        tissue_only: bool = False,
    ) -> None:
        from monai_thyroid.deploy.dicom import model_facts
        from monai_thyroid.evaluation.predictor import Predictor

        optional("highdicom", extra="dicom")
        self._predictor = Predictor(models, device=device, runtime=runtime, tta=tta)
        if review_below is not None and not (len(self._predictor.members) > 1 and 0 <= review_below <= 1):
            raise UserError(
                f"--review-below {review_below:g}: is a Dice between 0 and 1, for an ensemble; add models by --with"
            )
        self._facts = model_facts(self._predictor.members, tta=tta, review_below=review_below, tissue_only=tissue_only)
        self.model = self._facts.fingerprint
        self._review_below, self._tissue_only = review_below, tissue_only
        # Whatever else is wrong with the network shows here, and not with the first patient.
        self._predictor(np.zeros((64, 64), np.uint8))

    def __call__(self, path: Path) -> Segmented:
        """Segment the instance in a file.

        Raises:
            UserError: it cannot be segmented.
        """
        from monai_thyroid.deploy.dicom import read_source, results

        source = read_source(path, tissue_only=self._tissue_only)
        seen = _Seen(source, self._review_below)
        datasets = results(
            source,
            seen.of(self._predictor(frame) for frame in source.frames),
            model=self._facts,
            review_below=self._review_below,
        )
        return seen.summary(datasets)


class _Seen:
    """Counts along with the frames, none of which is kept."""

    def __init__(self, source: Source, review_below: float | None) -> None:
        self._spacing, self._review_below = source.spacing, review_below
        self._areas: list[int] = []
        self._agreements: list[float] = []
        self._review = False

    def of(self, predictions: Iterator[Prediction]) -> Iterator[Prediction]:
        from monai_thyroid.deploy.dicom import to_review

        for prediction in predictions:
            self._areas.append(int(np.count_nonzero(prediction.mask)))
            if prediction.agreement is not None:
                self._agreements.append(float(np.mean(prediction.agreement)))
            self._review |= to_review(prediction, self._review_below)
            yield prediction

    def summary(self, datasets: Sequence[Any]) -> Segmented:
        area = float(np.mean(self._areas))
        return Segmented(
            datasets=datasets,
            images=len(self._areas),
            empty=sum(not each for each in self._areas),
            area_px=area,
            area_mm2=None if self._spacing is None else area * self._spacing[0] * self._spacing[1],
            agreement=float(np.mean(self._agreements)) if self._agreements else None,
            review=self._review,
        )
