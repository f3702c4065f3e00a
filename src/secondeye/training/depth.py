"""Training of the depth student, from the dataset's disparity and the synthetic world's exact one.

Footage lies in memory, small, with its motion measured once in both directions of time; a sample is a few
consecutive frames of it, played forwards or backwards, cropped, mirrored and recoloured.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.dataset.clip_files import clip_file, read_disparity, read_frames
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import AcceptedClip, ClipDisparity, Correction, SyntheticShot
from secondeye.dataset.tables import read_table
from secondeye.depth.cues import MOTION_CHANNELS, measure_motion, stack_cues, to_grey
from secondeye.depth.losses import (
    error_loss,
    gradient_loss,
    laplace_loss,
    normalise,
    ranking_loss,
    shrink,
    temporal_loss,
    warp,
)
from secondeye.depth.student import confidence_of, save_student
from secondeye.depth.student_network import MULTIPLE, Student
from secondeye.imaging.arrays import resize, resize_disparity
from secondeye.metrics.depth import rank_correlation
from secondeye.params import TrainDepth
from secondeye.run_folder import Run
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.training.loop import Sample, training_loop
from secondeye.training.memory_check import clips_of, require_free_memory, synthetic_frames
from secondeye.training.provenance import train_clips
from secondeye.training.sample_sheet import write_sample_sheet

NAME = "depth"  # of its metrics and checkpoints
GRADIENT_WEIGHT, RANKING_WEIGHT, TEMPORAL_WEIGHT = 0.5, 0.5, 0.2  # beside the likelihood's 1
HELD_OUT = 10  # one piece of footage in ten is not learnt from; it calibrates the uncertainty
MISMATCH = 0.08  # mean colour difference above which a matched disparity is not believed
SAMPLE_SHARE = 0.75  # of height and width: smaller samples are more in the same time
SMALLEST_CROP = 0.5  # of height and width, brought to the size of a sample
SHEET_FRAMES = 6
PIECE_BYTES = 22  # of a pixel of a piece


class Footage(NamedTuple):
    """A few consecutive frames of which the disparity is known."""

    left: Tensor
    """[T, 3, h, w]"""
    disparity: Tensor
    """[T, 1, h, w] px"""
    valid: Tensor
    """bool [T, 1, h, w]: where the disparity can be believed"""


class Piece(NamedTuple):
    """Footage with its motion, in few bytes."""

    left: Tensor  # uint8 [T, 3, h, w]
    disparity: Tensor  # float16 [T, 1, h, w] px
    valid: Tensor  # bool [T, 1, h, w]
    motion: Tensor  # float16 [2, T, 4, h, w]: to the frame before, to the frame after


class _Frames(NamedTuple):
    """A few frames in the order they are played, float32."""

    left: Tensor  # [t, 3, h, w]
    disparity: Tensor  # [t, 1, h, w] px
    valid: Tensor  # bool [t, 1, h, w]
    motion: Tensor  # [t, 4, h, w], to the frame played before


def load_footage(
    split: Path,
    shift: Path,
    match: Path,
    synthetic: Path,
    kept: Sequence[AcceptedClip],  # the clips to learn from
    settings: TrainDepth,
) -> Iterator[Footage]:
    """Read clips, then the world's shots, at the size of `settings`."""
    size = (settings.height, settings.width)
    shifted = {row.id: row for row in read_table(shift / "shift.parquet", Correction)}
    matched = {row.id: row for row in read_table(match / "match.parquet", ClipDisparity)}
    for row in kept:
        yield _read_clip(split, match, shifted[row.id], matched[row.id], size)
    for shot in read_table(synthetic / "synthetic.parquet", SyntheticShot):
        yield _read_shot(synthetic, shot, size)


def _read_clip(
    split: Path, match: Path, shifted: Correction, matched: ClipDisparity, size: tuple[int, int]
) -> Footage:
    left, right = (resize(eye, *size) for eye in load_views(split, shifted))
    file = clip_file(match, matched.id, "disparity")
    disparity = resize_disparity(read_disparity(file, matched.offset_px), *size)
    return Footage(left, disparity, is_believed(left, right, disparity))


