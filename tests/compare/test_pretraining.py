"""Models whose weights had seen the test's data are ranked apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monai_thyroid.compare import build, find_runs, page
from monai_thyroid.compare.pretraining import contamination
from monai_thyroid.pages import Callout, Items

MakeRun = Callable[..., Path]


@pytest.mark.parametrize(
    ("pretrained", "dataset", "why"),
    [
        (["ImageNet"], "ddti", None),
        ([], "ddti", None),
        (None, "ddti", None),
        (["DDTI"], "ddti-400", "pretrained on DDTI"),
        (["UltraSam"], "TN3K", "pretrained on UltraSam, whose list has TN3K"),
        (["ultrasam"], "ultrasound-nerve-segmentation", "pretrained on ultrasam, whose list has nerve"),
        (["ImageNet", "US-43d"], "hc18_training", "pretrained on US-43d, whose list has HC18"),
        (["UltraSam"], "polyp", None),
    ],
)
def test_names_are_compared_word_by_word(
    make_run: MakeRun, tmp_path: Path, pretrained: list[str] | None, dataset: str, why: str | None
) -> None:
    make_run("unet", dataset=dataset, pretrained_on=pretrained, cases=range(2))
    runs, _ = find_runs([tmp_path])
    assert contamination(runs) == why


def test_a_start_from_a_run_by_the_same_split_has_seen_no_test(make_run: MakeRun, tmp_path: Path) -> None:
    def why(**parent: Any) -> str | None:
        root = f"parent-{len(list(tmp_path.iterdir()))}"
        folder = make_run("unet", root=root, cases=range(2), **parent)
        make_run(
            "unet", root=f"child-{root}", cases=range(2), pretrained_on=["neck"],
            init_from={"path": str(folder / "model.pt")},
        )  # fmt: skip
        return contamination(find_runs([tmp_path / f"child-{root}"])[0])

    assert why(pretrained_on=[]) is None
    assert why(pretrained_on=["neck"]) == "pretrained on neck"
    assert why(pretrained_on=None) == "pretrained on neck", "what it had seen is not known"
    assert why(pretrained_on=[], data="another split") == "pretrained on neck"


def test_a_score_on_another_dataset_that_was_seen_before_is_marked(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", others=["ddti"], pretrained_on=["UltraSam"])
    make_run("segnet", others=["ddti"], pretrained_on=[])
    (table,) = build([tmp_path / "runs"], images=False).report.shift
    marked = {
        row.network: [cell is not None and cell.holds_training_images for cell in row.cells] for row in table.rows
    }
    assert list(table.columns) == ["ddti-test", "neck-test"]
    assert marked == {"unet": [True, False], "segnet": [False, False]}


def test_what_may_have_seen_the_test_is_ranked_apart_with_its_reason(make_run: MakeRun, tmp_path: Path) -> None:
    for network, quality in {"unet": 0.8, "segnet": 0.7, "seen": 0.9, "seen_more": 0.95}.items():
        for seed in (0, 1):
            seen = network.startswith("seen") and seed == 0
            make_run(network, seed, quality=quality, grouping="known", pretrained_on=["Neck"] if seen else [])
    report = build([tmp_path / "runs"], images=False).report
    (section,) = report.sections
    assert list(section.contaminated) == ["seen_more", "seen"], "the better one first"
    assert dict(section.set_apart) == {"seen_more": "pretrained on Neck", "seen": "pretrained on Neck"}
    for comparison in (section.weights, section.architectures):
        assert comparison is not None
        assert comparison.networks == ["unet", "segnet"]
    assert section.recommendation is not None
    assert section.recommendation.network in ("unet", "segnet")
    assert [row.network for row in section.networks] == ["unet", "segnet", "seen_more", "seen"]
    blocks = page.blocks(report, figures=tmp_path)
    warned = [text for one in blocks if isinstance(one, Callout) for text in one.items]
    assert any(text.startswith("neck: seen may have seen these images: pretrained on Neck") for text in warned)
    told = [text for one in blocks if isinstance(one, Items) for text in one.items]
    assert any(text.startswith("Ranked apart") and text.index("seen_more,") < text.index("seen, ") for text in told)
    assert not any("no usable seed is left" in text for text in told)
