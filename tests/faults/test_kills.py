"""A process killed at any moment leaves whole files."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz import World
from monai.data import MetaTensor

from monai_thyroid.files import read_json, remove_partial, write_csv, write_json
from monai_thyroid.images import made_here, read_raster
from monai_thyroid.training.recorder import save
from monai_thyroid.transforms import SaveMaskd

pytestmark = pytest.mark.slow

MOMENTS = int(os.environ.get("MONAI_THYROID_FUZZ", 40))
SIZE = 200_000


def _writers(folder: Path, image: Path) -> dict[str, tuple[Callable[[int], None], Callable[[], int]]]:
    """For each kind of file, how version n is written, and how its version is read whole."""
    table = folder / "cases.csv"
    columns = ("case", "version")

    def read_table() -> int:
        lines = table.read_text().splitlines()
        assert len(lines) == 2001
        (version,) = {line.split(",")[1] for line in lines[1:]}
        return int(version)

    def write_mask(version: int) -> None:
        numbers = torch.zeros((1, 500, 400), dtype=torch.uint8)
        numbers[0, : version % 500] = 1
        SaveMaskd(keys="pred", output_dir=str(folder))(
            {"pred": MetaTensor(numbers, meta={"filename_or_obj": str(image)})}
        )

    def read_mask() -> int:
        path = folder / f"{image.stem}_mask.png"
        assert made_here(path)
        return int(np.count_nonzero(read_raster(str(path)).pixels[0]))

    weights, record = folder / "last.pt", folder / "run.json"
    return {
        "weights": (
            lambda version: save({"a": torch.full((SIZE,), float(version))}, weights),
            lambda: int(torch.load(weights, weights_only=True)["a"].unique().item()),
        ),
        "record": (
            lambda version: write_json(record, {"versions": [version] * 20_000}),
            lambda: int(np.unique(read_json(record)["versions"]).item()),
        ),
        "table": (
            lambda version: write_csv(table, columns, [{"case": n, "version": version} for n in range(2000)]),
            read_table,
        ),
        "mask": (write_mask, read_mask),
    }


@pytest.mark.parametrize("kind", ["weights", "record", "table", "mask"])
def test_a_killed_writer_leaves_whole_files(kind: str, world: World, tmp_path: Path) -> None:
    image = sorted((world.scans / "test-image").iterdir())[0]
    write, read = _writers(tmp_path, image)[kind]
    write(1)
    assert read() == 1
    chance = random.Random(kind)
    for moment in range(MOMENTS):
        child = os.fork()
        if child == 0:  # writes without an end; never returns to pytest
            try:
                version = 2
                while True:
                    write(version)
                    version += 1
            finally:
                os._exit(1)
        time.sleep(chance.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert read() >= 1, moment
    remove_partial(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
