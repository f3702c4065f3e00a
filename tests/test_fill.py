"""The filling: the background continues into the hole, the foreground does not, and time is used."""

import numpy as np
import pytest
import torch

from secondeye.imaging.arrays import frames_from_uint8, frames_to_uint8
from secondeye.inpaint.fill import FULL_COVERAGE, fill
from secondeye.synthetic import two_planes
from secondeye.warp import warp


def scene(near_left: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A red near card beside a hole beside a blue background; the hole is x = 10..14."""
    frames = torch.zeros(1, 3, 6, 30)
    near = slice(0, 10) if near_left else slice(15, 30)
    far = slice(15, 30) if near_left else slice(0, 10)
    frames[:, 0, :, near], frames[:, 2, :, far] = 1.0, 1.0
    coverage = torch.ones(1, 1, 6, 30)
    coverage[..., 10:15] = 0
    disparity = torch.zeros(1, 1, 6, 30)
    disparity[..., near], disparity[..., far] = 8.0, 1.0
    return frames, coverage, disparity


@pytest.mark.parametrize("near_left", [True, False])
def test_hole_is_background_whichever_side_it_is_on(near_left: bool) -> None:
    frames, coverage, disparity = scene(near_left)
    filled, state = fill(frames, coverage, disparity)
    hole = filled[..., 10:15]
    assert (hole[:, 2] == 1).all() and (hole[:, :2] == 0).all()
    assert (state.disparity[:, 10:15] == 1).all() and not state.visible[:, 10:15].any()


def test_covered_pixels_are_unchanged() -> None:
    frames, disparity = torch.rand(2, 3, 9, 21), torch.zeros(2, 1, 9, 21)
    filled, _ = fill(frames, torch.ones(2, 1, 9, 21), disparity)
    assert torch.equal(filled, frames)


def test_half_covered_pixel_is_half_itself_and_half_background() -> None:
    frames, coverage, disparity = scene(near_left=True)
    coverage[..., 9] = 0.75
    filled, _ = fill(frames, coverage, disparity)
    assert filled[0, :, 3, 9].tolist() == pytest.approx([0.75, 0.0, 0.25])


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_border_is_extended(side: str) -> None:
    """Rows continue beyond the frame; their colours fade into each other with the distance."""
    ramp = torch.linspace(0, 1, 15).view(1, 1, 15, 1).expand(1, 3, 15, 20)
    frames, coverage = ramp.clone(), torch.ones(1, 1, 15, 20)
    stripes = torch.rand(1, 3, 15, 20, generator=torch.Generator().manual_seed(0))
    hole = slice(0, 4) if side == "left" else slice(16, 20)
    coverage[..., hole] = 0
    filled, state = fill(frames, coverage, torch.full((1, 1, 15, 20), 2.0))
    torch.testing.assert_close(filled[..., 3:12, hole], ramp[..., 3:12, hole])
    assert (state.disparity == 2).all() and not state.visible[:, hole].any()
    filled, _ = fill(stripes, coverage, torch.zeros(1, 1, 15, 20))
    near, far = (3, 0) if side == "left" else (16, 19)
    edge = stripes[..., 4 if side == "left" else 15]
    torch.testing.assert_close(filled[..., near], edge)
    assert filled[..., far].std() < 0.8 * edge.std()


@pytest.mark.parametrize("in_bytes", [False, True])
def test_a_gray_film_stays_gray(in_bytes: bool) -> None:
    shot = two_planes(frames=4, height=48, width=96, step_px=1, seed=4)
    gray = shot.left.mean(1, keepdim=True).expand_as(shot.left).contiguous()
    filled, _ = fill(*warp(frames_to_uint8(gray) if in_bytes else gray, shot.disparity))
    red, green, blue = filled.unbind(-1 if in_bytes else 1)
    assert torch.equal(red, green) and torch.equal(green, blue)


def test_blur_is_vertical_and_grows_with_the_distance() -> None:
    frames, coverage, disparity = scene(near_left=True)
    tall = [array.repeat(1, 1, 8, 3) for array in (frames, coverage, disparity)]
    frames, coverage, disparity = (array[..., :30].clone() for array in tall)
    coverage[..., 5:15] = 0
    frames[..., 15:] = (torch.arange(48) % 2).float().view(1, 1, 48, 1)  # stripes
    filled, _ = fill(frames, coverage, disparity)
    contrast = filled[0, 0, 10:-10, 5:15].std(0)  # from the far end of the hole to the near one
    assert contrast[-1] > 0.49 and contrast[0] < 0.1


def test_empty_frame_and_row_stay_finite() -> None:
    frames, coverage = torch.zeros(2, 3, 7, 11), torch.zeros(2, 1, 7, 11)
    filled, _ = fill(frames, coverage, torch.zeros(2, 1, 7, 11))
    assert torch.isfinite(filled).all()


def test_static_hole_does_not_flicker() -> None:
    """Noise on the background changes every frame; the filling must not follow it fully."""
    generator = torch.Generator().manual_seed(0)
    frames, coverage, disparity = scene(near_left=True)
    frames, coverage, disparity = (a.repeat(6, 1, 8, 2) for a in (frames, coverage, disparity))
    frames = (frames + 0.1 * torch.rand(frames.shape, generator=generator)) * (coverage > 0)
    together, _ = fill(frames, coverage, disparity)
    alone = torch.cat(
        [fill(frames[t : t + 1], coverage[t : t + 1], disparity[t : t + 1])[0] for t in range(6)]
    )
    hole = (coverage == 0).expand_as(frames)[1:]
    flicker = [(film[1:] - film[:-1])[hole].abs().mean() for film in (together, alone)]
    assert flicker[0] < 0.6 * flicker[1]


def test_previous_frame_is_reused_only_where_it_shows_the_background() -> None:
    """A hole opens over what the frame before saw; after a change of scene nothing may be taken."""
    generator = torch.Generator().manual_seed(1)
    texture = torch.rand(1, 3, 12, 16, generator=generator).repeat_interleave(4, -1).repeat_interleave(4, -2)
    surface, everything = torch.zeros(1, 1, 48, 64), torch.ones(1, 1, 48, 64)
    hole = torch.zeros(1, 1, 48, 64, dtype=torch.bool)
    hole[..., 30:33] = True
    _, state = fill(texture, everything, surface)
    filled, _ = fill(texture * ~hole, everything * ~hole, surface, state)
    alone, _ = fill(texture * ~hole, everything * ~hole, surface)
    inside = hole.expand_as(texture)
    errors = [(picture - texture)[inside].abs().mean() for picture in (filled, alone)]
    assert errors[0] < 0.7 * errors[1]  # the memory knew

    other = torch.rand(1, 3, 12, 16, generator=generator).repeat_interleave(4, -1).repeat_interleave(4, -2)
    filled, _ = fill(other * ~hole, everything * ~hole, surface, state)
    alone, _ = fill(other * ~hole, everything * ~hole, surface)
    assert ((filled - alone)[inside].abs() > 1e-6).float().mean() < 0.1  # and was not asked


def test_result_does_not_depend_on_windows() -> None:
    shot = two_planes(frames=6, height=48, width=96, seed=2)
    warped = warp(shot.left, shot.disparity)
    whole, _ = fill(*warped[:1], warped.coverage, warped.disparity)
    state, parts = None, []
    for start in range(0, 6, 2):
        window = slice(start, start + 2)
        part, state = fill(warped.frames[window], warped.coverage[window], warped.disparity[window], state)
        parts.append(part)
    assert torch.equal(torch.cat(parts), whole)


def test_bytes_are_filled_like_floats_and_seen_bytes_do_not_change() -> None:
    shot = two_planes(frames=4, height=48, width=96, seed=3)
    view, coverage, disparity = warp(frames_to_uint8(shot.left), shot.disparity)
    given = view.clone()
    filled, state = fill(view, coverage, disparity)
    as_floats, _ = fill(frames_from_uint8(view), coverage, disparity)
    seen = (coverage == 1).permute(0, 2, 3, 1).expand_as(view)
    assert filled.dtype == torch.uint8 and torch.equal(filled[seen], view[seen])
    assert torch.equal(view, given) and state.frame.dtype == torch.uint8
    difference = (frames_from_uint8(filled) - as_floats).abs() * 255
    # Each frame rounds what it takes from the frame before, which also decides what is taken.
    assert difference[:1].max() < 0.51
    assert difference[(coverage < FULL_COVERAGE).expand_as(difference)].quantile(0.98) < 1.01


def test_filling_beats_leaving_black_and_copying_the_left_view() -> None:
    shot = two_planes(frames=4, height=64, width=128, near_px=12, far_px=2, seed=5)
    warped = warp(shot.left, shot.disparity)
    filled, _ = fill(warped.frames, warped.coverage, warped.disparity)
    hole = shot.right_occlusion.expand_as(filled)
    error = [((film - shot.right)[hole] ** 2).mean() for film in (filled, warped.frames, shot.left)]
    assert error[0] < 0.7 * min(error[1:])


def test_wrong_input_is_refused() -> None:
    frames, coverage = torch.zeros(1, 3, 4, 5), torch.ones(1, 1, 4, 5)
    with pytest.raises(ValueError, match="coverage"):
        fill(frames, torch.ones(1, 1, 4, 6), coverage)
    with pytest.raises(ValueError, match="disparity"):
        fill(frames, coverage, torch.full((1, 1, 4, 5), np.nan))
