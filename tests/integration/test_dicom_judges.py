"""Results in DICOM before independent judges: dciodvfy (dicom3tools), dcmtk, and dcmqi's readers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from made_dicom import FACTS, KINDS, dicom_image, marked, prediction, regions, saved
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from monai_thyroid.deploy.dicom import read_source, results

pytestmark = pytest.mark.slow

FIXTURES = Path(pydicom.__file__).parent / "data" / "test_files"
Find = Callable[[str], str]
EMPTY = np.zeros((60, 83), np.uint8)


def run(*words: object) -> str:
    """What a program says; it must end well."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def sources() -> dict[str, tuple[Dataset | Path, list[np.ndarray]]]:
    """Images of every kind with masks for their frames."""
    grey = np.random.RandomState(0).randint(0, 256, (60, 83)).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    made: dict[str, tuple[Dataset | Path, list[np.ndarray]]] = {
        kind: (dicom_image(colour if kind in ("ES", "XC") else grey, kind=kind), [marked()])
        for kind in KINDS
        if kind != "US several"
    }
    made["CR"][0].ImagerPixelSpacing = [0.15, 0.2]
    made["US"][0].SequenceOfUltrasoundRegions = regions((2, 2, 80, 57))
    made["DX empty"] = (dicom_image(grey.astype(np.uint16), kind="DX", bits=12, photometric="MONOCHROME1"), [EMPTY])
    clip = np.stack([grey, grey[::-1], grey[:, ::-1]])
    made["clip"] = (dicom_image(clip, kind="US several"), [marked(), EMPTY, marked()[::-1].copy()])
    made["empty clip"] = (dicom_image(clip, kind="US several"), [EMPTY] * 3)
    for name in (
        "examples_ybr_color",
        "examples_palette",
        "examples_rgb_color",
        "examples_jpeg2k",
        "SC_rgb_jpeg_gdcm",
    ):
        dataset = pydicom.dcmread(FIXTURES / f"{name}.dcm", stop_before_pixels=True)
        mask = marked(dataset.Rows, dataset.Columns)
        count = int(dataset.get("NumberOfFrames", 1))
        made[name] = (FIXTURES / f"{name}.dcm", [np.roll(mask, 3 * n, axis=1) for n in range(count)])
    return made


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Path], list[np.ndarray]]]:
    """The files of results by source and modality, and the masks in them."""
    folder, found = tmp_path_factory.mktemp("written"), {}
    for name, (given, masks) in sources().items():
        path = given if isinstance(given, Path) else saved(folder / f"{name}.dcm", given)
        predictions = [prediction(mask, agreement=(0.9, 0.6)) for mask in masks]
        files = {}
        for one in results(read_source(path), predictions, model=FACTS, review_below=0.7):
            files[str(one.Modality)] = folder / f"{name}-{one.Modality}.dcm"
            one.save_as(files[str(one.Modality)], enforce_file_format=True)
        found[name] = (files, masks)
    return found


Written = dict[str, tuple[dict[str, Path], list[np.ndarray]]]


def test_dciodvfy_finds_no_error(written: Written, program: Find) -> None:
    said = {}
    for files, _ in written.values():
        for path in files.values():
            told = run(program("dciodvfy"), path)
            said[path.name] = [line for line in told.splitlines() if line.startswith(("Error", "Abort"))]
            known = {"ComprehensiveSR", "Segmentation", "SCImage", "MultiframeTrueColorSCImage"}
            assert known & set(told.splitlines()), path.name
    assert not {name: lines for name, lines in said.items() if lines}
    assert len(said) == 3 * len(written) - 2  # nothing found, no segmentation


def test_dcmtk_reads_reports_and_draws_pictures(written: Written, program: Find, tmp_path: Path) -> None:
    for name in ("US", "clip", "DX empty"):
        files, _ = written[name]
        told = run(program("dsrdump"), "+Pl", files["SR"])
        assert "Imaging Measurement Report" in told
        assert "Research use only" in told
        picture = pydicom.dcmread(files["OT"])
        program_name = "dcmj2pnm" if picture.file_meta.TransferSyntaxUID.is_compressed else "dcm2pnm"
        run(program(program_name), "+F", 1, files["OT"], tmp_path / f"{name}.ppm")


def test_dcmqi_reads_the_measurements(written: Written, program: Find, tmp_path: Path) -> None:
    for name in ("US", "clip", "examples_ybr_color"):
        files, masks = written[name]
        run(program("tid1500reader"), "--inputDICOM", files["SR"], "--outputMetadata", tmp_path / f"{name}.json")
        told = json.loads((tmp_path / f"{name}.json").read_text())
        spacing = 0.04 if name == "US" else 1.0
        expected = {f"nodule{f' in frame {n}' if len(masks) > 1 else ''}": m for n, m in enumerate(masks, 1) if m.any()}
        found = {group["TrackingIdentifier"]: group for group in told["Measurements"]}
        for identifier, mask in expected.items():
            values = {
                one["quantity"]["CodeMeaning"]: (float(one["value"]), one["units"]["CodeValue"])
                for one in found[identifier]["measurementItems"]
            }
            assert values["Area"][0] == pytest.approx((mask == 1).sum() * spacing, rel=1e-5)
            assert values["Area"][1] == ("mm2" if name == "US" else "{pixels}")
            assert found[identifier]["Finding"]["CodeValue"] == "27925004"
            algorithm = found[identifier]["measurementAlgorithmIdentification"]
            assert algorithm["AlgorithmParameters"] == [f"weights_sha256={FACTS.weights_sha256}"]


def with_geometry(path: Path, target: Path) -> int:
    """A copy of a segmentation with planes in space, which dcmqi insists on and ultrasound has none of."""
    dataset = pydicom.dcmread(path)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.3.9", ""
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing, measures.SliceThickness, measures.SpacingBetweenSlices = [1, 1], 1, 1
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        image = groups.DerivationImageSequence[0].SourceImageSequence[0]
        position = Dataset()
        position.ImagePositionPatient = [0, 0, int(image.get("ReferencedFrameNumber", 1))]
        groups.PlanePositionSequence = Sequence([position])
        if "FrameContentSequence" not in groups:
            groups.FrameContentSequence = Sequence([Dataset()])
    dataset.save_as(target)
    return int(dataset.NumberOfFrames)


def test_dcmqi_reads_the_very_masks(written: Written, program: Find, tmp_path: Path) -> None:
    for name in ("US", "ES", "clip", "examples_ybr_color"):
        files, masks = written[name]
        with_geometry(files["SEG"], tmp_path / "seg.dcm")
        output = tmp_path / name
        output.mkdir()
        words = ["--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", output, "--outputType", "nifti"]
        run(program("segimage2itkimage"), *words)
        facts = json.loads((output / "meta.json").read_text())
        labels = {one["labelID"]: one["SegmentLabel"] for group in facts["segmentAttributes"] for one in group}
        assert set(labels.values()) == {"nodule", "gizmo"}
        for label, segment in labels.items():
            number = ("nodule", "gizmo").index(segment) + 1
            volume = np.asanyarray(nibabel.load(output / f"{label}.nii.gz").dataobj)
            planes = np.moveaxis(volume, (0, 1, 2), (2, 1, 0))  # NIfTI's first index runs along x
            filled = [mask for mask in masks if (mask == number).any()]
            found = [plane for plane in planes if plane.any()]
            assert len(found) == len(filled), name
            for plane, mask in zip(found, filled, strict=True):
                np.testing.assert_array_equal(plane > 0, mask == number)
