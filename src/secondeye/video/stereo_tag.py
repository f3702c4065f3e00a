"""Say in a film how its views are packed: the SEI of H.264, `st3d` of mp4, StereoMode of Matroska."""

import struct
from pathlib import Path
from typing import NamedTuple

_SAMPLE_ENTRIES = (b"avc1", b"hvc1", b"hev1", b"av01")
_STSD_FIELDS = 8  # bytes of version, flags and entry count before the first entry


class StereoTag(NamedTuple):
    """What says how the views of a film are packed; None where its kind cannot say it."""

    frame_packing: int | None = None  # frame_packing_arrangement_type in H.264, left view first
    st3d: int | None = None  # stereo_mode of mp4 (Spherical Video V2 RFC), left view first
    matroska: str | None = None  # FFmpeg's name of a StereoMode


NO_TAG = StereoTag()
# By the axis of the packing, and whether the right view comes first. x264 writes the SEI for the left view
# first only, and st3d has no other order.
_TAGS = {
    ("sbs", False): StereoTag(3, 2, "left_right"),
    ("tb", False): StereoTag(4, 1, "top_bottom"),
    ("interleaved", False): StereoTag(2),
    ("sbs", True): StereoTag(matroska="right_left"),
    ("tb", True): StereoTag(matroska="bottom_top"),
    ("anaglyph", False): StereoTag(matroska="anaglyph_cyan_red"),
}


def stereo_tag(axis: str, right_first: bool = False, *, half: bool = False) -> StereoTag:
    """Return the tag of a packing: sbs, tb, interleaved or anaglyph; an empty one for others.

    With a StereoMode FFmpeg writes the size of one view as it is stored, at which players show the film:
    half views would be squeezed, so Matroska has none.
    """
    tag = _TAGS.get((axis, right_first), NO_TAG)
    return tag._replace(matroska=None) if half else tag


def write_st3d(path: Path, stereo_mode: int) -> None:
    """Write the stereo mode of an mp4 whose `moov` box comes last, as an `st3d` box."""
    append_box(path, struct.pack(">I4sIB", 13, b"st3d", 0, stereo_mode))


def append_box(path: Path, box: bytes) -> None:
    """Append a box to the video sample entry of an mp4 whose `moov` box comes last.

    Raises ValueError for another layout, in which chunk offsets would have to change.
    """
    with path.open("r+b") as file:
        start, size = _last_box(file, path)
        file.seek(start)
        moov = bytearray(file.read(size))
        file.seek(start)
        file.write(_tagged(moov, box, path))


def _last_box(file, path: Path) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    end = path.stat().st_size
    position = 0
    while position < end:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = struct.unpack(">Q", file.read(8))[0]
        if position + size == end and kind == b"moov":
            return position, size
        position += size
    raise ValueError(f"{path}: the last box is not moov")


def _tagged(moov: bytearray, addition: bytes, path: Path) -> bytearray:
    for chain in _chains(moov, 0, [b"trak", b"mdia", b"minf", b"stbl", b"stsd"]):
        entry = chain[-1] + 8 + _STSD_FIELDS
        if bytes(moov[entry + 4 : entry + 8]) in _SAMPLE_ENTRIES:
            end = entry + struct.unpack_from(">I", moov, entry)[0]
            moov[end:end] = addition
            for box in [0, *chain, entry]:
                struct.pack_into(">I", moov, box, struct.unpack_from(">I", moov, box)[0] + len(addition))
            return moov
    raise ValueError(f"{path}: no video track to tag")


def _chains(moov: bytearray, parent: int, kinds: list[bytes]) -> list[list[int]]:
    """Return the offsets of every nested chain of boxes of these types below `parent`."""
    if not kinds:
        return [[]]
    chains = []
    position, end = parent + 8, parent + struct.unpack_from(">I", moov, parent)[0]
    while position < end:
        size, kind = struct.unpack_from(">I4s", moov, position)
        if kind == kinds[0]:
            chains += [[position, *rest] for rest in _chains(moov, position, kinds[1:])]
        position += size
    return chains
