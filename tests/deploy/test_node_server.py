"""What a node answers to those who connect, right and wrong."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pydicom
import pytest
from made_node import PATIENT, StandIn, certificates_in, encoded, instance, result_uid
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage, UltrasoundImageStorage

from monai_thyroid.deploy.node import Access, Node, NodeOptions, Tls, peer
from monai_thyroid.deploy.node.delivery import Delivery, Pacs, UnavailableError
from monai_thyroid.deploy.node.server import COMMITMENT, COMMITMENT_INSTANCE, RefusedError, Server, check_instance
from monai_thyroid.deploy.node.spool import Spool, key_of
from monai_thyroid.deploy.node.status import State, Status, page
from monai_thyroid.deploy.node.worker import work_off
from monai_thyroid.errors import UserError
from monai_thyroid.files import locked

pynetdicom = pytest.importorskip("pynetdicom")

NODE = "NODE"


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log, in which no patient is ever named."""
    caplog.set_level(logging.INFO)
    yield caplog
    assert PATIENT.partition("^")[0] not in caplog.text


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", model="ab" * 32, max_queue=50)


@contextmanager
def listening(spool: Spool, **options: Any) -> Iterator[Server]:
    server = Server(
        spool,
        aet=NODE,
        host="127.0.0.1",
        port=0,
        **{"reported": lambda transaction, kept: False, **options},
    )
    server.bind()
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def calling(
    server: Server, *, own: str = "SENDER", called: str = NODE, tls: ssl.SSLContext | None = None, **options: Any
) -> Iterator[Any]:
    entity = pynetdicom.AE(ae_title=own)
    entity.add_requested_context("1.2.840.10008.1.1")
    for uid in (UltrasoundImageStorage, SegmentationStorage):
        entity.add_requested_context(uid)
    if "role" in options:
        entity.add_requested_context(COMMITMENT)
    role = [pynetdicom.build_role(COMMITMENT, scp_role=True)] if options.get("role") else None
    association = entity.associate(
        "127.0.0.1", server.port, ae_title=called, tls_args=(tls, None) if tls else None, ext_neg=role
    )
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def sent(server: Server, dataset: Dataset, **options: Any) -> Dataset:
    with calling(server, **options) as association:
        assert association.is_established
        return association.send_c_store(dataset)


def test_what_is_taken_is_whole(spool: Spool) -> None:
    with listening(spool) as server, calling(server) as association:
        assert association.send_c_echo().Status == 0
        assert association.send_c_store(instance(1)).Status == 0
        assert association.send_c_store(instance(1)).Status == 0
    (key,) = spool.waiting()
    assert key == key_of(instance(1).SOPInstanceUID)
    there = pydicom.dcmread(spool.path(key))
    assert (there.pixel_array == instance(1).pixel_array).all()
    assert there.PatientName == PATIENT


@pytest.mark.parametrize(
    ("wrong", "status", "reason"),
    [
        ({"SOPClassUID": SegmentationStorage}, 0x0122, "is a segmentation, not an image"),
        ({"Rows": 20_000, "Columns": 10_000}, 0xC000, "is 10000 x 20000 pixels, more than"),
        ({"Rows": 0}, 0xC000, "says no Rows"),
        ({"StudyInstanceUID": ""}, 0xC000, "lacks StudyInstanceUID"),
        ({"PixelData": b"too short"}, 0xC000, "pixels are cut off (10 of"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MONAI_THYROID"]}, 0xA900, "is a result of monai_thyroid"),
    ],
)
def test_what_is_not_segmented_is_refused(
    spool: Spool, told: pytest.LogCaptureFixture, wrong: dict[str, Any], status: int, reason: str
) -> None:
    dataset = instance(2)
    for name, value in wrong.items():
        setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    with listening(spool) as server:
        answer = sent(server, dataset)
        assert answer.Status == status
        assert sent(server, instance(3)).Status == 0, "the node stays up"
    assert reason in answer.ErrorComment
    (line,) = (record.getMessage() for record in told.records if record.levelno == logging.WARNING)
    assert line.startswith(f"refused one from SENDER at 127.0.0.1 with status {status:04X}: ")
    assert reason in line
    assert len(spool.waiting()) == 1


def store_bytes(server: Server, content: bytes, *, uid: str = "1.2.3") -> int:
    """Send whatever bytes as an ultrasound image."""
    from pynetdicom.dimse_primitives import C_STORE

    with calling(server) as association:
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = UltrasoundImageStorage, uid
        request.DataSet = io.BytesIO(content)
        (context,) = (each for each in association.accepted_contexts if each.abstract_syntax == UltrasoundImageStorage)
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.001)
        association.dimse.send_msg(request, context.context_id)
        _, answer = association.dimse.get_msg(block=True)
        association._reactor_checkpoint.set()
        return int(answer.Status)


