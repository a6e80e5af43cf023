"""MONAI Label's real server with our app, and its own client: annotate, train, propose; a folder, and Orthanc."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
import requests
from made_dicom import content, dicom_image
from made_label import VARIABLE, LabelError, LabelServer, label_server
from made_orthanc import TOOLS, Orthanc, orthanc, until
from made_trained import made_trained, marker
from PIL import Image

from monai_thyroid.deploy.label_app import prepare
from monai_thyroid.deploy.label_app.place import alive
from monai_thyroid.deploy.label_app.web import WebStudies, web_client
from monai_thyroid.deploy.pack import pack
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor
from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import read_raster

pytestmark = pytest.mark.slow

RUINOUS = 100.0
"""A learning rate."""


@pytest.fixture(scope="session")
def env() -> Path:
    """The environment with MONAI Label: a skip where it was not made, a failure where it must have been (CI)."""
    path = Path(os.environ.get(VARIABLE, ""))
    if not os.environ.get(VARIABLE) or not (path / "bin" / "monai-thyroid").is_file():
        reason = f"no environment with MONAI Label ({VARIABLE}; monai-thyroid label --make-env DIR makes one)"
        if os.environ.get("MONAI_THYROID_PROGRAMS_REQUIRED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path.resolve()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed network that marks what is bright, and that its recipe would train to ruin."""
    folder = tmp_path_factory.mktemp("model")
    run = made_trained(folder / "run", bright=True, image_size=32, patience=10**6, learning_rate=RUINOUS)
    return pack([run], output=folder / "bright", report=False).path


def scan(number: int) -> np.ndarray:
    """The marker on a ground of its own, so that no two are the same."""
    pixels = marker(72, 96)
    pixels[60:70, 4 * number : 4 * number + 3] = 180
    return pixels


@pytest.fixture(scope="session")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    pixels = marker()
    Image.fromarray(pixels).save(folder / "0_grey.png")
    Image.fromarray(pixels).save(folder / "0_lossy.jpg", quality=95, dpi=(72, 72))
    Image.fromarray(pixels.astype(np.uint16) * 257).save(folder / "0_sixteen.png")
    Image.fromarray(pixels).save(folder / "0_bitmap.bmp")
    (folder / "deep").mkdir()
    (folder / "deep" / "0_object.dcm").write_bytes(content(dicom_image(np.repeat(pixels[..., None], 3, axis=2))))
    for patient in range(1, 8):
        Image.fromarray(scan(patient)).save(folder / f"{patient}_1.png")
    return folder


@pytest.fixture(scope="session")
def server(env: Path, model: Path, studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelServer]:
    options = ("--model", model, "--studies", studies, "--groups-from", r"(\d+)_")
    with label_server(env, tmp_path_factory.mktemp("label"), *options) as started:
        yield started


def expected(model: Path, image: Path) -> np.ndarray:
    return Predictor(model, runtime="torch-float32")(read_raster(image)).mask


def png(path: str) -> np.ndarray:
    return np.array(Image.open(path))


FORMATS = {"0_grey": "0_grey.png", "0_lossy": "0_lossy.jpg", "0_sixteen": "0_sixteen.png", "0_bitmap": "0_bitmap.bmp"}


def test_it_says_what_it_has(server: LabelServer) -> None:
    info = server.info()
    assert info["labels"] == ["nodule"]
    assert info["label_info"] == [{"name": "nodule", "idx": 1, "color": [86, 180, 233]}]
    assert info["models"]["bright"]["labels"] == {"nodule": 1}
    assert info["models"]["bright"]["type"] == "segmentation"
    assert set(info["strategies"]) == {"uncertain", "random", "first"}
    assert set(info["scoring"]) == {"uncertainty", "dice"}
    assert set(info["trainers"]) == {"bright"}
    assert info["datastore"]["total"] == 12
    rows = {row["id"]: row for row in read_csv(server.place / "images.csv")}
    assert rows["deep-0_object"]["source"].endswith("deep/0_object.dcm")
    assert rows["deep-0_object"]["group"]
    assert not requests.get(f"{server.url}/info/", headers={"Origin": "http://evil.example"}).headers.get(
        "access-control-allow-origin"
    )


