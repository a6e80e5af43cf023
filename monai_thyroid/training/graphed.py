"""A trainer that hands the GPU a whole step at once."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.utils.enums import CommonKeys as Keys

from monai_thyroid.errors import UserError

__all__ = ["GraphedTrainer"]

_WARM_UP = 4  # steps as usual before one is recorded: they choose algorithms and give the optimiser its state


class GraphedTrainer(SupervisedTrainer):
    """MONAI's trainer, with forward pass, loss, backward pass and optimiser recorded once and replayed as a CUDA graph.

    A step of many small kernels is bound by the processor that launches them; a graph is one launch. On a processor,
    and for batches of another shape than the first, it does what `SupervisedTrainer` does.

    The optimiser must be capturable, its learning rate a tensor on the device (``lr: $torch.tensor(1e-3,
    device=@device)``, ``capturable: true``), which schedulers change in place. Handlers of the events inside a step
    (forward, loss, backward completed) are recorded with it, so they must not wait for the GPU nor change from step
    to step. ``state.output`` holds the same tensors in every step, overwritten by the next.

    Args:
        kwargs: as for `SupervisedTrainer`.

    Raises:
        UserError: with amp or accumulation of gradients, or an optimiser that cannot be recorded.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.amp or self.accumulation_steps != 1:
            raise UserError("GraphedTrainer: neither amp (use AutocastInferer) nor accumulation_steps can be recorded")
        if self.state.device.type == "cuda" and not all(
            group.get("capturable") and isinstance(group["lr"], torch.Tensor) for group in self.optimizer.param_groups
        ):
            raise UserError("GraphedTrainer: the optimiser needs capturable: true, and a tensor on the GPU as lr")
        self.optim_set_to_none = True
        self._graph: torch.cuda.CUDAGraph | None = None
        self._steps = 0
        self._side: torch.cuda.Stream | None = None
        self._shapes: tuple[torch.Size, torch.Size] | None = None
        self._static: dict[str, Any] = {}

    def _iteration(self, engine: Any, batchdata: dict[str, torch.Tensor]) -> dict:
        if self.state.device.type != "cuda":
            return super()._iteration(engine, batchdata)
        images, labels = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        shapes = images.shape, labels.shape
        if self._shapes is None:
            self._shapes = shapes
        if shapes != self._shapes:
            return super()._iteration(engine, batchdata)
        if self._steps < _WARM_UP:
            self._steps += 1
            move_rates(self.optimizer, engine.state.device)
            return self._aside(engine, batchdata)
        if self._graph is None:
            self._record(engine, images, labels)
        assert self._graph is not None
        self._static[Keys.IMAGE].copy_(images, non_blocking=True)
        self._static[Keys.LABEL].copy_(labels, non_blocking=True)
        self._graph.replay()
        return self._static

    def _aside(self, engine: Any, batchdata: dict[str, torch.Tensor]) -> dict:
        """One usual step, on another stream than the usual one, as recording wants its warm-up."""
        if self._side is None:
            self._side = torch.cuda.Stream()
        current = torch.cuda.current_stream()
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            output = super()._iteration(engine, batchdata)
        current.wait_stream(self._side)
        return output

    def _record(self, engine: Any, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Record a step; nothing of it is computed yet."""
        batch = {Keys.IMAGE: images.clone(), Keys.LABEL: labels.clone()}
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = super()._iteration(engine, batch)
        self._static = {
            key: value.detach() if isinstance(value, torch.Tensor) else [one.detach() for one in value]
            for key, value in output.items()
        }
        self._graph = graph


# What it takes is what MONAI's takes, for whoever asks.
GraphedTrainer.__signature__ = inspect.signature(SupervisedTrainer)


def move_rates(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Bring learning rates that are tensors to the device: what is read from a checkpoint lies on the processor.

    From there a graph would take the number that it was at recording, and never again.
    """
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"] = group["lr"].to(device)
