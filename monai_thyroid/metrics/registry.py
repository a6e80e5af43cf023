"""Every score of a pair of masks, one entry each: its function, and all that anybody may want to know of it.

The columns of cases.csv, the summaries, the policy in words, what networks may be compared by and how a report calls
and formats a score are made from here. To add a metric, write its function below and decorate it with its facts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from monai_thyroid.metrics.surface import SurfaceDistances, surface_distances

__all__ = ["METRICS", "Counts", "Edge", "EdgeValue", "MaskPair", "Metric", "evaluate"]

Edge = Literal["both_empty", "missed", "false_alarm"]
EdgeValue = float | Literal["diagonal", "computed"]


@dataclass(frozen=True)
class Counts:
    """Pixels of a pair of masks, or of many pairs together; each 0 or more, not all of them 0.

    Attributes:
        tp: foreground in both.
        fp: foreground in the prediction only.
        fn: foreground in the reference only.
        tn: background in both.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @staticmethod
    def of(reference: npt.NDArray[np.bool_], prediction: npt.NDArray[np.bool_]) -> Counts:
        """Of two masks of one image, (H, W)."""
        tp = int(np.count_nonzero(reference & prediction))
        fp, fn = int(np.count_nonzero(prediction)) - tp, int(np.count_nonzero(reference)) - tp
        return Counts(tp, fp, fn, reference.size - tp - fp - fn)

    @property
    def edge(self) -> Edge | None:
        """Which of the masks are empty; None where neither is."""
        if self.tp or (self.fp and self.fn):
            return None
        return "missed" if self.fn else "false_alarm" if self.fp else "both_empty"


@dataclass(frozen=True)
class MaskPair(Counts):
    """Two masks of one image.

    Attributes:
        reference: (H, W), bool; may be cut to the foreground of both masks.
        prediction: (H, W), likewise.
        spacing: (y, x), size of a pixel in mm, or (1, 1).
        diagonal: of the whole image, in the unit of the spacing.
        tolerance: boundary distance that counts as agreement, in that unit.
    """

    reference: npt.NDArray[np.bool_]
    prediction: npt.NDArray[np.bool_]
    spacing: tuple[float, float]
    diagonal: float
    tolerance: float

    @cached_property
    def distances(self) -> SurfaceDistances:
        """Between the boundaries, neither mask empty."""
        return surface_distances(self.reference, self.prediction, spacing=self.spacing)


@dataclass(frozen=True)
class Metric:
    """What is to be known of a score.

    Attributes:
        name: of its column in cases.csv, and of ``--metric``.
        title: in a sentence or over a table.
        definition: the formula, in words or symbols.
        both_empty: its value where neither mask has any foreground; ``"computed"``: the definition holds as it
            stands; ``"diagonal"``: of the image.
        missed: where the prediction alone is empty.
        false_alarm: where the reference alone is empty.
        note: what one has to know to read it.
        source: a DOI, or an arXiv number.
        function: from a `MaskPair`, or where ``pooled`` from `Counts`, to the value.
        larger_is_better: False for distances.
        pooled: it follows from the counts of pixels, so that it can be computed of several images together.
        unit: ``"distance"`` is mm where the spacing is known, otherwise pixels; ``""`` is a share from 0 to 1.
        scaled: it depends on the unit of distances, so that cases in mm and in pixels have no common mean.
        comparable: networks may be compared by it.
        since: version of the run folder's schema from which on cases.csv has its column.
    """

    name: str
    title: str
    definition: str
    both_empty: EdgeValue
    missed: EdgeValue
    false_alarm: EdgeValue
    note: str
    source: str
    function: Callable[..., float]
    larger_is_better: bool = True
    pooled: bool = False
    unit: Literal["", "distance"] = ""
    scaled: bool = False
    comparable: bool = False
    since: int = 1

    @property
    def range(self) -> str:
        """The range of its values, in words."""
        return "0 to the image's diagonal" if self.unit else "0 to 1"

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value that any image could give."""
        return (0.0, math.inf if self.unit else 1.0)

    def heading(self, unit: str) -> str:
        """The title with the unit where there is one.

        Args:
            unit: of distances, ``"mm"`` or ``"pixels"``.
        """
        return f"{self.title} [{unit}]" if self.unit else self.title

    def text(self, value: float) -> str:
        """A value as it is told: shares in three decimals, distances in three digits."""
        return f"{value:.3g}" if self.unit and abs(value) < 100 else f"{value:.0f}" if self.unit else f"{value:.3f}"

    def decimals(self, width: float) -> int:
        """How many decimals of a difference its interval warrants.

        Args:
            width: half of the interval's, above 0 or NaN.

        Returns:
            2 or 3 for shares, 1 to 3 for distances: such that the width is told in one digit, or in two where it begins
            with 1 to 3, as the Particle Data Group rounds (Workman et al. 2022, doi 10.1093/ptep/ptac097).
        """
        least = 1 if self.unit else 2
        return min(3, max(least, int(-np.floor(np.log10(width / 3.55))))) if width > 0 else 3


METRICS: dict[str, Metric] = {}
"""Every score that has a rule, by name, in the order of the columns."""


def _metric(**facts: Any) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Enter the decorated function with the other attributes of its `Metric`."""

    def enter(function: Callable[..., float]) -> Callable[..., float]:
        METRICS[facts["name"]] = Metric(function=function, **facts)
        return function

    return enter


