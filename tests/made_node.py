"""What tests of the node stand on: tiny ultrasound instances, a model that takes no time, and a PACS in a folder."""

from __future__ import annotations

import datetime
import hashlib
import io
import ipaddress
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from made_files import dicom
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

from monai_thyroid.deploy.node.delivery import DeclinedError, Session, UnavailableError
from monai_thyroid.deploy.node.server import Tls
from monai_thyroid.deploy.node.spool import Job, Segmented
from monai_thyroid.errors import UserError

PATIENT = "SECRET^PATIENT"
PATIENT_ID = "SECRET-QX4711"  # nothing that a key, a UID or a time in a log may hold by chance


def instance(number: int = 0, *, size: int = 24, seed: str = "", **tags: object) -> Dataset:
    """An ultrasound picture whose UID tells its number."""
    pixels = np.random.RandomState(number).randint(0, 60, (size, size + 8)).astype(np.uint8)
    pixels[4 : 10 + number % 5, 6:14] = 250
    identity = {
        "PatientName": PATIENT,
        "PatientID": PATIENT_ID,
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", seed]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", seed]),
        "SOPInstanceUID": generate_uid(entropy_srcs=["instance", seed, str(number)]),
    }
    dataset = dicom(pixels, **{**identity, **tags})
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    return dataset


def encoded(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def result_uid(sop_instance: str) -> str:
    return f"2.25.{int(hashlib.sha256(sop_instance.encode()).hexdigest()[:30], 16)}"


def stand_in(path: Path) -> Segmented:
    """One picture as a result, whose UID follows from the instance's."""
    source = pydicom.dcmread(path)
    if "PixelData" not in source:
        raise UserError(f"{path}: a DICOM object without pixels")
    found = dicom(np.zeros((8, 8), np.uint8), Modality="OT")
    found.SOPClassUID = found.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    found.SOPInstanceUID = found.file_meta.MediaStorageSOPInstanceUID = result_uid(source.SOPInstanceUID)
    found.StudyInstanceUID = source.StudyInstanceUID
    found.SeriesInstanceUID = f"{source.SeriesInstanceUID}.1"[:64]
    found.PatientID, found.PatientName = source.PatientID, source.PatientName
    return Segmented(datasets=[found], area_px=100.0, area_mm2=25.0, agreement=0.9)


class StandIn:
    model = "ab" * 32

    def __call__(self, path: Path) -> Segmented:
        return stand_in(path)


class Fragile(StandIn):
    """Crashes on the first try of instance 1, hangs on the first of instance 2, refuses instance 3."""

    def __call__(self, path: Path) -> Segmented:
        number = int(pydicom.dcmread(path).InstanceNumber)
        tried = path.parent.parent / f"tried-{number}"
        if not tried.exists():
            tried.touch()
            if number == 1:
                os._exit(11)
            if number == 2:
                time.sleep(1000)
        if number == 3:
            raise UserError(f"{path}: is not to my taste")
        return super().__call__(path)


class Unsound(StandIn):
    def __init__(self) -> None:
        raise UserError("model.pt: is not the file that run.json names")


class FolderPacs:
    """A destination that writes a line for each result it gets, and answers as told."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "pacs.txt"
        self.down = False
        self.commits = False
        self.keeps = True
        self.declines: set[str] = set()
        self.reported: Callable[[str, set[str]], bool] = lambda transaction, kept: False

    @contextmanager
    def open(self, jobs: Sequence[Job]) -> Iterator[Session]:
        if self.down:
            raise UnavailableError("the PACS cannot be reached")
        yield self

    def store(self, job: Job) -> None:
        for result in job.results:
            if result.sop_instance in self.declines:
                raise DeclinedError("refuses it with status A900")
            with open(self.file, "a") as file:
                file.write(f"{pydicom.dcmread(result.path).SOPInstanceUID}\n")

    def confirm(self, jobs: Sequence[Job], transaction: str) -> bool:
        kept = {result.sop_instance for job in jobs for result in job.results} if self.keeps else set()
        return self.commits and self.reported(transaction, kept)

    def linger(self, answered: Callable[[], bool]) -> None:
        pass

    def stored(self) -> list[str]:
        return self.file.read_text().split() if self.file.exists() else []


def certificates_in(folder: Path) -> dict[str, Tls]:
    """An authority with a certificate for 127.0.0.1, and a stranger's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)

    def made(name: str, issuer: tuple[Any, Any] | None) -> tuple[Any, Any]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if issuer is None else issuer[0].subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
            .add_extension(names, critical=False)
        )
        certificate = builder.sign(key if issuer is None else issuer[1], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key

    found = {}
    for name in ("hospital", "stranger"):
        made(f"{name}-peer", made(name, None))
        found[name] = Tls(
            certificate=str(folder / f"{name}-peer.pem"),
            key=str(folder / f"{name}-peer.key"),
            authority=str(folder / f"{name}.pem"),
        )
    return found
