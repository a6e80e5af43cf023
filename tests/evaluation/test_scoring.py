"""Scores of known predictions on the original grid, and the folder that keeps them."""

from __future__ import annotations

import os
import statistics
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from PIL import Image
from scipy.spatial.distance import directed_hausdorff
from sklearn.metrics import accuracy_score, brier_score_loss, f1_score, jaccard_score, precision_score, recall_score

from monai_thyroid.data import Datalist, load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.evaluation.scoring import CaseScores, whole_of, worst_median_best
from monai_thyroid.files import read_csv, read_json, sha256_file, write_json
from monai_thyroid.images import read_labels
from monai_thyroid.metrics import CALIBRATION_COLUMNS, HeadCircumference, ScoringPolicy, ellipse_circumference
from monai_thyroid.runfolder import CASE_COLUMNS, read_evaluation
from monai_thyroid.transforms import LoadScand

SHAPES = {"a": (37, 53), "b": (40, 31), "c": (24, 24)}  # (height, width): each its own


@dataclass
class Run:
    path: Path
    classes: list[str] = field(default_factory=lambda: ["nodule"])
    activation: str = "sigmoid"
    configured_threshold: float = 0.5
    postprocessing: Postprocessing = field(default_factory=Postprocessing)
    whole: str | None = None
    checkpoint_sha256: str | None = "abc"
    own_data: tuple[str | None, str | None] = (None, None)

    @property
    def threshold(self) -> float:
        chosen = self.postprocessing.threshold
        return self.configured_threshold if chosen is None else chosen


def write_dataset(root: Path) -> None:
    """Two images for training, and three for test: an ordinary one, one without a nodule, a missed one."""
    for part, names in (("trainval", ("t", "v")), ("test", tuple(SHAPES))):
        for kind in ("image", "mask"):
            (root / f"{part}-{kind}").mkdir(parents=True)
        for index, name in enumerate(names):
            shape = SHAPES.get(name, (20, 20))
            image = np.random.RandomState(index).randint(0, 256, shape).astype(np.uint8)
            mask = np.zeros(shape, np.uint8)
            if name != "b":
                mask[4:16, 6:15] = 255
            Image.fromarray(image).save(root / f"{part}-image" / f"{name}.png")
            Image.fromarray(mask).save(root / f"{part}-mask" / f"{name}.png")
    lines = [f"{name}.png,patient {name}" for name in ("t", "v", *SHAPES)]
    (root / "cases.csv").write_text("\n".join(["file,case", *lines]) + "\n")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Datalist:
    root = tmp_path_factory.mktemp("data") / "scans"
    write_dataset(root)
    return load_datalist(str(root), layout="tn3k", validation_fraction=0.5)


def probabilities() -> dict[str, np.ndarray]:
    """(height, width) by case: noisy around the truth, a false alarm in b, nothing in c."""
    found = {name: np.random.RandomState(7).uniform(0, 0.45, shape) for name, shape in SHAPES.items()}
    found["a"][6:20, 6:12] = 0.9
    found["b"][1:3, 1:4] = 0.75
    return {name: array.astype(np.float32) for name, array in found.items()}


def evaluate(scores: CaseScores, maps: dict[str, np.ndarray], *, spacing: tuple[float, float] | None = None) -> None:
    """Run an engine whose batches are what a MONAI evaluator leaves after its postprocessing."""
    batches = [[item for item in scores.data.part(scores.part) if item["case"] in names] for names in ("ab", "c")]
    load = LoadScand("image")

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        engine.state.batch = [load(item) for item in batch]
        for item in engine.state.batch:
            if spacing:
                item["image"].meta["spacing_yx"] = torch.tensor(spacing, dtype=torch.float64)
        return [{"pred": MetaTensor(torch.from_numpy(maps[item["case"]].T[None].copy()))} for item in batch]

    engine = Engine(step)
    scores.attach(engine)
    engine.run(batches, max_epochs=1)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, data: Datalist) -> CaseScores:
    """An evaluation that has been written; tests only read it."""
    scores = CaseScores(run=Run(tmp_path_factory.mktemp("run")), data=data, part="test")
    evaluate(scores, probabilities())
    return scores


