"""Training samples: double warping on exact film, and how samples are drawn."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import a_clip, a_shift
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, write_disparity, write_frames
from secondeye.dataset.schema import AcceptedClip, Clip, ClipDisparity, Correction, SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.training.footage import hold_out, keep_usable, load_mono_scenes, load_scenes
from secondeye.training.memory_check import clips_of, require_free_memory, synthetic_pixels
from secondeye.training.monocular import double_warp, mono_films, plausible_disparity
from secondeye.training.samples import SceneWindow, cut, cut_apart, draw_scene, draw_window
from secondeye.training.scene import STORED_BYTES, Scene, store
from secondeye.warp import warp


def noise(frames: int = 2, height: int = 12, width: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def card_scene(seed: int = 0, **sizes: int) -> Scene:
    shot = two_planes(seed=seed, **sizes)
    return Scene(shot.left, shot.right, *warp(shot.left, shot.disparity))


def test_zero_disparity_loses_nothing() -> None:
    frames = noise()
    scene = double_warp(frames, torch.zeros(2, 1, 12, 40))
    assert torch.equal(scene.warped, frames) and torch.equal(scene.left, frames)
    assert (scene.coverage == 1).all()


@pytest.mark.parametrize("disparity_px", [5, -3])
def test_constant_disparity_loses_a_strip_at_the_border(disparity_px: int) -> None:
    """What is in front of the screen leaves the left eye's frame on the right, what is behind on the left."""
    frames = noise()
    scene = double_warp(frames, torch.full((2, 1, 12, 40), float(disparity_px)))
    lost = torch.zeros(40, dtype=torch.bool)
    lost[slice(40 - disparity_px, None) if disparity_px > 0 else slice(0, -disparity_px)] = True
    assert torch.equal(scene.coverage == 0, lost.expand(2, 1, 12, 40))
    assert torch.equal(scene.warped[..., ~lost], frames[..., ~lost])
    assert (scene.disparity[..., ~lost] == disparity_px).all()


def test_two_cards_lose_exactly_what_a_left_eye_would_not_have_seen() -> None:
    shot = two_planes(near_px=8, far_px=2, step_px=1)
    scene = double_warp(shot.right, shot.right_disparity)
    assert torch.equal(scene.coverage == 0, shot.right_occlusion)
    seen = ~shot.right_occlusion
    assert torch.equal(scene.warped[seen.expand_as(scene.warped)], shot.right[seen.expand_as(shot.right)])
    assert torch.equal(scene.disparity[seen], shot.right_disparity[seen])
    assert torch.equal(scene.right, shot.right)
    both = ~shot.left_occlusion.expand_as(shot.left)
    assert torch.equal(scene.left[both], shot.left[both])  # the view on the way is the left eye's


def test_hole_is_right_of_the_near_card_and_as_wide_as_the_disparities_differ() -> None:
    shot = two_planes(frames=1, near_px=8, far_px=2, card_px=16)
    middle = double_warp(shot.right, shot.right_disparity).coverage[0, 0, 12] == 0
    stop = (64 - 16) // 2 - 8 + 16  # of the card, in the right view
    assert middle.nonzero()[:, 0].tolist() == [*range(stop, stop + 6), 62, 63]


def test_drawn_scenes_have_the_size_and_the_share_asked_for() -> None:
    stereo = store(card_scene())
    mono = store(double_warp(noise(2, 24, 64), torch.zeros(2, 1, 24, 64))._replace(film="one eye"))
    count = 0
    for seed in range(60):
        scene = draw_scene([stereo], [mono], 0.25, 16, 32, 2, np.random.default_rng(seed))
        assert scene.left.shape == (2, 3, 16, 32) and scene.coverage.shape == (2, 1, 16, 32)
        assert all(plane.dtype == torch.float32 for plane in scene.planes)
        count += scene.film == "one eye"
    assert 5 <= count <= 30


def test_the_same_generator_draws_the_same_scene() -> None:
    scenes = [store(card_scene(seed)) for seed in range(3)]
    first, again = (draw_scene(scenes, [], 0.5, 16, 32, 1, np.random.default_rng(7)) for _ in range(2))
    assert all(torch.equal(*planes) for planes in zip(first.planes, again.planes, strict=True))


def test_stored_and_cut_whole_is_the_same_scene() -> None:
    scene = card_scene()
    stored = store(scene)
    assert all(plane.dtype in (torch.uint8, torch.float16) for plane in stored.planes)
    window = draw_window([stored], [], 0.0, 24, 64, 2, np.random.default_rng(0))
    window = window._replace(flipped=False, gain=(1.0, 1.0, 1.0))
    for plane, back in zip(scene.planes, (cut(plane, window) for plane in stored.planes), strict=True):
        torch.testing.assert_close(back, plane, atol=0.5 / 255 + 1e-6, rtol=0)


