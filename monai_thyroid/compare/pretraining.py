"""Models whose weights had seen the data of the test before: by the names that run.json and known collections give."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from monai_thyroid.compare.reading import Run
from monai_thyroid.errors import UserError
from monai_thyroid.runfolder import read_run

__all__ = ["COLLECTIONS", "contamination"]

COLLECTIONS = {
    # Meyer et al., UltraSam, arXiv:2411.16222: its collection US-43d.
    "UltraSam": ("TN3K", "TG3K", "DDTI", "HC18", "BUSI", "nerve"),
    "US-43d": ("TN3K", "TG3K", "DDTI", "HC18", "BUSI", "nerve"),
}
"""Names under which weights are known, and datasets of this field that they were trained on; not all there are."""


def contamination(runs: Iterable[Run], *, dataset: str | None = None) -> str | None:
    """Why the scores of a model are those of data that its weights may have seen; None where no name says so.

    Names are alike where the words of one are among those of the other: ``HC18`` and ``hc18-800x540``.

    Args:
        runs: of one model.
        dataset: that was scored; None for the one that it was trained on.
    """
    found: dict[str, None] = {}
    for run in runs:
        scored = dataset or run.dataset
        for name in run.record.pretrained_on or []:
            listed = next((parts for known, parts in COLLECTIONS.items() if _words(known) == _words(name)), ())
            if _alike(name, scored):
                if scored != run.dataset or not _same_split(run):
                    found[f"pretrained on {name}"] = None
            elif part := next((part for part in listed if _alike(part, scored)), None):
                found[f"pretrained on {name}, whose list has {part}"] = None
    return "; ".join(found) or None


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", name.casefold())) - {""}


def _alike(first: str, second: str) -> bool:
    one, other = _words(first), _words(second)
    return bool(one and other) and (one <= other or other <= one)


def _same_split(run: Run) -> bool:
    """Whether the weights that it started from are those of a run by the very split, which kept the test away."""
    parent = (run.record.init_from or {}).get("path")
    if not parent:
        return False
    try:
        earlier = read_run(Path(str(parent)).parent)
    except (UserError, OSError):
        return False
    before = earlier.pretrained_on
    return (
        earlier.data_hash is not None
        and earlier.data_hash == run.record.data_hash
        and before is not None
        and not any(_alike(name, run.dataset) for name in before)
    )
