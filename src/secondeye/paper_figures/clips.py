"""The clips that figures show: held-out clips of the dataset, or pieces of stereo films."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from secondeye.dataset.corrections import apply_corrections
from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import EvalClip
from secondeye.evaluation.eval_clips import EvalFrames, load_clip
from secondeye.evaluation.manifest import freeze_manifest
from secondeye.evaluation.regions import regions_from_match
from secondeye.evaluation.score_crops import MIN_SIDE_PX
from secondeye.execution.incremental import BadClip
from secondeye.film.cuts import cut_detection_size, find_cuts
from secondeye.film.letterbox import find_letterbox, max_over_time, measure_profile, union
from secondeye.film.packing import PAIR
from secondeye.imaging.arrays import frames_from_uint8
from secondeye.matching import make_matcher
from secondeye.params import Params
from secondeye.sources import Source, list_sources
from secondeye.sources.packing_detection import detect_packing
from secondeye.sources.source import is_still
from secondeye.sources.stills import list_images, scale
from secondeye.sources.views import ViewInfo, read_stereo_frames, view_info
from secondeye.stages.film_alignment import align_clips, sample_clip
from secondeye.stages.match import match_within_bound
from secondeye.stages.stereo_pair import find_corrections
from secondeye.system.errors import UserError
from secondeye.system.process import lock_dir
from secondeye.video.probe import TruncatedFilm, UnreadableFilm, probe


class UnusableFilm(UserError):
    """A film that is no stereo film, or too small; others may be shown without it."""


@dataclass(frozen=True)
class FigureClip:
    """One clip, whose frames are read when they are needed."""

    id: str
    film: str  # id
    name: str  # of the film
    load: Callable[[int], EvalFrames]  # reads at most so many frames, of one shot
    dataset_clip: DatasetClip | None = None  # None: a piece of a film


class _Piece(NamedTuple):
    """Which part of a film a clip is."""

    source: Source
    share: float  # of the film's length, where its middle lies
    max_width: int  # px of a view


def dataset_clips(dataset: Dataset, params: Params, per_film: int) -> list[FigureClip]:
    """Return of each held-out film the clips with the largest disocclusions.

    Raises UserError if no clip is held out.
    """
    with lock_dir(dataset.folder("evaluate")):
        clips = freeze_manifest(dataset, params.evaluate.regions)
    by_film: dict[str, list[EvalClip]] = {}
    for clip in sorted(clips, key=lambda clip: (-clip.disoccluded_share, clip.id)):
        by_film.setdefault(clip.film, []).append(clip)
    chosen = [dataset.clip(clip.id) for film in sorted(by_film) for clip in by_film[film][:per_film]]
    return [
        FigureClip(clip.id, clip.film.id, clip.film.name, partial(load_clip, dataset, clip), clip)
        for clip in chosen
    ]


def film_clips(films: Sequence[Path], params: Params, per_film: int, max_width: int) -> list[FigureClip]:
    """Return evenly spaced clips of stereo films; a folder stands for all stereo films in it.

    Raises UserError for what is no stereo film, and if its packing is unclear.
    """
    sources = [source for path in films for source in _sources(path)]
    clips = []
    for source in sources:
        film = hashlib.sha256(str(source.paths[0].resolve()).encode()).hexdigest()[:8]
        count = 1 if is_still(source.paths[0]) else per_film
        for number in range(count):
            piece = _Piece(source, (number + 1) / (count + 1), max_width)
            clips.append(
                FigureClip(f"{film}_{number}", film, source.name, partial(_load_piece, piece, params))
            )
    return clips


def _sources(path: Path) -> list[Source]:
    if not path.exists():
        raise UserError(f"{path}: does not exist; name a stereo film, or a folder of stereo films")
    if path.is_dir():
        return list_sources(path)
    packing, remark = detect_packing(path)
    return [Source(path.name, (path,), packing, "", "", remark)]


def _load_piece(piece: _Piece, params: Params, max_frames: int) -> EvalFrames:
    """Read a piece and correct, match and classify it as the stages do. Raises UnusableFilm."""
    source = piece.source
    try:
        left, right = _read_shot(piece, params, max_frames)
        sampled = sample_clip(left, right, 0, params.shift)
        stated = source.packing == PAIR
        aligned = align_clips([sampled] if sampled else [], params.shift, stated=stated)
        correction = find_corrections(
            left,
            right,
            params.shift,
            source.name,
            "",
            rectification=aligned.rectification,
            order=aligned.order,
        )
        left, right = apply_corrections(left, right, correction)
        disparity, _ = match_within_bound(params.match, left, right, correction.near_px)
    except (UnreadableFilm, TruncatedFilm) as error:
        raise UnusableFilm(str(error)) from error
    except BadClip as error:
        raise UnusableFilm(f"{source.paths[0]}: {error.reason} ({error.detail})") from error
    if min(left.shape[-2:]) < MIN_SIDE_PX:
        raise UnusableFilm(f"{source.paths[0]}: an eye needs {MIN_SIDE_PX} px in width and height")
    regions = params.evaluate.regions
    matcher = make_matcher(regions.matcher, round(left.shape[-1] * regions.max_disparity_percent / 100))
    found = regions_from_match(matcher, left, right, tolerance_px=regions.tolerance_px)
    return EvalFrames(left, right, disparity, found)


def _read_shot(piece: _Piece, params: Params, max_frames: int) -> tuple[Tensor, Tensor]:  # [T, 3, H, W] each
    """Read frames around the middle of the piece, the longest shot of them, without the letterbox."""
    source, info = piece.source, view_info(piece.source)
    start = max(0, round(piece.share * _count_frames(source)) - max_frames // 2)
    start_pts = round(start / info.fps / info.time_base)
    read = islice(read_stereo_frames(source, start_pts=start_pts, size=_size(info, piece)), max_frames)
    pairs = [(frame.left, frame.right) for frame in read]
    if not pairs:
        raise UnusableFilm(f"{source.paths[0]}: no frame could be read")
    first, stop = _longest_shot([left for left, _ in pairs], info, params)
    views = [np.stack(images) for images in zip(*pairs[first:stop], strict=True)]
    profiles = (max_over_time([measure_profile(image) for image in view]) for view in views)
    rows, columns = union(*map(find_letterbox, profiles)).inside(*views[0].shape[1:3])
    left, right = (frames_from_uint8(torch.from_numpy(view[:, rows, columns].copy())) for view in views)
    return left, right


def _size(info: ViewInfo, piece: _Piece) -> tuple[int, int]:
    """Return height and width of a view with square pixels, at most `max_width` wide."""
    width = info.width * float(info.pixel_aspect)
    factor = min(1.0, piece.max_width / width)
    return round(info.height * factor), round(width * factor)


def _count_frames(source: Source) -> int:
    """Return the number of frames; 0 if the header does not state it."""
    first = source.paths[0]
    if first.is_dir():
        return len(list_images(first))
    return 1 if is_still(first) else probe(first).frames


def _longest_shot(images: Sequence[np.ndarray], info: ViewInfo, params: Params) -> tuple[int, int]:
    """Return the first frame of the longest shot, and one past its last."""
    small = cut_detection_size(info.height, info.width)
    cuts, count = find_cuts(
        (scale(image, small) for image in images),
        info.fps,
        threshold=params.split.cut_threshold,
        min_shot_frames=params.split.min_shot_frames,
    )
    return max(pairwise([0, *cuts, count]), key=lambda shot: shot[1] - shot[0])
