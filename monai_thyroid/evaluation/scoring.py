"""Scoring a model on the original image grid, and the evaluation folder that keeps it."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events

from monai_thyroid.data import Datalist
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.environment import machine, versions
from monai_thyroid.evaluation.figures import draw_agreement, draw_cases
from monai_thyroid.evaluation.outcome import by_class, finite, over_classes, record_of_classes, save_picture, sentence
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.files import atomic_path
from monai_thyroid.images import read_masks, read_raster, save_label
from monai_thyroid.metrics import (
    ScoringPolicy,
    add_confusion,
    agreement,
    calibration_case,
    no_confusion,
    score_case,
)
from monai_thyroid.runfolder import (
    EvaluationFolder,
    EvaluationRecord,
    evaluation_path,
    labels_digest,
    references_hash,
)
from monai_thyroid.transforms import class_numbers

__all__ = ["CaseScores", "whole_of"]

logger = logging.getLogger(__name__)


class Measure(Protocol):
    """A clinical measure of one class; see `monai_thyroid.metrics.HeadCircumference`."""

    name: str
    unit: str
    reference: str
    class_index: int

    def __call__(self, mask: np.ndarray, *, spacing: tuple[float, float]) -> float:
        """The measure of a mask, NaN where it cannot be taken."""


class Scored(Protocol):
    """A run whose model is scored: one in training, or one read from its folder."""

    path: Path
    classes: list[str]
    activation: str
    configured_threshold: float
    postprocessing: Postprocessing
    whole: str | None

    @property
    def threshold(self) -> float:
        """The chosen threshold, else the configured one."""

    @property
    def checkpoint_sha256(self) -> str | None:
        """SHA-256 of the weights that are scored."""

    @property
    def own_data(self) -> tuple[str | None, str | None]:
        """Name and hash of the data of the run; None where not known."""


class CaseScores:
    """Score each case on its original grid and write ``evaluations/<dataset>-<part>/`` when the evaluator is through.

    Where a dataset was restricted to some sites, ``-<site>`` follows, and where the name is that of other data, the
    first digits of their hash (see `evaluation_path`). Attach it to an evaluator whose postprocessing
    has mapped ``pred`` back to the original grid as probabilities, (channels, width, height), in [0, 1], which become
    classes as `class_numbers` says. The reference is read from the item's ``label`` path, untouched by any
    resizing. The folder is written beside its place and moved there when complete.

    Args:
        run: the run whose model is scored.
        data: the dataset.
        part: which part of it the evaluator goes through.
        policy: what empty masks and misses mean for each metric.
        measures: clinical measures to take besides, from images whose spacing is known.

    Attributes:
        by_class: figures of the whole part by class, after the evaluator has run, of what the run delivers, so with
            its postprocessing; see `summarise`. Where the run names the whole of its classes, that is scored besides.
        without: the same without postprocessing; None where there is none.
        summary: those of the only class; of several, the means over classes of Dice and IoU and the sums of misses and
            false alarms, their whole not counted.
        confusion: of the lesions of each class how many were found as which, see `add_confusion`; None without a
            whole.
        input_shape: (channels, width, height) of what the network was given; None before.
        keep: whether to write anything; scoring a model before training does not.
    """

    def __init__(
        self,
        *,
        run: Scored,
        data: Datalist,
        part: str,
        policy: ScoringPolicy | None = None,
        measures: Sequence[Measure] = (),
    ) -> None:
        self.run = run
        self.data = data
        self.part = part
        self.policy = policy or ScoringPolicy()
        self.keep = True
        self.measures = list(measures)
        self.by_class: dict[str, dict[str, Any]] = {}
        self.without: dict[str, dict[str, Any]] | None = None
        self.summary: dict[str, Any] = {}
        self.confusion: dict[str, dict[str, int]] | None = None
        self.input_shape: tuple[int, ...] | None = None
        self.rows: list[dict[str, Any]] = []
        self._rows_without: list[dict[str, Any]] = []
        self._calibration: list[dict[str, Any]] = []
        self._measured: list[dict[str, Any]] = []
        self._references: dict[str, str] = {}
        self._writer: EvaluationFolder | None = None

    @property
    def folder(self) -> Path:
        """Where the evaluation is written."""
        return evaluation_path(
            self.run.path,
            dataset=self.data.name,
            part=self.part,
            sites=self._sites(),
            data_hash=self.data.inspect().data_hash,
            own=self.run.own_data,
        )

    def _sites(self) -> list[str]:
        """The sites in the part, where they were chosen."""
        return sorted({item["site"] for item in self.data.part(self.part)}) if self.data.sites else []

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self.started)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.iteration_completed)
        engine.add_event_handler(Events.COMPLETED, self.completed)

    def started(self, engine: Engine) -> None:
        """Forget earlier cases."""
        self.begin()

    def begin(self) -> None:
        """Forget earlier cases."""
        self.rows, self._calibration, self._measured, self._references = [], [], [], {}
        self._agreements: list[dict[str, Any]] = []
        self._rows_without = []
        self.confusion = None if self.run.whole is None else no_confusion(self.run.classes)
        self._started = time.perf_counter()
        self.abandon()  # an evaluation that failed
        self._writer = EvaluationFolder(self.folder) if self.keep else None

    def abandon(self) -> None:
        """Leave nothing of what was begun and not finished."""
        if self._writer:
            self._writer.abandon()
        self._writer = None

    def iteration_completed(self, engine: Engine) -> None:
        """Score the cases of a batch."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            if "image" in output:
                self.input_shape = tuple(output["image"].shape)
            probability = np.swapaxes(np.asarray(output["pred"].cpu(), dtype=np.float32), 1, 2)
            self.add(item, probability)

    def add(
        self, item: Mapping[str, Any], probability: np.ndarray, *, agreement: Mapping[str, float] | None = None
    ) -> None:
        """Score a case.

        Args:
            item: of the dataset, its image loaded.
            probability: (channels, height, width), on the original grid.
            agreement: of several models that gave it, by class.

        Raises:
            ValueError: the probabilities are not of the reference's grid.
        """
        classes = len(self.run.classes)
        reference = read_masks(item["label"], classes=classes)
        expected = (classes + (self.run.activation == "softmax"), *reference.shape[1:])
        if probability.shape != expected:
            raise ValueError(
                f"case {item['case']}: the prediction is {probability.shape} but its reference asks for {expected} "
                "(channels, height, width); the postprocessing must map predictions back to the original grid"
            )
        labels = self.run.postprocessing(self._numbers(probability, self.run.threshold))
        without = self._numbers(probability, self.run.configured_threshold) if self.run.postprocessing else None
        probability = probability[-classes:]
        y, x = (float(value) for value in item["image"].meta["spacing_yx"])
        spacing = None if math.isnan(y) else (y, x)
        key = {
            "dataset": self.data.name,
            "part": self.part if self.part != "all" else item["part"],
            **{name: item[name] for name in ("site", "case", "group")},
        }
        for index, name in enumerate(self.run.classes):
            scores = score_case(reference[index], labels == index + 1, spacing=spacing, policy=self.policy)
            self.rows.append({**key, "class": name, **scores, "error": ""})
            if without is not None:
                scores = score_case(reference[index], without == index + 1, spacing=spacing, policy=self.policy)
                self._rows_without.append({"class": name, **scores})
            self._calibration.append(
                {**key, "class": name, **calibration_case(reference[index], np.clip(probability[index], 0, 1))}
            )
        if self.run.whole is not None:
            self._score_whole(key, reference, probability, labels, without, spacing)
        for name, value in (agreement or {}).items():
            self._agreements.append({**key, "class": name, "agreement": value})
        for measure in self.measures:
            index = measure.class_index
            row = _measure(measure, item, reference[index], labels == index + 1, spacing=spacing)
            self._measured.append({**key, "class": self.run.classes[index], **row})
        numbers = (reference * np.arange(1, classes + 1, dtype=np.uint8)[:, None, None]).max(axis=0)
        self._references[item["case"]] = labels_digest(numbers)
        if self._writer:
            for folder, content in (("predictions", labels), ("references", numbers)):
                save_label(content, self._writer.picture(folder, item["case"]), classes=classes)
            save_picture(
                read_raster(item["image"].meta["filename_or_obj"]), self._writer.picture("images", item["case"])
            )

    def _score_whole(
        self,
        key: dict[str, Any],
        reference: np.ndarray,
        probability: np.ndarray,
        labels: np.ndarray,
        without: np.ndarray | None,
        spacing: tuple[float, float] | None,
    ) -> None:
        """All classes as one, and the classes of its components."""
        union, name = reference.any(axis=0), self.run.whole
        scores = score_case(union, labels > 0, spacing=spacing, policy=self.policy)
        self.rows.append({**key, "class": name, **scores, "error": ""})
        if without is not None:
            scores = score_case(union, without > 0, spacing=spacing, policy=self.policy)
            self._rows_without.append({"class": name, **scores})
        # Softmax: one of the classes. Sigmoid: what the likeliest is compared with the threshold by.
        of_any = probability.sum(axis=0) if self.run.activation == "softmax" else probability.max(axis=0)
        self._calibration.append({**key, "class": name, **calibration_case(union, np.clip(of_any, 0, 1))})
        assert self.confusion is not None
        numbers = (reference * np.arange(1, len(reference) + 1, dtype=np.uint8)[:, None, None]).max(axis=0)
        add_confusion(self.confusion, numbers, labels, classes=self.run.classes)

    def _numbers(self, probability: np.ndarray, threshold: float) -> np.ndarray:
        tensor = torch.from_numpy(probability)
        numbers: np.ndarray = class_numbers(tensor, threshold=threshold, activation=self.run.activation).numpy()
        return numbers

    def completed(self, engine: Engine) -> None:
        """Sum up and, unless told otherwise, write the folder."""
        self.finish()

    def finish(self) -> None:
        """Sum up and, unless told otherwise, write the folder."""
        names = [*self.run.classes, *([] if self.run.whole is None else [self.run.whole])]
        self.by_class = by_class(names, self.rows)
        self.summary = self._over_classes(self.by_class)
        self.without = by_class(names, self._rows_without) if self._rows_without else None
        if self._writer is None:
            return
        agreements = {
            measure.name: agreement(row for row in self._measured if row["measure"] == measure.name)
            for measure in self.measures
        }
        record = EvaluationRecord(
            dataset=self.data.name,
            dataset_dir=str(self.data.root) if self.data.root else None,
            part=self.part,
            sites=self._sites(),
            split=self.data.how,
            grouping=self.data.grouping,
            data_hash=self.data.inspect().data_hash,
            warnings=self.data.inspect().warnings,
            checkpoint_sha256=self.run.checkpoint_sha256,
            threshold=self.run.threshold,
            postprocessing=self.run.postprocessing.as_dict() if self.run.postprocessing else None,
            classes_without_postprocessing=None if self.without is None else record_of_classes(self.without, None),
            references_hash=references_hash(self._references),
            classes=record_of_classes(self.by_class, self._calibration),
            whole=self.run.whole,
            confusion=self.confusion,
            measures={
                name: {key: finite(value) for key, value in figures.items()} for name, figures in agreements.items()
            },
            policy=self.policy.as_dict(),
            versions=versions(),
            machine=machine(),
            seconds=round(time.perf_counter() - self._started, 3),
            date=time.strftime("%Y-%m-%d"),
        )
        measured = self._measured if self.measures else None
        self._writer.finish(
            record,
            rows=self.rows,
            calibration=self._calibration,
            measures=measured,
            agreements=self._agreements or None,
        )
        folder, self._writer = self._writer.path, None
        self._draw(folder)
        self._draw_agreements(folder.name, agreements)
        logger.info("Scores of %d cases: %s", len({row["case"] for row in self.rows}), folder)

    def _over_classes(self, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
        return over_classes({name: figures[name] for name in self.run.classes})

    def sentence(self) -> str:
        """The result in a line, with a further one for each of several classes."""
        what = f"{self.part} ({self.data.name}, {self.summary['n_cases']} images on their original grid)"
        told = sentence(what, self.summary, self.by_class)
        if self.without is not None:
            told += "\n" + sentence("  without postprocessing", self._over_classes(self.without), {})
        return told

    def tell(self) -> None:
        """Log the result."""
        logger.info(self.sentence())

    def _draw(self, folder: Path) -> None:
        by_case: dict[str, list[float]] = {}
        for row in self.rows if self.run.whole is None else [r for r in self.rows if r["class"] == self.run.whole]:
            by_case.setdefault(row["case"], []).append(row["dice"])
        mean = {case: sum(dice) / len(dice) for case, dice in by_case.items()}
        ranked = sorted(mean, key=lambda case: mean[case])
        items = {item["case"]: item for item in self.data.items}
        chosen = worst_median_best(ranked)
        figures = self.run.path / "figures"
        figures.mkdir(exist_ok=True)
        with atomic_path(figures / f"{folder.name}.png") as temporary:
            draw_cases(
                {
                    title: [(items[case], folder / "predictions" / f"{case}.png", mean[case]) for case in cases]
                    for title, cases in chosen.items()
                },
                temporary,
                classes=self.run.classes,
            )

    def _draw_agreements(self, prefix: str, agreements: Mapping[str, Mapping[str, float]]) -> None:
        for name, figures in agreements.items():
            rows = [row for row in self._measured if row["measure"] == name and row["difference"] is not None]
            if rows:
                draw_agreement(rows, figures, self.run.path / "figures" / f"{prefix}-{name}.png")


def worst_median_best(ranked: Sequence[str]) -> dict[str, list[str]]:
    """Some of cases that are ranked from the worst, none twice; the first of each is what the title says.

    Args:
        ranked: names, at least one.
    """
    if len(ranked) < 3:
        return {"worst": [ranked[0]], "best": [ranked[1]]} if len(ranked) == 2 else {"the only one": [*ranked]}
    each, middle = min(3, len(ranked) // 3), (len(ranked) - 1) // 2
    return {
        "worst": [*ranked[:each]],
        "median": [ranked[place] for place in (middle, middle + 1, middle - 1)[:each]],
        "best": [*ranked[::-1][:each]],
    }


def whole_of(classes: Sequence[str], name: str | None) -> str | None:
    """The name of all classes together, checked.

    Raises:
        UserError: there is one class only, or one of that name.
    """
    if name is not None and (len(classes) < 2 or name in classes):
        raise UserError(f"whole {name!r}: names several classes together ({', '.join(classes)}), by another name")
    return name


def _measure(
    measure: Measure,
    item: Mapping[str, Any],
    reference: np.ndarray,
    prediction: np.ndarray,
    *,
    spacing: tuple[float, float] | None,
) -> dict[str, Any]:
    """The columns of measures.csv that are not keys: the dataset's own figure, else that of the reference mask."""
    row: dict[str, Any] = {"measure": measure.name, "unit": measure.unit, "error": ""}
    row |= dict.fromkeys(("reference", "predicted", "difference", "absolute_difference"))
    if spacing is None:
        return {**row, "error": "the size of a pixel is unknown"}
    given = item.get(measure.reference)
    truth = float(given) if given else measure(reference, spacing=spacing)
    found = measure(prediction, spacing=spacing)
    if math.isnan(truth):
        return {**row, "error": "no reference: its mask shows nothing that could be measured"}
    if math.isnan(found):
        return {**row, "reference": truth, "error": "the prediction shows nothing that could be measured"}
    difference = found - truth
    return {
        **row,
        "reference": truth,
        "predicted": found,
        "difference": difference,
        "absolute_difference": abs(difference),
    }
