from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_files import course, strong
from monai.bundle import create_workflow

from monai_thyroid.images import write_phantom

TINY: dict[str, Any] = {
    "image_size": 32,
    "max_epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.01,
    "networks::unet::features": [4, 4, 4, 4, 4, 4],
    "device": "cpu",
    "precision": "float32",
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """Settings with which a training takes a second."""
    return dict(TINY)


@pytest.fixture(scope="session")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset of non-square scans in the TN3K layout, some without a nodule."""
    return write_phantom(
        tmp_path_factory.mktemp("data") / "scans", cases=10, seed=0, height=48, width=64, empty_fraction=0.2
    )


@pytest.fixture(scope="session")
def train(root: Path) -> Callable[..., Path]:
    """Train a bundle by its course project's recipe, with tiny settings, and return the run folder."""

    def run(bundle: str = "thyroid", file: str | None = None, **overrides: Any) -> Path:
        given = {"trackers": [], "logging_file": False, **TINY, **overrides}
        if "hours" in given:  # which decides on the number of epochs
            del given["max_epochs"]
        workflow = create_workflow(config_file=str(root / "bundles" / bundle / (file or course(bundle))), **given)
        workflow.run()
        workflow.finalize()
        return Path(workflow.parser.get_parsed_content("session").path)

    return run


@pytest.fixture(scope="session")
def train_strong(train: Callable[..., Path]) -> Callable[..., Path]:
    """Train a bundle by its strong recipe, with tiny settings, and return the run folder."""

    def run(bundle: str = "thyroid", **overrides: Any) -> Path:
        # Which layout is measured to be faster may change from one run to the next.
        return train(bundle, strong(bundle), **{"channels_last": False, **overrides})

    return run


@pytest.fixture(scope="session")
def trained(train: Callable[..., Path], scans: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on `scans`; tests must not change it."""
    return train(dataset_dir=str(scans), output_dir=str(tmp_path_factory.mktemp("runs")))
