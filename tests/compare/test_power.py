"""What a comparison can find, held against scores that are drawn in full, and against a textbook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.power import TTestPower

from monai_thyroid import cli
from monai_thyroid.compare import statistics as rule
from monai_thyroid.compare.planning import plan_power, plan_problems
from monai_thyroid.compare.power import (
    Components,
    components_of,
    detectable,
    groups_needed,
    outlook,
    power,
    seeds_needed,
)
from monai_thyroid.compare.report import build
from monai_thyroid.errors import UserError

SOME = Components(0.03, 0.05, 0.01, "made up")


def drawn(components: Components, draws: int, networks: int, seeds: int, groups: int) -> np.ndarray:
    """Whole scores without any effect, (draws, networks, seeds, groups)."""
    rng = np.random.default_rng(1)
    scores = components.chance * rng.normal(size=(draws, networks, seeds, groups))
    scores += components.interaction * rng.normal(size=(draws, networks, 1, groups))
    scores += components.spread * rng.normal(size=(draws, networks, seeds, 1))
    return scores + 0.1 * rng.normal(size=(draws, 1, 1, groups))


@pytest.mark.parametrize(("networks", "seeds", "groups"), [(2, 3, 25), (4, 2, 12), (5, 3, 5 + 4)])
def test_the_power_is_that_of_whole_comparisons(networks: int, seeds: int, groups: int) -> None:
    scores = drawn(SOME, 2000, networks, seeds, groups)
    errors, _ = rule._errors_of_architectures(scores, np.zeros((networks, seeds), dtype=bool))
    first, second = rule._pairs_of(networks)
    means = scores.mean(axis=(2, 3))
    planted = means[:, first] - means[:, second] + 0.06 * (first == 0)
    claims = (rule._step_down(rule._t_p(planted, errors), networks) < 0.05) & (planted > 0)
    share = claims[:, first == 0].mean()
    assert 0.15 < share < 0.9
    found = power(SOME, networks=networks, seeds=seeds, groups=groups, difference=0.06, draws=4000)
    assert found == pytest.approx(share, abs=0.035)


def test_of_two_sets_of_weights_it_is_the_textbooks() -> None:
    # Wilcoxon's test is as good as a t test of 3 / pi as many groups.
    expected = TTestPower().power(0.03 / (2**0.5 * 0.05), nobs=40 * 3 / np.pi, alpha=0.05)
    alone = Components(0.05, 0.0, 0.0, "made up")
    assert power(alone, networks=2, seeds=1, groups=40, difference=0.03, draws=8000) == pytest.approx(
        expected, abs=0.02
    )


def test_what_is_found_and_what_is_needed_agree() -> None:
    of = {"networks": 3, "seeds": 3, "groups": 40}
    least = detectable(SOME, **of)
    assert least is not None
    assert power(SOME, **of, difference=least) == pytest.approx(0.8, abs=0.01)
    needed = groups_needed(SOME, networks=3, seeds=3, difference=least)
    assert needed is not None
    assert abs(needed - 40) <= 4
    assert seeds_needed(SOME, networks=3, groups=40, difference=least) == 3
    assert seeds_needed(SOME, networks=3, groups=40, difference=least / 10) is None
    assert groups_needed(SOME, networks=3, seeds=2, difference=0.005) is None, "the seeds alone hide it"
    many = outlook(SOME, networks=3, seeds=3, groups=40, differences=[0.05]).table
    assert [row.seeds for row in many] == [2, 3, 5, 10]
    found = [row.detectable or 1.0 for row in many]
    assert found == sorted(found, reverse=True)
    wild = detectable(SOME, networks=10, seeds=2, groups=60)
    assert wild is not None
    assert power(SOME, networks=10, seeds=2, groups=60, difference=wild) == pytest.approx(0.8, abs=0.01)
    assert outlook(SOME, networks=10, seeds=2, groups=60, most=wild / 2).detectable is None
    assert detectable(SOME, networks=5, seeds=3, groups=8) is None, "eight groups allow no claim among five"


def test_components_are_those_that_were_drawn() -> None:
    found = components_of(drawn(Components(0.03, 0.05, 0.02, ""), 1, 40, 5, 200)[0], source="made up")
    assert found.interaction == pytest.approx(0.03, rel=0.05)
    assert found.chance == pytest.approx(0.05, rel=0.05)
    assert found.spread == pytest.approx(0.02, rel=0.2)
    assert found.spread_interval is not None
    assert found.spread_interval[0] < 0.02 < found.spread_interval[1]
    one = components_of(drawn(Components(0.03, 0.04, 0.02, ""), 1, 40, 1, 200)[0], source="made up")
    assert (one.interaction, one.spread) == (pytest.approx(0.05, rel=0.05), 0)
    with pytest.raises(ValueError, match="at least two of each"):
        components_of(np.zeros((1, 2, 9)), source="")


def test_a_plan_is_made_of_finished_runs_and_draws_its_curves(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        for seed in (0, 1):
            make_run(network, seed, cases=range(16))
    text = plan_power(0.05, networks=3, seeds=3, groups=30, like=[tmp_path / "runs"], output=tmp_path / "plan")
    assert text.startswith("Planned, 30 groups under test and 3 seeds each: a difference of 0.05 Dice between two of 3")
    assert "these runs: segnet, unet on neck (nodule), seeds 0, 1" in text
    assert "can be found with a probability of 80 %" in text
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["power.png", "power.svg"]
    (section,) = build([tmp_path / "runs"], images=False).report.sections
    assert section.outlook is not None
    assert (section.outlook.networks, section.outlook.seeds, section.outlook.groups) == (2, 2, 8)
    assert section.outlook.components.source in text


def test_runs_of_one_seed_tell_no_spread(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("unet", cases=range(16))
    make_run("segnet", cases=range(16))
    with pytest.raises(UserError, match="two networks of two common seeds"):
        plan_power(0.05, networks=3, seeds=3, groups=30, like=[tmp_path / "runs"], output=tmp_path / "plan")
    assert not (tmp_path / "plan").exists()
    (section,) = build([tmp_path / "runs"], images=False).report.sections
    assert section.outlook is not None
    assert [row.seeds for row in section.outlook.table] == [1]


def test_all_that_is_wrong_with_a_plan_is_said_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "--networks",
        "unet",
        "--output",
        str(tmp_path / "new"),
        "--detect",
        "3",
        "--power",
        "1",
        "--like",
        "nix",
    ]
    assert cli.main(["compare", "x.yaml", *options]) == 1
    told = capsys.readouterr().err
    for part in ("belongs to --plan", "--detect 3", "--power 1", "two or more to --networks", "--like nix"):
        assert part in told
    assert list(tmp_path.iterdir()) == []
    assert plan_problems(None, power=0.8, like=["a"], networks=2, plan=True) == [
        "--power: belongs to --detect",
        "--like: belongs to --detect",
    ]
    assert plan_problems(0.03, power=None, like=[], networks=2, plan=True) == []
