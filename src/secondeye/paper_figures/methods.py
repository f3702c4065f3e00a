"""Methods beside each other on the same clip: whole conversions (Figure 7) and inpainters (Figure 8)."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.schema import Score
from secondeye.evaluation.block_scores import Blocks, round_blocks
from secondeye.evaluation.comparison import IN_EVERY_PROTOCOL, Protocol, protocol_rows
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.external import read_external
from secondeye.evaluation.methods import Method, MethodOutput, make_right
from secondeye.evaluation.non_finite import NonFiniteError
from secondeye.evaluation.regions import DISOCCLUDED
from secondeye.evaluation.score import PreparedFrames, compute, inpainted_blocks, prepare, score_depth, update
from secondeye.evaluation.score_methods import NonFiniteMethods
from secondeye.imaging.arrays import disparity_ends, frames_from_uint8, occlusion_mask
from secondeye.matching.flow_matcher import match_flow
from secondeye.metrics.learned import LearnedMetrics
from secondeye.paper_figures.clips import FigureClip
from secondeye.paper_figures.crops import cut_out, find_places
from secondeye.report.contact_sheet import (
    ERROR_GAIN,
    HOLE_COLOUR,
    Tile,
    blank,
    colour_bar,
    disparity_map,
    error_map,
    frame_to_image,
)
from secondeye.warp import warp


class MethodsOnClip(NamedTuple):
    """What all methods made of one clip; pictures are of its middle frame, uint8 [H, W, 3]."""

    clip: FigureClip
    scores: list[Score]
    middle: EvalFrames  # one frame
    rights: dict[str, np.ndarray]  # method -> right view
    blocks: dict[str, Blocks]  # Score.id -> scores of blocks


def missing_weights(method: Method) -> Path | None:
    """Return the first folder of weights that a method needs and that does not exist."""
    folders = (method.depth_weights, method.inpaint_weights)
    return next((folder for folder in folders if folder is not None and not folder.is_dir()), None)


def run_methods(
    clip: FigureClip,
    frames: EvalFrames,
    methods: Sequence[Method],
    learned: LearnedMetrics | None,
    advance: Callable[[int], object],  # is called with 1 after each method
) -> MethodsOnClip:
    """Let every method synthesise the clip's right view, and score it.

    Raises NonFiniteMethods, and UserError for unreadable weights and films.
    """
    prepared = prepare(frames.left, frames.right, frames.regions)
    middle, scores, rights, blocks = len(frames.left) // 2, [], {}, {}
    for method in methods:
        if not method.covers(clip.film):
            advance(1)
            continue
        try:
            output = _synthesise(method, clip, frames)
            found = _score(prepared, output, frames, learned)
        except NonFiniteError as error:
            raise NonFiniteMethods([method.name]) from error
        scores.append(make_row(clip, method.name, method.kind, found))
        blocks[scores[-1].id] = round_blocks(inpainted_blocks(prepared, output.right))
        rights[method.name] = frame_to_image(output.right[middle : middle + 1])
        advance(1)
    one = EvalFrames(*(array[middle : middle + 1] for array in frames))
    return MethodsOnClip(clip, scores, one, rights, blocks)


def make_row(clip: FigureClip, method: str, kind: str, scores: Mapping[str, float]) -> Score:
    """Return a row of scores, NaN where there are none."""
    missing = {field.name: math.nan for field in fields(Score) if field.type in (float, "float")}
    return Score(f"{clip.id} {method}", "", clip.id, clip.film, method, kind, **(missing | dict(scores)))


def _synthesise(method: Method, clip: FigureClip, frames: EvalFrames) -> MethodOutput:
    film = method.external_film(clip.film)
    if film is None or clip.dataset_clip is None:
        return make_right(method, frames)
    return MethodOutput(read_external(film, clip.dataset_clip)[: len(frames.left)], None)


def _score(
    prepared: PreparedFrames, output: MethodOutput, frames: EvalFrames, learned: LearnedMetrics | None
) -> dict[str, float]:
    state = update(prepared, output.right, overlap=0, learned=learned)
    return compute(state) | score_depth(output.disparity, frames)


def conversion_tiles(made: MethodsOnClip, protocol: Protocol) -> list[list[Tile]]:
    """Return the rows of Figure 7: a right view, crops at disocclusions, and the disparity found with it."""
    truth, left = frame_to_image(made.middle.right), frame_to_image(made.middle.left)
    places = find_places(made.middle.regions == DISOCCLUDED)
    shown = _of_protocol(made, protocol)
    found = {name: _matched(made.middle.left, made.rights[name]) for name in shown}
    wanted = _matched(made.middle.left, truth)
    known = wanted[np.isfinite(wanted)]
    low, high = disparity_ends(known) if known.size else (0.0, 1.0)
    rows = [
        [
            ("left eye", left),
            *(("left eye", cut_out(left, place)) for place in places),
            ("disparity, px", colour_bar(truth.shape[:2], f"{low:z.0f}", f"{high:z.0f}")),
        ],
        [
            ("true right eye", truth),
            *(("truth", cut_out(truth, place)) for place in places),
            ("disparity of the true pair", disparity_map(wanted, low, high)),
        ],
    ]
    for name, row in shown.items():
        right = made.rights[name]
        numbers = f"EPE {row.epe_px:.2f} px, correlation {row.disparity_correlation:.2f}"
        rows.append(
            [(f"{name}: PSNR {row.psnr_db:.1f} dB", right)]
            + [(f"HaarPSI {row.haarpsi:.3f}", cut_out(right, place)) for place in places]
            + [(numbers, disparity_map(found[name], low, high))]
        )
    return rows


def inpainting_tiles(made: MethodsOnClip, protocol: Protocol) -> list[list[Tile]]:
    """Return the rows of Figure 8: the same warped view filled by each inpainter, crops, and the error."""
    truth = frame_to_image(made.middle.right)
    places = find_places(made.middle.regions == DISOCCLUDED)
    warped = warp(made.middle.left, made.middle.disparity)
    holes = occlusion_mask(warped.coverage)[0, 0].numpy()
    given = frame_to_image(warped.frames)
    given[holes] = HOLE_COLOUR
    rows = [
        [
            ("input of all: warped left eye", given),
            *(("input", cut_out(given, place)) for place in places),
            ("its error outside the holes", _error(given, truth, holes)),
        ],
        [
            ("true right eye", truth),
            *(("truth", cut_out(truth, place)) for place in places),
            ("", blank(truth.shape[:2])),
        ],
    ]
    for name, row in _of_protocol(made, protocol).items():
        if name in IN_EVERY_PROTOCOL:
            continue  # copies and shifts of the left view inpaint nothing
        right = made.rights[name]
        rows.append(
            [(f"{name}: holes {row.psnr_disoccluded_db:.1f} dB", right)]
            + [(f"HaarPSI {row.haarpsi:.3f}", cut_out(right, place)) for place in places]
            + [(f"error x{ERROR_GAIN}; sharpness {row.gradient_ratio:.2f}", error_map(right, truth))]
        )
    return rows


def _of_protocol(made: MethodsOnClip, protocol: Protocol) -> Mapping[str, Score]:
    return {row.method: row for row in protocol_rows(protocol, made.scores)}


def _error(given: np.ndarray, truth: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Return the error map with the holes marked."""
    drawn = error_map(given, truth).copy()
    drawn[holes] = HOLE_COLOUR
    return drawn


def _matched(left: Tensor, right: np.ndarray) -> np.ndarray:  # [H, W] px, NaN for none
    """Return the disparity that the scores' matcher finds between the left view and a right view."""
    frames = frames_from_uint8(torch.from_numpy(right.copy())[None])
    return match_flow(left, frames).disparity[0, 0].numpy()
