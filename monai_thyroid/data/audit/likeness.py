"""Which images of a dataset are the same, or nearly so, and whether each mask fits its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from monai_thyroid.data.audit.measure import THUMB

__all__ = [
    "LEAST_QUALITY",
    "TURNS",
    "Misfit",
    "Pair",
    "detail_likeness",
    "find_misfits",
    "near_duplicates",
    "perceptual_hash",
]

NEAR = 0.93
"""Correlation of the fine detail of two thumbnails from which they count as the same picture. On seven public sets
of 100 to 1,000 images, pictures of different patients stayed below 0.92."""
LEAST_QUALITY = 0.38
"""Median overlap of masks with what the images suggest below which the search for misfits would only guess."""
_HASH_BITS = 63
_MAX_DISTANCE = 12
_BLOCK = 1024
_HIDDEN = 128
_SAMPLE = 40_000
TURNS = (
    "turned left",
    "turned by 180 degrees",
    "turned right",
    "upside down",
    "mirrored",
    "mirrored and turned left",
    "mirrored and turned right",
)

_Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two near-duplicates, by index, and the correlation of their detail."""

    first: int
    second: int
    likeness: float


@dataclass(frozen=True)
class Misfit:
    """A mask that fits another image, or another orientation, better than its own.

    Attributes:
        index: of the image.
        partner: of the image whose mask fits better, while this one's fits that image; -1 for none.
        turn: index into `TURNS`; -1 for none. A pair may have one too: the other explanation of the first mask.
        gain: by how much the overlap (soft Dice) with what the image suggests would grow; for a pair, both together.
        sure: whether this stands out so far that it is hardly by chance.
    """

    index: int
    partner: int
    turn: int
    gain: float
    sure: bool


