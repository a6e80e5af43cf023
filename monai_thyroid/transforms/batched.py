"""Random augmentation of a whole batch at once, on the device that holds it."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from monai_thyroid.errors import UserError

__all__ = ["BatchAugmentation", "affine_matrices", "warp"]

_SPOTS = 5  # of glare in an image
_LUMA = (0.299, 0.587, 0.114)
_Range = tuple[float, float]


def affine_matrices(
    *,
    angle: torch.Tensor,
    scale: torch.Tensor,
    aspect: torch.Tensor,
    shift: torch.Tensor,
    flip: torch.Tensor,
) -> torch.Tensor:
    """Affine maps that turn, scale, stretch, flip and move images about their centre.

    Args:
        angle: (B), radians, from the first spatial axis towards the second.
        scale: (B), above 1 enlarges what is shown.
        aspect: (B), above 1 enlarges the first axis and shrinks the second, each by its square root.
        shift: (B, 2), pixels that the content moves along each axis.
        flip: (B, 2), bool, which axes are mirrored.

    Returns:
        (B, 2, 3): from an output pixel to the input pixel that it shows, both counted from the image's centre, first
        axis first.
    """
    sign = 1 - 2 * flip.to(scale.dtype)
    stretch = torch.stack([aspect.rsqrt(), aspect.sqrt()], dim=1) * sign / scale[:, None]
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cosine, sine], dim=1), torch.stack([-sine, cosine], dim=1)], dim=1)
    linear = stretch[:, :, None] * turn
    return torch.cat([linear, -linear @ shift[:, :, None]], dim=2)


def warp(
    images: torch.Tensor,
    masks: torch.Tensor,
    matrices: torch.Tensor,
    *,
    displacement: torch.Tensor | None = None,
    background: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resample images and their masks by one map each, in one pass; what comes from outside is 0.

    Masks are interpolated like the images and cut at one half: the border lands within half a pixel of the true one,
    where the nearest pixel would leave steps, and one call serves both.

    Args:
        images: (B, C, X, Y), floating point.
        masks: (B, K, X, Y), 0 and 1, at most one of a pixel's classes 1.
        matrices: from `affine_matrices`, in pixels, so that a turn stays a turn where X and Y differ.
        displacement: (B, 2, X, Y), pixels to add to the input position of each output pixel, first axis first.
        background: the first mask is the background: it becomes 1 wherever no other is.

    Returns:
        Both, of the shapes and types they had.
    """
    x, y = images.shape[2:]
    # In units of half the image, last axis first, as grid_sample counts. Nothing is made from lists of numbers here: on
    # a GPU that would wait for it.
    (xx, xy, xo), (yx, yy, yo) = matrices[:, 0].unbind(1), matrices[:, 1].unbind(1)
    rows = [torch.stack([yy, yx * (x / y), yo * (2 / y)], dim=1), torch.stack([xy * (y / x), xx, xo * (2 / x)], dim=1)]
    grid = F.affine_grid(torch.stack(rows, dim=1), [len(images), 1, x, y], align_corners=False)
    if displacement is not None:
        grid = grid + torch.stack([displacement[:, 1] * (2 / y), displacement[:, 0] * (2 / x)], dim=3)
    both = torch.cat([images, masks.to(images.dtype)], dim=1)
    both = F.grid_sample(both, grid.to(both.dtype), mode="bilinear", padding_mode="zeros", align_corners=False)
    channels = images.shape[1]
    warped = (both[:, channels:] > 0.5).to(masks.dtype)
    if background:
        warped[:, 0] = 1 - warped[:, 1:].amax(dim=1)
    return both[:, :channels], warped


