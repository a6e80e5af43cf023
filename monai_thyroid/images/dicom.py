"""DICOM images: one frame or several, decoded when asked for."""

from __future__ import annotations

import importlib
import io
import math
import os
import zlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.images.marks import DICOM_MARK
from monai_thyroid.images.raster import Format, Raster, check_frames, check_pixels, max_pixels

__all__ = ["DICOM", "DicomImage", "check_inflated", "dicomdir_files", "has_dicom_preamble", "is_dicom", "is_dicomdir"]

_MAGIC = slice(128, 132)
PREAMBLE = _MAGIC.stop
"""Bytes from which `has_dicom_preamble` tells."""
_SUFFIXES = (".dcm", ".dicom")
_DECODERS = ("pydicom", "pillow", "pyjpegls", "pylibjpeg")
"""pydicom's plugins, in this order. Not GDCM, which ends the process where pixels are broken."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_BYTES_A_PIXEL = 8  # three colours of 16 bits, and the header
_CENTIMETRES = 3
_TWO_DIMENSIONAL = 1  # RegionSpatialFormat
_TISSUE, _COLOUR_FLOW = 1, 2  # RegionDataType
_SAME_SCALE = 1e-3
"""Two regions' scales that differ by less, relatively, are one scale that was rounded."""


def has_dicom_preamble(content: bytes) -> bool:
    """Whether a file's first bytes are those of a DICOM file, whatever its name."""
    return content[_MAGIC] == b"DICM"


def is_dicom(name: str, content: bytes) -> bool:
    """Whether a file is read as DICOM, by its name and its first bytes."""
    return has_dicom_preamble(content) or name.lower().endswith(_SUFFIXES)


def check_inflated(name: str, content: bytes) -> None:
    """Refuse a file in the deflated transfer syntax that would fill the memory.

    Raises:
        UserError: it would.
    """
    if _DEFLATED not in content[132:1024]:
        return
    begin = 144 + int.from_bytes(content[140:144], "little")  # behind the file's meta information
    most = _BYTES_A_PIXEL * max_pixels()
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content[begin:], most)
    except zlib.error as error:
        raise UserError(f"{name}: cannot be read as an image (its compressed content is broken)") from error
    if len(inflated) == most:
        raise UserError(f"{name}: inflates to more than {most / 1e6:g} megabytes, which are not read")


