"""Windows in time: ours for any length, the release's for every length it supports."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import released_walk
from hypothesis import given, settings
from hypothesis import strategies as st

from secondeye.inpaint.frame_windows import split_evenly, stream_windows

PLANS = Path(__file__).parent / "conformance" / "sc_chunk_plans_23_3.json"


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 12), st.integers(0, 40))
def test_every_frame_is_new_once_and_has_context(
    frames: int, window: int, overlap: int, inpainted: int
) -> None:
    windows = list(stream_windows(range(frames), window, overlap, inpainted))
    assert [frame for _, new in windows for frame in new] == list(range(frames))
    for before, new in windows:
        start = inpainted + new[0]
        assert before + len(new) == min(window, start + len(new))
        # Frames inpainted before are the overlap of the next window; every window must add new ones.
        assert start >= before >= min(overlap, window - 1, start)


def test_short_last_window_overlaps_more() -> None:
    assert [(k, len(new)) for k, new in stream_windows(range(42), 23, 3)] == [(0, 23), (4, 19)]
    assert [(k, len(new)) for k, new in stream_windows(range(24), 23, 3)] == [(0, 23), (22, 1)]


def test_windows_are_full_while_frames_arrive() -> None:
    """A window is passed on at its last frame, before the stream is asked for another."""
    arrived: list[int] = []

    def arrive() -> Iterator[int]:
        for frame in range(60):
            arrived.append(frame)
            yield frame

    assert [(before, len(arrived)) for before, _ in stream_windows(arrive(), 25, 3)] == [
        (0, 25),
        (3, 47),
        (12, 60),
    ]


def test_windows_continue_after_inpainted_frames() -> None:
    assert [(k, new) for k, new in stream_windows(range(2), 25, 3, inpainted=47)] == [(23, [0, 1])]


def test_empty_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        list(stream_windows(range(5), 0, 0))


@given(st.integers(1, 300), st.integers(1, 40))
def test_groups_are_few_and_even(count: int, at_most: int) -> None:
    sizes = split_evenly(count, at_most)
    assert sum(sizes) == count and max(sizes) <= at_most and max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // at_most)


def test_groups_of_two_match_the_release() -> None:
    assert split_evenly(7, 2) == [2, 2, 2, 1]


# The release's


@pytest.mark.parametrize(("frames", "plan"), json.loads(PLANS.read_text()).items())
def test_chunks_match_the_release(frames: str, plan: list[list[int]]) -> None:
    assert [list(chunk) for chunk in released_walk.plan_chunks(int(frames))] == plan


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_impossible_chunks_are_refused(frames: int) -> None:
    with pytest.raises(ValueError, match="more than 3 frames"):
        released_walk.plan_chunks(frames)


@settings(deadline=None)
@given(st.integers(5, 40), st.integers(1, 4), st.integers(5, 300))
def test_release_chunks_cover_any_length(chunk: int, overlap: int, frames: int) -> None:
    made = []
    for part in released_walk.plan_chunks(frames, chunk, overlap):
        assert part.overlap <= len(made)
        assert part.start + part.overlap == len(made)
        made += range(part.start + part.overlap, part.start + part.length)
    assert made == list(range(frames))
