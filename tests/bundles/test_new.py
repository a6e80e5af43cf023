"""A bundle for one's own data: what is found, what is written, and that it trains."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from monai.bundle import ConfigParser, create_workflow
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.bundles import new, new_bundle
from monai_thyroid.data import Datalist, load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import read_raster
from monai_thyroid.training import check_file

ROOT = Path(__file__).parents[2]
REAL = {  # folder of images, folder of masks, channels, classes
    "polyp": ("segmented-images/images", "segmented-images/masks", 3, ["foreground"]),
    "nerve": ("images", "masks", 1, ["class_1", "class_2"]),
    "thyroid": ("trainval-image", "trainval-mask", 1, ["foreground"]),
}


def dataset(root: Path, names: Sequence[str], *, images: str = "images", masks: str = "masks") -> Path:
    """A folder of grey images and masks of two levels, each image another one."""
    for number, name in enumerate(names):
        pixels = np.full((40, 56), 60, np.uint8)
        pixels[8 : 20 + number % 8, 10:30] = 200
        for folder, content in ((images, pixels + np.uint8(number)), (masks, (pixels > 128) * np.uint8(255))):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / folder / f"{name}.png")
    return root


def ten(root: Path) -> Path:
    return dataset(root, [f"{patient}_{view}" for patient in range(5) for view in range(2)])


def datalist(bundle: Path) -> Datalist:
    parser = ConfigParser()
    parser.read_config(bundle / "train.yaml")
    data: Datalist = parser.get_parsed_content("data")
    return data


# --- it trains ---


@pytest.fixture(scope="module", params=REAL)
def real(request: pytest.FixtureRequest, data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A dozen real images, and the bundle written for them."""
    kind = request.param
    base = tmp_path_factory.mktemp("own")
    for source in REAL[kind][:2]:
        folder = base / kind / Path(source).name
        folder.mkdir(parents=True)
        for path in sorted((data_dir / kind / source).iterdir())[:12]:
            shutil.copy(path, folder)
    images, masks = (str(base / kind / Path(source).name) for source in REAL[kind][:2])
    return kind, new_bundle(kind, images=images, masks=masks, output=str(base / "bundles")).path


def test_a_bundle_for_real_images_passes_the_check_and_runs(
    real: tuple[str, Path], tiny: dict[str, Any], tmp_path: Path
) -> None:
    kind, bundle = real
    channels, classes = REAL[kind][2:]
    config = yaml.safe_load((bundle / "train.yaml").read_text())
    assert (config["channels"], config["classes"]) == (channels, classes)
    # With the learning rate that the bundle was given.
    settings = {name: value for name, value in tiny.items() if name != "learning_rate"}
    settings["output_dir"] = str(tmp_path / "runs")
    assert check_file(str(bundle / "train.yaml"), {"device": "cpu", "output_dir": str(tmp_path)}) == []
    config_file = str(bundle / "train.yaml")
    training = create_workflow(config_file=config_file, workflow_type="train", **settings, trackers=[])
    assert training.check_properties() == []
    assert training.version == "0.1.0"
    training.run()
    run_dir = Path(training.parser.get_parsed_content("session").path)
    assert read_json(run_dir / "run.json")["status"] == "done"
    assert run_dir.parts[-4:-2] == (kind, kind)

    evaluation = create_workflow(config_file=str(bundle / "evaluate.yaml"), run_dir=str(run_dir), part="validation")
    evaluation.run()
    rows = read_csv(run_dir / "evaluations" / f"{kind}-validation" / "cases.csv")
    assert {row["class"] for row in rows} == set(classes)

    source = Path(config["dataset_dir"]) / Path(REAL[kind][0]).name
    inference = create_workflow(
        config_file=str(bundle / "inference.yaml"),
        workflow_type="infer",
        run_dir=str(run_dir),
        input=str(source),
        output_dir=str(tmp_path / "out"),
    )
    assert inference.check_properties() == []
    inference.run()
    written = sorted((tmp_path / "out").glob("*_mask.png"))
    assert len(written) == 12
    for path in written:
        image = read_raster(source / path.name.replace("_mask.png", ".jpg"))
        levels = read_raster(path, indices=True).pixels
        assert levels.shape == image.pixels.shape[:2]
        assert set(np.unique(levels)) <= ({0, 255} if len(classes) == 1 else {0, 1, 2})


