"""What a check says can start does start, and a check writes nothing and says what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import create_workflow

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.images import write_phantom
from monai_thyroid.training import check_file, check_start
from monai_thyroid.training.check import output_size
from monai_thyroid.training.rehearsal import _untrained

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
TRAIN = str(BUNDLES / "thyroid" / "train_course.yaml")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("data") / "scans", cases=10, seed=0, height=48, width=64)


@pytest.fixture
def tiny(scans: Path, tmp_path: Path) -> dict[str, Any]:
    narrow = {"image_size": 32, "batch_size": 4, "networks::unet::features": [4, 4, 4, 4, 4, 4]}
    return {**narrow, "dataset_dir": str(scans), "output_dir": str(tmp_path / "runs"), "device": "cpu"}


def listing(*folders: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}


@pytest.mark.parametrize(("file", "steps"), [("train_course.yaml", 4), ("train.yaml", 3)])
def test_it_steps_writes_nothing_and_tells_the_cost(
    file: str, steps: int, tiny: dict[str, Any], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = listing(tmp_path, scans)
    problems, told = check_start(str(BUNDLES / "thyroid" / file), tiny)
    assert problems == []
    assert told[0].startswith("train: a training step of 4 images takes ")
    assert f", {steps} of which are an epoch" in told[0]  # train.yaml drops what is less than a batch
    assert told[1].startswith("test::evaluator: ")
    assert listing(tmp_path, scans) == before


def test_both_stages_take_a_step(tiny: dict[str, Any]) -> None:
    given = {name: value for name, value in tiny.items() if name != "dataset_dir"}
    problems, told = check_start(str(BUNDLES / "polyp" / "train_course.yaml"), {**given, "phantom_cases": 10})
    assert problems == []
    assert [line.split(":")[0] for line in told] == ["first_stage", "train", "test"]


def test_a_run_is_scored_and_applied_for_one_batch(tiny: dict[str, Any], scans: Path, tmp_path: Path) -> None:
    workflow = create_workflow(config_file=TRAIN, logging_file=False, trackers=[], **tiny, max_epochs=1)
    workflow.run()
    run = str(workflow.parser.get_parsed_content("session").path)
    before = listing(tmp_path)
    (image, *_) = sorted((scans / "test-image").iterdir())
    for file, given in (("evaluate", {"part": "validation"}), ("inference", {"input": str(image)})):
        output = {} if file == "evaluate" else {"output_dir": str(tmp_path / "out")}
        problems, told = check_start(str(BUNDLES / "lung" / f"{file}.yaml"), {"run_dir": run, **given, **output})
        assert problems == []
        assert told[0].startswith("evaluator: ")
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"optimizer::weight_decay": -1}, "optimizer: ValueError: Invalid weight_decay value: -1"),
        ({"lr_scheduler::_target_": "torch.optim.lr_scheduler.StepLR"}, "lr_scheduler: TypeError: "),
        ({"loss": {"_target_": "torch.nn.BCEWithLogitsLoss", "weight": "$torch.ones(7)"}}, "train::trainer: "),
        ({"to_original_grid::1": {"_target_": "Resized", "keys": "pred", "spatial_size": [3, 3]}}, "test::evaluator: "),
        ({"train::handlers::3::metric": "val_dices"}, "train::trainer: KeyError: 'val_dices'"),
        ({"trackers": [{"_target_": "TensorBoardStatsHandler", "_mode_": "callable", "logdir": "x"}]}, "trackers: "),
        ({"augmentation": [{"_target_": "RandFlipd", "keys": "imgae"}]}, "train::trainer: "),
    ],
)
def test_what_would_fail_later_is_told_now(tiny: dict[str, Any], overrides: dict[str, Any], words: str) -> None:
    quick = check_file(TRAIN, {**tiny, **overrides})
    problems, told = check_start(TRAIN, {**tiny, **overrides})
    assert len(problems) == 1
    assert words in problems[0]
    assert told == []
    built = words.split(":")[0] in ("optimizer", "lr_scheduler")
    assert quick == (problems if built else []), "the quick check builds these two, and cannot know of the others"


def test_weights_that_nothing_trains_are_told() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1))
    network[2].requires_grad_(False)  # frozen on purpose
    network[0](torch.rand(1, 1, 2, 2)).sum().backward()
    (told,) = _untrained("train", network)
    assert told.startswith("train: 2 parameters got no gradient")
    assert "(1.weight, 1.bias)" in told
    assert list(_untrained("train", network[0])) == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rate: 1e-3", "learning_rate '1e-3': is a text; YAML reads a number only with a point and without"),
        ("threshold: '0.4'", "threshold '0.4': is a text"),
        ("optimizer::weight_decay: 1e-5", "optimizer::weight_decay '1e-5': is a text"),
    ],
)
def test_a_number_that_yaml_reads_as_a_text_is_told(
    tiny: dict[str, Any], tmp_path: Path, line: str, words: str
) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text(f"{line}\n")
    (problem,) = check_file([TRAIN, str(extra)], tiny)
    assert problem.startswith(words)
    suggested = problem.rsplit(" ", 1)[1]
    assert yaml.safe_load(suggested) == float(line.split(": ")[1].strip("'"))


# --- a network of one's own, in a file of one's own ---

MINE = """
networks::mine:
  _target_: torch.nn.Conv2d
  _mode_: callable
  in_channels: '@channels'
  out_channels: $len(@classes)
  kernel_size: 1
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(MINE)
    return str(path)


