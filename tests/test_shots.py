from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from conftest import moving_pictures

from secondeye.shots import find_cuts
from secondeye.video.probe import probe
from secondeye.video.read import read_pictures


def cuts_of(*lengths: int) -> tuple[list[int], int]:
    pictures = np.concatenate([moving_pictures(n, 36, 64, seed) for seed, n in enumerate(lengths)])
    return find_cuts(iter(pictures), Fraction(24), threshold=2.0, min_shot_frames=6)


@pytest.mark.parametrize(
    ("lengths", "cuts"),
    [((20,), []), ((12, 15), [12]), ((10, 11, 12), [10, 21]), ((20, 3), []), ((3, 20), [])],
)
def test_cuts_are_the_first_frames_of_shots(lengths: tuple[int, ...], cuts: list[int]) -> None:
    assert cuts_of(*lengths) == (cuts, sum(lengths))


def test_no_pictures_and_one_picture_have_no_cuts() -> None:
    assert find_cuts(iter([]), Fraction(24), threshold=2.0, min_shot_frames=6) == ([], 0)
    assert cuts_of(1) == ([], 1)


def test_every_cut_of_the_bikes_is_found(footage: Path) -> None:
    film = footage / "mono_bikes" / "bikes.mp4"

    def pictures() -> Iterator[np.ndarray]:
        for picture in read_pictures(film, size=(108, 256)):
            yield picture.rgb

    found = find_cuts(pictures(), probe(film).fps, threshold=2.0, min_shot_frames=6)
    assert found == ([30, 76, 137, 187, 242], 250)
