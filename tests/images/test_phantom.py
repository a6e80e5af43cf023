"""The synthetic scans: reproducible, exact, hard for a threshold, and written whole or not at all."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from monai_thyroid.errors import UserError
from monai_thyroid.images import phantom
from monai_thyroid.images.phantom import phantom_scan, phantom_views, write_phantom

EIGHT = np.ones((3, 3))


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * np.sum(a & b) / (a.sum() + b.sum()))


def files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_scan_depends_on_its_arguments_alone() -> None:
    wanted = [(case, view) for case in range(3) for view in range(2)]
    forward = {key: phantom_scan(*key, seed=4) for key in wanted}
    np.random.seed(123)
    state = np.random.get_state()[1].copy()
    for key in reversed(wanted):
        again = phantom_scan(*key, seed=4)
        np.testing.assert_array_equal(again.image, forward[key].image)
        np.testing.assert_array_equal(again.label, forward[key].label)
        assert again.nodules == forward[key].nodules
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_seed_case_and_view_each_change_the_scan() -> None:
    scans = [phantom_scan(*key, seed=seed) for key, seed in (((0, 0), 0), ((0, 0), 1), ((1, 0), 0), ((0, 1), 0))]
    for i, one in enumerate(scans):
        for other in scans[i + 1 :]:
            assert not np.array_equal(one.image, other.image)
            assert not np.array_equal(one.label, other.label)


@pytest.mark.parametrize(("height", "width"), [(144, 192), (97, 61), (48, 48), (64, 301)])
def test_rasters(height: int, width: int) -> None:
    scan = phantom_scan(2, 1, seed=0, height=height, width=width)
    for array in (scan.image, scan.label):
        assert array.shape == (height, width)
        assert array.dtype == np.uint8
    assert set(np.unique(scan.label)) == {0, 1}
    assert scan.image.std() > 15


def test_another_raster_shows_the_same_anatomy() -> None:
    small, large = phantom_scan(3, 0, seed=1), phantom_scan(3, 0, seed=1, height=288, width=384)
    assert dice(small.label > 0, large.label[::2, ::2] > 0) > 0.95


def test_each_nodule_is_one_component_of_a_size_that_can_be_learned() -> None:
    counts, shares = [], []
    for case in range(60):
        height, width = ((144, 192), (48, 48), (96, 131))[case % 3]
        scan = phantom_scan(case, case % 3, seed=2, height=height, width=width)
        components, count = ndimage.label(scan.label, EIGHT)
        assert count == scan.nodules
        counts.append(count)
        shares += (np.bincount(components.ravel())[1:] / components.size).tolist()
    assert set(counts) == {1, 2, 3}
    assert min(shares) > 0.007
    assert max(shares) < 0.16
    assert 0.02 < np.median(shares) < 0.1


def test_every_case_has_a_nodule_unless_asked_otherwise() -> None:
    for case in range(400):
        anatomy = phantom._anatomy(phantom._generator(phantom._ANATOMY, 9, case))
        assert 1 <= len(anatomy.nodules) <= 3


def test_empty_fraction() -> None:
    empty = phantom_scan(0, 0, seed=0, empty_fraction=1.0)
    assert empty.nodules == 0
    assert not empty.label.any()
    gland = phantom_scan(0, 0, seed=0, empty_fraction=1.0, multiclass=True)
    assert set(np.unique(gland.label)) == {0, 1}
    some = [phantom_scan(case, 0, seed=0, height=48, width=64, empty_fraction=0.4) for case in range(60)]
    assert 0.2 < np.mean([scan.nodules == 0 for scan in some]) < 0.6
    # All views of a case are empty or none is, and the others are what they were.
    for case, scan in enumerate(some[:20]):
        assert (phantom_scan(case, 1, seed=0, height=48, width=64, empty_fraction=0.4).nodules == 0) == (
            scan.nodules == 0
        )
        if scan.nodules:
            full = phantom_scan(case, 0, seed=0, height=48, width=64)
            np.testing.assert_array_equal(scan.image, full.image)


def test_classes_agree_with_the_binary_mask_and_nodules_lie_in_the_gland() -> None:
    seen: set[int] = set()
    for case in range(30):
        binary = phantom_scan(case, 0, seed=3)
        multi = phantom_scan(case, 0, seed=3, multiclass=True)
        np.testing.assert_array_equal(binary.image, multi.image)
        np.testing.assert_array_equal(binary.label == 1, multi.label >= 2)
        seen |= set(np.unique(multi.label).tolist())
        gland = multi.label == 1
        assert 0.05 < gland.mean() < 0.6
        nodule = multi.label >= 2
        rim = ndimage.binary_dilation(nodule, EIGHT) & ~nodule
        assert gland[rim].mean() > 0.97
    assert seen == {0, 1, 2, 3}


def test_malignant_looking_nodules_are_taller_and_rougher() -> None:
    ratio: dict[bool, list[float]] = {True: [], False: []}
    rough: dict[bool, list[float]] = {True: [], False: []}
    for case in range(80):
        for nodule in phantom._anatomy(phantom._generator(phantom._ANATOMY, 0, case)).nodules:
            malignant = nodule.kind == "malignant"
            x, y = nodule.radius * np.cos(phantom._ANGLES), nodule.radius * np.sin(phantom._ANGLES)
            ratio[malignant].append(float(np.ptp(y) / np.ptp(x)))
            length = np.hypot(np.diff(x), np.diff(y)).sum()
            rough[malignant].append(float(length / np.sqrt(np.mean(nodule.radius**2))))
    assert np.median(ratio[True]) > 1.1 > 0.95 > np.median(ratio[False])
    assert np.median(rough[True]) > 1.03 * np.median(rough[False])


def test_speckle_is_fully_developed() -> None:
    rng = np.random.default_rng(0)
    lateral = np.linspace(1.0, 2.0, 300, dtype=np.float32)
    envelope = phantom._speckle(np.full((300, 400), 2, np.float32), rng, axial=0.7, lateral=lateral)
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, abs=0.04)
    assert np.mean(envelope**2) == pytest.approx(4.0, rel=0.05)
    assert (20 * np.log10(envelope)).std() == pytest.approx(5.57, abs=0.15)
    # Homogeneous up to the border and at all depths.
    assert np.mean(envelope[:10] ** 2) == pytest.approx(4.0, rel=0.2)
    assert np.mean(envelope[:, :10] ** 2) == pytest.approx(4.0, rel=0.2)
    four = phantom._speckle(np.full((300, 400), 2, np.float32), rng, axial=0.7, lateral=lateral, looks=4)
    assert four.mean() / four.std() == pytest.approx(2 * 1.913, abs=0.1)


def test_speckle_is_wider_across_the_beam_and_away_from_the_focus() -> None:
    lateral = np.repeat(np.array([1.0, 2.5], np.float32), 150)
    envelope = phantom._speckle(np.ones((300, 400), np.float32), np.random.default_rng(1), axial=0.6, lateral=lateral)

    def alike(field: np.ndarray, axis: int) -> float:
        ahead, behind = np.moveaxis(field, axis, 0)[1:], np.moveaxis(field, axis, 0)[:-1]
        return float(np.corrcoef(ahead.ravel(), behind.ravel())[0, 1])

    near, far = envelope[:140], envelope[160:]
    assert alike(near, 0) + 0.1 < alike(near, 1) < alike(far, 1) - 0.1


def test_air_shadows() -> None:
    deep = []
    for case in range(12):
        anatomy = phantom._anatomy(phantom._generator(phantom._ANATOMY, 0, case))
        scan = phantom_scan(case, 0, seed=0)
        column = round((anatomy.trachea[0] / (anatomy.depth * 4 / 3) + 0.5) * 192)
        if 5 < column < 187:
            deep.append(scan.image[-15:, column - 4 : column + 5].mean() / scan.image[-15:].mean())
    assert len(deep) >= 3
    assert max(deep) < 0.6


def test_fluid_enhances_what_is_behind_it() -> None:
    gains = []
    for case in range(80):
        nodules = phantom._anatomy(phantom._generator(phantom._ANATOMY, 0, case)).nodules
        if [nodule.kind for nodule in nodules] == ["cystic"]:
            scan = phantom_scan(case, 0, seed=0)
            rows, columns = np.nonzero(scan.label)
            behind = (
                slice(rows.max() + 3, rows.max() + 15),
                slice(round(columns.mean()) - 5, round(columns.mean()) + 6),
            )
            # Without the nodule everything else is the same, speckle included.
            plain = phantom_scan(case, 0, seed=0, empty_fraction=1.0)
            gains.append(scan.image[behind].mean() - plain.image[behind].mean())
    assert len(gains) >= 3
    assert min(gains) > 3
    assert np.mean(gains) > 10


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_threshold_finds_the_nodules(seed: int) -> None:
    def curves(cases: range) -> np.ndarray:
        rows = []
        for case in cases:
            scan = phantom_scan(case, 0, seed=seed)
            grey = np.bincount(scan.image.ravel(), minlength=256)
            hit = np.bincount(scan.image[scan.label > 0], minlength=256)
            # Dice of "at most t" and of "at least t" for all t at once.
            below = 2 * hit.cumsum() / (grey.cumsum() + hit.sum())
            above = 2 * hit[::-1].cumsum() / (grey[::-1].cumsum() + hit.sum())
            rows.append(np.concatenate([below, above]))
        return np.mean(rows, axis=0)

    best = int(np.argmax(curves(range(40))))
    assert curves(range(40, 70))[best] < 0.35


def test_views_of_a_case_share_anatomy() -> None:
    labels = [
        [phantom_scan(case, view, seed=5, height=72, width=96).label > 0 for view in (0, 1)] for case in range(15)
    ]
    same = [dice(first, second) for first, second in labels]
    other = [dice(labels[i][0], labels[j][1]) for i in range(15) for j in range(15) if i != j]
    assert np.mean(same) > 0.6
    assert np.mean(same) > np.mean(other) + 0.3
    for case in range(5):
        assert len({phantom_scan(case, view, seed=5, height=72, width=96).nodules for view in range(3)}) == 1


def test_views() -> None:
    counts = [phantom_views(case, seed=0) for case in range(100)]
    assert set(counts) == {1, 2, 3}
    assert counts == [phantom_views(case, seed=0) for case in range(100)]
    assert counts != [phantom_views(case, seed=1) for case in range(100)]


@pytest.mark.parametrize("multiclass", [False, True])
def test_layout(tmp_path: Path, multiclass: bool) -> None:
    target = tmp_path / "new" / "set"
    made = write_phantom(target, cases=10, seed=7, height=48, width=64, multiclass=multiclass)
    assert made == target
    assert sorted(os.listdir(target)) == ["cases.csv", "test-image", "test-mask", "trainval-image", "trainval-mask"]
    assert os.listdir(target.parent) == ["set"]
    with (target / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "part", "case"]
    parts: dict[str, set[str]] = {}
    for row in rows:
        parts.setdefault(row["case"], set()).add(row["part"])
        case, view = int(row["file"][:4]), int(row["file"][5:-4])
        assert row["file"] == f"{case:04d}_{view}.png"
        assert int(row["case"]) == case
        scan = phantom_scan(case, view, seed=7, height=48, width=64, multiclass=multiclass)
        image = np.asarray(Image.open(target / f"{row['part']}-image" / row["file"]))
        mask = np.asarray(Image.open(target / f"{row['part']}-mask" / row["file"]))
        np.testing.assert_array_equal(image, scan.image)
        np.testing.assert_array_equal(mask, scan.label if multiclass else 255 * scan.label)
    assert all(len(part) == 1 for part in parts.values())
    assert sum(part == {"test"} for part in parts.values()) == 2
    assert {int(case): sum(row["case"] == case for row in rows) for case in parts} == {
        case: phantom_views(case, seed=7) for case in range(10)
    }
    for part in ("trainval", "test"):
        named = sorted(row["file"] for row in rows if row["part"] == part)
        assert named == sorted(os.listdir(target / f"{part}-image")) == sorted(os.listdir(target / f"{part}-mask"))


def test_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()  # an empty folder is welcome
    for name in ("a", "b"):
        write_phantom(tmp_path / name, cases=3, seed=1, height=48, width=48)
    write_phantom(tmp_path / "c", cases=3, seed=2, height=48, width=48)
    assert files(tmp_path / "a") == files(tmp_path / "b") != files(tmp_path / "c")


@pytest.mark.parametrize(("fraction", "tests"), [(0.0, 0), (0.01, 1), (0.5, 2), (0.99, 3), (1.0, 4)])
def test_test_fraction(tmp_path: Path, fraction: float, tests: int) -> None:
    target = write_phantom(tmp_path / "set", cases=4, seed=0, height=48, width=48, test_fraction=fraction)
    assert len({name[:4] for name in os.listdir(target / "test-image")}) == tests


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep")
    before = files(tmp_path)
    with pytest.raises(UserError, match=r"set is not empty.*name a new folder"):
        write_phantom(tmp_path / "set", cases=2, seed=0)
    for path in (tmp_path / "set" / "mine.txt", tmp_path / "set" / "mine.txt" / "below"):
        with pytest.raises(UserError, match=r"mine\.txt is a file"):
            write_phantom(path, cases=2, seed=0)
    assert files(tmp_path) == before
    assert os.listdir(tmp_path) == ["set"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cases": 0}, "cases is 0"),
        ({"cases": 1}, "one for each part"),
        ({"cases": 2.0}, "cases is 2.0"),
        ({"cases": 10_000}, "to 9999"),
        ({"seed": -1}, "seed is -1"),
        ({"height": 10}, "height of the phantom is 10"),
        ({"width": 100_000}, "width of the phantom is 100000"),
        ({"empty_fraction": 1.5}, "empty_fraction of the phantom is 1.5"),
        ({"test_fraction": -0.1}, "test_fraction of the phantom is -0.1"),
        ({"test_fraction": float("nan")}, "test_fraction of the phantom is nan"),
    ],
)
def test_refuses_nonsense(tmp_path: Path, wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_phantom(tmp_path / "set", **{"cases": 4, "seed": 0, **wrong})
    assert not list(tmp_path.iterdir())


def test_all_problems_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        write_phantom(tmp_path / "set", cases=-3, seed=-1, height=1, test_fraction=2)
    assert len(caught.value.problems) == 4


def test_scan_refuses_nonsense() -> None:
    with pytest.raises(UserError, match="view is -1"):
        phantom_scan(0, -1, seed=0)
    with pytest.raises(UserError, match="case is True"):
        phantom_views(True, seed=0)
    with pytest.raises(UserError, match="width of the phantom"):
        phantom_scan(0, 0, seed=0, width=0)


def test_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(case: int, *_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(phantom, "phantom_scan", fail)
    with pytest.raises(OSError, match="disk full"):
        write_phantom(tmp_path / "set", cases=2, seed=0)
    assert not list(tmp_path.iterdir())