def _read_shot(synthetic: Path, row: SyntheticShot, size: tuple[int, int]) -> Footage:
    left = resize(read_frames(clip_file(synthetic, row.id, "left")), *size)
    disparity = read_disparity(clip_file(synthetic, row.id, "disparity"), row.offset_px)
    small = resize_disparity(disparity, *size)
    return Footage(left, small, torch.ones_like(small, dtype=torch.bool))


def is_believed(
    left: Tensor,  # [T, 3, h, w]
    right: Tensor,  # [T, 3, h, w]
    disparity: Tensor,  # [T, 1, h, w] px
) -> Tensor:  # bool [T, 1, h, w]
    """True where the right eye shows the same colour at the matched place: what was filled in is dropped."""
    seen = warp(right, torch.cat([-disparity, torch.zeros_like(disparity)], dim=1))
    difference = F.avg_pool2d((left - seen).abs().mean(1, keepdim=True), 3, 1, 1)
    inside = torch.arange(left.shape[-1]) - disparity >= 0
    return (difference < MISMATCH) & inside


def train(
    run: Run, split: Path, shift: Path, match: Path, filter: Path, synthetic: Path, settings: TrainDepth
) -> None:
    """Train a student on the stages' folders; see `train_depth`. Refusal where memory is too small."""
    kept = train_clips(filter)
    frames = sum(clip.stop - clip.start for clip in clips_of(split, kept)) + synthetic_frames(synthetic)
    require_free_memory(PIECE_BYTES * frames * settings.height * settings.width, "train_depth")
    train_depth(run, load_footage(split, shift, match, synthetic, kept, settings), settings)


def train_depth(run: Run, footage: Iterable[Footage], settings: TrainDepth) -> None:
    """Train a student, calibrate its uncertainty, write it to `run.model` and a sheet of what it has learnt.

    Raises Refusal when no footage is as long as a sample.
    """
    pieces = [prepare(one) for one in footage if len(one.left) >= settings.frames and bool(one.valid.any())]
    if not pieces:
        raise UserError(
            f"train_depth: no clip or shot is {settings.frames} frames long; lower train_depth.frames in "
            "params.yaml"
        )
    held, learnt = _part(pieces)
    torch.manual_seed(settings.optimizer.seed)
    model = Student(settings.height, settings.width)
    training_loop(
        model,
        run,
        name=NAME,
        hyperparams=settings.optimizer,
        draw=lambda rng: draw_sample(learnt, settings, rng),
        loss=compute_loss,
        validate=lambda trained: _judge(trained, held, settings.frames),
    )
    if is_main_process():
        scores = run.metrics()[-1]
        rank, promise = (scores[f"{NAME}/{score}"] for score in ("held_rank", "held_promise"))
        model.rank_share.fill_(min(1.0, max(0.0, rank) / max(promise, 1e-6)))
        save_student(model, run.model)
        _write_sheet(run.picture("depth.png"), model, held, settings.frames)


def prepare(footage: Footage) -> Piece:
    """Measure how each of two or more frames moves to the one before and after; an end has one of them."""
    greys = [to_grey(frame) for frame in footage.left]
    pairs = [measure_motion(*pair) for pair in itertools.pairwise(greys)]
    ahead, back = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    motion = torch.stack([torch.stack([*ahead[:1], *back]), torch.stack([*ahead, *back[-1:]])])
    return Piece((footage.left * 255).round().byte(), footage.disparity.half(), footage.valid, motion.half())


