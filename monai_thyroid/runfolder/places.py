"""Where the files of a trained run are: in its run folder, or in the packed bundle that was made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from monai_thyroid.errors import UserError
from monai_thyroid.files import read_json

__all__ = ["RunFiles", "run_files"]


@dataclass(frozen=True)
class RunFiles:
    """The files of a run.

    Attributes:
        path: the run folder or the packed bundle, as it was given.
        facts: the folder with run.json, config.yaml and split.json.
        model: the weights.
        exports: the folder with exports.json and what it names.
        packed: whether it is a packed bundle.
        members: of a packed ensemble, the run folder of each member and the SHA-256 of its weights.
    """

    path: Path
    facts: Path
    model: Path
    exports: Path
    packed: bool = False
    members: tuple[tuple[Path, str], ...] = ()

    @property
    def record(self) -> Path:
        """run.json."""
        return self.facts / "run.json"

    @property
    def config(self) -> Path:
        """config.yaml."""
        return self.facts / "config.yaml"

    @property
    def split(self) -> Path:
        """split.json."""
        return self.facts / "split.json"


def run_files(path: Path) -> RunFiles:
    """Find out whether a folder is a run folder or a packed bundle; the only place that knows how these differ.

    Raises:
        UserError: it is neither, or it is a packed ensemble without its members.
    """
    if (path / "run.json").is_file():
        return RunFiles(path, path, path / "model.pt", path / "exports")
    if (path / "configs" / "metadata.json").is_file():
        models = path / "models"
        if not (path / "run" / "run.json").is_file():
            raise UserError(f"{path}: is a bundle that monai-thyroid pack has not made (no run/run.json in it)")
        members = _members(path)
        return RunFiles(path, path / "run", models / "model.pt", models, packed=True, members=members)
    if path.is_file() and path.suffix.lower() == ".zip":
        raise UserError(f"{path}: unzip it first: python -m zipfile -e {path} FOLDER; then give FOLDER/{path.stem}")
    raise UserError(f"{path}: is not a run folder (no run.json in it)")


def _members(path: Path) -> tuple[tuple[Path, str], ...]:
    source = path / "run" / "members.json"
    if not source.is_file():
        return ()
    try:
        hashes = read_json(source)
    except (OSError, ValueError) as error:
        raise UserError(f"{source}: cannot be read ({error})") from error
    if not isinstance(hashes, list) or not hashes or not all(isinstance(one, str) for one in hashes):
        raise UserError(f"{source}: does not list the SHA-256 of the members")
    folders = [path / "models" / "members" / str(number) for number in range(1, len(hashes) + 1)]
    if lost := [folder.name for folder in folders if not (folder / "run.json").is_file()]:
        raise UserError(f"{path}: lacks the members {', '.join(lost)} of its ensemble in models/members")
    return tuple(zip(folders, hashes, strict=True))
