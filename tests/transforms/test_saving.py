"""Writing masks and overlays: what was marked on the network's grid lies on the original pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from made_files import AFFINE, SAVERS, marker, save_dicom, save_nifti
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, Resized
from PIL import Image, ImageOps
from skimage.segmentation import find_boundaries

from monai_thyroid.images import overlay, read_labels, read_mask
from monai_thyroid.transforms import LoadScand, SaveMaskd, SaveOverlayd

OBLIQUE = np.array([[0.3, 0.1, 0, 5], [-0.1, 0.3, 0, -7], [0, 0, 1.5, 2], [0, 0, 0, 1.0]])
FLIPPED = np.diag([-0.4, 0.7, 1.0, 1.0])


def through_the_network(path: Path, output: Path, *, size: int = 64, threshold: float = 0.6) -> dict[Any, Any]:
    """Read, resize, mark what is bright, map back, and write: the way of an inference."""
    before = Compose([LoadScand("image"), Resized("image", spatial_size=(size, size), mode="bilinear")])
    item = before({"image": str(path)})
    assert tuple(item["image"].shape) == (1, size, size)
    item["pred"] = MetaTensor((item["image"] > threshold).float(), meta=item["image"].meta)
    item["pred"].applied_operations = item["image"].applied_operations
    item = Invertd("pred", transform=before, orig_keys="image", nearest_interp=False)(item)
    item["pred"] = (item["pred"] > 0.5).float()
    return SaveOverlayd("pred", output_dir=str(output))(SaveMaskd("pred", output_dir=str(output))(item))


@pytest.mark.parametrize("name", [name for name in SAVERS if not name.endswith(".nii.gz")])
@pytest.mark.parametrize("shape", [(37, 53), (120, 80)])
def test_a_mask_lies_on_the_pixels_it_was_found_on(tmp_path: Path, name: str, shape: tuple[int, int]) -> None:
    pixels = marker(*shape)
    SAVERS[name](tmp_path / name, pixels)
    through_the_network(tmp_path / name, tmp_path / "out", size=240)
    with Image.open(tmp_path / "out" / "a_mask.png") as saved:
        assert saved.mode == "L"
        mask = np.asarray(saved)
    assert set(np.unique(mask)) == {0, 255}
    truth = pixels > 200
    assert mask.shape == truth.shape
    # resizing may move the border by a pixel; a flipped or transposed mask has nearly nothing in common
    overlap = 2 * np.sum((mask > 0) & truth) / (np.sum(mask > 0) + truth.sum())
    assert overlap > 0.9
    for other in (truth[::-1], truth[:, ::-1], truth[::-1, ::-1]):
        assert np.sum((mask > 0) & other) < 0.5 * truth.sum()


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, FLIPPED], ids=["scaled", "oblique", "flipped"])
@pytest.mark.parametrize("trailing", [(), (1,)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
def test_a_nifti_mask_has_its_images_grid(
    tmp_path: Path, suffix: str, trailing: tuple[int, ...], affine: np.ndarray
) -> None:
    array = marker().T.reshape(53, 37, *trailing)
    save_nifti(tmp_path / f"b{suffix.lower()}", array, affine).rename(tmp_path / f"a{suffix}")
    through_the_network(tmp_path / f"a{suffix}", tmp_path / "out", size=240)
    mask = nibabel.load(tmp_path / "out" / "a_mask.nii.gz")
    np.testing.assert_allclose(mask.affine, affine, atol=1e-6)
    assert mask.shape == array.shape
    assert mask.get_data_dtype() == np.uint8
    assert mask.header.get_xyzt_units()[0] == "mm"
    found = np.asarray(mask.dataobj)
    assert set(np.unique(found)) == {0, 1}
    truth = array > 200
    assert 2 * np.sum((found > 0) & truth) / (np.sum(found > 0) + truth.sum()) > 0.9
    # and it is read back as it lies on the image
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "a_mask.nii.gz").T, found.reshape(53, 37) > 0)


def test_a_compressed_nifti_whose_name_does_not_say_so(tmp_path: Path) -> None:
    save_nifti(tmp_path / "b.nii.gz", marker().T, AFFINE).rename(tmp_path / "a.nii")
    through_the_network(tmp_path / "a.nii", tmp_path / "out")
    assert read_mask(tmp_path / "out" / "a_mask.nii.gz").shape == (37, 53)


def test_a_mask_of_the_same_grid_is_written_exactly(tmp_path: Path) -> None:
    truth = np.random.RandomState(0).rand(37, 53) > 0.5
    Image.fromarray(truth * np.uint8(255)).save(tmp_path / "a.png")
    item = LoadScand("image")({"image": str(tmp_path / "a.png")})
    SaveMaskd("image", output_dir=str(tmp_path / "out"))(item)
    np.testing.assert_array_equal(read_mask(tmp_path / "out" / "a_mask.png"), truth)


def test_empty_and_full_masks_are_written(tmp_path: Path) -> None:
    for name, value in (("empty", 0), ("full", 255)):
        Image.fromarray(np.full((37, 53), value, np.uint8)).save(tmp_path / f"{name}.png")
        item = LoadScand("image")({"image": str(tmp_path / f"{name}.png")})
        SaveMaskd("image", output_dir=str(tmp_path / "out"))(item)
        with Image.open(tmp_path / "out" / f"{name}_mask.png") as saved:
            assert np.asarray(saved).tolist() == np.full((37, 53), value).tolist()


def test_several_classes_are_written_as_numbers_with_a_colour_each(tmp_path: Path) -> None:
    labels = np.zeros((37, 53), np.uint8)
    labels[5:20, 8:30] = 1
    labels[22:30, 3:50] = 2
    Image.fromarray(labels).save(tmp_path / "a.png")
    scan = LoadScand("image")({"image": str(tmp_path / "a.png")})["image"]
    item = {"pred": MetaTensor(torch.from_numpy(labels.T.copy())[None], meta=scan.meta)}
    SaveMaskd("pred", output_dir=str(tmp_path / "out"), classes=["nerve", "vessel"])(item)
    np.testing.assert_array_equal(read_labels(tmp_path / "out" / "a_mask.png", classes=2), labels)
    with Image.open(tmp_path / "out" / "a_mask.png") as saved:
        shown = np.asarray(saved.convert("RGB")).astype(int)
    assert len({tuple(shown[labels == number][0]) for number in range(3)}) == 3
    SaveOverlayd("pred", output_dir=str(tmp_path / "out"), classes=2)(item)
    drawn = np.asarray(Image.open(tmp_path / "out" / "a_overlay.png"))
    for number, colour in ((1, (86, 180, 233)), (2, (230, 159, 0))):
        line = (drawn == colour).all(axis=2)
        np.testing.assert_array_equal(line, find_boundaries(labels == number, mode="inner"))


NAMES = ["scan.v1.2.png", "two words.png", "Größe 知.png", "a_mask.png", "UPPER.PNG", "x.nii.png"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_kept(tmp_path: Path, name: str) -> None:
    Image.fromarray(marker()).save(tmp_path / name, "PNG")
    through_the_network(tmp_path / name, tmp_path / "out dir.x")
    expected = {f"{name[:-4]}_mask.png", f"{name[:-4]}_overlay.png"}
    assert {path.name for path in (tmp_path / "out dir.x").iterdir()} == expected


def test_nothing_is_written_beside_the_results_and_the_image_stays(tmp_path: Path) -> None:
    Image.fromarray(marker()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    through_the_network(tmp_path / "a.png", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a_mask.png", "a_overlay.png"}
    assert (tmp_path / "a.png").read_bytes() == content


def test_dicom_files_named_by_their_uid_keep_apart(tmp_path: Path) -> None:
    for name in ("1.2.3.4", "1.2.3.5"):
        save_dicom(tmp_path / name, marker())
        through_the_network(tmp_path / name, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*_mask.png"))) == 2


def test_the_saved_overlay_is_the_one_of_the_original_image(tmp_path: Path) -> None:
    colour = np.random.RandomState(0).randint(1, 256, (37, 53, 3)).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    mask = np.zeros((37, 53), np.float32)
    mask[4:20, 6:40] = 1
    item = {"pred": MetaTensor(mask.T[None].copy(), meta={"filename_or_obj": str(tmp_path / "a.png")})}
    SaveOverlayd("pred", output_dir=str(tmp_path / "new" / "out"))(item)
    with Image.open(tmp_path / "new" / "out" / "a_overlay.png") as saved:
        picture = np.asarray(saved)
    np.testing.assert_array_equal(picture, overlay(colour / 255, mask > 0))
    np.testing.assert_array_equal(
        (picture == (86, 180, 233)).all(axis=2), find_boundaries(mask > 0, mode="inner", connectivity=1)
    )


@pytest.mark.parametrize("transform", [SaveMaskd, SaveOverlayd])
def test_keys_that_are_absent_are_skipped_only_on_request(tmp_path: Path, transform: type) -> None:
    item = {"case": "a"}
    assert transform("pred", output_dir=str(tmp_path / "out"), allow_missing_keys=True)(item) == item
    with pytest.raises(KeyError):
        transform("pred", output_dir=str(tmp_path / "out"))(item)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_results_lie_on_the_picture_that_viewers_show(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(marker()).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as picture:
        shown = np.asarray(ImageOps.exif_transpose(picture))
    through_the_network(tmp_path / "a.png", tmp_path / "out", size=240)
    mask = read_mask(tmp_path / "out" / "a_mask.png")
    assert mask.shape == shown.shape == ((53, 37) if orientation >= 5 else (37, 53))
    assert 2 * np.sum(mask & (shown > 200)) / (mask.sum() + (shown > 200).sum()) > 0.9
    with Image.open(tmp_path / "out" / "a_overlay.png") as drawn:
        picture_drawn = np.asarray(drawn)
    away = (shown != 230) & ~(picture_drawn == 0).all(axis=2) & ~(picture_drawn == (86, 180, 233)).all(axis=2)
    np.testing.assert_array_equal(picture_drawn[away], np.repeat(shown[away][:, None], 3, axis=1))
