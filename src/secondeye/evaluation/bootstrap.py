"""Two-level bootstrap of a mean over films: resample films, then the clips of each resampled film.

Efron's bootstrap (1979) with percentile intervals. Clips of one film are correlated, so films are resampled
first, and every film has the same weight however many clips it has. With few films the intervals are too
narrow: a nominal 90 % interval covers the true mean in about 85 % of cases with ten films and in 78 % with
five (measured on normal data).
"""

from collections.abc import Mapping, Sequence

import numpy as np

_BLOCK = 2**15  # random numbers drawn at a time, so that they fit the cache; does not change the result


def bootstrap_interval(
    values: Mapping[str, Sequence[float]],  # film -> scores of its clips; NaN for no score
    *,
    resamples: int,
    confidence: float,  # (0, 1)
    seed: int,
) -> tuple[float, float]:
    """Return the two-sided percentile interval of the mean over films; NaN without any score."""
    means = bootstrap_means(values, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def gain_lower_bound(
    gains: Mapping[str, Sequence[float]],  # film -> improvement of each clip
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> float:
    """Return the one-sided lower confidence bound of the mean gain; -inf with fewer than two films."""
    if len(_scored(gains)) < 2:
        return -np.inf
    return float(np.quantile(bootstrap_means(gains, resamples, seed), 1 - confidence))


def bootstrap_means(
    values: Mapping[str, Sequence[float]], resamples: int, seed: int
) -> np.ndarray:  # float64 [resamples]
    """Return the mean over films of each resample; NaN without any score."""
    films = _scored(values)
    if not films:
        return np.full(resamples, np.nan)
    counts = np.array([len(film) for film in films])
    centre = films[0][0]  # subtracted before summing, so that equal values stay exactly equal
    table = np.zeros((len(films), counts.max()))
    for index, film in enumerate(films):
        table[index, : len(film)] = film - centre
    generator = np.random.default_rng(seed)
    shape = (len(films), 1 + counts.max())  # of one resample: film index, then clip indices
    block = max(1, _BLOCK // (shape[0] * shape[1]))
    starts = range(0, resamples, block)
    draws = (generator.random((min(block, resamples - start), *shape)) for start in starts)
    means = np.concatenate([_resampled_means(table, counts, uniform) for uniform in draws])
    return np.asarray(centre + means)


def _scored(values: Mapping[str, Sequence[float]]) -> list[np.ndarray]:
    """Return each film's scores without NaNs, sorted, so that order and names do not change the result."""
    films = [np.sort(np.asarray(clips, np.float64)) for clips in values.values()]
    known = [film[~np.isnan(film)] for film in films]
    return sorted((film for film in known if len(film)), key=lambda film: film.tolist())


def _resampled_means(
    table: np.ndarray,  # [films, clips]
    counts: np.ndarray,  # [films]: clips per film
    uniform: np.ndarray,  # [resamples, films, 1 + clips] in [0, 1)
) -> np.ndarray:  # [resamples]
    """Turn uniform numbers into film and clip indices, and average the clips they select."""
    film = (uniform[..., :1] * len(counts)).astype(np.int64)
    count = counts[film]
    clip = (uniform[..., 1:] * count).astype(np.int64)
    valid = np.arange(table.shape[1]) < count
    means = np.where(valid, table[film, clip], 0.0).sum(-1) / count[..., 0]
    return np.asarray(means.mean(-1))
