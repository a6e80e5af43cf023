"""What must not pass without a word: turned pictures, masks in alpha, complex numbers, pipes, huge and empty files."""

from __future__ import annotations

import gzip
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from made_files import AFFINE, marker, noise, save_dicom, save_nifti
from PIL import Image

from monai_thyroid.data.scenes import thumbnail
from monai_thyroid.errors import UserError
from monai_thyroid.images import is_image, read_labels, read_mask, read_raster
from monai_thyroid.images.sources import contours_source, npz_source, outline_source, union_source


def save_turned(path: Path, pixels: np.ndarray, orientation: int, **options: object) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


# --- EXIF ---

# TIFF 6.0, tag 274: where the file's first row and first column lie in the picture that is shown.
SHOWN: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),  # clockwise
    7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("name", "colour"), [("a.png", False), ("a.tif", False), ("a.jpg", True), ("b.png", True)])
def test_pictures_are_read_as_viewers_show_them(tmp_path: Path, orientation: int, name: str, colour: bool) -> None:
    pixels = np.stack([marker(), marker()[::-1], marker()[:, ::-1]], axis=2) if colour else marker()
    path = save_turned(tmp_path / name, pixels, orientation)
    save_turned(plain := tmp_path / f"plain-{name}", pixels, 1)
    shown = SHOWN[orientation](np.asarray(Image.open(plain)))
    assert shown.shape[:2] == ((53, 37) if orientation >= 5 else (37, 53))
    raster = read_raster(path)
    np.testing.assert_array_equal(raster.pixels, shown)
    assert raster.orientation == orientation
    small, size = thumbnail(str(path))
    assert size == shown.shape[:2]
    grey = np.asarray(Image.fromarray(shown).convert("L").resize((32, 32), Image.Resampling.BOX)) / 255
    np.testing.assert_allclose(small, grey, atol=0.12)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_and_contours_are_turned_with_their_pictures(tmp_path: Path, orientation: int) -> None:
    path = save_turned(tmp_path / "7_1.png", marker(), orientation)
    shown = read_raster(path).pixels
    np.testing.assert_array_equal(shown, SHOWN[orientation](marker()))
    mask = save_turned(tmp_path / "mask.png", (marker() > 200) * np.uint8(255), orientation)
    np.testing.assert_array_equal(read_mask(mask), shown > 200)
    np.testing.assert_array_equal(read_mask(union_source(mask, mask)), shown > 200)
    np.testing.assert_array_equal(read_mask(outline_source(mask)), shown > 200)
    rows, columns = np.nonzero(shown > 200)
    corners = [(columns.min(), rows.min()), (columns.max(), rows.min()), (columns.max(), rows.max()),
               (columns.min(), rows.max())]  # fmt: skip
    points = ", ".join(f'{{"x": {x}, "y": {y}}}' for x, y in corners)
    table = tmp_path / "7.xml"
    table.write_text(f'<case><mark><image>1</image><svg>[{{"points": [{points}]}}]</svg></mark></case>')
    np.testing.assert_array_equal(read_mask(contours_source(path, table)), shown > 200)


def test_palettes_and_sixteen_bits_are_turned_too(tmp_path: Path) -> None:
    indices = Image.fromarray(marker() // 100).convert("P")
    exif = Image.Exif()
    exif[0x0112] = 6
    indices.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png", classes=2), np.rot90(marker() // 100, -1))
    save_turned(tmp_path / "b.png", marker().astype(np.uint16) * 200, 8)
    np.testing.assert_array_equal(read_raster(tmp_path / "b.png").pixels, np.rot90(marker().astype(np.uint16) * 200))


def test_an_orientation_that_there_is_not_is_none(tmp_path: Path) -> None:
    assert read_raster(save_turned(tmp_path / "a.png", marker(), 9)).orientation == 1


# --- masks in alpha ---

TRUTH = marker() > 200


def rgba(colours: np.ndarray | int, alpha: np.ndarray | int, mode: str = "RGBA") -> Image.Image:
    both = np.zeros((*TRUTH.shape, 4), np.uint8)
    both[..., :3] = colours if isinstance(colours, int) else colours[..., None]
    both[..., 3] = alpha
    return Image.fromarray(both).convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("colour", [0, 90, 255])
def test_where_the_colours_hold_nothing_alpha_is_the_mask(tmp_path: Path, mode: str, colour: int) -> None:
    rgba(colour, TRUTH * np.uint8(255), mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), TRUTH)
    rgba(colour, TRUTH * np.uint8(1), mode).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "b.png", classes=2), TRUTH)
    rgba(colour, 0, mode).save(tmp_path / "c.png")
    assert not read_mask(tmp_path / "c.png").any()
    assert read_raster(tmp_path / "a.png").pixels.max() == colour, "an image's alpha is dropped"


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_colours_and_alpha_of_one_mask_agree_and_of_two_are_refused(tmp_path: Path, mode: str) -> None:
    white = TRUTH * np.uint8(255)
    for alpha in (white, 255, 130):
        rgba(white, alpha, mode).save(tmp_path / "a.png")
        np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), TRUTH)
    for alpha in (white[::-1], 255 - white):
        rgba(white, alpha, mode).save(tmp_path / "a.png")
        with pytest.raises(UserError, match="two different masks"):
            read_mask(tmp_path / "a.png")


# --- what is no image, or too much of one ---


