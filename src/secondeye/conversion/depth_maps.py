"""Depth maps from outside: a folder of images, an array file or a video, with one map for each frame.

How to read maps that `secondeye depth` wrote is in their record, see depth_record. A shot of maps from
elsewhere is normalised as an estimate is. Maps may have any size with the film's aspect.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secondeye.conversion.depth_map_files import MapsFrom, open_files
from secondeye.conversion.depth_record import NEAR, read_record, record_of
from secondeye.conversion.picture import Picture
from secondeye.depth import DepthEstimate, DepthEstimator, DepthState
from secondeye.system.errors import UserError
from secondeye.system.text import pluralize
from secondeye.video.probe import FilmInfo

_MAX_ASPECT_ERROR = 0.03
_MAX_RATE_ERROR = 0.005


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

    def estimator(self, shot: tuple[int, int], picture: Picture) -> DepthEstimator:
        """Return an estimator of the frames of one shot that returns its maps, of the picture."""
        start, _ = shot
        rows, columns = picture.in_map(self.height, self.width)
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
                depth = np.stack([self._nearness(each, start + done + n) for n, each in enumerate(found)])
                depth = depth[:, rows, columns]
                done += len(window)
                state = DepthState(done, done, {})
                yield DepthEstimate(torch.from_numpy(depth)[:, None], confidence, state)

        return estimate

    def _nearness(self, depth: np.ndarray, frame: int) -> np.ndarray:
        """Return values that are larger where it is nearer: of distances their inverse."""
        if depth.shape != (self.height, self.width):
            raise UserError(
                f"{self.path}: the map of frame {frame} is {depth.shape[1]}x{depth.shape[0]}, the first one "
                f"{self.width}x{self.height}; all maps must have one size"
            )
        if not np.isfinite(depth).all():
            raise UserError(
                f"{self.path}: the map of frame {frame} contains NaN or infinity; fill these pixels"
            )
        if self.orientation == NEAR:
            return depth
        if not self.has_distances:
            return 1 - depth
        if depth.min() <= 0:
            raise UserError(f"{self.path}: the map of frame {frame} contains distances that are not above 0")
        with np.errstate(over="ignore", divide="ignore"):
            nearness = 1 / depth
        if not np.isfinite(nearness).all():
            raise UserError(f"{self.path}: the map of frame {frame} contains distances too small to invert")
        return nearness


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
    opened = open_files(path)
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
