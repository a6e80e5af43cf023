"""Everything that can be known to be wrong is said before anything runs, all of it, with nothing written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, create_workflow
from PIL import Image

from monai_thyroid.errors import UserError
from monai_thyroid.images import phantom_scan
from monai_thyroid.training import check, check_file
from monai_thyroid.training.check import unknown_overrides

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "thyroid"
TRAIN = str(BUNDLE / "train_course.yaml")
SHAPE = (24, 30)


def write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def nodule() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[6:14, 8:20] = 255
    return mask


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Five images for training and two for test, with their patients."""
    root = tmp_path / "scans"
    lines = ["file,case"]
    for part, count in (("trainval", 5), ("test", 2)):
        for index in range(count):
            image = np.random.RandomState(len(lines)).randint(0, 256, SHAPE).astype(np.uint8)
            write(root / f"{part}-image" / f"{part}{index}.png", image)
            write(root / f"{part}-mask" / f"{part}{index}.png", nodule())
            lines.append(f"{part}{index}.png,patient {part} {index // 2}")
    (root / "cases.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def tiny(scans: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "dataset_dir": str(scans),
        "output_dir": str(tmp_path / "runs"),
        "image_size": 32,
        "networks::unet::features": [4, 4, 8, 8, 8, 4],
        "device": "cpu",
        "precision": "float32",
    }


@pytest.fixture(autouse=True)
def _nothing_written(tmp_path: Path) -> Iterator[None]:
    yield
    assert not (tmp_path / "runs").exists()


