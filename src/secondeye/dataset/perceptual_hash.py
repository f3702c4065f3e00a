"""Which clips show the same pictures: perceptual hashes, and the pairs that agree."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from secondeye.dataset.schema import Clip

HASHED_FRAMES = 5  # of a clip
_SIDE = 32  # px of the picture that is hashed
_LOW = 8  # lowest frequencies of each direction
_FLAT = 2.0  # levels of 255, standard deviation: below, noise would make the hash
_SHARED_BANDS = 3  # more: fewer candidates in each table, but more tables

Hashes = NDArray[np.uint64]


def hash_clip(
    pictures: Sequence[np.ndarray],  # uint8 [H, W, 3] RGB, all of a clip
) -> str:  # 16 hex digits for each of a few frames, spread evenly; flat ones have none
    """Perceptual hashes of a clip."""
    count = min(HASHED_FRAMES, len(pictures))
    places = [(2 * k + 1) * len(pictures) // (2 * count) for k in range(count)]
    hashes = [hash_picture(pictures[place]) for place in places]
    return "".join(f"{value:016x}" for value in hashes if value is not None)


def hash_picture(
    picture: np.ndarray,  # uint8 [H, W, 3] RGB
) -> int | None:  # 64 bits; None for a flat picture
    """Signs of the picture's lowest frequencies against their median (pHash, Zauner 2010)."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float64)
    if small.std() < _FLAT:
        return None
    waves = _cosines()
    low = np.round(waves @ small @ waves.T, 3).ravel()  # rounded: the same bits from every BLAS
    bits = low > np.median(low[1:])
    bits[0] = False  # the mean says nothing
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _cosines() -> NDArray[np.float64]:
    """The first rows of the discrete cosine transform, [_LOW, _SIDE]."""
    place, wave = np.arange(_SIDE) + 0.5, np.arange(_LOW)
    return np.cos(np.pi / _SIDE * wave[:, None] * place)


def parse_hashes(perceptual_hash: str) -> Hashes:
    """The hashes in a perceptual_hash."""
    return np.array(
        [int(perceptual_hash[k : k + 16], 16) for k in range(0, len(perceptual_hash), 16)], np.uint64
    )


def find_duplicates(clips: Sequence[Clip], bits: int) -> list[tuple[Clip, Clip]]:
    """Pairs of clips of different films that show the same, the shorter first.

    Most of the shorter's hashed frames are in the other: their hashes differ in no more than `bits`. No two
    frames within that bound are missed.
    """
    clips = sorted(clips, key=lambda clip: (clip.stop - clip.start, clip.id))  # the shorter comes first
    hashes = [parse_hashes(clip.perceptual_hash) for clip in clips]
    unique, which = np.unique(np.concatenate([*hashes, np.array([], np.uint64)]), return_inverse=True)
    bounds = np.cumsum([0, *map(len, hashes)])
    alike = _neighbours(unique, bits)
    users: dict[int, set[int]] = defaultdict(set)
    for number, (start, stop) in enumerate(pairwise(bounds)):
        for place in which[start:stop]:
            users[int(place)].add(number)
    found: list[tuple[Clip, Clip]] = []
    for number, (start, stop) in enumerate(pairwise(bounds)):
        shared: dict[int, int] = defaultdict(int)
        for place in which[start:stop].tolist():
            for other in set().union(*(users[near] for near in (place, *alike[place]))):
                shared[other] += other > number and clips[other].film != clips[number].film
        found += [(clips[number], clips[o]) for o, same in sorted(shared.items()) if 2 * same > stop - start]
    return found


def _neighbours(hashes: Hashes, bits: int) -> dict[int, list[int]]:
    """For every hash the places of others within `bits`."""
    near: dict[int, list[int]] = defaultdict(list)
    for first, second in sorted(set(_close_pairs(hashes, bits))):
        near[first].append(second)
        near[second].append(first)
    return near


def _close_pairs(
    hashes: Hashes,  # no two the same
    bits: int,
) -> Iterator[tuple[int, int]]:
    """Pairs of places within `bits` of each other, none missed; some come more than once.

    The 64 bits are cut into `bits` + 3 bands. `bits` changes spoil at most that many, so 3 are left alike.
    """
    bands = bits + _SHARED_BANDS
    if bands > 64:
        raise ValueError(f"at most {64 - _SHARED_BANDS} bits can be told apart, got {bits}")
    edges = [64 * k // bands for k in range(bands + 1)]
    masks = [((1 << stop) - 1) ^ ((1 << start) - 1) for start, stop in pairwise(edges)]
    for kept in combinations(masks, _SHARED_BANDS):
        key = hashes & np.uint64(sum(kept))
        order = np.argsort(key, kind="stable")
        key = key[order]
        left, step = np.arange(len(key)), 1
        while len(left := left[left + step < len(key)]):
            left = left[key[left] == key[left + step]]
            first, second = order[left], order[left + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
            yield from zip(first[close].tolist(), second[close].tolist(), strict=True)
            step += 1
