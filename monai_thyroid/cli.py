"""The command `monai-thyroid`: one thin function a subcommand."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from monai_thyroid import __version__
from monai_thyroid.errors import UserError, message_of

__all__ = ["main"]

_T = TypeVar("_T")

_PATHS = ("CONFIG", "DIR", "FILE", "INPUT", "MODEL", "RUN", ("NAME", "DIR"))
"""Metavars of what a shell completes by the names of files and folders."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; those of the process if None.

    Returns:
        The exit status: 0 if all is well, 1 if something is wrong with what the user gave, 2 for unusable arguments,
        130 after Ctrl-C.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and not options.takes_overrides:
        parser.error(f"unknown argument {rest[0]}")
    options.rest = rest
    try:
        status = int(options.function(options))
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        message = message_of(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 1


class _Parser(argparse.ArgumentParser):
    """A parser whose help may end with what takes a while to import."""

    after: Callable[[], str] | None = None

    def format_help(self) -> str:
        """Make the help, its end first."""
        self.epilog = self.after() if self.after else None
        return super().format_help()


def _comparable() -> str:
    from monai_thyroid.metrics import METRICS

    return f"METRIC: {', '.join(f'{one.name} ({one.title})' for one in METRICS.values() if one.comparable)}"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="monai-thyroid", description="2-D medical image segmentation on MONAI.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(takes_overrides=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    check = commands.add_parser(
        "check",
        help="say what is wrong with a config, its options and its data, before anything runs",
        usage="monai-thyroid check CONFIG [--config FILE]... [--quick] [--ID VALUE ...]",
        description="Checks everything that can be known, then takes one training step, one validation and one test "
        "batch, writes nothing, and says what they cost.",
        allow_abbrev=False,
    )
    check.add_argument("config", metavar="CONFIG", help="a bundle's train.yaml, evaluate.yaml or inference.yaml")
    _takes_configs(check)
    check.add_argument("--quick", action="store_true", help="take no steps")
    check.set_defaults(function=_check, takes_overrides=True)

    phantom = commands.add_parser("phantom", help="write synthetic scans in the TN3K layout", allow_abbrev=False)
    phantom.add_argument("directory", metavar="DIR", help="a folder that is new or empty")
    phantom.add_argument("--cases", type=int, default=150, help="number of patients (default %(default)s)")
    phantom.add_argument("--seed", type=int, default=0, help="default %(default)s")
    phantom.add_argument("--height", type=int, default=144, help="pixels (default %(default)s)")
    phantom.add_argument("--width", type=int, default=192, help="pixels (default %(default)s)")
    phantom.add_argument("--multiclass", action="store_true", help="masks of gland (1), benign (2), malignant (3)")
    phantom.add_argument(
        "--empty-fraction", type=float, default=0.0, help="share of patients without a nodule (default %(default)s)"
    )
    phantom.set_defaults(function=_phantom)

    new = commands.add_parser("new", help="write a bundle for your own images and masks", allow_abbrev=False)
    new.add_argument("name", metavar="NAME", help="of the bundle, and of the folder it is written to")
    new.add_argument("--images", metavar="DIR", required=True)
    new.add_argument("--masks", metavar="DIR", required=True, help="files of the same names, or with _mask at the end")
    new.add_argument(
        "--groups-from", metavar="REGEX", help=r"finds the patient in an image's name, as '^(\d+)_' in 17_3.png"
    )
    new.add_argument("--classes", metavar="A,B", help="names of the mask's numbers 1, 2, ... (default: found out)")
    new.add_argument("--output", metavar="DIR", default="bundles", help="default %(default)s")
    new.set_defaults(function=_new)

    bundles = commands.add_parser(
        "bundles", help="list the bundles that come with this package, or copy one", allow_abbrev=False
    )
    bundles.add_argument(
        "--copy",
        nargs=2,
        metavar=("NAME", "DIR"),
        help="write a bundle (or networks, blocks of further networks) to a new folder of yours",
    )
    bundles.set_defaults(function=_bundles)

    networks = commands.add_parser(
        "networks", help="measure the networks of the menu: size, work, memory, exports", allow_abbrev=False
    )
    networks.add_argument("names", nargs="*", metavar="NETWORK", help="default: all")
    _takes_configs(networks)
    networks.add_argument("--no-exports", action="store_true", help="do not try the exports, which takes the longest")
    networks.add_argument("--output", metavar="FILE", help="write the table into a page in Markdown as well")
    networks.set_defaults(function=_networks)

    audit = commands.add_parser(
        "audit", help="say what is wrong with a dataset before anyone trains on it", allow_abbrev=False
    )
    audit.add_argument("directory", metavar="DIR")
    audit.add_argument("--layout", default="auto", help="name of its layout (default: found out)")
    audit.add_argument("--split_file", metavar="FILE", help="a split.json to look for leakage in")
    audit.add_argument("--output", metavar="FILE", help="write a page with pictures (HTML) as well")
    audit.add_argument(
        "--write-groups",
        metavar="FILE",
        help="where groups are unknown, write a table of the images that look alike; as groups.csv in DIR, splits "
        "respect it",
    )
    audit.add_argument("--card", metavar="FILE", help="write a dataset card (Markdown) as well")
    audit.set_defaults(function=_audit)

    predict = commands.add_parser(
        "predict",
        help="segment files and folders with a trained run, fast",
        usage="monai-thyroid predict MODEL INPUT... --output DIR [--with MODEL]... [OPTION ...]",
        description="A second start goes on where the first was stopped. What could not be segmented has its error in "
        "predictions.csv and is tried again.",
        allow_abbrev=False,
    )
    predict.add_argument("model", metavar="MODEL", help="a run folder or a packed bundle")
    predict.add_argument(
        "inputs", metavar="INPUT", nargs="+", help="images, DICOMDIRs, or folders with images at any depth"
    )
    predict.add_argument("--output", required=True, metavar="DIR", help="takes the masks and predictions.csv")
    _takes_ensemble(predict)
    predict.add_argument("--probabilities", action="store_true", help="write <name>_probability.png, 16-bit, too")
    predict.add_argument("--overlays", action="store_true", help="write <name>_overlay.png too")
    predict.add_argument(
        "--dicom",
        action="store_true",
        help="write what is found in DICOM images as DICOM too: report, segmentation, picture; they name the patient",
    )
    predict.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="ray: on a cluster (default %(default)s)"
    )
    _takes_address(predict)
    _add_trust(predict)
    predict.set_defaults(function=_predict)

    gain = commands.add_parser(
        "gain",
        help="measure what an ensemble and mirror images give on the runs' own validation images, and what they cost",
        allow_abbrev=False,
    )
    gain.add_argument("runs", metavar="RUN", nargs="+", help="run folders of the same data and split")
    gain.add_argument("--tta", action="store_true", help="with mirror images too, along the axes of training")
    _takes_part(gain, default="validation", note="test only once, when all is decided (default %(default)s)")
    gain.set_defaults(function=_gain)

    ensemble = commands.add_parser(
        "ensemble",
        help="score several runs as one model, whose probabilities are averaged",
        description="Keeps the scores and the members' agreement on each case in ensembles/ of the first run, which "
        "report --ensemble shows, with the gain over one run.",
        allow_abbrev=False,
    )
    ensemble.add_argument("runs", metavar="RUN", nargs="+", help="two run folders or more, of the same data and split")
    _takes_part(ensemble, data="other data of the same classes, or where theirs are now")
    _add_trust(ensemble)
    ensemble.set_defaults(function=_ensemble)

    robustness = commands.add_parser(
        "robustness",
        help="measure how runs score on their own images made worse: gain, speckle, blur, JPEG, caliper marks",
        description="Keeps robustness.csv beside the scores of each run, which the report shows, and a picture in its "
        "figures/. Strengths: gain in dB of 60 displayed; speckle 1 is fully developed; blur in % of the longer side; "
        "jpeg 100 less the quality; calipers 1 or 2 diameters.",
        allow_abbrev=False,
    )
    robustness.add_argument("runs", metavar="RUN", nargs="+", help="run folders that were scored before")
    robustness.add_argument(
        "--degrade",
        action="append",
        default=[],
        metavar="NAME[=STRENGTH,...]",
        help="gain, speckle, blur, jpeg or calipers; may be repeated (default: all)",
    )
    _takes_part(robustness)
    _add_trust(robustness)
    robustness.set_defaults(function=_robustness)

    export = commands.add_parser(
        "export",
        help="write a run as TorchScript, ONNX or OpenVINO, verified on its validation images",
        allow_abbrev=False,
    )
    export.add_argument(
        "run", metavar="RUN", help="a run folder or packed bundle; exports go to its exports/ or models/"
    )
    export.add_argument("--format", default="torchscript,onnx,openvino", metavar="NAME,...", help="default %(default)s")
    export.add_argument("--int8", action="store_true", help="quantise ONNX and OpenVINO too, on training images")
    export.add_argument("--dataset_dir", metavar="DIR", help="where the run's dataset is now, if it moved")
    _add_trust(export)
    export.set_defaults(function=_export)

    _add_pacs(commands)
    _add_label(commands)

    score = commands.add_parser(
        "score",
        help="score masks that anything made, and leave a run folder that reports rank beside others",
        description="Masks are png, tif, npy, NIfTI or DICOM SEG, one file a case, of class numbers on the original "
        "grid. Where anything does not fit, all of it is said and nothing is written.",
        allow_abbrev=False,
    )
    score.add_argument("--predictions", required=True, metavar="DIR", help="files of the references' names")
    score.add_argument(
        "--references",
        required=True,
        metavar="DIR",
        help="a folder of masks; or a run folder or one of its evaluations/, for what that run was scored against",
    )
    score.add_argument("--name", required=True, help="by which reports call the model, such as nnunet")
    score.add_argument("--output", required=True, metavar="DIR", help="the run folder: new, or an earlier one of these")
    score.add_argument("--seed", type=int, default=0, help="of the model's training (default %(default)s)")
    score.add_argument("--part", default="test", help="of the dataset (default %(default)s)")
    score.add_argument("--dataset", metavar="NAME", help="its name, as the runs to be compared with call it")
    score.add_argument("--classes", metavar="A,B", help="names of the mask's numbers 1, 2, ...")
    score.add_argument("--groups-from", metavar="REGEX", help="finds the patient in a case's name")
    score.add_argument("--groups", metavar="FILE", help="a table: file (or case), and patient, scene or group")
    score.add_argument("--images", metavar="DIR", help="for pixel sizes, and pictures in the report")
    score.add_argument(
        "--pretrained-on",
        metavar="A,B",
        help="data that the weights had seen before; none: no other (default: unknown)",
    )
    score.set_defaults(function=_score)

    pack = commands.add_parser(
        "pack",
        help="write trained runs as one MONAI bundle: network, weights, exports, model card",
        usage="monai-thyroid pack RUN [RUN ...] --output dist/NAME [OPTION ...]",
        description="Several runs become an ensemble, whose probabilities are averaged.",
        allow_abbrev=False,
    )
    pack.add_argument("runs", nargs="+", metavar="RUN", help="a finished run folder")
    pack.add_argument("--output", required=True, metavar="DIR", help="a new folder; its last part names the bundle")
    pack.add_argument("--format", default="", metavar="NAME,...", help="exports, of torchscript,onnx,openvino (none)")
    pack.add_argument("--int8", action="store_true", help="quantise ONNX and OpenVINO too, on training images")
    pack.add_argument("--dataset_dir", metavar="DIR", help="where the dataset is now, for the exports, if it moved")
    pack.add_argument("--version", default="0.1.0", help="of the bundle (default %(default)s)")
    pack.add_argument("--changes", metavar="TEXT", help="what is new in it, for its changelog")
    pack.add_argument("--metadata", metavar="FILE", help="JSON that replaces keys of metadata.json: authors, copyright")
    pack.add_argument("--license", metavar="FILE", help="becomes LICENSE (default: Apache 2.0)")
    pack.add_argument("--no-report", action="store_true", help="leave docs/report.html out")
    pack.add_argument("--zip", action="store_true", help="write DIR.zip too")
    _add_trust(pack)
    pack.set_defaults(function=_pack)

    card = commands.add_parser(
        "card", help="write the model card of a run (Markdown): data, scores, failures, limits", allow_abbrev=False
    )
    card.add_argument("model", metavar="MODEL", help="a finished run folder, or a packed bundle")
    card.add_argument("--output", required=True, metavar="FILE", help="new, or an earlier card")
    _add_trust(card)
    card.set_defaults(function=_card)

    report = commands.add_parser(
        "report", help="compare finished runs: scores, tests, stability, cost, which one to deploy", allow_abbrev=False
    )
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a folder above run folders")
    report.add_argument("--output", metavar="DIR", required=True, help="a new folder, or an older report's")
    report.add_argument(
        "--margin",
        type=float,
        default=0.01,
        help="what counts: of the verdicts on pairs, and how much worse than the best the recommended network may be "
        "(default %(default)s)",
    )
    report.add_argument("--metric", default="dice", help="one of those below (default %(default)s)")
    report.after = _comparable
    report.add_argument("--part", default="test", help="of each dataset, scored before (default %(default)s)")
    report.add_argument("--force", action="store_true", help="compare what is not comparable, with a warning on page 1")
    report.add_argument("--no-images", action="store_true", help="leave every patient image out")
    report.add_argument(
        "--metadata",
        metavar="FILE",
        help="a table (CSV) with a column case or group, and others such as device, site, sex or age: scores by them",
    )
    report.add_argument(
        "--ensemble",
        action="store_true",
        help="tell what the seeds of each network are worth as one model, as ensemble scored it, else by a vote",
    )
    report.add_argument(
        "--checklist",
        metavar="NAME",
        help="claim: write claim.md too, what the run folders answer of CLAIM 2024, the rest for the author",
    )
    report.set_defaults(function=_report)

    compare = commands.add_parser(
        "compare",
        help="train networks with several seeds and write the report of which is better",
        usage="monai-thyroid compare CONFIG --networks NAME,... --output DIR [OPTION ...] [--ID VALUE ...]",
        description="Whatever else is given as --ID VALUE is an option of every run. The same command goes on where it "
        "was stopped. --overwrite true trains anew what was trained with other settings.",
        allow_abbrev=False,
    )
    compare.add_argument("config", metavar="CONFIG", help="a bundle's train.yaml")
    _takes_configs(compare)
    compare.add_argument("--networks", required=True, metavar="NAME,...", help="names in the bundle's menu")
    compare.add_argument("--seeds", default="0,1,2", metavar="N,...", help="default %(default)s")
    compare.add_argument("--folds", type=int, metavar="K", help="cross-validation (default: the dataset's own split)")
    compare.add_argument("--output", required=True, metavar="DIR", help="takes runs/, logs/ and report/")
    compare.add_argument(
        "--tune",
        action="append",
        default=[],
        metavar="NAME=V1,V2,...",
        help="train each network with each of these values first, and compare each with those that are best for it on "
        "validation; may be repeated, then all combinations are tried",
    )
    compare.add_argument("--tune-seeds", metavar="N,...", help="of these trials (default: the first of --seeds)")
    compare.add_argument("--tune-epochs", type=int, metavar="N", help="of each trial at most (default: as all runs)")
    compare.add_argument("--plan", action="store_true", help="show what would be done, and how long it may take")
    compare.add_argument(
        "--detect",
        type=float,
        metavar="DIFFERENCE",
        help="with --plan: what it takes to find such a difference of Dice; writes power.png too",
    )
    compare.add_argument("--power", type=float, metavar="P", help="with which probability (default 0.8)")
    compare.add_argument(
        "--like",
        action="append",
        nargs="+",
        default=[],
        metavar="RUN",
        help="finished runs, or folders above them, whose spreads are taken (default: stated ones)",
    )
    compare.add_argument("--jobs", type=int, default=1, help="runs at a time, on this machine (default %(default)s)")
    compare.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="ray: on a cluster, or several GPUs"
    )
    _takes_address(compare)
    compare.add_argument("--cpus", type=float, default=1, help="of each run on Ray (default %(default)g)")
    compare.add_argument("--gpus", type=float, help="of each run on Ray (default 1 where the device is CUDA, else 0)")
    compare.add_argument(
        "--margin", type=float, default=0.01, help="of the report's verdicts and recommendation (default %(default)s)"
    )
    compare.add_argument("--no-images", action="store_true", help="leave every patient image out of the report")
    compare.set_defaults(function=_compare, takes_overrides=True)

    runs = commands.add_parser(
        "runs",
        help="list runs: network, data, seed, how far, Dice, misses, speed",
        description="Finds run folders and packed bundles at any depth. Dice and misses are of the test part.",
        allow_abbrev=False,
    )
    runs.add_argument("folders", metavar="DIR", nargs="+", help="run folders, or folders above them")
    runs.add_argument(
        "--sort",
        choices=["data", "dice", "date"],
        default="data",
        help="data: by dataset, network, fold and seed; the best or the newest first (default %(default)s)",
    )
    runs.add_argument("--json", action="store_true", help="print a list of objects instead of a table")
    runs.set_defaults(function=_runs)

    web = commands.add_parser(
        "web",
        help="serve a page on this machine: drop an image, see what models make of it, look at runs",
        description="Nothing that is dropped onto the page is kept, and nothing is sent anywhere. Ctrl-C ends it.",
        allow_abbrev=False,
    )
    web.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="MODEL",
        help="a run folder or packed bundle; may be repeated, for models side by side",
    )
    web.add_argument("--runs", action="append", default=[], metavar="DIR", help="list the runs in it; may be repeated")
    web.add_argument("--host", default="127.0.0.1", help="to listen at (default %(default)s, this machine only)")
    web.add_argument("--port", type=int, default=8501, help="default %(default)s")
    _takes_device(web)
    web.add_argument(
        "--runtime",
        choices=["auto", "torch", "openvino", "onnx"],
        default="auto",
        help="auto: what predict has measured to be the fastest here, else PyTorch (default %(default)s)",
    )
    _add_trust(web)
    web.set_defaults(function=_web)

    completion = commands.add_parser(
        "completion",
        help="print a script by which a shell completes this command",
        description="bash: monai-thyroid completion bash > ~/.local/share/bash-completion/completions/monai-thyroid; "
        "zsh: monai-thyroid completion zsh > DIR/_monai-thyroid, where DIR is one of $fpath.",
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=["bash", "zsh"])
    completion.set_defaults(function=_completion)
    return parser


