"""Planning and executing many runs; executors are tried with small scripts in the place of trainings."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import create_workflow

from monai_thyroid import cli
from monai_thyroid.data import datalist
from monai_thyroid.errors import UserError
from monai_thyroid.files import locked, read_json, write_json
from monai_thyroid.images import write_phantom
from monai_thyroid.runfolder import HistoryRow, RunFolder, finished_epochs
from monai_thyroid.sweep import plan
from monai_thyroid.sweep.executors import run_local
from monai_thyroid.sweep.jobs import Job, execute
from monai_thyroid.sweep.plan import Sweep, plan_sweep
from monai_thyroid.sweep.progress import Progress

TRAIN = Path(__file__).resolve().parents[2] / "bundles" / "thyroid" / "train_course.yaml"
TINY: dict[str, Any] = {
    "phantom_cases": 10,
    "image_size": 32,
    "max_epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.01,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "device": "cpu",
    "precision": "float32",
}


def tiny(output: Path, **changes: Any) -> Sweep:
    options = {"networks": ["unet"], "seeds": [0], "overrides": TINY, **changes}
    return plan_sweep(TRAIN, output=output, **options)


# --- the plan ---


def option(job: Job, name: str) -> str:
    (value,) = (word.partition("=")[2] for word in job.train if word.startswith(f"--{name}="))
    return value


def test_every_run_is_planned_once_and_nothing_is_written(tmp_path: Path) -> None:
    found = tiny(tmp_path / "new", networks=["unet", "segnet"], seeds=[0, 3], folds=2)
    assert [job.name for job in found.jobs] == [
        f"{network}-seed-{seed}-fold-{fold}" for seed in (0, 3) for fold in (0, 1) for network in ("unet", "segnet")
    ]
    assert len({job.path for job in found.jobs}) == 8
    assert {job.state for job in found.jobs} == {"new"}
    assert {job.epochs for job in found.jobs} == {2}
    job = found.jobs[-1]
    assert job.path == tmp_path / "new/runs/thyroid/phantom" / job.path.parent.name / "seed-3-fold-1"
    assert [option(job, name) for name in ("network", "seed", "fold", "folds")] == ["'segnet'", "3", "1", "2"]
    assert option(job, "resume") == "True"
    assert found.test_groups == 2, "the folds share the test part"
    assert list(tmp_path.iterdir()) == []


def test_networks_may_stand_in_a_file_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    block = {"_target_": "torch.nn.Conv2d", "_mode_": "callable", "kernel_size": 1}
    mine.write_text(yaml.safe_dump({"networks::mine": {**block, "in_channels": "@channels", "out_channels": 1}}))
    found = plan_sweep([TRAIN, mine], networks=["mine"], seeds=[0], overrides=TINY, output=tmp_path / "new")
    (job,) = found.jobs
    assert job.train[job.train.index("--config_file") + 1] == f"['{TRAIN}', '{mine}']"
    assert job.evaluate[job.evaluate.index("--config_file") + 1] == str(TRAIN.with_name("evaluate.yaml"))
    with pytest.raises(UserError, match="network 'mine': the menu has unet"):
        tiny(tmp_path / "new", networks=["mine"])


def test_a_number_of_epochs_beside_a_time_is_refused_before_any_run(tmp_path: Path) -> None:
    strong = TRAIN.with_name("train.yaml")
    with pytest.raises(UserError, match="option --max_epochs: hours 1 decides on it"):
        plan_sweep(strong, networks=["unet"], seeds=[0], overrides={**TINY, "hours": 1}, output=tmp_path / "new")


def test_a_training_for_a_time_is_known_again(tmp_path: Path) -> None:
    strong, output = TRAIN.with_name("train.yaml"), tmp_path / "out"
    given = {name: value for name, value in TINY.items() if name not in ("max_epochs", "patience")} | {"hours": 1e-9}
    plan = plan_sweep(strong, networks=["unet"], seeds=[0], overrides=given, output=output)
    (row, *_) = [line for line in plan.table().splitlines() if line.startswith("unet-seed-0")]
    assert row.split()[1:] == ["new", "0,", "in", "1e-09", "h", *row.split()[6:]]
    workflow = create_workflow(
        config_file=str(strong), trackers=[], logging_file=False, **given, output_dir=str(output / "runs")
    )
    workflow.run()
    workflow.finalize()
    (again,) = plan_sweep(strong, networks=["unet"], seeds=[0], overrides=given, output=output).jobs
    assert (again.state, again.trained) == ("complete", 1)


@pytest.mark.slow
def test_a_run_is_found_where_its_training_has_left_it(tmp_path: Path) -> None:
    """The only real training of this file that is not slow: the planned folder and hash are those of the training."""
    (job,) = tiny(tmp_path / "out").jobs
    workflow = create_workflow(
        config_file=str(TRAIN), trackers=[], logging_file=False, **TINY, output_dir=str(tmp_path / "out" / "runs")
    )
    workflow.run()
    workflow.finalize()
    # trackers are the bundle's plumbing, so leaving them out makes no other run of it
    (again,) = tiny(tmp_path / "out").jobs
    assert again.path == job.path
    assert (again.state, again.trained, again.unscored()) == ("complete", 2, ["validation"])
    assert [command[-1] for command in again.commands()] == ["validation"]
    assert not again.finished
    assert "to be scored on validation" in tiny(tmp_path / "out").table()

    record = read_json(job.path / "run.json")
    scored = {"part": "validation", **{key: record[key] for key in ("checkpoint_sha256", "data_hash")}}
    file = job.path / "evaluations" / "phantom-validation-clinic" / "evaluation.json"
    file.parent.mkdir()
    write_json(file, scored)
    (done,) = tiny(tmp_path / "out").jobs
    assert done.finished
    assert list(done.commands()) == []
    for other in ({"checkpoint_sha256": "earlier"}, {"data_hash": "of another dataset"}, {"part": "train"}):
        write_json(file, {**scored, **other})
        assert not done.finished

    def state(overrides: dict[str, Any] | None = None, **changes: Any) -> Job:
        write_json(job.path / "run.json", {**record, **changes})
        return tiny(tmp_path / "out", overrides={**TINY, **(overrides or {})}).jobs[0]

    assert state(status="running").state == "interrupted"
    assert state(status="failed", error="interrupted").state == "interrupted"
    assert state(status="failed", error="FloatingPointError: nan").state == "failed"
    wider = {"networks::unet::features": [4, 4, 4, 4, 8, 4]}
    other = state(wider)
    assert (other.path, other.state, other.trained) == (job.path, "other settings", 0)
    assert "--overwrite=True" not in other.train
    anew = state({**wider, "overwrite": True})
    assert "--overwrite=True" in anew.train
    assert "--resume=True" not in anew.train
    with pytest.raises(UserError, match="--overwrite true trains it anew"):
        tiny(tmp_path / "out", overrides={**TINY, **wider}).execute()
    # Unlike a network's argument, a changed recipe is another race, with folders of its own.
    assert state({"learning_rate": 0.02}).path.parent != job.path.parent


def test_a_plan_for_other_machines_needs_none_of_their_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = {name: value for name, value in TINY.items() if name not in ("device", "precision")}
    with pytest.raises(UserError, match="no CUDA device"):
        tiny(tmp_path, overrides={**recipe, "device": "cuda"})
    found = tiny(tmp_path, overrides={**recipe, "device": "cuda"}, elsewhere=True)
    (job,) = found.jobs
    assert found.device == "cuda"
    assert option(job, "device") == "'cuda'"
    # Otherwise each machine would choose its own, and the runs be of several recipes.
    assert option(job, "precision") in ("'float32'", "'bfloat16'")
    (same,) = tiny(tmp_path, overrides={**recipe, "device": "cpu"}).jobs
    assert same.path == job.path


def test_the_epochs_of_all_stages_are_counted(tmp_path: Path) -> None:
    found = plan_sweep(
        TRAIN.parents[1] / "polyp" / "train_course.yaml",
        networks=["unet"],
        seeds=[0],
        output=tmp_path,
        overrides={"image_size": 32, "phantom_cases": 10, "first_stage_epochs": 5, "max_epochs": 3, "device": "cpu"},
    )
    assert found.jobs[0].epochs == 8


def test_a_config_may_refer_to_arguments_of_its_data(tmp_path: Path) -> None:
    """As that of nerves does, which finds its classes in the data; their files are read once all the same."""
    found = plan_sweep(
        TRAIN.parents[1] / "nerve" / "train.yaml",
        networks=["unet", "resunet"],
        seeds=[0],
        output=tmp_path,
        overrides={"image_size": 32, "phantom_cases": 10, "device": "cpu"},
    )
    assert len(found.jobs) == 2


def test_the_files_of_a_fold_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    facts = datalist.read_facts
    monkeypatch.setattr(datalist, "read_facts", lambda items, classes: read.append(1) or facts(items, classes))
    tiny(tmp_path, networks=["unet", "segnet"], seeds=[0, 1, 2])
    assert len(read) == 1
    tiny(tmp_path, networks=["unet", "segnet"], seeds=[0, 1], folds=3)
    assert len(read) == 1 + 3


@pytest.mark.parametrize(
    ("options", "problems"),
    [
        (
            {"networks": ["unet", "segne"], "overrides": {**TINY, "epochs": 5, "batch_size": 0}},
            ["did you mean --max_epochs?", "did you mean segnet?", "batch_size 0"],
        ),
        ({"networks": [], "seeds": [0, 0, -1]}, ["networks: give", "seeds: 0 is named twice", "seeds -1"]),
        (
            {"overrides": {"seed": 3, "network": "unet", "output_dir": "x", "resume": True, "fold": 0}},
            ["--seed: use --seeds", "--network: use --networks", "--output_dir: use", "--resume: leave", "--fold: use"],
        ),
        ({"folds": 1, "overrides": {"overwrite": "perhaps"}}, ["folds 1", "overwrite 'perhaps'"]),
        ({"overrides": {**TINY, "split_seed": "$@seed"}, "seeds": [0, 1]}, ["not be scored on the same cases"]),
        ({"overrides": {**TINY, "dataset_dir": "nowhere"}}, ["nowhere"]),
    ],
)
def test_all_that_is_wrong_is_said_at_once(tmp_path: Path, options: dict[str, Any], problems: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        tiny(tmp_path / "new", **options)
    for problem in problems:
        assert problem in str(caught.value)
    assert len(caught.value.problems) == len(problems)
    assert list(tmp_path.iterdir()) == []


def test_a_config_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        plan_sweep(tmp_path / "train.yaml", networks=["unet"], seeds=[0], output=tmp_path)
    assert len(caught.value.problems) == 2
    assert f"{tmp_path / 'evaluate.yaml'}: no such file" in caught.value.problems


def test_the_first_plan_of_a_folder_declares_the_margin(tmp_path: Path) -> None:
    first = tiny(tmp_path, margin=0.02)
    assert first.content["margin"] == 0.02
    write_json(tmp_path / "plan.json", first.content)
    assert tiny(tmp_path, margin=0.05).content["margin"] == 0.02, "a later one is not declared beforehand"
    write_json(tmp_path / "plan.json", {key: value for key, value in first.content.items() if key != "margin"})
    assert tiny(tmp_path, margin=0.05).content["margin"] is None


def test_one_folder_holds_one_comparison(tmp_path: Path) -> None:
    write_json(tmp_path / "plan.json", tiny(tmp_path).content)
    # Other networks, seeds and settings are fine.
    tiny(tmp_path, networks=["segnet", "unet"], seeds=[1, 2], overrides={**TINY, "max_epochs": 3})
    with pytest.raises(UserError, match="holds a comparison with folds None, this one is with folds 2"):
        tiny(tmp_path, folds=2)
    with pytest.raises(UserError, match=r"on other data .*; choose another --output"):
        tiny(tmp_path, overrides={**TINY, "phantom_seed": 1})
    scans = write_phantom(tmp_path / "scans", cases=10, seed=0, height=48, width=64)
    with pytest.raises(UserError, match="with dataset phantom, this one is with dataset scans"):
        tiny(tmp_path, overrides={**TINY, "dataset_dir": str(scans)})


def history(path: Path, seconds: list[float]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    for epoch, taken in enumerate(seconds, 1):
        row = {"stage": 1, "epoch": epoch, "lr": 0.1, "train_loss": 1.0, "val_loss": 1.0, "val_dice": 0, "val_iou": 0}
        RunFolder(path).append(HistoryRow(**row, seconds=taken))


def test_the_estimate_is_that_of_epochs_timed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = {**TINY, "max_epochs": 50}
    found = tiny(tmp_path, seeds=[0, 1], overrides=overrides)
    history(found.jobs[0].path, [9.0, 11.0])  # as left by a training killed before run.json was there
    history(found.jobs[0].path.with_name("seed-7"), [13.0])  # of an earlier plan
    monkeypatch.setattr(plan, "_image_seconds", lambda *_: pytest.fail("nothing is to be probed"))
    lines = tiny(tmp_path, seeds=[0, 1], overrides=overrides).table(at_once=2).splitlines()
    assert lines[1].split() == ["unet-seed-0", "new", "2", "of", "50", "9", "min"]  # 48 epochs of 11 s
    assert lines[2].split() == ["unet-seed-1", "new", "0", "of", "50", "9", "min"]  # 50
    assert "Estimate: 9 min with 2 at a time (18 min of computing), from epochs that were timed before" in lines[-1]


def test_what_was_never_trained_is_probed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = tiny(tmp_path, networks=["unet"])
    measured = plan._image_seconds(found.parsers["unet"], 1)
    assert 0 < measured < 1
    monkeypatch.setattr(plan, "_image_seconds", lambda *_: 2.0)
    expected = 2 * 2 * (found.train_images + found.validation_images / 3)
    assert found.train_images > found.validation_images > 0
    text = found.table()
    assert f"Estimate: {plan._duration(expected)} with 1 at a time" in text
    assert f"Estimate: {plan._duration(expected)} of computing, from" in found.table(ray=plan.Ray())
    assert "a few steps of unet on random images on this machine." in text
    assert "training may stop early" in text


# --- executors ---


def script(tmp_path: Path, name: str, train: str, **changes: Any) -> Job:
    """A job whose training is a script, executed in its run folder."""
    path = tmp_path / "runs" / "bundle" / "data" / f"{name}-0123" / "seed-0"
    path.mkdir(parents=True)
    job = Job(
        network=name,
        seed=0,
        fold=None,
        path=path,
        state="new",
        epochs=3,
        trained=0,
        log=tmp_path / "logs" / f"{name}.log",
        train=("-c", train),
        evaluate=("-c", "import pathlib, sys; pathlib.Path(sys.argv[2]).touch()"),
        cwd=path,
    )
    return replace(job, **changes)


def test_training_then_scoring_one_log(tmp_path: Path) -> None:
    job = script(tmp_path, "unet", "import os; print('trained with', os.environ['OMP_NUM_THREADS'])")
    assert execute(job) is None
    assert {path.name for path in job.path.iterdir()} == {"test", "validation"}
    text = job.log.read_text()
    assert text.count("$ python -c") == 3
    assert "trained with 1" in text


WRAPPED = """
try:
    raise FloatingPointError('the cause')
