"""Results on their way to the PACS, for as long as it takes."""

from __future__ import annotations

import logging
import queue
import random
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from monai_thyroid.deploy.node.server import COMMITMENT, COMMITMENT_INSTANCE, Tls, report_of, word
from monai_thyroid.deploy.node.spool import Job, Result, Spool, shown
from monai_thyroid.errors import optional

__all__ = ["DeclinedError", "Delivery", "Destination", "Pacs", "Session", "UnavailableError"]

logger = logging.getLogger(__name__)

_BATCH = 50
_CHANCES = 5


class UnavailableError(Exception):
    """The PACS cannot be reached, or takes nothing now: later perhaps."""


class DeclinedError(Exception):
    """The PACS does not take this one."""


class Session(Protocol):
    """What can be done while there is a connection."""

    def store(self, job: Job) -> None:
        """Hand over the results of one instance.

        Raises:
            DeclinedError: the PACS does not take them.
            UnavailableError: the connection has gone.
        """

    def confirm(self, jobs: Sequence[Job], transaction: str) -> bool:
        """Ask whether the PACS keeps these; its answer comes later.

        Returns:
            False where it does not answer such questions.

        Raises:
            UnavailableError: the connection has gone.
        """

    def linger(self, answered: Callable[[], bool]) -> None:
        """Stay connected for a moment, for an answer that comes at once."""


class Destination(Protocol):
    """Where results go."""

    def open(self, jobs: Sequence[Job]) -> AbstractContextManager[Session]:
        """Connect, so that these can be stored and confirmed.

        Raises:
            UnavailableError: that is not possible.
        """


Reported = Callable[[str, set[str]], bool]


