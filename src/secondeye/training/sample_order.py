"""The order in which a training visits its shots.

An epoch visits every window once: a shot as often as windows fit into it side by side. Shots are shuffled in
two steps, as streamed data is: blocks of neighbouring shots come in random order, and a buffer of a few
blocks is shuffled. So few shots are in use at a time, and shards of shots can be read in turn; the order is
the same wherever the shots are read from.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK_SHOTS = 8  # neighbours in the listing, which come together
BUFFER_BLOCKS = 16  # shuffled together


class SampleOrder:
    """Says which shot each sample is drawn from; a function of the seed and the sample's number alone."""

    def __init__(
        self,
        windows: Sequence[int],  # of each shot, how often an epoch visits it
        seed: int,
    ) -> None:
        self.windows = np.asarray(windows, np.int64)
        self.seed = seed
        self.length = int(self.windows.sum())  # windows of an epoch
        self._epoch: tuple[int, NDArray[np.int32]] | None = None

    def shot(self, number: int) -> int:
        """Return the index of the shot of the sample with this number, counted over all epochs."""
        epoch, position = divmod(number, self.length)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = epoch, self._shuffle(epoch)
        return int(self._epoch[1][position])

    def _shuffle(self, epoch: int) -> NDArray[np.int32]:
        """Return the shot of every window of an epoch."""
        rng = np.random.default_rng([self.seed, epoch])
        shots = np.arange(len(self.windows), dtype=np.int32)
        blocks = np.split(shots, range(BLOCK_SHOTS, len(shots), BLOCK_SHOTS))
        order = rng.permutation(len(blocks))
        parts = []
        for start in range(0, len(order), BUFFER_BLOCKS):
            buffer = np.concatenate([blocks[k] for k in order[start : start + BUFFER_BLOCKS]])
            parts.append(rng.permutation(np.repeat(buffer, self.windows[buffer])))
        return np.concatenate(parts)


def is_second_kind(number: int, share: float) -> bool:
    """Return whether a sample is of the second of two kinds, which has this share, evenly spread."""
    return int((number + 1) * share) > int(number * share)


def number_of_kind(number: int, share: float) -> int:
    """Return how many samples of the same kind come before a sample; see `is_second_kind`."""
    second = int(number * share)
    return second if is_second_kind(number, share) else number - second
