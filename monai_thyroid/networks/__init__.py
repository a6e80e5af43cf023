"""The networks of the comparison, thinly where somebody has them already.

The contract of all of them:

- Input (B, C, H, W), floating point. Those with a pretrained encoder take images scaled to [0, 1] and apply the
  encoder's own mean and standard deviation themselves, as part of what is exported.
- Output logits (B, classes, H, W) of the same height and width, any size, odd and non-square included. `UnpaddedUNet`
  alone gives the centre and takes sizes 16k+12; MONAI's `BasicUNet` takes no side below 32.
- What does not fit is a `UserError` that says what would; `BasicUNet` keeps torch's own messages.
- No global state: weights are drawn from torch's global random generator and nothing else, so one seed gives one set
  of weights. In training, batch normalisation refuses a batch of one where a single value a channel is left of it.
"""

from __future__ import annotations

from monai_thyroid.networks.adapted import AdaptedNetwork, listed
from monai_thyroid.networks.encoder_unet import EncoderUNet
from monai_thyroid.networks.ensemble import Ensemble
from monai_thyroid.networks.menu import CONFIGS, MENU
from monai_thyroid.networks.norms import to_channels_last
from monai_thyroid.networks.padding import without_padding
from monai_thyroid.networks.pretrained import normalises
from monai_thyroid.networks.resenc_unet import ResEncUNet
from monai_thyroid.networks.resunet import ResUNet
from monai_thyroid.networks.rngunet import RNGUNet
from monai_thyroid.networks.segnet import SegNet
from monai_thyroid.networks.unpadded_unet import UnpaddedUNet, nearest_unpadded_sizes, unpadded_output_size

__all__ = [
    "CONFIGS",
    "MENU",
    "AdaptedNetwork",
    "EncoderUNet",
    "Ensemble",
    "RNGUNet",
    "ResEncUNet",
    "ResUNet",
    "SegNet",
    "UnpaddedUNet",
    "listed",
    "nearest_unpadded_sizes",
    "normalises",
    "to_channels_last",
    "unpadded_output_size",
    "without_padding",
]