class Delivery:
    """Sends what is in the spool until told to stop.

    What is sent stays until the PACS says that it keeps it (storage commitment), where it answers that question. What
    it does not take, or does not keep, is tried again, five times at growing intervals, and then put into ``failed``.
    While it cannot be reached everything stays.

    Args:
        spool: what is to be sent.
        to: where to.
        first: seconds to the second try.
        longest: seconds between two tries at the most.
        patience: seconds to the next question whether the PACS keeps what it was sent, doubled each time that it does
            not say.
    """

    def __init__(
        self, spool: Spool, to: Destination, *, first: float = 1, longest: float = 60, patience: float = 60
    ) -> None:
        self._spool, self._to = spool, to
        self._first, self._longest, self._patience = first, longest, patience
        self._stop, self._more = threading.Event(), threading.Event()
        self._reports: queue.SimpleQueue[tuple[str, set[str]]] = queue.SimpleQueue()
        self._asked: dict[str, tuple[set[str], float]] = {}  # by transaction: names, and when to ask again
        self._questions = 0
        self._declined: dict[str, tuple[int, float]] = {}  # by name: how often, and when to try again
        self._thread = threading.Thread(target=self._run, name="delivery", daemon=True)
        self.trouble: str | None = None

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, *, wait: float = 30) -> None:
        """End after what is under way."""
        self._stop.set()
        self._more.set()
        if self._thread.is_alive():
            self._thread.join(wait)

    def reported(self, transaction: str, kept: set[str]) -> bool:
        """Take the PACS's word on what it keeps.

        Args:
            transaction: UID of the question.
            kept: SOP Instance UIDs.

        Returns:
            Whether that question was asked.
        """
        if transaction not in self._asked:
            return False
        self._reports.put((transaction, kept))
        self._more.set()
        return True

    def _run(self) -> None:
        pause = self._first
        while not self._stop.is_set():
            try:
                idle = self._round()
            except (UnavailableError, OSError) as error:
                reason = (
                    str(error)
                    if isinstance(error, UnavailableError)
                    else f"spool: {error.strerror or type(error).__name__}"
                )
                self.trouble = reason
                self._asked.clear()  # who was away may have forgotten what it was asked
                wait = pause * random.uniform(0.8, 1.2)
                logger.warning("results wait: %s; next try in %.1f s", reason, wait)
                self._stop.wait(wait)
                pause = min(2 * pause, self._longest)
                continue
            except Exception as error:  # a fault of ours must not end the delivery; its text might quote a result
                where = "".join(traceback.format_tb(error.__traceback__))
                logger.error("delivery failed (%s), trying again\n%s", type(error).__name__, where)
                self._stop.wait(self._longest)
                continue
            if self.trouble and not idle:
                logger.info("the PACS takes results again")
            if not idle:
                self.trouble, pause = None, self._first
            else:
                self._more.wait(0.1)
                self._more.clear()

    def _round(self) -> bool:
        """One connection's worth of work; returns whether there was nothing to do."""
        self._heed()
        now = time.monotonic()
        for transaction, (_, again) in list(self._asked.items()):
            if now >= again:
                logger.warning(
                    "the PACS has not said whether it keeps what it was sent; asking again. Does it know this node's "
                    "AE title, host and port?"
                )
                del self._asked[transaction]
        asked = set().union(*(names for names, _ in self._asked.values())) if self._asked else set()
        sending = [name for name in self._spool.to_send() if self._declined.get(name, (0, 0.0))[1] <= now][:_BATCH]
        confirming = [name for name in self._spool.to_confirm() if name not in asked][: 10 * _BATCH]
        if not sending and not confirming:
            return True
        jobs, waiting = [self._spool.job(name) for name in sending], [self._spool.job(name) for name in confirming]
        with self._to.open([*jobs, *waiting]) as session:
            stored: list[Job] = []
            try:
                for job in jobs:
                    if self._stop.is_set():
                        break
                    try:
                        session.store(job)
                        stored.append(job)
                    except DeclinedError as error:
                        self._note(job.name, str(error))
                    except UnavailableError:
                        # Should it be this one that ends connections, the others come first next time.
                        count = self._declined.get(job.name, (0, 0.0))[0]
                        self._declined[job.name] = (count, time.monotonic() + 2 * self._first)
                        raise
            finally:
                self._spool.mark_sent([job.name for job in stored])
                if stored:
                    logger.info("%d sent: %s", len(stored), " ".join(shown(job.name) for job in stored))
            if stored or waiting:
                self._confirm(session, [self._spool.job(job.name) for job in (*stored, *waiting)])
        return False

    def _confirm(self, session: Session, jobs: Sequence[Job]) -> None:
        from pydicom.uid import generate_uid

        names, transaction = {job.name for job in jobs}, str(generate_uid())
        again = self._patience * 2 ** min(self._questions, 6)
        # Before the question, as the answer may be here before the call returns.
        self._asked[transaction] = (names, time.monotonic() + again)
        try:
            answers = session.confirm(jobs, transaction)
        except UnavailableError:
            del self._asked[transaction]
            raise
        if not answers:
            del self._asked[transaction]
            self._finish(names)
            return
        self._questions += 1
        session.linger(lambda: not self._reports.empty())
        self._heed()

    def _heed(self) -> None:
        """Do what the PACS's reports call for."""
        while not self._reports.empty():
            transaction, kept = self._reports.get()
            names, _ = self._asked.pop(transaction, (set(), 0.0))
            self._questions = 0
            there = [self._spool.job(name) for name in sorted(names & set(self._spool.to_confirm()))]
            safe = {job.name for job in there if {result.sop_instance for result in job.results} <= kept}
            self._finish(safe)
            lost = {job.name for job in there} - safe
            self._spool.send_again(lost)
            for name in lost:
                self._note(name, "does not keep what it took")

    def _finish(self, names: set[str]) -> None:
        self._spool.finish(sorted(names))
        for name in names:
            self._declined.pop(name, None)
        if names:
            logger.info("%d done: %s", len(names), " ".join(shown(name) for name in sorted(names)))

    def _note(self, name: str, reason: str) -> None:
        """Remember that the PACS declined, and stop trying at last."""
        count = self._declined.get(name, (0, 0.0))[0] + 1
        if count >= _CHANCES:
            logger.error("%s: failed: the PACS %s, %d times", shown(name), reason, count)
            self._spool.give_up(name, f"the PACS {reason}, {count} times")
            self._declined.pop(name, None)
            return
        again = min(self._first * 4**count, self._longest)
        logger.warning("%s: the PACS %s; next try in %.0f s", shown(name), reason, again)
        self._declined[name] = (count, time.monotonic() + again)


