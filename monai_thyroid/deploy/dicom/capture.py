"""The picture with outlines and measurements, as a Secondary Capture, which every viewer shows."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit

from monai_thyroid.deploy.dicom.facts import ModelFacts
from monai_thyroid.deploy.dicom.header import RESEARCH, Kind, new_object, reference
from monai_thyroid.deploy.dicom.measure import Region
from monai_thyroid.deploy.dicom.source import Source
from monai_thyroid.drawing import CLASSES, paint_outlines, rgb
from monai_thyroid.images import Raster, to_channels
from monai_thyroid.images.marks import DICOM_MARK

__all__ = ["CAPTURE", "FrameText", "capture", "drawn", "letters"]

CAPTURE = Kind("SC", "OT", 9103, "Picture of results")
_SINGLE = "1.2.840.10008.5.1.4.1.1.7"
_SEVERAL = "1.2.840.10008.5.1.4.1.1.7.4"
_LEAST_WIDTH = 512  # of the picture, so that the words below it can be read
_WHITE, _YELLOW, _BLACK = (255, 255, 255), (240, 228, 66), (0, 0, 0)
_QUALITY = 92


@dataclass(frozen=True)
class FrameText:
    """What is written below one frame.

    Attributes:
        findings: a line each, with the number of its class, 0 for none.
        review: why the frame is to be looked at, or None.
    """

    findings: list[tuple[int, str]]
    review: str | None = None


def drawn(
    raster: Raster,
    mask: np.ndarray,
    regions: Sequence[tuple[int, Region]],
    text: FrameText,
    *,
    facts: ModelFacts,
    lines: int,
) -> np.ndarray:
    """Draw one frame: the picture with outlines and numbers, and below it, covering nothing, the words.

    A small picture is enlarged by a whole number, pixel by pixel.

    Args:
        raster: the frame.
        mask: class numbers, (height, width).
        regions: with the number of their class; numbered in the picture in this order.
        text: what stands below.
        facts: of the model.
        lines: of findings for which there is room below, the same in all frames of an image.

    Returns:
        uint8, (height, width, 3).
    """
    times = max(1, -(-_LEAST_WIDTH // mask.shape[1]))
    picture = np.rint(to_channels(raster.normalised(), 3) * 255).astype(np.uint8)
    picture = np.ascontiguousarray(picture.repeat(times, axis=0).repeat(times, axis=1))
    large = mask.repeat(times, axis=0).repeat(times, axis=1)
    width = picture.shape[1]
    paint_outlines(
        picture,
        [large == number for number in range(1, int(mask.max(initial=0)) + 1)],
        colours=CLASSES,
        width=max(2, round(max(large.shape) / 500)),
    )
    size = max(14, round(width / 42))
    font, step = letters(size), round(size * 1.4)
    head = [*_wrapped(RESEARCH, font, width - size), *_wrapped(f"{facts.name}, {facts.version}", font, width - size)]
    below = Image.new("RGB", (width, step * (len(head) + 1 + lines) + size), _BLACK)
    pen = ImageDraw.Draw(below)
    for row, line in enumerate(head):
        pen.text((size // 2, size // 2 + row * step), line, font=font, fill=_WHITE)
    row = len(head)
    if text.review:
        pen.text((size // 2, size // 2 + row * step), _fitted(text.review, font, width - size), font=font, fill=_YELLOW)
    for number, line in text.findings[:lines]:
        row += 1
        y = size // 2 + row * step
        if number:
            colour = rgb(CLASSES[(number - 1) % len(CLASSES)])
            pen.line((size // 2, y + size * 0.6, size * 1.5, y + size * 0.6), fill=colour, width=max(3, size // 5))
        pen.text((2 * size, y), _fitted(line, font, width - 2.5 * size), font=font, fill=_WHITE)
    canvas = Image.fromarray(picture)
    if len(regions) > 1:
        pen = ImageDraw.Draw(canvas)
        for index, (_, region) in enumerate(regions, 1):
            place = tuple(times * one for one in region.centre)
            pen.text(place, str(index), font=font, fill=_WHITE, anchor="mm", stroke_width=2, stroke_fill=_BLACK)
    if text.review:
        ImageDraw.Draw(canvas).rectangle((0, 0, width - 1, canvas.height - 1), outline=_YELLOW, width=max(2, size // 6))
    return np.concatenate([np.asarray(canvas), np.asarray(below)])


def encoded(picture: np.ndarray) -> bytes:
    """One frame as JPEG, for pictures of many frames."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY, subsampling="4:2:2")
    return file.getvalue()


def capture(
    source: Source, facts: ModelFacts, frames: Sequence[np.ndarray | bytes], *, shape: tuple[int, int]
) -> Dataset:
    """A Secondary Capture: of one frame uncompressed, of several a Multi-frame True Color one in JPEG.

    Args:
        source: the image.
        facts: of the model.
        frames: what `drawn` gave; of several what `encoded` made of it.
        shape: height and width of what `drawn` gave.
    """
    several = len(frames) > 1
    result = new_object(source, facts, kind=CAPTURE, sop_class=_SEVERAL if several else _SINGLE)
    result.ConversionType = "WSD"
    result.ImageType = ["DERIVED", "SECONDARY", DICOM_MARK]
    result.BurnedInAnnotation = "YES"
    result.DerivationDescription = "Outlines and measurements of an automatic segmentation, burned in"
    result.SourceImageSequence = Items([reference(source)])
    result.PatientOrientation = result.Laterality = None  # not known
    result.SamplesPerPixel, result.PlanarConfiguration = 3, 0
    result.Rows, result.Columns = shape
    result.BitsAllocated = result.BitsStored = 8
    result.HighBit, result.PixelRepresentation = 7, 0
    if several:
        result.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        result.PhotometricInterpretation = "YBR_FULL_422"
        result.LossyImageCompression = "01"
        content = [bytes(one) for one in frames]
        raw = shape[0] * shape[1] * 3 * len(content)
        result.LossyImageCompressionRatio = f"{raw / max(1, sum(map(len, content))):.2f}"
        result.LossyImageCompressionMethod = "ISO_10918_1"
        result.NumberOfFrames = len(content)
        # How fast the source runs is how fast its picture runs.
        times, vector = source.dataset.get("FrameTime"), source.dataset.get("FrameTimeVector")
        if times:
            pace, result.FrameTime = "FrameTime", _decimal(times)
        elif vector and len(vector) == len(content):
            pace, result.FrameTimeVector = "FrameTimeVector", [_decimal(one) for one in vector]
        else:
            pace, result.PageNumberVector = "PageNumberVector", list(range(1, len(content) + 1))
        result.FrameIncrementPointer = Tag(pace)
        result.PixelData = encapsulate(content)
        result["PixelData"].VR = "OB"
        result["PixelData"].is_undefined_length = True
        return result
    result.PhotometricInterpretation = "RGB"
    result.LossyImageCompression = "01" if str(source.dataset.get("LossyImageCompression")) == "01" else "00"
    pixels = np.asarray(frames[0]).tobytes()
    result.PixelData = pixels + bytes(len(pixels) % 2)
    result["PixelData"].VR = "OB"
    return result


def _decimal(value: object) -> str:
    """A number as DICOM's decimal string, of at most 16 characters."""
    return f"{float(str(value)):.9g}"


def letters(size: int) -> ImageFont.FreeTypeFont:
    """Matplotlib's DejaVu Sans: Pillow's own has neither the square of mm² nor the letters of other languages' names.

    Args:
        size: in pixels.
    """
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> list[str]:
    """Lines of whole words no wider than ``width``."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _fitted(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2].rstrip() + "…"
    return text