def truth(case: str) -> np.ndarray:
    mask = np.zeros(SHAPES[case], bool)
    if case != "b":
        mask[4:16, 6:15] = True
    return mask


def test_every_case_is_a_row_with_its_keys(scored: CaseScores) -> None:
    rows = read_csv(scored.folder / "cases.csv")
    assert tuple(rows[0]) == CASE_COLUMNS
    promised = (
        "dataset site part case group class tp fp fn tn dice iou precision recall specificity accuracy hd95 asd nsd "
        "n_ref n_pred n_matched ref_empty pred_empty height width spacing_y spacing_x error"
    )
    assert tuple(promised.split()) == CASE_COLUMNS
    assert [row["case"] for row in rows] == ["a", "b", "c"]
    for row in rows:
        assert row["group"] == f"patient {row['case']}"
        assert (row["dataset"], row["part"], row["class"], row["site"]) == ("scans", "test", "nodule", "")
        assert (int(row["height"]), int(row["width"])) == SHAPES[row["case"]]
        assert row["error"] == ""
        assert row["spacing_y"] == row["spacing_x"] == "nan"


def test_scores_are_those_of_sklearn_and_scipy(scored: CaseScores) -> None:
    for row in read_csv(scored.folder / "cases.csv"):
        reference, found = truth(row["case"]), probabilities()[row["case"]] > 0.5
        flat = reference.ravel(), found.ravel()
        empty = not reference.any() and not found.any()
        zero = {"zero_division": 1.0 if empty else 0.0}
        assert float(row["dice"]) == pytest.approx(f1_score(*flat, **zero))
        assert float(row["iou"]) == pytest.approx(jaccard_score(*flat, **zero))
        assert float(row["precision"]) == pytest.approx(precision_score(*flat, **zero))
        assert float(row["recall"]) == pytest.approx(recall_score(*flat, **zero))
        assert float(row["accuracy"]) == pytest.approx(accuracy_score(*flat))
        assert int(row["tp"]) == (reference & found).sum()
        assert int(row["fp"]) == (~reference & found).sum()
        assert int(row["fn"]) == (reference & ~found).sum()
        assert int(row["tn"]) == (~reference & ~found).sum()
        assert row["ref_empty"] == str(not reference.any())
        assert row["pred_empty"] == str(not found.any())
    worst = {row["case"]: float(row["hd95"]) for row in read_csv(scored.folder / "cases.csv")}
    points = np.argwhere(truth("a")), np.argwhere(probabilities()["a"] > 0.5)
    assert 0 < worst["a"] <= max(directed_hausdorff(*points)[0], directed_hausdorff(*points[::-1])[0])
    assert worst["b"] == pytest.approx(np.hypot(*SHAPES["b"]))
    assert worst["c"] == pytest.approx(np.hypot(*SHAPES["c"]))


def test_predictions_are_kept_on_the_original_grid(scored: CaseScores) -> None:
    files = sorted((scored.folder / "predictions").iterdir())
    assert [path.name for path in files] == ["a.png", "b.png", "c.png"]
    for path in files:
        expected = np.where(probabilities()[path.stem] > 0.5, 255, 0)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), expected)
        found = read_evaluation(scored.folder).mask("predictions", path.stem, "nodule")
        np.testing.assert_array_equal(found, expected == 255)


def test_calibration_adds_up(scored: CaseScores) -> None:
    rows = read_csv(scored.folder / "calibration.csv")
    assert tuple(rows[0]) == ("dataset", "site", "part", "case", "group", "class", *CALIBRATION_COLUMNS)
    for row in rows:
        values = probabilities()[row["case"]].ravel()
        assert float(row["brier"]) == pytest.approx(brier_score_loss(truth(row["case"]).ravel(), values), abs=1e-6)
        assert int(row["n_pixels"]) == values.size
        counts = [int(row[f"count_{index:02d}"]) for index in range(15)]
        expected, _ = np.histogram(values, bins=np.linspace(0, 1, 16))
        assert counts == expected.tolist()


