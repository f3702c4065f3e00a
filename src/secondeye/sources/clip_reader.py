"""Pieces of a source one after the other, without decoding anew what lies before each."""

from collections.abc import Iterator
from itertools import chain, islice

from secondeye.film.packing import MULTIVIEW, PAIR
from secondeye.sources.source import Source, is_still
from secondeye.sources.view_pairs import StereoFrame
from secondeye.sources.views import read_stereo_frames
from secondeye.video.read import is_seekable, keyframe_before


class ClipReader:
    """Reads pieces of a source, best in order.

    It goes on where it stands if a new decoder would have to begin at the same picture. So what FFmpeg
    conceals of damaged pictures, too, is the same whoever reads which pieces.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._eyes: Iterator[StereoFrame] = iter(())
        self._entry: int | None = None
        self._start = -1

    def read(self, start_pts: int, frames: int) -> Iterator[StereoFrame]:
        """So many pictures from a time stamp on; read them to the end before the next call."""
        entry = _entry(self._source, start_pts)
        goes_on = entry == self._entry and start_pts > self._start
        self._entry, self._start = entry, start_pts
        first = self._first() if goes_on else None
        if first is None or first.pts != start_pts:
            begin = None if entry is None else start_pts
            self._eyes = read_stereo_frames(self._source, start_pts=begin, wants=self._wants)
            first = self._first()
        return chain([first] if first else [], islice(self._eyes, frames - 1))

    def _first(self) -> StereoFrame | None:
        return next((pair for pair in self._eyes if self._wants(pair.pts)), None)

    def _wants(self, pts: int) -> bool:
        return pts >= self._start


def _entry(
    source: Source, start_pts: int
) -> int | None:  # time stamp of the picture that decoding must begin with; None for the first one
    first = source.paths[0]
    if is_still(first) or first.is_dir():
        return start_pts
    if source.packing == PAIR:
        return start_pts if all(is_seekable(path) for path in source.paths) else None
    return None if source.packing == MULTIVIEW else keyframe_before(first, start_pts)
