"""Pictures for a screen: of a size that is quick to send, in the proportions of the body, with what reading them takes.

Everything is drawn as the image lies in its file, as viewers show it; nothing is mirrored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from monai_thyroid.drawing import CLASSES, paint_outlines, rgb
from monai_thyroid.images import overlay, to_channels
from monai_thyroid.images.raster import Raster

__all__ = ["Screen", "agreement_text"]

LONGEST, SHORTEST = 1000, 480
"""Sides of a picture on the screen, in pixels: the longer is at most the one, at least the other."""
_STRIP = "#1B1B1B"
_VEIL = 0.6
"""How opaque an agreement is."""
_LENGTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Of a scale bar, in mm."""
_AGREED, _FIRST, _SECOND = CLASSES[0], CLASSES[1], CLASSES[4]


class Screen:
    """An image as it is shown, and everything else on its grid.

    Args:
        raster: the image.

    Attributes:
        size: (width, height) of every picture without its strip, in pixels of the screen.
    """

    def __init__(self, raster: Raster) -> None:
        self.raster = raster
        height, width = raster.pixels.shape[:2]
        y, x = raster.spacing or (1.0, 1.0)
        tall, wide = height * y / min(y, x), width * x / min(y, x)
        longer = max(tall, wide)
        factor = min(LONGEST, max(SHORTEST, longer)) / longer
        self.size = max(1, round(wide * factor)), max(1, round(tall * factor))
        self._font = ImageFont.load_default(max(13, self.size[0] // 36))
        grey = np.rint(to_channels(raster.normalised(), 3) * 255).astype(np.uint8)
        self._picture = np.asarray(Image.fromarray(grey).resize(self.size, Image.Resampling.BICUBIC, reducing_gap=2))

    def image(self) -> np.ndarray:
        """The image, with a scale bar where millimetres are known: uint8, (height, width, 3)."""
        picture = Image.fromarray(self._picture)
        if self.raster.spacing is not None:
            millimetre = self.size[0] / (self.raster.pixels.shape[1] * self.raster.spacing[1])
            fitting = [length for length in _LENGTHS if length * millimetre <= self.size[0] / 3]
            if fitting:
                self._scale_bar(ImageDraw.Draw(picture), fitting[-1], fitting[-1] * millimetre)
        return np.asarray(picture)

    def _scale_bar(self, draw: ImageDraw.ImageDraw, length: int, pixels: float) -> None:
        margin, thick = self.size[0] // 40, max(3, self.size[1] // 120)
        right, bottom = self.size[0] - margin, self.size[1] - margin
        draw.rectangle((right - pixels - 1, bottom - thick - 1, right + 1, bottom + 1), fill="black")
        draw.rectangle((right - pixels, bottom - thick, right, bottom), fill="white")
        self._write(draw, (right - pixels / 2, bottom - thick - 4), f"{length} mm", anchor="mb")

    def _write(self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, *, anchor: str) -> None:
        """White with a black rim, which shows on any ground."""
        draw.text(place, text, font=self._font, anchor=anchor, fill="white", stroke_width=2, stroke_fill="black")

    def mask(
        self,
        labels: np.ndarray,
        *,
        fill: float,
        places: Sequence[tuple[float, float]] = (),
        classes: Sequence[str] = (),
    ) -> np.ndarray:
        """The image with the outlines of a mask, filled: uint8, (height, width, 3).

        Args:
            labels: (height, width) of the image, class numbers.
            fill: see `overlay`.
            places: x and y of numbers to write, 1 and so on, in pixels of the image.
            classes: their names; of several a strip tells which colour is which.
        """
        picture = Image.fromarray(overlay(self._picture / np.float32(255), self._near(labels), fill=fill))
        draw = ImageDraw.Draw(picture)
        height, width = labels.shape
        for number, (x, y) in enumerate(places, 1):
            place = x * self.size[0] / width, y * self.size[1] / height
            self._write(draw, place, str(number), anchor="mm")
        if len(classes) < 2:
            return np.asarray(picture)
        words = [(name, CLASSES[number % len(CLASSES)]) for number, name in enumerate(classes)]
        return self._with_words(np.asarray(picture), words)

    def probability(self, plane: np.ndarray, *, threshold: float | None) -> np.ndarray:
        """A map of probabilities with a line where the threshold is, and a strip that tells the colours.

        Args:
            plane: (height, width) of the image, 0 to 1.
            threshold: None for no line.
        """
        small = np.asarray(Image.fromarray(plane.astype(np.float32)).resize(self.size, Image.Resampling.BILINEAR))
        picture = _coloured(np.clip(small, 0, 1))
        if threshold is not None:
            paint_outlines(picture, [self._near(plane > threshold) > 0], colours=["#FFFFFF"], width=self._line)
        return self._with_bar(picture, "probability 0", "1", mark=threshold)

    def agreement(self, shares: np.ndarray, *, members: int) -> np.ndarray:
        """The image with how many members of an ensemble mark each pixel, and a strip that tells the colours.

        Args:
            shares: (height, width) of the image, 0 to 1; where it is 0, the image is seen.
            members: how many there are.
        """
        small = np.asarray(Image.fromarray(shares.astype(np.float32)).resize(self.size, Image.Resampling.NEAREST))
        # What lies below is seen through it.
        over = np.rint(_VEIL * _coloured(small) + (1 - _VEIL) * self._picture)
        picture = np.where((small > 0)[..., None], over, self._picture)
        steps = np.arange(1, members + 1, dtype=np.float32) / members
        return self._with_bar(picture.astype(np.uint8), "marked by 1", f"all {members} members", steps=steps)

    def disagreement(self, masks: Sequence[np.ndarray], titles: Sequence[str], *, fill: float) -> np.ndarray:
        """The image with what all models mark and what only some do, and a strip that tells which colour is which.

        Args:
            masks: (height, width) of the image each, bool; two or more.
            titles: of the models.
            fill: how opaque the colours are, 0 to 1.
        """
        count = np.sum([mask.astype(np.uint8) for mask in masks], axis=0)
        parts = [("all", count == len(masks), _AGREED)]
        if len(masks) == 2:
            parts += [
                (f"only {titles[0]}", masks[0] & ~masks[1], _FIRST),
                (f"only {titles[1]}", masks[1] & ~masks[0], _SECOND),
            ]
        else:
            parts.append(("only some", (count > 0) & (count < len(masks)), _FIRST))
        picture = self._picture.astype(np.float32)
        for _, part, colour in parts:
            shown = self._near(part) > 0
            picture[shown] = (1 - fill) * picture[shown] + fill * np.array(rgb(colour), np.float32)
        drawn = np.rint(picture).astype(np.uint8)
        paint_outlines(
            drawn, [self._near(part) > 0 for _, part, _ in parts], colours=[c for *_, c in parts], width=self._line
        )
        return self._with_words(drawn, [(text, colour) for text, _, colour in parts])

    @property
    def _line(self) -> int:
        return max(1, round(max(self.size) / 400))

    def _near(self, labels: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(self.size, Image.Resampling.NEAREST))

    def _with_bar(
        self, picture: np.ndarray, low: str, high: str, *, mark: float | None = None, steps: np.ndarray | None = None
    ) -> np.ndarray:
        """The picture above a bar between two words, of all colours or those of some steps, and a tick at a mark."""
        strip, draw, middle = self._strip(picture, rows=1)
        left = 8 + draw.textlength(low, font=self._font) + 8
        right = self.size[0] - 8 - draw.textlength(high, font=self._font) - 8
        shares = np.linspace(0, 1, max(2, round(right - left)), dtype=np.float32)
        if steps is not None:
            shares = steps[np.minimum((shares * len(steps)).astype(int), len(steps) - 1)]
        bar = _coloured(shares[None].repeat(12, 0))
        strip.paste(Image.fromarray(bar), (round(left), round(middle - 6)))
        draw.text((8, middle), low, font=self._font, fill="white", anchor="lm")
        draw.text((self.size[0] - 8, middle), high, font=self._font, fill="white", anchor="rm")
        if mark is not None:
            at = left + mark * (right - left)
            draw.rectangle((at - 3, middle - 9, at + 3, middle + 9), fill="white", outline="black", width=2)
        return np.asarray(strip)

    def _with_words(self, picture: np.ndarray, words: Sequence[tuple[str, str]]) -> np.ndarray:
        """The picture above lines of words, each behind a square of its colour."""
        strip, draw, middle = self._strip(picture, rows=len(words))
        for row, (text, colour) in enumerate(words):
            y = middle + row * self._row
            draw.rectangle((8, y - 6, 20, y + 6), fill=colour)
            while text and draw.textlength(text, font=self._font) > self.size[0] - 36:
                text = text[:-2] + "…" if len(text) > 2 else ""
            draw.text((28, y), text, font=self._font, fill="white", anchor="lm")
        return np.asarray(strip)

    @property
    def _row(self) -> int:
        return round(self._font.size * 1.6) if isinstance(self._font, ImageFont.FreeTypeFont) else 20

    def _strip(self, picture: np.ndarray, *, rows: int) -> tuple[Image.Image, ImageDraw.ImageDraw, float]:
        whole = Image.new("RGB", (self.size[0], self.size[1] + rows * self._row + 8), _STRIP)
        whole.paste(Image.fromarray(picture), (0, 0))
        return whole, ImageDraw.Draw(whole), self.size[1] + 4 + self._row / 2


def _coloured(shares: np.ndarray) -> np.ndarray:
    """0 to 1 as colours whose brightness grows evenly: uint8, (height, width, 3)."""
    from matplotlib import colormaps

    coloured: np.ndarray = colormaps["viridis"](shares, bytes=True)[..., :3].copy()
    return coloured


def agreement_text(one: np.ndarray, other: np.ndarray) -> str:
    """The Dice between two masks, in words; two empty ones agree."""
    total = int(one.sum()) + int(other.sum())
    return f"{2 * int((one & other).sum()) / total:.3f}" if total else "both mark nothing"