def test_bytes_that_are_no_dicom_are_refused(spool: Spool, told: pytest.LogCaptureFixture) -> None:
    good = encoded(instance(4))[132:]
    with listening(spool) as server:
        for content in (b"no DICOM at all" * 9, b"\0" * 64, b"\xff" * 999, good[: len(good) // 3]):
            assert store_bytes(server, content) in (0xC000, 0xA900)
        assert sent(server, instance(3)).Status == 0
    assert len(spool.waiting()) == 1


def test_the_sender_must_not_call_it_by_another_name(spool: Spool) -> None:
    dataset = instance(5)
    content = encoded(dataset)
    # Behind the preamble and the file meta information lies what is sent.
    start = content.index(b"\x08\x00\x16\x00UI")
    with listening(spool) as server:
        assert store_bytes(server, content[start:], uid="1.2.3.4") == 0xA900
        assert store_bytes(server, content[start:], uid=dataset.SOPInstanceUID) == 0


def test_too_much_is_thrown_away_as_it_comes(spool: Spool, told: pytest.LogCaptureFixture) -> None:
    large = instance(6, size=700)
    with listening(spool, access=Access(max_bytes=100_000)) as server, calling(server) as association:
        held = []
        peeking = threading.Event()

        def peek() -> None:
            while not peeking.is_set():
                for each in server._server.active_associations:
                    message = each.dimse.message
                    held.append(0 if message is None else len(message.data_set.getvalue()))
                time.sleep(0.001)

        thread = threading.Thread(target=peek)
        thread.start()
        answer = association.send_c_store(large)
        peeking.set()
        thread.join()
        assert answer.Status == 0xC000
        assert association.send_c_store(instance(1)).Status == 0
    assert max(held) < 300_000
    assert "larger than 0.1 MB" in told.text


@pytest.mark.parametrize(("own", "called"), [("STRANGER", NODE), ("SENDER", "ANOTHER")])
def test_wrong_titles_are_refused(spool: Spool, told: pytest.LogCaptureFixture, own: str, called: str) -> None:
    with listening(spool, access=Access(calling=["SENDER"])) as server:
        with calling(server, own=own, called=called) as association:
            assert association.is_rejected
            assert association.acceptor.primitive.result == 1, "for good"
        assert sent(server, instance(1)).Status == 0
    assert f"refused the connection of {own} at 127.0.0.1, which calls {called}" in told.text


def test_a_full_spool_and_a_full_disk_are_out_of_resources(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    with listening(spool) as server:
        spool.max_queue = 0
        assert sent(server, instance(1)).Status == 0xA700
        spool.max_queue = 9
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
            assert sent(server, instance(1)).Status == 0xA700
        assert not spool.waiting()
        assert sent(server, instance(1)).Status == 0
    assert "the spool is full" in told.text
    assert "the disk is full" in told.text


def test_too_many_connections_are_told_to_come_later(spool: Spool) -> None:
    with (
        listening(spool, access=Access(max_associations=1)) as server,
        calling(server),
        calling(server) as second,
    ):
        assert second.is_rejected
        assert second.acceptor.primitive.result == 2, "transient"


def test_fast_senders_wait(spool: Spool) -> None:
    with listening(spool, access=Access(max_rate=10)) as server, calling(server) as association:
        started = time.monotonic()
        for number in range(14):
            assert association.send_c_store(instance(number)).Status == 0
    assert time.monotonic() - started > 0.3
    assert len(spool.waiting()) == 14


def test_one_that_says_nothing_does_not_hold_up_others(spool: Spool) -> None:
    with listening(spool) as server, socket.create_connection(("127.0.0.1", server.port)) as silent:
        silent.sendall(b"\x01\x00\xff\xff\xff\xff")  # a PDU of 4 GB is to come
        assert sent(server, instance(1)).Status == 0
        silent.settimeout(10)
        assert silent.recv(100)[:1] in (b"", b"\x07"), "ended"


def changed(content: bytes, random: Random) -> bytes:
    """A few bytes flipped, taken out or put in, most of them near the start."""
    found = bytearray(content)
    for _ in range(random.choice([1, 1, 2, 8])):
        place = random.randrange(len(found) if random.random() < 0.5 else min(len(found), 200))
        if random.random() < 0.6:
            found[place] ^= 1 << random.randrange(8)
        elif random.random() < 0.5:
            del found[place : place + random.randrange(1, 9)]
        else:
            found[place:place] = random.randbytes(random.randrange(1, 9))
    return bytes(found)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning", "ignore::UserWarning")
def test_whatever_bytes_come_the_node_stays_up(spool: Spool) -> None:
    said: list[bytes] = []
    entity = pynetdicom.AE(ae_title="SENDER")
    entity.add_requested_context(UltrasoundImageStorage)
    handlers = [(pynetdicom.evt.EVT_DATA_SENT, lambda event: said.append(event.data))]
    random = Random(0)
    with listening(spool, access=Access(max_associations=99)) as server:
        association = entity.associate("127.0.0.1", server.port, ae_title=NODE, evt_handlers=handlers)
        assert association.send_c_store(instance(1)).Status == 0
        association.release()
        for _ in range(int(os.environ.get("MONAI_THYROID_FUZZ", 25))):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port)) as peer:
                peer.settimeout(0.05)
                broken = random.randrange(len(said))
                for number, each in enumerate(said):
                    peer.sendall(changed(each, random) if number == broken else each)
                    with contextlib.suppress(TimeoutError):
                        peer.recv(4096)
        assert sent(server, instance(2)).Status == 0


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_whatever_stands_in_a_header_it_is_taken_or_refused() -> None:
    random, content = Random(1), encoded(instance(1))
    for _ in range(300):
        with contextlib.suppress(RefusedError):
            check_instance(changed(content, random))


def test_a_port_in_use_is_told(spool: Spool) -> None:
    with listening(spool) as server:
        another = Server(
            spool,
            aet=NODE,
            host="127.0.0.1",
            port=server.port,
            reported=lambda transaction, kept: False,
        )
        with pytest.raises(UserError, match=f"--port {server.port}: cannot listen there"):
            another.bind()


# Storage commitment


def confirmation(transaction: str, kept: list[str], lost: list[str]) -> Dataset:
    report = Dataset()
    report.TransactionUID = transaction
    for name, uids in (("ReferencedSOPSequence", kept), ("FailedSOPSequence", lost)):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = UltrasoundImageStorage, uid
            items.append(item)
        setattr(report, name, items)
    return report


@pytest.mark.parametrize("role", [True, False])
def test_the_pacs_reports_what_it_keeps(spool: Spool, role: bool) -> None:
    reports = []

    def reported(transaction: str, kept: set[str]) -> bool:
        reports.append((transaction, kept))
        return transaction == "1.2"

    with listening(spool, reported=reported) as server, calling(server, role=role) as association:
        for transaction, status in (("1.2", 0), ("1.3", 0x0110)):
            answer, _ = association.send_n_event_report(
                confirmation(transaction, ["1", "2"], ["3"]), 2, COMMITMENT, COMMITMENT_INSTANCE
            )
            assert answer.Status == status
    assert reports == [("1.2", {"1", "2"}), ("1.3", {"1", "2"})]


@contextmanager
def pacs_of(answers: dict[str, int], *, commits: bool) -> Iterator[tuple[int, list[str]]]:
    """A PACS that answers with a status by SOP Instance UID, and says on the same connection what it keeps."""
    stored: list[str] = []
    evt = pynetdicom.evt

    def store(event: Any) -> int:
        stored.append(str(event.request.AffectedSOPInstanceUID))
        return answers.get(stored[-1], 0x0000)

    def asked(event: Any) -> tuple[int, None]:
        content = event.action_information
        uids = [str(item.ReferencedSOPInstanceUID) for item in content.ReferencedSOPSequence]
        report = confirmation(content.TransactionUID, [each for each in uids if each in stored], [])

        def tell() -> None:
            time.sleep(0.05)
            event.assoc.send_n_event_report(report, 1, COMMITMENT, COMMITMENT_INSTANCE)

        threading.Thread(target=tell).start()
        return 0x0000, None

    entity = pynetdicom.AE(ae_title="PACS")
    for uid in ("1.2.840.10008.5.1.4.1.1.7", *((COMMITMENT,) if commits else ())):
        entity.add_supported_context(uid)
    server = entity.start_server(
        ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store), (evt.EVT_N_ACTION, asked)]
    )
    try:
        yield server.server_address[1], stored
    finally:
        server.shutdown()


