from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import everything, nearly_nothing, nothing, reference, shrunk, the_same
from scipy import stats
from sklearn.metrics import jaccard_score

from monai_thyroid import cli
from monai_thyroid.compare import build, compare_architectures, make_report
from monai_thyroid.compare.contents import Shift
from monai_thyroid.compare.page import _opening
from monai_thyroid.compare.reading import Unusable
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, read_json, write_csv, write_json
from monai_thyroid.pages import Heading

MakeRun = Callable[..., Path]
QUALITIES = {"unet": 0.80, "segnet": 0.70, "resunet": 0.84}


def make_all(make_run: MakeRun, seeds: tuple[int, ...] = (0, 1, 2), **options: Any) -> None:
    for network, quality in QUALITIES.items():
        for seed in seeds:
            # The seed 1 is best on validation.
            dice = [0.3, 0.5, 0.6, 0.62, 0.61, 0.7 if seed == 1 else 0.63]
            make_run(network, seed, quality=quality, grouping="known", **{"val_dice": dice, **options})


def content(path: Path, **options: Any) -> dict[str, Any]:
    return asdict(build([path], **options).report)


def section(path: Path, **options: Any) -> dict[str, Any]:
    (found,) = content(path, **options)["sections"]
    return found


def by_network(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["network"]: row for row in found["networks"]}


def scores(root: Path, network: str, seed: int, column: str = "dice", part: str = "test") -> np.ndarray:
    (file,) = root.glob(f"thyroid/neck/{network}-*/seed-{seed}/evaluations/neck-{part}/cases.csv")
    return np.array([float(row[column]) for row in read_csv(file)])


def group_means(values: np.ndarray) -> np.ndarray:
    return values.reshape(-1, 2).mean(axis=1)  # two cases a group, in this order


# --- the figures, by hand ---


def test_the_weights_question_is_scipys_wilcoxon_on_group_means(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run)
    root = tmp_path / "runs"
    found = section(root)["weights"]
    means = {network: group_means(scores(root, network, 1)) for network in QUALITIES}
    assert found["networks"] == sorted(QUALITIES, key=lambda network: -means[network].mean())
    assert found["n_groups"] == 12
    raw = {}
    for pair in found["pairs"]:
        first, second = means[pair["first"]], means[pair["second"]]
        raw[pair["first"], pair["second"]] = stats.wilcoxon(first, second, method="exact").pvalue
        assert pair["p"] == pytest.approx(raw[pair["first"], pair["second"]])
        assert pair["difference"] == pytest.approx((first - second).mean())
        assert pair["wins"] == (first > second).sum()
        assert pair["interval"][0] < pair["difference"] < pair["interval"][1]
    ordered = sorted(raw.values())
    shaffer = np.maximum.accumulate([p * factor for p, factor in zip(ordered, (3, 1, 1), strict=True)])
    expected = {p: min(1.0, adjusted) for p, adjusted in zip(ordered, shaffer, strict=True)}
    for pair in found["pairs"]:
        assert pair["p_adjusted"] == pytest.approx(expected[raw[pair["first"], pair["second"]]])
    chi2, p = stats.friedmanchisquare(*means.values())
    assert found["omnibus"]["friedman_chi2"] == pytest.approx(chi2)
    assert found["omnibus"]["friedman_p"] == pytest.approx(p)


def test_the_architectures_question_is_asked_of_networks_by_seeds_by_cases(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run)
    root = tmp_path / "runs"
    found = section(root)
    networks = sorted(QUALITIES)
    values = [[scores(root, network, seed) for seed in (0, 1, 2)] for network in networks]
    expected = compare_architectures(values, networks=networks, groups=[f"p{case // 2}" for case in range(24)])
    assert found["architecture_seeds"] == [0, 1, 2]
    assert found["architectures"]["networks"] == expected.networks
    for pair, other in zip(found["architectures"]["pairs"], expected.pairs, strict=True):
        assert pair["p_adjusted"] == pytest.approx(other.p_adjusted)
        assert pair["interval"] == pytest.approx(list(other.interval))
    assert found["architectures"]["means"]["unet"] == pytest.approx(np.mean(values[networks.index("unet")]))