def test_check_takes_several_files(tiny: dict[str, Any], mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"--{name}={value!r}" for name, value in tiny.items()]
    assert cli.main(["check", TRAIN, "--quick", "--config", mine, "--network", "mine", *words]) == 0
    assert capsys.readouterr().out == f"{TRAIN}: nothing wrong found\n"
    assert cli.main(["check", TRAIN, "--config", mine, "--network", "mine", *words]) == 0
    assert "  train: a training step of 4 images takes " in capsys.readouterr().out
    assert cli.main(["check", TRAIN, "--network", "mine", *words]) == 1
    assert "network 'mine': the menu has unet" in capsys.readouterr().err
    assert cli.main(["check", TRAIN, "--config", "absent.yaml"]) == 1
    assert capsys.readouterr().err == "absent.yaml: no such file\n"


def test_networks_measures_one_of_a_file(mine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["networks", "mine", "--no-exports", "--config", mine]) == 0
    assert "mine" in capsys.readouterr().out
    assert cli.main(["networks", "other", "--no-exports", "--config", mine]) == 1
    assert "resnet50_resunet, mine." in capsys.readouterr().err


# --- what is no network, and files that do not go together ---


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("- a\n- b\n", ["{file}: holds a list and not names"]),
        ("", ["{file}: holds nothing and not names"]),
        ("networks: 3", ["{file}: networks would replace the whole menu (unet, "]),
        ("+networks: [a, b]", ["{file}: +networks: must hold a block for each name"]),
        ("3: unet", ["{file}: 3: a name in a config is a word"]),
        ("networks: {mine: {_target_: torch.nn.Identity}}", ["{file}: networks would replace the whole menu (unet, "]),
        (
            "networks::unet: {_target_: torch.nn.Identity, _mode_: callable}",
            ["{file}: networks::unet would replace the network of that name in "],
        ),
        (
            "+networks: {segnet: {_target_: torch.nn.Identity, _mode_: callable}}",
            ["{file}: networks::segnet would replace the network of that name in "],
        ),
        (
            "networks::mine: {in_channels: 1}\nnetworks::yours: 3\nnetworks::hers: {_target_: torch.nn.Identity}",
            [
                "networks::mine: is no network: give it a _target_",
                "networks::yours: is no network",
                "networks::hers: lacks _mode_: callable",
            ],
        ),
        ("networks::mine: {_target_: builtins.dict, _mode_: callable}", ["network mine: is dict, not a torch.nn.Mod"]),
        (
            "networks::mine: {_target_: torch.nn.Conv2d, _mode_: callable, in_channels: 1, out_channels: 1, "
            "kernel_size: 2, stride: 2}",
            ["network mine: gives 16 x 16 for 32 x 32 pixels; its logits must be as large"],
        ),
        (
            "networks::mine: {_target_: torch.nn.Flatten, _mode_: callable}",
            ["network mine: cannot be computed on 1 x 32 x 32 (channels, height, width): it gives a tensor (1, 1024)"],
        ),
        (
            "networks::mine: {_target_: monai_thyroid.networks.EncoderUNet, _mode_: callable, encoder: resnet18, "
            "architecture: unett, in_channels: 1, out_channels: 1}",
            ['There is no architecture "unett": did you mean "unet"?'],
        ),
    ],
)
def test_what_is_no_network_is_told(tiny: dict[str, Any], tmp_path: Path, text: str, starts: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    problems = check_file([TRAIN, str(file)], {**tiny, "network": "mine"} if "mine" in text else tiny)
    assert len(problems) == len(starts), problems
    for problem, start in zip(problems, starts, strict=True):
        assert problem.startswith(start.format(file=file)), problem


def test_masks_are_no_logits() -> None:
    class Masks(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (super().forward(x) > 0).long()

    with pytest.raises(UserError, match="it gives int64 and not floating-point logits"):
        output_size(Masks(1, 1, 1), channels=1, image_size=8)
    with pytest.raises(UserError, match="before any training it gives logits that are not finite"):
        output_size(torch.nn.Threshold(2.0, float("nan")), channels=1, image_size=8)


def test_all_that_is_wrong_with_files_is_one_list(
    tmp_path: Path, mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    strange = tmp_path / "list.yaml"
    strange.write_text("- a\n")
    absent = tmp_path / "absent.yaml"
    files = [word for file in (mine, str(absent), str(strange)) for word in ("--config", file)]
    for command in (
        ["check", TRAIN, *files],
        ["networks", "unet", *files],
        ["compare", TRAIN, *files, "--networks", "unet", "--output", str(tmp_path / "out")],
    ):
        assert cli.main(command) == 1
        told = capsys.readouterr().err.splitlines()
        assert told == [
            f"{absent}: no such file",
            f"{strange}: holds a list and not names with values, as a config does",
        ]
    assert not (tmp_path / "out").exists()


DEEP = """
networks::deep:
  _target_: monai_thyroid.networks.AdaptedNetwork
  _mode_: callable
  stride: 2
  deep_supervision: true
  network:
    _target_: monai.networks.nets.DynUNet
    _mode_: callable
    spatial_dims: 2
    in_channels: '@channels'
    out_channels: $len(@classes)
    filters: [4, 4, 4]
    kernel_size: [3, 3, 3]
    strides: [1, 2, 2]
    upsample_kernel_size: [2, 2]
    deep_supervision: true
"""
LOSS = """
train::trainer::loss_function:
  _target_: monai.losses.DeepSupervisionLoss
  loss: '@loss'
"""


def test_several_outputs_need_a_loss_that_takes_them(tiny: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "deep.yaml"
    file.write_text(DEEP)
    chosen = {**tiny, "network": "deep"}
    (problem,) = check_file([TRAIN, str(file)], chosen)
    assert problem.startswith(
        "network deep: gives several outputs in training, of which DiceLoss takes one: let train::"
    )
    file.write_text(DEEP + LOSS)
    problems, told = check_start([TRAIN, str(file)], chosen)
    assert problems == []
    assert told[0].startswith("train: a training step of 4 images takes ")
    assert check_file([TRAIN, str(file)], tiny) == []
