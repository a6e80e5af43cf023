"""Trained runs as one MONAI bundle that is moved, loaded and served: the network inline, its weights, a model card."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import yaml

from monai_thyroid import __version__
from monai_thyroid.bundles.render import SHIPPED, render_bundle
from monai_thyroid.deploy.card import model_card
from monai_thyroid.deploy.export import FORMATS, export
from monai_thyroid.errors import UserError
from monai_thyroid.evaluation.model import Model
from monai_thyroid.evaluation.predictor import Predictor
from monai_thyroid.evaluation.trained import TrainedRun
from monai_thyroid.files import atomic_path, locked, own_path, sha256_file, write_json
from monai_thyroid.runfolder import SCHEMA_VERSION, RunRecord, read_split
from monai_thyroid.runfolder.folder import write_yaml

__all__ = ["Packed", "pack", "write_card"]

_BUILDING = ".packing-"
_CARD = "Made by monai-thyroid card"
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_FITTING = ("image_transforms", "to_original_grid")
_HERE = {  # of the machine that trained: where it runs, and on what data, is said anew
    "dataset_dir": None,
    "output_dir": "runs",
    "device": "$evaluation.default_device()",
    "precision": "$evaluation.default_precision(@device)",
    "split_file": None,
    "folds": None,
    "fold": None,
    "sites": None,
    "test_sites": None,
}


@dataclass(frozen=True)
class Packed:
    """What `pack` made.

    Attributes:
        path: the bundle.
        zip: the same as one file, if asked for.
        exports: the content of exports.json, if exports were asked for.
        report: why there is no report in it; None where there is one, or none was wanted.
    """

    path: Path
    zip: Path | None
    exports: dict[str, Any] | None
    report: str | None


# What a network needs besides, by what its component says.
_ENCODERS = ("segmentation-models-pytorch", "torchvision")
_NEEDED = {
    "segmentation_models_pytorch": _ENCODERS,
    "EncoderUNet": _ENCODERS,
    "UNETR": ("einops",),
    "ResEncUNet": ("dynamic-network-architectures",),
}


def pack(
    runs: Sequence[str | Path | TrainedRun],
    *,
    output: str | Path,
    formats: Sequence[str] = (),
    int8: bool = False,
    dataset_dir: str | None = None,
    version: str = "0.1.0",
    changes: str | None = None,
    metadata: str | Path | None = None,
    licence: str | Path | None = None,
    report: bool = True,
    zipped: bool = False,
) -> Packed:
    """Write a bundle in the layout of MONAI's model zoo; several runs become an ensemble.

    It is built beside its place and moved there when complete: a process that dies leaves nothing under the bundle's
    name. The names of cases and the places of data stay behind.

    Args:
        runs: finished run folders; several are of the same classes, activation, threshold and transforms.
        output: the bundle's folder, which must not exist; its last part is the bundle's name.
        formats: exports to make, of `FORMATS`, verified on the runs' validation images.
        int8: export in int8, too.
        dataset_dir: where the dataset of the first run is now, for the exports, if it moved.
        version: of the bundle.
        changes: what is new in it, for its changelog.
        metadata: a JSON file whose keys replace those of metadata.json, such as authors, copyright and references.
        licence: a file to become LICENSE; None for Apache 2.0.
        report: make docs/report.html, without images.
        zipped: write ``<output>.zip``, too.

    Raises:
        UserError: all that is wrong with the options, or with the runs; nothing is written.
        OSError: something cannot be written; nothing is left.
    """
    output = Path(os.path.abspath(Path(output).expanduser()))
    problems = _option_problems(output, formats=formats, int8=int8, version=version, zipped=zipped, licence=licence)
    given = {}
    try:
        given = _read_metadata(metadata)
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    trained = _trained(runs)
    with _building(output) as folder:
        _write(folder, trained, name=output.name)
        meta = {**_metadata(trained, name=output.name, version=version, changes=changes), **given}
        write_json(folder / "configs" / "metadata.json", meta)
        _rehearse(folder, trust=trained[0].trust)
        exports = None
        if formats:
            data = trained[0].datalist(dataset_dir)
            exports = export(TrainedRun(str(folder), trust=trained[0].trust), formats=formats, int8=int8, data=data)
        shutil.rmtree(folder / "runtimes", ignore_errors=True)
        shutil.copyfile(licence, folder / "LICENSE") if licence else _apache(folder / "LICENSE")
        why = _report(folder / "docs" / "report.html", trained) if report else None
        card = model_card(
            [(run.files, run.record) for run in trained], meta=meta, exports=exports, report=report and why is None
        )
        (folder / "docs" / "README.md").write_text(card, encoding="utf-8")
        _sums(folder)
        archive = output.with_name(f"{output.name}.zip") if zipped else None
        if archive:
            _zip(folder, archive, name=output.name)
        folder.rename(output)
    return Packed(output, archive, exports, why)


def write_card(model: str | Path | TrainedRun, output: str | Path) -> Path:
    """Write the model card of a run folder, as `pack` writes it of a bundle; of a packed bundle the one that it holds.

    Args:
        model: a run folder or a packed bundle.
        output: the file; new, or an earlier card.

    Raises:
        UserError: as `TrainedRun`, a run that is not finished, or a file that is something else.
    """
    problems = []
    path = Path(output)
    text = ""
    try:
        path = own_path("--output", output, mark=_CARD, what="earlier model card")
    except UserError as error:
        problems += error.problems
    try:
        trained = model if isinstance(model, TrainedRun) else TrainedRun(str(model))
        packed = trained.path / "docs" / "README.md"
        if not trained.files.packed:
            (trained,) = _trained([trained])
            name = f"{trained.record.dataset} {trained.record.network}, seed {trained.record.seed}"
            meta = _metadata([trained], name=name, version=__version__, changes=None)
            text = model_card([(trained.files, trained.record)], meta=meta, packed=False)
        elif packed.is_file():
            text = packed.read_text(encoding="utf-8")
        else:
            problems.append(f"{packed}: is lost")
    except UserError as error:
        problems += error.problems
    if problems:
        raise UserError(problems)
    with atomic_path(path) as temporary:
        temporary.write_text(f"{text}\n<!-- {_CARD} -->\n", encoding="utf-8")
    return path


def _option_problems(
    output: Path, *, formats: Sequence[str], int8: bool, version: str, zipped: bool, licence: str | Path | None
) -> list[str]:
    problems = []
    if not re.fullmatch(_NAME, output.name):
        problems.append(
            f"--output {output}: {output.name!r} is no name of a bundle; give letters, digits, _, - and ., a letter or "
            "digit first"
        )
    elif output.name.startswith("monai_"):
        problems.append(f"--output {output}: MONAI takes monai_ off the names of bundles; leave it out")
    if output.name.endswith(".zip"):
        problems.append(f"--output {output}: name the folder; --zip writes it as one file, too")
    if "::" in str(output) or "#" in str(output):
        problems.append(f"--output {output}: cannot hold # or ::, which mean something to MONAI")
    problems += [
        f"{path}: is there already; give another --output, or move it away"
        for path in (output, output.with_name(f"{output.name}.zip"))[: 1 + zipped]
        if os.path.lexists(path)
    ]
    if unknown := [name for name in formats if name not in FORMATS]:
        problems.append(f"--format {','.join(unknown)}: choose of {','.join(FORMATS)}")
    if int8 and not {"onnx", "openvino"} & set(formats):
        problems.append("--int8: can be made of onnx and openvino; add one of them to --format")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        problems.append(f"--version {version}: give three numbers, such as 0.1.0")
    if licence is not None and not Path(licence).is_file():
        problems.append(f"--license {licence}: no such file")
    return problems


def _trained(runs: Sequence[str | Path | TrainedRun]) -> list[TrainedRun]:
    """The runs, read and found to fit together.

    Raises:
        UserError: they cannot be packed; all of them are told.
    """
    if not runs:
        raise UserError("give at least one run folder")
    found, problems = [], []
    for run in runs:
        try:
            trained = run if isinstance(run, TrainedRun) else TrainedRun(str(run))
            if trained.files.packed:
                problems.append(f"{trained.path}: is a packed bundle already; give the run folders")
            elif trained.record.status != "done":
                problems.append(f"{trained.path}: is not finished ({trained.record.status}); train it to its end first")
            else:
                trained.rehearse()
            found.append(trained)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(list(dict.fromkeys(problems)))
    first = found[0]
    weights: dict[str, Path] = {}
    for run in found:
        if (other := weights.setdefault(run.checkpoint_sha256, run.path)) is not run.path:
            problems.append(f"{run.path}: has the weights of {other}; an ensemble needs different ones")
    for run in found[1:]:
        problems += [
            f"{run.path}: its {name} are not those of {first.path}; predict --with averages over such runs"
            for name in _FITTING
            if run.applied.get(name) != first.applied.get(name)
        ]
    if len(found) > 1:
        try:
            Predictor(found, device="cpu", runtime="torch-float32")  # says what else differs
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return found


@contextmanager
def _building(output: Path) -> Iterator[Path]:
    """A folder beside the output, removed unless it was renamed; what killed processes left is removed, too."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with locked(output.parent, work="packing", wait=True):
        for left in output.parent.glob(f"{_BUILDING}*"):
            with suppress(UserError, FileNotFoundError), locked(left):  # its process is gone
                shutil.rmtree(left)
        folder = Path(tempfile.mkdtemp(prefix=_BUILDING, dir=output.parent))
        folder.chmod(0o755)
    with locked(folder, work="packing"):
        try:
            # MONAI takes the name of a bundle from its folder.
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, runs: Sequence[TrainedRun], *, name: str) -> None:
    """Configs, weights and what our own tools read of a run."""
    import torch

    for part in ("configs", "models", "docs", "run"):
        (folder / part).mkdir()
    first = runs[0]
    applied, weights = _one(runs)
    if len(runs) > 1:
        torch.save(weights, folder / "models" / "model.pt")
        for number, run in enumerate(runs, 1):
            member = folder / "models" / "members" / str(number)
            member.mkdir(parents=True)
            _facts(member, run, run.record, run.config, run.applied)
            shutil.copyfile(run.files.model, member / "model.pt")
        write_json(folder / "run" / "members.json", [run.checkpoint_sha256 for run in runs])
    else:
        shutil.copyfile(first.files.model, folder / "models" / "model.pt")
    sha256 = sha256_file(folder / "models" / "model.pt")
    _facts(folder / "run", first, _record(runs, sha256), first.config, applied)
    for kind, config in _configs(first, applied).items():
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)
        (folder / "configs" / f"{kind}.yaml").write_text(_heading(kind, name) + text, encoding="utf-8")
        write_json(folder / "configs" / f"{kind}.json", config)
    (folder / "configs" / "logging.conf").write_text(_shipped(first)["logging.conf"], encoding="utf-8")


