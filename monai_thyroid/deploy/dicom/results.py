"""All results of one image together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from pydicom.dataset import Dataset

from monai_thyroid.deploy.dicom.capture import FrameText, capture, drawn, encoded
from monai_thyroid.deploy.dicom.facts import ModelFacts
from monai_thyroid.deploy.dicom.header import identity
from monai_thyroid.deploy.dicom.measure import Region, regions_of
from monai_thyroid.deploy.dicom.report import ClassFindings, report
from monai_thyroid.deploy.dicom.segmentation import segmentation
from monai_thyroid.deploy.dicom.source import Source
from monai_thyroid.errors import UserError, optional
from monai_thyroid.evaluation.predictor import Prediction

__all__ = ["results", "to_review"]

_MOST_REGIONS = 20
"""Of a class and frame, measured one by one; a mask of noise has thousands."""
_MOST_OF_ALL = 200
"""Of all frames together, but for one of each: every one makes a report longer."""
_MOST_LINES = 6
"""Of findings below a picture."""


def to_review(prediction: Prediction, below: float | None) -> bool:
    """Whether the members of an ensemble agree by less than that on any class, all of which are looked at together."""
    return below is not None and prediction.agreement is not None and min(prediction.agreement) < below


def results(
    source: Source, predictions: Iterable[Prediction], *, model: ModelFacts, review_below: float | None = None
) -> list[Dataset]:
    """A report (SR), a segmentation (SEG) and a picture (SC) of an image, ready to be saved or sent.

    They are new series of the image's study. The same image and weights give the same UIDs. The SEG is left out where
    nothing was found in any frame, which the SR then says; see `segmentation`.

    Args:
        source: the image.
        predictions: one for each frame, in order; taken one by one, so they may be made as they are asked for.
        model: what made them.
        review_below: agreement of an ensemble below which a frame is marked for review in SR and SC; None for never.

    Raises:
        UserError: the extra ``dicom`` is not installed, the predictions are not of the image and the model, a frame
            cannot be decoded, or the image's header cannot be taken over.
    """
    optional("highdicom", extra="dicom")
    if review_below is not None and not 0 <= review_below <= 1:
        raise UserError(f"review_below {review_below}: give a number between 0 and 1")
    identity(source, tell=True)  # before any work
    count = len(source.frames)
    most = min(_MOST_REGIONS, max(1, _MOST_OF_ALL // (count * len(model.classes))))
    masks: list[np.ndarray] = []
    findings: list[ClassFindings] = []
    pictures: list[np.ndarray | bytes] = []
    shape = (0, 0)
    for frame, prediction in enumerate(predictions, 1):
        if frame > count or prediction.mask.shape != (source.height, source.width):
            raise UserError(f"{source.name}: the predictions are not of its {count} frames")
        if len(prediction.probabilities) != len(model.classes):
            raise UserError(
                f"{source.name}: predictions of {len(prediction.probabilities)} classes, but the model's facts name "
                f"{len(model.classes)}"
            )
        found = [
            _found(prediction, frame, number, source=source, most=most, review_below=review_below)
            for number in range(1, len(model.classes) + 1)
        ]
        picture = _picture(source, frame, prediction, found, model=model)
        shape = picture.shape[0], picture.shape[1]
        pictures.append(encoded(picture) if count > 1 else picture)
        masks.append(prediction.mask.astype(np.uint8))
        findings += found
    if len(masks) != count:
        raise UserError(f"{source.name}: {len(masks)} predictions of {count} frames")
    try:
        segmented, places = segmentation(source, model, masks)
        told = report(source, model, findings, segmented=segmented, places=places, review_below=review_below)
        shown = capture(source, model, pictures, shape=shape)
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
        # What a header may hold is more than anyone can foresee, and a result that contradicts it must not be sent.
        raise UserError(
            f"{source.name}: no results can be written for it, its header is not as DICOM has it "
            f"({type(error).__name__})"
        ) from error
    return [told, *([] if segmented is None else [segmented]), shown]


def _found(
    prediction: Prediction, frame: int, number: int, *, source: Source, most: int, review_below: float | None
) -> ClassFindings:
    mask = prediction.mask == number
    regions, count = regions_of(mask, spacing=source.spacing, most=most)
    pixel = 1.0 if source.spacing is None else source.spacing[0] * source.spacing[1]
    agreement = None if prediction.agreement is None else prediction.agreement[number - 1]
    return ClassFindings(
        frame=frame,
        number=number,
        area=float(np.count_nonzero(mask)) * pixel,
        count=count,
        regions=regions,
        mean_probability=float(prediction.probabilities[number - 1][mask].mean()) if count else None,
        agreement=agreement,
        review=to_review(prediction, review_below),
    )


def _picture(
    source: Source, frame: int, prediction: Prediction, found: list[ClassFindings], *, model: ModelFacts
) -> np.ndarray:
    regions: list[tuple[int, Region]] = [(one.number, region) for one in found for region in one.regions]
    area, length = ("mm²", "mm") if source.spacing else ("pixels", "pixels")
    lines: list[tuple[int, str]] = []
    for one in found:
        name = model.classes[one.number - 1].name
        if not one.count:
            lines.append((one.number, f"{name}: none found"))
    for index, (number, region) in enumerate(regions, 1):
        mark = f" {index}" if len(regions) > 1 else ""
        lines.append(
            (
                number,
                f"{model.classes[number - 1].name}{mark}: {region.area:.4g} {area}, "
                f"{region.long_axis:.3g} x {region.short_axis:.3g} {length}",
            )
        )
    hidden = sum(one.count - len(one.regions) for one in found)
    if len(lines) + bool(hidden) > _MOST_LINES:
        hidden += len(lines) - _MOST_LINES + 1
        regions = regions[: max(0, len(regions) - (len(lines) - _MOST_LINES + 1))]  # numbers would cover specks
        lines = lines[: _MOST_LINES - 1]
    if hidden:
        lines.append((0, f"and {hidden} more, see the segmentation"))
    if source.spacing is None:
        lines.append((0, "no lengths in mm; the report says why"))
    low = None if not found[0].review else min(one.agreement for one in found if one.agreement is not None)
    review = None if low is None else f"REVIEW: members of the ensemble disagree (Dice {low:.2f})"
    room = _MOST_LINES + 1 if len(source.frames) > 1 else len(lines)
    return drawn(source.frames[frame - 1], prediction.mask, regions, FrameText(lines, review), facts=model, lines=room)
