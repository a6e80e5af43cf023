from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

from monai_thyroid.errors import UserError
from monai_thyroid.training import ClipGradients, GraphedTrainer
from monai_thyroid.training.graphed import move_rates

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def batches(count: int, device: str, last: int = 4) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(4 if n < count - 1 else last, 1, 16, 16, generator=generator) for n in range(count)]
    return [{"image": image.to(device), "label": (image > 0.5).float().to(device)} for image in images]


def run(trainer: type[SupervisedTrainer], device: str, data: list[Any], **more: Any) -> tuple[list[float], nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 1, 1)).to(device)
    rate = torch.tensor(0.01, device=device) if device == "cuda" else 0.01
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, capturable=device == "cuda")
    losses: list[torch.Tensor] = []
    engine = trainer(
        device=device,
        max_epochs=2,
        train_data_loader=data,
        network=network,
        optimizer=optimizer,
        loss_function=nn.BCEWithLogitsLoss(),
        decollate=False,
        train_handlers=[ClipGradients(network, max_norm=0.1)],
        **more,
    )

    @engine.on(Events.ITERATION_COMPLETED)
    def keep() -> None:
        losses.append(engine.state.output["loss"].detach().clone())
        # A schedule changes the rate in place.
        for group in optimizer.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].mul_(0.9)
            else:
                group["lr"] *= 0.9

    engine.run()
    return torch.stack(losses).tolist(), network


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=cuda)])
@pytest.mark.parametrize("last", [4, 3])
def test_it_trains_as_monais_own(device: str, last: int) -> None:
    """Also where the last batch of an epoch is smaller, and cannot be replayed."""
    data = batches(9, device, last=last)
    expected, network = run(SupervisedTrainer, device, data)
    losses, other = run(GraphedTrainer, device, data)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert expected[-1] < expected[0]
    for one, two in zip(network.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


def test_what_cannot_be_recorded_is_refused() -> None:
    with pytest.raises(UserError, match="accumulation_steps"):
        run(GraphedTrainer, "cpu", batches(2, "cpu"), accumulation_steps=2)


@cuda
def test_a_rate_that_a_graph_would_freeze_is_refused() -> None:
    network = nn.Conv2d(1, 1, 1).cuda()
    with pytest.raises(UserError, match="capturable"):
        GraphedTrainer(
            device="cuda",
            max_epochs=1,
            train_data_loader=[],
            network=network,
            optimizer=torch.optim.AdamW(network.parameters()),
            loss_function=nn.BCEWithLogitsLoss(),
        )


def test_rates_from_a_checkpoint_go_to_the_device() -> None:
    network = nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=torch.tensor(0.1), foreach=False)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=10, cycle_momentum=False)
    move_rates(optimizer, torch.device("cpu"))
    rate = optimizer.param_groups[0]["lr"]
    before = float(rate)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate, "a scheduler changes the rate in place"
    assert float(rate) > before
    move_rates(optimizer, torch.device("meta"))
    assert optimizer.param_groups[0]["lr"].device.type == "meta"
    plain = torch.optim.AdamW(network.parameters(), lr=0.1)
    move_rates(plain, torch.device("meta"))
    assert plain.param_groups[0]["lr"] == 0.1
