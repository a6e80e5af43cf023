"""A node between dcmtk and Orthanc: what was sent comes back segmented, each once, whatever ends in between."""

from __future__ import annotations

import io
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from made_node import PATIENT, PATIENT_ID, certificates_in, encoded, instance
from made_orthanc import TOOLS, NodeProcess, Orthanc, free_port, node_command, orthanc, send, until
from made_trained import made_trained

from monai_thyroid.deploy.node.delivery import Delivery
from monai_thyroid.deploy.node.segmenting import Segmenter
from monai_thyroid.deploy.node.server import Server
from monai_thyroid.deploy.node.spool import Spool
from monai_thyroid.deploy.node.web import Puller, WebPacs
from monai_thyroid.deploy.node.worker import work_off
from monai_thyroid.evaluation import Predictor
from monai_thyroid.images import read_raster

pytestmark = pytest.mark.slow

COUNT = 40
PARTS = 4


@pytest.fixture(scope="module", autouse=True)
def programs(program: Callable[[str], str]) -> None:
    for name in TOOLS:
        program(name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trained(tmp_path_factory.mktemp("runs") / "run", bright=True, image_size=32)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", node_port=port) as server:
        yield server


def sources_of(pacs: Orthanc, modality: str) -> list[str]:
    """SOP Instance UIDs of what the PACS's objects of a modality refer to."""
    found = []
    for each in pacs.instances(modality):
        dataset = pydicom.dcmread(io.BytesIO(pacs.file(each["ID"])), stop_before_pixels=True)
        if modality == "SR":
            sequence = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
            found += [
                item.ReferencedSOPInstanceUID
                for series in sequence
                for item in series.ReferencedSOPSequence
                if item.ReferencedSOPClassUID != "1.2.840.10008.5.1.4.1.1.66.4"
            ]
        else:
            found.append(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID)
    return found


def test_nothing_is_lost_or_repeated(pacs: Orthanc, run: Path, port: int, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    node = NodeProcess(
        node_command(
            *("--model", run, "--spool", spool, "--send-to", f"127.0.0.1:{pacs.dicom_port}:{pacs.AET}"),
            *("--port", port, "--status-port", free_port(), "--min-free", 0),
        ),
        tmp_path / "node.log",
    )
    node.start(seconds=300)
    files = []
    for number in range(COUNT):
        files.append(tmp_path / f"{number}.dcm")
        files[-1].write_bytes(encoded(instance(number, seed="many")))

    def send_all(part: int) -> None:
        # A sender that is not told of success sends again, all of it.
        until(lambda: send(files[part::PARTS], port=port) == 0, "sent", seconds=400)

    senders = [threading.Thread(target=send_all, args=(part,)) for part in range(PARTS)]
    try:
        for sender in senders:
            sender.start()
        until(lambda: node.text().count(" segmented in ") >= COUNT // 8, "some are segmented", seconds=200)
        pacs.stop()
        until(lambda: "results wait: " in node.text(), "the PACS is missed", seconds=200)
        node.kill()
        node.start(seconds=300)
        pacs.start()
        for sender in senders:
            sender.join()
        until(lambda: Spool(spool).counts().done == COUNT, "all are done", seconds=300)
    finally:
        status = node.stop()
    expected = sorted(instance(number, seed="many").SOPInstanceUID for number in range(COUNT))
    for modality in ("SR", "SEG"):
        assert sorted(sources_of(pacs, modality)) == expected
    assert len(pacs.instances("OT")) == COUNT
    assert max(Counter(each["SOPInstanceUID"] for each in pacs.instances()).values()) == 1
    assert status == 0
    assert "storage commitment" not in node.text(), "the PACS said that it keeps them"
    for secret in (*PATIENT.split("^"), *PATIENT_ID.split("-"), expected[0]):
        assert secret not in node.text()
    for folder in ("incoming", "outgoing", "sent", "failed"):
        assert not list((spool / folder).iterdir())

    # What the segmentation holds is what the model finds.
    path = files[0]
    mask = Predictor(run)(read_raster(path)).mask
    uid = pydicom.dcmread(path).SOPInstanceUID
    segmentations = [pydicom.dcmread(io.BytesIO(pacs.file(each["ID"]))) for each in pacs.instances("SEG")]
    (found,) = (each for each in segmentations if each.SourceImageSequence[0].ReferencedSOPInstanceUID == uid)
    assert (np.atleast_3d(found.pixel_array).reshape(mask.shape) == mask).all()


def test_by_the_web(pacs: Orthanc, run: Path, tmp_path: Path) -> None:
    url = f"{pacs.url}/dicom-web"
    today = time.strftime("%Y%m%d")
    before = len(pacs.instances("SR"))
    for number in range(3):
        pacs.upload(encoded(instance(number, seed="web", StudyDate=today)))
    pacs.upload(encoded(instance(9, seed="old", StudyDate="20200101")))
    spool = Spool(tmp_path / "spool")
    segment = Segmenter([str(run)])
    spool.model = segment.model

    def puller() -> Puller:
        return Puller(url, spool)

    assert puller().look() == 3
    assert puller().look() == 0, "they are on their way"
    for key in spool.waiting():
        work_off(spool, segment, key)
    delivery = Delivery(spool, WebPacs(url))
    while not delivery._round():
        pass
    assert spool.counts().done == 3
    assert puller().look() == 0, "they are done"
    assert len(pacs.instances("SR")) == before + 3


def test_dcmtk_speaks_tls_to_the_node(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", model="ab" * 32)
    found = certificates_in(tmp_path)
    server = Server(
        spool,
        aet="MONAI_THYROID",
        host="127.0.0.1",
        port=0,
        reported=lambda transaction, kept: False,
        tls=found["hospital"],
    )
    server.bind()
    server.start()
    path = tmp_path / "instance.dcm"
    path.write_bytes(encoded(instance(1)))
    try:
        for name, tls in found.items():
            options = ["+tls", tls.key, tls.certificate, "+cf", found["hospital"].authority]
            assert (send([path], port=server.port, options=options) == 0) == (name == "hospital")
        assert send([path], port=server.port) != 0
    finally:
        server.stop()
    assert len(spool.waiting()) == 1


def test_a_node_that_cannot_begin_says_why(pacs: Orthanc, run: Path, tmp_path: Path) -> None:
    arguments = ["--model", run, "--spool", tmp_path / "spool", "--send-to", "127.0.0.1:1:PACS"]
    done = subprocess.run(
        node_command(*arguments, "--port", pacs.dicom_port, "--status-port", 0),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"--host 127.0.0.1 --port {pacs.dicom_port}: cannot listen there")
