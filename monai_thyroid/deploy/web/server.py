"""The web server: this machine only unless told otherwise, nothing sent or fetched elsewhere, no upload on the disk."""

from __future__ import annotations

import ipaddress
import logging
import socket
from pathlib import Path

from monai_thyroid.deploy.web.serving import Desk
from monai_thyroid.errors import UserError, optional

__all__ = ["check_address", "current", "serve", "use"]

logger = logging.getLogger(__name__)

_MOST_MEGABYTES = 500
"""Of an upload."""

_desk: list[Desk] = []


def use(desk: Desk) -> None:
    """Let the pages of this process stand on it."""
    _desk[:] = [desk]


def current() -> Desk:
    """What the pages of this process stand on."""
    return _desk[0]


def serve(desk: Desk, *, host: str = "127.0.0.1", port: int = 8501) -> None:
    """Serve the pages until Ctrl-C.

    Args:
        desk: what they show.
        host: address to listen at.
        port: to listen at.

    Raises:
        UserError: the extra ``web`` is not installed, or nothing can listen there.
    """
    bootstrap = optional("streamlit.web.bootstrap", extra="web")
    check_address(host, port)
    from monai_thyroid.deploy.dicom import keep_patients_out_of_logs

    keep_patients_out_of_logs()
    keep_uploads_in_memory()
    ask_nobody()
    use(desk)
    options = settings(host, port)
    bootstrap.load_config_options(options)
    bootstrap.run(str(Path(__file__).parent / "start" / "app.py"), False, [], options)


def settings(host: str, port: int) -> dict[str, object]:
    """What Streamlit is told, whatever the user's own configuration of it says."""
    return {
        "global.developmentMode": False,
        "server.address": host,
        "server.port": port,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.runOnSave": False,
        "server.enableStaticServing": False,
        "server.enableCORS": True,  # other pages of the browser are kept out
        "server.enableXsrfProtection": True,
        "server.maxUploadSize": _MOST_MEGABYTES,
        "browser.gatherUsageStats": False,
        "client.toolbarMode": "minimal",
        "client.showErrorDetails": "none",  # they go to the log
        "client.showErrorLinks": False,
        "logger.hideWelcomeMessage": True,
    }


def check_address(host: str, port: int) -> None:
    """Make sure that the page can listen there.

    Raises:
        UserError: it cannot; says why.
    """
    if not 0 < port < 65536:
        raise UserError(f"--port {port}: give a number from 1 to 65535")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: cannot listen there ({error.strerror}); try another") from error
    if not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        logger.warning("%s is not this machine alone: whoever reaches port %d can use the page unasked", host, port)


def ask_nobody() -> None:
    """Streamlit asks a server of others for this machine's address when a page of another origin knocks."""
    optional("streamlit.net_util", extra="web").get_external_ip = lambda: None  # type: ignore[attr-defined]


def keep_uploads_in_memory() -> None:
    """Starlette, which receives uploads for Streamlit, would put larger ones into files without a name."""
    try:
        from starlette.formparsers import MultiPartParser
    except ImportError:  # releases of Streamlit before 1.50 receive by Tornado, in memory
        return
    MultiPartParser.spool_max_size = (_MOST_MEGABYTES + 1) * 1024**2
