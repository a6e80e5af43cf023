"""The table of the networks: size, work, memory, and where each can be exported to."""

from __future__ import annotations

import datetime
import io
import logging
import os
import platform
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from monai_thyroid.errors import UserError
from monai_thyroid.files import with_made_part
from monai_thyroid.machine import processor
from monai_thyroid.networks.adapted import listed
from monai_thyroid.networks.exports import agrees, exported_logits, to_torchscript
from monai_thyroid.networks.menu import MENU

__all__ = [
    "NetworkRow",
    "multiply_adds",
    "network_table",
    "parameters",
    "render_markdown",
    "render_page",
    "render_text",
    "training_memory",
]

logger = logging.getLogger(__name__)

BATCHES = (1, 16)

_START = "<!-- made by `monai-thyroid networks --output` -->"
_END = "<!-- end of what is made -->"
NEW_PAGE = f"# The networks\n\n{_START}\n{_END}\n"
"""A page without its table."""

Constructor = Callable[[], nn.Module]


@dataclass(frozen=True, kw_only=True)
class NetworkRow:
    """What is known of one network, for one channel in and one class out.

    Args:
        name: as in the menu.
        size: height and width of the images in pixels: 256, or for the unpadded U-Net 252.
        parameters: trainable numbers.
        multiply_adds: of one image's forward pass.
        memory: bytes at the peak of a training step, by batch size.
        exports: whether it works, by format; empty where it was not tried.
        traced: whether its TorchScript is traced, for it cannot be scripted.
    """

    name: str
    size: int
    parameters: int
    multiply_adds: int
    memory: Mapping[int, int]
    exports: Mapping[str, bool]
    traced: bool = False


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors alive, and their peak: a storage counts from the operator that makes it on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known = WeakIdKeyDictionary()

    def count(self, tensors: Iterable[Any]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            if storage in self._known:
                continue
            self._known[storage] = True
            size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, size)

    def _release(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.count(tree_leaves(result))
        return result


def _step_bytes(network: nn.Module, images: Tensor) -> int:
    """Peak bytes of one training step; with fake tensors exactly as with real ones."""
    network.train()
    with _LiveBytes() as live:
        live.count([*network.parameters(), *network.buffers(), images])
        moments = [torch.zeros_like(parameter) for parameter in network.parameters() for _ in range(2)]
        outputs = listed(network(images))
        losses = [F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits)) for logits in outputs]
        del outputs
        torch.stack(losses).sum().backward()
    del moments
    return live.peak


def _fake(make: Constructor, mode: FakeTensorMode) -> nn.Module:
    """A network of fake tensors."""
    try:
        with mode:
            return make()
    except Exception:  # some read numbers while they are built, as timm's stochastic depth does
        with torch.random.fork_rng(devices=[]):
            network = make()
    known: dict[int, Tensor] = {}
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if id(tensor) not in known:
                fake = mode.from_tensor(tensor.detach())
                own = isinstance(tensor, nn.Parameter)
                known[id(tensor)] = nn.Parameter(fake, requires_grad=tensor.requires_grad) if own else fake
            setattr(module, name, known[id(tensor)])
    return network


def training_memory(make: Constructor, *, size: int, batch: int, in_channels: int = 1) -> int:
    """Peak memory of a training step in float32: weights, gradients, Adam's two moments, and all activations.

    Counted, not sampled: the step runs on fake tensors, which have shapes and lifetimes but no contents, and every
    storage an operator returns counts until its last reference is gone. The number is exact for tensors and the same
    on every machine. It leaves out what kernels allocate and free inside themselves (cuDNN's and oneDNN's workspaces)
    and what an allocator holds back, so a GPU reports more; measure there before a batch is chosen to the last byte.

    Args:
        make: builds the network.
        size: height and width of the images in pixels.
        batch: images.
        in_channels: channels of the images.

    Returns:
        Bytes.
    """
    mode = FakeTensorMode()
    network = _fake(make, mode)
    with mode:
        return _step_bytes(network, torch.zeros(batch, in_channels, size, size))


def multiply_adds(make: Constructor, *, size: int, in_channels: int = 1) -> int:
    """Multiply-adds of the convolutions and matrix products of one image's forward pass, in torch's count.

    Args:
        make: builds the network.
        size: height and width of the image in pixels.
        in_channels: channels of the image.

    Returns:
        Multiply-adds: half of torch's floating-point operations.
    """
    mode = FakeTensorMode()
    network = _fake(make, mode).eval()
    with mode, FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, in_channels, size, size))
    return int(counter.get_total_flops()) // 2