def test_the_evaluation_says_what_was_scored(scored: CaseScores, data: Datalist) -> None:
    content = read_json(scored.folder / "evaluation.json")
    assert content["dataset"] == "scans"
    assert content["dataset_dir"] == str(data.root)
    assert content["part"] == "test"
    assert content["grouping"] == "known"
    assert content["data_hash"] == data.inspect().data_hash
    assert content["checkpoint_sha256"] == "abc"
    assert content["threshold"] == 0.5
    assert content["policy"]["metrics"]["dice"]["missed"] == 0
    assert {"versions", "machine", "seconds", "date"} <= set(content)
    rows = read_csv(scored.folder / "cases.csv")
    summary = content["classes"]["nodule"]
    assert summary["n_cases"] == 3
    assert summary["dice_mean"] == pytest.approx(np.mean([float(row["dice"]) for row in rows]))
    assert (summary["n_misses"], summary["n_false_alarms"]) == (1, 1)
    pixels = sum(int(row["tp"]) + int(row["fp"]) + int(row["fn"]) + int(row["tn"]) for row in rows)
    assert pixels == sum(height * width for height, width in SHAPES.values())
    assert 0 < summary["expected_calibration_error"] < 1


def test_the_result_in_one_line(scored: CaseScores, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        scored.tell()
    (line,) = caplog.messages
    assert line == scored.sentence()
    assert "test (scans, 3 images on their original grid)" in line
    assert f"Dice {scored.summary['dice_mean']:.4f}" in line
    assert "misses 1, false alarms 1" in line


def test_a_picture_of_the_cases_is_drawn(scored: CaseScores) -> None:
    assert (scored.run.path / "figures" / "scans-test.png").read_bytes()[:4] == b"\x89PNG"
    names = {path.name for path in scored.run.path.rglob("*") if path.name.startswith(".")}
    assert names == set()


def test_the_threshold_is_the_runs(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path, configured_threshold=0.8), data=data, part="test")
    scores.keep = False
    evaluate(scores, probabilities())
    assert {row["case"]: row["pred_empty"] for row in scores.rows} == {"a": False, "b": True, "c": True}
    # at the threshold itself a pixel is background
    level = {name: np.full(shape, 0.8, np.float32) for name, shape in SHAPES.items()}
    scores.run.configured_threshold = float(np.float32(0.8))
    evaluate(scores, level)
    assert all(row["pred_empty"] for row in scores.rows)


def test_what_is_scored_is_what_the_run_delivers_beside_what_it_would_have(tmp_path: Path, data: Datalist) -> None:
    """The false alarm in b is small and goes; without postprocessing it is there."""
    post = Postprocessing(threshold=0.6, smallest=0.01)
    scores = CaseScores(run=Run(tmp_path, postprocessing=post), data=data, part="test")
    evaluate(scores, probabilities())
    assert {row["case"]: row["pred_empty"] for row in scores.rows} == {"a": False, "b": True, "c": True}
    assert scores.without is not None
    assert (scores.summary["n_false_alarms"], scores.without["nodule"]["n_false_alarms"]) == (0, 1)
    record = read_evaluation(scores.folder).record
    assert record.postprocessing == post.as_dict()
    assert (record.threshold, record.classes_without_postprocessing["nodule"]["n_false_alarms"]) == (0.6, 1)  # type: ignore[index]
    assert "without postprocessing: Dice" in scores.sentence()
    assert not np.asarray(Image.open(scores.folder / "predictions" / "b.png")).any()


def test_distances_are_in_millimetres_where_the_image_tells(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path), data=data, part="test")
    scores.keep = False
    evaluate(scores, probabilities(), spacing=(0.5, 0.25))
    by_case = {row["case"]: row for row in scores.rows}
    assert (by_case["c"]["spacing_y"], by_case["c"]["spacing_x"]) == (0.5, 0.25)
    assert by_case["c"]["hd95"] == pytest.approx(np.hypot(24 * 0.5, 24 * 0.25))
    assert scores.summary["distance_unit"] == "mm"


def test_nothing_is_written_where_nothing_is_to_be_kept(tmp_path: Path, data: Datalist) -> None:
    (tmp_path / "run").mkdir()
    before = tree(tmp_path)
    scores = CaseScores(run=Run(tmp_path / "run"), data=data, part="test")
    scores.keep = False
    evaluate(scores, probabilities())
    assert scores.summary["n_cases"] == 3
    assert tree(tmp_path) == before
    assert list((tmp_path / "run").iterdir()) == []


