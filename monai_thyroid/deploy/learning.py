"""What annotating with a model takes: which image it is least sure of, and training it on with what was annotated."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from monai_thyroid.compare.contents import plural
from monai_thyroid.data import PARTS
from monai_thyroid.data.inspection import read_facts
from monai_thyroid.data.layouts.listing import group_in, natural_key
from monai_thyroid.deploy.pack import pack
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model, members
from monai_thyroid.evaluation.predictor import Predictor, agreement_of
from monai_thyroid.files import canonical_hash, locked, read_csv, write_csv
from monai_thyroid.images import Raster, read_masks, read_raster, stem
from monai_thyroid.metrics import METRICS
from monai_thyroid.metrics.registry import Counts, evaluate
from monai_thyroid.runfolder import finished_epochs, read_split
from monai_thyroid.runfolder.folder import write_yaml
from monai_thyroid.sweep.jobs import run_process

__all__ = ["FEWEST", "Epoch", "Retrained", "disagreement", "rank", "retrain", "uncertainty"]

FEWEST = 5
"""Patients (images, where patients are unknown) with labels: three to train on, one to validate and one to test on."""
_SHARES = {"test": 0.2, "validation": 0.2}


def uncertainty(predictor: Predictor, image: Raster | np.ndarray) -> float:
    """How little a model is sure of an image, in [0, 1]: what its masks of it do not agree on, see `disagreement`.

    They are those of an ensemble's members, or a single model's masks of the image and of its mirror images, see
    `Predictor.opinions`.

    Args:
        predictor: an ensemble, or a single model that was trained with mirror images.
        image: as for `Predictor`.

    Raises:
        UserError: the model has nothing to compare, or it is no image.
    """
    (masks,) = predictor.opinions([image])
    return disagreement(masks, classes=len(predictor.classes))


def disagreement(masks: Sequence[np.ndarray], *, classes: int) -> float:
    """1 less the mean Dice of all pairs of masks, in [0, 1]; of several classes the mean over those that any marks.

    Where none of the masks marks anything they agree, and the score is 0: a model that is sure that there is nothing
    may be sure and wrong, and this score cannot tell. Where some mark something and others nothing their Dice is 0.

    Args:
        masks: two or more of one image, (height, width), numbered by class.
        classes: how many there are, background not counted.
    """
    agreements = agreement_of(masks, classes=classes)
    found = [one for number, one in enumerate(agreements, 1) if any((mask == number).any() for mask in masks)]
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
    if problems := _problems(images, labels, epochs=epochs, groups_from=groups_from):
        raise UserError(problems)
    output = Path(output_dir).expanduser().resolve()
    old = members(Path(model).expanduser())
    annotated = _annotated(images, labels, groups_from=groups_from, classes=len(old[0].classes))
    output.mkdir(parents=True, exist_ok=True)
    with locked(output):
        unit = "image" if groups_from is None else "patient"
        _give_parts(annotated, output / "parts.csv", seen=_trained_on(old), seed=seed, unit=unit)
        settings: dict[str, Any] = {
            **{"max_epochs": epochs, "first_stage_epochs": epochs, "learning_rate": learning_rate, "seed": seed},
            "device": None if device == "auto" else device,
        }
        # Another name where anything differs, so that what is there is what was asked for, and may be gone on with.
        told = [sorted(one.key for one in annotated), [one.weights for one in old], settings]
        name = f"annotated-{len(annotated)}-{canonical_hash(told)[:8]}"
        data = _dataset(output / "datasets" / name, annotated)
        runs = []
        for number, one in enumerate(old, 1):
            alone = len(old) == 1
            runs.append(
                _trained(
                    one,
                    data,
                    output if alone else output / f"member-{number}",
                    settings,
                    log=output / "logs" / f"{name if alone else f'{name}-{number}'}.log",
                    watch=_teller(progress, member=number, members=len(old)),
                    stop=stop or threading.Event(),
                )
            )
        return _compared(old, runs, annotated, data / "masks", device=device, unit=unit)


@dataclass
class _Annotated:
    """An image with its mask."""

    name: str
    image: Path
    label: Path
    group: str
    image_sha256: str
    label_sha256: str
    marked: bool
    part: str = ""

    @property
    def mask(self) -> str:
        """Name of its mask's copy."""
        return f"{self.name}{self.label.name[len(stem(self.label)) :]}"

    @property
    def key(self) -> list[str]:
        """What a training depends on."""
        return [self.name, self.group, self.part, self.image_sha256, self.label_sha256]


