"""The files of a bundle, rendered from what all bundles share (``templates/``) and what it is about (``recipes/``).

A recipe is a YAML of values for the insertion points of the templates; its texts are put in as they stand, comments and
all; ``<name>.md`` beside it is the bundle's README, and a folder ``<name>/`` has what this bundle alone has, templates
as well. What stands under ``strong`` and under ``course`` are two ways to train on the same data: the strong recipe,
and that of the course project which a bundle reproduces. ``default`` says which of them is ``train.yaml``.
``networks/`` are blocks of further networks for any bundle. `python -m monai_thyroid.bundles` writes the bundles of
this repository anew, and those blocks beside them.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from monai_thyroid import __version__
from monai_thyroid.errors import UserError
from monai_thyroid.files import atomic_path
from monai_thyroid.networks.menu import MENU_FILE

__all__ = ["NETWORKS", "SHIPPED", "VERSIONS", "copy_bundle", "recipe", "render_bundle", "write_bundle", "write_shipped"]

_HERE = Path(__file__).parent
SHIPPED = tuple(sorted(path.stem for path in _HERE.glob("recipes/*.yaml") if path.stem != "own"))
"""Names of the bundles of this repository."""
NETWORKS = "networks"
"""Name of the folder with blocks of further networks, which is copied as a bundle is."""

VERSIONS = {
    "monai": "1.6.1",
    "pytorch": "2.13.0",
    "numpy": "2.4.6",
    "monai_thyroid": __version__,
    "pytorch-ignite": "0.5.5",
    "fire": "0.7.1",
    "pyyaml": "6.0.3",
    "tensorboard": "2.21.0",
}
"""What the bundles of this repository are tested with, as metadata.json says it."""

# What a recipe may leave out.
_OPTIONAL = {
    **dict.fromkeys(("imports", "network", "class_lines", "layout", "measures", "leak", "groups", "first_stage")),
    **{"phantom": True, "square": False, "shrunk": False, "sites": False, "versions": VERSIONS},
    **{"default": "strong", "lr_scheduler": None, "in_repository": False},
}
WAYS = ("strong", "course")
_TRAINED = ("train.yaml", "multi_gpu_train.yaml")  # rendered for each way


def recipe(name: str) -> dict[str, Any]:
    """What a recipe says."""
    content: dict[str, Any] = yaml.safe_load((_HERE / "recipes" / f"{name}.yaml").read_text(encoding="utf-8"))
    return content


def render_bundle(recipe_name: str, **values: Any) -> dict[str, str]:
    """Render the files of a bundle.

    Args:
        recipe_name: of a recipe.
        values: what it leaves open, such as ``name`` and ``folder``, or what is to be other than it says.

    Returns:
        The content of each file by its name.

    Raises:
        jinja2.UndefinedError: neither the recipe nor the values say what a template needs.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["json"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.filters["quoted"] = shlex.quote
    environment.globals["note"] = _note
    about = recipe(recipe_name)
    own_readme = _HERE / "recipes" / f"{recipe_name}.md"
    menu = MENU_FILE.read_text(encoding="utf-8")
    given = {**_OPTIONAL, **_without_ends({"menu": menu, **about}), **values}
    given["metadata"] = {**_metadata(given), **given["metadata"]}
    environment.globals["page"] = _page if given["in_repository"] else _page_elsewhere
    ways = {way: given.pop(way) for way in WAYS if way in given}
    files = {}
    for name in environment.list_templates():
        template = environment.get_template(name)
        if name == "README.md" and own_readme.is_file():
            template = environment.from_string(own_readme.read_text(encoding="utf-8"))
        if name not in _TRAINED:
            files[name] = template.render(given)
            continue
        for way, recipe_of in ways.items():
            ending = "" if way == given["default"] else f"_{way}"
            named = {"strong": way == "strong", "ending": ending, "others": [one for one in ways if one != way]}
            files[name.replace(".yaml", f"{ending}.yaml")] = template.render({**given, **recipe_of, **values, **named})
    for path in sorted((_HERE / "recipes" / recipe_name).glob("*")):
        files[path.name] = environment.from_string(path.read_text(encoding="utf-8")).render(given)
    return files


def write_shipped(folder: Path) -> list[Path]:
    """Render the bundles of this repository, and the blocks of networks, into subfolders of a folder.

    Returns:
        The files whose content has changed.
    """
    changed = []
    for name in (*SHIPPED, NETWORKS):
        for file, text in _files(name, f"bundles/{name}", in_repository=True).items():
            path = folder / name / file
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_text(text, encoding="utf-8")
            changed.append(path)
    return changed


def copy_bundle(name: str, target: str | Path) -> Path:
    """Write a bundle of this package to a folder of the user's.

    Args:
        name: of `SHIPPED`, or `NETWORKS`.
        target: the bundle's folder, which must not exist.

    Returns:
        The folder.

    Raises:
        UserError: there is no such bundle, or the folder exists or cannot be made; nothing has been written.
    """
    target = Path(target).expanduser()
    problems = []
    if not str(target).isprintable() or set(str(target)) & set("'\"`$\\"):
        problems.append(
            f"{str(target)!r}: commands in the bundle's files name its folder; take a name without quotes, $ and \\"
        )
    if name not in (*SHIPPED, NETWORKS):
        problems.append(f"bundle {name}: not known; there are {', '.join(SHIPPED)}, and {NETWORKS}")
    if target.exists() or target.is_symlink():
        problems.append(f"{target}: exists already; give another name, or remove it")
    if problems:
        raise UserError(problems)
    write_bundle(target, _files(name, target.as_posix()))
    return target


def _files(name: str, folder: str, **values: Any) -> dict[str, str]:
    if name == NETWORKS:
        return {path.name: path.read_text(encoding="utf-8") for path in sorted((_HERE / NETWORKS).glob("*.yaml"))}
    return render_bundle(name, name=name, folder=folder, facts="", **values)


def write_bundle(target: Path, files: Mapping[str, str]) -> None:
    """Write a new bundle's files beside its folder, and give the folder its name when all of them are there.

    Args:
        target: the folder, which must not exist.
        files: their content by name.

    Raises:
        UserError: it cannot be written there.
    """
    temporary = target.with_name(f".partial-{os.getpid()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.mkdir()
        for name, text in files.items():
            (temporary / name).write_text(text, encoding="utf-8")
        temporary.rename(target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _page(place: str) -> str:
    """A link from a bundle of this repository to a page of its documentation."""
    return f"[{place.partition('#')[0]}](../../{place})"


def _page_elsewhere(place: str) -> str:
    return f"{place.partition('#')[0]} of monai_thyroid's repository"


def _note(text: str, comment: str, column: int = 38) -> str:
    """A line of YAML and its comment, which begins in a column of its own where there is room for it."""
    return f"{text:<{column}}# {comment}" if len(text) < column else f"{text}   # {comment}"


def _without_ends(value: Any) -> Any:
    """Texts without the newline at their end, which the templates have."""
    if isinstance(value, Mapping):
        return {key: _without_ends(one) for key, one in value.items()}
    return value.rstrip("\n") if isinstance(value, str) else value


def _metadata(given: Mapping[str, Any]) -> dict[str, Any]:
    """What metadata.json says unless the recipe says something else."""
    classes, size = given["classes"], 256
    colours = ("red", "green", "blue") if given["channels"] == 3 else ("image",)
    return {
        "authors": "monai_thyroid authors",
        "copyright": "Copyright (c) monai_thyroid authors",
        "label_classes": f"single channel, 1 is {classes[0]}, 0 is everything else",
        "pred_classes": f"single channel logits; sigmoid above 0.5 is {classes[0]}",
        "input_size": size,
        "output_size": size,
        "input_channels": {str(number): colour for number, colour in enumerate(colours)},
        "output_channels": {str(number): name for number, name in enumerate(["background", *classes])},
    }
