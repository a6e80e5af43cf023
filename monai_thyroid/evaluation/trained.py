"""A finished run, read from its folder: enough to evaluate, infer and pack without repeating its options."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from monai_thyroid.data import Datalist
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.components import Components, applied_config, older_expression, without_pretraining
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.evaluation.weights import load_weights, set_weights
from monai_thyroid.files import sha256_file
from monai_thyroid.images import read_raster
from monai_thyroid.images.sources import phantom_uri
from monai_thyroid.options import boolean
from monai_thyroid.runfolder import RunRecord, dataset_path, read_config, read_run, read_split, run_files

__all__ = ["TrainedRun"]

logger = logging.getLogger(__name__)


class TrainedRun:
    """A run folder whose training has left weights, or the packed bundle that was made of one.

    It is data, whoever made it: what is applied is made from `Components` alone, and no expression is evaluated.

    Args:
        run_dir: the run folder or the packed bundle.
        trust: evaluate its config as MONAI does, which runs whatever it says.
        finishing: its own training asks, so that it is no surprise that it has not finished.

    Attributes:
        path: the folder.
        files: where its files are.
        record: content of run.json.
        config: content of config.yaml, brought to the present schema.
        classes: names of the classes without background.
        whole: name of all classes together, which are scored as one besides; None where they are not.
        activation: ``"sigmoid"`` or ``"softmax"``.
        postprocessing: what its masks undergo, as chosen on its validation part; nothing unless it was chosen.

    Raises:
        UserError: nothing was given, or neither of them, it holds no weights or changed ones, its files contradict each
            other, or it would run what needs ``trust``; all that was found.
    """

    def __init__(self, run_dir: str | None, *, trust: bool | str = False, finishing: bool = False) -> None:
        if not run_dir:
            raise UserError("run_dir: say which run's model to use, --run_dir runs/BUNDLE/DATASET/NETWORK-HASH/seed-N")
        if "::" in str(run_dir):
            raise UserError(f"run_dir {run_dir}: cannot hold # or ::, which mean something to MONAI; rename it")
        self.path = Path(run_dir).expanduser()
        self.files = run_files(self.path)
        self.record: RunRecord = read_run(self.files.facts)
        if self.record.scored_from:
            raise UserError(f"{self.path}: was scored from masks that something else made; it has no weights to apply")
        missing = [file.name for file in (self.files.config, self.files.model) if not file.is_file()]
        if missing:
            lost = "files of it were lost" if self.files.packed else "its training did not get that far"
            raise UserError(f"{self.path}: has no {' and no '.join(missing)}; {lost}")
        self.config = read_config(self.files.facts)
        if problems := self._problems():
            raise UserError(problems)
        if self.record.status != "done" and not finishing:
            logger.warning("%s is not finished (%s): using its best weights so far", self.path, self.record.status)
        self.classes: list[str] = self.record["classes"]
        self.whole: str | None = self.record.whole
        self.activation: str = self.record["activation"]
        self.configured_threshold: float = self.record["threshold"]
        try:
            self.postprocessing = Postprocessing.from_record(self.record.postprocessing)
        except UserError as error:
            raise UserError(f"{self.path}: run.json: {error}") from error
        self.trust = _trusted(trust)
        self._parser = self._trusted_parser() if self.trust else None
        self._components = None if self.trust else self._read_components()

    def _trusted_parser(self) -> ConfigParser:
        config = copy.deepcopy(self.config)
        chosen = config.get("networks", {}).get(config.get("network"))
        if isinstance(chosen, dict) and "_target_" in chosen:
            config["networks"][config["network"]] = without_pretraining(chosen)
        return ConfigParser(config)

    def _read_components(self) -> Components:
        return Components(self.applied, source=self.files.config)

    @cached_property
    def applied(self) -> Any:
        """What applies the run, resolved: see `applied_config`."""
        if self._parser is not None:
            parser = self._parser
            return applied_config(self.config, lambda identity, text: parser.get_parsed_content(identity))
        applied = self.config.get("applied")
        if applied is None:
            applied = applied_config(self.config, older_expression(self.config, source=self.files.config))
        return applied

    def _problems(self) -> list[str]:
        """What is lacking, and where run.json, config.yaml and model.pt contradict each other."""
        path = self.files.record
        needed: tuple[str, ...] = ("classes", "activation", "threshold")
        if self.files.packed:  # which nobody trains on in
            needed += ("checkpoint_sha256",)
        problems = [f"{path}: lacks {name}" for name in needed if self.record[name] is None]
        problems += [
            f"{path}: {name} is {self.record[name]!r}, but {self.config[name]!r} in config.yaml; one of them was edited"
            for name in needed
            if name in self.config and self.record[name] not in (None, self.config[name])
        ]
        model, recorded = self.files.model, self.record.checkpoint_sha256
        if recorded and recorded != self.checkpoint_sha256:
            return [*problems, f"{model}: is not the file the run recorded (its SHA-256 differs)"]
        weights = load_weights(model)
        if broken := [name for name, tensor in weights.items() if not torch.isfinite(tensor).all()]:
            more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
            problems.append(f"{model}: holds weights that are no finite numbers ({broken[0]}{more}); train anew")
        return problems

    @property
    def threshold(self) -> float:
        """Probability above which a pixel is foreground: the chosen one, else the configured one."""
        return self.postprocessing.threshold_or(self.configured_threshold)

    @cached_property
    def checkpoint_sha256(self) -> str:
        """SHA-256 of model.pt."""
        return sha256_file(self.files.model)

    @property
    def own_data(self) -> tuple[str | None, str | None]:
        """Name and hash of the data it was trained on."""
        return self.record.dataset, self.record.data_hash

    @property
    def dataset_dir(self) -> str:
        """Where the run's dataset is.

        Raises:
            UserError: it has moved, or a packed bundle does not say.
        """
        if self.files.packed and self.config.get("dataset_dir") is None:
            raise UserError(f"{self.path}: a packed bundle holds no data; say where they are with --dataset_dir DIR")
        return dataset_path(self.path, self.config["dataset_dir"], self.record.dataset_dir)

    def parsed(self, name: str) -> Any:
        """What the run's own config means by an id, such as ``"image_transforms"`` or ``"to_original_grid"``.

        The same object each time, so that ``to_original_grid`` inverts the very transforms that prepared an image.
        """
        if self._components is not None:
            return self._components[name]
        assert self._parser is not None
        return self._parser.get_parsed_content("network_def" if name == "network" else name)

    def network(self) -> torch.nn.Module:
        """The network with the run's best weights, in evaluation mode."""
        return self.loaded(self.parsed("network"))

    def loaded(self, network: torch.nn.Module) -> torch.nn.Module:
        """A network of the same kind with the run's best weights, in evaluation mode.

        Raises:
            UserError: the weights are not of this network.
        """
        set_weights(network, self.files.model)
        return network.eval()

    def rehearse(self) -> None:
        """Apply the run to a synthetic image, so that what does not fit together is told before anything is written.

        Raises:
            UserError: it does not, or the result is not of the image's size and the classes' number.
        """
        source = self.files.config
        item: dict[str, Any] = {"image": phantom_uri("image", case=0, view=0, seed=0)}
        shape = read_raster(item["image"]).pixels.shape[1::-1]
        try:
            for transform in self.parsed("image_transforms"):
                item = transform(item)
            with torch.no_grad():
                item["pred"] = self.network()(item["image"][None])[0]
            for transform in self.parsed("to_original_grid"):
                item = transform(item)
            found = tuple(item["pred"].shape)
        except UserError as error:
            told = [p if str(self.path) in p else f"{source}: {p}" for p in error.problems]
            raise UserError(told) from error
        except Exception as error:  # whatever transforms and networks raise on what is not for them
            cause = error.__cause__ or error
            raise UserError(f"{source}: what it applies does not fit together: {cause}") from error
        channels = len(self.classes) + (self.activation == "softmax")
        if found != (channels, *shape):
            raise UserError(
                f"{source}: gives {found} (channels, width, height) for an image and classes of {(channels, *shape)}"
            )

    def datalist(self, dataset_dir: str | None = None, *, sites: str | Sequence[str] | None = None) -> Datalist:
        """The run's dataset, or another folder read and split as the run's config says.

        Args:
            dataset_dir: another folder; None for the run's own.
            sites: these sites only, each split by itself, whichever the run was trained and tested on.
        """
        own = self.dataset_dir if dataset_dir is None else str(dataset_dir)
        changes: dict[str, Any] = {"dataset_dir": own}
        if sites:
            changes |= {"sites": sites, "test_sites": None}
        if self.config.get("split_file"):
            # The file it was given may be gone; the run folder keeps its content. It is of no other dataset.
            same = Path(own).name == self.record.dataset and not sites
            changes["split_file"] = str(self.files.split) if same else None
        data = self._datalist(changes)
        if data.inspect().data_hash != self.record.data_hash:
            if data.name == self.record.dataset:
                logger.warning("Dataset %s is not what it was when this run was trained (other files or split)", own)
            if overlap := self._seen(data):
                logger.warning("%d of the images of %s were in this run's training part", overlap, data.name)
        return data

    def _datalist(self, changes: dict[str, Any]) -> Datalist:
        if self._components is not None:
            made: Datalist = self._components.make("data", **changes)
            return made
        parser = ConfigParser(copy.deepcopy(self.config))  # setting an id makes a parser forget what it has built
        for name, value in changes.items():
            parser[f"data::{name}"] = value
        made = parser.get_parsed_content("data")
        return made

    def _seen(self, data: Datalist) -> int:
        """How many of another dataset's images this run was trained on, byte for byte."""
        trained = set(read_split(self.files.facts)["parts"].get("train", {}).get("image_sha256", []))
        return len(trained & set(data.inspect().image_hashes.values()))


def _trusted(trust: bool | str) -> bool:
    try:
        return boolean(trust)
    except UserError as error:
        raise UserError(f"trust {error}") from error
