"""Figures of a comparison report, each as PNG and SVG. Matplotlib without a display or global state.

Every function draws one figure, writes ``<folder>/<name>.png`` (200 dpi) and ``<folder>/<name>.svg`` (text stays
text) into a folder that must exist, and returns ``name``. The same content gives the same bytes. Widths are those of a
printed column (3.4 in) or page (7.2 in), no text is smaller than 7 pt, and nothing is told by colour alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from monai_thyroid.drawing import BLUE, LINES, PREDICTION, REFERENCE, SKY_BLUE, VERMILION, draw_outline
from monai_thyroid.files import atomic_path

__all__ = [
    "Panel",
    "average_ranks",
    "bland_altman",
    "case_strips",
    "confusion_matrices",
    "coverage_curves",
    "curves",
    "degradation_curves",
    "gallery",
    "mean_bars",
    "paired_differences",
    "power_curves",
    "rank_bars",
    "reliability_diagram",
    "shift_heatmap",
    "significance_map",
    "subgroup_intervals",
    "verdict_map",
]

COLUMN, PAGE = 3.4, 7.2  # inches

# Seven colours and four line styles have no common factor: 28 networks before a pair comes again.
_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vPX*"
_RC = {
    "font.size": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.alpha": 0.4,
    "grid.linewidth": 0.5,
    "hatch.linewidth": 0.8,
    "text.parse_math": False,  # a name with dollar signs is a name
    "svg.fonttype": "none",
    "svg.hashsalt": "monai_thyroid",
}


@contextmanager
def _figure(folder: Path, name: str, width: float, height: float) -> Iterator[Any]:
    """Give a figure of this size in inches to draw on, and save it when the block ends well."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _RC]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure
        for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            with atomic_path(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, dpi=200, metadata=metadata)