def _one(runs: Sequence[TrainedRun]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What applies the runs as one, and of several the weights."""
    first = runs[0]
    if len(runs) == 1:
        return dict(first.applied), {}
    from monai_thyroid.evaluation.weights import load_weights

    network = {
        "_target_": "monai_thyroid.networks.Ensemble",
        "members": [run.applied["network"] for run in runs],
        "activation": first.activation,
    }
    weights = {
        f"members.{number}.{name}": tensor
        for number, run in enumerate(runs)
        for name, tensor in load_weights(run.files.model).items()
    }
    return {**first.applied, "network": network}, weights


def _record(runs: Sequence[TrainedRun], sha256: str) -> RunRecord:
    """run.json of what was packed: of an ensemble what its members have in common.

    Its masks are postprocessed as its first member's, which is what `Predictor` does with an ensemble.
    """
    first = runs[0].record
    if len(runs) == 1:
        return replace(first, checkpoint_sha256=sha256)
    shared = {name: value for name, value in first.items() if all(run.record[name] == value for run in runs[1:])}
    return RunRecord.from_json(
        {
            **shared,
            "network": "ensemble",
            "postprocessing": first.postprocessing,
            "checkpoint_sha256": sha256,
            "parameters": sum(run.record.parameters or 0 for run in runs) or None,
            "status": "done",
        }
    )


def _facts(
    folder: Path, run: TrainedRun, record: RunRecord, config: Mapping[str, Any], applied: Mapping[str, Any]
) -> None:
    """run.json, config.yaml and split.json, without places and without the names of cases."""
    begun = {key: value for key, value in (record.init_from or {}).items() if key != "path"} or None
    write_json(folder / "run.json", dict(replace(record, dataset_dir=None, init_from=begun)))
    data = applied.get("data")
    if isinstance(data, Mapping):
        applied = {**applied, "data": {**data, **{name: None for name in _HERE if name in data}}}
    kept = {name: value for name, value in config.items() if name not in ("networks", "applied", "init_from")}
    here = {name: value for name, value in _HERE.items() if name in kept}
    phantom = {"dataset_dir": "phantom"} if record.synthetic and run.config.get("dataset_dir") == "phantom" else {}
    if phantom and isinstance(data, Mapping):
        applied = {**applied, "data": {**applied["data"], **phantom}}
    write_yaml(
        folder / "config.yaml",
        {
            **kept,
            **here,
            **phantom,
            "schema_version": SCHEMA_VERSION,
            "network_def": applied["network"],
            "init_from": None,
            "applied": dict(applied),
        },
    )
    split = read_split(run.files.facts) if run.files.split.is_file() else {"parts": {}}
    parts = {
        part: {name: content[name] for name in ("image_sha256", "sites") if name in content}
        for part, content in split["parts"].items()
    }
    write_json(folder / "split.json", {**split, "parts": parts})


def _configs(run: TrainedRun, applied: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The configs by kind: the run's own for training, those that all bundles share for the rest."""
    shared = _shipped(run)
    packed = {"bundle_root": "$training.bundle_root()", "run_dir": "@bundle_root"}
    initialize = {"initialize": ["$training.check_config(packed=@bundle_root)"]}
    kept = {
        name: value
        for name, value in run.config.items()
        if name not in ("_meta_", "applied", "schema_version", "networks", "network_def", "bundle_root")
    }
    here = {name: value for name, value in _HERE.items() if name in kept}
    train = {
        "imports": kept.pop("imports", []),
        **packed,
        **kept,
        **here,
        "resume": False,
        "overwrite": False,
        "init_from": "@bundle_root",
        "network_def": applied["network"],
        **initialize,
    }
    del train["run_dir"]
    evaluate = {**yaml.safe_load(shared["evaluate.yaml"]), **packed, **initialize}
    inference = yaml.safe_load(shared["inference.yaml"])
    inference = {
        **inference,
        **packed,
        "network_def": applied["network"],
        "model": "$@trained.loaded(@network_def).to(@device)",
        "image_transforms": applied["image_transforms"],
        "to_original_grid": applied["to_original_grid"],
        "preprocessing": {"_target_": "Compose", "transforms": "@image_transforms"},
        "postprocessing": {
            **inference["postprocessing"],
            "transforms": inference["postprocessing"]["transforms"].replace(
                "@trained.parsed('to_original_grid')", "@to_original_grid"
            ),
        },
        **initialize,
    }
    return {"train": train, "evaluate": evaluate, "inference": inference}


def _shipped(run: TrainedRun) -> dict[str, str]:
    """The files of the bundle that the run was trained with, or of one that shares what is used of it."""
    name = run.record.bundle if run.record.bundle in SHIPPED else SHIPPED[0]
    return render_bundle(str(name), name=name, folder=f"bundles/{name}", facts="")


def _heading(kind: str, name: str) -> str:
    does = {
        "train": ("Train on from these weights:", "--dataset_dir DIR [--max_epochs N] ..."),
        "evaluate": ("Score the model on a dataset of the same classes:", "--dataset_dir DIR [--part test]"),
        "inference": ("Segment an image, or a folder of images:", "--input PATH [--output_dir DIR]"),
    }
    what, options = does[kind]
    return f"# {what}\n#   python -m monai.bundle run --config_file {name}/configs/{kind}.yaml {options}\n"


def _read_metadata(path: str | Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--metadata {path}: cannot be read, or is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"--metadata {path}: does not hold an object of keys and values")
    if fixed := sorted({"version", "changelog", "network_data_format"} & content.keys()):
        raise UserError(f"--metadata {path}: {', '.join(fixed)} are made from the run, --version and --changes")
    return content


def _metadata(runs: Sequence[TrainedRun], *, name: str, version: str, changes: str | None) -> dict[str, Any]:
    """What MONAI's tools and people want to know of the bundle."""
    import monai
    import numpy as np
    import torch

    first = runs[0]
    channels, *size = Model(first).shape
    with torch.no_grad():
        logits = first.network()(torch.zeros(1, channels, *size))
    known = json.loads(_shipped(first)["metadata.json"]) if first.record.bundle in SHIPPED else {}
    several, normalised = len(first.classes) > 1, "normalisation" in first.config
    target = ", ".join(first.classes)
    modality = known.get("network_data_format", {}).get("inputs", {}).get("image", {}).get("modality", "regular")
    image = {
        "type": "image",
        "format": "RGB" if channels == 3 else "magnitude",
        "modality": modality,
        "num_channels": channels,
        "spatial_shape": list(size),
        "dtype": "float32",
        "value_range": [] if normalised else [0, 1],
        "is_patch_data": False,
        "channel_def": dict(enumerate(("red", "green", "blue") if channels == 3 else ("image",))),
    }
    pred = {
        "type": "image",
        "format": "segmentation",
        "modality": "n/a",
        "num_channels": int(logits.shape[1]),
        "spatial_shape": list(logits.shape[2:]),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": False,
        "channel_def": dict(enumerate(["background", *first.classes])),
    }
    numbered = [f"{number} is {name}" for number, name in enumerate(["background", *first.classes])]
    decided = "softmax" if first.activation == "softmax" else f"sigmoid above {first.threshold:g}"
    packages = {
        package: distribution(package).version for package in ("pytorch-ignite", "fire", "pyyaml", "tensorboard")
    }
    networks = json.dumps([run.applied["network"] for run in runs])
    for package in [package for sign, needed in _NEEDED.items() if sign in networks for package in needed]:
        packages[package] = distribution(package).version
    content = {
        "schema": _SCHEMA,
        "version": version,
        "changelog": {
            version: changes or "packed from " + ("a trained run" if len(runs) == 1 else f"{len(runs)} runs")
        },
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"monai_thyroid": __version__, **packages},
        "supported_apps": {},
        "name": known.get("name", name),
        "task": known.get("task", f"Segmentation of {target}"),
        "description": f"{known.get('task', f'Segmentation of {target}')}: "
        + (f"{first.record.network}" if len(runs) == 1 else f"an ensemble of {len(runs)} networks"),
        "authors": known.get("authors", "not said"),
        "copyright": known.get("copyright", "not said"),
        "data_source": f"{first.record.dataset}" + (" (synthetic)" if first.record.synthetic else ""),
        "data_type": "png, jpg, bmp, tif, DICOM, NIfTI",
        "image_classes": f"{'three channels, RGB' if channels == 3 else 'single channel'}, intensity in [0, 1]"
        + (", normalised by the training images" if normalised else ""),
        "label_classes": f"single channel, {', '.join(numbered)}",
        "pred_classes": f"logits, {'a channel a class' if several else 'one channel'}; {decided}",
        "eval_metrics": _eval_metrics(runs),
        "intended_use": "Research only; not cleared for diagnosis.",
        "references": known.get("references", []),
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
    }
    found: dict[str, Any] = json.loads(json.dumps(content))  # keys of channel_def as the texts that JSON makes of them
    return found


