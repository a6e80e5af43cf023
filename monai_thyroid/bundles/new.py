"""A bundle for a user's own folder of images and folder of masks."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from monai_thyroid.bundles.proposals import Proposal, has_gpu, propose
from monai_thyroid.bundles.render import VERSIONS, recipe, render_bundle, write_bundle
from monai_thyroid.data import PARTS, Datalist, found_classes, load_datalist, map_files, read_listing
from monai_thyroid.errors import UserError
from monai_thyroid.images import read_masks, read_raster
from monai_thyroid.networks.menu import MENU_FILE

__all__ = ["NewBundle", "new_bundle"]

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
_BINARY = "foreground"
_PACKAGES = {name: {"pytorch": "torch"}.get(name, name) for name in VERSIONS}
_UNKNOWN = {"authors": "", "copyright": "", "data_source": "", "references": [], "modality": "n/a"}


@dataclass(frozen=True)
class NewBundle:
    """A bundle that was written.

    Attributes:
        path: its folder.
        found: what the data turned out to be, one sentence each.
        warnings: what the user should look at before he believes a figure, one sentence each.
        commands: what to type next.
    """

    path: Path
    found: list[str]
    warnings: list[str]
    commands: list[str]


def new_bundle(
    name: str,
    *,
    images: str,
    masks: str,
    group_pattern: str | None = None,
    classes: Sequence[str] | None = None,
    output: str = "bundles",
) -> NewBundle:
    """Look at a folder of images and one of masks, and write a bundle that trains on them.

    Every file is read: what `monai-thyroid check` would refuse is refused here.

    Args:
        name: of the bundle: letters, digits, ``_`` and ``-``.
        images: folder of images, grey or RGB.
        masks: folder of masks of the same stems, of two levels or of class numbers 0, 1, 2, ...
        group_pattern: regular expression that finds in an image's name which patient, examination or scene it is of:
            its first group, or all it matches. None: each image counts as its own, unless a table beside the folders
            says more.
        classes: names of the classes 1, 2, ...; None: found out, see `found_classes`, and called ``foreground``, or
            ``class_1``, ``class_2``, ...
        output: folder in which the bundle's folder is made.

    Returns:
        Where it is, and what was found.

    Raises:
        UserError: the name, a folder, a file or the pattern cannot be used; nothing has been written.
    """
    target = Path(output) / name
    problems = _argument_problems(name, target, images, masks, group_pattern, classes)
    if problems:
        raise UserError(problems)
    root, image_folder, mask_folder = _places(images, masks)
    where: dict[str, Any] = {"images": image_folder, "masks": mask_folder}
    # Leading $, @ and % mean something to MONAI; an empty group means nothing to a pattern.
    pattern = f"(?:){group_pattern}" if group_pattern and group_pattern[0] in "$@%" else group_pattern
    _check_pairs(root, where, pattern)
    names = list(classes) if classes else None
    found = found_classes(root, names=names, **where)
    names = names or (found if len(found) > 1 else [_BINARY])
    data = load_datalist(root, classes=names, stratify=True, group_pattern=pattern, **where)
    if data.inspect().problems:
        raise UserError(data.inspect().problems)
    look = functools.partial(_look, classes=len(names))
    about = map_files(look, data.items, "Looking at images")
    channels = 3 if any(coloured for coloured, *_ in about) else 1
    sizes = [(height, width) for _, height, width, _ in about]
    train = sum(item["part"] == "train" for item in data.items)
    proposal = propose(sizes, [share for *_, share in about], train=train, gpu=has_gpu())
    facts = [*_facts(data, names, channels, sizes), *proposal.reasons]
    values = _values(name, target, root, where, pattern, names, channels, facts)
    write_bundle(target, render_bundle("own", **values, **_proposed(proposal)))
    config = shlex.quote(str(target / "train.yaml"))
    return NewBundle(
        path=target,
        found=facts,
        warnings=_warnings(data, grouped_on_request=pattern is not None),
        commands=[f"monai-thyroid check {config}", f"python -m monai.bundle run --config_file {config}"],
    )


def _argument_problems(
    name: str, target: Path, images: str, masks: str, group_pattern: str | None, classes: Sequence[str] | None
) -> list[str]:
    problems = []
    if not _PLAIN.fullmatch(name):
        problems.append(f"name {name!r}: use letters, digits, _ and -, beginning with a letter or digit")
    elif target.exists() or target.is_symlink():
        problems.append(f"{target}: exists already; give another name, or remove it")
    existing = next((path for path in target.absolute().parents if path.exists()), Path("/"))
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        problems.append(f"output {target.parent}: {existing} is not a folder that can be written to")
    for option, folder in (("images", images), ("masks", masks)):
        if not folder or not Path(folder).is_dir():
            problems.append(f"{option} {folder}: no such folder")
        if "#" in str(Path(folder).absolute()):
            problems.append(f"{option} {folder}: MONAI's configs cannot hold a path with #; rename the folder")
    if not problems and os.path.samefile(images, masks):
        problems.append(f"images and masks are one folder, {images}; move the masks to a folder of their own")
    if group_pattern is not None:
        try:
            re.compile(group_pattern)
        except re.error as error:
            problems.append(f"groups-from {group_pattern!r}: not a regular expression ({error})")
        if not group_pattern or "#" in group_pattern:
            problems.append(f"groups-from {group_pattern!r}: must not be empty nor hold #; write \\x23 for it")
    if classes is not None:
        wrong = [one for one in classes if not _PLAIN.fullmatch(one)]
        if wrong or not classes or len(set(classes)) < len(classes):
            problems.append(
                f"classes {','.join(classes)}: give different names of letters, digits, _ and -, with commas between"
            )
    return problems


def _places(images: str, masks: str) -> tuple[str, str, str]:
    """The dataset's folder, absolute, and both folders as seen from there."""
    image_folder, mask_folder = os.path.abspath(images), os.path.abspath(masks)
    root = os.path.commonpath([image_folder, mask_folder])
    if root == os.path.dirname(root):  # nothing in common but the file system; and a dataset needs a name
        return image_folder, ".", mask_folder
    # A leading $, @ or % would mean something to MONAI.
    inside = [os.path.relpath(folder, root) for folder in (image_folder, mask_folder)]
    first, second = (os.path.join(".", path) if path[0] in "$@%" else path for path in inside)
    return root, first, second


