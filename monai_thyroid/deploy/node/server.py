"""What listens for DICOM: verification, instances, and the PACS's word that it keeps the results."""

from __future__ import annotations

import io
import logging
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monai_thyroid.deploy.dicom import IMAGE_CLASSES, OTHER_CLASSES, check_kind, check_source
from monai_thyroid.deploy.node.spool import Spool, SpoolFullError, key_of, shown
from monai_thyroid.errors import UserError, optional
from monai_thyroid.images.dicom import check_inflated

__all__ = [
    "COMMITMENT",
    "COMMITMENT_INSTANCE",
    "Access",
    "RefusedError",
    "Server",
    "Tls",
    "check_instance",
    "report_of",
    "take",
    "word",
]

logger = logging.getLogger(__name__)

COMMITMENT = "1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
_VERIFICATION = "1.2.840.10008.1.1"
_MOST_CONTEXT_BYTES = 1 << 20
_PDU = 1 << 16
_IT = "it"
_SILENT = 64

OUT_OF_RESOURCES, MISMATCH, UNREADABLE, FAILURE, NOT_SUPPORTED = 0xA700, 0xA900, 0xC000, 0x0110, 0x0122


class RefusedError(Exception):
    """An instance is not taken.

    Args:
        status: of DICOM's C-STORE (PS3.4, table B.2-1).
        reason: for the log and the sender; nothing of the patient.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Tls:
    """Files for TLS, all of them PEM.

    Attributes:
        certificate: of this node.
        key: belongs to it.
        authority: whose certificates are accepted.
    """

    certificate: str
    key: str
    authority: str

    def listening(self) -> ssl.SSLContext:
        """For those who connect: they need a certificate too."""
        context = self._filled(ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def connecting(self) -> ssl.SSLContext:
        """For connecting to another node, whose host must be named in its certificate."""
        return self._filled(ssl.Purpose.SERVER_AUTH)

    def _filled(self, purpose: ssl.Purpose) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(purpose, cafile=self._there("authority"))
        except (ssl.SSLError, OSError) as error:
            raise UserError(f"--tls-authority {self.authority}: holds no certificate ({error})") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._there("certificate"), self._there("key"))
        except (ssl.SSLError, OSError) as error:
            raise UserError(
                f"--tls-certificate {self.certificate}, --tls-key {self.key}: no such pair ({error})"
            ) from error
        return context

    def _there(self, name: str) -> str:
        path = str(getattr(self, name))
        if not Path(path).is_file():
            raise UserError(f"--tls-{name} {path}: no such file")
        return path


@dataclass(frozen=True, kw_only=True)
class Access:
    """Who may send what.

    Attributes:
        calling: AE titles that may connect; everybody if there are none.
        max_bytes: of an instance.
        max_rate: instances a second; faster senders are made to wait.
        max_associations: at a time; a further one is told to come later.
    """

    calling: Collection[str] = ()
    max_bytes: float = 512 << 20
    max_rate: float = 100
    max_associations: int = 16


def word(text: object) -> str:
    """What a stranger sent, fit for a line of the log."""
    return "".join(char if char.isprintable() else "?" for char in str(text).strip())[:64]


def check_instance(content: bytes, *, instance: str | None = None) -> str:
    """Look at all of an instance but its pixels before it is taken.

    Args:
        content: of a DICOM file.
        instance: its SOP Instance UID as the sender named it.

    Returns:
        The SOP Instance UID.

    Raises:
        RefusedError: it is no DICOM, of another kind, not what the sender says, lacks something, or is too large.
    """
    import pydicom

    names = "SOPClassUID SOPInstanceUID Modality ImageType".split()
    try:
        check_inflated(_IT, content)
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True, specific_tags=names)
        found = str(header.get("SOPInstanceUID") or "")
    except UserError as error:
        raise RefusedError(UNREADABLE, _reason(error)) from error
    except Exception as error:  # whatever a parser raises on bytes of something else
        raise RefusedError(UNREADABLE, f"no DICOM, or its header is broken ({type(error).__name__})") from error
    if not found:
        raise RefusedError(UNREADABLE, "says no SOP Instance UID")
    if instance is not None and found != instance:
        raise RefusedError(MISMATCH, "has another SOP Instance UID than the sender says")
    status = MISMATCH
    try:
        check_kind(_IT, header)
        status = UNREADABLE
        check_source(_IT, content)
    except UserError as error:
        raise RefusedError(status, _reason(error)) from error
    return found


def _reason(error: UserError) -> str:
    return str(error).removeprefix(f"{_IT}: ")


def take(spool: Spool, content: bytes, *, sender: str, instance: str | None = None) -> bool:
    """Take an instance into the spool, unless it is known.

    Returns:
        Whether it is new.

    Raises:
        RefusedError: see `check_instance`; or the spool or the disk is full.
    """
    key = key_of(check_instance(content, instance=instance))
    if spool.knows(key):
        logger.info("%s: from %s again; it is known", shown(key), sender)
        return False
    try:
        spool.add(key, content)
    except SpoolFullError as error:
        raise RefusedError(OUT_OF_RESOURCES, str(error)) from error
    except OSError as error:
        raise RefusedError(OUT_OF_RESOURCES, f"cannot be written ({error.strerror})") from error
    logger.info("%s: taken from %s (%.0f kB)", shown(key), sender, len(content) / 1e3)
    return True


class Server:
    """A DICOM node that listens.

    Args:
        spool: takes what comes.
        aet: its AE title; those who call another one are refused.
        host: address to listen at.
        port: 0 for any that is free.
        reported: is given the transaction, and the SOP Instance UIDs that the PACS keeps; whether it was asked for.
        access: who may send what.
        tls: None for none.

    Raises:
        UserError: the extra ``dicom`` is not installed.
    """

    def __init__(
        self,
        spool: Spool,
        *,
        aet: str,
        host: str,
        port: int,
        reported: Callable[[str, set[str]], bool],
        access: Access | None = None,
        tls: Tls | None = None,
    ) -> None:
        optional("pynetdicom", extra="dicom")
        self._spool, self._aet, self._host, self._asked_port = spool, aet, host, port
        self._reported = reported
        self._access, self._tls = access or Access(), tls
        self._server: Any = None
        self._listens = False
        self._turn = _Turn(self._access.max_rate)
        self.refused = 0

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def bind(self) -> None:
        """Take the port; who connects waits until `start`.

        Raises:
            UserError: the address or the port is not to be had.
        """
        from pynetdicom import AE, evt

        entity = AE(ae_title=self._aet)
        syntaxes = _readable()
        for uid in sorted({*IMAGE_CLASSES, *OTHER_CLASSES}):  # the latter to say one by one why not
            entity.add_supported_context(uid, syntaxes)
        entity.add_supported_context(_VERIFICATION)
        entity.add_supported_context(COMMITMENT, scu_role=False, scp_role=True)
        entity.require_called_aet = True
        entity.require_calling_aet = sorted(self._access.calling)
        entity.maximum_associations = self._access.max_associations
        entity.maximum_pdu_size = _PDU
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = 15, 60, 60
        handlers = [
            (evt.EVT_C_ECHO, self._echo),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_PDU_RECV, self._measure),
            (evt.EVT_ESTABLISHED, self._established),
            (evt.EVT_REJECTED, self._rejected),
        ]
        try:
            self._server = entity.make_server(
                (self._host, self._asked_port),
                ae_title=self._aet,
                contexts=entity.supported_contexts,
                ssl_context=self._tls.listening() if self._tls else None,
                evt_handlers=handlers,
                server_class=_listener(),
            )
        except OSError as error:
            raise UserError(
                f"--host {self._host} --port {self._asked_port}: cannot listen there ({error.strerror}); "
                "another program may, choose another port"
            ) from error

    def start(self) -> None:
        """Listen."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.2,), name="listening", daemon=True)
        thread.start()
        self._listens = True

    def stop(self) -> None:
        """Listen no more; what is under way ends."""
        if self._listens:
            self._listens = False
            self._server.shutdown()
        elif self._server is not None:
            self._server.server_close()
        if self._server is not None:
            for association in self._server.active_associations:
                association.abort()

    # What comes. An exception that left one of these would be told the sender by the library.

    def _echo(self, event: Any) -> int:
        logger.info("verification from %s", _sender(event))
        return 0x0000

    def _store(self, event: Any) -> Any:
        sender = _sender(event)
        try:
            self._turn.wait()
            size = event.assoc.__dict__.pop("_instance_bytes", 0)
            if size > self._access.max_bytes:
                limit = f"{self._access.max_bytes / 1e6:g} MB"
                raise RefusedError(UNREADABLE, f"larger than {limit} (--max-megabytes)")
            instance = str(event.request.AffectedSOPInstanceUID)
            take(
                self._spool,
                event.encoded_dataset(),
                sender=sender,
                instance=instance,
            )
        except RefusedError as refused:
            other = refused.status == MISMATCH and event.request.AffectedSOPClassUID in OTHER_CLASSES
            return self._no(sender, NOT_SUPPORTED if other else refused.status, str(refused))
        except Exception as error:  # one sender's data must not end the node
            return self._no(sender, FAILURE, f"cannot be taken ({type(error).__name__})")
        return 0x0000

    def _no(self, sender: str, status: int, reason: str) -> Any:
        from pydicom.dataset import Dataset

        self.refused += 1
        logger.warning("refused one from %s with status %04X: %s", sender, status, reason)
        answer = Dataset()
        answer.Status, answer.ErrorComment = status, reason.encode("ascii", "replace").decode()[:64]
        return answer

    def _report(self, event: Any) -> tuple[int, None]:
        try:
            transaction, kept = report_of(event.event_information)
            if self._reported(transaction, kept):
                return 0x0000, None
            logger.warning("%s confirms what it was not asked for", _sender(event))
        except Exception as error:
            logger.warning("%s sent a confirmation that cannot be read (%s)", _sender(event), type(error).__name__)
        return FAILURE, None

    def _measure(self, event: Any) -> None:
        """Count the bytes of the message that comes in, and throw away those beyond the limit."""
        message = event.assoc.dimse.message
        if message is None:
            return
        held = message.data_set.tell()
        if held > self._access.max_bytes:
            message.data_set.seek(0)
            message.data_set.truncate()
            event.assoc._instance_bytes = held
        if message.encoded_command_set.tell() > _MOST_CONTEXT_BYTES:  # a command has some hundred
            message.encoded_command_set.seek(0)
            message.encoded_command_set.truncate()

    def _established(self, event: Any) -> None:
        if not event.assoc.accepted_contexts:
            names = sorted({word(each.abstract_syntax.name) for each in event.assoc.rejected_contexts})
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            logger.warning("%s offers nothing that is segmented, but %s%s", _sender(event), ", ".join(names[:3]), more)

    def _rejected(self, event: Any) -> None:
        self.refused += 1
        requestor = event.assoc.requestor.primitive
        called = word(getattr(requestor, "called_ae_title", ""))
        logger.warning("refused the connection of %s, which calls %s", _sender(event), called)


