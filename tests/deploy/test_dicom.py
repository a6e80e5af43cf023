"""DICOM images in, results of them out: what is refused, what is written, what is kept and what is left behind."""

from __future__ import annotations

import io
import logging
import random
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from made_dicom import FACTS, KINDS, STORAGE, content, dicom_image, marked, prediction, regions, saved
from made_trained import made_trained
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from monai_thyroid.cli import main
from monai_thyroid.deploy import predict_archive
from monai_thyroid.deploy.dicom import (
    ModelFacts,
    coded_class,
    keep_patients_out_of_logs,
    model_facts,
    read_source,
    results,
)
from monai_thyroid.deploy.dicom.capture import letters
from monai_thyroid.deploy.dicom.measure import outline_of, regions_of
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model
from monai_thyroid.files import read_csv
from monai_thyroid.images import made_here
from monai_thyroid.images.reading import read_labels

FIXTURES = Path(pydicom.__file__).parent / "data" / "test_files"
GREY = np.random.RandomState(0).randint(0, 256, (60, 83)).astype(np.uint8)
COLOUR = np.random.RandomState(1).randint(0, 256, (60, 83, 3)).astype(np.uint8)
SEVERAL = np.random.RandomState(2).randint(0, 256, (3, 60, 83)).astype(np.uint8)


def made(dataset: Dataset, masks: list[np.ndarray] | None = None, **options: Any) -> dict[str, Dataset]:
    """Results by modality, written and read again."""
    source = read_source(content(dataset))
    masks = [marked()] * len(source.frames) if masks is None else masks
    agreement = options.pop("agreement", None)
    given = (prediction(mask, agreement=agreement) for mask in masks)
    found = results(source, given, model=options.pop("model", FACTS), **options)
    again = [pydicom.dcmread(io.BytesIO(content(one))) for one in found]
    return {one.Modality: one for one in again}


def numbers_in(segmentation: Dataset, frame: int, shape: tuple[int, int]) -> np.ndarray:
    """Class numbers that a SEG holds for a frame of its source, by pydicom alone."""
    mask = np.zeros(shape, np.uint8)
    pixels = segmentation.pixel_array.reshape(-1, *shape)
    for plane, groups in zip(pixels, segmentation.PerFrameFunctionalGroupsSequence, strict=True):
        shared = segmentation.SharedFunctionalGroupsSequence[0]  # there where there is one segment
        identification = groups.get("SegmentIdentificationSequence") or shared.SegmentIdentificationSequence
        number = identification[0].ReferencedSegmentNumber
        image = groups.DerivationImageSequence[0].SourceImageSequence[0]
        if image.get("ReferencedFrameNumber", 1) == frame:
            mask[plane > 0] = number
    return mask


def texts(dataset: Dataset) -> str:
    return " | ".join(str(item.value) for item in dataset.iterall() if item.keyword in ("TextValue", "CodeMeaning"))


# What is read


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_read(kind: str, tmp_path: Path) -> None:
    pixels = SEVERAL if kind == "US several" else COLOUR if kind in ("ES", "XC") else GREY
    source = read_source(saved(tmp_path / "IM0001", dicom_image(pixels, kind=kind)))
    frames = pixels if kind == "US several" else pixels[None]
    assert len(source.frames) == len(frames)
    for raster, frame in zip(source.frames, frames, strict=True):
        np.testing.assert_array_equal(raster.pixels, frame)
    with open(tmp_path / "IM0001", "rb") as file:
        assert read_source(file).dataset.SOPInstanceUID == "1.2.3.4"


def test_frames_are_decoded_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    source = read_source(content(dicom_image(SEVERAL, kind="US several")))
    monkeypatch.setattr(type(source), "decoded", lambda self, index: decoded.append(index))
    _ = source.frames[0], source.frames[-1], source.frames[2]
    assert decoded == [2]  # the first was decoded when it was read, the last is kept


@pytest.mark.parametrize("name", ["examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_jpeg_gdcm.dcm"])
def test_compressed_frames_are_those_of_pydicom(name: str) -> None:
    source = read_source(FIXTURES / name)
    expected = pydicom.pixels.pixel_array(FIXTURES / name)
    expected = expected if len(source.frames) > 1 else expected[None]
    assert len(source.frames) == len(expected)
    for raster, frame in zip(source.frames, expected, strict=True):
        lossy = 4 if "ybr" in name else 0  # decoders of JPEG differ in rounding
        np.testing.assert_allclose(raster.pixels, frame.astype(int), rtol=0, atol=lossy)


