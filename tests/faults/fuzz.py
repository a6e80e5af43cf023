"""Bounded, seeded attempts to break the package: each a mutation, a command, and the same four questions.

1. The exit status says whether it went well.
2. If not, one message names the thing that is wrong.
3. There is no traceback and no hang.
4. Nothing that was there is changed, and nothing half-written stays.

`python tests/faults/fuzz.py KIND COUNT [SEED]` runs more of a kind than the tests do, and prints what it finds.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import logging
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import yaml
from monai.networks.nets import BasicUNet
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.data import load_datalist
from monai_thyroid.errors import message_of
from monai_thyroid.evaluation import TrainedRun, input_items
from monai_thyroid.files import sha256_file, write_json
from monai_thyroid.images import write_phantom
from monai_thyroid.transforms import ClassNumbersd, SaveMaskd, SaveOverlayd

SECONDS = 60
FEATURES = [4, 4, 4, 4, 4, 4]
_LEFT = (".partial-", ".building-")


@dataclass
class Outcome:
    """What came of an attempt.

    Attributes:
        what: the mutation and the command.
        status: exit status; None where it hung or a traceback would have been shown.
        told: standard output and error together.
        faults: which of the four questions it answers badly.
    """

    what: str
    status: int | None
    told: str
    faults: list[str] = field(default_factory=list)


class Hang(BaseException):
    """A command took longer than any should."""


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: Any) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _snapshot(folder: Path) -> dict[str, str]:
    found = {}
    for name in sorted(_walk(os.fsencode(folder))):
        path = Path(os.fsdecode(name))
        if path.is_symlink():
            found[os.fsdecode(name)] = f"-> {os.readlink(path)}"
        elif path.is_file():
            found[os.fsdecode(name)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _walk(folder: bytes) -> Iterator[bytes]:
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        else:
            yield entry.path


def attempt(
    what: str,
    call: Callable[[], int | None],
    *,
    root: Path,
    names: Sequence[str],
    watched: Sequence[Path],
    outputs: Sequence[Path] = (),
) -> Outcome:
    """Run a command and ask the four questions.

    Args:
        what: for the report.
        call: returns the exit status (None is 0), or raises what a command would have told by `message_of`.
        root: everything of this attempt lies below it.
        names: a message names at least one of them.
        watched: files and folders that must not change.
        outputs: what may only be there, complete, after status 0.
    """
    before = {path: _snapshot(path) for path in watched}
    told = io.StringIO()
    handler = logging.StreamHandler(told)
    logging.getLogger("monai_thyroid").addHandler(handler)
    outcome = Outcome(what, None, "")
    try:
        with (
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
            warnings.catch_warnings(),
            _limited(),
        ):
            warnings.simplefilter("ignore")
            outcome.status = call() or 0
    except Hang:
        outcome.faults.append(f"hangs for {SECONDS} s")
    except SystemExit as error:
        outcome.status = error.code if isinstance(error.code, int) else 1
        told.write(str(error.code or ""))
    except BaseException as error:
        if (message := message_of(error)) is None:
            outcome.faults.append("a traceback:\n" + "".join(traceback.format_exception(error)[-6:]))
        else:
            outcome.status = 1
            told.write(message)
    finally:
        logging.getLogger("monai_thyroid").removeHandler(handler)
    outcome.told = told.getvalue()
    if "Traceback (most recent call last)" in outcome.told:
        outcome.faults.append("shows a traceback")
    if outcome.status and not outcome.told.strip():
        outcome.faults.append("fails without a word")
    elif outcome.status and not any(name in outcome.told for name in names):
        outcome.faults.append(f"names none of {', '.join(names)}")
    for path in watched:
        if (now := _snapshot(path)) != before[path]:
            changed = sorted(name for name in now.keys() | before[path] if now.get(name) != before[path].get(name))
            outcome.faults.append(f"changed {', '.join(changed[:5])}")
    if left := [
        os.fsdecode(name) for name in _walk(os.fsencode(root)) if any(part in os.fsdecode(name) for part in _LEFT)
    ]:
        outcome.faults.append(f"left {left[0]}")
    if outcome.status:
        outcome.faults += [f"half-written {path}" for path in outputs if path.exists()]
    return outcome


# --- what is broken ---


class World:
    """A small dataset, a run trained on it, and scored runs, made once and copied for each attempt."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scans = write_phantom(folder / "scans", cases=10, seed=0, height=48, width=48)
        self.run = _trained_run(folder / "run", self.scans)
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "compare"))
        from made_runs import maker

        make = maker(folder / "scored")
        for network in ("unet", "segnet"):
            for seed in (0, 1):
                make(network, seed, cases=range(6))
        self.scored = folder / "scored"

    def copy(self, name: str, target: Path) -> Path:
        """A copy of ``scans``, ``run`` or ``scored`` to break."""
        return Path(shutil.copytree(self.folder / name, target / name))