def test_planes_of_a_drawn_scene_still_belong_together() -> None:
    """Cropped, flipped and recoloured, seen pixels are the truth's, and holes are black."""
    scenes = [store(card_scene(seed)) for seed in range(3)]
    for seed in range(20):
        scene = draw_scene(scenes, [], 0.5, 16, 32, 2, np.random.default_rng(seed))
        seen = scene.coverage == 1
        assert (scene.warped - scene.right)[seen.expand_as(scene.right)].abs().max() < 1e-6
        assert (scene.warped[~seen.expand_as(scene.warped)] == 0).all()


def test_crops_look_for_holes() -> None:
    scene = store(card_scene(width=256, card_px=8, near_px=6, far_px=0))
    draws = [draw_scene([scene], [], 0.0, 24, 32, 1, np.random.default_rng(seed)) for seed in range(60)]
    with_holes = sum(bool((drawn.coverage == 0).any()) for drawn in draws)
    assert with_holes > 30  # any crop: 38 of the 225 places, one in six


def test_scenes_that_are_too_small_or_short_are_left_out() -> None:
    short, low = store(card_scene(width=96)), store(card_scene(frames=3, width=96, height=12))
    small, large = store(card_scene(frames=3)), store(card_scene(frames=3, width=96))
    numbers = {
        draw_window([short, low, small, large], [], 0.5, 16, 80, 3, np.random.default_rng(seed)).scene
        for seed in range(20)
    }
    assert numbers == {3}
    with pytest.raises(ValueError, match="no scene of 1 has 3 frames"):
        draw_scene([short], [], 0.5, 16, 32, 3, np.random.default_rng(0))


def test_scenes_that_can_be_used_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = store(card_scene(frames=3)), store(card_scene(frames=3, width=96))
    kept = keep_usable("light", [small, large], [small], (2, 16, 80))
    assert len(kept[0]) == 1 and kept[0][0] is large and kept[1] == []
    assert capsys.readouterr().err == "light: 1 of 3 scenes have 2 frames of 80x16\n"
    with pytest.raises(
        UserError, match=r"0 of 1 scenes have 4 frames.*lower train_inpaint.diffusion's frames"
    ):
        keep_usable("diffusion", [large], [], (4, 16, 80))


def test_films_are_held_out_whole_one_in_ten() -> None:
    """Twelve with two eyes of two scenes each, all of them as one eye too, and eleven of one eye alone."""
    plain = store(card_scene(width=32, card_px=4))
    stereo = [plain._replace(film=f"film {n // 2}") for n in range(24)]
    mono = [plain._replace(film=f"film {n}") for n in range(23)]
    held, learnt = hold_out(stereo, mono)
    assert [[scene.film for scene in kind] for kind in held] == [["film 9"] * 2, ["film 9", "film 19"]]
    assert not {s.film for kind in held for s in kind} & {s.film for kind in learnt for s in kind}
    assert [len(kind) for kind in learnt] == [22, 21]
    assert hold_out(stereo, mono[:19]) == ((stereo, mono[:19]), (stereo, mono[:19])), "too few to hold out"


