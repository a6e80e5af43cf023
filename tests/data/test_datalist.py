"""From a folder to parts: defaults, cross-validation, classes, and what a dataset's inspection tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_thyroid.data import load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.images import mask_problem, read_labels, write_phantom


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("data") / "set", cases=15, seed=5, height=48, width=64)


def writable(tmp_path: Path, cases: int = 6) -> Path:
    return write_phantom(tmp_path / "set", cases=cases, seed=1, height=48, width=64)


def test_defaults_keep_the_official_test_part(folder: Path) -> None:
    data = load_datalist(str(folder), layout="tn3k")
    assert data.name == "set"
    assert data.grouping == "known"
    assert data.how == "test: official part; validation: 0.15 of the rest, by case (seed 0)"
    assert all("test-image" in item["image"] for item in data.part("test"))
    assert len(data.part("all")) == sum(len(data.part(part)) for part in ("train", "validation", "test"))
    assert all(isinstance(value, str) for item in data.items for value in item.values())
    with pytest.raises(UserError, match="choose one of train, validation, test, all"):
        data.part("holdout")


def test_folds_with_an_official_test_part_move_the_validation_part(folder: Path) -> None:
    seen: list[str] = []
    for fold in range(3):
        data = load_datalist(str(folder), folds=3, fold=fold, stratify=True)
        assert all("test-image" in item["image"] for item in data.part("test"))
        seen += [item["case"] for item in data.part("validation")]
        assert f"validation: fold {fold} of 3, by case, alike in lesion size" in data.how
        assert data.split()["fold"] == {"fold": fold, "folds": 3}
    assert sorted(seen) == sorted(item["case"] for item in data.items if "test-image" not in item["image"])


def test_folds_without_a_test_part_make_each_fold_the_test_part_once(folder: Path) -> None:
    options = {"images": "trainval-image", "masks": "trainval-mask", "group_pattern": r"^(\d+)_"}
    seen: list[str] = []
    for fold in range(4):
        data = load_datalist(str(folder), folds=4, fold=fold, **options)  # type: ignore[arg-type]
        seen += [item["case"] for item in data.part("test")]
        parts = [{item["group"] for item in data.part(part)} for part in ("train", "validation", "test")]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert len(seen) == len(set(seen)) == len(data.items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.5}, "between 0 and 1"),
        ({"folds": 1, "fold": 0}, "at least 2"),
        ({"folds": 3, "fold": 3}, "from 0 to 2"),
        ({"folds": 3}, "from 0 to 2"),
        ({"fold": 1}, "say of how many"),
        ({"split": "images"}, "choose groups or frames"),
        ({"folds": 3, "fold": 0, "split_file": "x"}, "split_file says the parts"),
        ({"test_sites": "a"}, "test_sites a: the dataset has"),
        ({"group_pattern": "("}, "not a regular expression"),
        ({"group_pattern": r"(zzz)?\d"}, "finds nothing in"),
        ({"group_pattern": r"(z*)\d"}, "finds nothing in"),
    ],
)
def test_wrong_options_are_told(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_datalist(str(folder), **options)  # type: ignore[arg-type]


def test_a_wrong_folder_is_never_the_phantom(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        load_datalist(str(tmp_path / "nowhere"), layout="tn3k")
    with pytest.raises(UserError, match="give a folder, or phantom"):
        load_datalist("")


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_phantom_has_up_to_three_classes(classes: int) -> None:
    data = load_datalist("phantom", phantom_cases=10, classes=classes)
    assert not data.inspect().problems
    values = {value for item in data.items for value in np.unique(read_labels(item["label"], classes=classes))}
    assert values == set(range(classes + 1))
    with pytest.raises(UserError, match="not 4"):
        load_datalist("phantom", classes=4)


def test_inspection_lists_every_fault(tmp_path: Path) -> None:
    root = writable(tmp_path)
    names = sorted(path.name for path in (root / "trainval-image").iterdir())
    broken = root / "trainval-image" / names[0]
    broken.write_bytes(broken.read_bytes()[:200])
    Image.new("L", (64, 48), 255).save(root / "trainval-mask" / names[1])
    Image.open(root / "trainval-mask" / names[2]).transpose(Image.Transpose.ROTATE_90).save(
        root / "trainval-mask" / names[2]
    )
    copied = next((root / "test-image").iterdir())
    copied.write_bytes((root / "trainval-image" / names[3]).read_bytes())
    Image.new("L", (64, 48), 0).save(root / "trainval-mask" / names[4])
    found = load_datalist(str(root)).inspect()
    assert len(found.problems) == 3
    assert names[0] in found.problems[0]
    assert "all foreground" in found.problems[1]
    assert "48 x 64" in found.problems[2]
    assert "same image, byte for byte" in found.warnings[0]
    assert found.empty_masks == [names[4].removesuffix(".png")]


def test_a_patient_in_two_parts_is_an_error(tmp_path: Path) -> None:
    root = writable(tmp_path)
    table = root / "cases.csv"
    lines = table.read_text().split("\n")
    trained = next(line.split(",")[2] for line in lines if ",trainval," in line)
    table.write_text("\n".join(line.rsplit(",", 1)[0] + "," + trained if ",test," in line else line for line in lines))
    with pytest.raises(UserError, match=f"case {trained} is in test and in trainval"):
        load_datalist(str(root))
    assert load_datalist(str(root), split="frames").grouping == "leaky"


def test_contents_and_split_make_the_data_hash(tmp_path: Path) -> None:
    root = writable(tmp_path)
    first = load_datalist(str(root)).inspect().data_hash
    assert load_datalist(str(root), layout=["tn3k", "images_masks"]).inspect().data_hash == first
    assert load_datalist(str(root), validation_fraction=0.6).inspect().data_hash != first
    mask = next((root / "test-mask").iterdir())
    Image.new("L", (64, 48), 0).save(mask)
    assert load_datalist(str(root)).inspect().data_hash != first


def test_masks_of_two_levels_with_grey_edges_only() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 255
    assert mask_problem(mask) is None
    mask[10:30, 9] = 120
    assert mask_problem(mask) is None
    mask[12:20, 12:20] = 120
    assert "not a mask of two levels" in (mask_problem(mask) or "")
    noise = np.random.default_rng(0).integers(0, 256, (200, 300), np.uint8)
    assert "not a mask of two levels" in (mask_problem(noise) or "")
    assert mask_problem(np.zeros((4, 4), np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 9, (40, 40))
    assert "noise of a JPEG" in (mask_problem(noise, lossy=True) or "")
