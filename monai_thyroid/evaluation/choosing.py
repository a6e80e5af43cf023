"""Choosing a run's postprocessing on its validation part, and keeping it in the run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from monai_thyroid.data import Datalist
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.postprocessing import Postprocessing, ValidationCase, choose
from monai_thyroid.evaluation.predictor import Predictor
from monai_thyroid.evaluation.trained import TrainedRun
from monai_thyroid.images import read_labels, read_raster
from monai_thyroid.runfolder import RunFolder

__all__ = ["chosen_postprocessing", "set_postprocessing"]

logger = logging.getLogger(__name__)


def chosen_postprocessing(trained: TrainedRun, data: Datalist, *, device: str) -> dict[str, Any]:
    """Choose on the validation part, see `choose`.

    Args:
        trained: the run.
        data: its own.
        device: such as ``"cpu"`` or ``"cuda:0"``.

    Returns:
        ``postprocessing`` of run.json.

    Raises:
        UserError: there is no validation part.
    """
    predictor = Predictor(trained, device="cuda" if device.startswith("cuda") else "cpu", runtime="torch")
    items = data.part("validation")
    logger.info("Choosing the postprocessing on %d images of the validation part", len(items))

    def cases() -> Iterator[ValidationCase]:
        for item in items:
            (probabilities,) = predictor.probabilities([read_raster(item["image"])])
            reference = read_labels(item["label"], classes=len(trained.classes))
            yield ValidationCase(probabilities, reference, item["group"])

    shares, known = data.inspect().shares, [*data.part("train"), *items]
    post, record = choose(
        cases,
        classes=len(trained.classes),
        activation=trained.activation,
        threshold=trained.configured_threshold,
        least=min((share for item in known for share in shares[item["case"]] if share), default=1.0),
    )
    before, after = record["validation_without"], record["validation"]
    logger.info(
        "Postprocessing: %s. On validation Dice %.4f instead of %.4f, misses %d instead of %d, false alarms %d instead "
        "of %d",
        post.in_words(trained.configured_threshold) or "none, as nothing is shown to be better",
        *(one[key] for key in ("dice_mean", "n_misses", "n_false_alarms") for one in (after, before)),
    )
    return record


def set_postprocessing(trained: TrainedRun, how: str | None, *, device: str) -> None:
    """Choose a finished run's postprocessing anew, or forget it, in its run.json and in ``trained``.

    What was scored before is then of other masks than the run gives, which reports refuse until it is evaluated again.

    Args:
        trained: the run.
        how: ``"choose"``, ``"none"``, or None to leave it as it is.
        device: to compute on.

    Raises:
        UserError: another word, the run's own data are not there or not what they were, or have no validation part.
    """
    if how is None:
        return
    if how not in ("choose", "none"):
        raise UserError(f"postprocess {how!r}: choose none, or choose")
    record = None
    if how == "choose":
        data = trained.datalist()
        if data.inspect().data_hash != trained.record.data_hash:
            raise UserError(
                f"{trained.path}: its data are not what it was trained on, so there is nothing to choose on"
            )
        record = chosen_postprocessing(trained, data, device=device)
    folder = RunFolder(trained.path)
    folder.open()
    folder.update(postprocessing=record)
    trained.postprocessing = Postprocessing.from_record(record)
