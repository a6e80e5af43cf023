"""TG3K: frames of videos of the thyroid gland."""

from __future__ import annotations

from pathlib import Path

from monai_thyroid.data.layouts.listing import Layout, Listing, group_by_tables, make_item, pairs
from monai_thyroid.data.scenes import find_scenes
from monai_thyroid.files import read_json
from monai_thyroid.images import stem

__all__ = ["LAYOUT", "read_tg3k"]


def read_tg3k(root: Path) -> Listing:
    """TG3K: ``thyroid-image/ thyroid-mask/``, ``tg3k-trainval.json`` if there, optionally ``scenes.csv`` (file, scene).

    Of Gong et al., doi 10.1016/j.compbiomed.2022.106389: frames of 16 videos, whose neighbours are nearly the same
    image. The published ``tg3k-trainval.json`` cuts through a video, so it is used on request only (``split:
    frames``). Groups are scenes: those of ``scenes.csv``, which is ours, or else found by cuts, see `find_scenes`.
    """
    listing = Listing(unit="scene")
    for image, mask in pairs(root / "thyroid-image", root / "thyroid-mask", listing):
        listing.items.append(make_item(image, mask, case=stem(image)))
    if not group_by_tables(listing, root) and listing.items:
        scenes = find_scenes([item["image"] for item in listing.items])
        for item, scene in zip(listing.items, scenes, strict=True):
            item["group"] = f"scene{scene:03d}"
        listing.notes.append(
            f"{root}: no scenes.csv; {max(scenes) + 1} scenes were found where the picture's size or content jumps"
        )
    published = root / "tg3k-trainval.json"
    if published.is_file():
        try:
            content = read_json(published)
            parts = {"train": "trainval", "val": "test"}
            listing.frames = {
                f"{int(number):04d}": part for name, part in parts.items() for number in content.get(name, [])
            }
        except (ValueError, TypeError, AttributeError) as error:
            listing.problems.append(f"{published}: needs lists of frame numbers under train and val ({error})")
    return listing


LAYOUT = Layout(
    name="tg3k",
    looks_for="thyroid-image/ thyroid-mask/",
    recognises=lambda root: (root / "thyroid-image").is_dir(),
    read=read_tg3k,
)