@pytest.mark.parametrize("image", [*FORMATS, "deep-0_object"])
def test_masks_are_those_of_the_model_pixel_by_pixel(
    server: LabelServer, model: Path, studies: Path, image: str
) -> None:
    file, told = server.infer("bright", image, {})
    mask = png(file)
    source = studies / FORMATS.get(image, "deep/0_object.dcm")
    assert file.endswith(".png")
    assert mask.shape == marker().shape
    np.testing.assert_array_equal(mask, expected(model, source))
    assert mask[10, 20] == 1  # the marker's block is near the top left, and nothing is at the bottom right
    assert not mask[-10:, -10:].any()
    assert told["label_names"] == {"nodule": 1}


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_masks_lie_where_viewers_show_the_image(server: LabelServer, model: Path, studies: Path, suffix: str) -> None:
    """As 3D Slicer asks (plugins/slicer/MONAILabel/MONAILabel.py, `infer`): directions are those of a PNG in ITK."""
    file, _ = server.infer("bright", "0_lossy", {"result_extension": suffix, "result_dtype": "uint8"})
    mask = expected(model, studies / "0_lossy.jpg")
    if suffix == ".nrrd":
        nrrd = pytest.importorskip("nrrd")
        volume, header = nrrd.read(file)
        assert header["space"] == "left-posterior-superior"
        np.testing.assert_array_equal(header["space directions"], np.eye(3))
        np.testing.assert_array_equal(header["space origin"], 0)
        assert header["encoding"] == "raw"  # as OHIF reads it
    else:
        loaded = nibabel.load(file)
        volume = np.asarray(loaded.dataobj)
        np.testing.assert_array_equal(loaded.affine, np.diag([-1, -1, 1, 1]))
    np.testing.assert_array_equal(volume[..., 0].T, mask)


def test_outlines_are_told_as_cvat_asks(server: LabelServer, tmp_path: Path) -> None:
    """plugins/cvat/detector.py, `handler`: a picture is sent along, and polygons are wanted."""
    Image.fromarray(marker()).save(tmp_path / "frame.png")
    file, told = server.infer("bright", "", {"output": "json"}, file=str(tmp_path / "frame.png"))
    assert file is None
    (element,) = json.loads(told)["annotations"][0]["annotation"]["elements"]
    assert element["label"] == "nodule"
    assert len(element["contours"]) == 2
    x, y = np.concatenate(element["contours"]).max(axis=0)
    assert x < 60  # of 110
    assert y < 60  # of 75


def test_labels_are_saved_as_clients_send_them(server: LabelServer, tmp_path: Path) -> None:
    truth = (scan(1) > 127).astype(np.uint8)
    # 3D Slicer's own default; its labelmap lies where its image does.
    nibabel.save(nibabel.Nifti1Image(truth.T[..., None], np.diag([-1.0, -1, 1, 1])), tmp_path / "one.nii.gz")
    told = {"label_info": [{"name": "nodule", "idx": 1}], "model": "bright"}
    server.save_label("1_1", str(tmp_path / "one.nii.gz"), params=told)
    np.testing.assert_array_equal(png(server.download_label("1_1", "final")), truth)
    # The same, turned, as its header says.
    nibabel.save(
        nibabel.Nifti1Image(
            truth[::-1, ::-1].T[..., None], np.array([[1.0, 0, 0, -95], [0, 1, 0, -71], [0, 0, 1, 0], [0, 0, 0, 1]])
        ),
        tmp_path / "turned.nii.gz",
    )
    server.save_label("1_1", str(tmp_path / "turned.nii.gz"), params=told)
    np.testing.assert_array_equal(png(server.download_label("1_1", "final")), truth)
    # plugins/ohifv3/extensions/monai-label/src/services/MonaiLabelClient.js, `save_label`.
    (tmp_path / "label.bin").write_bytes(truth.tobytes())
    server.save_label("1_1", str(tmp_path / "label.bin"), params=told)
    np.testing.assert_array_equal(png(server.download_label("1_1", "final")), truth)
    Image.fromarray(truth * 255).save(tmp_path / "label.png")
    server.save_label("1_1", str(tmp_path / "label.png"))
    np.testing.assert_array_equal(png(server.download_label("1_1", "final")), truth)


def test_what_is_wrong_is_told_in_a_sentence(server: LabelServer, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "small.png")
    with pytest.raises(LabelError, match=r"400.*is 20 x 10 \(width x height\) but the image 96 x 72"):
        server.save_label("2_1", str(tmp_path / "small.png"))
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(LabelError, match=r"400.*cannot be read as an image"):
        server.save_label("2_1", str(tmp_path / "broken.png"))
    with pytest.raises(LabelError, match=r"400.*cannot be read as an image"):
        server.infer("bright", "", {}, file=str(tmp_path / "broken.png"))
    with pytest.raises(LabelError, match=r"400.*there is none of that id"):
        server.infer("bright", "absent", {})
    with pytest.raises(LabelError, match=r"400.*is no image of the studies"):
        server.infer("bright", "/etc/hostname", {})
    with pytest.raises(LabelError, match=r"404.*choose one of bright"):
        server.infer("dark", "1_1", {})
    told = requests.post(f"{server.url}/activelearning/best", json={}, timeout=60)
    assert (told.status_code, "no such strategy 'best'" in told.text) == (400, True)
    options = {"params": {"image": "1_1"}, "timeout": 60}
    told = requests.post(f"{server.url}/infer/bright", data={"params": "{"}, **options)
    assert (told.status_code, "params: is no JSON" in told.text) == (400, True)
    told = requests.post(f"{server.url}/infer/bright", data={"params": "[1]"}, **options)
    assert (told.status_code, "the server's log says more" in told.text) == (500, True)
    Image.fromarray(np.zeros((72, 96), np.uint8)).save(tmp_path / "empty.png")
    with pytest.raises(LabelError, match=r"400.*give a word"):
        server.save_label("2_1", str(tmp_path / "empty.png"), tag="../../outside")
    assert "2_1" in server.datastore()["objects"]
    assert not server.datastore()["objects"]["2_1"]["labels"]


