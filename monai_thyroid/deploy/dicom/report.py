"""What was found, as a structured report by the template of measurements (TID 1500)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code

from monai_thyroid.deploy.dicom.facts import OWN_SCHEME, ModelFacts, result_uid
from monai_thyroid.deploy.dicom.header import RESEARCH, Kind, finish, identity
from monai_thyroid.deploy.dicom.measure import Region
from monai_thyroid.deploy.dicom.segmentation import SegmentFrames
from monai_thyroid.deploy.dicom.source import Source
from monai_thyroid.errors import optional

__all__ = ["REPORT", "ClassFindings", "report"]

REPORT = Kind("SR", "SR", 9101, "Measurements")


@dataclass(frozen=True)
class ClassFindings:
    """What was found of one class in one frame.

    Attributes:
        frame: of the source, from 1.
        number: of the class, from 1.
        area: of all regions together, in mm² or pixels.
        count: how many regions there are.
        regions: the largest of them.
        mean_probability: inside of the mask; None for an empty one.
        agreement: of an ensemble, see `Prediction`.
        review: whether the agreement is too low.
    """

    frame: int
    number: int
    area: float
    count: int
    regions: list[Region]
    mean_probability: float | None
    agreement: float | None
    review: bool


def report(
    source: Source,
    facts: ModelFacts,
    findings: Sequence[ClassFindings],
    *,
    segmented: Dataset | None,
    places: SegmentFrames,
    review_below: float | None,
) -> Dataset:
    """The report on one image.

    A group for each frame and class in which something was found refers to the frame of the segmentation and holds what
    is true of all regions together; a group for each region holds its outline, area and diameters (TID 1410 allows one
    reference a group, hence two kinds). What was not found is said to be absent.

    Args:
        source: the image.
        facts: of the model.
        findings: of every frame and class.
        segmented: the segmentation, None where nothing was found.
        places: what is where in it.
        review_below: agreement below which an image is marked, for the words that say so.
    """
    highdicom = optional("highdicom", extra="dicom")
    writer = _Writer(highdicom.sr, source, facts, segmented, places)
    groups: list[Any] = []
    absent: dict[tuple[int, bool], list[ClassFindings]] = {}
    for one in findings:
        if one.count:
            groups += writer.present(one)
        else:
            absent.setdefault((one.number, one.review), []).append(one)
    groups += [writer.absent(several) for several in absent.values()]
    sr = highdicom.sr
    content = sr.MeasurementReport(
        observation_context=sr.ObservationContext(
            observer_device_context=sr.ObserverContext(
                observer_type=_DEVICE,
                observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                    uid=result_uid("device", facts.weights_sha256),
                    name=facts.name,
                    manufacturer_name=facts.manufacturer,
                    model_name=facts.name,
                    serial_number=facts.weights_sha256,
                ),
            )
        ),
        procedure_reported=_PROCEDURE,
        imaging_measurements=groups,
        title=_TITLE,
    )
    words = [RESEARCH, f"Lengths and areas: {_measured(source)}."]
    if source.tissue_only:
        words.append("Everything outside of the ultrasound region was blackened before.")
    if marked := sorted({one.frame for one in findings if one.review}):
        where = f" Frames: {', '.join(map(str, marked))}." if len(source.frames) > 1 else ""
        words.append(f"To be reviewed: members of the ensemble agree by less than {review_below:g} (Dice).{where}")
    if left_out := sum(one.count - len(one.regions) for one in findings):
        words.append(f"{left_out} small regions are in the segmentation and in the sums, but not listed one by one.")
    if not all(region.exact for one in findings for region in one.regions):
        words.append("Outlines of very many corners are simplified; the segmentation has the exact ones.")
    for text in words:
        # TID 1500 is extensible; it has no place of its own for a qualification of the whole report.
        content[0].ContentSequence.append(
            sr.TextContentItem(name=_COMMENT, value=text, relationship_type=sr.RelationshipTypeValues.CONTAINS)
        )
    plain = _evidence(source)
    result = sr.ComprehensiveSR(
        evidence=[plain, *([] if segmented is None else [segmented])],
        content=content[0],
        **REPORT.equipment(source, facts),
        is_complete=True,
        is_final=False,
        is_verified=False,
    )
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = OWN_SCHEME, "Codes of monai_thyroid"
    scheme.CodingSchemeResponsibleOrganization = "monai_thyroid"
    result.CodingSchemeIdentificationSequence = Items([scheme])
    return finish(result, facts, kind=REPORT)


class _Writer:
    def __init__(
        self, sr: Any, source: Source, facts: ModelFacts, segmented: Dataset | None, places: SegmentFrames
    ) -> None:
        self.sr, self.source, self.facts, self.segmented, self.places = sr, source, facts, segmented, places
        self.several = len(source.frames) > 1
        self.area_unit, self.length_unit = (_MM2, _MM) if source.spacing else (_PIXELS, _PIXELS)

    def present(self, one: ClassFindings) -> list[Any]:
        """The group of all regions of a class in a frame, and one for each region."""
        assert self.segmented is not None
        facts = self.facts.classes[one.number - 1]
        image = (str(self.source.dataset.SOPClassUID), str(self.source.dataset.SOPInstanceUID))
        frames = [one.frame] if self.several else None
        where = f" in frame {one.frame}" if self.several else ""
        measurements = [
            self._measurement(_AREA, one.area, self.area_unit),
            self._measurement(_COUNT, one.count, _NO_UNIT),
        ]
        if one.mean_probability is not None:
            measurements.append(self._measurement(_PROBABILITY, round(one.mean_probability, 5), _NO_UNIT))
        reference = self.sr.ReferencedSegmentationFrame(
            sop_class_uid=str(self.segmented.SOPClassUID),
            sop_instance_uid=str(self.segmented.SOPInstanceUID),
            frame_number=self.places[one.frame, one.number],
            segment_number=one.number,
            source_image=self.sr.SourceImageForSegmentation(*image, referenced_frame_numbers=frames),
        )
        # highdicom writes both; PS3.3 C.18.4 has the number of the segment only where there is none of the frame.
        del reference[0].ReferencedSOPSequence[0].ReferencedSegmentNumber
        groups = [
            self.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                referenced_segment=reference,
                measurements=[*measurements, *self._agreement(one)],
                **self._same(one, f"{facts.name}{where}", _PRESENT),
            )
        ]
        for index, region in enumerate(one.regions, 1):
            groups.append(
                self.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
                    referenced_region=self.sr.ImageRegion(
                        graphic_type="POLYLINE",
                        graphic_data=region.outline,
                        source_image=self.sr.SourceImageForRegion(*image, referenced_frame_numbers=frames),
                    ),
                    measurements=[
                        self._measurement(_AREA, region.area, self.area_unit),
                        self._measurement(_LONG_AXIS, region.long_axis, self.length_unit),
                        self._measurement(_SHORT_AXIS, region.short_axis, self.length_unit),
                    ],
                    **self._same(one, f"{facts.name} {index}{where}", _PRESENT),
                )
            )
        return groups

    def absent(self, findings: Sequence[ClassFindings]) -> Any:
        """The group that says that a class was not found, for all frames of which this is true."""
        first = findings[0]
        frames = [one.frame for one in findings] if self.several else None
        where = f" in {len(findings)} frames" if self.several else ""
        known = [one.agreement for one in findings if one.agreement is not None]
        measurements = [self._measurement(_AREA, 0, self.area_unit), self._measurement(_COUNT, 0, _NO_UNIT)]
        if known:
            measurements.append(self._measurement(_AGREEMENT, round(min(known), 5), _NO_UNIT))
        image = (str(self.source.dataset.SOPClassUID), str(self.source.dataset.SOPInstanceUID))
        return self.sr.MeasurementsAndQualitativeEvaluations(
            measurements=measurements,
            source_images=[self.sr.SourceImageForMeasurementGroup(*image, referenced_frame_numbers=frames)],
            **self._same(first, f"no {self.facts.classes[first.number - 1].name}{where}", _ABSENT),
        )

    def _same(self, one: ClassFindings, words: str, presence: Code) -> dict[str, Any]:
        """What all groups have."""
        facts = self.facts.classes[one.number - 1]
        evaluations = [self.sr.QualitativeEvaluation(_PRESENCE, presence)]
        if one.review:
            evaluations.append(self.sr.QualitativeEvaluation(_REVIEW, _NEEDED))
        uid = result_uid("tracking", str(self.source.dataset.SOPInstanceUID), self.facts.fingerprint, words)
        return {
            "tracking_identifier": self.sr.TrackingIdentifier(uid=uid, identifier=words),
            "finding_category": facts.category,
            "finding_type": facts.type,
            "finding_sites": None if facts.site is None else [self.sr.FindingSite(facts.site)],
            "algorithm_id": self.sr.AlgorithmIdentification(
                name=self.facts.name,
                version=self.facts.version,
                parameters=[f"{key}={value}" for key, value in self.facts.parameters.items()],
            ),
            "qualitative_evaluations": evaluations,
        }

    def _agreement(self, one: ClassFindings) -> list[Any]:
        return [] if one.agreement is None else [self._measurement(_AGREEMENT, round(one.agreement, 5), _NO_UNIT)]

    def _measurement(self, name: Code, value: float, unit: Code) -> Any:
        return self.sr.Measurement(name=name, value=float(f"{value:.6g}"), unit=unit)


def _evidence(source: Source) -> Dataset:
    plain = identity(source)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        setattr(plain, keyword, str(source.dataset.get(keyword)))
    return plain


def _measured(source: Source) -> str:
    if source.spacing is None:
        return f"in pixels, as {source.spacing_note}"
    y, x = source.spacing
    return f"in mm, {source.spacing_note} ({y:.6g} mm down, {x:.6g} mm across a pixel)"


_DEVICE = Code("121007", "DCM", "Device")
_TITLE = Code("126000", "DCM", "Imaging Measurement Report")
_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")
_COMMENT = Code("121106", "DCM", "Comment")
_PRESENCE = Code("121052", "DCM", "Presence of property")
_PRESENT = Code("52101004", "SCT", "Present")
_ABSENT = Code("272519000", "SCT", "Absent")
_AREA = Code("42798000", "SCT", "Area")
_LONG_AXIS = Code("103339001", "SCT", "Long Axis")
_SHORT_AXIS = Code("103340004", "SCT", "Short Axis")
_MM, _MM2 = Code("mm", "UCUM", "millimeter"), Code("mm2", "UCUM", "square millimeter")
_PIXELS, _NO_UNIT = Code("{pixels}", "UCUM", "pixels"), Code("1", "UCUM", "no units")
_COUNT = Code("REGIONS", OWN_SCHEME, "Number of separate regions")
_PROBABILITY = Code("PROBABILITY", OWN_SCHEME, "Mean probability inside of the mask")
_AGREEMENT = Code("AGREEMENT", OWN_SCHEME, "Mean Dice of all pairs of members of the ensemble")
_REVIEW = Code("REVIEW", OWN_SCHEME, "Review by a person")
_NEEDED = Code("REVIEW_NEEDED", OWN_SCHEME, "Needed: the members of the ensemble disagree")
