from __future__ import annotations

import json
import logging
import math
import shlex
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser, create_workflow
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, read_json, sha256_file
from monai_thyroid.images import read_mask, write_phantom
from monai_thyroid.metrics import score_case
from monai_thyroid.networks import CONFIGS, EncoderUNet

RUN_KEYS = (
    "bundle dataset network seed fold stage classes activation threshold data_hash protocol_hash run_hash "
    "checkpoint_sha256 parent_sha256 versions device precision parameters images_per_second seconds best_epoch status "
    "error"
).split()
CASE_COLUMNS = (
    "dataset,site,part,case,group,class,tp,fp,fn,tn,dice,iou,precision,recall,specificity,accuracy,hd95,asd,nsd,"
    "n_ref,n_pred,n_matched,ref_empty,pred_empty,height,width,spacing_y,spacing_x,error"
)


@pytest.fixture
def bundle(root: Path) -> Path:
    return root / "bundles" / "thyroid"


def _mistake(error: BaseException) -> UserError:
    found: BaseException | None = error
    while found is not None and not isinstance(found, UserError):
        found = found.__cause__
    assert found is not None, f"no UserError behind {error!r}"
    return found


# --- the config ---


def test_constants_are_the_recipe_for_real_data_and_small_for_the_phantom(bundle: Path, scans: Path) -> None:
    def constants(dataset_dir: str) -> list[Any]:
        parser = ConfigParser()
        parser.read_config(bundle / "train_course.yaml")
        parser["dataset_dir"] = dataset_dir
        return [parser.get_parsed_content(name) for name in ("image_size", "batch_size", "learning_rate", "max_epochs")]

    assert constants(str(scans)) == [256, 16, 1e-4, 100]
    small = constants("phantom")
    assert small[0] < 256
    assert small[2] > 1e-4
    assert small[3] < 100


