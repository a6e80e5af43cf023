"""A part of a dataset that lies ready in memory, on the GPU where it fits."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, Randomizable
from monai.utils import ensure_tuple_rep
from torch.utils.data import Dataset

from monai_thyroid.data.mapping import map_files
from monai_thyroid.errors import UserError

__all__ = ["ResidentDataset", "ResidentLoader"]

logger = logging.getLogger(__name__)


class ResidentDataset(Dataset):
    """Images and masks that were decoded and resized once and are kept as bytes.

    They lie on the device if half of its free memory holds them, else in the host's memory, pinned for a GPU, and
    beyond that in a temporary file that goes with the process. Intensities are kept in 255 steps, which is what a
    picture file has.

    Args:
        data: items with the keys ``image`` and ``label``.
        transform: one or several without chance: loads and resizes them, to images (channels, width, height) in [0, 1]
            and labels (classes, width, height) of 0 and 1, all of one size.
        device: where they are wanted.

    Attributes:
        images: (N, channels, width, height), uint8.
        labels: (N, classes, width, height), uint8, 0 and 1.
        device: where batches are wanted.

    Raises:
        UserError: a transform is random, values or sizes are not as above, or neither memory nor disk holds the images.
    """

    def __init__(
        self, data: Sequence[Any], transform: Callable | Sequence[Callable], *, device: str | torch.device = "cpu"
    ) -> None:
        self.device = torch.device(device)
        self._place(*_read(data, transform, device=self.device))

    @classmethod
    def of_tensors(
        cls, images: torch.Tensor, labels: torch.Tensor, *, device: str | torch.device = "cpu"
    ) -> ResidentDataset:
        """The same from its two attributes, wherever they lie."""
        dataset = cls.__new__(cls)
        dataset.device = torch.device(device)
        dataset._place(images, labels)
        return dataset

    def _place(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        home = _home(images.nbytes + labels.nbytes, self.device)
        if home is not None:
            images, labels = images.to(home), labels.to(home)
            if home.type != self.device.type:
                images, labels = images.pin_memory(), labels.pin_memory()
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Any) -> dict[str, torch.Tensor]:
        """Float32 ``image`` in [0, 1] and ``label`` of one index, or of a batch of them, on the device."""
        image, label = self.images[index], self.labels[index]
        if image.device.type != self.device.type:
            image, label = (one.pin_memory().to(self.device, non_blocking=True) for one in (image, label))
        return {"image": image.float().div_(255), "label": label.float()}

    def statistics(self) -> dict[str, list[float]]:
        """``mean`` and ``std`` of each channel over all pixels, images in [0, 1]; std is at least 1/255."""
        # An image at a time: together they may be more than the memory holds.
        counts = torch.zeros(self.images.shape[1], 256, dtype=torch.int64, device=self.images.device)
        for image in self.images:
            counts += torch.stack([plane.reshape(-1).bincount(minlength=256) for plane in image])
        share = counts.double() / (self.images[:, 0].numel())
        levels = torch.arange(256, device=share.device, dtype=torch.float64) / 255
        mean = (share * levels).sum(dim=1)
        std = (share * (levels - mean[:, None]) ** 2).sum(dim=1).sqrt().clamp(min=1 / 255)
        return {"mean": mean.tolist(), "std": std.tolist()}


class ResidentLoader:
    """Batches of a `ResidentDataset`, augmented where they lie.

    Order and augmentation depend on (seed, epoch) alone. On a GPU that holds the images nothing waits for the device.

    Args:
        dataset: the images.
        batch_size: images a batch; the last one of an epoch may be smaller.
        seed: training seed.
        shuffle: another order each epoch.
        drop_last: leave out a last batch that is smaller.
        augmentation: from images and masks of a batch to others; told the epoch by ``set_epoch``, if it has that.
        mean: of each channel, taken off after augmentation.
        std: of each channel, divided by.
        field_of_view: width and height of what an unpadded network segments, or one number for both: labels are cut
            down to that centre after augmentation.
        process: which of several training processes this is, from 0.
        processes: how many share the images of an epoch, each as many; the few that are left over are seen twice.

    Raises:
        UserError: an epoch would have no batch, or labels have no such centre with equal margins.
    """

    def __init__(
        self,
        dataset: ResidentDataset,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        augmentation: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        field_of_view: int | Sequence[int] | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.dataset = dataset
        self.process = process
        self.processes = processes
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.augmentation = augmentation
        self.epoch = 0
        if not len(self):
            raise UserError(f"batch_size {batch_size}: the part has {len(dataset)} images, which makes no whole batch")
        shape = tuple(dataset.labels.shape[2:])
        size = shape if field_of_view is None else tuple(ensure_tuple_rep(field_of_view, 2))
        if any(n < m or (n - m) % 2 for n, m in zip(shape, size, strict=True)):
            raise UserError(f"field_of_view {size}: labels of {shape} pixels have no such centre with equal margins")
        margins = [(n - m) // 2 for n, m in zip(shape, size, strict=True)]
        self._centre: tuple[Any, ...] = (
            ...,
            *(slice(margin, margin + m) for margin, m in zip(margins, size, strict=True)),
        )
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=dataset.device).reshape(1, -1, 1, 1)
            for values in (mean, std)
        )

    def __len__(self) -> int:
        """Batches an epoch."""
        whole, rest = divmod(-(-len(self.dataset) // self.processes), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins, before it is iterated."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        """Yield ``image`` (B, channels, width, height) and ``label`` (B, classes, width, height), both float32."""
        order = torch.arange(len(self.dataset))
        if self.shuffle:
            state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(int(state)))
        if self.processes > 1:
            share = -(-len(order) // self.processes)
            order = order.repeat(2)[: share * self.processes][self.process :: self.processes]
        home = self.dataset.images.device
        if home.type == "cuda":
            order = order.pin_memory().to(home, non_blocking=True)
        if (tell := getattr(self.augmentation, "set_epoch", None)) is not None:
            tell(self.epoch)
        for index in order.split(self.batch_size)[: len(self)]:
            batch = self.dataset[index]
            if self.augmentation is not None:
                batch["image"], batch["label"] = self.augmentation(batch["image"], batch["label"])
            batch["image"] = (batch["image"] - self._mean) / self._std
            batch["label"] = batch["label"][self._centre]
            yield batch


def _read(
    data: Sequence[Any], transform: Callable | Sequence[Callable], *, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """All images and labels as uint8, in the host's memory or beyond it in a file."""
    compose = Compose(transform).flatten()
    if random := [type(one).__name__ for one in compose.transforms if isinstance(one, Randomizable)]:
        raise UserError(f"{', '.join(random)}: random transforms cannot be kept in memory; give them as augmentation")
    if not data:
        raise UserError("there are no images to keep in memory")
    first = _as_bytes(compose(data[0]), data[0])
    make = _in_a_file if _home(len(data) * sum(one.nbytes for one in first), device) is None else _in_memory
    images, labels = (make((len(data), *one.shape)) for one in first)

    def keep(index: int) -> list[str]:
        try:
            image, label = _as_bytes(compose(data[index]), data[index])
        except UserError as error:
            return error.problems
        if image.shape != images.shape[1:] or label.shape != labels.shape[1:]:
            return [
                f"{data[index]['image']}: image and label are {tuple(image.shape)} and {tuple(label.shape)} after the "
                f"transforms, those of the first item {tuple(images.shape[1:])} and {tuple(labels.shape[1:])}"
            ]
        images[index], labels[index] = image, label
        return []

    found = map_files(keep, range(len(data)), "Reading images")
    if problems := [problem for some in found for problem in some]:
        raise UserError(problems)
    return images, labels


