"""Synthetic B-mode-like scans of the neck with exact masks: a seeded data set that needs no download and no consent.

It is made for tests, tutorials and benchmarks of software. It is no substitute for scans of people: what is learned on
it says nothing about how well a network finds nodules in a patient.
"""

from __future__ import annotations

import csv
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from monai_thyroid.errors import UserError

__all__ = ["PhantomScan", "phantom_scan", "phantom_views", "write_phantom"]


_MIN_SIZE = 48  # below it a pixel is wider than the gap between two nodules
_MAX_SIZE = 4096
_ASPECT = 4 / 3  # of the field of view in millimetres, whatever the raster
_MAX_VIEWS = 3
_GAP = 1.6  # mm of gland between two nodules
_RIM = 0.8  # mm of gland around every nodule
_ANGLES = np.linspace(-np.pi, np.pi, 257)

# One stream of random numbers for each purpose: adding a draw to one leaves the others as they were.
_ANATOMY, _VIEW, _VIEWS, _EMPTY, _SPLIT = range(5)

_Field = NDArray[np.float32]
_Kind = Literal["hypo", "iso", "hyper", "cystic", "mixed", "malignant"]
_KINDS: tuple[_Kind, ...] = ("hypo", "iso", "hyper", "cystic", "mixed", "malignant")
_KIND_WEIGHTS = (0.15, 0.18, 0.10, 0.10, 0.15, 0.32)


@dataclass(frozen=True)
class PhantomScan:
    """One synthetic scan and its reference.

    Attributes:
        image: uint8 (H, W), grey.
        label: uint8 (H, W). 0 background, 1 nodule; with ``multiclass`` 1 gland, 2 benign-looking nodule,
            3 malignant-looking nodule.
        nodules: how many nodules are in the scan, 0 to 3.
    """

    image: np.ndarray
    label: np.ndarray
    nodules: int


@dataclass(frozen=True)
class _Nodule:
    kind: _Kind
    x: float  # mm, centre
    y: float
    z: float  # of the centre out of the middle plane, in radii
    radius: _Field  # (257,) mm, of the outline at _ANGLES
    reach: float  # mm, the largest of them
    level: float  # dB, solid part against the gland
    halo: float  # mm, inside the outline
    halo_level: float  # dB
    texture: float  # dB
    cyst: float  # cystic fraction of a mixed nodule
    grain: float  # mm, size of its cystic spaces
    calcifications: _Field  # (n, 3): x, y from the centre in mm, brightness in dB
    rim_shadow: bool


@dataclass(frozen=True)
class _Lobe:
    x: float
    y: float
    a: float  # mm, half width
    b: float  # mm, half height
    artery: tuple[float, float, float]  # x, y, radius
    vein: tuple[float, float, float, float]  # x, y, half width, half height
    muscle: tuple[float, float, float, float, float]  # sternocleidomastoid: x, y, half width, half height, tilt
    deep: tuple[float, float, float, float]  # longus colli: x, y, half width, half height


@dataclass(frozen=True)
class _Anatomy:
    depth: float  # mm, of the field of view
    skin: float  # mm, depth of its lower edge
    fat: float
    strap: float
    trachea: tuple[float, float, float]  # x, y, radius
    isthmus: float  # mm, thickness
    gullet: tuple[float, float, float]
    lobes: tuple[_Lobe, ...]
    nodules: tuple[_Nodule, ...]
    gland_level: float  # dB
    gland_texture: float  # dB
    muscle_level: float  # dB
    noise: _Field  # periodic texture that all views share


def phantom_views(case: int, *, seed: int) -> int:
    """How many scans a case has.

    Args:
        case: index of the patient, 0 or more.
        seed: 0 or more.

    Returns:
        1, 2 or 3, the same for the same arguments.

    Raises:
        UserError: a number below 0.
    """
    _check(_not_whole(case=case, seed=seed))
    return 1 + int(_generator(_VIEWS, seed, case).integers(_MAX_VIEWS))


