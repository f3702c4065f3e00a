"""Depth maps from outside: a folder of images, an array file or a video, with one map for each frame.

DIR/depth.json or FILE.json   how to read them, if `secondeye depth` wrote them:
{"orientation": "near", "normalised": true, "frames": 48, "height": 216, "width": 384, "film": "film.mp4",
 "depth": {"name": "motion", ...}, "shots": [{"start": 0, "stop": 48, "confidence": 0.31}]}

A shot of maps from elsewhere is normalised as an estimate is. Maps may have any size with the film's aspect.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from secondeye.conversion.shot_depth import STEPS
from secondeye.depth import DepthEstimate, DepthEstimator, DepthState
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.probe import FilmInfo, UnreadableFilm, probe
from secondeye.video.read import decode_gray

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".exr")
NEAR, FAR = "near", "far"
ORIENTATIONS = (NEAR, FAR)  # what larger values are
RECORD = "depth.json"
_MAX_ASPECT_ERROR = 0.03
_MAX_RATE_ERROR = 0.005
_KEY = "depth"  # of an array in .npz

MapsFrom = Callable[[int], Iterator[np.ndarray]]


@dataclass(frozen=True)
class DepthMaps:
    """The depth maps of a film, read in order from any frame on."""

    path: Path
    frames: int  # 0: not known before they are read
    height: int
    width: int
    orientation: str  # one of ORIENTATIONS
    read_from: MapsFrom  # frame number -> [h, w] of this and all later frames, float32, as stored
    has_distances: bool = False  # stored as floats: of far maps the values are distances
    normalised: bool = False  # values are depth in [0, 1], of one shot
    confidence: dict[tuple[int, int], float] = field(default_factory=dict)  # of a shot (start, stop)
    record: dict[str, Any] = field(default_factory=dict)  # what `secondeye depth` wrote about them

    def estimator(self, shot: tuple[int, int]) -> DepthEstimator:
        """Return an estimator of the frames of one shot that returns its maps."""
        start, _ = shot
        confidence = self.confidence.get(shot, 1.0)

        def estimate(windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
            done = 0 if state is None else state.next_frame
            maps = self.read_from(start + done)
            for window in windows:
                found = list(islice(maps, len(window)))
                if len(found) < len(window):
                    raise UserError(
                        f"{self.path}: has no map for frame {start + done + len(found)} of the film"
                    )
                depth = np.stack([self._check(each, start + done + n) for n, each in enumerate(found)])
                done += len(window)
                state = DepthState(done, done, {})
                yield DepthEstimate(torch.from_numpy(self._nearness(depth))[:, None], confidence, state)

        return estimate

    def _nearness(self, depth: np.ndarray) -> np.ndarray:
        """Return values that are larger where it is nearer: of distances their inverse."""
        if self.orientation == NEAR:
            return depth
        return 1 / depth if self.has_distances else 1 - depth

    def _check(self, depth: np.ndarray, frame: int) -> np.ndarray:
        if depth.shape != (self.height, self.width):
            raise UserError(
                f"{self.path}: the map of frame {frame} is {depth.shape[1]}x{depth.shape[0]}, the first one "
                f"{self.width}x{self.height}; all maps must have one size"
            )
        if not np.isfinite(depth).all():
            raise UserError(
                f"{self.path}: the map of frame {frame} contains NaN or infinity; fill these pixels"
            )
        if self.has_distances and self.orientation == FAR and depth.min() <= 0:
            raise UserError(f"{self.path}: the map of frame {frame} contains distances that are not above 0")
        return depth


def open_depth_maps(
    path: Path,
    orientation: str | None,  # what larger values are; None: as the maps say, else near
    info: FilmInfo,  # the film
) -> DepthMaps:
    """Open depth maps and check that they fit the film.

    Raises UserError if they do not fit, or cannot be read.
    """
    record = read_record(path)
    stated = record.get("orientation")
    if stated and orientation and stated != orientation:
        raise UserError(
            f"{record_of(path)}: larger values are {stated}, but --depth-orientation is {orientation}; leave "
            "the option out"
        )
    opened = _open(path)
    maps = DepthMaps(
        path,
        opened.frames,
        opened.height,
        opened.width,
        orientation or stated or NEAR,
        opened.read_from,
        opened.has_floats,
        bool(record.get("normalised")),
        {(shot["start"], shot["stop"]): shot["confidence"] for shot in record.get("shots", [])},
        record,
    )
    aspect = (maps.width / maps.height) / (info.width / info.height)
    if abs(aspect - 1) > _MAX_ASPECT_ERROR:
        raise UserError(
            f"{path}: the maps are {maps.width}x{maps.height}, the film {info.width}x{info.height}; both "
            "must have the same aspect"
        )
    if opened.fps and abs(opened.fps / float(info.fps) - 1) > _MAX_RATE_ERROR:
        raise UserError(
            f"{path}: {opened.fps:.3f} frames per second, the film has {float(info.fps):.3f}; there must be "
            "one map for each frame"
        )
    return maps


def require_length(maps: DepthMaps, frames: int) -> None:
    """Raise UserError unless there is one map for each of the film's frames."""
    if maps.frames and maps.frames != frames:
        raise UserError(
            f"{maps.path}: {pluralize(maps.frames, 'map')}, but the film has {pluralize(frames, 'frame')}; "
            "there must be one map for each frame"
        )


