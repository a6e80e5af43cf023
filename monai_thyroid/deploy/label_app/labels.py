"""Masks as clients of MONAI Label send and ask for them: pictures, NIfTI, NRRD, OHIF's bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_thyroid.errors import UserError, optional
from monai_thyroid.images import ForeignMask, in_place_of, label_problem, png_mark, read_foreign_mask
from monai_thyroid.images.formats import file_bytes
from monai_thyroid.images.nifti import NIFTI_SUFFIXES, nifti_geometry, nifti_volume

__all__ = ["RESULT_SUFFIXES", "contours", "geometry_of", "read_label", "result_suffix", "write_result"]

RESULT_SUFFIXES = (".png", ".nrrd", ".nii.gz", ".nii")
"""Of results, by what may be asked for."""
_NRRD = ".nrrd"
_BYTES = ".bin"
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From indices to mm to the right, front and top where an image says nothing: as viewers load a PNG or JPEG."""


def result_suffix(asked: Any) -> str:
    """How a result's name is to end.

    Raises:
        UserError: it is none of RESULT_SUFFIXES.
    """
    suffix = str(asked or ".png")
    suffix = suffix if suffix.startswith(".") else f".{suffix}"
    if suffix not in RESULT_SUFFIXES:
        raise UserError(f"result_extension {asked}: choose one of {', '.join(RESULT_SUFFIXES)}")
    return suffix


def geometry_of(image: str | Path) -> np.ndarray:
    """The 4x4 matrix from an image's indices (x, y, 0) to mm to the right, front and top, as viewers place it."""
    if str(image).lower().endswith(NIFTI_SUFFIXES):
        found = nifti_geometry(Path(image).read_bytes())
        if found is not None:
            return np.asarray(found, dtype=np.float64)
    return _LPS


def write_result(mask: np.ndarray, path: Path, *, image: str | Path, compress: bool = False) -> None:
    """Write class numbers as a file of the kind that its name asks for, in the place of the image.

    Args:
        mask: (height, width), whole numbers, pixel by pixel of the image. They are the file's numbers, whatever its
            kind, as MONAI Label's clients expect it.
        path: the file, which ends in one of RESULT_SUFFIXES.
        image: the image's file.
        compress: of NRRD, by gzip.
    """
    labels = np.ascontiguousarray(mask.astype(np.uint8))
    if path.suffix == ".png":
        Image.fromarray(labels).save(path, pnginfo=png_mark())
        return
    volume = np.asfortranarray(labels.T[..., None])
    affine = geometry_of(image)
    if path.suffix == _NRRD:
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        optional("nrrd", extra="label").write(
            str(path),
            volume,
            header={
                "space": "left-posterior-superior",
                "space directions": lps[:3, :3].T,
                "space origin": lps[:3, 3],
                "kinds": ["domain"] * 3,
                "encoding": "gzip" if compress else "raw",
            },
            index_order="F",
        )
        return
    import nibabel

    nifti = nibabel.Nifti1Image(volume, affine)
    nifti.header.set_xyzt_units("mm")
    nibabel.save(nifti, path)


def read_label(
    path: str | Path,
    *,
    image: str | Path,
    shape: tuple[int, int],
    classes: Sequence[str],
    segments: Sequence[Mapping[str, Any]] | None = None,
) -> np.ndarray:
    """Read a mask that a client has sent for an image.

    Args:
        path: a picture or array, see `read_foreign_mask`; NIfTI or NRRD of one slice, turned into the image's place
            where it says that it lies otherwise; or the bytes of the labels row by row (``.bin``, as OHIF sends them).
        image: the image's file, as the client has it.
        shape: of the image, (height, width).
        classes: names of the classes 1, 2, ...
        segments: what the client says of its numbers, ``{"name": ..., "idx": ...}`` each, which it may count otherwise
            than the classes; looked at for NIfTI, NRRD and bytes of several classes.

    Returns:
        uint8, (height, width), class numbers.

    Raises:
        UserError: it cannot be read, is of another size or lies elsewhere, or holds what is none of the classes.
    """
    name = Path(path).name
    if name.endswith(_BYTES):
        found = ForeignMask(_from_bytes(Path(path), shape))
    elif name.lower().endswith(NIFTI_SUFFIXES):
        found = _from_nifti(Path(path))
    elif name.lower().endswith(_NRRD):
        found = _from_nrrd(Path(path))
    else:
        found = read_foreign_mask(path, classes=classes, truth=True)
        segments = None
    place = ForeignMask(np.zeros(shape, np.uint8), corners=_corners(geometry_of(image), shape))
    try:
        labels = in_place_of(found, place)
    except ValueError as error:
        raise UserError(f"label {name}: {str(error).replace('its reference', 'the image')}") from error
    return _class_numbers(labels, name, classes, segments)


