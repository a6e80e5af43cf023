"""The page in the browser, without one: what it opens, shows and writes, and what `predict` makes of the same file."""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import math
import shutil
import socket
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import nibabel
import numpy as np
import pydicom
import pytest
from made_dicom import content, dicom_image
from made_trained import made_trained, marker
from PIL import Image

from monai_thyroid.deploy import predict_archive
from monai_thyroid.deploy.pack import pack
from monai_thyroid.deploy.web import open_desk
from monai_thyroid.deploy.web.drawing import Screen
from monai_thyroid.deploy.web.opening import EXAMPLES, open_image
from monai_thyroid.deploy.web.pages import _models
from monai_thyroid.deploy.web.run_pages import case_picture, case_rows, curves
from monai_thyroid.deploy.web.server import ask_nobody, check_address, keep_uploads_in_memory, settings, use
from monai_thyroid.deploy.web.serving import Desk, Served, _told_apart
from monai_thyroid.deploy.web.telling import (
    about_image,
    about_model,
    card_text,
    found_text,
    plain,
    result_name,
    run_rows,
)
from monai_thyroid.errors import UserError
from monai_thyroid.files import write_json
from monai_thyroid.images import Raster
from monai_thyroid.images.raster import max_pixels
from monai_thyroid.runfolder import Listed, read_evaluation


@pytest.fixture(scope="session")
def bright(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Marks what is bright."""
    return Served(made_trained(tmp_path_factory.mktemp("web") / "bright", bright=True), device="cpu")


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Two classes of a packed ensemble, by two members."""
    folder = tmp_path_factory.mktemp("web")
    runs = [made_trained(folder / str(seed), "nerve", seed=seed) for seed in (0, 1)]
    return Served(pack(runs, output=folder / "pair", report=False).path, device="cpu")


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("name", ["object.dcm", "scan.png"])
def test_masks_areas_and_dicom_are_those_that_predict_writes(bright: Served, name: str, tmp_path: Path) -> None:
    dicom = name.endswith(".dcm")
    file = content(dicom_image(marker(), PixelSpacing=[0.5, 0.25])) if dicom else png(marker())
    (tmp_path / name).write_bytes(file)
    output = tmp_path / "out"
    predict_archive(
        *([bright.path], [tmp_path / name]),
        **{"output": output, "device": "cpu", "overlays": True, "probabilities": True, "dicom": dicom},
    )
    opened = open_image(name, file)
    look = bright.look(opened.raster)
    prediction = look.at()
    stem = name.partition(".")[0]
    pictures = {
        "mask": look.mask_png(prediction),
        "overlay": look.overlay_png(prediction, 0),
    }
    for kind, made in pictures.items():
        written = np.asarray(Image.open(output / f"{stem}_{kind}.png"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(made))), written), kind
    written = np.asarray(Image.open(output / f"{stem}_probability.png"))
    assert np.array_equal(np.rint(prediction.probabilities[0] * 65535).astype(np.uint16), written)
    (found,) = look.findings(prediction)
    with open(output / "predictions.csv", newline="") as table:
        (row,) = csv.DictReader(table)
    assert {key: "" if value is None else str(value) for key, value in found.row.items()} == {
        key: row[key] for key in found.row
    }
    assert found.row["components"] == len(found.regions) == 2
    told = found_text([found], spacing=dicom)
    assert f"{int(row['area_px']):,} pixels" in told
    if not dicom:
        assert "mm" not in told
        return
    assert f"{float(row['area_mm2']):,.1f} mm²" in told
    files = look.dicom(opened)
    assert set(files) == {"SR", "SEG", "SC"}
    for kind, made in files.items():
        one, other = pydicom.dcmread(io.BytesIO(made)), pydicom.dcmread(output / f"{stem}_{kind.lower()}.dcm")
        assert one.SOPInstanceUID == other.SOPInstanceUID
        assert kind == "SR" or one.PixelData == other.PixelData


def test_another_threshold_gives_another_mask_and_the_own_one_the_same(bright: Served) -> None:
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (32, 1))
    look = bright.look(Raster(pixels=ramp, full_scale=(0.0, 255.0)))
    areas = [int((look.at(threshold).mask > 0).sum()) for threshold in (0.05, None, bright.threshold, 0.95)]
    assert areas[0] > areas[1] == areas[2] > areas[3] > 0


