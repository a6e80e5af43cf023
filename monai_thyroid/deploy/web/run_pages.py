"""The runs of some folders on the screen: a table, and of one run its curves, figures and cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monai_thyroid.deploy.web.serving import Desk, warnings_of
from monai_thyroid.deploy.web.telling import cell, plain, run_rows
from monai_thyroid.drawing import PREDICTION, REFERENCE, paint_outlines
from monai_thyroid.errors import UserError
from monai_thyroid.runfolder import (
    CaseRow,
    Evaluation,
    Listed,
    Order,
    finished_epochs,
    one_line,
    read_evaluation,
    read_run,
    run_files,
    sorted_runs,
)

__all__ = ["case_picture", "case_rows", "curves", "show_runs"]

_CASES = 6
"""Pictures of a gallery."""
_BROKEN = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises of a picture that cannot be read."""


def show_runs(st: Any, desk: Desk) -> None:
    """Put the table on the screen, and below it the run that is chosen."""
    try:
        runs = desk.listed()
    except UserError as error:
        st.error(plain(str(error)))
        return
    order: Order = st.segmented_control("Sort by", ["data", "dice", "date"], default="data", key="order") or "data"
    runs = sorted_runs(runs, order)
    st.dataframe(
        run_rows(runs),
        hide_index=True,
        column_config={
            name: st.column_config.NumberColumn(format=form)
            for name, form in {"test Dice": "%.4f", "best val Dice": "%.4f", "images/s": "%.1f"}.items()
        }
        | {"started": st.column_config.TextColumn(width=140)},
    )
    st.caption(f"{len(runs)} run{'s' if len(runs) > 1 else ''}. Dice and misses are of the test part.")
    names = {one_line(f"{one.network or '-'} on {one.dataset or '-'}, {one.told}: {one.path}"): one for one in runs}
    chosen = st.selectbox("Curves, figures and cases of", list(names), index=None, key="run")
    if chosen is not None:
        _show_run(st, names[chosen])


def _show_run(st: Any, listed: Listed) -> None:
    st.subheader(f"{plain(listed.network or '-')} on {plain(listed.dataset or '-')}: {plain(listed.told)}")
    st.caption(plain(listed.path))
    if listed.note:
        st.warning(plain(listed.note))
    if listed.status == "broken":
        return
    files = run_files(Path(listed.path))
    for text in warnings_of(read_run(files.facts)):
        st.warning(plain(text))
    found = curves(files.facts)
    if found["epoch"]:
        left, right = st.columns(2)
        left.line_chart(found, x="epoch", y=["train loss", "validation loss"], y_label="loss")
        right.line_chart(found, x="epoch", y="validation Dice", y_label="Dice, network's grid")
    for path in sorted((files.facts / "figures").glob("*.png")):
        try:
            with Image.open(path) as file:
                picture = file.convert("RGB")
        except _BROKEN as error:
            st.warning(plain(f"figures/{path.name}: cannot be shown ({error})"))
            continue
        st.image(picture, caption=plain(path.name))
    for path in sorted(files.facts.glob("evaluations/[!.]*/")):
        try:
            scored = read_evaluation(path)
        except UserError as error:
            st.warning(plain(f"evaluation {path.name}: {error}"))
            continue
        with st.expander(f"Cases of {plain(path.name)}"):
            st.caption("By Dice, the worst first. Orange: reference. Blue: prediction.")
            rows = case_rows(scored)
            pictures = [(row, case_picture(scored, str(row.case))) for row in rows[:_CASES]]
            columns = st.columns(3)
            for number, (row, picture) in enumerate(pictures):
                if picture is not None:
                    dice = f"{row['dice']:.3f}"
                    columns[number % 3].image(picture, caption=f"{plain(str(row.case))}: Dice {dice}", width="stretch")
            st.dataframe(
                [
                    {name: cell(row[name]) for name in ("case", "group", "class", "dice", "iou", "precision", "recall")}
                    for row in rows
                ],
                hide_index=True,
            )


def curves(folder: Path) -> dict[str, list[Any]]:
    """The history of a run, which may be training: epochs numbered over all stages, and what was measured in each."""
    rows = finished_epochs(folder / "history.csv")
    return {
        "epoch": list(range(1, len(rows) + 1)),
        "train loss": [row.train_loss for row in rows],
        "validation loss": [row.val_loss for row in rows],
        "validation Dice": [row.val_dice for row in rows],
    }


def case_rows(scored: Evaluation) -> list[CaseRow]:
    """Those that were scored, the worst first."""
    rows = [row for row in scored.rows if not row.error and row["dice"] is not None]
    return sorted(rows, key=lambda row: (row["dice"], str(row.case)))


def case_picture(scored: Evaluation, case: str) -> np.ndarray | None:
    """A case with the outlines of reference and prediction, of all classes together: uint8, (height, width, 3).

    None where the run did not keep its pictures, or they cannot be read.
    """
    try:
        with Image.open(scored.picture("images", case)) as file:
            picture = np.asarray(file.convert("RGB")).copy()
        size = picture.shape[1], picture.shape[0]
        masks = [scored.labels(kind, case) > 0 for kind in ("references", "predictions")]
    except _BROKEN:
        return None
    resized = [np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)) for mask in masks]
    paint_outlines(picture, resized, colours=[REFERENCE, PREDICTION], width=max(1, round(max(size) / 400)))
    return picture
