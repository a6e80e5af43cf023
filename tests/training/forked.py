"""What a training imports on its way: imported once by a script that forks many, instead of in every child."""

# ruff: noqa: F401
from __future__ import annotations

import contourpy
import matplotlib.backends.backend_agg
import matplotlib.figure
import matplotlib.patheffects
import torch._dynamo  # by the first optimiser
from PIL import Image, ImageOps

import monai_thyroid.data.classes
import monai_thyroid.data.loading
import monai_thyroid.evaluation.figures
import monai_thyroid.evaluation.scoring
import monai_thyroid.training

Image.init()