def test_metadata_tell_channels_and_classes(real: tuple[str, Path]) -> None:
    kind, bundle = real
    channels, classes = REAL[kind][2:]
    meta = read_json(bundle / "metadata.json")
    formats = meta["network_data_format"]
    assert formats["inputs"]["image"]["num_channels"] == channels == len(formats["inputs"]["image"]["channel_def"])
    assert formats["outputs"]["pred"]["num_channels"] == len(classes)
    assert formats["outputs"]["pred"]["channel_def"] == dict(zip("012", ["background", *classes], strict=False))
    thyroid = read_json(ROOT / "bundles" / "thyroid" / "metadata.json")
    assert meta.keys() == thyroid.keys()
    shipped = {path.name for path in (ROOT / "bundles" / "thyroid").iterdir()} - {"tirads.yaml"}  # DDTI's own
    assert {path.name for path in bundle.iterdir()} == {name for name in shipped if "_course" not in name}
    assert meta["required_packages_version"].keys() == thyroid["required_packages_version"].keys()


# --- what is found ---


def test_groups_are_found_in_names(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    given = {"images": str(folder / "images"), "masks": str(folder / "masks"), "output": str(tmp_path)}
    unknown = new_bundle("unknown", **given)
    assert "groups unknown: each image counts as its own" in unknown.found
    assert "--groups-from" in unknown.warnings[-1]
    known = new_bundle("known", **given, group_pattern=r"^(\d+)_")
    assert "5 groups" in known.found
    assert known.warnings == []
    data = datalist(known.path)
    assert data.grouping == "known"
    parts = [{item["group"] for item in data.part(part)} for part in ("train", "validation", "test")]
    assert set.union(*parts) == set("01234")
    assert sum(map(len, parts)) == 5
    alone = new_bundle("alone", **given, group_pattern=r".+")
    assert "as many groups as images" in alone.warnings[-1]


@pytest.mark.parametrize(
    "pattern", ["$^|^.", "@|^.", "%|^.", r"""^'?"?([^:\\]): ?""", r"\x23|^.", ": {a}|[^b]", "^(?P<x>.)", "~|^."]
)
def test_a_pattern_reaches_the_datalist_as_it_was_given(tmp_path: Path, pattern: str) -> None:
    folder = dataset(tmp_path / "set", [f"{name}: {name}" for name in "abcdefgh"])
    given = {"images": str(folder / "images"), "masks": str(folder / "masks"), "output": str(tmp_path)}
    expected = load_datalist(str(folder), images="images", masks="masks", group_pattern=pattern)
    data = datalist(new_bundle("own", **given, group_pattern=pattern).path)
    assert len({item["group"] for item in data.items}) > 1
    assert {item["case"]: item["group"] for item in data.items} == {
        item["case"]: item["group"] for item in expected.items
    }


def test_one_colour_image_makes_it_a_colour_bundle(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    for path in (folder / "images").iterdir():
        Image.open(path).convert("RGB").save(path)  # grey, stored as colour
    given = {"images": str(folder / "images"), "masks": str(folder / "masks"), "output": str(tmp_path)}
    assert "grey" in new_bundle("grey", **given).found[0]
    pixels = np.asarray(Image.open(folder / "images" / "0_0.png")).copy()
    pixels[3, 3] = (9, 80, 9)
    Image.fromarray(pixels).save(folder / "images" / "0_0.png")
    colour = new_bundle("colour", **given)
    assert "10 images with masks, colour, 56 x 40 pixels" in colour.found[0]
    assert check_file(str(colour.path / "train.yaml"), {"device": "cpu"}) == []


def test_classes_can_be_named(tmp_path: Path) -> None:
    folder = ten(tmp_path / "set")
    for number, path in enumerate(sorted((folder / "masks").iterdir())):
        mask = (np.asarray(Image.open(path)) > 0) * np.uint8(1 + number % 2)
        Image.fromarray(mask).save(path)
    given = {"images": str(folder / "images"), "masks": str(folder / "masks"), "output": str(tmp_path)}
    bundle = new_bundle("own", **given, classes=["nerve", "vessel", "bone"])
    assert yaml.safe_load((bundle.path / "train.yaml").read_text())["classes"] == ["nerve", "vessel", "bone"]
    with pytest.raises(UserError, match="hold 2 classes, but 1 is named"):
        new_bundle("other", **given, classes=["nerve"])


# --- where the folders are ---


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("images", "images/masks"),
        ("masks/images", "masks"),
        ("a b/it's", 'c"d/@masks'),
        ("$images", "%masks"),
        ("röntgen: x", "1"),
    ],
)
def test_folders_may_lie_in_one_another_and_have_any_name(tmp_path: Path, images: str, masks: str) -> None:
    folder = dataset(tmp_path / "my: set", [str(number) for number in range(8)], images=images, masks=masks)
    bundle = new_bundle(
        "own", images=str(folder / images), masks=str(folder / masks), output=str(tmp_path / "new folder" / "bundles")
    ).path
    assert check_file(str(bundle / "train.yaml"), {"device": "cpu"}) == []
    data = datalist(bundle)
    assert {Path(item["image"]).resolve() for item in data.items} == set((folder / images).glob("*.png"))
    assert {Path(item["label"]).resolve() for item in data.items} == set((folder / masks).glob("*.png"))


