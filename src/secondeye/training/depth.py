"""Training of the depth student on the disparity of clips (matched) and synthetic shots (exact), and on
monocular films whose depth `motion` estimates.

A sample is a few consecutive frames with their optical flow, played forwards or backwards, cropped, mirrored
and recoloured.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secondeye.dataset.shards import open_dataset
from secondeye.depth import efficientnet_lite
from secondeye.depth.cues import MOTION_CHANNELS, measure_motion, stack_cues
from secondeye.depth.losses import (
    error_loss,
    gradient_loss,
    laplace_loss,
    normalise,
    ranking_loss,
    scale_to_fit,
    temporal_loss,
)
from secondeye.depth.student import expected_correlation, save_student
from secondeye.depth.student_network import SIDE_MULTIPLE_PX, Student
from secondeye.imaging.arrays import resize
from secondeye.imaging.optical_flow import to_gray
from secondeye.metrics.depth import rank_correlation
from secondeye.params import TrainDepth
from secondeye.run_folder import Run
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.training.depth_shots import DepthShot, list_shots
from secondeye.training.held_out import held_out_films
from secondeye.training.loop import training_loop
from secondeye.training.mono_depth import MonoDepthRun, prepare_mono_depth
from secondeye.training.provenance import mono_films
from secondeye.training.sample_loader import Sample
from secondeye.training.sample_order import SampleOrder, is_second_kind, number_of_kind
from secondeye.training.sample_sheet import write_sample_sheet

NAME = "depth"  # prefix of metrics and checkpoints
GRADIENT_WEIGHT, RANKING_WEIGHT, TEMPORAL_WEIGHT = 0.5, 0.5, 0.2  # relative to the likelihood's 1
SAMPLE_SCALE = 0.75  # of height and width: smaller samples train faster
MIN_CROP_SHARE = 0.5  # of height and width, resized to the size of a sample
SHEET_SHOTS = 6
VALIDATION_SHOTS = 200  # at most


class _Frames(NamedTuple):
    """Frames in playback order."""

    left: Tensor  # [t, 3, h, w]
    disparity: Tensor  # [t, 1, h, w] px
    valid: Tensor  # bool [t, 1, h, w]
    motion: Tensor  # [t, 4, h, w], to the frame played before


def train(run: Run, data: Path, settings: TrainDepth) -> None:
    """Train a student on a dataset; see `train_depth`. Prepares monocular films in the run's folder."""
    dataset = open_dataset(data)
    films = [film.path for film in mono_films(dataset)] if settings.mono_share else []
    mono = prepare_mono_depth(films, run.checkpoints / "mono", settings)
    train_depth(run, list_shots(dataset, settings), settings, mono)


def train_depth(
    run: Run, shots: Sequence[DepthShot], settings: TrainDepth, mono: Sequence[MonoDepthRun] = ()
) -> None:
    """Train a student, calibrate its confidence, and write it to `run.model` and a sample sheet.

    Calibrates and validates on held-out films, see `held_out_films`; never on monocular ones, whose depth is
    an estimate. Raises UserError if no shot is as long as a sample.
    """
    usable = [shot for shot in shots if shot.frames >= settings.frames]
    if not usable:
        raise UserError(
            f"train_depth: no clip or shot is {settings.frames} frames long; lower train_depth.frames in "
            "params.yaml"
        )
    held_out, trained_on = hold_out(usable)
    held_out = _spread(held_out, VALIDATION_SHOTS)
    torch.manual_seed(settings.optimizer.seed)
    model = make_student(settings)
    training_loop(
        model,
        run,
        name=NAME,
        hyperparams=settings.optimizer,
        draw=DrawSample(trained_on, settings, mono),
        loss=compute_loss,
        validate=lambda trained: _validate(trained, held_out, settings.frames),
    )
    if is_main_process():
        scores = run.metrics()[-1]
        rank, expected = (scores[f"{NAME}/{score}"] for score in ("held_out_rank", "held_out_expected_rank"))
        model.rank_share.fill_(min(1.0, max(0.0, rank) / max(expected, 1e-6)))
        save_student(model, run.model)
        _write_sheet(run.picture("depth.png"), model, held_out, settings.frames)


def make_student(settings: TrainDepth) -> Student:
    """Build the network that training starts from. Raises UserError if its weights are not installed."""
    if settings.initial_weights == "none":
        return Student(settings.height, settings.width)
    model = Student(settings.height, settings.width, "efficientnet-lite0")
    encoder = nn.ModuleList([model.stem, model.stages])
    efficientnet_lite.load_imagenet_weights(encoder, efficientnet_lite.find_imagenet_weights())
    return model


