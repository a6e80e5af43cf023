"""Import torchvision beside a CPU build of torch.

The torchvision of the package index is linked against CUDA. Where that is missing its operators do not load, and its
import fails, because it gives two of them a shape rule without their being declared. Declaring these two is enough for
all of torchvision that needs no operator of its own: models, and with them timm and segmentation_models_pytorch.
"""

from __future__ import annotations

import importlib

import torch

from monai_thyroid.errors import optional

__all__ = ["import_torchvision"]

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
# A declaration lasts as long as the library object.
_declared: list[torch.library.Library] = []


def import_torchvision() -> None:
    """Make ``import torchvision`` work; where it does already, nothing is touched.

    Raises:
        UserError: torchvision is not installed.
        RuntimeError: its import fails for another reason.
    """
    try:
        optional("torchvision", extra="encoders")
    except RuntimeError as error:
        if _declared or "operator torchvision::nms does not exist" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(name + _SCHEMA)
        _declared.append(library)
        importlib.import_module("torchvision")
