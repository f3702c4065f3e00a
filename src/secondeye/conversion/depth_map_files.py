"""Read files of depth maps as they are stored: images, arrays and videos."""

import os
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from secondeye.conversion.shot_depth import STEPS
from secondeye.system.errors import UserError
from secondeye.video.probe import UnreadableFilm, probe
from secondeye.video.read import decode_gray

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".exr")
_KEY = "depth"  # of an array in .npz
_UNREADABLE = (  # what the readers of images, arrays, archives and videos raise for damaged or odd files
    OSError,
    ValueError,
    EOFError,
    RuntimeError,  # encrypted, or compressed in a way that is not supported
    MemoryError,  # the header of an array states sizes that there cannot be
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    cv2.error,
)

MapsFrom = Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class MapFiles:
    """The files of depth maps, as stored."""

    frames: int  # 0: not known before they are read
    height: int
    width: int
    read_from: MapsFrom  # frame number -> [h, w] of this and all later frames, float32
    fps: float = 0.0  # 0: has none
    has_floats: bool = False


def open_files(path: Path) -> MapFiles:
    """Open depth maps in a folder, an array file or a video.

    Raises UserError if they cannot be read, now or when damage is found while they are read.
    """
    try:
        opened = _open(path)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read ({_one_line(error)})") from error
    return replace(opened, read_from=_explain_damage(path, opened.read_from))


def _open(path: Path) -> MapFiles:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir():
        return _open_images(path)
    if path.suffix.lower() in (".npz", ".npy"):
        return _open_array(path)
    return _open_video(path)


def _explain_damage(path: Path, read_from: MapsFrom) -> MapsFrom:
    """Return a reader that raises UserError for files that turn out to be damaged while they are read."""

    def read(start: int) -> Iterator[np.ndarray]:
        try:
            yield from read_from(start)
        except _UNREADABLE as error:
            raise UserError(f"{path}: cannot be read ({_one_line(error)}); write the maps again") from error

    return read


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _open_images(folder: Path) -> MapFiles:
    files = sorted((each for each in folder.iterdir() if _is_image(each)), key=_by_number)
    if not files:
        raise UserError(f"{folder}: contains no depth maps; they must be {', '.join(IMAGE_SUFFIXES)}")
    first = _read_image(files[0])
    _check_type(first.dtype, files[0])
    height, width = first.shape

    def read_from(start: int) -> Iterator[np.ndarray]:
        return (_as_float(_read_image(file), file) for file in files[start:])

    return MapFiles(len(files), height, width, read_from, has_floats=first.dtype.kind == "f")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _by_number(path: Path) -> list[tuple[int, str]]:
    """Order frame_2 before frame_10."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts if part]


def _read_image(path: Path) -> np.ndarray:  # [h, w], as stored
    if path.suffix.lower() == ".exr" and not cv2.haveImageReader(str(path)):
        raise UserError(f"{path}: this OpenCV cannot read EXR; convert the maps to 16-bit PNG or .npz")
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if image is None:
        raise UserError(f"{path}: cannot be read as an image")
    if image.ndim == 3:
        colours = image[:, :, :3]
        if np.ptp(colours.astype(np.float64), axis=2).max() > 0:
            raise UserError(f"{path}: is a colour image; depth maps must be gray")
        image = np.ascontiguousarray(colours[:, :, 0])
    return image


def _as_float(stored: np.ndarray, path: Path) -> np.ndarray:
    """Return integers divided by their largest value, and floats as they are."""
    _check_type(stored.dtype, path)
    with np.errstate(over="ignore"):  # infinity is found later
        values = stored.astype(np.float32)
    return values if stored.dtype.kind == "f" else values / np.float32(np.iinfo(stored.dtype).max)


def _check_type(dtype: "np.dtype[Any]", path: Path) -> None:
    if not (dtype.kind == "f" or (dtype.kind == "u" and dtype.itemsize <= 2)):
        raise UserError(f"{path}: {dtype} values; depth maps must be 8 or 16 bits, or floats")


def _open_array(path: Path) -> MapFiles:
    try:
        with _array_file(path) as file:
            shape, dtype = _read_header(file, path)
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as an array ({_one_line(error)})") from error
    _check_type(dtype, path)
    if len(shape) == 4 and shape[1] == 1:
        shape = (shape[0], *shape[2:])
    elif len(shape) == 4 and shape[3] == 1:
        shape = shape[:3]
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"{path}: the array is {list(shape)}; depth must be [frames, height, width]")
    frames, height, width = shape

    def read_from(start: int) -> Iterator[np.ndarray]:
        count = height * width
        with _array_file(path) as file:
            _read_header(file, path)
            file.seek(count * dtype.itemsize * start, os.SEEK_CUR)
            for _ in range(start, frames):
                content = file.read(count * dtype.itemsize)
                if len(content) < count * dtype.itemsize:
                    raise UserError(f"{path}: ends early; it is damaged")
                yield _as_float(np.frombuffer(content, dtype).reshape(height, width), path)

    return MapFiles(frames, height, width, read_from, has_floats=dtype.kind == "f")


def _array_file(path: Path) -> Any:
    """Open the bytes of the array, which stay on the disk: a long film's do not fit into memory."""
    if path.suffix.lower() == ".npy":
        return path.open("rb")
    archive = zipfile.ZipFile(path)
    names = archive.namelist()
    name = f"{_KEY}.npy" if f"{_KEY}.npy" in names or len(names) != 1 else names[0]
    if name not in names:
        raise UserError(f"{path}: contains {', '.join(names) or 'nothing'}; the array must be called {_KEY}")
    return archive.open(name)


def _read_header(file: Any, path: Path) -> tuple[tuple[int, ...], "np.dtype[Any]"]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if fortran or dtype.hasobject:
        raise UserError(f"{path}: the array must be numbers in C order")
    return shape, dtype


def _open_video(path: Path) -> MapFiles:
    try:
        info = probe(path)
    except UnreadableFilm as error:
        raise UserError(f"{error}; depth maps are a folder of images, .npz, .npy or a video") from error

    def read_from(start: int) -> Iterator[np.ndarray]:
        return (
            gray.astype(np.float32) / np.float32(STEPS) for gray in islice(decode_gray(path), start, None)
        )

    return MapFiles(info.frames or 0, info.height, info.width, read_from, float(info.fps))
