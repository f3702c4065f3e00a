"""Detect a file's packing that sources.csv does not state: from metadata, then its name, then its pixels."""

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from secondeye.film.layouts import ANAGLYPH
from secondeye.film.packing import (
    INTERLEAVED,
    MONO,
    MULTIVIEW,
    PACKED,
    RIGHT_FIRST,
    packing_axis,
    packing_from_name,
)
from secondeye.sources.packing_from_pixels import axis_from_pixels
from secondeye.sources.source import Source, is_still
from secondeye.sources.sources_csv import COLUMNS
from secondeye.sources.stills import read_still
from secondeye.system.errors import UserError
from secondeye.video.probe import UnreadableFilm, probe, read_tags
from secondeye.video.stereo_metadata import StereoMetadata, read_stereo_metadata

_NO_METADATA = StereoMetadata(axis="", right_first=False, projection="", views=1)
_MIN_DETAILED_PX = 160  # of a mono film's sides: halves of smaller pictures look alike too often
_HALF_SBS_BELOW = 1  # aspect of a view beside the other, below which it is squeezed
_HALF_TB_ABOVE = Fraction(26, 10)  # aspect of a view below the other, above which it is squeezed
# Tags that are also words or initials: they contradict no other tag.
_AMBIGUOUS_TAGS = {"ou", "ab", "tab", "lr", "rl", "bt"}


class UnclearPacking(UserError):
    """The packing of a film cannot be detected, or its metadata, name and pixels contradict each other."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # all arguments, so that it can be unpickled
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; {_remedy(self.path.parent)}"


def raise_unclear(raw: Path, films: Sequence[UnclearPacking]) -> None:
    """Raise UserError with a line for each film of unclear packing, if there are any."""
    if len(films) == 1:
        raise films[0]
    if films:
        lines = "\n".join(f"  {film.path.name}: {film.reason}" for film in films)
        raise UserError(f"{raw}: the packing of {len(films)} films is unclear:\n{lines}\n{_remedy(raw)}")


def detect_packing(path: Path) -> tuple[str, str]:  # packing, and what it was inferred from
    """Return a file's packing. Raises UnclearPacking if nothing states it, or metadata and name disagree."""
    if ANAGLYPH in _words(path):
        raise UnclearPacking(path, "is an anaglyph by its name, whose views cannot be separated")
    if recorded := _recorded_packing(path):
        return recorded, f"packing {recorded} stated by the record of the conversion that made the film"
    if path.suffix.lower() == ".mpo":
        return MULTIVIEW, "left view first, as in MPO files"
    named, metadata = _packing_of_name(path), read_metadata(path)
    if metadata.views > 1:
        _require_agreement(path, MULTIVIEW, named)
        return MULTIVIEW, "both views are layers of the stream; the base view is taken as the left one"
    if metadata.axis:
        return _packing_of_metadata(path, metadata, named)
    if named:
        return named, f"packing {named} inferred from the file name"
    if path.suffix.lower() == ".jps":
        return "sbs" + RIGHT_FIRST, "right view first, as in JPS files"
    axis = axis_from_pixels(path)
    if not axis:
        raise UnclearPacking(path, "the packing of its views cannot be detected")
    packing = _full_or_half(path, axis)
    return packing, f"packing {packing} inferred from pixels and aspect ratio; order of the views assumed"


def _recorded_packing(path: Path) -> str:
    """Return the packing that a conversion recorded in its film; "" if none, or if the film was cut since."""
    if is_still(path):
        return ""
    try:
        record = json.loads(read_tags(path).get("comment", ""))
        info = probe(path)
    except (ValueError, UnreadableFilm):
        return ""
    made = record.get("frame") if isinstance(record, dict) else None
    packing = record.get("packing", "") if made == f"{info.width}x{info.height}" else ""
    return packing if packing in PACKED else ""


def stated_packing(path: Path) -> str | None:
    """Return the packing that a film's metadata or name state; None if they state none.

    Raises UnclearPacking if they disagree, and UserError for a packing that is not supported.
    """
    if recorded := _recorded_packing(path):
        return recorded
    if ANAGLYPH in _words(path):
        return None
    named, metadata = packing_from_name(path.stem), read_metadata(path)
    return _packing_of_metadata(path, metadata, named)[0] if metadata.axis else named


