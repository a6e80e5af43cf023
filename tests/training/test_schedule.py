"""The learning rate step by step. How a training keeps to a time is tested with the bundles."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine

from monai_thyroid.errors import UserError
from monai_thyroid.training import TimeBudget, WarmUpCosine


def optimizer(rate: Any = 0.5) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates(schedule: WarmUpCosine, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(float(schedule.optimizer.param_groups[0]["lr"]))
        schedule.optimizer.step()
        schedule.step()
    return found


def test_the_rate_rises_and_falls_to_nothing() -> None:
    found = rates(WarmUpCosine(optimizer(), steps=100, warm_up=8), 100)
    assert found[:8] == pytest.approx(
        [0.5 * (step + 1) / 9 * 0.5 * (1 + math.cos(math.pi * step / 100)) for step in range(8)]
    )
    assert max(found) == found[8]
    assert found[8:] == sorted(found[8:], reverse=True)
    assert 0 < found[-1] < 1e-3
    assert rates(WarmUpCosine(optimizer(), steps=100), 12).index(0.5 * 0.5 * (1 + math.cos(math.pi * 0.1))) == 10


def test_a_rate_that_is_a_tensor_is_changed_in_place() -> None:
    made = optimizer(torch.tensor(0.5))
    rate = made.param_groups[0]["lr"]
    schedule = WarmUpCosine(made, steps=20, warm_up=1)
    assert rates(schedule, 20) == pytest.approx(rates(WarmUpCosine(optimizer(), steps=20, warm_up=1), 20))
    assert made.param_groups[0]["lr"] is rate


def test_it_stays_at_its_top_until_its_length_is_known_and_goes_on_where_it_was() -> None:
    schedule = WarmUpCosine(optimizer(), warm_up=2)
    assert rates(schedule, 6)[2:] == [0.5] * 4
    schedule.steps = 12
    again = WarmUpCosine(optimizer(), warm_up=7)
    again.load_state_dict(schedule.state_dict())
    assert rates(again, 6)[1:] == rates(schedule, 6)[1:]


def test_a_scheduler_that_cannot_be_told_is_refused() -> None:
    trainer = Engine(lambda engine, batch: None)
    constant = torch.optim.lr_scheduler.ConstantLR(optimizer())
    budget = TimeBudget(hours=1, lr_scheduler=constant)
    budget.attach(trainer)
    assert TimeBudget.of(trainer) is budget
    assert TimeBudget.of(SimpleNamespace(state=SimpleNamespace())) is None  # type: ignore[arg-type]
    with pytest.raises(UserError, match="hours 1: ConstantLR cannot be told how many steps there are"):
        budget.begin(trainer, epochs=None, started=0, decided=None)
    TimeBudget(hours=None, lr_scheduler=constant).attach(trainer)
    assert TimeBudget.of(trainer) is None