def test_properties_are_those_that_monai_asks_for(
    bundle: Path, scans: Path, trained: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    training = create_workflow(
        config_file=str(bundle / "train_course.yaml"),
        workflow_type="train",
        **tiny,
        dataset_dir=str(scans),
        output_dir=str(tmp_path / "runs"),
    )
    assert training.check_properties() == []
    assert training.version == "0.1.0"
    for name, given in (("evaluate", {}), ("inference", {"input": str(scans / "test-image")})):
        workflow = create_workflow(
            config_file=str(bundle / f"{name}.yaml"), workflow_type="infer", run_dir=str(trained), **given
        )
        assert workflow.check_properties() == []
    assert list(tmp_path.iterdir()) == [], "checking must write nothing"


def test_config_has_no_duplicate_keys_nor_ambiguous_names(
    bundle: Path, scans: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    monkeypatch.setenv("MONAI_FAIL_ON_DUPLICATE_CONFIG", "1")
    for path in sorted(bundle.glob("*.yaml")):
        ConfigParser.load_config_file(path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        workflow = create_workflow(
            config_file=str(bundle / "train_course.yaml"), **tiny, dataset_dir=str(scans), output_dir=str(tmp_path)
        )
        workflow.check_properties()
    messages = [str(warning.message) for warning in caught]
    assert not [message for message in messages if "more than 1 component" in message or "uplicate" in message]
    assert any("parsing config_file" in message for message in messages), "warnings were not recorded at all"


def test_metadata_agree_with_the_package(bundle: Path) -> None:
    import monai_thyroid

    meta = json.loads((bundle / "metadata.json").read_text())
    for key in [
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
        "changelog",
    ]:
        assert meta[key], key
    assert meta["required_packages_version"]["monai_thyroid"] == monai_thyroid.__version__
    assert meta["version"] in meta["changelog"]
    assert meta["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "nodule"}


def test_monais_own_commands_work(bundle: Path, trained: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    config = {
        "config_file": str(bundle / "train_course.yaml"),
        "meta_file": str(bundle / "metadata.json"),
        "networks::unet::features": tiny["networks::unet::features"],
    }
    monai.bundle.verify_net_in_out("network_def", device="cpu", **config)
    export = {"ckpt_file": str(trained / "model.pt"), "input_shape": [1, 1, 32, 32], **config}
    monai.bundle.ckpt_export("network_def", filepath=str(tmp_path / "model.ts"), use_trace=True, **export)
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    network = ConfigParser(yaml.safe_load((trained / "config.yaml").read_text())).get_parsed_content("network_def")
    network.load_state_dict(torch.load(trained / "model.pt", weights_only=True))
    with torch.no_grad():
        expected = network.eval()(image)
        assert torch.allclose(torch.jit.load(tmp_path / "model.ts")(image), expected, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    monai.bundle.onnx_export("network_def", filepath=str(tmp_path / "model.onnx"), **export)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert np.allclose(found, expected.numpy(), atol=1e-4)


# --- the run folder ---


def test_run_folder_holds_what_the_contract_says(trained: Path, scans: Path, tiny: dict[str, Any]) -> None:
    names = {path.name for path in trained.iterdir()}
    assert {
        "config.yaml",
        "split.json",
        "run.json",
        "history.csv",
        "model.pt",
        "last.pt",
        "figures",
        "evaluations",
    } == names
    record = read_json(trained / "run.json")
    assert set(RUN_KEYS) <= record.keys()
    assert (record["status"], record["error"], record["network"]) == ("done", None, "unet")
    assert record["synthetic"] is False
    assert record["checkpoint_sha256"] == sha256_file(trained / "model.pt")
    assert trained.parts[-4:-2] == ("thyroid", "scans")
    assert trained.parts[-2:] == (f"unet-{record['protocol_hash'][:8]}", "seed-0")

    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert {name: config[name] for name in ("image_size", "max_epochs", "batch_size")} == {
        "image_size": 32,
        "max_epochs": 2,
        "batch_size": 4,
    }
    assert config["networks"]["unet"]["features"] == tiny["networks::unet::features"]
    assert "%" not in (trained / "config.yaml").read_text()

    history = read_csv(trained / "history.csv")
    assert list(history[0]) == ["stage", "epoch", "lr", "train_loss", "val_loss", "val_dice", "val_iou", "seconds"]
    assert [row["epoch"] for row in history] == ["1", "2"]
    best = max(history, key=lambda row: float(row["val_dice"]))
    assert record["best_epoch"] == int(best["epoch"])

    split = read_json(trained / "split.json")
    parts = split["parts"]
    groups = [set(parts[part]["groups"]) for part in ("train", "validation", "test")]
    assert len(set.union(*groups)) == sum(map(len, groups))
    listed = read_csv(scans / "cases.csv")
    assert groups[2] == {row["case"] for row in listed if row["part"] == "test"}
    assert split["grouping"] == "known"

    last = torch.load(trained / "last.pt", weights_only=True)
    assert last["epoch"] == 2
    assert (trained / "figures" / "curves.png").is_file()
    assert (trained / "figures" / "scans-test.png").is_file()


def test_scores_are_those_of_the_predictions_on_the_original_grid(trained: Path, scans: Path) -> None:
    folder = trained / "evaluations" / "scans-test"
    rows = read_csv(folder / "cases.csv")
    assert ",".join(rows[0]) == CASE_COLUMNS
    assert {row["case"] for row in rows} == {path.stem for path in (scans / "test-image").iterdir()}
    for row in rows:
        reference = read_mask(scans / "test-mask" / f"{row['case']}.png")
        prediction = read_mask(folder / "predictions" / f"{row['case']}.png")
        assert prediction.shape == reference.shape == (48, 64)
        expected = score_case(reference, prediction)
        assert {name: float(row[name]) for name in ("dice", "hd95", "nsd", "tp")} == pytest.approx(
            {name: float(expected[name]) for name in ("dice", "hd95", "nsd", "tp")}
        )
    evaluation = read_json(folder / "evaluation.json")
    assert evaluation["classes"]["nodule"]["dice_mean"] == pytest.approx(
        sum(float(row["dice"]) for row in rows) / len(rows)
    )
    calibration = read_csv(folder / "calibration.csv")
    assert sum(int(float(row["n_pixels"])) for row in calibration) == len(rows) * 48 * 64


def test_evaluate_scores_any_run_on_any_part_and_dataset(
    bundle: Path, trained: Path, scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = shutil.copytree(trained, tmp_path / "moved")  # a run folder may be moved

    def evaluate(**given: Any) -> None:
        workflow = create_workflow(
            config_file=str(bundle / "evaluate.yaml"),
            run_dir=str(run_dir),
            precision="float32",
            logging_file=False,
            **given,
        )
        with caplog.at_level(logging.INFO):
            workflow.run()

    before = (run_dir / "evaluations" / "scans-test" / "cases.csv").read_text()
    evaluate()
    assert (run_dir / "evaluations" / "scans-test" / "cases.csv").read_text() == before
    evaluate(part="validation")
    assert len(read_csv(run_dir / "evaluations" / "scans-validation" / "cases.csv")) > 0
    other = write_phantom(tmp_path / "elsewhere", cases=4, seed=9, height=50, width=61)
    stolen = read_json(trained / "split.json")["parts"]["train"]["cases"][0]
    for kind in ("image", "mask"):
        shutil.copy(scans / f"trainval-{kind}" / f"{stolen}.png", other / f"test-{kind}" / f"{stolen}.png")
    with (other / "cases.csv").open("a") as file:
        file.write(f"{stolen}.png,test,stolen\n")
    evaluate(dataset_dir=str(other))
    rows = read_csv(run_dir / "evaluations" / "elsewhere-test" / "cases.csv")
    assert {row["height"] for row in rows} == {"50", "48"}
    assert "1 of the images of elsewhere were in this run's training part" in caplog.text
    assert (
        read_json(run_dir / "evaluations" / "elsewhere-test" / "evaluation.json")["data_hash"]
        != read_json(run_dir / "run.json")["data_hash"]
    )


# --- stop, go on, start from ---


def test_a_finished_folder_is_refused_and_only_overwritten_when_told(
    train: Callable[..., Path], scans: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = {"dataset_dir": str(scans), "output_dir": str(tmp_path), "max_epochs": 1}
    folder = train(**given)
    first = sha256_file(folder / "model.pt")
    caplog.set_level(logging.INFO)
    caplog.clear()
    with pytest.raises(RuntimeError) as refused:
        train(**given)
    assert "finished run; --overwrite true replaces it" in str(_mistake(refused.value))
    assert "images for training into memory" not in caplog.text, "it is refused before they are read"
    with caplog.at_level(logging.INFO):
        train(**given, resume="true")
    assert "complete and unchanged" in caplog.text
    (folder / "last.pt").write_bytes(b"")
    assert train(**given, overwrite="true") == folder
    assert sha256_file(folder / "model.pt") == first, "the same seed must give the same weights"
    with pytest.raises(RuntimeError) as both:
        train(**given, overwrite=True, resume=True)
    assert "both true" in str(_mistake(both.value))


def test_another_seed_gives_another_run_of_the_same_protocol_and_data(
    train: Callable[..., Path], trained: Path, scans: Path
) -> None:
    other = train(dataset_dir=str(scans), output_dir=str(trained.parents[3]), seed=1)
    assert other.parent == trained.parent
    one, two = read_json(trained / "run.json"), read_json(other / "run.json")
    assert one["data_hash"] == two["data_hash"]
    assert one["run_hash"] != two["run_hash"]
    assert one["checkpoint_sha256"] != two["checkpoint_sha256"]


def test_starting_from_a_model_reports_its_score_and_records_its_hash(
    train: Callable[..., Path], trained: Path, scans: Path, tmp_path: Path
) -> None:
    folder = train(dataset_dir=str(scans), output_dir=str(tmp_path), max_epochs=1, init_from=str(trained))
    record = read_json(folder / "run.json")
    assert record["parent_sha256"] == sha256_file(trained / "model.pt")
    assert record["init_from"]["replaced"] == []
    assert record["init_from"]["test_dice_before"] == pytest.approx(
        read_json(trained / "run.json")["test"]["dice_mean"], abs=1e-6
    )
    assert record["protocol_hash"] != read_json(trained / "run.json")["protocol_hash"]
    wide = {"networks::unet::features": [8, 8, 8, 8, 8, 8]}
    with pytest.raises(RuntimeError) as refused:
        train(dataset_dir=str(scans), output_dir=str(tmp_path / "wide"), init_from=str(trained / "model.pt"), **wide)
    assert "not of this network" in str(_mistake(refused.value))
    assert not (tmp_path / "wide").exists(), "a run folder was begun"


def test_a_loss_that_is_no_number_fails_the_run_and_says_where(
    train: Callable[..., Path], scans: Path, tmp_path: Path
) -> None:
    with pytest.raises(RuntimeError, match="evaluate"):
        train(dataset_dir=str(scans), output_dir=str(tmp_path), learning_rate=1e30, max_epochs=3)
    (record,) = (read_json(path) for path in tmp_path.rglob("run.json"))
    assert record["status"] == "failed"
    assert "the training loss became nan in epoch" in record["error"]


def test_early_stopping_ends_training_and_resuming_does_not_go_on(
    train: Callable[..., Path], scans: Path, tmp_path: Path
) -> None:
    # A learning rate this small never improves the discretised Dice.
    given = {"dataset_dir": str(scans), "output_dir": str(tmp_path), "learning_rate": 1e-12, "max_epochs": 9}
    folder = train(**given, patience=2)
    history = (folder / "history.csv").read_text()
    assert len(history.splitlines()) - 1 == 3
    record = read_json(folder / "run.json")
    (folder / "run.json").write_text(json.dumps({**record, "status": "failed"}))
    assert train(**given, patience=2, resume=True) == folder
    assert (folder / "history.csv").read_text() == history
    assert read_json(folder / "run.json")["status"] == "done"


def test_trackers_log_epochs(bundle: Path, scans: Path, tmp_path: Path, tiny: dict[str, Any]) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    workflow = create_workflow(
        config_file=str(bundle / "train_course.yaml"),
        **tiny,
        dataset_dir=str(scans),
        output_dir=str(tmp_path / "runs"),
        mlflow="true",
    )
    workflow.run()
    folder = Path(workflow.parser.get_parsed_content("session").path)
    history = read_csv(folder / "history.csv")
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    logged = [event.value for event in events.Scalars("val_dice")]
    assert logged == pytest.approx([float(row["val_dice"]) for row in history], abs=1e-6)
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    (experiment,) = [found for found in client.search_experiments() if found.name == "thyroid"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["val_dice"] == pytest.approx(float(history[-1]["val_dice"]), abs=1e-6)


# --- other channels and sizes ---


@pytest.mark.parametrize(("channels", "image_size"), [(3, 32), (1, 37)])
def test_trains_in_colour_and_at_odd_sizes(
    train: Callable[..., Path], scans: Path, tmp_path: Path, channels: int, image_size: int
) -> None:
    folder = train(
        dataset_dir=str(scans), output_dir=str(tmp_path), max_epochs=1, channels=channels, image_size=image_size
    )
    assert len(read_csv(folder / "evaluations" / "scans-test" / "cases.csv")) > 0
    weights = torch.load(folder / "model.pt", weights_only=True)
    assert weights["conv_0.conv_0.conv.weight"].shape[1] == channels


# --- other networks ---


def test_menu_is_that_of_the_package(bundle: Path) -> None:
    menu = ConfigParser.load_config_file(bundle / "train_course.yaml")["networks"]
    assert menu.keys() == CONFIGS.keys()
    for name, entry in menu.items():
        of_the_bundle = {"_mode_": "callable", "in_channels": "@channels", "out_channels": "$len(@classes)"}
        assert entry == {**CONFIGS[name], **of_the_bundle}


def test_unpadded_network_is_scored_on_the_whole_image(train: Callable[..., Path], scans: Path, tmp_path: Path) -> None:
    settings = {"network": "unpadded_unet", "image_size": 190, "max_epochs": 1, "batch_size": 8}
    settings["networks::unpadded_unet::filters"] = [2, 2, 2, 2, 2]
    folder = train(dataset_dir=str(scans), output_dir=str(tmp_path), **settings)
    assert read_json(folder / "run.json")["network"] == "unpadded_unet"
    for row in read_csv(folder / "evaluations" / "scans-test" / "cases.csv"):
        assert (row["height"], row["width"]) == ("48", "64")
        marked = read_mask(folder / "evaluations" / "scans-test" / "predictions" / f"{row['case']}.png")
        # The network takes 188 of the 190 pixels and sees 4 of those; nothing may be marked far from the centre.
        assert not marked[:20].any()
        assert not marked[:, :28].any()
    with pytest.raises(RuntimeError) as refused:
        train(dataset_dir=str(scans), output_dir=str(tmp_path), **{**settings, "image_size": 150})
    assert "nearest valid sizes are 188" in str(_mistake(refused.value))


def test_a_pretrained_encoder_is_not_needed_again(
    train: Callable[..., Path], bundle: Path, scans: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "encoder.pth"
    encoder = EncoderUNet(encoder="mobilenet_v2", in_channels=3, out_channels=1).encoder
    torch.save(encoder.state_dict(), weights)
    folder = train(
        dataset_dir=str(scans),
        output_dir=str(tmp_path / "runs"),
        network="mobilenet_v2_unet",
        max_epochs=1,
        **{"networks::mobilenet_v2_unet::weights": str(weights)},
    )
    weights.unlink()
    scores = folder / "evaluations" / "scans-test" / "cases.csv"
    before = scores.read_text()
    create_workflow(config_file=str(bundle / "evaluate.yaml"), run_dir=str(folder), precision="float32").run()
    assert scores.read_text() == before


# --- orientation ---

HEIGHT, WIDTH = 60, 90


def _marked() -> tuple[np.ndarray, np.ndarray]:
    """An image whose bright part is an L near the upper left corner: no flip or transposition maps it to itself."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[6:42, 10:18] = True
    mask[34:42, 10:50] = True
    return np.where(mask, 230, 20).astype(np.uint8), mask


def _write(path: Path, image: np.ndarray) -> Path:
    if path.suffix == ".dcm":
        from pydicom.dataset import FileDataset, FileMetaDataset
        from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.Rows, dataset.Columns = image.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8
        dataset.HighBit, dataset.PixelRepresentation = 7, 0
        dataset.PixelData = image.tobytes()
        dataset.save_as(path)
    elif path.name.endswith(".nii.gz"):
        import nibabel

        volume = nibabel.Nifti1Image(image.T[:, :, None], np.diag([0.2, 0.1, 1, 1]))
        nibabel.save(volume, path)
    else:
        Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="session")
def thresholding(root: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose network marks what is brighter than half, and the dataset of marked images it belongs to."""
    base = tmp_path_factory.mktemp("orientation")
    image, mask = _marked()
    for part, count in (("trainval", 4), ("test", 1)):
        for kind, content in (("image", image), ("mask", mask * np.uint8(255))):
            (base / "marked" / f"{part}-{kind}").mkdir(parents=True)
            for number in range(count):
                # Different files, so that no image is in two parts.
                Image.fromarray(np.where(content < 30, content + number, content).astype(np.uint8)).save(
                    base / "marked" / f"{part}-{kind}" / f"{part}{number}.png"
                )
    pixelwise = {
        "_target_": "torch.nn.Conv2d",
        "_mode_": "callable",
        "in_channels": 1,
        "out_channels": 1,
        "kernel_size": 1,
    }
    settings = {key: value for key, value in tiny.items() if "::" not in key}
    workflow = create_workflow(
        config_file=str(root / "bundles" / "thyroid" / "train_course.yaml"),
        **{**settings, "image_size": 64, "max_epochs": 1, "networks::unet": pixelwise, "trackers": []},
        dataset_dir=str(base / "marked"),
        output_dir=str(base / "runs"),
    )
    workflow.run()
    folder = Path(workflow.parser.get_parsed_content("session").path)
    torch.save({"weight": torch.full((1, 1, 1, 1), 40.0), "bias": torch.tensor([-20.0])}, folder / "model.pt")
    record = read_json(folder / "run.json")
    (folder / "run.json").write_text(json.dumps({**record, "checkpoint_sha256": sha256_file(folder / "model.pt")}))
    return folder, base / "marked"


def _dice(one: np.ndarray, two: np.ndarray) -> float:
    return 2 * (one & two).sum() / (one.sum() + two.sum())


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".dcm", ".nii.gz"])
def test_masks_come_out_where_the_object_is(
    thresholding: tuple[Path, Path], bundle: Path, tmp_path: Path, suffix: str
) -> None:
    image, mask = _marked()
    source = _write(tmp_path / f"a scan.v2{suffix}", image)
    workflow = create_workflow(
        config_file=str(bundle / "inference.yaml"),
        run_dir=str(thresholding[0]),
        input=str(source),
        output_dir=str(tmp_path / "out"),
        precision="float32",
    )
    workflow.run()
    if suffix == ".nii.gz":
        import nibabel

        written = nibabel.load(tmp_path / "out" / "a scan.v2_mask.nii.gz")
        assert np.allclose(written.affine, nibabel.load(source).affine)
        found = np.asarray(written.dataobj).reshape(WIDTH, HEIGHT).T > 0
    else:
        picture = np.asarray(Image.open(tmp_path / "out" / "a scan.v2_mask.png"))
        assert set(np.unique(picture)) == {0, 255}
        found = picture > 0
    assert found.shape == mask.shape
    assert _dice(found, mask) > 0.97
    for wrong in (mask[::-1], mask[:, ::-1], mask[::-1, ::-1]):
        assert _dice(found, wrong) < 0.6
    drawn = np.asarray(Image.open(tmp_path / "out" / "a scan.v2_overlay.png"))
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    blue = (drawn == (86, 180, 233)).all(axis=2)
    assert blue.sum() > 50
    assert (blue & found).sum() == blue.sum()


def test_scores_of_the_thresholding_run_are_nearly_perfect(thresholding: tuple[Path, Path], bundle: Path) -> None:
    workflow = create_workflow(
        config_file=str(bundle / "evaluate.yaml"), run_dir=str(thresholding[0]), precision="float32"
    )
    workflow.run()
    (row,) = read_csv(thresholding[0] / "evaluations" / "marked-test" / "cases.csv")
    assert float(row["dice"]) > 0.97
    assert (row["height"], row["width"]) == (str(HEIGHT), str(WIDTH))


def test_augmentation_moves_image_and_label_alike(thresholding: tuple[Path, Path]) -> None:
    config = yaml.safe_load((thresholding[0] / "config.yaml").read_text())
    dataset = ConfigParser({**config, "image_size": 96}).get_parsed_content("train::dataset")
    positions = []
    for epoch in range(6):
        dataset.set_epoch(epoch)
        item = dataset[0]
        image, label = item["image"][0].numpy(), item["label"][0].numpy() > 0.5
        # Brightness may change by a fifth, the border is filled with zeros: half of the object's grey still divides.
        assert _dice(image > image.max() / 2, label) > 0.9
        positions.append(tuple(np.argwhere(label).mean(axis=0)))
    assert len(set(positions)) == 6, "nothing was augmented"


# --- real images ---


@pytest.mark.slow
def test_trains_evaluates_and_infers_on_real_images(
    train: Callable[..., Path], bundle: Path, data_dir: Path, tmp_path: Path
) -> None:
    folder = train(
        dataset_dir=str(data_dir / "thyroid"), output_dir=str(tmp_path), image_size=32, max_epochs=1, batch_size=32
    )
    rows = read_csv(folder / "evaluations" / "thyroid-test" / "cases.csv")
    assert len(rows) == 95
    assert all(math.isfinite(float(row["dice"])) for row in rows)
    workflow = create_workflow(
        config_file=str(bundle / "inference.yaml"),
        run_dir=str(folder),
        input=str(data_dir / "thyroid" / "test-image"),
        output_dir=str(tmp_path / "out"),
    )
    workflow.run()
    for path in (data_dir / "thyroid" / "test-image").iterdir():
        assert Image.open(tmp_path / "out" / f"{path.stem}_mask.png").size == Image.open(path).size


def test_a_training_ends_with_a_command_that_works(
    train: Callable[..., Path],
    scans: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with caplog.at_level("INFO"):
        train(dataset_dir=str(scans), output_dir=str(tmp_path / "my runs"), max_epochs=1)
    (line,) = [line for line in caplog.text.splitlines() if "IMAGE_OR_FOLDER" in line]
    places = {"IMAGE_OR_FOLDER": str(scans / "test-image"), "DIR": str(tmp_path / "masks")}
    words = [places.get(word, word) for word in shlex.split(line)]
    assert words[0] == "monai-thyroid"
    assert cli.main(words[1:]) == 0
    assert list((tmp_path / "masks").rglob("*_mask.png"))