def segmented(spool: Spool, *numbers: int) -> None:
    from made_node import stand_in

    for number in numbers:
        key = key_of(instance(number).SOPInstanceUID)
        spool.add(key, encoded(instance(number)))
        work_off(spool, stand_in, key)


def delivery_to(spool: Spool, port: int, **options: Any) -> Delivery:
    made: Delivery
    pacs = Pacs("127.0.0.1", port, "PACS", calling=NODE, reported=lambda *report: made.reported(*report), **options)
    made = Delivery(spool, pacs, first=0.01)
    return made


@pytest.mark.parametrize("commits", [False, True])
def test_results_reach_a_pacs(spool: Spool, commits: bool) -> None:
    segmented(spool, 1, 2)
    with pacs_of({}, commits=commits) as (port, stored):
        made = delivery_to(spool, port)
        while not made._round():
            pass
    assert sorted(stored) == sorted(result_uid(instance(number).SOPInstanceUID) for number in (1, 2))
    assert spool.counts().done == 2


def test_statuses_of_a_pacs(spool: Spool) -> None:
    segmented(spool, 1, 2)
    refused, coerced = (result_uid(instance(number).SOPInstanceUID) for number in (1, 2))
    with pacs_of({refused: 0xA900, coerced: 0xB000}, commits=False) as (port, _):
        delivery_to(spool, port)._round()
        assert spool.counts().done == 1
        assert len(spool.to_send()) == 1
    with pacs_of({refused: 0xA700}, commits=False) as (port, _), pytest.raises(UnavailableError, match="no room"):
        delivery_to(spool, port)._round()
    assert len(spool.to_send()) == 1
    with pytest.raises(UnavailableError, match="cannot be reached"):
        delivery_to(spool, port)._round()


# TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tls]:
    return certificates_in(tmp_path_factory.mktemp("certificates"))


def test_tls_takes_those_with_a_certificate(
    spool: Spool, certificates: dict[str, Tls], told: pytest.LogCaptureFixture
) -> None:
    own = certificates["hospital"]
    with listening(spool, tls=own) as server, socket.create_connection(("127.0.0.1", server.port)):  # says nothing
        context = own.connecting()
        context.check_hostname = False
        assert sent(server, instance(1), tls=context).Status == 0
        nobody = ssl.create_default_context(cafile=own.authority)
        nobody.check_hostname = False
        stranger = certificates["stranger"].connecting()
        stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE
        for other in (None, nobody, stranger):
            with calling(server, tls=other) as association:
                assert not association.is_established
        assert sent(server, instance(2), tls=context).Status == 0
    assert "TLS: " in told.text


def test_results_go_by_tls(spool: Spool, certificates: dict[str, Tls]) -> None:
    segmented(spool, 1)
    other = Spool(spool.folder.parent / "other", model="ab" * 32)
    with listening(other, tls=certificates["hospital"]) as server:
        pacs = Pacs(
            "127.0.0.1",
            server.port,
            NODE,
            calling="SENDER",
            reported=lambda transaction, kept: False,
            tls=certificates["hospital"],
        )
        Delivery(spool, pacs)._round()
        assert spool.counts().done == 1
        assert len(other.waiting()) == 1
        wrong = Pacs(
            "127.0.0.1",
            server.port,
            NODE,
            calling="SENDER",
            reported=lambda transaction, kept: False,
            tls=certificates["stranger"],
        )
        with pytest.raises(UnavailableError, match="by TLS"):
            wrong.open([]).__enter__()


