from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_thyroid.errors import UserError
from monai_thyroid.training import ClipGradients, WeightAverage, decay_groups


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1))


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(2, 1, 8, 8, generator=generator) for _ in range(count)]
    return [{"image": image, "label": (image > 0.5).float()} for image in images]


def trainer(
    model: nn.Module, optimizer: torch.optim.Optimizer, handlers: list[Any], count: int = 5
) -> SupervisedTrainer:
    return SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=batches(count),
        network=model,
        optimizer=optimizer,
        loss_function=nn.BCEWithLogitsLoss(),
        train_handlers=handlers,
        decollate=False,
    )


def test_biases_and_norms_do_not_decay() -> None:
    model = network()
    model[3].weight.requires_grad_(False)
    decaying, others = decay_groups(model, 0.1)
    assert decaying == {"params": [model[0].weight], "weight_decay": 0.1}
    assert others["weight_decay"] == 0
    assert [id(one) for one in others["params"]] == [
        id(one) for one in (model[0].bias, model[1].weight, model[1].bias, model[3].bias)
    ]
    optimizer = torch.optim.AdamW(decay_groups(model, 0.5), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = copy.deepcopy(model)
    optimizer.step()
    torch.testing.assert_close(model[0].weight, before[0].weight * 0.95)
    assert torch.equal(model[1].weight, before[1].weight)


def test_gradients_are_clipped_before_the_step() -> None:
    model, norms = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    original = optimizer.step

    def step() -> None:
        norms.append(torch.cat([one.grad.flatten() for one in model.parameters()]).norm().item())
        original()

    optimizer.step = step  # type: ignore[method-assign]
    trainer(model, optimizer, [ClipGradients(model, max_norm=0.05)]).run()
    assert len(norms) == 5
    assert max(norms) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("later", [None, torch.channels_last], ids=["as built", "layout changed later"])
def test_the_average_follows_the_weights(later: torch.memory_format | None) -> None:
    """Also where the layout is chosen after it was made, as a session does: that moves the weights."""
    model = network()
    average = WeightAverage(model, decay=0.8)
    if later is not None:
        for each in (model, average.network):
            each.to(memory_format=later)  # type: ignore[call-overload]
    expected = {name: value.double() for name, value in copy.deepcopy(model).state_dict().items()}
    seen = []

    class Check:
        def attach(self, engine: Any) -> None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

        def __call__(self, engine: Any) -> None:
            decay = min(0.8, engine.state.iteration / (engine.state.iteration + 9))
            for name, value in model.state_dict().items():
                expected[name] = expected[name] * decay + value * (1 - decay)
            seen.append(decay)

    trainer(model, torch.optim.SGD(model.parameters(), lr=0.5), [average, Check()], count=40).run()
    assert seen[0] == 0.1
    assert seen[-1] == 0.8
    averaged = average.network.state_dict()
    for name, value in expected.items():
        if name.endswith("num_batches_tracked"):
            assert averaged[name] == 40
        else:
            torch.testing.assert_close(averaged[name].double(), value, atol=1e-5, rtol=1e-4)
            assert not torch.equal(averaged[name], model.state_dict()[name])
    assert not average.network.training
    assert not any(one.requires_grad for one in average.network.parameters())
    assert model.training


def test_a_shared_weight_is_averaged_once() -> None:
    one = nn.Linear(2, 2, bias=False)
    model = nn.Sequential(one, nn.ReLU(), nn.Sequential(one))
    model[2][0] = nn.Linear(2, 2, bias=False)
    model[2][0].weight = one.weight
    average = WeightAverage(model, decay=0.8)
    before = one.weight.detach().clone()
    with torch.no_grad():
        one.weight.add_(1.0)
    average(None)  # type: ignore[arg-type]
    torch.testing.assert_close(average.network[0].weight, before + 0.9)


def test_an_average_goes_on_where_it_was() -> None:
    """As one that was not interrupted."""

    def run(model: nn.Module, average: WeightAverage, count: int) -> None:
        for _ in range(count):
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(0.9)
            average(None)  # type: ignore[arg-type]

    model = network()
    average = WeightAverage(model, decay=0.9)
    run(model, average, 3)
    state, weights = copy.deepcopy(average.state_dict()), copy.deepcopy(model.state_dict())
    run(model, average, 3)
    other = network()
    other.load_state_dict(weights)
    resumed = WeightAverage(other, decay=0.9)
    resumed.load_state_dict(state)
    run(other, resumed, 3)
    for name, value in average.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match="max_norm 0"):
        ClipGradients(network(), max_norm=0)
    with pytest.raises(UserError, match="decay 1"):
        WeightAverage(network(), decay=1.0)
