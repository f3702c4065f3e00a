import numpy as np
import pytest
from conftest import moving_pictures

from secondeye.film.letterbox import Letterbox, find_letterbox, max_over_time, measure_profile, refine, union

HEIGHT, WIDTH = 90, 160


def framed(top: int, bottom: int, left: int, right: int, black: int = 0) -> np.ndarray:
    """Return a shot inside black borders, uint8 [T, H, W, 3]."""
    pictures = np.full((4, HEIGHT, WIDTH, 3), black, np.uint8)
    inside = moving_pictures(4, HEIGHT - top - bottom, WIDTH - left - right)
    pictures[:, top : HEIGHT - bottom, left : WIDTH - right] = inside
    return pictures


def borders_of(pictures: np.ndarray) -> Letterbox:
    return find_letterbox(max_over_time([measure_profile(picture) for picture in pictures]))


@pytest.mark.parametrize("borders", [(0, 0, 0, 0), (11, 13, 0, 0), (0, 0, 1, 30), (2, 0, 0, 7)])
@pytest.mark.parametrize("black", [0, 7])
def test_black_borders_are_found_to_the_pixel(borders: tuple[int, int, int, int], black: int) -> None:
    assert borders_of(framed(*borders, black=black)) == borders


def test_letterbox_is_robust_to_specks() -> None:
    pictures = framed(12, 12, 0, 0)
    for frame, picture in enumerate(pictures):
        picture[5, 10 + 3 * frame : 12 + 3 * frame] = 255
        picture[HEIGHT - 3, 40 * frame] = 255
    assert borders_of(pictures) == (12, 12, 0, 0)


def test_row_blended_with_the_border_is_part_of_it() -> None:
    pictures = framed(12, 0, 0, 0)
    pictures[:, 12] = pictures[:, 12] // 2
    assert borders_of(pictures) == (13, 0, 0, 0)


def test_temporarily_black_rows_are_not_a_border() -> None:
    pictures = framed(12, 0, 0, 0)
    pictures[2] = framed(0, 0, 0, 0)[2]
    assert borders_of(pictures) == (0, 0, 0, 0)


def test_gradual_darkening_is_not_a_border() -> None:
    light = np.clip(np.arange(HEIGHT) - 20, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, (3, HEIGHT, WIDTH, 1), np.uint8)
    assert borders_of((light[:, None, None] + noise).repeat(3, -1)) == (0, 0, 0, 0)


def test_black_films_and_narrow_pictures_have_no_border() -> None:
    pictures = np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)
    assert borders_of(pictures) == (0, 0, 0, 0)
    pictures[:, 40:50] = 200
    assert borders_of(pictures) == (0, 0, 0, 0), "more than 40 % of each side is not a border"


def test_refine_is_bounded_by_the_coarse_letterbox() -> None:
    assert refine(Letterbox(10, 9, 0, 0), (90, 160), Letterbox(51, 46, 0, 3), (450, 800)) == (51, 46, 0, 3)
    too_large = Letterbox(90, 46, 0, 40)
    assert refine(Letterbox(10, 9, 0, 0), (90, 160), too_large, (450, 800)) == (60, 46, 0, 10)


def test_union_of_two_letterboxes() -> None:
    assert union(Letterbox(1, 2, 3, 4), Letterbox(4, 3, 2, 1)) == (4, 3, 3, 4)
