"""Read image files: JPEG, PNG, folders of them, and MPO files with two images each."""

import re
import struct
from pathlib import Path

import cv2
import numpy as np

from secondeye.video.probe import UnreadableFilm

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff"}
_MARK = b"\xff\xe2..MPF\x00"  # start of an MPO's index: CIPA DC-007
_ENTRIES, _ENTRY_BYTES = 0xB002, 16
_MULTI_VIEW = 0x020002  # type of an entry that is one of several views; previews have another
_SEAM = rb"(?<=\xff\xd9)\x00*(?=\xff\xd8\xff)"  # end of one JPEG, start of the next


def list_images(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted by the numbers in their names, then by name."""
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(images, key=lambda path: ([int(n) for n in re.findall(r"\d+", path.stem)], path.name))


def read_still(
    path: Path,
) -> np.ndarray:  # uint8 [H, W, 3] RGB, upright; gray and 16-bit images too
    """Read one image. Raises UnreadableFilm if it does not decode."""
    return _decode(_read_bytes(path), path)


def read_mpo(
    path: Path,
) -> tuple[np.ndarray, np.ndarray]:  # first (left) and second image, uint8 [H, W, 3]
    """Read both images of an MPO. Raises UnreadableFilm if there are not two."""
    content = _read_bytes(path)
    parts = _views_of_index(content) or re.split(_SEAM, content)
    if len(parts) < 2:
        raise UnreadableFilm(f"{path}: contains one image, not two")
    return _decode(parts[0], path), _decode(parts[1], path)


def scale(
    image: np.ndarray,  # uint8 [H, W, 3]
    size: tuple[int, int] | None,  # height, width; None keeps the size
) -> np.ndarray:  # uint8 [height, width, 3]
    """Resize an image by area averaging."""
    return image if size is None else cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _read_bytes(path: Path) -> bytes:
    if not path.is_file():
        raise UnreadableFilm(f"{path}: file does not exist")
    return path.read_bytes()


def _decode(content: bytes, path: Path) -> np.ndarray:
    raw = np.frombuffer(content, np.uint8)
    image = cv2.imdecode(raw, cv2.IMREAD_COLOR) if raw.size else None
    if image is None:
        raise UnreadableFilm(f"{path}: not an image that can be decoded")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _views_of_index(content: bytes) -> list[bytes]:
    """Return the views listed in an MPO's index; empty if there is no valid index."""
    mark = re.search(_MARK, content, re.DOTALL)
    if mark is None:
        return []
    start = mark.end()  # offsets are relative to this
    order = "<" if content[start : start + 2] == b"II" else ">"
    try:
        table, count = _entry_table(content[start:], order)
        entries = [
            struct.unpack_from(f"{order}III", content, start + table + _ENTRY_BYTES * k) for k in range(count)
        ]
    except struct.error:
        return []
    views = [entry for entry in entries if entry[0] & 0xFFFFFF == _MULTI_VIEW] or entries
    spans = [(start + offset if offset else 0, size) for _, size, offset in views]
    parts = [content[begin : begin + size] for begin, size in spans]
    return parts if all(part.startswith(b"\xff\xd8") for part in parts) else []


def _entry_table(index: bytes, order: str) -> tuple[int, int]:
    """Return the offset of the table of images, and its length."""
    (directory,) = struct.unpack_from(f"{order}I", index, 4)
    (fields,) = struct.unpack_from(f"{order}H", index, directory)
    for field in range(fields):
        tag, _, size, offset = struct.unpack_from(f"{order}HHII", index, directory + 2 + 12 * field)
        if tag == _ENTRIES:
            return offset, size // _ENTRY_BYTES
    return 0, 0
