"""Windows of frames that the network takes together; each overlaps frames that are inpainted already.

The paper overlaps 3 of 25 frames (section 3.4). The released code's last window is shorter than the others
and may overlap a single frame; ours has full length and overlaps more frames instead.
"""

from collections.abc import Iterable, Iterator
from typing import TypeVar

Frame = TypeVar("Frame")


def stream_windows(
    frames: Iterable[Frame],  # of one shot, or the rest of one
    window_frames: int,  # at least 1
    overlap_frames: int,  # with the window before; less than window_frames, or each window adds one frame
    inpainted: int = 0,  # how many frames of the shot are inpainted already
) -> Iterator[tuple[int, list[Frame]]]:
    """Yield windows as the frames arrive: how many inpainted frames each overlaps, and its new frames, which
    the caller may clear.

    Every window overlaps `overlap_frames` inpainted frames, or all there are if they are fewer; the last one
    overlaps more if there are too few new frames for its full length. Every frame is new once. Raises
    ValueError for window_frames below 1 or a negative overlap.
    """
    if window_frames < 1 or overlap_frames < 0:
        raise ValueError(
            f"window_frames must be 1 or more and overlap_frames 0 or more, "
            f"got {window_frames} and {overlap_frames}"
        )
    overlap_frames = min(overlap_frames, window_frames - 1)
    new: list[Frame] = []
    for frame in frames:
        new.append(frame)
        overlap = min(overlap_frames, inpainted)
        if overlap + len(new) == window_frames:
            inpainted += len(new)
            yield overlap, new
            new = []
    if new:
        yield min(inpainted, window_frames - len(new)), new


def split_evenly(
    count: int,
    max_size: int,
) -> list[int]:  # sizes that sum to count and differ by at most one
    """Return the sizes of the fewest groups of at most `max_size`."""
    groups = -(-count // max_size)
    return [count // groups + (k < count % groups) for k in range(groups)]
