from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import moving_images

from secondeye.film.frame_checks import check_frame, rejection_reason
from secondeye.synthetic import render_shot
from secondeye.video.read import decode_film

HEIGHT, WIDTH = 108, 192


def reason_of(images: np.ndarray) -> str | None:
    before = [None, *images[:-1]]
    checks = [check_frame(image, last) for image, last in zip(images, before, strict=True)]
    reason = rejection_reason(checks, min_brightness=0.01, min_motion=0.1)
    return reason[0] if reason else None


def title(ground: tuple[int, int, int] = (0, 0, 0), frames: int = 6) -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
    cv2.putText(image, "a stereo film", (30, 60), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 250, 240), 1)
    return np.repeat(image[None], frames, 0)


def card(frames: int) -> np.ndarray:
    """Return a flat cartoon: a moving rectangle on a uniform background."""
    images = np.full((frames, HEIGHT, WIDTH, 3), 210, np.uint8)
    for frame in range(frames):
        images[frame, 40:70, 60 + 4 * frame : 100 + 4 * frame] = (200, 30, 30)
    return images


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (moving_images(6, HEIGHT, WIDTH), None),
        (moving_images(1, HEIGHT, WIDTH), None),  # motion is not required of a still
        (np.repeat(moving_images(1, HEIGHT, WIDTH), 6, 0), "static"),
        (moving_images(6, HEIGHT, WIDTH) // 100, "black"),
        (np.full((6, HEIGHT, WIDTH, 3), 180, np.uint8), "blank"),
        (title(), "title"),
        (title((20, 60, 90)), "title"),
        (title(frames=1), "title"),
        (card(6), None),
        (np.stack([np.roll(image, 5 * k, axis=0) for k, image in enumerate(title())]), None),
    ],
)
def test_unusable_shots_are_rejected_with_the_reason(images: np.ndarray, reason: str | None) -> None:
    assert reason_of(images) == reason


def test_flat_cartoon_is_not_a_title() -> None:
    assert not check_frame(card(1)[0], None).title and check_frame(title()[0], None).title


def test_faded_frames_are_blank_even_inside_a_letterbox() -> None:
    shot = moving_images(1, HEIGHT, WIDTH)[0]
    shot[:10] = shot[-10:] = 0
    assert [check_frame((shot * share).astype(np.uint8), None).blank for share in (1, 0.2, 0.01)] == [
        False,
        False,
        True,
    ]
    shot[10:-10] = 180
    assert check_frame(shot, None).blank, "white and gray frames separate shots as black ones do"


@pytest.mark.parametrize("seed", range(2))
def test_synthetic_shots_are_accepted(seed: int) -> None:
    left = render_shot(seed, 4, 64, 112).left
    assert reason_of((left * 255).round().byte().permute(0, 2, 3, 1).numpy()) is None


@pytest.mark.parametrize(
    ("name", "size"),
    [("sv_candle_ego/candle_ego_sbs_2560x720.mp4", (144, 512)), ("sv_toon_shot/shot_sbs.mp4", (256, 512))],
)
def test_dark_rooms_and_cartoons_are_accepted(footage: Path, name: str, size: tuple[int, int]) -> None:
    lefts = [frame.rgb[:, :256] for frame in islice(decode_film(footage / name, size=size), 100)]
    assert reason_of(np.stack(lefts)) is None
    assert not any(check_frame(left, None).title for left in lefts)


def test_title_of_sintel_is_detected(footage: Path) -> None:
    film = footage / "mono_sintel_30s" / "test_video_30s.mp4"
    images = np.stack([frame.rgb for frame in islice(decode_film(film, size=(144, 256)), 300)])
    assert reason_of(images[176:226]) == "title"
    titles = [k for k, image in enumerate(images) if check_frame(image, None).title]
    assert set(titles) <= set(range(176, 228)) and len(titles) > 35
