"""What every result takes over from its source (patient and study, nothing else) and says of its own."""

from __future__ import annotations

import datetime
import logging
import re
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from monai_thyroid import __version__
from monai_thyroid.deploy.dicom.facts import ModelFacts, result_uid
from monai_thyroid.deploy.dicom.source import Source
from monai_thyroid.errors import UserError
from monai_thyroid.images.marks import MARK

__all__ = ["RESEARCH", "SOFTWARE", "Kind", "finish", "identity", "new_object", "reference"]

logger = logging.getLogger(__name__)

RESEARCH = "Research use only. Not for diagnosis. Made by a program, not seen by a physician."
SOFTWARE = f"monai_thyroid {__version__}"

_OPTIONAL = "IssuerOfPatientID PatientAge PatientSize PatientWeight StudyDescription".split()
_REQUIRED = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
"""Present in every object, empty where they are not known."""
_SHAPES = {
    "PatientBirthDate": r"\d{8}",
    "StudyDate": r"\d{8}",
    "StudyTime": r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?",
    "PatientSex": "[MFO]",
    "PatientAge": r"\d{3}[DWMY]",
    "PatientSize": r"(?=.*[1-9])\d{1,3}(\.\d{1,6})?",
    "PatientWeight": r"(?=.*[1-9])\d{1,3}(\.\d{1,6})?",
}
_UNICODE = "ISO_IR 192"


class Kind:
    """One kind of result: a series of its own.

    Args:
        word: names it in UIDs.
        modality: of its series.
        series_number: of its series.
        title: for people.
    """

    def __init__(self, word: str, modality: str, series_number: int, title: str) -> None:
        self.word, self.modality, self.series_number, self.title = word, modality, series_number, title

    def sop_instance_uid(self, source: Source, facts: ModelFacts) -> str:
        """The same for the same image, weights and settings, so that whoever makes it again makes the same object."""
        return result_uid(self.word, str(source.dataset.SOPInstanceUID), facts.fingerprint)

    def series_instance_uid(self, source: Source, facts: ModelFacts) -> str:
        """One series for the results of all images of a series."""
        return result_uid(
            f"{self.word} series",
            str(source.dataset.StudyInstanceUID),
            str(source.dataset.SeriesInstanceUID),
            facts.fingerprint,
        )

    def equipment(self, source: Source, facts: ModelFacts) -> dict[str, Any]:
        """What highdicom's objects take of the series and of what made it."""
        return {
            "series_instance_uid": self.series_instance_uid(source, facts),
            "series_number": self.series_number,
            "sop_instance_uid": self.sop_instance_uid(source, facts),
            "instance_number": instance_number(source),
            "manufacturer": facts.manufacturer,
            "manufacturer_model_name": facts.name,
            "software_versions": [facts.version, SOFTWARE],
            "device_serial_number": facts.weights_sha256,
        }

    def description(self, facts: ModelFacts) -> str:
        """Of the series."""
        return f"{self.title}, research only: {facts.name}"[:64].rstrip()


def identity(source: Source, *, tell: bool = False) -> Dataset:
    """The patient and the study of an image, in Unicode; nothing else of what its header holds.

    A value that is not of its kind, such as a birth date in words, is left empty.

    Args:
        source: the image.
        tell: log a warning of each value that is left empty, without the value.

    Raises:
        UserError: one cannot be read.
    """
    result = Dataset()
    result.SpecificCharacterSet = _UNICODE
    result.StudyInstanceUID = str(source.dataset.StudyInstanceUID)
    for keyword in (*_REQUIRED, *_OPTIONAL):
        text = _text(source, keyword)
        if text and keyword in _SHAPES and not re.fullmatch(_SHAPES[keyword], text):
            if tell and keyword in _REQUIRED:
                logger.warning("%s: its %s is not valid and is left empty in the results", source.name, keyword)
            text = ""
        if text or keyword in _REQUIRED:
            setattr(result, keyword, text)
    return result


def _text(source: Source, keyword: str) -> str:
    try:
        value = source.dataset.get(keyword)
        if value is None:
            return ""
        several = isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue"
        text = "/".join(map(str, value)) if several else str(value)
        text.encode("utf-8")
    except Exception as error:
        raise UserError(f"{source.name}: its {keyword} cannot be read ({type(error).__name__})") from error
    # What one of the source's own character sets may hold, but a text of one line may not.
    return "".join(one if one.isprintable() and one != "\\" else " " for one in text).strip()


def reference(source: Source, *, frames: list[int] | None = None) -> Dataset:
    """A reference to an image, or to some of its frames, counted from 1."""
    item = Dataset()
    item.ReferencedSOPClassUID = str(source.dataset.SOPClassUID)
    item.ReferencedSOPInstanceUID = str(source.dataset.SOPInstanceUID)
    if frames is not None:
        item.ReferencedFrameNumber = frames if len(frames) > 1 else frames[0]
    return item


def new_object(source: Source, facts: ModelFacts, *, kind: Kind, sop_class: str) -> Dataset:
    """An object of results with everything but its content."""
    result = identity(source)
    result.file_meta = FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    result.SOPClassUID = sop_class
    result.SOPInstanceUID = kind.sop_instance_uid(source, facts)
    result.file_meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    result.Modality = kind.modality
    result.SeriesInstanceUID = kind.series_instance_uid(source, facts)
    result.SeriesNumber = kind.series_number
    result.InstanceNumber = instance_number(source)
    now = datetime.datetime.now()
    result.ContentDate, result.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    result.InstanceCreationDate, result.InstanceCreationTime = result.ContentDate, result.ContentTime
    result.Manufacturer = facts.manufacturer
    result.ManufacturerModelName = facts.name
    result.DeviceSerialNumber = facts.weights_sha256
    result.SoftwareVersions = [facts.version, SOFTWARE]
    return finish(result, facts, kind=kind)


def finish(result: Any, facts: ModelFacts, *, kind: Kind) -> Any:
    """What all results say, whoever has made them: for research, in Unicode, and by whom."""
    result.SpecificCharacterSet = _UNICODE
    result.ContentQualification = "RESEARCH"
    result.SeriesDescription = kind.description(facts)
    result.file_meta.ImplementationClassUID = UID(result_uid("implementation"))
    result.file_meta.ImplementationVersionName = MARK.decode()
    result.preamble = bytes(128)
    return result


def instance_number(source: Source) -> int:
    """Of the source where it is a usable one, else 1."""
    try:
        number = int(source.dataset.get("InstanceNumber") or 1)
    except Exception:
        return 1
    return number if 0 < number < 2**31 else 1
