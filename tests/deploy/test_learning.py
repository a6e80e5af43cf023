"""Which image a model is least sure of, and training it on with what was annotated."""

from __future__ import annotations

import ast
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from made_trained import made_trained, marker
from PIL import Image

from monai_thyroid.deploy.learning import FEWEST, Epoch, _Annotated, _give_parts, rank, retrain, uncertainty
from monai_thyroid.deploy.pack import pack
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor
from monai_thyroid.files import read_csv, read_json, sha256_file


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers], np.uint8)


def opinions(*masks: np.ndarray, classes: int = 1) -> Any:
    """What stands in for a predictor whose members have these masks."""
    return SimpleNamespace(opinions=lambda images: [list(masks)], classes=["class"] * classes)


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ([row(1, 1, 0, 0), row(1, 1, 0, 0)], 0.0),
        ([row(1, 1, 0, 0), row(0, 0, 1, 1)], 1.0),
        ([row(1, 1, 0, 0), row(0, 1, 1, 0)], 0.5),  # Dice 2 * 1 / 4
        ([row(1, 1, 0, 0), row(0, 1, 1, 0), row(1, 1, 0, 0)], 1 - (0.5 + 1 + 0.5) / 3),
        ([row(0, 0, 0, 0), row(0, 0, 0, 0)], 0.0),  # sure that there is nothing
        ([row(0, 0, 0, 0), row(0, 0, 0, 1)], 1.0),
    ],
)
def test_uncertainty_is_what_the_masks_do_not_agree_on(masks: list[np.ndarray], expected: float) -> None:
    assert uncertainty(opinions(*masks), np.zeros((1, 4), np.uint8)) == pytest.approx(expected)


def test_classes_that_no_mask_marks_say_nothing() -> None:
    masks = row(1, 1, 0, 0), row(0, 1, 1, 0)
    assert uncertainty(opinions(*masks, classes=4), np.zeros((1, 4), np.uint8)) == 0.5
    both = row(1, 1, 2, 2), row(1, 1, 2, 0)  # 1 and 2/3
    assert uncertainty(opinions(*both, classes=2), np.zeros((1, 4), np.uint8)) == pytest.approx(1 / 6)


