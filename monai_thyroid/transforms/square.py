"""Padding to a square, so that resizing to a square keeps the aspect ratio."""

from __future__ import annotations

from collections.abc import Sequence

from monai.config import KeysCollection
from monai.transforms import Pad, Padd

__all__ = ["PadToSquare", "PadToSquared"]


class PadToSquare(Pad):
    """Pad the shorter side of an image (channels, width, height) evenly on both ends to the length of the longer.

    An odd pixel goes to the far end. `Invertd` takes the padding off again.

    Args:
        mode: of ``numpy.pad`` or ``torch.nn.functional.pad``; constant by default.
        value: of the padded pixels where the mode is constant.
    """

    def __init__(self, *, mode: str = "constant", value: float = 0.0) -> None:
        super().__init__(mode=mode, value=value)

    def compute_pad_width(self, spatial_shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Pixels to add before and after each axis, the channel axis first."""
        longest = max(spatial_shape)
        missing = [longest - size for size in spatial_shape]
        return ((0, 0), *((size // 2, size - size // 2) for size in missing))


class PadToSquared(Padd):
    """`PadToSquare` for items: pads the image under each key.

    Args:
        keys: keys of the images.
        mode: as for `PadToSquare`, one for all keys or one a key.
        value: as for `PadToSquare`.
        allow_missing_keys: skip keys that an item lacks.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mode: str | Sequence[str] = "constant",
        value: float = 0.0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, PadToSquare(value=value), mode=mode, allow_missing_keys=allow_missing_keys)
