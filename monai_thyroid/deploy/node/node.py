"""A node of a hospital's network: takes images, segments them, and hands the results to the PACS."""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

from monai_thyroid.deploy.node.delivery import Delivery, Destination, Pacs
from monai_thyroid.deploy.node.server import Access, Server, Tls
from monai_thyroid.deploy.node.spool import Spool
from monai_thyroid.deploy.node.status import State, Status
from monai_thyroid.deploy.node.web import Puller, WebPacs
from monai_thyroid.deploy.node.worker import Segment, Worker, quiet
from monai_thyroid.errors import UserError
from monai_thyroid.files import locked

__all__ = ["Node", "NodeOptions", "peer", "run_node"]

logger = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class NodeOptions:
    """How a node works.

    Attributes:
        spool: its folder.
        aet: its AE title.
        host: address to listen at.
        port: for DICOM; 0 for any that is free.
        send_to: host, port and AE title of the PACS; None where DICOMweb is used.
        dicomweb: URL of a DICOMweb service to fetch from and to post to; then nothing listens for DICOM.
        every: seconds between two looks at the DICOMweb service.
        days: how old a study there may be.
        access: who may send what.
        tls: files for TLS, for what listens.
        send_tls: use them to send, too.
        commitment: ask the PACS whether it keeps the results.
        status_port: of the page of numbers on this machine; 0 for any that is free, None for none.
        max_queue: instances on their way.
        min_free: bytes that stay free on the disk.
        patience: seconds that one instance may take.
    """

    spool: str
    aet: str = "MONAI_THYROID"
    host: str = "127.0.0.1"
    port: int = 11112
    send_to: tuple[str, int, str] | None = None
    dicomweb: str | None = None
    every: float = 30
    days: int = 1
    access: Access = field(default_factory=Access)
    tls: Tls | None = None
    send_tls: bool = False
    commitment: bool = True
    status_port: int | None = 8104
    max_queue: int = 10_000
    min_free: float = 1_000_000_000
    patience: float = 600

    def __post_init__(self) -> None:
        problems = [*_title_problems("--aet", self.aet), *_port_problems("--port", self.port)]
        for title in self.access.calling:
            problems += _title_problems("--accept-from", title)
        if (self.send_to is None) == (self.dicomweb is None):
            problems.append("give either --send-to HOST:PORT:AET or --dicomweb URL")
        if self.send_to is not None:
            problems += [
                *_port_problems("--send-to", self.send_to[1], least=1),
                *_title_problems("--send-to", self.send_to[2]),
            ]
        if self.send_tls and self.tls is None:
            problems.append("--send-tls: give --tls-certificate, --tls-key and --tls-authority, too")
        if self.status_port is not None:
            problems += _port_problems("--status-port", self.status_port)
        limits = {
            "--every": self.every,
            "--days": self.days + 1,
            "--max-queue": self.max_queue,
            "--max-megabytes": self.access.max_bytes,
            "--max-rate": self.access.max_rate,
            "--max-associations": self.access.max_associations,
            "--patience": self.patience,
        }
        problems += [f"{name}: give a number above 0" for name, value in limits.items() if not 0 < value < math.inf]
        if not 0 <= self.min_free < math.inf:
            problems.append("--min-free: give 0 or more")
        if problems:
            raise UserError(problems)


def peer(text: str) -> tuple[str, int, str]:
    """Read ``HOST:PORT:AET``.

    Raises:
        UserError: it is not of that form.
    """
    found = re.fullmatch(r"(.+):(\d+):([^:]+)", text)
    if found is None:
        raise UserError(f"--send-to {text}: give HOST:PORT:AET, such as 127.0.0.1:4242:ORTHANC")
    return found[1].strip("[]"), int(found[2]), found[3]


def _title_problems(option: str, title: str) -> list[str]:
    good = len(title.strip()) > 0 and len(title) <= 16 and title.isascii() and title.isprintable() and "\\" not in title
    return [] if good else [f"{option} {title}: an AE title has 1 to 16 ASCII characters without a backslash"]


def _port_problems(option: str, port: int, *, least: int = 0) -> list[str]:
    return [] if least <= port < 65536 else [f"{option} {port}: give a port, 1 to 65535"]