def test_an_ensemble_of_several_classes_tells_agreement(several: Served) -> None:
    look = several.look(Raster(pixels=marker(), full_scale=(0.0, 255.0)))
    assert len(look.maps) == 2
    for number, _ in enumerate(several.classes, 1):
        shares = look.agreement(number)
        assert shares is not None
        assert set(np.unique(shares)) <= {0.0, 0.5, 1.0}
    prediction = look.at()
    found = look.findings(prediction)
    assert [one.name for one in found] == several.classes
    assert "Agreement of the members" in found_text(found, spacing=False)
    everything = look.at(0.0)
    assert (look.agreement(1, 0.0) == 1).sum() <= (everything.mask > 0).sum()
    assert several.document("README.md") is not None
    assert several.listed.members == 2


def broken_files() -> dict[str, tuple[str, bytes, str]]:
    plain_png = png(marker())
    volume = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)).to_bytes()
    several = dicom_image(np.stack([marker()] * 3), kind="US several")
    tomogram = dicom_image(marker())
    tomogram.SOPClassUID = tomogram.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    large = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(large, "PNG")
    return {
        "empty": ("a.png", b"", "empty file"),
        "cut off": ("a.png", plain_png[: len(plain_png) // 2], "cannot be read"),
        "text": ("notes.txt", b"hello there, this is no picture", "cannot be read"),
        "3-D": ("v.nii", volume, "one slice a file"),
        "frames": ("cine.dcm", content(several), "holds 3 frames"),
        "CT": ("slice.dcm", content(tomogram), "3-D series"),
        "cut-off DICOM": ("x.dcm", content(dicom_image(marker()))[:-3000], "x.dcm"),
        "no DICOM": ("y.dcm", b"\0" * 200, "y.dcm"),
        "large": ("huge.png", large.getvalue(), "megapixels"),
        "a source": ("outline:/etc/passwd", b"x" * 50, "cannot be read"),
    }


@pytest.mark.parametrize("kind", list(broken_files()))
def test_what_cannot_be_looked_at_is_told_in_one_sentence(kind: str) -> None:
    name, file, words = broken_files()[kind]
    with pytest.raises(UserError) as caught:
        open_image(name, file)
    (problem,) = caught.value.problems
    assert problem.startswith(name)
    assert words in problem
    assert "\n" not in problem
    assert max_pixels() < 10_000**2


def test_dicom_without_what_results_refer_to_is_shown_without_results() -> None:
    dataset = dicom_image(marker())
    del dataset.StudyInstanceUID
    opened = open_image("a.dcm", content(dataset))
    assert opened.source is None
    assert "lacks StudyInstanceUID" in opened.no_results
    assert np.array_equal(opened.raster.pixels, marker())


def test_examples_open_and_are_of_nobody() -> None:
    for name, make in EXAMPLES.values():
        opened = open_image(name, make())
        assert opened.raster.pixels.shape == (144, 192)
        assert (opened.source is not None) == name.endswith(".dcm")
        if opened.source is not None:
            assert str(opened.source.dataset.PatientName) == "Synthetic^Example"
            assert "0.25 mm" in about_image(opened)


def test_pictures_keep_orientation_and_the_proportions_of_the_body() -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[:10, :15] = 255
    screen = Screen(Raster(pixels=pixels, full_scale=(0.0, 255.0), spacing=(0.5, 0.25)))
    assert screen.size == (480, 640) or screen.size[1] / screen.size[0] == pytest.approx(
        40 * 0.5 / (60 * 0.25), rel=0.01
    )
    width, height = screen.size
    image = screen.image()
    assert image.shape == (height, width, 3)
    assert image[height // 20, width // 20].min() > 200
    assert image[height // 20, -width // 20].max() < 50
    labels = (pixels > 0).astype(np.uint8)
    shown = screen.mask(labels, fill=0.5, places=[(7.5, 5)])
    assert tuple(shown[height // 20, width // 20]) not in {(255, 255, 255), (0, 0, 0)}
    assert tuple(shown[-height // 20, -width // 20]) == (0, 0, 0)
    plane = (pixels > 0).astype(np.float32)
    probable = screen.probability(plane, threshold=0.5)
    assert probable.shape[0] > height  # the strip below
    assert probable[height // 20, width // 20].sum() > probable[height // 20, -width // 20].sum()
    for count in (2, 3):
        masks = [pixels > 0, *[np.roll(pixels > 0, 5, axis=1)] * (count - 1)]
        compared = screen.disagreement(masks, ["one", "x" * 200, "three"][:count], fill=1.0)
        agreed, only = compared[height // 20, width // 8], compared[height // 20, width // 24]
        assert tuple(agreed) != tuple(only)
    assert screen.agreement(plane, members=3).shape == probable.shape


def test_strips_tell_the_colours_of_classes_and_of_members() -> None:
    screen = Screen(Raster(pixels=np.zeros((40, 60), np.uint8), full_scale=(0.0, 255.0)))
    labels = np.tile(np.repeat([1, 2], 30), (40, 1))
    two = screen.mask(labels, fill=1.0, classes=["nerve", "vessel"])
    height = screen.size[1]
    assert two.shape[0] > height == screen.mask(labels, fill=1.0, classes=["nerve"]).shape[0]
    for column in (100, 380):  # inside of a class, away from its outline
        colour = two[height // 2, column]
        assert (two[height:] == colour).all(axis=2).any()
    strips = [screen.mask(labels, fill=0, classes=["ner\nve", name])[height:] for name in ("ü", "И")]
    assert not np.array_equal(*strips)  # no letter is drawn as an empty box
    shares = np.tile(np.repeat([0.5, 1], 30), (40, 1)).astype(np.float32)
    drawn = screen.agreement(shares, members=2)
    bar = drawn[height + 4 + screen._row // 2, drawn.shape[1] // 2 - 60 : drawn.shape[1] // 2 + 60]
    shown = {tuple(drawn[20, column]) for column in (100, 380)}
    assert {tuple(np.rint(0.6 * colour).astype(np.uint8)) for colour in bar} == shown  # over a black image


@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (2500, 7), (33, 47, 3)])
def test_pictures_of_any_size_can_be_drawn(shape: tuple[int, ...]) -> None:
    screen = Screen(Raster(pixels=np.full(shape, 100, np.uint8), full_scale=(0.0, 255.0)))
    assert max(screen.size) <= 1000
    labels = np.ones(shape[:2], np.uint8)
    assert screen.mask(labels, fill=0.3).shape == screen.image().shape
    screen.probability(labels * np.float32(0.5), threshold=0.5)
    screen.disagreement([labels > 0, labels > 1], ["a", "b"], fill=0.3)


def test_no_name_is_read_as_markup() -> None:
    assert plain("a_b*[x](http://y) :red[z] $q$") == r"a\_b\*\[x\]\(http\://y\) \:red\[z\] \$q\$"
    assert card_text("![logo](https://example.org/x.png)") == "[logo](https://example.org/x.png)"


def test_a_table_holds_whatever_a_run_says() -> None:
    odd = Listed(path="/runs/\udcff", network="\ud800", dataset="neck", seed=10**30, images_per_second=10**400)
    (row,) = run_rows([odd])
    assert (row["network"], row["folder"]) == ("?", "/runs/?")
    assert (row["seed"], row["images/s"]) == (1e30, math.inf)
    dataframe_util = pytest.importorskip("streamlit.dataframe_util")
    table = dataframe_util.convert_anything_to_pandas_df(run_rows([odd, Listed(path="/runs/a", seed=1)]))
    assert dataframe_util.convert_pandas_df_to_arrow_bytes(table)
    assert list(table["seed"]) == [1e30, 1]
    assert plain("\udcffa\u202eb\nc") == "?a?b c"


def test_results_are_named_as_predict_names_them(bright: Served) -> None:
    look = bright.look(Raster(pixels=marker(), full_scale=(0.0, 255.0)))
    opened = open_image("a b.c.png", png(marker()))
    assert result_name(opened, look, "_mask.png", alone=True) == "a_b.c_mask.png"
    assert result_name(opened, look, "_mask.png", alone=False) == "a_b.c_marker-seed-0_mask.png"


def test_what_is_known_of_a_model_is_told_and_no_more(bright: Served) -> None:
    told = []
    for scores in ({}, {"dice": 0.5}, {"dice": 0.5, "misses": 2}):
        one = copy.copy(bright)
        one.listed = dataclasses.replace(bright.listed, **scores)
        told.append([fact for fact in about_model(one) if "test" in fact[0]])
    assert told == [
        [("test Dice", "not scored")],
        [("test Dice", "0.5000")],
        [("test Dice", "0.5000"), ("misses in the test", "2")],
    ]


def test_everything_wrong_with_the_options_is_told(bright: Served, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        open_desk([tmp_path / "none"], [tmp_path / "absent"])
    assert len(caught.value.problems) == 2
    (tmp_path / "odd").mkdir()
    write_json(tmp_path / "odd" / "run.json", {"network": 5})
    with pytest.raises(UserError, match=r"odd: run\.json: network must be a text"):  # which of several models
        open_desk([bright.path, tmp_path / "odd"], device="cpu")
    with pytest.raises(UserError, match="at least one --model"):
        open_desk([])
    titles = [model.title for model in open_desk([bright.path, bright.path], device="cpu").models]
    assert titles == ["marker seed 0 (1)", "marker seed 0 (2)"]
    assert _told_apart([Path("/a/unet-1/seed-0"), Path("/b/unet-2/seed-0")]) == ["unet-1", "unet-2"]


def test_it_listens_on_this_machine_sends_nothing_and_keeps_uploads_in_memory() -> None:
    told = settings("127.0.0.1", 8501)
    assert told["browser.gatherUsageStats"] is False
    assert told["server.enableXsrfProtection"] is True
    assert told["server.address"] == "127.0.0.1"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UserError, match="cannot listen there"):
            check_address("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(UserError, match="1 to 65535"):
        check_address("127.0.0.1", 0)
    keep_uploads_in_memory()
    ask_nobody()
    from streamlit import net_util

    assert net_util.get_external_ip() is None
    from starlette.formparsers import MultiPartParser

    assert MultiPartParser.spool_max_size > 500 * 1024**2


def test_a_run_is_shown_with_its_curves_and_its_worst_cases(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text(
        "stage,epoch,lr,train_loss,val_loss,val_dice,val_iou,seconds\n1,1,0.1,0.9,0.8,0.2,,1\n2,1,0.1,0.5,0.4,0.6,,1\n2,2"
    )
    assert curves(tmp_path) == {
        "epoch": [1, 2],
        "train loss": [0.9, 0.5],
        "validation loss": [0.8, 0.4],
        "validation Dice": [0.2, 0.6],
    }
    folder = tmp_path / "evaluations" / "neck-test"
    for kind in ("images", "references", "predictions"):
        (folder / kind).mkdir(parents=True)
    Image.fromarray(marker()).save(folder / "images" / "a.jpg")
    for kind in ("references", "predictions"):
        Image.fromarray((marker(150, 220) > 100).astype(np.uint8) * 255).save(folder / kind / "a.png")
    from monai_thyroid.metrics import SCORE_COLUMNS, score_case

    columns = ["dataset", "part", "case", "group", "class", *SCORE_COLUMNS, "error"]
    rows = []
    for case, found in {"b": marker() > 100, "a": marker() > 300, "c": None}.items():
        scores = dict.fromkeys(SCORE_COLUMNS, "") if found is None else score_case(marker() > 100, found)
        error = "could not be read" if found is None else ""
        row = {"dataset": "neck", "part": "test", "case": case, "group": case, "class": "nodule", **scores}
        rows.append(row | {"error": error})
    with open(folder / "cases.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    write_json(folder / "evaluation.json", {"dataset": "neck", "part": "test"})
    scored = read_evaluation(folder)
    assert [row.case for row in case_rows(scored)] == ["a", "b"]
    picture = case_picture(scored, "a")
    assert picture is not None
    assert picture.shape == (75, 110, 3)
    assert case_picture(scored, "b") is None


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Callable[[Desk], Any]:
    """Runs the script of the page as Streamlit does."""
    testing = pytest.importorskip("streamlit.testing.v1")
    # Streamlit makes the script the main module, which processes that a later test starts would run again.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def run(desk: Desk) -> Any:
        use(desk)
        script = Path(__file__).resolve().parents[2] / "monai_thyroid" / "deploy" / "web" / "start" / "app.py"
        return testing.AppTest.from_file(str(script), default_timeout=60).run()

    return run


def test_the_page_shows_an_image_a_mask_and_a_probability(bright: Served, page: Callable[[Desk], Any]) -> None:
    app = page(Desk([bright]))
    assert not app.exception
    assert [one.value for one in app.warning] == ["For research only. Not for diagnosis."]
    assert [one.value for one in app.subheader] == ["Image", "Mask of marker seed 0", "Probability of nodule"]
    assert "**nodule**" in app.markdown[0].value
    app.slider(key="threshold of marker seed 0").set_value(0.9).run()
    assert any("Not its own threshold" in one.value for one in app.warning)
    assert not app.exception


def test_a_model_of_synthetic_images_says_so_beside_its_mask(
    bright: Served, page: Callable[[Desk], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bright, "synthetic", True)
    assert "never seen a patient's" in page(Desk([bright])).warning[1].value


def test_two_models_stand_side_by_side_and_tell_where_they_disagree(
    bright: Served, several: Served, page: Callable[[Desk], Any]
) -> None:
    other = Served(bright.path, device="cpu")
    other.title = "<b>x</b> :red[y]"
    app = page(Desk([bright, other, several]))
    assert not app.exception
    heads = [one.value for one in app.subheader]
    assert "Where they disagree" in heads
    assert f"It has no class {bright.classes[0]}, so it is not compared by it." in [one.value for one in app.caption]
    assert r"Mask of \<b\>x\</b\> \:red\[y\]" in heads
    app.slider(key="threshold of marker seed 0").set_value(0.95).run()
    text = "\n".join(one.value for one in app.markdown)
    assert "They disagree on" in text
    assert "Dice between" in text


def test_results_in_dicom_are_offered_for_dicom_only(bright: Served, page: Callable[[Desk], Any]) -> None:
    app = page(Desk([bright]))
    assert any("DICOM images only" in one.value for one in app.caption)
    app.selectbox[0].set_value(list(EXAMPLES)[2]).run()
    assert not app.exception
    assert any("name the patient" in one.value for one in app.caption)
    assert "10 mm" not in app.markdown[0].value
    assert "mm²" in app.markdown[0].value


def test_a_model_whose_folder_goes_still_segments_and_says_so(
    page: Callable[[Desk], Any], tmp_path: Path, bright: Served
) -> None:
    gone = Served(shutil.copytree(bright.path, tmp_path / "gone"), device="cpu")
    shutil.rmtree(tmp_path / "gone")
    app = page(Desk([gone]))
    assert not app.exception
    assert app.subheader[1].value == "Mask of marker seed 0"
    _models(recorded := MagicMock(tabs=lambda titles: [MagicMock() for _ in titles]), Desk([gone]))
    assert "Its folder is gone" in recorded.warning.call_args[0][0]


def test_a_broken_figure_of_a_run_is_told_and_the_rest_is_shown(
    page: Callable[[Desk], Any], tmp_path: Path, bright: Served
) -> None:
    run = Path(shutil.copytree(bright.path, tmp_path / "run"))
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / "a.png").write_bytes(png(marker())[:99])
    bomb = bytearray(png(marker()))
    bomb[16:24] = (20_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    (run / "figures" / "b.png").write_bytes(bomb)
    app = page(Desk([], [run]))
    app.selectbox(key="run").select_index(0).run()
    assert not app.exception
    for name in "ab":
        assert any(f"figures/{name}" in one.value and "cannot be shown" in one.value for one in app.warning)


def test_the_runs_are_a_page_of_their_own(bright: Served, page: Callable[[Desk], Any], tmp_path: Path) -> None:
    app = page(Desk([], [bright.path.parent]))
    assert not app.exception
    (table,) = app.dataframe
    assert list(table.value["network"]) == ["marker"]
    app.selectbox(key="run").select_index(0).run()
    assert not app.exception
    assert app.subheader[0].value == "marker on made: done"
    app = page(Desk([], [tmp_path]))
    assert "no run in it" in app.error[0].value
