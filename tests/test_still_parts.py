"""What stands still on the screen is equal in both views: bands of a letterbox, burnt-in text and logos."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch
from conftest import moving_images
from torch import Tensor

from secondeye.conversion import segments
from secondeye.conversion.bundle import SHIPPED, Bundle, write_bundle
from secondeye.conversion.checkpoint import Checkpoint
from secondeye.conversion.convert import convert
from secondeye.conversion.depth_film import write_depth
from secondeye.conversion.picture import Picture
from secondeye.conversion.render import RenderedWindow
from secondeye.conversion.settings import ConversionSettings
from secondeye.film.letterbox import NO_LETTERBOX, Letterbox, ShotLetterbox, agree
from secondeye.film.overlays import pack_mask, remove, unpack_mask
from secondeye.film.shots import plan_shots
from secondeye.film.still_parts import NOTHING_STILL, StillParts, StillPartsMeter
from secondeye.inpaint.tiny import make_tiny
from secondeye.video.probe import probe
from secondeye.video.read import decode_film
from secondeye.video.write import write_lossless

SETTINGS = ConversionSettings(8.0, 0.5, "motion", "fill", 0, "ultrafast", None, mono=True)
HEIGHT, WIDTH = 64, 96  # of the picture
LETTERBOX, PILLARBOX = Letterbox(13, 11, 0, 0), Letterbox(0, 0, 17, 15)
BANDS = {"letterbox": LETTERBOX, "pillarbox": PILLARBOX, "windowbox": Letterbox(8, 8, 20, 20)}


def boxed(images: np.ndarray, bands: Letterbox) -> np.ndarray:
    top, bottom, left, right = bands
    return np.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))


class Views(NamedTuple):
    left: Tensor  # uint8 [T, H, W, 3]
    right: Tensor
    log: list[str]


def rendered(film: Path, settings: ConversionSettings) -> Views:
    """Convert a film and return both views as they go to the encoder."""
    windows: list[RenderedWindow] = []
    render, log = segments.render, []

    def watch(*given: Any, **options: Any) -> Iterator[RenderedWindow]:
        for window in render(*given, **options):
            windows.append(window)
            yield window

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "render", watch)
        convert(film, film.with_name("out.mp4"), settings, overwrite=True, log=log.append)
    return Views(*(torch.cat([window[k] for window in windows]) for k in (0, 2)), log)


# Letterbox


@pytest.fixture(scope="module")
def diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle with an untrained diffusion network for windows of 4 frames."""
    folder = tmp_path_factory.mktemp("diffusion")
    torch.manual_seed(3)
    make_tiny(frames=4).save_pretrained(folder / "weights")
    parts = Bundle("motion", "diffusion", strength_percent=8.0, convergence=0.5, tiles=1, steps=1)
    return write_bundle(folder / "bundle", parts, None, folder / "weights")


@pytest.mark.parametrize(
    ("bands", "inpainter"),
    [("letterbox", "fill"), ("pillarbox", "fill"), ("windowbox", "light"), ("pillarbox", "diffusion")],
)
@pytest.mark.usefixtures("one_thread")
def test_the_picture_in_a_letterbox_is_converted_like_the_cropped_film(
    tmp_path: Path, diffusion: Path, bands: str, inpainter: str
) -> None:
    """Depth, its range, holes at the border of the picture: all as if there were no bands."""
    model = {"fill": None, "light": SHIPPED, "diffusion": diffusion}[inpainter]
    settings = replace(SETTINGS, inpainter=inpainter, model=model, tiles=1, steps=1)
    images = moving_images(7, HEIGHT, WIDTH)
    write_lossless(tmp_path / "cropped.mkv", images)
    write_lossless(tmp_path / "boxed.mkv", boxed(images, BANDS[bands]))
    cropped = rendered(tmp_path / "cropped.mkv", settings)
    whole = rendered(tmp_path / "boxed.mkv", settings)
    assert torch.equal(whole.right, torch.from_numpy(boxed(cropped.right.numpy(), BANDS[bands])))
    assert not torch.equal(cropped.right, cropped.left)
    assert any("letterbox in 1 of 1 shot" in line for line in whole.log)


