"""What was scored from masks, in a report beside runs of ours: recognised by its references, never by chance."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from monai_thyroid.compare.figures import curves
from monai_thyroid.compare.report import build
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import score_masks
from monai_thyroid.files import write_json

MakeRun = Callable[..., Path]


def masks_of(run: Path, folder: Path, *, cut: int = 0) -> Path:
    """Predictions: the references of a run, less their first foreground pixels."""
    folder.mkdir()
    for path in sorted((run / "evaluations" / "neck-test" / "references").glob("*.png")):
        pixels = np.asarray(Image.open(path)).copy()
        pixels.flat[np.flatnonzero(pixels)[:cut]] = 0
        Image.fromarray(pixels).save(folder / path.name)
    return folder


@pytest.fixture
def both(make_run: MakeRun, tmp_path: Path) -> tuple[list[Path], Path]:
    """Two runs of ours and a model that is better than both."""
    runs = [
        make_run(name, quality=quality, images=True, parts=("validation", "test"))
        for name, quality in (("unet", 0.6), ("segnet", 0.5))
    ]
    score_masks(
        predictions=masks_of(runs[0], tmp_path / "found", cut=5),
        references=runs[0],
        name="nnunet",
        output=tmp_path / "nnunet",
        pretrained_on=["Elsewhere"],
    )
    return runs, tmp_path / "nnunet"


def test_it_is_ranked_on_the_same_cases(both: tuple[list[Path], Path]) -> None:
    runs, masks = both
    report = build([*runs, masks]).report
    (section,) = report.sections
    assert [row.network for row in section.networks] == ["nnunet", "unet", "segnet"]
    assert section.n_groups == 12
    assert section.grouping == "known"  # the run's own groups
    told = "\n".join(report.warnings)
    assert "scored from masks that something else made" in told
    assert "nnunet seed 0 (pretrained on: Elsewhere)" in told
    # Its lack of a validation part does not make the choice between the others optimistic.
    choice = section.recommendation
    assert choice is not None
    assert (choice.selected_on, choice.network) == ("validation", "unet")
    assert "Not considered, as scored from masks on the part “test” alone: nnunet." in choice.limits
    assert "of what was scored from masks (nnunet) the lowest seed" in section.chosen_by
    assert "best validation Dice" in section.chosen_by


def test_its_lack_of_a_history_is_drawn_as_nothing(tmp_path: Path) -> None:
    epochs = [{"stage": 1, "train_loss": 1.0, "val_loss": 0.5, "val_dice": 0.4}] * 2
    assert curves(tmp_path, "curves", histories={"unet": [epochs], "nnunet": [[]]}) == "curves"


def test_other_references_are_never_compared_silently(both: tuple[list[Path], Path], tmp_path: Path) -> None:
    runs, _ = both
    labels = tmp_path / "labels"
    shutil.copytree(runs[0] / "evaluations" / "neck-test" / "references", labels)
    first = sorted(labels.iterdir())[0]
    pixels = np.asarray(Image.open(first)).copy()
    pixels[0, 0], pixels[tuple(np.argwhere(pixels)[-1])] = 255, 0  # as many pixels, at another place
    Image.fromarray(pixels).save(first)
    groups = tmp_path / "groups.csv"
    groups.write_text("file,patient\n" + "".join(f"case-{case:02d}.png,p{case // 2}\n" for case in range(24)))
    options: dict[str, Any] = {"classes": ["nodule"], "dataset": "neck", "groups": groups}
    score_masks(predictions=tmp_path / "found", references=labels, name="other", output=tmp_path / "other", **options)
    with pytest.raises(UserError) as caught:
        build([*runs, tmp_path / "other"])
    assert "were scored against different references or cases (references_hash" in str(caught.value)
    assert f"--references {runs[1] / 'evaluations' / 'neck-test'}" in str(caught.value)
    assert any("FORCED" in text for text in build([*runs, tmp_path / "other"], force=True).report.warnings)


def test_a_run_that_kept_no_references_cannot_vouch_for_them(both: tuple[list[Path], Path]) -> None:
    runs, masks = both
    for run in runs:
        shutil.rmtree(run / "evaluations" / "neck-test" / "references")
    with pytest.raises(UserError, match=r"is not known, as .* has neither references_hash nor its references"):
        build([*runs, masks])


def test_lack_of_groups_is_told(both: tuple[list[Path], Path], tmp_path: Path) -> None:
    runs, _ = both
    labels = runs[0] / "evaluations" / "neck-test" / "references"
    shutil.copytree(labels, tmp_path / "labels")
    options: dict[str, Any] = {"references": tmp_path / "labels", "classes": ["nodule"], "dataset": "neck"}
    score_masks(predictions=tmp_path / "found", name="other", output=tmp_path / "other", **options)
    with pytest.raises(UserError, match="different references or groups in 24 of 24 cases"):
        build([*runs, tmp_path / "other"])


def test_masks_alone_make_a_report(both: tuple[list[Path], Path], tmp_path: Path) -> None:
    runs, masks = both
    other = tmp_path / "worse"
    score_masks(
        predictions=masks_of(runs[0], tmp_path / "worse-masks", cut=30), references=runs[0], name="medsam", output=other
    )
    (section,) = build([masks, other]).report.sections
    assert [row.network for row in section.networks] == ["nnunet", "medsam"]
    assert section.chosen_by == "of what was scored from masks (medsam, nnunet) the lowest seed"


def test_millimetres_are_not_compared_with_pixels(both: tuple[list[Path], Path]) -> None:
    runs, masks = both
    path = masks / "evaluations" / "neck-test" / "cases.csv"
    lines = path.read_text().splitlines()
    spacing = [lines[0].split(",").index(name) for name in ("spacing_y", "spacing_x")]
    known = []
    for line in lines[1:]:
        fields = line.split(",")
        for index in spacing:
            fields[index] = "1.0"
        known.append(",".join(fields))
    path.write_text("\n".join([lines[0], *known]) + "\n")
    build([*runs, masks])
    with pytest.raises(UserError, match="some in mm and some in pixels"):
        build([*runs, masks], metric="hd95")


def test_a_run_with_weights_still_needs_its_history(make_run: MakeRun) -> None:
    run = make_run("unet")
    (run / "history.csv").unlink()
    with pytest.raises(UserError, match=r"history\.csv is missing"):
        build([run])
    write_json(run / "run.json", {**json.loads((run / "run.json").read_text()), "scored_from": "dreams"})
    with pytest.raises(UserError, match="scored_from must be one of masks"):
        build([run])