def test_scores_of_a_network_are_of_the_seed_that_validation_chose(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run)
    root = tmp_path / "runs"
    one = by_network(section(root))["unet"]
    assert one["chosen_seed"] == 1
    dice = scores(root, "unet", 1)
    tp, fp, fn = (scores(root, "unet", 1, name).sum() for name in ("tp", "fp", "fn"))
    assert one["scores"]["dice_mean"] == pytest.approx(dice.mean())
    assert one["scores"]["dice_pooled"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert one["mean_over_groups"]["mean"] == pytest.approx(group_means(dice).mean())
    assert one["mean_over_groups"]["low"] < dice.mean() < one["mean_over_groups"]["high"]
    assert one["worst_decile_dice"] == pytest.approx(np.sort(dice)[:3].mean())
    seeds = [scores(root, "unet", seed).mean() for seed in (0, 1, 2)]
    assert one["seeds_mean_dice"] == pytest.approx(np.mean(seeds))
    assert one["seeds_sd_dice"] == pytest.approx(np.std(seeds, ddof=1))
    assert one["seeds_range_dice"] == pytest.approx(max(seeds) - min(seeds))
    assert one["volatility"] == pytest.approx(np.mean([np.std([0.61, x], ddof=1) for x in (0.63, 0.7, 0.63)]))
    predict = shrunk(QUALITIES["unet"], "unet", 1)
    truths = [reference(case, "necktest") for case in range(24)]
    two_class = [
        jaccard_score(truth.ravel(), predict(truth, case).ravel(), average="macro") for case, truth in enumerate(truths)
    ]
    assert one["scores"]["iou_two_class_mean"] == pytest.approx(np.mean(two_class))


def test_an_output_that_cannot_be_written_is_said_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        make_report([tmp_path / "nothing"], output=tmp_path / ("x" * 250))
    assert not list(tmp_path.iterdir())


def test_a_collapsed_seed_does_not_make_a_network_steadier(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "resunet"):
        for seed in (0, 1, 2):
            dead = network == "unet" and seed == 1
            make_run(network, seed, predict=nothing if dead else None, **({"val_dice": [0.0] * 6} if dead else {}))
    networks = by_network(section(tmp_path / "runs"))
    assert networks["unet"]["collapsed_seeds"] == [1]
    assert networks["unet"]["volatility"] == pytest.approx(networks["resunet"]["volatility"])


def test_calibration_is_of_the_pixels(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", quality=0.8)
    one = by_network(section(tmp_path / "runs"))["unet"]
    predict = shrunk(0.8, "unet", 0)
    truth = np.stack([reference(case, "necktest") for case in range(24)])
    probability = np.where(np.stack([predict(mask, case) for case, mask in enumerate(truth)]), 0.9, 0.1)
    assert one["brier_score"] == pytest.approx(((probability - truth) ** 2).mean())
    gaps = [abs(truth[probability == p].mean() - p) * (probability == p).mean() for p in (0.1, 0.9)]
    assert one["expected_calibration_error"] == pytest.approx(sum(gaps))


def test_cost_is_told_where_every_run_recorded_it(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", 0, multiply_adds=5_000_000_000, latency_ms=10.0)
    make_run("unet", 1, multiply_adds=5_000_000_000, machine={"processor": "other", "threads": 2})
    found = section(tmp_path / "runs")
    cost = by_network(found)["unet"]["cost"]
    assert cost["multiply_adds"] == 5e9
    assert cost["latency_ms"] is None
    assert found["machines"] == ["machine not recorded (cpu)", "other, 2 threads (cpu)"]


def test_other_metrics_and_distances(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0,))
    found = section(tmp_path / "runs", metric="hd95", margin=1.0)
    assert found["weights"]["networks"][0] == "resunet"
    assert found["weights"]["pairs"][0]["difference"] < 0  # the better one is nearer
    assert found["distance_unit"] == "pixels"
    assert all(row["deficit"] >= 0 for row in found["recommendation"]["deficits"])
    file = next((tmp_path / "runs").glob("thyroid/neck/unet-*/seed-0/evaluations/neck-test/cases.csv"))
    rows = read_csv(file)
    write_csv(file, list(rows[0]), [{**rows[0], "spacing_y": "0.1", "spacing_x": "0.1"}, *rows[1:]])
    with pytest.raises(UserError, match="some in mm and some in pixels"):
        build([tmp_path / "runs"], metric="hd95")
    with pytest.raises(UserError, match="--metric accuracy: choose one of dice, iou, hd95, asd, nsd"):
        build([tmp_path / "runs"], metric="accuracy")


# --- what must get its clear place ---


@pytest.mark.parametrize(
    ("predict", "kind"),
    [
        (nothing, "all background"),
        (everything, "all foreground"),
        (the_same, "constant"),
        (nearly_nothing, "nearly collapsed"),
    ],
)
def test_a_collapsed_network_is_set_apart(make_run: MakeRun, tmp_path: Path, predict: Callable, kind: str) -> None:
    make_all(make_run, seeds=(0, 1))
    for seed in (0, 1):
        make_run("collapsed", seed, predict=predict, val_dice=[0.9, 0.9])
    report = content(tmp_path / "runs")
    (found,) = report["sections"]
    assert [*found["set_apart"]] == ["collapsed"]
    assert [one["kind"] for one in found["degenerate"]] == [kind, kind]
    for question in ("weights", "architectures"):
        assert sorted(found[question]["networks"]) == sorted(QUALITIES)
    assert found["networks"][-1]["network"] == "collapsed"
    assert found["recommendation"]["network"] != "collapsed"
    assert any(f"collapsed seed 0 is degenerate ({kind})" in text for text in report["warnings"])


def test_one_collapsed_seed_of_three_stays_in_and_is_named(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run)
    (path,) = (tmp_path / "runs").glob("thyroid/neck/resunet-*/seed-2")
    (path / "run.json").unlink()
    make_run("resunet", 2, root="runs/second", predict=nothing, val_dice=[0.1, 0.1], grouping="known")
    found = section(tmp_path / "runs")
    one = by_network(found)["resunet"]
    assert not one["set_apart"]
    assert one["collapsed_seeds"] == [2]
    assert one["chosen_seed"] == 1
    sound = [scores(tmp_path / "runs", "resunet", seed).mean() for seed in (0, 1)]
    assert one["seeds_mean_dice_without_collapsed"] == pytest.approx(np.mean(sound))
    assert one["seeds_mean_dice"] == pytest.approx(np.mean([*sound, 0]))
    assert "resunet" in found["architectures"]["networks"]
    assert found["architectures"]["means"]["resunet"] == pytest.approx(np.mean([*sound, 0]))
    assert found["weights"]["means"]["resunet"] > 0.8


def test_a_copy_of_another_run_is_no_network_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0,))
    make_run("copied", predict=shrunk(QUALITIES["unet"], "unet", 0))
    found = section(tmp_path / "runs")
    # The first by name stays.
    assert [*found["set_apart"]] == ["unet"]
    assert "equal those of copied seed 0 in all of 24 cases" in found["degenerate"][0]["sentence"]


