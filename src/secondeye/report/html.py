"""A report as one self-contained HTML file: no scripts, no fonts, no external images."""

import base64
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from markupsafe import Markup, escape

from secondeye.report.contact_sheet import read_image
from secondeye.report.document import Bars, Section, part_tests
from secondeye.report.rendering import render_template
from secondeye.system.files import write_atomic

_UNFOLDED_ROWS = 30  # longer tables start folded
_LONG_CELL = 40  # characters; longer cells wrap
_JPEG_QUALITY = 88
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(?![\w.])|-$")
_LABEL_WIDTH, _PLOT_WIDTH, _ROW_HEIGHT, _MARGIN = 150, 470, 24, 20  # px, of a bar chart


class _ChartRow(NamedTuple):
    label: str
    highlighted: bool
    label_x: float  # px, like every position below
    y: float
    low_x: float
    mean_x: float
    high_x: float


class _Tick(NamedTuple):
    x: float
    anchor: str
    text: str


class _Chart(NamedTuple):
    width: int
    height: int
    rows: list[_ChartRow]
    ticks: list[_Tick]


def write_page(
    path: Path,
    title: str,
    sections: Sequence[Section],
    siblings: Mapping[str, str],  # file name of a related report in the same folder -> link text
) -> None:
    """Write the report as HTML, with links to those siblings that exist."""
    filters: dict[str, Callable[..., object]] = {
        "bar_chart": _bar_chart,
        "cell_class": _cell_class,
        "data_uri": _data_uri,
        "inline_code": _inline_code,
    }
    content = render_template(
        "report.html.j2",
        tests=part_tests(),
        filters=filters,
        title=title,
        links=[(file, text) for file, text in siblings.items() if (path.parent / file).exists()],
        sections=sections,
        unfolded_rows=_UNFOLDED_ROWS,
    )
    write_atomic(path, content)


def _inline_code(text: str) -> Markup:
    """Escape a paragraph and mark `this` as code."""
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def _cell_class(cell: str) -> str:
    return "number" if _NUMBER.match(cell) else "long" if len(cell) > _LONG_CELL else "word"


def _data_uri(path: Path) -> str:
    """Encode a PNG as a JPEG data URI, a third of its size."""
    pixels = np.ascontiguousarray(read_image(path)[..., ::-1])
    done, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, path
    return f"data:image/jpeg;base64,{base64.b64encode(content.tobytes()).decode()}"


def _bar_chart(bars: Bars) -> _Chart | None:
    """Lay out a row per bar, an interval with a dot at its mean; None if every mean is NaN."""
    shown = [bar for bar in bars.bars if not math.isnan(bar.mean)]
    if not shown:
        return None
    low, high = min(bar.low for bar in shown), max(bar.high for bar in shown)

    def position(value: float) -> float:
        share = (value - low) / (high - low) if high > low else 0.5
        return _LABEL_WIDTH + _MARGIN + _PLOT_WIDTH * share

    rows = [
        _ChartRow(
            bar.label,
            bar.highlighted,
            _LABEL_WIDTH - 8,
            _ROW_HEIGHT * (index + 0.5),
            *map(position, (bar.low, bar.mean, bar.high)),
        )
        for index, bar in enumerate(shown)
    ]
    ticks = [
        _Tick(position(value), anchor, f"{value:.{bars.digits}f}")
        for value, anchor in ((low, "start"), ((low + high) / 2, "middle"), (high, "end"))
    ]
    height = _ROW_HEIGHT * (len(shown) + 1) + 4
    return _Chart(_LABEL_WIDTH + _PLOT_WIDTH + 2 * _MARGIN, height, rows, ticks)
