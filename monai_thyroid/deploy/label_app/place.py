"""The folder that a server of MONAI Label works in: its images, its models, what it has found out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from monai_thyroid.deploy.label_app.studies import group_of_patient
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import members
from monai_thyroid.files import locked, read_csv, read_json, write_json
from monai_thyroid.images import stem

__all__ = ["Place", "alive"]

_GROUP = r"^([0-9a-f]{10})--"
"""Finds the patient in the names that `Place.to_train` gives to images."""


@dataclass(frozen=True)
class Place:
    """The folder.

    ``label.json`` says of what it is, ``app/`` is what MONAI Label starts, ``studies/`` has the images of a folder
    (``images.csv`` maps them back) and their labels, ``dicomweb/`` those of a DICOMweb server, ``runs/`` the
    trainings, ``models/`` those that were taken over, ``state/`` what was found out.
    """

    path: Path

    @property
    def app(self) -> Path:
        """What ``monailabel start_server --app`` gets."""
        return self.path / "app"

    @property
    def studies(self) -> Path:
        """Copies of the images of a folder."""
        return self.path / "studies"

    @property
    def table(self) -> Path:
        """Where each of them comes from."""
        return self.path / "images.csv"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """``studies``, ``classes``, ``groups_from``, ``epochs``, and ``given``: by name the models as they were given.

        Raises:
            UserError: the folder was not made by `Place.settle`.
        """
        try:
            found: dict[str, Any] = read_json(self.path / "label.json")
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path}: holds no label.json that can be read ({error})") from error
        if not isinstance(found, dict) or not {"studies", "classes", "groups_from", "epochs", "given"} <= found.keys():
            raise UserError(f"{self.path}: label.json is none that was written here; give another --output")
        return found

    def settle(
        self,
        models: Sequence[str | Path],
        *,
        studies: str,
        groups_from: str | None = None,
        epochs: int = 20,
    ) -> None:
        """Make the folder that of these models and studies, what it holds of them kept.

        Raises:
            UserError: it is another studies' or holds something else, the models have different classes or one name,
                or one is none.
        """
        try:
            named = _named(models)
        except UserError as error:
            raise UserError([f"model {problem}" for problem in error.problems]) from error
        classes = [members(model)[0].classes for model in named.values()]
        if different := [name for name, one in zip(named, classes, strict=True) if one != classes[0]]:
            raise UserError(
                f"model {different[0]}: has other classes than {next(iter(named))}; start a server for each"
            )
        there = self.path / "label.json"
        if there.is_file():
            if self.settings["studies"] != studies:
                raise UserError(
                    f"output {self.path}: is that of the studies {self.settings['studies']}; give another --output"
                )
            if self.settings["classes"] != classes[0]:
                raise UserError(
                    f"output {self.path}: has labels of the classes {', '.join(self.settings['classes'])}, not "
                    f"{', '.join(classes[0])}; give another --output"
                )
        elif self.path.is_dir() and any(self.path.iterdir()):
            raise UserError(f"output {self.path}: holds something else; give a folder that is new or empty")
        self.path.mkdir(parents=True, exist_ok=True)
        content = {
            "studies": studies,
            "classes": classes[0],
            "groups_from": groups_from,
            "epochs": epochs,
            "given": {name: {"path": str(path), "weights": _weights(path)} for name, path in named.items()},
        }
        write_json(there, content)
        self.__dict__.pop("settings", None)
        for folder in ("app", "state", "models", "runs"):
            (self.path / folder).mkdir(exist_ok=True)
        (self.app / "main.py").write_text(_MAIN, encoding="utf-8")

    @property
    def classes(self) -> list[str]:
        """Names of the classes 1, 2, ..., the same of all models."""
        return list(self.settings["classes"])

    def model(self, name: str) -> Path:
        """The model of a name that is applied now: as it was given, or what training made of it.

        Raises:
            UserError: what training made of it is lost.
        """
        given = self.settings["given"][name]
        taken = self.state(f"taken-{name}")
        if taken.get("given") != given["weights"]:
            return Path(given["path"])
        if not Path(taken["path"]).is_dir():
            raise UserError(
                f"model {name}: {taken['path']}, to which it was trained, is lost; bring it back, or remove "
                f"{self.path / 'state' / f'taken-{name}.json'} to go on with the model as given"
            )
        return Path(taken["path"])

    def next_model(self, name: str) -> Path:
        """A folder that is not there yet, for a model that may be taken over."""
        number = 1
        while (self.path / "models" / f"{name}-{number}").exists():
            number += 1
        return self.path / "models" / f"{name}-{number}"

    def take(self, name: str, path: Path) -> None:
        """Apply another model under a name from now on, here and in every process that works in the folder."""
        given = self.settings["given"][name]["weights"]
        self.tell(f"taken-{name}", {"path": str(path.resolve()), "given": given})

    def state(self, name: str) -> dict[str, Any]:
        """What was told under a name last; empty where nothing was."""
        with suppress(OSError, ValueError):
            found = read_json(self.path / "state" / f"{name}.json")
            if isinstance(found, dict):
                return found
        return {}

    def tell(self, name: str, content: Mapping[str, Any]) -> None:
        """Keep something under a name."""
        write_json(self.path / "state" / f"{name}.json", dict(content))

    def uncertainties(self, name: str, *, weights: str) -> dict[str, float]:
        """By image what was found of a model with these weights."""
        found = self.state(f"uncertainty-{name}")
        return dict(found.get("scores", {})) if found.get("weights") == weights else {}

    def add_uncertainties(self, name: str, scores: Mapping[str, float], *, weights: str) -> None:
        """Add to them; several processes may."""
        with locked(self.path / "state", work="writing", wait=True):
            together = {**self.uncertainties(name, weights=weights), **scores}
            self.tell(f"uncertainty-{name}", {"weights": weights, "scores": together})

    def to_train(
        self, pairs: Sequence[Mapping[str, str]], patients: Mapping[str, str]
    ) -> tuple[list[Path], list[Path], str | None]:
        """Images and labels to train with, and what finds the patient in an image's name.

        Args:
            pairs: ``image`` and ``label`` each, files.
            patients: by image id, of DICOM images, see `group_of_patient`.

        Returns:
            The images, which are linked to under names that begin with the patient where DICOM told it and
            ``groups_from`` was not given; the labels; the regular expression, None where patients are unknown.
        """
        images, labels = ([Path(pair[key]) for pair in pairs] for key in ("image", "label"))
        if self.settings["groups_from"] is not None or not any(patients.get(stem(image)) for image in images):
            return images, labels, self.settings["groups_from"]
        folder = self.path / "state" / "to_train"
        folder.mkdir(exist_ok=True)
        links = []
        for image in images:
            group = patients.get(stem(image)) or group_of_patient(f"of {stem(image)} alone")
            link = folder / f"{group}--{image.name}"
            link.unlink(missing_ok=True)
            link.symlink_to(image.resolve())
            links.append(link)
        return links, labels, _GROUP

    def patients(self) -> dict[str, str]:
        """By image id, of the DICOM images of a folder, see `group_of_patient`."""
        rows = read_csv(self.table) if self.table.is_file() else []
        return {row["id"]: row["group"] for row in rows if row["group"]}


_MAIN = '''"""What MONAI Label starts; written by monai-thyroid label."""

from monai_thyroid.deploy.label_app.server import ThyroidApp  # noqa: F401
'''


def _named(models: Sequence[str | Path]) -> dict[str, Path]:
    """The models by the names that clients see."""
    found: dict[str, Path] = {}
    for given in models:
        path = Path(given).expanduser().resolve()
        record = members(path)[0].trained.record if (path / "run.json").is_file() else None
        word = path.name if record is None else f"{record.bundle}_{record.network}_seed-{record.seed}"
        name = re.sub(r"[^\w.-]", "_", word)
        if name in found:
            raise UserError(f"{given}: is called {name}, as {found[name]} is; pack one under another name")
        found[name] = path
    return found


def _weights(path: Path) -> str:
    return "+".join(model.weights for model in members(path))


def alive(process: int) -> bool:
    """Whether a process is there, and has not ended without anyone having asked how."""
    try:
        os.kill(process, 0)
    except OSError:
        return False
    state = Path(f"/proc/{process}/stat")
    with suppress(OSError, IndexError):
        return state.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return True
