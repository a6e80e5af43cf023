"""A network of a config file through everything: train, resume, evaluate, predict, export, pack, train on, show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import create_workflow
from PIL import Image

from monai_thyroid import cli
from monai_thyroid.deploy.web.serving import Served
from monai_thyroid.evaluation import Predictor
from monai_thyroid.files import read_csv, read_json
from monai_thyroid.images import read_raster, write_phantom
from monai_thyroid.runfolder import finished_epochs

# Its outputs are a stack of several sizes in training, one tensor in evaluation.
NETWORK: dict[str, Any] = {
    "networks::dynunet_ds::stride": 4,
    "networks::dynunet_ds::network::kernel_size": [3, 3, 3],
    "networks::dynunet_ds::network::strides": [1, 2, 2],
    "networks::dynunet_ds::network::upsample_kernel_size": [2, 2],
    "networks::dynunet_ds::network::filters": [4, 8, 8],
    "networks::dynunet_ds::network::deep_supr_num": 1,
}
SMALL = {"network": "dynunet_ds", "image_size": 32, "batch_size": 4, "device": "cpu", "precision": "float32"}


@pytest.mark.slow
def test_a_network_of_a_config_file_goes_everywhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scans = write_phantom(tmp_path / "scans", cases=10, seed=0, height=48, width=60)
    bundle = root / "bundles" / "thyroid"
    files = [str(bundle / "train_course.yaml"), str(root / "bundles" / "networks" / "deep_supervision.yaml")]
    options = {**NETWORK, **SMALL, "dataset_dir": str(scans), "output_dir": str(tmp_path / "runs"), "trackers": []}
    options["learning_rate"] = 0.01

    def train(**more: Any) -> None:
        workflow = create_workflow(config_file=files, logging_file=False, **options, max_epochs=2, **more)
        if not more:  # is stopped after an epoch
            trainer = workflow.parser.get_parsed_content("train::trainer")
            trainer.add_event_handler("EPOCH_COMPLETED", lambda engine: (_ for _ in ()).throw(KeyboardInterrupt))
        workflow.run()

    with pytest.raises(KeyboardInterrupt):
        train()
    (run,) = (tmp_path / "runs").glob("*/*/dynunet_ds-*/seed-0")
    assert len(finished_epochs(run / "history.csv")) == 1
    train(resume=True)
    assert read_json(run / "run.json")["status"] == "done"
    assert len(finished_epochs(run / "history.csv")) == 2

    cases = run / "evaluations" / "scans-test" / "cases.csv"
    scored = read_csv(cases)
    evaluate = {"config_file": str(bundle / "evaluate.yaml"), "run_dir": str(run), "device": "cpu"}
    create_workflow(logging_file=False, **evaluate).run()
    for before, after in zip(scored, read_csv(cases), strict=True):  # batches of another size are rounded otherwise
        assert float(after["dice"]) == pytest.approx(float(before["dice"]), abs=0.01)

    packed = tmp_path / "dist" / "foreign"
    assert cli.main(["pack", str(run), "--output", str(packed), "--format", "torchscript,openvino"]) == 0
    exports = read_json(packed / "models" / "exports.json")["exports"]
    assert {name: row["taken"] for name, row in exports.items()} == {"torchscript": True, "openvino": True}
    image = next((scans / "test-image").iterdir())
    expected = Predictor(run, device="cpu", runtime="torch").batch([read_raster(image)])[0].mask
    for model, runtime in ((packed, "openvino"), (run, "torch")):
        found = tmp_path / f"{model.name}-{runtime}"
        command = ["predict", str(model), str(image), "--output", str(found), "--device", "cpu", "--runtime", runtime]
        assert cli.main(command) == 0
        mask = np.asarray(Image.open(found / read_csv(found / "predictions.csv")[0]["mask"]))
        assert np.mean((mask > 0) == (expected > 0)) > 0.999
    assert np.array_equal(Served(packed, device="cpu").look(read_raster(image)).at().mask, expected)

    # Trained on in the packed bundle, by its own recipe: the loss that takes several outputs is in it.
    config = str(packed / "configs" / "train.yaml")
    output = {"dataset_dir": str(scans), "output_dir": str(tmp_path / "more"), "trackers": []}
    create_workflow(config_file=config, logging_file=False, **output, device="cpu", max_epochs=1).run()
    (again,) = (tmp_path / "more").glob("*/*/*/*/run.json")
    assert (read_json(again)["status"], read_json(again)["network"]) == ("done", "dynunet_ds")
