"""Which frames of a shot the network sees together: each window begins with frames painted before (ours).

The paper goes on from 3 of 25 frames (section 3.4). The release's last window is three frames shorter than
the others, and may go on from a single frame; ours is as long as all, and goes on from more instead.
"""

from collections.abc import Iterator
from typing import NamedTuple


class FrameWindow(NamedTuple):
    """Frames the network sees at once. Those from `start` to `first` are painted already."""

    start: int
    first: int  # the first that is new
    stop: int  # one past the last


def plan_windows(
    frames: int,
    window_frames: int,  # the network sees at once, at least 1
    overlap_frames: int,  # of one window begin the next; less than window_frames, or each adds one frame
    painted: int = 0,  # of the first frames, by whoever came before
) -> Iterator[FrameWindow]:
    """Every frame that is not painted is new in one window; none sees fewer painted frames than were asked.

    Only where fewer are painted is a window given all there are. Raises ValueError where nothing can be seen.
    """
    if window_frames < 1 or overlap_frames < 0:
        raise ValueError(f"windows of {window_frames} frames that overlap by {overlap_frames} can not be")
    first = painted
    overlap_frames = min(overlap_frames, window_frames - 1)
    while first < frames:
        stop = min(first - min(overlap_frames, first) + window_frames, frames)
        yield FrameWindow(max(0, stop - window_frames), first, stop)
        first = stop


def split_evenly(
    count: int,
    at_most: int,  # in one group
) -> list[int]:  # sizes that sum to count and differ by one at most
    """The fewest groups. Groups of 2 are the release's own, larger ones have no straggler."""
    groups = -(-count // at_most)
    return [count // groups + (k < count % groups) for k in range(groups)]
