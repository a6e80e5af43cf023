"""What the server of MONAI Label stands on, without it: images taken in, masks of clients, models taken over."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from made_dicom import content, dicom_image
from made_trained import made_trained, marker
from PIL import Image

from monai_thyroid.cli import main
from monai_thyroid.deploy.dicom import annotation, coded_class, read_source
from monai_thyroid.deploy.label_app import check_port, make_environment, prepare
from monai_thyroid.deploy.label_app.environment import REQUIREMENTS
from monai_thyroid.deploy.label_app.labels import contours, read_label, write_result
from monai_thyroid.deploy.label_app.place import Place, alive
from monai_thyroid.deploy.label_app.studies import group_of_patient, prepare_images
from monai_thyroid.deploy.pack import check_sums, pack
from monai_thyroid.errors import UserError
from monai_thyroid.files import locked, read_csv
from monai_thyroid.images import read_foreign_mask, read_raster

SHAPE = (75, 110)
CLASSES = ["gland", "nodule"]


def save_scan(path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(marker(*SHAPE)).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "images"


def taken_in(folder: Path, tmp_path: Path) -> dict[str, Path]:
    prepare_images(folder, tmp_path / "studies", tmp_path / "images.csv")
    return {path.name: path for path in (tmp_path / "studies").iterdir()}


def test_pictures_stay_what_they_are_and_others_become_png(folder: Path, tmp_path: Path) -> None:
    save_scan(folder / "a.png")
    save_scan(folder / "deep" / "er" / "b.JPEG", quality=95)
    save_scan(folder / "c.bmp")
    save_scan(folder / "d.tiff")
    nibabel.save(nibabel.Nifti1Image(marker(*SHAPE).T, np.eye(4)), folder / "e.nii.gz")
    save_scan(folder / "labels" / "final" / "a.png")  # of an earlier server
    found = taken_in(folder, tmp_path)
    assert set(found) == {"a.png", "deep-er-b.jpg", "c.png", "d.png", "e.nii.gz"}
    assert found["a.png"].read_bytes() == (folder / "a.png").read_bytes()
    for copy in (found["c.png"], found["d.png"]):
        np.testing.assert_array_equal(read_raster(copy).pixels, marker(*SHAPE))
    rows = {row["id"]: row for row in read_csv(tmp_path / "images.csv")}
    assert rows["deep-er-b"]["source"] == str(folder / "deep" / "er" / "b.JPEG")


def test_a_picture_without_dots_per_inch_has_the_same_pixels(folder: Path, tmp_path: Path) -> None:
    save_scan(folder / "a.jpg", dpi=(72, 72), quality=95)
    copy = taken_in(folder, tmp_path)["a.jpg"]
    assert "dpi" in Image.open(folder / "a.jpg").info
    assert Image.open(copy).info.get("jfif_unit") == 0
    np.testing.assert_array_equal(read_raster(copy).pixels, read_raster(folder / "a.jpg").pixels)


def test_a_picture_that_its_exif_turns_lies_as_it_is_shown(folder: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save_scan(folder / "a.jpg", exif=exif, quality=95)
    (copy,) = taken_in(folder, tmp_path).values()
    assert copy.suffix == ".png"
    assert Image.open(copy).size == SHAPE


def test_dicom_tells_the_patient_without_naming_it(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    frames = np.stack([np.repeat((marker(*SHAPE) // (1 + n))[..., None], 3, axis=2) for n in range(2)])
    report = dicom_image(marker(*SHAPE))
    report.SOPClassUID, report.Modality = "1.2.840.10008.5.1.4.1.1.88.11", "SR"
    (folder / "IM2").write_bytes(content(report))
    (folder / "IM1").write_bytes(content(dicom_image(frames, kind="US several")))
    found = taken_in(folder, tmp_path)
    assert set(found) == {"IM1_frame1.png", "IM1_frame2.png"}
    np.testing.assert_array_equal(read_raster(found["IM1_frame2.png"]).pixels[..., 0], marker(*SHAPE) // 2)
    rows = read_csv(tmp_path / "images.csv")
    assert [row["frame"] for row in rows] == ["1", "2"]
    assert {row["group"] for row in rows} == {group_of_patient("P-17")}
    assert "P-17" not in (tmp_path / "images.csv").read_text()


def test_what_comes_later_is_taken_in_and_what_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    save_scan(folder / "a.png")
    taken_in(folder, tmp_path)
    Image.fromarray(marker(40, 50)).save(folder / "b.png")
    found = prepare_images(folder, tmp_path / "studies", tmp_path / "images.csv")
    assert (found.images, found.new) == (2, 1)
    (folder / "b.png").rename(folder / "c.png")
    Image.fromarray(marker(41, 50)).save(folder / "b.bmp")
    with pytest.raises(UserError, match=r"b\.bmp: would be called b, as .*b\.png is"):
        taken_in(folder, tmp_path)
    (folder / "b.bmp").unlink()
    (folder / "c.png").rename(folder / "b.png")
    Image.fromarray(marker(41, 50)).save(folder / "b.png")
    with pytest.raises(UserError, match="has changed since it was taken in"):
        taken_in(folder, tmp_path)


def test_a_slice_of_a_volume_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    volume = dicom_image(marker(*SHAPE))
    volume.SOPClassUID, volume.Modality = "1.2.840.10008.5.1.4.1.1.2", "CT"
    (folder / "IM1").write_bytes(content(volume))
    with pytest.raises(UserError, match="belongs to a 3-D series"):
        taken_in(folder, tmp_path)


def test_all_that_is_wrong_with_a_folder_is_told(folder: Path, tmp_path: Path) -> None:
    folder.mkdir()
    with pytest.raises(UserError, match="holds no image"):
        taken_in(folder, tmp_path)
    save_scan(folder / "a.png")
    save_scan(folder / "a.bmp")
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UserError) as told:
        taken_in(folder, tmp_path)
    assert len(told.value.problems) == 2
    assert "would be called a" in str(told.value)
    assert "broken.png: cannot be read as an image" in str(told.value)
    assert not (tmp_path / "images.csv").exists()
    for name in ("a.bmp", "broken.png"):
        (folder / name).unlink()
    (tmp_path / "studies" / "broken.png").touch()
    assert set(taken_in(folder, tmp_path)) == {"a.png"}


def truth() -> np.ndarray:
    labels = (marker(*SHAPE) > 127).astype(np.uint8)
    labels[40:] *= 2
    return labels


@pytest.mark.parametrize("suffix", [".png", ".nrrd", ".nii.gz"])
@pytest.mark.parametrize("image", ["a.png", "a.nii.gz"])
def test_a_result_is_read_again_as_it_was(tmp_path: Path, suffix: str, image: str) -> None:
    affine = np.array([[0, 0.5, 0, 3], [-0.25, 0, 0, 4], [0, 0, 1, 5], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(marker(*SHAPE).T, affine), tmp_path / "a.nii.gz")
    path = tmp_path / f"result{suffix}"
    write_result(truth(), path, image=tmp_path / image)
    found = read_label(path, image=tmp_path / image, shape=SHAPE, classes=CLASSES)
    np.testing.assert_array_equal(found, truth())


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_a_label_that_lies_mirrored_by_its_header_is_turned(tmp_path: Path, suffix: str) -> None:
    mirrored = np.array([[1.0, 0, 0, -109], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(marker(*SHAPE).T, mirrored), tmp_path / "as.nii.gz")
    path = tmp_path / f"label{suffix}"
    write_result(truth()[:, ::-1], path, image=tmp_path / "as.nii.gz")
    found = read_label(path, image=tmp_path / "a.png", shape=SHAPE, classes=CLASSES)
    np.testing.assert_array_equal(found, truth())


@pytest.mark.parametrize(
    ("segments", "values"),
    [
        ([{"name": "Nodule", "idx": 1}, {"name": "gland", "idx": 2}], {1: 2, 2: 1}),
        ([{"name": "nodule", "id": 3}], {3: 2}),
        (None, {1: 1, 2: 2}),
    ],
)
def test_a_client_s_numbers_become_the_classes(
    tmp_path: Path, segments: Sequence[dict[str, Any]] | None, values: dict[int, int]
) -> None:
    sent, wanted = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for row, (value, number) in enumerate(values.items()):
        sent[row], wanted[row] = value, number
    (tmp_path / "label.bin").write_bytes(sent.tobytes())
    found = read_label(tmp_path / "label.bin", image="a.png", shape=SHAPE, classes=CLASSES, segments=segments)
    np.testing.assert_array_equal(found, wanted)


def test_labels_that_are_none_are_refused(tmp_path: Path) -> None:
    def told(name: str, **options: Any) -> str:
        with pytest.raises(UserError) as error:
            read_label(tmp_path / name, **{"image": "a.png", "shape": SHAPE, "classes": CLASSES, **options})
        return str(error.value)

    (tmp_path / "short.bin").write_bytes(bytes(7))
    assert "holds 7 bytes" in told("short.bin")
    (tmp_path / "label.bin").write_bytes(truth().tobytes())
    assert "segment 'cyst' is none of the classes gland, nodule" in told(
        "label.bin", segments=[{"name": "cyst", "idx": 1}, {"name": "nodule", "idx": 2}]
    )
    assert "which its label_info does not name" in told("label.bin", segments=[{"name": "gland", "idx": 1}])
    assert "holds 2; 0 is background and the 1 classes" in told("label.bin", classes=["nodule"])
    (tmp_path / "no.nrrd").write_bytes(b"nothing")
    assert "cannot be read as NRRD" in told("no.nrrd")
    (tmp_path / "no.nii.gz").write_bytes(b"nothing")
    assert "cannot be read as NIfTI" in told("no.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.zeros((*SHAPE[::-1], 2), np.uint8), np.eye(4)), tmp_path / "two.nii.gz")
    assert "give one slice" in told("two.nii.gz")
    nibabel.save(nibabel.Nifti1Image(truth().T[..., None], np.diag([1.0, 1, 1, 1])), tmp_path / "away.nii.gz")
    assert "lies elsewhere in the patient than the image" in told("away.nii.gz")
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "small.png")
    assert "is 6 x 4 (width x height) but the image 110 x 75" in told("small.png")


def test_outlines_enclose_what_is_marked() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[10:20, 30:60] = 2
    (element,) = contours(mask, CLASSES)
    assert element["label"] == "nodule"
    ((*points,),) = element["contours"]
    x, y = np.array(points).T
    assert (x.min(), x.max(), y.min(), y.max()) == (29.5, 59.5, 9.5, 19.5)


def test_an_annotation_is_a_segmentation_by_hand(tmp_path: Path) -> None:
    source = read_source(content(dicom_image(marker(*SHAPE))))
    classes = [coded_class(name) for name in CLASSES]
    one, other = (annotation(source, truth(), classes=classes) for _ in range(2))
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert [item.SegmentAlgorithmType for item in one.SegmentSequence] == ["MANUAL"] * 2
    assert "SegmentAlgorithmName" not in one.SegmentSequence[0]
    one.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(read_foreign_mask(tmp_path / "seg.dcm", classes=CLASSES).labels, truth())
    empty = annotation(source, np.zeros(SHAPE, np.uint8), classes=classes)
    assert empty.NumberOfFrames == 1
    assert not any(empty.PixelData)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trained(tmp_path_factory.mktemp("runs") / "run", bright=True)


def test_a_model_is_taken_over_until_another_is_given(run: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "label")
    place.settle([run], studies="/studies")
    (name,) = place.settings["given"]
    assert name == "thyroid_marker_seed-0"
    assert place.model(name) == run
    better = place.next_model(name)
    better.mkdir()
    place.take(name, better)
    assert Place(place.path).model(name) == better
    place.settle([run], studies="/studies")
    assert place.model(name) == better
    other = made_trained(tmp_path / "run", bright=True, seed=0, threshold=0.4)
    better.rmdir()
    with pytest.raises(UserError, match="to which it was trained, is lost"):
        place.model(name)
    with pytest.raises(UserError, match="is that of the studies /studies"):
        place.settle([run], studies="/others")
    with pytest.raises(UserError, match="is called thyroid_marker_seed-0, as"):
        place.settle([run, other], studies="/studies")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").touch()
    with pytest.raises(UserError, match="holds something else"):
        Place(tmp_path / "else").settle([run], studies="/studies")


def test_patients_that_dicom_tells_are_found_in_the_names(run: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "label")
    place.settle([run], studies="/studies")
    pairs = [{"image": str(save_scan(tmp_path / f"{name}.png")), "label": f"{name}_mask.png"} for name in "ab"]
    assert place.to_train(pairs, {})[2] is None
    patient = group_of_patient("P-17")
    images, labels, pattern = place.to_train(pairs, {"a": patient})
    assert [image.name[-7:] for image in images] == ["--a.png", "--b.png"]
    assert images[0].name.startswith(patient)
    assert images[0].resolve() == (tmp_path / "a.png").resolve()
    assert [label.name for label in labels] == ["a_mask.png", "b_mask.png"]
    assert pattern is not None


def test_uncertainties_are_of_certain_weights(run: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "label")
    place.settle([run], studies="/studies")
    place.add_uncertainties("one", {"a": 0.5}, weights="1")
    place.add_uncertainties("one", {"b": 0.25}, weights="1")
    assert place.uncertainties("one", weights="1") == {"a": 0.5, "b": 0.25}
    assert place.uncertainties("one", weights="2") == {}


def test_a_process_that_has_ended_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    assert alive(os.getpid())
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody has asked how
    assert not alive(process.pid)
    process.wait()
    assert not alive(process.pid)


def test_a_bundle_is_held_against_its_sums(run: Path, folder: Path, tmp_path: Path) -> None:
    packed = pack([run], output=tmp_path / "bright", report=False).path
    check_sums(packed)
    save_scan(folder / "1_a.png")
    (packed / "LICENSE").write_text("another")
    (packed / "docs" / "README.md").unlink()
    with pytest.raises(UserError) as told:
        prepare([packed], studies=str(folder), output=tmp_path / "label", tell=lambda line: None)
    assert len(told.value.problems) == 2
    assert "LICENSE: is not what was packed" in str(told.value)
    assert "README.md: is lost" in str(told.value)
    assert not (tmp_path / "label").exists()


def test_what_a_server_is_prepared_with_is_checked(run: Path, folder: Path, tmp_path: Path) -> None:
    save_scan(folder / "1_a.png")
    told: list[str] = []
    prepare([run], studies=str(folder), output=tmp_path / "label", groups_from=r"^(\d+)_", tell=told.append)
    assert told[0].startswith("1 images, 1 of them new")
    with pytest.raises(UserError, match="finds no patient in 1_a"):
        prepare([run], studies=str(folder), output=tmp_path / "label", groups_from="x", tell=told.append)
    with pytest.raises(UserError) as error:
        prepare([run], studies=str(tmp_path / "no"), output="label", groups_from="(", epochs=0, tell=told.append)
    assert len(error.value.problems) == 3
    with locked(tmp_path / "label"), pytest.raises(UserError, match="another server works in it"):
        prepare([run], studies=str(folder), output=tmp_path / "label", tell=told.append)
    with pytest.raises(UserError, match="lies in the folder of studies"):
        prepare([run], studies=str(folder), output=folder / "label", tell=told.append)
    with pytest.raises(UserError, match="is not a run folder"):
        prepare([tmp_path], studies=str(folder), output=tmp_path / "other", tell=told.append)


def test_a_start_that_is_refused_leaves_nothing(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**options: Any) -> str:
        with pytest.raises(UserError) as error:
            prepare([run], **{"studies": str(folder), "output": tmp_path / "label", "tell": print, **options})
        return str(error.value)

    folder.mkdir()
    assert "holds no image" in told()
    save_scan(folder / "deep" / ("x" * 190) / f"{'y' * 190}.png")
    assert "is longer than 200 bytes; rename it" in told()
    (tmp_path / "file").touch()
    assert "is a file, or lies in one" in told(output=tmp_path / "file" / "label")
    assert "cannot be reached" in told(studies="http://127.0.0.1:9/dicom-web")
    monkeypatch.setenv("MONAI_LABEL_DICOMWEB_SEARCH_FILTER", "[1]")
    assert "give names and values" in told(studies="http://127.0.0.1:9/dicom-web")
    # None of these studies is what the folder is of now.
    assert not any((tmp_path / "label").iterdir())
    (tmp_path / "label" / "label.json").write_text("[]")
    assert "label.json is none that was written here" in told()


def test_the_command_says_what_it_lacks(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["label", "--model", str(run)]) == 1
    assert "give --model MODEL and --studies" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["label", "--model", str(run), "--studies", str(tmp_path)]) == 1
    assert "--make-env DIR" in capsys.readouterr().err
    with pytest.raises(UserError, match="give one from 1 to 65535"):
        check_port("127.0.0.1", 0)
    (tmp_path / "file").touch()
    monkeypatch.setattr(sys, "version_info", (3, 11, 0))
    with pytest.raises(UserError, match="holds something else"):
        make_environment(tmp_path)
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(UserError, match=r"Python 3\.13: MONAI Label runs on 3\.11 and 3\.12"):
        make_environment(tmp_path / "new")


def test_requirements_are_pinned() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all("==" in line for line in lines)
    names = {line.split("==")[0].lower() for line in lines}
    core = [one for one in requires("monai_thyroid") or [] if "extra ==" not in one]
    assert {"monailabel", "pydicom", *(re.split("[^a-z0-9-]", one.lower())[0] for one in core)} <= names | {"torch"}
    assert not names & {"torch", "sam2", "itk", "mlflow"}