def _check_pairs(root: str, where: Mapping[str, str], pattern: str | None) -> None:
    listing = read_listing(Path(root).resolve(), group_pattern=pattern, **where)
    if listing.problems:
        raise UserError(listing.problems)
    if pattern is None:
        return
    groups = {item["group"] for item in listing.items}
    if len(groups) == 1 and len(listing.items) > 1:
        raise UserError(
            f"groups-from {pattern!r}: puts all {len(listing.items)} images into one group, {groups.pop()!r}, and a "
            "group is never divided between training and test; give a pattern that tells patients apart"
        )


def _look(item: Mapping[str, str], *, classes: int) -> tuple[bool, int, int, float]:
    """Whether an image has colours, its height and width, and how much of it is marked."""
    pixels = read_raster(item["image"]).pixels
    coloured = pixels.ndim == 3 and bool((pixels[..., :1] != pixels).any())
    marked = float(read_masks(item["label"], classes=classes).any(axis=0).mean())
    return coloured, pixels.shape[0], pixels.shape[1], marked


def _proposed(proposal: Proposal) -> dict[str, str]:
    """What of the recipe and the menu is this dataset's own."""
    own = {name: getattr(proposal, name) for name in ("image_size", "batch_size", "max_epochs")}
    schedule = recipe("own")["strong"]["schedule"].rstrip("\n")
    for name, value in own.items():
        schedule = re.sub(rf"(?m)^{name}: \S+", f"{name}: {value}", schedule)
    menu = MENU_FILE.read_text(encoding="utf-8").rstrip("\n")
    return {
        "schedule": schedule,
        "menu": re.sub(r"features: \[.*\]", f"features: {[*proposal.features]}", menu, count=1),
    }


def _facts(data: Datalist, classes: Sequence[str], channels: int, sizes: Sequence[Sequence[int]]) -> list[str]:
    (low_height, low_width), (high_height, high_width) = np.min(sizes, axis=0), np.max(sizes, axis=0)
    size = f"{low_width} x {low_height}"
    if (low_height, low_width) != (high_height, high_width):
        size += f" to {high_width} x {high_height}"
    empty = len(data.inspect().empty_masks)
    counts = Counter(item["part"] for item in data.items)
    several = len(classes) > 1
    groups = len({item["group"] for item in data.items})
    known = f"{groups} groups" if data.grouping == "known" else "groups unknown: each image counts as its own"
    return [
        f"{len(data.items)} images with masks, {'colour' if channels == 3 else 'grey'}, {size} pixels (width x height)",
        f"{len(classes)} class{'es' if several else ''}: {', '.join(classes)}"
        + (f"; {empty} masks are empty" if empty else ""),
        known,
        f"split: {', '.join(f'{part} {counts[part]}' for part in PARTS)} ({data.how})",
    ]


def _warnings(data: Datalist, *, grouped_on_request: bool) -> list[str]:
    warnings = list(data.inspect().warnings)
    if data.grouping == "unknown":
        warnings.append(
            "images of one patient, examination or video may be in training and test, and scores then say too much; "
            "if their names tell them apart, say how: --groups-from REGEX"
        )
    elif grouped_on_request and len({item["group"] for item in data.items}) == len(data.items):
        warnings.append("there are as many groups as images: is this what --groups-from should find?")
    return warnings


def _values(
    name: str,
    target: Path,
    root: str,
    where: Mapping[str, str],
    pattern: str | None,
    classes: Sequence[str],
    channels: int,
    facts: Sequence[str],
) -> dict[str, Any]:
    """What the recipe leaves open."""
    title = name.replace("_", " ").replace("-", " ").strip().capitalize()
    numbered = [f"{number} is {one}" for number, one in enumerate(classes, 1)]
    metadata = {
        "name": f"{title} segmentation",
        "task": f"Segmentation of {', '.join(classes)}",
        "description": f"2-D segmentation of {', '.join(classes)}, with a menu of networks",
        "label_classes": f"one channel a class: {'; '.join(numbered)}; 0 is everything else",
        "pred_classes": "one channel of logits a class; sigmoid above 0.5 is the class",
    }
    return {
        "name": _yaml(name),
        "folder": target.as_posix(),
        "dataset_dir": _yaml(root),
        "images": _yaml(where["images"]),
        "masks": _yaml(where["masks"]),
        "group_pattern": _yaml(pattern),
        "classes": list(classes),
        "class_lines": f"classes: {_yaml(list(classes))}",
        "channels": channels,
        "facts": "\n".join(f"- {fact}" for fact in facts),
        "metadata": {**_UNKNOWN, **metadata},
        "versions": {key: importlib.metadata.version(name).partition("+")[0] for key, name in _PACKAGES.items()},
    }


def _yaml(value: Any) -> str:
    """A value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
