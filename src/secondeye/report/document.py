"""The parts of a report, and its Markdown; report.html renders the same parts as HTML."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from secondeye.report.rendering import render_template

# Characters that Markdown interprets. An opening bracket counts only where a link could begin.
_SPECIAL = re.compile(r"[\\|`*<>&~]|(?<![^\W_])_|_(?![^\W_])|\[(?=[^]]*]\()")


MAX_ROWS = 1000  # of a table with a row for each clip or film: a page must open in a browser

Item = TypeVar("Item")


class Bold(str):
    """A table cell in bold."""

    __slots__ = ()


class Table(NamedTuple):
    """Rows of cells below a header."""

    heading: str  # "" for none
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str  # a paragraph above the table, "" for none


class Bar(NamedTuple):
    """One row of `Bars`: a mean and its interval."""

    label: str
    highlighted: bool
    mean: float  # NaN leaves the row out
    low: float
    high: float


class Bars(NamedTuple):
    """A chart of means and intervals. HTML only: in Markdown the tables hold the same numbers."""

    heading: str
    digits: int
    bars: Sequence[Bar]


class Image(NamedTuple):
    """A PNG file."""

    heading: str
    path: Path


class Section(NamedTuple):
    """A heading and its parts; a string is a paragraph in which `this` is code."""

    heading: str
    parts: Sequence[str | Table | Bars | Image]


def choose_shown(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items that a table shows: all, or else MAX_ROWS evenly spaced ones."""
    count = len(items)
    return items if count <= MAX_ROWS else [items[k * count // MAX_ROWS] for k in range(MAX_ROWS)]


def describe_shown(count: int) -> str:
    """Return a sentence about the rows that `choose_shown` leaves out of so many; "" if it shows all."""
    return "" if count <= MAX_ROWS else f"{MAX_ROWS} of {count} rows, evenly spaced; all are in the tables."


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """Render the report as Markdown."""
    return render_template(
        "report.md.j2",
        tests=part_tests(),
        filters={"escape_markdown": escape_markdown, "markdown_cell": _markdown_cell},
        title=title,
        sections=sections,
    )


def escape_markdown(text: str) -> str:
    """Escape the characters that Markdown interprets and join the text into one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def part_tests() -> dict[str, Callable[[object], bool]]:
    """Return template tests for the kind of a part: `is table`, `is bars`, `is image`, `is bold`."""
    return {
        "table": lambda part: isinstance(part, Table),
        "bars": lambda part: isinstance(part, Bars),
        "image": lambda part: isinstance(part, Image),
        "bold": lambda part: isinstance(part, Bold),
    }


def _markdown_cell(cell: str) -> str:
    escaped = escape_markdown(cell)
    return f"**{escaped}**" if isinstance(cell, Bold) else escaped