def test_the_least_agreed_come_first_and_ties_in_natural_order() -> None:
    assert rank({"b10": 0.5, "b2": 0.5, "a": 0.0, "c": 1.0}) == ["c", "b2", "b10", "a"]
    assert rank({}) == []
    with pytest.raises(ValueError, match=r"those of a, b are not"):
        rank({"a": float("nan"), "b": 1.5, "c": 0.5})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed model; tests must not change it."""
    folder = tmp_path_factory.mktemp("model")
    return pack([made_trained(folder / "run")], output=folder / "dist" / "nodule", report=False).path


def annotated(folder: Path, *, patients: int = 5, each: int = 1, shape: tuple[int, int] = (40, 52)) -> dict[str, Any]:
    """Scans ``<patient>_<number>.png`` and masks of what is bright in them."""
    images, labels = [], []
    for number in range(patients * each):
        pixels = marker(shape[0] + number, shape[1])
        pixels[0, 0] = number  # no two are the same, byte for byte
        name = f"{number // each}_{number}.png"
        for kind, content, files in (("images", pixels, images), ("labels", (pixels > 128) * np.uint8(255), labels)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(folder / kind / name)
            files.append(folder / kind / name)
    return {"images": images, "labels": labels}


@pytest.mark.slow
def test_a_model_learns_from_annotated_images_and_is_compared_on_patients_that_neither_has_seen(
    model: Path, tmp_path: Path
) -> None:
    given, told, weights = annotated(tmp_path, each=2), [], sha256_file(model / "models" / "model.pt")
    options = {**given, "groups_from": r"^(\d+)_", "epochs": 2, "device": "cpu"}
    found = retrain(model, **options, output_dir=tmp_path / "out", progress=told.append)
    assert [(one.epoch, one.member, one.members) for one in told] == [(1, 1, 1), (2, 1, 1)]
    assert found.images == {"train": 6, "validation": 2, "test": 2}
    assert found.groups == {"train": 3, "validation": 1, "test": 1}
    (new,) = found.runs
    record = read_json(new / "run.json")
    assert (record["status"], record["epochs"], record["grouping"]) == ("done", 2, "known")
    assert record["parent_sha256"] == weights == sha256_file(model / "models" / "model.pt")
    assert record["checkpoint_sha256"] != weights
    # bfloat16 in the run, float32 here
    assert found.before == pytest.approx(record["init_from"]["test_dice_before"], abs=0.01)
    assert found.after == pytest.approx(record["test"]["dice_mean"], abs=0.01)
    assert found.accepted == (found.after >= found.before)
    assert "2 held-out images of 1 patient" in found.reason
    assert Predictor(found.runs, device="cpu", runtime="torch-float32")(marker()).mask.any()
    parts = {row["group"]: row["part"] for row in read_csv(tmp_path / "out" / "parts.csv")}
    held_out = read_json(new / "split.json")["parts"]["test"]["groups"]
    assert held_out == [group for group, part in parts.items() if part == "test"]


def test_what_is_wrong_is_told_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    given = annotated(tmp_path)
    few = {kind: files[:4] for kind, files in given.items()}
    out = tmp_path / "out"
    with pytest.raises(UserError, match=f"4 images with labels: training takes {FEWEST}"):
        retrain(model, **few, output_dir=out)
    with pytest.raises(UserError, match=f"1 patient with labels: training takes {FEWEST}"):
        retrain(model, **given, output_dir=out, groups_from=r"\.?_")
    with pytest.raises(UserError) as caught:
        retrain(model, images=[*given["images"], tmp_path / "lost.png"], labels=given["labels"], output_dir=out,
                epochs=0, groups_from="(")  # fmt: skip
    assert len(caught.value.problems) == 4
    with pytest.raises(UserError, match="finds no patient in 0_0, 1_1"):
        retrain(model, **given, output_dir=out, groups_from="^x")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(given["labels"][0])
    given["labels"][1].write_bytes(b"no picture")
    with pytest.raises(UserError) as caught:
        retrain(model, **given, output_dir=out)
    assert len(caught.value.problems) == 2
    assert "9 x 9 (width x height) but its image is 52 x 40" in str(caught.value)
    assert not any(out.glob("*")) if out.exists() else True


def parts_of(
    groups: dict[str, list[bool]], table: Path, *, seen: Sequence[str] = (), seed: int = 0, unit: str = "patient"
) -> dict[str, str]:
    """The part of each group, given whether something is marked in each of its images."""
    images = [
        _Annotated(f"{group}-{number}", Path(), Path(), group, f"{group}-{number}", "", marked)
        for group, marks in groups.items()
        for number, marked in enumerate(marks)
    ]
    _give_parts(images, table, seen=set(seen), seed=seed, unit=unit)
    return {one.group: one.part for one in images}


def test_a_patient_stays_in_its_part_and_what_a_model_has_seen_is_no_test(tmp_path: Path) -> None:
    table = tmp_path / "parts.csv"
    first = parts_of({str(number): [True] for number in range(5)}, table)
    assert Counter(first.values()) == {"train": 3, "validation": 1, "test": 1}
    more = parts_of({str(number): [True] for number in range(10)}, table, seed=1)
    assert {group: more[group] for group in first} == first
    assert Counter(more.values()) == {"train": 6, "validation": 2, "test": 2}
    held_out = sorted(group for group, part in more.items() if part == "test")
    seen = parts_of({str(number): [True] for number in range(10)}, table, seen=[f"{held_out[0]}-0"])
    assert [group for group, part in seen.items() if part == "test"] == held_out[1:]
    every = [f"{number}-0" for number in range(5)]
    with pytest.raises(UserError, match="part test; annotate another patient that the model was not trained on"):
        parts_of({str(number): [True] for number in range(5)}, tmp_path / "other.csv", seen=every)
    assert not (tmp_path / "other.csv").exists()


def test_each_part_has_something_marked(tmp_path: Path) -> None:
    for seed in range(5):
        marks = {"a": [True], "b": [False, True], "c": [True], **{str(number): [False] for number in range(7)}}
        found = parts_of(marks, tmp_path / f"{seed}.csv", seed=seed)
        assert {found[group] for group in "abc"} == {"train", "validation", "test"}
    with pytest.raises(UserError, match=r"6 images with labels: none with something marked is left for the part train"):
        parts_of({str(number): [number < 2] for number in range(6)}, tmp_path / "x.csv", unit="image")


def test_a_training_that_is_stopped_or_fails_leaves_the_model(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: sha256_file(path) for path in model.rglob("*") if path.is_file()}
    given, stop, told = annotated(tmp_path), threading.Event(), []

    def trained(command: Sequence[str], *, log: Path, stop: threading.Event, watch: Callable[[], None]) -> str | None:
        config = yaml.safe_load(Path(ast.literal_eval(command[-1])[1]).read_text())
        told.append(config)
        history = Path(config["output_dir"], "thyroid", Path(config["dataset_dir"]).name, "unet-0", "seed-0")
        history.mkdir(parents=True, exist_ok=True)
        lines = ["stage,epoch,lr,train_loss,val_loss,val_dice,val_iou,seconds", "1,1,0.1,0.5,0.4,0.25,0.2,1"]
        (history / "history.csv").write_text("\n".join([*lines, "1,2,0.1"]))  # which is being written
        watch()
        watch()
        return None if stop.is_set() else "killed by SIGKILL"

    monkeypatch.setattr("monai_thyroid.deploy.learning.run_process", trained)
    with pytest.raises(UserError, match="failed, the model is as it was: killed by SIGKILL"):
        retrain(model, **given, output_dir=tmp_path / "out", epochs=7, learning_rate=0.01)
    seen: list[Epoch] = []
    with pytest.raises(UserError, match="was stopped; the model is as it was"):
        retrain(
            model,
            **given,
            output_dir=tmp_path / "out",
            epochs=7,
            learning_rate=0.01,
            stop=stop,
            progress=lambda epoch: (seen.append(epoch), stop.set())[0],
        )
    assert seen == [Epoch(1, 1, 1, 0.5, 0.25)]
    assert told[0] == told[1]  # so that it goes on
    assert (told[0]["max_epochs"], told[0]["learning_rate"], told[0]["resume"]) == (7, 0.01, True)
    assert told[0]["init_from"] == str(model)
    assert told[0]["data::layout"] == "images_masks"
    assert before == {path: sha256_file(path) for path in model.rglob("*") if path.is_file()}
