"""Read the clips of a source in order without decoding the frames before each of them again."""

from collections.abc import Iterator
from itertools import chain, islice

from secondeye.film.packing import MULTIVIEW, PAIR
from secondeye.sources.source import Source, is_still
from secondeye.sources.view_pairs import StereoFrame
from secondeye.sources.views import read_stereo_frames
from secondeye.video.read import is_seekable, keyframe_before


class ClipReader:
    """Read clips of a source, fastest in order.

    Decoding continues from the current position when a new decoder would start at the same keyframe.
    Therefore the result of error concealment does not depend on which clips are read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._frames: Iterator[StereoFrame] = iter(())
        self._entry: int | None = None
        self._start = -1

    def read(self, start_pts: int, frames: int) -> Iterator[StereoFrame]:
        """Return `frames` frames from a timestamp on; exhaust them before the next call."""
        entry = _entry_point(self._source, start_pts)
        continues = entry == self._entry and start_pts > self._start
        self._entry, self._start = entry, start_pts
        first = self._first() if continues else None
        if first is None or first.pts != start_pts:
            seek_pts = None if entry is None else start_pts
            self._frames = read_stereo_frames(self._source, start_pts=seek_pts, select=self._selects)
            first = self._first()
        return chain([first] if first else [], islice(self._frames, frames - 1))

    def _first(self) -> StereoFrame | None:
        return next((frame for frame in self._frames if self._selects(frame.pts)), None)

    def _selects(self, pts: int) -> bool:
        return pts >= self._start


def _entry_point(source: Source, start_pts: int) -> int | None:
    """Return the timestamp of the frame at which decoding has to start; None for the first frame."""
    first = source.paths[0]
    if is_still(first) or first.is_dir():
        return start_pts
    if source.packing == PAIR:
        return start_pts if all(is_seekable(path) for path in source.paths) else None
    return None if source.packing == MULTIVIEW else keyframe_before(first, start_pts)