def parameters(make: Constructor) -> int:
    """How many numbers of a network are trained.

    Args:
        make: builds the network.
    """
    network = _fake(make, FakeTensorMode())
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def _exports(make: Constructor, *, size: int, in_channels: int = 1) -> tuple[dict[str, bool], bool]:
    """Try each export for real, on one random image; and whether that to TorchScript is traced."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make().eval()
        images = torch.rand(1, in_channels, size, size)
    with torch.no_grad():
        logits = network(images)
    works = {}
    for name, result in exported_logits(network, images).items():
        works[name] = agrees(result, logits)
        if isinstance(result, Exception):
            logger.warning("%s: %s", name, result)
    return works, works["TorchScript"] and to_torchscript(network, images, io.BytesIO())


def network_table(
    names: Sequence[str] | None = None,
    *,
    exports: bool = True,
    more: Mapping[str, Callable[..., nn.Module]] | None = None,
) -> list[NetworkRow]:
    """Measure the networks of the menu, with one channel in and one class out and without pretrained weights.

    Args:
        names: which of the menu; all by default.
        exports: also try the exports, which takes most of the time.
        more: further networks, as in `MENU`.

    Returns:
        A row a network.

    Raises:
        UserError: a name is not in the menu, or a package that an export needs is not installed.
    """
    menu = {**MENU, **(more or {})}
    names = list(menu) if names is None else names
    unknown = [name for name in names if name not in menu]
    if unknown:
        raise UserError(f"Not in the menu: {', '.join(unknown)}. There are {', '.join(menu)}.")
    rows = []
    for name in names:
        logger.info("measuring %s", name)
        size = 252 if name == "unpadded_unet" else 256

        def make(name: str = name) -> nn.Module:
            return menu[name](in_channels=1, out_channels=1)

        tried, traced = _exports(make, size=size) if exports else ({}, False)
        rows.append(
            NetworkRow(
                name=name,
                size=size,
                parameters=parameters(make),
                multiply_adds=multiply_adds(make, size=size),
                memory={batch: training_memory(make, size=size, batch=batch) for batch in BATCHES},
                exports=tried,
                traced=traced,
            )
        )
    return rows


def _cells(rows: Sequence[NetworkRow]) -> list[list[str]]:
    formats = list(rows[0].exports) if rows else []
    header = ["network", "input", "parameters (M)", "multiply-adds (G)"]
    header += [f"training memory, batch {batch} (MiB)" for batch in BATCHES] + formats
    cells = [header]
    for row in rows:
        cells.append(
            [
                row.name,
                f"{row.size} x {row.size}",
                f"{row.parameters / 1e6:.2f}",
                f"{row.multiply_adds / 1e9:.2f}",
                *(f"{row.memory[batch] / 2**20:,.0f}" for batch in BATCHES),
                *(_works(row, name) for name in formats),
            ]
        )
    return cells


def _works(row: NetworkRow, name: str) -> str:
    if not row.exports[name]:
        return "no"
    return "traced" if row.traced and name == "TorchScript" else "yes"


def render_text(rows: Sequence[NetworkRow]) -> str:
    """The table in columns, for a terminal."""
    cells = _cells(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def render_markdown(rows: Sequence[NetworkRow]) -> str:
    """The table in Markdown."""
    header, *body = _cells(rows)
    rule = ["---"] * 2 + ["---:"] * 4 + ["---"] * (len(header) - 6)
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *body))


def render_page(rows: Sequence[NetworkRow], *, command: str, page: str = NEW_PAGE, where: str = "page") -> str:
    """The page of the documentation: the table, how it came about by which command, where and when.

    Args:
        rows: of the table.
        command: that measured them.
        page: what the page was before; what is written outside of its two marks is kept.
        where: it is, for the message.

    Raises:
        UserError: the page lacks the marks.
    """
    made = f"""
Made by `{command}` on {datetime.date.today().isoformat()}: {_machine()}.

{render_markdown(rows)}

- What follows the menu is in `bundles/networks`; [own-networks.md](own-networks.md) says how to
  take it, and how to add others.
- One channel in, one class out, no pretrained weights. The unpadded U-Net takes 252 x 252 pixels and gives 68 x 68.
- Multiply-adds: convolutions and matrix products of one image's forward pass.
- Training memory: float32 weights, gradients, Adam's two moments and activations at the peak of a step, counted tensor
  by tensor, so the same on every machine. What kernels and allocators need comes on top: in four trials on a CPU the
  process grew by 8 to 26 % more than this.
- Exports: yes where the network was exported, loaded again and run on a random image, and its logits differ by no more
  than a thousandth of the largest in the mean. TorchScript is scripted, for images of any size, or traced, for those of
  one size, where that code cannot be scripted. SegNet's pooling indices make single
  pixels differ more where two values of a window are equal up to rounding.
- `torch.compile` takes each of the menu as one graph but MONAI's BasicUNet (`unet`, `unet_classic`), which breaks into
  several: it runs compiled, but its compiled training step fails on the CPU with torch 2.13.
"""
    return with_made_part(page, made, start=_START, end=_END, where=where)


def _machine() -> str:
    return f"{processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"
