"""Pictures that are files of their own: JPEG, PNG, folders of them, and MPO with two in one file."""

import re
import struct
from pathlib import Path

import cv2
import numpy as np

from secondeye.video.probe import UnreadableFilm

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}
_MARK = b"\xff\xe2..MPF\x00"  # where the index of an MPO begins: CIPA DC-007
_ENTRIES, _ENTRY_BYTES = 0xB002, 16
_MULTI_VIEW = 0x020002  # the kind of an entry that is one of several views; previews are others
_SEAM = rb"(?<=\xff\xd9)\x00*(?=\xff\xd8\xff)"  # end of one JPEG, beginning of the next


def pictures_of(folder: Path) -> list[Path]:
    """The pictures in a folder in order of their names, numbers by their value."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(found, key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name))


def read_still(
    path: Path,
) -> np.ndarray:  # uint8 [H, W, 3] RGB, upright; grey and 16-bit pictures too
    """Read one picture. Raises UnreadableFilm where it does not decode."""
    return _decode(_bytes_of(path), path)


def read_mpo(
    path: Path,
) -> tuple[np.ndarray, np.ndarray]:  # first (left) and second picture, uint8 [H, W, 3]
    """Read both pictures of an MPO. Raises UnreadableFilm where there are no two."""
    content = _bytes_of(path)
    parts = _indexed(content) or re.split(_SEAM, content)
    if len(parts) < 2:
        raise UnreadableFilm(f"{path}: holds one picture, not two")
    return _decode(parts[0], path), _decode(parts[1], path)


def scale(
    picture: np.ndarray,  # uint8 [H, W, 3]
    size: tuple[int, int] | None,  # height, width; None leaves it as it is
) -> np.ndarray:  # uint8 [height, width, 3]
    """Resize a picture for looking at it; films are scaled by their decoder."""
    return picture if size is None else cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise UnreadableFilm(f"{path}: there is no such file")
    return path.read_bytes()


def _decode(content: bytes, path: Path) -> np.ndarray:
    raw = np.frombuffer(content, np.uint8)
    picture = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    if picture is None:
        raise UnreadableFilm(f"{path}: is not a picture that decodes")
    return cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)


def _indexed(content: bytes) -> list[bytes]:
    """The views that an MPO's index names; none where it has no index, or one that leads nowhere."""
    mark = re.search(_MARK, content, re.DOTALL)
    if mark is None:
        return []
    start = mark.end()  # offsets count from here
    order = "<" if content[start : start + 2] == b"II" else ">"
    try:
        table, count = _entries(content[start:], order)
        entries = [
            struct.unpack_from(f"{order}III", content, start + table + _ENTRY_BYTES * k) for k in range(count)
        ]
    except struct.error:
        return []
    views = [entry for entry in entries if entry[0] & 0xFFFFFF == _MULTI_VIEW] or entries
    places = [(start + offset if offset else 0, size) for _, size, offset in views]
    parts = [content[place : place + size] for place, size in places]
    return parts if all(part.startswith(b"\xff\xd8") for part in parts) else []


def _entries(index: bytes, order: str) -> tuple[int, int]:
    """Where the table of pictures is, and how many it names."""
    (directory,) = struct.unpack_from(f"{order}I", index, 4)
    (fields,) = struct.unpack_from(f"{order}H", index, directory)
    for field in range(fields):
        tag, _, size, place = struct.unpack_from(f"{order}HHII", index, directory + 2 + 12 * field)
        if tag == _ENTRIES:
            return place, size // _ENTRY_BYTES
    return 0, 0