def draw_sample(pieces: Sequence[Piece], settings: TrainDepth, rng: np.random.Generator) -> Sample:
    """Draw consecutive frames: planes, truth, valid, flow to the frame before in px, and its confidence.

    Each [T, C, h, w] of `sample_size`. Of the share `motion_dropout` half stands still, half is not told that
    it moves.
    """
    piece = pieces[int(rng.integers(len(pieces)))]
    start = int(rng.integers(len(piece.left) - settings.frames + 1))
    places = list(range(start, start + settings.frames))
    backwards = rng.random() < 0.5
    dropped = rng.random() < settings.motion_dropout
    stands = bool(rng.random() < 0.5)
    if backwards:
        places.reverse()
    if dropped and stands:
        places = places[:1] * settings.frames
    frames = _play(piece, places, direction=int(backwards))
    if dropped and stands:
        frames = frames._replace(motion=torch.zeros_like(frames.motion))
        frames.motion[:, 3:] = 1
    frames = _mirror(_crop(frames, sample_size(settings), rng), rng)
    told = torch.zeros_like(frames.motion) if dropped and not stands else frames.motion
    inputs = stack_cues(_recolour(frames.left, rng), told)
    flow_px = frames.motion[:, :2] * (frames.left.shape[-1] / 100)
    return inputs, frames.disparity, frames.valid, flow_px, frames.motion[:, 3:]


def _play(piece: Piece, places: list[int], direction: int) -> _Frames:
    return _Frames(
        piece.left[places].float() / 255,
        piece.disparity[places].float(),
        piece.valid[places],
        piece.motion[direction, places].float(),
    )


def sample_size(settings: TrainDepth) -> tuple[int, int]:
    """Height and width of a sample, px: multiples of 32."""
    rows, columns = (
        max(1, round(side * SAMPLE_SHARE / MULTIPLE)) * MULTIPLE for side in (settings.height, settings.width)
    )
    return rows, columns


def _crop(frames: _Frames, size: tuple[int, int], rng: np.random.Generator) -> _Frames:
    """Cut out a part and bring it to `size`; motion in percent of the width grows with it."""
    height, width = frames.left.shape[-2:]
    share = rng.uniform(SMALLEST_CROP, 1)
    rows, columns = round(height * share), round(width * share)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    cut = [plane[..., top : top + rows, left : left + columns] for plane in frames]
    smooth = F.interpolate(torch.cat([cut[0], cut[3]], dim=1), size, mode="bilinear", align_corners=False)
    picture, motion = smooth.split([3, MOTION_CHANNELS], dim=1)
    motion = torch.cat([motion[:, :3] * (width / columns), motion[:, 3:]], dim=1)
    # Disparities of two sides of an edge must not mix.
    disparity, valid = (F.interpolate(plane.float(), size, mode="nearest") for plane in cut[1:3])
    return _Frames(picture, disparity, valid > 0, motion)


def _mirror(frames: _Frames, rng: np.random.Generator) -> _Frames:
    if rng.random() < 0.5:
        return frames
    mirrored = _Frames(*(plane.flip(-1) for plane in frames))
    mirrored.motion[:, 0] *= -1
    return mirrored


def _recolour(
    frames: Tensor,  # [T, 3, h, w]
    rng: np.random.Generator,
) -> Tensor:  # [T, 3, h, w]
    """Another camera in another light: what transfers to other films are shapes and motion, not colours."""
    mixing = torch.eye(3)[torch.from_numpy(rng.permutation(3))] if rng.random() < 0.5 else torch.eye(3)
    mixing = mixing + torch.from_numpy(rng.normal(0, 0.1, (3, 3))).float()
    frames = torch.einsum("ij,tjhw->tihw", mixing, frames)
    grey = frames.mean(1, keepdim=True)
    frames = grey + (frames - grey) * rng.choice([0.0, rng.uniform(0.2, 1.2)], p=[0.2, 0.8])
    level = frames.mean()
    frames = level * rng.uniform(0.4, 1.3) + (frames - level) * rng.uniform(0.5, 1.3)
    frames = frames.clamp(0, 1) ** np.exp(rng.uniform(-0.5, 0.5))
    if rng.random() < 0.4:
        height, width = frames.shape[-2:]
        share = rng.uniform(0.3, 0.8)
        frames = resize(resize(frames, round(height * share), round(width * share)), height, width)
    noise = rng.standard_normal(frames.shape, np.float32) * np.float32(rng.uniform(0, 0.05))
    return (frames + torch.from_numpy(noise)).clamp(0, 1)


