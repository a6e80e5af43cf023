"""All bundles, as MONAI's model zoo tests its own: train, evaluate, infer, on small files in the original layouts."""

from __future__ import annotations

import csv
import functools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from bundle_files import course, strong
from forked import run_module
from monai.bundle import ConfigParser, create_workflow
from PIL import Image, ImageDraw

import monai_thyroid
from monai_thyroid.bundles.render import SHIPPED
from monai_thyroid.files import read_csv, read_json, sha256_file
from monai_thyroid.images import phantom_scan, read_labels, read_raster
from monai_thyroid.training import check_file

# What the projects' recipes say, by the bundle's real default; loss and schedule by class.
RECIPES: dict[str, dict[str, Any]] = {
    "thyroid": {"learning_rate": 1e-4, "max_epochs": 100, "loss": "DiceLoss", "schedule": "ReduceLROnPlateau"},
    "thyroid_gland": {"learning_rate": 1e-4, "max_epochs": 25, "loss": "BCEWithLogitsLoss", "schedule": "ConstantLR"},
    "fetal_head": {
        "network": "unpadded_unet",
        "input_size": 252,
        "output_size": 68,
        "learning_rate": 1e-3,
        "max_epochs": 5,
        "loss": "BCEWithLogitsLoss",
        "schedule": "ConstantLR",
    },
    "nerve": {"learning_rate": 1e-3, "max_epochs": 100, "loss": "DiceFocalLoss", "schedule": "ReduceLROnPlateau"},
    "polyp": {
        "channels": 3,
        "image_size": 128,
        "input_size": 128,
        "output_size": 128,
        "learning_rate": 1e-4,
        "max_epochs": 100,
        "first_stage_learning_rate": 1e-3,
        "first_stage_epochs": 100,
        "loss": "DiceLoss",
        "schedule": "ConstantLR",
    },
    "lung": {"learning_rate": 1e-3, "max_epochs": 100, "loss": "DiceLoss", "schedule": "ReduceLROnPlateau"},
}
USUAL = {"network": "unet", "channels": 1, "image_size": 256, "input_size": 256, "output_size": 256}
CLASSES = {
    "thyroid": ["nodule"],
    "thyroid_gland": ["gland"],
    "fetal_head": ["head"],
    "nerve": ["nerve", "vessel"],
    "polyp": ["polyp"],
    "lung": ["lung"],
}
BUNDLES = list(CLASSES)
NEW = [name for name in BUNDLES if name != "thyroid"]  # that one has a file of its own


def test_every_bundle_is_tested() -> None:
    assert set(BUNDLES) == set(SHIPPED)


# Beside the tiny settings of conftest.py.
SMALL: dict[str, dict[str, Any]] = {
    "fetal_head": {
        "network": "unpadded_unet",
        "image_size": 210,
        "max_epochs": 3,
        "networks::unpadded_unet::filters": [4, 4, 4, 4, 4],
    },
    "polyp": {"first_stage_epochs": 2, "first_stage_learning_rate": 0.01},
}


# --- small datasets in the original layouts, of non-square images ---

HEIGHT, WIDTH = 48, 64


