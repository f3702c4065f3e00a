from fractions import Fraction

import numpy as np
import pytest

from secondeye.film.packing import (
    PACKED,
    PACKINGS,
    crop,
    crop_and_resize,
    packing_from_name,
    side_by_side,
    unpack,
    view_pixel_aspect,
)


@pytest.mark.parametrize(
    ("stem", "packing"),
    [
        ("film_sbs", "sbs"),
        ("shot_sbs_2560x720", "sbs"),
        ("Film.Half-SBS.1080p", "half-sbs"),
        ("film_hsbs", "half-sbs"),
        ("film_LR", "sbs"),
        ("film-TB", "tb"),
        ("film_half_ou", "half-tb"),
        ("film_LRQ", "half-sbs"),
        ("film_fsbs", "sbs"),
        ("film.HTAB.mkv", "half-tb"),
        ("film_rl", "sbs-right-first"),
        ("film_sbs_rl", "sbs-right-first"),
        ("film_sbs-right-first", "sbs-right-first"),
        ("film_half-sbs-right-first", "half-sbs-right-first"),
        ("film_RLQ", "half-sbs-right-first"),
        ("film_bt", "tb-right-first"),
        ("film_tb-right-first", "tb-right-first"),
        ("film_hou_rl", "half-tb-right-first"),
        ("slabs", None),
        ("subsbs", None),
        ("holiday", None),
    ],
)
def test_packing_from_name(stem: str, packing: str | None) -> None:
    assert packing_from_name(stem) == packing


def test_unpack_undoes_side_by_side() -> None:
    left, right = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    assert np.array_equal(unpack(side_by_side(left, right), "sbs"), (left, right))
    assert np.array_equal(unpack(np.concatenate([left, right], axis=0), "half-tb"), (left, right))
    for packing in ("mosaic", "pair"):
        with pytest.raises(ValueError, match=PACKINGS[0]):
            unpack(left, packing)


@pytest.mark.parametrize("packing", [name for name in PACKED if name.endswith("right-first")])
def test_right_first_only_swaps_the_views(packing: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    plain = packing.removesuffix("-right-first")
    assert np.array_equal(unpack(image, packing), unpack(image, plain)[::-1])
    assert view_pixel_aspect(packing, Fraction(3, 2)) == view_pixel_aspect(plain, Fraction(3, 2))
    assert packing_from_name(f"film_{packing}") == packing


def test_crop_removes_the_borders() -> None:
    eye = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    assert np.array_equal(crop(eye, 1, 2, 3, 0), eye[1:4, 3:])
    assert np.array_equal(crop(eye, 0, 0, 0, 0), eye)
    for borders in ((3, 3, 0, 0), (0, 0, 4, 4), (-1, 0, 0, 0)):
        with pytest.raises(ValueError, match="cannot crop"):
            crop(eye, *borders)


def test_views_are_cropped_to_the_aspect_and_squeezed_ones_stretched() -> None:
    square = np.zeros((100, 100, 3), np.uint8)
    square[25:75] = 255  # the central 2:1 crop
    assert (crop_and_resize(square, 20, 40, Fraction(1)) == 255).all()
    squeezed = np.full((90, 80, 3), 7, np.uint8)  # 160 x 90 before it was squeezed
    assert view_pixel_aspect("half-sbs", Fraction(1)) == 2
    assert crop_and_resize(squeezed, 45, 80, Fraction(2)).shape == (45, 80, 3)


def test_fit_only_scales_the_disparity() -> None:
    left = np.zeros((40, 200, 3), np.uint8)
    right = left.copy()
    left[:, 100:104], right[:, 92:96] = 255, 255  # disparity 8
    fitted = [crop_and_resize(eye, 20, 50, Fraction(1)).mean((0, 2)) for eye in (left, right)]
    centres = [(np.arange(50) * line).sum() / line.sum() for line in fitted]
    assert centres[0] - centres[1] == pytest.approx(4.0, abs=0.05)
