"""Draw training windows: frames of a shot with a stride, at the size that the network works at."""

from collections.abc import Callable, Sequence

import numpy as np

from secondeye.training.sample_order import SampleOrder, is_second_kind, number_of_kind
from secondeye.training.stereo_shot import CHUNK_FRAMES, ShotPool, StereoShot, TrainingShot, join_frames

_MONO_STREAM = 1  # separates the order of monocular shots from that of stereo shots


class Windows:
    """Draws the window of each sample: a function of its number and generator alone."""

    def __init__(
        self,
        pool: ShotPool,  # only shots that a window fits into
        frames: int,  # of a window
        *,
        mono_share: float,  # [0, 1] of the windows; if one kind is missing the other is taken
        seed: int,  # of the shots' order
        max_stride: int = 1,
    ) -> None:
        self.pool, self.frames, self.max_stride = pool, frames, max_stride
        self.mono_share = mono_share if pool.stereo and pool.mono else float(not pool.stereo)
        stereo, mono = ([max(1, shot.frames // frames) for shot in shots] for shots in pool)
        self._stereo, self._mono = SampleOrder(stereo, seed), SampleOrder(mono, seed + _MONO_STREAM)

    def draw(self, number: int, rng: np.random.Generator) -> tuple[TrainingShot, range]:
        """Return the shot of a sample, and the indices of the window's frames in it."""
        order, shots = self._stereo, self.pool.stereo
        if is_second_kind(number, self.mono_share):
            order, shots = self._mono, self.pool.mono
        shot = shots[order.shot(number_of_kind(number, self.mono_share))]
        return shot, draw_frames(shot, self.frames, self.max_stride, rng)


def draw_frames(shot: TrainingShot, frames: int, max_stride: int, rng: np.random.Generator) -> range:
    """Draw the stride, at most `max_stride` and as large as the shot allows, and the first frame."""
    longest = (shot.frames - 1) // max(1, frames - 1)
    stride = int(rng.integers(1, max(1, min(max_stride, shot.max_stride, longest)) + 1))
    start = int(rng.integers(shot.frames - (frames - 1) * stride))
    return range(start, start + (frames - 1) * stride + 1, stride)


def read_window(
    shot: TrainingShot,
    frames: Sequence[int],
    reduce: Callable[[StereoShot], StereoShot] = lambda chunk: chunk,  # of a few frames, quantized
) -> StereoShot:  # quantized
    """Read frames of a shot, a few at a time: only the quantized window is held whole."""
    chunks = [frames[start : start + CHUNK_FRAMES] for start in range(0, len(frames), CHUNK_FRAMES)]
    return join_frames(reduce(shot.read(chunk)) for chunk in chunks)
