"""Which films lie in data/raw: files, and pairs of files or folders."""

import re
from pathlib import Path

from secondeye.film.packing import MONO, PAIR, packing_from_name
from secondeye.sources.packing_detection import detect_packing
from secondeye.sources.source import FILM_SUFFIXES, MonoFilm, Source, is_still
from secondeye.sources.sources_csv import SourceRow, normalize_name, read_sources_csv
from secondeye.system.errors import UserError

_OTHER_EYE = {"l": "r", "left": "right"}
_LEFT_EYE = re.compile(r"(.*[-_. ])?(l|left)", re.IGNORECASE)
_BOTH_EYES = {".jps", ".mpo"}
_TRUTH = "truth"  # what is known about films beside it, named like them
_NAMED = 5  # of the files that are passed over


def list_mono_films(raw: Path) -> list[MonoFilm]:
    """The films that sources.csv calls mono and train, in order of their names.

    Raises Refusal when one of them is not there, or sources.csv makes no sense.
    """
    rows = [row for row in read_sources_csv(raw / "sources.csv").values() if row.packing == MONO]
    there = _by_name(raw)
    films = [
        MonoFilm(there.get(row.film, raw / row.film), row.licence) for row in rows if row.split == "train"
    ]
    for film in films:
        if not film.path.is_file():
            raise UserError(f"{raw / 'sources.csv'}: names {film.path.name}, which is not in {raw}")
    return sorted(films, key=lambda film: film.path)


def list_sources(raw: Path) -> list[Source]:
    """The stereo films and pictures of a folder in order of their names; monocular ones are passed over.

    A packing is the one of sources.csv, else what metadata, name or content tell. Raises Refusal when
    there is no stereo film, or one whose packing nothing tells, or a sources.csv that makes no sense.
    """
    table = read_sources_csv(raw / "sources.csv")
    by_name = _by_name(raw)
    there = {name: path for name, path in by_name.items() if _may_be_film(path)}
    _require_there(raw, table, by_name)
    pairs = _pairs(table, there)
    alone = [name for name in there if name not in {*pairs, *pairs.values()}]
    _tell_unread(raw, [there[name] for name in alone if there[name].is_dir()])
    sources = [_pair(there[left], there[right], table.get(left)) for left, right in pairs.items()]
    sources += [source for name in alone if (source := _source(there[name], table.get(name)))]
    if not sources:
        raise UserError(
            f"{raw}: holds no stereo film; copy some there, or make some with: secondeye data sample {raw}"
        )
    return sorted(sources, key=lambda source: source.paths)


def _by_name(raw: Path) -> dict[str, Path]:
    """All that lies in a folder, by its name as sources.csv says it. Raises Refusal where two are one."""
    there: dict[str, Path] = {}
    for path in sorted(raw.glob("*")):
        if there.setdefault(normalize_name(path.name), path) is not path:
            raise UserError(f"{path}: is there twice, with accents stored in two ways; remove or rename one")
    return there


def _may_be_film(path: Path) -> bool:
    """Hidden files are none: other systems leave them beside films, with the films' names."""
    seen = not path.name.startswith(".")
    return seen and (path.is_dir() or path.suffix.lower() in FILM_SUFFIXES or is_still(path))


def _tell_unread(raw: Path, folders: list[Path]) -> None:
    """Name what is tagged as a stereo film, but of a kind that is not read, or in a folder of its own."""
    there = sorted(path for path in raw.glob("*") if path.is_file())
    beside_films = tuple(f"{path.stem}." for path in there if _may_be_film(path))  # subtitles, film.mp4.dvc
    beside = [path for path in there if not path.name.startswith(beside_films) and not _may_be_film(path)]
    inside = [path for folder in folders if folder.name != _TRUTH for path in sorted(folder.rglob("*"))]
    tagged = [
        path for path in [*beside, *folders, *inside] if packing_from_name(path.stem) and path.name[0] != "."
    ]
    if tagged:
        names = ", ".join(str(path.relative_to(raw)) for path in tagged[:_NAMED])
        more = f" and {len(tagged) - _NAMED} more" if len(tagged) > _NAMED else ""
        print(f"passed over: {names}{more} (a kind that is not read, or not in {raw} itself)")