def _scan(number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image, and a label of 1 (gland) and 2 (nodule)."""
    scan = phantom_scan(number, 0, seed=0, height=HEIGHT, width=WIDTH, multiclass=True)
    return scan.image, np.minimum(scan.label, 2)


def _save(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _table(path: Path, header: str, rows: list[tuple[Any, ...]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([tuple(header.split(",")), *rows])


def _tg3k(root: Path) -> None:
    for number in range(18):
        image, label = _scan(number)
        _save(image, root / "thyroid-image" / f"{number:04d}.jpg")
        _save((label > 0) * np.uint8(255), root / "thyroid-mask" / f"{number:04d}.jpg")
    _table(root / "scenes.csv", "file,scene", [(f"{number:04d}.jpg", number // 3) for number in range(18)])
    published = {"train": [number for number in range(18) if number % 3], "val": [0, 3, 6, 9, 12, 15]}
    (root / "tg3k-trainval.json").write_text(json.dumps(published))


def _hc18(root: Path) -> None:
    rows = []
    random = np.random.default_rng(0)
    for number in range(12):
        name = f"{number // 2:03d}_{'2' if number % 2 else ''}HC"
        box = (20 + number, 10, 70 + number, 48)
        outline = Image.new("L", (100, 60))
        ImageDraw.Draw(outline).ellipse(box, outline=255)
        inside = Image.new("L", (100, 60))
        ImageDraw.Draw(inside).ellipse(box, fill=150)
        noise = random.integers(0, 60, (60, 100), dtype=np.uint8)
        _save(np.asarray(inside) + noise, root / "training_set" / f"{name}.png")
        _save(np.asarray(outline), root / "training_set" / f"{name}_Annotation.png")
        a, b = 25 * 0.5, 19 * 0.5  # mm
        around = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))  # Ramanujan's formula
        rows.append((f"{name}.png", 0.5, round(around, 2)))
    header = "filename,pixel size(mm),head circumference (mm)"
    _table(root / "training_set_pixel_size_and_HC.csv", header, rows)


def _images_masks(root: Path) -> None:
    for number in range(12):
        image, label = _scan(number)
        _save(image, root / "images" / f"{number:04d}.png")
        _save(label if number % 4 else np.zeros_like(label), root / "masks" / f"{number:04d}.png")


def _kaggle(root: Path) -> None:
    for number in range(12):
        image, label = _scan(number)
        name = f"{1 + number // 2}_{1 + number % 2}"
        _save(image, root / "train" / f"{name}.tif")
        _save((label == 2) * np.uint8(255 if number % 3 else 0), root / "train" / f"{name}_mask.tif")


def _hyperkvasir(root: Path) -> None:
    names = [f"cju{number:02d}" for number in range(12)]
    for number, name in enumerate(names):
        image, label = _scan(number)
        colour = np.stack([image, image // 2, 255 - image], axis=2)
        _save(colour, root / "segmented-images" / "images" / f"{name}.jpg")
        mask = (label == 2) * np.uint8(255)
        _save(np.stack([mask] * 3, axis=2), root / "segmented-images" / "masks" / f"{name}.jpg")
    (root / "segmented-images" / "bounding-boxes.json").write_text("{}")
    (root / "train.txt").write_text("\n".join(names[:9]))
    (root / "test.txt").write_text("\n".join(names[9:]))


def _chest(root: Path) -> None:
    for number in range(20):
        image, label = _scan(number)
        lungs = (label > 0) * np.uint8(255)
        if number < 10:
            name = f"MCUCXR_{number:04d}_0.png"
            _save(image, root / "montgomery" / "CXR_png" / name)
            for side, half in (("leftMask", slice(0, WIDTH // 2)), ("rightMask", slice(WIDTH // 2, WIDTH))):
                part = np.zeros_like(lungs)
                part[:, half] = lungs[:, half]
                _save(part, root / "montgomery" / "ManualMask" / side / name)
        else:
            name = f"CHNCXR_{number:04d}_1"
            _save(image, root / "shenzhen" / "CXR_png" / f"{name}.png")
            _save(lungs, root / "shenzhen" / "mask" / f"{name}_mask.png")


WRITERS = {"thyroid_gland": _tg3k, "fetal_head": _hc18, "nerve": _images_masks, "polyp": _hyperkvasir, "lung": _chest}


@pytest.fixture(scope="session")
def miniature(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A bundle's dataset in miniature; tests must not change it."""

    @functools.cache
    def write(bundle: str) -> Path:
        if bundle == "thyroid":
            return scans
        root = tmp_path_factory.mktemp("miniature") / f"tiny_{bundle}"
        root.mkdir()
        WRITERS[bundle](root)
        return root

    return write


@pytest.fixture(scope="session")
def finished(
    train: Callable[..., Path], miniature: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A bundle's finished run on its miniature; tests must not change it."""

    @functools.cache
    def run(bundle: str) -> Path:
        given = {"max_epochs": 4, **SMALL.get(bundle, {}), "output_dir": str(tmp_path_factory.mktemp("runs"))}
        return train(bundle, dataset_dir=str(miniature(bundle)), **given)

    return run


@pytest.fixture
def workflow(root: Path) -> Callable[..., Any]:
    """A workflow of one of a bundle's files, not run yet."""

    def make(bundle: str, file: str, **given: Any) -> Any:
        return create_workflow(
            config_file=str(root / "bundles" / bundle / f"{file}.yaml"),
            logging_file=False,
            **({"precision": "float32"} | given),
        )

    return make


def _test_folder(run: Path) -> Path:
    (folder,) = (run / "evaluations").glob("*-test*")
    return folder


def _test_images(run: Path, dataset: Path) -> dict[str, Path]:
    """The image files of a run's test part by case."""
    cases = read_json(run / "split.json")["parts"]["test"]["cases"]
    files = [
        path
        for path in dataset.rglob("*")
        if path.is_file()
        and path.parent.name in ("test-image", "thyroid-image", "training_set", "images", "CXR_png")
        and "_Annotation" not in path.name
    ]
    found = {case: path for case in cases for path in files if path.stem == case or case.endswith(f"-{path.stem}")}
    assert found.keys() == set(cases)
    return found


# --- the files ---


@pytest.fixture
def no_duplicates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.usefixtures("no_duplicates")
def test_files_are_those_of_the_house(root: Path, bundle: str) -> None:
    folder = root / "bundles" / bundle
    other = "train_strong.yaml" if bundle in ("nerve", "lung") else "train_course.yaml"
    names = ["train.yaml", other, "multi_gpu_train.yaml", f"multi_gpu_{other}"]
    names += "evaluate.yaml inference.yaml metadata.json logging.conf README.md".split()
    names += ["tirads.yaml"] if bundle == "thyroid" else []
    assert {path.name for path in folder.iterdir()} == set(names)
    for path in folder.glob("*.yaml"):
        config = ConfigParser.load_config_file(path)
        if path.name.startswith("train"):
            assert config["bundle"] == bundle
        assert "%" not in path.read_text(), "no macros"
        text = path.read_text() + (folder / "README.md").read_text()
        assert all(f"bundles/{other}/" not in text for other in BUNDLES if other != bundle)
    for same in ("evaluate.yaml", "inference.yaml", "logging.conf"):
        assert (folder / same).read_bytes() == (root / "bundles" / "thyroid" / same).read_bytes()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_defaults_are_the_recipe(root: Path, bundle: str, miniature: Callable[[str], Path]) -> None:
    parser = ConfigParser()
    parser.read_config(root / "bundles" / bundle / course(bundle))
    parser["dataset_dir"] = str(miniature(bundle))
    recipe = {**USUAL, **RECIPES[bundle]}
    for name in recipe.keys() - {"loss", "schedule"}:
        assert parser.get_parsed_content(name) == recipe[name], name
    assert parser.get_parsed_content("classes") == CLASSES[bundle]
    assert type(parser.get_parsed_content("loss")).__name__ == recipe["loss"]
    optimizer = parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.param_groups[0]["lr"] == recipe["learning_rate"]
    assert type(parser.get_parsed_content("lr_scheduler")).__name__ == recipe["schedule"]
    if recipe["schedule"] == "ConstantLR":
        assert parser.get_parsed_content("patience") >= recipe["max_epochs"], "the recipe never stops early"
    parser = ConfigParser()
    parser.read_config(root / "bundles" / bundle / course(bundle))
    assert parser.get_parsed_content("dataset_dir") == "phantom"
    assert parser.get_parsed_content("network") == "unet"
    assert parser.get_parsed_content("input_size") == 96
    assert parser.get_parsed_content("max_epochs") < 20


@pytest.mark.parametrize("bundle", BUNDLES)
def test_loss_is_that_of_its_formula(root: Path, bundle: str) -> None:
    config = ConfigParser.load_config_file(root / "bundles" / bundle / course(bundle))
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 2, 9, 7, generator=generator)
    label = (torch.rand(3, 2, 9, 7, generator=generator) > 0.7).float()
    probability = logits.sigmoid()
    entropy = -(label * probability.log() + (1 - label) * (1 - probability).log()).mean()
    overlap = (probability * label).sum((2, 3))
    dice = (1 - 2 * overlap / (probability.sum((2, 3)) + label.sum((2, 3)))).mean()
    expected = {"DiceLoss": dice, "BCEWithLogitsLoss": entropy, "DiceFocalLoss": dice + entropy}
    loss = ConfigParser(config).get_parsed_content("loss")
    assert float(loss(logits, label)) == pytest.approx(float(expected[RECIPES[bundle]["loss"]]), abs=1e-4)


@pytest.mark.parametrize("bundle", BUNDLES)
def test_metadata_agree_with_the_config(root: Path, bundle: str, miniature: Callable[[str], Path]) -> None:
    meta = json.loads((root / "bundles" / bundle / "metadata.json").read_text())
    keys = "version monai_version pytorch_version numpy_version required_packages_version task description authors"
    for key in [*keys.split(), "copyright", "network_data_format", "changelog", "data_source", "references"]:
        assert meta[key], key
    assert meta["required_packages_version"]["monai_thyroid"] == monai_thyroid.__version__
    assert meta["version"] in meta["changelog"]
    recipe = {**USUAL, **RECIPES[bundle]}
    if strong(bundle) == "train.yaml":  # which they are about
        recipe |= {"input_size": 256, "output_size": 256}
    (image,) = meta["network_data_format"]["inputs"].values()
    (pred,) = meta["network_data_format"]["outputs"].values()
    assert image["num_channels"] == len(image["channel_def"]) == recipe["channels"]
    assert image["spatial_shape"] == [recipe["input_size"]] * 2
    assert pred["spatial_shape"] == [recipe["output_size"]] * 2
    assert pred["num_channels"] == len(CLASSES[bundle])
    numbered = {str(number): name for number, name in enumerate(["background", *CLASSES[bundle]])}
    assert pred["channel_def"] == numbered


@pytest.mark.parametrize("bundle", NEW)
def test_network_takes_and_gives_what_the_metadata_say(root: Path, bundle: str, tiny: dict[str, Any]) -> None:
    folder = root / "bundles" / bundle
    narrow = {"networks::unet::features": tiny["networks::unet::features"]}
    monai.bundle.verify_net_in_out(
        "network_def",
        device="cpu",
        config_file=str(folder / "train.yaml"),
        meta_file=str(folder / "metadata.json"),
        **narrow,
    )
    # verify_net_in_out does not compare heights and widths.
    parser = ConfigParser()
    parser.read_config(folder / "train.yaml")
    parser.update(narrow)
    layout = json.loads((folder / "metadata.json").read_text())["network_data_format"]
    shapes = [[one["num_channels"], *one["spatial_shape"]] for side in layout.values() for one in side.values()]
    with torch.no_grad():
        logits = parser.get_parsed_content("network_def").eval()(torch.zeros(1, *shapes[0]))
    assert list(logits.shape[1:]) == shapes[1]


# --- train, evaluate, infer ---


@pytest.mark.parametrize("bundle", NEW)
def test_properties_are_those_that_monai_asks_for(
    bundle: str,
    workflow: Callable[..., Any],
    miniature: Callable[[str], Path],
    finished: Callable[[str], Path],
    tiny: dict[str, Any],
    tmp_path: Path,
) -> None:
    given = {**tiny, **SMALL.get(bundle, {}), "output_dir": str(tmp_path / "runs")}
    training = workflow(bundle, course(bundle)[:-5], workflow_type="train", dataset_dir=str(miniature(bundle)), **given)
    assert training.check_properties() == []
    run = finished(bundle)
    image = next(iter(_test_images(run, miniature(bundle)).values()))
    for file, more in (("evaluate", {}), ("inference", {"input": str(image)})):
        made = workflow(bundle, file, workflow_type="infer", run_dir=str(run), **more)
        assert made.check_properties() == []
    assert list(tmp_path.iterdir()) == [], "checking must write nothing"


@pytest.mark.parametrize("bundle", NEW)
def test_a_run_is_scored_on_the_original_grid(
    bundle: str, finished: Callable[[str], Path], miniature: Callable[[str], Path], workflow: Callable[..., Any]
) -> None:
    run = finished(bundle)
    record = read_json(run / "run.json")
    assert (record["status"], record["bundle"], record["classes"]) == ("done", bundle, CLASSES[bundle])
    folder = _test_folder(run)
    before = (folder / "cases.csv").read_text()
    rows = read_csv(folder / "cases.csv")
    images = _test_images(run, miniature(bundle))
    assert {(row["case"], row["class"]) for row in rows} == {
        (case, name) for case in images for name in CLASSES[bundle]
    }
    for row in rows:
        scores = [float(row[name]) for name in ("dice", "iou", "precision", "recall", "hd95", "asd", "nsd")]
        assert all(math.isfinite(score) for score in scores)
        height, width = read_raster(images[row["case"]]).pixels.shape[:2]
        assert height != width
        assert (row["height"], row["width"]) == (str(height), str(width))
        prediction = read_labels(folder / "predictions" / f"{row['case']}.png", classes=len(CLASSES[bundle]))
        reference = read_labels(folder / "references" / f"{row['case']}.png", classes=len(CLASSES[bundle]))
        assert prediction.shape == reference.shape == (height, width)
        number = 1 + CLASSES[bundle].index(row["class"])
        assert int(float(row["tp"])) == ((prediction == number) & (reference == number)).sum()
    history = read_csv(run / "history.csv")
    assert all(math.isfinite(float(row[name])) for row in history for name in ("train_loss", "val_loss", "val_dice"))
    workflow(bundle, "evaluate", run_dir=str(run)).run()
    assert (folder / "cases.csv").read_text() == before


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_gives_what_was_scored(
    bundle: str,
    finished: Callable[[str], Path],
    miniature: Callable[[str], Path],
    workflow: Callable[..., Any],
    tmp_path: Path,
) -> None:
    run = finished(bundle)
    images = _test_images(run, miniature(bundle))
    (tmp_path / "in").mkdir()
    for case, path in images.items():
        shutil.copy(path, tmp_path / "in" / f"{case}{path.suffix}")
    inference = workflow(bundle, "inference", run_dir=str(run), input=str(tmp_path / "in"))
    inference.parser["output_dir"] = str(tmp_path / "out")
    inference.run()
    marked = 0
    for case, path in images.items():
        written = Image.open(tmp_path / "out" / f"{case}_mask.png")
        scored = Image.open(_test_folder(run) / "predictions" / f"{case}.png")
        assert written.size == Image.open(path).size == Image.open(tmp_path / "out" / f"{case}_overlay.png").size
        assert written.mode == scored.mode == ("L" if len(CLASSES[bundle]) == 1 else "P")
        assert np.array_equal(np.asarray(written), np.asarray(scored))
        marked += np.count_nonzero(np.asarray(written))
    assert 0 < marked < sum(math.prod(Image.open(path).size) for path in images.values()), "nothing was compared"


@pytest.mark.parametrize("bundle", BUNDLES)
def test_the_strong_recipe_trains_and_is_scored_again_alike(
    bundle: str,
    root: Path,
    train_strong: Callable[..., Path],
    miniature: Callable[[str], Path],
    workflow: Callable[..., Any],
    tiny: dict[str, Any],
    tmp_path: Path,
) -> None:
    given = {"dataset_dir": str(miniature(bundle)), "output_dir": str(tmp_path / "runs"), "max_epochs": 1}
    assert check_file(str(root / "bundles" / bundle / strong(bundle)), {**tiny, **given}) == []
    training = workflow(bundle, strong(bundle)[:-5], workflow_type="train", **{**tiny, **given})
    assert training.check_properties() == []
    assert not (tmp_path / "runs").exists(), "checking must write nothing"
    run = train_strong(bundle, **given)
    record, config = read_json(run / "run.json"), yaml.safe_load((run / "config.yaml").read_text())
    assert (record["status"], record["classes"]) == ("done", CLASSES[bundle])
    channels = 3 if bundle == "polyp" else 1
    assert [len(config["normalisation"][name]) for name in ("mean", "std")] == [channels, channels]
    before = (_test_folder(run) / "cases.csv").read_text()
    workflow(bundle, "evaluate", run_dir=str(run)).run()
    assert (_test_folder(run) / "cases.csv").read_text() == before


@pytest.mark.parametrize("bundle", BUNDLES)
def test_inference_prepares_images_as_training_does(
    bundle: str,
    root: Path,
    finished: Callable[[str], Path],
    miniature: Callable[[str], Path],
    workflow: Callable[..., Any],
    tiny: dict[str, Any],
) -> None:
    run = finished(bundle)
    image = next(iter(_test_images(run, miniature(bundle)).values()))
    inference = workflow(bundle, "inference", run_dir=str(run), input=str(image))
    evaluation = workflow(bundle, "evaluate", run_dir=str(run))
    training = ConfigParser()
    training.read_config(root / "bundles" / bundle / course(bundle))
    training.update({**tiny, **SMALL.get(bundle, {}), "dataset_dir": str(miniature(bundle)), "augmentation": []})
    item = next(item for item in training.get_parsed_content("data").items if item["image"] == str(image.resolve()))
    expected = training.get_parsed_content("train::preprocessing")(dict(item))["image"]
    assert torch.equal(inference.parser.get_parsed_content("dataset")[0]["image"], expected)
    assert torch.equal(evaluation.parser.get_parsed_content("preprocessing")(dict(item))["image"], expected)
    size = training.get_parsed_content("input_size")
    assert tuple(expected.shape) == (3 if bundle == "polyp" else 1, size, size)


@pytest.mark.parametrize("bundle", ["fetal_head", "nerve", "polyp", "lung"])
def test_augmentation_moves_image_and_label_alike(bundle: str, root: Path, miniature: Callable[[str], Path]) -> None:
    parser = ConfigParser()
    parser.read_config(root / "bundles" / bundle / course(bundle))
    # A padded network, whose label keeps the image's size.
    parser.update({"dataset_dir": str(miniature(bundle)), "network": "unet", "image_size": 64})
    parser["networks::unet::features"] = [4, 4, 4, 4, 4, 4]
    item: dict[str, Any] = {"image": str(miniature("fetal_head") / "training_set" / "000_HC.png")}
    for transform in parser.get_parsed_content("image_transforms"):
        item = transform(item)
    item["label"] = (item["image"] > 0.4).float()  # a bright ellipse left of the middle
    changed = []
    for seed in range(8):
        moved = dict(item)
        for transform in parser.get_parsed_content("augmentation"):
            moved = transform.set_random_state(seed=seed)(moved)
        image, label = moved["image"], moved["label"] > 0.5
        # Brightness may change by a fifth.
        assert float(((image > image.max() / 2) != label).float().mean()) < 0.03
        changed.append(float((label != (item["label"] > 0.5)).float().mean()) > 0.03)
    assert any(changed), "nothing was augmented"


# --- what is special ---


@pytest.fixture
def real_nerves(data_dir: Path, tmp_path: Path) -> Path:
    """Sixteen of the real images with their class numbers, made small."""
    source, target = data_dir / "nerve", tmp_path / "nerves"
    rows = read_csv(source / "split.csv")
    chosen = [row for part in ("train", "test") for row in [row for row in rows if row["part"] == part][:8]]
    for row in chosen:
        stem = Path(row["file"]).stem
        for kind, resample in (("images", Image.Resampling.BILINEAR), ("masks", Image.Resampling.NEAREST)):
            (path,) = (source / kind).glob(f"{stem}.*")
            (target / kind).mkdir(parents=True, exist_ok=True)
            Image.open(path).resize((64, 44), resample).save(target / kind / path.name)
    _table(target / "split.csv", "file,part", [(row["file"], row["part"]) for row in chosen])
    return target


def test_nerve_scores_each_class_of_real_masks(train: Callable[..., Path], real_nerves: Path, tmp_path: Path) -> None:
    run = train("nerve", dataset_dir=str(real_nerves), output_dir=str(tmp_path / "runs"), max_epochs=1)
    record = read_json(run / "run.json")
    assert record["classes"] == ["nerve", "vessel"]
    assert record["split"].startswith("test: official part")
    rows = read_csv(_test_folder(run) / "cases.csv")
    assert len(rows) == 16
    for row in rows:
        (mask,) = (real_nerves / "masks").glob(f"{row['case']}.*")
        number = 1 + CLASSES["nerve"].index(row["class"])
        assert int(float(row["tp"])) + int(float(row["fn"])) == (np.asarray(Image.open(mask)) == number).sum()
    assert read_json(_test_folder(run) / "evaluation.json")["classes"].keys() == {"nerve", "vessel"}


def test_nerve_has_one_class_where_the_masks_do(train: Callable[..., Path], tmp_path: Path) -> None:
    _kaggle(tmp_path / "kaggle")
    run = train("nerve", dataset_dir=str(tmp_path / "kaggle"), output_dir=str(tmp_path / "runs"), max_epochs=1)
    record = read_json(run / "run.json")
    assert (record["classes"], record["grouping"]) == (["nerve"], "known")
    rows = read_csv(_test_folder(run) / "cases.csv")
    assert {row["class"] for row in rows} == {"nerve"}
    split = read_json(run / "split.json")["parts"]
    groups = [set(part["groups"]) for part in split.values()]
    assert set.union(*groups) == {"1", "2", "3", "4", "5", "6"}
    assert sum(map(len, groups)) == 6


def test_polyp_trains_in_two_stages(finished: Callable[[str], Path]) -> None:
    run = finished("polyp")
    history = read_csv(run / "history.csv")
    assert [(row["stage"], row["epoch"]) for row in history] == [
        *(("1", str(epoch)) for epoch in (1, 2)),
        *(("2", str(epoch)) for epoch in (1, 2, 3, 4)),
    ]
    record = read_json(run / "run.json")
    assert [stage["stage"] for stage in record["stages"]] == [1, 2]
    losses = {stage: [float(row["val_loss"]) for row in history if row["stage"] == stage] for stage in ("1", "2")}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["first_stage"]["loss"]["_target_"] == "torch.nn.BCEWithLogitsLoss"
    assert abs(losses["2"][0] - losses["1"][-1]) > 0.05, "both stages measured the same loss"


def test_lung_trains_on_one_site_and_tests_on_another(
    train: Callable[..., Path], miniature: Callable[[str], Path], workflow: Callable[..., Any], tmp_path: Path
) -> None:
    given = {"dataset_dir": str(miniature("lung")), "output_dir": str(tmp_path), "max_epochs": 1}
    within = train("lung", **given, sites="montgomery")
    assert {row["site"] for row in read_csv(_test_folder(within) / "cases.csv")} == {"montgomery"}
    workflow("lung", "evaluate", run_dir=str(within), sites="shenzhen", part="all").run()
    (other,) = (within / "evaluations").glob("*-all-shenzhen")
    rows = read_csv(other / "cases.csv")
    assert len(rows) == 10
    assert {row["site"] for row in rows} == {"shenzhen"}
    across = train("lung", **given, test_sites="shenzhen")
    parts = read_json(across / "split.json")["parts"]
    assert {name: part["sites"] for name, part in parts.items()} == {
        "train": ["montgomery"],
        "validation": ["montgomery"],
        "test": ["shenzhen"],
    }
    assert len(read_csv(_test_folder(across) / "cases.csv")) == 10


def test_thyroid_gland_says_that_the_published_split_leaks(
    train: Callable[..., Path], finished: Callable[[str], Path], miniature: Callable[[str], Path], tmp_path: Path
) -> None:
    dataset = miniature("thyroid_gland")
    leaky = train(
        "thyroid_gland",
        dataset_dir=str(dataset),
        output_dir=str(tmp_path),
        split="frames",
        stratify=False,
        max_epochs=1,
    )
    record = read_json(leaky / "run.json")
    assert record["grouping"] == "leaky"
    assert any("leaky" in warning for warning in record["warnings"])
    assert read_json(_test_folder(leaky) / "evaluation.json")["grouping"] == "leaky"
    published = json.loads((dataset / "tg3k-trainval.json").read_text())["val"]
    assert sorted(read_json(leaky / "split.json")["parts"]["test"]["cases"]) == [f"{n:04d}" for n in published]
    honest = read_json(finished("thyroid_gland") / "run.json")
    assert honest["grouping"] == "known"
    assert honest["protocol_hash"] != record["protocol_hash"], "these are not the same race"


def test_fetal_head_is_measured_in_mm(
    train: Callable[..., Path], finished: Callable[[str], Path], miniature: Callable[[str], Path], tmp_path: Path
) -> None:
    run = finished("fetal_head")
    folder = _test_folder(run)
    sizes = read_csv(miniature("fetal_head") / "training_set_pixel_size_and_HC.csv")
    table = {row["filename"][:-4]: row for row in sizes}
    rows = read_csv(folder / "measures.csv")
    assert {row["case"] for row in rows} == {row["case"] for row in read_csv(folder / "cases.csv")}
    for row in rows:
        assert (row["measure"], row["unit"]) == ("head_circumference", "mm")
        assert float(row["reference"]) == float(table[row["case"]]["head circumference (mm)"])
        if not row["error"]:
            signed = float(row["predicted"]) - float(row["reference"])
            assert float(row["difference"]) == pytest.approx(signed)
            assert float(row["absolute_difference"]) == pytest.approx(abs(signed))
    figures = read_json(folder / "evaluation.json")["measures"]["head_circumference"]
    assert figures["n"] + figures["n_failed"] == len(rows)

    padded = train(
        "fetal_head",
        dataset_dir=str(miniature("fetal_head")),
        output_dir=str(tmp_path),
        **{**SMALL["fetal_head"], "network": "unet"},
    )
    one, two = read_json(run / "run.json"), read_json(padded / "run.json")
    assert (one["data_hash"], one["protocol_hash"]) == (two["data_hash"], two["protocol_hash"]), "one race"
    assert {row["height"] for row in read_csv(_test_folder(padded) / "cases.csv")} == {"60"}


# Like an unpadded U-Net: of its input, a picture that is smaller on all sides; marks what is bright.
SMALLER = {"_target_": "torch.nn.Conv2d", "_mode_": "callable", "in_channels": 1, "out_channels": 1, "kernel_size": 17}


@pytest.mark.parametrize(("bundle", "other"), [("fetal_head", "thyroid"), ("thyroid", "fetal_head")])
def test_a_run_is_scored_and_applied_alike_with_any_bundles_file(
    bundle: str,
    other: str,
    train: Callable[..., Path],
    miniature: Callable[[str], Path],
    workflow: Callable[..., Any],
    tmp_path: Path,
) -> None:
    # The one resizes the logits of an unpadded network, the other pads them; the one takes measures.
    given = {"image_size": 64, "max_epochs": 1, "network": "unpadded_unet", "networks::unpadded_unet": SMALLER}
    run = train(bundle, dataset_dir=str(miniature(bundle)), output_dir=str(tmp_path / "runs"), **given)
    weights = {"weight": torch.zeros(1, 1, 17, 17), "bias": torch.tensor([-9.0])}
    weights["weight"][0, 0, 8, 8] = 40
    torch.save(weights, run / "model.pt")
    record = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "checkpoint_sha256": sha256_file(run / "model.pt")}))
    folder = _test_folder(run)
    found = []
    for file in (bundle, other):
        shutil.rmtree(folder)
        workflow(file, "evaluate", run_dir=str(run)).run()
        found.append({path.name: path.read_bytes() for path in folder.glob("*.csv")})
    assert found[0] == found[1]
    assert ("measures.csv" in found[0]) == (bundle == "fetal_head")
    marked = [float(row["tp"]) + float(row["fp"]) for row in read_csv(folder / "cases.csv")]
    assert min(marked) > 0
    for case, image in _test_images(run, miniature(bundle)).items():
        workflow(other, "inference", run_dir=str(run), input=str(image), output_dir=str(tmp_path / "out")).run()
        written = np.asarray(Image.open(tmp_path / "out" / f"{image.stem}_mask.png"))
        assert np.array_equal(written, np.asarray(Image.open(folder / "predictions" / f"{case}.png")))
        break


