"""Run folders that a training could have left, made in a moment: a bundle's config, and weights out of a hat."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import torch
import yaml
from bundle_files import course
from monai.bundle import ConfigParser
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

from monai_thyroid.evaluation import TrainedRun
from monai_thyroid.evaluation.components import applied_config
from monai_thyroid.files import read_json, sha256_file, write_json

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"image_size": 32, "networks::unet::features": [4, 4, 4, 4, 4, 4], "device": "cpu", "precision": "float32"}
NORMALISATION = {1: {"mean": [0.3], "std": [0.2]}, 3: {"mean": [0.5, 0.3, 0.2], "std": [0.3, 0.2, 0.15]}}
MARKER = {
    "_target_": "torch.nn.Conv2d",
    "_mode_": "callable",
    "in_channels": "@channels",
    "out_channels": "$len(@classes)",
    "kernel_size": 1,
}
"""A network that marks what is bright; see `bright`."""


def made_trained(
    folder: Path,
    bundle: str = "thyroid",
    *,
    file: str | None = None,
    seed: int = 0,
    bright: bool = False,
    postprocessing: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> Path:
    """Write a run folder with ``config.yaml``, ``run.json`` and ``model.pt``.

    Args:
        folder: is made.
        bundle: whose config.
        file: which of its configs; by default the recipe that it reproduces.
        seed: of the weights.
        bright: take a network whose logit is 40 times the mean brightness above a half.
        postprocessing: as of run.json.
        overrides: of the config, by id.
    """
    parser = ConfigParser()
    parser.read_config(ROOT / "bundles" / bundle / (file or course(bundle)))
    options = {**SMALL, **overrides, **({"networks::marker": MARKER, "network": "marker"} if bright else {})}
    for name, value in options.items():
        parser[name] = value
    folder.mkdir(parents=True)
    config = {**parser.config}
    for name in ("classes", "channels", "activation", "threshold", "image_size"):
        config[name] = parser.get_parsed_content(name)
    if "normalisation" in config:  # there is no training part
        parser["normalisation"] = config["normalisation"] = NORMALISATION[config["channels"]]
        config["applied"] = applied_config(config, lambda identity, text: parser.get_parsed_content(identity))
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    torch.manual_seed(seed)
    network = parser.get_parsed_content("network_def")
    if bright:
        torch.nn.init.constant_(network.weight, 40 / config["channels"])
        torch.nn.init.constant_(network.bias, -20)
    else:
        # Random weights leave everything near the threshold, or at one side of it.
        with torch.no_grad():
            logits = network.eval()(torch.rand(1, config["channels"], *[parser.get_parsed_content("input_size")] * 2))
            last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
            last.weight *= 5 / logits.std()
            last.bias -= 5 * logits.mean() / logits.std()
    torch.save(network.state_dict(), folder / "model.pt")
    record = {
        "status": "done",
        "bundle": bundle,
        "dataset": "made",
        "network": config["network"],
        "seed": seed,
        "classes": config["classes"],
        "activation": config["activation"],
        "threshold": config["threshold"],
        "postprocessing": postprocessing,
        "checkpoint_sha256": sha256_file(folder / "model.pt"),
    }
    write_json(folder / "run.json", record)
    return folder


def with_data(folder: Path, scans: Path, **overrides: Any) -> Path:
    """`made_trained` whose dataset is there, as the run would have recorded it."""
    run = made_trained(folder, dataset_dir=str(scans), **overrides)
    record = read_json(run / "run.json")
    write_json(run / "run.json", {**record, "dataset": scans.name, "dataset_dir": str(scans), "data_hash": ""})
    data = TrainedRun(str(run)).parsed("data")
    write_json(run / "split.json", data.split())
    record |= {"dataset": scans.name, "dataset_dir": str(scans), "data_hash": data.inspect().data_hash}
    write_json(run / "run.json", record)
    return run


def marker(height: int = 75, width: int = 110) -> np.ndarray:
    """Dark ground, a bright block near the top left and a bar below it: no symmetry maps it to itself."""
    image = np.full((height, width), 10, np.uint8)
    image[5 : height // 3, 8 : width // 3] = 250
    image[height // 2 : height // 2 + 12, 8 : width // 2] = 250
    return image


def in_every_format(folder: Path, pixels: np.ndarray) -> list[Path]:
    """One grey picture as each kind of file that can be read; the spacing is 0.5 mm down and 0.25 mm across."""
    folder.mkdir(parents=True)
    colour = np.repeat(pixels[..., None], 3, axis=2)
    Image.fromarray(pixels).save(folder / "grey.png")
    Image.fromarray(pixels).save(folder / "compressed.jpg", quality=95)
    Image.fromarray(colour).save(folder / "colour.bmp")
    Image.fromarray(np.concatenate([colour, np.full_like(colour[..., :1], 255)], axis=2)).save(folder / "alpha.png")
    Image.fromarray(pixels.astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(pixels).convert("P").save(folder / "palette.tif")
    image = nibabel.Nifti1Image(pixels.T, np.diag([-0.25, -0.5, 1, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "volume.nii.gz")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UltrasoundImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelSpacing = [0.5, 0.25]
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    pydicom.dcmwrite(folder / "object.dcm", dataset, enforce_file_format=True)
    return sorted(folder.iterdir())
