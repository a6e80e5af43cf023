"""Reading many files at a time."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ["map_files"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


def map_files(function: Callable[[Any], _T], items: Sequence[Any], what: str) -> list[_T]:
    """Apply a function that reads files to every item, on a few threads, with a bar on a terminal, else a line."""
    if not sys.stderr.isatty():
        logger.info("%s: %d", what, len(items))
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(tqdm(pool.map(function, items), total=len(items), desc=what, disable=None, leave=False))