def perceptual_hash(thumbs: np.ndarray) -> np.ndarray:
    """Signs of the 63 lowest cosine coefficients against their median.

    After Zauner, "Implementation and benchmarking of perceptual image hash functions" (2010). As +1 and -1, so that
    a product of matrices gives Hamming distances.

    Args:
        thumbs: (n, 32, 32).

    Returns:
        float32 (n, 63) of -1 and 1.
    """
    low = fft.dctn(thumbs, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(len(thumbs), 64)[:, 1:]
    return np.where(low > np.median(low, axis=1, keepdims=True), np.float32(1), np.float32(-1))


def detail_likeness(thumbs: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 1024) of the thumbnails' fine detail, whose products are correlations."""
    detail = thumbs - ndimage.gaussian_filter(thumbs, (0, 2, 2))
    flat = detail.reshape(len(thumbs), -1)
    vectors: np.ndarray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return vectors


def near_duplicates(thumbs: np.ndarray) -> list[Pair]:
    """All pairs of images that look the same: near in perceptual hash, then alike in detail.

    Args:
        thumbs: (n, 32, 32), grey in [0, 1].
    """
    hashes, detail = perceptual_hash(thumbs), detail_likeness(thumbs)
    pairs = []
    for start in range(0, len(thumbs), _BLOCK):
        block = hashes[start : start + _BLOCK]
        distance = (_HASH_BITS - block @ hashes[start:].T) / 2
        rows, columns = np.nonzero(distance <= _MAX_DISTANCE)
        later = columns > rows
        rows, columns = rows[later] + start, columns[later] + start
        for part in range(0, len(rows), 100_000):
            a, b = rows[part : part + 100_000], columns[part : part + 100_000]
            likeness = np.einsum("ij,ij->i", detail[a], detail[b])
            pairs += [Pair(int(a[k]), int(b[k]), float(likeness[k])) for k in np.flatnonzero(likeness >= NEAR)]
    return pairs


def find_misfits(thumbs: np.ndarray, masks: np.ndarray, *, seed: int = 0) -> tuple[list[Misfit], float]:
    """Look for swapped and turned masks.

    A small classifier of pixels (random features, logistic regression) learns from all images together where
    foreground is; a few wrong masks hardly change it. A mask is suspicious where what the classifier expects in its
    image agrees much better with another image's mask, and the other way round, or with the same mask turned or
    mirrored. How much is judged against the same figure of all other images.

    Args:
        thumbs: (n, 32, 32), grey in [0, 1].
        masks: (n, 32, 32), share of foreground; none is empty.
        seed: of the random features.

    Returns:
        Misfits, the surest first, and the median overlap of masks with what was expected: near 1, the search sees
        nearly every fault; below `LEAST_QUALITY` it says nothing.
    """
    expected = _expected(thumbs, masks, seed)
    n = len(thumbs)
    flat_expected, flat_masks = expected.reshape(n, -1), masks.reshape(n, -1).astype(np.float32)
    mass, area = flat_expected.sum(axis=1), flat_masks.sum(axis=1)
    own = 2 * np.einsum("ij,ij->i", flat_expected, flat_masks) / (mass + area)
    best, partner, usual = np.full(n, -np.inf), np.full(n, -1), np.full(n, -np.inf)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        here = 2 * flat_expected[start:stop] @ flat_masks.T / (mass[start:stop, None] + area[None])
        there = 2 * flat_masks[start:stop] @ flat_expected.T / (area[start:stop, None] + mass[None])
        here, there = here - own[start:stop, None], there - own[None]
        gain = here + there
        gain[np.arange(stop - start), np.arange(start, stop)] = -np.inf
        usual[start:stop] = gain.max(axis=1)
        # Neither image may lose: a mask that merely sits where masks usually do fits many images.
        gain[np.minimum(here, there) < -0.02] = -np.inf
        partner[start:stop] = gain.argmax(axis=1)
        best[start:stop] = gain.max(axis=1)
    turned = np.stack([_overlap(expected, turn) for turn in _turns(masks)], axis=1) - own[:, None]
    turn, turn_gain = turned.argmax(axis=1), turned.max(axis=1)
    quality = float(np.median(own))
    misfits: list[Misfit] = []
    if quality < LEAST_QUALITY:
        return misfits, quality
    # Limits from seven clean public sets and the same sets with planted faults.
    good = quality >= 0.5
    least = 0.12 if quality >= 0.84 else 0.25  # the better the guess, the less is left to chance
    turn_z = (turn_gain - np.median(turn_gain)) / _spread(turn_gain)
    turned_rather = (turn_gain >= 0.75 * least) & (turn_z >= (3.4 if good else 4.4))
    z = (best - np.median(usual)) / _spread(usual)
    taken: set[int] = set()
    told: set[frozenset[int]] = set()
    for i in np.argsort(-best).tolist():
        j = int(partner[i])
        if best[i] < least or z[i] < (3 if good else 4):
            break
        # Of a swapped pair one may fit a third image even better: each tells its own best partner.
        if frozenset((i, j)) not in told:
            told.add(frozenset((i, j)))
            taken |= {i, j}
            first, second = (i, j) if turn_gain[i] >= turn_gain[j] else (j, i)
            # Of thousands of pairs some gain much by chance, but hardly where a mask is far off.
            far_off = quality >= 0.84 or min(own[i], own[j]) < 0.4 * quality
            sure = bool(good and far_off and best[i] >= 1.4 * least and z[i] >= 4.5)
            misfits.append(
                Misfit(first, second, int(turn[first]) if turned_rather[first] else -1, float(best[i]), sure)
            )
    for i in np.flatnonzero(turned_rather).tolist():
        if i not in taken:
            sure = bool(good and turn_gain[i] >= 1.25 * least and turn_z[i] >= 4)
            misfits.append(Misfit(i, -1, int(turn[i]), float(turn_gain[i]), sure))
    return sorted(misfits, key=lambda misfit: -misfit.gain), quality


def _spread(values: np.ndarray) -> float:
    """Standard deviation, as the median deviation tells it."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values)))) + 1e-3


def _turns(masks: np.ndarray) -> list[np.ndarray]:
    rotated = [np.rot90(masks, turns, axes=(1, 2)) for turns in (1, 2, 3)]
    flat = masks.swapaxes(1, 2)
    return [*rotated, masks[:, ::-1], masks[:, :, ::-1], flat, flat[:, ::-1, ::-1]]


def _overlap(expected: np.ndarray, masks: np.ndarray) -> np.ndarray:
    together = (expected * masks).sum(axis=(1, 2))
    overlap: np.ndarray = 2 * together / (expected.sum(axis=(1, 2)) + masks.sum(axis=(1, 2)) + 1e-6)
    return overlap


def _features(thumbs: np.ndarray) -> _Array:
    """Grey levels, spread and slopes at several scales, and the place: (n, 32, 32, 19)."""
    grey = thumbs - thumbs.mean(axis=(1, 2), keepdims=True)
    grey /= thumbs.std(axis=(1, 2), keepdims=True) + 1e-6
    features = [grey]
    for scale in (1, 2, 4, 8):
        smooth = ndimage.gaussian_filter(grey, (0, scale, scale), mode="nearest")
        square = ndimage.gaussian_filter(grey * grey, (0, scale, scale), mode="nearest")
        features += [smooth, np.sqrt(np.maximum(square - smooth * smooth, 0)), *np.gradient(smooth, axis=(1, 2))]
    y, x = np.mgrid[0:THUMB, 0:THUMB] / (THUMB - 1) * 2 - 1
    features += [np.broadcast_to(place, grey.shape) for place in (y, x)]
    return np.stack(features, axis=-1).astype(np.float32)


def _expected(thumbs: np.ndarray, masks: np.ndarray, seed: int) -> _Array:
    """Probability of foreground in each pixel of each image, (n, 32, 32)."""
    rng = np.random.default_rng(seed)
    n = len(thumbs)
    per_image = max(1, min(THUMB * THUMB, _SAMPLE // n))
    blocks: Sequence[slice] = [slice(start, start + 256) for start in range(0, n, 256)]
    rows, targets = [], []
    for block in blocks:
        features = _features(thumbs[block]).reshape(-1, THUMB * THUMB, 19)
        where = rng.integers(THUMB * THUMB, size=(len(features), per_image))
        index = np.arange(len(features))[:, None]
        rows.append(features[index, where].reshape(-1, 19))
        targets.append(masks[block].reshape(len(features), -1)[index, where].ravel())
    sample, target = np.concatenate(rows), np.concatenate(targets)
    centre, spread = sample.mean(axis=0), sample.std(axis=0) + 1e-6
    weights = (rng.standard_normal((19, _HIDDEN)) * 1.5 / np.sqrt(19)).astype(np.float32)
    offsets = rng.uniform(-1.5, 1.5, _HIDDEN).astype(np.float32)

    def lift(features: np.ndarray) -> _Array:
        scaled = (features - centre) / spread
        parts = [scaled, np.maximum(scaled @ weights + offsets, 0), np.ones((len(scaled), 1), np.float32)]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    lifted = lift(sample)
    beta: NDArray = np.zeros(lifted.shape[1])
    for _ in range(6):  # Newton's steps of logistic regression, slightly ridged
        logit = np.clip(lifted @ beta, -12, 12)
        probability = 1 / (1 + np.exp(-logit))
        curvature = probability * (1 - probability) + 1e-4
        hessian = (lifted * curvature[:, None].astype(np.float32)).T @ lifted + 1e-5 * len(lifted) * np.eye(len(beta))
        beta += np.linalg.solve(hessian, lifted.T @ (target - probability) - 1e-5 * len(lifted) * beta)
    expected = np.empty((n, THUMB, THUMB), np.float32)
    for block in blocks:
        logit = lift(_features(thumbs[block]).reshape(-1, 19)) @ beta.astype(np.float32)
        expected[block] = (1 / (1 + np.exp(-np.clip(logit, -12, 12)))).reshape(-1, THUMB, THUMB)
    return expected