def _add_pacs(commands: Any) -> None:
    pacs = commands.add_parser(
        "pacs",
        help="run a node of a hospital's network: DICOM images in, results to the PACS",
        description="Takes images by DICOM and sends the results to the PACS, or fetches and posts by DICOMweb. "
        "Ctrl-C or SIGTERM ends it; the same command goes on.",
        allow_abbrev=False,
    )
    pacs.add_argument("--model", required=True, metavar="MODEL", help="a run folder, or a packed bundle")
    _takes_ensemble(pacs)
    pacs.add_argument("--spool", required=True, metavar="DIR", help="keeps what is on its way, patients' data")
    pacs.add_argument("--send-to", metavar="HOST:PORT:AET", help="the PACS")
    pacs.add_argument("--no-commitment", action="store_true", help="do not ask the PACS whether it keeps the results")
    pacs.add_argument("--dicomweb", metavar="URL", help="fetch images from there, post results there; no DICOM port")
    pacs.add_argument("--every", type=float, default=30, help="seconds between two looks there (default %(default)s)")
    pacs.add_argument("--days", type=int, default=1, help="how old a study there may be (default %(default)s)")
    pacs.add_argument("--aet", default="MONAI_THYROID", help="own AE title (default %(default)s)")
    pacs.add_argument("--host", default="127.0.0.1", help="to listen at (default %(default)s, this machine only)")
    pacs.add_argument("--port", type=int, default=11112, help="default %(default)s")
    pacs.add_argument("--accept-from", default="", metavar="AET,...", help="who may send (default: everybody)")
    pacs.add_argument("--tls-certificate", metavar="FILE", help="PEM; with --tls-key and --tls-authority: TLS only")
    pacs.add_argument("--tls-key", metavar="FILE", help="PEM")
    pacs.add_argument("--tls-authority", metavar="FILE", help="PEM: whose certificates the others must have")
    pacs.add_argument("--send-tls", action="store_true", help="to the PACS by TLS, too")
    pacs.add_argument(
        "--status-port", type=int, default=8104, help="page of numbers, this machine only (default %(default)s)"
    )
    pacs.add_argument("--max-megabytes", type=float, default=512, help="of an instance (default %(default)s)")
    pacs.add_argument("--max-rate", type=float, default=100, help="instances a second taken (default %(default)s)")
    pacs.add_argument("--max-associations", type=int, default=16, help="at a time (default %(default)s)")
    pacs.add_argument("--max-queue", type=int, default=10_000, help="instances on their way (default %(default)s)")
    pacs.add_argument("--min-free", type=float, default=1, help="GB that stay free on the disk (default %(default)s)")
    pacs.add_argument("--patience", type=float, default=600, help="seconds for one instance (default %(default)s)")
    pacs.set_defaults(function=_pacs)


