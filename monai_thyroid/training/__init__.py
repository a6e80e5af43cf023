"""One training: from its config, checked, to a finished run folder, resumed where it was interrupted."""

from __future__ import annotations

from monai_thyroid.options import boolean
from monai_thyroid.training.caller import bundle_root
from monai_thyroid.training.check import (
    check_config,
    check_file,
    check_start,
    configured_networks,
    input_size,
    output_size,
)
from monai_thyroid.training.distributed import (
    SameBuffers,
    ShardedSampler,
    data_parallel,
    join_processes,
    own_device,
    processes,
    rank,
    shard,
)
from monai_thyroid.training.graphed import GraphedTrainer
from monai_thyroid.training.handlers import EarlyStop
from monai_thyroid.training.recipe import ClipGradients, WeightAverage, decay_groups, learning_rate, normalisation
from monai_thyroid.training.recorder import Recorder
from monai_thyroid.training.schedule import TimeBudget, WarmUpCosine
from monai_thyroid.training.session import TrainingSession, training_session
from monai_thyroid.training.validations import LastValidation, LrSchedule

__all__ = [
    "ClipGradients",
    "EarlyStop",
    "GraphedTrainer",
    "LastValidation",
    "LrSchedule",
    "Recorder",
    "SameBuffers",
    "ShardedSampler",
    "TimeBudget",
    "TrainingSession",
    "WarmUpCosine",
    "WeightAverage",
    "boolean",
    "bundle_root",
    "check_config",
    "check_file",
    "check_start",
    "configured_networks",
    "data_parallel",
    "decay_groups",
    "input_size",
    "join_processes",
    "learning_rate",
    "normalisation",
    "output_size",
    "own_device",
    "processes",
    "rank",
    "shard",
    "training_session",
]
