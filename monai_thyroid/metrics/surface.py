"""Distances between the boundaries of two masks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["SurfaceDistances", "boundary", "surface_distances"]

# Rounding of spacing times pixels must not decide whether a distance equals the tolerance.
_TIE = 1e-6


class SurfaceDistances(NamedTuple):
    """For every boundary pixel of each mask the distance to the nearest boundary pixel of the other.

    Attributes:
        from_reference: (n,), in the unit of the spacing.
        from_prediction: (m,), likewise.
    """

    from_reference: npt.NDArray[np.float64]
    from_prediction: npt.NDArray[np.float64]

    def hausdorff(self, percentile: float = 95.0) -> float:
        """Larger of the two directed percentiles (linear interpolation); 100 gives the Hausdorff distance.

        Huttenlocher et al. 1993, doi 10.1109/34.232073.
        """
        return float(
            max(np.percentile(self.from_reference, percentile), np.percentile(self.from_prediction, percentile))
        )

    def average(self) -> float:
        """Average symmetric surface distance: the mean over the pixels of both boundaries.

        Heimann et al. 2009, doi 10.1109/TMI.2009.2013851.
        """
        total = self.from_reference.sum() + self.from_prediction.sum()
        return float(total / (self.from_reference.size + self.from_prediction.size))

    def normalised_dice(self, tolerance: float) -> float:
        """Normalised surface Dice: share of the pixels of both boundaries within ``tolerance`` of the other, 0 to 1.

        A boundary is as long as it has pixels. Nikolov et al. 2018, arXiv:1809.04430.
        """
        limit = tolerance * (1 + _TIE)
        near = np.count_nonzero(self.from_reference <= limit) + np.count_nonzero(self.from_prediction <= limit)
        return float(near / (self.from_reference.size + self.from_prediction.size))


def boundary(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Foreground pixels with a background pixel, or the end of the array, above, below, left or right.

    Args:
        mask: (H, W).

    Returns:
        (H, W). The same pixels as ``mask ^ scipy.ndimage.binary_erosion(mask)``, which is what MONAI takes.
    """
    inner = np.zeros_like(mask)
    inner[1:-1, 1:-1] = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    return mask & ~inner


def surface_distances(
    reference: npt.NDArray[np.bool_], prediction: npt.NDArray[np.bool_], *, spacing: tuple[float, float]
) -> SurfaceDistances:
    """Boundary distances in both directions.

    Args:
        reference: (H, W), not empty.
        prediction: (H, W), not empty.
        spacing: (y, x), size of a pixel.

    Raises:
        ValueError: a mask is empty.
    """
    from scipy.spatial import KDTree

    points_ref = np.argwhere(boundary(reference)) * np.asarray(spacing)
    points_pred = np.argwhere(boundary(prediction)) * np.asarray(spacing)
    if not len(points_ref) or not len(points_pred):
        raise ValueError("The distance to an empty mask is not defined.")
    # Boundaries are thin: a tree over their pixels beats a distance transform of the image.
    return SurfaceDistances(KDTree(points_pred).query(points_ref)[0], KDTree(points_ref).query(points_pred)[0])
