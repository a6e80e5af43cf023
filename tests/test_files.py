"""Files are seen as they were or as they are meant to be, never half-written."""

from __future__ import annotations

import csv
import errno
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from monai_thyroid.errors import UserError
from monai_thyroid.files import (
    atomic_path,
    canonical_hash,
    read_csv,
    read_json,
    sha256_file,
    with_made_part,
    write_csv,
    write_json,
)


def test_the_new_content_takes_the_place_of_the_old(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    for content in ("old", "new"):
        with atomic_path(path) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.suffix == ".txt"
            temporary.write_text(content)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == content
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_that_has_begun_sees_the_old_content_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with open(path) as reader:
        with atomic_path(path) as temporary:
            temporary.write_text("new")
        assert reader.read() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("existed", [True, False])
def test_a_writer_that_fails_leaves_what_was(tmp_path: Path, existed: bool) -> None:
    path = tmp_path / "a.txt"
    if existed:
        path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_half()
    assert os.listdir(tmp_path) == (["a.txt"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_a_writer_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a.txt"):
        pass
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_writer_that_is_killed_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    program = f"""
import os, signal
from monai_thyroid.files import atomic_path
with atomic_path({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    ended = subprocess.run([sys.executable, "-c", program], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_json_is_strict(tmp_path: Path) -> None:
    content = {"ä": [1, 2.5, None, True], "b": {"c": "知"}}
    write_json(tmp_path / "a.json", content)
    assert read_json(tmp_path / "a.json") == content == json.loads((tmp_path / "a.json").read_text("utf-8"))
    for number in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            write_json(tmp_path / "a.json", {"x": number})
    assert read_json(tmp_path / "a.json") == content


def test_csv_goes_round(tmp_path: Path) -> None:
    rows = [
        {"name": 'a,"b"\nc', "value": 0.1, "flag": True, "empty": None},
        {"name": "ü", "value": np.float64(1) / 3, "flag": False, "empty": ""},
    ]
    write_csv(tmp_path / "a.csv", ("name", "value", "flag", "empty"), rows)
    read = read_csv(tmp_path / "a.csv")
    assert [row["name"] for row in read] == ['a,"b"\nc', "ü"]
    assert [float(row["value"]) for row in read] == [0.1, 1 / 3]
    assert [row["flag"] for row in read] == ["True", "False"]
    assert [row["empty"] for row in read] == ["", ""]
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["name", "value", "flag", "empty"]


def test_csv_of_a_spreadsheet_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("\ufefffile,case\r\na.png,1\r\n".encode())
    assert read_csv(tmp_path / "a.csv") == [{"file": "a.png", "case": "1"}]


def test_columns_that_do_not_agree_are_errors(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("x",), [{"x": 1}])
    with pytest.raises(KeyError, match="y"):
        write_csv(tmp_path / "a.csv", ("x", "y"), [{"x": 1, "y": 2}, {"x": 1}])
    with pytest.raises(ValueError, match="'z'"):
        write_csv(tmp_path / "a.csv", ("x",), [{"x": 1, "z": 2}])
    assert read_csv(tmp_path / "a.csv") == [{"x": "1"}]
    write_csv(tmp_path / "a.csv", ("x",), [])
    assert (tmp_path / "a.csv").read_text() == "x\n"


def test_a_files_hash_is_that_of_its_bytes(tmp_path: Path) -> None:
    content = np.random.RandomState(0).bytes(3_000_001)
    (tmp_path / "a").write_bytes(content)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()
    (tmp_path / "a").write_bytes(b"")
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"").hexdigest()


def test_the_canonical_hash_knows_content_not_order_of_keys() -> None:
    one = {"a": 1, "b": {"c": [1, 2], "d": None}}
    assert canonical_hash(one) == canonical_hash({"b": {"d": None, "c": [1, 2]}, "a": 1})
    assert len(canonical_hash(one)) == 64
    others = [
        {"a": 2, "b": {"c": [1, 2], "d": None}},
        {"a": 1, "b": {"c": [2, 1], "d": None}},
        {"a": "1", "b": {"c": [1, 2], "d": None}},
        {"a": 1, "b": {"c": [1, 2]}},
    ]
    assert len({canonical_hash(content) for content in [one, *others]}) == 5
    with pytest.raises(ValueError, match="JSON"):
        canonical_hash({"a": math.nan})


def test_a_disk_that_is_full_is_told_with_the_name_the_user_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as caught:
        write_json(path, {"a": 1})
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_folder_that_is_not_there_is_told_with_the_name_the_user_knows(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        write_json(tmp_path / "absent" / "run.json", {})
    assert caught.value.filename == str(tmp_path / "absent" / "run.json")


def test_what_is_made_anew_leaves_the_rest_of_a_page() -> None:
    marks = {"start": "<!-- s -->", "end": "<!-- e -->"}
    page = "before\n<!-- s -->\nold\n<!-- e -->\nafter\n"
    assert with_made_part(page, "new", **marks, where="page.md") == page.replace("old", "new")
    for broken in ("no marks", page + page, "<!-- e --> <!-- s -->", page.replace("<!-- e -->", "")):
        with pytest.raises(UserError, match=r"page\.md: needs the lines <!-- s --> and <!-- e --> once each"):
            with_made_part(broken, "new", **marks, where="page.md")
