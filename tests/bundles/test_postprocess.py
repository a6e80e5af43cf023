"""``--postprocess choose`` in a training, and later."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.bundle import create_workflow

from monai_thyroid.compare.report import build
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor, TrainedRun, postprocessing, set_postprocessing
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.files import read_json
from monai_thyroid.runfolder import read_run, read_split


@pytest.fixture
def generous(monkeypatch: pytest.MonkeyPatch) -> Postprocessing:
    """Two validation images show nothing to be better: take the first setting of each pass."""
    monkeypatch.setattr(postprocessing, "better", lambda tallies, groups: 1)
    return Postprocessing(threshold=0.1, smallest=1e-4)


def evaluate(root: Path, run: Path, **overrides: object) -> None:
    workflow = create_workflow(
        config_file=str(root / "bundles" / "thyroid" / "evaluate.yaml"),
        run_dir=str(run),
        device="cpu",
        precision="float32",
        logging_file=False,
        **overrides,
    )
    workflow.run()


def test_a_training_chooses_and_its_test_is_of_what_it_delivers(
    train: Callable[..., Path], scans: Path, tmp_path: Path, generous: Postprocessing
) -> None:
    run = train(dataset_dir=str(scans), output_dir=str(tmp_path), postprocess="choose", max_epochs=1)
    record = read_run(run)
    assert record.postprocessing is not None
    assert record.postprocessing["images"] == len(read_split(run)["parts"]["validation"]["cases"])
    evaluation = read_json(next((run / "evaluations").iterdir()) / "evaluation.json")
    assert evaluation["postprocessing"] == generous.as_dict()
    assert evaluation["threshold"] == 0.1
    trained = TrainedRun(str(run))
    assert (trained.postprocessing, trained.threshold, trained.configured_threshold) == (generous, 0.1, 0.5)
    assert Predictor(run, device="cpu", runtime="torch").members[0].postprocessing == generous


def test_a_finished_run_chooses_later_and_forgets(
    root: Path, trained: Path, tmp_path: Path, generous: Postprocessing
) -> None:
    run = tmp_path / "runs" / "thyroid" / "scans" / "unet" / "seed-0"
    shutil.copytree(trained, run)
    evaluate(root, run, postprocess="choose", part="validation")
    chosen = read_run(run).postprocessing
    assert chosen is not None
    assert Postprocessing.from_record(chosen) == generous
    validation = next((run / "evaluations").glob("*-validation")) / "evaluation.json"
    scored = read_json(validation)["classes"]["nodule"]
    assert scored["dice_mean"] == pytest.approx(chosen["validation"]["dice_mean"])
    assert scored["n_misses"] == chosen["validation"]["n_misses"]
    with pytest.raises(UserError, match="other postprocessing than the run's; evaluate"):
        build([run])
    evaluate(root, run)
    build([run])
    evaluate(root, run, postprocess="none")
    assert read_run(run).postprocessing is None
    with pytest.raises(UserError, match="choose none, or choose"):
        set_postprocessing(TrainedRun(str(run)), "guess", device="cpu")
