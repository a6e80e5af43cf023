"""The vote of a network's seeds, on masks whose vote is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_runs import Predict, reference
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.compare import build
from monai_thyroid.errors import UserError
from monai_thyroid.metrics import score_case

MakeRun = Callable[..., Path]


def without_third(seed: int) -> Predict:
    """Each seed misses another third of the object's rows, and of every fourth case all of them the same half."""

    def predict(mask: np.ndarray, case: int) -> np.ndarray:
        rows = np.flatnonzero(mask.any(axis=1))
        found = mask.copy()
        found[rows[: len(rows) // 2] if case % 4 == 0 else np.array_split(rows, 3)[seed]] = False
        if seed == 2 and case % 4 == 0:
            found[rows[-1]] = False
        return found

    return predict


def test_the_vote_is_scored_and_beats_its_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run("unet", seed, predict=without_third(seed), images=True)
    make_run("segnet", 0, images=True)
    built = build([tmp_path / "runs"], ensemble=True)
    (section,) = built.report.sections
    assert section.ensembles is not None
    (one,) = section.ensembles
    assert one.seeds == [0, 1, 2]
    assert list(section.ensemble_notes) == ["segnet: 1 usable seed, an ensemble takes two."]

    expected, agreed, singles = [], [], []
    for case in range(24):
        truth = reference(case, "necktest")
        masks = [without_third(seed)(truth, case) for seed in (0, 1, 2)]
        expected.append(score_case(truth, np.sum(masks, axis=0) >= 2)["dice"])
        agreed.append(np.mean([score_case(masks[a], masks[b])["dice"] for a, b in ((0, 1), (0, 2), (1, 2))]))
        singles.append(np.mean([score_case(truth, mask)["dice"] for mask in masks]))
    assert one.score.mean == pytest.approx(np.mean(expected))
    assert one.singles.mean == pytest.approx(np.mean(singles))
    assert one.gain.mean == pytest.approx(np.mean(expected) - np.mean(singles))
    assert 0 < one.gain.low < one.gain.mean < one.gain.high
    assert one.agreement.mean == pytest.approx(np.mean(agreed))
    order = sorted(range(24), key=lambda case: (agreed[case], case))
    assert [each.n_cases for each in one.coverage] == [24, 22, 20, 17]
    assert one.curve[5] == pytest.approx(np.mean([expected[case] for case in order[5:]]))
    assert one.coverage[2].best_possible > one.coverage[0].score.mean
    # The seeds agree most where they are wrong together: giving the least agreed away does not help, and that is said.
    assert one.coverage[3].score.mean < one.coverage[0].score.mean


def test_masks_that_were_not_scored_are_refused(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        folder = make_run("unet", seed, images=True, cases=range(16))
    Image.new("L", (32, 32)).save(folder / "evaluations" / "neck-test" / "predictions" / "case-03.png")
    arguments = ["report", str(tmp_path / "runs"), "--output", str(tmp_path / "report"), "--ensemble"]
    assert cli.main(arguments) == 1
    assert "unet are not those that were scored in 1 of 16 cases (case-03)" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


def test_without_any_stored_mask_there_is_no_ensemble(make_run: MakeRun, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_run("unet", seed, cases=range(16))
    with pytest.raises(UserError, match="--ensemble: unet: no stored prediction and reference of all 16 cases"):
        build([tmp_path / "runs"], ensemble=True)
    (section,) = build([tmp_path / "runs"]).report.sections
    assert section.ensembles is None
