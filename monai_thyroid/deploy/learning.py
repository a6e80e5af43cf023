"""What annotating with a model takes: which image it is least sure of, and training it on with what was annotated."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.data import PARTS, load_datalist
from monai_thyroid.data.layouts.listing import group_in, natural_key
from monai_thyroid.deploy.pack import pack
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model, members
from monai_thyroid.evaluation.predictor import Predictor, agreement_of
from monai_thyroid.files import canonical_hash, locked, read_csv, sha256_file, write_csv
from monai_thyroid.images import Raster, read_masks, read_raster, stem
from monai_thyroid.metrics import METRICS
from monai_thyroid.metrics.registry import Counts, evaluate
from monai_thyroid.runfolder import read_history, read_split
from monai_thyroid.runfolder.folder import write_yaml
from monai_thyroid.sweep.jobs import run_process

__all__ = ["FEWEST", "Epoch", "Retrained", "rank", "retrain", "uncertainty"]

FEWEST = 5
"""Patients (images, where patients are unknown) that can be divided: three to train, one to validate, one to test."""
_SHARES = {"test": 0.2, "validation": 0.2}


def uncertainty(predictor: Predictor, image: Raster | np.ndarray) -> float:
    """How little the masks agree that a model has for an image: 1 less their mean Dice, in [0, 1].

    They are those of all pairs of an ensemble's members, or of a single model's masks of the image and of its mirror
    images (see `Predictor.opinions`). Of several classes it is the mean over those that any of the masks marks.

    Where none of the masks marks anything they agree, and the score is 0: a model that is sure that there is nothing
    may be sure and wrong, and this score cannot tell. Where some mark something and others nothing their Dice is 0.

    Args:
        predictor: an ensemble, or a single model that was trained with mirror images.
        image: as for `Predictor`.

    Raises:
        UserError: the model has nothing to compare, or it is no image.
    """
    (masks,) = predictor.opinions([image])
    agreements = agreement_of(masks, classes=len(predictor.classes))
    found = [
        agreement for number, agreement in enumerate(agreements, 1) if any((mask == number).any() for mask in masks)
    ]
    return 1.0 - float(np.mean(found)) if found else 0.0


def rank(scores: Mapping[str, float]) -> list[str]:
    """Names by their `uncertainty`, the least agreed first; equal ones in natural order (``2`` before ``10``).

    Raises:
        ValueError: a score is not in [0, 1].
    """
    if wrong := [name for name, score in scores.items() if not 0 <= score <= 1]:
        raise ValueError(f"scores are in [0, 1]; those of {', '.join(wrong)} are not")
    return sorted(scores, key=lambda name: (-scores[name], natural_key(name), name))


@dataclass(frozen=True)
class Epoch:
    """How far a training is.

    Attributes:
        member: of an ensemble, which is trained, from 1.
        members: how many there are.
        epoch: that has ended, from 1; over all stages.
        train_loss: of that epoch.
        val_dice: of that epoch, on the network's grid; None without a validation.
    """

    member: int
    members: int
    epoch: int
    train_loss: float | None
    val_dice: float | None


@dataclass(frozen=True)
class Retrained:
    """What came out of a training with annotated images.

    Attributes:
        runs: the finished run folders, one a member; a `Predictor` takes them as it took the model.
        accepted: whether they are at least as good as the model on the held-out images.
        reason: why, in a sentence.
        before: mean Dice of the model on the held-out images, in [0, 1], all classes.
        after: that of the runs.
        by_class: of each class, both.
        images: number of images of each part.
        groups: number of patients (images, where patients are unknown) of each part.
    """

    runs: list[Path]
    accepted: bool
    reason: str
    before: float
    after: float
    by_class: dict[str, tuple[float, float]]
    images: dict[str, int]
    groups: dict[str, int]


def retrain(
    model: str | Path,
    *,
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    output_dir: str | Path,
    groups_from: str | None = None,
    epochs: int = 20,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: Callable[[Epoch], None] | None = None,
    stop: threading.Event | None = None,
) -> Retrained:
    """Train a model on with annotated images, by its own recipe, and compare the two on patients held out from both.

    The model stays as it is, however this ends; whether the new one takes its place is the caller's decision. An
    ensemble is trained member by member. A training that was interrupted goes on when the same is asked for again.

    A patient's part (train, validation, test) is decided when it first comes, and kept in ``<output_dir>/parts.csv``:
    what once was trained on is never tested on, by this function or by the model's own training as far as it recorded
    its images. About a fifth of the patients each is for validation and test, at least one.

    ``output_dir`` gets the images (as links) and copies of the masks under ``datasets/``, what the training says under
    ``logs/``, and the run folders. Training runs the model's config as a program (see SECURITY.md).

    Args:
        model: a packed bundle or a finished run folder.
        images: image files, whose names but for their suffix differ.
        labels: the mask file of each, any two levels or class numbers, of the image's size.
        output_dir: of all trainings of these images; is made.
        groups_from: regular expression that finds the patient in an image's name: its first group, or all it matches.
            None: each image counts as a patient, so images of one may be in two parts.
        epochs: of training (of a recipe of two stages: of each).
        learning_rate: the highest; None for the recipe's own.
        seed: of the parts, the order and the augmentation.
        device: ``"cpu"``, ``"cuda"`` or ``"auto"``.
        progress: called after each epoch, in this thread.
        stop: when set, the training is stopped.

    Raises:
        UserError: what is wrong with the model, the images or the labels; or there are too few of them; or the
            training failed, or was stopped.
    """
    output = Path(output_dir).expanduser().resolve()
    problems = _problems(images, labels, epochs=epochs, groups_from=groups_from)
    if problems:
        raise UserError(problems)
    old = members(Path(model).expanduser())
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        parts = _parts(images, old, output / "parts.csv", groups_from=groups_from, seed=seed)
        settings = {
            "max_epochs": epochs,
            "first_stage_epochs": epochs,
            "learning_rate": learning_rate,
            "seed": seed,
        }
        name = _name(images, labels, parts, [[one.weights for one in old], settings])
        data = _dataset(output / "datasets" / name, images, labels, parts)
        _check(data, old[0])
        settings |= {"dataset_dir": str(data), **({} if device == "auto" else {"device": device})}
        runs = [
            _trained(
                one,
                output if len(old) == 1 else output / f"member-{number}",
                settings,
                log=output / "logs" / f"{name}{'' if len(old) == 1 else f'-{number}'}.log",
                told=None
                if progress is None
                else lambda row, epoch, number=number: progress(  # type: ignore[misc]
                    Epoch(number, len(old), epoch, row.train_loss, row.val_dice)
                ),
                stop=stop,
            )
            for number, one in enumerate(old, 1)
        ]
        return _compared(old, runs, images, data, parts, device=device)


def _problems(
    images: Sequence[str | Path], labels: Sequence[str | Path], *, epochs: int, groups_from: str | None
) -> list[str]:
    problems = []
    if len(images) != len(labels):
        problems.append(f"{len(images)} images and {len(labels)} labels: give one label an image")
    if isinstance(epochs, bool) or epochs < 1:
        problems.append(f"epochs {epochs!r}: give a whole number of at least 1")
    problems += [f"{file}: no such file" for file in (*images, *labels) if not Path(file).is_file()]
    by_name: dict[str, str] = {}
    for image in map(str, images):
        if (other := by_name.setdefault(stem(image), image)) is not image:
            problems.append(f"{image}: has the same name as {other}; name each image once")
    if groups_from is not None:
        try:
            pattern = re.compile(groups_from)
        except re.error as error:
            return [*problems, f"groups_from {groups_from!r}: not a regular expression ({error})"]
        lost = [stem(image) for image in images if not group_in(stem(image), pattern)]
        if lost:
            problems.append(f"groups_from {groups_from!r}: finds no patient in {', '.join(lost)}")
    return problems


def _parts(
    images: Sequence[str | Path], old: Sequence[Model], table: Path, *, groups_from: str | None, seed: int
) -> dict[str, tuple[str, str]]:
    """Group and part of each image, by its stem; the parts of new groups are written down."""
    pattern = re.compile(groups_from) if groups_from is not None else None
    group_of = {
        stem(image): (group_in(stem(image), pattern) or "" if pattern is not None else stem(image)) for image in images
    }
    known = {row["group"]: row["part"] for row in read_csv(table)} if table.is_file() else {}
    if strange := sorted({part for part in known.values() if part not in PARTS}):
        raise UserError(f"{table}: unknown part {', '.join(strange)}; choose {', '.join(PARTS)}")
    trained_on = {
        digest
        for one in old
        if one.files.split.is_file()
        for part in ("train", "validation")
        for digest in read_split(one.files.facts)["parts"].get(part, {}).get("image_sha256", [])
    }
    seen = {group_of[stem(image)] for image in images if sha256_file(image) in trained_on}
    known.update(dict.fromkeys((group for group in seen if known.get(group) == "test"), "train"))
    groups = sorted(set(group_of.values()), key=natural_key)
    unit = "patients" if groups_from else "images"
    if len(groups) < FEWEST:
        raise UserError(
            f"{len(groups)} annotated {unit}: to train, and to test on others, needs {FEWEST} {unit} with labels"
        )
    fresh = [group for group in groups if group not in known]
    np.random.RandomState(seed).shuffle(fresh)
    # What the model has seen can be no test.
    fresh.sort(key=lambda group: group in seen)
    counts = {part: sum(known.get(group) == part for group in groups) for part in PARTS}
    wanted = {part: max(1, math.floor(share * len(groups))) for part, share in _SHARES.items()}
    for group in fresh:
        free = [
            part
            for part in ("test", "validation")
            if counts[part] < wanted[part] and not (part == "test" and group in seen)
        ]
        part = free[0] if free else "train"
        known[group] = part
        counts[part] += 1
    if lacking := [part for part in PARTS if not counts[part]]:
        why = " that the model was not trained on" if lacking == ["test"] else ""
        raise UserError(f"none of the {len(groups)} annotated {unit} is left to {lacking[0]}: annotate others{why}")
    write_csv(table, ["group", "part"], ({"group": group, "part": part} for group, part in known.items()))
    return {name: (group, known[group]) for name, group in group_of.items()}


def _name(
    images: Sequence[str | Path], labels: Sequence[str | Path], parts: Mapping[str, tuple[str, str]], more: Any
) -> str:
    """Of the dataset, by its contents and by what is to be trained with it: another one has another name."""
    files = [[stem(image), sha256_file(image), sha256_file(label)] for image, label in zip(images, labels, strict=True)]
    return f"annotated-{len(images)}-{canonical_hash([sorted(files), dict(parts), more])[:8]}"


def _dataset(
    folder: Path, images: Sequence[str | Path], labels: Sequence[str | Path], parts: Mapping[str, tuple[str, str]]
) -> Path:
    """A folder in the layout ``images_masks``; the masks are copied, since an annotator may go on with them."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as temporary:
        making = Path(temporary, folder.name)
        for kind in ("images", "masks"):
            (making / kind).mkdir(parents=True)
        for image, label in zip(map(Path, images), map(Path, labels), strict=True):
            (making / "images" / image.name).symlink_to(image.resolve())
            shutil.copyfile(label, making / "masks" / f"{stem(image)}{label.name[len(stem(label)) :]}")
        rows = [{"file": Path(image).name, "group": "", "part": ""} for image in images]
        for row in rows:
            row["group"], row["part"] = parts[stem(row["file"])]
        write_csv(making / "split.csv", ["file", "part"], [{key: row[key] for key in ("file", "part")} for row in rows])
        if any(group != name for name, (group, _) in parts.items()):
            table = [{key: row[key] for key in ("file", "group")} for row in rows]
            write_csv(making / "groups.csv", ["file", "group"], table)
        making.rename(folder)
    return folder


