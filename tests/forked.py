"""Commands run as ``python -m`` runs them, forked from one process that has imported what they need.

To start Python and import torch and MONAI takes ten seconds; a fork takes none of them. As a script this is that
process: it imports nothing that starts a thread, reads requests from standard input, one a line, and answers each with
the exit status.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


def run_module(module: str, *arguments: str, cwd: str | Path | None = None) -> subprocess.CompletedProcess[str]:
    """What ``python -m MODULE ARGUMENT...`` does, in one thread; its output is text."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        written = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        request = {"module": module, "arguments": arguments, "cwd": str(cwd or Path.cwd()), "written": written}
        request["environment"] = {**os.environ, "OMP_NUM_THREADS": "1"}
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        status = json.loads(server.stdout.readline())
        said = [Path(name).read_text() for name in written]
    return subprocess.CompletedProcess([sys.executable, "-m", module, *arguments], status, *said)


@functools.cache
def _server() -> subprocess.Popen[str]:
    server = subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    atexit.register(server.kill)
    return server


def import_once() -> None:
    """Import what a training, an evaluation and an inference need, before there are forks of this process."""
    import contourpy  # noqa: F401
    import fire  # noqa: F401
    from PIL import Image, ImageOps  # noqa: F401

    import monai_thyroid.data.classes
    import monai_thyroid.data.loading
    import monai_thyroid.evaluation.figures
    import monai_thyroid.evaluation.scoring
    import monai_thyroid.training  # noqa: F401

    Image.init()


def _child(request: dict[str, Any]) -> None:
    """Run the command and end; never returns."""
    status: Any = 1
    try:
        for descriptor, name in enumerate(request["written"], 1):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["cwd"])
        sys.path[0] = request["cwd"]
        sys.argv = [request["module"], *request["arguments"]]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = 0 if ended.code is None else ended.code
        if not isinstance(status, int):
            sys.stderr.write(f"{status}\n")
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _serve() -> None:
    import_once()
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            _child(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
