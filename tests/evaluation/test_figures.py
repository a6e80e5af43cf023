"""Figures show what they are given, also where little is given, and leave matplotlib as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from monai_thyroid.drawing import draw_outline
from monai_thyroid.evaluation.figures import draw_cases
from monai_thyroid.training.figures import draw_curves


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved."""
    found: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        found.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def row(epoch: int, **values: float | None) -> dict[str, float | None]:
    return {
        "stage": 1,
        "epoch": epoch,
        "train_loss": 1 / epoch,
        "val_loss": None,
        "val_dice": None,
        "val_iou": None,
        **values,
    }


def curves(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        for axes in figure.axes
        for line in axes.get_lines()
    }


def test_curves_show_every_epoch_that_has_a_value(tmp_path: Path, drawn: list[Figure]) -> None:
    history = [row(1), row(2, val_loss=0.7, val_dice=0.4, val_iou=0.3), row(3), row(4, val_loss=0.5, val_dice=0.6)]
    path = draw_curves(history, tmp_path / "figures")
    assert path == tmp_path / "figures" / "curves.png"
    assert Image.open(path).size[0] > 1000
    assert curves(drawn[0]) == {
        "training": [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 0.25)],
        "validation": [(2, 0.7), (4, 0.5)],
        "Dice": [(2, 0.4), (4, 0.6)],
        "IoU": [(2, 0.3)],
    }
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["curves.png"]


def test_no_validation_draws_no_point(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves([row(1), row(2)], tmp_path)
    found = curves(drawn[0])
    assert found.pop("training") == [(1, 1.0), (2, 0.5)]
    assert not any(found.values())


def test_curves_need_no_epoch(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_curves([], tmp_path)
    assert not any(curves(drawn[0]).values())


def test_curves_replace_the_old_ones(tmp_path: Path) -> None:
    (tmp_path / "curves.png").write_text("old")
    draw_curves([row(1)], tmp_path)
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"


def contour(mask: np.ndarray) -> list[np.ndarray]:
    axes = Figure().subplots()
    axes.imshow(mask)
    draw_outline(axes, mask, colour="red", width=1.0)
    return [path.vertices for collection in axes.collections for path in collection.get_paths() if len(path.vertices)]


@pytest.mark.parametrize(
    "where", [(slice(3, 9), slice(4, 20)), (slice(0, 12), slice(0, 30)), (slice(11, 12), slice(29, 30))]
)
def test_an_outline_runs_between_the_pixels(where: tuple[slice, slice]) -> None:
    mask = np.zeros((12, 30), bool)
    mask[where] = True
    (vertices,) = contour(mask)
    y, x = where
    assert vertices[:, 0].min() == pytest.approx(x.start - 0.5)
    assert vertices[:, 0].max() == pytest.approx(x.stop - 0.5)
    assert vertices[:, 1].min() == pytest.approx(y.start - 0.5)
    assert vertices[:, 1].max() == pytest.approx(y.stop - 0.5)


def test_an_outline_keeps_the_image_in_view() -> None:
    axes = Figure().subplots()
    draw_outline(axes, np.ones((12, 30), bool), colour="red", width=1.0)
    assert axes.get_xlim() == (-0.5, 29.5)
    assert axes.get_ylim() == (11.5, -0.5)


def test_an_empty_mask_has_no_outline() -> None:
    assert contour(np.zeros((12, 30), bool)) == []


def case(folder: Path, name: str, *, colour: bool = False) -> tuple[dict[str, str], Path, float]:
    image = np.random.RandomState(0).randint(0, 256, (24, 32, 3) if colour else (24, 32)).astype(np.uint8)
    mask = np.zeros((24, 32), np.uint8)
    mask[4:12, 6:20] = 255
    Image.fromarray(image).save(folder / f"{name}.png")
    Image.fromarray(mask).save(folder / f"{name}_mask.png")
    Image.fromarray(np.zeros_like(mask)).save(folder / f"{name}_pred.png")
    item = {"image": str(folder / f"{name}.png"), "label": str(folder / f"{name}_mask.png"), "case": name}
    return item, folder / f"{name}_pred.png", 0.0


def test_cases_are_drawn_with_their_names(tmp_path: Path, drawn: list[Figure]) -> None:
    cases = [case(tmp_path, "grey"), case(tmp_path, "colour", colour=True), case(tmp_path, r"a$\frac$b_%")]
    draw_cases({"worst": cases, "best": cases[:1]}, tmp_path / "out.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert sorted(title for title in titles if title) == sorted(
        ["worst: grey\nDice 0.00", "colour\nDice 0.00", "a$\\frac$b_%\nDice 0.00", "best: grey\nDice 0.00"]
    )
    shown = [image.get_array() for axes in drawn[0].axes for image in axes.get_images()]
    assert [np.asarray(image).shape for image in shown].count((24, 32)) == 3
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"


def test_columns_may_be_empty(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_cases({"worst": [case(tmp_path, "one")], "best": []}, tmp_path / "out.png")
    assert len([axes for axes in drawn[0].axes if axes.get_images()]) == 1