def test_complex_nifti_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(marker().astype(np.complex64) * 1j, AFFINE), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match="complex"):
        read_raster(tmp_path / "a.nii.gz")
    np.savez(tmp_path / "b.npz", images=marker()[None] * 1j)
    with pytest.raises(UserError, match="complex"):
        read_raster(npz_source(tmp_path / "b.npz", "images", 0))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("suffix", [".png", ".dcm", ".nii", ".xml", ""])
def test_pipes_and_sockets_are_never_opened(tmp_path: Path, suffix: str) -> None:
    pipe, path = tmp_path / f"pipe{suffix}", tmp_path / f"socket{suffix}"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        for strange in (pipe, path):
            assert is_image(strange) == (suffix in (".png", ".dcm", ".nii"))
            for name in (str(strange), outline_source(strange)):
                with pytest.raises(UserError, match="pipe, socket or device"):
                    read_raster(name)
    Image.fromarray(marker()).save(tmp_path / "1_1.png")
    with pytest.raises(UserError, match="pipe, socket or device"):
        read_raster(contours_source(tmp_path / "1_1.png", pipe))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".dcm", ".nii", ".nii.gz", ""])
def test_an_empty_file_is_called_so(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a{suffix}").touch()
    with pytest.raises(UserError, match=r"is an empty file$"):
        read_raster(tmp_path / f"a{suffix}")
    (tmp_path / f"a{suffix}").write_bytes(b"no image " * 50)
    with pytest.raises(UserError) as caught:
        read_raster(tmp_path / f"a{suffix}")
    assert "BytesIO" not in str(caught.value)


def test_every_format_has_a_limit_on_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.png", "b.jpg", "c.tif", "d.bmp"):
        Image.fromarray(marker()).save(tmp_path / name)
    save_dicom(tmp_path / "e.dcm", marker())
    save_nifti(tmp_path / "f.nii.gz", marker().T, AFFINE)
    save_nifti(tmp_path / "g.nii", marker().T, AFFINE)
    sources = [str(path) for path in sorted(tmp_path.iterdir())]
    np.savez(tmp_path / "h.npz", images=marker()[None])
    sources.append(npz_source(tmp_path / "h.npz", "images", 0))
    for name in sources:
        monkeypatch.setenv("MONAI_THYROID_MAX_PIXELS", str(37 * 53 - 1))
        with pytest.raises(UserError, match=r"53 x 37 pixels, more than the 0\.00196 megapixels .*MAX_PIXELS"):
            read_raster(name)
        monkeypatch.setenv("MONAI_THYROID_MAX_PIXELS", str(37 * 53))
        assert read_raster(name).pixels.shape == (37, 53)
    monkeypatch.setenv("MONAI_THYROID_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="MONAI_THYROID_MAX_PIXELS=many: give a whole number"):
        read_raster(sources[0])


def test_huge_pictures_are_refused_by_their_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (13_000, 13_000)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("was decoded"))
    with pytest.raises(UserError, match="13000 x 13000 pixels, more than the 64 megapixels"):
        read_raster(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_huge_nifti_is_refused_by_its_header(tmp_path: Path, suffix: str) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((30_000, 30_000))
    header.set_data_dtype(np.uint8)
    content = header.binaryblock + bytes(4) + bytes(1000)
    (tmp_path / f"a{suffix}").write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    with pytest.raises(UserError, match="30000 x 30000 pixels"):
        read_raster(tmp_path / f"a{suffix}")


def test_what_a_header_does_not_account_for_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", marker().T, AFFINE)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole + bytes(30_000_000)))
    monkeypatch.setattr(gzip, "decompress", lambda content: pytest.fail("was unpacked as a whole"))
    np.testing.assert_array_equal(read_raster(path).pixels, marker())


def test_pictures_are_not_handed_to_other_programs(tmp_path: Path) -> None:
    Image.fromarray(noise((8, 8, 3))).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(UserError, match="no image of a known format"):
        read_raster(tmp_path / "a.png")


def test_dicom_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    for name in ("IM00001", "1.2.840.113619.2.55.3", "scan.ima"):
        assert is_image(save_dicom(tmp_path / name, marker()))
    (tmp_path / "README").write_text("DICM")
    assert not is_image(tmp_path / "README")


def test_broken_files_end_in_one_sentence(tmp_path: Path) -> None:
    """Bytes changed at random (seeded), most of them in the headers, in a file of each format."""
    for name in ("a.png", "b.jpg", "c.bmp", "d.tif"):
        Image.fromarray(noise((24, 18))).save(tmp_path / name)
    Image.fromarray(noise((24, 18, 4))).save(tmp_path / "e.png")
    save_dicom(tmp_path / "f.dcm", noise((24, 18)))
    save_nifti(tmp_path / "g.nii", noise((24, 18)), AFFINE)
    save_nifti(tmp_path / "h.nii.gz", noise((24, 18)), AFFINE)
    np.savez_compressed(tmp_path / "i.npz", x=noise((1, 24, 18)))
    rng = random.Random(0)
    refused = 0
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        name = npz_source(path, "x", 0) if path.suffix == ".npz" else str(path)
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(rng.choice([1, 1, 2, 5, 20])):
                content[rng.randrange(rng.choice([len(content), min(len(content), 400)]))] = rng.randrange(256)
            path.write_bytes(content[: rng.randrange(len(content) + 1)] if rng.random() < 0.1 else content)
            os.utime(path, ns=(refused, rng.randrange(10**15)))  # arrays are kept by their time
            try:
                read_raster(name, mask=rng.random() < 0.5)
            except UserError as error:
                refused += 1
                (problem,) = error.problems
                assert str(path) in problem
                assert "\n" not in problem
    assert refused > 100
