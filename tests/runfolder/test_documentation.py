"""The documentation describes the run folder as it is, well enough that one is made from the description alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from monai_thyroid.compare import make_report
from monai_thyroid.compare.reading import find_runs
from monai_thyroid.files import read_json, write_json
from monai_thyroid.metrics import METRICS, SCORE_COLUMNS
from monai_thyroid.runfolder.documentation import END, PAGES, START, documentation, policy
from monai_thyroid.runfolder.schema import CASE_COLUMNS, HISTORY_COLUMNS, EvaluationRecord, RunRecord


def described(root: Path, page: str = "docs/run-folder.md") -> str:
    return (root / page).read_text("utf-8").partition(START)[2].partition(END)[0].strip()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_holds_what_the_schema_says(root: Path, page: str) -> None:
    assert described(root, page) == PAGES[page](), "python -m monai_thyroid.runfolder.documentation"


def test_every_metric_has_its_rule_and_source() -> None:
    rows = [line.split(" | ") for line in policy().splitlines() if line.startswith("| ")]
    assert [row[0].strip("| ") for row in rows[2:]] == list(METRICS)
    assert all(row[-1].startswith("[") for row in rows[2:])
    assert "dice | 2tp / (2tp + fp + fn) | 1 | 0 | 0 |" in policy()


def test_every_key_and_column_is_described() -> None:
    text = documentation()
    names = {*RunRecord.columns(), *EvaluationRecord.columns(), *HISTORY_COLUMNS, *CASE_COLUMNS}
    rows = dict(re.findall(r"^\| \**([\w.]+)\** \|(.*)\|$", text, re.MULTILINE))
    assert names <= set(rows)
    assert {*SCORE_COLUMNS} <= set(CASE_COLUMNS)


def table(text: str, title: str) -> dict[str, bool]:
    """Names in the table after a title, and whether they are bold."""
    rows = text.partition(f"`{title}`")[2].partition("| --- |")[2].partition("\n\n")[0]
    return {name.strip("*"): name.startswith("**") for name in re.findall(r"^\| (\S+) \|", rows, re.MULTILINE)}


VALUES = {
    **{"dataset": "neck", "part": "test", "class": "nodule", "tp": 40, "fp": 10, "fn": 10, "tn": 940},
    **{"n_ref": 1, "n_pred": 1, "n_matched": 1, "site": "", "error": "", "ref_empty": "false", "pred_empty": "false"},
    **{"height": 40, "width": 25, "spacing_y": "nan", "spacing_x": "nan", "hd95": 3, "asd": 1},
    **{"iou": 0.667, "specificity": 0.989, "accuracy": 0.98},  # the others are 0.8
}
RUN = {"dataset": "neck", "network": "unet", "seed": 0, "classes": ["nodule"], "status": "done"}


def write_by_hand(folder: Path, root: Path, network: str, *, only_needed: bool) -> None:
    """A run folder with what the page names, or what it names as needed."""
    text = described(root)
    scored = folder / "evaluations" / "neck-test"
    scored.mkdir(parents=True)
    record = {name: RUN.get(name) for name, bold in table(text, "run.json").items() if bold or not only_needed}
    write_json(folder / "run.json", {**record, "network": network})
    columns = list(table(text, "history.csv"))
    epochs = [",".join(str(epoch if name in ("epoch", "stage") else 0.5) for name in columns) for epoch in (1, 2)]
    (folder / "history.csv").write_text("\n".join([",".join(columns), *epochs]) + "\n")
    columns = [name for name, bold in table(text, "cases.csv").items() if bold or name in ("group", "dice", "iou")]
    columns = columns if only_needed else list(table(text, "cases.csv"))
    lines = [",".join(columns)]
    for case in range(8):
        values = {**VALUES, "case": f"c{case}", "group": f"p{case // 2}"}
        lines.append(",".join(str(values.get(name, 0.8)) for name in columns))
    (scored / "cases.csv").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("only_needed", [True, False])
def test_a_folder_made_by_the_description_alone_can_be_read(root: Path, tmp_path: Path, only_needed: bool) -> None:
    write_by_hand(tmp_path / "runs" / "unet", root, "unet", only_needed=only_needed)
    (run,), unusable = find_runs([tmp_path / "runs"])
    assert not unusable
    assert (run.network, run.grouping, len(run.scored.rows)) == ("unet", "known", 8)


def test_a_report_is_made_of_folders_that_were_made_by_the_description_alone(root: Path, tmp_path: Path) -> None:
    for network in ("unet", "segnet"):
        write_by_hand(tmp_path / "runs" / network, root, network, only_needed=False)
    make_report([tmp_path / "runs"], output=tmp_path / "report")
    report = read_json(tmp_path / "report" / "report.json")
    assert {row["network"] for row in report["sections"][0]["networks"]} == {"unet", "segnet"}
