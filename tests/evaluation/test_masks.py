"""Masks that anything made, scored: what is written, and what is refused before anything is."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import TrainedRun, score_masks
from monai_thyroid.images import png_mark
from monai_thyroid.metrics import score_case
from monai_thyroid.runfolder import read_evaluation, read_run, read_split


def mask(case: int, *, shift: int = 0) -> np.ndarray:
    """(24, 32), asymmetric."""
    labels = np.zeros((24, 32), np.uint8)
    labels[2 + case : 8 + case, 3 + shift : 12 + shift] = 1
    labels[8 + case, 3 + shift] = 1
    return labels


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """References, predictions as nnU-Net writes them beside its own files, and images."""
    for name in ("labels", "found", "images"):
        (tmp_path / name).mkdir()
    for case in range(4):
        Image.fromarray(mask(case) * 255).save(tmp_path / "labels" / f"p{case // 2}_{case}_mask.png")
        Image.fromarray(mask(case, shift=1)).save(tmp_path / "found" / f"p{case // 2}_{case}.png")
        Image.fromarray(mask(case) * 60).save(tmp_path / "images" / f"p{case // 2}_{case}_0000.png")
    for name in ("dataset.json", "plans.json"):
        (tmp_path / "found" / name).write_text("{}")
    return tmp_path


def scored(folder: Path, **options: Any) -> Any:
    given = {"predictions": folder / "found", "references": folder / "labels", "output": folder / "run", **options}
    return score_masks(**{"name": "nnunet", **given})


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_leaves_a_run_folder_without_weights(folders: Path) -> None:
    result = scored(folders, images=folders / "images", groups_from=r"^(p\d)", classes=["nodule"], pretrained_on=["X"])
    assert result.left_out == ["dataset.json", "plans.json"]
    assert result.warnings == []
    run = folders / "run"
    record = read_run(run)
    assert (record.network, record.seed, record.dataset, record.classes) == ("nnunet", 0, "labels", ["nodule"])
    assert (record.scored_from, record.status, record.pretrained_on) == ("masks", "done", ["X"])
    assert sorted(path.name for path in run.iterdir()) == ["config.yaml", "evaluations", "run.json", "split.json"]
    evaluation = read_evaluation(run / "evaluations" / "labels-test")
    assert [(row.case, row.group) for row in evaluation.rows] == [
        (f"p{case // 2}_{case}", f"p{case // 2}") for case in range(4)
    ]
    for case, row in enumerate(evaluation.rows):
        expected = score_case(mask(case), mask(case, shift=1))
        assert {key: row[key] for key in expected if not key.startswith("spacing")} == pytest.approx(
            {key: value for key, value in expected.items() if not key.startswith("spacing")}
        )
        np.testing.assert_array_equal(evaluation.labels("predictions", str(row.case)), mask(case, shift=1))
        np.testing.assert_array_equal(evaluation.labels("references", str(row.case)), mask(case))
        assert evaluation.picture("images", str(row.case)).is_file()
    assert record.test is not None
    assert record.test["n_cases"] == 4
    assert evaluation.record.references_hash == evaluation.references_hash()
    assert len(read_split(run)["parts"]["test"]["image_sha256"]) == 4
    with pytest.raises(UserError, match="scored from masks that something else made"):
        TrainedRun(str(run))


def test_folders_above_the_output_are_made_and_a_file_there_is_refused(folders: Path) -> None:
    scored(folders, output=folders / "scored" / "more" / "nnunet")
    assert read_run(folders / "scored" / "more" / "nnunet").network == "nnunet"
    (folders / "file").touch()
    with pytest.raises(UserError, match=r"output .*nnunet: .*file is a file"):
        scored(folders, output=folders / "file" / "nnunet")


def test_every_file_without_a_counterpart_is_told_and_nothing_is_written(folders: Path) -> None:
    for case in (1, 3):
        (folders / "found" / f"p{case // 2}_{case}.png").rename(folders / "found" / f"other_{case}.png")
    before = everything(folders)
    with pytest.raises(UserError) as caught:
        scored(folders)
    assert len(caught.value.problems) == 4
    for told in (
        "other_1.png: no reference",
        "other_3.png: no reference",
        "p0_1: no prediction",
        "p1_3: no prediction",
    ):
        assert told in str(caught.value)
    assert everything(folders) == before


def test_everything_that_is_wrong_with_masks_is_one_list_and_nothing_is_written(folders: Path) -> None:
    found = folders / "found"
    Image.fromarray(mask(0)[:20]).save(found / "p0_0.png")
    Image.fromarray(mask(1) * 2).save(found / "p0_1.png")
    (found / "p1_2.png").unlink()
    np.save(found / "p1_2.npy", np.where(mask(2), np.nan, 0))
    (found / "p1_3.png").unlink()
    np.save(found / "p1_3.npy", np.where(mask(3), 0.8, 0.1))
    wrong = ["32 x 20 (width x height) but its reference 32 x 24", "holds 2;", "NaN", "soft mask"]
    for foreign in (False, True):
        if foreign:  # together with files that have no counterpart
            (found / "p0_1.png").rename(found / "else.png")
            wrong[1:2] = ["else.png: no reference of that name", "p0_1: no prediction in"]
        before = everything(folders)
        with pytest.raises(UserError) as caught:
            scored(folders)
        assert len(caught.value.problems) == len(wrong)
        for told in wrong:
            assert told in str(caught.value)
        assert everything(folders) == before
        assert not (folders / "run").exists()


def test_masks_that_were_mirrored_on_their_way_are_told(folders: Path) -> None:
    for case in range(4):
        np.save(folders / "found" / f"p{case // 2}_{case}.npy", mask(case)[:, ::-1])
        (folders / "found" / f"p{case // 2}_{case}.png").unlink()
    (warning,) = scored(folders).warnings
    assert "better mirrored left to right (Dice of all pixels 1.00 instead of 0.00)" in warning
    assert warning in (
        read_run(folders / "run").warnings or read_evaluation(folders / "run/evaluations/labels-test").record.warnings
    )


def test_what_predict_writes_beside_its_masks_is_left_out(folders: Path) -> None:
    picture = Image.fromarray(mask(0) * 90)
    picture.save(folders / "found" / "p0_0_overlay.png", pnginfo=png_mark())
    assert "p0_0_overlay.png" in scored(folders).left_out
    picture.save(folders / "found" / "p0_0_overlay.png")  # somebody else's, and perhaps a mask
    with pytest.raises(UserError, match=r"p0_0_overlay\.png: no reference of that name"):
        scored(folders)


def test_a_subfolder_is_named_among_what_is_left_out(folders: Path) -> None:
    (folders / "found" / "fold_1").mkdir()
    (folders / "found" / ".cache").mkdir()
    assert "fold_1/" in scored(folders).left_out
    assert ".cache/" not in scored(folders).left_out


def test_the_references_themselves_are_no_predictions(folders: Path) -> None:
    with pytest.raises(UserError, match=r"labels: are the references themselves$"):
        scored(folders, predictions=folders / "labels")


def test_masks_in_subfolders_are_told_where_they_are_lacking(folders: Path) -> None:
    (folders / "found" / "fold_1").mkdir()
    (folders / "found" / "p0_0.png").rename(folders / "found" / "fold_1" / "p0_0.png")
    with pytest.raises(
        UserError, match=r"^p0_0: no prediction in \S+ \(its subfolders are not looked into: fold_1/\)$"
    ):
        scored(folders)
    for mask in (folders / "found").glob("*.png"):
        mask.rename(folders / "found" / "fold_1" / mask.name)
    with pytest.raises(UserError, match=r"found: holds no mask \(its subfolders are not looked into: fold_1/\)$"):
        scored(folders)


def test_groups_come_from_a_table(folders: Path) -> None:
    rows = "".join(f"p{case // 2}_{case}.png,patient-{case % 2}\n" for case in range(4))
    (folders / "who.csv").write_text(f"file,patient\n{rows}")
    scored(folders, groups=folders / "who.csv")
    evaluation = read_evaluation(folders / "run" / "evaluations" / "labels-test")
    assert [row.group for row in evaluation.rows] == [f"patient-{case % 2}" for case in range(4)]
    assert read_run(folders / "run").grouping == "known"
    (folders / "who.csv").write_text(f"file,patient\n{rows.splitlines()[0]}\n")
    with pytest.raises(UserError, match="finds no group for p0_1, p1_2, p1_3"):
        scored(folders, groups=folders / "who.csv")


def test_another_part_joins_and_another_model_does_not(folders: Path) -> None:
    scored(folders)
    scored(folders, part="validation")
    run = folders / "run"
    assert sorted(path.name for path in (run / "evaluations").iterdir()) == ["labels-test", "labels-validation"]
    assert sorted(read_split(run)["parts"]) == ["test", "validation"]
    assert (read_run(run).test or {})["n_cases"] == 4
    before = everything(run)
    for options in ({"name": "other"}, {"seed": 1}, {"dataset": "else"}, {"classes": ["nodule"]}):
        with pytest.raises(UserError, match="holds another run"):
            scored(folders, **options)
    (folders / "found" / "p0_0.png").unlink()
    with pytest.raises(UserError, match="no prediction"):
        scored(folders)
    assert everything(run) == before
    with pytest.raises(UserError, match="holds something else"):
        scored(folders, output=folders / "labels")


def test_arguments_that_are_wrong_are_told_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        scored(tmp_path, name="a/b", seed=-1, part="tests", classes=["a", "a"], groups_from="a", groups="b")
    for word in (
        "predictions",
        "references",
        "name 'a/b'",
        "seed -1",
        "part 'tests'",
        "classes a,a",
        "groups-from and",
    ):
        assert word in str(caught.value)


def test_several_classes_by_number(tmp_path: Path) -> None:
    for name in ("labels", "found"):
        (tmp_path / name).mkdir()
        both = np.where(mask(0) > 0, 2, mask(3))
        Image.fromarray(both.astype(np.uint8)).save(tmp_path / name / "a.png")
    scored(tmp_path)
    assert read_run(tmp_path / "run").classes == ["class_1", "class_2"]
    with pytest.raises(UserError, match="its masks hold 2 classes, but 1 is named"):
        scored(tmp_path, classes=["nodule"])


def test_the_command_scores(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["score", "--predictions", str(folders / "found"), "--references", str(folders / "labels")]
    arguments += ["--name", "nnunet", "--output", str(folders / "run"), "--groups-from", r"^(p\d)"]
    assert cli.main([*arguments, "--pretrained-on", "none"]) == 0
    out = capsys.readouterr().out
    assert "Left out, as no masks: dataset.json, plans.json" in out
    assert "nnunet: test (labels, 4 images): Dice 0." in out
    assert f"Run folder: {folders / 'run'}" in out
    assert json.loads((folders / "run" / "run.json").read_text())["pretrained_on"] == []
    with open(folders / "run" / "evaluations" / "labels-test" / "cases.csv") as file:
        assert len(list(csv.DictReader(file))) == 4
    assert cli.main([*arguments, "--classes", "a,a"]) == 1
    assert "classes a,a" in capsys.readouterr().err
