"""List the films in data/raw: files, and pairs of files or folders."""

import re
from pathlib import Path

from secondeye.film.packing import MONO, PAIR, packing_from_name
from secondeye.sources.packing_detection import UnclearPacking, detect_packing, raise_unclear
from secondeye.sources.source import FILM_SUFFIXES, MonoFilm, Source, is_still
from secondeye.sources.sources_csv import SourceRow, normalize_name, read_sources_csv
from secondeye.system.errors import UserError

_RIGHT_TAG = {"l": "r", "left": "right"}
_LEFT_NAME = re.compile(r"(.*[-_. ])?(l|left)", re.IGNORECASE)
_STEREO_STILLS = {".jps", ".mpo"}
_TRUTH = "truth"  # folder of ground truth, named after the films
_MAX_NAMES = 5  # of skipped files in one message


def list_mono_films(raw: Path) -> list[MonoFilm]:
    """Return the films that sources.csv marks as mono and train, sorted by name.

    Raises UserError if one of them is missing or sources.csv is invalid.
    """
    rows = [row for row in read_sources_csv(raw / "sources.csv").values() if row.packing == MONO]
    paths = _by_name(raw)
    films = [
        MonoFilm(paths.get(row.film, raw / row.film), row.licence) for row in rows if row.split == "train"
    ]
    for film in films:
        if not film.path.is_file():
            raise UserError(f"{raw / 'sources.csv'}: {film.path.name} is not in {raw}")
    return sorted(films, key=lambda film: film.path)


def list_sources(raw: Path) -> list[Source]:
    """Return the stereo films and images of a folder, sorted by name; monocular ones are skipped.

    The packing is that of sources.csv, else it is detected. Raises UserError if there is no stereo film, if
    sources.csv is invalid, and for all films of unclear packing at once.
    """
    table = read_sources_csv(raw / "sources.csv")
    by_name = _by_name(raw)
    paths = {name: path for name, path in by_name.items() if _may_be_film(path)}
    _require_listed(raw, table, by_name)
    pairs = _find_pairs(table, paths)
    single = [name for name in paths if name not in {*pairs, *pairs.values()}]
    _report_skipped(raw, [paths[name] for name in single if paths[name].is_dir()])
    sources = [_pair(paths[left], paths[right], table.get(left)) for left, right in pairs.items()]
    unclear: list[UnclearPacking] = []
    for name in single:
        try:
            source = _single(paths[name], table.get(name))
        except UnclearPacking as error:
            unclear.append(error)
        else:
            sources += [source] if source else []
    raise_unclear(raw, unclear)
    if not sources:
        raise UserError(
            f"{raw}: contains no stereo film; copy some there, or make some with: secondeye data sample {raw}"
        )
    return sorted(sources, key=lambda source: source.paths)


def _by_name(raw: Path) -> dict[str, Path]:
    """Return all entries of a folder by normalised name. Raises UserError if two have the same one."""
    paths: dict[str, Path] = {}
    for path in sorted(raw.glob("*")):
        if paths.setdefault(normalize_name(path.name), path) is not path:
            raise UserError(
                f"{path}: exists twice, with accents encoded in two ways; remove or rename one of them"
            )
    return paths


def _may_be_film(path: Path) -> bool:
    """Whether a path may be a film; hidden files are not, such as ._FILM, which macOS leaves beside films."""
    visible = not path.name.startswith(".")
    return visible and (path.is_dir() or path.suffix.lower() in FILM_SUFFIXES or is_still(path))


def _report_skipped(raw: Path, folders: list[Path]) -> None:
    """Print the files tagged as stereo films whose type is not supported, or that lie in a subfolder."""
    files = sorted(path for path in raw.glob("*") if path.is_file())
    companions = tuple(f"{path.stem}." for path in files if _may_be_film(path))  # subtitles, film.mp4.dvc
    others = [path for path in files if not path.name.startswith(companions) and not _may_be_film(path)]
    inside = [path for folder in folders if folder.name != _TRUTH for path in sorted(folder.rglob("*"))]
    tagged = [
        path for path in [*others, *folders, *inside] if packing_from_name(path.stem) and path.name[0] != "."
    ]
    if tagged:
        names = ", ".join(str(path.relative_to(raw)) for path in tagged[:_MAX_NAMES])
        more = f" and {len(tagged) - _MAX_NAMES} more" if len(tagged) > _MAX_NAMES else ""
        print(f"skipped: {names}{more} (file type not supported, or not directly in {raw})")


