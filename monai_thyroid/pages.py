"""Pages of headings, texts, tables and figures, written as one HTML file that needs nothing else, or as Markdown."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

__all__ = [
    "Block",
    "Callout",
    "Cell",
    "Figure",
    "Form",
    "Gallery",
    "Heading",
    "Items",
    "Paragraph",
    "Table",
    "Tone",
    "html",
    "markdown",
    "table",
]

Tone = Literal["problem", "warning", "note", "answer"]


@dataclass(frozen=True)
class Heading:
    """Of level 1 (the page's, the first block) to 3."""

    kind: ClassVar = "heading"
    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; a small one is an aside."""

    kind: ClassVar = "paragraph"
    text: str
    small: bool = False


@dataclass(frozen=True)
class Items:
    """A list; of code, names of files and the like."""

    kind: ClassVar = "items"
    items: Sequence[str]
    code: bool = False


@dataclass(frozen=True)
class Callout:
    """What must not be overlooked; its tone is said in a word too.

    Attributes:
        tone: how grave it is; an answer is what the page was made for.
        items: texts, one at least.
        title: before them.
    """

    kind: ClassVar = "callout"
    tone: Tone
    items: Sequence[str]
    title: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture.

    Attributes:
        caption: below it, and what is read out instead of it.
        data: of the file.
        mime: ``"jpeg"``, ``"png"`` or ``"svg+xml"``.
        link: to the file beside a page of Markdown, which holds no pictures itself.
    """

    kind: ClassVar = "figure"
    caption: str
    data: bytes = field(repr=False)
    mime: str
    link: str = ""

    @property
    def uri(self) -> str:
        """A data URI that holds the file."""
        return f"data:image/{self.mime};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    kind: ClassVar = "gallery"
    figures: Sequence[Figure]


@dataclass(frozen=True)
class Column:
    """Of a table: numbers, text that wraps, text that must not, or text so long that it may break anywhere."""

    title: str
    kind: Literal["number", "text", "tight", "long"]


@dataclass(frozen=True)
class Cell:
    """A text, and the number that its column is sorted by, where there is one."""

    text: str
    value: float | None = None

    @property
    def key(self) -> str:
        """To sort by; nothing without a number."""
        return "" if self.value is None or not math.isfinite(self.value) else repr(float(self.value))


@dataclass(frozen=True)
class Table:
    """Made by `table`.

    Attributes:
        caption: what it shows.
        columns: their titles and kinds.
        rows: as many cells as columns.
        aside: numbers of rows that are told apart from the others and stay below them, however it is sorted.
    """

    kind: ClassVar = "table"
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    aside: frozenset[int] = frozenset()

    @property
    def headed(self) -> bool:
        """Whether the columns have titles; without, it is a list of facts."""
        return any(column.title for column in self.columns)


Block = Heading | Paragraph | Items | Callout | Figure | Gallery | Table

# How a column is shown: by a form that makes text of its values, which are then sorted as numbers, intervals by their
# lower limit; as numbers whose cells are made already; or it is text.
Form = Callable[[Any], str] | Literal["number", "text", "tight", "long"]


def table(
    caption: str, columns: Sequence[tuple[str, Form]], rows: Sequence[Sequence[Any]], *, aside: Sequence[int] = ()
) -> Table:
    """Make a table of values.

    Args:
        caption: what it shows.
        columns: title and form of each.
        rows: a value for each column: what its form takes, such as a number, None, or the limits of an interval; or a
            `Cell`, which stays as it is.
        aside: see `Table`.
    """
    return Table(
        caption,
        [Column(title, "number" if callable(form) else form) for title, form in columns],
        [[_cell(value, form) for value, (_, form) in zip(row, columns, strict=True)] for row in rows],
        frozenset(aside),
    )


def _cell(value: Any, form: Form) -> Cell:
    if isinstance(value, Cell):
        return value
    if not callable(form):
        return Cell(str(value))
    number = value[0] if isinstance(value, (tuple, list)) else value
    return Cell(form(value), float(number) if isinstance(number, (int, float)) else None)


def html(page: Sequence[Block]) -> str:
    """The page as one file, pictures in it, for light, dark, small screens and paper.

    Args:
        page: a heading of level 1 first.
    """
    # A line does not end between a number and its sign.
    return _render("page.html.j2", page, escape=True).replace(" %", "\N{NO-BREAK SPACE}%")


def markdown(page: Sequence[Block]) -> str:
    """The page for a repository or a terminal, figures as links.

    Args:
        page: as for `html`.
    """
    return _render("page.md.j2", page, escape=False)


def _render(template: str, page: Sequence[Block], *, escape: bool) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("monai_thyroid", "templates"),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["plain"] = _escaped
    environment.filters["code"] = _as_code
    return str(environment.get_template(template).render(page=page))


def _escaped(text: str) -> str:
    """No name is read as markup."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", "<br>")
    for character in "\\`*_|[]":
        text = text.replace(character, f"\\{character}")
    return text


def _as_code(text: str) -> str:
    """To be copied as it stands, where no sign in it ends the code."""
    return _escaped(text) if "`" in text or "\n" in text else f"`{text}`"
