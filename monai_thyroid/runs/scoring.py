"""Scoring a model on the original image grid, and the evaluation folder that keeps it."""

from __future__ import annotations

import logging
import math
import shutil
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ignite.engine import Engine, Events
from PIL import Image

from monai_thyroid.data import Datalist, read_mask
from monai_thyroid.files import atomic_path, write_csv, write_json
from monai_thyroid.metrics import (
    CALIBRATION_COLUMNS,
    SCORE_COLUMNS,
    ScoringPolicy,
    calibration_case,
    expected_calibration_error,
    score_case,
    summarise,
)
from monai_thyroid.runs.figures import draw_cases
from monai_thyroid.runs.folder import machine, versions

__all__ = ["CASE_COLUMNS", "CaseScores"]

logger = logging.getLogger(__name__)

_KEY_COLUMNS = ("dataset", "site", "part", "case", "group", "class")
CASE_COLUMNS = (*_KEY_COLUMNS, *SCORE_COLUMNS, "error")
"""Columns of cases.csv, the only source of every table and test in a report."""


class Scored(Protocol):
    """A run whose model is scored: one in training, or one read from its folder."""

    path: Path
    classes: list[str]
    threshold: float

    @property
    def checkpoint_sha256(self) -> str | None:
        """SHA-256 of the weights that are scored."""


class CaseScores:
    """Score each case on its original grid and write ``evaluations/<dataset>-<part>/`` when the evaluator is through.

    Attach it to an evaluator whose postprocessing has mapped ``pred`` back to the original grid as probabilities,
    (classes, width, height), in [0, 1]. The reference is read from the item's ``label`` path, untouched by any
    resizing. The folder is written beside its place and moved there when complete.

    Args:
        run: the run whose model is scored.
        data: the dataset.
        part: which part of it the evaluator goes through.
        policy: what empty masks and misses mean for each metric.

    Attributes:
        summary: figures of the whole part, after the evaluator has run; see `summarise`.
        keep: whether to write anything; scoring a model before training does not.
    """

    def __init__(self, *, run: Scored, data: Datalist, part: str, policy: ScoringPolicy | None = None) -> None:
        self.run = run
        self.data = data
        self.part = part
        self.policy = policy or ScoringPolicy()
        self.keep = True
        self.summary: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self._calibration: list[dict[str, Any]] = []

    @property
    def folder(self) -> Path:
        """Where the evaluation is written."""
        return self.run.path / "evaluations" / f"{self.data.name}-{self.part}"

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Forget earlier cases."""
        self.rows, self._calibration = [], []
        self._started = time.perf_counter()
        self._building = self.folder.with_name(f".{self.folder.name}")
        if self.keep:
            shutil.rmtree(self._building, ignore_errors=True)
            (self._building / "predictions").mkdir(parents=True)

    def iteration_completed(self, engine: Engine) -> None:
        """Score the cases of a batch."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            probability = np.swapaxes(np.asarray(output["pred"].cpu(), dtype=np.float32), 1, 2)
            self._score(item, probability)

    def _score(self, item: dict[str, Any], probability: np.ndarray) -> None:
        reference = read_mask(item["label"])[None]
        if probability.shape != reference.shape:
            raise ValueError(
                f"case {item['case']}: the prediction is {probability.shape} but its reference {reference.shape} "
                "(classes, height, width); the postprocessing must map predictions back to the original grid"
            )
        prediction = probability > self.run.threshold
        spacing = tuple(float(value) for value in item["image"].meta["spacing_yx"])
        key = {
            "dataset": self.data.name,
            "part": self.part if self.part != "all" else item["part"],
            **{name: item[name] for name in ("site", "case", "group")},
        }
        for index, name in enumerate(self.run.classes):
            scores = score_case(
                reference[index],
                prediction[index],
                spacing=None if math.isnan(spacing[0]) else (spacing[0], spacing[1]),
                policy=self.policy,
            )
            self.rows.append({**key, "class": name, **scores, "error": ""})
            self._calibration.append(
                {**key, "class": name, **calibration_case(reference[index], np.clip(probability[index], 0, 1))}
            )
        if self.keep:
            path = self._building / "predictions" / f"{item['case']}.png"
            Image.fromarray(prediction[0].astype(np.uint8) * 255).save(path)

    def completed(self, engine: Engine) -> None:
        """Sum up and, unless told otherwise, write the folder."""
        by_class = {name: summarise([row for row in self.rows if row["class"] == name]) for name in self.run.classes}
        self.summary = by_class[self.run.classes[0]]
        if not self.keep:
            return
        write_csv(self._building / "cases.csv", CASE_COLUMNS, self.rows)
        write_csv(self._building / "calibration.csv", (*_KEY_COLUMNS, *CALIBRATION_COLUMNS), self._calibration)
        seconds = time.perf_counter() - self._started
        write_json(
            self._building / "evaluation.json",
            {
                "dataset": self.data.name,
                "dataset_dir": str(self.data.root) if self.data.root else None,
                "part": self.part,
                "grouping": self.data.grouping,
                "data_hash": self.data.inspect().data_hash,
                "warnings": self.data.inspect().warnings,
                "checkpoint_sha256": self.run.checkpoint_sha256,
                "threshold": self.run.threshold,
                "classes": {
                    name: {
                        **{key: _finite(value) for key, value in summary.items()},
                        "expected_calibration_error": _finite(
                            expected_calibration_error([row for row in self._calibration if row["class"] == name])
                        ),
                    }
                    for name, summary in by_class.items()
                },
                "policy": self.policy.as_dict(),
                "versions": versions(),
                "machine": machine(),
                "seconds": round(seconds, 3),
                "date": time.strftime("%Y-%m-%d"),
            },
        )
        before = self.folder.with_name(f".before-{self.folder.name}")
        shutil.rmtree(before, ignore_errors=True)
        if self.folder.is_dir():
            self.folder.rename(before)
        self._building.rename(self.folder)
        shutil.rmtree(before, ignore_errors=True)
        self._draw()
        logger.info("Scores of %d cases: %s", len({row["case"] for row in self.rows}), self.folder)

    def sentence(self) -> str:
        """The result in one line."""
        return (
            f"{self.part} ({self.data.name}, {self.summary['n_cases']} images on their original grid): "
            f"Dice {self.summary['dice_mean']:.4f}, IoU {self.summary['iou_foreground_mean']:.4f}, "
            f"misses {self.summary['n_misses']}, false alarms {self.summary['n_false_alarms']}"
        )

    def tell(self) -> None:
        """Log the result."""
        logger.info(self.sentence())

    def _draw(self) -> None:
        first = [row for row in self.rows if row["class"] == self.run.classes[0]]
        ranked = sorted(first, key=lambda row: row["dice"])
        middle = len(ranked) // 2
        items = {item["case"]: item for item in self.data.items}
        chosen = {
            "worst": ranked[:3],
            "median": ranked[max(0, middle - 1) : middle + 2],
            "best": ranked[-3:],
        }
        figures = self.run.path / "figures"
        figures.mkdir(exist_ok=True)
        with atomic_path(figures / f"{self.folder.name}.png") as temporary:
            draw_cases(
                {
                    title: [
                        (items[row["case"]], self.folder / "predictions" / f"{row['case']}.png", row["dice"])
                        for row in rows
                    ]
                    for title, rows in chosen.items()
                },
                temporary,
            )


def _finite(value: Any) -> Any:
    """None for NaN and infinities, which JSON does not know."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