def _takes_device(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default %(default)s")


def _takes_part(
    command: argparse.ArgumentParser,
    *,
    default: str = "test",
    note: str = "default %(default)s",
    data: str = "where the runs' dataset is now, if it moved",
) -> None:
    """Which images runs are applied to, and where."""
    command.add_argument("--part", default=default, help=note)
    command.add_argument("--dataset_dir", metavar="DIR", help=data)
    _takes_device(command)


def _takes_ensemble(command: argparse.ArgumentParser) -> None:
    """How models are applied, beside the first one."""
    command.add_argument(
        "--with",
        dest="others",
        action="append",
        default=[],
        metavar="MODEL",
        help="a further member of an ensemble, whose probabilities are averaged; may be repeated",
    )
    _takes_device(command)
    command.add_argument(
        "--runtime",
        choices=["auto", "torch", "openvino", "onnx"],
        default="auto",
        help="auto measures which is the fastest that gives the masks of PyTorch in float32 (default %(default)s)",
    )
    command.add_argument("--tta", action="store_true", help="average over mirror images, along the axes of training")
    command.add_argument(
        "--review-below",
        type=float,
        metavar="DICE",
        help="mark DICOM results whose ensemble agrees by less",
    )
    command.add_argument(
        "--tissue-only", action="store_true", help="blacken everything outside of the ultrasound region first"
    )


def _add_label(commands: Any) -> None:
    label = commands.add_parser(
        "label",
        help="annotate with MONAI Label: the model proposes, learns from corrections, says which image is next",
        usage="monai-thyroid label --model MODEL [--model MODEL]... --studies DIR|URL [OPTION ...]\n"
        "       monai-thyroid label --make-env DIR",
        description="MONAI Label needs an environment of its own: make it once by --make-env DIR, then start "
        "DIR/bin/monai-thyroid label.",
        allow_abbrev=False,
    )
    label.add_argument("--make-env", metavar="DIR", help="make that environment, and do nothing else")
    label.add_argument(
        "--model",
        dest="models",
        action="append",
        default=[],
        metavar="MODEL",
        help="a packed bundle or run folder; may be repeated, all of the same classes",
    )
    label.add_argument("--studies", metavar="DIR|URL", help="a folder of images, or a DICOMweb server")
    label.add_argument(
        "--output",
        default="label",
        metavar="DIR",
        help="takes copies of the images, the labels, trainings and models; the same command goes on with it "
        "(default %(default)s)",
    )
    label.add_argument("--groups-from", metavar="REGEX", help="finds the patient in an image's name, for trainings")
    label.add_argument("--epochs", type=int, default=20, help="of a training (default %(default)s)")
    label.add_argument("--host", default="127.0.0.1", help="others than this machine see it elsewhere: no passwords")
    label.add_argument("--port", type=int, default=8000, help="default %(default)s")
    label.add_argument(
        "--allow-origin",
        dest="origins",
        action="append",
        default=[],
        metavar="URL",
        help="of a viewer in a browser, such as http://localhost:3000, that may read from it (default: none)",
    )
    label.set_defaults(function=_label)


def _takes_configs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        dest="more_configs",
        action="append",
        default=[],
        metavar="FILE",
        help="a further config, such as bundles/networks/monai.yaml or one with a network of your own; a later one "
        "overrides; may be repeated",
    )


