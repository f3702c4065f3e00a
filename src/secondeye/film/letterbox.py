"""Detect the letterbox of a film: black bands at the edges of the frame."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

_BLACK = 12  # levels; encoded black stays below 7 in our films, a dark ceiling is at 18
_MIN_STEP = 8  # levels between band and image; a scene that fades to dark has no such step
_SPECKS = 2  # % of a row that may be brighter: dust, dead pixels
_SIGNAL_ROWS = 4  # outermost ones that may be brighter in half of their pixels: captions of analogue video
_MIXED = 0.75  # of the next row's brightness; a darker row is mixed with the band
_BLUR_ROWS = 2  # of a small frame, into which scaling mixes the neighbouring rows
_MAX_SHARE = 0.4  # of a side that a band may cover
_POINTS = 256  # of a row or column that are looked at, at least, if it has so many
_COMMON_SHARE = 0.25  # of a film's frames that have the letterbox which other shots take over

_PERCENTILES = (100 - _SPECKS, 50)  # of a row


class Letterbox(NamedTuple):
    """Widths of the black bands of one view, px."""

    top: int
    bottom: int
    left: int
    right: int

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """Return the rows and the columns of the picture between the bands."""
        return slice(self.top, height - self.bottom), slice(self.left, width - self.right)


NO_LETTERBOX = Letterbox(0, 0, 0, 0)


class LevelProfile(NamedTuple):
    """Brightness of rows and columns, levels: near the maximum (without specks) and the median."""

    rows: NDArray[np.uint8]  # [2, H]
    columns: NDArray[np.uint8]  # [2, W]


def measure_profile(
    image: np.ndarray,  # uint8 [H, W, 3] RGB
) -> LevelProfile:
    """Return the brightness percentiles of every row and column, over evenly spaced pixels of it."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    down, across = (max(1, side // _POINTS) for side in gray.shape)
    return LevelProfile(_percentiles(gray[:, ::across]), _percentiles(np.ascontiguousarray(gray[::down].T)))


def _percentiles(lines: np.ndarray) -> NDArray[np.uint8]:
    ranks = [(lines.shape[1] - 1) * share // 100 for share in _PERCENTILES]
    return np.partition(lines, ranks, axis=1)[:, ranks].T


def max_over_time(profiles: Sequence[LevelProfile]) -> LevelProfile:
    """Return the maximum over frames, which tolerates moving specks."""
    return LevelProfile(*(np.max(lines, axis=0) for lines in zip(*profiles, strict=True)))


def find_letterbox(profile: LevelProfile) -> Letterbox:
    """Return the width of the black band at each edge (ours): black in every frame and bounded by a step."""
    return Letterbox(
        _band_width(profile.rows),
        _band_width(profile.rows[:, ::-1]),
        _band_width(profile.columns),
        _band_width(profile.columns[:, ::-1]),
    )


def _band_width(lines: NDArray[np.uint8]) -> int:
    maximum, median = lines.astype(int)
    maximum[:_SIGNAL_ROWS] = median[:_SIGNAL_ROWS]
    lit = np.flatnonzero(maximum > _BLACK)
    if not len(lit) or not 0 < lit[0] <= _MAX_SHARE * len(maximum):
        return 0
    edge = int(lit[0])
    step = median[edge : edge + 2].max() - maximum[max(0, edge - 2)]
    return _skip_mixed(median, edge) if step >= _MIN_STEP else 0


def _skip_mixed(median: NDArray[np.int64], edge: int) -> int:
    """Skip up to two rows in which scaling and coding mixed the image with the band."""
    for row in range(edge, min(edge + 2, len(median) - 1)):
        if median[row] >= _MIXED * median[row + 1]:
            return row
    return min(edge + 2, len(median) - 1)


def is_black(profile: LevelProfile) -> bool:
    """Return whether nothing is to be seen in a frame, or in any of several: no band ends in it."""
    return not (profile.rows[0] > _BLACK).any()


def dark_edges(profile: LevelProfile) -> Letterbox:
    """Return how far the frame is black from each edge on, in most pixels of every row or column.

    At least as far as the letterbox, also where the picture beside it is dark or text lies in a band.
    """
    return Letterbox(
        _dark_width(profile.rows),
        _dark_width(profile.rows[:, ::-1]),
        _dark_width(profile.columns),
        _dark_width(profile.columns[:, ::-1]),
    )


def _dark_width(lines: NDArray[np.uint8]) -> int:
    lit = np.flatnonzero(lines[1] > _BLACK)
    return int(lit[0]) if len(lit) else lines.shape[1]


class ShotLetterbox(NamedTuple):
    """What one shot shows of its letterbox."""

    found: Letterbox  # from `find_letterbox`
    dark: Letterbox  # from `dark_edges`


def agree(
    shots: Sequence[ShotLetterbox],
    frames: Sequence[int],  # of each shot
) -> list[Letterbox]:  # of each shot
    """Return the letterbox of every shot (ours): its own, and the film's wherever the shot is black there.

    The film's is the one that most frames have which have any, a quarter of all at least. It decides in dark
    shots, where the step between band and picture is missing, and where subtitles lie in a band.
    """
    counts: Counter[Letterbox] = Counter()
    for (found, _), count in zip(shots, frames, strict=True):
        counts[found] += count
    del counts[NO_LETTERBOX]
    common, count = max(counts.items(), key=lambda item: item[1], default=(NO_LETTERBOX, 0))
    if count < _COMMON_SHARE * sum(frames):
        common = NO_LETTERBOX

    def has_common(shot: ShotLetterbox) -> bool:
        return all(band <= dark for band, dark in zip(common, shot.dark, strict=True))

    return [union(shot.found, common) if has_common(shot) else shot.found for shot in shots]


def refine(
    coarse: Letterbox,  # from many small frames
    small: tuple[int, int],  # their height, width
    fine: Letterbox,  # from a few frames at full size
    full: tuple[int, int],  # their height, width
) -> Letterbox:  # at full size
    """Return the pixel-exact letterbox, limited to what the many small frames allow."""
    scales = [full[0] / small[0]] * 2 + [full[1] / small[1]] * 2
    return Letterbox(
        *(min(f, int((c + _BLUR_ROWS) * scale)) for c, f, scale in zip(coarse, fine, scales, strict=True))
    )


def union(*letterboxes: Letterbox) -> Letterbox:
    """Return the largest width on each side, so that both views are cropped equally."""
    return Letterbox(*(max(sides) for sides in zip(*letterboxes, strict=True)))


def intersection(*letterboxes: Letterbox) -> Letterbox:
    """Return the smallest width on each side."""
    return Letterbox(*(min(sides) for sides in zip(*letterboxes, strict=True)))
