"""A packed bundle gives the results of its runs, to MONAI and to this package, and refuses what is not its own."""

from __future__ import annotations

import logging
import pickle
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import monai.bundle
import numpy as np
import pytest
import torch
import yaml
from made_trained import made_trained, marker, with_data
from monai.bundle import create_workflow
from PIL import Image

from monai_thyroid.cli import main
from monai_thyroid.deploy import predict_archive
from monai_thyroid.deploy.card import _limits, _scores
from monai_thyroid.deploy.pack import pack, write_card
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation import Predictor, TrainedRun
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.weights import find_weights
from monai_thyroid.files import read_json, sha256_file, write_json
from monai_thyroid.pages import Items
from monai_thyroid.runfolder import RunRecord, run_files

SOFTMAX = {"to_original_grid::2::sigmoid": False, "to_original_grid::2::softmax": True}
SIZES = ((75, 110), (31, 97), (64, 64))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [made_trained(folder / str(seed), seed=seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def one(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed run; tests must not change it."""
    return pack(runs[:1], output=tmp_path_factory.mktemp("dist") / "one", report=False).path


@pytest.fixture(scope="module")
def ensemble(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed ensemble; tests must not change it."""
    return pack(runs, output=tmp_path_factory.mktemp("dist") / "two", report=False).path


@pytest.fixture
def copy(one: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(one, tmp_path / "one", ignore=shutil.ignore_patterns("runtimes")))


def images(channels: int = 1) -> list[np.ndarray]:
    made = [marker(*size) for size in SIZES]
    return [np.stack([each, each // 2, 255 - each], 2) if channels == 3 else each for each in made]


def loaded(bundle: Path, kind: str = "train") -> torch.nn.Module:
    network: torch.nn.Module = monai.bundle.load(
        bundle.name, bundle_dir=str(bundle.parent), workflow_type=kind, device="cpu"
    )
    return network.eval()


def probabilities(model: Any, given: list[np.ndarray]) -> list[np.ndarray]:
    return [each.probabilities for each in Predictor(model, device="cpu", runtime="torch-float32").batch(given)]


@pytest.mark.parametrize("kind", ["train", "inference"])
def test_monai_loads_the_network_with_its_weights(one: Path, runs: list[Path], kind: str) -> None:
    batch = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(one, kind)(batch), TrainedRun(str(runs[0])).network()(batch))


@pytest.mark.parametrize(
    ("bundle", "channels", "options"),
    [
        ("thyroid", 1, {}),
        ("polyp", 3, {}),
        ("nerve", 1, {}),
        ("nerve", 1, {"activation": "softmax", "networks::unet::out_channels": 3, **SOFTMAX}),
        ("fetal_head", 1, {"network": "unpadded_unet", "networks::unpadded_unet::filters": [4, 8], "image_size": 40}),
    ],
)
def test_masks_are_those_of_the_run(bundle: str, channels: int, options: dict[str, Any], tmp_path: Path) -> None:
    run = made_trained(tmp_path / "run", bundle, **options)
    packed = pack([run], output=tmp_path / "packed", report=False).path
    expected = probabilities(run, images(channels))
    for found, each in zip(probabilities(packed, images(channels)), expected, strict=True):
        assert np.array_equal(found, each)
    assert any(each.std() > 0.01 for each in expected)
    layout = read_json(packed / "configs" / "metadata.json")["network_data_format"]
    image, pred = layout["inputs"]["image"], layout["outputs"]["pred"]
    assert (image["num_channels"], len(image["channel_def"])) == (channels, channels)
    with torch.no_grad():
        logits = loaded(packed)(torch.zeros(1, channels, *image["spatial_shape"]))
    assert list(logits.shape[1:]) == [pred["num_channels"], *pred["spatial_shape"]]
    classes = TrainedRun(str(run)).classes
    assert pred["channel_def"] == {str(number): name for number, name in enumerate(["background", *classes])}


def test_an_ensemble_is_postprocessed_as_its_first_member_says(tmp_path: Path) -> None:
    """By every way to its masks; each member chose by itself."""
    chosen = [{"threshold": 0.35, "smallest": 0.01, "images": 7}, {"threshold": 0.6, "images": 7}]
    runs = [made_trained(tmp_path / str(seed), seed=seed, postprocessing=one) for seed, one in enumerate(chosen)]
    packed = pack(runs, output=tmp_path / "packed", report=False).path
    whole = TrainedRun(str(packed))
    assert (whole.threshold, whole.postprocessing) == (0.35, TrainedRun(str(runs[0])).postprocessing)
    assert Predictor(packed, device="cpu", runtime="torch").members[0].postprocessing == whole.postprocessing


def test_an_ensemble_is_the_average_of_its_members(ensemble: Path, runs: list[Path]) -> None:
    batch = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        members = [torch.sigmoid(TrainedRun(str(run)).network()(batch)) for run in runs]
        assert torch.allclose(torch.sigmoid(loaded(ensemble)(batch)), sum(members) / 2, atol=1e-6)
    given = images()
    each = [probabilities(run, given) for run in runs]
    together = Predictor(ensemble, device="cpu", runtime="torch-float32").batch(given)
    beside = Predictor(runs, device="cpu", runtime="torch-float32").batch(given)
    for first, second, found, expected in zip(*each, together, beside, strict=True):
        assert np.allclose(found.probabilities, (first + second) / 2, atol=1e-6)
        assert np.array_equal(found.mask, expected.mask)
        assert found.agreement == expected.agreement
        assert found.agreement is not None


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_the_network_of_an_ensemble_averages_probabilities(activation: Any) -> None:
    from monai_thyroid.networks import Ensemble

    torch.manual_seed(0)
    members = [torch.nn.Conv2d(1, 3, 3) for _ in range(3)]
    batch = 300 * torch.randn(2, 1, 9, 7)  # where a probability of float32 would be 0 or 1
    both = Ensemble(members, activation=activation)
    act = torch.sigmoid if activation == "sigmoid" else lambda logits: torch.softmax(logits, 1)
    with torch.no_grad():
        expected = sum(act(member(batch).double()) for member in members) / 3
        found = both(batch)
        assert found.isfinite().all()
        assert torch.allclose(act(found.double()), expected, atol=1e-5)
        assert torch.allclose(torch.jit.script(both)(batch), found)
    with pytest.raises(UserError, match="an ensemble has members"):
        Ensemble([], activation=activation)


# --- MONAI's own commands, and the rules of its model zoo ---


NUMBERS = {"type": "string", "pattern": r"^\d+\.\d+\.\d+"}
TENSOR = {
    "type": "object",
    "required": "type format num_channels spatial_shape dtype value_range is_patch_data channel_def".split(),
    "properties": {
        "type": {"enum": ["image"]},
        "format": {"enum": ["magnitude", "RGB", "segmentation"]},
        "num_channels": {"type": "integer", "minimum": 1},
        "spatial_shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 2, "maxItems": 2},
        "dtype": {"enum": ["float32"]},
        "value_range": {"type": "array", "items": {"type": "number"}, "maxItems": 2},
        "is_patch_data": {"type": "boolean"},
        "channel_def": {"type": "object", "patternProperties": {r"^\d+$": {"type": "string"}}, "minProperties": 1},
    },
}
SCHEMA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": "schema version changelog monai_version pytorch_version numpy_version required_packages_version task "
    "description authors copyright network_data_format".split(),
    "properties": {
        **dict.fromkeys(("version", "monai_version", "pytorch_version", "numpy_version"), NUMBERS),
        "schema": {"type": "string", "pattern": "^https://github.com/Project-MONAI/.*/meta_schema_.*json$"},
        "changelog": {"type": "object", "additionalProperties": {"type": "string"}},
        "required_packages_version": {"type": "object", "additionalProperties": {"type": "string"}},
        **{key: {"type": "string"} for key in ("task", "description", "authors", "copyright", "intended_use")},
        "network_data_format": {
            "type": "object",
            "required": ["inputs", "outputs"],
            "additionalProperties": {"type": "object", "additionalProperties": TENSOR, "minProperties": 1},
        },
    },
}
"""What MONAI's bundle specification asks of metadata.json; its own schema is fetched from the internet."""


@pytest.mark.parametrize("kind", ["one", "ensemble"])
def test_the_rules_of_the_model_zoo_hold(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """As Project-MONAI/model-zoo, ci/verify_bundle.py, does it."""
    source: Path = request.getfixturevalue(kind)
    bundle = tmp_path / source.name
    shutil.copytree(source, bundle)
    # verify_bundle_directory
    for file in ("configs/metadata.json", "LICENSE", "models/model.pt"):
        assert (bundle / file).is_file(), file
    # _find_bundle_file, which takes JSON before YAML
    assert {"inference.json", "inference.yaml", "train.json", "train.yaml"} <= {
        p.name for p in bundle.glob("configs/*")
    }
    # verify_version_changes
    meta = read_json(bundle / "configs" / "metadata.json")
    assert meta["version"] in meta["changelog"]
    # verify_metadata_format, with a schema where it would be fetched to
    (bundle / "eval").mkdir()
    write_json(bundle / "eval" / "schema.json", SCHEMA)
    files = {"meta_file": str(bundle / "configs" / "metadata.json")}
    monai.bundle.verify_metadata(**files, filepath=str(bundle / "eval" / "schema.json"))
    # verify_bundle_properties
    files["config_file"] = str(bundle / "configs" / "inference.json")
    logging_file = str(bundle / "configs" / "logging.conf")
    Image.fromarray(marker()).save(tmp_path / "a.png")
    named = {"bundle_root": str(bundle), "input": str(tmp_path / "a.png"), "output_dir": str(tmp_path / "masks")}
    workflow = create_workflow(workflow_type="inference", logging_file=logging_file, **named, **files)
    assert workflow.check_properties() == []
    # verify_data_shape, verify_torchscript
    monai.bundle.verify_net_in_out("network_def", bundle_root=str(bundle), device="cpu", **files)
    script = bundle / "models" / "verify_model.ts"
    monai.bundle.ckpt_export("network_def", filepath=str(script), bundle_root=str(bundle), **files)
    batch = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(torch.jit.load(str(script))(batch), loaded(bundle)(batch), atol=1e-5)


def test_metadata_that_lack_something_are_refused_by_the_schema(one: Path) -> None:
    meta = read_json(one / "configs" / "metadata.json")
    jsonschema.validate(meta, SCHEMA)
    del meta["network_data_format"]["outputs"]["pred"]["channel_def"]
    with pytest.raises(jsonschema.ValidationError, match="channel_def"):
        jsonschema.validate(meta, SCHEMA)


def test_json_and_yaml_say_the_same_and_hold_no_menu(one: Path) -> None:
    for kind in ("train", "evaluate", "inference"):
        content = read_json(one / "configs" / f"{kind}.json")
        assert content == yaml.safe_load((one / "configs" / f"{kind}.yaml").read_text())
        assert "networks" not in content
    applied = yaml.safe_load((one / "run" / "config.yaml").read_text())["applied"]
    inference = read_json(one / "configs" / "inference.json")
    assert inference["network_def"] == applied["network"]
    for name in ("image_transforms", "to_original_grid"):
        assert inference[name] == applied[name]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_inference_runs_from_anywhere(
    suffix: str, one: Path, runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    for number, pixels in enumerate(images()):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    monkeypatch.chdir(one.parents[0])
    workflow = create_workflow(
        config_file=f"{one.name}/configs/inference.{suffix}",
        workflow_type="infer",
        logging_file=False,
        device="cpu",
        precision="float32",
        input=str(tmp_path / "images"),
        output_dir=str(tmp_path / "masks"),
    )
    assert workflow.check_properties() == []
    workflow.run()
    predict_archive([runs[0]], [tmp_path / "images"], output=tmp_path / "expected", runtime="torch")
    for number, (height, width) in enumerate(SIZES):
        found, expected = (
            np.asarray(Image.open(folder / f"{number}_mask.png"))
            for folder in (tmp_path / "masks", tmp_path / "expected")
        )
        assert found.shape == (height, width)
        assert (found != expected).mean() < 0.002  # of a probability that rounding moves over the threshold


# --- this package's commands ---


def test_predict_takes_a_packed_bundle(ensemble: Path, runs: list[Path], tmp_path: Path) -> None:
    Image.fromarray(marker()).save(tmp_path / "a.png")
    given = ["--device", "cpu", "--runtime", "torch"]
    image = str(tmp_path / "a.png")
    assert main(["predict", str(ensemble), image, "--output", str(tmp_path / "one"), *given]) == 0
    both = ["--with", str(runs[1])]
    assert main(["predict", str(runs[0]), image, "--output", str(tmp_path / "two"), *both, *given]) == 0
    tables = [(tmp_path / name / "predictions.csv").read_text().splitlines()[1].split(",") for name in ("one", "two")]
    assert [row[:-2] for row in tables[:1]] == [row[:-2] for row in tables[1:]]
    masks = [(tmp_path / name / "a_mask.png").read_bytes() for name in ("one", "two")]
    assert masks[0] == masks[1]


def test_training_starts_from_it_and_scores_are_those_of_the_run(scans: Path, tmp_path: Path) -> None:
    run = with_data(tmp_path / "run", scans)
    packed = pack([run], output=tmp_path / "dist" / "packed", report=False).path
    assert str(scans) not in "".join(
        path.read_text() for path in packed.rglob("*.*") if path.suffix in (".json", ".yaml")
    )
    split = read_json(packed / "run" / "split.json")
    assert all("cases" not in part for part in split["parts"].values())
    assert len(split["parts"]["train"]["image_sha256"]) > 4
    for folder, source in ((run, "bundles/thyroid/evaluate.yaml"), (packed, None)):
        config = str(packed / "configs" / "evaluate.json") if source is None else source
        workflow = create_workflow(
            config_file=config, workflow_type="infer", logging_file=False, dataset_dir=str(scans), device="cpu",
            precision="float32", **({} if source is None else {"run_dir": str(folder)}),
        )  # fmt: skip
        workflow.run()
    tables = [(folder / "evaluations" / "scans-test" / "cases.csv").read_text() for folder in (run, packed)]
    assert tables[0] == tables[1]
    small = {"max_epochs": 1, "batch_size": 4, "learning_rate": 0.001, "device": "cpu", "precision": "float32"}
    workflow = create_workflow(
        config_file=str(packed / "configs" / "train.json"), workflow_type="train", logging_file=False, trackers=[],
        dataset_dir=str(scans), output_dir=str(tmp_path / "runs"), **small,
    )  # fmt: skip
    assert workflow.check_properties() == []
    workflow.run()
    (record,) = [read_json(path) for path in (tmp_path / "runs").rglob("run.json")]
    assert (record["status"], record["network"]) == ("done", "unet")
    assert record["parent_sha256"] == sha256_file(packed / "models" / "model.pt")
    again = TrainedRun(str(next((tmp_path / "runs").rglob("run.json")).parent))
    assert again.applied["network"] == TrainedRun(str(packed)).applied["network"]
    assert find_weights(packed) == packed / "models" / "model.pt"


def test_exports_are_taken_along_and_used(scans: Path, tmp_path: Path) -> None:
    run = with_data(tmp_path / "run", scans)
    made = pack([run], output=tmp_path / "packed", formats=["torchscript", "onnx"], report=False, zipped=True)
    packed = made.path
    assert made.exports is not None
    assert {row["file"] for row in made.exports["exports"].values()} == {"model.ts", "model.onnx"}
    assert all(row["dice_to_checkpoint"] > 0.999 for row in made.exports["exports"].values())
    assert not (run / "exports").exists()
    assert not (packed / "runtimes").exists()
    network = torch.jit.load(str(packed / "models" / "model.ts"))
    batch = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(network(batch), loaded(packed)(batch), atol=1e-5)
    found = Predictor(packed, device="cpu", runtime="onnx").batch(images())
    for each, expected in zip(found, probabilities(run, images()), strict=True):
        assert np.abs(each.probabilities - expected).max() < 1e-3
    with zipfile.ZipFile(made.zip or "") as file:
        assert file.testzip() is None
        assert {name.split("/")[0] for name in file.namelist()} == {"packed"}
        assert "packed/models/model.onnx" in file.namelist()
    content = bytearray((packed / "models" / "model.onnx").read_bytes())
    content[-40] ^= 1
    (packed / "models" / "model.onnx").write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx: is not what was exported"):
        Predictor(packed, device="cpu", runtime="onnx")


def test_the_card_tells_scores_with_intervals_and_limits(root: Path, tmp_path: Path) -> None:
    run = shutil.copytree(root / "tests" / "data" / "older_run", tmp_path / "older_run")  # whatever is kept beside it
    packed = pack([run], output=tmp_path / "packed").path
    card = (packed / "docs" / "README.md").read_text()
    assert re.search(r"\| 1 \| phantom-test \| nodule \| 6 \| 2 \| 0\.037 \(0\.0\d\d to 0\.0\d\d\)", card)
    assert re.search(r"\| \d+\.\d (mm|pixels) \(", card)
    for words in (
        "synthetic",
        "Research only",
        "95 % intervals",
        "missed",
        "SHA-256",
        "So few groups that no interval",
        "Version 0.1.0",
        "tested on",
        "the tolerance is 2 mm",
        "no postprocessing",
    ):
        assert words in card, words
    assert "</html>" in (packed / "docs" / "report.html").read_text()
    assert "docs/report.html" in card
    assert probabilities(packed, images())[0].shape == (1, *SIZES[0])


def test_the_card_of_a_run_tells_what_is_done_to_its_masks(root: Path, tmp_path: Path) -> None:
    """And takes no version of the package for one of its own."""
    run = shutil.copytree(root / "tests" / "data" / "older_run", tmp_path / "older_run")
    record = read_json(run / "run.json")
    chosen = {"threshold": 0.35, "fill_holes": True, "smallest": 0.005, "largest_only": False}
    write_json(run / "run.json", {**record, "postprocessing": chosen})
    card = write_card(run, tmp_path / "card.md").read_text()
    assert "Version" not in card
    told = (
        "threshold 0.35 instead of 0.5, holes filled, components below 0.5 % of the image removed, chosen on validation"
    )
    assert f"| masks | on the original image grid; {told} |" in card


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        ([], "Trained on phantom alone: "),
        (["imagenet"], "Trained on phantom, from weights that had seen imagenet: "),
        (None, "Trained on phantom; what its weights had seen before is not recorded: "),
    ],
)
def test_the_card_claims_no_more_of_classes_and_data_than_is_known(
    seen: list[str] | None, told: str, root: Path
) -> None:
    record = RunRecord(dataset="phantom", network="unet", grouping="known", pretrained_on=seen, whole="lesion")
    limits = _limits([(run_files(root / "tests" / "data" / "older_run"), record)])[1]
    assert isinstance(limits, Items)
    assert limits.items[0].startswith(told)
    assert limits.items[1].startswith("It gives a lesion the class")
    assert "benign" not in limits.items[1]  # masks of several classes tell them apart


def test_every_file_has_its_sum(one: Path) -> None:
    lines = dict(line.split("  ")[::-1] for line in (one / "SHA256SUMS").read_text().splitlines())
    files = {
        path.relative_to(one).as_posix() for path in one.rglob("*") if path.is_file() and "runtimes" not in path.parts
    }
    assert set(lines) == files - {"SHA256SUMS"}
    assert all(sha256_file(one / name) == value for name, value in lines.items())


@pytest.mark.parametrize("bundle", ["one", "ensemble"])
def test_the_documentation_names_every_file(root: Path, request: pytest.FixtureRequest, bundle: str) -> None:
    folder = request.getfixturevalue(bundle)
    page = (root / "docs" / "packed-bundle.md").read_text("utf-8")
    cells = ",".join(line.split(" | ")[0].strip("| ") for line in page.splitlines() if line.startswith("| "))
    named = {re.sub("`<n>`", "1", name.strip()) for name in cells.split(",")}
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unnamed = {name for name in files if name not in named and not any(name.startswith(one) for one in folders(named))}
    assert not {name for name in unnamed if not re.match("runtimes/|models/members/2/", name)}
    needed = {
        name for name in named if re.match(r"configs/\w|run/\w|docs/README|LICENSE|SHA256SUMS|models/model.pt", name)
    }
    assert needed - files == (set() if bundle == "ensemble" else {"run/members.json"})


def folders(names: set[str]) -> list[str]:
    return [name for name in names if name.endswith("/")]


# --- what is wrong is refused ---


def change_last_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_changed_weights_are_refused_everywhere(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_last_byte(copy / "models" / "model.pt")
    words = r"models/model\.pt: is not the file the run recorded \(its SHA-256 differs\)"
    for use in (
        lambda: TrainedRun(str(copy)),
        lambda: Predictor(copy, device="cpu"),
        lambda: find_weights(copy),
        lambda: Model(copy),
    ):
        with pytest.raises(UserError, match=words):
            use()
    for kind in ("train", "inference"):
        with pytest.raises(RuntimeError) as caught:
            loaded(copy, kind)
        assert re.search(words, str(caught.value.__cause__ or caught.value))
    assert main(["predict", str(copy), str(copy), "--output", str(copy / "x")]) == 1
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1


@pytest.mark.slow
def test_the_commands_tell_of_changed_weights_in_one_line(copy: Path, tmp_path: Path) -> None:
    change_last_byte(copy / "models" / "model.pt")
    Image.fromarray(marker()).save(tmp_path / "a.png")
    command = [sys.executable, "-W", "ignore", "-m", "monai.bundle", "run", "--config_file"]
    command += [str(copy / "configs" / "inference.yaml"), "--input", "a.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert done.returncode == 1
    assert "its SHA-256 differs" in done.stderr.splitlines()[-1], done.stderr
    assert "Traceback" not in done.stderr


def test_members_are_checked_too(ensemble: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(ensemble, tmp_path / "two", ignore=shutil.ignore_patterns("runtimes")))
    members = [folder for folder, _ in run_files(bundle).members]
    assert [folder.name for folder in members] == ["1", "2"]
    shutil.rmtree(members[1])
    with pytest.raises(UserError, match="lacks the members 2"):
        Predictor(bundle, device="cpu")
    shutil.copytree(members[0], members[1])
    with pytest.raises(UserError, match="2: is not the member that the ensemble was packed with"):
        Predictor(bundle, device="cpu")


def broken(folder: Path, **changes: Any) -> Path:
    run = made_trained(folder)
    write_json(run / "run.json", {**read_json(run / "run.json"), **changes})
    return run


def test_what_cannot_be_packed_is_said_at_once(tmp_path: Path, runs: list[Path], one: Path) -> None:
    (tmp_path / "empty").mkdir()
    cut = made_trained(tmp_path / "cut")
    (cut / "model.pt").write_bytes((cut / "model.pt").read_bytes()[:200])
    write_json(cut / "run.json", {**read_json(cut / "run.json"), "checkpoint_sha256": None})
    running = broken(tmp_path / "running", status="running")
    foreign = made_trained(tmp_path / "foreign")
    config = yaml.safe_load((foreign / "config.yaml").read_text())
    config["networks"]["unet"] = {"_target_": "os.system", "_mode_": "callable", "command": "touch /tmp/x"}
    (foreign / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError) as caught:
        pack([tmp_path / "empty", cut, running, foreign, one, tmp_path / "absent"], output=tmp_path / "dist" / "x")
    told = "\n".join(caught.value.problems)
    for words in (
        "empty: is not a run folder",
        "cannot be read as weights",
        "running: is not finished (running)",
        "applied::network: os.system",
        "one: is a packed bundle already",
        "absent: is not a run folder",
    ):
        assert words in told, words
    assert not (tmp_path / "dist").exists()


def test_runs_that_do_not_fit_together_are_refused(tmp_path: Path, runs: list[Path]) -> None:
    other = made_trained(tmp_path / "other", seed=2, threshold=0.4)
    larger = made_trained(tmp_path / "larger", seed=3, image_size=48)
    colour = made_trained(tmp_path / "colour", "polyp", seed=4)
    with pytest.raises(UserError) as caught:
        pack([runs[0], other, larger, colour, runs[0]], output=tmp_path / "x")
    told = "\n".join(caught.value.problems)
    for words in (
        f"{other}: has the threshold 0.4, not 0.5",
        f"{larger}: its image_transforms are not those of {runs[0]}",
        f"{colour}: has the classes",
        f"{runs[0]}: has the weights of {runs[0]}",
    ):
        assert words in told, told
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output": "has space"}, "is no name of a bundle"),
        ({"output": "monai_thyroid"}, "MONAI takes monai_ off"),
        ({"output": "x.zip"}, "--zip writes it"),
        ({"output": "a#b"}, "cannot hold #"),
        ({"output": "taken"}, "taken: is there already"),
        ({"output": "zipped", "zipped": True}, "zipped.zip: is there already"),
        ({"formats": ["coreml"]}, "choose of torchscript,onnx,openvino"),
        ({"int8": True}, "add one of them to --format"),
        ({"version": "1"}, "give three numbers"),
        ({"licence": "absent"}, "--license absent: no such file"),
        ({"metadata": "absent"}, "--metadata absent: cannot be read"),
        ({"metadata": "list.json"}, "does not hold an object"),
        ({"metadata": "version.json"}, "version are made from the run"),
    ],
)
def test_options_are_checked_first(
    options: dict[str, Any], words: str, tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "zipped.zip").touch()
    write_json(tmp_path / "list.json", [])
    write_json(tmp_path / "version.json", {"version": "1.0.0"})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=re.escape(words)):
        pack(runs[:1], **{"output": "new", **options})
    assert sorted(tmp_path.iterdir()) == before


def test_a_score_without_its_evaluation_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    record = RunRecord.from_json({"dataset": "made", "network": "unet", "seed": 0, "status": "done"})
    for test, words in ((None, "nothing is known"), ({"dice_mean": 0.9354}, "a mean test Dice of 0.935")):
        page = str(_scores([(run_files(tmp_path), replace(record, test=test))]))
        assert words in page


def test_all_that_is_wrong_with_the_options_is_told() -> None:
    with pytest.raises(UserError) as caught:
        pack([], output="new", version="1", metadata="absent")
    assert len(caught.value.problems) == 2


def test_metadata_and_licence_are_ones_own(tmp_path: Path, runs: list[Path]) -> None:
    write_json(tmp_path / "about.json", {"authors": "A hospital", "name": "Nodules <b>*"})
    (tmp_path / "terms.txt").write_text("All rights reserved")
    given = {"metadata": tmp_path / "about.json", "licence": tmp_path / "terms.txt", "version": "1.2.0"}
    packed = pack(runs[:1], output=tmp_path / "x", changes="retrained", report=False, **given).path
    meta = read_json(packed / "configs" / "metadata.json")
    assert (meta["authors"], meta["changelog"]) == ("A hospital", {"1.2.0": "retrained"})
    assert (packed / "LICENSE").read_text() == "All rights reserved"
    assert "Nodules &lt;b>\\*" in (packed / "docs" / "README.md").read_text()


def test_a_failure_or_a_kill_leaves_nothing_under_the_name(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = tmp_path / "dist" / ".packing-left"
    left.mkdir(parents=True)
    (left / "half").touch()
    monkeypatch.setattr("monai_thyroid.deploy.pack._sums", lambda folder: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        pack(runs[:1], output=tmp_path / "dist" / "x", report=False, zipped=True)
    assert list((tmp_path / "dist").iterdir()) == []


HOSTILE: dict[str, tuple[str, str, str]] = {
    "code in YAML": ("run/config.yaml", "!!python/object/apply:os.system ['true']", "config.yaml: cannot be read"),
    "an expression": ("run/config.yaml", "applied: {network: $1 / 0}", "the expression \\$1 / 0"),
    "a member that is a command": (
        "run/config.yaml",
        "applied: {network: {_target_: monai_thyroid.networks.Ensemble, activation: sigmoid, "
        "members: [{_target_: os.system, command: 'true'}]}}",
        "applied::network::members::0: os.system",
    ),
    "a list for run.json": ("run/run.json", "[]", "does not hold an object"),
    "binary": ("run/run.json", "\0", "is not valid JSON"),
    "no sum": (
        "run/run.json",
        '{"classes": ["nodule"], "activation": "sigmoid", "threshold": 0.5}',
        "lacks checkpoint",
    ),
    "members elsewhere": ("run/members.json", '{"../../etc": "x"}', "does not list the SHA-256"),
    "members that are not there": ("run/members.json", '["a", "b"]', "lacks the members 1, 2"),
    "deep": ("run/members.json", "[" * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_bundles_are_refused(kind: str, copy: Path) -> None:
    file, content, words = HOSTILE[kind]
    (copy / file).write_text(content)
    for use in (lambda: TrainedRun(str(copy)), lambda: Predictor(copy, device="cpu")):
        with pytest.raises(UserError, match=words):
            use()


def test_weights_that_are_a_program_are_not_unpickled(copy: Path) -> None:
    torch.save({"weight": Unpickled()}, copy / "models" / "model.pt")
    record = read_json(copy / "run" / "run.json")
    write_json(copy / "run" / "run.json", {**record, "checkpoint_sha256": sha256_file(copy / "models" / "model.pt")})
    with pytest.raises(UserError, match="cannot be read as weights"):
        TrainedRun(str(copy))
    with pytest.raises(pickle.UnpicklingError):
        loaded(copy)


class Unpickled:
    """Fails the test that reads it."""

    def __reduce__(self) -> tuple:
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize(
    "exports", ["[]", "{", '{"exports": {}}', '{"exports": {"onnx": {"file": "../../run/run.json", "taken": true}}}']
)
def test_exports_that_cannot_be_used_are_left_aside(exports: str, copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    sha256 = sha256_file(copy / "models" / "model.pt")
    (copy / "models" / "exports.json").write_text(exports.replace('{"exp', f'{{"checkpoint_sha256": "{sha256}", "exp'))
    with pytest.raises(UserError, match="no such export"):
        Predictor(copy, device="cpu", runtime="onnx")
    if exports != '{"exports": {}}':
        assert "exports.json: cannot be used" in caplog.text


def test_a_config_that_does_not_fit_its_network_is_told_before_the_first_image(copy: Path) -> None:
    config = yaml.safe_load((copy / "run" / "config.yaml").read_text())
    config["applied"]["to_original_grid"] = []
    (copy / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=r"gives \(1, 32, 32\)"):
        Predictor(copy, device="cpu")


def test_bundles_that_are_not_ours_and_zips_say_so(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "run")
    with pytest.raises(UserError, match="is a bundle that monai-thyroid pack has not made"):
        TrainedRun(str(copy))
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    with pytest.raises(UserError, match="unzip it first"):
        Predictor(tmp_path / "broken.zip", device="cpu")


def test_trust_is_asked_for_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = made_trained(tmp_path / "run", **{"networks::unet::_target_": "monai.networks.nets.basic_unet.BasicUNet"})
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["image_transforms"].append({"_target_": f"{__name__}.Strange", "keys": "image"})
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=f"{__name__}.Strange"):
        pack([run], output=tmp_path / "x")
    packed = pack([TrainedRun(str(run), trust=True)], output=tmp_path / "x", report=False).path
    with pytest.raises(UserError, match=f"{__name__}.Strange"):
        Predictor(packed, device="cpu")
    with caplog.at_level(logging.ERROR):
        found = probabilities(TrainedRun(str(packed), trust=True), images())
    expected = probabilities(TrainedRun(str(run), trust=True), images())
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


class Strange:
    """A transform that no list knows."""

    def __init__(self, keys: str) -> None:
        self.keys = keys

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        return item
