"""Training data of the inpainters: double warping on exact film, and random crops."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from conftest import a_clip, a_film, a_shift, load_preset
from torch import Tensor
from training_shots import MemoryShot

from secondeye.dataset.clip_files import write_disparity, write_frames, write_occlusion
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import Conditioning
from secondeye.params import Gate
from secondeye.run_folder import Run, open_run
from secondeye.splat import splat
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.training import diffusion, mono_runs
from secondeye.training.column_offsets import offset_range
from secondeye.training.mono_runs import MonoRun, prepare_mono_runs
from secondeye.training.monocular import double_warp, plausible_disparity
from secondeye.training.shot_crops import ShotCrop, crop_views, draw_views
from secondeye.training.shots import Planes, hold_out, list_shots, select_usable
from secondeye.training.stereo_shot import ShotPool, StereoShot, dequantize, quantize, quantize_plane
from secondeye.training.windows import Windows, draw_frames, read_window
from secondeye.warp import warp

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(frames: int = 2, height: int = 12, width: int = 40, seed: int = 0) -> Tensor:
    return torch.rand(frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


def card_shot(seed: int = 0, **sizes: int) -> StereoShot:
    shot = two_planes(seed=seed, **sizes)
    return StereoShot(shot.left, shot.right, *warp(shot.left, shot.disparity))


def test_zero_disparity_loses_nothing() -> None:
    frames = noise()
    sample = double_warp(frames, torch.zeros(2, 1, 12, 40))
    assert torch.equal(sample.warped, frames) and torch.equal(sample.left, frames)
    assert (sample.coverage == 1).all()


@pytest.mark.parametrize("disparity_px", [5, -3])
def test_constant_disparity_loses_a_strip_at_the_border(disparity_px: int) -> None:
    """In front of the screen the strip is on the right, behind it on the left."""
    frames = noise()
    sample = double_warp(frames, torch.full((2, 1, 12, 40), float(disparity_px)))
    lost = torch.zeros(40, dtype=torch.bool)
    lost[slice(40 - disparity_px, None) if disparity_px > 0 else slice(0, -disparity_px)] = True
    assert torch.equal(sample.coverage == 0, lost.expand(2, 1, 12, 40))
    assert torch.equal(sample.warped[..., ~lost], frames[..., ~lost])
    assert (sample.disparity[..., ~lost] == disparity_px).all()


def test_double_warp_of_two_planes_loses_exactly_the_occlusion() -> None:
    shot = two_planes(near_px=8, far_px=2, step_px=1)
    sample = double_warp(shot.right, shot.right_disparity)
    assert torch.equal(sample.coverage == 0, shot.right_occlusion)
    visible = ~shot.right_occlusion
    assert torch.equal(
        sample.warped[visible.expand_as(sample.warped)], shot.right[visible.expand_as(shot.right)]
    )
    assert torch.equal(sample.disparity[visible], shot.right_disparity[visible])
    assert torch.equal(sample.right, shot.right)
    both = ~shot.left_occlusion.expand_as(shot.left)
    assert torch.equal(sample.left[both], shot.left[both])  # the intermediate view is the left one


def test_the_hole_is_right_of_the_near_plane_and_as_wide_as_the_disparities_differ() -> None:
    shot = two_planes(frames=1, near_px=8, far_px=2, card_px=16)
    middle = double_warp(shot.right, shot.right_disparity).coverage[0, 0, 12] == 0
    stop = (64 - 16) // 2 - 8 + 16  # of the card, in the right view
    assert middle.nonzero()[:, 0].tolist() == [*range(stop, stop + 6), 62, 63]


def draw_shot(
    stereo: list[StereoShot], mono: list[StereoShot], share: float, size: tuple[int, int, int], seed: int
) -> StereoShot:
    """Draw a sample as the trainer of the diffusion model does; float32."""
    frames, height, width = size
    pool = ShotPool([MemoryShot(shot) for shot in stereo], [MemoryShot(shot) for shot in mono])
    rng = np.random.default_rng(seed)
    window = read_window(*Windows(pool, frames, mono_share=share, seed=0).draw(seed, rng))
    return dequantize(draw_views(window, height, width, 5.0, rng))


def test_samples_have_the_requested_size_and_mono_share() -> None:
    stereo, mono = card_shot(), double_warp(noise(2, 24, 64), torch.zeros(2, 1, 24, 64))
    windows = Windows(
        ShotPool([MemoryShot(stereo, "stereo")], [MemoryShot(mono, "mono")]), 2, mono_share=0.25, seed=0
    )
    films = [windows.draw(number, np.random.default_rng(number))[0].film for number in range(40)]
    assert films.count("mono") == 10 and films[:4].count("mono") == 1
    for seed in range(8):
        sample = draw_shot([stereo], [mono], 0.25, (2, 16, 32), seed)
        assert sample.left.shape == (2, 3, 16, 32) and sample.coverage.shape == (2, 1, 16, 32)
        assert all(plane.dtype == torch.float32 for plane in sample.planes)


def test_a_missing_kind_is_replaced_by_the_other() -> None:
    shot = MemoryShot(card_shot(), "only")
    for pool in (ShotPool([shot], []), ShotPool([], [shot])):
        windows = Windows(pool, 2, mono_share=0.5, seed=0)
        assert {windows.draw(number, np.random.default_rng(0))[0].film for number in range(6)} == {"only"}


def test_a_sample_depends_on_its_number_and_generator_alone() -> None:
    shots = [card_shot(seed) for seed in range(3)]
    first, again = (draw_shot(shots, [], 0.5, (1, 16, 32), 7) for _ in range(2))
    assert all(torch.equal(*planes) for planes in zip(first.planes, again.planes, strict=True))


def test_exactly_the_strides_that_fit_are_drawn() -> None:
    for max_stride, limit, most in ((6, 20, 4), (2, 20, 2), (6, 3, 3), (1, 20, 1)):
        shot = SimpleNamespace(frames=20, max_stride=limit)
        drawn = [draw_frames(shot, 5, max_stride, np.random.default_rng(seed)) for seed in range(200)]
        assert {frames.step for frames in drawn} == set(range(1, most + 1))
        assert {len(frames) for frames in drawn} == {5}
        assert max(frames[-1] for frames in drawn) == 19 and min(frames[0] for frames in drawn) == 0


def test_windows_are_read_in_parts_with_their_stride() -> None:
    shot = card_shot(frames=20)
    window = read_window(MemoryShot(shot), range(1, 20, 3))
    assert all(
        torch.equal(*planes)
        for planes in zip(window, quantize(StereoShot(*(plane[1::3] for plane in shot))), strict=True)
    )


def test_quantizing_keeps_a_shot() -> None:
    sample = card_shot()
    stored = quantize(sample)
    assert all(plane.dtype in (torch.uint8, torch.float16) for plane in stored.planes)
    for plane, back in zip(sample.planes, dequantize(stored).planes, strict=True):
        torch.testing.assert_close(back, plane, atol=0.5 / 255 + 1e-6, rtol=0)


def test_planes_of_a_crop_stay_consistent() -> None:
    """Cropped, flipped and recoloured, visible pixels equal the ground truth, and holes are black."""
    shots = [card_shot(seed) for seed in range(3)]
    for seed in range(20):
        sample = draw_shot(shots, [], 0.5, (2, 16, 32), seed)
        visible = sample.coverage == 1
        assert (sample.warped - sample.right)[visible.expand_as(sample.right)].abs().max() < 1e-6
        assert (sample.warped[~visible.expand_as(sample.warped)] == 0).all()


def test_crops_with_holes_are_preferred() -> None:
    shot = card_shot(width=256, card_px=8, near_px=6, far_px=0)
    draws = [draw_shot([shot], [], 0.0, (1, 24, 32), seed) for seed in range(60)]
    with_holes = sum(bool((drawn.coverage == 0).any()) for drawn in draws)
    assert with_holes > 30  # any crop: 38 of the 225 places, one in six


def test_usable_shots_are_selected_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = MemoryShot(card_shot(frames=3)), MemoryShot(card_shot(frames=3, width=96))
    pool = select_usable("light", ShotPool([small, large], [small]), (2, 16, 80))
    assert len(pool.stereo) == 1 and pool.stereo[0] is large and pool.mono == []
    assert capsys.readouterr().err == "light: shots with 2 frames of 80x16: 1 of 3\n"
    with pytest.raises(UserError, match=r"shots with 4 frames of .*: 0 of 1; lower train_diffusion's frames"):
        select_usable("diffusion", ShotPool([large], []), (4, 16, 80))


def test_one_film_in_ten_is_held_out_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve stereo films of two shots each, all of them as monocular films too, and eleven others."""
    plain = card_shot(width=32, card_px=4)
    stereo = [MemoryShot(plain, f"film {n // 2}") for n in range(24)]
    mono = [MemoryShot(plain, f"film {n}") for n in range(23)]
    held, trained_on = hold_out("light", ShotPool(stereo, mono))
    assert [[shot.film for shot in shots] for shots in held] == [["film 9"] * 2, ["film 9", "film 19"]]
    assert not {s.film for shots in held for s in shots} & {s.film for shots in trained_on for s in shots}
    assert [len(shots) for shots in trained_on] == [22, 21]
    assert not capsys.readouterr().err
    few = ShotPool(stereo, mono[:19])
    assert hold_out("light", few) == (few, few)
    assert "light: 19 films, fewer than 20: none is held out" in capsys.readouterr().err


