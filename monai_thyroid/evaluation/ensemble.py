"""Several runs as one model whose probabilities are averaged, scored on the original grid like a run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.evaluation.predictor import Predictor, agreement_of
from monai_thyroid.evaluation.scoring import CaseScores
from monai_thyroid.evaluation.trained import TrainedRun
from monai_thyroid.files import canonical_hash, write_json
from monai_thyroid.images import read_raster
from monai_thyroid.runfolder import ensemble_path

__all__ = ["EnsembleRun", "score_ensemble"]

logger = logging.getLogger(__name__)


@dataclass
class EnsembleRun:
    """What `CaseScores` asks of a run, of several as one: all of it is the first member's, but for the weights.

    Attributes:
        path: the ensemble's folder, in that of its first member.
        members: the runs.
        classes: names without the background.
        whole: name of all of them together, if they are scored as one, too.
        activation: of the members.
        configured_threshold: likewise.
        postprocessing: of the first member, as `Predictor` applies it.
        checkpoint_sha256: of the SHA-256 of all weights.
        own_data: name and hash of the data that all were trained on.
    """

    path: Path
    members: Sequence[TrainedRun]
    classes: list[str]
    whole: str | None
    activation: str
    configured_threshold: float
    postprocessing: Postprocessing
    checkpoint_sha256: str | None
    own_data: tuple[str | None, str | None]

    @property
    def threshold(self) -> float:
        """The chosen threshold, else the configured one."""
        return self.postprocessing.threshold_or(self.configured_threshold)


def score_ensemble(
    runs: Sequence[str | Path | TrainedRun],
    *,
    part: str = "test",
    dataset_dir: str | None = None,
    device: str = "auto",
    runtime: str = "torch",
) -> CaseScores:
    """Score the mean of the probabilities of several runs, as `monai-thyroid predict --with` gives it.

    It leaves ``ensembles/<hash>/`` in the first run's folder: ``members.json``, and in ``evaluations/`` what scoring a
    run leaves, with the agreement of the members on each case in ``agreement.csv``.

    Args:
        runs: run folders, trained on the same data and split.
        part: of their data, or of other data.
        dataset_dir: other data of the same classes, or where the runs' own are now.
        device: see `Predictor`.
        runtime: likewise.

    Raises:
        UserError: fewer than two runs, runs of the same weights, or of other data or another split, of whose training
            this part may be; or as `Predictor`; all that was found, and nothing is written.
    """
    trained, problems = [], []
    for run in runs:
        try:
            trained.append(run if isinstance(run, TrainedRun) else TrainedRun(str(run)))
        except UserError as error:
            problems += error.problems
    if len(runs) < 2:
        problems.append("an ensemble takes two runs or more")
    for number, one in enumerate(trained):
        for first in trained[:number]:
            if one.checkpoint_sha256 == first.checkpoint_sha256:
                problems.append(f"{one.path}: has the weights of {first.path}; an ensemble needs different ones")
        if one.record.data_hash != trained[0].record.data_hash:
            problems.append(
                f"{one.path}: was trained on other data or another split than {trained[0].path}, so images of the part "
                f"{part} may be among those it was trained on"
            )
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    first = trained[0]
    data = first.datalist(dataset_dir)
    items = data.part(part)
    predictor = Predictor(trained, device=device, runtime=runtime, samples=[read_raster(items[0]["image"])])
    hashes = sorted(one.checkpoint_sha256 for one in trained)
    path = ensemble_path(first.path, hashes)
    together = EnsembleRun(
        path=path,
        members=trained,
        classes=first.classes,
        whole=first.whole,
        activation=first.activation,
        configured_threshold=first.configured_threshold,
        postprocessing=first.postprocessing,
        checkpoint_sha256=canonical_hash(hashes),
        own_data=first.own_data,
    )
    load, *_ = first.parsed("image_transforms")
    scores = CaseScores(run=together, data=data, part=part, measures=first.parsed("measures"))
    scores.begin()
    try:
        for item in items:
            raster = read_raster(item["image"])
            ((mean, masks),) = predictor.with_masks([raster])
            scores.add(load(dict(item)), mean, agreement=_agreement(masks, together))
    except BaseException:
        scores.abandon()
        raise
    write_json(
        path / "members.json",
        [
            {"path": str(run.path.resolve()), "checkpoint_sha256": run.checkpoint_sha256, **_named(run)}
            for run in trained
        ],
    )
    scores.finish()
    return scores


def _agreement(masks: Sequence[np.ndarray], together: EnsembleRun) -> dict[str, float]:
    of_each = agreement_of(masks, classes=len(together.classes))
    found = dict(zip(together.classes, of_each, strict=True))
    if together.whole is not None:
        (found[together.whole],) = agreement_of([mask > 0 for mask in masks], classes=1)
    return found


def _named(run: TrainedRun) -> dict[str, object]:
    return {name: run.record[name] for name in ("network", "seed", "fold")}
