"""Find clips that show the same frames by perceptual hashes."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from secondeye.dataset.schema import Clip

HASHED_FRAMES = 5  # of a clip
_SIZE_PX = 32  # of the reduced image that is hashed
_FREQUENCIES = 8  # lowest ones, in each direction
_FLAT = 2.0  # levels of 255, standard deviation below which noise would decide the hash
# Bands of bits in which two close hashes agree at least. More give fewer false candidates but more sorts.
_SHARED_BANDS = 3

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


def find_duplicates(clips: Sequence[Clip], bits: int) -> list[tuple[Clip, Clip]]:
    """Find pairs of clips of different films that show the same frames, the shorter clip first.

    More than half of the shorter clip's hashes have one in the other clip that differs in at most `bits`.
    The search is exact.
    """
    clips = sorted(clips, key=lambda clip: (clip.stop - clip.start, clip.id))  # the shorter first
    hashes = [parse_hashes(clip.perceptual_hash) for clip in clips]
    unique, index = np.unique(np.concatenate([*hashes, np.array([], np.uint64)]), return_inverse=True)
    bounds = np.cumsum([0, *map(len, hashes)])
    near = _neighbours(unique, bits)
    clips_with: dict[int, set[int]] = defaultdict(set)
    for number, (start, stop) in enumerate(pairwise(bounds)):
        for position in index[start:stop]:
            clips_with[int(position)].add(number)
    found: list[tuple[Clip, Clip]] = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        shared: dict[int, int] = defaultdict(int)
        for position in index[start:stop].tolist():
            for other in set().union(*(clips_with[one] for one in (position, *near[position]))):
                shared[other] += other > number and clips[other].film != clips[number].film
        found += [(clips[number], clips[o]) for o, same in sorted(shared.items()) if 2 * same > stop - start]
    return found


def _neighbours(hashes: Hashes, bits: int) -> dict[int, list[int]]:
    """Return for every hash the positions of others within `bits`."""
    near: dict[int, list[int]] = defaultdict(list)
    for first, second in sorted(set(_close_pairs(hashes, bits))):
        near[first].append(second)
        near[second].append(first)
    return near


def _close_pairs(
    hashes: Hashes,  # unique
    bits: int,
) -> Iterator[tuple[int, int]]:
    """Yield all pairs of positions whose hashes differ in at most `bits`, some of them repeatedly.

    The 64 bits are split into `bits` + 3 bands. `bits` differences affect at most `bits` bands, so at least 3
    bands are equal: for every choice of 3 bands, sorting by them puts such pairs into one run of equal keys.
    """
    bands = bits + _SHARED_BANDS
    if bands > 64:
        raise ValueError(f"bits must be at most {64 - _SHARED_BANDS}, got {bits}")
    edges = [64 * k // bands for k in range(bands + 1)]
    masks = [((1 << stop) - 1) ^ ((1 << start) - 1) for start, stop in pairwise(edges)]
    for shared in combinations(masks, _SHARED_BANDS):
        key = hashes & np.uint64(sum(shared))
        order = np.argsort(key, kind="stable")
        key = key[order]
        left, step = np.arange(len(key)), 1
        while len(left := left[left + step < len(key)]):
            left = left[key[left] == key[left + step]]
            first, second = order[left], order[left + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
            yield from zip(first[close].tolist(), second[close].tolist(), strict=True)
            step += 1