def test_a_second_evaluation_replaces_the_first_and_a_failed_one_does_not(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path), data=data, part="test")
    evaluate(scores, probabilities())
    first = read_csv(scores.folder / "cases.csv")
    (scores.folder / "measures.csv").write_text("of the first")
    evaluate(scores, {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})
    second = read_csv(scores.folder / "cases.csv")
    assert [row["case"] for row in second] == [row["case"] for row in first]
    assert {row["case"]: float(row["dice"]) for row in second} == {"a": 0, "b": 1, "c": 0}
    assert not (scores.folder / "measures.csv").exists()

    before = tree(scores.folder)
    broken = probabilities()
    broken["c"] = broken["c"][:-1]
    with pytest.raises(ValueError, match="case c"):
        evaluate(scores, broken)
    assert tree(scores.folder) == before
    evaluate(scores, probabilities())
    assert [path.name for path in scores.folder.parent.iterdir()] == ["scans-test"]


def test_two_evaluations_at_the_same_time_do_not_mix(tmp_path: Path, data: Datalist) -> None:
    first, second = (CaseScores(run=Run(tmp_path), data=data, part="test") for _ in range(2))
    nothing = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    first.started(Engine(lambda engine, batch: None))  # while the first one is at work, the second begins and ends
    evaluate(second, nothing)
    load = LoadScand("image")
    engine = Engine(lambda engine, batch: None)
    for item in data.part("test"):
        engine.state.batch = [load(item)]
        engine.state.output = [{"pred": MetaTensor(torch.from_numpy(probabilities()[item["case"]].T[None].copy()))}]
        first.iteration_completed(engine)
    first.completed(engine)
    marked = {path.stem: read_labels(path, classes=1).any() for path in (first.folder / "predictions").iterdir()}
    assert marked == {"a": True, "b": True, "c": False}
    assert [row["pred_empty"] for row in read_csv(first.folder / "cases.csv")] == ["False", "False", "True"]
    assert [path.name for path in first.folder.parent.iterdir()] == ["scans-test"]


def test_what_a_killed_evaluation_left_is_removed(tmp_path: Path, data: Datalist) -> None:
    child = os.fork()
    if child == 0:
        CaseScores(run=Run(tmp_path), data=data, part="test").started(Engine(lambda engine, batch: None))
        os._exit(0)
    os.waitpid(child, 0)
    assert [path.name.startswith(".building-") for path in (tmp_path / "evaluations").iterdir()] == [True]
    evaluate(CaseScores(run=Run(tmp_path), data=data, part="test"), probabilities())
    assert [path.name for path in (tmp_path / "evaluations").iterdir()] == ["scans-test"]


def test_other_data_of_the_same_name_do_not_take_the_place_of_the_runs_own(tmp_path: Path, data: Datalist) -> None:
    digest = data.inspect().data_hash
    own = CaseScores(run=Run(tmp_path, own_data=("scans", digest)), data=data, part="test")
    evaluate(own, probabilities())
    before = tree(own.folder)
    # To a run on another folder called "scans" these are foreign data.
    foreign = CaseScores(run=Run(tmp_path, own_data=("scans", "f" * 64)), data=data, part="test")
    evaluate(foreign, probabilities())
    assert (own.folder.name, foreign.folder.name) == ("scans-test", f"scans-test-{digest[:8]}")
    assert tree(own.folder) == before
    # Where no name is taken, it is plain.
    elsewhere = Run(tmp_path / "other", own_data=("archive", "f" * 64))
    scores = CaseScores(run=elsewhere, data=data, part="test")
    assert scores.folder.name == "scans-test"
    evaluate(scores, probabilities())
    assert scores.folder.name == "scans-test"
    write_json(scores.folder / "evaluation.json", {"data_hash": "of a third folder called scans"})
    assert scores.folder.name == f"scans-test-{digest[:8]}"


