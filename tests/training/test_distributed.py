"""The share that each of several processes has; tests/bundles/test_together.py starts some."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler

from monai_thyroid.errors import UserError
from monai_thyroid.training import ShardedSampler, check_start, data_parallel, distributed, join_processes, shard
from monai_thyroid.training.distributed import SameBuffers


@pytest.fixture
def be(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process one of several."""

    def become(rank: int, of: int) -> None:
        monkeypatch.setattr(distributed, "rank", lambda: rank)
        monkeypatch.setattr(distributed, "processes", lambda: of)
        monkeypatch.setattr(distributed, "agreed", lambda value: value)

    return become


@pytest.mark.parametrize(("count", "number"), [(2, 1), (2, 2), (7, 2), (8, 3), (23, 3)])
def test_shares_of_a_part_are_all_of_it_and_each_image_once(be: Any, count: int, number: int) -> None:
    shares = []
    for rank in range(number):
        be(rank, number)
        shares.append(shard(range(count)))
    assert [one for share in shares for one in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_part_of_fewer_images_than_processes_is_refused(be: Any) -> None:
    be(0, 3)
    with pytest.raises(UserError, match="2 images cannot be shared by 3 processes"):
        shard("ab")
    with pytest.raises(UserError, match="start fewer"):
        ShardedSampler("ab", batch_size=1)


@pytest.mark.parametrize(("count", "number", "batch"), [(24, 2, 4), (26, 2, 4), (23, 2, 4), (7, 3, 2), (5, 4, 8)])
def test_batches_are_the_shares_of_those_of_a_single_process(be: Any, count: int, number: int, batch: int) -> None:
    def batches(sampler: Any, size: int) -> list[list[int]]:
        torch.manual_seed(5)
        loader = DataLoader(range(count), batch_size=size, sampler=sampler)  # type: ignore[arg-type]
        assert len(loader) == math.ceil(count / (number * batch))
        return [one.tolist() for one in loader]

    whole = batches(RandomSampler(range(count)), number * batch)
    shares = []
    for rank in range(number):
        be(rank, number)
        sampler = ShardedSampler(range(count), batch_size=batch)
        shares.append(batches(sampler, batch))
        assert len(sampler) == sum(map(len, shares[-1]))
    for step, expected in enumerate(whole):
        found = [index for share in shares for index in share[step]]
        assert found[: len(expected)] == expected
        assert len(found) - len(expected) == -len(expected) % number
        assert len({len(share[step]) for share in shares}) == 1, "every process takes as large a step"


def test_alone_a_process_is_as_without_this() -> None:
    network = torch.nn.BatchNorm2d(1)
    assert data_parallel(network) is network
    SameBuffers(network)(SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(UserError, match="start it by torchrun"):
        join_processes("cpu")


@pytest.mark.parametrize("bundle", ["polyp"])  # that of two stages
def test_its_config_can_be_checked_and_rehearsed(root: Any, bundle: str, tmp_path: Any) -> None:
    folder = root / "bundles" / bundle
    given = {
        **{"image_size": 32, "batch_size": 4, "networks::unet::features": [4, 4, 4, 4, 4, 4], "device": "cpu"},
        **{"phantom_cases": 10, "precision": "float32", "output_dir": str(tmp_path / "runs")},
    }
    files = [str(folder / "train_course.yaml"), str(folder / "multi_gpu_train_course.yaml")]
    problems, told = check_start(files, given)
    assert problems == []
    assert [line.split(":")[0] for line in told] == ["first_stage", "train", "test"]
    (problem,) = check_start(files, {**given, "processes": 4})[0]
    assert problem == "processes 4: there is 1, as torchrun was told"
