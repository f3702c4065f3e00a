"""The views of a window: the sharp warp always, the released splat where a network is conditioned on it."""

import math

import pytest
import torch
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask
from secondeye.inpaint import conditioning_of
from secondeye.inpaint.fill import fill_shot
from secondeye.splat import splat
from secondeye.synthetic import two_planes
from secondeye.warp import warp


@pytest.fixture(scope="module")
def planes() -> tuple[Tensor, Tensor]:
    """Return a left view [2, 3, 24, 64] and its disparity."""
    shot = two_planes(frames=2, height=24, width=64, near_px=6, far_px=1, card_px=20, seed=3)
    return shot.left, shot.disparity


def test_warp_conditioning_adds_nothing(planes: tuple[Tensor, Tensor]) -> None:
    window = warped_window(*planes, "warp")
    assert all(torch.equal(a, b) for a, b in zip(window[:4], (planes[0], *warp(*planes)), strict=True))
    assert window.conditioning_frames is None and window.conditioning_coverage is None
    assert conditioning_of(fill_shot) == "warp"


@pytest.mark.parametrize("form", [torch.clone, frames_to_uint8])
def test_splat_conditioning_is_the_released_splat_beside_the_same_warp(planes, form) -> None:
    left, disparity = form(planes[0]), planes[1]
    window = warped_window(left, disparity, "splat")
    assert all(
        torch.equal(a, b) for a, b in zip(window[:4], warped_window(left, disparity, "warp")[:4], strict=True)
    )
    # The released weight is 1.414 per px at 1024 px; here a px is 16 of those.
    soft = splat(left, disparity, border="released", weight_exponent_per_px=16 * math.log2(1.414))
    assert window.conditioning_frames is not None and window.conditioning_coverage is not None
    assert torch.equal(window.conditioning_frames, soft.warped)
    holes = window.conditioning_coverage == 0
    assert ((window.conditioning_coverage == 1) | holes).all()
    assert torch.equal(holes, (1 - soft.coverage >= 0.5) | occlusion_mask(window.coverage))
    assert holes[..., -1, :].all(), "the released border rule never writes the last row"


def test_every_pixel_that_the_picture_lacks_is_a_hole_of_the_network() -> None:
    generator = torch.Generator().manual_seed(0)
    left, disparity = (torch.rand(1, channels, 16, 64, generator=generator) for channels in (3, 1))
    window = warped_window(left, 6 * disparity, "splat")
    lacking = occlusion_mask(window.coverage)
    reached = ~occlusion_mask(splat(left, 6 * disparity, border="released").coverage)
    assert (lacking & reached).any(), "where surfaces fold back, the warp has holes that the splat has not"
    assert window.conditioning_coverage is not None
    assert (window.conditioning_coverage[lacking] == 0).all()


def test_take_and_to_keep_absent_planes_absent(planes: tuple[Tensor, Tensor]) -> None:
    for conditioning in ("warp", "splat"):
        window = warped_window(*planes, conditioning)  # type: ignore[arg-type]
        part = window.take(slice(1, None)).to("cpu")
        for whole, taken in zip(window, part, strict=True):
            assert (whole is None) == (taken is None)
            assert whole is None or torch.equal(whole[1:], taken)
