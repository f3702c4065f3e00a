"""A report as one HTML file that needs nothing else: no script, no font, no picture from elsewhere."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np

from secondeye.report.contact_sheet import read_picture
from secondeye.report.document import Bar, Bars, Bold, Picture, Section, Table
from secondeye.system.files import write_atomic

_FOLDED_ROWS = 30  # longer tables are closed at first
_LONG = 40  # letters; longer cells break into lines
_JPEG_QUALITY = 88
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(?![\w.])|-$")
_LABEL, _PLOT, _LINE, _EDGE = 150, 470, 24, 20  # px of a drawing: names, scale, height of a line, margin
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1200px; margin: 0 auto; padding: 0 1rem 3rem }
h1, h2, h3 { line-height: 1.2; margin: 2rem 0 .5rem }
h2 { border-bottom: 1px solid #8886; padding-bottom: .3rem }
p { max-width: 50rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8884; text-align: left; white-space: nowrap }
th { white-space: normal; vertical-align: bottom }
td.number { text-align: right }
td.long { white-space: normal; min-width: 14rem }
b { color: #2a8a4a }
svg { max-width: 100%; height: auto; font-size: 12px }
svg .rival { fill: #3b82f6; stroke: #3b82f6 }
svg .range { fill: #8889; stroke: #8889 }
svg text { fill: currentColor }
summary { cursor: pointer; margin: 1rem 0 }
img { max-width: 100%; height: auto }
"""


def write_page(
    path: Path,
    title: str,
    sections: Sequence[Section],
    siblings: Mapping[str, str],  # reports that may lie beside it: file name -> words of the link
) -> None:
    """Write the report as HTML, with links to those siblings that are there."""
    links = [
        f'<a href="{name}">{words}</a>' for name, words in siblings.items() if (path.parent / name).exists()
    ]
    body = [f"<h1>{escape(title)}</h1>", f"<p>{', '.join(links)}</p>" if links else ""]
    for section in sections:
        body += [f"<h2>{escape(section.heading)}</h2>", *(_part(part) for part in section.parts)]
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    content = "\n".join(block for block in body if block)
    write_atomic(
        path,
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n{content}\n</body></html>\n',
    )


def _part(part: str | Table | Bars | Picture) -> str:
    match part:
        case Table():
            return _table(part)
        case Picture():
            return _picture(part)
        case Bars():
            return _drawing(part)
    return f"<p>{_text(part)}</p>"


def _text(words: str) -> str:
    """A paragraph; `like this` is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(words))


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    drawn = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'
    note = f"<p>{_text(table.note)}</p>" if table.note else ""
    if len(table.rows) > _FOLDED_ROWS:
        drawn = f"<details><summary>{len(table.rows)} rows</summary>{drawn}</details>"
    heading = f"<h3>{escape(table.heading)}</h3>" if table.heading else ""
    return f"{heading}{note}{drawn}"


def _cell(cell: str) -> str:
    words = f"<b>{escape(cell)}</b>" if isinstance(cell, Bold) else escape(cell)
    kind = "number" if _NUMBER.match(cell) else "long" if len(cell) > _LONG else "word"
    return f'<td class="{kind}">{words}</td>'


def _picture(picture: Picture) -> str:
    """As JPEG: a third of the bytes."""
    pixels = np.ascontiguousarray(read_picture(picture.path)[..., ::-1])
    done, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    assert done, picture.path
    coded, words = base64.b64encode(content.tobytes()).decode(), escape(picture.heading)
    return f'<p>{words}</p><div class="wide"><img alt="{words}" src="data:image/jpeg;base64,{coded}"></div>'


def _drawing(bars: Bars) -> str:
    """A dot for the mean on a line from end to end of the interval, one method a line (SVG)."""
    shown = [bar for bar in bars.bars if not math.isnan(bar.mean)]
    if not shown:
        return ""
    low, high = min(bar.low for bar in shown), max(bar.high for bar in shown)
    width, height = _LABEL + _PLOT + 2 * _EDGE, _LINE * (len(shown) + 1) + 4
    lines = [_bar(bar, _LINE * (place + 0.5), low, high) for place, bar in enumerate(shown)]
    ends = [(low, "start"), ((low + high) / 2, "middle"), (high, "end")]
    ticks = [
        f'<text x="{_place(end, low, high):.1f}" y="{height - 8}" text-anchor="{anchor}">'
        f"{end:.{bars.digits}f}</text>"
        for end, anchor in ends
    ]
    words = escape(bars.heading)
    return (
        f'<h3>{words}</h3><svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{words}">{"".join(lines + ticks)}</svg>'
    )


def _bar(bar: Bar, y: float, low: float, high: float) -> str:
    start, middle, end = (_place(value, low, high) for value in (bar.low, bar.mean, bar.high))
    return (
        f'<text x="{_LABEL - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>'
        f'<g class="{"rival" if bar.rival else "range"}">'
        f'<line x1="{start:.1f}" x2="{end:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="3"/>'
        f'<circle cx="{middle:.1f}" cy="{y:.1f}" r="5"/></g>'
    )


def _place(value: float, low: float, high: float) -> float:
    """Where a value stands across the drawing, px."""
    share = (value - low) / (high - low) if high > low else 0.5
    return _LABEL + _EDGE + _PLOT * share
