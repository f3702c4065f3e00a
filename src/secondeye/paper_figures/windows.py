"""Borders between the windows of a diffusion inpainter, with and without overlap (Figure 9)."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from torch import Tensor

from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.methods import warp_and_inpaint
from secondeye.evaluation.regions import DISOCCLUDED
from secondeye.inpaint import InpaintPlan
from secondeye.inpaint.diffusion import Diffusion
from secondeye.inpaint.frame_windows import stream_windows
from secondeye.metrics.holes import temporal_error
from secondeye.paper_figures.crops import cut_out, find_places
from secondeye.report.contact_sheet import ERROR_GAIN, Tile, error_map, frame_to_image

WINDOWS = 3  # of a network's full length, that are read of a shot; two are needed
_LEVELS = 255


class WindowErrors(NamedTuple):
    """Temporal error of inpainted holes, levels of 255, as of `temporal_error`; NaN without holes."""

    overlap_frames: int
    borders: int  # between two windows
    at_borders: float  # from the last frame of a window to the first new one of the next
    elsewhere: float


class WindowsOnClip(NamedTuple):
    """Both results of one shot."""

    errors: list[WindowErrors]  # without and with overlap
    rows: list[list[Tile]]


def compare_windows(
    inpainter: Diffusion,
    plan: InpaintPlan,  # of the inpainter, for frames of the clip's size
    clip: EvalFrames,
) -> WindowsOnClip | None:
    """Inpaint a shot twice, with the plan's overlap and without; None if it is shorter than two windows.

    The shot is cut to whole windows, since the last one would otherwise reach back and overlap.
    """
    length = len(clip.left) // plan.window_frames * plan.window_frames
    if length < 2 * plan.window_frames:
        return None
    shot = EvalFrames(*(array[:length] for array in clip))
    errors, rights = [], []
    for overlap in (0, plan.overlap_frames):
        inpainter.reuse(replace(plan, overlap_frames=overlap))
        right = warp_and_inpaint(shot.left, shot.disparity, inpainter)
        errors.append(measure_borders(right, shot, plan.window_frames, overlap))
        rights.append(right)
    inpainter.reuse(plan)
    return WindowsOnClip(errors, _tiles(shot, rights, plan))


def find_borders(frames: int, window_frames: int, overlap_frames: int) -> list[int]:
    """Return the first new frame of every window but the first."""
    windows = stream_windows(range(frames), window_frames, overlap_frames)
    return list(accumulate(len(new) for _, new in windows))[:-1]


def measure_borders(
    right: Tensor,  # [T, 3, H, W], inpainted
    shot: EvalFrames,  # of whole windows
    window_frames: int,
    overlap_frames: int,
) -> WindowErrors:
    """Measure the temporal error of disocclusions at the borders between windows, and elsewhere."""
    holes = shot.regions == DISOCCLUDED
    borders = set(find_borders(len(right), window_frames, overlap_frames))
    sums = {True: (0.0, 0.0), False: (0.0, 0.0)}  # by whether the second frame begins a window
    for second in range(1, len(right)):
        pair = slice(second - 1, second + 1)
        total, count = temporal_error(right[pair], shot.right[pair], holes[pair])
        before = sums[second in borders]
        sums[second in borders] = before[0] + total, before[1] + count
    at_borders, elsewhere = (
        _LEVELS * (total / count) ** 0.5 if count else float("nan") for total, count in sums.values()
    )
    return WindowErrors(overlap_frames, len(borders), at_borders, elsewhere)


def _tiles(shot: EvalFrames, rights: Sequence[Tensor], plan: InpaintPlan) -> list[list[Tile]]:
    """Return a row per result: the frames on both sides of the first border, crops, and their change."""
    border = plan.window_frames  # of both
    place = find_places(shot.regions[border - 1 : border] == DISOCCLUDED)[0]
    names = ["without overlap", f"overlap of {plan.overlap_frames}", "truth"]
    rows = []
    for name, right in zip(names, [*rights, shot.right], strict=True):
        before, after = (frame_to_image(right[frame : frame + 1]) for frame in (border - 1, border))
        rows.append(
            [
                (f"{name}: frame {border - 1}, last of a window", before),
                (f"frame {border}, first of the next", after),
                (f"frame {border - 1}", cut_out(before, place)),
                (f"frame {border}", cut_out(after, place)),
                (f"change x{ERROR_GAIN}", cut_out(error_map(before, after), place)),
            ]
        )
    return rows