def test_a_copied_seed_is_no_training_of_its_own(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        for seed in (0, 1, 2):
            make_run(network, seed, predict=shrunk(0.8, network, min(seed, 1) if network == "unet" else seed))
    found = section(tmp_path / "runs")
    assert by_network(found)["unet"]["copied_seeds"] == [2]
    assert found["architecture_seeds"] == [0, 1]
    assert "Left out, as not all networks have it: segnet seed 2." in found["architecture_notes"]


def test_runs_that_cannot_be_used_are_listed(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0,))
    make_run("failing", status="failed", error="out of memory")
    make_run("diverged", losses=(0.5, float("nan")))
    (make_run("incomplete") / "history.csv").unlink()
    lost = Unusable(path="planned/lost", network="lost", seed="0", fold="", reason="no such network")
    report = content(tmp_path / "runs", failed=[lost])
    assert {one["network"]: one["reason"] for one in report["unusable"]} == {
        "failing": "the run failed: out of memory",
        "diverged": "its train_loss is nan in epoch 2: the training diverged",
        "incomplete": "history.csv is missing",
        "lost": "no such network",
    }
    assert not {"failing", "diverged", "incomplete"} & set(by_network(report["sections"][0]))


def test_nothing_usable_is_an_error_with_every_reason(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("failing", status="failed", error="out of memory")
    make_run("diverged", losses=(float("nan"),))
    with pytest.raises(UserError, match="none of 2 runs can be used") as caught:
        build([tmp_path])
    assert "out of memory" in str(caught.value)
    assert "train_loss is nan in epoch 1" in str(caught.value)


def test_other_protocol_and_other_cases_are_refused_together(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0,))
    make_run("other", protocol="other", settings={"image_size": 128})
    make_run("moved", cases=range(2, 26))
    with pytest.raises(UserError) as caught:
        build([tmp_path])
    text = str(caught.value)
    assert "different protocols" in text
    assert "image_size (128 / 96)" in text or "image_size (96 / 128)" in text
    assert "scored on different cases" in text
    assert "--force" in caught.value.problems[-1]


