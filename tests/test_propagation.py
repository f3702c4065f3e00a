"""Propagation: exact where another frame shows the background, `fill` elsewhere; windows and resuming."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save
from test_resume import after

from secondeye.conversion import segments
from secondeye.conversion.convert import convert
from secondeye.conversion.settings import ConversionSettings
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import make_right
from secondeye.imaging.arrays import frames_to_uint8
from secondeye.inpaint import Inpainted, Warped, inpaint_shot, propagation
from secondeye.inpaint.fill import fill_shot
from secondeye.inpaint.propagation import REACH_FRAMES, Propagation
from secondeye.stages.evaluate import own_methods
from secondeye.synthetic import Shot, two_planes
from secondeye.video.write import FilmWriter
from secondeye.warp import warp

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = {"height": 48, "width": 128, "near_px": 10, "far_px": 2}


def warped(shot: Shot, in_bytes: bool = False) -> Warped:
    left = frames_to_uint8(shot.left) if in_bytes else shot.left
    return Warped(left, *warp(left, shot.disparity))


def shown_elsewhere(shot: Shot) -> torch.Tensor:  # bool [T, 1, H, W]
    """Return the holes whose background both views see within reach; it stands still."""
    seen = ~shot.right_occlusion & (shot.right_disparity == SIZE["far_px"])
    reach = REACH_FRAMES - 1  # the card leaves a pixel's neighbours one frame later
    near = [seen[max(0, t - reach) : t + reach + 1].any(0) for t in range(len(seen))]
    return shot.right_occlusion & torch.stack(near)


@pytest.mark.parametrize("in_bytes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_standing_background_that_another_frame_shows_is_exact(in_bytes: bool) -> None:
    shot = two_planes(frames=20, step_px=2, seed=1, **SIZE)
    given, known = warped(shot, in_bytes), shown_elsewhere(shot)
    assert known.sum() > 0.9 * (shot.right_occlusion[..., :-2]).sum() > 1000
    inpainter = Propagation()
    made, filled = inpaint_shot(inpainter, [given]), inpaint_shot(fill_shot, [given])
    if in_bytes:
        made, filled = (frames.permute(0, 3, 1, 2) / 255 for frames in (made, filled))
    inside = known.expand_as(made)
    error = (made - shot.right).abs()[inside]
    assert error.max() <= 1.01 / 255
    assert (filled - shot.right).abs()[inside].mean() > 0.1, "the pixels are noise: nobody can guess them"
    visible = (given.coverage == 1).expand_as(made)
    assert torch.equal(made[visible], filled[visible])
    assert known.sum() <= inpainter.stats.propagated < inpainter.stats.hole_pixels, "never the frame's border"


def test_a_background_that_pans_by_whole_pixels_is_exact_where_the_frame_shows_it() -> None:
    """The camera turns: everything moves 3 px a frame, and the card 2 px more."""
    shot = two_planes(frames=14, height=48, width=160, near_px=10, far_px=2, step_px=2, seed=2)
    window = [slice(3 * (13 - t), 3 * (13 - t) + 118) for t in range(14)]  # the background moves right

    def pan(planes: torch.Tensor) -> torch.Tensor:
        return torch.stack([plane[..., part] for plane, part in zip(planes, window, strict=True)])

    left, right, disparity, occlusion = map(
        pan, (shot.left, shot.right, shot.disparity, shot.right_occlusion)
    )
    left = frames_to_uint8(left)
    made = inpaint_shot(Propagation(), [Warped(left, *warp(left, disparity))]).permute(0, 3, 1, 2) / 255
    inside = occlusion[8:12].expand_as(right[8:12])
    error = (made - right)[8:12].abs()[inside]
    assert (error <= 1.01 / 255).float().mean() > 0.95


def test_what_no_frame_shows_is_filled_as_before() -> None:
    """A standing card hides the same background in all frames: nothing may be taken from beside it."""
    given = warped(two_planes(frames=6, step_px=0, seed=3, **SIZE), in_bytes=True)
    inpainter = Propagation()
    assert torch.equal(inpaint_shot(inpainter, [given]), inpaint_shot(fill_shot, [given]))
    assert inpainter.stats.propagated == 0


def test_a_change_of_scene_gives_nothing() -> None:
    """The other frames have the same geometry and other colours."""
    shot, other = (two_planes(frames=8, step_px=3, seed=seed, **SIZE) for seed in (4, 5))
    left = frames_to_uint8(torch.cat([other.left[:4], shot.left[4:5], other.left[5:]]))
    inpainter = Propagation()
    frames = list(inpainter([Warped(left, *warp(left, shot.disparity))]))
    filled = inpaint_shot(fill_shot, [Warped(left, *warp(left, shot.disparity))])
    assert torch.equal(frames[4].frames[0], filled[4])


def test_windows_and_resuming_change_nothing() -> None:
    given = warped(two_planes(frames=20, step_px=2, seed=6, **SIZE), in_bytes=True)
    whole = list(Propagation()([given]))
    assert len(whole) == 20 and all(len(part.frames) == 1 for part in whole)

    def same(parts: list[Inpainted], start: int) -> bool:
        made = torch.cat([part.frames for part in parts])
        return torch.equal(made, torch.cat([part.frames for part in whole[start:]]))

    assert same(list(Propagation()(given.take(slice(t, t + 3)) for t in range(0, 20, 3))), 0)
    for at in (1, 9, 16):
        state = load(save(dict(whole[at - 1].state)))
        assert len(state) == 4 * min(at, REACH_FRAMES), "memory is bounded"
        assert same(list(Propagation()([given.take(slice(at, None))], state)), at)


def test_frames_without_holes_or_too_small_for_flow_pass() -> None:
    frames, coverage = torch.rand(3, 3, 8, 12), torch.ones(3, 1, 8, 12)
    disparity = torch.zeros(3, 1, 8, 12)
    assert torch.equal(inpaint_shot(Propagation(), [Warped(frames, frames, coverage, disparity)]), frames)
    coverage[..., 5] = 0
    assert inpaint_shot(Propagation(), [Warped(frames, frames, coverage, disparity)]).isfinite().all()


def test_an_interrupted_conversion_continues_to_the_same_bytes_and_reports_the_share(
    make_film: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    carry = propagation._carry
    monkeypatch.setattr(propagation, "_carry", lambda *given: calls.append(1) or carry(*given))
    monkeypatch.setattr(segments, "SEGMENT_SECONDS", 1 / 3)
    film = make_film(shots=(12,), height=32, width=48, sound=False)
    settings = ConversionSettings(3.0, 0.5, "motion", "propagation", 10, "ultrafast", None)
    whole, broken = film.with_name("whole.mp4"), film.with_name("broken.mp4")
    convert(film, whole, settings)
    assert len(calls) == 12
    assert "of the pixels in holes come from other frames" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(FilmWriter, "write", after(10, FilmWriter.write))
        with pytest.raises(KeyboardInterrupt):
            convert(film, broken, settings)
    assert list(film.with_name(".broken.mp4.unfinished").glob("inpaint_*.safetensors"))
    convert(film, broken, settings)
    assert broken.read_bytes() == whole.read_bytes()


def test_the_evaluation_scores_it() -> None:
    (method,) = (method for method in own_methods(Path("models")) if method.inpainter == "propagation")
    shot = two_planes(frames=12, step_px=2, seed=7, **SIZE)
    clip = EvalFrames(shot.left, shot.right, shot.disparity, torch.zeros(12, 1, 48, 128, dtype=torch.uint8))
    made, known = make_right(method, clip).right, shown_elsewhere(shot)
    is_exact = (made - shot.right).abs()[known.expand_as(made)] <= 1 / 255
    assert is_exact.float().mean() > 0.9