class BatchAugmentation:
    """Change the images of a batch and their masks at random, each image in its own way.

    Images are (B, C, width, height), MONAI's order for pictures, in [0, 1], and stay in [0, 1]. Every part is off
    unless it is asked for. What is drawn depends on (seed, epoch), the device type and the batches so far in the
    epoch, and on nothing else; nothing waits for the device.

    Args:
        seed: of all draws.
        flip_horizontal: probability of a left-right flip.
        flip_vertical: probability of an upside-down flip.
        rotation: largest angle, degrees, either way.
        scale: range of the factor, log-uniform; above 1 enlarges.
        aspect: range of the ratio of width to height, log-uniform.
        shift: largest move along each axis, as a share of its length.
        elastic: standard deviation of a smooth random displacement, as a share of the longer side.
        affine_probability: share of images that are turned, scaled, stretched, moved and bent at all.
        probability: of each of the following, for each image.
        gamma: range of the exponent, log-uniform.
        gain: range of the factor of all intensities, log-uniform.
        brightness: largest value that is added to all intensities.
        contrast: range of the factor of the distance from the image's mean, log-uniform.
        saturation: range of the factor of the distance from grey, log-uniform; colour images only.
        hue: largest turn around the grey axis, degrees; colour images only.
        blur: largest standard deviation of a Gaussian blur, pixels.
        noise: largest standard deviation of added Gaussian noise.
        speckle: largest standard deviation of multiplied, grainy noise, as ultrasound has it.
        shadow: largest share of light that an acoustic shadow takes: a soft band from some depth downwards.
        highlights: largest brightness of a few small, soft spots that are added, as a lamp makes on wet tissue.
        cutmix: probability that a rectangle of the image, and of its masks, comes from another image of the batch
            (Yun et al., ICCV 2019, doi 10.1109/ICCV.2019.00612).
        background: the first mask is the background; see `warp`.

    Raises:
        UserError: names every option that is out of its range.
    """

    def __init__(
        self,
        *,
        seed: int,
        flip_horizontal: float = 0.0,
        flip_vertical: float = 0.0,
        rotation: float = 0.0,
        scale: _Range = (1.0, 1.0),
        aspect: _Range = (1.0, 1.0),
        shift: float = 0.0,
        elastic: float = 0.0,
        affine_probability: float = 1.0,
        probability: float = 0.5,
        gamma: _Range = (1.0, 1.0),
        gain: _Range = (1.0, 1.0),
        brightness: float = 0.0,
        contrast: _Range = (1.0, 1.0),
        saturation: _Range = (1.0, 1.0),
        hue: float = 0.0,
        blur: float = 0.0,
        noise: float = 0.0,
        speckle: float = 0.0,
        shadow: float = 0.0,
        highlights: float = 0.0,
        cutmix: float = 0.0,
        background: bool = False,
    ) -> None:
        self.seed = seed
        chances = {
            "flip_horizontal": flip_horizontal,
            "flip_vertical": flip_vertical,
            "affine_probability": affine_probability,
            "probability": probability,
            "shadow": shadow,
            "highlights": highlights,
            "cutmix": cutmix,
        }
        sizes = {
            "rotation": rotation,
            "shift": shift,
            "elastic": elastic,
            "brightness": brightness,
            "hue": hue,
            "blur": blur,
            "noise": noise,
            "speckle": speckle,
        }
        ranges = {
            "scale": scale,
            "aspect": aspect,
            "gamma": gamma,
            "gain": gain,
            "contrast": contrast,
            "saturation": saturation,
        }
        problems = [
            f"{name} {value!r}: give a number from 0 to 1" for name, value in chances.items() if not _chance(value)
        ]
        problems += [f"{name} {value!r}: give a number, 0 or more" for name, value in sizes.items() if not value >= 0]
        problems += [
            f"{name} {value!r}: give two numbers above 0, the lower first"
            for name, value in ranges.items()
            if len(value) != 2 or not 0 < value[0] <= value[1]
        ]
        if problems:
            raise UserError(problems)
        self.chances, self.sizes = chances, sizes
        self.ranges: dict[str, _Range] = {name: (value[0], value[1]) for name, value in ranges.items()}
        self.background = background
        self._state = self._generator_state(0)
        self._generator: torch.Generator | None = None
        self._matrices: dict[torch.device, list[torch.Tensor]] = {}

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch: from here on the draws are those of (seed, epoch)."""
        self._state = self._generator_state(epoch)
        self._generator = None

    def _generator_state(self, epoch: int) -> int:
        return int(np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0] >> np.uint64(1))

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Augment one batch.

        Args:
            images: (B, C, width, height), float32 in [0, 1].
            masks: (B, K, width, height), 0 and 1, one channel a class, which do not overlap.

        Returns:
            New tensors of the same shapes and types.
        """
        if self._generator is None or self._generator.device != images.device:
            self._generator = torch.Generator(images.device)
            self._generator.manual_seed(self._state)
        images, masks = self._geometry(images, masks)
        if self.chances["cutmix"]:
            images, masks = self._cutmix(images, masks)
        if images.shape[1] == 3:
            images = self._colour(images)
        images = self._light(images)
        if self.sizes["blur"]:
            images = self._blur(images)
        images = self._grain(images)
        return images.clamp(0, 1), masks

    def _rand(self, *shape: int) -> torch.Tensor:
        assert self._generator is not None
        return torch.rand(shape, generator=self._generator, device=self._generator.device)

    def _randn(self, *shape: int) -> torch.Tensor:
        assert self._generator is not None
        return torch.randn(shape, generator=self._generator, device=self._generator.device)

    def _factor(self, name: str, count: int) -> torch.Tensor:
        """(count) factors, log-uniform in the range of that name."""
        low, high = (math.log(value) for value in self.ranges[name])
        return (self._rand(count) * (high - low) + low).exp()

    def _switch(self, count: int) -> torch.Tensor:
        """(count) of 0 and 1: which images a part applies to."""
        return (self._rand(count) < self.chances["probability"]).float()

    def _on(self, name: str) -> bool:
        return self.ranges[name] != (1, 1)

    def _geometry(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sizes, count = self.sizes, len(images)
        bends = sizes["rotation"] or sizes["shift"] or sizes["elastic"] or self._on("scale") or self._on("aspect")
        if not (bends or self.chances["flip_horizontal"] or self.chances["flip_vertical"]):
            return images, masks
        lengths = images.shape[2:]
        apply = (self._rand(count) < self.chances["affine_probability"]).float()
        either = self._rand(5, count) * 2 - 1
        flips = self._rand(count, 2)
        matrices = affine_matrices(
            angle=either[0] * apply * math.radians(sizes["rotation"]),
            scale=self._factor("scale", count) ** apply,
            aspect=self._factor("aspect", count) ** apply,
            shift=torch.stack([either[1 + axis] * apply * sizes["shift"] * lengths[axis] for axis in (0, 1)], dim=1),
            flip=torch.stack(
                [flips[:, 0] < self.chances["flip_horizontal"], flips[:, 1] < self.chances["flip_vertical"]], dim=1
            ),
        )
        displacement = None
        if sizes["elastic"]:
            coarse = self._randn(count, 2, 6, 6) * (apply * sizes["elastic"] * max(lengths))[:, None, None, None]
            displacement = F.interpolate(coarse, size=lengths, mode="bicubic", align_corners=True)
        return warp(images, masks, matrices, displacement=displacement, background=self.background)

    def _cutmix(self, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        count, (x, y) = len(images), images.shape[2:]
        draws = self._rand(5, count)
        inside = draws[0, :, None, None] < self.chances["cutmix"]
        for axis, length, shape in ((0, x, (1, x, 1)), (1, y, (1, 1, y))):
            side = 0.25 + 0.5 * draws[1 + axis]
            start = draws[3 + axis] * (1 - side)
            place = ((torch.arange(length, device=images.device) + 0.5) / length).reshape(shape)
            start, end = start[:, None, None], (start + side)[:, None, None]
            inside = inside & (place >= start) & (place < end)
        mixed = [torch.where(inside[:, None], one.roll(1, dims=0), one) for one in (images, masks)]
        return mixed[0], mixed[1]

    def _colour(self, images: torch.Tensor) -> torch.Tensor:
        """Saturation and hue as one matrix an image; grey stays grey."""
        if not (self._on("saturation") or self.sizes["hue"]):
            return images
        count = len(images)
        saturation = (self._factor("saturation", count) ** self._switch(count))[:, None, None]
        angle = (self._rand(count) * 2 - 1) * self._switch(count) * math.radians(self.sizes["hue"])
        cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
        identity, luma, cross = self._constants(images.device)
        # Rodrigues' rotation about (1, 1, 1).
        turn = cosine * identity + (1 - cosine) / 3 + sine * cross
        matrix = turn @ (saturation * identity + (1 - saturation) * luma)
        return torch.einsum("bij,bjxy->bixy", matrix, images).clamp(0, 1)

    def _constants(self, device: torch.device) -> list[torch.Tensor]:
        """Identity, luma and the cross product with the grey axis, moved to a device once."""
        if device not in self._matrices:
            cross = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
            made = [torch.eye(3), torch.tensor(_LUMA).expand(3, 3), cross]
            self._matrices[device] = [one.to(device) for one in made]
        return self._matrices[device]

    def _light(self, images: torch.Tensor) -> torch.Tensor:
        count = len(images)
        if self._on("contrast"):
            mean = images.mean(dim=(1, 2, 3), keepdim=True)
            images = (images - mean) * _spread(self._factor("contrast", count) ** self._switch(count)) + mean
        if self._on("gain"):
            images = images * _spread(self._factor("gain", count) ** self._switch(count))
        if self.sizes["brightness"]:
            added = (self._rand(count) * 2 - 1) * self._switch(count) * self.sizes["brightness"]
            images = images + _spread(added)
        if self._on("gamma"):
            images = images.clamp(0, 1) ** _spread(self._factor("gamma", count) ** self._switch(count))
        return images

    def _blur(self, images: torch.Tensor) -> torch.Tensor:
        """A separable Gaussian, another one for each image."""
        count, channels = images.shape[:2]
        # 0 would divide by 0; a tenth of a pixel leaves the image as it is.
        sigma = (self._rand(count) * self._switch(count) * self.sizes["blur"]).clamp(min=0.1)
        radius = math.ceil(2.5 * self.sizes["blur"])
        offsets = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
        kernel = (-0.5 * (offsets / sigma[:, None]) ** 2).exp()
        kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
        flat = images.reshape(1, count * channels, *images.shape[2:])
        for shape, padding in (
            ((-1, 1, len(offsets), 1), (0, 0, radius, radius)),
            ((-1, 1, 1, len(offsets)), (radius, radius, 0, 0)),
        ):
            flat = F.conv2d(F.pad(flat, padding, mode="replicate"), kernel.reshape(shape), groups=count * channels)
        return flat.reshape(images.shape)

    def _grain(self, images: torch.Tensor) -> torch.Tensor:
        count, (width, height) = len(images), images.shape[2:]
        if self.sizes["speckle"]:
            # A grain is about two pixels wide, and finer along the beam.
            coarse = self._randn(count, 1, math.ceil(width / 2), height)
            grain = F.interpolate(coarse, size=(width, height), mode="bilinear", align_corners=False)
            images = images * (1 + grain * _spread(self._rand(count) * self._switch(count) * self.sizes["speckle"]))
        if self.chances["shadow"]:
            draws = self._rand(4, count)[:, :, None, None]
            taken = self._switch(count)[:, None, None] * draws[0] * self.chances["shadow"]
            across = torch.arange(width, device=images.device)[None, :, None] / width
            depth = torch.arange(height, device=images.device)[None, None, :] / height
            band = (-(((across - draws[1]) / (0.03 + 0.12 * draws[2])) ** 2)).exp()
            below = ((depth - 0.7 * draws[3]) / 0.03).sigmoid()
            images = images * (1 - taken * band * below)[:, None]
        if self.chances["highlights"]:
            draws = self._rand(4, count, _SPOTS)[..., None]
            brightness = draws[0, ..., 0] * self._switch(count)[:, None] * self.chances["highlights"]
            radius = 0.005 + 0.025 * draws[1]
            across = (-(((torch.arange(width, device=images.device) / width - draws[2]) / radius) ** 2)).exp()
            down = (-(((torch.arange(height, device=images.device) / height - draws[3]) / radius) ** 2)).exp()
            images = images + torch.einsum("bk,bkx,bky->bxy", brightness, across, down)[:, None]
        if self.sizes["noise"]:
            deviation = self._rand(count) * self._switch(count) * self.sizes["noise"]
            images = images + self._randn(*images.shape) * _spread(deviation)
        return images


def _chance(value: float) -> bool:
    return 0 <= value <= 1


def _spread(values: torch.Tensor) -> torch.Tensor:
    """(B) -> (B, 1, 1, 1)."""
    return values[:, None, None, None]
