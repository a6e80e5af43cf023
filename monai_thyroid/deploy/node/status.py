"""Numbers of a node on a local port: a page for people, and the text that Prometheus reads. Nothing of any patient."""

from __future__ import annotations

import html
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from monai_thyroid.deploy.node.spool import Counts
from monai_thyroid.errors import UserError

__all__ = ["State", "Status", "page", "prometheus"]

logger = logging.getLogger(__name__)

_PREFIX = "monai_thyroid_"


@dataclass(frozen=True)
class State:
    """What is shown.

    Attributes:
        title: of the node.
        counts: of its spool.
        refused: instances and connections since its start.
        trouble: why results wait; None where they do not.
    """

    title: str
    counts: Counts
    refused: int
    trouble: str | None


def prometheus(state: State) -> str:
    """The numbers in the text format of Prometheus, version 0.0.4."""
    counts, lines = state.counts, []

    def add(name: str, kind: str, text: str, values: list[tuple[str, float | None]]) -> None:
        if any(value is not None for _, value in values):
            lines.extend([f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}"])
            lines.extend(f"{_PREFIX}{name}{label} {value:.10g}" for label, value in values if value is not None)

    def one(name: str, kind: str, text: str, value: float | None) -> None:
        add(name, kind, text, [("", value)])

    one("received_total", "counter", "Instances taken.", counts.received)
    one("done_total", "counter", "Instances whose results the PACS has.", counts.done)
    one("failed", "gauge", "Instances in the folder of failures.", counts.failed)
    one("refused_total", "counter", "Instances and connections refused since the start.", state.refused)
    add(
        "queue",
        "gauge",
        "Instances on their way.",
        [
            ('{step="waiting"}', counts.waiting),
            ('{step="outgoing"}', counts.outgoing),
            ('{step="sent"}', counts.sent),
        ],
    )
    one("trouble", "gauge", "Whether results wait for the PACS.", state.trouble is not None)
    add("work_seconds", "summary", "Work on an instance.", [("_sum", counts.seconds), ("_count", counts.done)])
    add("latency_seconds", "summary", "From taken to done.", [("_sum", counts.latency), ("_count", counts.done)])
    one("images_total", "counter", "Frames done.", counts.images)
    for name, unit in (
        ("empty_rate", "Share of frames in which nothing was found"),
        ("area_px", "Mean area found, pixels"),
        ("area_mm2", "Mean area found, square millimetres"),
        ("agreement", "Mean agreement of an ensemble (Dice)"),
    ):
        values = [('{over="all"}', getattr(counts, name)), ('{over="recent"}', counts.recent[name])]
        add(name, "gauge", f"{unit}; recent is the last 200 instances.", values)
    return "\n".join(lines) + "\n"


def page(state: State) -> str:
    """The numbers as a page in HTML."""
    counts = state.counts
    rows = [
        ("Received", f"{counts.received}"),
        ("Waiting for the model", f"{counts.waiting}"),
        ("Waiting for the PACS", f"{counts.outgoing}"),
        ("Waiting for its confirmation", f"{counts.sent}"),
        ("Done", f"{counts.done}"),
        ("Failed", f"{counts.failed}"),
        ("Refused since the start", f"{state.refused}"),
        ("Seconds of work an instance", _number(counts.seconds / counts.done if counts.done else None)),
        ("Seconds from received to done", _number(counts.latency / counts.done if counts.done else None)),
    ]
    drift = [
        ("Frames in which nothing was found", "empty_rate"),
        ("Mean area, pixels", "area_px"),
        ("Mean area, mm²", "area_mm2"),
        ("Mean agreement of the ensemble (Dice)", "agreement"),
    ]
    table = "".join(f"<tr><td>{name}</td><td>{value}</td></tr>" for name, value in rows)
    more = "".join(
        f"<tr><td>{name}</td><td>{_number(getattr(counts, key))}</td><td>{_number(counts.recent[key])}</td></tr>"
        for name, key in drift
    )
    trouble = f"<p><b>Results wait:</b> {html.escape(state.trouble)}</p>" if state.trouble else ""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="10">'
        f"<title>{html.escape(state.title)}</title>"
        "<style>body{font-family:sans-serif;margin:2em}td,th{padding:.2em 1.5em .2em 0;text-align:left}</style>"
        f"<h1>{html.escape(state.title)}</h1>{trouble}<table>{table}</table>"
        f"<h2>What was found</h2><table><tr><th></th><th>all</th><th>last 200 instances</th></tr>{more}</table>"
        '<p>For research; not cleared for diagnosis. <a href="metrics">Prometheus</a></p></html>'
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


class Status:
    """Serves the numbers on this machine alone.

    Args:
        port: 0 for any that is free.
        state: is asked for them.
    """

    def __init__(self, port: int, state: Callable[[], State]) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                content = {"/": (page, "text/html"), "/metrics": (prometheus, "text/plain; version=0.0.4")}
                if self.path not in content:
                    self.send_error(404)
                    return
                render, kind = content[self.path]
                body = render(state()).encode()
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", "no-store")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Keep requests out of the log."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Who asks and does not wait for the answer is no trouble."""

        try:
            self._server = Server(("127.0.0.1", port), Handler)
        except OSError as error:
            raise UserError(f"--status-port {port}: cannot listen there ({error.strerror})") from error
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._server.serve_forever, args=(0.2,), name="status", daemon=True).start()

    def stop(self) -> None:
        """End."""
        self._server.shutdown()
        self._server.server_close()
