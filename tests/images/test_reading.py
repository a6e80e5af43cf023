"""Reading images and masks: every kind of file against Pillow, nibabel, pydicom's own decoders and plain numpy."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pydicom
import pytest
from made_files import AFFINE, dicom, is_pydicom3, marker, noise, region, save_dataset, save_dicom, save_nifti
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from skimage.color import rgb2gray

from monai_thyroid.errors import UserError
from monai_thyroid.images import is_image, read_mask, read_raster, to_channels
from monai_thyroid.images.dicom import DicomImage, dicomdir_files
from monai_thyroid.images.formats import IMAGE_SUFFIXES
from monai_thyroid.images.raster import binarise
from monai_thyroid.images.sources import phantom_uri

# (height, width): odd, not square, a single row, a single column, one pixel.
SHAPES = [(37, 53), (53, 37), (1, 9), (9, 1), (1, 1)]


def one_sentence(caught: pytest.ExceptionInfo[UserError], path: Path) -> str:
    (problem,) = caught.value.problems
    assert str(path) in problem
    return problem


# --- pictures ---


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff"])
def test_grey_pictures_of_any_size_are_read_as_they_are(tmp_path: Path, suffix: str, shape: tuple[int, int]) -> None:
    pixels = noise(shape)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    raster = read_raster(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(raster.pixels, pixels)
    np.testing.assert_allclose(raster.normalised(), pixels / 255, atol=1e-7)
    assert raster.normalised().dtype == np.float32
    assert raster.spacing is None
    assert raster.affine is None


@pytest.mark.parametrize("upper", [False, True])
def test_a_name_says_what_is_an_image(upper: bool) -> None:
    for suffix in IMAGE_SUFFIXES:
        assert is_image("x" + (suffix.upper() if upper else suffix))
    assert not is_image("notes.txt")
    assert not is_image("png")


def test_a_bilevel_png_is_black_and_white(tmp_path: Path) -> None:
    pixels = noise((37, 53)) > 127
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "1"
    np.testing.assert_array_equal(read_raster(tmp_path / "a.png").normalised(), pixels.astype(np.float32))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_not_blended(tmp_path: Path, mode: str) -> None:
    colour = noise((37, 53, 3)) if mode == "RGBA" else noise((37, 53, 1))
    alpha = noise((37, 53, 1), seed=1)
    Image.fromarray(np.concatenate([colour, alpha], axis=2)).save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == mode
    np.testing.assert_array_equal(read_raster(tmp_path / "a.png").pixels, colour if mode == "RGBA" else colour[..., 0])


def test_a_palette_of_greys_is_grey_and_its_indices_are_not_intensities(tmp_path: Path) -> None:
    indices = noise((37, 53), high=4)
    levels = np.array([200, 0, 90, 255], np.uint8)
    picture = Image.frombytes("P", (53, 37), indices.tobytes())
    picture.putpalette(np.repeat(levels, 3).tolist())
    picture.save(tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").mode == "P"
    np.testing.assert_array_equal(read_raster(tmp_path / "a.png").pixels, levels[indices])


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_a_colour_palette_is_looked_up(tmp_path: Path, suffix: str) -> None:
    indices = noise((37, 53), high=5)
    colours = noise((5, 3), seed=2)
    picture = Image.frombytes("P", (53, 37), indices.tobytes())
    picture.putpalette(colours.ravel().tolist())
    picture.save(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_raster(tmp_path / f"a{suffix}").pixels, colours[indices])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bit_pictures_span_their_own_range(tmp_path: Path, suffix: str) -> None:
    pixels = noise((37, 53), high=60000, dtype=np.uint16) + np.uint16(1000)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    assert Image.open(tmp_path / f"a{suffix}").mode.startswith("I")
    raster = read_raster(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(raster.pixels, pixels)
    low, high = int(pixels.min()), int(pixels.max())
    np.testing.assert_allclose(raster.normalised(), (pixels.astype(float) - low) / (high - low), atol=1e-6)


def test_a_float_tiff_spans_its_own_range(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).normal(size=(37, 53)).astype(np.float32)
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    expected = (pixels - pixels.min()) / (pixels.max() - pixels.min())
    np.testing.assert_allclose(read_raster(tmp_path / "a.tif").normalised(), expected, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    pixels = np.zeros((5, 7), np.float32)
    pixels[2, 3] = value
    Image.fromarray(pixels).save(tmp_path / "a.tif")
    save_nifti(tmp_path / "a.nii", pixels, np.eye(4))
    for name in ("a.tif", "a.nii"):
        with pytest.raises(UserError, match="not finite") as caught:
            read_raster(tmp_path / name)
        one_sentence(caught, tmp_path / name)


@pytest.mark.parametrize("value", [0, 1000, 65535])
def test_constant_images_are_black_and_warn_of_nothing(tmp_path: Path, value: int) -> None:
    pixels = np.full((7, 9), value, np.uint16)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels.astype(np.float32) / 3).save(tmp_path / "b.tif")
    save_nifti(tmp_path / "c.nii", pixels.astype(np.float64) / 7, np.eye(4))
    save_dicom(tmp_path / "d.dcm", pixels, bits=16)
    save_dicom(tmp_path / "e.dcm", pixels, bits=16, photometric="MONOCHROME1")
    with np.errstate(all="raise"):
        for path in sorted(tmp_path.iterdir()):
            image = read_raster(path).normalised()
            assert image.shape == ((7, 9) if path.suffix != ".nii" else (9, 7))
            np.testing.assert_array_equal(image, 0.0, err_msg=path.name)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_are_read_as_pillow_decodes_them(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.stack([marker(), marker()[::-1], marker()[:, ::-1]], axis=2)).convert(mode)
    picture.save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as saved:
        assert saved.mode == mode
        expected = np.asarray(saved if mode == "L" else saved.convert("RGB"))
    np.testing.assert_array_equal(read_raster(tmp_path / "a.jpg").pixels, expected)


def test_grey_from_colour_is_that_of_pillow_and_close_to_that_of_skimage() -> None:
    colour = noise((61, 47, 3))
    grey = to_channels(colour.astype(np.float32) / 255, 1)
    assert grey.shape == (61, 47)
    np.testing.assert_allclose(grey, np.asarray(Image.fromarray(colour).convert("L")) / 255, atol=1 / 255)
    # skimage uses the weights of BT.709
    assert np.corrcoef(grey.ravel(), rgb2gray(colour).ravel())[0, 1] > 0.95


@pytest.mark.parametrize("value", [0.0, 0.2, 1.0])
def test_grey_stored_in_colour_stays_that_grey(value: float) -> None:
    colour = np.full((37, 53, 3), value, np.float32)
    np.testing.assert_allclose(to_channels(colour, 1), value, atol=1e-6)
    np.testing.assert_array_equal(to_channels(np.full((37, 53), value, np.float32), 3), colour)


@pytest.mark.parametrize("channels", [0, 2, 4])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match="1 or 3"):
        to_channels(np.zeros((3, 3)), channels)


def test_the_content_in_memory_is_read_instead_of_the_file(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(marker()).save(buffer, "PNG")
    np.testing.assert_array_equal(read_raster(tmp_path / "absent.png", content=buffer.getvalue()).pixels, marker())


# --- DICOM ---


def test_dicom_of_eight_bits_is_scaled_by_its_bits(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", marker())
    np.testing.assert_allclose(read_raster(path).normalised(), marker() / 255, atol=1e-6)


def test_an_identity_rescale_changes_nothing(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", marker(), RescaleSlope="1", RescaleIntercept="0")
    np.testing.assert_allclose(read_raster(path).normalised(), marker() / 255, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", marker(), photometric="MONOCHROME1")
    np.testing.assert_allclose(read_raster(path).normalised(), 1 - marker() / 255, atol=1e-6)


def test_monochrome1_of_twelve_bits_is_inverted_within_its_range(tmp_path: Path) -> None:
    pixels = noise((37, 53), high=3000, dtype=np.uint16) + np.uint16(500)
    path = save_dicom(tmp_path / "a.dcm", pixels, bits=12, photometric="MONOCHROME1")
    low, high = int(pixels.min()), int(pixels.max())
    np.testing.assert_allclose(read_raster(path).normalised(), (high - pixels.astype(float)) / (high - low), atol=1e-6)


def test_twelve_bits_without_a_window_span_their_own_range(tmp_path: Path) -> None:
    pixels = noise((37, 53), high=3000, dtype=np.uint16) + np.uint16(500)
    path = save_dicom(tmp_path / "a.dcm", pixels, bits=12)
    low, high = int(pixels.min()), int(pixels.max())
    np.testing.assert_allclose(read_raster(path).normalised(), (pixels.astype(float) - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize("slope", [None, 2.0])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 400), (500, 5000)])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_a_window_says_what_is_black_and_white(
    tmp_path: Path, photometric: str, center: int, width: int, slope: float | None
) -> None:
    pixels = noise((37, 53), high=1000, dtype=np.uint16) + np.uint16(500)
    rescale = {} if slope is None else {"RescaleSlope": str(slope), "RescaleIntercept": "-1000"}
    path = save_dicom(
        tmp_path / "a.dcm", pixels, bits=12, photometric=photometric, WindowCenter=center, WindowWidth=width, **rescale
    )
    values = pixels.astype(float) if slope is None else pixels * slope - 1000
    # PS3.3 C.11.2.1.2.1, scaled to [0, 1]
    expected = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    np.testing.assert_allclose(read_raster(path).normalised(), expected, atol=1e-5)


def test_the_first_of_several_windows_counts(tmp_path: Path) -> None:
    pixels = noise((37, 53), high=4096, dtype=np.uint16)
    path = save_dicom(tmp_path / "a.dcm", pixels, bits=12, WindowCenter=[1000, 2000], WindowWidth=[500, 100])
    expected = np.clip((pixels - 999.5) / 499 + 0.5, 0, 1)
    np.testing.assert_allclose(read_raster(path).normalised(), expected, atol=1e-5)


def test_a_window_without_a_width_is_no_window(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", marker(), WindowCenter=None, WindowWidth=None)
    np.testing.assert_allclose(read_raster(path).normalised(), marker() / 255, atol=1e-6)


def test_a_table_of_values_of_interest_is_looked_up(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [256, 0, 12]
    curve = (np.arange(256) ** 2 // 32).astype(np.uint16)  # up to 2032 of 4095
    table.LUTData = curve.tobytes()
    table["LUTData"].VR = "OW"
    path = save_dicom(tmp_path / "a.dcm", marker(), VOILUTSequence=Sequence([table]))
    np.testing.assert_allclose(read_raster(path).normalised(), curve[marker()] / 4095, atol=1e-6)


def test_signed_dicom_spans_its_own_range(tmp_path: Path) -> None:
    pixels = noise((37, 53), high=2000, dtype=np.int16) - np.int16(1000)
    path = save_dicom(tmp_path / "a.dcm", pixels, bits=16)
    low, high = int(pixels.min()), int(pixels.max())
    np.testing.assert_allclose(read_raster(path).normalised(), (pixels.astype(float) - low) / (high - low), atol=1e-6)


def test_colour_dicom(tmp_path: Path) -> None:
    pixels = noise((36, 54, 3))
    path = save_dicom(tmp_path / "a.dcm", pixels, photometric="RGB")
    np.testing.assert_array_equal(read_raster(path).pixels, pixels)
    assert read_raster(path).full_scale == (0, 255)


def test_dicom_without_a_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "IM00001", marker())
    np.testing.assert_array_equal(read_raster(path).pixels, marker())


def test_dicom_without_a_preamble_is_known_by_its_name(tmp_path: Path) -> None:
    content = save_dicom(tmp_path / "whole.dcm", marker()).read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(content))
    del dataset.file_meta
    dataset.preamble = None
    buffer = io.BytesIO()
    if is_pydicom3():
        pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
    else:
        dataset.is_implicit_VR, dataset.is_little_endian = True, True
        pydicom.dcmwrite(buffer, dataset)
    (tmp_path / "bare.dcm").write_bytes(buffer.getvalue())
    assert buffer.getvalue()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_raster(tmp_path / "bare.dcm").pixels, marker())


def test_pixel_spacing_is_rows_first_in_mm(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", marker(), PixelSpacing=[0.25, 0.5])
    assert read_raster(path).spacing == (0.25, 0.5)


def test_ultrasound_regions_are_in_centimetres(tmp_path: Path) -> None:
    path = save_dicom(tmp_path / "a.dcm", marker(), SequenceOfUltrasoundRegions=Sequence([region(0.01, -0.02)]))
    assert read_raster(path).spacing == pytest.approx((0.2, 0.1))


def test_regions_of_one_scale_agree_and_of_two_scales_do_not(tmp_path: Path) -> None:
    same = Sequence([region(0.01, 0.02), region(0.01, 0.02)])
    assert read_raster(
        save_dicom(tmp_path / "a.dcm", marker(), SequenceOfUltrasoundRegions=same)
    ).spacing == pytest.approx((0.2, 0.1))
    split = Sequence([region(0.01, 0.02), region(0.03, 0.02)])
    assert read_raster(save_dicom(tmp_path / "b.dcm", marker(), SequenceOfUltrasoundRegions=split)).spacing is None


def test_a_region_in_other_units_has_no_spacing(tmp_path: Path) -> None:
    doppler = Sequence([region(0.01, 0.02, unit=7)])
    assert read_raster(save_dicom(tmp_path / "a.dcm", marker(), SequenceOfUltrasoundRegions=doppler)).spacing is None
    mixed = Sequence([region(0.01, 0.02, unit=7), region(0.01, 0.02)])
    assert read_raster(
        save_dicom(tmp_path / "b.dcm", marker(), SequenceOfUltrasoundRegions=mixed)
    ).spacing == pytest.approx((0.2, 0.1))


def test_frames_of_a_dicom_file_are_read_one_by_one(tmp_path: Path) -> None:
    frames = np.stack([marker(), marker()[::-1], 255 - marker()])
    dataset = dicom(frames[0], NumberOfFrames=3, PixelSpacing=[0.5, 0.25])
    dataset.PixelData = frames.tobytes() + b"\0" * (frames.nbytes % 2)
    path = save_dataset(tmp_path / "clip.dcm", dataset)
    image = DicomImage("clip.dcm", path.read_bytes())
    assert len(image.frames) == 3
    for index in (2, 0, -2):
        np.testing.assert_array_equal(image.frames[index].pixels, frames[index])
        assert image.frames[index].spacing == (0.5, 0.25)
    with pytest.raises(IndexError):
        _ = image.frames[3]
    with pytest.raises(UserError, match="holds 3 frames; give one image a file"):
        read_raster(path)


def test_a_region_that_ends_beyond_its_picture_has_no_scale(tmp_path: Path) -> None:
    """Somebody has shrunk or cropped the picture and left the region as it was."""
    item = region(0.01, 0.01)
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 10, 5
    for right, expected in ((52, (0.1, 0.1)), (105, None)):
        item.RegionLocationMaxX1, item.RegionLocationMaxY1 = right, 36
        path = save_dicom(tmp_path / "a.dcm", marker(), SequenceOfUltrasoundRegions=Sequence([item]))
        spacing = read_raster(path).spacing
        assert spacing == (None if expected is None else pytest.approx(expected))


def test_a_dicomdir_lists_images_within_its_folder(tmp_path: Path) -> None:
    names = [["A", "ONE"], ["B"]]
    (tmp_path / "A").mkdir()
    save_dicom(tmp_path / "A" / "ONE", marker())
    save_dicom(tmp_path / "b", marker())  # lower case, as on a copy
    index = save_dataset(tmp_path / "DICOMDIR", dicomdir(names))
    assert dicomdir_files(index) == [tmp_path / "A" / "ONE", tmp_path / "b"]
    save_dataset(index, dicomdir([["..", "passwd"], ["C"]]))
    with pytest.raises(UserError) as caught:
        dicomdir_files(index)
    assert "outside of its folder" in caught.value.problems[0]
    assert "lists C, which is not there" in caught.value.problems[1]


def dicomdir(names: list[list[str]]) -> Dataset:
    dataset = dicom(marker())
    del dataset.PixelData
    records = []
    for parts in names:
        record = Dataset()
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        records.append(record)
    dataset.DirectoryRecordSequence = Sequence(records)
    return dataset


@pytest.mark.parametrize("spacing", [[0, 0], [0.5, -1]])
def test_a_spacing_that_cannot_be_is_unknown(tmp_path: Path, spacing: list[float]) -> None:
    assert read_raster(save_dicom(tmp_path / "a.dcm", marker(), PixelSpacing=spacing)).spacing is None


def _fixture(name: str) -> Path:
    path = Path(pydicom.__file__).parent / "data" / "test_files" / name
    if not path.is_file():
        pytest.skip(f"pydicom {pydicom.__version__} comes without {name}")
    return path


def _pixel_functions() -> ModuleType:
    """Where pydicom keeps its colour functions: one module in release 2, another in 3."""
    release = int(pydicom.__version__.split(".")[0])
    return importlib.import_module("pydicom.pixels" if release >= 3 else "pydicom.pixel_data_handlers.util")


def test_pydicoms_colour_example() -> None:
    path = _fixture("examples_rgb_color.dcm")
    np.testing.assert_array_equal(read_raster(path).pixels, pydicom.dcmread(path).pixel_array)


def test_pydicoms_palette_example() -> None:
    apply_color_lut = _pixel_functions().apply_color_lut

    path = _fixture("examples_palette.dcm")
    dataset = pydicom.dcmread(path)
    colour = apply_color_lut(dataset.pixel_array, dataset)
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.pixels, colour)
    np.testing.assert_allclose(raster.normalised(), colour / np.iinfo(colour.dtype).max, atol=1e-6)


def test_pydicoms_ct_example_spans_its_range() -> None:
    dataset = pydicom.dcmread(_fixture("CT_small.dcm"))
    raster = read_raster(_fixture("CT_small.dcm"))
    values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
    np.testing.assert_allclose(raster.normalised(), (values - values.min()) / np.ptp(values), atol=1e-5)
    assert raster.spacing == pytest.approx(tuple(map(float, dataset.PixelSpacing)))


def test_pydicoms_mr_example_is_shown_through_its_window() -> None:
    dataset = pydicom.dcmread(_fixture("MR_small.dcm"))
    values = dataset.pixel_array.astype(float)
    center, width = float(dataset.WindowCenter), float(dataset.WindowWidth)
    expected = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    np.testing.assert_allclose(read_raster(_fixture("MR_small.dcm")).normalised(), expected, atol=1e-5)


def test_several_frames_are_refused() -> None:
    path = _fixture("examples_ybr_color.dcm")
    with pytest.raises(UserError, match="30 frames") as caught:
        read_raster(path)
    one_sentence(caught, path)


def test_ybr_is_turned_to_rgb(tmp_path: Path) -> None:
    convert_color_space = _pixel_functions().convert_color_space

    ybr = noise((36, 54, 3))
    path = save_dicom(tmp_path / "a.dcm", ybr, photometric="YBR_FULL")
    np.testing.assert_array_equal(read_raster(path).pixels, convert_color_space(ybr, "YBR_FULL", "RGB"))


# --- NIfTI ---


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII.GZ"])
@pytest.mark.parametrize("trailing", [(), (1,), (1, 1)])
def test_nifti_slices_have_x_first(tmp_path: Path, suffix: str, trailing: tuple[int, ...]) -> None:
    array = marker().T.reshape(53, 37, *trailing)
    written = save_nifti(tmp_path / ("a" + suffix.lower()), array, AFFINE)
    path = written.rename(tmp_path / ("b" + suffix))
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.pixels, marker())
    assert raster.full_scale == (0, 255)
    assert raster.spacing == pytest.approx((0.25, 0.5))
    assert raster.affine is not None
    np.testing.assert_allclose(raster.affine, AFFINE)


def test_nifti_without_units_has_no_spacing(tmp_path: Path) -> None:
    assert read_raster(save_nifti(tmp_path / "a.nii", marker(), AFFINE, unit=None)).spacing is None


def test_nifti_numbers_are_scaled_by_its_header(tmp_path: Path) -> None:
    values = np.random.RandomState(0).normal(size=(53, 37)) * 300
    image = nibabel.Nifti1Image(values, AFFINE)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    stored = nibabel.load(tmp_path / "a.nii").get_fdata()
    expected = ((stored - stored.min()) / np.ptp(stored)).T
    np.testing.assert_allclose(read_raster(tmp_path / "a.nii").normalised(), expected, atol=1e-5)


@pytest.mark.parametrize("trailing", [(), (1,)])
def test_colour_nifti(tmp_path: Path, trailing: tuple[int, ...]) -> None:
    colour = noise((37, 53, 3))
    array = np.zeros((53, 37), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    for index, channel in enumerate("RGB"):
        array[channel] = colour[..., index].T
    path = save_nifti(tmp_path / "a.nii", array.reshape(53, 37, *trailing), AFFINE)
    np.testing.assert_array_equal(read_raster(path).pixels, colour)
    assert read_raster(path).full_scale == (0, 255)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_nifti_volumes_are_refused_also_of_three_slices(tmp_path: Path, depth: int) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", noise((53, 37, depth)), AFFINE)
    with pytest.raises(UserError, match="only 2-D") as caught:
        read_raster(path)
    one_sentence(caught, path)


# --- what cannot be read ---


def _frames(count: int = 3) -> list[Image.Image]:
    return [Image.fromarray(noise((9, 11), seed=seed)) for seed in range(count)]


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.gif"])
def test_several_pages_are_refused(tmp_path: Path, name: str) -> None:
    first, *others = _frames()
    first.save(tmp_path / name, save_all=True, append_images=others)
    with pytest.raises(UserError, match="3 frames") as caught:
        read_raster(tmp_path / name)
    one_sentence(caught, tmp_path / name)


def _whole_files(folder: Path) -> list[Path]:
    pixels = noise((64, 48))
    for name in ("a.png", "b.jpg", "c.bmp", "d.tif"):
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(noise((64, 48), high=65536, dtype=np.uint16)).save(folder / "e.png")
    Image.fromarray(noise((64, 48), high=65536, dtype=np.uint16)).save(folder / "f.tif")
    Image.fromarray(noise((64, 48, 3))).save(folder / "g.png")
    save_dicom(folder / "h.dcm", pixels)
    save_nifti(folder / "i.nii", pixels, AFFINE)
    save_nifti(folder / "j.nii.gz", pixels, AFFINE)
    return sorted(folder.iterdir())


def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path) -> None:
    for path in _whole_files(tmp_path):
        content = path.read_bytes()
        assert read_raster(path).pixels.size == 64 * 48 * (3 if path.name == "g.png" else 1)
        for share in (0.02, 0.3, 0.6, 0.95):
            path.write_bytes(content[: int(share * len(content))])
            with pytest.raises(UserError, match=path.name) as caught:
                read_raster(path)
            one_sentence(caught, path)


@pytest.mark.parametrize("content", [b"", b"\0" * 4000, b"not an image at all\n" * 50])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".dcm", ".nii", ".nii.gz", ""])
def test_files_that_are_no_images_are_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_raster(path)
    one_sentence(caught, path)


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.nii.gz"])
def test_missing_files_and_folders_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such file") as caught:
        read_raster(tmp_path / name)
    one_sentence(caught, tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(UserError) as caught:
        read_raster(tmp_path / name)
    one_sentence(caught, tmp_path / name)


def test_a_message_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(UserError) as caught:
        read_raster(tmp_path / "a.png")
    assert "\n" not in str(caught.value)


# --- synthetic scans ---


def test_phantom_names_are_drawn_not_read() -> None:
    image = read_raster(phantom_uri("image", case=3, view=0, seed=1))
    label = read_raster(phantom_uri("label", case=3, view=0, seed=1))
    assert image.pixels.shape == label.pixels.shape
    assert set(np.unique(label.pixels)) == {0, 255}
    again = read_raster(phantom_uri("image", case=3, view=0, seed=1))
    np.testing.assert_array_equal(again.pixels, image.pixels)


# --- masks ---


@pytest.mark.parametrize("levels", [(0, 255), (0, 1), (50, 200), (254, 255)])
def test_masks_of_any_two_levels(tmp_path: Path, levels: tuple[int, int]) -> None:
    truth = marker() > 200
    Image.fromarray(np.where(truth, levels[1], levels[0]).astype(np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), truth)


def test_the_edges_that_jpeg_blurs_fall_to_the_nearer_side(tmp_path: Path) -> None:
    y, x = np.mgrid[:97, :131]
    truth = ((y - 40) / 25) ** 2 + ((x - 70) / 40) ** 2 < 1
    Image.fromarray(truth * np.uint8(255)).save(tmp_path / "a.jpg", quality=60)
    with Image.open(tmp_path / "a.jpg") as saved:
        assert len(np.unique(np.asarray(saved))) > 10
    assert np.mean(read_mask(tmp_path / "a.jpg") != truth) < 0.002


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "LA"])
def test_masks_stored_in_other_modes(tmp_path: Path, mode: str) -> None:
    truth = marker() > 200
    Image.fromarray(truth * np.uint8(255)).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), truth)


def test_a_mask_in_one_colour_only(tmp_path: Path) -> None:
    truth = marker() > 200
    for channel in range(3):
        colour = np.zeros((37, 53, 3), np.uint8)
        colour[truth, channel] = 128
        Image.fromarray(colour).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), truth)


@pytest.mark.parametrize("shape", [*SHAPES, (463, 561)])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("value", [0, 1, 77, 255])
def test_masks_of_one_level_are_empty_or_full_in_every_pixel(shape: tuple[int, int], colour: bool, value: int) -> None:
    mask = binarise(np.full((*shape, 3) if colour else shape, value, np.uint8))
    assert mask.shape == shape
    assert mask.dtype == bool
    assert mask.all() == (value > 0)
    assert mask.any() == (value > 0)


def test_sixteen_bit_and_float_masks(tmp_path: Path) -> None:
    truth = marker() > 200
    Image.fromarray(truth * np.uint16(65535)).save(tmp_path / "a.png")
    Image.fromarray(truth.astype(np.float32)).save(tmp_path / "b.tif")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_mask(path), truth)


def test_real_images_and_masks_are_read_as_pillow_reads_them(data_dir: Path) -> None:
    images = sorted((data_dir / "thyroid" / "trainval-image").iterdir())[::60]
    assert len(images) >= 5
    for path in images:
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("L")) / 255
        np.testing.assert_allclose(to_channels(read_raster(path).normalised(), 1), expected, atol=1 / 255)
        (mask_path,) = (data_dir / "thyroid" / "trainval-mask").glob(f"{path.stem}.*")
        with Image.open(mask_path) as picture:
            grey = np.asarray(picture.convert("L")).astype(float)
        np.testing.assert_array_equal(read_mask(mask_path), grey > (grey.min() + grey.max()) / 2)