def _takes_address(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--address",
        help="of the Ray cluster, whose machines must share the file system of this one (default: a new one)",
    )


def _check(options: argparse.Namespace) -> int:
    from monai_thyroid.training import check_file, check_start

    files, overrides = [options.config, *options.more_configs], _overrides(options.rest)
    problems, told = (check_file(files, overrides), []) if options.quick else check_start(files, overrides)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not problems:
        print(f"{options.config}: nothing wrong found", *(f"  {line}" for line in told), sep="\n")
    return 1 if problems else 0


def _phantom(options: argparse.Namespace) -> int:
    from monai_thyroid.images import write_phantom

    path = write_phantom(
        options.directory,
        cases=options.cases,
        seed=options.seed,
        height=options.height,
        width=options.width,
        multiclass=options.multiclass,
        empty_fraction=options.empty_fraction,
    )
    print(f"Synthetic scans of {options.cases} patients: {path}")
    return 0


def _new(options: argparse.Namespace) -> int:
    from monai_thyroid.bundles import new_bundle

    bundle = new_bundle(
        options.name,
        images=options.images,
        masks=options.masks,
        group_pattern=options.groups_from,
        classes=None if options.classes is None else [name.strip() for name in options.classes.split(",")],
        output=options.output,
    )
    print(f"{bundle.path}: written", *(f"  {fact}" for fact in bundle.found), sep="\n")
    for warning in bundle.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    print("Next:", *(f"  {command}" for command in bundle.commands), sep="\n")
    return 0


