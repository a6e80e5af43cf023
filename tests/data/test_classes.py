"""How many classes a dataset's masks show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from monai_thyroid.data import found_classes, load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.files import write_json
from monai_thyroid.images import write_phantom


def disc(levels: Sequence[int], *, size: int = 48) -> np.ndarray:
    """Rings from the outside in, one a level."""
    y, x = np.mgrid[:size, : size + 16]
    distance = np.hypot(y - size / 2, x - size / 2 - 8) / (size / 2)
    ring = len(levels) - 1 - np.minimum(distance * len(levels), len(levels) - 1).astype(int)
    return np.asarray(levels, dtype=np.uint8)[ring]


def dataset(root: Path, masks: Sequence[np.ndarray | Image.Image], suffix: str = ".png") -> str:
    for number, mask in enumerate(masks):
        picture = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        for folder, content in (("images", Image.new("L", picture.size, 90)), ("masks", picture)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            content.save(root / folder / f"{number}{suffix if folder == 'masks' else '.png'}")
    return str(root)


def palette(indices: np.ndarray, colours: Sequence[Sequence[int]]) -> Image.Image:
    picture = Image.fromarray(indices, mode="P")
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def test_real_masks(data_dir: Path) -> None:
    assert found_classes(str(data_dir / "nerve"), names=["nerve", "vessel"]) == ["nerve", "vessel"]
    assert found_classes(str(data_dir / "nerve"), names=["a", "b", "c"]) == ["a", "b"]
    assert found_classes(str(data_dir / "nerve")) == ["class_1", "class_2"]
    assert found_classes(str(data_dir / "thyroid"), names=["nodule"]) == ["nodule"]
    assert found_classes(str(data_dir / "lung" / "montgomery"), names=["lung", "heart"]) == ["lung"]
    assert found_classes(str(data_dir / "fetal_head"), names=["head"]) == ["head"]
    with pytest.raises(UserError, match=r"hold 2 classes, but 1 is named \(nerve\)"):
        found_classes(str(data_dir / "nerve"), names=["nerve"])


def test_the_phantom_has_the_first_class() -> None:
    assert found_classes("phantom", names=["nodule", "gland"]) == ["nodule"]
    with pytest.raises(UserError, match="give a folder, or phantom"):
        found_classes("")


def soft(mask: np.ndarray) -> Image.Image:
    return Image.fromarray(mask).filter(ImageFilter.GaussianBlur(1))


@pytest.mark.parametrize(
    ("masks", "suffix"),
    [
        ([disc([0, 255])], ".png"),
        ([disc([0, 1])], ".png"),
        ([disc([255, 0])], ".png"),
        ([disc([1, 2])], ".png"),
        ([disc([0, 0]), disc([0, 1])], ".png"),
        ([disc([0, 1]), disc([0, 255])], ".png"),
        ([disc([0, 254]), disc([0, 255]), disc([0, 0])], ".bmp"),
        ([soft(disc([0, 255]))], ".png"),
        ([Image.fromarray(disc([0, 1]) * 255).convert("1")], ".png"),
        ([Image.fromarray(disc([0, 255])).convert("RGB")], ".png"),
        ([palette(disc([0, 1]), [(255, 255, 255), (0, 0, 0)])], ".png"),
        ([palette(disc([0, 3]), [(0, 0, 0), (9, 9, 9), (9, 9, 9), (200, 0, 0)])], ".png"),
        ([Image.fromarray(disc([0, 1, 2]) * np.uint8(100))], ".jpg"),  # JPEG keeps no numbers
        ([disc([0, 1]).astype(np.uint16) * np.uint16(65535)], ".png"),
    ],
)
def test_two_levels_are_one_class(tmp_path: Path, masks: list[np.ndarray | Image.Image], suffix: str) -> None:
    assert found_classes(dataset(tmp_path, masks, suffix), names=["first", "second"]) == ["first"]


@pytest.mark.parametrize(
    "masks",
    [
        [disc([0, 1, 2])],
        [disc([0, 1]), disc([0, 2])],
        [disc([0, 0]), disc([0, 1, 2]), disc([0, 1])],
        [Image.fromarray(disc([0, 1, 2])).convert("RGB")],
        [palette(disc([0, 1, 2]), [(0, 0, 0), (128, 0, 0), (0, 128, 0)])],
        [palette(disc([0, 1, 2]), [(0, 0, 0), (128, 128, 128), (255, 255, 255)])],
        [disc([0, 1, 2]).astype(np.uint16)],
    ],
)
def test_small_numbers_are_classes(tmp_path: Path, masks: list[np.ndarray | Image.Image]) -> None:
    folder = dataset(tmp_path, masks)
    assert found_classes(folder) == ["class_1", "class_2"]
    assert found_classes(folder, names=["a", "b", "c"]) == ["a", "b"]


def test_more_classes_than_the_usual_bound_where_they_are_named(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [disc(list(range(23)), size=400)])
    with pytest.raises(UserError, match="neither two levels nor class numbers"):
        found_classes(folder)
    names = [str(number) for number in range(1, 25)]
    assert found_classes(folder, names=names) == names[:22]


def test_a_number_that_no_mask_holds_needs_names(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [disc([0, 1]), disc([0, 3])])
    with pytest.raises(UserError, match="hold 0, 1, 3 but not 2; say which classes"):
        found_classes(folder)
    assert found_classes(folder, names=["a", "b", "c"]) == ["a", "b", "c"]


def thin() -> np.ndarray:
    """Numbers 0, 1, 2 of which 1 is a thin rim, as soft edges are."""
    indices = np.zeros((64, 64), np.uint8)
    indices[19:45, 19:45] = 1
    indices[20:44, 20:44] = 2
    return indices


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([disc([0, 0]), disc([0, 0])], "every mask is empty"),
        ([disc([0, 1, 2]), disc([0, 255])], r"0\.png holds the class numbers 0, 1, 2, but .*1\.png is a mask of two"),
        ([disc([0, 1, 2, 255])], "classes and pixels to be ignored"),
        ([disc([0, 128, 255])], r"neither two levels .*0\.png: not a mask of two levels"),
        ([palette(thin(), [(0, 0, 0), (128, 128, 128), (255, 255, 255)])], "has a palette of greys"),
        ([Image.fromarray(np.float32(disc([0, 1, 2])) / 2)], "neither two levels"),
    ],
)
def test_what_cannot_be_told_is_asked(tmp_path: Path, masks: list[np.ndarray | Image.Image], message: str) -> None:
    suffix = ".tif" if any(isinstance(mask, Image.Image) and mask.mode == "F" for mask in masks) else ".png"
    with pytest.raises(UserError, match=message):
        found_classes(dataset(tmp_path, masks, suffix))


def test_one_class_is_told_without_a_look(tmp_path: Path) -> None:
    assert found_classes(dataset(tmp_path, [disc([0, 0])]), names=["lesion"]) == ["lesion"]


def test_a_thin_rim_without_a_palette_is_a_class(tmp_path: Path) -> None:
    assert found_classes(dataset(tmp_path, [thin()])) == ["class_1", "class_2"]


def test_a_broken_file_is_left_to_the_inspection(tmp_path: Path) -> None:
    folder = dataset(tmp_path, [disc([0, 1, 2]), disc([0, 1, 2])])
    (tmp_path / "masks" / "0.png").write_bytes(b"no picture")
    assert found_classes(folder) == ["class_1", "class_2"]
    assert found_classes(folder, images="images", masks="masks") == ["class_1", "class_2"]


def test_kaggles_tiff_masks_are_one_class(tmp_path: Path) -> None:
    for subject in (1, 2):
        Image.new("L", (64, 48), 90).save(tmp_path / f"{subject}_1.tif")
        Image.fromarray(disc([0, 255] if subject == 1 else [0, 0])).save(tmp_path / f"{subject}_1_mask.tif")
    assert found_classes(str(tmp_path), names=["nerve", "vessel"], layout="kaggle_nerve") == ["nerve"]


def test_a_dataset_that_names_its_classes_is_believed(tmp_path: Path) -> None:
    dataset(tmp_path, [disc([0, 1])])
    (tmp_path / "images").rename(tmp_path / "imagesTr")
    (tmp_path / "masks").rename(tmp_path / "labelsTr")
    (tmp_path / "imagesTr" / "0.png").rename(tmp_path / "imagesTr" / "0_0000.png")
    write_json(tmp_path / "dataset.json", {"labels": {"background": 0, "gland": 1, "nodule": 2}})
    assert found_classes(str(tmp_path), names=["nerve"]) == ["gland", "nodule"]


def test_the_phantom_written_out(tmp_path: Path) -> None:
    one = write_phantom(tmp_path / "one", cases=10, seed=0, height=48, width=64, empty_fraction=0.3)
    several = write_phantom(tmp_path / "several", cases=10, seed=0, height=48, width=64, multiclass=True)
    assert found_classes(str(one)) == ["class_1"]
    assert found_classes(str(several)) == ["class_1", "class_2", "class_3"]


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        found_classes(str(tmp_path / "nowhere"))
    folder = Path(dataset(tmp_path, [disc([0, 1])]))
    (folder / "masks" / "0.png").rename(folder / "masks" / "other.png")
    with pytest.raises(UserError, match=r"0\.png: no mask in"):
        found_classes(str(folder))


def test_a_class_that_a_part_lacks_is_told(tmp_path: Path) -> None:
    for number in range(10):
        label = np.zeros((12, 16), np.uint8)
        label[2:6, 3:9] = 1 + number % 2
        for folder, pixels in (("images", label * 40 + number), ("masks", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{number}.png")
    warnings = load_datalist(str(tmp_path), classes=["a", "b", "c"]).inspect().warnings
    lacking = {
        one.split()[5] for one in warnings if one.endswith("holds class 3 of 3: marking none of it scores 1 there")
    }
    assert lacking == {"train", "validation", "test"}