def _eval_metrics(runs: Sequence[TrainedRun]) -> dict[str, float]:
    """Of a single run its test Dice; an ensemble was not scored as such."""
    test = runs[0].record.test
    return {"mean_dice": round(test["dice_mean"], 4)} if len(runs) == 1 and test and test.get("dice_mean") else {}


def _rehearse(folder: Path, *, trust: bool) -> None:
    """What was written is read and applied once, before it gets its name."""
    TrainedRun(str(folder), trust=trust).rehearse()


def _apache(path: Path) -> None:
    text = distribution("monai_thyroid").read_text("licenses/LICENSE")
    beside = Path(__file__).parents[2] / "LICENSE"
    if text is None and beside.is_file():
        text = beside.read_text(encoding="utf-8")
    if text is None:
        raise UserError("the Apache licence is not in this installation; give one with --license FILE")
    path.write_text(text, encoding="utf-8")


def _report(path: Path, runs: Sequence[TrainedRun]) -> str | None:
    """The report of the runs, without images; or why there is none."""
    from monai_thyroid.compare import make_report

    with tempfile.TemporaryDirectory() as folder:
        try:
            page = make_report([run.path for run in runs], output=Path(folder, "report"), images=False)
        except UserError as error:
            return str(error)
        shutil.copyfile(page, path)
    return None


def _sums(folder: Path) -> None:
    """SHA256SUMS, for ``sha256sum -c``."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{sha256_file(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def check_sums(folder: Path) -> None:
    """Hold a packed bundle against its own SHA256SUMS.

    Raises:
        UserError: files of it are lost, or are not what was packed; names all.
    """
    listed = folder / "SHA256SUMS"
    if not listed.is_file():
        raise UserError(f"{folder}: has no SHA256SUMS to hold it against; pack it again")
    problems = []
    for line in listed.read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file():
            problems.append(f"{folder / name}: is lost")
        elif sha256_file(folder / name) != digest:
            problems.append(f"{folder / name}: is not what was packed (its SHA-256 differs from SHA256SUMS)")
    if problems:
        raise UserError(problems)


def _zip(folder: Path, archive: Path, *, name: str) -> None:
    """The bundle as one file, in which everything lies in a folder of its name, as MONAI unpacks bundles."""
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{name}/{path.relative_to(folder).as_posix()}")
