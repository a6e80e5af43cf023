"""Every layout, rebuilt in miniature from real files (or synthetic ones where those are absent) and read back."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import find_contours

from monai_thyroid.data import load_datalist
from monai_thyroid.data.folders import read_layout
from monai_thyroid.data.layouts import LAYOUTS
from monai_thyroid.data.scenes import find_scenes
from monai_thyroid.errors import UserError
from monai_thyroid.images import read_mask, read_masks, read_raster, write_phantom
from monai_thyroid.transforms import LoadScand

DATA = Path(os.environ.get("MONAI_THYROID_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
REAL = pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images in {DATA} (MONAI_THYROID_DATA)")


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def picture(path: Path, array: np.ndarray, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def scan(seed: int = 0, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width), dtype=np.uint8)


def disc(height: int = 40, width: int = 56, *, x: int = 20, y: int = 15, radius: int = 8) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return ((columns - x) ** 2 + (rows - y) ** 2 <= radius**2).astype(np.uint8) * np.uint8(255)


def table(path: Path, *rows: tuple[str, ...]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def test_every_layout_says_what_it_looks_for_and_is_found_by_its_name() -> None:
    assert LAYOUTS.keys() >= {
        "cvc_clinicdb", "ddti", "hc18", "hyperkvasir", "images_masks", "kaggle_nerve", "medsegbench", "montgomery",
        "nnunet", "shenzhen", "tg3k", "tn3k",
    }  # fmt: skip
    assert all(layout.looks_for for layout in LAYOUTS.values())


def test_unknown_and_ambiguous_folders_say_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="tn3k: trainval-image/ trainval-mask/"):
        read_layout(tmp_path)
    with pytest.raises(UserError, match=r"unknown dataset layout 'tn4k'; known are .*tn3k"):
        read_layout(tmp_path, "tn4k")
    with pytest.raises(UserError, match="no such folder"):
        read_layout(tmp_path / "nowhere", "tn3k")
    for name in ("images", "masks", "thyroid-image", "thyroid-mask"):
        picture(tmp_path / name / "1.png", disc())
    with pytest.raises(UserError, match="could be read as images_masks, tg3k"):
        read_layout(tmp_path)
    assert len(read_layout(tmp_path, "tg3k").items) == 1


def test_subfolders_of_several_forms_are_no_dataset(tmp_path: Path) -> None:
    for name in ("a/images", "a/masks", "b/thyroid-image", "b/thyroid-mask"):
        picture(tmp_path / name / "1.png", disc())
    with pytest.raises(UserError, match=r"several forms \(images_masks, tg3k\)"):
        read_layout(tmp_path)
    assert len(read_layout(tmp_path, ["images_masks", "tg3k"]).items) == 2


def test_tn3k_of_the_original_numbers_both_parts_from_zero(tmp_path: Path) -> None:
    for part in ("trainval", "test"):
        for number in range(3):
            picture(tmp_path / f"{part}-image" / f"{number:04d}.jpg", scan(number))
            picture(tmp_path / f"{part}-mask" / f"{number:04d}.jpg", disc())
    listing = read_layout(tmp_path)
    assert not listing.problems
    assert not listing.grouped
    assert [item["case"] for item in listing.items][::3] == ["trainval-0000", "test-0000"]
    table(
        tmp_path / "cases.csv",
        ("file", "part", "case"),
        *((f"{number:04d}.jpg", part, f"{part}{number}") for part in ("trainval", "test") for number in range(3)),
    )
    listing = read_layout(tmp_path)
    assert listing.grouped
    assert {item["group"] for item in listing.items if item["part"] == "test"} == {"test0", "test1", "test2"}


def test_faults_of_a_folder_are_all_told(tmp_path: Path) -> None:
    write_phantom(tmp_path / "set", cases=4, seed=1)
    masks = sorted((tmp_path / "set" / "trainval-mask").iterdir())
    masks[0].unlink()
    picture(tmp_path / "set" / "trainval-mask" / "stranger.png", disc())
    (tmp_path / "set" / "test-image" / "clip.mp4").write_bytes(b"")
    problems = read_layout(tmp_path / "set").problems
    assert any(f"{masks[0].name}: no mask in" in problem for problem in problems)
    assert any("stranger.png: no image in" in problem for problem in problems)
    assert any("clip.mp4: videos and volumes are not read" in problem for problem in problems)


@REAL
def test_ddti_contours_are_united_and_faulty_ones_reported(tmp_path: Path) -> None:
    def points(mask: np.ndarray) -> list[dict[str, int]]:
        contour = max(find_contours(np.pad(mask, 1).astype(float), 0.5), key=len) - 1
        return [{"x": round(x), "y": round(y)} for y, x in contour]

    def xml(case: str, *marks: tuple[int, str]) -> None:
        body = "".join(f"<mark><image>{n}</image><svg>{svg}</svg></mark>" for n, svg in marks)
        (tmp_path / f"{case}.xml").write_text(f"<case><number>{case}</number><tirads>4a</tirads>{body}</case>")

    name = "1_1.jpg"
    mask = read_mask(DATA / "thyroid" / "trainval-mask" / name)
    other = disc(*mask.shape, x=330, y=200, radius=20) > 0
    shutil.copy(DATA / "thyroid" / "trainval-image" / name, tmp_path / "7_1.jpg")
    for copy in ("7_2.jpg", "7_3.jpg", "8_1.jpg"):
        shutil.copy(tmp_path / "7_1.jpg", tmp_path / copy)
    largest = ndimage.label(mask)[0] == 1 + np.argmax(np.bincount(ndimage.label(mask)[0].ravel())[1:])
    whole = json.dumps(
        [{"points": points(part), "annotation": {}, "regionType": "freehand"} for part in (largest, other)]
    )
    # Cut off within a contour; cut off behind the last one, as 197.xml and 205.xml of the archive are.
    xml("7", (1, whole), (2, whole[: len(whole) // 2]), (3, ""))
    xml("8", (1, whole[:-10]))
    listing = read_layout(tmp_path)
    assert not listing.problems
    assert [(item["case"], item["group"]) for item in listing.items] == [("7_1", "7"), ("8_1", "8")]
    assert {item["tirads"] for item in listing.items} == {"4a"}
    assert [note.split(":")[0] for note in listing.notes] == ["7.xml", "7.xml", "8.xml"]
    assert "cut off; 7_2.jpg is left out" in listing.notes[0]
    assert "image 3 has no contour" in listing.notes[1]
    assert "cut off after its last contour" in listing.notes[2]
    for item in listing.items:
        assert iou(read_mask(item["label"]), largest | other) > 0.96


def test_ddti_without_its_xml_is_a_problem(tmp_path: Path) -> None:
    picture(tmp_path / "1_1.png", scan())
    picture(tmp_path / "2_1.png", scan())
    (tmp_path / "1.xml").write_text("<case><mark>")
    listing = read_layout(tmp_path, "ddti")
    assert any("2_1.png: no 2.xml beside it" in problem for problem in listing.problems)
    assert any("cannot be read as XML" in note for note in listing.notes)


@REAL
def test_tg3k_frames_are_grouped_by_scene_and_the_published_split_is_only_taken_on_request(tmp_path: Path) -> None:
    with (DATA / "thyroid_gland" / "scenes.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["scene"] in ("4", "8", "14")]
    for row in rows:
        for folder in ("thyroid-image", "thyroid-mask"):
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.copy(DATA / "thyroid_gland" / folder / row["file"], tmp_path / folder / row["file"])
    numbers = [int(row["file"][:4]) for row in rows]
    (tmp_path / "tg3k-trainval.json").write_text(json.dumps({"train": numbers[:-40], "val": numbers[-40:]}))
    listing = read_layout(tmp_path)
    assert not listing.problems
    assert "scenes were found" in listing.notes[0]
    truth = {row["file"]: row["scene"] for row in rows}
    pairs = {(item["group"], truth[Path(item["image"]).name]) for item in listing.items}
    assert len({scene for scene, _ in pairs}) == len(pairs), "a scene that was found holds frames of two"
    leaky = load_datalist(str(tmp_path), split="frames")
    assert leaky.grouping == "leaky"
    assert "LEAKY" in leaky.how
    assert len(leaky.part("test")) == 40
    assert any("leaky" in warning for warning in leaky.inspect().warnings)
    honest = load_datalist(str(tmp_path))
    assert honest.grouping == "known"
    assert len(honest.part("test")) != 40


def test_scenes_end_where_the_size_changes(tmp_path: Path) -> None:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((60, 60)), 5)
    image = np.rint(255 * (smooth - smooth.min()) / np.ptp(smooth)).astype(np.uint8)
    paths = [
        str(picture(tmp_path / f"{index}.png", array))
        for index, array in enumerate((image, np.roll(image, 1, 0), image[:, :50], image[::-1, :50]))
    ]
    assert find_scenes(paths) == [0, 0, 1, 2]


@REAL
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_hc18_outlines_are_filled_and_sizes_are_in_millimetres(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "training_set"
    folder.mkdir()
    with (DATA / "fetal_head" / "training_set_pixel_size_and_HC.csv").open() as file:
        rows = list(csv.reader(file))
    chosen = [row for row in rows[1:] if row[0].split("_")[0] in ("010", "014", "015")] or rows[1:4]
    for name, _, _ in chosen:
        stem = name.removesuffix(".jpg")
        source = DATA / "fetal_head" / "training_set"
        Image.open(source / name).save(folder / f"{stem}.{ending}")
        Image.open(source / f"{stem}_Annotation.png").convert("L").save(folder / f"{stem}_Annotation.{ending}")
    table(
        tmp_path / "training_set_pixel_size_and_HC.csv",
        tuple(rows[0]),
        *((name.replace("jpg", "png"), size, length) for name, size, length in chosen),
    )
    listing = read_layout(tmp_path)
    assert not listing.problems
    assert len(listing.items) == len(chosen)
    for item, (name, size, circumference) in zip(listing.items, sorted(chosen), strict=True):
        assert item["group"] == name.split("_")[0]
        mask = read_mask(item["label"])
        outline = read_mask(item["label"].removeprefix("outline:"))
        reference = ndimage.binary_fill_holes(outline)
        assert iou(mask, reference) > (0.999 if ending == "png" else 0.98)
        y, x = np.nonzero(mask)
        axes = 4 * np.sqrt(np.linalg.eigvalsh(np.cov(np.stack([x, y])))) / 2
        h = ((axes[0] - axes[1]) / axes.sum()) ** 2
        length = np.pi * axes.sum() * (1 + 3 * h / (10 + np.sqrt(4 - 3 * h))) * float(size)
        assert length == pytest.approx(float(item["circumference"]), rel=0.04)
        assert float(item["circumference"]) == pytest.approx(float(circumference))
        loaded = LoadScand("image")(item)["image"]
        assert loaded.meta["spacing_yx"] == pytest.approx([float(size)] * 2)


def test_hc18_outline_that_is_open_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    for number in range(3):
        outline = (disc() > 0) & ~ndimage.binary_erosion(disc() > 0)
        if number == 1:
            outline[:15] = False
        picture(tmp_path / "training_set" / f"00{number}_HC.png", scan(number))
        picture(tmp_path / "training_set" / f"00{number}_HC_Annotation.png", outline.astype(np.uint8) * np.uint8(255))
    data = load_datalist(str(tmp_path), layout="hc18")
    (problem,) = data.inspect().problems
    assert "001_HC_Annotation.png" in problem
    assert "cannot be filled" in problem
    assert any("nothing can be given in mm" in warning for warning in data.inspect().warnings)


def test_kaggle_nerve_tif_with_empty_masks(tmp_path: Path) -> None:
    for subject in (1, 2, 10):
        for number in (1, 2):
            picture(tmp_path / "train" / f"{subject}_{number}.tif", scan(subject))
            mask = disc() if number == 1 else np.zeros((40, 56), np.uint8)
            picture(tmp_path / "train" / f"{subject}_{number}_mask.tif", mask)
    picture(tmp_path / "test" / "1.tif", scan())
    data = load_datalist(str(tmp_path))
    assert data.grouping == "known"
    assert {item["group"] for item in data.items} == {"1", "2", "10"}
    assert not data.inspect().problems
    assert len(data.inspect().empty_masks) == 3


def test_images_masks_with_parts_and_several_classes(tmp_path: Path) -> None:
    for number in range(6):
        picture(tmp_path / "images" / f"{number}.jpg", scan(number))
        label = np.zeros((40, 56), np.uint8)
        label[5:10, 5:10], label[20:30, 20:30] = 1, 2
        picture(tmp_path / "masks" / f"{number}_mask.png", label)
    table(tmp_path / "split.csv", ("file", "part"), *((f"{n}.jpg", "test" if n > 3 else "train") for n in range(6)))
    data = load_datalist(str(tmp_path), classes=["nerve", "vessel"])
    assert [item["case"] for item in data.part("test")] == ["4", "5"]
    assert not data.inspect().problems
    masks = read_masks(data.items[0]["label"], classes=2)
    assert masks.shape == (2, 40, 56)
    assert masks.sum(axis=(1, 2)).tolist() == [25, 100]
    (first, *_) = load_datalist(str(tmp_path)).inspect().problems
    assert "not a mask of two levels" in first
    picture(tmp_path / "masks" / "0_mask.png", disc())
    (problem,) = load_datalist(str(tmp_path), classes=2).inspect().problems
    assert "holds 255; 0 is background and the 2 classes are numbered 1 to 2" in problem


def test_train_and_test_folders_are_parts(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        for number in range(2):
            picture(tmp_path / part / "images" / f"{number}.png", scan(number))
            picture(tmp_path / part / "masks" / f"{number}.png", disc())
    data = load_datalist(str(tmp_path))
    assert [(item["case"], item["part"]) for item in data.part("validation")] == [
        ("val-0", "validation"),
        ("val-1", "validation"),
    ]
    assert len(data.part("train")) == len(data.part("test")) == 2


@REAL
def test_hyperkvasir_with_its_official_parts(tmp_path: Path) -> None:
    names = sorted(path.name for path in (DATA / "polyp" / "segmented-images" / "images").iterdir())[:6]
    for folder in ("images", "masks"):
        (tmp_path / "segmented-images" / folder).mkdir(parents=True)
        for name in names:
            shutil.copy(DATA / "polyp" / "segmented-images" / folder / name, tmp_path / "segmented-images" / folder)
    (tmp_path / "train.txt").write_text("\n".join(name.removesuffix(".jpg") for name in names[:4]))
    (tmp_path / "test.txt").write_text("\n".join(names[4:]) + "\n")
    data = load_datalist(str(tmp_path))
    assert len(data.part("test")) == 2
    assert not data.inspect().problems
    (tmp_path / "test.txt").write_text(names[4])
    with pytest.raises(UserError, match=f"no part for {names[5]}"):
        load_datalist(str(tmp_path))


@pytest.mark.parametrize("place", ["", "PNG"])
def test_cvc_clinicdb_with_sequences(tmp_path: Path, place: str) -> None:
    for number in range(1, 7):
        picture(tmp_path / place / "Original" / f"{number}.png", np.stack([scan(number)] * 3, axis=2))
        picture(tmp_path / place / "Ground Truth" / f"{number}.png", disc())
    assert not read_layout(tmp_path).grouped
    table(tmp_path / "metadata.csv", ("frame_id", "sequence_id"), *((str(n), str(n // 3)) for n in range(1, 7)))
    data = load_datalist(str(tmp_path))
    assert data.grouping == "known"
    assert {item["group"] for item in data.items} == {"sequence0", "sequence1", "sequence2"}


def test_montgomery_is_montgomery_also_where_united_masks_lie_beside(tmp_path: Path) -> None:
    picture(tmp_path / "CXR_png" / "MCUCXR_0001_0.png", scan())
    for folder in ("ManualMask/leftMask", "ManualMask/rightMask", "masks"):
        picture(tmp_path / folder / "MCUCXR_0001_0.png", disc())
    (item,) = read_layout(tmp_path).items
    assert item["label"].startswith("union:")


@REAL
def test_montgomery_masks_are_united_and_sites_can_be_chosen(tmp_path: Path) -> None:
    for name in sorted(path.stem for path in (DATA / "lung" / "montgomery" / "images").iterdir())[:4]:
        root = tmp_path / "MontgomerySet"
        mask = read_mask(DATA / "lung" / "montgomery" / "masks" / f"{name}.png")
        image = np.asarray(Image.open(DATA / "lung" / "montgomery" / "images" / f"{name}.jpg").convert("L"))
        picture(root / "CXR_png" / f"{name}.png", image)
        middle = np.arange(mask.shape[1]) < mask.shape[1] // 2
        for side, half in (("leftMask", mask & ~middle), ("rightMask", mask & middle)):
            picture(root / "ManualMask" / side / f"{name}.png", half)
    for number, name in enumerate(sorted(path.stem for path in (DATA / "lung" / "shenzhen" / "images").iterdir())[:5]):
        root = tmp_path / "ChinaSet_AllFiles"
        image = np.asarray(Image.open(DATA / "lung" / "shenzhen" / "images" / f"{name}.jpg"))
        picture(root / "CXR_png" / f"{name}.png", image)
        if number:
            mask = read_mask(DATA / "lung" / "shenzhen" / "masks" / f"{name}.png")
            picture(root / "mask" / f"{name}_mask.png", mask)
    one = read_layout(tmp_path / "MontgomerySet")
    assert not one.problems
    assert {item["site"] for item in one.items} == {"montgomery"}
    for item in one.items:
        reference = read_mask(DATA / "lung" / "montgomery" / "masks" / f"{item['case']}.png")
        assert (read_mask(item["label"]) == reference).all()
    data = load_datalist(str(tmp_path), layout=["montgomery", "shenzhen"], test_sites="ChinaSet_AllFiles")
    assert {item["site"] for item in data.part("test")} == {"ChinaSet_AllFiles"}
    assert len(data.part("test")) == 4
    assert any("1 images without a mask are left out" in warning for warning in data.inspect().warnings)
    assert all(item["case"].startswith("MontgomerySet-") for item in data.part("train"))
    only = load_datalist(str(tmp_path), layout=["montgomery", "shenzhen"], sites=["MontgomerySet"])
    assert len(only.items) == 4
    with pytest.raises(UserError, match="the dataset has ChinaSet_AllFiles, MontgomerySet"):
        load_datalist(str(tmp_path), layout=["montgomery", "shenzhen"], sites="JSRT")


@pytest.mark.parametrize("ending", [".png", ".nii.gz"])
def test_nnunet_names_its_classes(tmp_path: Path, ending: str) -> None:
    def write(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(exist_ok=True)
        if ending == ".png":
            Image.fromarray(array).save(path)
        else:
            nibabel.save(nibabel.Nifti1Image(array.T[..., None], np.eye(4)), path)

    for number in range(4):
        label = (disc() > 0).astype(np.uint8) * np.uint8(1 + number % 2)
        write(tmp_path / "imagesTr" / f"case_{number}_0000{ending}", scan(number))
        write(tmp_path / "labelsTr" / f"case_{number}{ending}", label)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "nerve": 1, "vessel": 2}}))
    data = load_datalist(str(tmp_path), classes=["nerve", "vessel"], validation_fraction=0.3)
    assert [item["case"] for item in data.items] == [f"case_{number}" for number in range(4)]
    assert not data.inspect().problems
    assert read_raster(data.items[0]["image"]).pixels.shape == (40, 56)
    with pytest.raises(UserError, match="has the classes nerve, vessel, but 1 is asked for"):
        load_datalist(str(tmp_path))
    write(tmp_path / "imagesTr" / f"case_0_0001{ending}", scan())
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "both": [1, 2]}}))
    problems = read_layout(tmp_path).problems
    assert any("second channel" in problem for problem in problems)
    assert any("region-based" in problem for problem in problems)


def test_nnunet_volume_is_refused_in_a_sentence(tmp_path: Path) -> None:
    for folder, name in (("imagesTr", "a_0000"), ("labelsTr", "a"), ("imagesTr", "b_0000"), ("labelsTr", "b"),
                         ("imagesTr", "c_0000"), ("labelsTr", "c")):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        volume = nibabel.Nifti1Image(np.zeros((6, 5, 4), np.uint8), np.eye(4))
        nibabel.save(volume, tmp_path / folder / f"{name}.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "x": 1}}))
    problems = load_datalist(str(tmp_path)).inspect().problems
    assert all("only 2-D is supported" in problem for problem in problems)
    assert len(problems) == 6


def test_medsegbench_arrays(tmp_path: Path) -> None:
    arrays = {}
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{part}_images"] = np.stack([np.stack([scan(n, 32, 48)] * 3, axis=2) for n in range(count)])
        arrays[f"{part}_label"] = np.stack([disc(32, 48) // 255] * count)
    path = tmp_path / "toy_128.npz"
    np.savez_compressed(path, **arrays)
    for where in (path, tmp_path):
        data = load_datalist(str(where))
        assert {part: len(data.part(part)) for part in ("train", "validation", "test")} == {
            "train": 5,
            "validation": 2,
            "test": 3,
        }
        assert not data.inspect().problems
    assert load_datalist(str(path)).name == "toy_128"
    item = data.part("test")[1]
    assert (read_raster(item["image"]).pixels == arrays["test_images"][1]).all()
    assert (read_mask(item["label"]) == (disc(32, 48) > 0)).all()
    np.savez(path, train_images=np.zeros((2, 8, 8, 8), np.uint8), train_label=np.zeros((2, 8, 8, 8), np.uint8))
    (problem,) = read_layout(path).problems
    assert "stacks are refused, only 2-D is supported" in problem


def test_own_folders_with_a_pattern_for_groups(tmp_path: Path) -> None:
    for number in range(8):
        picture(tmp_path / "scans" / f"p{number // 2}-{number}.bmp", scan(number))
        picture(tmp_path / "outlined" / f"p{number // 2}-{number}_seg.png", disc())
    data = load_datalist(str(tmp_path), images="scans", masks="outlined", group_pattern=r"^(p\d+)-")
    assert data.grouping == "known"
    assert {item["group"] for item in data.items} == {"p0", "p1", "p2", "p3"}
    with pytest.raises(UserError, match="finds nothing in p0-0"):
        load_datalist(str(tmp_path), images="scans", masks="outlined", group_pattern=r"^q")
    with pytest.raises(UserError, match="give both folders"):
        load_datalist(str(tmp_path), images="scans")
