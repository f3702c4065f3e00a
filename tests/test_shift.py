"""Shift stage on degraded views: correctable errors are corrected, others are rejected with a reason."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from conftest import coarse_cards
from torch import Tensor

from secondeye.alignment.order_cues import judge_order
from secondeye.dataset.corrections import apply_corrections, apply_vertical
from secondeye.dataset.schema import Correction
from secondeye.execution.incremental import BadClip
from secondeye.params import Shift, load_params
from secondeye.stages.film_alignment import align_clips, sample_clip
from secondeye.stages.stereo_pair import find_corrections
from secondeye.synthetic import Shot
from secondeye.synthetic.render import render_shot

PARAMS = load_params(Path(__file__).parent.parent / "params.yaml").shift
StereoFrame = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def shot() -> Shot:
    return render_shot(3, 2, 256, 448)


@pytest.fixture(scope="module")
def plain(shot: Shot) -> Correction:
    return corrections(shot.left, shot.right)


def corrections(left: Tensor, right: Tensor, shift: Shift = PARAMS) -> Correction:
    """Find the corrections as for a film with three shots like this one."""
    clip = sample_clip(left, right, 0, shift)
    found = align_clips([clip] if clip else [], shift, stated=False)
    order = judge_order([found.order.cues] * 3, range(3), stated=False)
    return find_corrections(left, right, shift, "clip", "key", rectification=found.rectification, order=order)


def test_aligned_views_are_only_shifted(shot: Shot, plain: Correction) -> None:
    assert json.loads(json.dumps(asdict(plain))) == asdict(plain), "plain numbers, as side entries hold them"
    assert not plain.swapped and plain.vertical_px == 0 and plain.view_order_evidence > 0
    assert (plain.red_gain, plain.green_gain, plain.blue_gain) == (1, 1, 1)
    assert (plain.red_offset, plain.green_offset, plain.blue_offset) == (0, 0, 0)
    exact = float(torch.quantile(shot.disparity, 0.01))
    assert abs(plain.shift_px + PARAMS.margin_px - exact) <= 1


def test_combined_errors_are_corrected() -> None:
    """Swap the views, tint one, move it 4 px down and 20 px aside: corrected views need no correction."""
    shot = render_shot(100, 2, 256, 448)
    plain = corrections(shot.left, shot.right)
    tint, plus = torch.tensor([0.85, 1.0, 0.9]).view(3, 1, 1), 0.03
    left, right = apply_vertical(shot.left, shot.right, 4)
    left = (torch.roll(left, -20, dims=-1) * tint + plus).clamp(0, 1)
    found = corrections(right, left)
    assert found.swapped and found.view_order_evidence <= -0.15 and not found.order_uncertain
    left, right = apply_corrections(right, left, found)
    height, width = left.shape[-2:]
    assert height == 256 - 2 * 4 and width == 448 - abs(found.shift_px), (
        "cropped by the error and by its correction"
    )
    assert abs(found.shift_px - (plain.shift_px - 20)) <= 1
    again = corrections(left[..., : width - 20], right[..., : width - 20])
    assert not again.swapped and again.vertical_px == 0 and abs(again.shift_px) <= 1
    assert again.red_gain == again.green_gain == again.blue_gain == 1


@pytest.mark.slow(seconds=6)
def test_shift_of_wide_frames_is_exact_to_a_pixel() -> None:
    shot = render_shot(10, 1, 360, 1280)
    left, right = apply_vertical(shot.left, shot.right, 8)
    tint = torch.tensor([0.85, 1.0, 1.15]).view(3, 1, 1)
    exact = int(torch.quantile(shot.disparity[..., ::2, ::2], 0.01)) - PARAMS.margin_px
    for offset_px in (0, 80):
        found = corrections(left, (torch.roll(right, -offset_px, dims=-1) * tint).clamp(0, 1))
        assert abs(found.shift_px - exact - offset_px) <= 1 and found.vertical_px == -8


def twice(shot: Shot) -> StereoFrame:
    noise = torch.randn(shot.left.shape, generator=torch.Generator().manual_seed(0))
    return shot.left, (shot.left + 2 / 255 * noise).clamp(0, 1)


def on_a_wall(shot: Shot) -> StereoFrame:
    return shot.left[..., 12:], shot.left[..., :-12]


def unrelated(shot: Shot) -> StereoFrame:
    return shot.left, shot.right.flip(-2)


def too_low(shot: Shot) -> StereoFrame:
    return apply_vertical(shot.left, shot.right, 11)


def turned(shot: Shot) -> StereoFrame:
    grid = torch.nn.functional.affine_grid(
        torch.tensor([[1.0, -0.015, 0.0], [0.045, 1.0, 0.0]]).expand(2, 2, 3), list(shot.right.shape), False
    )
    return shot.left, torch.nn.functional.grid_sample(shot.right, grid, align_corners=False)


def negative_blue(shot: Shot) -> StereoFrame:
    right = shot.right.clone()
    right[:, 2] = 1 - right[:, 2]
    return shot.left, right


@pytest.mark.parametrize(
    ("spoil", "reason", "detail"),
    [
        (twice, "same image", r"disparity range 0\.\d\d px, more than 0.90 px needed"),
        (on_a_wall, "no depth", r"everything is displaced by -12.\d px"),
        (unrelated, "no stereo pair", r"\d+% of the textured corners match, 20% needed"),
        (too_low, "vertical misalignment", r"1[01]\.\d px too (low|high), 7\.\d allowed"),
        (turned, "not rectified", r"between corners, 3\.8 allowed"),
        (negative_blue, "colours differ", r"by \d+\.\d levels after colour matching, 20 allowed"),
    ],
)
def test_unusable_views_are_rejected_with_the_reason(
    shot: Shot, spoil: Callable[[Shot], StereoFrame], reason: str, detail: str
) -> None:
    with pytest.raises(BadClip) as bad:
        corrections(*spoil(shot), replace(PARAMS, rectify="off"))
    assert bad.value.reason == reason
    bad.match(detail)


@pytest.mark.parametrize(("rise_px", "reason"), [(3, "separate takes"), (-3, None)])
def test_two_takes_are_called_that_where_their_motion_disagrees(
    shot: Shot, rise_px: int, reason: str | None
) -> None:
    """Let the left view sink by 3 px a frame and the right one, which is turned, rise or sink."""
    left, right = (
        torch.stack([torch.roll(view[0], down_px * frame, dims=-2) for frame in range(2)])
        for view, down_px in zip(turned(shot), (3, -rise_px), strict=True)
    )
    if reason is None:
        assert corrections(left, right).rectify_row_px > 5, "one take can be rectified"
        return
    with pytest.raises(BadClip) as bad:
        corrections(left, right)
    assert bad.value.reason == reason
    bad.match(r"move differently, by [56]\.\d px a frame; they move by [23]\.\d px")


def test_too_little_width_is_rejected() -> None:
    cards = coarse_cards(2, 128, 256, near_px=16, far_px=4, card_px=80, seed=3)
    narrow = replace(PARAMS, min_width_percent=99.0)
    with pytest.raises(BadClip) as bad:
        corrections(cards.left, torch.roll(cards.right, -30, -1), narrow)
    assert bad.value.reason == "too little width"


def film(path: Path, height: int = 256, width: int = 448) -> StereoFrame:
    from fractions import Fraction
    from itertools import islice

    import numpy as np

    from secondeye.film.packing import crop_and_resize, unpack
    from secondeye.imaging.arrays import frames_from_uint8
    from secondeye.video.read import decode_film

    pairs = [unpack(frame.rgb, "sbs") for frame in islice(decode_film(path), 25)]
    left, right = (
        frames_from_uint8(
            torch.from_numpy(
                np.stack([crop_and_resize(pair[eye], height, width, Fraction(1)) for pair in pairs])
            )
        )
        for eye in (0, 1)
    )
    return left, right


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sv_candle_ego/candle_ego_sbs_2560x720.mp4", "sv_toon_shot/shot_sbs.mp4"])
def test_view_order_of_real_films_is_detected(footage: Path, name: str) -> None:
    left, right = film(footage / name)
    there, back = corrections(left, right), corrections(right, left)
    assert not there.swapped and back.swapped
    assert there.view_order_evidence == pytest.approx(-back.view_order_evidence, abs=0.1)
    assert abs(there.shift_px - back.shift_px) <= 1
    assert there.vertical_px == back.vertical_px == 0