def read_record(path: Path) -> dict[str, Any]:
    """Return what `secondeye depth` wrote about the maps; {} if nothing."""
    file = record_of(path)
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text())
        shots = [(shot["start"], shot["stop"], float(shot["confidence"])) for shot in record.get("shots", [])]
        if record.get("orientation", NEAR) not in ORIENTATIONS or not isinstance(shots, list):
            raise ValueError("orientation must be near or far")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: cannot be read ({error}); delete it to have the maps read as others"
        ) from error
    return dict(record)


def record_of(path: Path) -> Path:
    """Return the path of the JSON file that belongs to depth maps."""
    return path / RECORD if path.is_dir() else path.with_name(f"{path.name}.json")


@dataclass(frozen=True)
class _Opened:
    frames: int
    height: int
    width: int
    read_from: MapsFrom
    fps: float = 0.0  # 0: has none
    has_floats: bool = False


def _open(path: Path) -> _Opened:
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    if path.is_dir():
        return _open_images(path)
    if path.suffix.lower() in (".npz", ".npy"):
        return _open_array(path)
    return _open_video(path)


def _open_images(folder: Path) -> _Opened:
    files = sorted((each for each in folder.iterdir() if _is_image(each)), key=_by_number)
    if not files:
        raise UserError(f"{folder}: contains no depth maps; they must be {', '.join(IMAGE_SUFFIXES)}")
    first = _read_image(files[0])
    height, width = first.shape

    def read_from(start: int) -> Iterator[np.ndarray]:
        return (_as_float(_read_image(file), file) for file in files[start:])

    return _Opened(len(files), height, width, read_from, has_floats=first.dtype.kind == "f")


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
    if stored.dtype in (np.uint8, np.uint16):
        return stored.astype(np.float32) / np.float32(np.iinfo(stored.dtype).max)
    if stored.dtype.kind == "f":
        return stored.astype(np.float32)
    raise UserError(f"{path}: {stored.dtype} values; depth maps must be 8 or 16 bits, or floats")


def _open_array(path: Path) -> _Opened:
    try:
        with _array_file(path) as file:
            shape, dtype = _read_header(file, path)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read as an array ({error})") from error
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        shape = (shape[0], *(size for size in shape[1:] if size != 1)) if shape.count(1) == 1 else shape
    if len(shape) != 3 or 0 in shape:
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

    return _Opened(frames, height, width, read_from, has_floats=dtype.kind == "f")


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


def _open_video(path: Path) -> _Opened:
    try:
        info = probe(path)
    except UnreadableFilm as error:
        raise UserError(f"{error}; depth maps are a folder of images, .npz, .npy or a video") from error

    def read_from(start: int) -> Iterator[np.ndarray]:
        return (
            gray.astype(np.float32) / np.float32(STEPS) for gray in islice(decode_gray(path), start, None)
        )

    return _Opened(info.frames or 0, info.height, info.width, read_from, float(info.fps))
