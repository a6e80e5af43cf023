"""Folders and tables that must not pass without a word, and layouts that other packages add."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_files import marker, save_dicom
from PIL import Image

from monai_thyroid.data import load_datalist
from monai_thyroid.data.audit import audit_dataset
from monai_thyroid.data.folders import read_layout, read_listing
from monai_thyroid.data.layouts.listing import natural_key
from monai_thyroid.data.splits import read_split_file
from monai_thyroid.errors import UserError
from monai_thyroid.images import read_mask


def scan(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (37, 53), dtype=np.uint8)


def dataset(root: Path, names: list[str]) -> Path:
    for number, name in enumerate(names):
        for folder, pixels in (("images", scan(number)), ("masks", (marker() > 200) * np.uint8(255))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / folder / name)
    return root


NAMES = [f"{number}.png" for number in range(8)]


# --- tables ---


def test_a_file_in_two_groups_names_both_rows(tmp_path: Path) -> None:
    root = dataset(tmp_path, NAMES)
    rows = [f"{name},{int(name[0]) // 2}" for name in NAMES]
    (root / "cases.csv").write_text("\n".join(["file,case", *rows, "3.png,1"]))
    assert load_datalist(str(root)).grouping == "known", "said twice, but the same"
    (root / "cases.csv").write_text("\n".join(["file,case", *rows, "3.jpg,7"]))
    with pytest.raises(UserError, match=r"3\.png is in case 1 \(row 5\) and in case 7 \(row 10\)"):
        load_datalist(str(root))


def test_folders_in_a_table_tell_files_of_one_name_apart(tmp_path: Path) -> None:
    for part in ("trainval", "test"):
        for number in range(3):
            for kind in ("image", "mask"):
                (tmp_path / f"{part}-{kind}").mkdir(exist_ok=True)
                Image.fromarray(marker()).save(tmp_path / f"{part}-{kind}" / f"{number}.png")
    rows = [f"{part}-image/{number}.png,{part}{number}" for part in ("trainval", "test") for number in range(3)]
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *rows]))
    listing = read_layout(tmp_path)
    assert not listing.problems
    assert {item["group"] for item in listing.items if item["part"] == "test"} == {"test0", "test1", "test2"}


def test_a_file_in_two_parts_names_both_rows(tmp_path: Path) -> None:
    root = dataset(tmp_path, NAMES)
    rows = [f"{name},{'test' if int(name[0]) > 5 else 'train'}" for name in NAMES]
    (root / "split.csv").write_text("\n".join(["file,part", *rows, "2.png,test"]))
    message = r"2 is in trainval \(row 4\) and in test \(row 10\)"
    with pytest.raises(UserError, match=message):
        load_datalist(str(root))
    with pytest.raises(UserError, match=r"case 2 is in train \(row 4\) and in test \(row 10\)"):
        read_split_file(root / "split.csv")
    assert any("row 10" in case for finding in audit_dataset(root).findings for case in finding.cases)
    (root / "split.csv").unlink()
    (root / "train.txt").write_text("\n".join(str(number) for number in range(6)))
    (root / "test.txt").write_text("6\n7.png\n0\n")
    with pytest.raises(UserError, match=r"0 is in trainval \(train\.txt, line 1\) and in test \(test\.txt, line 3\)"):
        load_datalist(str(root))


@pytest.mark.parametrize(
    "row",
    ["3.png", "3.png,1,2,3", "\xb21.png,1", "x" * 200_000 + ",1", '"3.png,1', "3.png," + "9" * 6000, "\x003.png,1", ""],
    ids=["short", "long", "superscript", "huge", "quote", "digits", "nul", "blank"],
)
@pytest.mark.parametrize("name", ["groups.csv", "split.csv"])
def test_odd_rows_do_not_kill_the_audit(tmp_path: Path, name: str, row: str) -> None:
    root = dataset(tmp_path, [*NAMES[:3], "\xb21.png"])
    column = "group" if name == "groups.csv" else "part"
    (root / name).write_text(f"file,{column}\n0.png,1\n{row}\n", encoding="utf-8")
    assert audit_dataset(root).text
    with pytest.raises(UserError):
        load_datalist(str(root))


def test_names_with_digits_of_other_kinds_are_sorted() -> None:
    names = ["10", "2", "\xb21", "b", "\u0663", "9" * 5000]
    assert sorted(names, key=natural_key)[:3] == ["2", "10", "9" * 5000]


# --- names and kinds of files ---


def test_names_that_are_not_utf8_are_refused_before_anything_runs(tmp_path: Path) -> None:
    root = dataset(tmp_path / "set", NAMES)
    for folder in ("images", "masks"):
        (root / folder / "0.png").rename(root / folder / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(UserError, match="not UTF-8") as caught:
        load_datalist(str(root))
    str(caught.value).encode("utf-8")
    audit_dataset(root).text.encode("utf-8")
    strange = (tmp_path / "set").rename(tmp_path / os.fsdecode(b"s\xe9t"))
    with pytest.raises(UserError, match=r"udce9t: its name is not UTF-8") as caught:
        load_datalist(str(strange))
    str(caught.value).encode("utf-8")
    site = tmp_path / "sites" / os.fsdecode(b"klinik\xfc")
    dataset(site, NAMES)
    problems = read_listing(tmp_path / "sites").problems
    assert len(problems) == len(NAMES)
    "".join(problems).encode("utf-8")


@pytest.mark.timeout(60)
def test_a_pipe_among_the_images_is_told_and_never_opened(tmp_path: Path) -> None:
    root = dataset(tmp_path, NAMES)
    os.mkfifo(root / "images" / "x.png")
    (root / "images" / "y.png").symlink_to("nowhere.png")
    (root / "images" / "z.png").mkdir()
    os.mkfifo(root / "images" / "notes")
    (root / "cases.csv").symlink_to("images/x.png")
    problems = read_layout(root).problems
    assert [Path(problem.split(":")[0]).name for problem in problems] == ["x.png", "y.png", "z.png"]
    assert audit_dataset(root).falsifies


def test_dicom_files_without_a_suffix_are_read(tmp_path: Path) -> None:
    root = dataset(tmp_path, NAMES[:2])
    for name in ("IM0001", "1.2.840.113619.2.1", "1.2.840.113619.2.2"):
        save_dicom(root / "images" / name, scan(len(name)))
        Image.fromarray((marker() > 200) * np.uint8(255)).save(root / "masks" / f"{name}_mask.png")
    (root / "images" / "README").write_text("no image")
    data = load_datalist(str(root))
    assert sorted(item["case"] for item in data.items) == [
        "0", "1", "1.2.840.113619.2.1", "1.2.840.113619.2.2", "IM0001",
    ]  # fmt: skip
    assert not data.inspect().problems


# --- masks ---


def test_masks_in_alpha_are_read_and_contradictory_ones_refused(tmp_path: Path) -> None:
    root = dataset(tmp_path, NAMES)
    for name in NAMES:
        alpha = np.zeros((37, 53, 4), np.uint8)
        alpha[..., 3] = (marker() > 200) * np.uint8(255)
        Image.fromarray(alpha).save(root / "masks" / name)
    data = load_datalist(str(root))
    assert not data.inspect().problems
    assert not data.inspect().empty_masks
    assert read_mask(data.items[0]["label"]).sum() == (marker() > 200).sum()
    assert not [finding for finding in audit_dataset(root).findings if "mask" in finding.title.lower()]
    alpha[:10, :10, :3] = 255
    Image.fromarray(alpha).save(root / "masks" / "3.png")
    (problem,) = load_datalist(str(root)).inspect().problems
    assert "3.png: its colours and its alpha channel (transparency) show two different masks" in problem


def test_a_part_of_empty_masks_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    root = dataset(tmp_path, NAMES)
    (root / "split.csv").write_text(
        "\n".join(["file,part", *(f"{name},{'test' if int(name[0]) > 5 else 'train'}" for name in NAMES)])
    )
    for name in ("6.png", "7.png"):
        Image.new("L", (53, 37)).save(root / "masks" / name)
    data = load_datalist(str(root))
    (problem,) = data.inspect().problems
    assert "all 2 masks of the part test are empty" in problem
    assert "allow_empty_parts: true" in problem
    allowed = load_datalist(str(root), allow_empty_parts=True)
    assert not allowed.inspect().problems
    assert allowed.inspect().data_hash == data.inspect().data_hash
    assert len(allowed.inspect().empty_masks) == 2
    with pytest.raises(UserError, match="allow_empty_parts 'no': give true or false"):
        load_datalist(str(root), allow_empty_parts="no")  # type: ignore[arg-type]
    audit = audit_dataset(root)
    assert audit.falsifies
    assert any(finding.title == "Parts without foreground" for finding in audit.findings)


# --- layouts of other packages ---

MODULE = """
from monai_thyroid.data.layouts.listing import Layout, Listing, make_item, pairs