def test_fetal_head_goes_back_from_the_small_picture(
    train: Callable[..., Path], miniature: Callable[[str], Path], workflow: Callable[..., Any], tmp_path: Path
) -> None:
    # Like the unpadded U-Net by the recipe: a picture of the whole image, four times smaller; marks what is bright.
    shrinking = {"_target_": "torch.nn.Conv2d", "_mode_": "callable", "in_channels": 1, "out_channels": 1}
    shrinking |= {"kernel_size": 4, "stride": 4}
    given = {"image_size": 96, "max_epochs": 1, "networks::unpadded_unet": shrinking}
    run = train("fetal_head", dataset_dir=str(miniature("fetal_head")), output_dir=str(tmp_path), **given)
    torch.save({"weight": torch.full((1, 1, 4, 4), 40 / 16), "bias": torch.tensor([-16.0])}, run / "model.pt")
    record = read_json(run / "run.json")
    (run / "run.json").write_text(json.dumps({**record, "checkpoint_sha256": sha256_file(run / "model.pt")}))
    workflow("fetal_head", "evaluate", run_dir=str(run)).run()
    folder = _test_folder(run)
    assert all(float(row["dice"]) > 0.95 for row in read_csv(folder / "cases.csv"))
    rows = read_csv(folder / "measures.csv")
    assert len(rows) >= 2
    for row in rows:
        assert float(row["predicted"]) == pytest.approx(float(row["reference"]), rel=0.05)
    assert (run / "figures" / f"{folder.name}-head_circumference.png").is_file()