def test_files_that_are_no_certificates_are_told(tmp_path: Path, certificates: dict[str, Tls]) -> None:
    own = certificates["hospital"]
    with pytest.raises(UserError, match=r"--tls-key .*nowhere: no such file"):
        Tls(certificate=own.certificate, key=str(tmp_path / "nowhere"), authority=own.authority).listening()
    with pytest.raises(UserError, match="no such pair"):
        Tls(certificate=own.certificate, key=certificates["stranger"].key, authority=own.authority).listening()
    (tmp_path / "letter").write_text("no certificate")
    with pytest.raises(UserError, match=r"--tls-authority .*letter: holds no certificate"):
        Tls(certificate=own.certificate, key=own.key, authority=str(tmp_path / "letter")).listening()


# Options and numbers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give either --send-to HOST:PORT:AET or --dicomweb URL"),
        ({"aet": "MUCH_TOO_LONG_A_TITLE"}, "1 to 16 ASCII characters"),
        ({"port": 70_000}, "--port 70000: give a port"),
        ({"send_tls": True}, "--send-tls: give --tls-certificate"),
        ({"min_free": float("nan")}, "--min-free: give 0 or more"),
        ({"every": float("inf")}, "--every: give a number above 0"),
        ({"send_to": ("pacs.example", 0, "STORE")}, "--send-to 0: give a port"),
        ({"max_queue": 0, "every": -1}, "--every: give a number above 0\n--max-queue: give a number above 0"),
    ],
)
def test_options_are_checked_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        NodeOptions(spool="spool", **options)


def test_a_pacs_is_named_by_three_words() -> None:
    assert peer("pacs.example:104:STORE") == ("pacs.example", 104, "STORE")
    assert peer("[::1]:104:STORE") == ("::1", 104, "STORE")
    with pytest.raises(UserError, match="HOST:PORT:AET"):
        peer("pacs.example:104")


def test_one_node_a_spool(tmp_path: Path) -> None:
    (tmp_path / "spool" / "incoming").mkdir(parents=True)
    node = Node(
        NodeOptions(spool=str(tmp_path / "spool"), port=0, status_port=0, send_to=("127.0.0.1", 1, "PACS")),
        make=StandIn,
    )
    with locked(tmp_path / "spool"), pytest.raises(UserError, match="another process is running a node there"):
        node.start()


def test_numbers_for_people_and_for_prometheus(spool: Spool) -> None:
    import requests

    segmented(spool, 1)
    status = Status(0, lambda: State("NODE", spool.counts(), 3, "<PACS> cannot be reached"))
    status.start()
    try:
        answer = requests.get(f"http://127.0.0.1:{status.port}/metrics", timeout=5)
        shown = requests.get(f"http://127.0.0.1:{status.port}/", timeout=5)
        assert requests.get(f"http://127.0.0.1:{status.port}/etc/passwd", timeout=5).status_code == 404
    finally:
        status.stop()
    lines = answer.text.splitlines()
    assert "monai_thyroid_received_total 1" in lines
    assert 'monai_thyroid_queue{step="outgoing"} 1' in lines
    assert "monai_thyroid_refused_total 3" in lines
    assert "monai_thyroid_trouble 1" in lines
    assert not [line for line in lines if "area_mm2" in line], "nothing is done yet"
    assert "&lt;PACS&gt; cannot be reached" in shown.text
    assert "<td>Waiting for the PACS</td><td>1</td>" in shown.text
    assert page(State("NODE", spool.counts(), 3, None)).count("<b>") == 0
