"""The contract that every network of the menu keeps: one base test, subclassed for each."""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from monai_thyroid.errors import UserError
from monai_thyroid.networks import MENU, to_channels_last
from monai_thyroid.networks.exports import EXPORTS, agrees, exported_logits

MADE: dict[tuple[type, int, int], nn.Module] = {}


class NetworkContract:
    name: ClassVar[str]
    # Small widths, so that the whole is fast.
    arguments: ClassVar[dict[str, Any]] = {}
    size: ClassVar[tuple[int, int]] = (64, 64)
    # Odd and non-square, and below every stride where the network pads.
    other_sizes: ClassVar[tuple[tuple[int, int], ...]] = ((64, 96), (33, 47), (97, 65), (7, 20))
    # One image of this size leaves batch norm one value a channel.
    too_small: ClassVar[tuple[int, int] | None] = None
    too_small_error: ClassVar[type[Exception]] = UserError

    # Of the network that inductor compiles, where fewer levels do: each kernel is seconds of a C++ compiler.
    shallow: ClassVar[dict[str, Any]] = {}
    # Rounding cannot make a visible difference.
    continuous: ClassVar[bool] = True
    # By how much of the largest logit bfloat16 may be off in the mean, in training.
    bf16: ClassVar[float] = 0.1
    # By how much of the largest logit that of any pixel may differ in an export.
    worst: ClassVar[dict[str, float]] = {}
    # torch.compile sees the whole network at once.
    one_graph: ClassVar[bool] = True

    def make(self, in_channels: int = 1, out_channels: int = 1, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return MENU[self.name](in_channels=in_channels, out_channels=out_channels, **self.arguments)

    def build(self, in_channels: int = 1, out_channels: int = 1) -> nn.Module:
        """A copy, because a VGG draws a classifier of 123 million numbers each time it is made."""
        key = (type(self), in_channels, out_channels)
        if key not in MADE:
            if len(MADE) > 3:
                MADE.clear()
            MADE[key] = self.make(in_channels, out_channels)
        return copy.deepcopy(MADE[key])

    def images(self, batch: int = 2, channels: int = 1, size: tuple[int, int] | None = None) -> Tensor:
        return torch.rand(batch, channels, *(size or self.size), generator=torch.Generator().manual_seed(0))

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def wake(self, network: nn.Module) -> None:
        """Undo an initialisation that silences a part on purpose."""

    @pytest.mark.parametrize(("in_channels", "out_channels"), [(1, 3), (3, 1)])
    def test_forward_and_backward(self, in_channels: int, out_channels: int) -> None:
        network = self.build(in_channels, out_channels)
        self.wake(network)
        logits = network(self.images(channels=in_channels))
        assert logits.shape == (2, out_channels, *self.output_size(self.size))
        assert logits.dtype == torch.float32
        # Logits, not probabilities.
        assert logits.min() < 0 or logits.max() > 1
        (logits * torch.randn_like(logits)).sum().backward()
        for key, parameter in network.named_parameters():
            assert parameter.grad is not None, key
            assert parameter.grad.isfinite().all(), key
            assert parameter.grad.any(), key

    def test_other_sizes(self) -> None:
        network = self.build().eval()
        for size in self.other_sizes:
            with torch.no_grad():
                logits = network(self.images(1, size=size))
            assert logits.shape == (1, 1, *self.output_size(size))
            assert logits.isfinite().all()

    def test_batch_of_one_trains(self) -> None:
        network = self.build()
        assert network(self.images(1)).isfinite().all()
        if self.too_small is not None:
            with pytest.raises(self.too_small_error, match=r"Batch normalisation|more than 1"):
                network(self.images(1, size=self.too_small))

    def test_seed_save_and_load(self, tmp_path: Any) -> None:
        network, again, other = (self.make(seed=seed).eval() for seed in (1, 1, 2))
        first = network.state_dict()
        assert all(torch.equal(value, first[key]) for key, value in again.state_dict().items())
        assert any(not torch.equal(value, first[key]) for key, value in other.state_dict().items())
        torch.save(first, tmp_path / "model.pt")
        other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        with torch.no_grad():
            assert torch.equal(network(self.images(1)), other(self.images(1)))

    @pytest.mark.slow
    def test_exports(self) -> None:
        network = self.build(in_channels=3, out_channels=2)
        self.wake(network)
        images = self.images(1, 3, self.other_sizes[0])
        network.eval()
        with torch.no_grad():
            logits = network(images)
        results = exported_logits(network, images)
        assert list(results) == list(EXPORTS)
        for name, result in results.items():
            assert agrees(result, logits), (name, result)
            worst = float((result - logits).abs().max() / logits.abs().max())
            assert worst < self.worst.get(name, 1e-4) or not self.continuous, (name, worst)

    def compiled_agrees(self, network: nn.Module, backend: str) -> None:
        """Logits and gradients of the compiled network are those of the network, in double precision."""
        network = network.double()
        self.wake(network)
        images = self.images().double()
        state = {key: value.clone() for key, value in network.state_dict().items()}
        expected = network(images)
        expected.square().mean().backward()
        gradients = [parameter.grad.clone() for parameter in network.parameters()]
        network.zero_grad()
        network.load_state_dict(state)
        torch.compiler.reset()
        logits = torch.compile(network, backend=backend, fullgraph=self.one_graph)(images)
        logits.square().mean().backward()
        torch.testing.assert_close(logits, expected)
        for (key, parameter), gradient in zip(network.named_parameters(), gradients, strict=True):
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-8, msg=key)

    def test_compile_graph(self) -> None:
        self.compiled_agrees(self.build(), "aot_eager")

    @pytest.mark.slow
    def test_compile_inductor(self) -> None:
        torch.manual_seed(0)
        arguments = {**self.arguments, **self.shallow}
        self.compiled_agrees(MENU[self.name](in_channels=1, out_channels=1, **arguments), "inductor")

    def inductor_infers(self) -> None:
        network = self.build().eval()
        images = self.images(1)
        torch.compiler.reset()
        with torch.no_grad():
            compiled = torch.compile(network)(images)
            torch.testing.assert_close(compiled, network(images), rtol=1e-3, atol=1e-4)

    def test_bf16_autocast(self) -> None:
        network = self.build()
        images = self.images()
        expected = network(images).detach()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(images)
            loss = logits.float().square().mean()
        assert logits.dtype == torch.bfloat16
        assert (logits - expected).abs().mean() < self.bf16 * expected.abs().max()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)

    def test_channels_last(self) -> None:
        network = self.build()
        images = self.images()
        expected = network.eval()(images).detach()
        network = to_channels_last(network)
        logits = network(images.to(memory_format=torch.channels_last))
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)
        network.train()
        network(images.to(memory_format=torch.channels_last)).sum().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())

    def test_takes_what_monai_feeds(self) -> None:
        network = self.build().eval()
        images = self.images()
        with torch.no_grad():
            assert torch.equal(torch.as_tensor(network(MetaTensor(images))), network(images))


class OwnNetworkContract(NetworkContract):
    """What the networks of this package add: wrong input is the user's error, said clearly."""

    def test_refuses_wrong_input(self) -> None:
        network = self.build()
        with pytest.raises(UserError, match=r"\(B, 1, H, W\).*\(2, 3, "):
            network(self.images(channels=3))
        with pytest.raises(UserError, match="shape"):
            network(self.images()[0])
        with pytest.raises(UserError, match="floating-point"):
            network(self.images().to(torch.uint8))