@pytest.mark.parametrize("offset_px", [-5, 0, 2, 5, 9])
def test_crops_at_different_columns_equal_a_warp_of_the_crop(offset_px: int) -> None:
    """The crops' disparity is that of the views less the offset; nothing is visible outside the left crop."""
    shot = two_planes(width=96, near_px=8, far_px=2)
    sample = quantize(StereoShot(shot.left, shot.right, *warp(shot.left, shot.disparity)))
    crop = ShotCrop(2, 12, 16, 40, flipped=False, gain=(1.0, 1.0, 1.0))
    apart = dequantize(crop_views(sample, crop, offset_px))
    rows, columns = slice(2, 18), slice(12 + offset_px, 52 + offset_px)
    left, disparity = (plane[..., rows, columns] for plane in (shot.left, shot.disparity - offset_px))
    wanted = warp(left.contiguous(), disparity.contiguous())
    assert torch.equal(apart.coverage, wanted.coverage)
    torch.testing.assert_close(apart.left, left, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(apart.warped, wanted.frames, atol=0.5 / 255 + 1e-6, rtol=0)
    assert torch.equal(apart.disparity, wanted.disparity)


@pytest.mark.parametrize(
    ("middle", "room", "hole", "expected"),
    [
        (3.2, 50, 10.9, (-7, 13)),  # 10 px to each side of 3
        (3, 5, 10, (1, 5)),  # little room: less of both
        (3, 3, 10, (3, 3)),
        (3, 2, 10, (2, 2)),  # too little: the nearest
        (-7, 2, 10, (-2, -2)),
        (0, 0, 10, (0, 0)),
    ],
)
def test_offsets_are_symmetric_around_the_median_disparity(
    middle: float, room: int, hole: float, expected: tuple[int, int]
) -> None:
    assert offset_range(middle, room, hole) == expected


def test_border_holes_open_on_both_sides() -> None:
    """Equally often, at most 5 % of the crop wide at the median disparity; without room on the right only."""
    flat = double_warp(noise(1, 16, 200), torch.full((1, 1, 16, 200), 4.0))
    sides = []
    for seed in range(100):
        hole = draw_shot([flat], [], 0.5, (1, 16, 80), seed).coverage[0, 0, 0] == 0
        assert hole.sum() <= 4 and not hole[4:76].any()
        sides.append((bool(hole[0]), bool(hole[-1])))
    assert 30 <= sides.count((True, False)) <= 55 and 30 <= sides.count((False, True)) <= 55
    whole = draw_shot([flat], [], 0.5, (1, 16, 200), 0).coverage[0, 0, 0] == 0
    assert whole[-4:].all() and not whole[:-4].any()


def test_clips_and_synthetic_shots_are_loaded(tmp_path: Path) -> None:
    shot = two_planes(height=32, width=64)
    name = "0" * 16
    dataset = Dataset(tmp_path)
    for stage in ("raw", "split", "shift", "match", "splat", "filter", "synthetic"):
        dataset.folder(stage).mkdir()
    write_frames(dataset.file("splat", name, "warped"), 0.5 * shot.left)  # recognised when it is read
    write_occlusion(dataset.file("splat", name, "occlusion"), shot.left_occlusion)
    for stage in ("split", "synthetic"):
        write_frames(dataset.file(stage, name, "left"), shot.left)
        write_frames(dataset.file(stage, name, "right"), shot.right)
    offsets = [
        write_disparity(dataset.file(stage, name, "disparity"), shot.disparity)
        for stage in ("match", "synthetic")
    ]
    for row in (
        a_film("film"),
        a_clip(name, "film", stop=2, height=32, width=64),
        a_shift(name),
        ClipDisparity(name, "k", offsets[0], 1.0),
        SyntheticShot(name, "k", 2, offsets[1], 0.0),
        AcceptedClip(name, "film", "train"),
    ):
        write_table(dataset.path(type(row)), [row], type(row))

    run = open_run(tmp_path, "key", "train", Gate(confidence=0.5), {})
    (clip, rendered), (mono,) = list_shots(run, tmp_path, (1, 16, 16), "warp")
    assert [shot.film for shot in (clip, rendered, mono)] == ["film", name, "film"]
    assert {(one.frames, one.height, one.width) for one in (clip, rendered, mono)} == {(2, 32, 64)}
    for one in (clip, rendered):
        found = one.read([0, 1])
        assert all(torch.equal(plane[1:], other) for plane, other in zip(found, one.read([1]), strict=True))
        visible = (found.coverage == 255).expand_as(found.right)
        assert torch.equal(found.warped[visible], found.right[visible])  # the signs agree
        assert torch.equal(found.coverage == 0, shot.right_occlusion)
    twice = mono.read([0, 1])
    assert torch.equal(twice.right, clip.read([0, 1]).left)  # the left view is the ground truth
    assert 0.01 < float((twice.coverage == 0).float().mean()) < 0.4

    (clip, rendered), (mono,) = list_shots(run, tmp_path, (1, 16, 16), "splat")
    stored, visible = clip.read([0, 1]), ~shot.left_occlusion
    assert torch.equal(stored.coverage == 255, visible), "of the stage's files"
    assert torch.equal(stored.warped, quantize_plane(quantize_plane(0.5 * shot.left) / 255 * visible))
    bare = replace(clip, used=Planes(left=False, disparity=False)).read([0, 1])
    assert not bare.left.any() and not bare.disparity.any() and stored.disparity.any()
    assert all(torch.equal(*planes) for planes in zip(bare[1:4], stored[1:4], strict=True))
    splatted, coverage = splat(shot.left, dataset.synthetic_disparity(rendered.row), weight_exponent_per_px=8)
    made, holes = rendered.read([0, 1]), occlusion_mask(coverage)
    assert torch.equal(made.coverage == 0, holes), "as the stage makes them, with its weights at this width"
    assert torch.equal(made.warped, quantize_plane(splatted * ~holes))
    assert (mono.read([0]).coverage == 0).any()


@pytest.mark.parametrize("conditioning", ["warp", "splat"])
def test_a_trainer_is_given_the_views_of_its_conditioning(
    conditioning: Conditioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`diffusion.train`, which the stage calls, loads them; what it does with them is tested elsewhere."""
    given: list[Conditioning] = []
    monkeypatch.setattr(diffusion, "list_shots", lambda *arguments, **_: given.append(arguments[3]))
    monkeypatch.setattr(diffusion, "train_diffusion", lambda *_: None)
    settings = load_preset("laptop", tmp_path).train_diffusion
    diffusion.train(cast(Run, None), tmp_path, tmp_path, replace(settings, conditioning=conditioning))
    assert given == [conditioning]


def test_monocular_films_are_prepared_once(
    make_film: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = make_film("mono.mp4", shots=(17, 9), height=64, width=96, sound=False)

    def prepare(name: str, *films: Path, frames: int = 8) -> list[MonoRun]:
        return prepare_mono_runs(films, tmp_path / name, frames, 48, 80, 0, "warp", 0.0)

    assert prepare("none") == []
    runs = prepare("one", film)
    assert [(run.frames, run.height, run.width) for run in runs] == [(8, 48, 80)] * 3  # two of one shot
    assert {run.film for run in runs} == {"mono.mp4"} and runs[0].read([2, 3]).left.shape == (2, 3, 48, 80)
    again = prepare("again", film)
    for one, other in zip(runs, again, strict=True):
        assert all(torch.equal(*planes) for planes in zip(one.read([0]), other.read([0]), strict=True))
    assert [run.frames for run in prepare("longer", film, frames=12)] == [12]
    monkeypatch.setenv("RANK", "1")  # another process takes what the main process has written
    monkeypatch.setattr(mono_runs, "read_runs", lambda *_: pytest.fail("read again"))
    assert prepare("one", film) == runs


@pytest.mark.parametrize("sharp", [True, False])
def test_plausible_disparity_is_within_its_strength(sharp: bool) -> None:
    frames = torch.nn.functional.interpolate(noise(3, 8, 12), (48, 80), mode="bilinear")
    reaches = []
    for seed in range(4):
        disparity = plausible_disparity(frames, np.random.default_rng(seed), sharp=sharp)
        assert disparity.shape == (3, 1, 48, 80) and torch.isfinite(disparity).all()
        reaches.append(float(disparity.max() - disparity.min()) / 80 * 100)
    assert len(set(reaches)) == 4 and max(reaches) <= 5.0 and min(reaches) > 0.5
