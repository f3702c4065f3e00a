"""The student: its folder, and the estimator made of it.

The folder holds config.json (the size it was trained at) and model.safetensors. The estimator asks the
network about every frame and `motion` about the shot. Both say how well their depth should correlate with the
truth, and are weighed by that: a student that has learnt little, or meets a film unlike all it has seen,
leaves the word to motion. Ours.
"""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secondeye.depth import DepthEstimate, DepthEstimator
from secondeye.depth.cues import MOTION_CHANNELS, measure_motion, stack_cues, to_grey
from secondeye.depth.motion import LONG_SIDE_PX, motion_depth
from secondeye.depth.student_network import MULTIPLE, Student
from secondeye.depth.temporal_smoothing import smooth_over_time
from secondeye.imaging.arrays import resize
from secondeye.system.errors import UserError

__all__ = ["Student", "load_student", "load_student_network", "make_student_estimator", "save_student"]

KIND = "secondeye depth student 1"  # grows when weights of before no longer fit
CONFIG, WEIGHTS = "config.json", "model.safetensors"
WIDEST_ASPECT = 4.0  # films beyond are squeezed
BATCH_FRAMES = 4  # counted from the shot's start: windows must not matter
SUREST = 0.99  # correlation: nobody is believed beyond
MEMORY = 0.9  # of the network's confidence from frame to frame: the mixture may not flicker