def phantom_scan(
    case: int,
    view: int,
    *,
    seed: int,
    height: int = 144,
    width: int = 192,
    multiclass: bool = False,
    empty_fraction: float = 0.0,
) -> PhantomScan:
    """Draw one transverse scan of the neck: skin, fat, muscles, thyroid with nodules, trachea, vessels.

    The scan depends on the arguments alone. Views of one case show the same anatomy and the same nodules, with another
    position and tilt of the probe, gain and speckle, like frames of one examination: a split must keep them together.
    The field of view is 4:3 in millimetres, whatever the raster. ``multiclass`` changes the label only: its classes
    2 and 3 together are the binary nodule.

    The speckle is fully developed (see :func:`_speckle`); tissue differs in echogenicity (dB) and in attenuation, which
    is summed along the beam, so that calcifications and the trachea cast shadows and fluid enhances what is behind it.
    The label is drawn from the outlines before the speckle, through the same deformation.

    Args:
        case: index of the patient, 0 or more.
        view: index of the scan of this patient, 0 or more; :func:`phantom_views` of them make a case.
        seed: of the whole data set, 0 or more.
        height: of the scan in pixels, 48 to 4096.
        width: of the scan in pixels, 48 to 4096.
        multiclass: label gland and kinds of nodule instead of nodules alone.
        empty_fraction: chance that a case has no nodule, in [0, 1].

    Returns:
        The scan. A nodule covers about 1 to 13 % of the image, all of them together 7 % on average.

    Raises:
        UserError: a number outside its range.
    """
    _check([*_not_whole(case=case, view=view, seed=seed), *_bad_raster(height, width, empty_fraction)])
    anatomy = _anatomy(_generator(_ANATOMY, seed, case))
    empty = float(_generator(_EMPTY, seed, case).random()) < empty_fraction
    nodules = () if empty else anatomy.nodules
    image, label = _render(
        anatomy, nodules, _generator(_VIEW, seed, case, view), height=height, width=width, multiclass=multiclass
    )
    return PhantomScan(image=image, label=label, nodules=len(nodules))