def compute_loss(model: nn.Module, sample: Sample) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What a batch of samples [B, T, C, h, w] costs, and its parts."""
    inputs, disparity, valid, flow_px, confidence = sample
    raw, log_uncertainty = (plane.unflatten(0, inputs.shape[:2]) for plane in model(inputs.flatten(0, 1)))
    shown, truth = normalise(raw, valid), normalise(disparity, valid)
    depth = shrink(shown, truth, valid)
    parts = {
        "likelihood": laplace_loss(depth, truth, log_uncertainty, valid),
        "gradient": gradient_loss(depth, truth, valid),
        "ranking": ranking_loss(shown, truth, valid),
        "temporal": temporal_loss(shown, flow_px, confidence),
    }
    value = parts["likelihood"] + GRADIENT_WEIGHT * parts["gradient"]
    value = value + RANKING_WEIGHT * parts["ranking"] + TEMPORAL_WEIGHT * parts["temporal"]
    return value, parts | {"error": error_loss(depth, truth, valid)}


class _Answer(NamedTuple):
    """What the student says about a few frames, as the losses see it."""

    frames: _Frames
    depth: Tensor  # [1, t, 1, h, w] normalised
    truth: Tensor  # [1, t, 1, h, w] normalised
    uncertainty: Tensor  # [1, t, 1, h, w] in the same unit
    valid: Tensor  # bool [1, t, 1, h, w]


def _ask(model: nn.Module, pieces: Sequence[Piece], count: int) -> Iterator[_Answer]:
    """Show the first `count` frames of every piece as they are."""
    for piece in pieces:
        frames = _play(piece, list(range(count)), direction=0)
        with torch.inference_mode():
            raw, log_uncertainty = model(stack_cues(frames.left, frames.motion))
        valid = frames.valid[None]
        truth = normalise(frames.disparity[None], valid)
        depth = shrink(normalise(raw[None], valid), truth, valid)
        yield _Answer(frames, depth, truth, log_uncertainty[None].exp(), valid)


def _judge(model: nn.Module, pieces: Sequence[Piece], count: int) -> dict[str, float]:
    """Mean error, rank correlation and the one that the uncertainty promises, on footage not learnt from."""
    errors, ranks, promises = [], [], []
    for answer in _ask(model, pieces, count):
        errors.append(float(error_loss(answer.depth, answer.truth, answer.valid)))
        ranks.append(rank_correlation(answer.depth[0], answer.truth[0], answer.valid[0]))
        promises.append(float(confidence_of(answer.uncertainty[0].log(), torch.ones(())).mean()))
    return {
        "held_error": float(np.mean(errors)),
        "held_rank": float(np.mean(ranks)),
        "held_promise": float(np.mean(promises)),
    }


def _write_sheet(path: Path, model: nn.Module, pieces: Sequence[Piece], count: int) -> None:
    """Pieces side by side: what the student saw, the truth, what it said, and how unsure it was."""
    columns = []
    for answer in _ask(model, pieces[:SHEET_FRAMES], count):
        depth = [(plane[0, 0, 0] + 1.5) / 4 for plane in (answer.truth, answer.depth)]
        greys = [plane.expand(3, -1, -1) for plane in (*depth, answer.uncertainty[0, 0, 0])]
        columns.append(torch.cat([answer.frames.left[0], *greys], dim=1))
    sheet = (torch.cat(columns, dim=2).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    write_sample_sheet(path, sheet)


def _part(pieces: list[Piece]) -> tuple[list[Piece], list[Piece]]:
    """What is held out and what is learnt from; too few pieces are both."""
    if len(pieces) < 2 * HELD_OUT:
        return pieces, pieces
    return pieces[::HELD_OUT], [piece for place, piece in enumerate(pieces) if place % HELD_OUT]
