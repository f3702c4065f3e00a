"""Clips of the real stereo films in the folder SECONDEYE_FOOTAGE, as the stage `evaluate` gets them."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from aligned_views import align_views
from torch import Tensor

from secondeye.evaluation.eval_clips import EvalFrames
from secondeye.evaluation.regions import regions_from_match
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.matching import make_matcher
from secondeye.matching.match_clip import match_clip
from secondeye.params import load_params
from secondeye.sources.source import Source
from secondeye.sources.views import read_stereo_frames


class RealFilm(NamedTuple):
    """A stereo film and the clips that are taken of it."""

    name: str
    paths: tuple[str, ...]  # in the folder of footage
    packing: str
    size: tuple[int, int] | None  # height, width of a view, px; None: as it is
    starts: tuple[int, ...] = (0,)  # first frame of each clip
    frames: int = 6  # of a clip


FILMS = (
    RealFilm("candle", ("sv_candle_ego/candle_ego_sbs_2560x720.mp4",), "sbs", (288, 512), (0, 90, 180, 270)),
    RealFilm("cones", ("pair_cones/im2.png", "pair_cones/im6.png"), "pair", None, frames=1),
    RealFilm("toon", ("sv_toon_shot/shot_sbs.mp4",), "sbs", (512, 512), (0, 30)),
    RealFilm("kitti", ("sq_kitti1/image_l", "sq_kitti1/image_r"), "pair", (186, 614), (0, 12)),
    RealFilm("motorcycle", ("pair_motorcycle/left.png", "pair_motorcycle/right.png"), "pair", None, frames=1),
    RealFilm("fence", ("pair_creste/left.png", "pair_creste/right.png"), "pair", (360, 640), frames=1),
)


def read_clips(footage: Path, film: RealFilm) -> Iterator[EvalFrames]:
    """Read the clips of a film, aligned and matched as the stages do it with the settings of params.yaml."""
    source = Source(film.name, tuple(footage / path for path in film.paths), film.packing, "", "", "")
    match, evaluate = (
        getattr(load_params(Path("params.yaml")), section) for section in ("match", "evaluate")
    )
    count = max(film.starts) + film.frames
    read = [(frame.left, frame.right) for frame in islice(read_stereo_frames(source, size=film.size), count)]
    for start in film.starts:
        pairs = zip(*read[start : start + film.frames], strict=True)
        views = [frames_from_uint8(torch.from_numpy(np.stack(images))) for images in pairs]
        left, right = align_views(views[0], views[1])
        disparity, _ = match_clip(match, left, right)
        search_px = round(left.shape[-1] * evaluate.regions.max_disparity_percent / 100)
        matcher = make_matcher(evaluate.regions.matcher, search_px)
        regions = regions_from_match(matcher, left, right, tolerance_px=evaluate.regions.tolerance_px)
        yield EvalFrames(left, right, disparity, regions)


def without_colour(clip: EvalFrames) -> EvalFrames:
    """Return the clip in gray, with the same matches."""

    def gray(frames: Tensor) -> Tensor:
        return frames.mean(1, keepdim=True).expand_as(frames).contiguous()

    return clip._replace(left=gray(clip.left), right=gray(clip.right))