@pytest.mark.parametrize("offset_px", [-5, 0, 2, 5, 9])
def test_eyes_framed_apart_see_what_a_warp_of_the_frame_sees(offset_px: int) -> None:
    """The crops' disparity is that of the views less the offset, and nothing lies beside the frame."""
    shot = two_planes(width=96, near_px=8, far_px=2)
    scene = store(Scene(shot.left, shot.right, *warp(shot.left, shot.disparity), film="cards"))
    window = SceneWindow(0, 0, 2, 2, 12, 16, 40, flipped=False, gain=(1.0, 1.0, 1.0))
    apart = cut_apart(scene, window, offset_px)
    rows, columns = slice(2, 18), slice(12 + offset_px, 52 + offset_px)
    left, disparity = (plane[..., rows, columns] for plane in (shot.left, shot.disparity - offset_px))
    wanted = warp(left.contiguous(), disparity.contiguous())
    assert torch.equal(apart.coverage, wanted.coverage)
    torch.testing.assert_close(apart.left, left, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(apart.warped, wanted.frames, atol=0.5 / 255 + 1e-6, rtol=0)
    assert torch.equal(apart.disparity, wanted.disparity) and apart.film == "cards"


def test_border_holes_open_on_both_sides() -> None:
    """As often; at most a twentieth of the crop wide beside the background; with no room there is none."""
    flat = store(double_warp(noise(1, 16, 200), torch.full((1, 1, 16, 200), 4.0)))
    sides = []
    for seed in range(100):
        open_ = draw_scene([flat], [], 0.5, 16, 80, 1, np.random.default_rng(seed)).coverage[0, 0, 0] == 0
        assert open_.sum() <= 4 and not open_[4:76].any()
        sides.append((bool(open_[0]), bool(open_[-1])))
    assert 30 <= sides.count((True, False)) <= 55 and 30 <= sides.count((False, True)) <= 55
    whole = draw_scene([flat], [], 0.5, 16, 200, 1, np.random.default_rng(0)).coverage[0, 0, 0] == 0
    assert whole[-4:].all() and not whole[:-4].any()


def test_clips_and_world_become_scenes(tmp_path: Path) -> None:
    shot = two_planes(height=32, width=64)
    name = "0" * 16
    folders = [tmp_path / stage for stage in ("split", "shift", "match", "synthetic")]
    for folder in folders:
        folder.mkdir()
    split, shift, match, synthetic = folders
    for folder in (split, synthetic):
        write_frames(clip_file(folder, name, "left"), shot.left)
        write_frames(clip_file(folder, name, "right"), shot.right)
    offsets = [
        write_disparity(clip_file(folder, name, "disparity"), shot.disparity) for folder in (match, synthetic)
    ]
    write_table(shift / "shift.parquet", [a_shift(name)], Correction)
    write_table(match / "match.parquet", [ClipDisparity(name, "k", offsets[0], 1.0)], ClipDisparity)
    write_table(
        synthetic / "synthetic.parquet", [SyntheticShot(name, "k", 2, offsets[1], 0.0)], SyntheticShot
    )
    kept = [AcceptedClip(name, "film", "train")]

    clip, rendered = load_scenes(split, shift, match, synthetic, kept)
    assert (clip.film, rendered.film) == ("film", name)
    for scene in (clip, rendered):
        seen = (scene.coverage == 255).expand_as(scene.right)
        assert torch.equal(scene.warped[seen], scene.right[seen])  # the signs fit
        assert torch.equal(scene.coverage == 0, shot.right_occlusion)
    write_table(split / "clips.parquet", [a_clip(name, "film", stop=2, height=32, width=64)], Clip)
    (of_clip,) = clips_of(split, kept)
    for scene, pixels in ((clip, of_clip.pixels), (rendered, synthetic_pixels(synthetic))):
        assert sum(plane.nbytes for plane in scene.planes) == STORED_BYTES * pixels
    (mono,) = load_mono_scenes(split, shift, match, kept, seed=0)
    assert mono.film == "film" and torch.equal(mono.right, clip.left)  # what one eye saw is the truth
    assert 0.01 < float((mono.coverage == 0).float().mean()) < 0.4


def test_films_with_one_eye_become_scenes(make_film: Callable[..., Path]) -> None:
    film = make_film("one_eye.mp4", shots=(17, 9), height=64, width=96, sound=False)
    assert mono_films([], 8, 48, 80, seed=0) == []
    scenes = mono_films([film], 8, 48, 80, seed=0)
    assert [scene.left.shape for scene in scenes] == [
        (8, 3, 48, 80)
    ] * 3  # two runs of one shot, one of the other
    assert {scene.film for scene in scenes} == {"one_eye.mp4"}
    again = mono_films([film], 8, 48, 80, seed=0)
    assert all(torch.equal(a.coverage, b.coverage) for a, b in zip(scenes, again, strict=True))
    longer = mono_films([film], 12, 48, 80, seed=0)
    assert {scene.left.shape for scene in longer} == {(12, 3, 48, 80)}


def test_plausible_disparity_keeps_to_its_strength() -> None:
    frames = torch.nn.functional.interpolate(noise(3, 8, 12), (48, 80), mode="bilinear")
    reaches = []
    for seed in range(4):
        disparity = plausible_disparity(frames, np.random.default_rng(seed))
        assert disparity.shape == (3, 1, 48, 80) and torch.isfinite(disparity).all()
        reaches.append(float(disparity.max() - disparity.min()) / 80 * 100)
    assert len(set(reaches)) == 4 and max(reaches) <= 5.0 and min(reaches) > 0.5


def test_what_does_not_fit_in_memory_is_not_begun(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**30))
    require_free_memory(2**29, "train_depth")
    assert "train_depth: samples take about 512.0 MiB" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"about 2.0 GiB of memory, 1.0 GiB free; hold more films out"):
        require_free_memory(2**31, "train_depth")
