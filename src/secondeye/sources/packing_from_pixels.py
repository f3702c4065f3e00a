"""Detect how views are packed from the pixels: which halves of the frame show the same scene (ours)."""

from pathlib import Path

import cv2
import numpy as np

from secondeye.sources.source import is_still
from secondeye.sources.stills import read_still, scale
from secondeye.video.probe import UnreadableFilm
from secondeye.video.read import sample_frames

_SAMPLES = 9  # frames, spread over the film
_VIEW_PX = 96  # height and width at which views are compared
_TILE_PX = 24  # of a tile that is searched for in the other view
_SEARCH_PX = 12  # to both sides: 12 % of the width
_MIN_TEXTURE = 2.0  # standard deviation of a tile's detail, levels of 255; smoother tiles are ignored
_MIN_SIMILARITY = 0.65  # halves of stereo films reach 0.9, those of mono films 0.35
_MIN_LEAD = 0.25  # over the other axis


def axis_from_pixels(path: Path) -> str:
    """Return `sbs` if left and right half show the same scene, `tb` if top and bottom half do, else "".

    A file that cannot be read gives "".
    """
    try:
        images = sample_images(path, 2 * _VIEW_PX, 2 * _VIEW_PX)
    except UnreadableFilm:
        return ""
    sbs, tb = (_similarity([_halves(image, axis) for image in images]) for axis in (1, 0))
    if max(sbs, tb) < _MIN_SIMILARITY or abs(sbs - tb) < _MIN_LEAD:
        return ""
    return "sbs" if sbs > tb else "tb"


def sample_images(path: Path, height: int, width: int) -> list[np.ndarray]:  # uint8 [height, width, 3] each
    """Return small frames of a film, or a small still. Raises UnreadableFilm."""
    if is_still(path):
        return [scale(read_still(path), (height, width))]
    return list(sample_frames(path, _SAMPLES, (height, width)))


def _halves(image: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:  # float32 [_VIEW_PX, _VIEW_PX]
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    first, second = (
        cv2.resize(half, (_VIEW_PX, _VIEW_PX), interpolation=cv2.INTER_AREA)
        for half in np.split(gray, 2, axis)
    )
    return _detail(first), _detail(second)


def _detail(gray: np.ndarray) -> np.ndarray:
    """Return the mixed derivative: any two halves may share stripes, bars and slow shading."""
    return cv2.Sobel(cv2.GaussianBlur(gray, (0, 0), 1), cv2.CV_32F, 1, 1, ksize=3)


def _similarity(halves: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the median over textured tiles of the best correlation along the other half's rows, [-1, 1]."""
    scores = [score for first, second in halves for score in _tile_scores(first, second)]
    return float(np.median(scores)) if scores else 0.0


def _tile_scores(first: np.ndarray, second: np.ndarray) -> list[float]:
    padded = cv2.copyMakeBorder(second, 0, 0, _SEARCH_PX, _SEARCH_PX, cv2.BORDER_CONSTANT)
    scores = []
    for top in range(0, _VIEW_PX, _TILE_PX):
        for left in range(0, _VIEW_PX, _TILE_PX):
            tile = first[top : top + _TILE_PX, left : left + _TILE_PX]
            if tile.std() >= _MIN_TEXTURE:
                band = padded[top : top + _TILE_PX, left : left + _TILE_PX + 2 * _SEARCH_PX]
                scores.append(float(cv2.matchTemplate(band, tile, cv2.TM_CCOEFF_NORMED).max()))
    return scores
