"""How far a mean over films could be off: films are drawn anew, then the clips of each drawn film.

The bootstrap of Efron (1979) on two levels, percentile intervals. Clips of one film resemble each other, so
films are what is drawn first, and every film counts once however many clips it has. With few films such
intervals are too narrow: of those that say 0.9, about 0.85 hold the truth with ten films, 0.78 with five
(measured on normal numbers).
"""

from collections.abc import Mapping, Sequence

import numpy as np

_BLOCK = 2**15  # numbers drawn at once, as many as caches hold; the result does not depend on it


def interval(
    values: Mapping[str, Sequence[float]],  # film -> what its clips score, NaN for nothing
    *,
    resamples: int,
    confidence: float,  # (0, 1)
    seed: int,
) -> tuple[float, float]:
    """Both ends of the interval that holds the mean over films at this confidence; NaN without any score."""
    means = resampled_means(values, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def least_gain(
    gains: Mapping[str, Sequence[float]],  # film -> how much better each of its clips is
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> float:
    """What the mean gain exceeds at this confidence (one-sided); -inf with fewer than two films."""
    if len(scored(gains)) < 2:
        return -np.inf
    return float(np.quantile(resampled_means(gains, resamples, seed), 1 - confidence))


def resampled_means(
    values: Mapping[str, Sequence[float]], resamples: int, seed: int
) -> np.ndarray:  # float64 [resamples]
    """The mean over films of as many resamples; NaN without any score."""
    films = scored(values)
    if not films:
        return np.full(resamples, np.nan)
    counts = np.array([len(film) for film in films])
    centre = films[0][0]  # taken off before sums are formed, so that equal values stay equal
    table = np.zeros((len(films), counts.max()))
    for place, film in enumerate(films):
        table[place, : len(film)] = film - centre
    generator = np.random.default_rng(seed)
    shape = (len(films), 1 + counts.max())  # of one resample: which film, then which of its clips
    block = max(1, _BLOCK // (shape[0] * shape[1]))
    starts = range(0, resamples, block)
    draws = (generator.random((min(block, resamples - start), *shape)) for start in starts)
    means = np.concatenate([_mean_of_drawn(table, counts, drawn) for drawn in draws])
    return np.asarray(centre + means)


def scored(values: Mapping[str, Sequence[float]]) -> list[np.ndarray]:
    """Each film's scores but NaN, sorted, and so are films: order and names play no part."""
    films = [np.sort(np.asarray(clips, np.float64)) for clips in values.values()]
    found = [film[~np.isnan(film)] for film in films]
    return sorted((film for film in found if len(film)), key=lambda film: film.tolist())


def _mean_of_drawn(
    table: np.ndarray,  # [films, clips]
    counts: np.ndarray,  # [films]: how many clips each has
    drawn: np.ndarray,  # [resamples, films, 1 + clips] in [0, 1)
) -> np.ndarray:  # [resamples]
    """Every drawn number picks a film, or a clip of the film that was picked."""
    film = (drawn[..., :1] * len(counts)).astype(np.int64)
    count = counts[film]
    clip = (drawn[..., 1:] * count).astype(np.int64)
    there = np.arange(table.shape[1]) < count
    means = np.where(there, table[film, clip], 0.0).sum(-1) / count[..., 0]
    return np.asarray(means.mean(-1))
