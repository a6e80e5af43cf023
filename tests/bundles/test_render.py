"""All bundles come from one source, and are what it says."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import jinja2
import pytest
import yaml

from monai_thyroid import bundles
from monai_thyroid.bundles import copy_bundle, render_bundle, write_shipped
from monai_thyroid.bundles.render import SHIPPED, WAYS
from monai_thyroid.cli import main
from monai_thyroid.errors import UserError
from monai_thyroid.networks.menu import MENU_FILE


def test_the_committed_bundles_are_the_rendered_ones(root: Path, tmp_path: Path) -> None:
    assert {*SHIPPED, "networks"} == {path.name for path in (root / "bundles").iterdir()}
    written = write_shipped(tmp_path)
    assert len(written) == 9 * len(SHIPPED) + 1 + 4  # tirads.yaml of thyroid, blocks of networks
    other = [
        path for path in written if path.read_bytes() != (root / "bundles" / path.relative_to(tmp_path)).read_bytes()
    ]
    assert not other, "python -m monai_thyroid.bundles"
    assert write_shipped(tmp_path) == []


def test_the_menu_stands_in_a_bundle_with_its_comments(root: Path) -> None:
    assert MENU_FILE.read_text() in (root / "bundles" / "lung" / "train.yaml").read_text()


def test_a_copy_has_every_file_of_the_bundle_and_names_itself(root: Path, tmp_path: Path) -> None:
    for name in SHIPPED:
        copied = copy_bundle(name, tmp_path / name)
        assert {path.name for path in copied.iterdir()} == {path.name for path in (root / "bundles" / name).iterdir()}
        assert not [path.name for path in copied.iterdir() if f"bundles/{name}/" in path.read_text("utf-8")]


def test_the_command_that_a_copy_prints_can_be_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bundles", "--copy", "polyp", "a place/mine"]) == 0
    assert shlex.split(capsys.readouterr().out.splitlines()[-1])[-1] == "a place/mine/train.yaml"
    second = Path("a place/mine/train.yaml").read_text("utf-8").splitlines()[1]
    assert "a place/mine/train.yaml" in shlex.split(second)


def test_blocks_of_networks_are_copied_as_they_stand(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bundles", "--copy", "networks", "a place/more"]) == 0
    command = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert command[-1] == "a place/more/monai.yaml"
    files = {path.name: path.read_bytes() for path in (root / "bundles" / "networks").iterdir()}
    assert {path.name: path.read_bytes() for path in Path("a place/more").iterdir()} == files
    assert main(command[1:]) == 0
    assert "mednext" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["it's", "new\nline", "$x"])
def test_a_copy_goes_to_no_folder_whose_name_its_commands_could_not_hold(folder: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="take a name without quotes"):
        copy_bundle("polyp", tmp_path / folder)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_cannot_be_written_is_told_by_the_name_that_was_given(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/mine: cannot be written \(File exists\)"):
        copy_bundle("polyp", tmp_path / "file" / "mine")


def test_what_a_template_needs_must_be_said() -> None:
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        render_bundle("thyroid", folder="x", facts="")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_rendered_file_reads_as_if_written_by_hand(name: str, root: Path) -> None:
    for path in (root / "bundles" / name).glob("*.yaml"):
        lines = path.read_text().splitlines()
        assert all(len(line) <= 125 and line == line.rstrip() for line in lines), path
        assert not any(one == two == "" for one, two in itertools.pairwise(lines)), path
        comments = [line.index("# ") for line in lines if "  # " in line and len(line.split("  # ")[0]) < 35]
        assert set(comments) <= {38}, path


def test_no_recipe_says_what_no_template_reads() -> None:
    source = Path(bundles.__file__).parent
    templates = "".join(path.read_text() for path in source.glob("templates/*"))
    recipes = [yaml.safe_load(path.read_text()) for path in source.glob("recipes/*.yaml")]
    said = {key for recipe in recipes for part in (recipe, *(recipe.pop(way, {}) for way in WAYS)) for key in part}
    assert {key for key in said if not re.search(rf"\b{key}\b", templates)} == set()