def _bundles(options: argparse.Namespace) -> int:
    from monai_thyroid.bundles import NETWORKS, SHIPPED, copy_bundle, recipe

    if options.copy:
        name, folder = options.copy
        path = copy_bundle(name, folder)
        file, command = "train.yaml", "python -m monai.bundle run --config_file"
        if name == NETWORKS:
            file, command = "monai.yaml", "monai-thyroid networks mednext --no-exports --config"
        print(f"{path}: written", "Next:", f"  {command} {shlex.quote(str(path / file))}", sep="\n")
        return 0
    width = max(map(len, (*SHIPPED, NETWORKS)))
    for name in SHIPPED:
        about = recipe(name)
        print(f"{name:<{width}}  {about['about']}; data: {about['data']}")
    print(f"{NETWORKS:<{width}}  blocks of further networks, for any bundle (--config FILE)")
    print("One of them for yourself: monai-thyroid bundles --copy NAME DIR")
    return 0


def _completion(options: argparse.Namespace) -> int:
    from monai_thyroid.errors import optional

    shtab = optional("shtab", extra="completion")
    parser = _parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for command in commands.choices.values():
        for action in command._actions:
            if action.metavar in _PATHS:
                action.complete = shtab.FILE
    print(shtab.complete(parser, shell=options.shell))
    return 0