def test_grey_levels_from_light_to_dark_and_of_twelve_bits() -> None:
    pixels = GREY.astype(np.uint16) * 16
    light = read_source(content(dicom_image(pixels, kind="DX", photometric="MONOCHROME1", bits=12))).frames[0]
    dark = read_source(content(dicom_image(pixels, kind="DX", bits=12))).frames[0]
    np.testing.assert_allclose(light.normalised(), 1 - dark.normalised(), atol=1e-5)


REFUSED = {
    "no DICOM": (b"hello" * 200, "is no DICOM file"),
    "a report": (FIXTURES / "test-SR.dcm", "is a report"),
    "a segmentation": (FIXTURES / "liver_1frame.dcm", "is a segmentation"),
    "CT": (FIXTURES / "CT_small.dcm", "belongs to a 3-D series"),
    "a plan": (FIXTURES / "rtplan.dcm", "of a kind that is not segmented"),
    "nuclear": (FIXTURES / "JPEG2000.dcm", "a picture of the modality NM"),
    "an index": (FIXTURES / "dicomdirtests" / "DICOMDIR", "is an index of images"),
    "no study": (dicom_image(GREY, StudyInstanceUID=""), "lacks StudyInstanceUID"),
    "strange UID": (dicom_image(GREY, SOPInstanceUID="abc"), "its SOPInstanceUID is no UID"),
    "no size": (dicom_image(GREY, Rows=None), "says no Rows"),
    "too large": (dicom_image(GREY, Rows=20000, Columns=10000), "10000 x 20000 pixels, more than the 64 megapixels"),
    "too many": (dicom_image(SEVERAL, kind="US several", NumberOfFrames=90000), "448 megapixels together"),
    "cut off": (dicom_image(GREY, PixelData=GREY.tobytes()[:100]), r"its pixels are cut off \(100 of 4980 bytes\)"),
    "ours": (dicom_image(GREY, kind="SC", ImageType=["DERIVED", "SECONDARY", "MONAI_THYROID"]), "is a result of"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_image_to_segment_is_refused_in_one_sentence(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given, words = REFUSED[what]
    monkeypatch.setattr("monai_thyroid.images.dicom.DicomImage._stored", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(UserError, match=words) as caught:
        read_source(content(given) if isinstance(given, Dataset) else given)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert "Ada" not in str(caught.value)


def test_a_jpeg_larger_than_its_header_says_is_not_decoded() -> None:
    """Its decoder would take the memory that the JPEG, not the checked header, asks for."""
    for name, marker_of in (("SC_rgb_jpeg_dcmtk.dcm", b"\xff\xc0"), ("SC_rgb_jpeg_gdcm.dcm", b"\xff\xc3")):
        whole = bytearray((FIXTURES / name).read_bytes())
        place = whole.index(marker_of, len(whole) // 4)
        assert whole[place + 5 : place + 9] == bytes([0, 100, 0, 100])
        whole[place + 5 : place + 9] = b"\xff\xff\xff\xff"
        with pytest.raises(UserError, match="a JPEG of another size than the header says"):
            read_source(bytes(whole))


def test_a_file_that_inflates_beyond_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    path = FIXTURES / "image_dfl.dcm"
    assert read_source(path).width == 512
    monkeypatch.setenv("MONAI_THYROID_MAX_PIXELS", "20000")
    with pytest.raises(UserError, match=r"inflates to more than 0\.16 megabytes"):
        read_source(path)


def test_broken_compressed_pixels_are_refused() -> None:
    dataset = pydicom.dcmread(FIXTURES / "SC_rgb_jpeg_dcmtk.dcm")
    dataset.PixelData = dataset.PixelData[:100]
    with pytest.raises(UserError, match="its pixels are broken or cut off"):
        read_source(content(dataset))


def test_spacing_says_where_it_is_from_or_why_there_is_none() -> None:
    def read(**tags: Any) -> tuple[Any, str]:
        source = read_source(content(dicom_image(GREY, **tags)))
        assert source.frames[0].spacing == source.spacing
        return source.spacing, source.spacing_note

    assert read(PixelSpacing=[0.25, 0.5]) == ((0.25, 0.5), "by its PixelSpacing")
    assert read(kind="CR", ImagerPixelSpacing=[0.1, 0.2])[1] == "by its ImagerPixelSpacing, measured at the detector"
    spacing, note = read(SequenceOfUltrasoundRegions=regions((0, 0, 82, 59)))
    assert spacing == pytest.approx((0.2, 0.2))
    assert note == "by its ultrasound regions"
    two = regions((0, 0, 40, 59), delta=0.02)
    two.extend(regions((41, 0, 82, 59), delta=0.03))
    assert read(SequenceOfUltrasoundRegions=two) == (None, "its ultrasound regions differ in scale")
    # A Doppler strip has a scale of another kind.
    two[1].RegionSpatialFormat = 3
    assert read(SequenceOfUltrasoundRegions=two)[0] == pytest.approx((0.2, 0.2))
    assert read() == (None, "it says no spacing of its pixels")


def test_a_picture_made_smaller_than_its_regions_has_no_scale() -> None:
    """As pydicom's example is: 640 x 480 once, 320 x 240 now, the scale still that of before."""
    source = read_source(FIXTURES / "examples_ybr_color.dcm")
    assert source.spacing is None
    assert "ends at 595 x 414, its picture at 320 x 240" in source.spacing_note
    with pytest.raises(UserError, match="does not tell where tissue is"):
        read_source(FIXTURES / "examples_ybr_color.dcm", tissue_only=True)


@pytest.mark.parametrize("pixels", [GREY, COLOUR])
def test_outside_of_the_tissue_everything_is_black_on_request(pixels: np.ndarray) -> None:
    dataset = dicom_image(pixels, SequenceOfUltrasoundRegions=regions((10, 20, 50, 40), (60, 5, 70, 9)))
    raster = read_source(content(dataset), tissue_only=True).frames[0]
    kept = np.zeros(GREY.shape, bool)
    kept[20:41, 10:51] = kept[5:10, 60:71] = True
    np.testing.assert_array_equal(raster.pixels[kept], pixels[kept])
    assert raster.normalised()[~kept].max() == 0
    light = dicom_image(GREY, photometric="MONOCHROME1", SequenceOfUltrasoundRegions=regions((10, 20, 50, 40)))
    assert read_source(content(light), tissue_only=True).frames[0].normalised()[0].max() == 0
    with pytest.raises(UserError, match="it has no ultrasound regions"):
        read_source(content(dicom_image(pixels)), tissue_only=True)


# What is measured


def test_the_outline_runs_along_the_edges_of_pixels() -> None:
    mask = np.zeros((6, 7), bool)
    mask[1:3, 2:5] = True
    np.testing.assert_array_equal(outline_of(mask), [[2, 1], [5, 1], [5, 3], [2, 3], [2, 1]])


def test_outlines_enclose_what_they_are_of() -> None:
    """Areas by the shoelace formula, over shapes with holes, corners that touch and spikes."""
    random_state = np.random.RandomState(0)
    for _ in range(30):
        mask = random_state.rand(12, 15) > 0.55
        found, count = regions_of(mask, spacing=None, most=100)
        assert len(found) == count
        assert sum(region.area for region in found) == mask.sum()
        for region in found:
            x, y = region.outline.T
            enclosed = abs((x[:-1] * y[1:] - x[1:] * y[:-1]).sum()) / 2
            assert enclosed >= region.area  # holes are counted, what touches by a corner is not lost
            assert region.long_axis >= region.short_axis > 0


def test_axes_in_mm_follow_a_spacing_that_differs_by_direction() -> None:
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:14] = True
    (region,), _ = regions_of(mask, spacing=(0.5, 0.1), most=5)
    assert region.area == pytest.approx(40 * 0.05)
    assert region.long_axis == pytest.approx(np.hypot(5, 0.4))
    (region,), _ = regions_of(mask, spacing=None, most=5)
    assert region.long_axis == pytest.approx(np.hypot(10, 4))
    assert region.short_axis == pytest.approx(2 * 10 * 4 / np.hypot(10, 4))


def test_an_outline_of_very_many_corners_is_simplified() -> None:
    comb = np.ones((3, 8001), bool)
    comb[0, 1::2] = False
    (region,), _ = regions_of(comb[:, :2001], spacing=None, most=1)
    assert region.exact
    (region,), _ = regions_of(comb, spacing=None, most=1)
    assert not region.exact
    assert len(region.outline) <= 8000
    np.testing.assert_array_equal(region.outline[0], region.outline[-1])


# What is written


def test_masks_in_the_segmentation_are_the_masks() -> None:
    found = made(dicom_image(COLOUR, kind="ES"))
    np.testing.assert_array_equal(numbers_in(found["SEG"], 1, (60, 83)), marked())
    reread = highdicom.seg.Segmentation.from_dataset(found["SEG"])
    planes = reread.get_pixels_by_source_instance(["1.2.3.4"], combine_segments=True)
    np.testing.assert_array_equal(planes[0], marked())
    assert [item.SegmentLabel for item in found["SEG"].SegmentSequence] == ["nodule", "gizmo"]


def test_masks_of_frames_are_the_masks_and_empty_ones_are_left_out() -> None:
    masks = [marked(), np.zeros((60, 83), np.uint8), marked()[::-1, ::-1].copy()]
    found = made(dicom_image(SEVERAL, kind="US several"), masks)
    assert found["SEG"].NumberOfFrames == 4
    for frame, mask in enumerate(masks, 1):
        np.testing.assert_array_equal(numbers_in(found["SEG"], frame, (60, 83)), mask)
    reread = highdicom.seg.Segmentation.from_dataset(found["SEG"])
    planes = reread.get_pixels_by_source_frame(
        "1.2.3.4", [1, 2, 3], combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(planes, masks)
    assert "FrameOfReferenceUID" not in found["SEG"]


@pytest.mark.parametrize("several", [False, True])
def test_nothing_found_is_said_and_makes_no_segmentation(several: bool) -> None:
    dataset = dicom_image(SEVERAL, kind="US several") if several else dicom_image(GREY)
    found = made(dataset, [np.zeros((60, 83), np.uint8)] * (3 if several else 1))
    assert set(found) == {"SR", "OT"}
    assert texts(found["SR"]).count("Presence of property | Absent") == 2
    assert "Present" not in texts(found["SR"])


def groups_of(report: Dataset) -> list[Any]:
    return highdicom.sr.srread(io.BytesIO(content(report))).content.get_planar_roi_measurement_groups()


def test_the_report_measures_every_region_and_refers_to_the_segmentation() -> None:
    found = made(dicom_image(GREY, PixelSpacing=[0.5, 0.25]))
    groups = groups_of(found["SR"])
    by_segment = [group for group in groups if group.reference_type.meaning == "Referenced Segmentation Frame"]
    by_outline = [group for group in groups if group.reference_type.meaning == "Image Region"]
    assert len(by_segment) == 2
    assert len(by_outline) == 3
    measured = [{one.name.meaning: one for one in group.get_measurements()} for group in by_outline]
    sizes = [(marked() == 1).sum(), 68, 6]
    assert [one["Area"].value for one in measured] == pytest.approx([size * 0.125 for size in sizes])
    assert measured[0]["Area"].unit.value == "mm2"
    assert measured[1]["Long Axis"].value == pytest.approx(np.hypot(17 * 0.25, 4 * 0.5), rel=1e-5)
    assert measured[1]["Long Axis"].unit.value == "mm"
    outline = by_outline[1].roi.value
    np.testing.assert_array_equal(outline, [[63, 40], [80, 40], [80, 44], [63, 44], [63, 40]])
    told = texts(found["SR"])
    for words in ("Research use only", f"weights_sha256={'0123' * 16}", "thyroid unet", "by its PixelSpacing"):
        assert words in told
    references = [str(item.value) for item in found["SR"].iterall() if item.keyword == "ReferencedSOPInstanceUID"]
    assert {found["SEG"].SOPInstanceUID, "1.2.3.4"} == set(references)
    assert found["SR"].VerificationFlag == "UNVERIFIED"
    assert found["SR"].PreliminaryFlag == "PRELIMINARY"


def test_without_a_spacing_the_report_counts_pixels_and_says_why() -> None:
    found = made(dicom_image(GREY))
    (area, *_) = (one for one in groups_of(found["SR"])[0].get_measurements() if one.name.meaning == "Area")
    assert (area.value, area.unit.value) == ((marked() == 1).sum(), "{pixels}")
    assert "in pixels, as it says no spacing of its pixels" in texts(found["SR"])


def test_the_report_says_that_the_surroundings_were_blackened() -> None:
    dataset = dicom_image(GREY, SequenceOfUltrasoundRegions=regions((0, 0, 82, 50)))
    for only in (False, True):
        source = read_source(content(dataset), tissue_only=only)
        told = results(source, [prediction(marked())], model=FACTS)[0]
        assert ("blackened" in texts(told)) == only


def test_frames_are_numbered_in_the_report() -> None:
    masks = [np.zeros((60, 83), np.uint8), marked(), np.zeros((60, 83), np.uint8)]
    report = made(dicom_image(SEVERAL, kind="US several"), masks)["SR"]
    references = [str(item.value) for item in report.iterall() if item.keyword == "ReferencedFrameNumber"]
    assert "2" in references
    assert "[1, 3]" in references  # where the classes are absent


def test_low_agreement_is_marked_for_review() -> None:
    found = made(dicom_image(GREY), agreement=(0.9, 0.6), review_below=0.7)
    assert "Review by a person | Needed" in texts(found["SR"])
    assert "To be reviewed: members of the ensemble agree by less than 0.7" in texts(found["SR"])
    plain = made(dicom_image(GREY), agreement=(0.9, 0.8), review_below=0.7)
    assert "eview" not in texts(plain["SR"])
    assert (found["OT"].pixel_array != plain["OT"].pixel_array).any()
    yellow = (found["OT"].pixel_array == (240, 228, 66)).all(axis=2)
    assert yellow[0].all()  # a frame around it, not the words alone


def test_a_mask_of_noise_does_not_make_thousands_of_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = (np.random.RandomState(0).rand(60, 83) > 0.8).astype(np.uint8)
    found = made(dicom_image(GREY), [noise])
    assert len(groups_of(found["SR"])) == 21
    assert "small regions are in the segmentation and in the sums" in texts(found["SR"])
    monkeypatch.setattr(sys.modules["monai_thyroid.deploy.dicom.results"], "_MOST_OF_ALL", 12)
    several = made(dicom_image(SEVERAL, kind="US several"), [noise] * 3)
    assert len(groups_of(several["SR"])) == 3 * (1 + 2)
    np.testing.assert_array_equal(numbers_in(found["SEG"], 1, (60, 83)), noise)


def test_the_picture_keeps_the_image_upright_and_whole() -> None:
    pixels = np.full((60, 83), 30, np.uint8)
    pixels[2:6, 60:80] = 200
    picture = made(dicom_image(pixels), [np.zeros((60, 83), np.uint8)])["OT"]
    times = 7  # enlarged to at least 512 pixels
    shown = picture.pixel_array
    assert shown.shape[1] == 83 * times
    np.testing.assert_array_equal(shown[: 60 * times : times, ::times], np.repeat(pixels[..., None], 3, axis=2))
    assert picture.BurnedInAnnotation == "YES"


def test_outlines_in_the_picture_are_where_the_masks_are() -> None:
    shown = made(dicom_image(np.full((60, 83), 30, np.uint8)))["OT"].pixel_array
    blue, orange = ((shown[: 60 * 7] == colour).all(axis=2) for colour in ((86, 180, 233), (230, 159, 0)))
    rows, columns = np.nonzero(blue)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (35, 18 * 7 - 1, 56, 31 * 7 - 1)
    rows, columns = np.nonzero(orange)
    assert (rows.min(), columns.min(), columns.max()) == (280, 28, 80 * 7 - 1)


def test_pictures_of_frames_run_as_fast_as_their_source() -> None:
    picture = made(dicom_image(SEVERAL, kind="US several"))["OT"]
    assert (picture.NumberOfFrames, float(picture.FrameTime)) == (3, 40)
    assert picture.SOPClassUID == STORAGE + "7.4"
    assert picture.pixel_array.shape[0] == 3


def test_results_are_new_series_of_the_same_study_and_patient_and_nothing_else_is_taken_over() -> None:
    dataset = dicom_image(GREY)
    dataset.add_new((0x0019, 0x0010), "LO", "Secret private")
    found = made(dataset)
    assert len({one.SeriesInstanceUID for one in found.values()} | {"1.2.3.1"}) == 4
    for one in found.values():
        assert one.StudyInstanceUID == "1.2.3"
        assert str(one.PatientName) == "Größe^Ada"
        assert (one.PatientID, one.PatientBirthDate, one.PatientSex, one.PatientAge) == (
            "P-17",
            "19700102",
            "F",
            "050Y",
        )
        assert (one.AccessionNumber, one.StudyDescription, one.InstanceNumber) == ("A-1", "Neck", 7)
        assert "Secret" not in str(one)
        assert one.SeriesDescription.endswith("research only: thyroid unet")
        assert one.ContentQualification == "RESEARCH"
        assert one.file_meta.ImplementationVersionName == "monai_thyroid"


def test_uids_follow_from_the_image_the_weights_and_the_settings() -> None:
    first, again = made(dicom_image(GREY)), made(dicom_image(GREY))
    other = made(dicom_image(GREY, SOPInstanceUID="1.2.3.5"))
    weights = made(dicom_image(GREY), model=ModelFacts("m", "1", "f" * 64, FACTS.classes))
    settings = made(dicom_image(GREY), model=replace(FACTS, settings="threshold 0.3"))
    for modality, one in first.items():
        assert again[modality].SOPInstanceUID == one.SOPInstanceUID
        assert settings[modality].SOPInstanceUID != one.SOPInstanceUID
        assert other[modality].SOPInstanceUID != one.SOPInstanceUID
        assert other[modality].SeriesInstanceUID == one.SeriesInstanceUID
        assert weights[modality].SOPInstanceUID != one.SOPInstanceUID
        assert weights[modality].SeriesInstanceUID != one.SeriesInstanceUID
        assert re.fullmatch(r"2\.25\.\d{1,39}", one.SOPInstanceUID)


def test_names_in_other_scripts_and_values_that_are_none(caplog: pytest.LogCaptureFixture) -> None:
    dataset = pydicom.dcmread(FIXTURES.parent / "charset_files" / "chrH31.dcm")
    image = dicom_image(GREY, SpecificCharacterSet=dataset.SpecificCharacterSet, PatientName=dataset.PatientName)
    image.StudyDescription = "Neck"
    with caplog.at_level(logging.WARNING, logger="monai_thyroid"):
        caplog.clear()
        for one in made(image).values():
            assert str(one.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
        assert not [record for record in caplog.records if record.name.startswith("monai_thyroid")]
        for one in made(dicom_image(GREY, PatientSex="?", PatientBirthDate="1.2.1970")).values():
            assert (one.PatientSex, one.PatientBirthDate) == ("", "")
    told = [record.getMessage() for record in caplog.records if record.name.startswith("monai_thyroid")]
    assert {words.partition(": ")[2] for words in told} == {
        "its PatientSex is not valid and is left empty in the results",
        "its PatientBirthDate is not valid and is left empty in the results",
    }


def test_no_log_holds_a_value_of_the_header(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """pydicom and highdicom quote what they find odd."""
    settings = pydicom.config.settings
    monkeypatch.setattr(settings, "reading_validation_mode", settings.reading_validation_mode)
    for name in ("pydicom", "highdicom"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.getLogger(name).level)
    odd = content(dicom_image(GREY, PatientName="Tell=tale=a=b=c", PatientBirthDate="Tell.1970", StudyTime="Telltime"))
    recwarn.clear()
    keep_patients_out_of_logs()
    with caplog.at_level(logging.INFO):
        caplog.clear()
        results(read_source(odd), [prediction(marked())], model=FACTS)
    assert "Tell" not in caplog.text
    assert not [one for one in recwarn if "Tell" in str(one.message)]


def test_predictions_that_are_not_of_the_image_are_refused() -> None:
    source = read_source(content(dicom_image(SEVERAL, kind="US several")))
    for given in ([], [prediction(marked())] * 2, [prediction(marked())] * 4, [prediction(marked().T)] * 3):
        with pytest.raises(UserError, match="predictions"):
            results(source, given, model=FACTS)
    one_class = ModelFacts("m", "1", "f" * 64, FACTS.classes[:1])
    with pytest.raises(UserError, match="predictions of 2 classes"):
        results(source, [prediction(marked())] * 3, model=one_class)


def test_facts_that_no_object_can_hold_are_refused() -> None:
    with pytest.raises(UserError) as caught:
        ModelFacts("a\\b", "", "xyz", ())
    assert len(caught.value.problems) == 4


def test_classes_have_codes() -> None:
    assert coded_class("Nodule").type.value == "27925004"
    assert coded_class("polyp").site is not None
    assert coded_class("odd_class").type[:2] == ("ODD_CLASS", "99MONAITHYROID")
    alike = [coded_class(f"left ventricle {side}").type.value for side in ("endocardium", "epicardium")]
    assert len(set(alike)) == 2
    assert all(value.startswith("LEFT_VENTRI") and len(value) == 16 for value in alike)


# The command


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trained(tmp_path_factory.mktemp("runs") / "run", bright=True, image_size=48)


def bright(height: int = 60, width: int = 83) -> np.ndarray:
    return np.where(marked(height, width) > 0, 250, 5).astype(np.uint8)


def test_predict_writes_dicom_beside_the_masks(run: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    saved(source / "IM1", dicom_image(bright()))
    saved(source / "clip.dcm", dicom_image(np.stack([bright(), bright() * 0, bright()[::-1]]), kind="US several"))
    options = {"device": "cpu", "runtime": "torch-float32", "dicom": True}
    result = predict_archive([run], [source], output=output, **options)
    assert (result.images, result.failed) == (2, {})
    assert sorted(path.name for path in output.glob("*.dcm")) == sorted(
        f"{name}_{kind}.dcm" for name in ("IM1", "clip") for kind in ("sr", "seg", "sc")
    )
    assert all(made_here(path) for path in output.glob("*.dcm"))
    for name, frames in (("IM1", [""]), ("clip", ["_frame1", "_frame2", "_frame3"])):
        segmented = pydicom.dcmread(output / f"{name}_seg.dcm")
        for number, frame in enumerate(frames, 1):
            mask = read_labels(output / f"{name}{frame}_mask.png", classes=1)
            np.testing.assert_array_equal(numbers_in(segmented, number, (60, 83)), mask)
            assert mask.any() == (frame != "_frame2")
    rows = read_csv(output / "predictions.csv")
    assert [(row["frame"], row["frames"]) for row in rows if "clip" in row["source"]] == [(n, "3") for n in "123"]
    assert predict_archive([run], [source], output=output, **options).before == 2
    (output / "clip_frame2_mask.png").unlink()
    assert predict_archive([run], [source], output=output, **options).images == 1
    with pytest.raises(UserError, match="with dicom True, not False"):
        predict_archive([run], [source], output=output, **{**options, "dicom": False})


def test_predict_takes_frames_without_dicom_and_refuses_its_own_results(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    saved(source / "clip", dicom_image(np.stack([bright()] * 11), kind="US several"))
    saved(source / "came back", dicom_image(GREY, kind="SC", ImageType=["DERIVED", "SECONDARY", "MONAI_THYROID"]))
    result = predict_archive([run], [source], output=tmp_path / "out", device="cpu", runtime="torch-float32")
    assert result.images == 1
    assert [words.partition(": ")[2] for words in result.failed.values()] == [
        "is a result of monai_thyroid, not an image to segment"
    ]
    assert len(list((tmp_path / "out").glob("clip_frame??_mask.png"))) == 11
    assert not list((tmp_path / "out").rglob("*.dcm"))


def test_a_frame_that_fails_leaves_nothing_of_its_file(run: Path, tmp_path: Path) -> None:
    dataset = dicom_image(np.stack([bright()] * 3), kind="US several")
    dataset.compress(RLELossless)
    frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=3))
    dataset.PixelData = pydicom.encaps.encapsulate([*frames[:2], frames[2][:70]])
    saved(tmp_path / "clip.dcm", dataset)
    result = predict_archive(
        [run], [tmp_path / "clip.dcm"], output=tmp_path / "out", device="cpu", runtime="torch-float32", dicom=True
    )
    assert "broken or cut off" in result.failed[str(tmp_path / "clip.dcm")]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*("predictions.csv", "predictions.json")}


def test_predict_takes_the_images_that_a_dicomdir_lists(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disc = tmp_path / "disc"
    shutil.copytree(FIXTURES / "dicomdirtests", disc)
    words = ["predict", str(run), str(disc / "DICOMDIR"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    status = main([*words, "--runtime", "torch"])
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "31 images segmented" in said.out
    shutil.rmtree(disc / "77654033")
    with pytest.raises(UserError, match=r"lists 77654033/CR1/6154, which is not there"):
        predict_archive([run], [disc / "DICOMDIR"], output=tmp_path / "more")


def test_options_that_say_nothing_are_refused(run: Path, tmp_path: Path) -> None:
    Image.fromarray(bright()).save(tmp_path / "picture.png")
    for option, words in (("dicom", "has no results in DICOM"), ("tissue_only", "does not tell where tissue is")):
        result = predict_archive(
            [run],
            [tmp_path / "picture.png"],
            output=tmp_path / option,
            device="cpu",
            runtime="torch-float32",
            **{option: True},
        )
        assert words in result.failed[str(tmp_path / "picture.png")]
    with pytest.raises(UserError, match="--review-below"):
        predict_archive([run], [FIXTURES / "examples_rgb_color.dcm"], output=tmp_path / "out", review_below=0.5)
    result = predict_archive(
        [run],
        [FIXTURES / "examples_rgb_color.dcm"],
        output=tmp_path / "out",
        device="cpu",
        runtime="torch-float32",
        tissue_only=True,
    )
    assert "does not tell where tissue is" in next(iter(result.failed.values()))


# Whatever comes


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_crash_nothing() -> None:
    """Bytes changed, cut out and repeated at random: each file is taken, or refused as the user's."""
    seeds = [
        content(dicom_image(GREY[:20, :20], SequenceOfUltrasoundRegions=regions((0, 0, 19, 19)))),
        content(dicom_image(np.ascontiguousarray(SEVERAL[:, :16, :16]), kind="US several")),
        (FIXTURES / "SC_rgb_small_odd_jpeg.dcm").read_bytes(),
        (FIXTURES / "SC_rgb_rle_2frame.dcm").read_bytes(),
    ]
    chance = random.Random(0)
    taken = refused = 0
    for count in range(320):
        mutated = bytearray(seeds[count % len(seeds)])
        for _ in range(chance.choice((1, 3, 10))):
            place = chance.randrange(132, len(mutated))
            what = chance.randrange(4)
            if what == 0:
                mutated[place] = chance.randrange(256)
            elif what == 1:
                del mutated[place : place + chance.randrange(1, 40)]
            elif what == 2:
                mutated[place:place] = mutated[place - 20 : place]
            else:
                mutated[place : place + 2] = chance.choice((b"\xff\xff", b"\0\0", b"\xfe\xff"))
        try:
            source = read_source(bytes(mutated))
            taken += 1
            if taken % 3:
                continue
            mask = np.zeros((source.height, source.width), np.uint8)
            mask[1:3, : 1 + source.width // 2] = 1
            for one in results(source, [prediction(mask)] * len(source.frames), model=FACTS):
                content(one)
        except UserError:
            refused += 1
    assert taken > 30
    assert refused > 100


def test_what_else_decides_results_is_part_of_the_facts(tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run")
    chosen = made_trained(tmp_path / "chosen", postprocessing={"threshold": 0.4})
    facts = [model_facts([Model(run)], tta=False), model_facts([Model(run)], tta=True), model_facts([Model(chosen)])]
    assert len({one.weights_sha256 for one in facts}) == 1
    assert len({one.fingerprint for one in facts}) == 3


def test_what_is_written_below_a_picture_can_be_read() -> None:
    font = letters(20)
    absent = bytes(font.getmask("\uffff"))
    assert [letter for letter in "141.4 mm² × ä ø ł µ Щ …" if bytes(font.getmask(letter)) == absent] == []