except FloatingPointError as error:
    raise RuntimeError('Failed to evaluate') from error
"""


def test_a_failing_run_keeps_no_other_from_going_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [
        script(tmp_path, "bad", "import sys; print('a reason'); sys.exit('the error')"),
        script(tmp_path, "good", "print('well')"),
        script(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"),
        script(tmp_path, "absent", "", cwd=tmp_path / "nowhere"),
        script(tmp_path, "wrapped", WRAPPED),
    ]
    write_json(jobs[2].path / "run.json", {"status": "running", "error": None})
    (jobs[0].log.parent).mkdir()
    jobs[0].log.write_text("of an earlier attempt\n")
    with Progress(jobs) as progress, closing(run_local(jobs, at_once=2)) as steps:
        for finished in steps:
            progress.update(finished)
    assert set(progress.failures) == {"bad-seed-0", "killed-seed-0", "absent-seed-0", "wrapped-seed-0"}
    assert progress.failures["wrapped-seed-0"] == "FloatingPointError: the cause"
    assert progress.failures["bad-seed-0"] == "a reason\nthe error"
    assert progress.failures["killed-seed-0"] == "killed by SIGKILL"
    assert "nowhere" in progress.failures["absent-seed-0"]
    record = read_json(jobs[2].path / "run.json")
    assert (record["status"], record["error"]) == ("failed", "killed by SIGKILL")
    assert (jobs[1].path / "validation").is_file()
    assert not (jobs[0].path / "test").exists()
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("good-seed-0: started") for line in lines) == 1
    assert sum("bad-seed-0: FAILED, see" in line for line in lines) == 1
    assert lines[-1].endswith("(5 of 5 ended)")
    assert len(lines) <= 10  # nothing but changes


def test_as_many_at_a_time_as_asked_for(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = (
        f"import time; note = lambda sign: open({str(seen)!r}, 'a').write(sign); note('+'); time.sleep(1); note('-')"
    )
    jobs = [script(tmp_path, f"n{number}", program) for number in range(4)]
    for _ in run_local(jobs, at_once=2):
        pass
    signs = seen.read_text()
    assert len(signs) == 8
    assert max(signs[:end].count("+") - signs[:end].count("-") for end in range(9)) == 2


def test_a_predecessor_that_is_still_dying_is_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl,os,sys,time; fcntl.flock(os.open(sys.argv[1],0),2); print(1,flush=True); "
         "time.sleep(2)", str(script(tmp_path, "unet", "").path)], stdout=subprocess.PIPE
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    path = tmp_path / "runs" / "bundle" / "data" / "unet-0123" / "seed-0"
    with pytest.raises(UserError), locked(path):
        pass
    job = script(tmp_path / "other", "unet", "print('trained')", path=path)
    assert execute(job) is None
    assert holder.poll() == 0


ENDLESS = """
import os, pathlib, signal, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('stopped').touch(), os._exit(1)))
signal.signal(signal.SIGINT, lambda *_: pathlib.Path('interrupted twice').touch())
pathlib.Path('pid').write_text(str(os.getpid()))
time.sleep(600)
"""
PARENT = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_plan import ENDLESS, script
from monai_thyroid.sweep.executors import run_local
jobs = [script(Path(sys.argv[1]), name, ENDLESS) for name in ('a', 'b', 'c')]
try:
    for _ in run_local(jobs, at_once=2):
        pass
except KeyboardInterrupt:
    sys.exit(7)
"""


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def wait_for(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_children_end_with_their_parent(tmp_path: Path, stop: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), str(Path(__file__).parent)],
        # A shell's background job has SIGINT ignored, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type,return-value]
        start_new_session=True,
    )
    folders = [tmp_path / "runs" / "bundle" / "data" / f"{name}-0123" / "seed-0" for name in ("a", "b", "c")]
    try:
        wait_for(lambda: all((path / "pid").is_file() and (path / "pid").read_text() for path in folders[:2]), "start")
        children = [int((path / "pid").read_text()) for path in folders[:2]]
        assert all(map(alive, children))
        if stop is signal.SIGINT:
            os.killpg(parent.pid, stop)  # as a terminal does
        else:
            parent.send_signal(stop)
        code = parent.wait(60)
    finally:
        parent.kill()
    wait_for(lambda: not any(map(alive, children)), "a child outlives its parent", 10)
    assert code == (-signal.SIGKILL if stop is signal.SIGKILL else 7)
    for path in folders[:2]:
        assert (path / "stopped").exists() == (stop is not signal.SIGKILL)
        assert not (path / "interrupted twice").exists()
        assert not (path / "test").exists()
    assert not (folders[2] / "pid").exists()


