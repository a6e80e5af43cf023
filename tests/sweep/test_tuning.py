"""Settings chosen for each network on validation alone; most trainings are simulated."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import create_workflow

from monai_thyroid import cli
from monai_thyroid.errors import UserError
from monai_thyroid.files import read_json, write_json
from monai_thyroid.runfolder import protocol_hash, read_run, run_hash
from monai_thyroid.sweep import plan
from monai_thyroid.sweep.executors import Finished
from monai_thyroid.sweep.jobs import Job
from monai_thyroid.sweep.plan import Sweep, plan_sweep
from monai_thyroid.sweep.tuning import Tuning, choose, in_words

TRAIN = Path(__file__).resolve().parents[2] / "bundles" / "thyroid" / "train_course.yaml"
TINY: dict[str, Any] = {
    "phantom_cases": 10,
    "image_size": 32,
    "max_epochs": 2,
    "batch_size": 4,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "networks::unet_classic::features": [4, 4, 4, 4, 4, 4],
    "device": "cpu",
    "precision": "float32",
}
RATES = ["learning_rate=1e-2,1e-3"]


def tuned(output: Path, texts: Sequence[str] = RATES, *, seeds: Sequence[int] = (0,), **changes: Any) -> Sweep:
    epochs = changes.pop("epochs", None)
    options = {"networks": ["unet", "unet_classic"], "seeds": [0], "overrides": TINY, **changes}
    return plan_sweep(TRAIN, output=output, tuning=Tuning.read(texts, seeds=seeds, epochs=epochs), **options)


# --- the grid ---


def test_all_combinations_are_tried() -> None:
    grid = Tuning.read(["learning_rate=1e-4,3e-4", "networks::unet::features=[4,4],[8,8]"], seeds=[3])
    assert [list(one.values()) for one in grid.settings] == [
        [1e-4, [4, 4]], [1e-4, [8, 8]], [3e-4, [4, 4]], [3e-4, [8, 8]],
    ]  # fmt: skip
    assert in_words(grid.settings[0]) == "learning_rate 0.0001, networks::unet::features [4, 4]"
    assert grid.record()["grid"][0] == {"option": "learning_rate", "values": [1e-4, 3e-4]}


def test_all_that_is_wrong_with_a_grid_is_said_at_once() -> None:
    texts = [
        "learning_rate=1e-3,0.001", "weight_decay=0.1,", "batch_size=8", "image_size", "learning_rate=1,2", "seed=1,2",
        "max_epochs=5,9", "optimizer::lr=$@learning_rate,1", "val_interval=1,2,patience=3", "split=groups,frames",
    ]  # fmt: skip
    with pytest.raises(UserError) as caught:
        Tuning.read(texts, seeds=[0, 0, -1], epochs=0)
    told = [
        "0.001 is there twice", "a value is empty", "has one value only", "write NAME=VALUE", "learning_rate: is there",
        "seed: cannot be tuned", "--tune-epochs", "no expression", "a --tune of its own", "what is scored",
        "--tune-epochs 0", "seeds -1", "0 is named twice",
    ]  # fmt: skip
    assert len(caught.value.problems) == len(told)
    for one in told:
        assert one in str(caught.value)
    with pytest.raises(UserError, match="121 settings"):
        Tuning.read([f"{name}={','.join(map(str, range(11)))}" for name in ("patience", "weight_decay")], seeds=[0])


def test_the_best_mean_over_seeds_is_taken_and_a_setting_that_diverged_never() -> None:
    settings = [{"learning_rate": rate} for rate in (1, 2, 3, 4)]
    taken = choose(settings, [[0.5, 0.7], [0.99, None], [0.6, 0.6], [0.1, 0.2]])
    assert taken is not None
    assert taken.setting == {"learning_rate": 1}, "the first of equal ones"
    assert [one["dice"] for one in taken.tried()] == [pytest.approx(0.6), None, pytest.approx(0.6), pytest.approx(0.15)]
    assert "learning_rate 2: diverged" in taken.sentence()
    assert choose(settings[:1], [[None]]) is None


# --- the plan ---


def test_trials_know_nothing_of_the_test_part_and_the_runs_wait_for_them(tmp_path: Path) -> None:
    found = tuned(tmp_path / "new", seeds=[1], epochs=1, folds=2, networks=["unet"])
    assert len(found.trials) == 2 * 2
    assert {(job.parts, job.state, job.epochs) for job in found.trials} == {(("validation",), "new", 1)}
    assert len({job.path for job in found.trials} | {job.log for job in found.trials}) == 8
    for job in found.trials:
        assert job.added is not None
        file, content = job.added
        assert content["score_test"] is False
        assert content["max_epochs"] == 1
        assert str(file) in job.train[job.train.index("--config_file") + 1]
        assert not any(word.startswith(("--max_epochs", "--learning_rate")) for word in job.train)
        assert list(job.unscored()) == ["validation"]
    assert {(job.state, job.epochs) for job in found.jobs} == {("waits", 2)}
    assert list(tmp_path.iterdir()) == []


def test_a_grid_that_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        tuned(tmp_path / "new", ["learning_rate=-1,fast,1e-3", "batc=3,4", "batch_size=2,4"])
    assert len(caught.value.problems) == 4
    for told in ("learning_rate -1", "'fast'", "did you mean --batch_size?", "also given as --batch_size"):
        assert told in str(caught.value)
    given = {name: value for name, value in TINY.items() if name != "networks::unet::features"}
    with pytest.raises(UserError, match=r"^--tune networks::unet::features \[4, 4\]: "):  # leaves it without a run
        tuned(tmp_path / "new", ["networks::unet::features=[4,4,4,4,4,4],[4,4]"], networks=["unet"], overrides=given)
    assert list(tmp_path.iterdir()) == []


def test_budgets_without_a_grid_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(_words(tmp_path, "--tune-epochs", "3")) == 1
    assert "--tune-seeds and --tune-epochs say how" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_with_a_grid_is_told_with_all_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", str(TRAIN), "--networks", "unett", "--output", str(tmp_path / "new"), "--seeds", "0,x"]
    words += ["--tune", "learning_rate=1e-3", "--jobs", "0", "--margin", "-1", "--detect", "2", "--epoch", "3"]
    assert cli.main([*words, "--phantom_cases", "10", "--image_size", "32"]) == 1
    told = capsys.readouterr().err
    for part in (
        "has one value only", "give whole numbers", "--jobs 0", "--margin -1", "belongs to --plan", "--detect 2: give",
        "did you mean --max_epochs?", "did you mean unet?",
    ):  # fmt: skip
        assert part in told
    assert list(tmp_path.iterdir()) == []


def _words(tmp_path: Path, *more: str) -> list[str]:
    return [
        "compare",
        str(TRAIN),
        "--networks",
        "unet",
        "--output",
        str(tmp_path / "new"),
        "--phantom_cases",
        "10",
        *more,
    ]


# --- the choice ---

VALIDATION = {("unet", 0.01): 0.6, ("unet", 0.001): 0.7, ("unet_classic", 0.01): 0.8, ("unet_classic", 0.001): 0.5}


def simulated(executed: list[Job], *, diverging: Sequence[tuple[str, float]] = (), failing: Sequence[str] = ()) -> Any:
    """Trainings whose score on test is the opposite of that on validation."""

    def run_local(jobs: Sequence[Job], *, at_once: int) -> Generator[Finished, None, None]:
        for job in jobs:
            executed.append(job)
            assert job.added is not None
            file, content = job.added
            assert yaml.safe_load(file.read_text()) == content
            key = (job.network, content["learning_rate"])
            record = {"status": "done", "run_hash": "now", "data_hash": "d", "checkpoint_sha256": "c", "classes": ["a"]}
            record |= {"dataset": "phantom", "network": job.network, "seed": job.seed}
            error = None
            if job.setting and (key in diverging or job.network in failing):
                error = "FloatingPointError: nan" if key in diverging else "killed by SIGKILL"
                record |= {"status": "failed", "error": error}
            job.path.mkdir(parents=True)
            write_json(job.path / "run.json", record)
            for part in job.parts if error is None else ():
                dice = VALIDATION[key] if part == "validation" else 1 - VALIDATION[key]
                figures = {"a": {"dice_mean": dice}}
                scored = {"part": part, "data_hash": "d", "checkpoint_sha256": "c", "classes": figures}
                folder = job.path / "evaluations" / f"phantom-{part}"
                folder.mkdir(parents=True)
                write_json(folder / "evaluation.json", scored)
            yield [(job, error)]

    return run_local


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    done: list[Job] = []
    monkeypatch.setattr(plan, "run_local", simulated(done))
    monkeypatch.setattr(plan, "run_hash", lambda *_, **__: "now")
    return done


def test_each_network_gets_what_is_best_for_it_on_validation_and_test_has_no_say(
    tmp_path: Path, executed: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tuned(tmp_path / "out")
    assert found.execute() == {}
    # What test would have chosen is the other value, for both.
    assert {key: choice and choice.setting for key, choice in found.choices.items()} == {
        ("unet", None): {"learning_rate": 0.001},
        ("unet_classic", None): {"learning_rate": 0.01},
    }
    trials, runs = executed[:4], executed[4:]
    assert all(job.setting and not (job.path / "evaluations" / "phantom-test").exists() for job in trials)
    assert [job.name for job in runs] == ["unet-seed-0", "unet_classic-seed-0"]
    assert all((job.path / "evaluations" / "phantom-test").is_dir() for job in runs)
    # One race, though each runs by its own rate.
    assert len({job.path.parent.name.rpartition("-")[2] for job in runs}) == 1
    told = read_tuning(runs[0])
    assert told["chosen"] == [0.001]
    assert [one["dice"] for one in told["tried"]] == [0.6, 0.7]
    assert read_json(tmp_path / "out" / "plan.json")["tuning"]["grid"] == [
        {"option": "learning_rate", "values": [0.01, 0.001]}
    ]

    again = tuned(tmp_path / "out")
    assert all(job.finished for job in [*again.trials, *again.jobs])
    assert "Dice on validation: learning_rate 0.01: 0.6000; learning_rate 0.001: 0.7000" in again.table()
    executed.clear()
    assert again.execute() == {}
    assert executed == []
    # A further value is tried alone; another grid is another race.
    for network in ("unet", "unet_classic"):
        monkeypatch.setitem(VALIDATION, (network, 0.1), 0.1)
    more = tuned(tmp_path / "out", ["learning_rate=1e-2,1e-3,1e-1"])
    assert [job.setting for job in more.trials if job.state == "new"] == ["learning_rate 0.1"] * 2
    more.execute()
    assert len(executed) == 2 + 2
    assert executed[-1].path.parent.name != runs[-1].path.parent.name


def read_tuning(job: Job) -> dict[str, Any]:
    assert job.added is not None
    found: dict[str, Any] = job.added[1]["tuning"]
    return found


def test_what_diverges_is_not_taken_and_what_was_killed_leaves_its_network_out(
    tmp_path: Path, executed: list[Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "run_local", simulated(executed, diverging=[("unet", 0.001)], failing=["unet_classic"]))
    found = tuned(tmp_path / "out")
    failures = found.execute()
    assert sorted(failures) == [f"unet_classic-seed-0 (learning_rate {rate})" for rate in (0.001, 0.01)]
    assert list(found.choices) == [("unet", None)]
    assert [job.state for job in found.jobs] == ["new", "waits"]
    again = tuned(tmp_path / "out")
    assert [job.state for job in again.trials] == ["complete", "failed", "diverged", "failed"]
    assert "unet: learning_rate 0.01 (Dice on validation: learning_rate 0.01: 0.6000; learning_rate 0.001: div" in (
        again.table()
    )


# --- the contract of the files ---


def test_the_grid_is_in_the_protocol_and_the_choice_is_not() -> None:
    first = {"learning_rate": 0.1, "optimizer": {"lr": "@learning_rate", "betas": [0.9, 0.99]}, "network": "unet"}
    grid = [{"option": "learning_rate", "values": [0.1, 0.2]}, {"option": "optimizer::betas::1", "values": [0.99, 0.9]}]

    def config(rate: float, beta: float, dice: float, **changes: Any) -> dict[str, Any]:
        tuning = {"grid": grid, "epochs": 3, "seeds": [0], "tried": [dice], "chosen": [rate, beta], **changes}
        optimizer = {"lr": "@learning_rate", "betas": [0.9, beta]}
        return {**first, "learning_rate": rate, "optimizer": optimizer, "tuning": tuning}

    one, other = config(0.1, 0.99, 0.5), config(0.2, 0.9, 0.6)
    assert protocol_hash(one) == protocol_hash(other)
    assert protocol_hash(one) != protocol_hash(first)
    assert protocol_hash(one) != protocol_hash(config(0.1, 0.99, 0.5, epochs=4))
    assert protocol_hash(one) != protocol_hash(config(0.1, 0.99, 0.5, grid=grid[:1]))
    given = {"data_hash": "d", "parent_sha256": None}
    assert run_hash(one, **given) != run_hash(other, **given)
    assert run_hash(one, **given) == run_hash(config(0.1, 0.99, 0.7), **given), "how it came about is in no result"
    assert protocol_hash({**first, "tuning": None, "score_test": False}) == protocol_hash(first)


@pytest.mark.slow
def test_a_trial_is_trained_as_planned_and_never_looks_at_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for looking in ("evaluation.scoring.CaseScores.started", "training.session.threshold_baseline"):
        monkeypatch.setattr(f"monai_thyroid.{looking}", lambda *_: pytest.fail("the test part is looked at"))
    (job, _) = tuned(tmp_path / "out", networks=["unet"], epochs=1).trials
    assert job.added is not None
    file, content = job.added
    file.parent.mkdir(parents=True)
    file.write_text(yaml.safe_dump(content))
    given = {name: value for name, value in TINY.items() if name != "max_epochs"}
    where = {"output_dir": str(job.path.parents[3]), "network": "unet", "trackers": [], "logging_file": False}
    workflow = create_workflow(config_file=[str(TRAIN), str(file)], **given, **where)
    workflow.run()
    workflow.finalize()
    record = read_run(job.path)
    assert (record.status, record.epochs, record.test, record.multiply_adds) == ("done", 1, None, None)
    assert not (job.path / "evaluations").exists()
