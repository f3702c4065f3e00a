"""sources.csv: what a user says about the films of data/raw."""

import csv
import unicodedata
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from secondeye.film.packing import MONO, PACKINGS, PAIR
from secondeye.system.errors import UserError

COLUMNS = ["film", "packing", "split", "licence"]
_RIGHT = "right"  # a fifth column
_SPLITS = ("", "train", "test")


@dataclass(frozen=True)
class SourceRow:
    """A line of sources.csv."""

    film: str
    packing: str  # "" where other evidence has to tell
    split: str
    licence: str
    right: str = ""  # the file or folder of the right eye, of a pair


def read_sources_csv(path: Path) -> dict[str, SourceRow]:
    """The lines by their films' names; none where there is no such file. Raises Refusal in one clear line."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write the mark in front
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; it must be a CSV file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text; save it as CSV UTF-8") from error
    try:
        rows = _rows(path, text)
    except csv.Error as error:
        raise UserError(f"{path}: is not CSV ({error}); is a quotation mark left open?") from error
    _require_one_place_each(path, rows)
    return rows


def normalize_name(name: str) -> str:
    """A file's name as tables are typed: some systems store an accent apart from its letter."""
    return unicodedata.normalize("NFC", name)


def _rows(path: Path, text: str) -> dict[str, SourceRow]:
    first, _, _ = text.partition("\n")
    between = ";" if ";" in first and "," not in first else ","  # spreadsheets of some countries
    with StringIO(text, newline="") as file:
        reader = csv.reader(file, delimiter=between)
        columns = [column.strip().lower() for column in next(reader, [])]
        if columns not in (COLUMNS, [*COLUMNS, _RIGHT]):
            raise UserError(
                f"{path}: the first line must be {','.join(COLUMNS)}[,{_RIGHT}], got {first.strip()}"
            )
        rows: dict[str, SourceRow] = {}
        for given in reader:
            where = f"{path}, line {reader.line_num}"
            cells = [normalize_name(cell.strip()) for cell in given]
            if not any(cells):  # spreadsheets leave such lines, not all of them as wide as the table
                continue
            if len(cells) != len(columns):
                raise UserError(f"{where}: must have {len(columns)} columns")
            row = SourceRow(*cells)
            _require_sense(where, row)
            if row.film in rows:
                raise UserError(f"{where}: {row.film} has a line already")
            rows[row.film] = row
    return rows


def _require_sense(where: str, row: SourceRow) -> None:
    if row.packing not in ("", MONO, *PACKINGS):
        raise UserError(f"{where}: packing must be one of {', '.join((*PACKINGS, MONO))}")
    if row.split not in _SPLITS:
        raise UserError(f"{where}: split must be train, test or empty")
    if not row.film:
        raise UserError(f"{where}: names no film")
    for column, name in (("film", row.film), (_RIGHT, row.right)):
        if Path(name).name != name or name == "..":
            raise UserError(f"{where}: {column} must be a file name without a folder")
    if row.right and row.packing not in ("", PAIR):
        raise UserError(
            f"{where}: names the right eye, so packing must be {PAIR} or empty, got {row.packing}"
        )


def _require_one_place_each(path: Path, rows: dict[str, SourceRow]) -> None:
    eyes = [row.right for row in rows.values() if row.right]
    twice = {name for name in eyes if name in rows or eyes.count(name) > 1}
    if twice:
        raise UserError(
            f"{path}: names {', '.join(sorted(twice))} more than once; an eye belongs to one film"
        )