def test_two_comparisons_in_one_folder_are_refused(tmp_path: Path) -> None:
    found = tiny(tmp_path)
    with locked(tmp_path), pytest.raises(UserError, match="another process"):
        found.execute()


def test_half_a_line_of_a_history_is_no_epoch(tmp_path: Path) -> None:
    found = tiny(tmp_path)
    history(found.jobs[0].path, [1.0, 3.0])
    with open(found.jobs[0].path / "history.csv", "a") as file:
        file.write("1,3,1e-")
    assert [row.seconds for row in finished_epochs(found.jobs[0].path / "history.csv")] == [1.0, 3.0]
    assert finished_epochs(tmp_path / "absent.csv") == []
    assert tiny(tmp_path).jobs[0].trained == 2


# --- the command ---


def compare(*words: str) -> int:
    options = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    return cli.main(["compare", str(TRAIN), *words, *options])


def test_a_plan_alone_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compare("--networks", "unet", "--seeds=0,2", "--output", str(tmp_path / "out"), "--plan") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["run", "unet-seed-0", "unet-seed-2"]
    assert "Estimate: " in lines[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["--jobs", "0"], "--jobs 0: give at least 1"), (["--seeds", "0,x"], "--seeds 0,x: give whole numbers")],
)
def test_the_command_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    assert compare("--networks", "unet", "--output", str(tmp_path / "out"), *words) == 1
    assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_report_tells_of_runs_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {}

    def execute(self: Sweep, **_: Any) -> dict[str, str]:
        for job in self.jobs[:2]:
            job.path.mkdir(parents=True)
            write_json(job.path / "run.json", {"run_hash": "of another run"})
        return {"unet-seed-1": "a reason of its own", "unet-seed-2": "another reason"}

    def make_report(paths: list[str], **options: Any) -> Path:
        asked.update(options, paths=paths)
        return Path("report.html")

    monkeypatch.setattr(Sweep, "execute", execute)
    monkeypatch.setattr("monai_thyroid.compare.make_report", make_report)
    arguments = ("--networks", "unet", "--seeds", "0,1,2", "--output", str(tmp_path), "--margin", "0.02", "--no-images")
    assert compare(*arguments) == 1
    assert [Path(path).name for path in asked["paths"]] == ["seed-0", "seed-1"]
    assert asked["output"] == tmp_path / "report"
    assert (asked["margin"], asked["images"]) == (0.02, False)
    (absent,) = asked["failed"]
    assert (absent.network, absent.seed, absent.fold, absent.reason) == ("unet", "2", "", "another reason")
    assert "a reason of its own" in capsys.readouterr().err

    def stopped(self: Sweep, **_: Any) -> dict[str, str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(Sweep, "execute", stopped)
    assert compare(*arguments, "--overwrite", "true") == 130
    assert "the same command goes on" in capsys.readouterr().err
