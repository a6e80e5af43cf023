"""Classes that a table gives to masks of two levels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_thyroid.data import Datalist, load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.images import read_labels

VALUES: dict[str, list[Any]] = {"low-risk": [2, "3"], "suspicious": ["4a", "5"]}
ROWS = {"0": "2", "1": "4a", "2": "3", "3": "5", "4": "4a", "5": "2"}


def write(root: Path, rows: dict[str, str], *, jpeg: bool = False) -> Path:
    for part, names in (("trainval", "0123"), ("test", "45")):
        for kind in ("image", "mask"):
            (root / f"{part}-{kind}").mkdir(parents=True, exist_ok=True)
            for name in names:
                pixels = np.full((16, 24), 30 + int(name), np.uint8)
                if kind == "mask":
                    pixels[:] = 0
                    pixels[4:12, 8:16] = 255
                Image.fromarray(pixels).save(root / f"{part}-{kind}" / f"{name}.{'jpg' if jpeg else 'png'}")
    lines = ["file,case,tirads", *(f"{name}.png,p{name},{value}" for name, value in rows.items())]
    (root / "cases.csv").write_text("\n".join(lines))
    return root


def load(root: Path, **options: Any) -> Datalist:
    options = {"class_table": "cases.csv:tirads", "class_values": VALUES, "classes": list(VALUES), **options}
    return load_datalist(str(root), layout="tn3k", **options)


@pytest.mark.parametrize("jpeg", [False, True])
def test_a_mask_becomes_the_number_of_its_case(tmp_path: Path, jpeg: bool) -> None:
    data = load(write(tmp_path / "set", ROWS, jpeg=jpeg))
    for item in data.items:
        labels = read_labels(item["label"], classes=2)
        assert set(np.unique(labels)) == {0, 1 if ROWS[item["case"].removesuffix(".jpg")] in ("2", "3") else 2}
        assert labels.sum() == 64 * labels.max()
    assert not data.inspect().problems
    assert "images of each class: test 1 low-risk, 1 suspicious; train" in " ".join(data.inspect().warnings)
    # Another class is other data, though no file differs.
    other = load(tmp_path / "set", class_values={"low-risk": ["2", "4a"], "suspicious": ["3", "5"]})
    assert other.inspect().data_hash != data.inspect().data_hash


def test_a_table_that_does_not_fit_is_refused_in_one_list(tmp_path: Path) -> None:
    rows = {**{name: value for name, value in ROWS.items() if name != "5"}, "0": "", "3": "6", "9": "2"}
    root = write(tmp_path / "set", rows)
    with (root / "cases.csv").open("a") as file:
        file.write("\n1.png,p1,5")
    with pytest.raises(UserError) as caught:
        load(root)
    told = ["1 is '4a' in row 3 and '5' in row 8", "no value of 0, 5;", "'6' of 3 is of no class", "9.png is listed"]
    for one in told:
        assert one in str(caught.value)
    assert len([one for one in caught.value.problems if "tirads" in one]) == len(told)


def test_what_has_no_class_is_left_out_only_on_request(tmp_path: Path) -> None:
    data = load(write(tmp_path / "set", {**ROWS, "0": ""}), unclassified="leave_out")
    assert [item["case"] for item in data.items] == ["1", "2", "3", "4", "5"]
    # Not by name, nor where it lies: a run's warnings are in its model card.
    assert "class_table cases.csv:tirads: 1 left out, as they have no value" in data.inspect().warnings
    assert str(tmp_path) not in " ".join(data.inspect().warnings)
    with pytest.raises(UserError, match="no image is left"):
        load(write(tmp_path / "set", dict.fromkeys(ROWS, "")), unclassified="leave_out")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": 2}, "name two or more"),
        ({"class_values": None}, "give of each class its values, such as "),
        (
            {"class_values": {"low-risk": ["2"], "high": ["2"]}},
            "nothing for the class suspicious.*high is no class.*2 is",
        ),
        ({"class_table": "nowhere.csv:tirads"}, "there is no file .*nowhere.csv"),
        ({"class_table": "cases.csv:grade"}, "header line with the columns file and grade"),
        ({"class_table": "tirads"}, "the layout tells nothing of that name"),
        ({"unclassified": "drop"}, "choose refuse or leave_out"),
        ({"class_table": 3}, "give FILE:COLUMN"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=f"(?s){told}"):
        load(write(tmp_path / "set", ROWS), **options)


def test_a_table_may_have_one_row_a_patient(tmp_path: Path) -> None:
    root = write(tmp_path / "set", ROWS)
    (root / "grades.csv").write_text("case,grade\n" + "\n".join(f"p{name},{value}" for name, value in ROWS.items()))
    labels = [item["label"].split(":")[1] for item in load(root, class_table="grades.csv:grade").items]
    assert labels == ["1", "2", "1", "2", "2", "1"]


def test_a_mask_that_is_none_is_still_named(tmp_path: Path) -> None:
    root = write(tmp_path / "set", ROWS)
    grey = np.linspace(0, 255, 16 * 24).reshape(16, 24).astype(np.uint8)
    Image.fromarray(grey).save(root / "test-mask" / "4.png")
    assert any("4.png: not a mask of two levels" in one for one in load(root).inspect().problems)


def test_the_phantom_has_no_table() -> None:
    with pytest.raises(UserError, match="the phantom has none"):
        load_datalist("phantom", classes=list(VALUES), class_table="cases.csv:tirads", class_values=VALUES)
