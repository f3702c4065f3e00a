"""Windows for video inpainters: part of a clip's left view, splatted to a part of its right view.

The two views are cropped at columns of their own, so that border holes are on both sides (see `crops`).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from secondeye.dataset.clip_files import clip_file, read_disparity
from secondeye.dataset.corrections import load_views
from secondeye.dataset.schema import AcceptedClip, Clip, ClipDisparity, ClipQuality, Correction, Film
from secondeye.dataset.stamp import dataset_hash, read_stamp
from secondeye.dataset.tables import read_table
from secondeye.imaging.arrays import (
    frames_from_uint8,
    frames_to_uint8,
    occlusion_mask,
    require_frames,
    require_plane,
    require_same_size,
)
from secondeye.splat import exponent_at_width, splat
from secondeye.system.errors import UserError
from secondeye.training.column_offsets import column_range, offset_range

SIZE_MULTIPLE = 64  # px, of a crop's sides: what the networks shrink by
SMALL_SHARE = 0.1  # of clips may be too small for the crop that `choose_size` names
_ORDER = 1  # tells the generator of the clips' order from those of windows


@dataclass(frozen=True)
class WindowSettings:
    """What every window is. Raises ValueError for a value out of its range."""

    height: int  # px of the crop
    width: int  # px
    weight_exponent_per_px: float  # at 1024 px width, as in params.yaml's splat
    frames: int = 25
    max_stride: int = 6  # every frame, every second one, ...: at most every sixth
    max_offset_percent: float = (
        5.0  # of the crop's width, that a border hole has at most at middling disparity
    )

    def __post_init__(self) -> None:
        for name in ("height", "width", "frames", "max_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.max_offset_percent <= 50:
            raise ValueError(f"max_offset_percent must be 0 to 50, got {self.max_offset_percent}")


class Shape(NamedTuple):
    """What a window has to fit into."""

    frames: int
    stride: int  # the largest that may be taken
    height: int  # px of both views after all corrections
    width: int  # px


class ClipSource(NamedTuple):
    """A clip that windows are taken from."""

    id: str
    film: str  # its file's name
    licence: str
    fps: float  # of the film
    shape: Shape
    shifted: Correction
    offset_px: float  # of its disparity file
    near_px: float  # its largest disparity, without outliers


class ClipWindow(NamedTuple):
    """Where a sample lies in a clip; both crops have the same rows."""

    start: int  # first frame
    stride: int  # frames from one taken to the next
    frames: int
    top: int  # px
    left_column: int  # px, where the left view's crop begins
    right_column: int  # px, where the right view's crop begins
    height: int  # px
    width: int  # px


class Sample(NamedTuple):
    """What an inpainter is given, and the truth. Pictures have 8-bit levels, as files hold them."""

    warped: Tensor
    """float32 [T, 3, h, w] in [0, 1], black where hidden."""
    occlusion: Tensor
    """bool [T, 1, h, w], True where the left crop shows nothing of the right one."""
    right: Tensor
    """float32 [T, 3, h, w] in [0, 1]."""


def plan_window(
    rng: np.random.Generator,
    shape: Shape,
    middle_px: float,  # median disparity of the left view
    settings: WindowSettings,
) -> ClipWindow:
    """Draw a window that fits; depends on what it is given alone. Raises ValueError where none does."""
    if not fits(shape, settings):
        raise ValueError(f"no window of {settings} fits into {shape}")
    largest = min(settings.max_stride, shape.stride, (shape.frames - 1) // max(1, settings.frames - 1))
    stride = int(rng.integers(1, max(1, largest) + 1))
    start = int(rng.integers(shape.frames - (settings.frames - 1) * stride))
    top = int(rng.integers(shape.height - settings.height + 1))
    room = shape.width - settings.width
    low, high = offset_range(middle_px, room, settings.max_offset_percent / 100 * settings.width)
    offset = int(rng.integers(low, high + 1))
    low, high = column_range(offset, room)
    right = int(rng.integers(low, high + 1))
    return ClipWindow(
        start, stride, settings.frames, top, right + offset, right, settings.height, settings.width
    )


def cut_window(
    left: Tensor,  # [T, 3, H, W] in [0, 1]
    right: Tensor,  # [T, 3, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px, of the left view
    window: ClipWindow,
    *,
    weight_exponent_per_px: float,  # at 1024 px width; scaled by what the whole views have
) -> Sample:
    """Cut both crops and splat the left one to the right one's place.

    Raises ValueError for arrays that are not finite float32 of these shapes, and for a window outside them.
    """
    require_frames(left)
    require_frames(right)
    require_plane(disparity, "disparity")
    require_same_size(left, disparity, "disparity")
    require_same_size(right, disparity, "disparity")
    there = _cut(left, window, window.left_column)
    truth = _cut(right, window, window.right_column)
    moved = _cut(disparity, window, window.left_column) - (window.left_column - window.right_column)
    exponent = exponent_at_width(left.shape[-1], weight_exponent_per_px)
    warped, coverage = splat(there, moved, weight_exponent_per_px=exponent)
    occlusion = occlusion_mask(coverage)
    return Sample(_as_stored(warped * ~occlusion), occlusion, _as_stored(truth))


def _cut(plane: Tensor, window: ClipWindow, column: int) -> Tensor:
    stop = window.start + (window.frames - 1) * window.stride + 1
    rows = slice(window.top, window.top + window.height)
    part = plane[window.start : stop : window.stride, :, rows, column : column + window.width]
    there = (part.shape[0], *part.shape[2:])
    if min(window) < 0 or there != (window.frames, window.height, window.width):
        raise ValueError(f"{window} does not lie inside {list(plane.shape)}")
    return part.contiguous()


def _as_stored(frames: Tensor) -> Tensor:
    """What comes back from a file, so that a sample is the same from the dataset and from a shard."""
    return frames_from_uint8(frames_to_uint8(frames))


def read_sample(
    data: Path, source: ClipSource, rng: np.random.Generator, settings: WindowSettings
) -> tuple[ClipWindow, Sample]:
    """Draw a window and cut it out of its clip, the only one in memory."""
    left, right = load_views(data / "split", source.shifted)
    disparity = read_disparity(clip_file(data / "match", source.id, "disparity"), source.offset_px)
    window = plan_window(rng, source.shape, float(disparity.median()), settings)
    weight_exponent_per_px = settings.weight_exponent_per_px
    return window, cut_window(left, right, disparity, window, weight_exponent_per_px=weight_exponent_per_px)


def list_clips(
    data: Path,
    side: str,  # train or test
) -> list[ClipSource]:
    """The kept clips of one split. Raises Refusal when there are none or `validate` has not passed them."""
    everything = read_table(data / "filter" / "accepted.parquet", AcceptedClip)
    scored = {row.id: row for row in read_table(data / "quality" / "quality.parquet", ClipQuality)}
    if read_stamp(data / "validate") != dataset_hash(everything, scored):
        raise UserError(f"{data}: the dataset has changed since it was validated; repeat: dvc repro validate")
    kept = [row for row in everything if row.split == side]
    if not kept:
        raise UserError(f"{data / 'filter' / 'accepted.parquet'}: no clip is in the split {side!r}")
    films = {row.id: row for row in read_table(data / "split" / "films.parquet", Film)}
    clips = {row.id: row for row in read_table(data / "split" / "clips.parquet", Clip)}
    shifted = {row.id: row for row in read_table(data / "shift" / "shift.parquet", Correction)}
    matched = {row.id: row for row in read_table(data / "match" / "match.parquet", ClipDisparity)}
    return [
        _source(films[row.film], clips[row.id], shifted[row.id], matched[row.id], scored[row.id])
        for row in kept
    ]


def _source(
    film: Film, clip: Clip, shifted: Correction, matched: ClipDisparity, scored: ClipQuality
) -> ClipSource:
    near_px = scored.disparity_max_percent / 100 * scored.width
    shape = Shape(clip.stop - clip.start, clip.stride, scored.height, scored.width)
    licence = film.licence or "not stated"
    return ClipSource(clip.id, film.name, licence, film.fps, shape, shifted, matched.offset_px, near_px)


def fits(shape: Shape, settings: WindowSettings) -> bool:
    """Whether a window fits at stride 1."""
    sizes = (shape.frames, shape.height, shape.width)
    return all(has >= needs for has, needs in zip(sizes, settings_size(settings), strict=True))


def settings_size(settings: WindowSettings) -> tuple[int, int, int]:
    """Frames, height and width of a window."""
    return settings.frames, settings.height, settings.width


def keep_fitting(clips: Sequence[ClipSource], settings: WindowSettings) -> list[ClipSource]:
    """The clips a window fits into. Raises Refusal when there is none, with the sizes there are."""
    fitting = [clip for clip in clips if fits(clip.shape, settings)]
    if not fitting:
        frames, height, width = (
            max(getattr(clip.shape, n) for clip in clips) for n in ("frames", "height", "width")
        )
        raise UserError(
            f"none of {len(clips)} clips has {settings.frames} frames of {settings.width}x{settings.height}: "
            f"the longest has {frames} frames, the largest sides are {width} and {height}; "
            "ask for smaller windows (--frames, --height, --width)"
        )
    return fitting


def choose_size(clips: Sequence[ClipSource]) -> tuple[int, int]:  # height, width
    """The largest crop, of multiples of 64 px, that nearly all clips have, with room for every offset."""
    heights = sorted(clip.shape.height for clip in clips)
    widths = sorted(clip.shape.width - math.ceil(max(clip.near_px, 0)) for clip in clips)
    height, width = (
        sides[int(SMALL_SHARE * len(sides))] // SIZE_MULTIPLE * SIZE_MULTIPLE for sides in (heights, widths)
    )
    return max(height, SIZE_MULTIPLE), max(width, SIZE_MULTIPLE)


def plan_epoch(
    clips: Sequence[ClipSource],  # that windows fit into
    seed: int,
    epoch: int,
    indices: range,
) -> Iterator[tuple[int, ClipSource]]:
    """The clips that an epoch's windows at these places are cut from.

    Every clip comes once before one comes twice, in another order each time.
    """
    order: tuple[int, Sequence[int]] = (-1, ())
    for index in indices:
        turn, place = divmod(index, len(clips))
        if order[0] != turn:
            shuffled = np.random.default_rng([seed, epoch, turn, _ORDER]).permutation(len(clips))
            order = (turn, shuffled.tolist())
        yield index, clips[order[1][place]]


def generator_of(seed: int, epoch: int, index: int) -> np.random.Generator:
    """What a window is drawn with: nothing else is random in it."""
    return np.random.default_rng([seed, epoch, index])


@dataclass(frozen=True, eq=False)
class Windows(IterableDataset[Sample]):
    """An epoch of windows for a DataLoader, shared out over workers and ranks; one clip in memory each.

    All workers and ranks together give the same windows, whatever their number. The next epoch is
    `dataclasses.replace(windows, epoch=1)`. Workers must be spawned (multiprocessing_context="spawn"):
    numba's threads do not live on in a forked one, and the splat ends it.
    """

    data: Path
    clips: tuple[ClipSource, ...]  # as `keep_fitting` gives them
    settings: WindowSettings
    seed: int
    count: int  # windows of an epoch, over all ranks; a multiple of `world_size` gives each as many
    epoch: int = 0
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[Sample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        # Interleaved: ranks first, so that each rank's workers take turns as its DataLoader asks them.
        mine = range(self.rank + number * self.world_size, self.count, self.world_size * workers)
        for index, source in plan_epoch(self.clips, self.seed, self.epoch, mine):
            rng = generator_of(self.seed, self.epoch, index)
            yield read_sample(self.data, source, rng, self.settings)[1]


def read_windows(
    data: Path,
    side: str,  # train or test
    settings: WindowSettings,
    seed: int,
    count: int | None = None,  # default: one a clip
) -> Windows:
    """The windows of a dataset's split; prints how many clips are passed over. Raises Refusal as above."""
    clips = list_clips(data, side)
    fitting = keep_fitting(clips, settings)
    print(
        f"windows: {len(fitting)} of {len(clips)} clips have {settings.frames} frames of "
        f"{settings.width}x{settings.height}"
    )
    return Windows(data, tuple(fitting), settings, seed, count or len(fitting))
