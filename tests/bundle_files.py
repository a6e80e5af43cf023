"""Which of a bundle's files is which recipe: the stronger one is train.yaml only where that was measured."""

from __future__ import annotations

from pathlib import Path

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"


def course(bundle: str) -> str:
    """The file of the recipe that a bundle reproduces."""
    return "train_course.yaml" if (BUNDLES / bundle / "train_course.yaml").is_file() else "train.yaml"


def strong(bundle: str) -> str:
    """The file of the strong recipe."""
    return "train_strong.yaml" if (BUNDLES / bundle / "train_strong.yaml").is_file() else "train.yaml"