def _networks(options: argparse.Namespace) -> int:
    from monai_thyroid.files import atomic_path
    from monai_thyroid.networks.table import NEW_PAGE, network_table, render_page, render_text

    if options.output and options.no_exports:
        raise UserError("--output is the page of the documentation, which tells the exports: leave --no-exports out")
    if options.output and not Path(options.output).absolute().parent.is_dir():
        raise UserError(f"--output {options.output}: its folder does not exist")
    page = Path(options.output).read_text("utf-8") if options.output and Path(options.output).exists() else NEW_PAGE
    words = [word for file in options.more_configs for word in ("--config", file)]
    told = {
        "command": " ".join(["monai-thyroid networks", *options.names, *words, "--output", str(options.output)]),
        "page": page,
        "where": f"--output {options.output}",
    }
    if options.output:
        render_page([], **told)  # what cannot be written is told before anything is measured
    menu = None
    if options.more_configs:
        from monai_thyroid.networks.menu import MENU_FILE
        from monai_thyroid.training import configured_networks

        menu = configured_networks([str(MENU_FILE), *options.more_configs])
    rows = network_table(options.names or None, exports=not options.no_exports, more=menu)
    print(render_text(rows))
    if options.output:
        with atomic_path(options.output) as temporary:
            temporary.write_text(render_page(rows, **told), encoding="utf-8")
    return 0


def _audit(options: argparse.Namespace) -> int:
    from monai_thyroid.data.audit import audit_dataset

    audit = audit_dataset(
        options.directory,
        layout=options.layout,
        split_file=options.split_file,
        output=options.output,
        write_groups=options.write_groups,
        card=options.card,
    )
    print(audit.text)
    if options.write_groups:
        print(f"Groups of images that look alike: {options.write_groups}")
    return 1 if audit.falsifies else 0


