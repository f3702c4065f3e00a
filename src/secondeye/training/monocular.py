"""Films with one eye, as something to learn from (ours).

They have no second eye, so their own frames are taken for the second eye's: they are warped to the left eye
and back, and what is lost on the way is the mask.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secondeye.depth import FAR_QUANTILE, NEAR_QUANTILE, make_depth_estimator
from secondeye.depth.edges import sharpen, upsample
from secondeye.film.cuts import CUT_THRESHOLD
from secondeye.film.packing import fit
from secondeye.film.shots import plan_shots
from secondeye.imaging.arrays import depth_to_disparity, frames_from_uint8
from secondeye.inpaint.fill import FillState, fill
from secondeye.training.scene import Scene, store
from secondeye.video.probe import probe
from secondeye.video.read import ShotReader
from secondeye.warp import Warp, warp

MONO_STRENGTH_PERCENT = (1.5, 5.0)  # of the width, between nearest and farthest point of a film with one eye
RUN_FRAMES = 8  # consecutive frames taken from a film with one eye, or as many as a sample has
LARGEST_RUNS = 6  # of one film


def mono_films(
    films: Sequence[Path],
    frames: int,  # of a run
    height: int,
    width: int,
    seed: int,
) -> list[Scene]:  # stored
    """Films with one eye, by double warping with a plausible disparity.

    At most six runs of consecutive frames of a film, each of one shot, spread evenly. Raises
    UnreadableFilm when
    one cannot be read.
    """
    rng = np.random.default_rng(seed)
    runs = ((film, run) for film in films for run in _read_runs(film, frames, height, width))
    return [
        store(double_warp(run, plausible_disparity(run, rng))._replace(film=film.name)) for film, run in runs
    ]


def double_warp(
    frames: Tensor,  # [T, 3, H, W] in [0, 1], taken for the second eye's
    disparity: Tensor,  # [T, 1, H, W] px, of these frames: x_left = x + disparity
) -> Scene:  # float32
    """Warp to the first eye and back: what the way loses is what a first eye would not have seen (ours).

    The view on the way plays `left`, its own holes filled. Zero disparity loses nothing and changes nothing.
    Raises ValueError for arrays that are not finite float32 of these shapes.
    """
    on_the_way = _warp_left(frames, disparity)
    left, surface = fill_shot(*on_the_way)
    return Scene(left, frames, *warp(left, surface))


def fill_shot(
    frames: Tensor,  # [T, 3, H, W] a warped view
    coverage: Tensor,  # [T, 1, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the warped view
) -> tuple[Tensor, Tensor]:  # [T, 3, H, W] whole pictures, [T, 1, H, W] px with the background's in the holes
    """`fill` over a shot, and the disparity it assumed."""
    state: FillState | None = None
    pictures, surfaces = [], []
    for t in range(len(frames)):
        now = slice(t, t + 1)
        picture, state = fill(frames[now], coverage[now], disparity[now], state)
        pictures.append(picture)
        surfaces.append(torch.from_numpy(state.disparity)[None, None])
    return torch.cat(pictures), torch.cat(surfaces)


def plausible_disparity(
    frames: Tensor,  # [T, 3, H, W] of one shot
    rng: np.random.Generator,
) -> Tensor:  # [T, 1, H, W] px
    """A disparity these frames could have: weight-free depth, of random strength and convergence (ours)."""
    estimates = make_depth_estimator("motion", None, "cpu")([frames])
    raw = torch.cat([estimate.depth for estimate in estimates])
    low, high = np.quantile(raw.numpy(), [FAR_QUANTILE, NEAR_QUANTILE])
    depth = ((raw - float(low)) / max(float(high - low), 1e-6)).clamp(0, 1)
    strength_percent, convergence = float(rng.uniform(*MONO_STRENGTH_PERCENT)), float(rng.uniform(0, 1))
    return sharpen(depth_to_disparity(upsample(depth, frames), strength_percent, convergence), frames)


def _warp_left(frames: Tensor, disparity: Tensor) -> Warp:
    """Warp a second eye's view to the first eye's place: the mirror image of a warp to the right."""
    return Warp(*(plane.flip(-1) for plane in warp(frames.flip(-1), disparity.flip(-1))))


def _read_runs(film: Path, frames: int, height: int, width: int) -> list[Tensor]:
    """Runs of consecutive frames [frames, 3, height, width], each within one shot."""
    info = probe(film)
    plan = plan_shots(info, cut_threshold=CUT_THRESHOLD, min_shot_frames=RUN_FRAMES)
    starts = [s for first, stop in plan.shots for s in range(first, stop - frames + 1, frames)]
    places = np.linspace(0, len(starts) - 1, min(LARGEST_RUNS, len(starts))).round().astype(int)
    reader = ShotReader(film, plan.timestamps)
    runs = []
    for start in (starts[place] for place in places):
        pictures = reader.read(start, start + frames)
        fitted = [fit(picture.rgb, height, width, info.pixel_aspect) for picture in pictures]
        runs.append(frames_from_uint8(torch.from_numpy(np.stack(fitted))))
    return runs
