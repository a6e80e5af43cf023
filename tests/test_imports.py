"""What an import pulls in, and which room of the package knows which."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "monai_thyroid"

# A room, and the rooms it may know; the last eight, the corridor, are known to all.
MAY_KNOW = {
    "images": set(),
    "metrics": set(),
    "networks": set(),
    "runfolder": {"metrics"},
    "transforms": {"images"},
    "data": {"images"},
    "evaluation": {"data", "images", "metrics", "networks", "runfolder", "transforms"},
    "training": {"data", "evaluation", "images", "networks", "runfolder"},
    "sweep": {"data", "evaluation", "runfolder", "training"},
    "bundles": {"data", "images", "networks"},
    "compare": {"metrics", "runfolder"},
    "deploy": {"bundles", "compare", "data", "evaluation", "images", "metrics", "networks", "runfolder", "sweep"},
    "cli": {
        *("networks", "data", "images", "metrics", "bundles", "training", "evaluation", "sweep", "compare", "deploy"),
    },
    "__main__": {"cli"},
    "__init__": set(),
    "cluster": set(),
    "errors": set(),
    "files": set(),
    "lazy": set(),
    "machine": set(),
    "drawing": set(),
    "options": set(),
    "pages": set(),
}
CORRIDOR = {"cluster", "drawing", "errors", "files", "lazy", "machine", "options", "pages"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names of everything a module imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module or "") if part)
            yield name
            yield from (f"{name}.{alias.name}" for alias in node.names)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).parts[:-1])


def rooms_known(path: Path) -> set[str]:
    names = imported(ast.parse(path.read_text("utf-8")), package_of(path))
    parts = [name.split(".") for name in names]
    known = {one[1] for one in parts if one[0] == "monai_thyroid" and len(one) > 1}
    return {name for name in known if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_knows_only_the_rooms_it_may(path: Path) -> None:
    own = room(path)
    assert own in MAY_KNOW, f"{own} is a new room: say in MAY_KNOW what it may know"
    assert rooms_known(path) - {own} - CORRIDOR <= MAY_KNOW[own]


def module(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def modules_known(paths: list[Path]) -> dict[str, set[str]]:
    """Of each module the others that it imports, wherever in it; a package counts where a name is its own."""
    known = {module(path) for path in paths}
    found = {}
    for path in paths:
        names = set(imported(ast.parse(path.read_text("utf-8")), package_of(path))) & known
        # `from package import module` names the package on the way only.
        on_the_way = {name for name in names if any(other.startswith(f"{name}.") for other in names)}
        found[module(path)] = names - on_the_way - {module(path)}
    return found


def rooms() -> dict[str, set[str]]:
    """Of each room the others that it imports."""
    found: dict[str, set[str]] = {}
    for path in modules():
        found.setdefault(room(path), set()).update(rooms_known(path) - {room(path)})
    return found


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The members of a circle, none if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_two_modules_import_each_other() -> None:
    assert not circle(modules_known(modules()))


def test_no_two_rooms_import_each_other() -> None:
    assert not circle(rooms())


def test_a_room_may_know_no_more_than_it_needs() -> None:
    there = rooms()
    unused = {name: (MAY_KNOW[name] & there.keys()) - known for name, known in there.items()}
    assert not {name: rest for name, rest in unused.items() if rest}


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_the_rule_sees_every_way_to_import() -> None:
    source = """
import monai_thyroid.cli
from monai_thyroid import sweep
from ..data import reading
def later():
    from monai_thyroid.metrics.cases import rates