def _predict(options: argparse.Namespace) -> int:
    # One image a core: threads of a library below would only wait for each other. They read this when imported.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    from monai_thyroid.deploy import predict_archive

    if options.dicom:
        from monai_thyroid.deploy.dicom import keep_patients_out_of_logs

        keep_patients_out_of_logs()
    models = [_run(path, options.trust) for path in (options.model, *options.others)]
    try:
        result = predict_archive(
            models,
            options.inputs,
            output=options.output,
            device=options.device,
            runtime=options.runtime,
            tta=options.tta,
            probabilities=options.probabilities,
            overlays=options.overlays,
            dicom=options.dicom,
            review_below=options.review_below,
            tissue_only=options.tissue_only,
            engine=options.engine,
            address=options.address,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on") from None
    for model, (name, why) in zip(result.models, result.runtimes, strict=False):
        print(f"{model}: computed by {name} ({why})")
    if result.left_out:
        print("Left out:", ", ".join(f"{count} {reason}" for reason, count in result.left_out.items()))
    speed = f" in {result.seconds:.1f} s ({result.images / result.seconds:.1f} images/s)" if result.images else ""
    earlier = f", {result.before} before" if result.before else ""
    segmented = "1 image" if result.images == 1 else f"{result.images} images"
    print(f"{segmented} segmented{speed}{earlier}: {options.output}/predictions.csv")
    for reason in list(result.failed.values())[:20]:
        print(reason, file=sys.stderr)
    if result.failed:
        print(f"{len(result.failed)} could not be segmented, see predictions.csv", file=sys.stderr)
    return 1 if result.failed else 0


def _gain(options: argparse.Namespace) -> int:
    from monai_thyroid.evaluation import gain_table, measure_gain

    gains = measure_gain(
        options.runs, tta=options.tta, part=options.part, dataset_dir=options.dataset_dir, device=options.device
    )
    print(gain_table(gains))
    return 0


def _ensemble(options: argparse.Namespace) -> int:
    from monai_thyroid.evaluation import score_ensemble

    scores = score_ensemble(
        [_run(run, options.trust) for run in options.runs],
        part=options.part,
        dataset_dir=options.dataset_dir,
        device=options.device,
    )
    print(scores.sentence(), f"Kept: {scores.folder}", sep="\n")
    return 0


def _robustness(options: argparse.Namespace) -> int:
    from monai_thyroid.evaluation import asked_strengths, measure_robustness, robustness_table

    found = measure_robustness(
        [_run(run, options.trust) for run in options.runs],
        strengths=asked_strengths(options.degrade),
        part=options.part,
        dataset_dir=options.dataset_dir,
        device=options.device,
    )
    print("Dice, mean over images and classes, at each strength:", robustness_table(found), sep="\n")
    for one in found:
        print(f"Kept: {one.path}")
    return 0


def _pacs(options: argparse.Namespace) -> int:
    import logging

    from monai_thyroid.deploy.node import Access, NodeOptions, Tls, peer, run_node

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    tls = [options.tls_certificate, options.tls_key, options.tls_authority]
    if any(tls) and not all(tls):
        raise UserError("TLS needs all of --tls-certificate, --tls-key and --tls-authority")
    node = NodeOptions(
        spool=options.spool,
        aet=options.aet,
        host=options.host,
        port=options.port,
        send_to=None if options.send_to is None else peer(options.send_to),
        dicomweb=options.dicomweb,
        every=options.every,
        days=options.days,
        access=Access(
            calling=_listed(options.accept_from),
            max_bytes=options.max_megabytes * 1e6,
            max_rate=options.max_rate,
            max_associations=options.max_associations,
        ),
        tls=Tls(certificate=tls[0], key=tls[1], authority=tls[2]) if all(tls) else None,
        send_tls=options.send_tls,
        commitment=not options.no_commitment,
        status_port=options.status_port,
        max_queue=options.max_queue,
        min_free=options.min_free * 1e9,
        patience=options.patience,
    )
    run_node(
        [options.model, *options.others],
        node,
        device=options.device,
        runtime=options.runtime,
        tta=options.tta,
        review_below=options.review_below,
        tissue_only=options.tissue_only,
    )
    return 0


def _label(options: argparse.Namespace) -> int:
    from monai_thyroid.deploy.label_app import check_installed, check_port, make_environment, prepare, run_server

    def tell(line: str) -> None:
        print(line, flush=True)

    if options.make_env is not None:
        if options.models or options.studies is not None:
            raise UserError("--make-env: only makes the environment; leave --model and --studies out")
        tell(f"Made. Next: {make_environment(options.make_env)} label --model MODEL --studies DIR")
        return 0
    if not options.models or options.studies is None:
        raise UserError("label: give --model MODEL and --studies DIR|URL, or --make-env DIR")
    check_installed()
    check_port(options.host, options.port)
    place = prepare(
        options.models,
        studies=options.studies,
        output=options.output,
        groups_from=options.groups_from,
        epochs=options.epochs,
        tell=tell,
    )
    return run_server(place, host=options.host, port=options.port, origins=options.origins, tell=tell)


def _export(options: argparse.Namespace) -> int:
    from monai_thyroid.deploy.export import export, export_table

    content = export(
        _run(options.run, options.trust),
        formats=_listed(options.format),
        int8=options.int8,
        dataset_dir=options.dataset_dir,
    )
    print(f"On {content['images']} images of the validation part, {content['processor']}:")
    print(export_table(content))
    return 0


def _pack(options: argparse.Namespace) -> int:
    from monai_thyroid.deploy.export import export_table
    from monai_thyroid.deploy.pack import pack

    packed = pack(
        [_run(run, options.trust) for run in options.runs],
        output=options.output,
        formats=_listed(options.format),
        int8=options.int8,
        dataset_dir=options.dataset_dir,
        version=options.version,
        changes=options.changes,
        metadata=options.metadata,
        licence=options.license,
        report=not options.no_report,
        zipped=options.zip,
    )
    if packed.exports:
        print(f"On {packed.exports['images']} images of the validation part, {packed.exports['processor']}:")
        print(export_table(packed.exports))
    if packed.report:
        print(f"No report in it: {packed.report}", file=sys.stderr)
    print(f"Packed: {packed.path}", *([packed.zip] if packed.zip else []))
    model = shlex.quote(str(packed.path))
    uses = (f"web --model {model}", f"predict {model} IMAGE_OR_FOLDER --output DIR")
    print("Next:", *(f"  monai-thyroid {use}" for use in uses), sep="\n")
    return 0


def _card(options: argparse.Namespace) -> int:
    from monai_thyroid.deploy.pack import write_card

    print(f"Model card: {write_card(_run(options.model, options.trust), options.output)}")
    return 0


def _add_trust(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trust",
        nargs="?",
        const="true",
        default="false",
        metavar="true",
        help="run what a run's config says beyond this package's list; only for those whose programs you would run",
    )


def _run(path: str, trust: str) -> Any:
    """A run as it is given, or read with trust."""
    from monai_thyroid.options import boolean

    try:
        trusted = boolean(trust)
    except UserError as error:
        raise UserError(f"--trust {error}") from error
    if not trusted:
        return path
    from monai_thyroid.evaluation import TrainedRun

    return TrainedRun(path, trust=True)


def _compare(options: argparse.Namespace) -> int:
    from monai_thyroid.compare import Unusable, check_margin, make_report, plan_power, plan_problems
    from monai_thyroid.sweep.plan import Ray, plan_sweep

    wrong = [] if options.jobs >= 1 else [f"--jobs {options.jobs}: give at least 1"]
    _unless_wrong(wrong, lambda: check_margin(options.margin), None)
    networks, like = _listed(options.networks), [path for paths in options.like for path in paths]
    seeds = _unless_wrong(wrong, lambda: _numbers("--seeds", options.seeds), [0])
    tuning = _unless_wrong(wrong, lambda: _tuning(options, seeds), None)
    overrides: dict[str, Any] = _unless_wrong(wrong, lambda: _overrides(options.rest), {})
    wrong += plan_problems(options.detect, power=options.power, like=like, networks=len(networks), plan=options.plan)
    ray = Ray(options.address, options.cpus, options.gpus) if options.engine == "ray" else None
    sweep = plan_sweep(
        [options.config, *options.more_configs],
        networks=networks,
        seeds=seeds,
        folds=options.folds,
        output=options.output,
        overrides=overrides,
        elsewhere=ray is not None,
        margin=options.margin,
        tuning=tuning,
        wrong=wrong,
    )
    print(sweep.table(at_once=options.jobs, ray=ray), flush=True)
    if options.plan:
        if options.detect is not None:
            print(
                plan_power(
                    options.detect,
                    power=options.power,
                    networks=len(networks),
                    seeds=len(seeds),
                    groups=sweep.test_groups,
                    like=like,
                    output=sweep.output,
                )
            )
        return 0
    try:
        failures = sweep.execute(at_once=options.jobs, ray=ray)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; the same command goes on") from None
    for text in sweep.told_choices():
        print(f"Chosen for {text}")
    for job in [*sweep.trials, *sweep.jobs]:
        if job.name in failures:
            print(f"{job.name} failed, see {job.log}:\n{failures[job.name]}", file=sys.stderr)
    folders = [str(job.path) for job in sweep.jobs if job.state != "waits" and (job.path / "run.json").is_file()]
    absent = [
        Unusable(
            path=str(job.path),
            network=job.network,
            seed=str(job.seed),
            fold="" if job.fold is None else str(job.fold),
            reason=failures.get(job.name, "no setting was chosen for it" if job.state == "waits" else "not trained"),
        )
        for job in sweep.jobs
        if str(job.path) not in folders
    ]
    page = make_report(
        folders,
        output=sweep.output / "report",
        margin=options.margin,
        images=not options.no_images,
        failed=absent,
    )
    print(f"Report: {page}")
    return 1 if failures or absent else 0


def _tuning(options: argparse.Namespace, seeds: Sequence[int]) -> Any:
    if options.tune:
        from monai_thyroid.sweep.tuning import Tuning

        trial_seeds = seeds[:1] if options.tune_seeds is None else _numbers("--tune-seeds", options.tune_seeds)
        return Tuning.read(options.tune, seeds=trial_seeds, epochs=options.tune_epochs)
    if options.tune_seeds is not None or options.tune_epochs is not None:
        raise UserError("--tune-seeds and --tune-epochs say how --tune tries settings; say which, or leave them out")
    return None


def _unless_wrong(wrong: list[str], read: Callable[[], _T], otherwise: _T) -> _T:
    """What is read; if it cannot be, another value, and why is added to the list."""
    try:
        return read()
    except UserError as error:
        wrong += error.problems
        return otherwise


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(word) for word in _listed(text)]
    except ValueError:
        raise UserError(f"{option} {text}: give whole numbers, such as 0,1,2") from None