def save_student(model: Student, folder: Path) -> None:
    """Write config.json and model.safetensors into `folder`, made if need be; Refusal on a full disk."""
    config = {"kind": KIND, "height": model.height, "width": model.width}
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(weights, folder / WEIGHTS)
        (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: the weights can not be written ({error}); free some disk") from error


def load_student_network(folder: Path) -> Student:
    """Read the network back, in eval mode; Refusal where files are missing or of another model."""
    missing = [name for name in (CONFIG, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}: it must be the folder of a trained depth student"
        )
    try:
        config = dict(json.loads((folder / CONFIG).read_text()))
        if config.get("kind") != KIND:
            raise UserError(f"{folder}/{CONFIG} describes {config.get('kind')!r}, not {KIND!r}")
        model = Student(int(config["height"]), int(config["width"]))
    except (ValueError, KeyError, TypeError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{folder}/{CONFIG} is damaged ({reason}): train the depth student anew") from error
    try:
        model.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(f"{folder}/{WEIGHTS} does not fit {CONFIG}: train the depth student anew") from error
    return model.eval()


def load_student(folder: Path, device: str) -> DepthEstimator:
    """Load the estimator from a student's folder; Refusal where files are missing or of another model."""
    return make_student_estimator(load_student_network(folder), device)


class _Seen(NamedTuple):
    """One frame as the network sees it, and as the answer is given."""

    frame: Tensor  # [3, h, w]
    grey: np.ndarray  # uint8 [h, w]


class Answer(NamedTuple):
    """What one judge says about a frame."""

    depth: Tensor  # [1, 1, h, w]
    confidence: float  # the correlation with the truth to expect, [0, 1]


def make_student_estimator(model: Student, device: str) -> DepthEstimator:
    """The estimator of a network that is in memory; its depth has the size `motion` works at.

    It looks as far ahead as `motion` does, and BATCH_FRAMES more.
    """
    network = model.to(device).eval()

    def estimate(windows: Iterable[Tensor]) -> Iterator[DepthEstimate]:
        frames = (_shrink(frame.cpu()) for window in windows for frame in window)
        for_network, for_motion, for_steady = itertools.tee(frames, 3)
        learnt = ask_network(network, for_network)
        moved = (Answer(*one) for one in motion_depth(frame[None] for frame in for_motion))
        mixed, counted = itertools.tee(mix(*pair) for pair in zip(learnt, moved, strict=True))
        shot = (
            (one.depth[0, 0].numpy(), to_grey(frame)) for one, frame in zip(mixed, for_steady, strict=True)
        )
        for depth, one in zip(smooth_over_time(shot), counted, strict=True):
            yield DepthEstimate(torch.from_numpy(depth)[None, None], one.confidence)

    return estimate


def ask_network(
    network: Student,
    frames: Iterator[Tensor],  # [3, H, W] of one shot
) -> Iterator[Answer]:
    """What the network says about each frame, at its own size: raw depth, and how sure it is."""
    trust = None
    for batch in _batches(_with_motion(_see(network, frames))):
        inputs = torch.stack([stack_cues(frame.frame, motion) for frame, motion in batch])
        with torch.inference_mode():
            depth, log_uncertainty = network(inputs.to(network.rank_share.device))
            confidences = confidence_of(log_uncertainty, network.rank_share).tolist()
        for one, confidence in zip(depth.cpu(), confidences, strict=True):
            trust = confidence if trust is None else MEMORY * trust + (1 - MEMORY) * confidence
            yield Answer(one[None].clone(), trust)


def confidence_of(
    log_uncertainty: Tensor,  # [..., 1, h, w]
    rank_share: Tensor,
) -> Tensor:  # [...] in [0, 1]
    """The rank correlation with the truth to expect where errors have this size.

    Errors of mean size b, in a truth of mean deviation 1, leave 1 - b^2 of its variance explained when they
    are distributed as it is, which is a correlation of the root of that; how much of it comes true as rank
    correlation was measured after training (ours).
    """
    size = log_uncertainty.exp().mean(dim=(-3, -2, -1))
    return (1 - size.square()).clamp(0, 1).sqrt() * rank_share


def mix(learnt: Answer, moved: Answer) -> Answer:
    """Weigh judges of correlation r by r / (1 - r^2), which is best when their errors are independent.

    The answer has the size of `moved`, mean 0, and the correlation that the two reach together.
    """
    size = moved.depth.shape[-2:]
    total, weights, evidence = torch.zeros(1, 1, *size), 1e-6, 0.0
    for depth, confidence in (learnt, moved):
        sure = min(confidence, SUREST)
        weight = sure / (1 - sure**2)
        total, weights = total + weight * _standard(resize(depth, *size)), weights + weight
        evidence += sure * weight
    return Answer(total / weights, (evidence / (1 + evidence)) ** 0.5)


def _standard(depth: Tensor) -> Tensor:
    """Mean 0 and deviation 1; 0 where it is flat."""
    centred = depth - depth.mean()
    return centred / centred.std(correction=0).clamp_min(1e-4)


def _shrink(frame: Tensor) -> Tensor:  # [3, H, W] -> [3, h, w]
    height, width = frame.shape[1:]
    scale = min(1.0, LONG_SIDE_PX / max(height, width))
    return resize(frame[None], max(1, round(height * scale)), max(1, round(width * scale)))[0].clamp(0, 1)


def working_size(model: Student, height: int, width: int) -> tuple[int, int]:
    """Height and width the network sees: the film's aspect, and about as many pixels as in training."""
    aspect = min(max(width / height, 1 / WIDEST_ASPECT), WIDEST_ASPECT)
    area = model.height * model.width
    sides = ((area / aspect) ** 0.5, (area * aspect) ** 0.5)
    rows, columns = (max(1, round(side / MULTIPLE)) * MULTIPLE for side in sides)
    return rows, columns


def _see(model: Student, frames: Iterator[Tensor]) -> Iterator[_Seen]:
    for frame in frames:
        small = resize(frame[None], *working_size(model, *frame.shape[1:]))[0]
        yield _Seen(small, to_grey(small))


def _with_motion(seen: Iterator[_Seen]) -> Iterator[tuple[_Seen, Tensor]]:
    """Yield each frame and how it moves to the one before; the first: to the next; a single one: zeros."""
    before = next(seen, None)
    if before is None:
        return
    second = next(seen, None)
    if second is None:
        yield before, torch.zeros(MOTION_CHANNELS, *before.grey.shape)
        return
    yield before, measure_motion(before.grey, second.grey)[0]
    for now in itertools.chain([second], seen):
        yield now, measure_motion(now.grey, before.grey)[0]
        before = now


def _batches(items: Iterator[tuple[_Seen, Tensor]]) -> Iterator[list[tuple[_Seen, Tensor]]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH_FRAMES:
            yield batch
            batch = []
    if batch:
        yield batch