def test_bands_that_are_not_quite_black_are_the_source_in_both_views(tmp_path: Path) -> None:
    """Noise and a subtitle in a band: the encoded views agree to the bit."""
    images = boxed(moving_images(8, HEIGHT, WIDTH), LETTERBOX)
    noise = np.random.default_rng(0).integers(0, 7, images.shape, np.uint8)
    images = np.where(images == 0, noise, images)
    images[:, HEIGHT + 13 + 3 : HEIGHT + 13 + 7, 30:60:3] = 235
    images = np.concatenate([boxed(moving_images(30, HEIGHT, WIDTH, seed=1), LETTERBOX), images])
    write_lossless(tmp_path / "film.mkv", images)
    left, right, _ = rendered(tmp_path / "film.mkv", SETTINGS)
    assert torch.equal(right[:, :13], left[:, :13]) and torch.equal(right[:, -11:], left[:, -11:])
    assert torch.equal(left, torch.from_numpy(images))
    width = images.shape[2]
    for frame in decode_film(tmp_path / "out.mp4"):
        one, other = frame.rgb[:, :width], frame.rgb[:, width:]
        # Colour is stored at half the size, and interpolated across the ends of bands and views.
        for rows in (slice(0, 8), slice(-6, None)):
            assert np.array_equal(one[rows, 4:-4], other[rows, 4:-4])
        assert not np.array_equal(one[14:-12], other[14:-12])


def test_every_shot_has_its_letterbox(tmp_path: Path) -> None:
    """A shot without, one with, one that is dark beside its bands, one that is black, a pillarbox in it."""
    shots = [moving_images(12, HEIGHT, WIDTH, seed) for seed in range(5)]
    shots[2][:, :9] = 0
    shots[2] //= np.arange(1, HEIGHT + 1)[::-1, None, None].clip(1, 20).astype(np.uint8)
    shots[3][:] = 3
    shots[4][:, :, :20] = 0
    whole = moving_images(12, HEIGHT + 24, WIDTH, 7)
    film = np.concatenate([whole, *(boxed(shot, LETTERBOX) for shot in shots)])
    write_lossless(tmp_path / "film.mkv", film)
    plan = plan_shots(probe(tmp_path / "film.mkv"), cut_threshold=2.0, min_shot_frames=6)
    assert [start for start, _ in plan.shots] == [0, 12, 24, 36, 48, 60]
    found = [still.letterbox for still in plan.still]
    assert found[:3] == [NO_LETTERBOX, LETTERBOX, LETTERBOX]
    assert found[4:] == [LETTERBOX, Letterbox(13, 11, 20, 0)]
    assert found[3].bottom == 11 and found[3].top >= 13, "what is black is left as it is"


def test_a_film_takes_over_its_letterbox_where_it_is_black() -> None:
    wide, all_black = Letterbox(10, 12, 0, 0), Letterbox(90, 90, 160, 160)
    dark, subtitled = Letterbox(14, 12, 0, 0), Letterbox(10, 12, 0, 0)
    shots = [
        ShotLetterbox(wide, wide),
        ShotLetterbox(NO_LETTERBOX, all_black),
        ShotLetterbox(NO_LETTERBOX, dark),
        ShotLetterbox(Letterbox(10, 0, 0, 0), subtitled),
        ShotLetterbox(NO_LETTERBOX, Letterbox(10, 11, 0, 0)),
    ]
    assert agree(shots, [40, 10, 10, 10, 10]) == [wide, wide, wide, wide, NO_LETTERBOX]
    rare = agree(shots, [10, 100, 10, 10, 10])
    assert rare == [shot.found for shot in shots], "fewer than a quarter of all frames have it"


def test_a_shot_that_is_merged_at_the_end_keeps_what_both_parts_show() -> None:
    meter = StillPartsMeter()
    bright = np.full((90, 160, 3), 200, np.uint8)
    for number, top in enumerate([20, 20, 20, 10]):
        image = bright.copy()
        image[:top] = 0
        meter.add(5 * number, image)
        if number == 3:
            meter.cut(14)
    (still,) = meter.still_parts([(0, 16)])
    assert still.letterbox == Letterbox(10, 0, 0, 0)
    with pytest.raises(IndexError):
        StillPartsMeter().still_parts([])


