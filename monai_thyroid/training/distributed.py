"""Several processes that train one network: joined by torchrun, each with its share of every batch."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence, Sized
from datetime import timedelta
from typing import Any, TypeVar

import torch
from ignite.engine import Engine, Events
from torch.utils.data import Sampler

from monai_thyroid.errors import UserError

__all__ = [
    "SameBuffers",
    "ShardedSampler",
    "add_up",
    "agreed",
    "data_parallel",
    "join_processes",
    "own_device",
    "processes",
    "rank",
    "shard",
]

_T = TypeVar("_T")

# One process scores the test part, which may take hours, while the others wait for it.
_PATIENCE = timedelta(days=2)


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def rank() -> int:
    """Of this process, from 0; the first one writes."""
    return torch.distributed.get_rank() if _together() else 0


def processes() -> int:
    """How many train together."""
    return torch.distributed.get_world_size() if _together() else 1


def own_device() -> str:
    """The GPU that torchrun gives this process, or the CPU where there is none."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def join_processes(device: str) -> None:
    """Join the processes that torchrun, or another launcher, has started: by NCCL on GPUs, by Gloo on the CPU.

    Args:
        device: what this process computes on.

    Raises:
        UserError: nothing has started this process as one of several.
    """
    if _together():
        return
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise UserError(
            "this config is for several processes: start it by torchrun --nproc_per_node N -m monai.bundle run ..., or "
            "leave multi_gpu_train.yaml out"
        )
    cuda = torch.device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(device)  # NCCL sends from the current one
    torch.distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    if rank() > 0:  # the first process says it all
        logging.disable(logging.INFO)


def data_parallel(network: torch.nn.Module) -> torch.nn.Module:
    """The network in torch's `DistributedDataParallel`; as it is where a process is alone, as in `monai-thyroid check`.

    Args:
        network: on its device.
    """
    return torch.nn.parallel.DistributedDataParallel(network) if _together() else network


def shard(items: Sequence[_T]) -> Sequence[_T]:
    """This process's share of a part: consecutive items, none in two shares; sizes differ by one at the most.

    Raises:
        UserError: there are fewer items than processes.
    """
    _enough(len(items))
    first, last = (number * len(items) // processes() for number in (rank(), rank() + 1))
    return items[first:last]


def _enough(count: int) -> None:
    if count < processes():
        raise UserError(f"a part of {count} images cannot be shared by {processes()} processes; start fewer")


class ShardedSampler(Sampler[int]):
    """This process's share of every batch that a single process would take, in the same order.

    So N processes with batches of B train as one does with batches of N * B, layers that take statistics of a batch
    aside. Only where the last batch cannot be shared evenly do up to N - 1 images come twice in an epoch.

    Args:
        dataset: what is sampled, the same in each process.
        batch_size: of each process.

    Raises:
        UserError: the dataset has fewer items than there are processes.
    """

    def __init__(self, dataset: Sized, *, batch_size: int) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        _enough(len(dataset))

    def __len__(self) -> int:
        """Items an epoch, of this process."""
        whole, rest = divmod(len(self.dataset), self.batch_size * processes())
        return whole * self.batch_size + math.ceil(rest / processes())

    def __iter__(self) -> Iterator[int]:
        """Yield indices. The order is drawn from torch's generator as `RandomSampler` does, in the first process."""
        drawn = torch.empty((), dtype=torch.int64).random_()
        # Were the processes' generators not alike, shares would overlap unseen.
        order = torch.randperm(len(self.dataset), generator=torch.Generator().manual_seed(agreed(int(drawn))))
        indices = order.tolist()
        number, size = processes(), self.batch_size * processes()
        for start in range(0, len(indices), size):
            batch = indices[start : start + size]
            each = math.ceil(len(batch) / number)
            batch += indices[: each * number - len(batch)]
            yield from batch[rank() * each : (rank() + 1) * each]


def agreed(value: Any) -> Any:
    """What the first process says, in all of them: clocks differ, and so may generators."""
    if processes() > 1:
        box = [value]
        torch.distributed.broadcast_object_list(box)
        value = box[0]
    return value


def add_up(values: torch.Tensor) -> torch.Tensor:
    """The sum of what each process has."""
    if processes() > 1:
        values = values.clone()
        torch.distributed.all_reduce(values)
    return values


class SameBuffers:
    """Give all processes the first one's running statistics before each validation, so that they validate one network.

    Each process keeps those of its own share of a batch in the meantime. A handler of an evaluator.

    Args:
        network: the one that is validated.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        self.network = network

    def attach(self, engine: Engine) -> None:
        """Listen to the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Share."""
        if processes() > 1:
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, 0)
