"""The masks as a DICOM segmentation: by highdicom for one frame, by pydicom for several.

highdicom refuses images of several frames without a Frame of Reference, which ultrasound has none of. PS3.3 A.51.5.1
allows them: each frame of the segmentation then tells by its Derivation Image which frame of the source it is of.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.sr.coding import Code
from pydicom.tag import Tag

from monai_thyroid import __version__
from monai_thyroid.deploy.dicom.facts import ClassFacts, ModelFacts, result_uid
from monai_thyroid.deploy.dicom.header import Kind, finish, identity, new_object, reference
from monai_thyroid.deploy.dicom.source import Source
from monai_thyroid.drawing import CLASSES, rgb
from monai_thyroid.errors import optional

__all__ = ["ANNOTATION", "SEGMENTATION", "SegmentFrames", "annotation", "segmentation"]

SEGMENTATION = Kind("SEG", "SEG", 9102, "Segmentation")
ANNOTATION = Kind("annotation", "SEG", 9104, "Annotation")
_SOP_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
SegmentFrames = dict[tuple[int, int], int]
"""By frame of the source and number of the class, both from 1, the frame of the segmentation, from 1."""


def segmentation(
    source: Source, facts: ModelFacts, masks: Sequence[np.ndarray]
) -> tuple[Dataset | None, SegmentFrames]:
    """The segmentation of an image, its segments numbered as the classes are.

    Frames in which a class is empty are left out, as is usual. Where everything is empty there is no segmentation: the
    standard wants at least one frame, and one of zeros would say nothing that the report does not say in words.

    Args:
        source: the image.
        facts: of the model.
        masks: class numbers, (height, width), of each frame.

    Returns:
        The object, or None where nothing was found; and where what is in it.
    """
    planes = [
        (frame, number, mask == number)
        for frame, mask in enumerate(masks, 1)
        for number in range(1, len(facts.classes) + 1)
        if (mask == number).any()
    ]
    if not planes:
        return None, {}
    places = {(frame, number): index for index, (frame, number, _) in enumerate(planes, 1)}
    if len(masks) == 1:
        return _single(source, facts, masks[0]), places
    return _several(source, facts, planes), places


def annotation(source: Source, mask: np.ndarray, *, classes: Sequence[ClassFacts]) -> Dataset:
    """What a person has drawn on an image of one frame, or has corrected: a new object of a new series each time.

    Where nothing is marked it has one frame of zeros, so that it is known that the image was looked at.

    Args:
        source: the image.
        mask: class numbers, (height, width).
        classes: in the order of their numbers, from 1.
    """
    facts = ModelFacts(
        name="annotation",
        version=__version__,
        weights_sha256=hashlib.sha256(uuid.uuid4().bytes).hexdigest(),
        classes=tuple(classes),
    )
    planes = [(1, number, mask == number) for number in range(1, len(classes) + 1) if (mask == number).any()]
    return _several(source, facts, planes or [(1, 1, mask > 0)], kind=ANNOTATION)


def _single(source: Source, facts: ModelFacts, mask: np.ndarray) -> Dataset:
    highdicom = optional("highdicom", extra="dicom")
    result = highdicom.seg.Segmentation(
        source_images=[_plain(source)],
        pixel_array=np.stack([mask == number for number in range(1, len(facts.classes) + 1)], axis=-1)[None],
        segmentation_type="BINARY",
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=one.name[:64],
                segmented_property_category=one.category,
                segmented_property_type=one.type,
                algorithm_type="AUTOMATIC",
                algorithm_identification=highdicom.AlgorithmIdentificationSequence(
                    name=facts.name, version=facts.version, family=_FAMILY, parameters=facts.parameters
                ),
                anatomic_regions=None if one.site is None else [one.site],
                display_color=highdicom.color.CIELabColor.from_rgb(*rgb(_colour(number))),
            )
            for number, one in enumerate(facts.classes, 1)
        ],
        **SEGMENTATION.equipment(source, facts),
        content_description=_DESCRIPTION,
        content_label=_LABEL,
    )
    result.PatientOrientation = None  # not known
    return finish(result, facts, kind=SEGMENTATION)


def _several(
    source: Source, facts: ModelFacts, planes: Sequence[tuple[int, int, np.ndarray]], *, kind: Kind = SEGMENTATION
) -> Dataset:
    result = new_object(source, facts, kind=kind, sop_class=_SOP_CLASS)
    result.ImageType, result.PatientOrientation = ["DERIVED", "PRIMARY"], None
    result.ContentLabel, result.ContentDescription, result.ContentCreatorName = _LABEL, _DESCRIPTION, None
    result.SamplesPerPixel, result.PhotometricInterpretation = 1, "MONOCHROME2"
    result.Rows, result.Columns = source.height, source.width
    result.BitsAllocated = result.BitsStored = 1
    result.HighBit = result.PixelRepresentation = 0
    result.LossyImageCompression = "01" if str(source.dataset.get("LossyImageCompression")) == "01" else "00"
    if result.LossyImageCompression == "01":
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if source.dataset.get(keyword):
                setattr(result, keyword, source.dataset.get(keyword))
    result.SegmentationType, result.SegmentsOverlap = "BINARY", "NO"
    result.SegmentSequence = Items(
        [_segment(number, one, facts, manual=kind is ANNOTATION) for number, one in enumerate(facts.classes, 1)]
    )
    organisation = result_uid("dimensions", str(result.SOPInstanceUID))
    result.DimensionOrganizationSequence = Items([_item(DimensionOrganizationUID=organisation)])
    result.DimensionIndexSequence = Items(
        [
            _item(
                DimensionOrganizationUID=organisation,
                DimensionIndexPointer=Tag(pointer),
                FunctionalGroupPointer=Tag(group),
                DimensionDescriptionLabel=label,
            )
            for pointer, group, label in (
                ("ReferencedSegmentNumber", "SegmentIdentificationSequence", "Segment"),
                ("TemporalPositionIndex", "FrameContentSequence", "Frame"),
            )
        ]
    )
    result.NumberOfFrames = len(planes)
    result.SharedFunctionalGroupsSequence = Items([Dataset()])
    result.PerFrameFunctionalGroupsSequence = Items([_groups(source, frame, number) for frame, number, _ in planes])
    result.ReferencedSeriesSequence = Items(
        [
            _item(
                SeriesInstanceUID=str(source.dataset.SeriesInstanceUID),
                ReferencedInstanceSequence=Items([reference(source)]),
            )
        ]
    )
    # One frame follows the other without a gap, also within a byte.
    bits = np.packbits(np.concatenate([mask.ravel() for *_, mask in planes]), bitorder="little").tobytes()
    result.PixelData = bits + bytes(len(bits) % 2)
    result["PixelData"].VR = "OB"
    return result


def _groups(source: Source, frame: int, number: int) -> Dataset:
    image = reference(source, frames=[frame])
    image.PurposeOfReferenceCodeSequence = Items([_coded(_SOURCE_IMAGE)])
    image.SpatialLocationsPreserved = "YES"
    derivation = _item(SourceImageSequence=Items([image]), DerivationCodeSequence=Items([_coded(_SEGMENTED)]))
    return _item(
        FrameContentSequence=Items([_item(TemporalPositionIndex=frame, DimensionIndexValues=[number, frame])]),
        DerivationImageSequence=Items([derivation]),
        SegmentIdentificationSequence=Items([_item(ReferencedSegmentNumber=number)]),
    )


def _segment(number: int, one: ClassFacts, facts: ModelFacts, *, manual: bool) -> Dataset:
    item = _item(
        SegmentNumber=number,
        SegmentLabel=one.name[:64],
        SegmentAlgorithmType="MANUAL" if manual else "AUTOMATIC",
        SegmentedPropertyCategoryCodeSequence=Items([_coded(one.category)]),
        SegmentedPropertyTypeCodeSequence=Items([_coded(one.type)]),
        RecommendedDisplayCIELabValue=_cielab(_colour(number)),
    )
    if not manual:
        item.SegmentAlgorithmName = facts.name
        algorithm = _item(
            AlgorithmFamilyCodeSequence=Items([_coded(_FAMILY)]),
            AlgorithmName=facts.name,
            AlgorithmVersion=facts.version,
            AlgorithmParameters="; ".join(f"{key}={value}" for key, value in facts.parameters.items()),
        )
        item.SegmentationAlgorithmIdentificationSequence = Items([algorithm])
    if one.site is not None:
        item.AnatomicRegionSequence = Items([_coded(one.site)])
    return item


def _plain(source: Source) -> Dataset:
    """The source as far as highdicom needs it, so that nothing else of its header gets anywhere."""
    plain = identity(source)
    plain.file_meta = source.dataset.file_meta
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Rows", "Columns", "Modality"):
        setattr(plain, keyword, source.dataset.get(keyword) or "OT")
    plain.Rows, plain.Columns = source.height, source.width
    for keyword in ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if source.dataset.get(keyword):
            setattr(plain, keyword, source.dataset.get(keyword))
    return plain


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _coded(code: Code) -> Dataset:
    return _item(CodeValue=code.value, CodingSchemeDesignator=code.scheme_designator, CodeMeaning=code.meaning)


def _colour(number: int) -> str:
    return CLASSES[(number - 1) % len(CLASSES)]


def _cielab(colour: str) -> list[int]:
    """A colour as DICOM's scaled CIELab, three 16-bit numbers (PS3.3 C.10.7.1.1)."""
    from skimage.color import rgb2lab

    lightness, a, b = rgb2lab(np.array(rgb(colour), float) / 255)
    return [round(lightness / 100 * 65535), round((a + 128) / 255 * 65535), round((b + 128) / 255 * 65535)]


_LABEL, _DESCRIPTION = "RESEARCH", "Segmentation for research only"
_FAMILY = Code("123109", "DCM", "Artificial Intelligence")
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")
_SEGMENTED = Code("113076", "DCM", "Segmentation")