@pytest.mark.parametrize("change", [lambda m: m.T, lambda m: m[:, :-1], lambda m: np.pad(m, 1)])
def test_a_prediction_on_another_grid_is_refused(tmp_path: Path, data: Datalist, change: Any) -> None:
    scores = CaseScores(run=Run(tmp_path / "run"), data=data, part="test")
    maps = {name: change(one) for name, one in probabilities().items()}
    with pytest.raises(ValueError, match="original grid"):
        evaluate(scores, maps)
    assert not scores.folder.exists()


def test_a_transposed_square_is_not_noticed_by_its_shape_but_scored_as_it_lies(tmp_path: Path, data: Datalist) -> None:
    """The fake evaluator must itself be able to fail: a map turned by a quarter scores worse than the right one."""
    right = {name: truth(name).astype(np.float32) for name in SHAPES}
    scores = CaseScores(run=Run(tmp_path), data=data, part="test")
    scores.keep = False
    evaluate(scores, right)
    assert [row["dice"] for row in scores.rows] == [1, 1, 1]
    evaluate(scores, {**right, "c": right["c"].T})
    assert scores.rows[-1]["dice"] < 1


def test_every_part_keeps_its_name_in_an_evaluation_of_all(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path), data=data, part="all")
    scores.keep = False
    load = LoadScand("image")

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        engine.state.batch = [load(item) for item in batch]
        return [{"pred": torch.zeros(item["image"].shape)} for item in engine.state.batch]

    engine = Engine(step)
    scores.attach(engine)
    engine.run([data.part("all")], max_epochs=1)
    parts = {row["case"]: row["part"] for row in scores.rows}
    assert parts == {item["case"]: item["part"] for item in data.items}
    assert set(parts.values()) == {"train", "validation", "test"}


def test_rounding_beyond_one_is_a_probability_still(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path), data=data, part="test")
    scores.keep = False
    evaluate(scores, {name: np.full(shape, 1 + 1e-6, np.float32) for name, shape in SHAPES.items()})
    assert not any(row["pred_empty"] for row in scores.rows)


def test_the_policy_decides_what_is_scored(tmp_path: Path, data: Datalist, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CaseScores, "_draw", lambda self, folder: None)
    shifted = {name: np.roll(truth(name), 3, axis=1).astype(np.float32) for name in SHAPES}
    found = {}
    for tolerance in (0.5, 4.0):
        policy = ScoringPolicy(nsd_tolerance=tolerance)
        scores = CaseScores(run=Run(tmp_path), data=data, part="test", policy=policy)
        evaluate(scores, shifted)
        found[tolerance] = scores.rows[0]["nsd"]
        assert read_json(scores.folder / "evaluation.json")["policy"]["nsd_tolerance"] == tolerance
    assert found[4.0] == 1 > found[0.5]


def test_an_evaluation_does_not_touch_the_dataset(scored: CaseScores, data: Datalist) -> None:
    for item in data.part("test"):
        assert sha256_file(item["image"]) == data.inspect().image_hashes[item["case"]]


# --- several classes, clinical measures, sites ---


def write_labels(root: Path) -> dict[str, np.ndarray]:
    """Images with class numbers 0 to 2, all for test but two; returns the labels of the test images."""
    found = {}
    for number, name in enumerate(("t", "v", "a", "b")):
        labels = np.zeros((30, 41), np.uint8)
        labels[3 : 12 + number, 5:20] = 1
        if name != "b":
            labels[15:25, 10 + number : 35] = 2
        image = np.random.RandomState(number).randint(0, 256, (30, 41, 3)).astype(np.uint8)
        for kind, pixels in (("image", image), ("mask", labels)):
            folder = root / f"{'trainval' if name in 'tv' else 'test'}-{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{name}.png")
        found[name] = labels
    (root / "cases.csv").write_text("file,case\n" + "".join(f"{name}.png,{name}\n" for name in found))
    return {name: found[name] for name in "ab"}