def find_packing(path: Path) -> tuple[str, str] | None:  # packing, and what it was inferred from
    """Return the packing of a film that may be mono: None unless metadata, name or pixels say it is stereo.

    A tag that is also a word, such as `tab`, does not count, and neither do the pixels of a very small film.
    Raises UnclearPacking if metadata and name disagree.
    """
    metadata = read_metadata(path)
    named = packing_from_name("_".join(_words(path))) or _recorded_packing(path)
    if metadata.views > 1 or metadata.axis or named or (_is_detailed(path) and axis_from_pixels(path)):
        return detect_packing(path)
    return None


def _is_detailed(path: Path) -> bool:
    info = probe(path)
    return min(info.height, info.width) >= _MIN_DETAILED_PX


def _packing_of_name(path: Path) -> str | None:
    """Return the packing tag of a file name. Raises UnclearPacking if it has tags of both axes."""
    named = packing_from_name(path.stem)
    parts = _words(path)
    tags = ["-".join(parts[at : at + words]) for words in (1, 2) for at in range(len(parts))]
    axes = {packing_axis(packing) for packing in (named, *map(packing_from_name, tags)) if packing}
    if len(axes) > 1:
        raise UnclearPacking(path, f"the file name says both {' and '.join(sorted(axes))}")
    return named


def _words(path: Path) -> list[str]:
    """Return the words of a file name that can be nothing but a tag, or no tag at all."""
    return [word for word in re.split(r"[-_. ]+", path.stem.lower()) if word not in _AMBIGUOUS_TAGS]


def check_packing(source: Source) -> None:
    """Raise UnclearPacking if the pixels clearly contradict a packing that sources.csv does not state."""
    path = source.paths[0]
    if source.remark and source.packing in PACKED:
        axis = axis_from_pixels(path)
        if axis and axis != packing_axis(source.packing):
            raise UnclearPacking(path, f"{source.remark}, but its pixels say {axis}")


def read_metadata(path: Path) -> StereoMetadata:
    """Return a file's stereo metadata; empty if it cannot be read, which its reader reports later."""
    try:
        return read_stereo_metadata(path)
    except UnreadableFilm:
        return _NO_METADATA


def _packing_of_metadata(path: Path, metadata: StereoMetadata, named: str | None) -> tuple[str, str]:
    if metadata.axis not in PACKED:
        raise UserError(
            f"{path}: packing {metadata.axis} is not supported; convert the film to side by side first"
        )
    order = RIGHT_FIRST if metadata.right_first else ""
    _require_agreement(path, metadata.axis + order, named)
    if named:
        packing = named.removesuffix(RIGHT_FIRST) + order
        return packing, f"packing {packing} inferred from the stream's metadata and the file name"
    packing = _full_or_half(path, metadata.axis) + order
    return packing, f"packing {packing} inferred from the stream's metadata and the aspect ratio"


def _require_agreement(path: Path, packing: str, named: str | None) -> None:
    if named is None or (packing_axis(named) == packing_axis(packing) and not _contradicts(named, packing)):
        return
    raise UnclearPacking(path, f"its metadata says {packing}, its name says {named}")


def _contradicts(named: str, packing: str) -> bool:
    """Whether a name says right view first against the metadata; a plain tag does not state the order."""
    return named.endswith(RIGHT_FIRST) and not packing.endswith(RIGHT_FIRST)


def _full_or_half(path: Path, axis: str) -> str:
    if axis == INTERLEAVED:
        return axis
    aspect = display_aspect(path) * (Fraction(1, 2) if axis == "sbs" else 2)
    half = aspect < _HALF_SBS_BELOW if axis == "sbs" else aspect > _HALF_TB_ABOVE
    return f"half-{axis}" if half else axis


def display_aspect(path: Path) -> Fraction:
    """Return width / height of a whole frame as displayed."""
    if is_still(path):
        height, width = read_still(path).shape[:2]
        return Fraction(width, height)
    info = probe(path)
    return info.pixel_aspect * Fraction(info.width, info.height)


def _remedy(raw: Path) -> str:
    packings = ", ".join((*PACKED, MULTIVIEW, MONO))
    return (
        f"add a line to {raw / 'sources.csv'} ({','.join(COLUMNS)}) with one of {packings}, "
        "or with the right view's file in a fifth column, right"
    )