class Pacs:
    """A PACS that is spoken to by DICOM.

    Args:
        host: of it.
        port: of it.
        called: its AE title.
        calling: ours.
        reported: is told what it keeps, should it say so on our own connection.
        tls: None for none.
        commitment: ask whether it keeps what it was sent.
    """

    def __init__(
        self,
        host: str,
        port: int,
        called: str,
        *,
        calling: str,
        reported: Reported,
        tls: Tls | None = None,
        commitment: bool = True,
    ) -> None:
        optional("pynetdicom", extra="dicom")
        self._address, self._called, self._calling = (host, port), called, calling
        self._reported, self._commitment = reported, commitment
        self._tls = None if tls is None else (tls.connecting(), host)

    @contextmanager
    def open(self, jobs: Sequence[Job]) -> Iterator[Session]:
        """See `Destination`."""
        from pynetdicom import AE, _config, evt

        _config.STORE_SEND_CHUNKED_DATASET = True  # files are not read into memory
        entity = AE(ae_title=self._calling)
        kinds = {(result.sop_class, result.transfer_syntax) for job in jobs for result in job.results}
        for sop_class, syntax in sorted(kinds)[:126]:
            entity.add_requested_context(sop_class, syntax)
        if self._commitment:
            entity.add_requested_context(COMMITMENT)
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = 15, 120, 120
        entity.connection_timeout = 15
        association = entity.associate(
            *self._address,
            ae_title=self._called,
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._report)],
            tls_args=self._tls,
        )
        where = f"{self._called} at {self._address[0]}:{self._address[1]}"
        if association.is_rejected:
            answer = association.acceptor.primitive
            reason = word(getattr(answer, "reason_str", "no reason given"))
            raise UnavailableError(f"{where} refuses the connection ({reason})")
        if not association.is_established:
            how = " by TLS" if self._tls else ""
            raise UnavailableError(f"{where} cannot be reached{how}")
        try:
            yield _Association(association, where)
        finally:
            if association.is_established:
                association.release()

    def _report(self, event: Any) -> tuple[int, None]:
        try:
            return (0x0000 if self._reported(*report_of(event.event_information)) else 0x0110), None
        except Exception as error:
            logger.warning("a confirmation cannot be read (%s)", type(error).__name__)
            return 0x0110, None


class _Association:
    """A `Session`."""

    def __init__(self, association: Any, where: str) -> None:
        self._association, self._where = association, where

    def store(self, job: Job) -> None:
        for result in job.results:
            self._store(result)

    def _store(self, result: Result) -> None:
        try:
            answer = self._association.send_c_store(str(result.path))
        except ValueError as error:
            raise DeclinedError(
                f"does not take {_named(result.sop_class)} ({_named(result.transfer_syntax)})"
            ) from error
        except RuntimeError as error:
            raise UnavailableError(f"{self._where} has ended the connection") from error
        status = answer.get("Status")
        if status is None:
            raise UnavailableError(f"{self._where} did not answer")
        if status == 0x0000 or status >> 12 == 0xB:
            return
        if status >> 8 == 0xA7:
            raise UnavailableError(f"{self._where} has no room (status {status:04X})")
        raise DeclinedError(f"refuses {_named(result.sop_class)} with status {status:04X}")

    def confirm(self, jobs: Sequence[Job], transaction: str) -> bool:
        from pydicom.dataset import Dataset

        if not any(each.abstract_syntax == COMMITMENT for each in self._association.accepted_contexts):
            return False
        question = Dataset()
        question.TransactionUID = transaction
        question.ReferencedSOPSequence = []
        for result in (result for job in jobs for result in job.results):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = result.sop_class, result.sop_instance
            question.ReferencedSOPSequence.append(item)
        try:
            answer, _ = self._association.send_n_action(question, 1, COMMITMENT, COMMITMENT_INSTANCE)
        except (RuntimeError, ValueError) as error:
            raise UnavailableError(f"{self._where} has ended the connection") from error
        status = answer.get("Status")
        if status is None:
            raise UnavailableError(f"{self._where} did not answer")
        if status != 0x0000:
            logger.warning(
                "%s does not say whether it keeps what it takes (storage commitment: status %04X); its word that it "
                "has it must do. Does it know this node's AE title, host and port?",
                self._where,
                status,
            )
            return False
        return True

    def linger(self, answered: Callable[[], bool]) -> None:
        end = time.monotonic() + 1
        while time.monotonic() < end and not answered() and self._association.is_established:
            time.sleep(0.01)


def _named(uid: str) -> str:
    from pydicom.uid import UID

    return str(UID(uid).name)