class DicomImage:
    """A DICOM object with pixels, its header read and its size checked; frames are decoded when they are asked for.

    Args:
        name: of the file, for messages.
        content: its bytes.
        tissue_only: blacken what lies outside of the ultrasound regions that show tissue.

    Attributes:
        name: as given.
        dataset: pydicom's, with the pixels as they are stored.
        height: of each frame, in pixels.
        width: of each frame, in pixels.
        frames: a sequence of `Raster`; the one decoded last is kept.
        tissue_only: as given.

    Raises:
        UserError: it cannot be read as DICOM, holds no pixels, is too large (`monai_thyroid.images.raster.max_pixels`),
            lacks what it takes to decode it, or does not tell where tissue is.
    """

    def __init__(self, name: str, content: bytes, *, tissue_only: bool = False) -> None:
        import pydicom

        self.name = name
        check_inflated(name, content)
        try:
            self.dataset: Any = pydicom.dcmread(io.BytesIO(content), force=True)
            found = "PixelData" in self.dataset
            meta = self.dataset.file_meta
        except Exception as error:  # a broken header can raise nearly anything
            kind = type(error).__name__  # its text may quote what stands in the header, a patient's name for one
            raise UserError(f"{name}: cannot be read as an image (its DICOM header is broken: {kind})") from error
        if not found:
            raise UserError(f"{name}: a DICOM object without pixels")
        if not meta.get("TransferSyntaxUID"):  # no preamble either: then it is DICOM's default transfer syntax
            meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        self.height, self.width = self._whole("Rows"), self._whole("Columns")
        check_pixels(name, self.width, self.height)
        count = self._whole("NumberOfFrames", default=1)
        self.tissue_only = tissue_only
        if tissue_only and not self.tissue:
            why = self._regions_fault or "it has no ultrasound regions"
            raise UserError(f"{name}: does not tell where tissue is ({why}), so what lies outside cannot be blackened")
        self.frames: Sequence[Raster] = _Frames(self, count)

    def _whole(self, keyword: str, *, default: int | None = None) -> int:
        try:
            value = self.dataset.get(keyword)
            number = default if value in (None, "") else int(value)
        except Exception as error:  # pydicom converts a value when it is asked for
            raise UserError(f"{self.name}: its {keyword} is no number") from error
        if number is None or number < 1:
            raise UserError(f"{self.name}: says no {keyword}")
        return number

    @property
    def made_here(self) -> bool:
        """Whether it is a picture of results that this package has made."""
        told = self.dataset.get("ImageType") or []
        return DICOM_MARK in ([told] if isinstance(told, str) else list(told))

    @cached_property
    def _spacing(self) -> tuple[tuple[float, float] | None, str]:
        for keyword, where in (("PixelSpacing", ""), ("ImagerPixelSpacing", ", measured at the detector")):
            given = self.dataset.get(keyword)
            if given is not None and len(given) == 2:
                y, x = float(given[0]), float(given[1])
                if 0 < y < math.inf and 0 < x < math.inf:
                    return (y, x), f"by its {keyword}{where}"
                return None, f"its {keyword} is not two lengths"
        if fault := self._regions_fault:
            return None, fault
        scales = []
        for region in self._regions:
            if region.get("PhysicalUnitsXDirection") == region.get("PhysicalUnitsYDirection") == _CENTIMETRES:
                scale = abs(float(region.PhysicalDeltaY)) * 10, abs(float(region.PhysicalDeltaX)) * 10
                if 0 < scale[0] < math.inf and 0 < scale[1] < math.inf:
                    scales.append(scale)
        if not scales:
            return None, "it says no spacing of its pixels"
        if any(abs(one / other - 1) > _SAME_SCALE for a in scales for one, other in zip(a, scales[0], strict=True)):
            return None, "its ultrasound regions differ in scale"
        return scales[0], "by its ultrasound regions"

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Mm between pixel centres, (y, x), or None where there is not one for the whole picture."""
        return self._spacing[0]

    @property
    def spacing_note(self) -> str:
        """Where the spacing is from, or why there is none; a clause for a sentence."""
        return self._spacing[1]

    @cached_property
    def _regions(self) -> list[Any]:
        """The ultrasound regions that show tissue from above, or do not say what they show."""
        return [
            region
            for region in self.dataset.get("SequenceOfUltrasoundRegions") or []
            if region.get("RegionSpatialFormat", _TWO_DIMENSIONAL) == _TWO_DIMENSIONAL
            and region.get("RegionDataType", _TISSUE) in (_TISSUE, _COLOUR_FLOW)
        ]

    @cached_property
    def _boxes(self) -> list[tuple[int, int, int, int]]:
        """Left, top, right, bottom of each region that tells its place; the last two are within it."""
        keys = [f"RegionLocation{end}" for end in ("MinX0", "MinY0", "MaxX1", "MaxY1")]
        found = [[region.get(key) for key in keys] for region in self._regions]
        return [(int(a), int(b), int(c), int(d)) for a, b, c, d in found if None not in (a, b, c, d)]

    @cached_property
    def _regions_fault(self) -> str | None:
        # Some programs shrink or crop a picture and leave its regions as they were: its scale then is another one.
        picture = f"{self.width} x {self.height}"
        for _, _, right, bottom in self._boxes:
            if right > self.width or bottom > self.height:
                return (
                    f"its ultrasound region ends at {right} x {bottom}, its picture at {picture}: it was made smaller"
                )
        return None

    @cached_property
    def tissue(self) -> list[tuple[slice, slice]]:
        """Rows and columns of each ultrasound region that shows tissue; none where that is not known."""
        if self._regions_fault:
            return []
        boxes = [
            (slice(max(top, 0), bottom + 1), slice(max(left, 0), right + 1)) for left, top, right, bottom in self._boxes
        ]
        return [(y, x) for y, x in boxes if y.stop > y.start and x.stop > x.start]

    def decoded(self, index: int) -> Raster:
        """Decode one frame.

        Raises:
            UserError: its pixels are broken, cut off, or compressed in a way that no installed package reads.
        """
        try:
            raster = self._decoded(index)
        except Exception as error:  # decoders raise nearly anything on broken pixels
            if isinstance(error, NotImplementedError) or (_PYDICOM < 3 and _lacks_decoder(error)):
                syntax = self.dataset.file_meta.TransferSyntaxUID.name
                why = f'compressed as {syntax}, for which: pip install "monai_thyroid[dicom]"'
            else:
                why = f"its pixels are broken or cut off: {_kind(error)}"
            raise UserError(f"{self.name}: cannot be read as an image ({why})") from error
        if raster.pixels.shape[:2] != (self.height, self.width):
            raise UserError(f"{self.name}: cannot be read as an image (its pixels are not of the size it says)")
        if self.tissue_only:
            kept = np.full_like(raster.pixels, raster.full_scale[0] if raster.pixels.ndim == 2 else 0)
            for place in self.tissue:
                kept[place] = raster.pixels[place]
            raster = Raster(pixels=kept, full_scale=raster.full_scale, spacing=raster.spacing)
        return raster

    def _stored(self, index: int) -> np.ndarray:
        """One frame as it is stored, but colour by pydicom 3 already turned to RGB."""
        if _PYDICOM < 3:
            pixels = np.asarray(self.dataset.pixel_array)  # all frames; it keeps them
            return pixels[index] if len(self.frames) > 1 else pixels
        syntax = self.dataset.file_meta.TransferSyntaxUID
        if not syntax.is_encapsulated:
            return np.asarray(_pixel_module().pixel_array(self.dataset, index=index))
        encapsulated = importlib.import_module("pydicom.encaps")
        count = len(self.frames)
        size = _jpeg_size(encapsulated.get_frame(self.dataset.PixelData, index, number_of_frames=count))
        if size not in (None, (self.height, self.width)):  # a decoder would make room for what it says
            raise ValueError("a JPEG of another size than the header says")
        there = _pixel_module().get_decoder(syntax).available_plugins
        plugins = [name for name in _DECODERS if name in there]
        for name in plugins:
            try:
                return np.asarray(_pixel_module().pixel_array(self.dataset, index=index, decoding_plugin=name))
            except Exception:
                if name == plugins[-1]:
                    raise
        raise NotImplementedError("no decoder")

    def _decoded(self, index: int) -> Raster:
        dataset, module = self.dataset, _pixel_module()
        pixels = self._stored(index)
        interpretation = str(dataset.PhotometricInterpretation)
        bits = int(dataset.BitsStored)
        if pixels.ndim == 3:
            # pydicom 3 hands out RGB already, pydicom 2.4 what the file stores.
            if interpretation.startswith("YBR") and _PYDICOM < 3:
                pixels = module.convert_color_space(pixels, interpretation, "RGB")
            return Raster(pixels=pixels, full_scale=(0.0, float(2**bits - 1)), spacing=self.spacing)
        if interpretation == "PALETTE COLOR":
            colour = module.apply_color_lut(pixels, dataset)
            return Raster(pixels=colour, full_scale=(0.0, float(np.iinfo(colour.dtype).max)), spacing=self.spacing)
        # Many devices write the rescaling that changes nothing.
        rescaled = (dataset.get("RescaleSlope") or 1, dataset.get("RescaleIntercept") or 0) != (1, 0)
        rescaled = rescaled or bool(dataset.get("ModalityLUTSequence"))
        pixels = module.apply_modality_lut(pixels, dataset)
        shown = module.apply_voi_lut(pixels, dataset)
        if shown is not pixels:
            black, white = _shown_range(dataset, module)
        elif bits <= 8 and not rescaled and not dataset.PixelRepresentation:
            black, white = 0.0, float(2**bits - 1)
        else:
            black, white = float(pixels.min()), float(pixels.max())
        pixels = shown
        if interpretation == "MONOCHROME1":
            pixels = (black + white) - pixels.astype(np.float32)
        return Raster(pixels=pixels, full_scale=(black, white), spacing=self.spacing)


class _Frames(Sequence[Raster]):
    def __init__(self, image: DicomImage, count: int) -> None:
        self._image, self._count = image, count
        self._last: tuple[int, Raster] | None = None

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Raster: ...

    @overload
    def __getitem__(self, index: slice) -> list[Raster]: ...

    def __getitem__(self, index: int | slice) -> Raster | list[Raster]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(self._count))]
        number = range(self._count)[index]
        last = self._last
        if last is None or last[0] != number:
            self._last = last = (number, self._image.decoded(number))
        return last[1]

    def __iter__(self) -> Iterator[Raster]:
        return (self[index] for index in range(self._count))


def is_dicomdir(path: str | os.PathLike[str]) -> bool:
    """Whether a file is, by its name, an index of DICOM files."""
    return os.path.basename(path).upper() == "DICOMDIR"


def dicomdir_files(path: str | os.PathLike[str]) -> list[Path]:
    """The images that an index of DICOM files (DICOMDIR) lists, in its order.

    Raises:
        UserError: it cannot be read, lists no image, or ones that are not there; names them all.
    """
    import pydicom

    folder = Path(path).parent
    try:
        records = pydicom.dcmread(path).DirectoryRecordSequence
        listed = [record.ReferencedFileID for record in records if record.DirectoryRecordType == "IMAGE"]
        names = [[one] if isinstance(one, str) else list(map(str, one)) for one in listed]
    except Exception as error:  # a broken index can raise nearly anything
        raise UserError(f"{path}: cannot be read as an index of DICOM files ({type(error).__name__})") from error
    files, problems = [], []
    for parts in names:
        if any(part in ("", ".", "..") or "/" in part for part in parts):
            problems.append(f"{path}: lists a file outside of its folder ({'/'.join(parts)})")
            continue
        # Copies of a disc often have its names in lower case.
        found = [folder.joinpath(*given) for given in (parts, [part.lower() for part in parts])]
        file = next((one for one in found if one.is_file()), None)
        if file is None:
            problems.append(f"{path}: lists {'/'.join(parts)}, which is not there")
        else:
            files.append(file)
    if not names:
        problems.append(f"{path}: lists no image")
    if problems:
        raise UserError(problems)
    return files


def _pydicom_release() -> int:
    from importlib.metadata import version

    return int(version("pydicom").split(".")[0])


_PYDICOM = _pydicom_release()


def _pixel_module() -> Any:
    """Where pydicom keeps its pixel functions: one module in release 2, another in 3."""
    return importlib.import_module("pydicom.pixels" if _PYDICOM >= 3 else "pydicom.pixel_data_handlers.util")


def _lacks_decoder(error: BaseException) -> bool:
    text = str(error)
    return isinstance(error, RuntimeError) and ("missing dependencies" in text or "missing required" in text)


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Height and width in a JPEG or JPEG-LS stream's frame header (ITU-T T.81, B.2.2), None for other streams."""
    place = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:
            return int.from_bytes(frame[place + 5 : place + 7], "big"), int.from_bytes(
                frame[place + 7 : place + 9], "big"
            )
        place += 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None


def _kind(error: BaseException) -> str:
    """What went wrong, on one line; not the whole text, which may quote what is in the file."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def _shown_range(dataset: Any, pixel_module: Any) -> tuple[float, float]:
    """What a display window, or a table of values of interest, makes of the darkest and the brightest value."""
    table = (dataset.get("VOILUTSequence") or [None])[0]
    if table is not None and table.get("LUTDescriptor") is not None and table.get("LUTData") is not None:
        return 0.0, float(2 ** int(table.LUTDescriptor[2]) - 1)
    black, white = pixel_module.apply_windowing(np.asarray([-np.inf, np.inf]), dataset)
    return float(black), float(white)


def _read(name: str, content: bytes, use: str) -> Raster:
    image = DicomImage(name, content)
    check_frames(name, len(image.frames))
    return image.frames[0]


DICOM = Format(name="DICOM", suffixes=_SUFFIXES, recognises=is_dicom, read=_read)
