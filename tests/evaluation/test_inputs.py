"""What is segmented, and that results replace nothing and are not taken for images."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import input_items
from monai_thyroid.images import made_here
from monai_thyroid.transforms import SaveMaskd, SaveOverlayd

SHAPE = (24, 30)


def grey(path: Path) -> Path:
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(path)
    return path


def test_a_file_or_the_images_of_a_folder(tmp_path: Path) -> None:
    first, second = grey(tmp_path / "b.png"), grey(tmp_path / "a.BMP")
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), tmp_path / "c.nii.gz")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "._b.png").write_bytes(b"what a Mac leaves beside a file")
    (tmp_path / "folder.png").mkdir()
    grey(tmp_path / "folder.png" / "deeper.png")
    assert input_items(str(tmp_path)) == [{"image": str(path)} for path in (second, first, tmp_path / "c.nii.gz")]
    assert input_items(str(first)) == [{"image": str(first)}]


@pytest.mark.parametrize("nothing", [None, ""])
def test_an_input_must_be_named(nothing: str | None) -> None:
    with pytest.raises(UserError, match="--input PATH"):
        input_items(nothing)


def test_an_input_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        input_items(str(tmp_path / "absent"))
    with pytest.raises(UserError, match="holds no image") as caught:
        input_items(str(tmp_path))
    assert ".png" in str(caught.value)


def test_every_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    grey(tmp_path / "good.png")
    grey(tmp_path / "twin.png")
    grey(tmp_path / "twin.bmp")
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "other.tif").write_bytes(b"text")
    with pytest.raises(UserError) as caught:
        input_items(str(tmp_path))
    problems = caught.value.problems
    assert len(problems) == 3
    assert "twin.bmp" in problems[0]
    assert "twin.png" in problems[0]
    assert problems[1].startswith(str(tmp_path / "broken.png"))
    assert problems[2].startswith(str(tmp_path / "other.tif"))


def test_a_single_file_of_any_name_must_be_an_image(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"notes\.txt: cannot be read as an image \(of no known format"):
        input_items(str(tmp_path / "notes.txt"))


# --- results among images ---


def segment(image: Path, output: Path) -> None:
    """As inference writes the results of an image."""
    mask = MetaTensor(torch.zeros((1, *SHAPE[::-1]), dtype=torch.uint8), meta={"filename_or_obj": str(image)})
    for writer in (SaveMaskd, SaveOverlayd):
        writer(keys="pred", output_dir=str(output))({"pred": mask})


def volume(path: Path) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE[::-1], np.uint8), np.eye(4)), path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.nii", "a.nii.gz"])
def test_what_was_written_here_is_known_by_its_content(tmp_path: Path, name: str) -> None:
    image = volume(tmp_path / name) if ".nii" in name else grey(tmp_path / name)
    assert not made_here(image)
    segment(image, tmp_path / "out")
    written = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in written] == [
        "a_mask.nii.gz" if ".nii" in name else "a_mask.png",
        "a_overlay.png",
    ]
    assert all(made_here(path) for path in written)
    assert made_here(written[0].rename(tmp_path / f"renamed{''.join(written[0].suffixes)}"))


def test_other_files_are_not_taken_for_ours(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "broken.nii.gz").write_bytes(gzip.compress(bytes(400))[:30])
    (tmp_path / "text.png").write_text("monai_thyroid")
    for path in (*tmp_path.iterdir(), tmp_path, tmp_path / "absent"):
        assert not made_here(path)


def test_a_manual_mask_is_neither_replaced_nor_segmented(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    image, manual = grey(tmp_path / "a.png"), grey(tmp_path / "a_mask.png")
    before = manual.read_bytes()
    with caplog.at_level(logging.WARNING):
        assert input_items(str(tmp_path)) == [{"image": str(image)}]
    assert "left out 1 that look like masks or overlays (a_mask.png)" in caplog.text
    for folder in (tmp_path, tmp_path / "." / ".." / tmp_path.name):
        with pytest.raises(UserError, match="holds the images; results go into a folder of their own"):
            input_items(str(tmp_path), output_dir=str(folder))
    with pytest.raises(UserError, match="holds the images"):
        input_items(str(image), output_dir=str(tmp_path))
    with pytest.raises(UserError, match=r"a_mask\.png: would be replaced"):
        segment(image, tmp_path)
    assert manual.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a_mask.png"]


def test_results_replace_results_and_nothing_else(tmp_path: Path) -> None:
    image, output = grey(tmp_path / "a.png"), tmp_path / "out"
    segment(image, output)
    assert input_items(str(image), output_dir=str(output))
    segment(image, output)
    grey(output / "a_mask.png")
    grey(output / "a_overlay.png")
    with pytest.raises(UserError) as caught:
        input_items(str(image), output_dir=str(output))
    assert len(caught.value.problems) == 2
    assert all("monai_thyroid has not written it" in problem for problem in caught.value.problems)


def test_our_results_are_no_images_whatever_their_names(tmp_path: Path) -> None:
    image = grey(tmp_path / "a.png")
    segment(image, tmp_path / "out")
    (tmp_path / "out" / "a_mask.png").rename(tmp_path / "b.png")
    (tmp_path / "out" / "a_overlay.png").rename(tmp_path / "c.png")
    assert input_items(str(tmp_path)) == [{"image": str(image)}]
    with pytest.raises(UserError, match="is a result that monai_thyroid has written"):
        input_items(str(tmp_path / "b.png"))
    image.unlink()
    with pytest.raises(UserError, match="holds masks and overlays only"):
        input_items(str(tmp_path))


def test_a_single_image_may_be_called_mask(tmp_path: Path) -> None:
    image = grey(tmp_path / "carnival_mask.png")
    assert input_items(str(image), output_dir=str(tmp_path / "out")) == [{"image": str(image)}]


def test_a_writer_that_fails_leaves_the_result_that_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, output = grey(tmp_path / "a.png"), tmp_path / "out"
    segment(image, output)
    before = {path.name: path.read_bytes() for path in output.iterdir()}

    def half(self: Image.Image, path: Path, kind: str, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space") as caught:
        segment(image, output)
    assert caught.value.filename == str(output / "a_mask.png")
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before
