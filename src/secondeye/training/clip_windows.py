"""Training windows for video inpainters: a crop of a clip's left view, splatted to a crop of its right view.

The two views are cropped at different columns, so that border holes open on both sides, see `column_offsets`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import AcceptedClip
from secondeye.imaging.arrays import (
    frames_from_uint8,
    frames_to_uint8,
    occlusion_mask,
    require_frames,
    require_plane,
    require_same_size,
)
from secondeye.imaging.backends import on_best_device
from secondeye.splat import exponent_at_width, splat
from secondeye.system.errors import UserError
from secondeye.training.column_offsets import column_range, offset_range

SIZE_MULTIPLE = 64  # px, of a crop's sides: the networks' total downsampling
SMALL_SHARE = 0.1  # of clips may be too small for the crop that `choose_size` returns
_ORDER = 1  # separates the seed of the clips' order from those of windows


@dataclass(frozen=True)
class WindowSettings:
    """Settings that all windows share. Raises ValueError for a value out of range."""

    height: int  # px of the crop
    width: int  # px
    weight_exponent_per_px: float  # at 1024 px width, as in params.yaml's splat
    frames: int = 25
    max_stride: int = 6  # between the frames of a window
    max_offset_percent: float = 5.0  # of the crop's width, a border hole beside the median disparity

    def __post_init__(self) -> None:
        for name in ("height", "width", "frames", "max_stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.max_offset_percent <= 50:
            raise ValueError(f"max_offset_percent must be 0 to 50, got {self.max_offset_percent}")


class ClipShape(NamedTuple):
    """The bounds of the windows of a clip."""

    frames: int
    stride: int  # the largest allowed
    height: int  # px of both views after all corrections
    width: int  # px


class ClipWindow(NamedTuple):
    """Where a sample lies in a clip; both crops have the same rows."""

    start: int  # first frame
    stride: int  # frames from one taken to the next
    frames: int
    top: int  # px
    left_column: int  # px, first column of the left view's crop
    right_column: int  # px, first column of the right view's crop
    height: int  # px
    width: int  # px


class InpaintSample(NamedTuple):
    """Input and ground truth of an inpainter. Frames have 8-bit levels, as files do."""

    warped: Tensor  # float32 [T, 3, h, w] in [0, 1], black in the holes
    # bool [T, 1, h, w], True in the holes: what the left crop does not show of the right one
    occlusion: Tensor
    right: Tensor  # float32 [T, 3, h, w] in [0, 1], ground truth


def plan_window(
    rng: np.random.Generator,
    shape: ClipShape,
    median_px: float,  # median disparity of the left view
    settings: WindowSettings,
) -> ClipWindow:
    """Draw a window that fits; depends on its arguments alone. Raises ValueError if none fits."""
    if not fits(shape, settings):
        raise ValueError(f"no window of {settings} fits into {shape}")
    largest = min(settings.max_stride, shape.stride, (shape.frames - 1) // max(1, settings.frames - 1))
    stride = int(rng.integers(1, max(1, largest) + 1))
    start = int(rng.integers(shape.frames - (settings.frames - 1) * stride))
    top = int(rng.integers(shape.height - settings.height + 1))
    room = shape.width - settings.width
    low, high = offset_range(median_px, room, settings.max_offset_percent / 100 * settings.width)
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
    weight_exponent_per_px: float,  # at 1024 px width; scaled to the width of the whole views
) -> InpaintSample:
    """Crop both views and splat the left crop to the right crop.

    Raises ValueError for arrays that are not finite float32 of these shapes, and for a window outside them.
    """
    require_frames(left)
    require_frames(right)
    require_plane(disparity, "disparity")
    require_same_size(left, disparity, "disparity")
    require_same_size(right, disparity, "disparity")
    source = _crop(left, window, window.left_column)
    target = _crop(right, window, window.right_column)
    relative = _crop(disparity, window, window.left_column) - (window.left_column - window.right_column)
    exponent = exponent_at_width(left.shape[-1], weight_exponent_per_px)
    warped, coverage = on_best_device(splat)(source, relative, weight_exponent_per_px=exponent)
    occlusion = occlusion_mask(coverage)
    return InpaintSample(_to_8_bit(warped * ~occlusion), occlusion, _to_8_bit(target))


def _crop(plane: Tensor, window: ClipWindow, column: int) -> Tensor:
    stop = window.start + (window.frames - 1) * window.stride + 1
    rows = slice(window.top, window.top + window.height)
    part = plane[window.start : stop : window.stride, :, rows, column : column + window.width]
    size = (part.shape[0], *part.shape[2:])
    if min(window) < 0 or size != (window.frames, window.height, window.width):
        raise ValueError(f"{window} does not lie inside {list(plane.shape)}")
    return part.contiguous()


def _to_8_bit(frames: Tensor) -> Tensor:
    """Round to the levels of a file, so that a sample is the same from the dataset and from a shard."""
    return frames_from_uint8(frames_to_uint8(frames))


def read_sample(
    dataset: Dataset, clip: DatasetClip, rng: np.random.Generator, settings: WindowSettings
) -> tuple[ClipWindow, InpaintSample]:
    """Draw a window of a clip and cut it out; holds one clip in memory."""
    (left, right), disparity = dataset.views(clip), dataset.disparity(clip)
    window = plan_window(rng, shape_of(clip), float(disparity.median()), settings)
    sample = cut_window(
        left, right, disparity, window, weight_exponent_per_px=settings.weight_exponent_per_px
    )
    return window, sample


def list_clips(
    dataset: Dataset,
    split: str,  # train or test
) -> list[DatasetClip]:
    """Return the accepted clips of one split.

    Raises UserError if there are none, or if the dataset is not the one that was validated.
    """
    dataset.require_validated()
    clips = dataset.clips(split)
    if not clips:
        raise UserError(f"{dataset.path(AcceptedClip)}: no clip is in the split {split!r}")
    return clips


def shape_of(clip: DatasetClip) -> ClipShape:
    """Return the size of a clip's corrected views."""
    quality = clip.quality
    return ClipShape(clip.clip.stop - clip.clip.start, clip.clip.stride, quality.height, quality.width)