def read(root):
    listing = Listing(unit="animal")
    for image, mask in pairs(root / "pets", root / "outlined", listing):
        listing.items.append(make_item(image, mask, case=image.stem, group=image.stem[0]))
    return listing

LAYOUT = Layout(name="pets", looks_for="pets/ outlined/", recognises=lambda root: (root / "pets").is_dir(), read=read)
GREEDY = Layout(name="greedy", looks_for="anything", recognises=lambda root: True, read=read)
"""

Adder = Callable[..., None]


@pytest.fixture
def add_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Install another package that has entry points, for one test."""

    def add(*points: str) -> None:
        place = tmp_path / "site-packages"
        (place / "pets-1.0.dist-info").mkdir(parents=True)
        (place / "pets-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pets\nVersion: 1.0\n")
        (place / "pets-1.0.dist-info" / "entry_points.txt").write_text("\n".join(["[monai_thyroid.layouts]", *points]))
        (place / "pets_layout.py").write_text(MODULE)
        monkeypatch.syspath_prepend(str(place))
        monkeypatch.delitem(sys.modules, "pets_layout", raising=False)

    return add


def pets(root: Path) -> Path:
    for name in NAMES:
        for folder in ("pets", "outlined"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(marker()).save(root / folder / name)
    return root


def test_another_packages_layout_is_found_by_name_and_after_ours(tmp_path: Path, add_package) -> None:
    root = pets(tmp_path / "set")
    with pytest.raises(UserError, match="not a dataset folder"):
        read_layout(root)
    add_package("pets = pets_layout:LAYOUT")
    for layout in ("pets", "auto", ["tn3k", "pets"]):
        listing = read_layout(root, layout)
        assert (len(listing.items), listing.unit, listing.problems) == (8, "animal", [])
    with pytest.raises(UserError, match=r"unknown dataset layout 'cats'; known are .*, pets, "):
        read_layout(root, "cats")
    dataset(root, NAMES)
    assert read_layout(root).unit == "group", "ours come first"
    assert read_layout(root, "pets").unit == "animal"


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (
            "broken = pets_layout:NOTHING",
            r"layout broken \(pets_layout:NOTHING\) of the package pets cannot be loaded \(AttributeError",
        ),
        ("broken = no_such_module:LAYOUT", "cannot be loaded .ModuleNotFoundError"),
        ("broken = pets_layout:read", "is no Layout of that name"),
        ("broken = pets_layout:LAYOUT", "is no Layout of that name"),
    ],
)
def test_another_packages_broken_layout_is_one_clear_error(
    tmp_path: Path, add_package, point: str, message: str
) -> None:
    root = dataset(tmp_path / "set", NAMES)
    add_package(point)
    for layout in ("broken", "auto"):
        with pytest.raises(UserError, match=message) as caught:
            read_layout(root, layout)
        assert len(caught.value.problems) == 1
    assert len(read_layout(root, "images_masks").items) == 8, "who names another one is not hindered"


def test_two_other_packages_layouts_that_both_fit_are_told(tmp_path: Path, add_package) -> None:
    root = pets(tmp_path / "set")
    add_package("pets = pets_layout:LAYOUT", "greedy = pets_layout:GREEDY")
    with pytest.raises(UserError, match="could be read as pets, greedy"):
        read_layout(root)
