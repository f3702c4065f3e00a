from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_images

from secondeye.film.cuts import find_cuts
from secondeye.film.frame_checks import check_frame
from secondeye.film.shots import find_shots, split_shot, trim_shot
from secondeye.video.probe import probe
from secondeye.video.read import decode_film


def cuts_of(*lengths: int) -> tuple[list[int], int]:
    images = np.concatenate([moving_images(n, 36, 64, seed) for seed, n in enumerate(lengths)])
    return find_cuts(iter(images), Fraction(24), threshold=2.0, min_shot_frames=6)


@pytest.mark.parametrize(
    ("lengths", "cuts"),
    [((20,), []), ((12, 15), [12]), ((10, 11, 12), [10, 21]), ((20, 3), []), ((3, 20), [])],
)
def test_cuts_are_the_first_frames_of_shots(lengths: tuple[int, ...], cuts: list[int]) -> None:
    assert cuts_of(*lengths) == (cuts, sum(lengths))


def test_empty_and_single_frame_films_have_no_cuts() -> None:
    assert find_cuts(iter([]), Fraction(24), threshold=2.0, min_shot_frames=6) == ([], 0)
    assert cuts_of(1) == ([], 1)


# Shot starts annotated by hand: exact ones, and those after fades, which are ambiguous by a frame.
REAL = {
    "mono_bikes/bikes.mp4": ([30, 76, 137, 187, 242], []),
    "mono_sintel_30s/test_video_30s.mp4": ([286, 348, 356, 523, 573, 610, 631], [77, 176, 237, 387, 477]),
    "mono_bbb/bigbuckbunny.mp4": ([], []),
    "mono_rollercoaster/rollercoaster.mp4": ([], []),
    "mono_rabbit/rabbit320.mp4": ([], []),
}


@pytest.mark.parametrize("name", REAL)
def test_shots_of_real_films_are_found_exactly(footage: Path, name: str) -> None:
    info = probe(footage / name)
    blank: list[bool] = []

    def images() -> Iterator[np.ndarray]:
        for frame in decode_film(info.path, size=(round(info.height * 256 / info.width), 256)):
            blank.append(check_frame(frame.rgb, None).blank)
            yield frame.rgb

    cuts, _ = find_cuts(images(), info.fps, threshold=2.0, min_shot_frames=4)
    starts = {start for start, _ in find_shots(cuts, blank, 4) if start}
    exact, faded_in = REAL[name]
    assert set(exact) <= starts and len(starts) == len(exact) + len(faded_in)
    assert all(starts & {truth, truth + 1} for truth in faded_in)


def test_blank_frames_belong_to_no_shot() -> None:
    blank = [True] + [False] * 9 + [True] * 3 + [False] * 7 + [True] * 2
    assert find_shots([5], blank, 3) == [(1, 5), (5, 10), (13, 20)]
    assert find_shots([5, 15], blank, 3) == [(1, 5), (5, 10), (15, 20)], "a cut next to a fade"
    assert find_shots([], [False], 3) == [(0, 1)], "a still is a shot"
    assert find_shots([], [True, True], 3) == []


def at_rate(fps: int, frames: int) -> list[Fraction]:
    return [Fraction(k, fps) for k in range(frames + 1)]


def test_shots_are_trimmed_except_at_the_ends_of_the_film() -> None:
    seconds = at_rate(10, 30)
    assert trim_shot(seconds, 0, 30, Fraction(1)) == (0, 30)
    assert trim_shot(seconds, 0, 20, Fraction(1, 4)) == (0, 17), "frame 17 would end 0.2 s before the cut"
    assert trim_shot(seconds, 10, 30, Fraction(1, 4)) == (13, 30)
    assert trim_shot(seconds, 10, 20, Fraction(3, 10)) == (13, 17)
    assert trim_shot(seconds, 10, 20, Fraction(0)) == (10, 20)
    assert trim_shot(seconds, 10, 20, Fraction(1, 2)) == (10, 10), "nothing is left"


def test_durations_follow_the_timestamps() -> None:
    slow = [Fraction(k) for k in range(5)] + [4 + Fraction(k, 10) for k in range(1, 11)]
    assert trim_shot(slow, 1, 10, Fraction(1)) == (2, 3), "frame 3 lasts until 4 s, 0.6 s before the cut"
    assert split_shot(slow, 0, 14, Fraction(3), 1) == [(0, 3), (3, 7), (7, 10), (10, 14)]
    assert split_shot(slow, 0, 14, Fraction(2), 1)[0] == (0, 2)


def test_long_shots_are_split_equally() -> None:
    def pieces(start: int, stop: int, frames: int, shortest: int) -> list[tuple[int, int]]:
        return split_shot(at_rate(25, 300), start, stop, Fraction(frames, 25), shortest)

    assert pieces(0, 292, 50, 8) == [(0, 48), (48, 97), (97, 146), (146, 194), (194, 243), (243, 292)]
    assert pieces(0, 50, 50, 8) == [(0, 50)] and pieces(0, 51, 50, 8) == [(0, 25), (25, 51)]
    assert pieces(5, 12, 50, 8) == []
    assert pieces(5, 13, 50, 8) == [(5, 13)]
    assert pieces(0, 20, 9, 8) == [(0, 10), (10, 20)], "no piece may be shorter than a window"
    assert pieces(7, 8, 50, 1) == [(7, 8)]
