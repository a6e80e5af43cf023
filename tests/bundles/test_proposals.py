"""What is proposed for a dataset, and why."""

from __future__ import annotations

import pytest

from monai_thyroid.bundles.proposals import propose


@pytest.mark.parametrize(
    ("side", "share", "train", "gpu", "size", "batch", "epochs", "width"),
    [
        (400, 0.05, 300, False, 128, 16, 120, 256),  # a lesion of a fifth of the side needs no more
        (400, 0.0064, 300, False, 224, 16, 120, 256),  # one of a twelfth does
        (4000, 0.0004, 300, False, 256, 16, 120, 256),  # and one of a fiftieth gets what an hour allows
        (4000, 0.0004, 300, True, 512, 16, 120, 256),
        (90, 0.01, 300, False, 96, 16, 120, 256),  # no more than the images hold
        (400, 0.05, 60, False, 128, 4, 140, 256),
        (400, 0.0004, 3000, False, 256, 16, 100, 128),  # few passes in an hour
        (400, 0.0, 20, False, 128, 2, 200, 256),  # nothing is marked
        (400, 0.05, 4, False, 128, 2, 500, 256),  # more epochs of hardly any images teach nothing
    ],
)
def test_size_batch_length_and_width_follow_the_images(
    side: int, share: float, train: int, gpu: bool, size: int, batch: int, epochs: int, width: int
) -> None:
    found = propose([(side, side // 2)] * 5, [share] * 5, train=train, gpu=gpu)
    assert (found.image_size, found.batch_size, found.max_epochs) == (size, batch, epochs)
    assert max(found.features) == width
    assert epochs * (train // batch) >= 2000 or epochs == 500
    assert [reason.split()[0] for reason in found.reasons] == ["image_size", "batch_size", "max_epochs", "unet"]
    assert f"image_size {size}: " in found.reasons[0]
