"""Connected components of two masks and which of them belong together."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from monai_thyroid.metrics.policy import ScoringPolicy

__all__ = ["ComponentCounts", "label_components", "match_components"]


class ComponentCounts(NamedTuple):
    """Components of the reference, of the prediction, and pairs of them; ``n_matched <= min(n_ref, n_pred)``."""

    n_ref: int
    n_pred: int
    n_matched: int


def label_components(
    mask: npt.NDArray[np.bool_], *, connectivity: Literal[4, 8] = 8
) -> tuple[npt.NDArray[np.int32], int]:
    """Number the connected components of a mask, by default with pixels that touch by a corner in the same one.

    Args:
        mask: (H, W).
        connectivity: neighbours of a pixel, 8 or 4.

    Returns:
        (H, W), 0 for the background, and how many there are.
    """
    from scipy import ndimage  # not above: who only reads tables does not wait for it

    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1))
    return labels, int(count)


def match_components(
    reference: npt.NDArray[np.bool_], prediction: npt.NDArray[np.bool_], *, policy: ScoringPolicy
) -> ComponentCounts:
    """Count the components of both masks and match them one to one.

    Pairs may match if they share a pixel and their IoU is ``policy.match_iou`` or more; of all one-to-one matchings
    the one with the largest summed IoU is taken. So a lesion predicted in two parts is one match and one false
    positive, and two lesions predicted as one are one match and one lesion not found.

    Args:
        reference: (H, W).
        prediction: (H, W).
        policy: its ``match_iou`` and ``connectivity``.

    Sources:
        Maier-Hein et al. 2024, Metrics reloaded (localisation criterion and assignment strategy),
        doi 10.1038/s41592-023-02151-z.
    """
    labels_ref, n_ref = label_components(reference, connectivity=policy.connectivity)
    labels_pred, n_pred = label_components(prediction, connectivity=policy.connectivity)
    both = reference & prediction
    if not both.any():
        return ComponentCounts(n_ref, n_pred, 0)

    pairs, shared = np.unique(labels_ref[both].astype(np.int64) * (n_pred + 1) + labels_pred[both], return_counts=True)
    ids_ref, ids_pred = np.divmod(pairs, n_pred + 1)
    sizes_ref, sizes_pred = np.bincount(labels_ref.ravel()), np.bincount(labels_pred.ravel())
    iou = shared / (sizes_ref[ids_ref] + sizes_pred[ids_pred] - shared)
    near = iou >= policy.match_iou
    return ComponentCounts(n_ref, n_pred, _matched(ids_ref[near], ids_pred[near], iou[near]))


def _matched(ids_ref: npt.NDArray[np.int64], ids_pred: npt.NDArray[np.int64], iou: npt.NDArray[np.float64]) -> int:
    """Number of pairs in the one-to-one matching with the largest summed IoU, given the pairs that may match."""
    if len(iou) < 2:
        return len(iou)
    from scipy import sparse
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse.csgraph import connected_components

    _, rows = np.unique(ids_ref, return_inverse=True)
    _, columns = np.unique(ids_pred, return_inverse=True)
    # Clusters of touching components are independent of each other; solved one by one, a speckled prediction of
    # thousands of components needs no matrix of all pairs.
    nodes = rows.max() + columns.max() + 2
    graph = sparse.coo_matrix((iou, (rows, columns + rows.max() + 1)), shape=(nodes, nodes))
    cluster = connected_components(graph, directed=False)[1][rows]
    order = np.argsort(cluster, kind="stable")
    matched = 0
    for edges in np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1):
        a, local_ref = np.unique(rows[edges], return_inverse=True)
        b, local_pred = np.unique(columns[edges], return_inverse=True)
        if min(len(a), len(b)) == 1:
            matched += 1
            continue
        gain = np.zeros((len(a), len(b)))
        gain[local_ref, local_pred] = iou[edges]
        taken = linear_sum_assignment(gain, maximize=True)
        # The assignment is complete; those without overlap are no matches.
        matched += int(np.count_nonzero(gain[taken]))
    return matched
