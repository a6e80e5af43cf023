"""The run folder: the files that a training leaves, from which everything else is made. No torch.

`schema` says what the files hold, `reading` reads and `folder` writes them, `places` finds them, in a packed bundle
too, `listing` lists many, `hashes` identifies a run, `older` brings configurations of earlier versions up to date.
"""

from __future__ import annotations

from monai_thyroid.runfolder.folder import (
    EvaluationFolder,
    RunFolder,
    dataset_path,
    ensemble_path,
    evaluation_path,
    run_path,
)
from monai_thyroid.runfolder.hashes import (
    differing_settings,
    labels_digest,
    network_definition,
    protocol_hash,
    references_hash,
    run_hash,
)
from monai_thyroid.runfolder.listing import Listed, Order, list_runs, one_line, runs_table, sorted_runs
from monai_thyroid.runfolder.places import RunFiles, run_files
from monai_thyroid.runfolder.reading import (
    Evaluation,
    evaluation_records,
    finished_epochs,
    grouping_of,
    read_config,
    read_evaluation,
    read_history,
    read_run,
    read_split,
    same_postprocessing,
)
from monai_thyroid.runfolder.schema import (
    CASE_COLUMNS,
    KEY_COLUMNS,
    ROBUSTNESS_COLUMNS,
    SCHEMA_VERSION,
    CalibrationRow,
    CaseRow,
    EvaluationRecord,
    HistoryRow,
    MeasureRow,
    RobustnessRow,
    RunRecord,
)

__all__ = [
    "CASE_COLUMNS",
    "KEY_COLUMNS",
    "ROBUSTNESS_COLUMNS",
    "SCHEMA_VERSION",
    "CalibrationRow",
    "CaseRow",
    "Evaluation",
    "EvaluationFolder",
    "EvaluationRecord",
    "HistoryRow",
    "Listed",
    "MeasureRow",
    "Order",
    "RobustnessRow",
    "RunFiles",
    "RunFolder",
    "RunRecord",
    "dataset_path",
    "differing_settings",
    "ensemble_path",
    "evaluation_path",
    "evaluation_records",
    "finished_epochs",
    "grouping_of",
    "labels_digest",
    "list_runs",
    "network_definition",
    "one_line",
    "protocol_hash",
    "read_config",
    "read_evaluation",
    "read_history",
    "read_run",
    "read_split",
    "references_hash",
    "run_files",
    "run_hash",
    "run_path",
    "runs_table",
    "same_postprocessing",
    "sorted_runs",
]