"""
    names = set(imported(ast.parse(source), "monai_thyroid.networks"))
    assert {"monai_thyroid.cli", "monai_thyroid.sweep", "monai_thyroid.data", "monai_thyroid.metrics.cases"} <= names
    assert "monai_thyroid.networks.base" in set(imported(ast.parse("from . import base"), "monai_thyroid.networks"))


def test_the_comparison_knows_files_alone() -> None:
    for path in (PACKAGE / "compare").rglob("*.py"):
        names = set(imported(ast.parse(path.read_text("utf-8")), package_of(path)))
        assert not {name for name in names if name.split(".")[0] in ("torch", "monai", "ignite")}, path


OPTIONAL = (
    "segmentation_models_pytorch timm torchvision safetensors onnx onnxruntime openvino onnxscript nncf mlflow "
    "highdicom pynetdicom dicomweb_client ray streamlit sklearn statsmodels"
).split()


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_optional_packages_are_imported_where_they_are_needed(path: Path) -> None:
    """Not when the module is, so that nobody has to install them for what he does not use."""
    tree = ast.parse(path.read_text("utf-8"))
    at_once = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {name.split(".")[0] for node in at_once for name in imported(node, package_of(path))}
    assert not names & {*OPTIONAL, "matplotlib"}


def pulled_in(first: str, then: str) -> tuple[set[str], set[str]]:
    """Modules that are there after the first statement, and those that came with the second."""
    program = f"import sys\n{first}\nprint(*sys.modules)\n{then}\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=PACKAGE.parent, timeout=300, check=True
    )
    before, after = (set(line.split()) for line in done.stdout.splitlines())
    return before, after - before


def test_the_package_itself_pulls_in_nothing_heavy() -> None:
    before, more = pulled_in(
        "import monai_thyroid",
        "import monai_thyroid.cli, monai_thyroid.errors; monai_thyroid.cli._parser().format_help()",
    )
    heavy = {"torch", "monai", "numpy", "matplotlib", "PIL", "scipy", "fire", *OPTIONAL}
    assert "monai_thyroid" in before
    assert "monai_thyroid.cli" in more
    assert not (before | more) & heavy


def test_the_comparison_pulls_in_no_torch() -> None:
    """Reports are made where nothing is trained; the metrics it knows stand on numpy and scipy."""
    before, more = pulled_in("import monai_thyroid", "import monai_thyroid.compare, monai_thyroid.compare.report")
    assert "monai_thyroid.metrics.summary" in more
    assert not (before | more) & {"torch", "monai", "ignite", "matplotlib", "jinja2", *OPTIONAL}


def test_an_archive_is_segmented_without_torch() -> None:
    """Where the run was used before: what torch and MONAI found out is kept beside it, and OpenVINO computes."""
    before, more = pulled_in("import monai_thyroid", "import monai_thyroid.deploy, monai_thyroid.evaluation")
    assert "monai_thyroid.evaluation.predictor" in more
    assert not (before | more) & {"torch", "monai", "ignite", "matplotlib", *OPTIONAL}


def test_a_dataset_is_looked_through_without_torch() -> None:
    before, more = pulled_in("import monai_thyroid", "import monai_thyroid.data.audit")
    assert "monai_thyroid.data.layouts" in more
    assert not (before | more) & {"torch", "monai", "ignite", "matplotlib", *OPTIONAL}


def test_networks_data_and_runs_pull_in_no_optional_package() -> None:
    # MONAI itself imports some of them, where they are installed.
    before, more = pulled_in(
        "import torch, monai, monai.bundle",
        "import monai_thyroid.networks, monai_thyroid.data, monai_thyroid.sweep.plan",
    )
    assert "monai_thyroid.training.session" in more
    assert not more & {*OPTIONAL, "matplotlib", "matplotlib.pyplot"}
    assert not (before | more) & {"segmentation_models_pytorch", "timm", "openvino"}


def test_nothing_here_has_a_name_that_configs_ask_monai_for() -> None:
    """MONAI looks a short ``_target_`` up in all loaded modules whose name begins with its own, and takes the first."""
    texts = [path.read_text("utf-8") for path in (PACKAGE.parent / "bundles").rglob("*.yaml")]
    asked = {name for text in texts for name in re.findall(r"_target_: (\w+)(?![\w.])", text)}
    assert {"Dataset", "SupervisedTrainer"} <= asked
    for path in PACKAGE.rglob("*.py"):
        body = ast.parse(path.read_text("utf-8")).body
        named = {node.name for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
        assert not named & asked, path
