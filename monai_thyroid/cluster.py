"""A Ray cluster whose machines share the file system of this one."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monai_thyroid.errors import UserError, optional

__all__ = ["joined", "raise_interrupts", "sigterm_interrupts"]


@contextmanager
def joined(address: str | None) -> Iterator[Any]:
    """Join a cluster, and leave it at the end.

    Args:
        address: of the cluster; None for the one RAY_ADDRESS names, or else one of this machine alone.

    Yields:
        The module ``ray``.

    Raises:
        UserError: Ray is not installed, or the cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address.startswith(("local", "127.")):
        # Ray takes this machine's public address even where it is told the loopback one, unless it thinks that the
        # system cannot have clusters. Read when it is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = optional("ray", extra="ray")
    try:
        ray.init(address=address, log_to_driver=False, **({"include_dashboard": False} if address == "local" else {}))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(f"--address {address}: no Ray cluster can be reached there ({error})") from error
    try:
        yield ray
    finally:
        ray.shutdown()


def raise_interrupts() -> None:
    """In a task: let Ray cancel it, by SIGINT, which is ignored where a shell has started the cluster's processes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM, with which schedulers end a job, do what Ctrl-C does, also where Ray has set a handler."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
