"""What a network of anybody may give, and what is made of it."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks import AdaptedNetwork, listed


class Gives(nn.Module):
    """Gives what a function makes of its logits at full, half and quarter resolution."""

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.make = make

    def forward(self, x: Tensor) -> Any:
        assert x.shape[2] % 4 == 0, "padded"
        assert x.shape[3] % 4 == 0, "padded"
        full = self.conv(x)
        return self.make([full, full[:, :, ::2, ::2], full[:, :, ::4, ::4]])


def adapted(make: Any, **arguments: Any) -> AdaptedNetwork:
    torch.manual_seed(0)
    return AdaptedNetwork(network=functools.partial(Gives, make), stride=4, **arguments)


IMAGES = torch.rand(2, 1, 10, 7, generator=torch.Generator().manual_seed(0))
FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tensor": (lambda x: x[0], {}),
    "list": (lambda x: x, {}),
    "tuple": (tuple, {}),
    "last": (lambda x: x[::-1], {"output": -1}),
    "second": (lambda x: [x[1], x[0], x[2]], {"output": 1}),
    "dictionary": (lambda x: {"aux": x[1], "out": x[0]}, {"output": "out"}),
    "one for a key": (lambda x: x[0], {"output": "out"}),
    "stack": (lambda x: torch.stack([x[0], x[0] + 1], 1), {}),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_logits_are_found(form: str) -> None:
    make, arguments = FORMS[form]
    network = adapted(make, **arguments)
    for mode in (True, False):
        assert torch.equal(network.train(mode)(IMAGES), network.network.conv(IMAGES))


def test_smaller_logits_are_made_as_large_on_request() -> None:
    with pytest.raises(UserError, match="gives 6 x 4 for 12 x 8 pixels"):
        adapted(lambda x: x[1])(IMAGES)
    assert adapted(lambda x: x[1], upsample=True)(IMAGES).shape == (2, 2, 10, 7)


def test_deep_supervision_is_of_training_alone() -> None:
    network = adapted(lambda x: x[::-1], output=-1, deep_supervision=True)
    assert [tuple(one.shape[2:]) for one in listed(network(IMAGES))] == [(10, 7), (5, 4), (3, 2)]
    assert torch.equal(network.eval()(IMAGES), network.network.conv(IMAGES))
    assert len(listed(network(IMAGES))) == 1
    with pytest.raises(UserError, match="one output only"):
        adapted(lambda x: x[0], deep_supervision=True)(IMAGES)


@pytest.mark.parametrize(
    ("make", "arguments", "words"),
    [
        (lambda x: {"a": x[0]}, {}, "gives a: name the logits"),
        (lambda x: x, {"output": "out"}, "output out: the network gives a list of a tensor"),
        (lambda x: x, {"output": 3}, "output 3: the network gives a list of a tensor"),
        (lambda x: [], {}, "a list of nothing"),
        (lambda x: None, {}, "an object NoneType"),
        (lambda x: x[0].mean((2, 3)), {}, r"gives a tensor \(2, 2\), not logits"),
    ],
)
def test_what_is_no_segmentation_is_told(make: Any, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        adapted(make, **arguments)(IMAGES)


def test_what_builds_no_network_is_told() -> None:
    with pytest.raises(UserError, match="_mode_: callable"):
        AdaptedNetwork(network=nn.Conv2d(1, 1, 1))
    with pytest.raises(UserError, match="builds dict, not a torch"):
        AdaptedNetwork(network=dict)
    with pytest.raises(UserError, match="stride 0"):
        AdaptedNetwork(network=functools.partial(nn.Conv2d, 1, 1, 1), stride=0)
    with pytest.raises(UserError, match=r"floating-point images \(B, C, H, W\)"):
        adapted(lambda x: x[0])(IMAGES[0])


def test_what_is_never_used_is_taken_out() -> None:
    class Spare(Gives):
        def __init__(self) -> None:
            super().__init__(lambda x: x[0])
            self.spare = nn.ModuleList([nn.LayerNorm(2), nn.LayerNorm(2)])

    network = AdaptedNetwork(network=Spare, stride=4, unused=["spare.*"])
    network(IMAGES).sum().backward()
    assert [name for name, one in network.named_parameters() if one.grad is not None] == [
        name for name, _ in network.named_parameters()
    ]
    with pytest.raises(UserError, match="unused spares: the network has no module"):
        AdaptedNetwork(network=Spare, unused="spares")


def test_what_its_norm_layers_cannot_train_on_is_told() -> None:
    network = AdaptedNetwork(
        network=lambda: nn.Sequential(nn.Conv2d(1, 2, 4, stride=4), nn.InstanceNorm2d(2)), stride=4, upsample=True
    )
    network(torch.rand(1, 1, 8, 8))
    with pytest.raises(UserError, match="1 images of 4 x 4 pixels, which its levels halve"):
        network(torch.rand(1, 1, 3, 4))