def run_through(scores: CaseScores, maps: dict[str, np.ndarray]) -> None:
    """Score probabilities, (channels, height, width) by case, of colour images."""
    load = LoadScand("image", channels=3)

    def step(engine: Engine, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        engine.state.batch = [load(item) for item in batch]
        return [{"pred": torch.from_numpy(np.swapaxes(maps[item["case"]], 1, 2).copy())} for item in batch]

    engine = Engine(step)
    scores.attach(engine)
    engine.run([scores.data.part("test")], max_epochs=1)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_every_class_is_scored_by_itself(tmp_path: Path, activation: str) -> None:
    labels = write_labels(tmp_path / "scans")
    data = load_datalist(str(tmp_path / "scans"), layout="tn3k", classes=2, validation_fraction=0.5)
    generator = np.random.RandomState(3)
    logits = {name: generator.normal(size=(3, *one.shape)).astype(np.float32) for name, one in labels.items()}
    for name, one in labels.items():  # right more often than not
        for number in range(3):
            logits[name][number][one == number] += 1.5
    if activation == "softmax":
        maps = {name: np.exp(one) / np.exp(one).sum(0) for name, one in logits.items()}
        decided = {name: one.argmax(0) for name, one in logits.items()}
    else:
        maps = {name: 1 / (1 + np.exp(-one[1:])) for name, one in logits.items()}
        decided = {name: np.where(one.max(0) > 0.5, one.argmax(0) + 1, 0) for name, one in maps.items()}
    run = Run(tmp_path / "run", classes=["nerve", "vessel"], activation=activation)
    scores = CaseScores(run=run, data=data, part="test")
    run_through(scores, maps)

    rows = read_csv(scores.folder / "cases.csv")
    assert [(row["case"], row["class"]) for row in rows] == [(c, k) for c in "ab" for k in ("nerve", "vessel")]
    for row in rows:
        number = ["nerve", "vessel"].index(row["class"]) + 1
        truth, found = labels[row["case"]] == number, decided[row["case"]] == number
        if truth.any():
            assert float(row["dice"]) == pytest.approx(f1_score(truth.ravel(), found.ravel()))
        else:
            assert (row["ref_empty"], float(row["dice"])) == ("True", 0.0)
    dice = {name: np.mean([float(row["dice"]) for row in rows if row["class"] == name]) for name in run.classes}
    classes = read_json(scores.folder / "evaluation.json")["classes"]
    assert {name: classes[name]["dice_mean"] for name in run.classes} == pytest.approx(dice)
    assert scores.summary["dice_mean"] == pytest.approx(np.mean(list(dice.values())))
    assert "  vessel: Dice" in scores.sentence()
    for row in read_csv(scores.folder / "calibration.csv"):
        number = run.classes.index(row["class"])
        probability = maps[row["case"]][-2:][number]
        expected = brier_score_loss((labels[row["case"]] == number + 1).ravel(), probability.ravel())
        assert float(row["brier"]) == pytest.approx(expected, abs=1e-6)
    kept = read_evaluation(scores.folder)
    for name, one in labels.items():
        for number, class_name in enumerate(run.classes, 1):
            np.testing.assert_array_equal(kept.mask("predictions", name, class_name), decided[name] == number)
        np.testing.assert_array_equal(
            read_labels(scores.folder / "predictions" / f"{name}.png", classes=2), decided[name]
        )
        np.testing.assert_array_equal(read_labels(scores.folder / "references" / f"{name}.png", classes=2), one)
        with Image.open(scores.folder / "images" / f"{name}.jpg") as picture:
            assert (picture.size, picture.mode) == ((41, 30), "RGB")


def test_a_clinical_measure_is_compared_with_the_datasets_own_or_with_the_masks(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path), data=data, part="test", measures=[HeadCircumference()])
    maps = {name: truth(name).astype(np.float32) for name in SHAPES}
    maps["c"][:] = 0
    given = {item["case"]: item for item in data.items}["a"]
    given["circumference"] = "30.0"
    try:
        evaluate(scores, maps, spacing=(0.5, 0.5))
    finally:
        del given["circumference"]
    rows = {row["case"]: row for row in read_csv(scores.folder / "measures.csv")}
    expected = ellipse_circumference(truth("a"), spacing=(0.5, 0.5))
    assert float(rows["a"]["reference"]) == 30.0
    assert float(rows["a"]["predicted"]) == pytest.approx(expected)
    assert float(rows["a"]["difference"]) == pytest.approx(expected - 30)
    assert float(rows["a"]["absolute_difference"]) == pytest.approx(abs(expected - 30))
    assert (rows["b"]["predicted"], rows["b"]["difference"]) == ("", "")
    assert "no reference" in rows["b"]["error"]
    assert float(rows["c"]["reference"]) == pytest.approx(ellipse_circumference(truth("c"), spacing=(0.5, 0.5)))
    assert "the prediction shows nothing" in rows["c"]["error"]
    found = read_json(scores.folder / "evaluation.json")["measures"]["head_circumference"]
    assert (found["n"], found["n_failed"]) == (1, 1)
    assert found["mean_difference"] == pytest.approx(expected - 30)
    assert (tmp_path / "figures" / "scans-test-head_circumference.png").read_bytes()[:4] == b"\x89PNG"


