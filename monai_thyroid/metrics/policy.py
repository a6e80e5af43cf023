"""What every score means, the awkward cases included, in the words that every report prints.

Toolkits disagree on empty masks. MONAI drops a case with an empty reference from its mean Dice, and the 95th
percentile distance of a missed object is NaN and leaves its mean, so that a model which finds nothing improves. Here a
case never leaves a mean and a missed object gets the worst value there is.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from monai_thyroid.metrics.registry import METRICS, EdgeValue

__all__ = ["ScoringPolicy"]

_WORDS = {"diagonal": "image diagonal", "computed": "as defined"}
_RULE = ("definition", "both_empty", "missed", "false_alarm", "note", "source")


@dataclass(frozen=True)
class ScoringPolicy:
    """What an empty reference, an empty prediction, or both mean for every metric, and the few parameters there are.

    A *missed* object: reference not empty, prediction empty. A *false alarm*: reference empty, prediction not. The
    rules themselves are fixed, so that two reports always agree on them; :meth:`describe` prints them.

    For dice, iou, precision, recall, nsd, hd95 and asd the value of a miss is the worst there is, so a miss cannot
    improve a mean. Specificity and accuracy reward an empty prediction by their nature.

    Args:
        nsd_tolerance: boundary distance that counts as agreement for nsd, 0 or more; mm where the spacing is known,
            pixels otherwise.
        match_iou: least IoU, 0 to 1, of a reference and a predicted component that may be matched. They must share a
            pixel, so 0 means any overlap. The default asks for rough localisation, not for the outline, as is the
            habit in lesion detection (Retina U-Net, arXiv:1811.08661; nnDetection, doi 10.1007/978-3-030-87240-3_51).
        connectivity: neighbours of a pixel in a component, 8 or 4.

    Raises:
        ValueError: a parameter is out of its range.

    Sources:
        Maier-Hein et al. 2024, Metrics reloaded, doi 10.1038/s41592-023-02151-z; Reinke et al. 2024, Understanding
        metric-related pitfalls, doi 10.1038/s41592-023-02150-0.
    """

    nsd_tolerance: float = 2.0
    match_iou: float = 0.1
    connectivity: Literal[4, 8] = 8

    def __post_init__(self) -> None:
        if not (math.isfinite(self.nsd_tolerance) and self.nsd_tolerance >= 0):
            raise ValueError(f"nsd_tolerance must be finite and not negative, got {self.nsd_tolerance}.")
        if not 0 <= self.match_iou <= 1:
            raise ValueError(f"match_iou must lie in 0 to 1, got {self.match_iou}.")
        if self.connectivity not in (4, 8):
            raise ValueError(f"connectivity must be 4 or 8, got {self.connectivity}.")

    def as_dict(self) -> dict[str, Any]:
        """The parameters and the rules as plain values for JSON.

        Returns:
            ``nsd_tolerance``, ``match_iou``, ``connectivity``, and ``metrics``: for every metric its ``definition``,
            ``both_empty``, ``missed``, ``false_alarm`` (a number, ``"diagonal"`` or ``"computed"``), ``note`` and
            ``source`` (a DOI, or an arXiv number).
        """
        return {
            **asdict(self),
            "metrics": {name: {key: getattr(metric, key) for key in _RULE} for name, metric in METRICS.items()},
        }

    def describe(self) -> str:
        """The policy in plain text: what the terms mean, then a table with a row for every metric."""
        matching = (
            "share a pixel" if self.match_iou == 0 else f"share a pixel and have an IoU of {self.match_iou:g} or more"
        )
        lines = [
            "Scores are per image and class; no empty mask takes a case out of a mean. Missed: the reference is not "
            "empty, the prediction is. False alarm: the reference is empty, the prediction is not.",
            "Distances are Euclidean, between boundary pixels (foreground with a background pixel, or the image edge, "
            "above, below, left or right), in mm where the pixel spacing is known, in pixels otherwise. "
            f"The tolerance of nsd is {self.nsd_tolerance:g} of the same unit.",
            f"Lesions are {self.connectivity}-connected components. Each is matched to at most one of the other mask, "
            f"such that the summed IoU is largest, among pairs that {matching}. n_matched counts the pairs, "
            "n_ref - n_matched lesions were not found, n_pred - n_matched are false positives; an empty mask has 0.",
            "",
        ]
        table = [("metric", "definition", "both empty", "missed", "false alarm", "source (doi)")]
        for name, rule in METRICS.items():
            both_empty, missed, false_alarm = (_word(v) for v in (rule.both_empty, rule.missed, rule.false_alarm))
            table.append((name, rule.definition, both_empty, missed, false_alarm, rule.source))
        widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
        for row in table:
            lines.append(" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        lines.append("")
        lines += [f"{name}: {rule.note}." for name, rule in METRICS.items()]
        return "\n".join(lines)


def _word(value: EdgeValue) -> str:
    return _WORDS[value] if isinstance(value, str) else f"{value:g}"
