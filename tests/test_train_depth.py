"""Training of the depth student: what it draws, that it learns, and that a killed run goes on as it was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import a_shift, an_optimizer
from safetensors.torch import load_file
from torch import Tensor

from secondeye.dataset.clip_files import clip_file, write_disparity, write_frames
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, Correction, SyntheticShot
from secondeye.dataset.tables import write_table
from secondeye.depth.losses import warp
from secondeye.depth.student import load_student_network
from secondeye.depth.student_network import MULTIPLE
from secondeye.params import TrainDepth
from secondeye.run_folder import Run, open_run, repeatable
from secondeye.system.errors import UserError
from secondeye.training import depth as training
from secondeye.training.depth import (
    PIECE_BYTES,
    Footage,
    draw_sample,
    is_believed,
    load_footage,
    prepare,
    train_depth,
)
from secondeye.training.memory_check import synthetic_frames

pytestmark = pytest.mark.usefixtures("one_thread")
HEIGHT, WIDTH = 32, 64


def settings(steps: int = 6, dropout: float = 0.3, frames: int = 2) -> TrainDepth:
    return TrainDepth(
        height=HEIGHT,
        width=WIDTH,
        frames=frames,
        motion_dropout=dropout,
        optimizer=an_optimizer(steps=steps, batch_size=2, learning_rate=0.003, checkpoint_every=3),
    )


def make_footage(seed: int, count: int = 4, speed_px: int = 2) -> Footage:
    """The lower half is near, bright and slides to the left; the upper half is far, dark and stands."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, HEIGHT // 4, (WIDTH + 16) // 4, generator=generator)
    picture = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH + 16), mode="bilinear")[0]
    near = (torch.arange(HEIGHT) >= HEIGHT // 2).float()[:, None].expand(HEIGHT, WIDTH)
    left = torch.stack(
        [
            0.3 * picture[..., :WIDTH] * (1 - near)
            + (0.5 + 0.5 * picture[..., t * speed_px :][..., :WIDTH]) * near
            for t in range(count)
        ]
    )
    disparity = (1 + 5 * near).expand(count, 1, HEIGHT, WIDTH).clone()
    return Footage(left, disparity, torch.ones_like(disparity, dtype=torch.bool))


def new_run(folder: Path, name: str) -> Run:
    return open_run(folder, name, "train_depth", settings(), {})


def test_a_sample_depends_on_its_generator_alone() -> None:
    pieces = [prepare(make_footage(seed)) for seed in range(3)]
    one, again, other = (draw_sample(pieces, settings(), np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert [list(plane.shape) for plane in one] == [
        [2, channels, HEIGHT, WIDTH] for channels in (9, 1, 1, 2, 1)
    ]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[0], other[0])
    assert all(bool(torch.isfinite(plane).all()) for plane in one)


def test_a_share_of_the_samples_has_no_motion() -> None:
    pieces = [prepare(make_footage(0))]

    def kinds(dropout: float) -> list[str]:
        found = []
        for seed in range(40):
            inputs, _, _, flow, _ = draw_sample(
                pieces, settings(dropout=dropout), np.random.default_rng(seed)
            )
            told, moves = bool(inputs[:, 5:8].any()), bool(flow.any())
            found.append("moving" if told else "blind" if moves else "still")
            if found[-1] == "still":
                assert bool((inputs[:, 8] == 1).all())
            if found[-1] == "blind":
                assert not inputs[:, 8].any()
        return found

    assert set(kinds(0.0)) == {"moving"} and set(kinds(1.0)) == {"blind", "still"}
    assert set(kinds(0.5)) == {"moving", "blind", "still"}


def growing() -> Footage:
    """Footage of which every frame has another disparity."""
    footage = make_footage(0)
    return footage._replace(disparity=footage.disparity + torch.arange(4.0).view(4, 1, 1, 1))


def test_a_still_sample_repeats_one_frame() -> None:
    pieces, still = [prepare(growing())], 0
    for seed in range(20):
        _, truth, _, flow, _ = draw_sample(pieces, settings(dropout=1.0), np.random.default_rng(seed))
        assert torch.equal(truth[0], truth[1]) == (not flow.any())
        still += not flow.any()
    assert 0 < still < 20


def test_time_runs_both_ways_and_the_flow_with_it() -> None:
    pieces, ways = [prepare(growing())], set()
    for seed in range(12):
        inputs, truth, _, flow, confidence = draw_sample(
            pieces, settings(dropout=0.0), np.random.default_rng(seed)
        )
        ways.add(bool(truth[0].max() > truth[1].max()))
        along, against = (
            ((inputs[1:, :3] - warp(inputs[:1, :3], sign * flow[1:])).abs() * confidence[1:]).mean()
            for sign in (1, -1)
        )
        assert float(along) < float(against)
    assert ways == {True, False}


def test_truth_stays_with_the_picture() -> None:
    """Cropped, mirrored, played backwards: what is near looks different, and moves."""
    pieces = [prepare(make_footage(0))]
    for seed in range(20):
        inputs, truth, _, flow, _ = draw_sample(pieces, settings(dropout=0.0), np.random.default_rng(seed))
        near = truth[0, 0] > 3
        assert set(truth.unique().tolist()) <= {1.0, 6.0}
        speed = flow[1].norm(dim=0)
        assert float(speed[near].mean()) > 2 * float(speed[~near].mean())
        grey = inputs[0, :3].mean(0)
        assert abs(float(grey[near].mean()) - float(grey[~near].mean())) > 0.2


def test_what_the_right_eye_does_not_confirm_is_not_believed() -> None:
    left = make_footage(0, speed_px=0).left[:1]
    disparity = torch.full((1, 1, HEIGHT, WIDTH), 3.0)
    right = left.roll(-3, dims=-1)
    assert bool(is_believed(left, right, disparity)[..., 8:-8].all())
    assert not is_believed(left, right, disparity)[..., :3].any()
    wrong = disparity.clone()
    wrong[:, :, HEIGHT // 2 :] = -9.0
    believed = is_believed(left, right, wrong)[..., 12:-12]
    assert (
        float(believed[:, :, HEIGHT // 2 + 2 :].float().mean())
        < 0.6
        < float(believed[:, :, : HEIGHT // 2 - 2].float().mean())
    )


def test_footage_is_read_from_clips_and_world(tmp_path: Path) -> None:
    split, shift, match, synthetic = (tmp_path / name for name in ("split", "shift", "match", "synthetic"))
    for folder in (split, shift, match, synthetic):
        folder.mkdir()
    footage = make_footage(0)
    large, disparity = (
        torch.nn.functional.interpolate(plane, scale_factor=2.0)
        for plane in (footage.left, footage.disparity)
    )
    for eye in ("left", "right"):
        write_frames(clip_file(split, "clip", eye), large)
    offset_px = write_disparity(clip_file(match, "clip", "disparity"), disparity)
    write_table(shift / "shift.parquet", [a_shift("clip")], Correction)
    write_table(match / "match.parquet", [ClipDisparity("clip", "k", offset_px, 1.0)], ClipDisparity)
    write_frames(clip_file(synthetic, "shot", "left"), footage.left)
    offset_px = write_disparity(clip_file(synthetic, "shot", "disparity"), footage.disparity)
    write_table(
        synthetic / "synthetic.parquet", [SyntheticShot("shot", "k", 4, offset_px, 0.0)], SyntheticShot
    )
    clip, shot = load_footage(
        split, shift, match, synthetic, [AcceptedClip("clip", "film", "train")], settings()
    )
    for one in (clip, shot):
        assert one.left.shape == (4, 3, HEIGHT, WIDTH) and one.valid.dtype == torch.bool
    assert torch.equal(shot.disparity, footage.disparity) and bool(shot.valid.all())
    torch.testing.assert_close(clip.disparity.amax(), torch.tensor(3.0))  # half the width, half the pixels
    assert synthetic_frames(synthetic) == len(shot.left)
    assert sum(plane.nbytes for plane in prepare(shot)) == PIECE_BYTES * 4 * HEIGHT * WIDTH


def test_learning_lowers_the_loss(tmp_path: Path) -> None:
    run = new_run(tmp_path, "a")
    train_depth(run, [make_footage(seed) for seed in range(2)], settings(steps=40, dropout=0.0))
    losses = [line["depth/error"] for line in run.metrics() if "depth/error" in line]
    assert losses[-1] < 0.6 * losses[0]
    assert run.metrics()[-1]["depth/held_rank"] > 0.6
    assert run.picture("depth.png").stat().st_size > 1000
    assert 0 < float(load_student_network(run.model).rank_share) <= 1


def test_a_killed_training_goes_on_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    footage = [make_footage(seed) for seed in range(2)]
    whole = new_run(tmp_path, "whole")
    train_depth(whole, footage, settings())
    broken = new_run(tmp_path, "broken")
    drawn, draw = 0, training.draw_sample

    def dies(*given: object) -> tuple[Tensor, ...]:
        nonlocal drawn
        drawn += 1
        if drawn > 8:  # two a step; there is a checkpoint after three
            raise KeyboardInterrupt
        return draw(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(training, "draw_sample", dies)
        with pytest.raises(KeyboardInterrupt):
            train_depth(broken, footage, settings())
    assert not broken.model.exists()
    train_depth(broken, footage, settings())
    assert repeatable(broken.metrics()) == repeatable(whole.metrics())
    here, there = (load_file(run.model / "model.safetensors") for run in (whole, broken))
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


def test_footage_too_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="5 frames long"):
        train_depth(new_run(tmp_path, "a"), [make_footage(0)], settings(frames=5))


def test_sizes_that_do_not_fit_are_refused() -> None:
    assert MULTIPLE == 32
    with pytest.raises(ValueError, match="multiple of 32"):
        TrainDepth(
            height=48,
            width=64,
            frames=2,
            motion_dropout=0.3,
            optimizer=an_optimizer(steps=1, batch_size=1, learning_rate=0.001, checkpoint_every=1),
        )


def test_one_piece_in_ten_is_held_out() -> None:
    pieces: list[Callable[[], None]] = [lambda: None for _ in range(40)]
    held, learnt = training._part(pieces)  # type: ignore[arg-type]
    assert len(held) == 4 and len(learnt) == 36 and not set(held) & set(learnt)  # type: ignore[arg-type]
    few = pieces[:19]
    assert training._part(few) == (few, few)  # type: ignore[arg-type,comparison-overlap]


def test_motion_is_known_in_both_directions_of_time() -> None:
    """What slides to the left came from the right; at the ends the only neighbour there is counts."""
    before, after = (
        prepare(make_footage(0)).motion[:, :, 0, HEIGHT // 2 + 4 : -4, 8:-8].float().median(-1).values
    )
    assert [bool(row.median() > 1) for row in before] == [False, True, True, True]
    assert [bool(row.median() < -1) for row in after] == [True, True, True, False]


def test_mirrored_motion_runs_the_other_way() -> None:
    piece = prepare(make_footage(0))
    frames = training._play(piece, [1, 2], direction=0)
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


def test_motion_grows_with_what_is_cut_out() -> None:
    frames = training._play(prepare(make_footage(0)), [1, 2], direction=0)
    frames.motion[:] = 1
    for seed in range(5):
        cut = training._crop(frames, (HEIGHT, WIDTH), np.random.default_rng(seed))
        share = np.random.default_rng(seed).uniform(training.SMALLEST_CROP, 1)
        torch.testing.assert_close(
            cut.motion[:, 0], torch.full((2, HEIGHT, WIDTH), 1 / share), rtol=0.03, atol=0
        )
        assert bool((cut.motion[:, 3] == 1).all())