def _problems(
    images: Sequence[str | Path], labels: Sequence[str | Path], *, epochs: Any, groups_from: str | None
) -> list[str]:
    problems = []
    if len(images) != len(labels):
        problems.append(f"{len(images)} images and {len(labels)} labels: give one label an image")
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
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


def _annotated(
    images: Sequence[str | Path], labels: Sequence[str | Path], *, groups_from: str | None, classes: int
) -> list[_Annotated]:
    """Read every file, so that all that is wrong with them is told before anything is written."""
    items = [
        {"image": str(image), "label": str(label), "case": stem(image)}
        for image, label in zip(images, labels, strict=True)
    ]
    facts = read_facts(items, classes)
    if problems := [problem for fact in facts.values() for problem in fact["problems"]]:
        raise UserError(problems)
    pattern = None if groups_from is None else re.compile(groups_from)
    found = [
        _Annotated(
            name=name,
            image=Path(item["image"]).absolute(),
            label=Path(item["label"]),
            group=name if pattern is None else group_in(name, pattern) or name,
            image_sha256=facts[name]["image"],
            label_sha256=facts[name]["label"],
            marked=not facts[name]["empty"],
        )
        for item in items
        for name in (item["case"],)
    ]
    return sorted(found, key=lambda one: natural_key(one.name))


def _trained_on(old: Sequence[Model]) -> set[str]:
    """SHA-256 of the images that a model was trained on or chosen by, as far as it is recorded."""
    splits = [read_split(one.files.facts)["parts"] for one in old if one.files.split.is_file()]
    return {
        digest
        for parts in splits
        for part in ("train", "validation")
        for digest in parts.get(part, {}).get("image_sha256", [])
    }


def _give_parts(annotated: Sequence[_Annotated], table: Path, *, seen: set[str], seed: int, unit: str) -> None:
    """Give each image the part that its group has, in place; write those of new groups down.

    Args:
        annotated: the images.
        table: the parts of earlier groups, if there were any.
        seen: SHA-256 of images that the model was trained on, which can be no test.
        seed: of the order in which new groups are dealt.
        unit: what a group is.

    Raises:
        UserError: there are too few to train, validate and test.
    """
    part_of = {row["group"]: row["part"] for row in read_csv(table)} if table.is_file() else {}
    if strange := sorted(set(part_of.values()) - set(PARTS)):
        raise UserError(f"{table}: unknown part {', '.join(strange)}; choose {', '.join(PARTS)}")
    groups = list(dict.fromkeys(one.group for one in annotated))
    if len(groups) < FEWEST:
        raise UserError(
            f"{plural(len(groups), unit)} with labels: training takes {FEWEST}, some of which are kept to test on"
        )
    known = {one.group for one in annotated if one.image_sha256 in seen}
    marked = {one.group for one in annotated if one.marked}
    part_of.update({group: "train" for group in known if part_of.get(group) == "test"})
    fresh = [group for group in groups if group not in part_of]
    np.random.RandomState(seed).shuffle(fresh)
    fresh.sort(key=known.__contains__)
    # In a part where nothing is marked whatever finds nothing would be perfect.
    for part in ("test", "validation", "train"):
        if any(part_of.get(group) == part for group in groups if group in marked):
            continue
        free = [group for group in fresh if group in marked and not (part == "test" and group in known)]
        if not free:
            others = " that the model was not trained on" if part == "test" and known else ""
            raise UserError(
                f"{plural(len(groups), unit)} with labels: none with something marked is left for the part {part}; "
                f"annotate another {unit}{others}"
            )
        part_of[free[0]] = part
        fresh.remove(free[0])
    for group in fresh:
        counts = Counter(part_of.get(one) for one in groups)
        part_of[group] = next(
            (
                part
                for part, share in _SHARES.items()
                if counts[part] < int(share * len(groups)) and not (part == "test" and group in known)
            ),
            "train",
        )
    for one in annotated:
        one.part = part_of[one.group]
    write_csv(table, ["group", "part"], [{"group": group, "part": part} for group, part in part_of.items()])


