"""MONAI Label's own client, spoken to by lines of JSON, for tests: it lives in an environment of its own.

A line in is ``[method, [argument, ...], {name: value}]``, a line out ``{"result": ...}`` or ``{"error": text}``.
"""

from __future__ import annotations

import json
import sys

from monailabel.client import MONAILabelClient


def main() -> None:
    client = MONAILabelClient(sys.argv[1], tmpdir=sys.argv[2])
    for line in sys.stdin:
        method, arguments, options = json.loads(line)
        try:
            told = {"result": getattr(client, method)(*arguments, **options)}
        except Exception as error:
            told = {"error": str(getattr(error, "msg", None) or error)}
        sys.stdout.write(json.dumps(told, default=bytes.decode) + "\n")
        sys.stdout.flush()


main()