def fits(shape: ClipShape, settings: WindowSettings) -> bool:
    """Return whether a window fits at stride 1."""
    have = (shape.frames, shape.height, shape.width)
    need = (settings.frames, settings.height, settings.width)
    return all(has >= needs for has, needs in zip(have, need, strict=True))


def keep_fitting(clips: Sequence[DatasetClip], settings: WindowSettings) -> list[DatasetClip]:
    """Return the clips that a window fits into. Raises UserError, with the sizes, if there are none."""
    shapes = [shape_of(clip) for clip in clips]
    fitting = [clip for clip, shape in zip(clips, shapes, strict=True) if fits(shape, settings)]
    if not fitting:
        frames, height, width = (
            max(getattr(shape, name) for shape in shapes) for name in ("frames", "height", "width")
        )
        raise UserError(
            f"no clip of {len(clips)} has {settings.frames} frames of {settings.width}x{settings.height}: "
            f"the longest has {frames} frames, the largest sides are {width} and {height}; "
            "ask for smaller windows (--frames, --height, --width)"
        )
    return fitting


def choose_size(clips: Sequence[DatasetClip]) -> tuple[int, int]:  # height, width
    """Return the largest crop, in multiples of 64 px, that fits nearly all clips with room for offsets."""
    rows = [clip.quality for clip in clips]
    heights = sorted(row.height for row in rows)
    widths = sorted(
        row.width - math.ceil(max(row.disparity_max_percent / 100 * row.width, 0)) for row in rows
    )
    height, width = (
        sides[int(SMALL_SHARE * len(sides))] // SIZE_MULTIPLE * SIZE_MULTIPLE for sides in (heights, widths)
    )
    return max(height, SIZE_MULTIPLE), max(width, SIZE_MULTIPLE)


def plan_epoch(
    clips: Sequence[DatasetClip],
    seed: int,
    epoch: int,
    indices: Sequence[int],  # of the epoch's windows, ascending
) -> Iterator[tuple[int, DatasetClip]]:
    """Yield the clip of every window.

    Every clip is used once before one is used twice, in a new order each time.
    """
    order: tuple[int, Sequence[int]] = (-1, ())
    for index in indices:
        turn, position = divmod(index, len(clips))
        if order[0] != turn:
            shuffled = np.random.default_rng([seed, epoch, turn, _ORDER]).permutation(len(clips))
            order = (turn, shuffled.tolist())
        yield index, clips[order[1][position]]


def window_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator of one window, its only source of randomness."""
    return np.random.default_rng([seed, epoch, index])


@dataclass(frozen=True, eq=False)
class WindowDataset(IterableDataset[InpaintSample]):
    """One epoch of windows for a DataLoader, sharded over workers and ranks; each holds one clip in memory.

    Workers and ranks together yield the same windows, whatever their number. The next epoch is
    `dataclasses.replace(windows, epoch=1)`. Workers must be spawned (multiprocessing_context="spawn"):
    numba's threads do not survive a fork, and the splat would crash.
    """

    dataset: Dataset
    clips: tuple[DatasetClip, ...]  # that a window fits into
    settings: WindowSettings
    seed: int
    count: int  # windows of an epoch, over all ranks; a multiple of `world_size` gives each as many
    epoch: int = 0
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[InpaintSample]:
        worker = get_worker_info()
        workers, number = (worker.num_workers, worker.id) if worker else (1, 0)
        # Interleaved, ranks first: DataLoader asks a rank's workers in turn.
        own = range(self.rank + number * self.world_size, self.count, self.world_size * workers)
        for index, clip in plan_epoch(self.clips, self.seed, self.epoch, own):
            yield read_sample(self.dataset, clip, window_rng(self.seed, self.epoch, index), self.settings)[1]


def read_windows(
    data: Path,
    split: str,  # train or test
    settings: WindowSettings,
    seed: int,
    count: int | None = None,  # default: one a clip
) -> WindowDataset:
    """Open the windows of a split, and print how many clips are used.

    Raises UserError if the split has no clip, no window fits, or the dataset is not the validated one.
    """
    dataset = Dataset(data)
    clips = list_clips(dataset, split)
    fitting = keep_fitting(clips, settings)
    print(
        f"windows: clips with {settings.frames} frames of {settings.width}x{settings.height}: "
        f"{len(fitting)} of {len(clips)}"
    )
    return WindowDataset(dataset, tuple(fitting), settings, seed, count or len(fitting))
