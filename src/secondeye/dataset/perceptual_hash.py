"""Perceptual hashes of a clip's frames; dataset.duplicates compares them."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

HASHED_FRAMES = 5  # of a clip
_SIZE_PX = 32  # of the reduced image that is hashed
_FREQUENCIES = 8  # lowest ones, in each direction
_FLAT = 2.0  # levels of 255, standard deviation below which noise would decide the hash

Hashes = NDArray[np.uint64]  # [n]


def hash_clip(
    images: Sequence[np.ndarray],  # uint8 [H, W, 3] RGB, all of a clip
) -> str:  # 16 hex digits for each of a few evenly spaced frames; none for flat frames
    """Return the perceptual hashes of a clip's frames."""
    count = min(HASHED_FRAMES, len(images))
    places = [(2 * k + 1) * len(images) // (2 * count) for k in range(count)]
    hashes = [hash_image(images[place]) for place in places]
    return "".join(f"{value:016x}" for value in hashes if value is not None)


def hash_image(
    image: np.ndarray,  # uint8 [H, W, 3] RGB
) -> int | None:  # 64 bits; None for a flat image
    """Compute the pHash of an image: which of its lowest frequencies exceed their median (Zauner 2010)."""
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (_SIZE_PX, _SIZE_PX), interpolation=cv2.INTER_AREA).astype(np.float64)
    if small.std() < _FLAT:
        return None
    cosines = _cosines()
    low = np.round(cosines @ small @ cosines.T, 3).ravel()  # rounded, so that every BLAS gives the same bits
    bits = low > np.median(low[1:])
    bits[0] = False  # the mean carries no information
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> NDArray[np.float64]:
    """Return the first rows of the discrete cosine transform, [_FREQUENCIES, _SIZE_PX]."""
    position, frequency = np.arange(_SIZE_PX) + 0.5, np.arange(_FREQUENCIES)
    return np.cos(np.pi / _SIZE_PX * frequency[:, None] * position)


def parse_hashes(perceptual_hash: str) -> Hashes:
    """Parse the column `Clip.perceptual_hash`."""
    return np.array(
        [int(perceptual_hash[k : k + 16], 16) for k in range(0, len(perceptual_hash), 16)], np.uint64
    )
