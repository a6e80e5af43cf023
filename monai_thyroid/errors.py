"""The one exception type for mistakes that the user can mend, what is told of others, and of packages that lack."""

from __future__ import annotations

import errno
import importlib
import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType, TracebackType

__all__ = ["UserError", "message_of", "optional", "tell_on_exit"]

# torch raises a worker's exception again with the traceback as its text.
_IN_WORKER = re.compile(r"Caught .*? in .*\n(?:.*\n)*?(?:\w+\.)*UserError: ((?:.*\n?)*)\Z")


class UserError(Exception):
    """Something the user can mend: a folder, a file, an option.

    Args:
        problems: one sentence or several, each saying what is wrong, where, and what to do. All that was found,
            not the first only.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple:
        return type(self), (self.problems,)


def optional(module: str, *, extra: str) -> ModuleType:
    """Import a package that only some features need.

    Args:
        module: dotted name, such as ``"segmentation_models_pytorch"``.
        extra: the extra of this package that installs it.

    Raises:
        UserError: it is not installed; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f'This needs the package "{error.name}", which is not installed: pip install "monai_thyroid[{extra}]"'
        ) from error


def message_of(error: BaseException) -> str | None:
    """What to tell the user of an exception, without a traceback; None where it is a fault of the program.

    Mistakes of the user, a full disk, files that cannot be read or written, too little memory, and Ctrl-C are told,
    whichever exceptions a library has wrapped them in.
    """
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "stopped"
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, UserError):
            found = _IN_WORKER.match(str(cause))
            return found[1].rstrip() if found else str(cause)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno is not None:
            where = f"{cause.filename}: " if cause.filename is not None else ""
            if cause.errno in (errno.ENOSPC, errno.EDQUOT):
                return f"{where}the disk is full; free some space and start again"
            return f"{where}{cause.strerror}"
        if isinstance(cause, MemoryError) or "allocate memory" in str(cause) or "out of memory" in str(cause):
            return f"the memory does not suffice ({cause or 'no more is to be had'}); try a smaller batch or image size"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from; what it was raised while handling only where a file failed."""
    seen: set[int] = set()
    now: BaseException | None = error
    while now is not None and id(now) not in seen:
        seen.add(id(now))
        yield now
        behind = now.__context__
        now = now.__cause__ or (behind if isinstance(behind, OSError) and not now.__suppress_context__ else None)


def tell_on_exit() -> None:
    """Let an exception that ends the process be told by `message_of`, by a traceback only where that has none.

    For commands that are not ours: MONAI runs a config where no function of ours could catch anything.
    """

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        message = message_of(error)
        if message is None:
            sys.__excepthook__(kind, error, trace)
        else:
            sys.stderr.write(f"{message}\n")

    sys.excepthook = tell
