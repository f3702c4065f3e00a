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

from secondeye.conversion.warped_window import warped_window
from secondeye.dataset.clip_files import write_disparity, write_frames
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.inpaint import Conditioning
from secondeye.run_folder import Run
from secondeye.synthetic import two_planes
from secondeye.system.errors import UserError
from secondeye.training import diffusion
from secondeye.training.footage import hold_out, load_mono_shots, load_stereo_shots, select_usable
from secondeye.training.memory_check import require_free_memory, synthetic_pixels
from secondeye.training.monocular import double_warp, plausible_disparity, read_mono_shots
from secondeye.training.shot_crops import ShotCrop, crop_plane, crop_views, draw_crop, draw_shot
from secondeye.training.stereo_shot import QUANTIZED_BYTES, ShotPool, StereoShot, quantize, quantize_plane
from secondeye.warp import warp


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


def test_crops_have_the_requested_size_and_mono_share() -> None:
    stereo = quantize(card_shot())
    mono = quantize(double_warp(noise(2, 24, 64), torch.zeros(2, 1, 24, 64))._replace(film="mono"))
    count = 0
    for seed in range(60):
        sample = draw_shot([stereo], [mono], 0.25, 16, 32, 2, np.random.default_rng(seed))
        assert sample.left.shape == (2, 3, 16, 32) and sample.coverage.shape == (2, 1, 16, 32)
        assert all(plane.dtype == torch.float32 for plane in sample.planes)
        count += sample.film == "mono"
    assert 5 <= count <= 30


def test_a_crop_depends_on_its_generator_alone() -> None:
    samples = [quantize(card_shot(seed)) for seed in range(3)]
    first, again = (draw_shot(samples, [], 0.5, 16, 32, 1, np.random.default_rng(7)) for _ in range(2))
    assert all(torch.equal(*planes) for planes in zip(first.planes, again.planes, strict=True))


def test_quantizing_keeps_a_shot() -> None:
    sample = card_shot()
    stored = quantize(sample)
    assert all(plane.dtype in (torch.uint8, torch.float16) for plane in stored.planes)
    window = draw_crop([stored], [], 0.0, 24, 64, 2, np.random.default_rng(0))
    window = window._replace(flipped=False, gain=(1.0, 1.0, 1.0))
    for plane, back in zip(
        sample.planes, (crop_plane(plane, window) for plane in stored.planes), strict=True
    ):
        torch.testing.assert_close(back, plane, atol=0.5 / 255 + 1e-6, rtol=0)


def test_planes_of_a_crop_stay_consistent() -> None:
    """Cropped, flipped and recoloured, visible pixels equal the ground truth, and holes are black."""
    samples = [quantize(card_shot(seed)) for seed in range(3)]
    for seed in range(20):
        sample = draw_shot(samples, [], 0.5, 16, 32, 2, np.random.default_rng(seed))
        visible = sample.coverage == 1
        assert (sample.warped - sample.right)[visible.expand_as(sample.right)].abs().max() < 1e-6
        assert (sample.warped[~visible.expand_as(sample.warped)] == 0).all()


def test_crops_with_holes_are_preferred() -> None:
    sample = quantize(card_shot(width=256, card_px=8, near_px=6, far_px=0))
    draws = [draw_shot([sample], [], 0.0, 24, 32, 1, np.random.default_rng(seed)) for seed in range(60)]
    with_holes = sum(bool((drawn.coverage == 0).any()) for drawn in draws)
    assert with_holes > 30  # any crop: 38 of the 225 places, one in six


def test_shots_that_are_too_small_or_short_are_left_out() -> None:
    short, low = quantize(card_shot(width=96)), quantize(card_shot(frames=3, width=96, height=12))
    small, large = quantize(card_shot(frames=3)), quantize(card_shot(frames=3, width=96))
    numbers = {
        draw_crop([short, low, small, large], [], 0.5, 16, 80, 3, np.random.default_rng(seed)).shot
        for seed in range(20)
    }
    assert numbers == {3}
    with pytest.raises(ValueError, match="no shot of 1 has 3 frames"):
        draw_shot([short], [], 0.5, 16, 32, 3, np.random.default_rng(0))


