"""A PACS that is spoken to by DICOMweb: images are looked for and fetched, results are posted."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any

from monai_thyroid.deploy.node.delivery import DeclinedError, Session, UnavailableError
from monai_thyroid.deploy.node.server import MISMATCH, OUT_OF_RESOURCES, UNREADABLE, RefusedError, take, word
from monai_thyroid.deploy.node.spool import Job, Spool, key_of, shown
from monai_thyroid.errors import UserError, optional

__all__ = ["MODALITIES", "Puller", "WebPacs"]

logger = logging.getLogger(__name__)

MODALITIES = ("US", "XC", "ES", "CR", "DX")
_PAGE = 100
_UIDS = {"StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "SOPInstanceUID": "00080018"}


def _client(url: str) -> Any:
    """A client; requests takes the credentials from ~/.netrc, and further authorities from REQUESTS_CA_BUNDLE."""
    web = optional("dicomweb_client", extra="dicom")
    try:
        client = web.DICOMwebClient(url, permissive_uid=True, timeout=(10, 60))
    except ValueError as error:
        raise UserError(f"--dicomweb {url}: is no URL of a DICOMweb server ({error})") from error
    client.set_http_retry_params(retry=False)  # the spool tries again
    return client


class WebPacs:
    """Where results are posted (STOW-RS). Its answer is its word that it has them.

    Args:
        url: of the service.
    """

    def __init__(self, url: str) -> None:
        self._client, self._where = _client(url), word(url.partition("?")[0])

    @contextmanager
    def open(self, jobs: Sequence[Job]) -> Iterator[Session]:
        """See `monai_thyroid.deploy.node.delivery.Destination`."""
        yield self

    def store(self, job: Job) -> None:
        """See `monai_thyroid.deploy.node.delivery.Session`."""
        import pydicom
        import requests

        try:
            answer = self._client.store_instances([pydicom.dcmread(result.path) for result in job.results])
            refused = answer.get("FailedSOPSequence") or []
            there = {str(item.ReferencedSOPInstanceUID) for item in answer.get("ReferencedSOPSequence") or []}
        except requests.HTTPError as error:
            status = error.response.status_code
            # That it takes none of these is 409; what else is wrong with them 400 or 415.
            if status in (400, 409, 415):
                raise DeclinedError(f"refuses the results (HTTP {status})") from error
            raise UnavailableError(f"{self._where} answers HTTP {status}") from error
        except requests.RequestException as error:
            raise UnavailableError(f"{self._where} cannot be reached ({type(error).__name__})") from error
        lacking = [result for result in job.results if result.sop_instance not in there]
        if refused or lacking:
            reasons = sorted({f"{int(item.get('FailureReason') or 0):04X}" for item in refused})
            why = ", ".join(reasons) or "no reason given"
            raise DeclinedError(f"does not take {len(lacking)} of {len(job.results)} results ({why})")

    def confirm(self, jobs: Sequence[Job], transaction: str) -> bool:
        """There is no such question on the web."""
        return False

    def linger(self, answered: Callable[[], bool]) -> None:
        """Nothing comes later."""


class Puller:
    """Looks for images in regular intervals and takes those that are not known.

    Args:
        url: of the service.
        spool: takes them.
        every: seconds between two looks.
        days: how old a study may be; today's and yesterday's are 1.
        max_bytes: of an instance.
        modalities: to look for.
    """

    def __init__(
        self,
        url: str,
        spool: Spool,
        *,
        every: float = 30,
        days: int = 1,
        max_bytes: float = 512 << 20,
        modalities: Sequence[str] = MODALITIES,
    ) -> None:
        self._client, self._where = _client(url), word(url.partition("?")[0])
        self._spool = spool
        self._every, self._days, self._max_bytes, self._modalities = every, days, max_bytes, modalities
        self._refused: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulling", daemon=True)
        self.refused = 0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, wait: float = 30) -> None:
        """End after what is under way."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(wait)

    def look(self) -> int:
        """Look once; returns how many were taken.

        Raises:
            UnavailableError: the service cannot be reached, or the spool is full.
        """
        import requests

        taken = 0
        try:
            for study, series in self._series():
                for instance in self._pages(self._client.search_for_instances, study, series):
                    if self._stop.is_set():
                        return taken
                    taken += self._take(study, series, _uid(instance, "SOPInstanceUID"))
        except requests.HTTPError as error:
            raise UnavailableError(f"{self._where} answers HTTP {error.response.status_code}") from error
        except requests.RequestException as error:
            raise UnavailableError(f"{self._where} cannot be reached ({type(error).__name__})") from error
        return taken

    def _series(self) -> Iterator[tuple[str, str]]:
        since = (date.today() - timedelta(days=self._days)).strftime("%Y%m%d-")
        for modality in self._modalities:
            filters = {"Modality": modality, "StudyDate": since}
            fields = ["StudyInstanceUID", "SeriesInstanceUID"]
            for found in self._pages(self._client.search_for_series, search_filters=filters, fields=fields):
                yield _uid(found, "StudyInstanceUID"), _uid(found, "SeriesInstanceUID")

    def _pages(self, search: Callable[..., list[Any]], *given: str, **options: Any) -> Iterator[Any]:
        offset = 0
        while page := search(*given, limit=_PAGE, offset=offset, **options):
            yield from page
            offset += len(page)
            if len(page) < _PAGE:
                return

    def _take(self, study: str, series: str, instance: str) -> bool:
        key = key_of(instance)
        if key in self._refused or self._spool.knows(key) or self._spool.has_failed(key):
            return False
        dataset = self._client.retrieve_instance(study, series, instance)
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        try:
            if buffer.tell() > self._max_bytes:
                raise RefusedError(UNREADABLE, f"larger than {self._max_bytes / 1e6:g} MB (--max-megabytes)")
            return take(
                self._spool,
                buffer.getvalue(),
                sender=self._where,
                instance=instance,
            )
        except RefusedError as error:
            if error.status == OUT_OF_RESOURCES:
                raise UnavailableError(str(error)) from error
            self.refused += 1
            self._refused.add(key)
            log = logger.info if error.status == MISMATCH else logger.warning
            log("%s: not taken from %s: %s", shown(key), self._where, error)
            return False

    def _run(self) -> None:
        pause = 1.0
        while not self._stop.is_set():
            try:
                self.look()
                pause = 1.0
                self._stop.wait(self._every)
            except UnavailableError as error:
                logger.warning("no images are fetched: %s; next try in %.0f s", error, pause)
                self._stop.wait(pause)
                pause = min(2 * pause, 60)
            except Exception as error:  # what a server answers may be anything
                logger.error("no images are fetched: an answer cannot be read (%s)", type(error).__name__)
                self._stop.wait(self._every)


def _uid(found: Any, keyword: str) -> str:
    return str(found[_UIDS[keyword]]["Value"][0])