def test_the_next_image_by_each_strategy(server: LabelServer) -> None:
    assert server.next_sample("first", {})["id"] == "0_bitmap"
    objects = set(server.datastore()["objects"])
    labelled = {name for name, one in server.datastore()["objects"].items() if "final" in one["labels"]}
    assert server.next_sample("random", {})["id"] in objects - labelled
    least = server.next_sample("uncertain", {})
    assert least["id"] in objects - labelled
    assert least["scored"] == least["unlabeled"] == len(objects - labelled)
    scores = read_json(server.place / "state" / "uncertainty-bright.json")["scores"]
    assert scores[least["id"]] == max(scores.values())


@pytest.fixture(scope="module")
def annotated(server: LabelServer, tmp_path_factory: pytest.TempPathFactory) -> LabelServer:
    """With labels of seven patients."""
    folder = tmp_path_factory.mktemp("labels")
    for patient in range(1, 8):
        truth = scan(patient) > 200
        Image.fromarray(truth.astype(np.uint8)).save(folder / "label.png")
        server.save_label(f"{patient}_1", str(folder / "label.png"))
    return server


@pytest.mark.usefixtures("annotated")
def test_many_at_once_and_their_scores(server: LabelServer) -> None:
    options = {"images": "labeled", "run_sync": "true"}
    done = requests.post(f"{server.url}/batch/infer/bright", params=options, json={}, timeout=120)
    assert done.ok, done.text
    assert len(done.json()) == 7
    assert not [one for one in done.json().values() if "error" in one]
    scores = requests.post(f"{server.url}/scoring/dice", params={"run_sync": "true"}, timeout=120).json()
    assert len(scores["cases"]) == 7
    assert scores["classes"]["nodule"]["n_cases"] == 7
    assert all(0 <= one["nodule"] <= 1 for one in scores["cases"].values())


@pytest.mark.usefixtures("annotated")
def test_what_a_training_made_worse_is_applied_only_if_that_is_wanted(server: LabelServer) -> None:
    before, told_before = server.infer("bright", "0_grey", {})
    assert server.train_start("bright", {"max_epochs": 1})["status"] in ("SUBMITTED", "RUNNING")
    task = server.trained()
    assert task["status"] == "DONE", task
    stats = server.info()["train_stats"]["bright"]
    assert stats["status"] == "done"
    assert 0 <= stats["dice_after"] < stats["dice_before"] <= 1
    assert stats["taken_over"] is False
    assert stats["reason"].endswith("worse, so the model should stay")
    assert "1 held-out image of 1 patient" in stats["reason"]
    assert stats["best_metric"] == stats["dice_before"]
    assert stats["groups"] == {"train": 5, "validation": 1, "test": 1}
    (run,) = stats["runs"]
    assert (Path(run) / "model.pt").is_file()
    same, told_same = server.infer("bright", "0_grey", {})
    assert told_same["weights_sha256"] == told_before["weights_sha256"]
    np.testing.assert_array_equal(png(same), png(before))
    assert not list((server.place / "models").iterdir())

    # That training is there, so it is not done again.
    server.train_start("bright", {"max_epochs": 1, "take_worse": True})
    assert server.trained()["status"] == "DONE"
    stats = server.info()["train_stats"]["bright"]
    assert (stats["taken_over"], stats["runs"]) == (True, [run])
    after, told_after = server.infer("bright", "0_grey", {})
    assert told_after["weights_sha256"] != told_before["weights_sha256"]
    taken = server.place / "models" / "bright-1"
    np.testing.assert_array_equal(png(after), expected(taken, server.place / "studies" / "0_grey.png"))
    assert png(before).shape == png(after).shape


@pytest.mark.usefixtures("annotated")
def test_a_training_that_is_stopped_leaves_the_model(server: LabelServer) -> None:
    _, before = server.infer("bright", "0_grey", {})
    server.train_start("bright", {"max_epochs": 5000})
    until(lambda: server.info()["train_stats"]["bright"].get("status") == "running", "it trains", seconds=400)
    server.train_stop()
    assert server.trained()["status"] == "STOPPED"

    def stopped() -> Any:
        stats = server.info()["train_stats"]["bright"]
        return stats["status"] == "stopped" and stats

    assert "the model is as it was" in until(stopped, "the training is stopped")["reason"]
    _, after = server.infer("bright", "0_grey", {})
    assert after["weights_sha256"] == before["weights_sha256"]


