import numpy as np
import pytest
from conftest import moving_images

from secondeye.film.letterbox import Letterbox, find_letterbox, max_over_time, measure_profile, refine, union

HEIGHT, WIDTH = 90, 160


def framed(top: int, bottom: int, left: int, right: int, black: int = 0) -> np.ndarray:
    """Return a shot inside black borders, uint8 [T, H, W, 3]."""
    images = np.full((4, HEIGHT, WIDTH, 3), black, np.uint8)
    inside = moving_images(4, HEIGHT - top - bottom, WIDTH - left - right)
    images[:, top : HEIGHT - bottom, left : WIDTH - right] = inside
    return images


def borders_of(images: np.ndarray) -> Letterbox:
    return find_letterbox(max_over_time([measure_profile(image) for image in images]))


@pytest.mark.parametrize("borders", [(0, 0, 0, 0), (11, 13, 0, 0), (0, 0, 1, 30), (2, 0, 0, 7)])
@pytest.mark.parametrize("black", [0, 7])
def test_black_borders_are_found_to_the_pixel(borders: tuple[int, int, int, int], black: int) -> None:
    assert borders_of(framed(*borders, black=black)) == borders


def test_letterbox_is_robust_to_specks() -> None:
    images = framed(12, 12, 0, 0)
    for frame, image in enumerate(images):
        image[5, 10 + 3 * frame : 12 + 3 * frame] = 255
        image[HEIGHT - 3, 40 * frame] = 255
    assert borders_of(images) == (12, 12, 0, 0)


def test_captions_of_analogue_video_belong_to_the_letterbox() -> None:
    images = framed(12, 12, 0, 0)
    images[:, 1:3, 10:70] = 130
    assert borders_of(images) == (12, 12, 0, 0)


def test_row_blended_with_the_border_is_part_of_it() -> None:
    images = framed(12, 0, 0, 0)
    images[:, 12] = images[:, 12] // 2
    assert borders_of(images) == (13, 0, 0, 0)


def test_temporarily_black_rows_are_not_a_border() -> None:
    images = framed(12, 0, 0, 0)
    images[2] = framed(0, 0, 0, 0)[2]
    assert borders_of(images) == (0, 0, 0, 0)


def test_gradual_darkening_is_not_a_border() -> None:
    light = np.clip(np.arange(HEIGHT) - 20, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, (3, HEIGHT, WIDTH, 1), np.uint8)
    assert borders_of((light[:, None, None] + noise).repeat(3, -1)) == (0, 0, 0, 0)


def test_black_films_and_narrow_images_have_no_border() -> None:
    images = np.zeros((3, HEIGHT, WIDTH, 3), np.uint8)
    assert borders_of(images) == (0, 0, 0, 0)
    images[:, 40:50] = 200
    assert borders_of(images) == (0, 0, 0, 0), "more than 40 % of each side is not a border"


def test_refine_is_bounded_by_the_coarse_letterbox() -> None:
    assert refine(Letterbox(10, 9, 0, 0), (90, 160), Letterbox(51, 46, 0, 3), (450, 800)) == (51, 46, 0, 3)
    too_large = Letterbox(90, 46, 0, 40)
    assert refine(Letterbox(10, 9, 0, 0), (90, 160), too_large, (450, 800)) == (60, 46, 0, 10)


def test_union_of_two_letterboxes() -> None:
    assert union(Letterbox(1, 2, 3, 4), Letterbox(4, 3, 2, 1)) == (4, 3, 3, 4)
