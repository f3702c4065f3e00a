"""How a file's eyes are packed, where sources.csv does not say: metadata, then its name, then its content."""

import re
from fractions import Fraction
from pathlib import Path

from secondeye.film.packing import MONO, MULTIVIEW, PACKED, RIGHT_FIRST, packing_axis, packing_from_name
from secondeye.sources.packing_from_pixels import axis_from_pixels
from secondeye.sources.source import Source, is_still
from secondeye.sources.sources_csv import COLUMNS
from secondeye.sources.stills import read_still
from secondeye.system.errors import UserError
from secondeye.video.probe import UnreadableFilm, probe
from secondeye.video.stereo_metadata import StereoMetadata, read_stereo_metadata

_SILENT = StereoMetadata(axis="", right_first=False, projection="", views=1)
_SQUEEZED_BELOW = 1  # width over height of an eye that lies beside the other: half of it is left
_SQUEEZED_ABOVE = Fraction(26, 10)  # of an eye that lies below the other
_WORDS = {"ou", "ab", "tab", "lr", "rl", "bt"}  # words or initials, too: no evidence against other tags


def detect_packing(path: Path) -> tuple[str, str]:  # packing, and what it was taken from
    """Raises Refusal when nothing tells, or when metadata and name say different things."""
    if path.suffix.lower() == ".mpo":
        return MULTIVIEW, "left eye first, as MPO files have it"
    named, metadata = _packing_of_name(path), read_metadata(path)
    if metadata.views > 1:
        _require_agreement(path, MULTIVIEW, named)
        return MULTIVIEW, "both views are in the stream; its base view taken for the left eye"
    if metadata.axis:
        return _from_metadata(path, metadata, named)
    if named:
        return named, f"packing {named} taken from the file's name"
    if path.suffix.lower() == ".jps":
        return "sbs" + RIGHT_FIRST, "right eye first, as JPS files have it"
    axis = axis_from_pixels(path)
    if not axis:
        raise UserError(f"{path}: nothing tells how its eyes are packed; {_line(path)}")
    packing = _full_or_half(path, axis)
    return packing, f"packing {packing} taken from the pictures' content and shape; order of the eyes assumed"


def _packing_of_name(path: Path) -> str | None:
    """Raises Refusal where one part of the name says beside and another below."""
    named = packing_from_name(path.stem)
    parts = [part for part in re.split(r"[-_. ]+", path.stem.lower()) if part not in _WORDS]
    runs = ["-".join(parts[at : at + words]) for words in (1, 2) for at in range(len(parts))]
    axes = {packing_axis(packing) for packing in (named, *map(packing_from_name, runs)) if packing}
    if len(axes) > 1:
        raise UserError(f"{path}: its name says both {' and '.join(sorted(axes))}; {_line(path)}")
    return named


def check_packing(source: Source) -> None:
    """Raises Refusal where a packing that sources.csv does not tell is clearly not that of the pictures."""
    path = source.paths[0]
    if source.remark and source.packing in PACKED:
        axis = axis_from_pixels(path)
        if axis and axis != packing_axis(source.packing):
            raise UserError(f"{path}: {source.remark}, but its pictures say {axis}; {_line(path)}")


def read_metadata(path: Path) -> StereoMetadata:
    """What a file says of itself; nothing where it can not be read, which its reader will tell better."""
    try:
        return read_stereo_metadata(path)
    except UnreadableFilm:
        return _SILENT


def _from_metadata(path: Path, metadata: StereoMetadata, named: str | None) -> tuple[str, str]:
    if metadata.axis not in PACKED:
        raise UserError(f"{path}: its eyes are packed {metadata.axis}; make it side by side first")
    order = RIGHT_FIRST if metadata.right_first else ""
    _require_agreement(path, metadata.axis + order, named)
    if named:
        packing = named.removesuffix(RIGHT_FIRST) + order
        return packing, f"packing {packing} taken from the stream's metadata and the file's name"
    packing = _full_or_half(path, metadata.axis) + order
    return packing, f"packing {packing} taken from the stream's metadata and the picture's shape"


def _require_agreement(path: Path, told: str, named: str | None) -> None:
    if named is None or (packing_axis(named) == packing_axis(told) and not _claims_order(named, told)):
        return
    raise UserError(f"{path}: its metadata says {told}, its name says {named}; {_line(path)}")


def _claims_order(named: str, told: str) -> bool:
    """Whether a name says right eye first against the metadata; a plain tag says nothing of the order."""
    return named.endswith(RIGHT_FIRST) and not told.endswith(RIGHT_FIRST)


def _full_or_half(path: Path, axis: str) -> str:
    aspect = display_aspect(path) * (Fraction(1, 2) if axis == "sbs" else 2)
    half = aspect < _SQUEEZED_BELOW if axis == "sbs" else aspect > _SQUEEZED_ABOVE
    return f"half-{axis}" if half else axis


def display_aspect(path: Path) -> Fraction:
    """Width over height of a whole picture as it is shown."""
    if is_still(path):
        height, width = read_still(path).shape[:2]
        return Fraction(width, height)
    info = probe(path)
    return info.pixel_aspect * Fraction(info.width, info.height)


def _line(path: Path) -> str:
    packings = ", ".join((*PACKED, MULTIVIEW, MONO))
    line = f"add a line to {path.parent / 'sources.csv'} ({','.join(COLUMNS)}) with one of {packings}"
    return f"{line}, or with the right eye's file in a fifth column, right"
