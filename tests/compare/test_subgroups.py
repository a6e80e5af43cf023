"""Scores by what is known of cases and groups, on hand-made runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_runs import shrunk
from scipy import stats

from monai_thyroid import cli
from monai_thyroid.compare import build
from monai_thyroid.compare.subgroups import _holm, _levels, _thirds, read_metadata
from monai_thyroid.errors import UserError
from monai_thyroid.files import write_csv

MakeRun = Callable[..., Path]


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    write_csv(path, list(rows[0]), rows)
    return path


def weak_in_b(mask: np.ndarray, case: int) -> np.ndarray:
    """As good as the other up to case 23, and poor beyond."""
    return shrunk(0.9 if case < 24 else 0.4, "unet", 0)(mask, case)


def test_levels_are_told_by_hand_and_a_planted_interaction_is_found(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("unet", predict=weak_in_b, cases=range(48))
    make_run("segnet", predict=shrunk(0.85, "segnet", 0), cases=range(48))
    metadata = table(
        tmp_path / "metadata.csv",
        [
            {
                "group": f"p{number}",
                "device": "A" if number < 12 else "B",
                "age": 20 + number if number else "",
                "sex": "f",
                "note": f"text {number}",
            }
            for number in range(30)  # more than there are
        ],
    )
    built = build([tmp_path / "runs"], images=False, metadata=metadata)
    (section,), (analysis,) = built.report.sections, built.analyses
    size, device, age, sex, note = section.subgroups
    assert [one.name for one in section.subgroups] == ["lesion size", "device", "age", "sex", "note"]
    assert not sex.levels
    assert "24 different words" in note.how
    assert [level.label.split()[0] for level in size.levels] == ["small", "medium", "large"]
    assert sum(level.n_cases for level in size.levels) == 48

    assert [(level.label, level.n_cases, level.n_groups, level.too_few) for level in device.levels] == [
        ("A", 24, 12, False),
        ("B", 24, 12, False),
    ]
    values = {
        network: dict(
            zip(analysis.study.cases, analysis.entry(network).values("dice", analysis.study.cases), strict=True)
        )
        for network in ("unet", "segnet")
    }
    halves = [[f"case-{case:02d}" for case in part] for part in (range(24), range(24, 48))]
    for level, cases in zip(device.levels, halves, strict=True):
        for network, of_case in values.items():
            assert level.means[network].mean == pytest.approx(np.mean([of_case[case] for case in cases]))
            assert level.means[network].low < level.means[network].mean < level.means[network].high
    above = [
        np.array([values["unet"][case] - values["segnet"][case] for case in cases]).reshape(-1, 2).mean(axis=1) / 2
        for cases in halves
    ]
    raw = stats.alexandergovern(*above).pvalue
    found = {test.network: test for test in device.tests}
    assert raw <= found["unet"].interaction < 0.001
    assert found["unet"].differs < 0.001 < found["segnet"].differs

    assert [level.label for level in age.levels] == ["up to 28", "28 to 36", "over 36"]
    assert age.n_without == 2
    assert all(level.too_few for level in age.levels)
    assert all(math.isnan(test.interaction) for test in age.tests)


def test_a_table_that_does_not_fit_is_refused_with_all_that_is_wrong(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("unet")
    make_run("segnet")
    given = table(tmp_path / "metadata.csv", [{"case": f"case-{case:02d}", "device": "A"} for case in range(4, 40)])
    output = tmp_path / "report"
    arguments = ["report", str(tmp_path / "runs"), "--output", str(output), "--metadata", str(given)]
    assert cli.main(arguments) == 1
    assert (
        "has no row for 4 of 24 cases of dataset neck (case-00, case-01, case-02, case-03)" in capsys.readouterr().err
    )
    assert not output.exists()
    given.write_text("case,device\na,1\nb,2,3\n")
    with pytest.raises(UserError, match="line 3 has 3 values for 2 columns"):
        read_metadata(given)
    given.write_text("case,device\na,1\n,2\na,2\n")
    with pytest.raises(UserError) as caught:
        read_metadata(given)
    assert [problem.split(": ", 1)[1] for problem in caught.value.problems] == [
        "line 3 names no case",
        "line 4 is about case a, as line 2 is",
    ]
    given.write_text("patient\na\n")
    with pytest.raises(UserError, match="neither a column case nor a column group"):
        read_metadata(given)
    given.write_text("case;device\na;1\n")
    with pytest.raises(UserError, match="it has case;device; commas part its values"):
        read_metadata(given)
    given.write_text("case\na\n")
    with pytest.raises(UserError, match="no further column"):
        read_metadata(given)
    with pytest.raises(UserError, match="cannot be read"):
        read_metadata(tmp_path / "none.csv")


def test_few_numbers_are_words_in_their_order() -> None:
    found = _levels("grade", ["10", "2", None, "2"])
    assert (found.order, found.labels) == (["2", "10"], ["10", "2", None, "2"])


def test_holm_by_hand() -> None:
    assert _holm([0.04, 0.01, math.nan, 0.03]) == pytest.approx([0.06, 0.03, math.nan, 0.06], nan_ok=True)


def test_years_and_dates_are_cut_into_thirds_too() -> None:
    """Rounded to three digits the limits of both were one number, and beyond it lay all dates."""
    for start in (2016, 20230101):
        variable = _levels("when", [str(start + place) for place in range(9)])
        assert [sum(label == span for label in variable.labels) for span in variable.order] == [3, 3, 3]
        assert variable.order[0] == f"up to {start + 2}"


def test_a_limit_is_told_in_few_digits_though_a_case_lies_on_it() -> None:
    """A third that ends at 8.702257 was told in six digits, because 8.70 would have left that case outside."""
    sizes = [1.0, 2.0, 8.702257, 9.1, 12.0, 20.0, 30.0]
    labels, order = _thirds(sizes, unit=" %")
    assert order == ["up to 8.71 %", "8.71 to 12 %", "over 12 %"]
    assert labels == [order[0]] * 3 + [order[1]] * 2 + [order[2]] * 2