def _check(data: Path, model: Model) -> None:
    """Read every file, so that all that is wrong with them is told before anything is trained."""
    found = load_datalist(str(data), layout="images_masks", classes=model.classes)
    if problems := found.inspect().problems:
        raise UserError(problems)


def _trained(
    model: Model,
    output: Path,
    settings: Mapping[str, Any],
    *,
    log: Path,
    told: Callable[[Any, int], None] | None,
    stop: threading.Event | None,
) -> Path:
    """Train one model on, in a process of its own; the finished run folder."""
    stop = stop or threading.Event()
    dataset = Path(settings["dataset_dir"]).name
    log.parent.mkdir(exist_ok=True)
    output.mkdir(exist_ok=True)
    done = 0

    def watch() -> None:
        nonlocal done
        for history in output.glob(f"*/{dataset}/*/seed-*/history.csv"):
            for row in read_history(history)[done:]:
                done += 1
                if told is not None:
                    told(row, done)

    with _bundle(model) as bundle, tempfile.TemporaryDirectory() as folder:
        config = bundle / "configs" / "train.yaml"
        changes = Path(folder) / "retrain.yaml"
        write_yaml(changes, _changes(config, {**settings, "output_dir": str(output), "init_from": str(model.path)}))
        command = ["-m", "monai.bundle", "run", "--config_file", repr([str(config), str(changes)])]
        why = run_process(command, log=log, stop=stop, watch=watch)
    if stop.is_set():
        raise UserError("the training was stopped; the model is as it was")
    if why is not None:
        raise UserError(f"the training failed, the model is as it was: {why} (all it said: {log})")
    watch()
    (record,) = output.glob(f"*/{dataset}/*/seed-*/run.json")
    return record.parent


