"""Training of the depth student: samples, learning, held-out films, exact continuation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import a_clip, a_film, a_shift
from safetensors.torch import load_file
from small_training import an_optimizer
from torch import Tensor
from training_shots import MemoryDepthShot

from secondeye.dataset.clip_files import write_disparity, write_frames
from secondeye.dataset.reader import Dataset
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.depth.losses import warp
from secondeye.depth.student import load_student_network
from secondeye.depth.student_network import SIDE_MULTIPLE_PX
from secondeye.params import TrainDepth
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.system.errors import UserError
from secondeye.training import depth as training
from secondeye.training.depth import DrawSample, measure_window, train_depth
from secondeye.training.depth_shots import DepthFrames, DepthShot, consistent_mask, list_shots

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH = 32, 64


def settings(
    steps: int = 6,
    dropout: float = 0.3,
    frames: int = 2,
    mono_share: float = 0.0,
    initial_weights: Literal["none", "imagenet"] = "none",
) -> TrainDepth:
    return TrainDepth(
        height=HEIGHT,
        width=WIDTH,
        frames=frames,
        motion_dropout=dropout,
        mono_share=mono_share,
        initial_weights=initial_weights,
        optimizer=an_optimizer(steps=steps, batch_size=2, learning_rate=0.003, checkpoint_every=3),
    )


def make_frames(seed: int, count: int = 4, speed_px: int = 2) -> DepthFrames:
    """Make a shot whose lower half is near, bright and slides left; the upper half is far, dark and still."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, HEIGHT // 4, (WIDTH + 16) // 4, generator=generator)
    image = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH + 16), mode="bilinear")[0]
    near = (torch.arange(HEIGHT) >= HEIGHT // 2).float()[:, None].expand(HEIGHT, WIDTH)
    left = torch.stack(
        [
            0.3 * image[..., :WIDTH] * (1 - near)
            + (0.5 + 0.5 * image[..., t * speed_px :][..., :WIDTH]) * near
            for t in range(count)
        ]
    )
    disparity = (1 + 5 * near).expand(count, 1, HEIGHT, WIDTH).clone()
    return DepthFrames(left, disparity, torch.ones_like(disparity, dtype=torch.bool))


def make_shot(seed: int, film: str = "film") -> MemoryDepthShot:
    return MemoryDepthShot(make_frames(seed), film)


def draw_sample(shots: list[MemoryDepthShot], of: TrainDepth, rng: np.random.Generator) -> tuple[Tensor, ...]:
    return DrawSample(shots, of)(0, rng)


def new_run(folder: Path, name: str) -> Run:
    return open_run(folder, name, "train_depth", settings(), {})


def test_a_sample_depends_on_its_generator_alone() -> None:
    shots = [make_shot(seed) for seed in range(3)]
    one, again, other = (draw_sample(shots, settings(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert [list(plane.shape) for plane in one] == [
        [2, channels, HEIGHT, WIDTH] for channels in (9, 1, 1, 2, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert all(bool(torch.isfinite(plane).all()) for plane in one)


def test_a_share_of_the_samples_has_no_motion() -> None:
    shots = [make_shot(0)]

    def kinds(dropout: float) -> list[str]:
        found = []
        for seed in range(40):
            inputs, _, _, flow, _ = draw_sample(shots, settings(dropout=dropout), np.random.default_rng(seed))
            has_cues, moves = bool(inputs[:, 5:8].any()), bool(flow.any())
            found.append("moving" if has_cues else "blind" if moves else "still")
            if found[-1] == "still":
                assert bool((inputs[:, 8] == 1).all())
            if found[-1] == "blind":
                assert not inputs[:, 8].any()
        return found

    assert set(kinds(0.0)) == {"moving"} and set(kinds(1.0)) == {"blind", "still"}
    assert set(kinds(0.5)) == {"moving", "blind", "still"}


def growing() -> MemoryDepthShot:
    """Make a shot in which disparity grows from frame to frame."""
    frames = make_frames(0)
    return MemoryDepthShot(frames._replace(disparity=frames.disparity + torch.arange(4.0).view(4, 1, 1, 1)))


def test_a_still_sample_repeats_one_frame() -> None:
    shots, still = [growing()], 0
    for seed in range(20):
        _, truth, _, flow, _ = draw_sample(shots, settings(dropout=1.0), np.random.default_rng(seed))
        assert torch.equal(truth[0], truth[1]) == (not flow.any())
        still += not flow.any()
    assert 0 < still < 20


def test_samples_are_played_in_both_directions_with_matching_flow() -> None:
    shots, ways = [growing()], set()
    for seed in range(12):
        inputs, truth, _, flow, confidence = draw_sample(
            shots, settings(dropout=0.0), np.random.default_rng(seed)
        )
        ways.add(bool(truth[0].max() > truth[1].max()))
        along, against = (
            ((inputs[1:, :3] - warp(inputs[:1, :3], sign * flow[1:])).abs() * confidence[1:]).mean()
            for sign in (1, -1)
        )
        assert float(along) < float(against)
    assert ways == {True, False}


def test_disparity_stays_aligned_with_the_image() -> None:
    """Cropped, mirrored, played backwards: the near half still looks different, and moves."""
    shots = [make_shot(0)]
    for seed in range(20):
        inputs, truth, _, flow, _ = draw_sample(shots, settings(dropout=0.0), np.random.default_rng(seed))
        near = truth[0, 0] > 3
        assert set(truth.unique().tolist()) <= {1.0, 6.0}
        speed = flow[1].norm(dim=0)
        assert float(speed[near].mean()) > 2 * float(speed[~near].mean())
        gray = inputs[0, :3].mean(0)
        assert abs(float(gray[near].mean()) - float(gray[~near].mean())) > 0.2


def test_disparity_that_the_right_view_contradicts_is_invalid() -> None:
    left = make_frames(0, speed_px=0).left[:1]
    disparity = torch.full((1, 1, HEIGHT, WIDTH), 3.0)
    right = left.roll(-3, dims=-1)
    assert bool(consistent_mask(left, right, disparity)[..., 8:-8].all())
    assert not consistent_mask(left, right, disparity)[..., :3].any()
    wrong = disparity.clone()
    wrong[:, :, HEIGHT // 2 :] = -9.0
    valid = consistent_mask(left, right, wrong)[..., 12:-12]
    assert (
        float(valid[:, :, HEIGHT // 2 + 2 :].float().mean())
        < 0.6
        < float(valid[:, :, : HEIGHT // 2 - 2].float().mean())
    )


def test_clips_and_synthetic_shots_are_loaded(tmp_path: Path) -> None:
    dataset = Dataset(tmp_path)
    for stage in ("split", "shift", "match", "filter", "synthetic"):
        dataset.folder(stage).mkdir()
    small = make_frames(0)
    large, disparity = (
        torch.nn.functional.interpolate(plane, scale_factor=2.0) for plane in (small.left, small.disparity)
    )
    for view in ("left", "right"):
        write_frames(dataset.file("split", "clip", view), large)
    clip_offset = write_disparity(dataset.file("match", "clip", "disparity"), disparity)
    write_frames(dataset.file("synthetic", "shot", "left"), small.left)
    shot_offset = write_disparity(dataset.file("synthetic", "shot", "disparity"), small.disparity)
    for row in (
        a_film("film"),
        a_clip("clip", "film", stop=4, height=2 * HEIGHT, width=2 * WIDTH),
        a_shift("clip"),
        ClipDisparity("clip", "k", clip_offset, 1.0),
        AcceptedClip("clip", "film", "train"),
        SyntheticShot("shot", "k", 4, shot_offset, 0.0),
    ):
        write_table(dataset.path(type(row)), [row], type(row))
    shots = list_shots(dataset, settings())
    assert [(shot.film, shot.frames) for shot in shots] == [("film", 4), ("shot", 4)]
    clip, shot = (one.read(range(4)) for one in shots)
    for one in (clip, shot):
        assert one.left.shape == (4, 3, HEIGHT, WIDTH) and one.valid.dtype == torch.bool
    assert torch.equal(shot.disparity, small.disparity) and bool(shot.valid.all())
    torch.testing.assert_close(clip.disparity.amax(), torch.tensor(3.0))  # half the width, half the pixels
    assert torch.equal(shots[1].read(range(1, 3)).left, shot.left[1:3])


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    run = new_run(tmp_path, "a")
    train_depth(run, [make_shot(seed) for seed in range(2)], settings(steps=40, dropout=0.0))
    losses = [line["depth/error"] for line in run.metrics() if "depth/error" in line]
    assert losses[-1] < 0.6 * losses[0]
    assert run.metrics()[-1]["depth/held_out_rank"] > 0.6
    assert run.picture("depth.png").stat().st_size > 1000
    assert 0 < float(load_student_network(run.model).rank_share) <= 1


def test_a_killed_training_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shots = [make_shot(seed) for seed in range(2)]
    whole = new_run(tmp_path, "whole")
    train_depth(whole, shots, settings())
    broken = new_run(tmp_path, "broken")
    drawn, measure = 0, training.measure_window

    def dies(*given: Any, **named: Any) -> Any:
        nonlocal drawn
        drawn += 1
        if drawn > 8:  # two a step, with a checkpoint after three steps
            raise KeyboardInterrupt
        return measure(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training, "measure_window", dies)
        with pytest.raises(KeyboardInterrupt):
            train_depth(broken, shots, settings())
    assert not broken.model.exists()
    train_depth(broken, shots, settings())
    assert repeatable(broken.metrics()) == repeatable(whole.metrics())
    here, there = (load_file(run.model / "model.safetensors") for run in (whole, broken))
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_shots_that_are_too_short_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="5 frames long"):
        train_depth(new_run(tmp_path, "a"), [make_shot(0)], settings(frames=5))


def test_sizes_that_do_not_fit_are_refused() -> None:
    assert SIDE_MULTIPLE_PX == 32
    with pytest.raises(ValueError, match="multiple of 32"):
        TrainDepth(
            height=48,
            width=64,
            frames=2,
            motion_dropout=0.3,
            mono_share=0.0,
            initial_weights="none",
            optimizer=an_optimizer(steps=1, batch_size=1, learning_rate=0.001, checkpoint_every=1),
        )


def test_no_film_is_on_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    """Forty shots of twenty films, interleaved: two films are held out with all their shots."""
    shots = [make_shot(0, film=f"film {n % 20}") for n in range(40)]
    held_out, trained_on = training.hold_out(shots)
    assert {shot.film for shot in held_out} == {"film 9", "film 19"} and len(held_out) == 4
    assert not {shot.film for shot in held_out} & {shot.film for shot in trained_on}
    assert len(held_out) + len(trained_on) == 40 and not capsys.readouterr().err
    few = [shot for shot in shots if shot.film != "film 0"]
    assert training.hold_out(few) == (few, few)
    assert "train_depth: 19 films, fewer than 20: none is held out" in capsys.readouterr().err


def test_confidence_is_calibrated_on_held_out_films(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sides: dict[str, set[str]] = {"drawn": set(), "validated": set()}
    predict, init = training._predict, DrawSample.__init__

    def note_predicted(model: torch.nn.Module, shots: Sequence[DepthShot], count: int) -> Any:
        sides["validated"] |= {shot.film for shot in shots}
        return predict(model, shots, count)

    def note_drawn(self: DrawSample, shots: Sequence[DepthShot], *others: Any) -> None:
        sides["drawn"] |= {shot.film for shot in shots}
        init(self, shots, *others)

    monkeypatch.setattr(training, "_predict", note_predicted)
    monkeypatch.setattr(DrawSample, "__init__", note_drawn)
    shots = [make_shot(seed, film=f"film {seed % 20}") for seed in range(21)]
    train_depth(new_run(tmp_path, "a"), shots, settings(steps=1))
    assert sides["validated"] == {"film 9", "film 19"} and len(sides["drawn"]) == 18
    assert not sides["drawn"] & sides["validated"]


def test_validation_takes_a_bounded_number_of_shots() -> None:
    shots = [make_shot(0, film=str(n)) for n in range(50)]
    assert [shot.film for shot in training._spread(shots, 3)] == ["0", "24", "49"]
    assert training._spread(shots, 60) == shots


def test_motion_is_measured_in_both_directions_of_time() -> None:
    """The near half slides to the left; the ends use their only neighbour."""
    shot = make_shot(0)
    for backwards, signs in ((False, [-1, 1, 1, 1]), (True, [1, -1, -1, -1])):
        motion = measure_window(shot, range(4), backwards=backwards).motion[:, 0]
        medians = motion[:, HEIGHT // 2 + 4 : -4, 8:-8].flatten(1).median(-1).values
        assert all(float(sign * median) > 1 for sign, median in zip(signs, medians, strict=True))


def test_a_window_has_the_motion_that_it_has_in_its_whole_shot() -> None:
    shot = make_shot(0)
    for backwards in (False, True):
        whole = measure_window(shot, range(4), backwards=backwards)
        for indices in (range(2), range(1, 3), range(2, 4)):
            part = measure_window(shot, indices, backwards=backwards)
            own = (
                slice(4 - indices.stop, 4 - indices.start)
                if backwards
                else slice(indices.start, indices.stop)
            )
            assert all(torch.equal(plane, other[own]) for plane, other in zip(part, whole, strict=True))


def test_mirroring_negates_horizontal_motion() -> None:
    frames = measure_window(make_shot(0), range(1, 3), backwards=False)
    seen = set()
    for seed in range(8):
        mirrored = training._mirror(frames, np.random.default_rng(seed))
        turned = not torch.equal(mirrored.left, frames.left)
        expected = -frames.motion[:, 0].flip(-1) if turned else frames.motion[:, 0]
        assert torch.equal(mirrored.motion[:, 0], expected)
        assert torch.equal(
            mirrored.motion[:, 1], frames.motion[:, 1].flip(-1) if turned else frames.motion[:, 1]
        )
        seen.add(turned)
    assert seen == {True, False}


def test_motion_scales_with_the_crop() -> None:
    frames = measure_window(make_shot(0), range(1, 3), backwards=False)
    frames.motion[:] = 1
    for seed in range(5):
        cut = training._crop(frames, (HEIGHT, WIDTH), np.random.default_rng(seed))
        share = np.random.default_rng(seed).uniform(training.MIN_CROP_SHARE, 1)
        torch.testing.assert_close(
            cut.motion[:, 0], torch.full((2, HEIGHT, WIDTH), 1 / share), rtol=0.03, atol=0
        )
        assert bool((cut.motion[:, 3] == 1).all())