# --- real images, from the literal command ---


@pytest.mark.parametrize("bundle", NEW)
@pytest.mark.slow
def test_nothing_is_wrong_with_the_real_images(root: Path, data_dir: Path, bundle: str) -> None:
    config = str(root / "bundles" / bundle / course(bundle))
    assert check_file(config, {"dataset_dir": str(data_dir / bundle)}) == []


@pytest.fixture
def command(root: Path) -> Callable[..., None]:
    """Run one of a bundle's files as a user does."""

    def run(bundle: str, file: str, *options: str) -> None:
        config = str(root / "bundles" / bundle / f"{file}.yaml")
        done = run_module("monai.bundle", "run", "--config_file", config, *options)
        assert done.returncode == 0, done.stderr[-3000:]

    return run


@pytest.mark.parametrize("bundle", NEW)
@pytest.mark.slow
def test_real_images_from_the_literal_command(
    bundle: str, data_dir: Path, command: Callable[..., None], tmp_path: Path
) -> None:
    options = ["--image_size", "32", "--max_epochs", "1", "--networks::unet::features", "[4,4,4,4,4,4]"]
    if bundle == "fetal_head":
        options = ["--image_size", "200", "--max_epochs", "1", "--networks::unpadded_unet::filters", "[2,2,2,2,2]"]
    if bundle == "polyp":
        options += ["--first_stage_epochs", "1"]
    command(
        bundle,
        course(bundle).removesuffix(".yaml"),
        "--dataset_dir",
        str(data_dir / bundle),
        "--output_dir",
        str(tmp_path / "runs"),
        *options,
    )
    (path,) = (tmp_path / "runs").rglob("run.json")
    record = read_json(path)
    assert (record["status"], record["synthetic"]) == ("done", False)
    assert record["grouping"] == ("unknown" if bundle in ("nerve", "polyp") else "known")
    rows = read_csv(_test_folder(path.parent) / "cases.csv")
    assert len(rows) >= 40
    assert all(math.isfinite(float(row["dice"])) for row in rows)
    command(bundle, "evaluate", "--run_dir", str(path.parent), "--part", "validation")
    assert len(list((path.parent / "evaluations").iterdir())) == 2
    case, image = next(iter(_test_images(path.parent, data_dir / bundle).items()))
    command(
        bundle, "inference", "--run_dir", str(path.parent), "--input", str(image), "--output_dir", str(tmp_path / "out")
    )
    written = np.asarray(Image.open(tmp_path / "out" / f"{image.stem}_mask.png"))
    scored = np.asarray(Image.open(_test_folder(path.parent) / "predictions" / f"{case}.png"))
    assert np.array_equal(written, scored)