def _changes(config: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the training's config is to say instead, by id."""
    import yaml

    there = yaml.safe_load(config.read_text(encoding="utf-8"))
    changes = {name: value for name, value in settings.items() if name in there and value is not None}
    # The parts and groups are in the dataset's folder, and nothing else decides on them.
    fixed = {
        **{"hours": None, "split_file": None, "folds": None, "fold": None, "sites": None, "test_sites": None},
        **{"split": "groups", "stratify": False, "mlflow": False, "resume": True, "overwrite": False},
    }
    changes |= {name: value for name, value in fixed.items() if name in there}
    changes["data::layout"] = "images_masks"
    changes |= {f"data::{name}": None for name in ("images", "masks", "group_pattern") if name in there["data"]}
    return changes


@contextmanager
def _bundle(model: Model) -> Iterator[Path]:
    """The model as a packed bundle, which has the config that trains on from it."""
    if model.files.packed:
        yield model.path
        return
    with tempfile.TemporaryDirectory() as folder:
        yield pack([model.path], output=Path(folder, "model"), report=False).path


def _compared(
    old: Sequence[Model],
    runs: Sequence[Path],
    images: Sequence[str | Path],
    data: Path,
    parts: Mapping[str, tuple[str, str]],
    *,
    device: str,
) -> Retrained:
    """Score both on the held-out images, on their own grid."""
    classes = old[0].classes
    test = load_datalist(str(data), layout="images_masks", classes=classes).part("test")
    found = {}
    for which, model in (("before", list(old)), ("after", list(runs))):
        predictor = Predictor(model, device=device, runtime="torch-float32")
        found[which] = np.mean([_dice(predictor, item) for item in test], axis=0)
    before, after = (float(np.mean(found[which])) for which in ("before", "after"))
    sizes = {part: [name for name, (_, own) in parts.items() if own == part] for part in PARTS}
    groups = {part: len({parts[name][0] for name in names}) for part, names in sizes.items()}
    accepted = after >= before
    return Retrained(
        runs=list(runs),
        accepted=accepted,
        reason=f"Dice {after:.4f} on {len(test)} held-out images ({groups['test']} patients), "
        f"{before:.4f} before: " + ("not worse" if accepted else "worse, so the model should stay"),
        before=before,
        after=after,
        by_class={
            name: (float(one), float(other))
            for name, one, other in zip(classes, found["before"], found["after"], strict=True)
        },
        images={part: len(names) for part, names in sizes.items()},
        groups=groups,
    )


def _dice(predictor: Predictor, item: Mapping[str, str]) -> list[float]:
    """Of each class, by the scoring policy."""
    classes = len(predictor.classes)
    found = predictor(read_raster(item["image"])).mask
    references = read_masks(item["label"], classes=classes)
    return [
        float(evaluate(METRICS["dice"], Counts.of(reference, found == number)))
        for number, reference in enumerate(references, 1)
    ]
