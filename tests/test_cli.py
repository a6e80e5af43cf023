"""The command: its exit status, what it prints and where."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import monai_thyroid
from monai_thyroid import cli
from monai_thyroid.data import load_datalist
from monai_thyroid.errors import UserError
from monai_thyroid.images import write_phantom

TRAIN = str(Path(__file__).resolve().parents[1] / "bundles" / "thyroid" / "train_course.yaml")
TINY = [
    *("--image_size", "32", "--networks::unet::features", "[4,4,8,8,8,4]"),
    *("--device=cpu", "--precision=float32", "--phantom_cases", "10"),
]


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    arguments = ["phantom", str(tmp_path / "scans"), "--cases", "10", "--height", "48", "--width", "64"]
    assert cli.main(arguments) == 0
    return tmp_path / "scans"


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "monai_thyroid", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = command("--version", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{monai_thyroid.__version__}\n", "")


def test_a_problem_is_status_one_and_no_traceback(tmp_path: Path) -> None:
    done = command("check", TRAIN, *TINY, "--epoch", "5", "--seed", "-1", folder=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert "option --epoch: the config has no epoch; did you mean --max_epochs?" in lines
    assert "seed -1: give a whole number of at least 0" in lines
    assert list(tmp_path.iterdir()) == []


def test_a_sound_config_is_status_zero(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    output = ["--output_dir", str(tmp_path / "runs")]
    assert cli.main(["check", TRAIN, "--quick", *TINY, *output, "--dataset_dir", str(phantom)]) == 0
    assert capsys.readouterr().out == f"{TRAIN}: nothing wrong found\n"
    assert not (tmp_path / "runs").exists()


def test_problems_go_to_standard_error_one_a_line(phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    next((phantom / "test-mask").iterdir()).unlink()
    arguments = [*TINY, f"--dataset_dir={phantom}", "--batch_size", "0", "--network::0", "x"]
    assert cli.main(["check", TRAIN, *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert [line.split(":")[0] for line in lines[:2]] == ["option --network", "batch_size 0"]
    assert "no mask in" in lines[2]
    assert len(lines) == 3


def test_a_missing_config_is_status_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["check", str(tmp_path / "none.yaml")]) == 1
    assert capsys.readouterr().err == f"{tmp_path / 'none.yaml'}: no such file\n"


def test_a_word_that_is_no_option_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", TRAIN, "--seed", "1", "stray"]) == 1
    assert capsys.readouterr().err == "stray: write overrides as --id value\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], {}),
        (["--a", "1"], {"a": 1}),
        (["--a=1"], {"a": 1}),
        (["--a=b=c"], {"a": "b=c"}),
        (["--lr", "1e-4"], {"lr": 1e-4}),
        (["--seed", "-1"], {"seed": -1}),
        (["--resume", "true"], {"resume": "true"}),
        (["--resume", "True"], {"resume": True}),
        (["--resume", "--seed", "1"], {"resume": True, "seed": 1}),
        (["--resume"], {"resume": True}),
        (["--image-size", "32"], {"image_size": 32}),
        (["--train::trainer::amp", "False"], {"train::trainer::amp": False}),
        (["--features", "[4,4]"], {"features": [4, 4]}),
        (["--init_from", "None"], {"init_from": None}),
        (["--dataset_dir", "../my scans"], {"dataset_dir": "../my scans"}),
        (["--a", "1", "--a", "2"], {"a": 2}),
        (["--a="], {"a": ""}),
    ],
)
def test_overrides_are_read_as_the_bundle_command_reads_them(words: list[str], expected: dict[str, object]) -> None:
    import fire

    assert cli._overrides(words) == expected
    assert {name: type(value) for name, value in cli._overrides(words).items()} == {
        name: type(value) for name, value in expected.items()
    }
    read = {}
    fire.Fire(lambda **options: read.update(options), ["--sentinel=0", *words])
    assert read == {"sentinel": 0, **expected}


@pytest.mark.parametrize("word", ["x", "-x", "32"])
def test_overrides_begin_with_two_dashes(word: str) -> None:
    with pytest.raises(UserError, match="write overrides as --id value"):
        cli._overrides(["--a", "1", word])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["train"],
        ["check"],
        ["phantom"],
        ["phantom", "x", "--case", "10"],
        ["phantom", "x", "--colour", "red"],
        ["phantom", "x", "--cases", "many"],
        ["phantom", "x", "y"],
        ["--verbose"],
    ],
)
def test_unusable_arguments_are_status_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "usage: monai-thyroid" in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["phantom", "-h"]])
def test_help_is_status_zero(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 0
    assert "usage: monai-thyroid" in capsys.readouterr().out


def test_phantom_writes_a_dataset_that_can_be_read(
    phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_datalist(str(phantom), layout="tn3k")
    assert data.grouping == "known"
    assert len({item["group"] for item in data.items}) == 10
    assert data.inspect().problems == []
    again = ["phantom", str(tmp_path / "again"), "--cases", "10", "--height", "48", "--width", "64", "--seed", "0"]
    capsys.readouterr()
    assert cli.main(again) == 0
    assert capsys.readouterr().out == f"Synthetic scans of 10 patients: {tmp_path / 'again'}\n"
    assert load_datalist(str(tmp_path / "again"), layout="tn3k").inspect().data_hash == data.inspect().data_hash


def test_phantom_does_not_write_over_anything(phantom: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in phantom.rglob("*"))
    assert cli.main(["phantom", str(phantom), "--cases", "10"]) == 1
    assert str(phantom) in capsys.readouterr().err
    assert sorted(path.name for path in phantom.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [
        ["--cases", "0"],
        ["--cases", "-3"],
        ["--height", "0"],
        ["--width", "-5"],
        ["--seed", "-1"],
        ["--empty-fraction", "1.5"],
        ["--empty-fraction", "nan"],
    ],
)
def test_phantom_says_what_it_cannot_draw(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["phantom", str(tmp_path / "scans"), *options]) == 1
    assert capsys.readouterr().err.strip()
    assert list(tmp_path.iterdir()) == []


def test_networks_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["networks", "unet", "--no-exports"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("network")
    assert row.split()[:5] == ["unet", "256", "x", "256", "1.98"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nope"], "Not in the menu: nope"),
        (["unet", "--output", "missing/folder/table.md"], "its folder does not exist"),
        (["unet", "--no-exports", "--output", "table.md"], "leave --no-exports out"),
    ],
)
def test_networks_say_what_is_wrong(
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["networks", *words]) == 1
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_networks_keep_what_others_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "mine.md"
    page.write_text("# My networks\n")
    assert cli.main(["networks", "nope", "--output", str(page)]) == 1  # told before the name
    assert "once each" in capsys.readouterr().err
    assert page.read_text() == "# My networks\n"


def test_audit_ends_with_one_where_results_would_be_false(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scans = write_phantom(tmp_path / "scans", cases=10, seed=0, height=48, width=64)
    assert cli.main(["audit", str(scans), "--output", str(tmp_path / "audit.html")]) == 0
    assert "Audit of scans" in capsys.readouterr().out
    assert (tmp_path / "audit.html").read_text().startswith("<!")
    assert cli.main(["audit", str(scans), "--output", str(next((scans / "test-image").iterdir()))]) == 1
    assert "no page of an earlier audit" in capsys.readouterr().err
    (scans / "cases.csv").unlink()
    assert cli.main(["audit", str(scans), "--write-groups", str(scans / "groups.csv")]) == 0
    assert "images that look alike" in capsys.readouterr().out
    assert (scans / "groups.csv").read_text().startswith("file,group,basis\n")
    (next((scans / "test-mask").iterdir())).write_bytes(b"not a picture")
    assert cli.main(["audit", str(scans)]) == 1
    assert "PROBLEM" in capsys.readouterr().out
    assert cli.main(["audit", str(tmp_path / "nowhere")]) == 1
    assert "no such folder" in capsys.readouterr().err


COMMANDS = {
    "check": ["check", "x.yaml"],
    "phantom": ["phantom", "x"],
    "new": ["new", "x", "--images", "x", "--masks", "x"],
    "networks": ["networks"],
    "predict": ["predict", "x", "y", "--output", "z"],
    "export": ["export", "x"],
    "pack": ["pack", "x", "--output", "y"],
    "gain": ["gain", "x"],
    "score": ["score", "--predictions", "x", "--references", "y", "--name", "n", "--output", "z"],
    "pacs": ["pacs", "--model", "x", "--spool", "y", "--send-to", "h:1:A"],
    "audit": ["audit", "x"],
    "report": ["report", "x", "--output", "y"],
    "compare": ["compare", "x.yaml", "--networks", "unet", "--output", "y"],
    "bundles": ["bundles"],
    "completion": ["completion", "bash"],
    "ensemble": ["ensemble", "x", "y"],
    "robustness": ["robustness", "x"],
    "card": ["card", "x", "--output", "y"],
    "label": ["label", "--model", "x", "--studies", "y"],
    "runs": ["runs", "x"],
    "web": ["web", "--model", "x"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (KeyboardInterrupt(), "stopped", 130),
        (OSError(errno.ENOSPC, "No space left on device", "out/page.html"), "out/page.html: the disk is full", 1),
        (PermissionError(errno.EACCES, "Permission denied", "out"), "out: Permission denied", 1),
    ],
)
def test_every_command_ends_with_one_line(
    name: str,
    error: BaseException,
    line: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr(cli, f"_{name}", fail)
    assert cli.main(COMMANDS[name]) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(line)
    assert len(printed.err.splitlines()) == 1


def test_the_list_of_commands_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    assert set(re.findall(r"^    (\w+)", capsys.readouterr().out, re.MULTILINE)) == set(COMMANDS)


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_phantom", lambda options: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["phantom", "x"])


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_traceback(tmp_path: Path) -> None:
    line = f"{sys.executable} -m monai_thyroid networks unet --no-exports | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=300)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