def _trained_run(folder: Path, scans: Path) -> Path:
    folder.mkdir()
    torch.manual_seed(0)
    network = {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 1}
    network["features"] = FEATURES  # type: ignore[assignment]
    data = {"_target_": "monai_thyroid.data.load_datalist", "dataset_dir": str(scans), "layout": "tn3k"}
    resize = {"_target_": "Resized", "keys": "image", "spatial_size": [32, 32], "mode": "bilinear"}
    applied = {
        "network": network,
        "image_transforms": [
            {"_target_": "monai_thyroid.transforms.LoadScand", "keys": "image", "channels": 1},
            resize,
        ],
        "to_original_grid": [
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": {"_target_": "Compose", "transforms": "@image_transforms"},
                "orig_keys": "image",
                "nearest_interp": False,
            },
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        ],
        "measures": [],
        "data": data,
    }
    config = {
        **{"schema_version": 2, "dataset_dir": str(scans), "network": "unet", "classes": ["nodule"], "threshold": 0.5},
        **{"activation": "sigmoid", "applied": applied},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save(BasicUNet(2, 1, 1, FEATURES).state_dict(), folder / "model.pt")  # type: ignore[arg-type]
    datalist = load_datalist(str(scans), layout="tn3k")
    write_json(folder / "split.json", datalist.split())
    record = {
        **{"schema_version": 2, "status": "done", "bundle": "thyroid", "dataset": "scans", "dataset_dir": str(scans)},
        **{"network": "unet", "seed": 0, "data_hash": datalist.inspect().data_hash, "classes": ["nodule"]},
        **{"activation": "sigmoid", "threshold": 0.5, "checkpoint_sha256": sha256_file(folder / "model.pt")},
    }
    write_json(folder / "run.json", record)
    return folder


def broken_bytes(content: bytes, chance: random.Random) -> tuple[str, bytes]:
    """A file's content with something wrong, and what."""
    size = len(content)
    where = chance.randrange(size) if size else 0
    head = chance.randrange(min(size, 64)) if size else 0
    kinds: list[tuple[str, Callable[[], bytes]]] = [
        ("empty", lambda: b""),
        ("cut", lambda: content[:where]),
        ("cut at its head", lambda: content[:head]),
        ("beheaded", lambda: content[head:]),
        ("a byte changed", lambda: content[:where] + bytes([chance.randrange(256)]) + content[where + 1 :]),
        ("a byte of the head changed", lambda: content[:head] + bytes([chance.randrange(256)]) + content[head + 1 :]),
        (
            "a bit of the head flipped",
            lambda: content[:head] + bytes([content[head] ^ (1 << chance.randrange(8))]) + content[head + 1 :],
        ),
        ("zeros inside", lambda: content[:where] + bytes(min(64, size - where)) + content[where + 64 :]),
        ("noise inside", lambda: content[:where] + chance.randbytes(64) + content[where + 64 :]),
        ("noise", lambda: chance.randbytes(chance.randrange(1, 5000))),
        ("something appended", lambda: content + chance.randbytes(200)),
        ("twice", lambda: content + content),
        ("text", lambda: 'Ünïcode, "quotes\n\n;,,,\t'.encode() * chance.randrange(1, 20)),
    ]
    name, make = chance.choice(kinds if size else kinds[:1])
    return name, make()


def _png_of_size(width: int, height: int, bits: int = 1) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def _nifti(array: np.ndarray, suffix: str = ".nii", *, affine: float | None = None) -> bytes:
    """A volume; all numbers of its affine can be one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
        content = path.read_bytes()
    # nibabel would not write it.
    return content if affine is None else content[:280] + struct.pack("<12f", *[affine] * 12) + content[328:]


def _saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def strange_image(path: Path, chance: random.Random) -> tuple[str, Path]:
    """Put something in the place of a picture, or beside it; says what and where."""
    content = path.read_bytes()
    grey = Image.open(io.BytesIO(content)).convert("L")
    noise = np.random.default_rng(chance.randrange(2**32))
    shape = (chance.randrange(1, 60), chance.randrange(1, 60))
    pixels = noise.integers(0, 256, shape).astype(np.uint8)

    def put(content: bytes, name: str | None = None) -> Path:
        target = path if name is None else path.with_name(name)
        if target != path:
            path.unlink()
        target.write_bytes(content)
        return target

    def special(make: Callable[[Path], Any]) -> Path:
        path.unlink()
        make(path)
        return path

    stem = path.stem
    exif = Image.Exif()
    exif[0x0112] = chance.randrange(0, 12)
    modes = ["1", "P", "LA", "RGBA", "RGB", "I;16", "I", "F", "CMYK", "YCbCr", "LAB", "PA"]
    kinds: dict[str, Callable[[], Path]] = {
        "another size": lambda: put(_saved(Image.fromarray(pixels), "PNG")),
        "another mode": lambda: put(_any_mode(grey, chance.choice(modes))),
        "one pixel": lambda: put(_saved(grey.resize((1, 1)), "PNG")),
        "JPEG under this name": lambda: put(_saved(grey, "JPEG")),
        "JPEG turned": lambda: put(_saved(grey, "JPEG", exif=exif), f"{stem}.jpg"),
        "GIF of frames": lambda: put(
            _saved(grey, "GIF", save_all=True, append_images=[grey.rotate(90)]), f"{stem}.gif"
        ),
        "TIFF of pages": lambda: put(_saved(grey, "TIFF", save_all=True, append_images=[grey]), f"{stem}.tif"),
        "TIFF of floats": lambda: put(_saved(Image.fromarray(_floats(noise, shape, chance)), "TIFF"), f"{stem}.tif"),
        "huge by its head": lambda: put(_png_of_size(chance.choice([30_000, 2**31 - 1, 200_000]), 30_000)),
        "no area": lambda: put(_png_of_size(0, chance.randrange(5))),
        "NIfTI under this name": lambda: put(_nifti(pixels)),
        "complex NIfTI": lambda: put(_nifti(pixels.astype(np.complex64) * 1j), f"{stem}.nii"),
        "NIfTI of four axes": lambda: put(_nifti(np.zeros((*shape, 2, 2), np.uint8)), f"{stem}.nii"),
        "NIfTI of floats": lambda: put(_nifti(_floats(noise, shape, chance)), f"{stem}.nii"),
        "NIfTI of a bad affine": lambda: put(_nifti(pixels, affine=chance.choice([np.nan, 0, np.inf])), f"{stem}.nii"),
        "NIfTI packed twice": lambda: put(gzip.compress(_nifti(pixels, ".nii.gz")), f"{stem}.nii.gz"),
        "NIfTI cut": lambda: put(_nifti(pixels, ".nii.gz")[: chance.randrange(1, 60)], f"{stem}.nii.gz"),
        "broken NIfTI": lambda: put(broken_bytes(_nifti(pixels), chance)[1], f"{stem}.nii"),
        "DICOM without anything": lambda: put(bytes(128) + b"DICM" + chance.randbytes(40), f"{stem}.dcm"),
        "npz of an object": lambda: put(_npz(np.array([{}], dtype=object)), f"{stem}.npz"),
        "a pipe": lambda: special(os.mkfifo),
        "a folder": lambda: special(Path.mkdir),
        "a link to nothing": lambda: special(lambda one: one.symlink_to("nowhere")),
        "a link to itself": lambda: special(lambda one: one.symlink_to(one.name)),
        "a link to /dev/zero": lambda: special(lambda one: one.symlink_to("/dev/zero")),
        "a link upwards": lambda: special(lambda one: one.symlink_to("../..")),
        "no UTF-8 in its name": lambda: _renamed(path, b"\xe4" + os.fsencode(path.name)),
        "a line break in its name": lambda: _renamed(path, b"a\nb" + os.fsencode(path.name)),
        "a long name": lambda: _renamed(path, b"x" * 240 + b".png"),
        "a superscript for a name": lambda: _renamed(path, "²1.png".encode()),
        "gone": lambda: special(lambda one: None),
        "a twin of another suffix": lambda: _twin(path, grey),
    }
    if chance.random() < 0.4:
        what, broken = broken_bytes(content, chance)
        path.write_bytes(broken)
        return f"{path.name}: {what}", path
    name = chance.choice(list(kinds))
    target = kinds[name]()
    return f"{path.name}: {name}", target


def _any_mode(picture: Image.Image, mode: str) -> bytes:
    changed = picture.convert("RGB").convert("LAB") if mode == "LAB" else _converted(picture, mode)
    try:
        return _saved(changed, "PNG")
    except OSError:
        return _saved(changed, "TIFF")


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    if mode in ("PA", "YCbCr", "CMYK", "HSV"):
        return (
            picture.convert("RGB").convert("P").convert("PA") if mode == "PA" else picture.convert("RGB").convert(mode)
        )
    return picture.convert(mode)


def _floats(noise: np.random.Generator, shape: tuple[int, int], chance: random.Random) -> np.ndarray:
    array = noise.normal(size=shape).astype(np.float32)
    array.flat[0] = chance.choice([np.nan, np.inf, -np.inf, 1e38, 0])
    return array


def _npz(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, array)
    return buffer.getvalue()


def _renamed(path: Path, name: bytes) -> Path:
    target = Path(os.fsdecode(os.path.join(os.fsencode(path.parent), name)))
    path.rename(target)
    return target


def _twin(path: Path, picture: Image.Image) -> Path:
    picture.save(path.with_suffix(".bmp"))
    return path


def broken_table(text: str, chance: random.Random) -> tuple[str, bytes]:
    """A table in CSV with something wrong."""
    rows = list(csv.reader(io.StringIO(text)))
    at = chance.randrange(1, len(rows)) if len(rows) > 1 else 0
    column = chance.randrange(len(rows[0])) if rows and rows[0] else 0
    value = chance.choice(
        [
            "",
            "nan",
            "inf",
            "-inf",
            "-1",
            "5",
            "1e400",
            "x",
            "0x10",
            "²",
            "1,5",
            " 1",
            "True",
            "\0",
            "9" * 400,
            "'",
            "../a",
        ]
    )

    def changed(change: Callable[[], Any]) -> bytes:
        change()
        out = io.StringIO()
        csv.writer(out, lineterminator="\n").writerows(rows)
        return out.getvalue().encode()

    def set_value() -> None:
        rows[at][column] = value

    kinds: dict[str, Callable[[], bytes]] = {
        f"{value[:20]!r} in column {column} of line {at}": lambda: changed(set_value),
        "a row twice": lambda: changed(lambda: rows.append(list(rows[at]))),
        "a short row": lambda: changed(lambda: rows[at].pop()),
        "a long row": lambda: changed(lambda: rows[at].extend("ab")),
        "a column less": lambda: changed(lambda: [row.pop(column) for row in rows if len(row) > column]),
        "a column twice": lambda: changed(lambda: [row.append(row[column]) for row in rows if len(row) > column]),
        "no row": lambda: changed(lambda: rows.__delitem__(slice(1, None))),
        "no header": lambda: changed(lambda: rows.pop(0)),
        "an open quote": lambda: text.replace("\n", '\n"', 2).encode(),
        "UTF-16": lambda: text.encode("utf-16"),
        "Latin-1": lambda: ("ä" + text).encode("latin-1"),
        "semicolons": lambda: text.replace(",", ";").encode(),
        "a huge field": lambda: text.encode() + b"x" * 200_000,
        "a NUL": lambda: text.encode() + b"\0\0\n",
    }
    if chance.random() < 0.3:
        return broken_bytes(text.encode(), chance)
    name = chance.choice([*kinds, *[next(iter(kinds))] * 6])
    try:
        return name, kinds[name]()
    except IndexError:
        return "empty", b""


_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.5, 1e308, 10**30, "", "x", "nan", "../../x", "/etc/passwd", "phantom"),
    *([], {}, [[]], [None], {"a": 1}, "²", "a" * 5000, "$1 + 1", "@x", "%x", "os.system", "\0", [0] * 100, "softmax"),
    *("monai.transforms.Lambdad", "torch.nn.Conv2d", "Compose", {"_target_": "os.getcwd"}, {"_target_": "Resized"}),
)


def broken_tree(content: Any, chance: random.Random) -> tuple[str, Any]:
    """JSON or YAML content with a value changed, left out or added."""
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], (dict, list)):
                collect(node[key])

    collect(content)
    node, key = chance.choice(places)
    kind = chance.choice(["value", "value", "value", "value", "gone", "more", "moved"])
    if kind == "gone":
        del node[key]
    elif kind == "more" and isinstance(node, dict):
        node[chance.choice(["x", "_target_", "_mode_", "_disabled_", "", "applied"])] = chance.choice(_VALUES)
    elif kind == "moved":
        other, place = chance.choice(places)
        node[key] = json.loads(json.dumps(other[place])) if place in other or isinstance(other, list) else None
    else:
        node[key] = chance.choice(_VALUES)
    return f"{kind} at {key!r}", content


# --- the kinds of attempts ---


def images(world: World, folder: Path, chance: random.Random) -> Iterator[Outcome]:
    """Broken images and masks of a dataset: audited, listed for training, and segmented."""
    scans = world.copy("scans", folder)
    kind = chance.choice(["trainval-image", "test-image", "trainval-mask", "test-mask"])
    path = chance.choice(sorted((scans / kind).iterdir()))
    what, target = strange_image(path, chance)
    names = (
        target.name,
        path.stem,
        os.fsencode(target.name).decode("utf-8", "backslashreplace"),
        repr(target.name)[1:-1],
    )
    page = folder / "page.html"
    outcome = attempt(
        f"{kind}/{what}: audit",
        lambda: cli.main(["audit", str(scans), "--output", str(page)]),
        root=folder,
        names=names,
        watched=[scans],
    )
    if page.exists() and "</html>\n" not in page.read_text("utf-8")[-100:]:
        outcome.faults.append("half a page")
    yield outcome
    yield attempt(
        f"{kind}/{what}: check",
        lambda: _inspected(scans),
        root=folder,
        names=names,
        watched=[scans],
    )
    if kind == "test-image":
        output = folder / "results"
        yield attempt(
            f"{kind}/{what}: inference",
            lambda: _segmented(world.run, scans / kind, output),
            root=folder,
            names=names,
            watched=[scans, world.run],
            outputs=[output],
        )


def _inspected(scans: Path) -> int:
    data = load_datalist(str(scans), layout="tn3k", stratify=True)
    problems = data.inspect().problems
    print("\n".join(problems), file=sys.stderr)  # noqa: T201
    data.split()
    return 1 if problems else 0


def _segmented(run: Path, source: Path, output: Path) -> int:
    """What inference.yaml does, without its workflow."""
    trained = TrainedRun(str(run))
    trained.rehearse()
    network = trained.network()
    prepare, back = trained.parsed("image_transforms"), trained.parsed("to_original_grid")
    saving = [
        ClassNumbersd(keys="pred", threshold=trained.threshold, activation=trained.activation),
        *(writer(keys="pred", output_dir=str(output)) for writer in (SaveMaskd, SaveOverlayd)),
    ]
    for item in input_items(str(source), output_dir=str(output)):
        data: Any = item
        for transform in prepare:
            data = transform(data)
        with torch.no_grad():
            data["pred"] = network(data["image"][None])[0]
        for transform in [*back, *saving]:
            data = transform(data)
    return 0


def tables(world: World, folder: Path, chance: random.Random) -> Iterator[Outcome]:
    """Broken tables of a dataset and of scores, and broken splits."""
    kind = chance.choice(["cases.csv", "split", "scores", "scores", "history"])
    if kind in ("cases.csv", "split"):
        scans = world.copy("scans", folder)
        arguments = ["audit", str(scans)]
        if kind == "split":
            target = folder / "split.json"
            split = json.loads((world.run / "split.json").read_text())
            what, changed = broken_tree(split, chance)
            target.write_text(json.dumps(changed))
            arguments += ["--split_file", str(target)]
        else:
            target = scans / "cases.csv"
            what, broken = broken_table(target.read_text(), chance)
            target.write_bytes(broken)
        yield attempt(
            f"{kind}: {what}: audit",
            lambda: cli.main(arguments),
            root=folder,
            names=[target.name],
            watched=[scans],
        )
        return
    scored = world.copy("scored", folder)
    name = "history.csv" if kind == "history" else chance.choice(["cases.csv", "calibration.csv"])
    target = chance.choice(sorted(scored.rglob(name)))
    what, broken = broken_table(target.read_text(), chance)
    target.write_bytes(broken)
    yield _reported(f"{name}: {what}", scored, target, folder)


def _reported(what: str, scored: Path, target: Path, folder: Path) -> Outcome:
    output = folder / "report"
    outcome = attempt(
        f"{what}: report",
        lambda: cli.main(["report", str(scored), "--output", str(output), "--no-images"]),
        root=folder,
        names=[
            target.name,
            "dataset neck",
            *(part for part in target.parts[-5:] if part.startswith(("seed", "unet", "segnet"))),
        ],
        watched=[scored],
        outputs=[output],
    )
    if outcome.status == 0 and not list(output.glob("*.html")):
        outcome.faults.append("no report")
    return outcome


def runs(world: World, folder: Path, chance: random.Random) -> Iterator[Outcome]:
    """Broken run folders: applied, checked and reported."""
    if chance.random() < 0.3:
        scored = world.copy("scored", folder)
        target = chance.choice(sorted(scored.rglob("*.json")))
        what = _break_file(target, chance)
        yield _reported(f"{target.name}: {what}", scored, target, folder)
        return
    run = world.copy("run", folder)
    target = run / chance.choice(["run.json", "config.yaml", "config.yaml", "config.yaml", "split.json", "model.pt"])
    what = _break_file(target, chance)
    names = [target.name, str(run), str(world.scans)]
    output = folder / "results"
    source = sorted((world.scans / "test-image").iterdir())[0]
    yield attempt(
        f"{target.name}: {what}: inference",
        lambda: _segmented(run, source, output),
        root=folder,
        names=names,
        watched=[run, world.scans],
        outputs=[output],
    )
    yield attempt(
        f"{target.name}: {what}: check",
        lambda: cli.main(["check", str(run / "config.yaml")]),
        root=folder,
        names=names,
        watched=[run, world.scans],
    )


def _break_file(target: Path, chance: random.Random) -> str:
    if target.suffix == ".pt" or chance.random() < 0.15:
        what, content = broken_bytes(target.read_bytes(), chance)
        target.write_bytes(content)
        return what
    text = target.read_text()
    what, changed = broken_tree(json.loads(text) if target.suffix == ".json" else yaml.safe_load(text), chance)
    target.write_text(json.dumps(changed) if target.suffix == ".json" else yaml.safe_dump(changed))
    return what


_OPTION_VALUES = (
    *(
        "",
        "x",
        "-1",
        "0",
        "1",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "1e3",
        "99999999999999999999",
        "true",
        "None",
        "[]",
        "{}",
    ),
    *(
        "[1,2]",
        "a#b",
        "../../x",
        "/dev/null",
        "/proc/self/mem",
        "²",
        "%x",
        "@x",
        "$1/0",
        "2024",
        "a b",
        "\n",
        "é" * 300,
        "(",
        "*",
    ),
)


def options(world: World, folder: Path, chance: random.Random) -> Iterator[Outcome]:
    """Options with strange values, of every command."""
    out = str(folder / "out")
    scans, scored = str(world.scans), str(world.scored)
    train = str(Path(__file__).resolve().parents[2] / "bundles" / "thyroid" / "train_course.yaml")
    value = chance.choice(_OPTION_VALUES)
    commands: dict[str, tuple[list[str], list[str]]] = {
        "phantom": (
            ["phantom", out, "--cases", "10", "--height", "48", "--width", "48"],
            ["--cases", "--seed", "--height", "--width", "--empty-fraction"],
        ),
        "audit": (["audit", scans], ["--layout", "--split_file", "--output"]),
        "report": (["report", scored, "--output", out, "--no-images"], ["--margin", "--metric", "--part"]),
        "new": (
            ["new", "mine", "--images", f"{scans}/test-image", "--masks", f"{scans}/test-mask", "--output", out],
            ["--groups-from", "--classes", "--images", "--masks"],
        ),
        "compare": (
            ["compare", train, "--networks", "unet", "--output", out, "--plan", "--dataset_dir", scans],
            ["--networks", "--seeds", "--folds", "--jobs", "--margin", "--image_size", "--seed", "--device"],
        ),
        "check": (
            ["check", train, "--dataset_dir", scans, "--output_dir", out, "--image_size", "32"],
            [
                *("--image_size", "--seed", "--bundle", "--network", "--classes", "--device", "--learning_rate"),
                *("--split_file", "--folds", "--fold", "--threshold", "--activation", "--channels", "--precision"),
                *("--batch_size", "--init_from", "--dataset_dir", "--optimizer::lr", "--networks::unet::features"),
            ],
        ),
        "networks": (["networks", "segnet", "--no-exports"], ["--output"]),
    }
    name = chance.choice([*commands, "check", "phantom", "new"])
    command, changeable = commands[name]
    option = chance.choice(changeable)
    if option in command:
        at = command.index(option)
        command = [*command[:at], *command[at + 2 :]]
    words = [*command, f"{option}={value}"]
    here = Path.cwd()
    work = folder / "work"
    work.mkdir()
    os.chdir(work)
    try:
        yield attempt(
            f"{name} {option}={value[:30]!r}",
            lambda: cli.main(words),
            root=folder,
            names=[
                option.lstrip("-"),
                option.lstrip("-").replace("_", "-"),
                "group_pattern",
                *([value] if value.strip() else []),
            ],
            watched=[world.scans, world.scored],
            outputs=[folder / "out"],
        )
    finally:
        os.chdir(here)


KINDS: dict[str, Callable[[World, Path, random.Random], Iterator[Outcome]]] = {
    "images": images,
    "tables": tables,
    "runs": runs,
    "options": options,
}


def fuzz(kind: str, count: int, seed: int, world: World, folder: Path) -> Iterator[Outcome]:
    """Attempts of a kind, each in a folder of its own below ``folder``, which is removed after it."""
    for number in range(count):
        place = folder / f"{kind}-{number}"
        place.mkdir()
        # By number, so that one attempt can be repeated by itself.
        for outcome in KINDS[kind](world, place, random.Random(f"{kind} {seed} {number}")):
            outcome.what = f"{kind} {seed} {number}: {outcome.what}"
            yield outcome
        shutil.rmtree(place, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Run one kind, or ``all``, and print what was found."""
    kinds = list(KINDS) if arguments[0] == "all" else [arguments[0]]
    count, seed = int(arguments[1]), int(arguments[2]) if len(arguments) > 2 else 0
    statuses: Counter[str] = Counter()
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for kind in kinds:
            for outcome in fuzz(kind, count, seed, world, Path(folder)):
                statuses[f"{kind} {outcome.status}"] += 1
                if outcome.faults:
                    found += 1
                    sys.stdout.write(
                        f"FAULT {outcome.what}\n  {'; '.join(outcome.faults)}\n  told: {outcome.told[-500:]}\n"
                    )
                    sys.stdout.flush()
    sys.stdout.write(f"{dict(statuses)}, {found} faults\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
