"""The depth student: its weight files, and the estimator that runs it.

The folder has config.json (training size and encoder) and model.safetensors, in float16. The estimator runs
the network on every frame and `motion` on the shot. Both report the correlation with the true depth to expect
and are weighted by it: a student that has learnt little, or sees a film unlike its training data, has little
weight.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.depth.cues import MOTION_CHANNELS, measure_motion, stack_cues
from secondeye.depth.interface import DepthEstimate, DepthEstimator, DepthState
from secondeye.depth.motion import motion_depth, working_size
from secondeye.depth.student_network import SIDE_MULTIPLE_PX, Encoder, Student
from secondeye.depth.temporal_smoothing import smooth, smoothed_frame
from secondeye.imaging.arrays import resize, to_float_frames
from secondeye.imaging.optical_flow import to_gray
from secondeye.system.errors import UserError

KIND = "secondeye depth student 1"  # in config.json; changes when older weights no longer fit
CONFIG, WEIGHTS = "config.json", "model.safetensors"
MAX_ASPECT = 4.0  # wider and taller films are squeezed
BATCH_FRAMES = 4  # counted from the shot's start, so that results do not depend on the windows
MAX_CONFIDENCE = 0.99  # of the correlation
CONFIDENCE_DECAY = 0.9  # of the network's confidence from frame to frame: the mixture must not flicker


class FrameDepth(NamedTuple):
    """Depth of one frame from one source."""

    depth: Tensor  # [1, 1, h, w]
    confidence: float  # the expected correlation with the true depth, [0, 1]


class _NetworkFrame(NamedTuple):
    """One frame at the network's size."""

    rgb: Tensor  # [3, h, w]
    gray: np.ndarray  # uint8 [h, w]


def save_student(model: Student, folder: Path) -> None:
    """Write config.json and model.safetensors in float16; UserError if they cannot be written."""
    config = {"kind": KIND, "height": model.height, "width": model.width, "encoder": model.encoder}
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the weights cannot be written ({error}); free some disk") from error


def load_student_network(folder: Path) -> Student:
    """Load the network in eval mode; UserError if files are missing or do not fit."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: missing {', '.join(missing)}; name the folder of a trained depth student")
    try:
        config = dict(json.loads((folder / CONFIG).read_text()))
        if config.get("kind") != KIND:
            raise UserError(
                f"{folder}/{CONFIG}: kind is {config.get('kind')!r}, not {KIND!r}; "
                "name the folder of a trained depth student"
            )
        encoder = config.get("encoder", "own")  # weights of earlier versions do not name it
        if encoder not in get_args(Encoder):
            raise ValueError(f"unknown encoder {encoder!r}")
        model = Student(int(config["height"]), int(config["width"]), encoder)
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{folder}/{CONFIG}: damaged ({reason}); train the depth student again") from error
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"{folder}/{WEIGHTS}: does not fit {CONFIG}; train the depth student again"
        ) from error
    return model.eval()


def load_student(folder: Path, device: str) -> DepthEstimator:
    """Load the estimator from a student's folder; UserError if files are missing or do not fit."""
    return make_student_estimator(load_student_network(folder), device)


def make_student_estimator(model: Student, device: str) -> DepthEstimator:
    """Return the estimator that runs a network; its depth has the working size of `motion`.

    It looks as far ahead as `motion` does, and BATCH_FRAMES more.
    """
    network = model.to(device).eval()

    def estimate(windows: Iterable[Tensor], state: DepthState | None = None) -> Iterator[DepthEstimate]:
        frames = (_downscale(frame.cpu()) for window in windows for frame in to_float_frames(window))
        for_network, for_motion, for_smoothing = itertools.tee(frames, 3)
        from_network = predict_depth(network, for_network, state)
        from_motion = motion_depth((frame[None] for frame in for_motion), state)
        skip = 0 if state is None else state.next_frame - state.first_frame
        to_smooth = itertools.islice(for_smoothing, skip, None)
        smoothed = None if state is None else smoothed_frame(state.tensors)
        for seen, moved, frame in zip(from_network, from_motion, to_smooth, strict=True):
            mixed = mix(seen, FrameDepth(moved.depth, moved.confidence))
            smoothed = smooth(mixed.depth[0, 0].numpy(), to_gray(frame[None])[0], smoothed)
            confidence = torch.tensor(seen.confidence, dtype=torch.float64)
            tensors = {**moved.state.tensors, **smoothed.tensors(), "network_confidence": confidence}
            # Motion looks back farther than the network's batch reaches, so its first frame serves both.
            yield DepthEstimate(
                torch.from_numpy(smoothed.depth)[None, None],
                mixed.confidence,
                moved.state._replace(tensors=tensors),
            )

    return estimate


