"""The worker's process: what ends it does not end the node."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from made_node import Fragile, StandIn, Unsound, encoded, instance
from made_trained import made_trained

from monai_thyroid.deploy.node.segmenting import Segmenter
from monai_thyroid.deploy.node.spool import Spool, key_of
from monai_thyroid.deploy.node.worker import Worker, work_off
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor
from monai_thyroid.images import read_raster


def test_what_ends_the_worker_does_not_end_the_work(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "spool")
    worker = Worker(Fragile, spool, patience=0.5)
    worker.start()
    assert spool.model == StandIn.model
    try:
        for number in range(5):
            dataset = instance(number, InstanceNumber=number)
            spool.add(key_of(dataset.SOPInstanceUID), encoded(dataset))
        while spool.waiting():
            time.sleep(0.05)
    finally:
        worker.stop()
    assert len(spool.to_send()) == 4
    assert [path.read_text() for path in spool.failed.glob("*.txt")] == ["is not to my taste\n"]
    assert "the worker ended (status 11)" in caplog.text
    assert "an instance takes longer than 0 s; ending the worker" in caplog.text.replace("0.5", "0")
    assert not (spool.folder / "working.json").exists()


def test_an_instance_is_not_blamed_for_the_end_of_the_node(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    worker = Worker(Fragile, spool)
    worker.start()
    dataset = instance(2, InstanceNumber=2)  # takes long
    spool.add(key_of(dataset.SOPInstanceUID), encoded(dataset))
    while not (spool.folder / "working.json").exists():
        time.sleep(0.05)
    worker.stop(wait=0.1)
    assert spool.waiting()
    assert not (spool.folder / "working.json").exists()


def test_a_model_that_cannot_be_used_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not the file that run\.json names"):
        Worker(Unsound, Spool(tmp_path / "spool")).start()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_trained(tmp_path_factory.mktemp("runs") / "run", bright=True, image_size=32)


def test_the_model_finds_what_predict_finds(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "instance.dcm"
    path.write_bytes(encoded(instance(1, PixelSpacing=[0.5, 0.25])))
    segment = Segmenter([str(run)])
    found = segment(path)
    mask = Predictor(run)(read_raster(path)).mask
    assert found.images == 1
    assert found.area_px == np.count_nonzero(mask) > 0
    assert found.area_mm2 == found.area_px * 0.125
    assert {dataset.Modality for dataset in found.datasets} == {"SR", "SEG", "OT"}
    again = segment(path)
    assert [each.SOPInstanceUID for each in found.datasets] == [each.SOPInstanceUID for each in again.datasets]


def test_disagreement_is_for_review(run: Path, tmp_path: Path) -> None:
    members = [str(made_trained(tmp_path / f"{seed}", seed=seed)) for seed in range(2)]
    spool = Spool(tmp_path / "spool", model="ab" * 32)
    key = key_of(instance(1).SOPInstanceUID)
    spool.add(key, encoded(instance(1)))
    segment = Segmenter(members, review_below=0.99)
    found = segment(spool.path(key))
    assert found.agreement is not None
    assert found.agreement < 0.99
    work_off(spool, segment, key)
    (kept,) = spool.review.iterdir()
    assert len(list(kept.iterdir())) == len(found.datasets)
    with pytest.raises(UserError, match="for an ensemble"):
        Segmenter([str(run)], review_below=0.9)


@pytest.mark.parametrize("how", ["changed", "broken"])
def test_wrong_weights_are_told(tmp_path: Path, how: str) -> None:
    run = made_trained(tmp_path / "run", bright=True, image_size=32)
    weights = run / "model.pt"
    content = bytearray(weights.read_bytes())
    if how == "broken":
        weights.write_bytes(content[: len(content) // 2])
    else:
        weights.write_bytes((made_trained(tmp_path / "other", image_size=32) / "model.pt").read_bytes())
    with pytest.raises(UserError, match=r"model\.pt"):
        Segmenter([str(run)])
