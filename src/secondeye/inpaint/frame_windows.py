"""Windows of frames that the network takes together; each overlaps frames that are inpainted already.

The paper overlaps 3 of 25 frames (section 3.4). The released code's last window is shorter than the others
and may overlap a single frame; ours has full length and overlaps more frames instead.
"""

from collections.abc import Iterator
from typing import NamedTuple


class FrameWindow(NamedTuple):
    """A range of frames; those from `start` to `first_new` are inpainted already."""

    start: int
    first_new: int
    stop: int  # exclusive


def plan_windows(
    frames: int,
    window_frames: int,  # at least 1
    overlap_frames: int,  # with the window before; less than window_frames, or each window adds one frame
    inpainted: int = 0,  # how many of the first frames are inpainted already
) -> Iterator[FrameWindow]:
    """Yield windows in which every frame that is not inpainted is new exactly once.

    Every window overlaps at least `overlap_frames` inpainted frames, or all there are if they are fewer.
    Raises ValueError for window_frames below 1 or a negative overlap.
    """
    if window_frames < 1 or overlap_frames < 0:
        raise ValueError(
            f"window_frames must be 1 or more and overlap_frames 0 or more, "
            f"got {window_frames} and {overlap_frames}"
        )
    first_new = inpainted
    overlap_frames = min(overlap_frames, window_frames - 1)
    while first_new < frames:
        stop = min(first_new - min(overlap_frames, first_new) + window_frames, frames)
        yield FrameWindow(max(0, stop - window_frames), first_new, stop)
        first_new = stop


def split_evenly(
    count: int,
    max_size: int,
) -> list[int]:  # sizes that sum to count and differ by at most one
    """Return the sizes of the fewest groups of at most `max_size`."""
    groups = -(-count // max_size)
    return [count // groups + (k < count % groups) for k in range(groups)]