def predict_depth(
    network: Student,
    frames: Iterator[Tensor],  # [3, H, W] of one shot, from the state's first frame on
    state: DepthState | None = None,
) -> Iterator[FrameDepth]:
    """Yield the network's raw depth of each frame at its own size, and its smoothed confidence."""
    first, start, smoothed = 0, 0, None
    if state is not None:
        first, start = state.first_frame, state.next_frame
        smoothed = float(state.tensors["network_confidence"])
    number = start - start % BATCH_FRAMES  # the batch is predicted again, whole, for equal results
    shot = _with_motion(_to_network_size(network, frames))
    for batch in _batches(itertools.islice(shot, number - first, None)):
        inputs = torch.stack([stack_cues(frame.rgb, motion) for frame, motion in batch])
        with torch.inference_mode():
            depth, log_uncertainty = network(inputs.to(network.rank_share.device))
            confidences = expected_correlation(log_uncertainty, network.rank_share).tolist()
        for one, confidence in zip(depth.cpu(), confidences, strict=True):
            number += 1
            if number <= start:
                continue
            if smoothed is None:
                smoothed = confidence
            else:
                smoothed = CONFIDENCE_DECAY * smoothed + (1 - CONFIDENCE_DECAY) * confidence
            yield FrameDepth(one[None].clone(), smoothed)


def expected_correlation(
    log_uncertainty: Tensor,  # [..., 1, h, w]
    rank_share: Tensor,  # scalar in [0, 1]
) -> Tensor:  # [...] in [0, 1]
    """Return the rank correlation with the true depth to expect for errors of this size.

    Errors are in units of the true depth's mean absolute deviation. If both have the same distribution,
    errors of mean size b leave 1 - b^2 of the variance explained, which is a correlation of sqrt(1 - b^2).
    `rank_share` is the rank correlation measured after training, as a share of the one expected in this way.
    """
    size = log_uncertainty.exp().mean(dim=(-3, -2, -1))
    return (1 - size.square()).clamp(0, 1).sqrt() * rank_share


def mix(from_network: FrameDepth, from_motion: FrameDepth) -> FrameDepth:
    """Weight sources of correlation r by r / (1 - r^2), which is optimal for independent errors.

    The result has the size of `from_motion`, mean 0, and the correlation that both reach together.
    """
    size = from_motion.depth.shape[-2:]
    total, weights, evidence = torch.zeros(1, 1, *size), 1e-6, 0.0
    for depth, confidence in (from_network, from_motion):
        correlation = min(confidence, MAX_CONFIDENCE)
        weight = correlation / (1 - correlation**2)
        total, weights = total + weight * _standardise(resize(depth, *size)), weights + weight
        evidence += correlation * weight
    return FrameDepth(total / weights, (evidence / (1 + evidence)) ** 0.5)


def _standardise(depth: Tensor) -> Tensor:
    """Scale to mean 0 and standard deviation 1; 0 if it is flat."""
    centred = depth - depth.mean()
    return centred / centred.std(correction=0).clamp_min(1e-4)


def _downscale(frame: Tensor) -> Tensor:  # [3, H, W] -> [3, h, w]
    return resize(frame[None], *working_size(*frame.shape[1:]))[0].clamp(0, 1)


def network_size(model: Student, height: int, width: int) -> tuple[int, int]:
    """Return the input's height and width: the film's aspect, about as many pixels as in training."""
    aspect = min(max(width / height, 1 / MAX_ASPECT), MAX_ASPECT)
    area = model.height * model.width
    sides = ((area / aspect) ** 0.5, (area * aspect) ** 0.5)
    rows, columns = (max(1, round(side / SIDE_MULTIPLE_PX)) * SIDE_MULTIPLE_PX for side in sides)
    return rows, columns


def _to_network_size(model: Student, frames: Iterator[Tensor]) -> Iterator[_NetworkFrame]:
    for frame in frames:
        small = resize(frame[None], *network_size(model, *frame.shape[1:]))
        yield _NetworkFrame(small[0], to_gray(small)[0])


def _with_motion(frames: Iterator[_NetworkFrame]) -> Iterator[tuple[_NetworkFrame, Tensor]]:
    """Yield each frame with its motion to the previous one; the first with its motion to the next one.

    A shot of one frame has no motion: zeros.
    """
    before = next(frames, None)
    if before is None:
        return
    second = next(frames, None)
    if second is None:
        yield before, torch.zeros(MOTION_CHANNELS, *before.gray.shape)
        return
    yield before, measure_motion(before.gray, second.gray)[0]
    for now in itertools.chain([second], frames):
        yield now, measure_motion(now.gray, before.gray)[0]
        before = now


def _batches(items: Iterator[tuple[_NetworkFrame, Tensor]]) -> Iterator[list[tuple[_NetworkFrame, Tensor]]]:
    while batch := list(itertools.islice(items, BATCH_FRAMES)):
        yield batch
