"""Write the bundles of this repository anew from their source: `python -m monai_thyroid.bundles [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from monai_thyroid.bundles.render import write_shipped

if __name__ == "__main__":
    for path in write_shipped(Path(sys.argv[1] if len(sys.argv) > 1 else "bundles")):
        sys.stdout.write(f"{path}\n")
