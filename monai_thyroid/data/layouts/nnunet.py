"""nnU-Net v2's raw data, in its 2-D form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, make_item, pictures
from monai_thyroid.files import read_json

__all__ = ["LAYOUT", "read_nnunet"]


def read_nnunet(root: Path) -> Listing:
    """nnU-Net v2: ``imagesTr/<case>_0000.png``, ``labelsTr/<case>.png``, ``dataset.json``, ``labelsTs/`` if there.

    Of Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
    Nature Methods 18 (2021), doi 10.1038/s41592-020-01008-z, and its documentation of the dataset format. A colour
    image is one file; several channel files an image, region-based labels and an ignore label are refused.
    """
    listing = Listing()
    listing.classes = _classes(root / "dataset.json", listing.problems)
    for part, suffix in (("trainval", "Tr"), ("test", "Ts")):
        labels_folder = root / f"labels{suffix}"
        if part == "test" and not labels_folder.is_dir():
            continue
        images: dict[str, Path] = {}
        for stem, path in pictures(root / f"images{suffix}", listing.problems).items():
            channel = re.fullmatch(r"(.+)_(\d{4})", stem)
            if channel is None:
                listing.problems.append(f"{path}: its name must end in the channel, as in {stem}_0000{path.suffix}")
            elif channel[2] != "0000":
                listing.problems.append(f"{path}: a second channel file; give one grey or RGB file an image")
            else:
                images[channel[1]] = path
        labels = pictures(labels_folder, listing.problems)
        listing.problems.extend(
            f"{path}: no {case} in {labels_folder}" for case, path in images.items() if case not in labels
        )
        listing.problems.extend(
            f"{path}: no {case}_0000 in {root / f'images{suffix}'}"
            for case, path in labels.items()
            if case not in images
        )
        for case, image in images.items():
            if case in labels:
                listing.items.append(make_item(image, labels[case], case=case, part=part))
    listing.grouped = group_by_tables(listing, root)
    return listing


def _classes(path: Path, problems: list[str]) -> list[str]:
    """Names of the labels 1, 2, ..."""
    try:
        labels: dict[str, Any] = read_json(path)["labels"]
        numbers = {name: value for name, value in labels.items() if name != "background"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        problems.append(f'{path}: needs "labels", as in {{"background": 0, "nodule": 1}}')
        return []
    if any(not isinstance(value, int) for value in numbers.values()) or "ignore" in numbers:
        problems.append(f"{path}: region-based labels and an ignore label are not supported; give each pixel one class")
        return []
    if sorted(numbers.values()) != list(range(1, len(numbers) + 1)):
        problems.append(f"{path}: labels must be numbered 0 (background), 1, 2, ... without a gap")
        return []
    return sorted(numbers, key=lambda name: int(numbers[name]))


LAYOUT = Layout(
    name="nnunet",
    looks_for="imagesTr/ labelsTr/ dataset.json",
    recognises=lambda root: (root / "imagesTr").is_dir() and (root / "labelsTr").is_dir(),
    read=read_nnunet,
)
