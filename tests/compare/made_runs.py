"""Run folders made by hand: the contract's files and keys, nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from monai_thyroid.files import write_csv, write_json
from monai_thyroid.metrics import CALIBRATION_COLUMNS, SCORE_COLUMNS, ScoringPolicy, calibration_case, score_case

KEYS = ("dataset", "site", "part", "case", "group", "class")
HISTORY = ("stage", "epoch", "lr", "train_loss", "val_loss", "val_dice", "val_iou", "seconds")
SIDE = 32
Predict = Callable[[np.ndarray, int], np.ndarray]


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def reference(case: int, part: str) -> np.ndarray:
    rng = np.random.default_rng([case, len(part)])
    top, left = rng.integers(2, 12, 2)
    height, width = rng.integers(8, 17, 2)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def shrunk(quality: float, name: str, seed: int, spread: float = 0.1) -> Predict:
    """A model that finds about this share of each object, from its left."""

    def predict(mask: np.ndarray, case: int) -> np.ndarray:
        rng = np.random.default_rng([int(digest(name)[:6], 16), seed, case])
        share = np.clip(quality + rng.normal(0, spread), 0.05, 1)
        kept = int(np.ceil(share * mask.sum()))
        found = np.zeros(mask.size, dtype=bool)
        found[np.flatnonzero(mask)[:kept]] = True
        return found.reshape(mask.shape)

    return predict


def nothing(mask: np.ndarray, case: int) -> np.ndarray:
    return np.zeros_like(mask)


def everything(mask: np.ndarray, case: int) -> np.ndarray:
    return np.ones_like(mask)


def the_same(mask: np.ndarray, case: int) -> np.ndarray:
    found = np.zeros_like(mask)
    found[8:24, 8:24] = True
    return found


def nearly_nothing(mask: np.ndarray, case: int) -> np.ndarray:
    return mask if case == 3 else np.zeros_like(mask)


def maker(folder: Path) -> Callable[..., Path]:
    """A function that makes a run below a folder."""

    def make(
        network: str,
        seed: int = 0,
        *,
        quality: float = 0.8,
        predict: Predict | None = None,
        root: str = "runs",
        dataset: str = "neck",
        fold: int | None = None,
        cases: Sequence[int] = range(24),
        classes: Sequence[str] = ("nodule",),
        parts: Sequence[str] = ("test",),
        others: Sequence[str] = (),
        protocol: str = "recipe",
        data: str = "data",
        val_dice: Sequence[float | None] = (0.3, 0.5, 0.6, 0.62, 0.61, 0.63),
        losses: Sequence[float] = (),
        settings: dict[str, Any] | None = None,
        images: bool = False,
        names: Callable[[int], str] = "case-{:02d}".format,
        **more: Any,
    ) -> Path:
        predict = predict or shrunk(quality, network, seed)
        fold_name = "" if fold is None else f"-fold-{fold}"
        path = folder / root / "thyroid" / dataset / f"{network}-{digest(protocol)[:8]}" / f"seed-{seed}{fold_name}"
        path.mkdir(parents=True)
        record = {
            **{"bundle": "thyroid", "dataset": dataset, "network": network, "seed": seed, "fold": fold, "stage": 1},
            **{"classes": list(classes), "activation": "sigmoid", "threshold": 0.5},
            **{"data_hash": digest(f"{data} {fold}"), "protocol_hash": digest(protocol)},
            "run_hash": digest(str(path)),
            **{"checkpoint_sha256": digest(f"weights {path}"), "parent_sha256": None, "versions": {}, "device": "cpu"},
            **{"precision": "float32", "parameters": 1000 * len(network), "images_per_second": 50.0, "seconds": 60.0},
            **{"best_epoch": len(val_dice), "status": "done", "error": None},
        }
        write_json(path / "run.json", {**record, **more})
        config = {"dataset_dir": "/data/neck", "network": network, "seed": seed, "image_size": 96, "batch_size": 8}
        (path / "config.yaml").write_text(yaml.safe_dump({**config, **(settings or {})}))
        write_csv(
            path / "history.csv",
            HISTORY,
            [
                {
                    **{"stage": 1, "epoch": epoch + 1, "lr": 1e-3, "val_loss": 0.5, "val_iou": None, "seconds": 1.0},
                    "train_loss": losses[epoch] if epoch < len(losses) else 1 / (epoch + 1),
                    "val_dice": dice,
                }
                for epoch, dice in enumerate(val_dice)
            ],
        )
        for name, part in [(dataset, part) for part in parts] + [(other, "test") for other in others]:
            _evaluate(path, name, part, cases, classes, predict, images, names)
        return path

    return make


def _evaluate(
    path: Path,
    dataset: str,
    part: str,
    cases: Sequence[int],
    classes: Sequence[str],
    predict: Predict,
    images: bool,
    names: Callable[[int], str],
) -> None:
    folder = path / "evaluations" / f"{dataset}-{part}"
    for name in ("predictions", "references", "images"):
        (folder / name).mkdir(parents=True)
    rows, calibration = [], []
    for case in cases:
        labels = {"references": np.zeros((SIDE, SIDE), np.uint8), "predictions": np.zeros((SIDE, SIDE), np.uint8)}
        for index, name in enumerate(classes):
            truth = reference(case + 100 * index, dataset + part)
            found = predict(truth, case)
            # Two cases a group.
            key = {"dataset": dataset, "site": "", "part": part, "case": names(case), "group": f"p{case // 2}"}
            rows.append({**key, "class": name, **score_case(truth, found), "error": ""})
            probability = np.where(found, 0.9, 0.1)
            calibration.append({**key, "class": name, **calibration_case(truth, probability)})
            # One class as 0 and 255, several as numbers in a palette.
            labels["references"][truth] = labels["predictions"][found] = 255 if len(classes) == 1 else index + 1
        if images:
            grey = np.linspace(40, 200, SIDE * SIDE).reshape(SIDE, SIDE).astype(np.uint8)
            Image.fromarray(grey).save(folder / "images" / f"{names(case)}.jpg")
            for kind, label in labels.items():
                picture = Image.fromarray(label)
                if len(classes) > 1:
                    picture.putpalette([0, 0, 0, 230, 159, 0, 86, 180, 233])
                picture.save(folder / kind / f"{names(case)}.png")
    write_csv(folder / "cases.csv", (*KEYS, *SCORE_COLUMNS, "error"), rows)
    write_csv(folder / "calibration.csv", (*KEYS, *CALIBRATION_COLUMNS), calibration)
    write_json(folder / "evaluation.json", {"dataset": dataset, "part": part, "policy": ScoringPolicy().as_dict()})
