"""What a report is made of, and its Markdown; report.page makes HTML of the same."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

# What Markdown would take for more than letters. A bracket is, where a link could begin.
_MARKS = re.compile(r"[\\|`*<>&~]|(?<![^\W_])_|_(?![^\W_])|\[(?=[^]]*]\()")


class Bold(str):
    """A cell that stands out."""

    __slots__ = ()


class Table(NamedTuple):
    """Numbers and names in rows."""

    heading: str  # "" for none
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str  # what to know when reading it; "" for nothing


class Bar(NamedTuple):
    """One line of `Bars`."""

    label: str
    rival: bool  # no floor or ceiling
    mean: float  # NaN leaves the line empty
    low: float
    high: float


class Bars(NamedTuple):
    """Means and their intervals as a drawing; Markdown has the same numbers in a table."""

    heading: str
    digits: int
    bars: Sequence[Bar]


class Picture(NamedTuple):
    """A PNG."""

    heading: str
    path: Path


class Section(NamedTuple):
    """A heading and what stands below it; a string is a paragraph, `like this` in it is code."""

    heading: str
    parts: Sequence["str | Table | Bars | Picture"]


def to_markdown(title: str, sections: Sequence[Section]) -> str:
    """The report in Markdown."""
    blocks = [f"# {title}"]
    for section in sections:
        blocks += [f"## {section.heading}", *(_part(part) for part in section.parts)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def escape_markdown(text: str) -> str:
    """The same letters in one line, none of which Markdown takes for a mark."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def _part(part: str | Table | Bars | Picture) -> str:
    match part:
        case Table():
            return _table(part)
        case Picture():
            return f"![{escape_markdown(part.heading)}]({part.path.name})"
        case Bars():
            return ""
    return part


def _table(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *([_cell(cell) for cell in row] for row in table.rows)]
    drawn = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    heading = f"### {table.heading}" if table.heading else ""
    return "\n\n".join(block for block in (heading, table.note, drawn) if block)


def _cell(cell: str) -> str:
    escaped = escape_markdown(cell)
    return f"**{escaped}**" if isinstance(cell, Bold) else escaped
