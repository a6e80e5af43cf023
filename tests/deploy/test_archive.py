"""Archives are segmented whole: nothing lost, nothing twice, nothing of others touched, whatever happens in between."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_dicom import dicom_image, saved
from made_trained import in_every_format, made_trained, marker
from PIL import Image

from monai_thyroid.cli import main
from monai_thyroid.deploy import predict_archive
from monai_thyroid.deploy.archive import COLUMNS
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor
from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import made_here, read_raster
from monai_thyroid.images.reading import read_labels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trained(tmp_path_factory.mktemp("runs") / "run", bright=True, image_size=48)


def archive(folder: Path, count: int = 6) -> Path:
    """Pictures in folders in folders, of one object each, whose place and size tell them apart."""
    for index in range(count):
        pixels = np.full((40 + index % 5, 60), 5, np.uint8)
        pixels[5 : 12 + index % 7, 10 : 30 + index % 11] = 250
        path = folder / f"site{index % 2}" / f"patient{index % 3}" / f"scan{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return folder


def predict(run: Path, source: Path, output: Path, **options: Any) -> Any:
    return predict_archive([run], [source], output=output, **{"device": "cpu", "runtime": "torch-float32", **options})


def test_masks_lie_as_their_images_do_and_the_table_tells_of_each(run: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "in")
    result = predict(run, source, tmp_path / "out", overlays=True, probabilities=True)
    assert (result.images, result.before, result.failed) == (6, 0, {})
    rows = {row["source"]: row for row in read_csv(tmp_path / "out" / "predictions.csv")}
    images = sorted(source.rglob("*.png"))
    assert sorted(rows) == [str(path) for path in images]
    pictures = list((tmp_path / "out").rglob("*.png"))
    assert len(pictures) == 18
    assert all(map(made_here, pictures)), "known as results wherever they are carried"
    predictor = Predictor(run, device="cpu", runtime="torch-float32")
    for path in images:
        row, place = rows[str(path)], path.relative_to(source).with_suffix("")
        assert row["mask"] == f"{place}_mask.png"
        expected = predictor(read_raster(path))
        mask = read_labels(tmp_path / "out" / row["mask"], classes=1)
        np.testing.assert_array_equal(mask, expected.mask)
        assert (row["class"], row["components"], row["error"]) == ("nodule", "1", "")
        assert int(row["area_px"]) == mask.sum() > 100
        assert row["area_mm2"] == row["largest_diameter_mm"] == row["agreement"] == ""
        inside = expected.probabilities[0][expected.mask == 1].mean()
        assert float(row["mean_probability"]) == pytest.approx(inside, abs=1e-4)
        picture = np.asarray(Image.open(tmp_path / "out" / f"{place}_probability.png"))
        np.testing.assert_allclose(picture / 65535, expected.probabilities[0], atol=1e-5)
        assert Image.open(tmp_path / "out" / f"{place}_overlay.png").size == mask.shape[::-1]


@pytest.mark.parametrize("runtime", ["torch-float32", "openvino-float32"])
def test_every_format_keeps_its_orientation_and_tells_its_spacing(run: Path, runtime: str, tmp_path: Path) -> None:
    files = in_every_format(tmp_path / "in", marker())
    predict(run, tmp_path / "in", tmp_path / "out", runtime=runtime)
    rows = {Path(row["source"]).name: row for row in read_csv(tmp_path / "out" / "predictions.csv")}
    assert len(rows) == len(files)
    for name, row in rows.items():
        mask = read_labels(tmp_path / "out" / row["mask"], classes=1) > 0
        assert 2 * (mask & (marker() > 128)).sum() / (mask.sum() + (marker() > 128).sum()) > 0.9, name
        assert row["components"] == "2"
        if name in ("volume.nii.gz", "object.dcm"):
            assert float(row["area_mm2"]) == pytest.approx(int(row["area_px"]) * 0.125)
            assert float(row["largest_diameter_mm"]) < float(row["largest_diameter_px"]) / 2
    assert rows["volume.nii.gz"]["mask"] == "volume_mask.nii.gz"


def test_several_classes_have_a_row_each(tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run", "nerve")
    source = archive(tmp_path / "in", 3)
    predict(run, source, tmp_path / "out", probabilities=True)
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert [row["class"] for row in rows] == ["nerve", "vessel"] * 3
    assert len(list((tmp_path / "out").rglob("*_probability_vessel.png"))) == 3
    assert predict(run, source, tmp_path / "out", probabilities=True).images == 0
    # Half of an image's rows is none of it.
    table = tmp_path / "out" / "predictions.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    assert predict(run, source, tmp_path / "out", probabilities=True).images == 1
    assert len(read_csv(table)) == 6


def test_a_broken_file_is_told_at_the_end_and_tried_again(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = archive(tmp_path / "in")
    broken = source / "site0" / "broken.png"
    broken.write_bytes(b"no picture")
    words = [
        "predict",
        str(run),
        str(source),
        "--output",
        str(tmp_path / "out"),
        "--device",
        "cpu",
        "--runtime",
        "torch",
    ]
    assert main(words) == 1
    said = capsys.readouterr()
    assert "6 images segmented" in said.out
    assert str(broken) in said.err
    (row,) = [row for row in read_csv(tmp_path / "out" / "predictions.csv") if row["error"]]
    assert (row["source"], row["mask"]) == (str(broken), "")
    Image.fromarray(marker()).save(broken)
    assert main(words) == 0
    assert "1 image segmented" in capsys.readouterr().out
    rows = read_csv(tmp_path / "out" / "predictions.csv")
    assert len(rows) == len({row["source"] for row in rows}) == 7
    assert not any(row["error"] for row in rows)


def test_an_image_that_was_replaced_under_its_name_is_segmented_anew(run: Path, tmp_path: Path) -> None:
    source, output = archive(tmp_path / "in"), tmp_path / "out"
    predict(run, source, output)
    before = {path: path.read_bytes() for path in output.rglob("*_mask.png")}
    (replaced,) = source.rglob("scan2.png")
    Image.fromarray(np.asarray(Image.open(replaced))[::-1]).save(replaced)
    later = time.time() + 2  # a file system may count whole seconds
    os.utime(replaced, (later, later))
    again = predict(run, source, output)
    assert (again.images, again.before, again.failed) == (1, 5, {})
    after = {path: path.read_bytes() for path in output.rglob("*_mask.png")}
    assert [path.name for path in before if after[path] != before[path]] == ["scan2_mask.png"]
    assert len(read_csv(output / "predictions.csv")) == 6
    (emptied,) = output.rglob("scan4_mask.png")
    emptied.write_bytes(b"")  # by no kill, for masks are written whole
    (told,) = predict(run, source, output).failed.values()
    assert "scan4_mask.png" in told
    assert "move it away" in told


def test_what_predictions_left_is_no_input(run: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", 4)
    Image.fromarray(marker()).save(source / "site0" / "patient0" / "scan0_mask.png")
    Image.fromarray(marker()).save(source / "alone_mask.png")
    inside = source / "out"
    result = predict(run, source, inside)
    assert result.images == 5
    assert result.left_out == {"mask, overlay or probability of an image beside it": 1}
    assert predict(run, source, inside).before == 5
    assert predict(run, source, tmp_path / "elsewhere").images == 5


def test_an_output_of_something_else_is_refused(run: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", 2)
    before = {path: path.read_bytes() for path in source.rglob("*.png")}
    with pytest.raises(UserError, match="not of predict"):
        predict(run, source, source)
    assert before == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    predict(run, source, tmp_path / "out")
    with pytest.raises(UserError) as caught:
        predict(made_trained(tmp_path / "other", seed=3), source, tmp_path / "out", overlays=True)
    assert [word in str(caught.value) for word in ("other weights", "overlays False, not True")] == [True, True]
    for path in (tmp_path / "out").rglob("*_mask.png"):
        path.unlink()
    assert predict(run, source, tmp_path / "out").images == 2


def test_a_file_of_somebody_else_is_not_written_over(run: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", 2)
    predict(run, source, tmp_path / "out")
    Image.fromarray(marker()).save(source / "more.png")
    (tmp_path / "out" / "more_mask.png").write_bytes(b"mine")
    result = predict(run, source, tmp_path / "out")
    assert "not of predict" in result.failed[str(source / "more.png")]
    assert (tmp_path / "out" / "more_mask.png").read_bytes() == b"mine"


def test_files_that_differ_by_their_suffix_keep_it(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(marker()).save(tmp_path / "in" / "a.png")
    Image.fromarray(marker().T).save(tmp_path / "in" / "a.bmp")
    predict(run, tmp_path / "in", tmp_path / "out")
    masks = sorted((tmp_path / "out").glob("*_mask.png"))
    assert [path.name for path in masks] == ["a.bmp_mask.png", "a.png_mask.png"]
    assert Image.open(masks[0]).size == marker().shape
    with pytest.raises(UserError, match="would have the same mask"):
        predict_archive([run], [archive(tmp_path / "b", 1), archive(tmp_path / "c", 1)], output=tmp_path / "o")


def test_frames_and_files_of_their_names_have_masks_of_their_own(run: Path, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    still = dicom_image(marker())
    saved(source / "a.dcm", dicom_image(np.stack([marker()[::-1]] * 2), kind="US several"))
    saved(source / "a_frame1.dcm", still)
    Image.fromarray(marker()).save(source / "b.png")
    Image.fromarray(marker()).save(source / "b_frame1.png")
    predict(run, source, tmp_path / "out")
    names = {row["mask"] for row in read_csv(tmp_path / "out" / "predictions.csv")}
    assert names == {f"{name}_mask.png" for name in ("a_frame1", "a_frame2", "a_frame1.dcm", "b", "b_frame1")}
    saved(source / "a_frame2", still)
    with pytest.raises(UserError, match="may have the same mask as a frame of"):
        predict(run, source, tmp_path / "again")


def test_nothing_to_segment_is_said_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, words in ((tmp_path / "empty", "holds no image"), (tmp_path / "absent", "no such file")):
        with pytest.raises(UserError, match=words):
            predict(run, source, tmp_path / "out")
    with pytest.raises(UserError, match="not a run folder"):
        predict(tmp_path / "empty", archive(tmp_path / "in", 1), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_processes_do_not_share_an_output(run: Path, tmp_path: Path) -> None:
    import fcntl

    source = archive(tmp_path / "in", 1)
    (tmp_path / "out").mkdir()
    descriptor = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(UserError, match="another process"):
        predict(run, source, tmp_path / "out")
    os.close(descriptor)


def test_a_half_written_line_is_cut_off(run: Path, tmp_path: Path) -> None:
    source = archive(tmp_path / "in", 4)
    predict(run, source, tmp_path / "out")
    table = tmp_path / "out" / "predictions.csv"
    whole = table.read_bytes()
    for length in (len(whole) - 1, len(whole) - 9, len(whole) // 2, 3):
        table.write_bytes(whole[:length])
        result = predict(run, source, tmp_path / "out")
        rows = read_csv(table)
        assert result.images + result.before == 4 == len(rows) == len({row["source"] for row in rows})
        assert next(csv.reader(table.open())) == COLUMNS


def test_a_kill_loses_and_repeats_nothing(run: Path, tmp_path: Path) -> None:
    """Killed at seeded moments, in the middle of the work, until it is done."""
    source, output = archive(tmp_path / "in", 150), tmp_path / "out"
    Predictor(run, device="cpu", runtime="openvino-float32")  # converted once, so that a start takes no torch
    command = [sys.executable, "-m", "monai_thyroid", "predict", str(run), str(source), "--output", str(output)]
    moments, table = random.Random(0), output / "predictions.csv"
    done: dict[str, tuple[bytes, int]] = {}
    for _ in range(4):
        process = subprocess.Popen(
            [*command, "--runtime", "openvino"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        before = table.stat().st_size if table.is_file() else 0
        while process.poll() is None and (not table.is_file() or table.stat().st_size <= before + 100):
            time.sleep(0.002)
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        whole = table.read_text().splitlines()[1:-1]
        for line in whole:
            mask = output / line.split(",")[1]
            now = (mask.read_bytes(), mask.stat().st_mtime_ns)
            assert done.setdefault(line.split(",")[0], now) == now  # what was done is not done again
    assert main([*command[3:], "--runtime", "openvino"]) == 0
    rows = read_csv(table)
    assert len(rows) == len({row["source"] for row in rows}) == 150
    for path, (content, changed) in done.items():
        mask = output / next(row["mask"] for row in rows if row["source"] == path)
        assert (mask.read_bytes(), mask.stat().st_mtime_ns) == (content, changed)
    written = {path for path in output.rglob("*") if path.is_file()}
    own = {output / name for name in ("predictions.json", "predictions.csv")}
    assert written == {output / row["mask"] for row in rows} | own
    assert read_json(output / "predictions.json")["classes"] == ["nodule"]