def _as_bytes(loaded: Any, item: Any) -> tuple[torch.Tensor, torch.Tensor]:
    image, label = (torch.as_tensor(loaded[key]).detach() for key in ("image", "label"))
    image, label = (one.as_tensor() if hasattr(one, "as_tensor") else one for one in (image, label))
    # Resizing may overshoot by rounding.
    if not (float(image.min()) >= -0.01 and float(image.max()) <= 1.01):
        raise UserError(
            f"{item['image']}: intensities are {float(image.min()):g} to {float(image.max()):g} after the transforms; "
            "only 0 to 1 can be kept in memory (normalise by mean and std instead)"
        )
    if not bool(((label == 0) | (label == 1)).all()):
        raise UserError(f"{item['label']}: the label has other values than 0 and 1 after the transforms")
    return image.clamp(0, 1).mul(255).round().to(torch.uint8), label.to(torch.uint8)


def _in_memory(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.uint8)


def _in_a_file(shape: tuple[int, ...]) -> torch.Tensor:
    """Bytes that lie in a file without a name, which the system keeps in memory as far as there is any."""
    with tempfile.TemporaryFile(prefix="monai_thyroid-") as file:
        return torch.from_numpy(np.memmap(file, dtype=np.uint8, mode="w+", shape=shape))


def _home(size: int, device: torch.device) -> torch.device | None:
    """Where that many bytes are to lie for a device: on it, in the host's memory, or (None) on disk.

    Raises:
        UserError: none of these holds them.
    """
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        if size <= free / 2:
            return device
        logger.info("%.1f GB of images on the host: %.1f GB are free on the GPU", size / 1e9, free / 1e9)
    available = _available_memory()
    if size <= 0.8 * available:
        return torch.device("cpu")
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    told = f"the images take {size / 1e9:.1f} GB, of memory {available / 1e9:.1f} GB are free"
    if size > 0.8 * free:
        raise UserError(
            f"{told} and in {folder} {free / 1e9:.1f} GB: choose a smaller image_size, or set TMPDIR to a larger disk"
        )
    logger.info("%s: keeping them in a temporary file in %s", told, folder)
    return None


def _available_memory() -> float:
    """Bytes that this process may still take; infinite where the system does not tell."""
    found = float("inf")
    path = Path("/proc/meminfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = float(line.split()[1]) * 1024
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if limit.is_file() and used.is_file() and limit.read_text().strip() != "max":
        found = min(found, float(limit.read_text()) - float(used.read_text()))
    return found
