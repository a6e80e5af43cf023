"""Pictures that say how they are to be turned (EXIF 1 to 8), from the training to the pictures of the audit."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_trained import MARKER, marker
from monai.bundle import create_workflow
from PIL import Image, ImageOps

from monai_thyroid.data.audit import audit_dataset
from monai_thyroid.files import read_csv, read_json, sha256_file, write_json

SIZE = 96
# How a picture that is to be shown upright lies in a file of each orientation.
STORED = {
    1: lambda shown: shown,
    2: lambda shown: shown[:, ::-1],
    3: lambda shown: shown[::-1, ::-1],
    4: lambda shown: shown[::-1],
    5: lambda shown: shown.T,
    6: lambda shown: np.rot90(shown, 1),
    7: lambda shown: shown[::-1, ::-1].T,
    8: lambda shown: np.rot90(shown, -1),
}


def write(path: Path, shown: np.ndarray, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(STORED[orientation](shown))).save(path, exif=exif, quality=95)
    with Image.open(path) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture), dtype=int)
    assert upright.shape == shown.shape, "stored otherwise than EXIF says"
    assert np.abs(upright - shown).max() < 60


def different(orientation: int) -> np.ndarray:
    """The marker on ground of another grey for each, so that no two files are alike."""
    shown = marker()
    shown[shown < 50] = 10 + 4 * orientation
    return shown


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The orientations in both parts; masks lie as their image is shown, as an annotation tool saves them."""
    folder = tmp_path_factory.mktemp("turned") / "scans"
    for part, moved in (("trainval", 0), ("test", 100)):
        for orientation in STORED:
            shown = different(orientation)
            if moved:
                shown = np.roll(shown, 20, axis=1)
            write(folder / f"{part}-image" / f"{orientation + moved}.jpg", shown, orientation)
            (folder / f"{part}-mask").mkdir(exist_ok=True)
            Image.fromarray((shown > 128).astype(np.uint8) * 255).save(
                folder / f"{part}-mask" / f"{orientation + moved}.png"
            )
    return folder


@pytest.fixture(scope="module")
def run(scans: Path, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """A training of a network that can only tell bright from dark; then its weights say so for certain."""
    output = tmp_path_factory.mktemp("runs")
    mine = output / "mine.yaml"
    mine.write_text(yaml.safe_dump({"networks::marker": MARKER}))
    options: dict[str, Any] = {
        **{"network": "marker", "image_size": SIZE, "max_epochs": 1, "batch_size": 2, "augmentation": []},
        **{"trackers": [], "dataset_dir": str(scans), "output_dir": str(output), "device": "cpu"},
    }
    workflow = create_workflow(
        config_file=[str(root / "bundles" / "thyroid" / "train_course.yaml"), str(mine)], logging_file=False, **options
    )
    for item in workflow.parser.get_parsed_content("train::dataset"):
        image, mask = np.asarray(item["image"][0]), np.asarray(item["label"][0]) > 0.5
        assert ((image > 0.5) == mask).mean() > 0.97, "trained turned against its mask"
    workflow.run()
    path = Path(workflow.parser.get_parsed_content("session").path)
    torch.save({"weight": torch.full((1, 1, 1, 1), 40.0), "bias": torch.full((1,), -20.0)}, path / "model.pt")
    record = {**read_json(path / "run.json"), "checkpoint_sha256": sha256_file(path / "model.pt")}
    write_json(path / "run.json", record)
    return path


def test_evaluation(run: Path, root: Path) -> None:
    create_workflow(
        config_file=str(root / "bundles" / "thyroid" / "evaluate.yaml"),
        logging_file=False,
        run_dir=str(run),
        part="all",
        device="cpu",
    ).run()
    (folder,) = (run / "evaluations").glob("*-all")
    rows = read_csv(folder / "cases.csv")
    assert len(rows) == 16
    for row in rows:
        assert (row["height"], row["width"]) == ("75", "110"), row["case"]
        assert float(row["dice"]) > 0.93, row["case"]
        with Image.open(folder / "images" / f"{row['case']}.jpg") as kept:
            picture = np.asarray(kept.convert("L"))
        with Image.open(folder / "predictions" / f"{row['case']}.png") as kept:
            mask = np.asarray(kept)
        assert ((picture > 128) == (mask > 0)).mean() > 0.97, "what a gallery shows"


def test_inference(run: Path, scans: Path, tmp_path: Path, root: Path) -> None:
    create_workflow(
        config_file=str(root / "bundles" / "thyroid" / "inference.yaml"),
        logging_file=False,
        **{"run_dir": str(run), "input": str(scans / "trainval-image"), "output_dir": str(tmp_path / "out")},
        device="cpu",
    ).run()
    for orientation in STORED:
        shown = different(orientation)
        for ending in ("mask", "overlay"):
            with Image.open(tmp_path / "out" / f"{orientation}_{ending}.png") as picture:
                assert picture.size == shown.shape[::-1]
                assert picture.getexif().get(0x0112, 1) == 1, "turned once more by whoever opens it"
                if ending == "mask":
                    assert ((np.asarray(picture) > 0) == (shown > 128)).mean() > 0.97


def test_pictures_of_the_audit(scans: Path, tmp_path: Path) -> None:
    turned = tmp_path / "scans"
    for orientation in STORED:  # every picture twice, so that the page shows it
        shown = different(orientation)
        for name in (f"{orientation}", f"{orientation}_again"):
            write(turned / "images" / f"{name}.jpg", shown, orientation)
            (turned / "masks").mkdir(exist_ok=True)
            Image.fromarray((shown > 128).astype(np.uint8) * 255).save(turned / "masks" / f"{name}.png")
    page = tmp_path / "audit.html"
    audit_dataset(turned, output=page)
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page.read_text(encoding="utf-8"))
    assert pictures
    for content in pictures:
        with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
            assert picture.width > picture.height
            small = np.asarray(picture.convert("L").resize((110, 75)))
        assert small[8:22, 12:32].mean() > 150, "the marker's block is near the top left"
        assert small[8:22, 80:100].mean() < 100
