"""What the documentation says of the run folder and its scores: ``python -m monai_thyroid.runfolder.documentation``.

Tables of files, keys and columns are made from the schema, the rules of the scores from their registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from pathlib import Path

from monai_thyroid.files import atomic_path, with_made_part
from monai_thyroid.metrics import METRICS, ScoringPolicy
from monai_thyroid.runfolder.schema import (
    SCHEMA_VERSION,
    CalibrationRow,
    CaseKey,
    EvaluationRecord,
    HistoryRow,
    MeasureRow,
    Record,
    RobustnessRow,
    RunRecord,
    scores,
)

__all__ = ["PAGES", "documentation", "policy"]

START = "<!-- made by `python -m monai_thyroid.runfolder.documentation` -->"
END = "<!-- end of what is made -->"

_FILES = {
    "**run.json**": "what was run, on what, with what result; keys below",
    "**history.csv**": "an epoch a row; columns below. None, and no weights, where masks were scored (`scored_from`)",
    "config.yaml": "the configuration as executed, overrides applied, with the `schema_version`; where masks were "
    "scored, what `score` was told",
    "split.json": "`dataset grouping how fold data_hash warnings`, and in `parts`, of `train`, `validation` and `test` "
    "the lists `cases` and, in their order, `image_sha256`; `groups` and `sites` are those that occur, each once",
    "model.pt": "the best weights on validation, tensors by name",
    "last.pt": "all that resuming needs; of several stages also `stage-<k>.pt`, the best weights of one, from which "
    "the next one started",
    "figures/": "curves; worst, median and best cases with both outlines",
    "tensorboard/": "event files",
    "ensembles/`<hash>`/": "what `monai-thyroid ensemble` scored: `members.json`, and `evaluations/` as below, with "
    "the `agreement` of the members in `agreement.csv`",
    "exports/, runtimes/": "what `export` wrote, and what `predict` found out; the latter may be deleted any time",
    "**evaluations/`<dataset>`-`<part>`[-`<site>`]/**": "an evaluation; that of other data whose name is taken has the "
    "first 8 digits of their hash behind it. In it:",
    "… **cases.csv**": "every score of every case and class on the original image grid; the only source of every table "
    "and test in a report",
    "… calibration.csv": "per case and class how often which probability was right; none of masks",
    "… measures.csv": "clinical measures, where there are any",
    "… robustness.csv": "scores of degraded images, where `monai-thyroid robustness` was asked for",
    "… evaluation.json": "what was scored; keys below",
    "… predictions/`<case>`.png": "masks on the original grid: of one class 0 and 255; of several the number of the "
    "class in the order of `classes`, 0 for the background, as palette indices",
    "… references/`<case>`.png": "likewise",
    "… images/`<case>`.jpg": "the image, at most 1024 pixels wide and high",
}


def documentation() -> str:
    """The tables of files, keys and columns, as Markdown."""
    lines = [
        f"Schema version {SCHEMA_VERSION}. A report needs what is **bold**, of runs whose `status` is `done`, and uses "
        "what else there is: a file, key or column that is left out counts as null, or as not scored. JSON holds no "
        "NaN; CSV is UTF-8 with a header line and commas, and an empty field is null.",
        "",
        *_table(("file", "holds"), _FILES.items()),
    ]
    for cls in (RunRecord, EvaluationRecord):
        lines += ["", f"`{cls.file}`:", "", *_table(("key", "kind", "is"), _rows(cls))]
    lines += ["", f"`{HistoryRow.file}`:", "", *_table(("column", "kind", "is"), _rows(HistoryRow))]
    others = ", ".join(f"`{cls.file}`" for cls in (CalibrationRow, MeasureRow)) + f" and `{RobustnessRow.file}`"
    lines += ["", f"`cases.csv`; the first six columns are also those of {others}:", ""]
    columns = [
        (f"**{name}**" if one.needed else name, _kind(one.kind.__name__, one.unit), one.meaning)
        for name, one in scores().items()
    ]
    lines += _table(
        ("column", "kind", "is"),
        [*_rows(CaseKey), *columns, ("error", "text", "why the case could not be scored, whose scores are then empty")],
    )
    lines += [
        "",
        "`calibration.csv` besides: `n_pixels`; `brier`, the mean squared difference of probability and reference; and "
        "of 15 bins of probability (i/15 < p <= (i+1)/15) the pixels `count_00` to `count_14`, the sums of their "
        "probabilities `probability_sum_00` ... and their foreground pixels in the reference `reference_sum_00` ...",
        "",
        "`measures.csv` besides:",
        "",
        *_table(("column", "kind", "is"), [row for row in _rows(MeasureRow) if row not in _rows(CaseKey)]),
        "",
        f"`{RobustnessRow.file}` besides: `degradation`, `strength` (0: none, which is cases.csv) and its `unit`, and, "
        "as in cases.csv, `tp fp fn tn dice`.",
    ]
    return "\n".join(lines)


def policy() -> str:
    """The scoring policy: its terms, a row for every metric, and what one has to know of each, as Markdown."""
    terms = ScoringPolicy().describe().partition("\n\n")[0]
    columns = ("metric", "definition", "both empty", "missed", "false alarm", "to know", "source")
    rows = [
        (
            name,
            one.definition,
            *map(_rule, (one.both_empty, one.missed, one.false_alarm)),
            one.note,
            _source(one.source),
        )
        for name, one in METRICS.items()
    ]
    return "\n".join(["\n\n".join(terms.splitlines()), "", *_table(columns, rows)])


PAGES: Mapping[str, Callable[[], str]] = {"docs/run-folder.md": documentation, "docs/scoring.md": policy}
"""Pages of the repository, and what is made in them."""


def _rule(value: float | str) -> str:
    words = {"diagonal": "the image's diagonal", "computed": "as defined"}
    return words[value] if isinstance(value, str) else f"{value:g}"


def _source(source: str) -> str:
    where = (
        source.replace("arXiv:", "https://arxiv.org/abs/")
        if source.startswith("arXiv:")
        else f"https://doi.org/{source}"
    )
    return f"[{source}]({where})"


def _rows(cls: type[Record]) -> list[tuple[str, str, str]]:
    rows = []
    for one in fields(cls):  # type: ignore[arg-type]
        if one.metadata:
            name = one.metadata["name"] or one.name
            kind = _kind(str(one.type).removesuffix(" | None"), one.metadata["unit"])
            rows.append((f"**{name}**" if one.metadata["needed"] else name, kind, one.metadata["meaning"]))
    return rows


def _kind(name: str, unit: str) -> str:
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "dict": "object"}
    words |= {"list[str]": "list of texts", "list[dict]": "list of objects"}
    return words[name] + (f", {unit}" if unit else "")


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]


if __name__ == "__main__":
    for page, make in PAGES.items():
        text = with_made_part(Path(page).read_text("utf-8"), make(), start=START, end=END, where=page)
        with atomic_path(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