def _dataset(folder: Path, annotated: Sequence[_Annotated]) -> Path:
    """A folder in the layout ``images_masks``; the masks are copied, since an annotator may go on with them."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".making-", dir=folder.parent) as temporary:
        making = Path(temporary, folder.name)
        for kind in ("images", "masks"):
            (making / kind).mkdir(parents=True)
        for one in annotated:
            (making / "images" / one.image.name).symlink_to(one.image)
            shutil.copyfile(one.label, making / "masks" / one.mask)
        parts = [{"file": one.image.name, "part": one.part} for one in annotated]
        write_csv(making / "split.csv", ["file", "part"], parts)
        if any(one.group != one.name for one in annotated):
            groups = [{"file": one.image.name, "group": one.group} for one in annotated]
            write_csv(making / "groups.csv", ["file", "group"], groups)
        making.rename(folder)
    return folder


def _teller(progress: Callable[[Epoch], None] | None, *, member: int, members: int) -> Callable[[Path], None]:
    """What tells the epochs that are in a run's history.csv and were not told yet."""
    told = 0

    def tell(history: Path) -> None:
        nonlocal told
        if progress is None:
            return
        for row in finished_epochs(history)[told:]:
            told += 1
            progress(Epoch(member, members, told, row.train_loss, row.val_dice))

    return tell


def _trained(
    model: Model,
    data: Path,
    output: Path,
    settings: Mapping[str, Any],
    *,
    log: Path,
    watch: Callable[[Path], None],
    stop: threading.Event,
) -> Path:
    """Train one model on, in a process of its own; the finished run folder."""
    log.parent.mkdir(exist_ok=True)
    output.mkdir(exist_ok=True)

    def look() -> None:
        for history in output.glob(f"*/{data.name}/*/seed-*/history.csv"):
            watch(history)

    with _bundle(model) as bundle, tempfile.TemporaryDirectory() as folder:
        config = bundle / "configs" / "train.yaml"
        changes = Path(folder) / "retrain.yaml"
        given = {**settings, "dataset_dir": str(data), "output_dir": str(output), "init_from": str(model.path)}
        write_yaml(changes, _changes(config, given))
        command = ["-m", "monai.bundle", "run", "--config_file", repr([str(config), str(changes)])]
        why = run_process(command, log=log, stop=stop, watch=look)
    if stop.is_set():
        raise UserError("the training was stopped; the model is as it was")
    if why is not None:
        raise UserError(f"the training failed, the model is as it was: {why} (all it said: {log})")
    look()
    (record,) = output.glob(f"*/{data.name}/*/seed-*/run.json")
    return record.parent


def _changes(config: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the training's config is to say instead, by id."""
    there = yaml.safe_load(config.read_text(encoding="utf-8"))
    # The parts and groups are in the dataset's folder, and nothing else decides on them.
    fixed = {
        **{"hours": None, "split_file": None, "folds": None, "fold": None, "sites": None, "test_sites": None},
        **{"split": "groups", "stratify": False, "mlflow": False, "resume": True, "overwrite": False},
    }
    changes = {name: value for name, value in settings.items() if value is not None} | fixed
    elsewhere = {f"data::{name}": None for name in ("images", "masks", "group_pattern") if name in there["data"]}
    known = {name: value for name, value in changes.items() if name in there}
    return {**known, **elsewhere, "data::layout": "images_masks"}


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
    annotated: Sequence[_Annotated],
    masks: Path,
    *,
    device: str,
    unit: str,
) -> Retrained:
    """Score both on the held-out images, on their own grid."""
    test = [one for one in annotated if one.part == "test"]
    before, after = (
        np.mean([_dice(predictor, one.image, masks / one.mask) for one in test], axis=0)
        for predictor in (
            Predictor(list(old), device=device, runtime="torch-float32"),
            Predictor(list(runs), device=device, runtime="torch-float32"),
        )
    )
    accepted = bool(after.mean() >= before.mean())
    held_out = plural(len(test), "held-out image")
    if unit != "image":
        held_out += f" of {plural(len({one.group for one in test}), unit)}"
    return Retrained(
        runs=list(runs),
        accepted=accepted,
        reason=f"Dice {after.mean():.4f} on {held_out}, {before.mean():.4f} before: "
        + ("not worse" if accepted else "worse, so the model should stay"),
        before=float(before.mean()),
        after=float(after.mean()),
        by_class={
            name: (float(one), float(other)) for name, one, other in zip(old[0].classes, before, after, strict=True)
        },
        images={part: sum(one.part == part for one in annotated) for part in PARTS},
        groups={part: len({one.group for one in annotated if one.part == part}) for part in PARTS},
    )


def _dice(predictor: Predictor, image: Path, mask: Path) -> list[float]:
    """Of each class, by the scoring policy."""
    found = predictor(read_raster(image)).mask
    references = read_masks(mask, classes=len(predictor.classes))
    return [
        float(evaluate(METRICS["dice"], Counts.of(reference, found == number)))
        for number, reference in enumerate(references, 1)
    ]