def _require_listed(raw: Path, table: dict[str, SourceRow], by_name: dict[str, Path]) -> None:
    """Raise UserError naming all entries of sources.csv that do not exist or cannot be films."""
    listed = {row.film for row in table.values() if row.packing != MONO}
    listed |= {row.right for row in table.values() if row.right}
    paths = {name: by_name.get(name, raw / name) for name in sorted(listed)}
    unusable = {name: path for name, path in paths.items() if name not in by_name or not _may_be_film(path)}
    if unusable:
        reasons = [f"{name} is {_why_unusable(path)}" for name, path in unusable.items()]
        raise UserError(f"{raw / 'sources.csv'}: {'; '.join(reasons)}")


def _why_unusable(path: Path) -> str:
    if not path.exists():
        return f"not in {path.parent}"
    if path.name.startswith("."):
        return "hidden"
    return f"of an unsupported type (supported: {' '.join(sorted(FILM_SUFFIXES))})"


def _find_pairs(table: dict[str, SourceRow], paths: dict[str, Path]) -> dict[str, str]:
    """Return right views by left ones: from sources.csv, else names that differ only in left and right."""
    listed = {row.film: row.right for row in table.values() if row.right}
    pairs = dict(listed)
    for left in paths:
        right = _right_of(left, paths)
        unlisted = not {left, right} & {*listed, *listed.values()}
        if right and unlisted and all(_may_pair(table.get(name)) for name in (left, right)):
            pairs[left] = right
    return pairs


def _right_of(left: str, paths: dict[str, Path]) -> str:
    """Return the right view's name; "" if `left` is not a left view or the right view is ambiguous.

    Two films may have different suffixes if only one film has the right view's name.
    """
    match = _LEFT_NAME.fullmatch(_stem(paths[left]))
    if not match:
        return ""
    stem = ((match[1] or "") + _RIGHT_TAG[match[2].lower()]).lower()
    rights = [n for n, path in paths.items() if _stem(path).lower() == stem and _same_kind(path, paths[left])]
    same_suffix = [name for name in rights if paths[name].suffix.lower() == paths[left].suffix.lower()]
    return next(iter(same_suffix or (rights if len(rights) == 1 else [])), "")


def _stem(path: Path) -> str:
    return normalize_name(path.name if path.is_dir() else path.stem)


def _same_kind(one: Path, other: Path) -> bool:
    """Whether both are folders, both images, or both films."""
    return (one.is_dir(), is_still(one)) == (other.is_dir(), is_still(other))


def _may_pair(row: SourceRow | None) -> bool:
    return row is None or row.packing in ("", PAIR)


def _pair(left: Path, right: Path, row: SourceRow | None) -> Source:
    if not _same_kind(left, right):
        raise UserError(f"{left} and {right.name} are not a pair: both must be films, images or folders")
    remarks = ["" if row and row.right else f"pair with {right.name} inferred from the names"]
    remarks += ["images of a folder play at 25 fps"] if left.is_dir() else []
    split, licence = (row.split, row.licence) if row else ("", "")
    return Source(left.name, (left, right), PAIR, split, licence, "; ".join(filter(None, remarks)))


def _single(path: Path, row: SourceRow | None) -> Source | None:
    packing, remark = row.packing if row else "", ""
    if packing == MONO or (row is None and _is_unrelated(path)):
        return None
    if path.is_dir() or packing == PAIR:
        raise UserError(
            f"{path}: is one view of a pair; name the right view's file in column right of "
            f"{path.parent / 'sources.csv'}"
        )
    if not packing:
        packing, remark = detect_packing(path)
    split, licence = (row.split, row.licence) if row else ("", "")
    return Source(path.name, (path,), packing, split, licence, remark)


def _is_unrelated(path: Path) -> bool:
    """Whether a path is a folder or an ordinary image, which need a packing tag or a row of sources.csv."""
    if path.is_dir():
        return True
    ordinary = is_still(path) and path.suffix.lower() not in _STEREO_STILLS
    return ordinary and packing_from_name(path.stem) is None
