"""What a reader of the report meets: nothing to guess, nothing that contradicts what stands beside it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import nothing

from monai_thyroid.compare import build, page
from monai_thyroid.compare.pictures import FIGURES, Declared, Place
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_csv, write_csv, write_json
from monai_thyroid.pages import Callout, Figure, Items, Paragraph, Table

MakeRun = Callable[..., Path]


def report(make_run: MakeRun, tmp_path: Path, **options: Any) -> tuple[Any, list[Any]]:
    """Four networks with three seeds, of which one has collapsed in all and one in one."""
    for network, quality in {"unet": 0.80, "segnet": 0.79, "resunet": 0.84, "dead": 0.5}.items():
        for seed in (0, 1, 2):
            dead = network == "dead" or (network == "segnet" and seed == 2)
            make_run(
                network, seed, quality=quality, predict=nothing if dead else None, grouping="known",
                val_dice=[0.0] * 6 if dead else [0.3, 0.5, 0.6, 0.62, 0.61, 0.63], parts=["test", "validation"],
                multiply_adds=1_500_000_000, others=["gland"],
            )  # fmt: skip
    made = build([tmp_path / "runs"], **options).report
    return made, page.blocks(made, figures=tmp_path)


def tables(blocks: list[Any], start: str) -> list[Table]:
    return [one for one in blocks if isinstance(one, Table) and one.caption.startswith(start)]


def cells(made: Table, title: str) -> list[str]:
    index = [column.title for column in made.columns].index(title)
    return [row[index].text for row in made.rows]


def prose(blocks: list[Any]) -> str:
    found = [one.text for one in blocks if isinstance(one, Paragraph)]
    return "\n".join([*found, *(text for one in blocks if isinstance(one, (Items, Callout)) for text in one.items)])


def test_what_is_set_apart_is_marked_in_every_table_of_networks(make_run: MakeRun, tmp_path: Path) -> None:
    _, blocks = report(make_run, tmp_path)
    for start in ("Overlap", "Misses", "Lesions", "Stability", "Calibration", "Cost"):
        (found,) = tables(blocks, start)
        assert cells(found, "Network")[-1] == "dead (set apart)"
        assert found.aside == {3}
    (stability,) = tables(blocks, "Stability")
    assert cells(stability, "Volatility of the validation Dice")[-1] == "0.0000"  # and stays below when sorted
    assert sorted(text[:6] for text in cells(stability, "Collapsed seeds (95 % interval of the rate)")) == [
        "0 of 3", "0 of 3", "1 of 3", "3 of 3",
    ]  # fmt: skip
    (cost,) = tables(blocks, "Cost")
    assert set(cells(cost, "Multiply-adds of one image")) == {"1.5 G"}


def test_verdicts_subgroups_and_the_outlook_are_told(make_run: MakeRun, tmp_path: Path) -> None:
    made, blocks = report(make_run, tmp_path)
    (section,) = made.sections
    for comparison, found in zip((section.weights, section.architectures), tables(blocks, "All pairs"), strict=True):
        words = [one.verdict for one in section.decisions[comparison.question]]
        told = cells(found, "Verdict at 0.01")
        assert [text for text in told if text in ("better", "undecided")] == [
            word for word in words if word in ("better", "undecided")
        ]
        assert [text == "better" for text in told] == [pair.claim for pair in comparison.pairs]
    (sizes,) = tables(blocks, "By lesion size, thirds")
    assert sum(map(int, cells(sizes, "Cases"))) == 24
    assert all(text.endswith("(too few)") for text in cells(sizes, "Subgroup"))
    (needs,) = tables(blocks, "What it takes")
    assert cells(needs, "Seeds a network") == ["2", "3", "5", "10"]
    assert section.outlook is not None
    assert "segnet" not in section.outlook.components.source, "a seed of it collapsed"
    assert "could have been found with a probability of 80 %" in prose(blocks)
    assert "n.s." not in prose(blocks)


def test_a_lacking_interval_is_explained(make_run: MakeRun, tmp_path: Path) -> None:
    _, blocks = report(make_run, tmp_path)
    for made in tables(blocks, "All pairs"):
        texts = cells(made, "95 % interval, by itself") + cells(made, "Simultaneous 95 % interval")
        assert ("no interval" in texts) == ("No interval: " in made.caption)
    assert any("no interval" in cells(made, "Simultaneous 95 % interval") for made in tables(blocks, "All pairs"))


def test_a_bar_without_an_interval_is_explained_in_its_caption(make_run: MakeRun, tmp_path: Path) -> None:
    made, _ = report(make_run, tmp_path)
    (section,) = made.sections
    for name in ("architectures-means", "weights-means"):
        (tmp_path / f"{name}.svg").write_bytes(b"drawn")
        (tmp_path / f"{name}.png").write_bytes(b"drawn")
    section = replace(section, figures={name: [name] for name in ("architectures-means", "weights-means")})
    assert np.isnan(section.architectures.intervals["segnet"][0])
    (means,) = page._of_section(section, Place.ARCHITECTURES, tmp_path, section.architectures)
    assert means.caption.endswith(" seeds a network. No interval of segnet: the data leave no value out, however far.")
    (means,) = page._of_section(section, Place.WEIGHTS, tmp_path, section.weights)
    assert "interval of" in means.caption
    assert "No interval" not in means.caption
    one = replace(section.weights, n_groups=1)
    assert page._lacking(one) == " No intervals: one group has no spread."


def test_differences_are_told_as_finely_as_they_are_known(make_run: MakeRun, tmp_path: Path) -> None:
    made_report, blocks = report(make_run, tmp_path)
    weights, architectures = tables(blocks, "All pairs")
    for made in (weights, architectures):
        rows = zip(made.rows, cells(made, "Difference"), cells(made, "95 % interval, by itself"), strict=True)
        for row, difference, interval in rows:
            told = [difference, *(interval.split(" to ") if " to " in interval else [])]
            assert len({len(text.split(".")[1]) for text in told}) == 1
            assert len(difference.split(".")[1]) in (2, 3)
            assert not any(re.fullmatch(r"[+−-]0\.0*", text) for text in told)
            assert row[3].text == difference
    lower = [row[3].value for row in weights.rows]
    assert lower == [pair.interval[0] for pair in made_report.sections[0].weights.pairs]


def test_a_recommendation_says_where_it_was_chosen_and_why_not_the_best_mean(make_run: MakeRun, tmp_path: Path) -> None:
    made, _ = report(make_run, tmp_path)
    (section,) = made.sections
    choice = replace(section.recommendation, network="unet", best="unet", eligible=["unet"])
    assert section.networks[0].network == "resunet"
    texts = page._answer(replace(section, recommendation=choice)).items
    assert "chosen on the part “validation” (12 groups, mean over seeds)" in texts[1]
    assert "resunet has the better mean on “test”, which was not looked at in choosing" in texts[1]
    same = replace(section.recommendation, network="resunet", best="resunet", eligible=["resunet"], p_worse=0.7)
    texts = page._answer(replace(section, recommendation=same)).items
    assert "better mean" not in texts[1]
    three = replace(section.recommendation, best="resunet", eligible=["resunet", "segnet", "unet"])
    texts = page._answer(replace(section, recommendation=three)).items
    assert "resunet has the best mean and 2 other networks (segnet, unet) are not shown to be worse" in texts[1]
    two = replace(section.recommendation, best="resunet", eligible=["resunet", "unet"])
    texts = page._answer(replace(section, recommendation=two)).items
    assert "1 other network (unet) is not shown to be worse" in texts[1]
    texts = page._answer(replace(section, recommendation=same)).items
    assert "Probability that it is worse than the best by more than 0.01: 70 %. So it likely is" in texts[1]


def test_friedman_is_explained_and_a_t_test_has_no_smallest_p(make_run: MakeRun, tmp_path: Path) -> None:
    _, blocks = report(make_run, tmp_path)
    text = prose(blocks)
    assert text.count("The smallest adjusted p that") == 1
    assert not re.search(r"\de-\d", text)
    assert "A small p says that they are not, but not which of them differ" in text
    assert "What other training images would change is not in the error" in text
    assert "within this dataset, class and question" in text
    assert "declared" not in text
    assert "Whatever happens in fewer than 22% of all patients" in text


def test_a_margin_is_called_declared_only_where_the_plan_recorded_it(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet")
    write_json(tmp_path / "plan.json", {"margin": 0.02})
    for margin, said in ((0.02, True), (0.01, False)):
        made = build([tmp_path / "runs"], margin=margin).report
        assert ("declared before the runs were trained" in page.blocks(made, figures=tmp_path)[1].text) == said


def test_the_table_across_datasets_has_intervals_over_groups(make_run: MakeRun, tmp_path: Path) -> None:
    made, blocks = report(make_run, tmp_path)
    (table,) = tables(blocks, "Dice, mean over groups")
    (shift,) = made.shift
    for row, shown in zip(shift.rows, cells(table, "gland-test"), strict=True):
        cell = row.cells[shift.columns.index("gland-test")]
        assert shown == f"{cell.dice.mean:.3f} ({cell.dice.low:.3f} to {cell.dice.high:.3f}; 12)"
        assert cell.dice.low <= cell.dice.mean <= cell.dice.high
    assert np.ptp([row.cells[0].dice.mean for row in shift.rows]) > 0


def test_a_metric_that_older_runs_do_not_have_is_not_compared_and_leaves_a_dash(
    make_run: MakeRun, tmp_path: Path
) -> None:
    for network in ("unet", "segnet"):
        file = make_run(network) / "evaluations" / "neck-test" / "cases.csv"
        rows = [{name: value for name, value in row.items() if name != "nsd"} for row in read_csv(file)]
        write_csv(file, list(rows[0]), rows)
    with pytest.raises(UserError, match="nsd is not scored in segnet seed 0, unet seed 0"):
        build([tmp_path / "runs"], metric="nsd")
    (found,) = tables(page.blocks(build([tmp_path / "runs"]).report, figures=tmp_path), "Misses")
    assert cells(found, "Normalised surface Dice, mean") == ["–", "–"]


# --- figures ---


def test_a_figure_is_declared_once_and_its_caption_has_its_words() -> None:
    words = dict.fromkeys(("axis", "Axis", "size", "n", "seeds", "lacking", "class_name"), "x")
    for kind, declared in FIGURES.items():
        assert declared.kind == kind
        assert isinstance(declared.place, Place)
        assert declared.caption.format(**words)
    assert {declared.place for declared in FIGURES.values()} == set(Place)


def test_a_figure_that_is_declared_is_drawn_and_shown(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adding one is one declaration: the page has it at its place, under its caption."""
    from monai_thyroid.compare import make_report

    def plot(folder: Path, name: str) -> str:
        for suffix in ("png", "svg"):
            (folder / f"{name}.{suffix}").write_bytes(b"drawn")
        return name

    new = Declared("mine", Place.CALIBRATION, "Mine, {size}.", lambda scene: [plot, plot])
    monkeypatch.setattr("monai_thyroid.compare.page.FIGURES", {"mine": new})
    monkeypatch.setattr("monai_thyroid.compare.pictures.FIGURES", {"mine": new})
    made: list[Any] = []
    monkeypatch.setattr("monai_thyroid.pages.html", lambda blocks: made.extend(blocks) or "")
    make_run("unet")
    make_report([tmp_path / "runs"], output=tmp_path / "report")
    found = [one for one in made if isinstance(one, Figure)]
    assert [one.link for one in found] == ["figures/mine.png", "figures/mine-2.png"]
    assert found[0].caption == "Mine, 24 cases (12 groups)."
    assert found[0].data == b"drawn"
    assert sorted(path.name for path in (tmp_path / "report" / "figures").iterdir()) == [
        "mine-2.png", "mine-2.svg", "mine.png", "mine.svg",
    ]  # fmt: skip