@pytest.mark.usefixtures("annotated")
def test_it_goes_on_after_a_death_in_the_middle_of_a_training(server: LabelServer) -> None:
    _, before = server.infer("bright", "0_grey", {})
    server.train_start("bright", {"max_epochs": 5000})

    def running() -> Any:
        stats = server.info()["train_stats"]["bright"]
        return stats.get("status") == "running" and stats["epoch"] and stats["process"]

    process = until(running, "it trains", seconds=400)
    server.stop(signal.SIGKILL)
    until(lambda: not alive(process), "the training ends with the server")
    server.start()
    _, after = server.infer("bright", "0_grey", {})
    assert after["weights_sha256"] == before["weights_sha256"]
    info = server.info()
    assert info["datastore"]["completed"] == 7
    assert info["train_stats"]["bright"]["status"] == "stopped"
    assert "as trained here" in server.log.read_text()


def test_a_port_in_use_is_told(env: Path, model: Path, server: LabelServer, studies: Path, tmp_path: Path) -> None:
    other = LabelServer(env, tmp_path, "--model", model, "--studies", studies)
    other.arguments += ["--port", str(server.port)]
    done = other.run()
    assert done.returncode == 1
    assert f"port {server.port}: cannot be had on 127.0.0.1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not other.place.exists()


@pytest.fixture(scope="module")
def pacs(program: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program(TOOLS[0])
    with orthanc(tmp_path_factory.mktemp("pacs") / "orthanc", node_port=1) as started:
        yield started


def uploaded(pacs: Orthanc, pixels: np.ndarray, *, number: int, series: str, **tags: Any) -> None:
    dataset = dicom_image(pixels, **tags)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", series
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    pacs.upload(content(dataset))


def test_a_study_in_orthanc(env: Path, model: Path, pacs: Orthanc, tmp_path: Path) -> None:
    """As OHIF works (plugins/ohifv3/extensions/monai-label): images by series, NRRD back, bytes in."""
    web = f"{pacs.url}/dicom-web"
    uploaded(pacs, np.zeros((20, 30), np.uint8), number=1, series="1.2.3.9")
    uploaded(pacs, np.zeros((20, 30), np.uint8), number=2, series="1.2.3.9")
    with pytest.raises(UserError) as told:
        prepare([model], studies=web, output=tmp_path / "refused", tell=lambda line: None)
    assert "holds no series of one image" in told.value.problems[0]
    assert told.value.problems[1] == "series 1.2.3.9: holds several images; only series of one image are labelled"

    uploaded(pacs, np.repeat(marker()[..., None], 3, axis=2), number=1, series="1.2.3.1")
    with label_server(env, tmp_path, "--model", model, "--studies", web) as server:
        assert "left out: series 1.2.3.9: holds several images" in server.log.read_text()
        sample = server.next_sample("first", {})
        assert sample["id"] == sample["SeriesInstanceUID"] == "1.2.3.1"
        options = {"result_extension": ".png", "restore_label_idx": False}
        file, _ = server.infer("bright", "1.2.3.1", options)
        mask = png(file)
        (tmp_path / "image.dcm").write_bytes(pacs.file(pacs.instances("US")[0]["ID"]))
        assert mask[10, 20] == 1
        assert not mask[-10:, -10:].any()
        with pytest.raises(LabelError, match=r"400.*several images"):
            server.infer("bright", "1.2.3.9", {})
        mask[30:32, 40:50] = 1  # corrected
        (tmp_path / "label.bin").write_bytes(mask.tobytes())
        server.save_label("1.2.3.1", str(tmp_path / "label.bin"), params={"label_info": [{"name": "nodule", "idx": 1}]})
        assert server.info()["datastore"]["completed"] == 1
        assert server.next_sample("first", {}) == {}
    (found,) = pacs.instances("SEG")
    (tmp_path / "seg.dcm").write_bytes(pacs.file(found["ID"]))
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.StudyInstanceUID == "1.2.3"
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.1"
    assert seg.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"
    assert seg.SegmentSequence[0].SegmentLabel == "nodule"
    np.testing.assert_array_equal(np.asarray(seg.pixel_array).reshape(mask.shape), mask)
    # A server elsewhere finds the label too.
    studies = WebStudies(web_client(web), filters={}, classes=["nodule"])
    ((series, drawn),) = studies.drawn(tmp_path / "elsewhere", but=[]).items()
    assert series == "1.2.3.1"
    np.testing.assert_array_equal(drawn, mask)
    assert studies.drawn(tmp_path / "elsewhere", but=["1.2.3.1"]) == {}