class Node:
    """All parts of a node together.

    Args:
        options: how it works.
        make: makes what segments, in the worker's process; must be picklable.

    Raises:
        UserError: something given cannot be used.
    """

    def __init__(
        self,
        options: NodeOptions,
        *,
        make: Callable[[], Segment],
    ) -> None:
        self.options = options
        self.spool = Spool(options.spool, max_queue=options.max_queue, min_free=options.min_free)
        self.worker = Worker(make, self.spool, patience=options.patience)
        self.server: Server | None = None
        self.puller: Puller | None = None
        to: Destination
        if options.dicomweb is not None:
            to = WebPacs(options.dicomweb)
            self.puller = Puller(
                options.dicomweb,
                self.spool,
                every=options.every,
                days=options.days,
                max_bytes=options.access.max_bytes,
            )
        else:
            assert options.send_to is not None
            to = Pacs(
                *options.send_to,
                calling=options.aet,
                reported=self._reported,
                tls=options.tls if options.send_tls else None,
                commitment=options.commitment,
            )
            calling = options.access.calling
            self.server = Server(
                self.spool,
                aet=options.aet,
                host=options.host,
                port=options.port,
                reported=self._reported,
                # The PACS calls to say what it keeps.
                access=Access(
                    calling={*calling, options.send_to[2]} if calling else (),
                    max_bytes=options.access.max_bytes,
                    max_rate=options.access.max_rate,
                    max_associations=options.access.max_associations,
                ),
                tls=options.tls,
            )
        self.delivery = Delivery(self.spool, to)
        self.status = None if options.status_port is None else Status(options.status_port, self.state)
        self._end = ExitStack()

    def start(self) -> None:
        """Begin; what an earlier process left is worked off first.

        Raises:
            UserError: the model cannot be used, another node has the spool, or a port is not to be had.
        """
        options = self.options
        try:
            self._end.enter_context(locked(self.spool.folder, work="running a node"))
            if self.server is not None:
                self.server.bind()  # a port that is not to be had is told before the model has been loaded
            self.spool.recover()
            self._end.callback(self.worker.stop)
            self.worker.start()
            self._end.callback(self.delivery.stop)
            if self.status is not None:
                self._end.callback(self.status.stop)
                self.status.start()
                logger.info("numbers: http://127.0.0.1:%d/", self.status.port)
            if self.server is not None:
                self.server.start()
                logger.info("%s listens at %s:%d", options.aet, options.host, self.server.port)
                if options.host not in _LOOPBACK and not (options.access.calling and options.tls):
                    logger.warning("others can reach it: --accept-from and --tls-* say who may")
            if self.puller is not None:
                self._end.callback(self.puller.stop)
                self.puller.start()
                logger.info("looks for images every %g s", options.every)
            self.delivery.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End: nothing more is taken, what is under way is finished, the rest waits in the spool."""
        if self.server is not None:
            self.server.stop()
        self._end.close()

    def state(self) -> State:
        """What the page of numbers shows."""
        refused = sum(part.refused for part in (self.server, self.puller) if part is not None)
        return State(self.options.aet, self.spool.counts(), refused, self.delivery.trouble)

    def _reported(self, transaction: str, kept: set[str]) -> bool:
        return self.delivery.reported(transaction, kept)


def run_node(
    models: Sequence[str],
    options: NodeOptions,
    *,
    device: str = "auto",
    runtime: str = "auto",
    tta: bool = False,
    review_below: float | None = None,
    tissue_only: bool = False,
) -> None:
    """Run a node until it is told to stop by SIGTERM or Ctrl-C.

    Args:
        models: run folders or packed bundles, several as an ensemble.
        options: how it works.
        device: see `Predictor`.
        runtime: see `Predictor`.
        tta: see `Predictor`.
        review_below: agreement of an ensemble below which a result is marked, and kept in the folder ``review``.
        tissue_only: blacken what lies outside of the ultrasound regions that show tissue.

    Raises:
        UserError: it cannot begin.
        KeyboardInterrupt: it was told by Ctrl-C, and has ended.
    """
    from monai_thyroid.deploy.node.segmenting import Segmenter

    os.umask(0o077)
    quiet()
    threading.excepthook = _tell_of_thread
    make = partial(
        Segmenter,
        list(models),
        device=device,
        runtime=runtime,
        tta=tta,
        review_below=review_below,
        tissue_only=tissue_only,
    )
    node = Node(
        options,
        make=make,
    )
    stopping, told = threading.Event(), []

    def stop(number: int, frame: object) -> None:
        told.append(number)
        stopping.set()

    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, stop)
    node.start()
    logger.info("ready")
    stopping.wait()
    logger.info("stopping; what waits stays in the spool")
    node.stop()
    if signal.SIGINT in told:
        raise KeyboardInterrupt


def _tell_of_thread(what: threading.ExceptHookArgs) -> None:
    """A connection's thread that ends by what was sent is one line; the bytes are not told."""
    logger.warning("a connection was ended by what came (%s)", what.exc_type.__name__)
