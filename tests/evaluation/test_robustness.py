"""Runs on degraded images of their own, and several runs as one, scored beside their own scores."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from made_trained import with_data

from monai_thyroid import cli
from monai_thyroid.compare import build
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import CaseScores, Predictor, TrainedRun, asked_strengths, measure_robustness
from monai_thyroid.evaluation.robustness import _means
from monai_thyroid.files import read_csv, read_json, write_csv, write_json
from monai_thyroid.images import Raster, read_mask, read_raster, write_phantom
from monai_thyroid.images.degrading import degrade
from monai_thyroid.metrics import score_case

HISTORY = ("stage", "epoch", "lr", "train_loss", "val_loss", "val_dice", "val_iou", "seconds")


def scored(run: Path) -> Path:
    """Score the test part as training would, and leave a history."""
    trained = TrainedRun(str(run))
    data = trained.datalist()
    predictor = Predictor(trained, device="cpu", runtime="torch-float32")
    load, *_ = trained.parsed("image_transforms")
    scores = CaseScores(run=trained, data=data, part="test")
    scores.begin()
    for item in data.part("test"):
        scores.add(load(dict(item)), predictor.probabilities([read_raster(item["image"])])[0])
    scores.finish()
    values = (1, 1, 1e-3, 0.5, 0.5, 0.6, None, 1.0)
    write_csv(run / "history.csv", HISTORY, [dict(zip(HISTORY, values, strict=True))])
    return scores.folder


def over_groups(rows: Sequence[Mapping[str, str]], value: Callable[[Mapping[str, str]], float]) -> float:
    """Mean over groups of the mean of each."""
    groups: dict[str, list[float]] = {}
    for row in rows:
        groups.setdefault(row["group"], []).append(value(row))
    return float(np.mean([np.mean(values) for values in groups.values()]))


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("robust") / "scans", cases=24, seed=0, height=48, width=64)


@pytest.fixture(scope="module")
def runs(scans: Path) -> list[Path]:
    """Two seeds of one network, scored; the second marks what is brighter still."""
    made = []
    for seed in (0, 1):
        run = with_data(scans.parent / f"seed-{seed}", scans, bright=True, seed=seed)
        if seed:
            import torch

            from monai_thyroid.files import sha256_file

            weights = torch.load(run / "model.pt")
            weights["bias"] -= 2
            torch.save(weights, run / "model.pt")
            sha256 = sha256_file(run / "model.pt")
            write_json(run / "run.json", {**read_json(run / "run.json"), "checkpoint_sha256": sha256})
        scored(run)
        made.append(run)
    return made


def test_degraded_images_are_scored_on_the_original_grid(runs: list[Path], scans: Path) -> None:
    (found,) = measure_robustness([runs[0]], strengths=asked_strengths(["gain=6,-6", "calipers"]), device="cpu")
    assert found.path.name == "robustness.csv"
    rows = read_csv(found.path)
    own = read_csv(found.path.parent / "cases.csv")
    clean = {(row["case"], row["degradation"]): row for row in rows if float(row["strength"]) == 0}
    assert len(rows) == len(own) * (3 + 3)
    for row in own:  # strength 0 is cases.csv, to the last digit
        for name in ("gain", "calipers"):
            assert all(clean[row["case"], name][key] == row[key] for key in ("tp", "fp", "fn", "tn", "dice", "group"))
    case = own[2]["case"]
    item = next(item for item in TrainedRun(str(runs[0])).datalist().part("test") if item["case"] == case)
    mask = read_mask(item["label"])
    picture = degrade(read_raster(item["image"]).normalised(), "gain", 6, case=case, mask=mask)
    marked = Predictor(runs[0], device="cpu", runtime="torch-float32")(Raster(picture, (0.0, 1.0))).mask == 1
    (row,) = (r for r in rows if r["case"] == case and r["degradation"] == "gain" and float(r["strength"]) == 6)
    assert float(row["dice"]) == pytest.approx(score_case(mask, marked)["dice"])
    assert list(found.dice["gain"]) == [-6, 0, 6]
    assert found.dice["gain"][0] == pytest.approx(np.mean([float(row["dice"]) for row in own]))
    before = found.path.read_bytes()
    measure_robustness([runs[0]], strengths=asked_strengths(["gain=6,-6", "calipers"]), device="cpu")
    assert found.path.read_bytes() == before
    assert (runs[0] / "figures" / f"{found.path.parent.name}-robustness.png").is_file()

    # And the report tells it, with what it lacks.
    built = build([runs[0].parent])
    (section,) = built.report.sections
    gain, calipers = section.degraded
    assert (gain.name, gain.strengths) == ("gain", [-6, 0, 6])
    (network,) = gain.means
    clean_mean, change = gain.means[network][1], gain.changes[network][2]
    assert clean_mean is not None
    assert change is not None
    assert clean_mean == section.networks[0].mean_over_groups
    louder = {r["case"]: float(r["dice"]) for r in rows if r["degradation"] == "gain" and float(r["strength"]) == 6}
    assert change.mean == pytest.approx(over_groups(own, lambda row: louder[row["case"]] - float(row["dice"])))
    assert calipers.changes[network][0].mean == 0  # type: ignore[union-attr]


def test_all_classes_together_are_no_class_beside_the_others() -> None:
    scored = (("low-risk", 0.2), ("suspicious", 0.4), ("lesion", 0.9))
    rows = [{"class": name, "degradation": "gain", "strength": 0.0, "dice": dice} for name, dice in scored]
    assert _means(rows, whole="lesion")["gain"][0.0] == pytest.approx(0.3)
    assert _means(rows, whole=None)["gain"][0.0] == pytest.approx(0.5)


def test_the_report_is_told_of_scores_that_do_not_fit(runs: list[Path]) -> None:
    (found,) = measure_robustness([runs[0]], strengths=asked_strengths(["gain=6"]), device="cpu")
    rows = read_csv(found.path)
    rows[0]["dice"] = "0.123"
    write_csv(found.path, list(rows[0]), rows)
    (section,) = build([runs[0].parent]).report.sections
    assert not section.degraded
    assert "of other scores than cases.csv" in " ".join(section.degraded_notes)
    write_csv(found.path, list(rows[0]), rows[:-1])
    (section,) = build([runs[0].parent]).report.sections
    assert "measure it again" in " ".join(section.degraded_notes)
    found.path.unlink()


def test_all_that_is_wrong_is_told_before_anything_is_written(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, unscored = tmp_path / "masks", tmp_path / "unscored"
    for path in (masks, unscored):
        shutil.copytree(runs[0], path)
    write_json(masks / "run.json", {**read_json(masks / "run.json"), "scored_from": "masks"})
    shutil.rmtree(unscored / "evaluations")
    assert cli.main(["robustness", str(runs[0]), str(masks), str(unscored), "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "no weights to apply" in told
    assert "score the run with its evaluate.yaml and --part test first" in told
    assert not list(runs[0].glob("evaluations/*/robustness.csv"))
    arguments = ["robustness", str(runs[0]), *("--degrade", "fog"), *("--degrade", "blur=-1"), *("--degrade", "jpeg=x")]
    assert cli.main(arguments) == 1
    told = capsys.readouterr().err
    assert all(part in told for part in ("degradation 'fog'", "blur: the strength -1", "jpeg=x: give numbers"))


def test_scores_of_other_images_are_no_strength_0(runs: list[Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[0], other)
    (table,) = other.glob("evaluations/*/cases.csv")
    rows = read_csv(table)
    for row in rows:
        row |= {"tp": "0", "fn": str(int(row["tp"]) + int(row["fn"])), "dice": "0", "iou": "0", "precision": "0"}
        pixels = sum(int(row[name]) for name in ("tp", "fp", "fn", "tn"))
        row |= {"recall": "0", "accuracy": str(int(row["tn"]) / pixels)}
    write_csv(table, [*rows[0]], rows)
    with pytest.raises(UserError, match=r"Dice differs by .* from what was scored"):
        measure_robustness([other], strengths={"gain": (6,)}, device="cpu")


def test_the_mean_of_probabilities_is_scored_as_one_model(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["ensemble", *map(str, runs), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    folder = Path(told.strip().splitlines()[-1].removeprefix("Kept: "))
    assert folder.parent.parent.parent == runs[0] / "ensembles"
    rows = {row["case"]: row for row in read_csv(folder / "cases.csv")}
    agreements = {row["case"]: float(row["agreement"]) for row in read_csv(folder / "agreement.csv")}
    predictor = Predictor(runs, device="cpu", runtime="torch-float32")
    items = TrainedRun(str(runs[0])).datalist().part("test")
    for item in items[:3]:
        expected = predictor(read_raster(item["image"]))  # what `predict --with` gives
        assert expected.agreement is not None
        dice = score_case(read_mask(item["label"]), expected.mask == 1)["dice"]
        assert float(rows[item["case"]]["dice"]) == pytest.approx(dice)
        assert agreements[item["case"]] == pytest.approx(expected.agreement[0])

    (section,) = build([runs[0].parent], ensemble=True).report.sections
    assert section.ensembles
    (one,) = section.ensembles
    assert one.averaged
    assert one.curve[0] == pytest.approx(np.mean([float(row["dice"]) for row in rows.values()]))
    least = sorted(rows, key=lambda case: (agreements[case], case))
    assert one.curve[2] == pytest.approx(np.mean([float(rows[case]["dice"]) for case in least[2:]]))
    singles = [
        {row["case"]: float(row["dice"]) for row in read_csv(next(run.glob("evaluations/*/cases.csv")))} for run in runs
    ]
    gain = over_groups(
        list(rows.values()), lambda row: float(row["dice"]) - np.mean([own[row["case"]] for own in singles])
    )
    assert one.gain.mean == pytest.approx(gain)

    table = read_csv(folder / "agreement.csv")
    write_csv(folder / "agreement.csv", list(table[0]), table[1:])
    with pytest.raises(UserError, match="1 cases are lacking or have other references; score the ensemble again"):
        build([runs[0].parent], ensemble=True)


def test_what_is_no_ensemble_is_told_at_once(
    runs: list[Path], scans: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    write_json(other / "run.json", {**read_json(other / "run.json"), "data_hash": "0" * 64})
    assert cli.main(["ensemble", str(runs[0]), str(runs[0]), str(other)]) == 1
    told = capsys.readouterr().err
    assert "an ensemble needs different ones" in told
    assert "was trained on other data or another split" in told
    assert cli.main(["ensemble", str(runs[0])]) == 1
    assert "two runs or more" in capsys.readouterr().err


def test_a_run_has_a_model_card(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = tmp_path / "card.md"
    for _ in range(2):  # the second replaces the first
        assert cli.main(["card", str(runs[0]), "--output", str(card)]) == 0
    text = card.read_text("utf-8")
    assert all(f"## {title}" in text for title in ("Model", "Data", "Scores", "Failures", "Limits", "For the author"))
    assert "monai-thyroid pack RUN" in text
    assert "SHA256SUMS" not in text
    other = tmp_path / "mine.md"
    other.write_text("mine")
    shutil.copytree(runs[0], tmp_path / "running")
    record = tmp_path / "running" / "run.json"
    write_json(record, {**read_json(record), "status": "running"})
    assert cli.main(["card", str(tmp_path / "running"), "--output", str(other)]) == 1
    told = capsys.readouterr().err
    assert "is there and no earlier model card" in told
    assert "is not finished (running)" in told
    assert other.read_text() == "mine"
