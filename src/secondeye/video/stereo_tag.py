"""Tag mp4 films as side by side with an `st3d` box (Spherical Video V2 RFC)."""

import struct
from pathlib import Path

_LEFT_RIGHT = struct.pack(">I4sIB", 13, b"st3d", 0, 2)
_SAMPLE_ENTRIES = (b"avc1", b"hvc1", b"hev1", b"av01")
_STSD_FIELDS = 8  # bytes of version, flags and entry count before the first entry


def tag_side_by_side(path: Path) -> None:
    """Append `st3d` (left-right) to the video sample entry of an mp4 whose `moov` box comes last.

    Raises ValueError for another layout, in which chunk offsets would have to change.
    """
    with path.open("r+b") as file:
        start, size = _last_box(file, path)
        file.seek(start)
        moov = bytearray(file.read(size))
        file.seek(start)
        file.write(_tagged(moov, path))


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


def _tagged(moov: bytearray, path: Path) -> bytearray:
    for chain in _chains(moov, 0, [b"trak", b"mdia", b"minf", b"stbl", b"stsd"]):
        entry = chain[-1] + 8 + _STSD_FIELDS
        if bytes(moov[entry + 4 : entry + 8]) in _SAMPLE_ENTRIES:
            end = entry + struct.unpack_from(">I", moov, entry)[0]
            moov[end:end] = _LEFT_RIGHT
            for box in [0, *chain, entry]:
                struct.pack_into(">I", moov, box, struct.unpack_from(">I", moov, box)[0] + len(_LEFT_RIGHT))
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