def evaluate(metric: Metric, pair: Counts) -> float:
    """The value of a metric, empty masks by its rule.

    Args:
        metric: what is computed.
        pair: a `MaskPair`; where the metric is ``pooled``, counts are enough.
    """
    edge = pair.edge
    value: EdgeValue = getattr(metric, edge) if edge else "computed"
    if value == "computed":
        return metric.function(pair)
    if value == "diagonal":
        assert isinstance(pair, MaskPair)
        return pair.diagonal
    return float(value)


_NOTHING_IS_RIGHT = "finding nothing where nothing is counts as right"
_RELOADED = "10.1038/s41592-023-02151-z"
_DIAGONAL = "no two pixels of an image are as far apart as its diagonal"


@_metric(
    name="dice",
    title="Dice",
    definition="2tp / (2tp + fp + fn)",
    both_empty=1.0,
    missed=0.0,
    false_alarm=0.0,
    note=_NOTHING_IS_RIGHT,
    source="10.2307/1932409",
    pooled=True,
    comparable=True,
)
def _dice(pair: Counts) -> float:
    return 2 * pair.tp / (2 * pair.tp + pair.fp + pair.fn)


@_metric(
    name="iou",
    title="foreground IoU",
    definition="tp / (tp + fp + fn)",
    both_empty=1.0,
    missed=0.0,
    false_alarm=0.0,
    note=f"of the foreground; {_NOTHING_IS_RIGHT}",
    source="10.1111/j.1469-8137.1912.tb05611.x",
    pooled=True,
    comparable=True,
)
def _iou(pair: Counts) -> float:
    return pair.tp / (pair.tp + pair.fp + pair.fn)


@_metric(
    name="precision",
    title="precision",
    definition="tp / (tp + fp)",
    both_empty=1.0,
    missed=0.0,
    false_alarm=0.0,
    note="0/0 on a missed object: 0, an empty prediction earns nothing",
    source=_RELOADED,
    pooled=True,
)
def _precision(pair: Counts) -> float:
    return pair.tp / (pair.tp + pair.fp)


@_metric(
    name="recall",
    title="recall",
    definition="tp / (tp + fn)",
    both_empty=1.0,
    missed=0.0,
    false_alarm=0.0,
    note="0/0 on a false alarm: 0, as for Dice, or marking everything would be rewarded on images without an object",
    source=_RELOADED,
    pooled=True,
)
def _recall(pair: Counts) -> float:
    return pair.tp / (pair.tp + pair.fn)


@_metric(
    name="specificity",
    title="specificity",
    definition="tn / (tn + fp)",
    both_empty=1.0,
    missed=1.0,
    false_alarm="computed",
    note="1 where the reference is all foreground, whatever the prediction, as no background pixel can be wrong; "
    "an empty prediction always gets 1, so never read it alone",
    source=_RELOADED,
    pooled=True,
)
def _specificity(pair: Counts) -> float:
    return pair.tn / (pair.tn + pair.fp) if pair.tn + pair.fp else 1.0


@_metric(
    name="accuracy",
    title="accuracy",
    definition="(tp + tn) / pixels",
    both_empty=1.0,
    missed="computed",
    false_alarm="computed",
    note="high on small objects even if they are missed, so never read it alone",
    source=_RELOADED,
    pooled=True,
)
def _accuracy(pair: Counts) -> float:
    return (pair.tp + pair.tn) / (pair.tp + pair.fp + pair.fn + pair.tn)


@_metric(
    name="hd95",
    title="95th percentile Hausdorff distance",
    definition="larger of the two directed 95th percentiles of the boundary distances",
    both_empty=0.0,
    missed="diagonal",
    false_alarm="diagonal",
    note=f"{_DIAGONAL}; the definition is MONAI's: MedPy takes one percentile over the distances of both directions "
    "together, which gave another value in 66 % of 200 pairs",
    source="10.1109/34.232073",
    larger_is_better=False,
    unit="distance",
    scaled=True,
    comparable=True,
)
def _hd95(pair: MaskPair) -> float:
    return pair.distances.hausdorff(95)


@_metric(
    name="asd",
    title="average surface distance",
    definition="mean of all boundary distances of both directions",
    both_empty=0.0,
    missed="diagonal",
    false_alarm="diagonal",
    note=_DIAGONAL,
    source="10.1109/TMI.2009.2013851",
    larger_is_better=False,
    unit="distance",
    scaled=True,
    comparable=True,
)
def _asd(pair: MaskPair) -> float:
    return pair.distances.average()


@_metric(
    name="nsd",
    title="normalised surface Dice",
    definition="share of both boundaries that lies within the tolerance of the other one",
    both_empty=1.0,
    missed=0.0,
    false_alarm=0.0,
    note=f"{_NOTHING_IS_RIGHT}; boundaries are counted in pixels, as by MONAI: DeepMind's surface-distance weighs "
    "them by the length of the contour, and the two were up to 0.13 apart",
    source="arXiv:1809.04430",
    scaled=True,
    comparable=True,
)
def _nsd(pair: MaskPair) -> float:
    return pair.distances.normalised_dice(pair.tolerance)