def hold_out(shots: list[DepthShot]) -> tuple[list[DepthShot], list[DepthShot]]:
    """Split shots by film into held out and trained on; with too few films both are all shots.

    The confidence has to be calibrated on films the student has not seen, or it is too high on new ones.
    """
    films = held_out_films("train_depth", (shot.film for shot in shots))
    if not films:
        return shots, shots
    return [shot for shot in shots if shot.film in films], [shot for shot in shots if shot.film not in films]


def _spread(shots: list[DepthShot], count: int) -> list[DepthShot]:
    """Return at most `count` shots, evenly spread."""
    if len(shots) <= count:
        return shots
    return [shots[k] for k in np.linspace(0, len(shots) - 1, count).round().astype(int)]


def measure_window(shot: DepthShot, indices: range, *, backwards: bool) -> _Frames:
    """Read consecutive frames and measure the motion of each to the frame played before it.

    The first frame of a shot, or the last when played backwards, has only the motion to the frame after it.
    """
    outer = range(indices.start - (not backwards), indices.stop + backwards)
    read = range(max(0, outer.start), min(shot.frames, outer.stop))
    frames = shot.read(read)
    grays = [to_gray(frame[None])[0] for frame in frames.left]
    pairs = [measure_motion(*pair) for pair in itertools.pairwise(grays)]
    to_next, to_previous = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    motion = [*to_next, *to_previous[-1:]] if backwards else [*to_next[:1], *to_previous]
    first = indices.start - read.start
    own = slice(first, first + len(indices))
    played = _Frames(frames.left[own], frames.disparity[own], frames.valid[own], torch.stack(motion[own]))
    return _Frames(*(plane.flip(0) for plane in played)) if backwards else played


class DrawSample:
    """Draws consecutive frames: cues, disparity, valid mask, flow to the previous frame, px, its confidence.

    Each is [T, C, h, w] of `sample_size`. With probability `motion_dropout`, and always in monocular runs,
    motion cues are dropped: half of these samples repeat one frame, half only zero the cues. Monocular runs
    come in proportion to the confidence of their depth.
    """

    def __init__(
        self, shots: Sequence[DepthShot], settings: TrainDepth, mono: Sequence[MonoDepthRun] = ()
    ) -> None:
        self.shots, self.mono, self.settings = shots, mono, settings
        self.mono_share = settings.mono_share if mono else 0.0
        seed = settings.optimizer.seed
        self.order = SampleOrder([1] * len(shots), seed)
        self.mono_order = SampleOrder([run.visits for run in mono], seed + 1)

    def __call__(self, number: int, rng: np.random.Generator) -> Sample:
        shot, is_mono = self._choose(number)
        count = self.settings.frames
        start = int(rng.integers(shot.frames - count + 1))
        backwards = bool(rng.random() < 0.5)
        dropped = rng.random() < self.settings.motion_dropout or is_mono
        still = bool(rng.random() < 0.5)
        frames = measure_window(shot, range(start, start + count), backwards=backwards)
        if dropped and still:
            frames = _Frames(*(plane[:1].repeat(count, 1, 1, 1) for plane in frames))
            frames.motion[:, :3], frames.motion[:, 3:] = 0, 1
        frames = _mirror(_crop(frames, sample_size(self.settings), rng), rng)
        motion = torch.zeros_like(frames.motion) if dropped and not still else frames.motion
        cues = stack_cues(_recolour(frames.left, rng), motion)
        flow_px = frames.motion[:, :2] * (frames.left.shape[-1] / 100)
        return cues, frames.disparity, frames.valid, flow_px, frames.motion[:, 3:]

    def _choose(self, number: int) -> tuple[DepthShot, bool]:
        """Return the shot of a sample, and whether it is a monocular run."""
        place = number_of_kind(number, self.mono_share)
        if is_second_kind(number, self.mono_share):
            return self.mono[self.mono_order.shot(place)], True
        return self.shots[self.order.shot(place)], False


def sample_size(settings: TrainDepth) -> tuple[int, int]:
    """Return height and width of a sample, px: multiples of 32."""
    rows, columns = (
        max(1, round(side * SAMPLE_SCALE / SIDE_MULTIPLE_PX)) * SIDE_MULTIPLE_PX
        for side in (settings.height, settings.width)
    )
    return rows, columns