def _rows(axes: Any, labels: Sequence[str]) -> None:
    """One horizontal place per label, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")


def _look(index: int) -> dict[str, Any]:
    return {
        "color": LINES[index % len(LINES)],
        "linestyle": _STYLES[index % len(_STYLES)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "markersize": 3.5,
    }


def _legend(figure: Any, handles: Sequence[Any], columns: int) -> None:
    """Below everything else, so that it covers nothing."""
    figure.legend(handles=handles, loc="outside lower center", ncols=min(columns, len(handles)), handlelength=3.2)


def _legend_height(count: int, columns: int) -> float:
    return 0.16 * -(-count // columns) + 0.1


def _intervals(axes: Any, intervals: Sequence[tuple[float, float]]) -> None:
    """Draw intervals as they are, also where one does not hold the value it belongs to."""
    low, high = np.asarray(intervals, float).reshape(-1, 2).T
    half = (high - low) / 2
    axes.errorbar((low + high) / 2, np.arange(len(low)), xerr=half, fmt="none", color="black", capsize=2.5, lw=1)


def mean_bars(
    folder: Path,
    name: str,
    *,
    labels: Sequence[str],
    means: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    ylabel: str,
) -> str:
    """Draw means as bars from 0 with their intervals, one network a row, so that long names stay level.

    Args:
        labels: one a bar, the first on top.
        means: one a bar; NaN draws none and says so.
        intervals: (low, high) a bar; NaN draws none.
        ylabel: what is measured, with its unit; it names the axis of the values.
    """
    with _figure(folder, name, COLUMN, 0.2 * len(labels) + 0.6) as figure:
        axes = figure.subplots()
        axes.barh(range(len(labels)), means, height=0.7, color=PREDICTION, edgecolor="black", linewidth=0.5)
        _intervals(axes, intervals)
        for place, mean in enumerate(means):
            # At the right edge in one column: beside the bars they would meet the intervals.
            text = f"{mean:.3g}" if np.abs(mean) >= 1 else f"{mean:.3f}"
            axes.annotate(
                text if np.isfinite(mean) else "no value",
                (1.02, place),
                xycoords=axes.get_yaxis_transform(),
                va="center",
                fontsize=7,
            )
        _rows(axes, labels)
        axes.set_xlabel(ylabel)
    return name


def case_strips(folder: Path, name: str, *, labels: Sequence[str], values: Sequence[np.ndarray], ylabel: str) -> str:
    """Draw every case as a point over a box (quartiles, whiskers to 1.5 interquartile ranges) with median and mean.

    Args:
        labels: one a row, the first on top.
        values: of each row, (cases,); NaN is left out and counted beside the label.
        ylabel: what is measured, with its unit; it names the axis of the values.
    """
    from matplotlib.cbook import boxplot_stats
    from matplotlib.lines import Line2D

    kept = [np.asarray(one, float)[np.isfinite(one)] for one in values]
    missing = [len(one) - len(rest) for one, rest in zip(values, kept, strict=True)]
    with _figure(folder, name, PAGE, 0.32 * len(labels) + 0.85) as figure:
        axes = figure.subplots()
        jitter = np.random.default_rng(0)
        many = sum(map(len, kept)) > 5000  # as many shapes would make an SVG that no browser opens
        for place, one in enumerate(kept):
            if not one.size:
                continue
            box = boxplot_stats(one)[0]
            axes.hlines(place, box["whislo"], box["whishi"], color="black", lw=0.8)
            axes.barh(place, box["q3"] - box["q1"], left=box["q1"], height=0.62, fc="0.88", ec="black", lw=0.8)
            places = place + jitter.uniform(-0.26, 0.26, len(one))
            axes.scatter(one, places, s=4, color=BLUE, alpha=0.55, linewidths=0, zorder=2, rasterized=many)
            axes.vlines(box["med"], place - 0.31, place + 0.31, color="black", lw=1.8, zorder=3)
            axes.plot(one.mean(), place, "D", color="white", mec="black", mew=0.9, ms=4.5, zorder=4)
        _rows(axes, [f"{label} ({n} without value)" if n else label for label, n in zip(labels, missing, strict=True)])
        axes.set_xlabel(f"{ylabel} (axis does not begin at 0)" if axes.get_xlim()[0] > 0 else ylabel)
        handles = [
            Line2D([], [], color=BLUE, ls="none", marker="o", ms=2.5, label="one case"),
            Line2D([], [], color="black", ls="none", marker="|", ms=8, mew=1.8, label="median"),
            Line2D([], [], color="white", ls="none", marker="D", mec="black", mew=0.9, ms=4.5, label="mean"),
        ]
        _legend(figure, handles, 3)
    return name


def curves(folder: Path, name: str, *, histories: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> str:
    """Draw training loss, validation loss and validation Dice: seeds thin, their mean thick, stages marked.

    Args:
        histories: of each network its runs, each the rows of history.csv. A value that was not measured is ``None``
            and bridged; NaN (a run that diverged) is a gap. The mean ends where the first run ends.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label, **_look(index)) for index, label in enumerate(histories)]
    starts = sorted({epoch for runs in histories.values() for run in runs for epoch in _stage_starts(run)})
    if starts:
        handles.append(Line2D([], [], ls="none", marker="v", color="0.5", ms=4, label="a stage begins"))
    with _figure(folder, name, PAGE, 2.8 + _legend_height(len(handles), 4)) as figure:
        for axes, (column, title) in zip(
            figure.subplots(1, 3),
            (("train_loss", "Training loss"), ("val_loss", "Validation loss"), ("val_dice", "Validation Dice")),
            strict=True,
        ):
            for index, runs in enumerate(histories.values()):
                look = _look(index)
                table = [_column(run, column) for run in runs]
                if len(table) > 1:
                    for values in table:
                        axes.plot(*_measured(values), **{**look, "marker": None}, lw=0.5, alpha=0.5)
                together = zip(*table, strict=False)  # up to the end of the shortest
                x, y = _measured([None if None in values else float(np.mean(values)) for values in together])
                # A marker now and then tells the networks apart in grey.
                step = max(1, len(x) // 6)
                axes.plot(x, y, lw=1.2, markevery=(index % step, step), **look)
            for epoch in starts:
                axes.plot(epoch, 1.02, "v", color="0.5", ms=3.5, transform=axes.get_xaxis_transform(), clip_on=False)
            if not any(_measured(_column(run, column))[0] for runs in histories.values() for run in runs):
                axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
            axes.set_xlabel("Epoch")
            axes.set_ylabel(title)
            axes.set_xlim(0, 1 + max((len(run) for runs in histories.values() for run in runs), default=1))
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid()
            if column == "val_dice":
                axes.set_ylim(0, 1)
        _legend(figure, handles, 4)
    return name


def _stage_starts(run: Sequence[Mapping[str, Any]]) -> list[int]:
    """Epochs, counted from 1 through all stages, that begin a stage after the first."""
    stages = [row["stage"] for row in run]
    return [epoch + 1 for epoch in range(1, len(run)) if stages[epoch] != stages[epoch - 1]]


def _column(run: Sequence[Mapping[str, Any]], column: str) -> list[float | None]:
    """A column of a history, the infinite as NaN."""
    values = [row[column] for row in run]
    return [value if value is None or np.isfinite(value) else float("nan") for value in values]


def _measured(values: Sequence[float | None]) -> tuple[list[int], list[float]]:
    """Epochs from 1 with a value, and their values."""
    pairs = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def paired_differences(
    folder: Path,
    name: str,
    *,
    labels: Sequence[str],
    differences: Sequence[np.ndarray],
    intervals: Sequence[tuple[float, float]],
    xlabel: str,
) -> str:
    """Draw for each pair the difference of every group, and beside it, enlarged, their mean with its interval.

    Args:
        labels: one a pair, the first on top.
        differences: of each pair, (groups,); NaN is left out.
        intervals: (low, high) of the mean, a pair; NaN draws none.
        xlabel: what is measured, with its unit.
    """
    with _figure(folder, name, PAGE, 0.19 * len(labels) + 0.85) as figure:
        points, means = figure.subplots(1, 2, sharey=True)
        jitter = np.random.default_rng(0)
        kept = [np.asarray(one, float)[np.isfinite(one)] for one in differences]
        many = sum(map(len, kept)) > 5000
        for place, one in enumerate(kept):
            places = place + jitter.uniform(-0.25, 0.25, len(one))
            points.scatter(one, places, s=5, color=BLUE, alpha=0.55, linewidths=0, rasterized=many)
            means.plot(one.mean() if one.size else np.nan, place, "D", color=VERMILION, mec="black", mew=0.5, ms=4)
        _intervals(means, intervals)
        for axes, title in ((points, "Each group"), (means, "Mean and 95 % interval (enlarged)")):
            axes.axvline(0, color="black", lw=0.8, ls="--")
            axes.set_title(title)
            axes.locator_params(axis="x", nbins=5)  # more would run together in half a page
        _rows(means, labels)
        _rows(points, labels)
        figure.supxlabel(xlabel, fontsize=8)
    return name


def confusion_matrices(folder: Path, name: str, *, matrices: Mapping[str, np.ndarray]) -> str:
    """Draw a confusion matrix of pixels a network: the share of the reference's row, and the count.

    Args:
        matrices: of each network (classes, classes), rows the reference, columns the prediction, 0 the background.
    """
    classes = max(len(matrix) for matrix in matrices.values())
    names = ["background", "foreground"] if classes == 2 else ["background", *map(str, range(1, classes))]
    columns = max(1, min(len(matrices), 9 // classes))
    lines = -(-len(matrices) // columns)
    width = COLUMN if columns * classes <= 4 else PAGE
    cell = min(0.62, (width - 1.0) / columns / classes)
    with _figure(folder, name, width, lines * (cell * classes + 0.35) + 0.8) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for place, axes in enumerate(grid.flat):
            # The lowest of each column bears its labels, also where the last line is not full.
            axes.tick_params(labelbottom=place + columns >= len(matrices))
            axes.axis("on" if place < len(matrices) else "off")
        for axes, (label, matrix) in zip(grid.flat, matrices.items(), strict=False):
            counts = np.asarray(matrix, float)
            total = counts.sum(axis=1, keepdims=True)
            shares = np.divide(counts, total, out=np.full_like(counts, np.nan), where=total > 0)
            texts = np.empty(counts.shape, dtype=object)
            for cell_of, count in np.ndenumerate(counts):
                share = shares[cell_of]
                texts[cell_of] = f"{'–' if np.isnan(share) else f'{share:.3f}'}\n{_short(count)}"
            _cells(axes, shares, texts)
            axes.set_title(label)
            axes.set_xticks(range(classes), names)
            axes.set_yticks(range(classes), names, rotation=90, va="center")
        figure.supxlabel("Prediction", fontsize=8)
        figure.supylabel("Reference", fontsize=8)
    return name


def _short(count: float) -> str:
    """A count in four digits at most: 12, 3.46k, 120M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.0f}"


def _cells(axes: Any, shades: np.ndarray, texts: np.ndarray) -> None:
    """Draw a table of 0 to 1, dark for much, with a text in every cell; NaN is white."""
    axes.imshow(shades, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), text in np.ndenumerate(texts):
        colour = "white" if shades[row, column] > 0.72 else "black"
        axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    height, width = shades.shape
    axes.hlines(np.arange(1, height) - 0.5, -0.5, width - 0.5, color="white", lw=1)
    axes.vlines(np.arange(1, width) - 0.5, -0.5, height - 0.5, color="white", lw=1)


def average_ranks(
    folder: Path, name: str, *, average_ranks: Mapping[str, float], cliques: Sequence[Sequence[str]]
) -> str:
    """Draw average ranks on a line, best on the left, and bars over the networks that are not told apart.

    After J. Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006), but without a
    critical difference, as pairs are told apart by tests of their own. A bar can run over a network that is not in its
    clique; dots mark those that are.

    Args:
        average_ranks: of each network, 1 is best.
        cliques: networks that do not differ from each other; those of one network are not drawn.
    """
    from matplotlib.lines import Line2D

    ranked = sorted(average_ranks, key=lambda label: (average_ranks[label], label))
    last = max(2, len(ranked))
    bars = sorted(sorted(average_ranks[label] for label in clique) for clique in cliques if len(clique) > 1)
    levels: list[float] = []  # where each level's last bar ends
    half = -(-len(ranked) // 2)
    with _figure(folder, name, PAGE, 0) as figure:
        axes = figure.subplots()
        axes.hlines(0, 1, last, color="black", lw=1)
        for tick in range(1, last + 1):
            axes.vlines(tick, -0.25, 0, color="black", lw=1)
            axes.text(tick, -0.4, str(tick), ha="center", va="bottom", fontsize=7)
        for bar in bars:
            level = next((n for n, end in enumerate(levels) if end < bar[0]), len(levels))
            levels[level : level + 1] = [bar[-1]]
            axes.plot(bar, [0.5 + 0.55 * level] * len(bar), "-o", color=VERMILION, lw=2.5, ms=4.5, zorder=3)
        top = 0.5 + 0.55 * len(levels) + 0.4
        for place, label in enumerate(ranked):
            rank, left = average_ranks[label], place < half
            y = top + 0.85 * (place if left else len(ranked) - 1 - place)
            edge = 1 - 0.02 * last if left else last + 0.02 * last
            axes.plot([rank, rank, edge], [0, y, y], color="black", lw=0.8)
            axes.plot(rank, 0, "o", color="black", ms=3.5)
            text = f"{label} ({rank:.2f})" if left else f"({rank:.2f}) {label}"
            axes.annotate(
                text, (edge, y), (-3 if left else 3, 0), textcoords="offset points", ha="right" if left else "left",
                va="center",
            )  # fmt: skip
        bottom, above = top + 0.85 * (half - 1) + 0.5, -1.2
        axes.set_ylim(bottom, above)
        axes.axis("off")
        bar_handle = Line2D([], [], color=VERMILION, marker="o", lw=2.5, ms=4.5)
        bar_handle.set_label("not told apart by the adjusted pairwise tests (dots: the networks meant)")
        if bars:
            _legend(figure, [bar_handle], 1)
        figure.set_size_inches(PAGE, 0.19 * (bottom - above) + 0.35)
    return name


_LEVELS = ((0.001, "< 0.001", 0.95), (0.01, "< 0.01", 0.6), (0.05, "< 0.05", 0.3), (np.inf, "n.s.", 0.06))


def significance_map(folder: Path, name: str, *, labels: Sequence[str], p_adjusted: np.ndarray) -> str:
    """Draw the level of every pair's adjusted p, in shade and in words.

    Args:
        labels: one a network.
        p_adjusted: (networks, networks); NaN on the diagonal, and where no test is possible.
    """
    size = len(labels)
    width = COLUMN if size <= 4 else PAGE
    shades = np.full((size, size), np.nan)
    texts = np.full((size, size), "", dtype=object)
    for row, column in np.argwhere(~np.eye(size, dtype=bool)):
        p = p_adjusted[row, column]
        hit = ("no test", np.nan) if np.isnan(p) else next(level[1:] for level in _LEVELS if p < level[0])
        texts[row, column], shades[row, column] = hit
    with _figure(folder, name, width, 0.26 * size + 1.5) as figure:
        axes = figure.subplots()
        _cells(axes, shades, texts)
        axes.set_xticks(range(size), labels, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), labels)
        axes.set_xlabel("Adjusted p; n.s.: not significant, p ≥ 0.05")
    return name


def power_curves(
    folder: Path,
    name: str,
    *,
    differences: Sequence[float],
    power: Mapping[int, Sequence[float]],
    groups: Sequence[int],
    detectable: Mapping[int, Sequence[float]],
    asked: float,
    here: int,
    difference: float | None,
    axis: str,
) -> str:
    """Draw the power over the difference, and the difference that is found over the number of groups; a line a seed.

    Args:
        differences: at which the power is known.
        power: of each number of seeds, 0 to 1, as many.
        groups: at which the difference that is found is known.
        detectable: of each number of seeds, as many; NaN where nothing is found.
        asked: the power that counts as found, marked.
        here: the number of groups at hand, marked.
        difference: that is looked for, marked; None for none.
        axis: name of the score.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    handles = []
    with _figure(folder, name, PAGE, 2.9 + _legend_height(len(power) + 1, 3)) as figure:
        left, right = figure.subplots(1, 2)
        for index, seeds in enumerate(power):
            look = {**_look(index), "lw": 1.2}
            left.plot(differences, power[seeds], **look)
            right.plot(groups, detectable[seeds], **look)
            handles.append(Line2D([], [], label=f"{seeds} seed{'s' * (seeds > 1)} a network", **look))
        marked: dict[str, Any] = {"color": "0.35", "lw": 1, "ls": (0, (1, 1.5))}
        left.axhline(asked, **marked)
        right.axvline(here, **marked)
        if difference is not None:
            left.axvline(difference, **marked)
            right.axhline(difference, **marked)
        handles.append(Line2D([], [], label="asked for, or at hand", **marked))
        left.set(ylim=(0, 1.02), xlabel=f"True difference of {axis}", ylabel="Probability of the claim")
        left.set_title(f"{here} groups")
        left.set_xlim(0, None)
        right.set(xscale="log", xlabel="Groups (log scale)", ylabel=f"Difference of {axis} that is found")
        right.set_title(f"found with a probability of {100 * asked:.0f} %")
        right.set_ylim(0, None)
        right.set_xticks(groups)
        right.xaxis.set_major_formatter(ScalarFormatter())
        right.xaxis.set_minor_formatter(NullFormatter())
        right.xaxis.set_tick_params(which="minor", length=0)
        for axes in (left, right):
            axes.grid()
        _legend(figure, handles, 3)
    return name


def coverage_curves(
    folder: Path, name: str, *, curves: Mapping[str, Sequence[float]], marks: Sequence[float], ylabel: str
) -> str:
    """Draw what the rest of the cases scores over the share of cases that go to a person.

    Args:
        curves: of each network the mean score when 0, 1, 2, ... cases were given away, up to half of them.
        marks: shares that are marked.
        ylabel: what is measured, with its unit.
    """
    from matplotlib.lines import Line2D

    with _figure(folder, name, COLUMN, 2.5 + _legend_height(len(curves), 2)) as figure:
        axes = figure.subplots()
        handles = []
        for index, (label, curve) in enumerate(curves.items()):
            shares = np.linspace(0, 50, len(curve))
            look = {**_look(index), "lw": 1.2}
            at = sorted({int(np.abs(shares - 100 * mark).argmin()) for mark in marks})
            axes.plot(shares, curve, markevery=at, **look)
            handles.append(Line2D([], [], label=label, **look))
        axes.set(xlabel="Least agreed cases given to a person [%]", ylabel=ylabel, xlim=(-1, 51))
        axes.grid()
        _legend(figure, handles, 2)
    return name


def bland_altman(
    folder: Path,
    name: str,
    *,
    points: Mapping[str, tuple[np.ndarray, np.ndarray]],
    limits: Mapping[str, Sequence[tuple[float, float, float]]],
    measure: str,
    unit: str,
) -> str:
    """Draw a panel a network: differences over means, with mean difference and limits of agreement, named at the right.

    Args:
        points: of each network the means of prediction and reference, and predicted less reference, each (cases,).
        limits: of each (value, low, high) of the lower limit, the mean and the upper limit; NaN draws no interval.
        measure: in words.
        unit: of all of them.
    """
    columns = min(2, len(points))
    lines = -(-len(points) // columns)
    with _figure(folder, name, COLUMN if columns == 1 else PAGE, min(2.5, 10 / lines) * lines + 0.2) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes in list(grid.flat)[len(points) :]:
            axes.axis("off")
        every = np.concatenate([np.abs(of).ravel() for _, of in points.values()])
        decimals = 1 if every.max(initial=0) >= 1 else 2
        for place, (label, (means, differences)) in enumerate(points.items()):
            axes = grid.flat[place]
            axes.tick_params(labelbottom=place + columns >= len(points))  # the lowest of each column
            many = len(means) > 5000
            axes.scatter(means, differences, s=7, color=BLUE, alpha=0.6, linewidths=0, zorder=2, rasterized=many)
            axes.axhline(0, color="black", lw=0.8, ls=":")
            for number, ((value, low, high), style) in enumerate(zip(limits[label], ("--", "-", "--"), strict=True)):
                if not np.isfinite(value):
                    continue
                if np.isfinite(low):
                    # Side by side, as wide intervals overlap.
                    x, half = 0.955 + 0.018 * number, 0.006
                    across = {"transform": axes.get_yaxis_transform(), "color": VERMILION, "lw": 1.2, "zorder": 3}
                    axes.plot([x, x], [low, high], **across)
                    for end in (low, high):
                        axes.plot([x - half, x + half], [end, end], **across)
                axes.axhline(value, color=VERMILION, lw=1.2, ls=style)
                told = f"{value:+.{decimals}f}".replace("-", "\N{MINUS SIGN}")
                axes.annotate(told, (1.01, value), xycoords=axes.get_yaxis_transform(), va="center", fontsize=7)
            axes.set_title(f"{label} ({len(means)} images)")
            axes.margins(x=0.09)  # room for the intervals
            axes.grid()
        figure.supxlabel(f"Mean of predicted and reference {measure} [{unit}]", fontsize=8)
        figure.supylabel(f"Predicted less reference [{unit}]", fontsize=8)
    return name


def degradation_curves(
    folder: Path,
    name: str,
    *,
    panels: Mapping[str, Mapping[str, Sequence[tuple[float, float, float, float]]]],
    ylabel: str,
) -> str:
    """Draw a panel a degradation: of each network the mean at each strength, evenly spaced, with its interval.

    Args:
        panels: by title, of each network (strength, mean, low, high); NaN limits draw no interval.
        ylabel: what is measured.
    """
    from matplotlib.lines import Line2D

    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    height = 2.1 * lines + _legend_height(len(labels), 3)
    with _figure(folder, name, COLUMN if columns == 1 else PAGE, height) as figure:
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for axes in list(grid.flat)[len(panels) :]:
            axes.axis("off")
        handles = []
        for index, label in enumerate(labels):
            look = {**_look(index), "lw": 1.2}
            handles.append(Line2D([], [], label=label, **look))
            for axes, panel in zip(grid.flat, panels.values(), strict=False):
                if label in panel:
                    strength, mean, low, high = np.array(panel[label], dtype=float).T
                    # Beside each other, so that no interval hides another.
                    x = np.searchsorted(_strengths(panel), strength) + 0.05 * (index - (len(labels) - 1) / 2)
                    axes.plot(x, mean, **look)
                    axes.vlines(x, low, high, color=look["color"], lw=1)
        for axes, (title, panel) in zip(grid.flat, panels.items(), strict=False):
            axes.set_title(title)
            axes.set_xlabel("Strength")
            told = [f"{place:g}".replace("-", "\N{MINUS SIGN}") for place in _strengths(panel)]
            axes.set_xticks(range(len(told)), told)
            axes.grid()
        for axes in grid[:, 0]:
            axes.set_ylabel(ylabel)
        _legend(figure, handles, 3)
    return name


def _strengths(panel: Mapping[str, Sequence[tuple[float, float, float, float]]]) -> list[float]:
    return sorted({point[0] for own in panel.values() for point in own})


def subgroup_intervals(
    folder: Path,
    name: str,
    *,
    levels: Sequence[str],
    means: Mapping[str, Sequence[tuple[float, float, float]]],
    pale: Sequence[bool],
    xlabel: str,
) -> str:
    """Draw a block of rows a level: of each network the mean and its interval.

    Args:
        levels: names of the blocks, the first on top.
        means: of each network (mean, low, high) a level; NaN limits draw no interval.
        pale: of each level, whether it is too small to be taken at its word: hollow marks.
        xlabel: what is measured, with its unit.
    """
    from matplotlib.lines import Line2D

    count = len(means)
    step = 0.8 / max(count, 1)
    with _figure(
        folder, name, PAGE, max(0.28, 0.13 * count + 0.1) * len(levels) + 0.7 + _legend_height(count, 3)
    ) as figure:
        axes = figure.subplots()
        handles = []
        for index, (label, own) in enumerate(means.items()):
            look = {**_look(index), "linestyle": "none", "markersize": 4}
            for place, (mean, low, high) in enumerate(own):
                y = place + (index - (count - 1) / 2) * step
                axes.hlines(y, low, high, color=look["color"], lw=1)
                axes.plot(mean, y, **look, mfc="white" if pale[place] else look["color"])
            handles.append(Line2D([], [], label=label, **look))
        for border in range(1, len(levels)):
            axes.axhline(border - 0.5, color="0.8", lw=0.6)
        _rows(axes, levels)
        axes.set_ylim(len(levels) - 0.45, -0.55)
        axes.set_xlabel(xlabel)
        _legend(figure, handles, 3)
    return name


_WORDS: dict[str, tuple[str, str]] = {  # ground and ink
    "better": (BLUE, "white"),
    "worse": (VERMILION, "black"),
    "equivalent": (SKY_BLUE, "black"),
    "not inferior": ("#D3EAF7", "black"),
    "undecided": ("#F2F2F2", "black"),
}


def verdict_map(folder: Path, name: str, *, labels: Sequence[str], words: np.ndarray) -> str:
    """Draw the verdict on every row's network beside every column's, in words on a ground of their own.

    Args:
        labels: one a network.
        words: str, (networks, networks): better, worse, equivalent, not inferior or undecided; empty on the diagonal.
    """
    from matplotlib.patches import Rectangle

    size = len(labels)
    width = COLUMN if size <= 3 else PAGE
    with _figure(folder, name, width, 0.26 * size + 1.3) as figure:
        axes = figure.subplots()
        _cells(axes, np.full((size, size), np.nan), np.full((size, size), "", dtype=object))
        for (row, column), word in np.ndenumerate(words):
            if word:
                ground, ink = _WORDS[word]
                axes.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc=ground, ec="white", lw=1))
                axes.text(column, row, word, ha="center", va="center", fontsize=7, color=ink)
        axes.set_xticks(range(size), labels, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(size), labels)
        axes.set_xlabel("The row's network beside the column's")
    return name


def reliability_diagram(
    folder: Path, name: str, *, curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> str:
    """Draw observed frequency over predicted probability, and beside it how many pixels each bin holds.

    Args:
        curves: of each network (mean probability, share of foreground, number of pixels), each (bins,); bins without
            pixels are left out.
    """
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color="0.5", lw=1, label="perfect calibration")]
    with _figure(folder, name, PAGE, 3.1 + _legend_height(len(curves) + 1, 4)) as figure:
        reliability, amount = figure.subplots(1, 2)
        reliability.plot([0, 1], [0, 1], color="0.5", lw=1)
        for index, (label, (confidence, frequency, count)) in enumerate(curves.items()):
            there = np.asarray(count) > 0
            x = np.asarray(confidence)[there]
            look = {**_look(index), "lw": 1}
            reliability.plot(x, np.asarray(frequency)[there], **look)
            share = np.asarray(count, float)[there]
            amount.plot(x, share / max(share.sum(), 1), **look)
            handles.append(Line2D([], [], label=label, **look))
        reliability.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", ylabel="Observed share of foreground")
        amount.set(xlim=(0, 1), yscale="log", ylabel="Share of pixels (log scale)", box_aspect=1)
        amount.set_ylim(min(0.09, amount.get_ylim()[0]), 1.5)  # always two ticks, as only powers of ten are named
        amount.yaxis.set_major_formatter("{x:g}")
        amount.yaxis.set_minor_formatter("")
        for axes in (reliability, amount):
            axes.set_xlabel("Predicted probability")
            axes.grid()
        _legend(figure, handles, 4)
    return name


def rank_bars(folder: Path, name: str, *, shares: Mapping[str, Sequence[float]]) -> str:
    """Draw how often each network came to each rank over resamplings, as one bar a network.

    Args:
        shares: of each network the shares (0 to 1) of rank 1, 2, ...; segments of 4 % or more bear their rank.
    """
    import matplotlib
    from matplotlib.patches import Patch

    ranks = max(len(one) for one in shares.values())
    # Dark for the first, light for the last: the order holds in grey too.
    colours = [matplotlib.colormaps["cividis"](0.95 * rank / max(1, ranks - 1)) for rank in range(ranks)]
    with _figure(folder, name, PAGE, 0.22 * len(shares) + 0.85) as figure:
        axes = figure.subplots()
        for place, one in enumerate(shares.values()):
            left = 0.0
            for rank, share in enumerate(one):
                axes.barh(place, share, left=left, height=0.75, color=colours[rank], edgecolor="white", linewidth=0.8)
                if share >= 0.04:
                    ink = "white" if rank < 0.5 * ranks else "black"
                    axes.text(left + share / 2, place, str(rank + 1), ha="center", va="center", color=ink, fontsize=7)
                left += share
        _rows(axes, list(shares))
        axes.set_xlim(0, 1)
        axes.set_xlabel("Share of resamplings")
        handles = [Patch(color=colour, label=f"{rank + 1}") for rank, colour in enumerate(colours)]
        figure.legend(
            handles=handles, title="Rank", title_fontsize=7, loc="outside lower center", ncols=ranks, handlelength=1.2
        )
    return name


def shift_heatmap(
    folder: Path,
    name: str,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    in_domain: np.ndarray,
) -> str:
    """Draw the Dice of each model on each dataset; a frame marks the dataset that a model was trained on.

    Args:
        rows: models.
        columns: datasets.
        values: (rows, columns), 0 to 1; NaN where nothing was evaluated.
        in_domain: bool, (rows, columns).
    """
    from matplotlib.patches import Patch, Rectangle
    from matplotlib.patheffects import withStroke

    table = np.asarray(values, float)
    with _figure(folder, name, COLUMN if len(columns) <= 3 else PAGE, 0.24 * len(rows) + 1.3) as figure:
        axes = figure.subplots()
        texts = np.array([["–" if np.isnan(value) else f"{value:.3f}" for value in line] for line in table])
        _cells(axes, table, texts)
        # Black within white is seen on every shade.
        frame: dict[str, Any] = {"fill": False, "path_effects": [withStroke(linewidth=3.2, foreground="white")]}
        for row, column in np.argwhere(in_domain):
            axes.add_patch(Rectangle((column - 0.46, row - 0.4), 0.92, 0.8, lw=1.2, ec="black", zorder=3, **frame))
        axes.set_xticks(range(len(columns)), columns, rotation=20, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_xlabel("Dice on the dataset")
        handles = [Patch(fill=False, ec="black", lw=1.2, label="tested on the dataset of its training")]
        _legend(figure, handles, 1)
    return name


@dataclass(frozen=True)
class Panel:
    """One picture of a gallery.

    Attributes:
        image: (height, width) or (height, width, 3), 0 to 1.
        reference: bool, (height, width).
        prediction: bool, (height, width).
        title: drawn above, broken where it is too long.
    """

    image: np.ndarray
    reference: np.ndarray
    prediction: np.ndarray
    title: str


_MISS, _FALSE_ALARM = "////", "ooo"
_ABREAST = 5  # more would be too small to judge


def gallery(folder: Path, name: str, *, rows: Sequence[Sequence[Panel]]) -> str:
    """Draw cases: the reference's outline solid, the prediction's dashed, misses and false alarms hatched.

    What lies in both is free of hatching, so that true positive, miss and false alarm differ without colour.

    Args:
        rows: of panels; a row of more than five goes on in the next line.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    lines = [row[start : start + _ABREAST] for row in rows for start in range(0, len(row), _ABREAST)]
    columns = max(map(len, lines))
    page = COLUMN if columns == 1 else PAGE
    width = page / columns - 0.08
    titles = [[_broken(panel.title, int(width / 0.06)) for panel in line] for line in lines]
    heights = [
        width * min(1.5, max(panel.image.shape[0] / panel.image.shape[1] for panel in line))
        + 0.12 * max(title.count("\n") + 1 for title in heads)
        + 0.08
        for line, heads in zip(lines, titles, strict=True)
    ]
    with _figure(folder, name, page, sum(heights) + (0.35 if columns > 1 else 0.5)) as figure:
        grid = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
        for axes in grid.flat:
            axes.axis("off")
            axes.set_anchor("N")
        for line, heads, places in zip(lines, titles, grid, strict=True):
            for panel, title, axes in zip(line, heads, places, strict=False):
                axes.imshow(panel.image, cmap="gray", vmin=0, vmax=1)
                _region(axes, panel.reference & ~panel.prediction, _MISS, REFERENCE)
                _region(axes, panel.prediction & ~panel.reference, _FALSE_ALARM, PREDICTION)
                draw_outline(axes, panel.reference, colour=REFERENCE, style="solid", width=1.1)
                draw_outline(axes, panel.prediction, colour=PREDICTION, style="dashed", width=1.1)
                axes.set_title(title, fontsize=7, pad=2)
        _legend(
            figure,
            [
                Line2D([], [], color=REFERENCE, label="reference"),
                Line2D([], [], color=PREDICTION, ls="dashed", label="prediction"),
                Patch(fc="0.25", ec=REFERENCE, hatch=_MISS, lw=0, label="miss (reference only)"),
                Patch(fc="0.25", ec=PREDICTION, hatch=_FALSE_ALARM, lw=0, label="false alarm (prediction only)"),
            ],
            2 if columns == 1 else 4,
        )
    return name


def _broken(title: str, width: int) -> str:
    """Break between words, and a word only where it alone is too long."""
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, width, break_long_words=False)]
    return "\n".join(line[start : start + width] for line in lines for start in range(0, len(line), width))


def _border(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arguments of a contour between the mask's pixels, also along the edge of the image."""
    height, width = mask.shape
    return np.arange(-1, width + 1), np.arange(-1, height + 1), np.pad(mask, 1).astype(float)


def _region(axes: Any, mask: np.ndarray, hatch: str, colour: str) -> None:
    if mask.any():
        # A darker ground, on which the hatching is seen also in a bright image.
        area = axes.contourf(*_border(mask), levels=[0.5, 2], colors=[(0, 0, 0, 0.4)], hatches=[hatch])
        area.set_edgecolor(colour)
        area.set_linewidth(0)
        _fit(axes, mask)


def _fit(axes: Any, mask: np.ndarray) -> None:
    height, width = mask.shape
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