def test_a_black_tail_does_not_cost_a_shot_its_letterbox_and_its_logo(tmp_path: Path) -> None:
    images = boxed(burnt(moving_images(LONG, TALL, WIDE)), LETTERBOX)
    sizes = images.shape[1:3]
    shown = [images, np.concatenate([images, np.zeros((4, *images.shape[1:]), np.uint8)])]
    for number, film in enumerate(shown):
        write_lossless(tmp_path / f"{number}.mkv", film)
    plans = [
        plan_shots(probe(tmp_path / f"{number}.mkv"), cut_threshold=2.0, min_shot_frames=6)
        for number in range(2)
    ]
    (whole,), (with_tail,) = (plan.still for plan in plans)
    assert whole.letterbox == with_tail.letterbox == LETTERBOX
    assert whole.overlay == with_tail.overlay != b""
    assert unpack_mask(whole.overlay, *sizes).any()


@pytest.mark.parametrize("bands", ["letterbox", "pillarbox"])
def test_depth_maps_are_those_of_whole_frames(tmp_path: Path, bands: str) -> None:
    """They are 0 in the bands, convert to the same film, and normalise within the picture."""
    film = tmp_path / "film.mkv"
    images = np.concatenate([moving_images(9, HEIGHT, WIDTH), moving_images(9, HEIGHT, WIDTH, seed=1)])
    write_lossless(film, boxed(images, BANDS[bands]))
    write_depth(film, tmp_path / "depth.npz", SETTINGS, log=lambda line: None)
    maps = np.load(tmp_path / "depth.npz")["depth"]
    top, bottom, left, right = BANDS[bands]
    assert maps.shape == (18, HEIGHT + top + bottom, WIDTH + left + right)
    inside = maps[:, top : top + HEIGHT, left : left + WIDTH]
    assert np.array_equal(maps, boxed(inside[..., None], BANDS[bands])[..., 0])
    assert inside.min() == 0 and inside.max() == 65535
    direct = rendered(film, SETTINGS).right
    settings = replace(SETTINGS, depth="auto", depth_maps=tmp_path / "depth.npz")
    assert torch.equal(rendered(film, settings).right, direct)