def write_phantom(
    directory: str | Path,
    *,
    cases: int,
    seed: int,
    height: int = 144,
    width: int = 192,
    multiclass: bool = False,
    empty_fraction: float = 0.0,
    test_fraction: float = 0.2,
) -> Path:
    """Write a data set in the layout of TN3K: ``trainval-image``, ``trainval-mask``, ``test-image``, ``test-mask``.

    ``cases.csv`` beside them has a row ``file,part,case`` for each scan; no case is in two parts. Masks are 0 and 255,
    with ``multiclass`` the class values 0 to 3. Everything is written beside the folder first and then renamed, so the
    folder is there whole or not at all.

    Args:
        directory: to be created; it may exist if it is empty.
        cases: how many patients, 2 or more (1 if ``test_fraction`` is 0 or 1).
        seed: of scans and split, 0 or more.
        height: of a scan in pixels, 48 to 4096.
        width: of a scan in pixels, 48 to 4096.
        multiclass: see :func:`phantom_scan`.
        empty_fraction: see :func:`phantom_scan`.
        test_fraction: share of the cases that go into ``test``, in [0, 1]; rounded, but neither part is left empty
            unless it is 0 or 1.

    Returns:
        The folder.

    Raises:
        UserError: the folder is a file or is not empty, or a number is outside its range. Nothing is written then.
    """
    target = Path(directory).resolve()
    problems = [*_not_whole(seed=seed), *_bad_raster(height, width, empty_fraction)]
    problems += _not_share(test_fraction=test_fraction)
    one_part = test_fraction in (0, 1)
    if not _whole(cases, least=1 if one_part else 2, most=9999):
        problems.append(
            f"cases is {cases!r}, which cannot make a data set in {target}: give a whole number from "
            f"{1 if one_part else '2 (one for each part)'} to 9999."
        )
    standing = next(path for path in (target, *target.parents) if path.exists())
    if not standing.is_dir():
        problems.append(f"{standing} is a file, not a folder: name another folder for the data set.")
    elif standing == target and any(target.iterdir()):
        problems.append(f"{target} is not empty and nothing in it is overwritten: name a new folder or empty this one.")
    _check(problems)

    tests = round(cases * test_fraction)
    if not one_part:
        tests = min(max(tests, 1), cases - 1)
    test_cases = set(_generator(_SPLIT, seed).permutation(cases)[:tests].tolist())

    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.parent / f".{target.name}-{uuid.uuid4().hex[:8]}"
    scratch.mkdir()
    try:
        for part in ("trainval", "test"):
            (scratch / f"{part}-image").mkdir()
            (scratch / f"{part}-mask").mkdir()
        rows = []
        for case in range(cases):
            part = "test" if case in test_cases else "trainval"
            for view in range(phantom_views(case, seed=seed)):
                scan = phantom_scan(
                    case,
                    view,
                    seed=seed,
                    height=height,
                    width=width,
                    multiclass=multiclass,
                    empty_fraction=empty_fraction,
                )
                name = f"{case:04d}_{view}.png"
                Image.fromarray(scan.image).save(scratch / f"{part}-image" / name)
                mask = scan.label if multiclass else scan.label * np.uint8(255)
                Image.fromarray(mask).save(scratch / f"{part}-mask" / name)
                rows.append((name, part, f"{case:04d}"))
        with (scratch / "cases.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("file", "part", "case"))
            writer.writerows(rows)
        if target.is_dir():
            target.rmdir()  # empty, and Windows renames onto nothing
        scratch.rename(target)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return Path(directory)


def _generator(purpose: int, *numbers: int) -> np.random.Generator:
    return np.random.default_rng([purpose, *numbers])


def _whole(value: object, *, least: int = 0, most: int | None = None) -> bool:
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        return False
    return int(value) >= least and (most is None or int(value) <= most)


def _not_whole(**numbers: object) -> list[str]:
    return [
        f"{name} is {value!r}, which numbers no phantom: give a whole number of 0 or more."
        for name, value in numbers.items()
        if not _whole(value)
    ]


def _bad_raster(height: object, width: object, empty_fraction: object) -> list[str]:
    problems = [
        f"{name} of the phantom is {value!r} pixels: give a whole number from {_MIN_SIZE} to {_MAX_SIZE}."
        for name, value in (("height", height), ("width", width))
        if not _whole(value, least=_MIN_SIZE, most=_MAX_SIZE)
    ]
    return problems + _not_share(empty_fraction=empty_fraction)


def _not_share(**numbers: object) -> list[str]:
    return [
        f"{name} of the phantom is {value!r}, not a share: give a number from 0 to 1."
        for name, value in numbers.items()
        if not (isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and 0 <= value <= 1)
    ]


def _check(problems: Sequence[str]) -> None:
    if problems:
        raise UserError(problems)


# --- anatomy: what all views of a case share ---------------------------------------------------------------------


def _anatomy(rng: np.random.Generator) -> _Anatomy:
    both = rng.random() < 0.3
    sides = (-1, 1) if both else (int(rng.choice((-1, 1))),)
    skin = rng.uniform(1.0, 1.7)
    fat = skin + rng.uniform(1.2, 3.5)
    strap = fat + rng.uniform(2.6, 4.6)
    isthmus = rng.uniform(1.8, 3.5)
    windpipe = rng.uniform(6.8, 8.2)
    depth = rng.uniform(34, 38) if both else rng.uniform(29, 34)

    count = int(rng.choice((1, 2, 3), p=(0.55, 0.30, 0.15)))
    area = depth * depth * _ASPECT
    largest = 0.07 if both else 0.14
    shares = [float(np.exp(rng.uniform(np.log(0.04), np.log(largest))))]
    shares += [float(rng.uniform(0.031, 0.047)) for _ in range(count - 1)]
    homes = [int(rng.integers(len(sides))) for _ in range(count)]
    drafts = [_draw_nodule(rng, np.sqrt(share * area / np.pi)) for share in shares]

    trachea_x = 0.0 if both else -sides[0] * (windpipe + rng.uniform(6.0, 8.5))
    trachea = (trachea_x, strap + isthmus + 1.2 + windpipe, windpipe)
    lobes = []
    placed: list[_Nodule] = []
    for index, side in enumerate(sides):
        mine = [draft for draft, home in zip(drafts, homes, strict=True) if home == index]
        a, b = (rng.uniform(6.5, 8.5), rng.uniform(7.5, 9.5)) if both else (rng.uniform(8, 10.5), rng.uniform(7.5, 9.5))
        # A nodule swells the lobe that it grows in.
        a = max([a, *(float(np.abs(draft.radius * np.cos(_ANGLES)).max()) + 1.6 for draft in mine)])
        b = max([b, *(float(np.abs(draft.radius * np.sin(_ANGLES)).max()) + 1.6 for draft in mine)])
        crowding = sum(np.pi * draft.reach**2 for draft in mine) / (0.45 * np.pi * a * b)
        if len(mine) > 1 and crowding > 1:
            a, b = a * np.sqrt(crowding), b * np.sqrt(crowding)
        lobe = _draw_lobe(rng, side, trachea=trachea, top=strap + 0.3, a=a, b=b)
        lobes.append(lobe)
        placed += _place(rng, mine, lobe, trachea)
    if not both:  # the probe is centred on the lobe
        shift = lobes[0].x - sides[0] * rng.uniform(0.0, 2.5)
        trachea = (trachea[0] - shift, *trachea[1:])
        lobes = [_moved(lobes[0], -shift)]
        placed = [replace(nodule, x=nodule.x - shift) for nodule in placed]
    depth = max(depth, *(lobe.y + lobe.b + 4.5 for lobe in lobes))
    depth = max(depth, *((abs(lobe.x) + lobe.a - 1) * 2 / _ASPECT for lobe in lobes))
    gullet = (trachea[0] + windpipe * rng.uniform(0.7, 1.0), trachea[1] + windpipe * rng.uniform(0.75, 0.95), 2.8)
    noise = ndimage.gaussian_filter(rng.standard_normal((64, 64)), 0.8, mode="wrap")
    return _Anatomy(
        depth=float(depth),
        skin=skin,
        fat=fat,
        strap=strap,
        trachea=trachea,
        isthmus=isthmus,
        gullet=gullet,
        lobes=tuple(lobes),
        nodules=tuple(placed),
        gland_level=rng.uniform(-2.0, 2.5),
        gland_texture=rng.uniform(0.7, 1.7),
        muscle_level=rng.uniform(-14.0, -10.0),
        noise=(noise / noise.std()).astype(np.float32),
    )


def _draw_nodule(rng: np.random.Generator, radius: float) -> _Nodule:
    """A nodule at the origin whose area is that of a circle of this radius (mm)."""
    kind = _KINDS[int(rng.choice(len(_KINDS), p=_KIND_WEIGHTS))]
    malignant = kind == "malignant"
    # Taller than wide, lobulated and spiculated against wider than tall and smooth, as TI-RADS has it.
    flatness = rng.uniform(0.68, 0.88) if malignant else rng.uniform(1.05, 1.45)
    tilt = rng.uniform(-0.25, 0.25)
    outline = -0.5 * np.log((np.cos(_ANGLES - tilt) ** 2) / flatness + (np.sin(_ANGLES - tilt) ** 2) * flatness)
    waves = range(2, 14) if malignant else range(2, 5)
    for wave in waves:
        spread = (0.05 if wave < 6 else 0.02) if malignant else 0.018
        outline += rng.normal(0, spread) * np.cos(wave * _ANGLES + rng.uniform(0, 2 * np.pi))
    shape = np.exp(outline)
    shape *= radius / np.sqrt(np.mean(shape[:-1] ** 2))

    level, texture, halo, halo_level = {
        "hypo": (rng.uniform(-8.5, -5.0), 1.0, 0.5, -12.0),
        "iso": (rng.uniform(-1.0, 2.0), 1.3, rng.uniform(1.0, 1.5), rng.uniform(-15, -11)),
        "hyper": (rng.uniform(4.5, 7.0), 1.0, rng.uniform(0.4, 0.8), -9.0),
        "cystic": (-34.0, 0.0, 0.0, 0.0),
        "mixed": (rng.uniform(-2.0, 2.0), 1.3, rng.uniform(0.7, 1.1), -11.0),
        "malignant": (rng.uniform(-13.0, -8.0), 1.8, 0.0, 0.0),
    }[kind]
    chance = {"malignant": 0.6, "mixed": 0.3, "cystic": 0.5}.get(kind, 0.1)
    bright = 0
    if rng.random() < chance:
        bright = int(rng.integers(3, 4 + int(1.5 * radius)) if malignant else rng.integers(1, 4))
    angle = rng.uniform(-np.pi, np.pi, bright)
    where = np.interp(angle, _ANGLES, shape) * 0.75 * np.sqrt(rng.random(bright))
    spots = np.stack([where * np.cos(angle), where * np.sin(angle), rng.uniform(3, 11, bright)], axis=1)
    return _Nodule(
        kind=kind,
        x=0.0,
        y=0.0,
        z=rng.uniform(-0.25, 0.25),
        radius=shape.astype(np.float32),
        reach=float(shape.max()),
        level=level,
        halo=halo,
        halo_level=halo_level,
        texture=texture,
        cyst=rng.uniform(0.3, 0.65),
        grain=float(rng.choice((0.8, 2.2))),
        calcifications=spots.astype(np.float32),
        rim_shadow=not malignant,
    )


def _draw_lobe(
    rng: np.random.Generator, side: int, *, trachea: tuple[float, float, float], top: float, a: float, b: float
) -> _Lobe:
    x = trachea[0] + side * (trachea[2] + 0.95 * a)
    y = top + b
    artery_radius = rng.uniform(2.5, 3.3)
    angle = rng.uniform(-0.15, 0.6)
    outward = np.array([np.cos(angle) / a, np.sin(angle) / b])
    outward /= np.hypot(*outward)
    away = artery_radius + 1.2
    artery_x = x + side * (a * np.cos(angle) + away * outward[0])
    artery_y = y + b * np.sin(angle) + away * outward[1]
    vein_a, vein_b = rng.uniform(2.8, 4.2), rng.uniform(1.3, 2.4)
    return _Lobe(
        x=x,
        y=y,
        a=a,
        b=b,
        artery=(artery_x, artery_y, artery_radius),
        vein=(artery_x + side * rng.uniform(2.5, 4.0), artery_y - artery_radius - vein_b - 0.4, vein_a, vein_b),
        muscle=(
            x + side * (a + rng.uniform(1, 4)),
            top - 0.2,
            rng.uniform(9, 12),
            rng.uniform(3.0, 4.4),
            side * rng.uniform(0.12, 0.3),
        ),
        deep=(x - side * rng.uniform(0, 3), y + b + rng.uniform(2.6, 3.6), rng.uniform(8, 10), rng.uniform(2.4, 3.4)),
    )


def _place(
    rng: np.random.Generator, drafts: Sequence[_Nodule], lobe: _Lobe, trachea: tuple[float, float, float]
) -> list[_Nodule]:
    """Put nodules into a lobe, clear of the trachea, of its shadow and of one another; shrink what does not fit."""
    placed: list[_Nodule] = []
    for draft in sorted(drafts, key=lambda nodule: -nodule.reach):
        scale = 1.0
        while scale > (0.8 if placed else 0.3):  # the first one always finds room
            radius = draft.radius * scale
            edge_x, edge_y = radius * np.cos(_ANGLES), radius * np.sin(_ANGLES)
            spot = rng.uniform(-1, 1, (96, 2)) * (lobe.a, lobe.b) + (lobe.x, lobe.y)
            xs, ys = spot[:, :1] + edge_x[::8], spot[:, 1:] + edge_y[::8]
            room = np.hypot((xs - lobe.x) / (lobe.a - _RIM), (ys - lobe.y) / (lobe.b - _RIM)).max(1) <= 1
            room &= (np.hypot(xs - trachea[0], ys - trachea[1]) > trachea[2] + 1.6).all(1)
            room &= (np.abs(xs - trachea[0]) > 0.9 * trachea[2]).all(1)
            for other in placed:
                room &= np.hypot(spot[:, 0] - other.x, spot[:, 1] - other.y) > other.reach + radius.max() + _GAP
            if room.any():
                # Several nodules leave one another room only if they keep to the edge.
                spread = np.hypot((spot[:, 0] - lobe.x) / lobe.a, (spot[:, 1] - lobe.y) / lobe.b) * (len(drafts) > 1)
                x, y = spot[int(np.argmax(np.where(room, spread, -1)))]
                spots = draft.calcifications * np.array([scale, scale, 1], np.float32)
                placed.append(
                    replace(
                        draft,
                        x=float(x),
                        y=float(y),
                        radius=radius,
                        reach=float(radius.max()),
                        calcifications=spots,
                    )
                )
                break
            scale *= 0.96
    return placed


def _moved(lobe: _Lobe, by: float) -> _Lobe:
    return replace(
        lobe,
        x=lobe.x + by,
        artery=(lobe.artery[0] + by, *lobe.artery[1:]),
        vein=(lobe.vein[0] + by, *lobe.vein[1:]),
        muscle=(lobe.muscle[0] + by, *lobe.muscle[1:]),
        deep=(lobe.deep[0] + by, *lobe.deep[1:]),
    )


# --- view: what the probe sees of it ------------------------------------------------------------------------------


def _render(
    anatomy: _Anatomy,
    nodules: Sequence[_Nodule],
    rng: np.random.Generator,
    *,
    height: int,
    width: int,
    multiclass: bool,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    dy, dx = anatomy.depth / height, anatomy.depth * _ASPECT / width
    depth = ((np.arange(height, dtype=np.float32) + 0.5) * dy)[:, None]
    across = ((np.arange(width, dtype=np.float32) + 0.5) * dx - anatomy.depth * _ASPECT / 2)[None]

    # The probe slides and tilts and the neck gives way, all but the skin, which stays at the probe.
    slide, press, tilt = rng.uniform(-1.8, 1.8), rng.uniform(-0.8, 0.8), rng.uniform(-0.07, 0.07)
    plane = rng.uniform(-0.3, 0.3)
    sway = rng.uniform(-0.45, 0.45, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    grip = np.clip((depth - anatomy.skin) / 5, 0, 1)
    x = across + slide + tilt * (depth - 15) + sway[0] * np.sin(depth / 5 + phase[0])
    y = depth + grip * (press - tilt * across + sway[1] * np.sin(across / 7 + phase[1]))
    x, y = x.astype(np.float32), y.astype(np.float32)

    def noise(size_y: float, size_x: float, shift: float = 0.0) -> _Field:
        return _lookup(anatomy.noise, y / size_y + shift, x / size_x + 2 * shift)

    wobble = noise(5, 6)
    streaks = noise(0.55, 6, 11 + plane)
    level = -4 + 3.5 * streaks + 1.5 * wobble  # connective tissue
    loss = np.zeros((height, width), np.float32)  # dB a mm, beyond what the gain over depth makes up for
    specular = np.zeros((height, width), np.float32)
    muscle = anatomy.muscle_level + 3.2 * streaks

    # Strap muscles, then per side the sternocleidomastoid and the longus colli.
    band = np.abs(y - (anatomy.fat + anatomy.strap) / 2) - (anatomy.strap - anatomy.fat) / 2 + 0.2 * wobble
    _paint(level, _line(band, 0.3) * 0.6, 2.0)
    _paint(level, _soft(band + 0.25), muscle)
    for lobe in anatomy.lobes:
        inside = (_ellipse(x, y, *lobe.muscle) + 0.08 * wobble - 1) * 3
        _paint(level, _line(inside, 0.35) * 0.8, 4.0)
        _paint(level, _soft(inside), muscle)
        inside = (_ellipse(x, y, *lobe.deep) + 0.1 * wobble - 1) * 3
        _paint(level, _line(inside, 0.35) * 0.8, 4.0)
        _paint(level, _soft(inside), muscle)
    away = np.hypot(x - anatomy.gullet[0], y - anatomy.gullet[1]) - anatomy.gullet[2]
    _paint(level, _soft(away), -9.0)
    _paint(level, _soft(away + 1.7), 3.0)

    # The gland: lobes, and the isthmus bent over the trachea.
    tx, ty, tr = anatomy.trachea
    from_trachea = np.hypot(x - tx, y - ty) - tr
    gland = np.maximum(np.abs(from_trachea - 1.2 - anatomy.isthmus / 2) - anatomy.isthmus / 2, y - ty)
    for lobe in anatomy.lobes:
        gland = np.minimum(gland, (_ellipse(x, y, lobe.x, lobe.y, lobe.a, lobe.b) - 1) * min(lobe.a, lobe.b))
    gland += 0.3 * wobble
    drawn = [_outline(nodule, x, y, plane) for nodule in nodules]
    for box, edge, _ in drawn:
        gland[box] = np.minimum(gland[box], edge - _RIM)
    texture = 0.8 * noise(1.1, 1.4, 5 + plane) + 0.8 * noise(3.0, 3.5, 41 + plane)
    _paint(level, _line(gland - 0.1, 0.35) * 0.8, 7.0)
    _paint(level, _soft(gland), anatomy.gland_level + anatomy.gland_texture * texture)

    label = np.zeros((height, width), np.uint8)
    for nodule, (box, edge, scale) in zip(nodules, drawn, strict=True):
        _paint_nodule(anatomy, nodule, plane, x[box], y[box], edge, level[box], loss[box])
        inside = edge <= 0
        components, several = ndimage.label(inside, np.ones((3, 3)))
        if several > 1:  # a spicule that the raster cut off
            inside = components == np.argmax(np.bincount(components.ravel())[1:]) + 1
        label[box][inside] = (3 if nodule.kind == "malignant" else 2) if multiclass else 1
        for spot_x, spot_y, strength in nodule.calcifications:
            # The deformation is small and smooth: one step back through it is near enough for a dot.
            px = nodule.x + scale * float(spot_x)
            py = nodule.y + scale * float(spot_y)
            col = float(px - slide - tilt * (py - 15) - sway[0] * np.sin(py / 5 + phase[0]))
            row = float(py - press + tilt * col - sway[1] * np.sin(col / 7 + phase[1]))
            dot = np.exp(-(((depth - row) / 0.2) ** 2)) * np.exp(-(((across - col) / 0.22) ** 2))
            specular += 10 ** (float(strength) / 20) * dot
            if nodule.kind == "malignant":
                loss += 1.2 * dot

    # Vessels: no echo, bright walls where the beam meets them square.
    hollow = np.full((height, width), np.inf, np.float32)
    for lobe in anatomy.lobes:
        ax, ay, ar = lobe.artery
        wall = np.hypot(x - ax, y - ay) - ar
        square = ((y - ay) / (wall + ar + 0.1)) ** 2
        _paint(level, _line(wall - 0.3, 0.45), 1.0 + 8 * square)
        _paint(level, _soft(wall), -34.0 + 9 * np.exp(-(y - ay + ar) / 1.5))
        vein = (_ellipse(x, y, *lobe.vein) - 1) * lobe.vein[3]
        _paint(level, _line(vein - 0.2, 0.3) * 0.6, 4.0)
        _paint(level, _soft(vein), -32.0)
        loss -= 0.5 * _soft(wall) + 0.4 * _soft(vein)
        hollow = np.minimum(hollow, np.minimum(wall, vein))

    # Trachea: cartilage, then air, which sends everything back; bands of reverberation in the shadow.
    up = np.clip((ty - y) / (from_trachea + tr + 0.1), 0, 1)
    _paint(level, _soft(np.abs(from_trachea - 0.6) - 0.5), -11.0)
    _paint(level, _line(from_trachea - 1.2, 0.3) * 0.6, 5.0)
    _paint(level, _soft(from_trachea), -20.0)
    loss += 5.0 * _soft(from_trachea + 0.6)
    specular += (2.2 + 0.7 * wobble) * _line(from_trachea, 0.35) * up**2
    below = np.clip(-from_trachea, 0, None)
    bands = 4 * np.cos(2 * np.pi * below / 2.1) + 1.5 * streaks
    echo = np.where(from_trachea < 0, -7 - 1.3 * below + bands - 22 * (1 - up), -60)
    hollow = np.minimum(hollow, from_trachea - 1.2)

    # Fat with septa, the fascia under it, and skin.
    septa = noise(0.8, 4, 23)
    _paint(level, _soft(y - anatomy.fat - 0.25 * wobble), -9 + 5 * np.clip(septa, -0.5, 2.5))
    _paint(level, _line(y - anatomy.fat - 0.25 * wobble, 0.3), 6.0)
    _paint(level, _soft(y - anatomy.skin), 5.0 - 2 * np.abs(septa))
    _paint(level, _line(y - anatomy.skin, 0.2) * 0.7, -10.0)

    if multiclass:
        region = (gland <= 0) & (hollow > 0) & (y > anatomy.fat)
        label[region & (label == 0)] = 1

    image = _display(level, loss, specular, echo, rng, depth=depth, across=across, spacing=(dy, dx), span=anatomy.depth)
    return image, label


def _outline(nodule: _Nodule, x: _Field, y: _Field, plane: float) -> tuple[tuple[slice, slice], _Field, float]:
    """The box of the raster around a nodule, and there the distance (mm) from its edge, below 0 inside."""
    near = (np.abs(x - nodule.x) < nodule.reach + 2) & (np.abs(y - nodule.y) < nodule.reach + 2)
    rows, columns = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    box = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    right, down = x[box] - nodule.x, y[box] - nodule.y
    scale = float(np.sqrt(1 - (plane - nodule.z) ** 2))  # another section of the same body
    reach = np.interp(np.arctan2(down, right), _ANGLES, nodule.radius * scale).astype(np.float32)
    return box, np.hypot(right, down) - reach, scale


def _paint_nodule(
    anatomy: _Anatomy, nodule: _Nodule, plane: float, x: _Field, y: _Field, edge: _Field, level: _Field, loss: _Field
) -> None:
    """Draw a nodule into views of the echogenicity (dB) and the attenuation (dB a mm)."""
    inside = _soft(edge)
    fine = _lookup(anatomy.noise, y / 1.0 + 31 + 2 * plane, x / 1.2 + 7 * nodule.z)
    own = anatomy.gland_level + nodule.level if nodule.kind != "cystic" else nodule.level
    body = own + nodule.texture * fine
    if nodule.halo:
        _paint(body, _soft(-edge - nodule.halo), anatomy.gland_level + nodule.halo_level)
    fluid = np.zeros_like(edge)
    if nodule.kind == "cystic":
        fluid = _soft(edge + 0.2)
        _paint(level, _line(edge - 0.2, 0.3) * 0.7, anatomy.gland_level + 5)
    elif nodule.kind == "mixed":
        spaces = _lookup(anatomy.noise, y / nodule.grain + 17 + plane, x / (1.3 * nodule.grain) + 9 * nodule.z)
        threshold = 1.3 - 2.6 * nodule.cyst
        fluid = np.clip((spaces - threshold) * 3, 0, 1) * _soft(edge + nodule.halo + 0.6)
        _paint(body, fluid, -30.0)
    _paint(level, inside, body)
    loss -= 0.6 * fluid
    if nodule.kind == "malignant":
        loss += 0.25 * inside
    if nodule.rim_shadow:
        sideways = np.abs(x - nodule.x) / (np.hypot(x - nodule.x, y - nodule.y) + 0.1)
        loss += 0.9 * _line(edge, 0.5) * sideways**6


def _display(
    level: _Field,
    loss: _Field,
    specular: _Field,
    echo: _Field,
    rng: np.random.Generator,
    *,
    depth: _Field,
    across: _Field,
    spacing: tuple[float, float],
    span: float,
) -> NDArray[np.uint8]:
    """From echogenicity and attenuation to grey: shadows, speckle, logarithm, gain."""
    dy, dx = spacing
    shadow = np.cumsum(loss, axis=0, dtype=np.float32) * np.float32(dy)
    shadow = ndimage.gaussian_filter1d(shadow, 0.35 / dx, axis=1, mode="nearest")
    t = depth / span
    bend = rng.uniform(-2.5, 2.5, 3)
    gain = bend[0] * (t - 0.5) + bend[1] * np.cos(np.pi * 2 * t) + 0.5 * bend[2] * np.cos(np.pi * 4 * t) - 7 * t**2
    side = across / across[0, -1]
    gain = gain - rng.uniform(0, 5) * np.abs(side) ** 4
    if rng.random() < 0.25:  # a gap in the gel
        gain = gain - rng.uniform(3, 7) * np.exp(-(((side - rng.uniform(-1, 1)) / rng.uniform(0.03, 0.09)) ** 2))
    seen = level - np.clip(shadow, -6, 45) + gain
    floor = -33 + 6 * t  # noise, which the gain over depth lifts
    power = _from_db(2 * seen) + _from_db(2 * (echo + gain)) + _from_db(2 * floor)
    specular = specular * _from_db(gain - np.clip(shadow, -6, 45))

    lateral = rng.uniform(0.24, 0.32) * (1 + 0.7 * np.abs(t[:, 0] - rng.uniform(0.3, 0.5))) / dx
    axial = rng.uniform(0.15, 0.2) / dy
    envelope = _speckle(
        np.sqrt(power), rng, axial=axial, lateral=lateral.astype(np.float32), specular=specular, looks=2
    )
    span_db = rng.uniform(48, 56)
    centre = rng.uniform(-3.5, 3.5)
    grey = 20 * np.log10(envelope + np.float32(1e-6))
    grey = 255 * (grey + 28 + centre) / span_db
    return np.clip(grey + 0.5, 0, 255).astype(np.uint8)


def _speckle(
    amplitude: _Field,
    rng: np.random.Generator,
    *,
    axial: float,
    lateral: _Field,
    specular: _Field | None = None,
    looks: int = 1,
) -> _Field:
    """The envelope of fully developed speckle.

    Many scatterers a resolution cell make the echo a circular complex Gaussian: white noise of the tissue's amplitude,
    convolved with a separable point spread function, Gaussian along the beam (the pulse, demodulated: the carrier only
    turns phases that are uniform anyway) and across it, wider away from the focus. The magnitude is Rayleigh
    distributed with a ratio of mean to standard deviation of 1.91 (Wagner, Smith, Sandrik, Lopez: Statistics of speckle
    in ultrasound B-scans. IEEE Trans. Sonics Ultrason. 30(3):156-163, 1983, doi:10.1109/T-SU.1983.31404); after the
    logarithm its standard deviation is 5.57 dB whatever the brightness, and averaging ``looks`` independent frames
    divides the variance of the envelope by their number (Burckhardt: Speckle in ultrasound B-mode scans. IEEE Trans.
    Sonics Ultrason. 25(1):1-6, 1978, doi:10.1109/T-SU.1978.30978).

    Args:
        amplitude: (H, W), root mean square of the echo.
        rng: of the scatterers.
        axial: standard deviation of the pulse in pixels.
        lateral: (H,), standard deviation of the beam in pixels at each depth.
        specular: (H, W), amplitude of coherent echoes of interfaces and calcifications.
        looks: frames averaged, as spatial compounding does.

    Returns:
        (H, W), 0 or more, with mean square ``amplitude**2`` where the tissue is homogeneous and ``looks`` is 1.
    """
    height, width = amplitude.shape
    up = int(np.ceil(3 * axial))
    out = int(np.ceil(3 * float(lateral.max())))
    along = np.exp(-0.5 * (np.arange(-up, up + 1) / axial) ** 2).astype(np.float32)
    across = np.exp(-0.5 * (np.arange(-out, out + 1)[None] / lateral[:, None]) ** 2).astype(np.float32)
    along /= np.sqrt(np.sum(along**2))
    across /= np.sqrt(np.sum(across**2, axis=1, keepdims=True))
    wide = np.pad(amplitude, ((up, up), (out, out)), mode="edge")
    bright = None if specular is None else np.pad(specular, ((up, up), (out, out)), mode="edge")
    envelope = np.zeros((height, width), np.float32)
    for _ in range(looks):
        parts = rng.standard_normal((2, *wide.shape), dtype=np.float32) * (wide * np.float32(np.sqrt(0.5)))
        if bright is not None:
            parts[0] += bright
        field = _sum_taps(parts, along, height)
        echo = np.zeros((2, height, width), np.float32)
        for tap in range(2 * out + 1):
            echo += across[:, tap, None] * field[:, :, tap : tap + width]
        envelope += np.hypot(echo[0], echo[1])
    return envelope / np.float32(looks)


def _sum_taps(parts: _Field, weights: _Field, height: int) -> _Field:
    total = np.zeros((2, height, parts.shape[2]), np.float32)
    for tap, weight in enumerate(weights):
        total += weight * parts[:, tap : tap + height]
    return total


def _from_db(value: _Field) -> _Field:
    """Amplitude of a level; of twice the level, power."""
    return np.exp(np.float32(np.log(10) / 20) * value, dtype=np.float32)


def _lookup(tile: _Field, rows: _Field, columns: _Field) -> _Field:
    """Read a periodic texture between its points."""
    result: _Field = ndimage.map_coordinates(tile, np.stack([rows, columns]), order=1, mode="grid-wrap")
    return result


def _ellipse(x: _Field, y: _Field, cx: float, cy: float, a: float, b: float, tilt: float = 0.0) -> _Field:
    """0 at the centre, 1 on the ellipse."""
    right, down = x - cx, y - cy
    cos, sin = float(np.cos(tilt)), float(np.sin(tilt))
    level: _Field = np.hypot((right * cos + down * sin) / a, (down * cos - right * sin) / b)
    return level


def _soft(distance: _Field) -> _Field:
    """Cover of an area whose edge is blurred over half a millimetre; the distance (mm) is below 0 inside."""
    return np.clip(0.5 - 2 * distance, 0, 1)


def _line(distance: _Field, thickness: float) -> _Field:
    return np.exp(-((distance / thickness) ** 2))


def _paint(onto: _Field, cover: _Field, value: NDArray | float) -> None:
    onto += cover * (value - onto)