def _crop(frames: _Frames, size: tuple[int, int], rng: np.random.Generator) -> _Frames:
    """Crop at random and resize to `size`; motion, in percent of the width, grows accordingly."""
    height, width = frames.left.shape[-2:]
    share = rng.uniform(MIN_CROP_SHARE, 1)
    rows, columns = round(height * share), round(width * share)
    first_row, first_column = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    cut = [
        plane[..., first_row : first_row + rows, first_column : first_column + columns] for plane in frames
    ]
    smooth = F.interpolate(torch.cat([cut[0], cut[3]], dim=1), size, mode="bilinear", align_corners=False)
    left, motion = smooth.split([3, MOTION_CHANNELS], dim=1)
    motion = torch.cat([motion[:, :3] * (width / columns), motion[:, 3:]], dim=1)
    # Not bilinear: disparities of the two sides of an edge must not mix.
    disparity, valid = (F.interpolate(plane.float(), size, mode="nearest") for plane in cut[1:3])
    return _Frames(left, disparity, valid > 0, motion)


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
    """Augment colour, contrast, sharpness and noise: so the student does not rely on colour."""
    mixing = torch.eye(3)[torch.from_numpy(rng.permutation(3))] if rng.random() < 0.5 else torch.eye(3)
    mixing = mixing + torch.from_numpy(rng.normal(0, 0.1, (3, 3))).float()
    frames = torch.einsum("ij,tjhw->tihw", mixing, frames)
    gray = frames.mean(1, keepdim=True)
    frames = gray + (frames - gray) * rng.choice([0.0, rng.uniform(0.2, 1.2)], p=[0.2, 0.8])
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
    """Return the loss of a batch of samples [B, T, C, h, w], and its terms to log."""
    cues, disparity, valid, flow_px, confidence = sample
    raw, log_uncertainty = (plane.unflatten(0, cues.shape[:2]) for plane in model(cues.flatten(0, 1)))
    prediction, target = normalise(raw, valid), normalise(disparity, valid)
    depth = scale_to_fit(prediction, target, valid)
    terms = {
        "likelihood": laplace_loss(depth, target, log_uncertainty, valid),
        "gradient": gradient_loss(depth, target, valid),
        "ranking": ranking_loss(prediction, target, valid),
        "temporal": temporal_loss(prediction, flow_px, confidence),
    }
    value = terms["likelihood"] + GRADIENT_WEIGHT * terms["gradient"]
    value = value + RANKING_WEIGHT * terms["ranking"] + TEMPORAL_WEIGHT * terms["temporal"]
    return value, terms | {"error": error_loss(depth, target, valid)}


class _Prediction(NamedTuple):
    """The student's output for a few frames, normalised for the losses."""

    frames: _Frames
    depth: Tensor  # [1, t, 1, h, w] normalised
    target: Tensor  # [1, t, 1, h, w] normalised
    uncertainty: Tensor  # [1, t, 1, h, w] in the same unit
    valid: Tensor  # bool [1, t, 1, h, w]


def _predict(model: nn.Module, shots: Sequence[DepthShot], count: int) -> Iterator[_Prediction]:
    """Run the student on the first `count` frames of every shot, without augmentation."""
    for shot in shots:
        frames = measure_window(shot, range(count), backwards=False)
        with torch.inference_mode():
            raw, log_uncertainty = model(stack_cues(frames.left, frames.motion))
        valid = frames.valid[None]
        target = normalise(frames.disparity[None], valid)
        depth = scale_to_fit(normalise(raw[None], valid), target, valid)
        yield _Prediction(frames, depth, target, log_uncertainty[None].exp(), valid)


def _validate(model: nn.Module, shots: Sequence[DepthShot], count: int) -> dict[str, float]:
    """Compute mean error, rank correlation, and the rank correlation expected from the uncertainty."""
    errors, ranks, expected = [], [], []
    for one in _predict(model, shots, count):
        errors.append(float(error_loss(one.depth, one.target, one.valid)))
        ranks.append(rank_correlation(one.depth[0], one.target[0], one.valid[0]))
        expected.append(float(expected_correlation(one.uncertainty[0].log(), torch.ones(())).mean()))
    return {
        "held_out_error": float(np.mean(errors)),
        "held_out_rank": float(np.mean(ranks)),
        "held_out_expected_rank": float(np.mean(expected)),
    }


def _write_sheet(path: Path, model: nn.Module, shots: Sequence[DepthShot], count: int) -> None:
    """Write an image with a column for each shot: left view, true depth, predicted depth, uncertainty."""
    columns = []
    for one in _predict(model, shots[:SHEET_SHOTS], count):
        depth = [(plane[0, 0, 0] + 1.5) / 4 for plane in (one.target, one.depth)]
        grays = [plane.expand(3, -1, -1) for plane in (*depth, one.uncertainty[0, 0, 0])]
        columns.append(torch.cat([one.frames.left[0], *grays], dim=1))
    sheet = (torch.cat(columns, dim=2).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    write_sample_sheet(path, sheet)
