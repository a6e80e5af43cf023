"""A run as a predictor needs it: torch and MONAI, which load for seconds, are imported when something asks for them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_thyroid import __version__
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.pixels import PixelPath, ToProbabilities, numbered
from monai_thyroid.evaluation.postprocessing import Postprocessing
from monai_thyroid.files import canonical_hash, read_json, sha256_file, write_json
from monai_thyroid.runfolder import run_files

if TYPE_CHECKING:
    import numpy as np
    import torch

    from monai_thyroid.evaluation.trained import TrainedRun

__all__ = ["Model", "members"]

logger = logging.getLogger(__name__)


class Model:
    """A trained run by what is known of it without its network.

    What has to be found out with torch (sizes, transforms) is kept in ``<run>/runtimes/``, which may be deleted any
    time, and is used as long as the weights, the config and this package's version are the same.

    Args:
        run: a run folder or a packed bundle, or the run itself.

    Attributes:
        path: the folder.
        files: where the run's files are.
        classes: names of the classes without background.
        activation: ``"sigmoid"`` or ``"softmax"``.
        threshold: probability above which a pixel is foreground.
        configured_threshold: that was configured; equal unless another one was chosen.
        postprocessing: what its masks undergo.
        weights: SHA-256 of model.pt.
        shape: (channels, width, height) of the network's input.
        flips: axes (0 width, 1 height) by which images were mirrored in training.

    Raises:
        UserError: as `TrainedRun`.
    """

    def __init__(self, run: str | Path | TrainedRun) -> None:
        self.path = Path(run).expanduser() if isinstance(run, (str, Path)) else run.path
        self.files = run_files(self.path)
        if not isinstance(run, (str, Path)):
            self.trained = run
        facts = self.kept("model.json", self._key)
        if facts is None:
            facts = self._found_out()
            self.keep("model.json", self._key, facts)
        self.classes: list[str] = facts["classes"]
        self.activation: str = facts["activation"]
        self.threshold: float = facts["threshold"]
        self.configured_threshold: float = facts["configured_threshold"]
        self.postprocessing = Postprocessing.from_record(facts["postprocessing"])
        self.weights: str = facts["weights"]
        self.shape: tuple[int, int, int] = tuple(facts["shape"])
        self.flips: list[int] = facts["flips"]
        self._path = facts["path"]

    @cached_property
    def trained(self) -> TrainedRun:
        """The run itself."""
        from monai_thyroid.evaluation.trained import TrainedRun

        return TrainedRun(str(self.path))

    @cached_property
    def network(self) -> torch.nn.Module:
        """Its network with its weights, on the CPU."""
        return self.trained.network()

    @cached_property
    def pixels(self) -> Any:
        """What prepares an image and brings its logits back: `PixelPath` or `ConfiguredPath`."""
        if self._path is not None:
            return PixelPath.from_dict(self._path)
        from monai_thyroid.evaluation.configured import ConfiguredPath

        return ConfiguredPath(self.trained)

    def prepare(self, raster: Any) -> tuple[Any, ToProbabilities]:
        """See `PixelPath.prepare`."""
        prepared: tuple[Any, ToProbabilities] = self.pixels.prepare(raster)
        return prepared

    def decided(self, probabilities: np.ndarray, *, threshold: float | None = None) -> np.ndarray:
        """The mask that the run gives, (height, width): one class a pixel, postprocessing applied.

        Args:
            probabilities: (channels, height, width), on the image's own grid.
            threshold: to take in the place of the run's own; softmax has none.
        """
        threshold = self.threshold if threshold is None else threshold
        return self.postprocessing(numbered(probabilities, activation=self.activation, threshold=threshold))

    @cached_property
    def _key(self) -> str | None:
        files = [self.files.config, self.files.record, self.files.model]
        if not all(file.is_file() for file in files):
            return None  # `trained` says what is missing
        return canonical_hash([__version__, *map(sha256_file, files)])

    def _found_out(self) -> dict[str, Any]:
        from monai_thyroid.evaluation.configured import pixel_path, trained_flips

        trained = self.trained
        trained.rehearse()
        found = pixel_path(trained, self.network)
        path = found.as_dict() if isinstance(found, PixelPath) else None
        if path is None:
            self.pixels = found
        return {
            "classes": trained.classes,
            "activation": trained.activation,
            "threshold": trained.threshold,
            "configured_threshold": trained.configured_threshold,
            "postprocessing": trained.postprocessing.as_dict(),
            "weights": trained.checkpoint_sha256,
            "shape": found.shape,
            "flips": trained_flips(trained),
            "path": path,
        }

    def kept(self, name: str, key: str | None) -> Any:
        """What was kept in ``runtimes/`` under a name, or None if there is none or it is of another key."""
        try:
            content = read_json(self.path / "runtimes" / name)
        except (OSError, ValueError):
            return None
        return (
            content["content"] if key is not None and isinstance(content, dict) and content.get("key") == key else None
        )

    def keep(self, name: str, key: str | None, content: Mapping[str, Any]) -> None:
        """Keep something in ``runtimes/``; a folder that cannot be written to costs time at the next start, no more."""
        try:
            (self.path / "runtimes").mkdir(exist_ok=True)
            write_json(self.path / "runtimes" / name, {"key": key, "content": dict(content)})
        except OSError as error:
            logger.info("%s: cannot keep %s there (%s)", self.path, name, error)


def members(run: str | Path | TrainedRun | Model) -> list[Model]:
    """What of a run is computed by itself: the members of a packed ensemble, or the run as it is.

    Args:
        run: as `Model` takes it. A `Model` stays what it is, also of an ensemble, whose one network averages.

    Raises:
        UserError: as `TrainedRun`; of an ensemble also where it lacks members or one is not its own.
    """
    if isinstance(run, Model):
        return [run]
    path = Path(run).expanduser() if isinstance(run, (str, Path)) else run.path
    listed = run_files(path).members
    if not listed:
        return [Model(run)]
    if isinstance(run, (str, Path)):
        found = [Model(folder) for folder, _ in listed]
    else:
        found = [Model(type(run)(str(folder), trust=run.trust)) for folder, _ in listed]
    if wrong := [one.path for one, (_, sha256) in zip(found, listed, strict=True) if one.weights != sha256]:
        raise UserError([f"{one}: is not the member that the ensemble was packed with" for one in wrong])
    return found