def contours(mask: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Outlines of what a mask marks, class by class: ``{"label": name, "contours": [[[x, y], ...], ...]}``."""
    from skimage.measure import find_contours

    elements = []
    for number, name in enumerate(classes, 1):
        lines = find_contours(np.pad((mask == number).astype(np.float32), 1), 0.5)
        edge = np.array(mask.shape) - 1
        found = [np.clip(line - 1, 0, edge)[:, ::-1].round(1).tolist() for line in lines if len(line) > 3]
        if found:
            elements.append({"label": name, "contours": found})
    return elements


def _class_numbers(
    labels: np.ndarray, name: str, classes: Sequence[str], segments: Sequence[Mapping[str, Any]] | None
) -> np.ndarray:
    if len(classes) > 1 and segments:
        known = {one.casefold(): number for number, one in enumerate(classes, 1)}
        renumbered = np.zeros_like(labels)
        for order, segment in enumerate(segments, 1):
            index = int(segment.get("idx", segment.get("id", order)))
            marked = labels == index
            number = known.get(str(segment.get("name", "")).casefold())
            if number is None and marked.any():
                raise UserError(
                    f"label {name}: its segment {segment.get('name')!r} is none of the classes {', '.join(classes)}"
                )
            renumbered[marked] = number or 0
        told = {int(one.get("idx", one.get("id", order))) for order, one in enumerate(segments, 1)}
        if strange := sorted(set(np.unique(labels).tolist()) - told - {0}):
            raise UserError(f"label {name}: holds {strange}, which its label_info does not name")
        labels = renumbered
    if problem := label_problem(labels, classes=len(classes)):
        if len(classes) > 1 or len(np.unique(labels[labels > 0])) > 1:
            raise UserError(f"label {name}: {problem}")
        labels = (labels > 0).astype(np.uint8)
    return labels.astype(np.uint8)


def _from_bytes(path: Path, shape: tuple[int, int]) -> np.ndarray:
    content = np.frombuffer(path.read_bytes(), np.uint8)
    if content.size != shape[0] * shape[1]:
        raise UserError(
            f"label {path.name}: holds {content.size} bytes, not one for each of the {shape[1]} x {shape[0]} pixels "
            "of the image"
        )
    return content.reshape(shape)


def _from_nifti(path: Path) -> ForeignMask:
    content = file_bytes(path)
    try:
        volume = np.asarray(nifti_volume(content).dataobj)
        affine = nifti_geometry(content)
    except Exception as error:  # decoders raise nearly anything on a broken file
        raise UserError(f"label {path.name}: cannot be read as NIfTI ({type(error).__name__})") from error
    return _one_slice(volume, affine, path.name)


def _from_nrrd(path: Path) -> ForeignMask:
    try:
        volume, header = optional("nrrd", extra="label").read(str(path), index_order="F")
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"label {path.name}: cannot be read as NRRD ({type(error).__name__}: {error})") from error
    directions, origin = header.get("space directions"), header.get("space origin")
    affine = None
    if directions is not None and origin is not None and np.asarray(directions).shape == (3, 3):
        signs = {"left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1)}
        signs |= {"right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1)}
        sign = signs.get(str(header.get("space", "")).lower())
        if sign is None:
            raise UserError(f"label {path.name}: lies in the space {header.get('space')}; write it as LPS or RAS")
        affine = np.eye(4)
        affine[:3, :3] = (np.asarray(directions, float) * sign).T
        affine[:3, 3] = np.asarray(origin, float) * sign
    return _one_slice(volume, affine, path.name)


def _one_slice(volume: np.ndarray, affine: np.ndarray | None, name: str) -> ForeignMask:
    if volume.ndim < 2 or any(size != 1 for size in volume.shape[2:]) or volume.dtype.kind not in "uif":
        raise UserError(f"label {name}: has shape {volume.shape}; give one slice of whole numbers")
    plane = volume.reshape(volume.shape[:2])
    if plane.dtype.kind == "f" and not (np.isfinite(plane).all() and (plane == np.rint(plane)).all()):
        raise UserError(f"label {name}: holds numbers that are not whole")
    if plane.size and not 0 <= plane.min() <= plane.max() <= 255:
        raise UserError(f"label {name}: holds numbers beyond 0 to 255")
    labels = np.ascontiguousarray(plane.T).astype(np.uint8)
    return ForeignMask(labels, corners=None if affine is None else _corners(affine, labels.shape))


def _corners(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Of the centres of the corner pixels, (2, 2, 3), by row and column."""
    height, width = shape
    return np.array([[(affine @ [x, y, 0, 1])[:3] for x in (0, width - 1)] for y in (0, height - 1)])