def test_folders_with_nothing_in_common(tmp_path: Path) -> None:
    assert new._places("/here/images", "/there/masks") == ("/here/images", ".", "/there/masks")
    assert new._places("/images", "/masks") == ("/images", ".", "/masks")
    assert new._places("/set/images", "/set/masks") == ("/set", "images", "masks")
    folder = ten(tmp_path / "set")
    data = load_datalist(str(folder / "images"), images=".", masks=str(folder / "masks"))
    assert (data.name, len(data.items)) == ("images", 10)


# --- what cannot be used ---


def refused(folder: Path, output: Path, name: str = "own", **given: Any) -> list[str]:
    arguments = {"images": str(folder / "images"), "masks": str(folder / "masks"), **given}
    with pytest.raises(UserError) as error:
        new_bundle(name, output=str(output), **arguments)
    return error.value.problems


def test_unusable_arguments_are_all_told_and_nothing_is_written(tmp_path: Path) -> None:
    folder, output = ten(tmp_path / "set"), tmp_path / "bundles"
    (problem,) = refused(folder, output, name="../own")
    assert "'../own': use letters, digits, _ and -" in problem
    assert len(refused(folder, output, "", images=str(tmp_path / "no"), masks=str(tmp_path / "no"))) == 3
    assert "images and masks are one folder" in refused(folder, output, masks=str(folder / "images" / "."))[0]
    assert "not a regular expression" in refused(folder, output, group_pattern="(")[0]
    assert "must not be empty" in refused(folder, output, group_pattern="")[0]
    assert "puts all 10 images into one group, '_'" in refused(folder, output, group_pattern="_")[0]
    problems = refused(folder, output, group_pattern="^[01]_")
    assert len(problems) == 6
    assert "finds nothing in 2_0" in problems[0]
    assert "finds nothing in 0_0" in refused(folder, output, group_pattern="x*")[0]
    assert "finds nothing in 0_0" in refused(folder, output, group_pattern="^0_0|^(.)")[0]
    assert "give different names" in refused(folder, output, classes=["a", "a"])[0]
    assert "give different names" in refused(folder, output, classes=["a", "$b"])[0]
    shutil.copytree(folder, tmp_path / "set #2")
    assert "cannot hold a path with #" in refused(tmp_path / "set #2", output)[0]
    (tmp_path / "file").write_text("")
    assert "not a folder that can be written to" in refused(folder, tmp_path / "file")[0]
    assert not output.exists()


