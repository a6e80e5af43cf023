"""`python -m monai_thyroid` is the command `monai-thyroid`."""

from __future__ import annotations

import sys

from monai_thyroid.cli import main

if __name__ == "__main__":
    sys.exit(main())
