"""Read sources.csv, in which users describe the films of data/raw."""

import csv
import unicodedata
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from secondeye.film.packing import MONO, PACKINGS, PAIR
from secondeye.system.errors import UserError

COLUMNS = ["film", "packing", "split", "licence"]
_RIGHT = "right"  # an optional fifth column
_SPLITS = ("", "train", "test")


@dataclass(frozen=True)
class SourceRow:
    """One row of sources.csv."""

    film: str
    packing: str  # "" to detect it
    split: str
    licence: str
    right: str = ""  # of a pair, the file or folder of the right view


def read_sources_csv(path: Path) -> dict[str, SourceRow]:
    """Return the rows by film name; empty if there is no such file. Raises UserError for invalid content."""
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write a byte order mark
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder; it must be a CSV file") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text; save it as CSV UTF-8") from error
    try:
        rows = _parse_rows(path, text)
    except csv.Error as error:
        raise UserError(f"{path}: not valid CSV ({error}); check for an open quotation mark") from error
    _check_unique_views(path, rows)
    return rows


def normalize_name(name: str) -> str:
    """Return a file name in Unicode NFC, as tables are typed; macOS stores accents decomposed."""
    return unicodedata.normalize("NFC", name)


def _parse_rows(path: Path, text: str) -> dict[str, SourceRow]:
    header, _, _ = text.partition("\n")
    delimiter = ";" if ";" in header and "," not in header else ","  # spreadsheets of some countries
    with StringIO(text, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        columns = [column.strip().lower() for column in next(reader, [])]
        if columns not in (COLUMNS, [*COLUMNS, _RIGHT]):
            raise UserError(
                f"{path}: the first line must be {','.join(COLUMNS)}[,{_RIGHT}], got {header.strip()}"
            )
        rows: dict[str, SourceRow] = {}
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            cells = [normalize_name(cell.strip()) for cell in values]
            if not any(cells):  # spreadsheets leave empty rows, of any width
                continue
            if len(cells) != len(columns):
                raise UserError(f"{where}: must have {len(columns)} columns, got {len(cells)}")
            row = SourceRow(*cells)
            _check_row(where, row)
            if row.film in rows:
                raise UserError(f"{where}: {row.film} already has a line")
            rows[row.film] = row
    return rows


def _check_row(where: str, row: SourceRow) -> None:
    if row.packing not in ("", MONO, *PACKINGS):
        raise UserError(f"{where}: packing must be one of {', '.join((*PACKINGS, MONO))}, got {row.packing}")
    if row.split not in _SPLITS:
        raise UserError(f"{where}: split must be train, test or empty, got {row.split}")
    if not row.film:
        raise UserError(f"{where}: film is empty")
    for column, name in (("film", row.film), (_RIGHT, row.right)):
        if Path(name).name != name or name == "..":
            raise UserError(f"{where}: {column} must be a file name without a folder, got {name}")
    if row.right and row.packing not in ("", PAIR):
        raise UserError(f"{where}: with a right view, packing must be {PAIR} or empty, got {row.packing}")


def _check_unique_views(path: Path, rows: dict[str, SourceRow]) -> None:
    rights = [row.right for row in rows.values() if row.right]
    repeated = {name for name in rights if name in rows or rights.count(name) > 1}
    if repeated:
        raise UserError(
            f"{path}: {', '.join(sorted(repeated))} appears more than once; a view belongs to one film"
        )
