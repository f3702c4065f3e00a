"""Find clips that show the same frames by perceptual hashes.

Frames of one film are alike, often, and never count. So pairs within a film are dropped where they are found,
and memory grows with the number of hashes and of images that films share.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from secondeye.dataset.perceptual_hash import Hashes, parse_hashes
from secondeye.dataset.schema import Clip

# Bands of bits in which two close hashes agree at least. More give fewer false candidates but more sorts.
_SHARED_BANDS = 3
_SEVERAL = -1  # in the place of a film: the hash is in more than one


def find_duplicates(clips: Sequence[Clip], bits: int) -> list[tuple[Clip, Clip]]:
    """Find pairs of clips of different films that show the same frames, the shorter clip first.

    More than half of the shorter clip's hashes have one in the other clip that differs in at most `bits`.
    The search is exact.
    """
    clips = sorted(clips, key=lambda clip: (clip.stop - clip.start, clip.id))  # the shorter first
    hashes = [parse_hashes(clip.perceptual_hash) for clip in clips]
    unique, index = np.unique(np.concatenate([*hashes, np.array([], np.uint64)]), return_inverse=True)
    bounds = np.cumsum([0, *map(len, hashes)])
    films = _films_of_hashes(clips, index, bounds, len(unique))
    pairs = close_pairs(unique, films, bits)
    shared_hashes = np.union1d(pairs, np.flatnonzero(films == _SEVERAL))
    clips_near = _clips_near(shared_hashes, pairs, index, bounds)
    found: list[tuple[Clip, Clip]] = []
    for number in sorted(set().union(*clips_near.values())):
        shared: dict[int, int] = defaultdict(int)
        positions = index[bounds[number] : bounds[number + 1]].tolist()
        for position in positions:
            for other in clips_near.get(position, ()):
                shared[other] += other > number and clips[other].film != clips[number].film
        found += [
            (clips[number], clips[other])
            for other, same in sorted(shared.items())
            if 2 * same > len(positions)
        ]
    return found


def _films_of_hashes(
    clips: Sequence[Clip],
    index: NDArray[np.int64],  # of the hash of each hashed frame
    bounds: NDArray[np.int64],  # of each clip's part of it
    count: int,  # of hashes
) -> NDArray[np.int32]:  # [count]
    """Return the number of the film that each hash is in, or `_SEVERAL`."""
    numbers = {film: number for number, film in enumerate(dict.fromkeys(clip.film for clip in clips))}
    of_frames = np.repeat(np.array([numbers[clip.film] for clip in clips], np.int32), np.diff(bounds))
    films = np.zeros(count, np.int32)
    films[index] = of_frames
    films[index[films[index] != of_frames]] = _SEVERAL
    return films


def _clips_near(
    positions: NDArray[np.int64],  # of the hashes to look up
    pairs: NDArray[np.int64],  # [n, 2] positions of close hashes
    index: NDArray[np.int64],
    bounds: NDArray[np.int64],
) -> Mapping[int, set[int]]:
    """Return for each of some hashes the clips with a hash that is equal or close."""
    frames = np.flatnonzero(np.isin(index, positions))
    clips_with: dict[int, set[int]] = defaultdict(set)
    owners = np.searchsorted(bounds, frames, "right") - 1
    for position, clip in zip(index[frames].tolist(), owners.tolist(), strict=True):
        clips_with[position].add(clip)
    near = {position: set(owners) for position, owners in clips_with.items()}
    for first, second in pairs.tolist():
        near[first] |= clips_with[second]
        near[second] |= clips_with[first]
    return near


def close_pairs(
    hashes: Hashes,  # unique
    films: NDArray[np.int32],  # of each hash; those of one film are no pair, unless it is `_SEVERAL`
    bits: int,
) -> NDArray[np.int64]:  # [n, 2] positions, the smaller first
    """Return all pairs of hashes that differ in at most `bits` and are not of one film.

    The 64 bits are split into `bits` + 3 bands. `bits` differences affect at most `bits` bands, so at least 3
    bands are equal: for every choice of 3 bands, sorting by them puts such pairs into one run of equal keys.
    """
    bands = bits + _SHARED_BANDS
    if bands > 64:
        raise ValueError(f"bits must be at most {64 - _SHARED_BANDS}, got {bits}")
    edges = [64 * k // bands for k in range(bands + 1)]
    masks = [((1 << stop) - 1) ^ ((1 << start) - 1) for start, stop in pairwise(edges)]
    found = np.empty(0, np.int64)  # pairs as one number: a pair is found by several choices of bands
    for shared in combinations(masks, _SHARED_BANDS):
        key = hashes & np.uint64(sum(shared))
        order = np.argsort(key, kind="stable")
        key = key[order]
        left, step = np.arange(len(key)), 1
        new = [found]
        while len(left := left[left + step < len(key)]):
            left = left[key[left] == key[left + step]]
            first, second = order[left], order[left + step]
            close = np.bitwise_count(hashes[first] ^ hashes[second]) <= bits
            first, second = first[close], second[close]
            apart = (films[first] != films[second]) | (films[first] == _SEVERAL)
            new.append(first[apart] * len(hashes) + second[apart])
            step += 1
        found = np.unique(np.concatenate(new))
    return np.stack(np.divmod(found, max(1, len(hashes))), axis=1)
