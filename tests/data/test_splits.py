"""Parts are divided by group, alike in lesion size, reproducibly; a split can be given back and is checked."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from monai_thyroid.data import load_datalist
from monai_thyroid.data.splits import apply_split, assign_folds, carve, groups_in_two_parts, read_split_file
from monai_thyroid.errors import UserError
from monai_thyroid.files import write_json
from monai_thyroid.images import write_phantom


def made(groups: int = 60, seed: int = 0) -> tuple[list[dict[str, str]], dict[str, float]]:
    rng = np.random.default_rng(seed)
    items, sizes = [], {}
    for group in range(groups):
        typical = rng.lognormal(-3, 1)
        for number in range(int(rng.integers(1, 8))):
            case = f"{group}_{number}"
            items.append({"case": case, "group": str(group), "part": "trainval", "image": case, "site": ""})
            sizes[case] = float(typical * rng.uniform(0.9, 1.1))
    return items, sizes


def typical(items: list[dict[str, str]], sizes: dict[str, float], part: str) -> float:
    return float(np.median([sizes[item["case"]] for item in items if item["part"] == part]))


def test_carving_is_by_group_seeded_and_near_its_share() -> None:
    for seed in range(5):
        items, sizes = made(seed=seed)
        carve(items, fraction=0.2, seed=seed, sizes=sizes)
        assert not groups_in_two_parts(items)
        assert sum(item["part"] == "validation" for item in items) / len(items) == pytest.approx(0.2, abs=0.05)
        again, _ = made(seed=seed)
        carve(again, fraction=0.2, seed=seed, sizes=sizes)
        assert again == items
        carve(again := made(seed=seed)[0], fraction=0.2, seed=seed + 1, sizes=sizes)
        assert again != items


def test_stratified_parts_are_more_alike_in_lesion_size() -> None:
    def gap(stratified: bool) -> float:
        gaps = []
        for seed in range(20):
            items, sizes = made(seed=100)
            carve(items, fraction=0.25, seed=seed, sizes=sizes if stratified else None)
            gaps.append(abs(np.log(typical(items, sizes, "train") / typical(items, sizes, "validation"))))
        return float(np.mean(gaps))

    assert gap(stratified=True) < 0.6 * gap(stratified=False)


def test_folds_are_by_group_even_and_alike() -> None:
    items, sizes = made(100)
    for given in (None, sizes):
        folds = assign_folds(items, folds=5, seed=1, sizes=given)
        assert folds == assign_folds(items, folds=5, seed=1, sizes=given)
        assert max(Counter(folds.values()).values()) < 1.15 * min(Counter(folds.values()).values())
        by_group = {(item["group"], folds[item["case"]]) for item in items}
        assert len(by_group) == len({group for group, _ in by_group})
    medians = [np.median([sizes[case] for case, fold in folds.items() if fold == k]) for k in range(5)]
    assert max(medians) < 2 * min(medians)


def test_every_fold_gets_a_group_and_too_many_folds_are_refused() -> None:
    items = [{"case": f"a{n}", "group": "a", "part": "trainval"} for n in range(50)]
    items += [{"case": group, "group": group, "part": "trainval"} for group in "bcde"]
    assert set(assign_folds(items, folds=5, seed=0).values()) == set(range(5))
    with pytest.raises(UserError, match="only 5 groups"):
        assign_folds(items, folds=6, seed=0)


def test_one_group_cannot_be_divided() -> None:
    items = [{"case": str(n), "group": "a", "part": "trainval"} for n in range(5)]
    with pytest.raises(UserError, match="at least two patients"):
        carve(items, fraction=0.5, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("data") / "set", cases=12, seed=3, height=48, width=64)


def test_split_json_given_back_gives_the_same_parts(folder: Path, tmp_path: Path) -> None:
    first = load_datalist(str(folder), split_seed=7)
    write_json(tmp_path / "split.json", first.split())
    second = load_datalist(str(folder), split_file=str(tmp_path / "split.json"))
    assert {item["case"]: item["part"] for item in first.items} == {item["case"]: item["part"] for item in second.items}
    assert second.inspect().data_hash == first.inspect().data_hash
    assert "as in split.json (test: official part" in second.how


def test_split_of_other_images_of_the_same_names_is_refused(folder: Path, tmp_path: Path) -> None:
    split = load_datalist(str(folder)).split()
    split["parts"]["train"]["image_sha256"][0] = "0" * 64
    write_json(tmp_path / "split.json", split)
    (problem,) = load_datalist(str(folder), split_file=str(tmp_path / "split.json")).inspect().problems
    assert "is not the image of that name that the split file was made with" in problem


def test_split_file_faults_are_all_told(folder: Path, tmp_path: Path) -> None:
    cases = [item["case"] for item in load_datalist(str(folder)).items]
    groups = {case: case.split("_")[0] for case in cases}
    several = next(group for group, count in Counter(groups.values()).items() if count > 1)
    one, other = [case for case in cases if groups[case] == several][:2]
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": [one, "nobody"], "test": [other], "val": []}))
    with pytest.raises(UserError) as error:
        load_datalist(str(folder), split_file=str(path))
    assert any("case nobody is not in the dataset" in problem for problem in error.value.problems)
    assert any(f"case {several} is in test and in train" in problem for problem in error.value.problems)
    leaky = {"train": [one], "test": [other]}
    path.write_text(json.dumps(leaky))
    data = load_datalist(str(folder), split_file=str(path), split="frames")
    assert data.grouping == "leaky"
    assert "LEAKY" in data.how
    assert any("names no part for" in warning for warning in data.inspect().warnings)
    path.write_text(json.dumps({"train": [one], "test": [one]}))
    with pytest.raises(UserError, match=f"case {one} is in train and in test"):
        read_split_file(path)
    path.write_text("[1, 2]")
    with pytest.raises(UserError, match=r"neither the split\.json of a run, nor lists"):
        read_split_file(path)
    with pytest.raises(UserError, match="no such file"):
        read_split_file(tmp_path / "nowhere.json")


def test_split_table(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("file,part\na.png,train\nb.png,val\nc.png,test\n")
    split, _ = read_split_file(tmp_path / "split.csv")
    assert split == {"train": ["a"], "validation": ["b"], "test": ["c"]}
    items = [{"case": case, "group": case, "part": "trainval"} for case in "abcd"]
    kept, problems, notes = apply_split(items, split, source="here")
    assert [item["part"] for item in kept] == ["train", "validation", "test"]
    assert not problems
    assert notes == ["here: names no part for 1 of 4 images; they are left out"]
    (tmp_path / "split.csv").write_text("file,part\na.png,holdout\n")
    with pytest.raises(UserError, match="unknown part 'holdout'"):
        read_split_file(tmp_path / "split.csv")
