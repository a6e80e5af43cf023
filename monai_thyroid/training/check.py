"""What can be known to be wrong before the first epoch, all of it in one list."""

from __future__ import annotations

import difflib
import functools
import inspect
import os
import pydoc
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import merge_kv
from monai.losses import DeepSupervisionLoss
from monai.utils import set_determinism

from monai_thyroid.data import Datalist
from monai_thyroid.errors import UserError, tell_on_exit
from monai_thyroid.evaluation import TrainedRun
from monai_thyroid.evaluation.weights import find_weights, match_weights
from monai_thyroid.networks import AdaptedNetwork
from monai_thyroid.options import boolean
from monai_thyroid.training.caller import BUNDLE_ROOT, calling_workflow, on_command_line
from monai_thyroid.training.config import check_constants, has, load_config_file, problems_behind
from monai_thyroid.training.constants import CONSTANTS
from monai_thyroid.training.handlers import reseed
from monai_thyroid.training.rehearsal import rehearse

__all__ = [
    "check_config",
    "check_file",
    "check_start",
    "configured_networks",
    "file_problems",
    "input_size",
    "output_size",
    "problems_of",
    "read_config",
    "read_menu",
]

# With a point or an exponent: a text of digits alone may be a name.
_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?")


_ADAPTER = "monai_thyroid.networks.AdaptedNetwork"
_OF_WORKFLOWS = ("imports", "initialize", "run", "finalize")
_PATHS = ("dataset_dir", "output_dir", "input", "run_dir", "split_file", "init_from")
_LEARNING = ("loss", "optimizer", "lr_scheduler")


def check_config(packed: str | None = None) -> None:
    """Check the config in which this is written; part of its ``initialize``. Writes nothing, and seeds everything.

    Args:
        packed: root of the packed bundle whose config it is. MONAI's own functions and servers initialise it before
            they have data for it: from Python its weights alone are checked where no data are named.

    Raises:
        UserError: something is wrong (MONAI wraps it in a RuntimeError whose ``__cause__`` it is).
        SystemExit: the same, under the command line: status 1, the problems on standard error, no traceback.
    """
    if on_command_line():
        tell_on_exit()
    caller = calling_workflow()
    if packed is not None and not on_command_line():
        TrainedRun(packed)
        if not _names_data(caller.parser):
            return
    problems = _comments(sys.argv) if on_command_line() else []
    given = caller.overrides or {}
    problems += file_problems(caller.config_files)
    with suppress(UserError):  # what cannot be read is among them
        problems += unknown_overrides(given, _merged(caller.config_files))
    problems += problems_of(caller.parser, given=given)
    if not problems:
        return
    error = UserError(problems)
    if on_command_line():
        raise SystemExit(str(error)) from error
    raise error


def _names_data(parser: ConfigParser) -> bool:
    """Whether a packed bundle's config was told which images it is for."""
    if has(parser, "input"):
        return parser["input"] is not None
    return parser["dataset_dir"] not in (None, "$@trained.dataset_dir")


def check_file(config_file: str | Sequence[str], overrides: Mapping[str, Any]) -> list[str]:
    """Check a config as `python -m monai.bundle run` would read it, without running it.

    A bundle's file is its user's own program, in which expressions are evaluated. One that lies in a run folder is
    data: unless ``trust`` is among the overrides, the run is checked as `TrainedRun` reads it.

    Args:
        config_file: a bundle's YAML or a run's, or several, of which a later one overrides an earlier one.
        overrides: ids and values from the command line.

    Returns:
        One sentence for each problem.
    """
    return _checked(config_file, overrides)[1]


