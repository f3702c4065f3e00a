"""What pictures themselves tell of their packing: which halves show the same (ours)."""

from pathlib import Path

import cv2
import numpy as np

from secondeye.sources.source import is_still
from secondeye.sources.stills import read_still, scale
from secondeye.video.probe import UnreadableFilm
from secondeye.video.read import sample_pictures

_SAMPLES = 9  # pictures, spread over the film
_EYE = 96  # px, height and width of an eye as it is compared
_TILE = 24  # px, of a tile that is looked for in the other eye
_REACH = 12  # px to both sides: 12 % of the width
_TEXTURE = 2.0  # deviation of a tile's detail, levels of 255; smoother tiles tell nothing
_ALIKE, _CLEARLY = 0.65, 0.25  # what halves of stereo films reach (0.9; mono films 0.35), and their lead


def axis_from_pixels(path: Path) -> str:
    """`sbs` where the left and right half show the same, `tb` where the upper and lower do; "" where neither
    is clear, and where the file can not be read.
    """
    try:
        pictures = sample_images(path, 2 * _EYE, 2 * _EYE)
    except UnreadableFilm:
        return ""
    beside, below = (_likeness([_halves(picture, axis) for picture in pictures]) for axis in (1, 0))
    if max(beside, below) < _ALIKE or abs(beside - below) < _CLEARLY:
        return ""
    return "sbs" if beside > below else "tb"


def sample_images(path: Path, height: int, width: int) -> list[np.ndarray]:  # uint8 [height, width, 3] each
    """Small pictures of a film or a still. Raises UnreadableFilm where it can not be read."""
    if is_still(path):
        return [scale(read_still(path), (height, width))]
    return list(sample_pictures(path, _SAMPLES, (height, width)))


def _halves(picture: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:  # float32 [_EYE, _EYE] each
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    first, second = (
        cv2.resize(half, (_EYE, _EYE), interpolation=cv2.INTER_AREA) for half in np.split(grey, 2, axis)
    )
    return _detail(first), _detail(second)


def _detail(grey: np.ndarray) -> np.ndarray:
    """What changes along rows and columns at once: stripes, bars and slow light any two halves may share."""
    return cv2.Sobel(cv2.GaussianBlur(grey, (0, 0), 1), cv2.CV_32F, 1, 1, ksize=3)


def _likeness(halves: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Median over textured tiles of the best correlation with the other half along its rows, [-1, 1]."""
    found = [score for first, second in halves for score in _tile_scores(first, second)]
    return float(np.median(found)) if found else 0.0


def _tile_scores(first: np.ndarray, second: np.ndarray) -> list[float]:
    padded = cv2.copyMakeBorder(second, 0, 0, _REACH, _REACH, cv2.BORDER_CONSTANT)
    scores = []
    for top in range(0, _EYE, _TILE):
        for left in range(0, _EYE, _TILE):
            tile = first[top : top + _TILE, left : left + _TILE]
            if tile.std() >= _TEXTURE:
                band = padded[top : top + _TILE, left : left + _TILE + 2 * _REACH]
                scores.append(float(cv2.matchTemplate(band, tile, cv2.TM_CCOEFF_NORMED).max()))
    return scores
