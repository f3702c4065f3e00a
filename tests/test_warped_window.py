"""The views of a window: the sharp warp always, the released splat if a network is conditioned on it."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from secondeye.cli import app
from secondeye.conversion import segments
from secondeye.conversion.bundle import Bundle, write_bundle
from secondeye.conversion.render import RenderedWindow
from secondeye.conversion.warped_window import warped_window
from secondeye.imaging.arrays import frames_to_uint8, occlusion_mask
from secondeye.inpaint import Conditioning, conditioning_of
from secondeye.inpaint.fill import fill_shot
from secondeye.inpaint.pipeline import StereoInpaintPipeline
from secondeye.inpaint.tiny import make_tiny
from secondeye.splat import cpu, splat
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


@pytest.mark.parametrize("conditioning", ["warp", "splat"])
@pytest.mark.usefixtures("one_thread")
def test_a_conversion_conditions_the_network_as_it_was_trained_and_composes_the_warp(
    conditioning: Conditioning,
    make_film: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(3)
    pipeline = make_tiny(frames=4)
    pipeline.register_to_config(conditioning=conditioning)
    pipeline.save_pretrained(tmp_path / "weights")
    parts = Bundle("motion", "diffusion", strength_percent=8.0, convergence=0.5, tiles=1, steps=1)
    bundle = write_bundle(tmp_path / "bundle", parts, None, tmp_path / "weights")
    splats, encoded = [], []
    splat_cpu, given = cpu.splat_cpu, StereoInpaintPipeline.sample_latents
    monkeypatch.setattr(cpu, "splat_cpu", lambda *planes: splats.append(planes) or splat_cpu(*planes))
    monkeypatch.setattr(
        StereoInpaintPipeline,
        "sample_latents",
        lambda self, frames, *rest, **options: (
            encoded.append(frames) or given(self, frames, *rest, **options)
        ),
    )
    rendered: list[RenderedWindow] = []
    render = segments.render

    def watch(*given: Any, **options: Any) -> Iterator[RenderedWindow]:
        for window in render(*given, **options):
            rendered.append(window)
            yield window

    monkeypatch.setattr(segments, "render", watch)
    film = make_film(height=64, width=64, shots=(4,), sound=False)
    done = CliRunner().invoke(app, ["convert", str(film), "--model", str(bundle)])
    assert done.exit_code == 0, done.output
    assert sum(len(planes[0]) for planes in splats) == (4 if conditioning == "splat" else 0)
    fed = []
    for window in rendered:
        disparity = torch.stack([window.warp_again(frame)[0] for frame in range(len(window.left))])
        sharp = warp(window.left, disparity)
        seen = (sharp.coverage == 1).permute(0, 2, 3, 1).expand_as(window.right)
        assert torch.equal(window.right[seen], sharp.frames[seen]) and not seen.all()
        view = warped_window(window.left, disparity, conditioning)
        fed.append(view.frames if conditioning == "warp" else view.conditioning_frames)
    assert len(encoded) == 1 and torch.equal(encoded[0], torch.cat(fed))
