"""DICOM images in; reports, segmentations and pictures of results out, as new series of the same study."""

from __future__ import annotations

from monai_thyroid.deploy.dicom.facts import ClassFacts, ModelFacts, coded_class, model_facts
from monai_thyroid.deploy.dicom.results import results, to_review
from monai_thyroid.deploy.dicom.segmentation import annotation
from monai_thyroid.deploy.dicom.source import (
    IMAGE_CLASSES,
    OTHER_CLASSES,
    Source,
    check_kind,
    check_source,
    keep_patients_out_of_logs,
    read_source,
)

__all__ = [
    "IMAGE_CLASSES",
    "OTHER_CLASSES",
    "ClassFacts",
    "ModelFacts",
    "Source",
    "annotation",
    "check_kind",
    "check_source",
    "coded_class",
    "keep_patients_out_of_logs",
    "model_facts",
    "read_source",
    "results",
    "to_review",
]