def _score(options: argparse.Namespace) -> int:
    from monai_thyroid.evaluation import score_masks

    pretrained = options.pretrained_on
    scored = score_masks(
        predictions=options.predictions,
        references=options.references,
        name=options.name,
        output=options.output,
        seed=options.seed,
        dataset=options.dataset,
        part=options.part,
        classes=None if options.classes is None else _listed(options.classes),
        groups_from=options.groups_from,
        groups=options.groups,
        images=options.images,
        pretrained_on=None if pretrained is None else [] if pretrained == "none" else _listed(pretrained),
    )
    for warning in scored.warnings:
        print(f"Warning: {warning}", file=sys.stderr)
    if scored.left_out:
        print(f"Left out, as no masks: {', '.join(scored.left_out)}")
    print(scored.result, f"Run folder: {scored.path}", sep="\n")
    return 0


def _report(options: argparse.Namespace) -> int:
    from monai_thyroid.compare import make_report

    page = make_report(
        options.runs,
        output=options.output,
        margin=options.margin,
        metric=options.metric,
        part=options.part,
        force=options.force,
        images=not options.no_images,
        metadata=options.metadata,
        ensemble=options.ensemble,
        checklist=options.checklist,
    )
    print(f"Report: {page}")
    return 0


def _runs(options: argparse.Namespace) -> int:
    import json

    from monai_thyroid.runfolder import list_runs, runs_table, sorted_runs

    found = sorted_runs(list_runs(options.folders), options.sort)
    if options.json:
        print(json.dumps([one.as_dict() for one in found], indent=2))
    else:
        print(runs_table(found, start=options.folders[0] if len(options.folders) == 1 else None))
    return 0


def _web(options: argparse.Namespace) -> int:
    from monai_thyroid.deploy.web import check_address, open_desk, serve
    from monai_thyroid.errors import optional

    optional("streamlit", extra="web")
    check_address(options.host, options.port)
    desk = open_desk(
        [_run(model, options.trust) for model in options.models],
        options.runs,
        device=options.device,
        runtime=options.runtime,
    )
    for model in desk.models:
        print(f"{model.title}: {model.path}, computed by {model.computed}")
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"http://{shown}:{options.port} (Ctrl-C ends it)", flush=True)
    serve(desk, host=options.host, port=options.port)
    return 0


def _overrides(words: Sequence[str]) -> dict[str, Any]:
    """Read ``--id value`` and ``--id=value`` as `python -m monai.bundle run` does; ``--id`` alone is true.

    Raises:
        UserError: a word is neither an option nor the value of one.
    """
    from fire.parser import DefaultParseValue

    found: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word}: write overrides as --id value")
        name, equals, value = word[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "True"
        # It would read a comment behind #.
        found[name.replace("-", "_")] = value if "#" in value else DefaultParseValue(value)
    return found
