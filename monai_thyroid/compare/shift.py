"""Every model on every dataset that it was scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from monai_thyroid.compare.contents import Mean, Shift, ShiftCell, ShiftRow
from monai_thyroid.compare.pretraining import contamination
from monai_thyroid.compare.reading import Run
from monai_thyroid.compare.sections import TRAINED_ON
from monai_thyroid.compare.statistics import bootstrap_mean
from monai_thyroid.compare.study import Analysis

__all__ = ["make_shift"]


def make_shift(runs: Sequence[Run], analyses: Sequence[Analysis]) -> list[Shift]:
    """Every model on every dataset and site that it was scored on, a table a class; none without such scores."""
    labels = {
        run.path: entry.network
        for analysis in analyses
        for entry in analysis.study.entries.values()
        for run in entry.runs
    }
    chosen = {
        run.path
        for analysis in analyses
        for network in analysis.chosen
        for run in analysis.entry(network).runs
    }  # fmt: skip
    tables: list[Shift] = []
    for classes in sorted({tuple(run.classes) for run in runs}):
        own = [run for run in runs if tuple(run.classes) == classes and run.path in labels]
        # Beside the parts of their own dataset: other datasets, or single sites.
        parts = ("train", "validation", "test", "all")
        foreign = any(key not in {f"{run.dataset}-{part}" for part in parts} for run in own for key in run.evaluations)
        for name in classes if foreign else ():
            columns = sorted({key for run in own for key, one in run.evaluations.items() if name in one.classes})
            rows: list[ShiftRow] = []
            for run in own:
                cells: list[ShiftCell | None] = []
                for column in columns:
                    one = run.evaluations.get(column)
                    of_class = [row for row in one.of_class(name) if not row["error"]] if one else []
                    if one is None or not of_class:
                        cells.append(None)
                        continue
                    # Another site of the run's dataset is another domain.
                    own_domain = one.dataset == run.dataset and (not one.record.get("sites") or one.of_data(run.record))
                    groups = [str(row["group"]) for row in of_class]
                    dice = bootstrap_mean(np.array([float(row["dice"]) for row in of_class]), groups=groups)
                    cells.append(
                        ShiftCell(
                            dice=Mean(*dice),
                            n_cases=len(of_class),
                            n_groups=len(set(groups)),
                            in_domain=own_domain,
                            holds_training_images=(own_domain and one.part in TRAINED_ON)
                            or contamination([run], dataset=one.dataset) is not None,
                            data_hash=one.record.get("data_hash"),
                        )
                    )
                rows.append(ShiftRow(run.dataset, labels[run.path], run.seed, run.fold, run.path in chosen, cells))
            unlike = [
                column
                for index, column in enumerate(columns)
                if len({(cell.n_cases, cell.data_hash) for row in rows if (cell := row.cells[index])}) > 1
            ]
            tables.append(Shift(name, columns, rows, unlike))
    return [replace(table, slug=f"{index}-" if len(tables) > 1 else "") for index, table in enumerate(tables, 1)]