def _require_there(raw: Path, table: dict[str, SourceRow], by_name: dict[str, Path]) -> None:
    named = {row.film for row in table.values() if row.packing != MONO}
    named |= {row.right for row in table.values() if row.right}
    found = {name: by_name.get(name, raw / name) for name in sorted(named)}
    absent = {name: path for name, path in found.items() if name not in by_name or not _may_be_film(path)}
    if absent:
        told = [f"{name}, which is {_why_absent(path)}" for name, path in absent.items()]
        raise UserError(f"{raw / 'sources.csv'}: names {'; '.join(told)}")


def _why_absent(path: Path) -> str:
    if not path.exists():
        return f"not in {path.parent}"
    return (
        "hidden"
        if path.name.startswith(".")
        else f"of a kind that is not read ({' '.join(sorted(FILM_SUFFIXES))})"
    )


def _pairs(table: dict[str, SourceRow], there: dict[str, Path]) -> dict[str, str]:
    """Right eyes by their left ones: as sources.csv says, else by names that differ in the eye only."""
    told = {row.film: row.right for row in table.values() if row.right}
    pairs = dict(told)
    for left in there:
        right = _other_eye(left, there)
        free = not {left, right} & {*told, *told.values()}
        if right and free and all(_may_pair(table.get(name)) for name in (left, right)):
            pairs[left] = right
    return pairs


def _other_eye(left: str, there: dict[str, Path]) -> str:
    """The right eye's name; "" where `left` is no left eye's, or where it is not clear which one it is.

    Two films may be of different kinds, where there is but one of the right name.
    """
    match = _LEFT_EYE.fullmatch(_stem(there[left]))
    if not match:
        return ""
    stem = ((match[1] or "") + _OTHER_EYE[match[2].lower()]).lower()
    rights = [n for n, path in there.items() if _stem(path).lower() == stem and _alike(path, there[left])]
    same = [name for name in rights if there[name].suffix.lower() == there[left].suffix.lower()]
    return next(iter(same or (rights if len(rights) == 1 else [])), "")


def _stem(path: Path) -> str:
    return normalize_name(path.name if path.is_dir() else path.stem)


def _alike(one: Path, other: Path) -> bool:
    """Whether both are folders, both pictures, or both films."""
    return (one.is_dir(), is_still(one)) == (other.is_dir(), is_still(other))


def _may_pair(row: SourceRow | None) -> bool:
    return row is None or row.packing in ("", PAIR)


def _pair(left: Path, right: Path, row: SourceRow | None) -> Source:
    if not _alike(left, right):
        raise UserError(f"{left} and {right.name} are no pair: give two films, two pictures or two folders")
    remarks = ["" if row and row.right else f"pair with {right.name} taken from the names"]
    remarks += ["pictures of a folder play at 25 fps"] if left.is_dir() else []
    split, licence = (row.split, row.licence) if row else ("", "")
    return Source(left.name, (left, right), PAIR, split, licence, "; ".join(filter(None, remarks)))


def _source(path: Path, row: SourceRow | None) -> Source | None:
    told = row.packing if row else ""
    if told == MONO or (row is None and _passed_over(path)):
        return None
    if path.is_dir() or told == PAIR:
        raise UserError(
            f"{path}: is one eye of a pair; name the other eye's in column right of "
            f"{path.parent / 'sources.csv'}"
        )
    packing, remark = (told, "") if told else detect_packing(path)
    split, licence = (row.split, row.licence) if row else ("", "")
    return Source(path.name, (path,), packing, split, licence, remark)


def _passed_over(path: Path) -> bool:
    """Folders and ordinary pictures may lie there for other reasons: only a name or a line calls for them."""
    if path.is_dir():
        return True
    ordinary = is_still(path) and path.suffix.lower() not in _BOTH_EYES
    return ordinary and packing_from_name(path.stem) is None
