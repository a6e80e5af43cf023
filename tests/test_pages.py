"""Pages say the same in each form, read no name as markup, and sort by numbers."""

from __future__ import annotations

import math
import re

from monai_thyroid.pages import Callout, Figure, Gallery, Heading, Items, Paragraph, Table, html, markdown, table

EVIL = "<b>`x`</b> | [y](z)"


def every() -> list:
    picture = Figure(f"shows {EVIL}", b"<svg/>", "svg+xml", link="figures/a.png")
    return [
        Heading(1, f"page of {EVIL}"),
        Heading(2, "part"),
        Paragraph(EVIL),
        Items([EVIL, "second"], code=True),
        Callout("problem", [f"grave {EVIL}"], title="Title"),
        Callout("answer", ["so it is"]),
        picture,
        Gallery([picture, picture]),
        table("of 95 %", [("Name", "text"), ("Value", "{:.2f}".format)], [[EVIL, 0.125], ["b", -3]]),
    ]


def test_both_forms_hold_every_block() -> None:
    page, text = html(every()), markdown(every())
    assert page.count("&lt;b&gt;`x`&lt;/b&gt; | [y](z)") >= 6
    assert "<b>" not in page + text
    assert "[y](z)" not in text.replace("\\[y\\](z)", "")
    assert page.count("<figure>") == text.count("](figures/a.png)") == 3
    assert 'class="callout problem"' in page
    assert "> **Problem.** **Title** grave" in text
    assert "**so it is**" in text
    assert '<a href="#part-2">part</a>' in page
    assert 'id="part-2"' in page
    assert "of 95\N{NO-BREAK SPACE}%" in page
    assert "| 0.12 |" in text
    assert not re.search(r"https?://|@import|url\(", page)


def test_a_command_can_be_copied_from_markdown_as_it_stands() -> None:
    text = markdown([Heading(1, "x"), Items(["run --config_file A_B", "a`_", "a\n_"], code=True), Items(["a_b"])])
    assert text.split("\n\n")[1] == "- `run --config_file A_B`\n- a\\`\\_\n- a<br>\\_"
    assert "- a\\_b" in text


def keys(made: Table) -> list[list[str]]:
    return [[cell.key for cell in row] for row in made.rows]


def test_columns_sort_by_their_numbers_and_intervals_by_their_lower_limit() -> None:
    made = table(
        "",
        [("Interval", lambda two: f"{two[0]:+.1f} to {two[1]:+.1f}"), ("Text", "text"), ("Number", str)],
        [[(-0.25, 0.5), "a", 3], [(-1.5, -0.5), "b", None], [(math.nan, math.nan), "c", math.inf]],
    )
    assert keys(made) == [["-0.25", "", "3.0"], ["-1.5", "", ""], ["", "", ""]]
    page = html([Heading(1, "x"), made])
    assert 'data-sort="-1.5">-1.5 to -0.5<' in page
    assert '<td class="text">b<' in page  # sorted as text


def test_rows_that_are_set_apart_are_marked() -> None:
    page = html([Heading(1, "x"), table("", [("N", "text")], [["a"], ["b"]], aside=[1])])
    assert re.findall(r'<tr( class="aside")?><td', page) == ["", ' class="aside"']
    assert 'classList.contains("aside")' in page


def test_a_page_without_a_sorted_table_has_no_script() -> None:
    facts = table("", [("", "text"), ("", "text")], [["images", "3"]])
    page = html([Heading(1, "x"), facts])
    assert "<script" not in page
    assert "<thead" not in page
