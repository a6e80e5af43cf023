"""A finished run, read from its folder: enough to evaluate, infer and pack without repeating its options."""

from __future__ import annotations

import copy
import logging
import pydoc
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigComponent, ConfigParser

from monai_thyroid.data import Datalist, map_files
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.weights import load_weights
from monai_thyroid.files import sha256_file
from monai_thyroid.images import is_image, read_raster, stem
from monai_thyroid.images.reading import IMAGE_SUFFIXES
from monai_thyroid.runfolder import RunRecord, dataset_path, read_config, read_run, read_split

__all__ = ["TrainedRun", "input_items"]

logger = logging.getLogger(__name__)


class TrainedRun:
    """A run folder whose training has left weights.

    Args:
        run_dir: the run folder.

    Attributes:
        path: the folder.
        record: content of run.json.
        config: content of config.yaml, brought to the present schema.
        classes: names of the classes without background.
        activation: ``"sigmoid"`` or ``"softmax"``.
        threshold: probability above which a pixel is foreground.

    Raises:
        UserError: no run folder was given, it is not one, it holds no weights or changed ones, or its files contradict
            each other; all that was found.
    """

    def __init__(self, run_dir: str | None) -> None:
        if not run_dir:
            raise UserError("run_dir: say which run's model to use, --run_dir runs/BUNDLE/DATASET/NETWORK-HASH/seed-N")
        self.path = Path(run_dir).expanduser()
        self.record: RunRecord = read_run(self.path)
        missing = [name for name in ("config.yaml", "model.pt") if not (self.path / name).is_file()]
        if missing:
            raise UserError(f"{self.path}: has no {' and no '.join(missing)}; its training did not get that far")
        self.config = read_config(self.path)
        if problems := self._problems():
            raise UserError(problems)
        if self.record.status != "done":
            logger.warning("%s is not finished (%s): using its best weights so far", self.path, self.record.status)
        self.classes: list[str] = self.record["classes"]
        self.activation: str = self.record["activation"]
        self.threshold: float = self.record["threshold"]
        self._parser = ConfigParser(_without_pretraining(self.config))

    def _problems(self) -> list[str]:
        """What is lacking, and where run.json, config.yaml and model.pt contradict each other."""
        path = self.path / "run.json"
        needed = ("classes", "activation", "threshold")
        problems = [f"{path}: lacks {name}" for name in needed if self.record[name] is None]
        problems += [
            f"{path}: {name} is {self.record[name]!r}, but {self.config[name]!r} in config.yaml; one of them was edited"
            for name in needed
            if name in self.config and self.record[name] not in (None, self.config[name])
        ]
        model, recorded = self.path / "model.pt", self.record.checkpoint_sha256
        if recorded and recorded != self.checkpoint_sha256:
            return [*problems, f"{model}: is not the file the run recorded (its SHA-256 differs)"]
        weights = load_weights(model)
        if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            problems.append(f"{model}: holds weights that are no finite numbers ({broken[0]}{more}); train anew")
        return problems

    @cached_property
    def checkpoint_sha256(self) -> str:
        """SHA-256 of model.pt."""
        return sha256_file(self.path / "model.pt")

    @property
    def own_data(self) -> tuple[str | None, str | None]:
        """Name and hash of the data it was trained on."""
        return self.record.dataset, self.record.data_hash

    @property
    def dataset_dir(self) -> str:
        """Where the run's dataset is.

        Raises:
            UserError: it has moved.
        """
        return dataset_path(self.path, self.config["dataset_dir"], self.record.dataset_dir)

    def parsed(self, name: str) -> Any:
        """What the run's own config means by an id, such as ``"image_transforms"`` or ``"to_original_grid"``.

        The same object each time, so that ``to_original_grid`` inverts the very transforms that prepared an image.
        """
        return self._parser.get_parsed_content(name)

    def network(self) -> torch.nn.Module:
        """The network with the run's best weights, in evaluation mode."""
        network: torch.nn.Module = self.parsed("network_def")
        network.load_state_dict(load_weights(self.path / "model.pt"))
        return network.eval()

    def datalist(self, dataset_dir: str | None = None, *, sites: str | Sequence[str] | None = None) -> Datalist:
        """The run's dataset, or another folder read and split as the run's config says.

        Args:
            dataset_dir: another folder; None for the run's own.
            sites: these sites only, each split by itself, whichever the run was trained and tested on.
        """
        own = self.dataset_dir if dataset_dir is None else str(dataset_dir)
        # A parser of its own: setting a value makes a parser forget its transforms, whose identity inverting needs.
        parser = ConfigParser(copy.deepcopy(self.config))
        parser["dataset_dir"] = own
        if sites:
            parser["data::sites"], parser["data::test_sites"] = sites, None
        if self.config.get("split_file"):
            # The file it was given may be gone; the run folder keeps its content. It is of no other dataset.
            same = Path(own).name == self.record.dataset and not sites
            parser["split_file"] = str(self.path / "split.json") if same else None
        data: Datalist = parser.get_parsed_content("data")
        if data.inspect().data_hash != self.record.data_hash:
            if data.name == self.record.dataset:
                logger.warning("Dataset %s is not what it was when this run was trained (other files or split)", own)
            if overlap := self._seen(data):
                logger.warning("%d of the images of %s were in this run's training part", overlap, data.name)
        return data

    def _seen(self, data: Datalist) -> int:
        """How many of another dataset's images this run was trained on, byte for byte."""
        trained = set(read_split(self.path)["parts"].get("train", {}).get("image_sha256", []))
        return len(trained & set(data.inspect().image_hashes.values()))


def _without_pretraining(config: dict[str, Any]) -> dict[str, Any]:
    """The config without the pretrained weights its training began with: model.pt holds them, trained further.

    They need not be there any more, nor the internet they came from. A network says itself which of its arguments these
    are, in ``pretraining_arguments``: of another's, ``weights`` or ``mean`` may be anything.
    """
    config = copy.deepcopy(config)
    chosen = config["networks"][config["network"]]
    found = pydoc.locate(ConfigComponent({"_target_": chosen["_target_"]}).resolve_module_name())
    for name in getattr(found, "pretraining_arguments", ()):
        chosen.pop(name, None)
    return config


def input_items(source: str | None) -> list[dict[str, str]]:
    """The images of a file or of a folder (not of its subfolders), as items to infer; every one can be read.

    Raises:
        UserError: nothing is there, two files would have the same result file, or some cannot be read; lists all.
    """
    if not source:
        raise UserError("input: say which image or folder of images to segment, --input PATH")
    path = Path(source).expanduser()
    if path.is_dir():
        visible = (file for file in path.iterdir() if not file.name.startswith("."))
        files = sorted(file for file in visible if file.is_file() and is_image(file))
        if not files:
            raise UserError(f"input {path}: holds no image ({', '.join(IMAGE_SUFFIXES)})")
    elif path.exists():
        files = [path]
    else:
        raise UserError(f"input {path}: no such file or folder")
    problems = []
    names: dict[str, Path] = {}
    for file in files:
        if (other := names.setdefault(stem(file), file)) != file:
            problems.append(f"{file}: has the same name as {other.name}, so their masks would be one file")
    problems += [problem for found in map_files(_unreadable, files, "Checking files") for problem in found]
    if problems:
        raise UserError(problems)
    return [{"image": str(file)} for file in files]


def _unreadable(path: Path) -> list[str]:
    try:
        read_raster(path)
    except UserError as error:
        return error.problems
    return []