def listing(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def mistake(error: BaseException) -> UserError:
    """The UserError in the chain of causes, which MONAI wraps."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, UserError):
        found = found.__cause__
    assert found is not None, repr(error)
    return found


def refused(**overrides: Any) -> list[str]:
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=TRAIN, **overrides)
    return mistake(caught.value).problems


# --- options ---


def test_a_sound_config_has_no_problem(tiny: dict[str, Any], tmp_path: Path) -> None:
    before = listing(tmp_path)
    assert check_file(TRAIN, tiny) == []
    assert check_file(TRAIN, {**tiny, "resume": "false", "overwrite": "True", "init_from": None}) == []
    assert listing(tmp_path) == before


UNKNOWN = {
    "lr": "--learning_rate",
    "epoch": "--max_epochs",
    "max_epoch": "--max_epochs",
    "epochs": "--max_epochs",
    "batchsize": "--batch_size",
    "networks::resunett": "--networks::resunet",
    "train::trainer::max_epoch": "--train::trainer::max_epochs",
    "train::trainr::max_epochs": "--train::trainer",
    "train#trainer#max_epoch": "--train::trainer::max_epochs",
    "train::handlers::0::intervall": "--train::handlers::0::interval",
    "networks::unet::feature": "--networks::unet::features",
    "networks::unet::drop_out": "--networks::unet::dropout",
    "validate::evaluator::post_processing": "--validate::evaluator::postprocessing",
}
NO_HINT = {
    "xyzzy": "the config has no xyzzy",
    "augmentation::9::prob": "augmentation is a list of 4, counted from 0",
    "augmentation::-1::prob": "augmentation is a list of 4, counted from 0",
    "augmentation::first::prob": "augmentation is a list of 4, counted from 0",
    "network::0": "network has no parts",
    "classes::0::0": "classes::0 has no parts",
    "validate::inferer::precision": "validate::inferer has no parts",
}
KNOWN: dict[str, Any] = {
    "train::trainer::amp": False,
    "train#trainer#amp": False,
    "train::trainer::epoch_length": 3,
    "train::handlers::0::interval": 2,
    "augmentation::0::prob": 0.1,
    "augmentation::0::_disabled_": True,
    "optimizer::weight_decay": 0.1,
    "lr_scheduler::min_lr": 1e-6,
    "networks::unet::act": "RELU",
    "train::dataloader::drop_last": True,
    "loss::_target_": "monai.losses.DiceCELoss",
}


@pytest.mark.parametrize(("name", "nearest"), UNKNOWN.items())
def test_an_unknown_option_names_the_nearest(tiny: dict[str, Any], name: str, nearest: str) -> None:
    (problem,) = check_file(TRAIN, {**tiny, name: 1})
    assert problem.startswith(f"option --{name}: the config has no ")
    assert problem.endswith(f"; did you mean {nearest}?")


@pytest.mark.parametrize(("name", "words"), NO_HINT.items())
def test_an_option_like_no_other_is_named(tiny: dict[str, Any], name: str, words: str) -> None:
    (problem,) = check_file(TRAIN, {**tiny, name: 1})
    assert problem.startswith(f"option --{name}: ")
    assert words in problem


@pytest.mark.parametrize(("name", "value"), KNOWN.items())
def test_what_a_component_accepts_is_known(tiny: dict[str, Any], name: str, value: Any) -> None:
    assert check_file(TRAIN, {**tiny, name: value}) == []


def test_a_component_that_does_not_tell_its_arguments_takes_any() -> None:
    config = {"native": {"_target_": "builtins.dict"}, "expression": {"_target_": "$torch.nn.ReLU"}}
    assert unknown_overrides({"native::x": 1, "expression::inplace": True}, config) == []
    assert unknown_overrides({"native::x::y": 1}, config) != []


def test_an_option_in_the_second_of_several_files_is_known(tiny: dict[str, Any], tmp_path: Path) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("note: hello\ntrain::trainer::amp: false\n")
    create_workflow(config_file=[TRAIN, str(extra)], **tiny, note="changed")
    with pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=[TRAIN, str(extra)], **tiny, notes="changed")
    assert mistake(caught.value).problems == ["option --notes: the config has no notes; did you mean --note?"]


# --- called from Python ---


def test_from_python_it_is_one_exception_with_all_problems(tiny: dict[str, Any]) -> None:
    problems = refused(
        **{**tiny, "epoch": 3, "seed": -1, "resume": "maybe", "network": "unett", "dataset_dir": "/nowhere/at/all"}
    )
    assert [problem.split(":")[0].split()[0] for problem in problems] == [
        "option",
        "seed",
        "resume",
        "network",
        "dataset_dir",
    ]
    assert "did you mean unet?" in problems[3]
    assert "/nowhere/at/all" in problems[4]


@pytest.mark.parametrize("name", ["train::trainer::max_epoch", "train#trainer#max_epoch"])
def test_nested_options_are_checked_in_a_workflow_too(tiny: dict[str, Any], name: str) -> None:
    (problem,) = refused(**tiny, **{name: 3})
    assert problem.endswith("did you mean --train::trainer::max_epochs?")


def test_monais_own_arguments_are_no_overrides(tiny: dict[str, Any]) -> None:
    workflow = create_workflow(
        config_file=TRAIN,
        meta_file=str(BUNDLE / "metadata.json"),
        logging_file=False,
        workflow_type="train",
        run_id="run",
        **tiny,
    )
    assert workflow.check_properties() == []


def test_a_workflow_made_without_the_command_checks_the_rest(tiny: dict[str, Any]) -> None:
    workflow = ConfigWorkflow(config_file=TRAIN, logging_file=False, **{**tiny, "seed": -1})
    with pytest.raises(RuntimeError) as caught:
        workflow.initialize()
    assert mistake(caught.value).problems == ["seed -1: give a whole number of at least 0"]


def test_a_check_seeds_everything(tiny: dict[str, Any]) -> None:
    drawn = []
    for seed in (3, 3, 4):
        create_workflow(config_file=TRAIN, **{**tiny, "seed": seed})
        weights = torch.rand(3).tolist()
        drawn.append((weights, np.random.rand(3).tolist()))
    assert drawn[0] == drawn[1] != drawn[2]


# --- constants, network, weights, places ---


def test_every_problem_is_in_one_list(tiny: dict[str, Any], scans: Path, tmp_path: Path) -> None:
    (scans / "test-mask" / "test0.png").unlink()
    problems = check_file(
        TRAIN,
        {
            **tiny,
            "epoch": 1,
            "batch_size": 0,
            "precision": "half",
            "output_dir": str(scans / "cases.csv" / "runs"),
            "init_from": str(tmp_path / "absent.pt"),
            "network": "none",
        },
    )
    starts = ("option --epoch", "batch_size 0", "precision 'half'", "output_dir", "init_from", "network 'none'")
    for start in starts:
        assert sum(problem.startswith(start) for problem in problems) == 1, (start, problems)
    assert sum("no mask in" in problem for problem in problems) == 1
    assert len(problems) == len(starts) + 1


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"network": "segnett"}, "did you mean segnet?"),
        ({"channels": 2}, "channels 2: choose 1 (grey) or 3 (colour)"),
        ({"activation": "softmax"}, "gives 1 channels, but softmax over the classes nodule needs 2"),
        ({"networks::unet::out_channels": 3}, "gives 3 channels, but sigmoid over the classes nodule needs 1"),
        ({"networks::unet::in_channels": 3}, "cannot be computed on"),
        ({"networks::unet::features": [4]}, "length 6"),
        ({"networks::unet::_target_": "monai.networks.nets.NoNet"}, "monai.networks.nets.NoNet"),
        ({"image_size": 7}, "cannot be computed on"),
        ({"resume": True, "overwrite": True}, "go on with a run, or replace it"),
        ({"max_epochs": "ten"}, "max_epochs 'ten'"),
        ({"device": "gpu"}, "device 'gpu'"),
        ({"seed": "$1 / 0"}, "seed '$1 / 0': cannot be evaluated"),
    ],
)
def test_a_setting_that_cannot_be_is_one_sentence(tiny: dict[str, Any], overrides: dict[str, Any], words: str) -> None:
    (problem,) = check_file(TRAIN, {**tiny, **overrides})
    assert words in problem
    assert "\n" not in problem


def test_a_number_of_epochs_beside_a_time_is_refused(tiny: dict[str, Any], tmp_path: Path) -> None:
    strong = str(BUNDLE / "train.yaml")
    assert check_file(strong, {**tiny, "hours": 0.5}) == []
    for off in (None, "null", "$None if 1 else 1"):
        assert check_file(strong, {**tiny, "hours": off, "max_epochs": 3}) == []
    (problem,) = check_file(strong, {**tiny, "hours": 0.5, "max_epochs": 3})
    assert problem == "option --max_epochs: hours 0.5 decides on it; leave it out, or add --hours null"
    (tmp_path / "own.yaml").write_text("hours: 0.5\n")
    (problem,) = check_file([strong, str(tmp_path / "own.yaml")], {**tiny, "max_epochs": 3})
    assert "hours 0.5 decides on it" in problem
    assert check_file([strong, str(tmp_path / "own.yaml")], {**tiny, "max_epochs": 3, "hours": "null"}) == []


def test_null_from_the_command_line_is_none(tiny: dict[str, Any]) -> None:
    workflow = create_workflow(
        config_file=str(BUNDLE / "train.yaml"), **{**tiny, "hours": "null", "init_from": "None", "trackers": []}
    )
    assert workflow.parser["hours"] is None
    assert workflow.parser["init_from"] is None


def test_files_that_cannot_be_read_are_told_with_the_rest(tiny: dict[str, Any], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("seed: 1\nseed: 2\n")
    with pytest.warns(UserWarning, match="Duplicate key"), pytest.raises(RuntimeError) as caught:
        create_workflow(config_file=[TRAIN, str(own)], **{**tiny, "network": "unett"})
    starts = [problem.partition(":")[0] for problem in mistake(caught.value).problems]
    assert starts == [str(own), "network 'unett'"]


def test_a_name_that_nothing_reads_is_told(tiny: dict[str, Any], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("sead: 5\n")
    (problem,) = check_file([TRAIN, str(own)], tiny)
    assert problem == f"{own}: sead: nothing reads it; did you mean seed?"
    own.write_text("sead: 5\nseed: '@sead'\nfinalize: []\n")
    assert check_file([TRAIN, str(own)], tiny) == []


def test_a_key_that_stands_twice_is_told(tiny: dict[str, Any], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("seed: 1\nseed: 2\n")
    (problem,) = check_file([TRAIN, str(own)], tiny)
    assert problem.startswith(f"{own}: cannot be read (Duplicate key: `seed`")


def test_a_config_file_that_changes_is_read_anew(tiny: dict[str, Any], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    for text, expected in (("seed: 1\n", []), ("seed: x\n", ["seed 'x'"]), ("seed: 2\n", [])):
        own.write_text(text)
        os.utime(own, (0, 0))
        problems = check_file([TRAIN, str(own)], tiny)
        assert len(problems) == len(expected)
        assert all(problem.startswith(start) for problem, start in zip(problems, expected, strict=True))


def test_colour_and_other_networks_are_fine(tiny: dict[str, Any]) -> None:
    assert check_file(TRAIN, {**tiny, "channels": 3}) == []
    assert check_file(TRAIN, {**tiny, "classes": ["nodule"], "threshold": 0.3}) == []


def test_a_place_that_cannot_be_written_to(
    tiny: dict[str, Any], scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (problem,) = check_file(TRAIN, {**tiny, "output_dir": str(scans / "cases.csv")})
    assert "is a file, not a folder" in problem
    # as root every folder can be written to
    monkeypatch.setattr(check.os, "access", lambda path, mode: Path(path) != tmp_path)
    (problem,) = check_file(TRAIN, {**tiny, "output_dir": str(tmp_path / "runs" / "deep")})
    assert problem == f"output_dir {tmp_path / 'runs' / 'deep'}: {tmp_path} cannot be written to"


def test_a_config_that_cannot_be_read(tmp_path: Path) -> None:
    assert check_file(str(tmp_path / "none.yaml"), {}) == [f"{tmp_path / 'none.yaml'}: no such file"]
    (tmp_path / "broken.yaml").write_text("a: [1, 2\nb: }")
    (problem,) = check_file(str(tmp_path / "broken.yaml"), {})
    assert problem.startswith(f"{tmp_path / 'broken.yaml'}: cannot be read")


@pytest.mark.parametrize("name", ["evaluate.yaml", "inference.yaml"])
def test_evaluation_and_inference_say_what_they_need(tmp_path: Path, name: str) -> None:
    config = str(BUNDLE / name)
    (problem,) = check_file(config, {})
    assert "--run_dir" in problem
    (unknown, problem) = check_file(config, {"rundir": "x", "run_dir": str(tmp_path)})
    assert unknown.endswith("did you mean --run_dir?")
    assert problem == f"{tmp_path}: is not a run folder (no run.json in it)"


# --- datasets ---


def test_a_missing_folder_names_what_was_looked_for(tiny: dict[str, Any], tmp_path: Path) -> None:
    (problem,) = check_file(TRAIN, {**tiny, "dataset_dir": str(tmp_path / "scnas")})
    assert problem.startswith(f"dataset_dir {tmp_path / 'scnas'}: no such folder")
    assert "trainval-image" in problem


def test_an_empty_folder_is_said(tiny: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    problems = check_file(TRAIN, {**tiny, "dataset_dir": str(tmp_path / "empty")})
    assert problems
    assert all(str(tmp_path / "empty") in problem for problem in problems)
    assert "trainval-image" in "\n".join(problems)


def test_an_empty_part_is_said(tiny: dict[str, Any], scans: Path) -> None:
    for kind in ("image", "mask"):
        for path in (scans / f"test-{kind}").iterdir():
            path.unlink()
    problems = check_file(TRAIN, tiny)
    assert sorted(problem.split(":")[0] for problem in problems) == [
        str(scans / "test-image"),
        str(scans / "test-mask"),
    ]


def test_an_image_without_a_mask_and_the_reverse(tiny: dict[str, Any], scans: Path) -> None:
    (scans / "trainval-mask" / "trainval1.png").unlink()
    (scans / "test-image" / "test1.png").unlink()
    problems = check_file(TRAIN, tiny)
    assert sorted(problem.split(":")[0] for problem in problems) == [
        str(scans / "test-mask" / "test1.png"),
        str(scans / "trainval-image" / "trainval1.png"),
    ]
    assert "no image in" in " ".join(problems)
    assert "no mask in" in " ".join(problems)


def test_files_that_cannot_be_read_are_all_named(tiny: dict[str, Any], scans: Path) -> None:
    truncated = scans / "trainval-image" / "trainval0.png"
    truncated.write_bytes(truncated.read_bytes()[:200])
    (scans / "trainval-mask" / "trainval1.png").write_bytes(b"")
    (scans / "test-image" / "test0.png").write_text("<html>not found</html>")
    problems = check_file(TRAIN, tiny)
    assert sorted(problem.split(":")[0] for problem in problems) == [
        str(scans / "test-image" / "test0.png"),
        str(truncated),
        str(scans / "trainval-mask" / "trainval1.png"),
    ]


def test_a_mask_of_another_size_is_said_with_both_sizes(tiny: dict[str, Any], scans: Path) -> None:
    write(scans / "test-mask" / "test0.png", nodule()[:, :-3])
    (problem,) = check_file(TRAIN, tiny)
    assert str(scans / "test-mask" / "test0.png") in problem
    assert "27 x 24" in problem
    assert "30 x 24" in problem


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full(SHAPE, 255, np.uint8), "all foreground"),
        (np.full(SHAPE, 1, np.uint8), "all foreground"),
        (np.tile(np.linspace(0, 255, SHAPE[1]).astype(np.uint8), (SHAPE[0], 1)), "not a mask of two levels"),
        (phantom_scan(0, 0, seed=0).image[40:64, 60:90], "not a mask of two levels"),
    ],
    ids=["full", "full of ones", "ramp", "scan"],
)
def test_what_is_no_mask_is_said(tiny: dict[str, Any], scans: Path, mask: np.ndarray, words: str) -> None:
    write(scans / "trainval-mask" / "trainval2.png", mask)
    (problem,) = check_file(TRAIN, tiny)
    assert problem.startswith(f"{scans / 'trainval-mask' / 'trainval2.png'}: ")
    assert words in problem


@pytest.mark.parametrize(
    "mask",
    [np.zeros(SHAPE, np.uint8), nodule() // 255, 50 + nodule() // 2, np.stack([nodule()] * 3, axis=2)],
    ids=["empty", "zero and one", "two greys", "colour"],
)
def test_masks_of_any_two_levels_and_empty_ones_are_fine(tiny: dict[str, Any], scans: Path, mask: np.ndarray) -> None:
    write(scans / "trainval-mask" / "trainval2.png", mask)
    assert check_file(TRAIN, tiny) == []


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_the_grey_edges_of_a_jpeg_mask_are_fine(tiny: dict[str, Any], scans: Path, suffix: str) -> None:
    (scans / "trainval-mask" / "trainval2.png").unlink()
    Image.fromarray(nodule()).save(scans / "trainval-mask" / f"trainval2{suffix}", quality=80)
    assert check_file(TRAIN, tiny) == []


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG"])
def test_the_noise_of_a_jpeg_is_no_mask(tiny: dict[str, Any], scans: Path, suffix: str) -> None:
    (scans / "trainval-mask" / "trainval2.png").unlink()
    noisy = np.zeros(SHAPE, np.uint8)
    noisy[::5, ::7] = 4
    Image.fromarray(noisy).save(scans / "trainval-mask" / f"trainval2{suffix}", format="JPEG", quality=95)
    (problem,) = check_file(TRAIN, tiny)
    assert f"trainval2{suffix}" in problem


def test_a_case_in_two_parts_is_said(tiny: dict[str, Any], scans: Path) -> None:
    table = scans / "cases.csv"
    table.write_text(table.read_text().replace("test1.png,patient test 0", "test1.png,patient trainval 1"))
    (problem,) = check_file(TRAIN, tiny)
    assert "patient trainval 1" in problem
    assert "test" in problem
    assert "must stay in one part" in problem


def test_a_table_of_cases_that_lacks_an_image_or_a_column(tiny: dict[str, Any], scans: Path) -> None:
    table = scans / "cases.csv"
    whole = table.read_text()
    table.write_text(whole.replace("trainval3.png,patient trainval 1\n", ""))
    (problem,) = check_file(TRAIN, tiny)
    assert "trainval3" in problem
    table.write_text(whole.replace("file,case", "name,person"))
    problems = check_file(TRAIN, tiny)
    assert problems
    assert all(str(table) in problem for problem in problems)


def test_too_few_cases_to_divide(tiny: dict[str, Any], scans: Path) -> None:
    table = scans / "cases.csv"
    table.write_text("file,case\n" + "".join(f"trainval{i}.png,one\n" for i in range(5)) + "test0.png,b\ntest1.png,c\n")
    (problem,) = check_file(TRAIN, tiny)
    assert "at least two" in problem


# --- the command ---


def test_the_command_ends_with_the_list_and_writes_nothing(tiny: dict[str, Any], scans: Path, tmp_path: Path) -> None:
    (scans / "test-mask" / "test0.png").unlink()
    before = listing(tmp_path)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    options = {**tiny, "epoch": 5, "seed": -1, "networks::unet::features": "[4,4,8,8,8,4]"}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", "--config_file", TRAIN, *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    lines = done.stderr.splitlines()
    starts = ("option --epoch: ", "seed -1: ", f"{scans / 'test-image' / 'test0.png'}: no mask in ")
    assert [sum(line.startswith(start) for line in lines) for start in starts] == [1, 1, 1]
    assert list(folder.iterdir()) == []
    folder.rmdir()
    assert listing(tmp_path) == before


def test_a_mistake_that_several_constants_meet_is_told_once(root: Path, tmp_path: Path) -> None:
    problems = check_file(str(root / "bundles" / "nerve" / "train.yaml"), {"dataset_dir": str(tmp_path / "nowhere")})
    assert len(problems) == 1
    assert problems[0].startswith(f"dataset_dir {tmp_path / 'nowhere'}: no such folder")