def test_force_compares_with_a_warning_on_page_one(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", quality=0.7)
    make_run("unet", protocol="other", settings={"image_size": 128}, cases=range(2, 26))
    report = content(tmp_path, force=True)
    (found,) = report["sections"]
    assert report["warnings"][0].startswith("FORCED COMPARISON. dataset neck:")
    assert any("image_size" in text for text in report["warnings"])
    assert not any(str(tmp_path) in text for text in report["warnings"])  # paths are told from the runs' root
    assert found["n_cases"] == 22
    # One network by two recipes: told apart by the protocol's digits.
    assert len(found["networks"]) == 2
    assert all(re.fullmatch(r"unet-[0-9a-f]{8}", name) for name in by_network(found))
    assert "the comparison was forced" in " ".join(found["recommendation"]["blockers"])


def test_force_cannot_mend_other_classes_or_a_run_twice(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    make_run("segnet", classes=["gland"])
    make_run("unet", root="again")
    with pytest.raises(UserError) as caught:
        build([tmp_path], force=True)
    assert "different classes" in caught.value.problems[0]
    assert "more than once" in caught.value.problems[1]
    assert "--force" not in str(caught.value)


def test_cases_that_could_not_be_scored_are_left_out_of_all_and_counted(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("segnet")
    file = make_run("unet") / "evaluations" / "neck-test" / "cases.csv"
    rows = read_csv(file)
    write_csv(file, list(rows[0]), [{**rows[0], "error": "unreadable"}, *rows[1:]])
    report = content(tmp_path)
    assert report["sections"][0]["n_cases"] == 23
    assert by_network(report["sections"][0])["segnet"]["scores"]["n_cases"] == 23
    assert any("1 cases could not be scored in every run" in text for text in report["warnings"])


# --- seeds and folds ---


def test_with_one_seed_nothing_is_claimed_of_architectures(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0,))
    report = content(tmp_path)
    (found,) = report["sections"]
    assert found["architectures"] is None
    assert any("no claim about architectures" in text for text in report["warnings"])
    assert any("not between architectures" in text for text in found["recommendation"]["limits"])


def test_seeds_that_not_all_networks_have_are_left_out_by_name(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0, 1))
    make_run("unet", 2)
    make_run("lonely", 0)
    found = section(tmp_path)
    assert found["architecture_seeds"] == [0, 1]
    assert "lonely" not in found["architectures"]["networks"]
    assert "lonely" in found["weights"]["networks"]
    assert found["architecture_notes"] == [
        "Left out, as trained with one seed only: lonely.",
        "Left out, as not all networks have it: unet seed 2.",
    ]


def test_folds_with_cases_of_their_own_are_pooled(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        for fold in (0, 1):
            make_run(network, fold=fold, cases=range(12 * fold, 12 * fold + 12))
    make_run("partial", fold=0, cases=range(12))
    report = content(tmp_path)
    (found,) = report["sections"]
    assert found["folds"] == "disjoint"
    assert found["n_cases"] == 24
    assert found["weights"]["n_groups"] == 12
    assert found["architectures"] is None
    assert any("Training sets of folds overlap" in text for text in report["warnings"])
    assert any("partial seed 0 lacks fold 1 and is left out" in text for text in report["warnings"])
    assert "partial" not in by_network(found)


def test_folds_with_the_same_cases_are_averaged_per_case(make_run: MakeRun, tmp_path: Path) -> None:
    predictions = [shrunk(0.7, "unet", 10), shrunk(0.9, "unet", 11)]
    for fold, predict in enumerate(predictions):
        make_run("unet", fold=fold, predict=predict)
        make_run("segnet", fold=fold, quality=0.6)
    found = section(tmp_path)
    assert found["folds"] == "shared"
    assert found["n_cases"] == 24
    expected = []
    for case in range(24):
        truth = reference(case, "necktest")
        shares = [predict(truth, case).sum() / truth.sum() for predict in predictions]
        expected.append(np.mean([2 * share / (1 + share) for share in shares]))
    assert found["weights"]["means"]["unet"] == pytest.approx(group_means(np.array(expected)).mean())


def test_folds_that_overlap_in_part_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", fold=0, cases=range(12))
    make_run("unet", fold=1, cases=range(6, 18))
    with pytest.raises(UserError, match="folds share some of their cases"):
        build([tmp_path])


# --- what must not be claimed ---


def test_too_few_groups_refuse_every_claim(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0, 1), cases=range(8))
    report = content(tmp_path)
    (found,) = report["sections"]
    for question in ("weights", "architectures"):
        assert found[question]["refusals"]
        assert not any(pair["claim"] for pair in found[question]["pairs"])
    assert any("No difference can be claimed" in text for text in report["warnings"])
    assert any("too few to choose by" in text for text in found["recommendation"]["blockers"])


@pytest.mark.parametrize(
    ("more", "word", "blocked"),
    [
        ({"grouping": "leaky"}, "LEAKY", True),
        ({"synthetic": True}, "SYNTHETIC", True),
        ({"grouping": "unknown"}, "groups are unknown", False),
        ({"warnings": ["two images are alike"]}, "two images are alike (all runs)", False),
        ({"parent_sha256": "0" * 64}, "from other weights: resunet seed 0", False),
    ],
)
def test_page_one_warns(make_run: MakeRun, tmp_path: Path, more: dict[str, Any], word: str, blocked: bool) -> None:
    for network, quality in QUALITIES.items():
        make_run(network, quality=quality, **{"grouping": "known", **more})
    report = content(tmp_path)
    assert sum(word in text for text in report["warnings"]) == 1
    assert bool(report["sections"][0]["recommendation"]["blockers"]) == blocked


def test_scores_of_training_images_are_called_so(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, seeds=(0,), parts=["train"])
    report = content(tmp_path, part="train")
    assert any("TRAINING IMAGES" in text for text in report["warnings"])
    assert any("trained on" in text for text in report["sections"][0]["recommendation"]["blockers"])


# --- the recommendation ---


def test_without_validation_scores_the_choice_is_called_optimistic(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run)
    choice = section(tmp_path)["recommendation"]
    assert choice["selected_on"] == "test"
    assert choice["limits"][0].startswith("Selected on test: optimistic.")
    assert choice["best"] == "resunet"
    assert choice["eligible"] == ["resunet", "unet"], "segnet alone is shown to be worse by more than the margin"
    assert choice["network"] == "unet"
    assert 0 < choice["p_worse"] < 1
    assert choice["seed"] == 1
    assert choice["paths"][0].endswith("seed-1")


def test_with_validation_scores_of_every_run_it_is_chosen_there(make_run: MakeRun, tmp_path: Path) -> None:
    make_all(make_run, parts=["test", "validation"])
    found = section(tmp_path)
    choice = found["recommendation"]
    assert choice["selected_on"] == "validation"
    assert not any("optimistic" in text for text in choice["limits"])
    values = [[scores(tmp_path / "runs", n, s, part="validation") for s in (0, 1, 2)] for n in sorted(QUALITIES)]
    expected = compare_architectures(values, networks=sorted(QUALITIES), groups=[f"p{i // 2}" for i in range(24)])
    assert [row["network"] for row in choice["deficits"]] == expected.networks
    assert [row["high"] for row in choice["deficits"]] == pytest.approx([one.high for one in expected.to_best])
    assert choice["reported"]["mean"] == pytest.approx(scores(tmp_path / "runs", choice["network"], 1).mean())
    assert not choice["optimistic"]
    assert section(tmp_path, part="validation")["recommendation"]["optimistic"]
    make_run("late", parts=["test"])
    assert section(tmp_path)["recommendation"]["selected_on"] == "test"


def test_one_network_leaves_nothing_to_choose(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    found = section(tmp_path)
    assert found["recommendation"] is None
    assert found["weights"] is None


@pytest.mark.parametrize("margin", [-0.1, float("nan")])
def test_a_margin_is_not_negative(make_run: MakeRun, tmp_path: Path, margin: float) -> None:
    with pytest.raises(UserError, match="--margin"):
        build([tmp_path], margin=margin)


# --- several datasets and classes ---


def test_models_on_other_datasets_stand_beside_their_own(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", others=["gland"])
    make_run("segnet")
    make_run("unet", dataset="gland", others=["neck"])
    report = content(tmp_path)
    assert [found["dataset"] for found in report["sections"]] == ["gland", "neck"]
    (table,) = report["shift"]
    assert table["columns"] == ["gland-test", "neck-test"]
    cells = {(row["network"], row["trained_on"]): row["cells"] for row in table["rows"]}
    assert [cell["in_domain"] for cell in cells["unet", "neck"]] == [False, True]
    assert [cell["in_domain"] for cell in cells["unet", "gland"]] == [True, False]
    assert cells["segnet", "neck"][0] is None
    assert cells["unet", "neck"][1]["dice"]["mean"] == pytest.approx(scores(tmp_path / "runs", "unet", 0).mean())


def test_sites_stand_beside_the_whole(make_run: MakeRun, tmp_path: Path) -> None:
    path = make_run("unet", parts=["test", "validation"])
    assert content(tmp_path)["shift"] == []
    (path / "evaluations" / "neck-validation").rename(path / "evaluations" / "neck-test-clinic")
    (table,) = content(tmp_path)["shift"]
    assert table["columns"] == ["neck-test", "neck-test-clinic"]


def test_each_class_has_its_own_section(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        make_run(network, classes=["gland", "nodule"])
    found = content(tmp_path)["sections"]
    assert [one["class_name"] for one in found] == ["gland", "nodule"]
    assert found[0]["networks"][0]["scores"]["dice_mean"] != found[1]["networks"][0]["scores"]["dice_mean"]
    assert _opening(build([tmp_path / "runs"]).report).startswith("2 runs")  # a run is one, in both sections


# --- the files ---


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    make_all(make_run, images=True, others=["gland"])
    make_run("<b>&evil</b>", 0, names="case-{:02d}".format, predict=nothing)
    make_run("failing", status="failed", error="<script>alert(1)</script>")
    return tmp_path / "runs"


def test_the_forms_of_a_report_agree_and_are_the_same_again(runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    page = make_report([runs], output=output)
    assert page == output / "report.html"
    report = read_json(output / "report.json")
    (found,) = report["sections"]
    html, markdown = page.read_text("utf-8"), (output / "report.md").read_text("utf-8")

    # No reference to anything outside of the file, and no name is read as markup.
    assert not re.search(r"https?://|@import|url\(|<link|<iframe|<object", html)
    assert set(re.findall(r'src="([a-z]+:[a-z]+/)', html)) == {"data:image/"}
    assert len(re.findall(r"\bsrc=", html)) == html.count('src="data:image/')
    assert set(re.findall(r'href="(.)', html)) == {"#"}
    for text in (html, markdown):
        assert "<b>&evil" not in text
        assert "<script>alert" not in text
    assert "&lt;b&gt;&amp;evil&lt;/b&gt;" in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html

    # Every figure is there twice, is in the page, and is linked by the Markdown.
    names = [name for one in (found, report["shift"][0]) for group in one["figures"].values() for name in group]
    kinds = "cases confusion curves reliability gallery disagreement shift".split()
    assert {*kinds, "weights-means", "weights-average-ranks", "architectures-differences"} <= set(names)
    assert {path.name for path in (output / "figures").iterdir()} == {f"{n}.{s}" for n in names for s in ("png", "svg")}
    assert html.count("<figure>") == len(names)
    assert set(re.findall(r"\(figures/(.*?)\.png\)", markdown)) == set(names)

    # The numbers of all forms are those of report.json.
    for network in found["networks"]:
        figure = f"{network['scores']['dice_pooled']:.3f}"
        assert re.search(rf'data-sort="{re.escape(repr(network["scores"]["dice_pooled"]))}">{figure}<', html)
        assert f"| {figure} |" in markdown
    summary = list(csv.DictReader((output / "summary.csv").open(encoding="utf-8")))
    assert len(summary) == len(found["runs"]) == 10
    for row, run in zip(summary, found["runs"], strict=True):
        assert (row["network"], row["seed"], row["verdict"]) == (run["network"], str(run["seed"]), run["verdict"])
        assert float(row["dice_mean"]) == run["scores"]["dice_mean"]
    pairs = list(csv.DictReader((output / "pairwise.csv").open(encoding="utf-8")))
    expected = [pair for question in ("weights", "architectures") for pair in found[question]["pairs"]]
    assert [float(row["p_adjusted"]) for row in pairs] == [pair["p_adjusted"] for pair in expected]
    assert [row["claim"] for row in pairs] == [str(pair["claim"]) for pair in expected]
    assert len(pairs) == 2 * len(list(combinations(QUALITIES, 2)))
    for pair in expected:
        assert f"{pair['p_adjusted']:.4f}" in markdown or pair["p_adjusted"] < 0.0001
    cases = list(csv.DictReader((output / "cases.csv").open(encoding="utf-8")))
    assert len(cases) == 10 * 24
    own = [float(row["dice"]) for row in cases if (row["network"], row["seed"]) == ("unet", "2")]
    assert own == list(scores(runs, "unet", 2))
    for sentence in report["warnings"]:
        assert sentence.split("(")[0] in html.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert "The tolerance of nsd is 2" in html

    # Again, over the old one: not a byte differs.
    before = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    (output / "stale.txt").write_text("of an older report")
    make_report([runs], output=output)
    after = {path.relative_to(output): path.read_bytes() for path in output.rglob("*") if path.is_file()}
    assert before == after
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "runs"]


def test_folders_with_the_least_there_may_be_give_a_whole_report(make_run: MakeRun, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        path = make_run(network, val_dice=[None, None])
        (path / "config.yaml").unlink()
        for name in ("evaluation.json", "calibration.csv"):
            (path / "evaluations" / "neck-test" / name).unlink()
    make_report([tmp_path / "runs"], output=tmp_path / "report")
    text = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "The runs did not record their scoring policy." in text
    assert "Not recorded: the evaluations hold no calibration.csv." in text
    assert "No images, references and predictions were kept of: " in text
    assert "the lowest seed of each network, as not every run has a validation Dice" in text
    assert "groups are unknown" not in text  # cases.csv has them


@pytest.mark.parametrize("classes", [["nodule"], ["gland", "nodule"]])
def test_the_gallery_shows_worst_median_and_best(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: list[str]
) -> None:
    predict = shrunk(0.8, "unet", 0)
    make_run("unet", predict=predict, images=True, classes=classes)
    make_run("segnet", classes=classes)
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(
        "monai_thyroid.compare.figures.gallery", lambda folder, name, *, rows: drawn.update({name: rows})
    )
    monkeypatch.setattr("monai_thyroid.compare.page.blocks", lambda *_, **__: [Heading(1, "")])
    make_report([tmp_path / "runs"], output=tmp_path / "report")
    assert set(drawn) == ({"gallery"} if len(classes) == 1 else {"1-gallery", "2-gallery"})
    for index, (_, rows) in enumerate(sorted(drawn.items())):
        (row,) = rows  # segnet kept no images
        (file,) = (tmp_path / "runs").glob("thyroid/neck/unet-*/seed-0/evaluations/neck-test/cases.csv")
        ranked = sorted((float(one["dice"]), one["case"]) for one in read_csv(file) if one["class"] == classes[index])
        for panel, word, (dice, case) in zip(
            row, ("worst", "median", "best"), (ranked[0], ranked[12], ranked[-1]), strict=True
        ):
            assert panel.title == f"unet: {word}\n{case}\nDice {dice:.3f}"
            truth = reference(int(case[-2:]) + 100 * index, "necktest")
            if index == len(classes) - 1:  # the last class is on top
                np.testing.assert_array_equal(panel.reference, truth)
                np.testing.assert_array_equal(panel.prediction, predict(truth, int(case[-2:])))
            assert panel.image.shape == (32, 32)
            assert 0 <= panel.image.min() < panel.image.max() <= 1


def test_no_images_leaves_every_picture_of_a_case_out(runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    make_report([runs], output=output, images=False)
    assert not [path for path in (output / "figures").iterdir() if "gallery" in path.name or "disagree" in path.name]
    html = (output / "report.html").read_text("utf-8")
    assert "data:image/jpeg" not in html
    assert "Patient images were left out on request." in html
    assert read_json(output / "report.json")["sections"][0]["without_images"] is None


def test_an_interrupted_report_leaves_nothing(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "report"
    output.mkdir()
    write_json(output / "report.json", {"format": "monai-thyroid report 1"})

    def interrupted(_: Path, subject: Any, **__: Any) -> dict[str, Any]:
        if isinstance(subject, Shift):
            raise KeyboardInterrupt
        return {}

    monkeypatch.setattr("monai_thyroid.compare.report.draw", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_report([runs], output=output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report", "runs"]
    assert [path.name for path in output.iterdir()] == ["report.json"]


def test_a_folder_of_something_else_is_not_replaced(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="holds something else than a report"):
        make_report([tmp_path / "runs"], output=tmp_path / "work")
    with pytest.raises(UserError, match="is a file"):
        make_report([tmp_path / "runs"], output=tmp_path / "work" / "thesis.tex")
    with pytest.raises(UserError, match="does not exist"):
        make_report([tmp_path / "runs"], output=tmp_path / "absent" / "report")
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years"


def test_the_command(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("unet", quality=0.7)
    make_run("segnet", protocol="other")
    output = tmp_path / "report"
    assert cli.main(["report", str(tmp_path / "runs"), "--output", str(output)]) == 1
    assert "different protocols" in capsys.readouterr().err
    assert not output.exists()
    assert cli.main(["report", str(tmp_path / "runs"), "--output", str(output), "--force", "--margin", "0.02"]) == 0
    assert capsys.readouterr().out == f"Report: {output / 'report.html'}\n"
    report = json.loads((output / "report.json").read_text())
    given = {"margin": 0.02, "metric": "dice", "part": "test", "force": True, "images": True}
    assert report["options"] == {**given, "metadata": None, "ensemble": False, "checklist": None}
    assert cli.main(["report", str(tmp_path / "absent"), "--output", str(output)]) == 1
    assert "no such folder" in capsys.readouterr().err


def test_scores_of_chosen_sites_are_found_and_other_sites_are_another_domain(
    make_run: MakeRun,
) -> None:
    run = make_run("unet", parts=("test", "all"))
    record = read_json(run / "run.json")
    for part, sites, data_hash in (("test", ["clinic"], record["data_hash"]), ("all", ["elsewhere"], "another")):
        folder = (run / "evaluations" / f"neck-{part}").rename(run / "evaluations" / f"neck-{part}-{sites[0]}")
        evaluation = read_json(folder / "evaluation.json")
        write_json(folder / "evaluation.json", {**evaluation, "sites": sites, "data_hash": data_hash})
    content = asdict(build([run]).report)
    (section,) = content["sections"]
    assert section["n_cases"] == 24
    (table,) = content["shift"]
    assert table["columns"] == ["neck-all-elsewhere", "neck-test-clinic"]
    (row,) = table["rows"]
    assert [cell["in_domain"] for cell in row["cells"]] == [False, True]
    assert [cell["holds_training_images"] for cell in row["cells"]] == [False, False]
