"""Preparing MONAI Label's server and running it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from monai_thyroid.deploy.label_app.environment import check_installed
from monai_thyroid.deploy.label_app.place import Place
from monai_thyroid.deploy.label_app.studies import SUFFIXES, prepare_images
from monai_thyroid.deploy.label_app.web import WebStudies, web_client
from monai_thyroid.deploy.pack import check_sums
from monai_thyroid.errors import UserError
from monai_thyroid.files import is_locked, locked
from monai_thyroid.sweep.jobs import TIED

__all__ = ["check_port", "prepare", "run_server"]

_WEB = ("http://", "https://")
_FILTER = "MONAI_LABEL_DICOMWEB_SEARCH_FILTER"


def prepare(
    models: Sequence[str | Path],
    *,
    studies: str,
    output: str | Path,
    groups_from: str | None = None,
    epochs: int = 20,
    tell: Callable[[str], None],
) -> Place:
    """Check models and studies, and make the folder that the server works in.

    Args:
        models: packed bundles or run folders, of the same classes.
        studies: a folder of images, or the URL of a DICOMweb server.
        output: the folder, new or that of an earlier start with the same studies.
        groups_from: regular expression that finds the patient in an image's id.
        epochs: of a training where the client asks for no other number.
        tell: is given what was found, a line at a time.

    Raises:
        UserError: what is wrong with any of them.
    """
    problems = []
    if groups_from is not None:
        try:
            re.compile(groups_from)
        except re.error as error:
            problems.append(f"groups-from {groups_from!r}: is no regular expression ({error})")
    if epochs < 1:
        problems.append(f"epochs {epochs}: give at least 1")
    for model in models:
        path = Path(model).expanduser()
        if (path / "configs" / "metadata.json").is_file():
            try:
                check_sums(path)
            except UserError as error:
                problems += error.problems
    online = studies.startswith(_WEB)
    folder = Path(studies).expanduser()
    place = Place(Path(output).expanduser().absolute())
    if any(one.exists() and not one.is_dir() for one in (place.path, *place.path.parents)):
        problems.append(f"output {output}: is a file, or lies in one; give a folder")
    if not online and not folder.is_dir():
        problems.append(f"studies {studies}: no such folder")
    elif not online and (place.path.is_relative_to(folder.resolve())):
        problems.append(f"output {output}: lies in the folder of studies; give one outside of it")
    elif place.path.is_dir() and is_locked(place.path):
        problems.append(f"output {output}: another server works in it; stop that, or give another --output")
    if problems:
        raise UserError(problems)
    name = studies.rstrip("/") if online else str(folder.resolve())
    with _as_it_was(place.path):
        place.settle(models, studies=name, groups_from=groups_from, epochs=epochs)
        if online:
            _look(name, place, tell)
        else:
            prepared = prepare_images(Path(name), place.studies, place.table)
            left_out = "".join(f", {count} {reason} left out" for reason, count in prepared.left_out.items())
            tell(f"{prepared.images} images, {prepared.new} of them new{left_out}; {place.table} says which is which")
            if groups_from is not None:
                _check_groups(place, groups_from)
    for model in place.settings["given"]:
        now = place.model(model)
        trained = "" if str(now) == place.settings["given"][model]["path"] else ", as trained here"
        tell(f"model {model}: {now}{trained}")
    return place


@contextmanager
def _as_it_was(folder: Path) -> Iterator[None]:
    """Leave a folder empty that was so before, where what is done fails: the next start may be of other studies."""
    fresh = not folder.exists() or not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if fresh and folder.is_dir():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def run_server(
    place: Place,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    origins: Sequence[str] = (),
    tell: Callable[[str], None],
) -> int:
    """Run MONAI Label's server until it ends, and with it whatever it has started; returns its exit status.

    Args:
        place: see `prepare`.
        host: address to listen on.
        port: likewise.
        origins: of web pages that may read from it beside its own, such as ``http://localhost:3000``.
        tell: is given what happens, a line at a time.

    Raises:
        UserError: MONAI Label is not installed here, the port is not to be had, or another server works in the folder.
    """
    check_installed()
    check_port(host, port)
    studies = place.settings["studies"]
    command = [sys.executable, "-c", TIED, str(os.getpid()), "-m", "monailabel.main", "start_server"]
    command += ["--app", str(place.app)]
    command += ["--studies", studies if studies.startswith(_WEB) else str(place.studies)]
    command += ["--host", host, "--port", str(port), "--uvicorn_app", "monai_thyroid.deploy.label_app.http:app"]
    own = f"http://{host}:{port}"
    settings = {
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps([f"*{suffix}" for suffix in SUFFIXES]),
        "MONAI_LABEL_SESSION_PATH": str(place.path / "sessions"),
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "MONAI_LABEL_TRACKING_ENABLED": "false",
        "MONAI_THYROID_LABEL_ORIGINS": " ".join(origins),
        _FILTER: os.environ.get(_FILTER, "{}"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[3]), os.environ.get("PYTHONPATH", "")]),
    }
    tell(f"MONAI Label: {own}, from {place.path}")
    # A group of its own, so that a training that it has started ends with it.
    # It takes an image's id for a file if there is one of that name where it works.
    nowhere = place.path / "sessions"
    nowhere.mkdir(exist_ok=True)
    with locked(place.path, work="annotating"):
        server = subprocess.Popen(command, cwd=nowhere, env={**os.environ, **settings}, start_new_session=True)
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        for number in before:
            signal.signal(number, _stop)
        try:
            return server.wait()
        except KeyboardInterrupt:
            tell("stopping")
            return 0
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _end(server)


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _end(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            continue


def _look(url: str, place: Place, tell: Callable[[str], None]) -> None:
    """What is on a DICOMweb server."""
    try:
        filters = json.loads(os.environ.get(_FILTER, "{}"))
    except ValueError as error:
        raise UserError(f"{_FILTER}: is no JSON ({error})") from error
    if not isinstance(filters, dict):
        raise UserError(f'{_FILTER}: give names and values, such as {{"Modality": "US"}}')
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{word}", "") for word in ("USERNAME", "PASSWORD"))
    studies = WebStudies(web_client(url, user=user, password=password), filters=filters, classes=place.classes)
    found = studies.series()
    tell(f"{len(found)} series of one image each, {len(studies.refused)} others left out")
    for reason in list(studies.refused.values())[:20]:
        tell(f"left out: {reason}")
    if not found:
        raise UserError([f"studies {url}: holds no series of one image", *list(studies.refused.values())[:20]])


def _check_groups(place: Place, pattern: str) -> None:
    from monai_thyroid.data.layouts.listing import group_in
    from monai_thyroid.files import read_csv

    names = [row["id"] for row in read_csv(place.table)]
    if lost := [name for name in names if not group_in(name, re.compile(pattern))]:
        shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
        raise UserError(f"groups-from {pattern!r}: finds no patient in {shown}")


def check_port(host: str, port: int) -> None:
    """Make sure that a server can listen there.

    Raises:
        UserError: it cannot.
    """
    if not 0 < port < 65536:
        raise UserError(f"port {port}: give one from 1 to 65535")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise UserError(f"port {port}: cannot be had on {host} ({error.strerror}); give another --port") from error