def test_without_the_size_of_a_pixel_nothing_is_measured(tmp_path: Path, data: Datalist) -> None:
    scores = CaseScores(run=Run(tmp_path), data=data, part="test", measures=[HeadCircumference()])
    evaluate(scores, probabilities())
    assert {row["error"] for row in read_csv(scores.folder / "measures.csv")} == {"the size of a pixel is unknown"}


def test_chosen_sites_are_in_the_name_of_the_evaluation(tmp_path: Path, data: Datalist) -> None:
    sites = replace(data, sites=["clinic"], items=[{**item, "site": "clinic"} for item in data.items])
    scores = CaseScores(run=Run(tmp_path), data=sites, part="test")
    evaluate(scores, probabilities())
    assert scores.folder.name == "scans-test-clinic"
    assert read_json(scores.folder / "evaluation.json")["sites"] == ["clinic"]


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_all_classes_together_are_scored_as_one_besides(tmp_path: Path, activation: str) -> None:
    labels = write_labels(tmp_path / "scans")
    data = load_datalist(str(tmp_path / "scans"), layout="tn3k", classes=2, validation_fraction=0.5)
    run = Run(tmp_path / "run", classes=["low", "high"], activation=activation, whole="lesion")
    # Every lesion is found to the pixel and taken for the other class.
    swapped = {name: np.where(one > 0, 3 - one.astype(int), 0) for name, one in labels.items()}
    maps = {
        name: np.stack([one == number for number in range(3)]).astype(np.float32)[activation == "sigmoid" :]
        for name, one in swapped.items()
    }
    scores = CaseScores(run=run, data=data, part="test")
    run_through(scores, maps)
    kept = read_evaluation(scores.folder)
    assert kept.classes == ["low", "high", "lesion"]
    assert [row["dice"] for row in kept.of_class("lesion")] == [1.0, 1.0]
    assert [row["dice"] for row in kept.of_class("low")] == [0.0, 0.0]
    assert scores.summary["dice_mean"] == 0, "the mean over classes does not count their whole"
    assert "  lesion: Dice 1.0000" in scores.sentence()
    assert kept.record.whole == "lesion"
    assert kept.record.confusion == {
        "low": {"low": 0, "high": 2, "missed": 0},
        "high": {"low": 1, "high": 0, "missed": 0},
        "nothing": {"low": 0, "high": 0},
    }
    for name, one in labels.items():
        np.testing.assert_array_equal(kept.mask("predictions", name, "lesion"), one > 0)
        np.testing.assert_array_equal(kept.mask("predictions", name, "high"), one == 1)
    assert [row.sums["brier"] for row in kept.calibration("lesion")] == [0.0, 0.0]
    for classes, name in ((["low"], "lesion"), (["low", "high"], "high")):
        with pytest.raises(UserError, match="names several classes together"):
            whole_of(classes, name)
    assert whole_of(["low"], None) is None


@pytest.mark.parametrize("count", range(1, 20))
def test_cases_in_the_figure_are_what_their_titles_say(count: int) -> None:
    ranked = [f"case {number:02}" for number in range(count)]
    chosen = worst_median_best(ranked)
    shown = [case for cases in chosen.values() for case in cases]
    assert len(shown) == len(set(shown)) == min(9, count if count < 3 else count // 3 * 3)
    assert shown[0] == ranked[0]
    if count > 1:
        assert chosen["best"][0] == ranked[-1]
    if count > 2:
        assert chosen["median"][0] == statistics.median_low(ranked)
