"""Figures of a comparison say what the data say: their contents read back from the drawn figure."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from monai_thyroid.compare import figures
from monai_thyroid.compare.figures import Panel

NETWORKS = [
    *("mobilenet_v2_unet", "resnet50_unet", "attention_unet", "efficientnet_b0_unet", "unet"),
    *("segnet", "resunet_plus_plus", "unpadded_unet", "deeplab_v3_plus", "swin_unetr"),
]


WORDS = ["better", "worse", "equivalent", "not inferior", "undecided"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is saved, once for each of its two files."""
    found: list[Figure] = []
    save = Figure.savefig

    def keep(self: Figure, *args: Any, **kwargs: Any) -> None:
        found.append(self)
        save(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return found


def tick_labels(axis: Any) -> list[str]:
    return [label.get_text() for label in axis.get_ticklabels()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def renderer(figure: Figure) -> Any:
    """Of the figure as it is drawn last, to ask where things lie."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


def segments(axes: Any) -> list[tuple[float, float]]:
    """The horizontal error bars, from the top."""
    lines = [one for container in axes.containers if hasattr(container, "has_xerr") for one in container[2]]
    parts = [part for line in lines for part in line.get_segments()]
    return [(float(part[0, 0]), float(part[1, 0])) if len(part) else (float("nan"), float("nan")) for part in parts]


def history(epochs: int = 6, stages: tuple[str, ...] = ("all",), **columns: Any) -> list[dict[str, Any]]:
    rows = []
    for index in range(epochs):
        row = {"stage": stages[index * len(stages) // epochs], "epoch": index + 1}
        row |= {"train_loss": 1 / (index + 1), "val_loss": 2 / (index + 1), "val_dice": index / epochs}
        rows.append(row | {column: values[index] for column, values in columns.items()})
    return rows


def panel(shape: tuple[int, ...] = (40, 60), title: str = "case", **masks: np.ndarray) -> Panel:
    reference = np.zeros(shape[:2], bool)
    reference[10:30, 10:30] = True
    image = np.random.default_rng(0).random(shape)
    return Panel(image, masks.get("reference", reference), masks.get("prediction", np.roll(reference, 8, 1)), title)


def dice(networks: int, cases: int = 120) -> list[np.ndarray]:
    return list(np.random.default_rng(networks).beta(8, 2, (networks, cases)))


def every(networks: int) -> dict[str, tuple[Callable[..., str], dict[str, Any]]]:
    """Each figure with what it needs for so many networks."""
    generator = np.random.default_rng(1)
    names, values = NETWORKS[:networks], dice(networks)
    spans = [(float(one.mean()) - 0.02, float(one.mean()) + 0.03) for one in values]
    pairs = [(a, b) for a in range(networks) for b in range(a + 1, networks)] or [(0, 0)]
    bins = (np.arange(15) + 0.5) / 15
    return {
        "bars": (
            figures.mean_bars,
            {"labels": names, "means": [one.mean() for one in values], "intervals": spans, "ylabel": "Dice"},
        ),
        "strips": (figures.case_strips, {"labels": names, "values": values, "ylabel": "Dice"}),
        "curves": (
            figures.curves,
            {"histories": {name: [history(6, ("frozen", "all")), history(8), history(7)] for name in names}},
        ),
        "differences": (
            figures.paired_differences,
            {
                "labels": [f"{names[a]} − {names[b]}" for a, b in pairs],
                "differences": [values[a] - values[b] for a, b in pairs],
                "intervals": [(-0.01, 0.02)] * len(pairs),
                "xlabel": "Difference in Dice",
            },
        ),
        "confusion": (figures.confusion_matrices, {"matrices": {name: np.diag([6e7, 4e6]) + 2e5 for name in names}}),
        "ranks": (figures.rank_bars, {"shares": {name: generator.dirichlet(np.ones(networks)) for name in names}}),
        "cd": (
            figures.average_ranks,
            {
                "average_ranks": {name: 1 + 0.9 * index for index, name in enumerate(names)},
                "cliques": [names[:2], names[1:4]],
            },
        ),
        "significance": (
            figures.significance_map,
            {
                "labels": names,
                "p_adjusted": np.where(np.eye(networks) == 1, np.nan, generator.random((networks, networks))),
            },
        ),
        "verdicts": (
            figures.verdict_map,
            {
                "labels": names,
                "words": np.where(np.eye(networks) == 1, "", np.resize(WORDS, (networks, networks))).astype(object),
            },
        ),
        "coverage": (
            figures.coverage_curves,
            {
                "curves": {name: np.linspace(0.7, 0.9, 41 + index) for index, name in enumerate(names)},
                "marks": [0.0, 0.1, 0.2, 0.3],
                "ylabel": "Dice of the rest",
            },
        ),
        "subgroups": (
            figures.subgroup_intervals,
            {
                "levels": ["small (up to 3.1 % of the image)\n12 groups", "large\n3 groups"],
                "means": {name: [(0.7, 0.6, 0.8), (0.8, float("nan"), float("nan"))] for name in names},
                "pale": [False, True],
                "xlabel": "Dice, by lesion size",
            },
        ),
        "agreement": (
            figures.bland_altman,
            {
                "points": {name: (10 + own, own - own.mean()) for name, own in zip(names, values, strict=True)},
                "limits": {name: [(-0.2, -0.3, -0.1), (0.0, -0.05, 0.05), (0.2, 0.1, 0.3)] for name in names},
                "measure": "head circumference",
                "unit": "mm",
            },
        ),
        "degradation": (
            figures.degradation_curves,
            {
                "panels": {
                    kind: {name: [(0.5, 0.8, 0.7, 0.85), (2.0, 0.6, float("nan"), float("nan"))] for name in names}
                    for kind in ("gain [dB]", "speckle [share]", "blur [pixels]", "JPEG [quality]")
                },
                "ylabel": "Dice",
            },
        ),
        "reliability": (
            figures.reliability_diagram,
            {"curves": {name: (bins, bins**1.2, np.r_[np.full(14, 100), 0]) for name in names}},
        ),
        "shift": (
            figures.shift_heatmap,
            {
                "rows": names,
                "columns": ["thyroid", "polyp"],
                "values": generator.random((networks, 2)),
                "in_domain": np.eye(networks, 2, dtype=bool),
            },
        ),
        "gallery": (figures.gallery, {"rows": [[panel(title=f"{name}: case, Dice 0.71") for name in names]]}),
    }


@pytest.mark.parametrize("networks", [1, 2, 10])
@pytest.mark.parametrize("kind", list(every(2)))
def test_both_files_have_the_width_of_a_column_or_a_page_and_nothing_is_cut(
    tmp_path: Path, drawn: list[Figure], kind: str, networks: int
) -> None:
    draw, content = every(networks)[kind]
    before = dict(matplotlib.rcParams)
    assert draw(tmp_path, "name.of", **content) == "name.of"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["name.of.png", "name.of.svg"]
    assert dict(matplotlib.rcParams) == before

    figure = drawn[0]
    width, height = figure.get_size_inches()
    assert width in (3.4, 7.2)
    assert 0.4 < height < 10.5  # a page
    with Image.open(tmp_path / "name.of.png") as image:
        assert image.size == (round(width * 200), int(height * 200 + 1e-6))
    svg = ElementTree.parse(tmp_path / "name.of.svg").getroot()
    assert float(svg.attrib["width"].removesuffix("pt")) == pytest.approx(width * 72)
    shown = "".join(svg.itertext())
    assert all(name in shown for name in NETWORKS[:networks])  # text is text

    # The tight box of all that is drawn lies inside the page, half a point aside.
    box = figure.get_tightbbox(renderer(figure))
    assert box.x0 >= -0.01
    assert box.y0 >= -0.01
    assert box.x1 <= width + 0.01
    assert box.y1 <= height + 0.01
    sizes = [text.get_fontsize() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    assert min(sizes) >= 7


@pytest.mark.parametrize(
    "kind", ["bars", "strips", "differences", "cd", "significance", "verdicts", "shift", "confusion"]
)
def test_no_two_labels_meet(tmp_path: Path, drawn: list[Figure], kind: str) -> None:
    draw, content = every(10)[kind]
    draw(tmp_path, "a", **content)
    figure = drawn[0]
    there = renderer(figure)
    shown: list[Any] = []
    for axes in figure.axes:
        shown += axes.texts
        for coordinate, axis in enumerate((axes.xaxis, axes.yaxis)):
            low, high = sorted(axis.get_view_interval())
            ticks = [one for one in axis.get_ticklabels() if low <= one.get_position()[coordinate] <= high]
            shown += [*ticks, axes.title, axis.label] if axes.axison else []
    # Slanted names lie beside each other in boxes that overlap.
    level = [one for one in shown if one.get_visible() and one.get_text() and one.get_rotation() in (0, 90)]
    boxes = [(one.get_text(), one.get_window_extent(there).shrunk(0.98, 0.98)) for one in dict.fromkeys(level)]
    assert len(boxes) >= 10
    for index, (text, box) in enumerate(boxes):
        met = [other for other, place in boxes[index + 1 :] if box.overlaps(place)]
        assert not met, text


@pytest.mark.slow
def test_the_same_content_gives_the_same_bytes_in_another_process_and_pyplot_stays_out(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from test_comparison_figures import every
for kind, (draw, content) in every(3).items():
    draw(Path(sys.argv[1]), kind, **content)
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    for kind, (draw, content) in every(3).items():
        draw(first, kind, **content)
    subprocess.run([sys.executable, "-c", program, str(second)], cwd=Path(__file__).parent, check=True, timeout=120)
    names = sorted(path.name for path in first.iterdir())
    assert len(names) == 2 * len(every(3))
    assert [name for name in names if (first / name).read_bytes() != (second / name).read_bytes()] == []


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="shape mismatch"):
        figures.mean_bars(tmp_path, "a", labels=["a", "b"], means=[1.0, 2.0, 3.0], intervals=[(0, 1)], ylabel="Dice")
    assert not list(tmp_path.iterdir())


def test_bars_begin_at_zero_and_end_at_the_mean(tmp_path: Path, drawn: list[Figure]) -> None:
    means, intervals = [0.91, 0.90, float("nan")], [(0.85, 0.93), (0.88, 0.95), (float("nan"), float("nan"))]
    figures.mean_bars(tmp_path, "a", labels=["a$b$", "b", "c"], means=means, intervals=intervals, ylabel="Dice")
    axes = drawn[0].axes[0]
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_x() for bar in bars] == [0, 0, 0]
    np.testing.assert_allclose([bar.get_width() for bar in bars], means)
    np.testing.assert_allclose(segments(axes), intervals)
    assert axes.get_xlim()[0] == 0
    assert axes.get_xlim()[1] > 0.95
    assert texts(drawn[0]) == ["0.910", "0.900", "no value"]
    assert tick_labels(axes.yaxis) == ["a$b$", "b", "c"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first on top
    assert "a$b$" in (tmp_path / "a.svg").read_text("utf-8")


def test_an_interval_that_leaves_out_its_mean_is_drawn_as_it_is(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.mean_bars(tmp_path, "a", labels=["a"], means=[30.0], intervals=[(31.0, 35.0)], ylabel="HD95 (px)")
    assert segments(drawn[0].axes[0]) == [(31, 35)]
    assert texts(drawn[0]) == ["30"]


def test_strips_show_every_case_and_count_what_is_missing(tmp_path: Path, drawn: list[Figure]) -> None:
    nan = float("nan")
    values = [np.array([0.2, 0.4, nan, 0.9]), np.full(5, 0.5), np.full(2, nan)]
    figures.case_strips(tmp_path, "a", labels=["a", "b", "c"], values=values, ylabel="Dice")
    axes = drawn[0].axes[0]
    strips = [strip.get_offsets() for strip in axes.collections if strip.get_offsets().shape[0] > 1]
    assert [sorted(strip[:, 0]) for strip in strips] == [[0.2, 0.4, 0.9], [0.5] * 5]
    assert all(np.abs(strip[:, 1] - row).max() < 0.31 for row, strip in enumerate(strips))
    assert [line.get_xdata()[0] for line in axes.get_lines()] == [pytest.approx(0.5), 0.5]  # means
    box = axes.patches[0]
    assert (box.get_x(), box.get_x() + box.get_width()) == pytest.approx((0.3, 0.65))  # quartiles by numpy
    assert tick_labels(axes.yaxis) == ["a (1 without value)", "b", "c (2 without value)"]


def test_a_strip_axis_that_leaves_out_zero_says_so(tmp_path: Path, drawn: list[Figure]) -> None:
    for name, low in (("far", 0.8), ("near", 0.0)):
        figures.case_strips(tmp_path, name, labels=["a"], values=[np.array([low, 0.9, 0.95])], ylabel="Dice")
    far, near = drawn[0].axes[0], drawn[2].axes[0]
    assert (far.get_xlabel(), near.get_xlabel()) == ("Dice (axis does not begin at 0)", "Dice")


def test_curves_bridge_what_was_not_measured_break_where_training_did_and_go_on_through_stages(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    nan = float("nan")
    first = history(4, ("frozen", "all"), val_dice=[0.1, None, 0.3, 0.4], train_loss=[1.0, nan, float("inf"), 0.5])
    second = history(3, val_dice=[0.3, 0.5, 0.5], train_loss=[3.0, 2.0, 1.0])
    figures.curves(tmp_path, "a", histories={"unet": [first, second], "segnet": [history(5)]})
    loss, _, score = drawn[0].axes
    drawn_as = [[list(map(float, one)) for one in line.get_data()] for line in score.get_lines()]
    assert drawn_as[:2] == [[[1, 3, 4], [0.1, 0.3, 0.4]], [[1, 2, 3], [0.3, 0.5, 0.5]]]
    assert drawn_as[2] == [[1, 3], [0.2, 0.4]]  # the mean, where both have a value
    assert drawn_as[3][0] == [1, 2, 3, 4, 5]
    thin, _, mean, other, stage = score.get_lines()
    assert thin.get_linewidth() < mean.get_linewidth()
    assert thin.get_color() == mean.get_color() != other.get_color()
    assert mean.get_linestyle() != other.get_linestyle()
    assert mean.get_marker() != other.get_marker()
    assert list(stage.get_xdata()) == [3]
    assert legend(drawn[0]) == ["unet", "segnet", "a stage begins"]
    np.testing.assert_array_equal(loss.get_lines()[0].get_ydata(), [1, nan, nan, 0.5])
    assert score.get_ylim() == (0, 1)


def test_curves_without_validation_and_of_a_run_that_never_began(tmp_path: Path, drawn: list[Figure]) -> None:
    blind = history(3, val_loss=[None] * 3, val_dice=[None] * 3)
    figures.curves(tmp_path, "a", histories={"unet": [blind], "segnet": [[]]})
    assert texts(drawn[0]) == ["not measured"] * 2
    assert legend(drawn[0]) == ["unet", "segnet"]


def test_ten_networks_differ_in_more_than_colour() -> None:
    looks = [figures._look(index) for index in range(28)]
    assert len({(look["color"], look["linestyle"]) for look in looks}) == 28
    # Also in grey.
    assert len({(look["linestyle"], look["marker"], look["color"]) for look in looks[:10]}) == 10
    assert len({look["marker"] for look in looks[:8]}) == 8


def test_differences_show_every_group_their_mean_and_its_interval(tmp_path: Path, drawn: list[Figure]) -> None:
    differences = [np.array([0.1, -0.05, float("nan"), 0.4]), np.zeros(3), np.array([float("nan")])]
    intervals = [(-0.02, 0.3), (0.0, 0.0), (float("nan"), float("nan"))]
    labels = ["a − b", "a − c", "b − c"]
    figures.paired_differences(
        tmp_path, "a", labels=labels, differences=differences, intervals=intervals, xlabel="Difference in Dice"
    )
    points, means = drawn[0].axes
    found = [sorted(strip.get_offsets()[:, 0]) for strip in points.collections]
    assert found == [[-0.05, 0.1, 0.4], [0, 0, 0], []]
    np.testing.assert_allclose(segments(means), intervals)
    marks = [line.get_xdata()[0] for line in means.get_lines() if line.get_marker() == "D"]
    np.testing.assert_allclose(marks, [0.15, 0, float("nan")])
    for axes in (points, means):
        assert any(list(line.get_xdata()) == [0, 0] for line in axes.get_lines())
    assert tick_labels(points.yaxis) == labels
    assert "enlarged" in means.get_title()
    assert drawn[0].get_supxlabel() == "Difference in Dice"


def test_confusion_matrices_give_shares_of_the_row_and_counts(tmp_path: Path, drawn: list[Figure]) -> None:
    matrices = {"unet": np.array([[61_000_000, 1_234], [25, 75]]), "segnet": np.array([[10, 30], [0, 0]])}
    figures.confusion_matrices(tmp_path, "a", matrices=matrices)
    assert [axes.get_title() for axes in drawn[0].axes] == ["unet", "segnet"]
    assert texts(drawn[0]) == [
        *("1.000\n61M", "0.000\n1.23k", "0.250\n25", "0.750\n75"),
        *("0.250\n10", "0.750\n30", "–\n0", "–\n0"),
    ]
    shades = drawn[0].axes[1].images[0].get_array()
    np.testing.assert_allclose(np.ma.filled(shades, -1), [[0.25, 0.75], [-1, -1]])


def test_confusion_of_several_classes_numbers_them(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.confusion_matrices(tmp_path, "a", matrices={name: np.eye(3) for name in NETWORKS[:4]})
    used = [axes for axes in drawn[0].axes if axes.axison]
    assert len(used) == 4
    assert tick_labels(used[0].yaxis) == ["background", "1", "2"]


def test_the_cd_diagram_puts_the_best_left_and_bars_over_what_is_not_told_apart(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    ranks = {"worst": 3.6, "best": 1.2, "third": 3.0, "second": 2.2}
    cliques = [["best", "second"], ["worst", "second"], ["third", "worst"], ["best"]]
    figures.average_ranks(tmp_path, "a", average_ranks=ranks, cliques=cliques)
    figure = drawn[0]
    (axes,) = figure.axes
    names = {text.get_text(): text for text in axes.texts}
    left, right = ["best (1.20)", "second (2.20)"], ["(3.60) worst", "(3.00) third"]
    assert [text for text in names if "(" in text] == [*left, *reversed(right)]
    assert all(names[text].get_ha() == "right" for text in left)
    assert all(names[text].get_ha() == "left" for text in right)
    height = {text: names[text].xy[1] for text in (*left, *right)}
    assert height[left[0]] == height[right[0]] < height[left[1]] == height[right[1]]  # y runs downwards
    bars = [line for line in axes.get_lines() if line.get_linewidth() == 2.5]
    assert [list(bar.get_xdata()) for bar in bars] == [[1.2, 2.2], [2.2, 3.6], [3.0, 3.6]]
    first, middle, last = (set(bar.get_ydata()) for bar in bars)
    assert first.isdisjoint(middle)  # they meet, and so does the next pair
    assert last.isdisjoint(middle)
    # No critical difference beside bars that other tests have made.
    assert not axes.containers
    assert not [name for name in names if "critical" in name]
    assert len(legend(figure)) == 1


def test_bars_that_do_not_touch_share_a_level(tmp_path: Path, drawn: list[Figure]) -> None:
    ranks = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    figures.average_ranks(tmp_path, "a", average_ranks=ranks, cliques=[["c", "d"], ["a", "b"]])
    bars = [line for line in drawn[0].axes[0].get_lines() if line.get_linewidth() == 2.5]
    assert len({y for bar in bars for y in bar.get_ydata()}) == 1
    assert not any("critical" in text for text in texts(drawn[0]))


def test_the_significance_map_names_every_level(tmp_path: Path, drawn: list[Figure]) -> None:
    nan = float("nan")
    p = np.array([[nan, 0.0009, 0.001, nan], [0.0009, nan, 0.0499, 0.05], [0.001, 0.0499, nan, 1], [nan, 0.05, 1, nan]])
    figures.significance_map(tmp_path, "a", labels=list("abcd"), p_adjusted=p)
    (axes,) = drawn[0].axes
    table = np.full((4, 4), "", dtype=object)
    for text in axes.texts:
        column, row = text.get_position()
        table[row, column] = text.get_text()
    assert table.tolist() == [
        ["", "< 0.001", "< 0.01", "no test"],
        ["< 0.001", "", "< 0.05", "n.s."],
        ["< 0.01", "< 0.05", "", "n.s."],
        ["no test", "n.s.", "n.s.", ""],
    ]
    shades = np.ma.filled(axes.images[0].get_array(), nan)
    assert shades[0, 1] > shades[0, 2] > shades[1, 2] > shades[1, 3] > 0  # the surer, the darker
    np.testing.assert_array_equal(np.isnan(shades), np.isnan(p))
    assert tick_labels(axes.xaxis) == tick_labels(axes.yaxis) == list("abcd")


def test_the_verdict_map_writes_every_word_where_it_belongs(tmp_path: Path, drawn: list[Figure]) -> None:
    words = np.array([["", "better", "equivalent"], ["worse", "", "undecided"], ["equivalent", "not inferior", ""]])
    figures.verdict_map(tmp_path, "a", labels=list("abc"), words=words)
    (axes,) = drawn[0].axes
    table = np.full((3, 3), "", dtype=object)
    for text in axes.texts:
        if text.get_text():
            column, row = text.get_position()
            table[row, column] = text.get_text()
    assert table.tolist() == words.tolist()
    colours = {text.get_text(): patch.get_facecolor() for text, patch in zip(
        [one for one in axes.texts if one.get_text()], axes.patches, strict=True)}  # fmt: skip
    assert len(set(colours.values())) == len(colours) == 5


def test_the_curves_of_power_mark_what_is_asked_and_keep_within_the_page(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.power_curves(
        tmp_path,
        "a",
        differences=[0, 0.05, 0.1],
        power={seeds: [0.0, 0.5, 1.0] for seeds in (2, 3, 5, 10)},
        groups=[15, 30, 60, 120, 240],
        detectable={seeds: [float("nan"), 0.1, 0.08, 0.06, 0.05] for seeds in (2, 3, 5, 10)},
        asked=0.8,
        here=60,
        difference=0.03,
        axis="Dice",
    )
    figure = drawn[0]
    left, right = figure.axes
    assert [tuple(line.get_ydata()) for line in left.get_lines()][4:] == [(0.8, 0.8), (0, 1)]
    assert tick_labels(right.xaxis) == ["15", "30", "60", "120", "240"]
    assert legend(figure)[0] == "2 seeds a network"
    box = figure.get_tightbbox(renderer(figure))
    assert box.x0 >= -0.01
    assert box.x1 <= 7.21


def test_reliability_leaves_out_empty_bins(tmp_path: Path, drawn: list[Figure]) -> None:
    curve = (np.array([0.1, np.nan, 0.9]), np.array([0.2, np.nan, 0.7]), np.array([30, 0, 10]))
    figures.reliability_diagram(tmp_path, "a", curves={"unet": curve, "none": (curve[0], curve[1], np.zeros(3))})
    reliability, amount = drawn[0].axes
    _, line, nothing = reliability.get_lines()
    np.testing.assert_array_equal(line.get_data(), [[0.1, 0.9], [0.2, 0.7]])
    assert len(nothing.get_xdata()) == 0
    np.testing.assert_array_equal(amount.get_lines()[0].get_data(), [[0.1, 0.9], [0.75, 0.25]])
    assert "mathdefault" not in (tmp_path / "a.svg").read_text("utf-8")  # ticks of the log axis are plain


def test_bland_altman_shows_every_case_the_mean_difference_and_its_limits(tmp_path: Path, drawn: list[Figure]) -> None:
    means, differences = np.array([90.0, 100.0, 120.0]), np.array([-3.0, 0.5, 4.0])
    limits = [(-6.5, -9.0, -4.0), (0.5, -1.0, 2.0), (float("nan"),) * 3]
    content = {"points": {"unet": (means, differences)}, "limits": {"unet": limits}}
    figures.bland_altman(tmp_path, "a", **content, measure="head circumference", unit="mm")
    (axes,) = drawn[0].axes
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), np.c_[means, differences])
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]
    assert [y[0] for x, y in lines if x == [0, 1]] == [0, -6.5, 0.5]  # no limit that is not known
    bars = [(x[0], y) for x, y in lines if x[0] == x[1]]
    assert [y for _, y in bars] == [[-9, -4], [-1, 2]]
    assert bars[0][0] < bars[1][0], "side by side"
    assert texts(drawn[0]) == ["\N{MINUS SIGN}6.5", "+0.5"]
    assert axes.get_title() == "unet (3 images)"


def test_degradation_curves_are_in_order_and_bear_their_intervals(tmp_path: Path, drawn: list[Figure]) -> None:
    panel = {"unet": [(-6.0, 0.5, 0.4, 0.6), (0.0, 0.9, 0.8, 1.0)], "segnet": [(0.0, 0.7, 0.6, 0.8)]}
    figures.degradation_curves(tmp_path, "a", panels={"gain [dB]": panel}, ylabel="Dice")
    (axes,) = drawn[0].axes
    unet, segnet = axes.get_lines()
    assert unet.get_ydata().tolist() == [0.5, 0.9]
    assert np.rint(unet.get_xdata()).tolist() == [0, 1]
    assert np.rint(segnet.get_xdata()).tolist() == [1]
    spans = [span[:, 1].tolist() for lines in axes.collections for span in lines.get_segments()]
    assert spans == [[0.4, 0.6], [0.8, 1.0], [0.6, 0.8]]
    assert tick_labels(axes.xaxis) == ["\N{MINUS SIGN}6", "0"]
    assert legend(drawn[0]) == ["unet", "segnet"]


def test_rank_bars_stack_to_one_and_bear_their_ranks(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.rank_bars(tmp_path, "a", shares={"unet": [0.7, 0.27, 0.03], "segnet": [0.3, 0.7, 0.0]})
    (axes,) = drawn[0].axes
    np.testing.assert_allclose([bar.get_width() for bar in axes.patches], [0.7, 0.27, 0.03, 0.3, 0.7, 0.0])
    np.testing.assert_allclose([bar.get_x() for bar in axes.patches], [0, 0.7, 0.97, 0, 0.3, 1])
    assert texts(drawn[0]) == ["1", "2", "1", "2"]  # 3 % are too narrow for a text
    assert legend(drawn[0]) == ["1", "2", "3"]
    colours = [np.dot(bar.get_facecolor()[:3], (0.3, 0.59, 0.11)) for bar in axes.patches[:3]]
    assert colours == sorted(colours)
    assert colours[-1] - colours[0] > 0.5  # an order in grey too


def test_the_shift_table_frames_the_own_dataset(tmp_path: Path, drawn: list[Figure]) -> None:
    own = np.array([[True, False], [False, True], [True, False]])
    values = np.array([[0.81, 0.4], [0.123, 0.9], [0.5, np.nan]])
    figures.shift_heatmap(tmp_path, "a", rows=list("abc"), columns=["thyroid", "polyp"], values=values, in_domain=own)
    (axes,) = drawn[0].axes
    assert texts(drawn[0]) == ["0.810", "0.400", "0.123", "0.900", "0.500", "–"]
    frames = [(round(one.get_y() + one.get_height() / 2), round(one.get_x() + 0.46)) for one in axes.patches]
    assert frames == [(0, 0), (1, 1), (2, 0)]
    assert axes.images[0].get_clim() == (0, 1)


def contours(axes: Any) -> tuple[list[Any], list[Any]]:
    """Outlines and hatched regions."""
    sets = [one for one in axes.collections if hasattr(one, "filled")]
    return [one for one in sets if not one.filled], [one for one in sets if one.filled]


def area(region: Any) -> float:
    """Pixels that a filled contour covers, by the shoelace formula over its rings."""
    total = 0.0
    for path in region.get_paths():
        for ring in path.to_polygons():
            x, y = ring.T
            total += 0.5 * float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
    return abs(total)


def test_miss_and_false_alarm_differ_in_hatching_and_outlines_in_style(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.gallery(tmp_path, "a", rows=[[panel(title="a $case$")]])
    (axes,) = drawn[0].axes
    outlines, regions = contours(axes)
    assert [one.linestyles for one in outlines] == ["solid", "dashed"]
    hatches = [one.hatches[0] for one in regions]
    assert len(set(hatches)) == 2
    assert all(hatches)
    # 20 x 8 pixels are missed and as many in vain; contours cut the corners of a pixel.
    assert [area(one) for one in regions] == pytest.approx([160, 160], abs=2)
    assert [regions[0].get_paths()[0].vertices[:, 0].max(), regions[1].get_paths()[0].vertices[:, 0].min()] == [
        17.5,
        29.5,
    ]
    assert [legend.get_patches()[0].get_hatch() for legend in drawn[0].legends] == [hatches[0]]
    assert legend(drawn[0]) == ["reference", "prediction", "miss (reference only)", "false alarm (prediction only)"]
    assert axes.get_title() == "a $case$"
    assert axes.get_xlim() == (-0.5, 59.5)
    assert axes.get_ylim() == (39.5, -0.5)


def test_hatches_reach_the_picture_in_their_colours(tmp_path: Path) -> None:
    """Drawn upon black, the pixels of a miss hold the reference's colour, those of a false alarm the prediction's."""
    mask, nothing = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    mask[10:50, 10:50] = True
    black = np.zeros((60, 60))
    figures.gallery(tmp_path, "a", rows=[[Panel(black, mask, nothing, "m"), Panel(black, nothing, mask, "f")]])
    picture = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    half = picture.shape[1] // 2
    # Well inside the squares, away from outlines and legend.
    for part, colour in (
        (picture[200:500, 200:500], (230, 159, 0)),
        (picture[200:500, half + 200 : half + 500], (86, 180, 233)),
    ):
        like = (np.abs(part - colour).max(axis=-1) < 30).mean()
        assert 0.03 < like < 0.6


@pytest.mark.parametrize("shape", [(40, 60), (90, 30), (50, 50, 3), (300, 20, 3)])
def test_a_gallery_of_odd_pictures(tmp_path: Path, drawn: list[Figure], shape: tuple[int, ...]) -> None:
    empty, full = np.zeros(shape[:2], bool), np.ones(shape[:2], bool)
    row = [
        Panel(np.full(shape, 0.5), reference, prediction, "x" * 90)
        for reference, prediction in ((empty, empty), (empty, full), (full, empty), (full, full))
    ]
    figures.gallery(tmp_path, "a", rows=[row])
    found = [tuple(map(len, contours(axes))) for axes in drawn[0].axes]
    assert found == [(0, 0), (1, 1), (1, 1), (2, 0)]
    for axes in drawn[0].axes:
        assert axes.get_xlim() == (-0.5, shape[1] - 0.5)
        assert max(map(len, axes.get_title().split("\n"))) <= 29
        assert axes.get_title().replace("\n", "") == "x" * 90


def test_a_long_row_goes_on_in_the_next_line(tmp_path: Path, drawn: list[Figure]) -> None:
    figures.gallery(tmp_path, "a", rows=[[panel(title=str(index)) for index in range(7)], [panel(title="next")]])
    used = {axes.get_title(): axes.get_subplotspec() for axes in drawn[0].axes if axes.images}
    place = {title: (spec.rowspan.start, spec.colspan.start) for title, spec in used.items()}
    assert place["4"] == (0, 4)
    assert place["5"] == (1, 0)
    assert place["next"] == (2, 0)


def test_titles_break_between_words() -> None:
    assert figures._broken("worst: cju0qkwl35piu, Dice 0.12", 16) == "worst:\ncju0qkwl35piu,\nDice 0.12"
    assert figures._broken("one\ntwo", 16) == "one\ntwo"
    assert figures._broken("", 16) == ""


def test_a_gallery_of_photographs_stays_small(tmp_path: Path, data_dir: Path) -> None:
    paths = sorted((data_dir / "polyp" / "segmented-images" / "images").iterdir())[:3]
    row = []
    for path in paths:
        image = np.asarray(Image.open(path).convert("RGB")) / 255
        mask = np.asarray(Image.open(path.parents[1] / "masks" / path.name).convert("L")) > 127
        row.append(Panel(image, mask, np.roll(mask, 30, 0), path.stem))
    figures.gallery(tmp_path, "a", rows=[row])
    assert (tmp_path / "a.svg").stat().st_size < 2e6
