"""Tiles at full size against the film reduced to one tile, within the same memory (Figure 10)."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from secondeye.evaluation.block_scores import Blocks, round_blocks
from secondeye.evaluation.cost import Cost, measure_cost
from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import warp_and_inpaint
from secondeye.evaluation.regions import DISOCCLUDED
from secondeye.evaluation.score import compute, inpainted_blocks, prepare, update
from secondeye.inpaint import InpaintPlan
from secondeye.inpaint.diffusion import Diffusion
from secondeye.paper_figures.crops import cut_out, find_places
from secondeye.report.contact_sheet import ERROR_GAIN, Tile, error_map, frame_to_image


class PlanResult(NamedTuple):
    """What inpainting a shot by one plan gave and took."""

    plan: InpaintPlan
    scores: dict[str, float]  # by column of evaluation.columns
    blocks: Blocks
    cost: Cost


class TilesOnClip(NamedTuple):
    """Both results of one shot."""

    results: list[PlanResult]  # tiled, reduced
    rows: list[list[Tile]]


def compare_tiles(
    inpainter: Diffusion,
    plan: InpaintPlan,  # of the inpainter, for frames of the clip's size
    clip: EvalFrames,
) -> TilesOnClip | None:
    """Inpaint one window by the plan's tiles, and reduced to one tile; None if the plan has one tile only.

    The reduced plan may take as much memory as the tiled one. Raises UserError if that is too little.
    """
    if plan.tiles == 1:
        return None
    shot = EvalFrames(*(array[: plan.window_frames] for array in clip))
    prepared = prepare(shot.left, shot.right, shot.regions)
    options = replace(inpainter.options, tiles=1, memory_bytes=plan.memory_bytes)
    reduced = Diffusion(inpainter.pipeline, options, inpainter.seed)
    results, rights = [], []
    for each in (inpainter, reduced):
        used = each.plan(plan.frame_height, plan.frame_width)
        inpaint = partial(warp_and_inpaint, shot.left, shot.disparity, each)
        right, cost = measure_cost(inpaint, len(shot.left))
        scores = compute(update(prepared, right, overlap=0, learned=None))
        blocks = round_blocks(inpainted_blocks(prepared, right))
        results.append(PlanResult(used, scores, blocks, cost))
        rights.append(right)
    middle = len(shot.left) // 2
    frame = slice(middle, middle + 1)
    truth = frame_to_image(shot.right[frame])
    places = find_places(shot.regions[frame] == DISOCCLUDED)
    rows: list[list[Tile]] = [
        [("true right eye", truth), *(("truth", cut_out(truth, place)) for place in places), ("", 0 * truth)]
    ]
    for result, right in zip(results, rights, strict=True):
        image, scores = frame_to_image(right[frame]), result.scores
        rows.append(
            [(f"{describe_tiles(result.plan)}: holes {scores['psnr_disoccluded_db']:.1f} dB", image)]
            + [(f"HaarPSI {scores['haarpsi']:.3f}", cut_out(image, place)) for place in places]
            + [(f"error x{ERROR_GAIN}; sharpness {scores['gradient_ratio']:.2f}", error_map(image, truth))]
        )
    return TilesOnClip(results, rows)


def describe_tiles(plan: InpaintPlan) -> str:
    """Return the tiles and the working size in a few words."""
    if plan.tiles == 1:
        return f"one tile, {plan.width}x{plan.height}"
    return f"{plan.tile_rows}x{plan.tile_columns} tiles, {plan.width}x{plan.height}"
