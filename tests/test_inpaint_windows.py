"""Windows in time: ours for any length, the release's for every length it supports."""

import json
from pathlib import Path

import pytest
import released_walk
from hypothesis import given, settings
from hypothesis import strategies as st

from secondeye.inpaint.frame_windows import plan_windows, split_evenly

PLANS = Path(__file__).parent / "conformance" / "sc_chunk_plans_23_3.json"


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 30), st.integers(0, 12), st.integers(0, 40))
def test_every_frame_is_new_once_and_has_context(
    frames: int, window: int, overlap: int, inpainted: int
) -> None:
    plan = list(plan_windows(frames, window, overlap, inpainted))
    made = [frame for part in plan for frame in range(part.first_new, part.stop)]
    assert made == list(range(inpainted, frames))
    for part in plan:
        length, given_frames = part.stop - part.start, part.first_new - part.start
        assert length == min(window, frames)
        # Frames inpainted before are the overlap of the next window; every window must add new ones.
        assert given_frames >= min(overlap, window - 1, part.first_new)


def test_short_last_window_overlaps_more() -> None:
    assert [tuple(part) for part in plan_windows(42, 23, 3)] == [(0, 0, 23), (19, 23, 42)]
    assert [tuple(part) for part in plan_windows(24, 23, 3)] == [(0, 0, 23), (1, 23, 24)]


def test_first_window_overlaps_the_previous_call() -> None:
    assert [tuple(part) for part in plan_windows(11, 25, 3, inpainted=3)] == [(0, 3, 11)]


def test_empty_windows_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 1 or more"):
        list(plan_windows(5, 0, 0))


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