def test_maps_of_others_are_normalised_inside_the_picture(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    images = moving_images(3, HEIGHT, WIDTH)
    write_lossless(film, boxed(images, LETTERBOX))
    write_lossless(tmp_path / "cropped.mkv", images)
    ramp = np.linspace(0.4, 0.6, WIDTH, dtype=np.float32) * np.ones((3, HEIGHT, 1), np.float32)
    np.save(tmp_path / "cropped.npy", ramp)
    np.save(tmp_path / "maps.npy", np.pad(ramp, ((0, 0), LETTERBOX[:2], (0, 0)), constant_values=7))
    views = [
        rendered(tmp_path / name, replace(SETTINGS, depth="auto", depth_maps=tmp_path / maps)).right
        for name, maps in (("film.mkv", "maps.npy"), ("cropped.mkv", "cropped.npy"))
    ]
    assert torch.equal(views[0], torch.from_numpy(boxed(views[1].numpy(), LETTERBOX)))


def test_the_letterbox_of_a_view_of_a_stereo_film_is_kept(tmp_path: Path) -> None:
    images = boxed(moving_images(7, HEIGHT, WIDTH), LETTERBOX)
    write_lossless(tmp_path / "film.mkv", np.concatenate([images, images], axis=2))
    settings = replace(SETTINGS, mono=False, input_layout="sbs")
    left, right, _ = rendered(tmp_path / "film.mkv", settings)
    assert torch.equal(left, torch.from_numpy(images))
    assert torch.equal(right[:, :13], left[:, :13]) and not torch.equal(right[:, 13:-11], left[:, 13:-11])


def test_a_killed_conversion_of_a_letterboxed_film_continues_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = tmp_path / "film.mkv"
    shots = [boxed(moving_images(9, HEIGHT, WIDTH), LETTERBOX), moving_images(9, HEIGHT + 24, WIDTH, seed=1)]
    write_lossless(film, np.concatenate(shots))
    convert(film, tmp_path / "whole.mp4", SETTINGS)
    run = segments.ShotRenderer.run

    def stop_at_second(self: Any, shot: tuple[int, int], *rest: Any) -> None:
        if shot[0] > 0:
            raise KeyboardInterrupt
        run(self, shot, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(segments.ShotRenderer, "run", stop_at_second)
        convert(film, tmp_path / "broken.mp4", SETTINGS)
    convert(film, tmp_path / "broken.mp4", SETTINGS)
    assert (tmp_path / "broken.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_the_bands_are_equal_on_the_backend_of_a_gpu(tmp_path: Path, launches: Counter[str]) -> None:
    """With interpreted Triton kernels the views are those of the CPU."""
    film = tmp_path / "film.mkv"
    write_lossless(film, boxed(moving_images(2, 16, 32), PILLARBOX))
    made = rendered(film, SETTINGS)
    assert launches["_claim"] and launches["_gather"]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRITON_INTERPRET")
        expected = rendered(film, SETTINGS)
    assert torch.equal(made.right[:, :, :17], made.left[:, :, :17])
    assert torch.equal(made.right[:, :, -15:], made.left[:, :, -15:])
    assert not torch.equal(made.right, made.left)
    assert int((made.right.int() - expected.right.int()).abs().max()) <= 1


# Burnt-in text and logos


TALL, WIDE, LONG = 120, 200, 48


def lettering() -> np.ndarray:  # bool [H, W]
    """Return a line of text near the bottom and a logo, at fixed places."""
    letters = np.zeros((TALL, WIDE), np.uint8)
    cv2.putText(letters, "Burnt in", (40, 104), cv2.FONT_HERSHEY_DUPLEX, 0.8, 255, 1)
    cv2.circle(letters, (180, 16), 5, 255, 2)
    return letters > 127


def burnt(images: np.ndarray, level: int = 235) -> np.ndarray:
    """Lay the lettering over a film, with a dark outline."""
    made, letters = images.copy(), lettering()
    made[:, cv2.dilate(letters.view(np.uint8), np.ones((3, 3), np.uint8)) > 0] = 16
    made[:, letters] = level
    return made


def overlays_of(images: np.ndarray, folder: Path) -> list[np.ndarray]:
    """Return the overlay of each shot, bool [H, W]."""
    write_lossless(folder / "film.mkv", images)
    plan = plan_shots(probe(folder / "film.mkv"), cut_threshold=2.0, min_shot_frames=6)
    size = images.shape[1:3]
    return [
        unpack_mask(still.overlay, *size) if still.overlay else np.zeros(size, np.bool_)
        for still in plan.still
    ]


def test_text_stands_at_the_same_columns_in_both_views(tmp_path: Path) -> None:
    film = tmp_path / "film.mkv"
    write_lossless(film, burnt(moving_images(LONG, TALL, WIDE)))
    left, right, log = rendered(film, SETTINGS)
    letters = torch.from_numpy(lettering())
    assert any("text or logo in 1 of 1 shot" in line for line in log)
    assert torch.equal(right[:, letters], left[:, letters])
    assert (right[:, letters] == 235).all()
    # The scene is converted, and no second copy of the letters is beside them.
    assert (left != right).float().mean() > 0.5
    write_lossless(tmp_path / "plain.mkv", moving_images(LONG, TALL, WIDE))
    plain = rendered(tmp_path / "plain.mkv", SETTINGS)
    beside = (cv2.dilate(lettering().view(np.uint8), np.ones((5, 21), np.uint8)) > 0) & ~lettering()
    mask = torch.from_numpy(beside & ~overlays_of(burnt(moving_images(LONG, TALL, WIDE)), tmp_path)[0])
    error = (right[:, mask].float() - plain.right[:, mask].float()).abs().mean()
    assert error < 12, "beside the letters the film is what it is without them"


def test_nothing_is_found_where_the_camera_stands_still(tmp_path: Path) -> None:
    """A pillar and a standing person before a still street, along which a car drives."""
    street = np.repeat(moving_images(1, TALL, WIDE), LONG, axis=0)
    street[:, 10:110, 60:72] = moving_images(1, 100, 12, seed=1)
    street[:, 50:110, 120:140] = moving_images(1, 60, 20, seed=2)
    for frame, image in enumerate(street):
        image[70:100, 2 * frame : 2 * frame + 60] = moving_images(1, 30, 60, seed=3)[0]
    assert not overlays_of(street, tmp_path)[0].any()
    left, right, _ = rendered(tmp_path / "film.mkv", SETTINGS)
    assert (left != right).float().mean() > 0.5


def test_objects_are_no_logos_where_the_light_changes_on_a_camera_that_stands_still(tmp_path: Path) -> None:
    wall = np.full((LONG, TALL, WIDE, 3), 180, np.uint8)
    for number, (x, y) in enumerate([(20, 20), (80, 60), (140, 20), (40, 80)]):
        wall[:, y : y + 20, x : x + 24] = moving_images(1, 20, 24, seed=number)
    light = np.linspace(1, 0.65, LONG)[:, None, None, None]
    assert not overlays_of(np.round(wall * light).astype(np.uint8), tmp_path)[0].any()


def test_birds_before_a_sky_are_no_title_card(tmp_path: Path) -> None:
    sky = np.full((LONG, TALL, WIDE, 3), (120, 160, 220), np.uint8)
    rng = np.random.default_rng(0)
    for x, y in zip(rng.integers(10, WIDE - 60, 25), rng.integers(10, TALL - 20, 25), strict=True):
        for number, image in enumerate(sky):
            image[y : y + 3, x + number : x + number + 5] = 30
    assert not overlays_of(sky, tmp_path)[0].any()


def test_a_pillar_before_a_moving_street_is_no_overlay(tmp_path: Path) -> None:
    """Nor are lines that slide along themselves, upright, level or slanting."""
    street = moving_images(LONG, TALL, WIDE)
    street[:, :, 60:72] = moving_images(1, TALL, 12, seed=1)
    street[:, 30:34] = 240
    assert not overlays_of(street, tmp_path)[0].any()
    slanting = moving_images(LONG, TALL, WIDE)
    for image in slanting:
        cv2.line(image, (100, 60), (135, 80), (250, 250, 250), 3)
    assert not overlays_of(slanting, tmp_path)[0].any()


def test_a_logo_that_is_known_is_found_before_a_still_picture(tmp_path: Path) -> None:
    moving, still = (moving_images(count, TALL, WIDE, seed) for seed, count in enumerate((LONG, 1)))
    still = np.repeat(still, 12, axis=0)
    plain = moving_images(12, TALL, WIDE, seed=5)
    first, second, third = overlays_of(np.concatenate([burnt(moving), burnt(still), plain]), tmp_path)
    letters = lettering()
    assert first[letters].all() and second[letters].all() and not third.any()
    assert first.mean() < 3 * letters.mean()


def test_a_title_card_lies_on_the_screen(tmp_path: Path) -> None:
    """It fades in from black; a wall with a few letters and a person in front of it is none."""
    card = burnt(np.full((24, TALL, WIDE, 3), (20, 90, 40), np.uint8))
    fade = np.linspace(0, 1, 8)[:, None, None, None]
    card[:8] = np.round(card[:8] * fade)
    write_lossless(tmp_path / "film.mkv", card)
    left, right, log = rendered(tmp_path / "film.mkv", SETTINGS)
    letters = torch.from_numpy(lettering())
    assert torch.equal(right[:, letters], left[:, letters])
    assert int((right.int() - left.int())[:, :, 20:-20].abs().max()) <= 1, "nothing but the border is filled"
    assert any("text or logo in 1 of 1 shot" in line for line in log)
    card[:, 30:90, 100:130] = moving_images(24, 60, 30)
    assert not overlays_of(card, tmp_path)[0].any()


def test_an_overlay_is_replaced_by_what_is_around_it() -> None:
    flat = np.full((2, TALL, WIDE, 3), (10, 120, 230), np.uint8)
    mask = cv2.dilate(lettering().view(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert np.array_equal(remove(burnt(flat), mask), flat)
    assert np.array_equal(remove(flat, np.ones_like(mask)), flat), "nothing is around it"
    ramp = np.linspace(0, 255, WIDE)[:, None].repeat(3, 1).astype(np.uint8) * np.ones(
        (1, TALL, 1, 1), np.uint8
    )
    error = remove(burnt(ramp), mask).astype(int) - ramp
    assert abs(error).max() < 16 and not error[:, ~mask].any()


def test_the_scene_stays_behind_text_and_comes_forward_with_distance() -> None:
    picture = Picture(StillParts(LETTERBOX, pack_mask(lettering())), TALL, WIDE)
    height = TALL - LETTERBOX.top - LETTERBOX.bottom
    letters = torch.from_numpy(lettering())[LETTERBOX.top : TALL - LETTERBOX.bottom]
    disparity = torch.full((1, 1, height, WIDE), 6.0)
    disparity[..., : WIDE // 2] = -6.0
    held = picture.hold_back(disparity)
    assert (held[..., : WIDE // 2] == -6).all() and (held[0, 0, letters] <= 0).all()
    steps = held[0, 0, :, WIDE // 2 :].diff(dim=1).abs().max(), held[0, 0, :, WIDE // 2 :].diff(dim=0).max()
    assert max(map(float, steps)) <= 0.25 + 1e-4
    assert held.max() == 6 and (held <= disparity).all()
    small = picture.hold_back(disparity[..., ::2, ::2])
    assert small.shape == (1, 1, -(-height // 2), WIDE // 2) and (small <= disparity[..., ::2, ::2]).all()
    whole = Picture(NOTHING_STILL, TALL, WIDE)
    assert whole.hold_back(disparity) is disparity


def test_the_plan_of_a_film_with_text_is_saved(tmp_path: Path) -> None:
    write_lossless(tmp_path / "film.mkv", burnt(moving_images(LONG, TALL, WIDE)))
    info = probe(tmp_path / "film.mkv")
    plan = plan_shots(info, cut_threshold=2.0, min_shot_frames=6)
    (tmp_path / "checkpoint").mkdir()
    checkpoint = Checkpoint(tmp_path / "checkpoint")
    checkpoint.save_plan(plan)
    assert checkpoint.load_plan(info) == plan and plan.still[0].overlay


@pytest.mark.slow(seconds=3)
def test_a_real_title_card_is_found(footage: Path) -> None:
    plan = plan_shots(
        probe(footage / "odd_rate" / "flv_1000fps_trailer.flv"), cut_threshold=2.0, min_shot_frames=6
    )
    assert [start for (start, _), still in zip(plan.shots, plan.still, strict=True) if still.overlay] == [0]
    letters = unpack_mask(plan.still[0].overlay, 340, 640)
    lines = slice(125, 218), slice(288, 318)
    assert sum(int(letters[line].sum()) for line in lines) == letters.sum() > 15000


@pytest.mark.slow(seconds=5)
def test_a_real_letterboxed_film(footage: Path, tmp_path: Path) -> None:
    """It has captions of analogue video in its second and third row, which stay where they are."""
    film = Path(shutil.copy(footage / "odd_letterbox" / "letterbox_720x486.mp4", tmp_path))
    left, right, _ = rendered(film, SETTINGS)
    plan = plan_shots(probe(film), cut_threshold=2.0, min_shot_frames=8)
    assert [still.letterbox for still in plan.still] == [Letterbox(61, 61, 0, 0)]
    assert torch.equal(right[:, :61], left[:, :61]) and torch.equal(right[:, -61:], left[:, -61:])
    assert int(left[:, 1:3].max()) > 100 and not torch.equal(right[:, 61], left[:, 61])