def check_start(config_file: str | Sequence[str], overrides: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """`check_file`, and `rehearse` where it finds nothing.

    Returns:
        One sentence for each problem, and one for each thing that was timed.
    """
    parser, problems = _checked(config_file, overrides)
    return rehearse(parser) if parser is not None and not problems else (problems, [])


def _checked(config_file: str | Sequence[str], overrides: Mapping[str, Any]) -> tuple[ConfigParser | None, list[str]]:
    overrides = dict(overrides)
    try:
        if (run := _run_of(config_file)) and not boolean(overrides.pop("trust", False)):
            return None, _run_problems(run, overrides)
        parser = read_config(config_file)
    except UserError as error:
        return None, error.problems
    unknown = unknown_overrides(overrides, parser.get())
    known = {name: value for name, value in overrides.items() if _unknown(name, parser.get()) is None}
    for name, value in known.items():
        parser[name] = value
    return parser, unknown + problems_of(parser, given=known)


def read_config(config_file: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> ConfigParser:
    """Read one or several files as `python -m monai.bundle run` does, with the metadata beside the first.

    Raises:
        UserError: a file is not there, cannot be read, or takes the place of another one's networks; all that are so.
    """
    given = [config_file] if isinstance(config_file, (str, os.PathLike)) else config_file
    files = [Path(file) for file in given]
    if problems := file_problems(files):
        raise UserError(problems)
    parser = ConfigParser()
    parser.read_config(_merged(files))
    if (meta := files[0].with_name("metadata.json")).is_file():
        parser.read_meta(meta)
    # It looks for a workflow, which there is none here.
    if has(parser, "bundle_root") and parser["bundle_root"] == BUNDLE_ROOT:
        parser["bundle_root"] = str(files[0].resolve().parent.parent)
    return parser


def _merged(files: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """The content of files, of which a later one overrides or adds to an earlier one.

    Raises:
        UserError: one cannot be read or merged.
    """
    merged = ConfigParser({})
    for file in files:
        try:
            for name, value in load_config_file(file).items():
                merge_kv(merged, name, value)
        except Exception as error:  # whatever merging raises
            raise UserError(f"{file}: cannot be read ({error})") from error
    content: dict[str, Any] = merged.get()
    return content


def file_problems(files: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What is wrong with the files of a config, each by itself and beside those before it.

    MONAI lets a later file override whatever an earlier one says. Of a menu that is a mistake more often than not: a
    network of one's own takes the place of another one, under whose name it is then compared.

    Args:
        files: in their order.

    Returns:
        One sentence for each problem.
    """
    problems: list[str] = []
    menu: dict[str, Path] = {}
    contents: dict[Path, dict[str, Any]] = {}
    for file in map(Path, files):
        if not file.is_file():
            problems.append(f"{file}: no such file")
            continue
        try:
            content = load_config_file(file)
        except Exception as error:  # whatever the YAML reader raises
            problems.append(f"{file}: cannot be read ({error})")
            continue
        if not isinstance(content, dict):
            kind = "nothing" if content is None else f"a {type(content).__name__}"
            problems.append(f"{file}: holds {kind} and not names with values, as a config does")
            continue
        if numbers := [str(key) for key in content if not isinstance(key, str)]:
            problems.append(f"{file}: {', '.join(numbers)}: a name in a config is a word")
            continue
        if "networks" in content and menu:
            problems.append(
                f"{file}: networks would replace the whole menu ({', '.join(menu)}); write networks::NAME for each "
                "network of your own"
            )
            continue
        if loose := [key for key in ("networks", "+networks") if not isinstance(content.get(key, {}), dict)]:
            problems.append(f"{file}: {', '.join(loose)}: must hold a block for each name")
            continue
        blocks = {
            **content.get("networks", {}),
            **content.get("+networks", {}),
            **{
                key.removeprefix("networks::"): block
                for key, block in content.items()
                if str(key).startswith("networks::") and key.count("::") == 1
            },
        }
        problems += [
            f"{file}: networks::{name} would replace the network of that name in {menu[name]}; give it another name, "
            f"or change an argument by networks::{name}::ARGUMENT"
            for name in blocks
            if name in menu
        ]
        menu.update(dict.fromkeys(blocks, file))
        contents[file] = content
    return problems + _read_by_nothing(contents)


def _read_by_nothing(contents: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """Tell of names in later files that look like one of an earlier file and that nothing refers to.

    MONAI adds them without a word. Others are a user's own business.
    """
    problems = []
    known: set[str] = set()
    everything = str([*contents.values()])
    for file, content in contents.items():
        names = {key.lstrip("+") for key in content if "::" not in key}
        for name in sorted(names - known - {*CONSTANTS, *_OF_WORKFLOWS}) if known else ():
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
            if nearest and f"@{name}" not in everything and f"%{name}" not in everything:
                problems.append(f"{file}: {name}: nothing reads it; did you mean {nearest[0]}?")
        known |= names
    return problems


def read_menu(files: Sequence[str | os.PathLike[str]]) -> ConfigParser:
    """Read the networks of files, and the constants they refer to, without the bundle whose other parts they change.

    Args:
        files: in their order, of which a later one adds to an earlier one.

    Raises:
        UserError: as `read_config`.
    """
    if problems := file_problems(files):
        raise UserError(problems)
    parser = ConfigParser()
    for file in files:
        for name, value in load_config_file(file).items():
            whole = name.removeprefix("+").partition("::")[0]
            if has(parser, whole) or "::" not in name:
                merge_kv(parser, name, value)
    return parser


def configured_networks(config_file: str | Sequence[str]) -> dict[str, Callable[..., torch.nn.Module]]:
    """The networks of a config's menu; each takes the numbers of channels in and out.

    Raises:
        UserError: a file cannot be read, or has no ``networks``.
    """
    parser = read_menu([config_file] if isinstance(config_file, str) else config_file)
    if not has(parser, "networks"):
        raise UserError(f"{config_file}: has no networks")

    for constant, value in {"image_size": 256, "activation": "sigmoid"}.items():
        if not has(parser, constant):
            parser[constant] = value
    if problems := _block_problems(parser["networks"]):
        raise UserError(problems)

    def build(name: str, *, in_channels: int, out_channels: int) -> torch.nn.Module:
        parser["channels"], parser["classes"] = in_channels, [str(number) for number in range(out_channels)]
        made, problems = _evaluate(parser, f"networks::{name}")
        if problems:
            raise UserError(problems)
        try:
            network: torch.nn.Module = made()
        except Exception as error:  # such as a package that it needs
            raise UserError(problems_behind(error, f"network {name}")) from error
        return network

    return {name: functools.partial(build, name) for name in parser["networks"]}


def _comments(words: Sequence[str]) -> list[str]:
    """Values with a # in them, behind which the command line of MONAI reads a comment."""
    values = [word.partition("=")[2] if word.startswith("--") else word for word in words]
    return [f"{value}: the command line cannot give a # in a value; rename it" for value in values if "#" in value]


def _run_of(config_file: str | Sequence[str]) -> Path | None:
    """The run folder in which a config lies, or the first of several that does."""
    given = [config_file] if isinstance(config_file, str) else config_file
    return next((Path(file).parent for file in given if (Path(file).parent / "run.json").is_file()), None)


def _run_problems(folder: Path, overrides: Mapping[str, Any]) -> list[str]:
    """What is wrong with a run folder and its dataset, without running anything that its config says."""
    if overrides:
        return [f"option --{name}: {folder} is a finished run, whose settings do not change" for name in overrides]
    try:
        trained = TrainedRun(str(folder))
        trained.rehearse()
        return trained.datalist().inspect().problems
    except UserError as error:
        return error.problems


def unknown_overrides(overrides: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Say which ids are neither in a config nor arguments of one of its components, with the nearest known name.

    MONAI adds an unknown id to the config without a word, and nothing then reads it.
    """
    return [problem for name in overrides if (problem := _unknown(name.lstrip("+"), config))]


def _unknown(name: str, config: Mapping[str, Any]) -> str | None:
    if not config:  # the caller does not tell which file it has read
        return None
    if name == "network" and "network" in config and "networks" not in config:
        return "option --network: this bundle was packed with its network; --network_def::ARGUMENT changes an argument"
    node: Any = config
    keys = ReferenceResolver.split_id(name)
    for depth, key in enumerate(keys):
        if isinstance(node, list):
            if key.isdigit() and int(key) < len(node):
                node = node[int(key)]
                continue
            return f"option --{name}: {'::'.join(keys[:depth])} is a list of {len(node)}, counted from 0"
        if not isinstance(node, Mapping):
            return f"option --{name}: {'::'.join(keys[:depth])} has no parts"
        if key in node:
            node = node[key]
            continue
        known = list(node)
        if depth == 0:
            known = [other for other in node if not other.startswith("_")]
        elif "_target_" in node:
            accepted = _arguments(node)
            if depth == len(keys) - 1 and (accepted is None or key in accepted):
                return None
            known += sorted(accepted or ())
        nearest = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        # For a person "epoch" is nearer to "max_epochs", and "lr" to "learning_rate", than for an edit distance.
        nearest = [other for other in known if key == "".join(word[:1] for word in other.split("_"))] or nearest
        nearest = nearest or [other for other in known if key.strip("s") in other][:1]
        prefix = "".join(f"{part}::" for part in keys[:depth])
        hint = f"; did you mean --{prefix}{nearest[0]}?" if nearest else ""
        return f"option --{name}: the config has no {prefix}{key}{hint}"
    return None


def _arguments(component: Mapping[str, Any]) -> set[str] | None:
    """Names of the arguments of a component; None where it takes any."""
    target = component["_target_"]
    if not isinstance(target, str) or target.startswith("$"):
        return None
    found = pydoc.locate(ConfigComponent({"_target_": target}).resolve_module_name())
    if not callable(found):
        return None
    try:
        parameters = inspect.signature(found).parameters.values()
    except ValueError:  # some classes written in C do not tell
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters} | ConfigComponent.non_arg_keys


def problems_of(parser: ConfigParser, *, given: Collection[str] = ()) -> list[str]:
    """Everything wrong with a config whose overrides are known: constants, data, network, weights, places to write.

    What a config does not have is not checked, so that one function serves training, evaluation and inference.

    Args:
        parser: of the config.
        given: names of the overrides.
    """
    # Outside of a workflow nothing has been resolved yet, and nested look-ups would then begin anew.
    _read_as_meant(parser)
    if not parser.ref_resolver.is_resolved():
        try:
            parser.parse(reset=True)
        except (KeyError, ValueError, OSError) as missing:
            return [f"a value that begins with % is another place of a config to MONAI, and it finds none: {missing}"]
    problems = list(_numbers_as_text({key: value for key, value in parser.get().items() if key != "_meta_"}))
    if has(parser, "trained"):
        trained, error = _evaluate(parser, "trained")
        try:
            if isinstance(trained, TrainedRun):
                trained.rehearse()
        except UserError as unfit:
            error = unfit.problems
        if error:
            return error
    values, found = check_constants(parser)
    problems += found
    if "max_epochs" in given and (hours := values.get("hours")):
        problems.append(f"option --max_epochs: hours {hours:g} decides on it; leave it out, or add --hours null")
    if values.get("resume") and values.get("overwrite"):
        problems.append("resume and overwrite are both true: go on with a run, or replace it")
    if "output_dir" in values and (problem := _not_writable(Path(values["output_dir"]))):
        problems.append(f"output_dir {problem}")
    set_determinism(seed=values.get("seed", 0))
    reseed(values.get("seed", 0), 0)
    if has(parser, "networks") or (has(parser, "network") and isinstance(parser.get("network_def"), dict)):
        wrong = _network_problems(parser, values, found)
        problems += wrong + _start_problems(parser, values, match=not (wrong or found))
    if has(parser, "data"):
        data, errors = _evaluate(parser, "data")
        problems += errors
        if isinstance(data, Datalist):
            problems += data.inspect().problems
    # What else a command builds before it runs; a negative rate or a wrong name shows only then.
    for name in ("dataset", *(stage + part for stage in ("first_stage::", "") for part in _LEARNING)):
        if has(parser, name) and not problems:
            problems += _evaluate(parser, name)[1]
    return list(dict.fromkeys(problems))  # several constants may ask for the same dataset


def _read_as_meant(parser: ConfigParser) -> None:
    """The command line reads a folder called 2024 as a number; and null comes as a text, for MONAI drops None."""
    for name in _PATHS:
        if has(parser, name) and isinstance(parser[name], int) and not isinstance(parser[name], bool):
            parser[name] = str(parser[name])
    for name, read in CONSTANTS.items():
        if has(parser, name) and parser[name] in ("None", "null", "") and _reads_as_none(read, parser[name]):
            parser[name] = None


def _reads_as_none(read: Callable[[Any], Any], value: str) -> bool:
    try:
        return read(value) is None
    except UserError:
        return False


def _numbers_as_text(node: Any, name: str = "") -> Iterator[str]:
    """Name the texts that were meant to be numbers."""
    if isinstance(node, (Mapping, list)):
        parts = node.items() if isinstance(node, Mapping) else enumerate(node)
        for key, part in parts:
            yield from _numbers_as_text(part, f"{name}::{key}" if name else str(key))
    elif isinstance(node, str) and _NUMBER.fullmatch(node):
        number = yaml.safe_dump(float(node)).split()[0]
        yield f"{name} {node!r}: is a text; YAML reads a number only with a point and without quotes, as {number}"


def _network_problems(parser: ConfigParser, values: Mapping[str, Any], found: Sequence[str]) -> list[str]:
    menu, name = parser["networks"] if has(parser, "networks") else None, values.get("network")
    if menu is not None and name not in menu:
        nearest = difflib.get_close_matches(str(name), list(menu), n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        return [f"network {name!r}: the menu has {', '.join(menu)}{hint}"]
    if wrong := _block_problems(menu):
        return wrong
    if found:  # what the network is built from cannot be read
        return []
    network, errors = _evaluate(parser, "network_def")
    if errors:
        return errors
    if not isinstance(network, torch.nn.Module):
        return [f"network {name}: is {type(network).__name__}, not a torch.nn.Module"]
    channels, image_size = values["channels"], values["image_size"]
    try:
        image_size = input_size(network, image_size=image_size)
        logits = _logits_shape(network, channels=channels, image_size=image_size)
    except Exception as error:  # whatever the network raises
        shape = f"{channels} x {image_size} x {image_size}"
        return [f"network {name}: cannot be computed on {shape} (channels, height, width): {error}"]
    expected = len(values["classes"]) + (values["activation"] == "softmax")
    if logits[1] != expected:
        return [
            f"network {name}: gives {logits[1]} channels, but {values['activation']} over the classes "
            f"{', '.join(values['classes'])} needs {expected}"
        ]
    # Logits of fewer pixels may be of the centre or of the whole, coarser: only a network that says so may give them.
    unpadded = hasattr(network, "fitting_size") or str(name).startswith("unpadded")
    if max(logits[2:]) > image_size or (not unpadded and min(logits[2:]) < image_size):
        return [
            f"network {name}: gives {logits[2]} x {logits[3]} for {image_size} x {image_size} pixels; its logits must "
            f"be as large as its images: see {_ADAPTER}"
        ]
    return _supervision_problems(parser, network, str(name))


def _block_problems(menu: Any) -> list[str]:
    """Which networks of a menu are none: MONAI reads all of them, whichever is chosen."""
    problems = []
    for name, block in menu.items() if isinstance(menu, Mapping) else ():
        if isinstance(block, str) and block[:1] in ("$", "@"):
            continue
        if not isinstance(block, Mapping) or not isinstance(block.get("_target_"), str):
            problems.append(f"networks::{name}: is no network: give it a _target_, the name of its class")
        elif block.get("_mode_") != "callable":
            problems.append(f"networks::{name}: lacks _mode_: callable, without which it is built even if not chosen")
    return problems


def _supervision_problems(parser: ConfigParser, network: torch.nn.Module, name: str) -> list[str]:
    """Whether each loss takes the several outputs of a network with deep supervision."""
    if not (isinstance(network, AdaptedNetwork) and network.deep_supervision):
        return []
    stages = [key for key, part in parser.get().items() if isinstance(part, Mapping) and "trainer" in part]
    problems = []
    for stage in stages:
        loss, errors = _evaluate(parser, f"{stage}::trainer::loss_function")
        if not errors and not isinstance(loss, DeepSupervisionLoss):
            problems.append(
                f"network {name}: gives several outputs in training, of which {type(loss).__name__} takes one: let "
                f"{stage}::trainer::loss_function be a DeepSupervisionLoss, as bundles/networks/deep_supervision.yaml "
                "does"
            )
    return problems


def _start_problems(parser: ConfigParser, values: Mapping[str, Any], *, match: bool) -> list[str]:
    """Why training cannot start from ``init_from``: not there or, where the network could be built, not of it."""
    if not values.get("init_from"):
        return []
    try:
        path = find_weights(values["init_from"])
        if match:
            match_weights(parser.get_parsed_content("network_def"), path)
    except UserError as error:
        return [f"init_from {problem}" for problem in error.problems]
    return []


def input_size(network: torch.nn.Module, *, image_size: int) -> int:
    """Height and width of a network's input: ``image_size``, or the largest size below that an unpadded network takes.

    So networks that take any size and those that do not can run in one race.

    Raises:
        UserError: an unpadded network takes none as small.
    """
    fitting = getattr(network, "fitting_size", None)
    return image_size if fitting is None else int(fitting(image_size))


def output_size(network: torch.nn.Module, *, channels: int, image_size: int) -> int:
    """Height and width of a network's logits for square images: ``image_size``, or less of an unpadded network."""
    return int(_logits_shape(network, channels=channels, image_size=image_size)[-1])


def _logits_shape(network: torch.nn.Module, *, channels: int, image_size: int) -> torch.Size:
    device = next((parameter.device for parameter in network.parameters()), None)
    training = network.training
    network.eval()
    try:
        # Of noise: what normalises each image by itself has no answer for an empty one.
        image = torch.rand(1, channels, image_size, image_size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            logits: Any = network(image.to(device))
    finally:
        network.train(training)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 4:
        kind = f"a tensor {tuple(logits.shape)}" if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
        raise UserError(f"it gives {kind} and not logits (B, classes, H, W); {_ADAPTER} takes them out")
    if not logits.is_floating_point():
        raise UserError(f"it gives {str(logits.dtype).removeprefix('torch.')} and not floating-point logits")
    if not logits.isfinite().all():
        raise UserError("before any training it gives logits that are not finite")
    return logits.shape


def _evaluate(parser: ConfigParser, name: str) -> tuple[Any, list[str]]:
    """The parsed content of an id, or what is wrong with it."""
    try:
        return parser.get_parsed_content(name), []
    except Exception as error:  # MONAI wraps everything in RuntimeError
        return None, problems_behind(error, name)


def _not_writable(path: Path) -> str | None:
    existing = path
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        return f"{path}: {existing} is a file, not a folder"
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"{path}: {existing} cannot be written to"
    return None