def test_usable_shots_are_selected_and_counted(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = quantize(card_shot(frames=3)), quantize(card_shot(frames=3, width=96))
    pool = select_usable("light", [small, large], [small], (2, 16, 80))
    assert len(pool.stereo) == 1 and pool.stereo[0] is large and pool.mono == []
    assert capsys.readouterr().err == "light: shots with 2 frames of 80x16: 1 of 3\n"
    with pytest.raises(
        UserError, match=r"shots with 4 frames of .*: 0 of 1; lower train_inpaint.diffusion's frames"
    ):
        select_usable("diffusion", [large], [], (4, 16, 80))


def test_one_film_in_ten_is_held_out_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """Twelve stereo films of two shots each, all of them as monocular films too, and eleven others."""
    plain = quantize(card_shot(width=32, card_px=4))
    stereo = [plain._replace(film=f"film {n // 2}") for n in range(24)]
    mono = [plain._replace(film=f"film {n}") for n in range(23)]
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
    sample = quantize(StereoShot(shot.left, shot.right, *warp(shot.left, shot.disparity), film="cards"))
    window = ShotCrop(0, 0, 2, 2, 12, 16, 40, flipped=False, gain=(1.0, 1.0, 1.0))
    apart = crop_views(sample, window, offset_px)
    rows, columns = slice(2, 18), slice(12 + offset_px, 52 + offset_px)
    left, disparity = (plane[..., rows, columns] for plane in (shot.left, shot.disparity - offset_px))
    wanted = warp(left.contiguous(), disparity.contiguous())
    assert torch.equal(apart.coverage, wanted.coverage)
    torch.testing.assert_close(apart.left, left, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(apart.warped, wanted.frames, atol=0.5 / 255 + 1e-6, rtol=0)
    assert torch.equal(apart.disparity, wanted.disparity) and apart.film == "cards"


def test_border_holes_open_on_both_sides() -> None:
    """Equally often, at most 5 % of the crop wide at the median disparity; without room on the right only."""
    flat = quantize(double_warp(noise(1, 16, 200), torch.full((1, 1, 16, 200), 4.0)))
    sides = []
    for seed in range(100):
        hole = draw_shot([flat], [], 0.5, 16, 80, 1, np.random.default_rng(seed)).coverage[0, 0, 0] == 0
        assert hole.sum() <= 4 and not hole[4:76].any()
        sides.append((bool(hole[0]), bool(hole[-1])))
    assert 30 <= sides.count((True, False)) <= 55 and 30 <= sides.count((False, True)) <= 55
    whole = draw_shot([flat], [], 0.5, 16, 200, 1, np.random.default_rng(0)).coverage[0, 0, 0] == 0
    assert whole[-4:].all() and not whole[:-4].any()


def test_clips_and_synthetic_shots_are_loaded(tmp_path: Path) -> None:
    shot = two_planes(height=32, width=64)
    name = "0" * 16
    dataset = Dataset(tmp_path)
    for stage in ("split", "shift", "match", "filter", "synthetic"):
        dataset.folder(stage).mkdir()
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

    (accepted,) = dataset.clips("train")
    clip, rendered = load_stereo_shots(dataset, [accepted])
    assert (clip.film, rendered.film) == ("film", name)
    for found in (clip, rendered):
        visible = (found.coverage == 255).expand_as(found.right)
        assert torch.equal(found.warped[visible], found.right[visible])  # the signs agree
        assert torch.equal(found.coverage == 0, shot.right_occlusion)
    for found, pixels in ((clip, accepted.clip.pixels), (rendered, synthetic_pixels(dataset))):
        assert sum(plane.nbytes for plane in found.planes) == QUANTIZED_BYTES * pixels
    (mono,) = load_mono_shots(dataset, [accepted], seed=0)
    assert mono.film == "film" and torch.equal(mono.right, clip.left)  # the left view is the ground truth
    assert 0.01 < float((mono.coverage == 0).float().mean()) < 0.4

    splatted = load_stereo_shots(dataset, [accepted], "splat")
    fed = [warped_window(shot.left, dataset.disparity(accepted), "splat") for _ in splatted]
    for found, window in zip(splatted, fed, strict=True):
        assert window.conditioning_frames is not None and window.conditioning_coverage is not None
        assert torch.equal(found.warped, quantize_plane(window.conditioning_frames))
        assert torch.equal(found.coverage, quantize_plane(window.conditioning_coverage))
    (mono,) = load_mono_shots(dataset, [accepted], 0, "splat")
    assert not mono.coverage[..., -1, :].any()  # the released border rule


@pytest.mark.parametrize("conditioning", ["warp", "splat"])
def test_a_trainer_is_given_the_views_of_its_conditioning(
    conditioning: Conditioning, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`diffusion.train`, which the stage calls, loads them; what it does with them is tested elsewhere."""
    given: list[Conditioning] = []
    monkeypatch.setattr(diffusion, "load_shots", lambda data, size, conditioning: given.append(conditioning))
    monkeypatch.setattr(diffusion, "train_diffusion", lambda *_: None)
    settings = load_preset("laptop", tmp_path).train_inpaint.diffusion
    diffusion.train(cast(Run, None), tmp_path, replace(settings, conditioning=conditioning))
    assert given == [conditioning]


def test_monocular_films_are_loaded(make_film: Callable[..., Path]) -> None:
    film = make_film("mono.mp4", shots=(17, 9), height=64, width=96, sound=False)
    assert read_mono_shots([], 8, 48, 80, seed=0) == []
    samples = read_mono_shots([film], 8, 48, 80, seed=0)
    assert [sample.left.shape for sample in samples] == [
        (8, 3, 48, 80)
    ] * 3  # two runs of one shot, one of the other
    assert {sample.film for sample in samples} == {"mono.mp4"}
    again = read_mono_shots([film], 8, 48, 80, seed=0)
    assert all(torch.equal(a.coverage, b.coverage) for a, b in zip(samples, again, strict=True))
    longer = read_mono_shots([film], 12, 48, 80, seed=0)
    assert {sample.left.shape for sample in longer} == {(12, 3, 48, 80)}


def test_plausible_disparity_is_within_its_strength() -> None:
    frames = torch.nn.functional.interpolate(noise(3, 8, 12), (48, 80), mode="bilinear")
    reaches = []
    for seed in range(4):
        disparity = plausible_disparity(frames, np.random.default_rng(seed))
        assert disparity.shape == (3, 1, 48, 80) and torch.isfinite(disparity).all()
        reaches.append(float(disparity.max() - disparity.min()) / 80 * 100)
    assert len(set(reaches)) == 4 and max(reaches) <= 5.0 and min(reaches) > 0.5


def test_data_that_does_not_fit_in_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**30))
    require_free_memory(2**29, "train_depth")
    assert "train_depth: samples take about 512.0 MiB" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"about 2.0 GiB of memory, 1.0 GiB free; hold out more films"):
        require_free_memory(2**31, "train_depth")
