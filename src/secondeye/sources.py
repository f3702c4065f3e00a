"""What lies in data/raw: films, and sources.csv that says how they are packed and licensed."""

import csv
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from secondeye.packing import MONO, PACKINGS, packing_from_name
from secondeye.refusal import Refusal

FILMS = {".mp4", ".mkv", ".mov", ".m4v", ".avi", ".webm", ".ts", ".mpg", ".mpeg", ".wmv"}
_COLUMNS = ["film", "packing", "split", "licence"]
_SPLITS = ("", "train", "test")


@dataclass(frozen=True)
class Source:
    """One stereo film of data/raw."""

    path: Path
    packing: str
    split: str  # train, test or "" for left open
    licence: str  # "" for not stated
    remark: str


@dataclass(frozen=True)
class Mono:
    """One film of data/raw with one eye, to learn from."""

    path: Path
    licence: str  # "" for not stated


def list_mono(raw: Path) -> list[Mono]:
    """The films that sources.csv calls mono and train, in order of their names.

    Raises Refusal when one of them is not there, or sources.csv makes no sense.
    """
    rows = [row for row in _read_table(raw / "sources.csv").values() if row["packing"] == MONO]
    films = [Mono(raw / row["film"], row["licence"]) for row in rows if row["split"] == "train"]
    for film in films:
        if not film.path.is_file():
            raise Refusal(f"{raw / 'sources.csv'}: names {film.path.name}, which is not in {raw}")
    return sorted(films, key=lambda film: film.path)


def list_sources(raw: Path) -> list[Source]:
    """The stereo films of a folder in order of their names; monocular ones are passed over.

    The packing is the one of sources.csv, else the tag in the file's name. Raises Refusal when there is no
    stereo film, or one whose packing nothing tells, or a sources.csv that makes no sense.
    """
    table = _read_table(raw / "sources.csv")
    films = sorted(path for path in raw.glob("*") if path.suffix.lower() in FILMS)
    there = {film.name for film in films}
    absent = {name for name, row in table.items() if row["packing"] != MONO} - there
    if absent:
        raise Refusal(f"{raw / 'sources.csv'}: names {', '.join(sorted(absent))}, which is not in {raw}")
    sources = [source for film in films if (source := _source(film, table.get(film.name)))]
    if not sources:
        raise Refusal(
            f"{raw}: holds no stereo film; copy some there, or make some with: secondeye sample {raw}"
        )
    return sources


def _source(film: Path, row: dict[str, str] | None) -> Source | None:
    if row and row["packing"]:
        if row["packing"] == MONO:
            return None
        return Source(film, row["packing"], row["split"], row["licence"], "")
    packing = packing_from_name(film.stem)
    if packing is None:
        raise Refusal(
            f"{film}: nothing tells how its eyes are packed; add a line to {film.parent / 'sources.csv'} "
            f"({','.join(_COLUMNS)}) with one of {', '.join((*PACKINGS, MONO))}"
        )
    return Source(
        film,
        packing,
        row["split"] if row else "",
        row["licence"] if row else "",
        f"packing {packing} taken from the file's name",
    )


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    if not path.exists():
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets write the mark in front
    except UnicodeDecodeError as error:
        raise Refusal(f"{path}: is not UTF-8 text; save it as CSV UTF-8") from error
    return _rows(path, text)


def _rows(path: Path, text: str) -> dict[str, dict[str, str]]:
    with StringIO(text, newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != _COLUMNS:
            raise Refusal(f"{path}: the first line must be {','.join(_COLUMNS)}, got {reader.fieldnames}")
        rows = {}
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise Refusal(f"{where}: must have {len(_COLUMNS)} columns")
            if row["packing"] not in ("", MONO, *PACKINGS):
                raise Refusal(f"{where}: packing must be one of {', '.join((*PACKINGS, MONO))}")
            if row["split"] not in _SPLITS:
                raise Refusal(f"{where}: split must be train, test or empty")
            if Path(row["film"]).name != row["film"]:
                raise Refusal(f"{where}: film must be a file name without a folder")
            if row["film"] in rows:
                raise Refusal(f"{where}: {row['film']} has a line already")
            rows[row["film"]] = row
    return rows
