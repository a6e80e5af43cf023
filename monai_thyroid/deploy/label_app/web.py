"""Images of a DICOMweb server: which series are one image each, fetching them, sending what was drawn."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from monai_thyroid.deploy.dicom import annotation, check_kind, check_source, coded_class
from monai_thyroid.deploy.label_app.studies import NO_IMAGES, group_of_patient, save_picture
from monai_thyroid.errors import UserError, optional
from monai_thyroid.files import atomic_path
from monai_thyroid.images import ForeignMask, read_foreign_mask

__all__ = ["Series", "WebStudies", "web_client"]

_PAGE = 100
_PATIENCE = (10, 60)
"""Seconds to wait for a connection, and for an answer."""
_NEWER = int(pydicom.__version__.partition(".")[0]) >= 3
_FIELDS = ["SOPClassUID", "SOPInstanceUID", "NumberOfFrames", "ImageType"]


@dataclass(frozen=True)
class Series:
    """A series that is one image.

    Attributes:
        study: its Study Instance UID.
        series: its Series Instance UID.
        instance: its SOP Instance UID.
        modality: of the series.
        patient: what stands for the patient, see `group_of_patient`; empty where it is not told.
    """

    study: str
    series: str
    instance: str
    modality: str
    patient: str


def web_client(url: str, *, user: str = "", password: str = "") -> Any:
    """A client of a DICOMweb server.

    Raises:
        UserError: it is no URL of one.
    """
    web = optional("dicomweb_client", extra="dicom")
    sessions = optional("dicomweb_client.session_utils", extra="dicom")
    log_in = user and password
    session = sessions.create_session_from_user_pass(user, password) if log_in else sessions.create_session()
    session.request = functools.partial(session.request, timeout=_PATIENCE)  # release 0.60 takes none
    try:
        client = web.DICOMwebClient(url, session=session, permissive_uid=True)
    except ValueError as error:
        raise UserError(f"studies {url}: is no URL of a DICOMweb server ({error})") from error
    client.set_http_retry_params(retry=False)
    return client


class WebStudies:
    """What MONAI Label's server needs of a DICOMweb server.

    Args:
        client: see `web_client`.
        filters: of QIDO-RS, which series are looked at, such as ``{"Modality": "US"}``.
        classes: names of the classes 1, 2, ...

    Attributes:
        refused: by Series Instance UID why a series is no image to label, as of the last look.
    """

    def __init__(self, client: Any, *, filters: Mapping[str, Any], classes: Sequence[str]) -> None:
        self._client, self._filters, self._classes = client, dict(filters), list(classes)
        self._known: dict[str, Series] = {}
        self._seen: set[str] = set()
        self.refused: dict[str, str] = {}

    def series(self) -> dict[str, Series]:
        """The series that are one image each, by Series Instance UID, in order.

        Raises:
            UserError: the server cannot be reached, or does not answer as DICOMweb has it.
        """
        found: dict[str, Series] = {}
        with _telling(self._client):
            for header in self._pages(self._client.search_for_series, search_filters=self._filters):
                uid, modality = str(header.SeriesInstanceUID), str(header.get("Modality") or "")
                if modality in NO_IMAGES or uid in self.refused:
                    continue
                if uid not in self._known:
                    self._look(header, uid, modality)
                if uid in self._known:
                    found[uid] = self._known[uid]
        return dict(sorted(found.items()))

    def fetch(self, uid: str, folder: Path) -> tuple[Series, Path]:
        """Fetch a series' image, where that was not done before; its file.

        Raises:
            UserError: it is no image to label, or cannot be fetched.
        """
        series = self._known.get(uid) or self.series().get(uid)
        if series is None:
            raise UserError(self.refused.get(uid, f"series {uid}: is not on the server"))
        target = folder / uid / f"{series.instance}.dcm"
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            with _telling(self._client):
                dataset = self._client.retrieve_instance(series.study, series.series, series.instance)
            with atomic_path(target) as temporary:
                _save(dataset, temporary)
        return series, target

    def picture(self, uid: str, folder: Path, target: Path) -> Series:
        """Write a series' image as PNG.

        Raises:
            UserError: as `fetch`, or it cannot be read.
        """
        series, file = self.fetch(uid, folder)
        source = check_source(str(file), file.read_bytes())
        save_picture(source.frames[0], target)
        return series

    def send(self, uid: str, folder: Path, mask: np.ndarray) -> str:
        """Send what was drawn on a series' image as DICOM SEG, a series of its own, whose UID is returned.

        Raises:
            UserError: as `fetch`, or the server does not take it.
        """
        _, file = self.fetch(uid, folder)
        source = check_source(str(file), file.read_bytes())
        drawn = annotation(source, mask, classes=[coded_class(name) for name in self._classes])
        if not _NEWER:
            drawn.is_little_endian, drawn.is_implicit_VR = True, False
        with _telling(self._client):
            answer = self._client.store_instances([drawn])
        there = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []}
        if str(drawn.SOPInstanceUID) not in there:
            raise UserError(f"series {uid}: the server did not take the segmentation, so the label is not saved")
        return str(drawn.SeriesInstanceUID)

    def drawn(self, folder: Path, *, but: Sequence[str]) -> dict[str, np.ndarray]:
        """By series the newest segmentation that a person has drawn, of whichever program, where one can be read.

        Segmentations by algorithm alone are no labels: a model's own are none to train it with. Each is looked at once.

        Args:
            folder: takes what is fetched.
            but: series whose segmentations are known.

        Raises:
            UserError: the server cannot be reached.
        """
        images = self.series()
        newest: dict[str, tuple[str, ForeignMask]] = {}
        looked: set[str] = set()
        with _telling(self._client):
            for header in self._pages(self._client.search_for_series, search_filters={"Modality": "SEG"}):
                study, series = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
                if series in self._seen:
                    continue
                looked.add(series)
                for dataset in self._client.retrieve_series_metadata(study, series):
                    told = _dataset(dataset)
                    of = [str(one.SeriesInstanceUID) for one in told.get("ReferencedSeriesSequence") or []]
                    kinds = {str(one.get("SegmentAlgorithmType")) for one in told.get("SegmentSequence") or []}
                    if len(of) != 1 or of[0] not in images or of[0] in but or kinds & {"AUTOMATIC", "None"}:
                        continue
                    when = f"{told.get('ContentDate')}{told.get('ContentTime')}"
                    if of[0] in newest and newest[of[0]][0] >= when:
                        continue
                    target = folder / f"{told.SOPInstanceUID}.dcm"
                    folder.mkdir(parents=True, exist_ok=True)
                    whole = self._client.retrieve_instance(study, series, str(told.SOPInstanceUID))
                    with atomic_path(target) as temporary:
                        _save(whole, temporary)
                    try:
                        newest[of[0]] = when, read_foreign_mask(target, classes=self._classes)
                    except UserError as error:
                        self.refused[series] = str(error)
        self._seen |= looked
        return {uid: mask.labels for uid, (_, mask) in newest.items()}

    def _look(self, header: Any, uid: str, modality: str) -> None:
        """Find out whether a series is one image."""
        study = str(header.StudyInstanceUID)
        instances = [_dataset(one) for one in self._client.search_for_instances(study, uid, limit=2, fields=_FIELDS)]
        name = f"series {uid}"
        try:
            if not instances:
                raise UserError(f"{name}: holds nothing")
            first = instances[0]
            first.Modality = modality
            check_kind(name, first)
            if len(instances) > 1:
                raise UserError(f"{name}: holds several images; only series of one image are labelled")
            if int(first.get("NumberOfFrames") or 1) > 1:
                raise UserError(f"{name}: is a loop of {first.NumberOfFrames} frames; only single images are labelled")
        except UserError as error:
            self.refused[uid] = str(error)
            return
        patient = str(header.get("PatientID") or "").strip()
        self._known[uid] = Series(
            study=study,
            series=uid,
            instance=str(first.SOPInstanceUID),
            modality=modality,
            patient=group_of_patient(patient) if patient else "",
        )

    @staticmethod
    def _pages(search: Any, **options: Any) -> Iterator[Any]:
        offset = 0
        while page := search(limit=_PAGE, offset=offset, **options):
            yield from map(_dataset, page)
            offset += len(page)
            if len(page) < _PAGE:
                return


@contextmanager
def _telling(client: Any) -> Iterator[None]:
    """Say in a sentence what went wrong with a server."""
    import requests

    try:
        yield
    except requests.HTTPError as error:
        raise UserError(f"studies {client.base_url}: answers HTTP {error.response.status_code}") from error
    except requests.JSONDecodeError as error:
        raise UserError(f"studies {client.base_url}: does not answer as DICOMweb does") from error
    except requests.RequestException as error:
        raise UserError(f"studies {client.base_url}: cannot be reached ({type(error).__name__})") from error


def _dataset(told: Any) -> Any:
    return pydicom.Dataset.from_json(told)


def _save(dataset: Any, path: Path) -> None:
    dataset.save_as(path, **({"enforce_file_format": True} if _NEWER else {"write_like_original": False}))