def test_faulty_files_are_all_told_and_nothing_is_written(tmp_path: Path) -> None:
    folder, output = ten(tmp_path / "set"), tmp_path / "bundles"
    (folder / "masks" / "0_0.png").rename(folder / "masks" / "9_9.png")
    problems = refused(folder, output)
    assert len(problems) == 2
    assert "0_0.png: no mask in" in problems[0]
    assert "9_9.png: no image in" in problems[1]
    (folder / "masks" / "9_9.png").rename(folder / "masks" / "0_0.png")
    broken = folder / "images" / "1_0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    frames = [Image.new("L", (56, 40), level) for level in (1, 2)]
    frames[0].save(folder / "images" / "1_1.tif", save_all=True, append_images=frames[1:])
    (folder / "images" / "1_1.png").unlink()
    Image.new("L", (40, 56)).save(folder / "masks" / "2_0.png")
    problems = refused(folder, output)
    assert len(problems) == 3
    assert "1_0.png: cannot be read as an image" in problems[0]
    assert "1_1.tif: holds 2 frames; give one image a file, only 2-D is supported" in problems[1]
    assert "40 x 56 (width x height) but its image is 56 x 40" in problems[2]
    for path in (folder / "masks").iterdir():
        path.unlink()
    assert "holds no image" in refused(folder, output)[0]
    (folder / "masks" / "volume.mha").write_bytes(b"")
    assert "only 2-D is supported" in refused(folder, output)[0]
    assert not output.exists()


def test_volumes_are_refused(tmp_path: Path) -> None:
    import nibabel

    folder = tmp_path / "set"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
        volume = nibabel.Nifti1Image(np.zeros((8, 9, 3), np.uint8), np.eye(4))
        nibabel.save(volume, folder / kind / "1.nii.gz")
        for name in "23456":
            picture = Image.new("L", (8, 9), int(name) if kind == "images" else 0)
            picture.putpixel((4, 3), 255)
            picture.save(folder / kind / f"{name}.png")
    problems = refused(folder, tmp_path / "bundles", classes=["a"])
    assert len(problems) == 2
    assert all("give one slice a file, only 2-D is supported" in problem for problem in problems)


def test_a_bundle_is_not_written_over_another_nor_by_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, output = ten(tmp_path / "set"), tmp_path / "bundles"
    (output / "own").mkdir(parents=True)
    assert "exists already" in refused(folder, output)[0]
    assert list((output / "own").iterdir()) == []
    monkeypatch.setattr(new, "render_bundle", lambda *_, **__: {"train.yaml": "a: 1", "metadata.json": None})
    with pytest.raises(TypeError):
        new_bundle("other", images=str(folder / "images"), masks=str(folder / "masks"), output=str(output))
    assert [path.name for path in output.iterdir()] == ["own"]


# --- the command ---


def test_the_command_tells_what_it_found_and_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ten(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(new, "has_gpu", lambda: False)
    command = ["new", "own", "--images", "set/images", "--masks", "set/masks"]
    assert cli.main([*command, "--groups-from", r"^(\d+)", "--classes", "nodule"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        "bundles/own: written",
        "  10 images with masks, grey, 56 x 40 pixels (width x height)",
        "  1 class: nodule",
        "  5 groups",
        "  split: train 6, validation 2, test 2 (test: 0.2 of all, by group, alike in lesion size (seed 0); "
        "validation: 0.15 of the rest, by group, alike in lesion size (seed 0))",
        "  image_size 64: what is small here (a tenth of the images have less) is then 21 pixels across",
        "  batch_size 2: 6 training images make 3 steps an epoch",
        "  max_epochs 500: 1,500 steps (100 epochs of so few images would be 300), about 1 min on two cores",
        "  unet of 32 to 256 channels: in an hour two cores see each of 6 images about 67200 times",
        "Next:",
        "  monai-thyroid check bundles/own/train.yaml",
        "  python -m monai.bundle run --config_file bundles/own/train.yaml",
    ]
    assert told.err == ""
    assert cli.main(["check", "bundles/own/train.yaml"]) == 0
    capsys.readouterr()
    assert cli.main(command) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "bundles/own: exists already; give another name, or remove it\n")