def report_of(content: Any) -> tuple[str, set[str]]:
    """Of a storage commitment's result (PS3.4, J.3.3) the transaction, and which SOP Instance UIDs are kept."""
    kept = {str(item.ReferencedSOPInstanceUID) for item in content.get("ReferencedSOPSequence") or []}
    lost = {str(item.ReferencedSOPInstanceUID) for item in content.get("FailedSOPSequence") or []}
    return str(content.TransactionUID), kept - lost


class _Turn:
    """Lets so many pass in a second, and makes the others wait."""

    def __init__(self, rate: float) -> None:
        self._pause, self._next, self._lock = 1 / rate, 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now - 1) + self._pause  # a second's worth may come at once
            due = self._next
        time.sleep(max(0.0, due - now))


def _sender(event: Any) -> str:
    requestor = event.assoc.requestor
    return f"{word(requestor.ae_title) or 'nobody'} at {word(requestor.address)}"


def _readable() -> list[Any]:
    """Transfer syntaxes whose pixels can be decoded here, so that the sender chooses one of them."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import (
        AllTransferSyntaxes,
        ExplicitVRBigEndian,
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
    )

    plain = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
    packed = []
    for uid in AllTransferSyntaxes:
        if uid.is_compressed and uid not in plain:
            try:
                if get_decoder(uid).is_available:
                    packed.append(uid)
            except NotImplementedError:
                continue
    return [*plain, *packed]


def _listener() -> type:
    """The library's server, with what keeps one peer from holding up the others."""
    from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

    class Handler(RequestHandler):
        def _create_association(self) -> Any:
            association = super()._create_association()
            socket = association.dul.socket
            received = socket.recv

            def limited(count: int) -> bytes:
                # The library would read whatever length a PDU says.
                if count > max(_PDU, _MOST_CONTEXT_BYTES):
                    raise OSError("a PDU longer than agreed upon")
                return bytes(received(count))

            socket.recv = limited
            return association

    class Listener(ThreadedAssociationServer):
        request_queue_size = 64

        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named, request_handler=Handler)

        def get_request(self) -> Any:
            # The handshake would hold up all others here: it is made in the connection's own thread.
            connection, address = self.socket.accept()
            connection.settimeout(30)
            if self.ssl_context:
                connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
            return connection, address

        def verify_request(self, request: Any, client_address: Any) -> bool:
            # The library counts at their first word: those that say nothing are counted here.
            return len(self.active_associations) < self.ae.maximum_associations + _SILENT

        def process_request_thread(self, request: Any, client_address: Any) -> None:
            if self.ssl_context:
                try:
                    request.do_handshake()
                except (OSError, ValueError) as error:
                    reason = word(getattr(error, "reason", None) or error)
                    logger.warning("refused the connection of %s: TLS: %s", word(client_address[0]), reason)
                    self.shutdown_request(request)
                    return
            super().process_request_thread(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            logger.warning("a connection of %s was ended by what came", word(client_address[0]))

        def shutdown(self) -> None:
            socketserver.TCPServer.shutdown(self)
            self.server_close()

    return Listener
