"""The shots that inpainters are trained on: stereo clips, synthetic shots, and monocular films.

A listing holds descriptions only. Windows are read from the dataset's files when a sample is drawn, one shot
at a time, so memory does not grow with the dataset beyond a few kilobytes a clip.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, Correction, SyntheticShot
from secondeye.dataset.shards import open_dataset
from secondeye.inpaint import Conditioning
from secondeye.run_folder import Run
from secondeye.system.errors import UserError
from secondeye.system.process import is_main_process
from secondeye.training.held_out import held_out_films
from secondeye.training.mono_runs import prepare_mono_runs
from secondeye.training.monocular import RUN_FRAMES, double_warp
from secondeye.training.provenance import mono_films, train_clips
from secondeye.training.stereo_shot import (
    ShotPool,
    StereoShot,
    quantize,
    usable_frames,
    warp_shot,
)
from secondeye.warp import warp

MONO_SCALE = (0.7, 1.4)  # of a clip's own disparity, if its left view is used as a monocular film
MONO_SEED = 0  # of these scales, and of the disparities that monocular films are warped with


class Planes(NamedTuple):
    """Which planes a training uses: what it does not use is 0 where it would have to be read or computed."""

    left: bool
    disparity: bool


ALL_PLANES = Planes(left=True, disparity=True)


@dataclass(frozen=True)
class ClipShot:
    """A stereo clip, warped with its matched disparity; for `splat` as the stage of this name did it."""

    dataset: Dataset
    clip: DatasetClip  # with the rows that reading needs
    conditioning: Conditioning
    used: Planes = ALL_PLANES

    @property
    def film(self) -> str:
        return self.clip.film.id

    @property
    def frames(self) -> int:
        return self.clip.clip.stop - self.clip.clip.start

    @property
    def height(self) -> int:
        return self.clip.clip.height - abs(self.clip.correction.vertical_px)

    @property
    def width(self) -> int:
        return self.clip.clip.width - abs(self.clip.correction.shift_px)

    @property
    def max_stride(self) -> int:
        return self.clip.clip.stride

    def read(self, frames: Sequence[int]) -> StereoShot:
        if self.conditioning == "splat":
            return self._read_splat(frames)
        left, right = self.dataset.views(self.clip, frames)
        disparity = self.dataset.disparity(self.clip, frames)
        return quantize(warp_shot(left, right, disparity, self.conditioning))

    def _read_splat(self, frames: Sequence[int]) -> StereoShot:
        warped, occlusion = self.dataset.splat(self.clip, frames)
        if any(self.used):
            left, right = self.dataset.views(self.clip, frames)
        else:
            right = self.dataset.right_view(self.clip, frames)
            left = torch.zeros_like(right)
        surface = torch.zeros(occlusion.shape)
        if self.used.disparity:
            surface = warp(left, self.dataset.disparity(self.clip, frames)).disparity
        return quantize(StereoShot(left, right, warped * ~occlusion, 1 - occlusion.float(), surface))


@dataclass(frozen=True)
class MonoClip(ClipShot):
    """The left view of a clip as a monocular film: warped to another view and back, see `double_warp`."""

    scale: float = 1.0  # of its matched disparity
    max_gradient: float = 0.0  # see `double_warp`

    def read(self, frames: Sequence[int]) -> StereoShot:
        left, _ = self.dataset.views(self.clip, frames)
        disparity = self.dataset.disparity(self.clip, frames) * self.scale
        return quantize(double_warp(left, disparity, self.conditioning, self.max_gradient))


@dataclass(frozen=True)
class RenderedShot:
    """A synthetic shot, warped with its exact disparity."""

    dataset: Dataset
    row: SyntheticShot
    height: int
    width: int
    conditioning: Conditioning

    @property
    def film(self) -> str:
        return self.row.id

    @property
    def frames(self) -> int:
        return self.row.frames

    @property
    def max_stride(self) -> int:
        return self.row.frames

    def read(self, frames: Sequence[int]) -> StereoShot:
        left, right = self.dataset.synthetic_views(self.row, frames)
        disparity = self.dataset.synthetic_disparity(self.row, frames)
        return quantize(warp_shot(left, right, disparity, self.conditioning))


def list_shots(
    run: Run,
    data: Path,
    min_size: tuple[int, int, int],  # frames, height and width of a sample
    conditioning: Conditioning,
    used: Planes = ALL_PLANES,
    *,
    mono_max_gradient: float = 0.0,  # of monocular shots, see `double_warp`
) -> ShotPool:
    """List all training shots; prepares those of monocular films in the run's folder of checkpoints.

    Raises UserError if every clip is held out, and UnreadableFilm if a monocular film cannot be read.
    """
    opened = open_dataset(data)
    clips = [clip.only(Correction, ClipDisparity) for clip in train_clips(opened)]
    dataset = replace(opened)  # without the tables that were read, which are larger than the listing
    stereo = [ClipShot(dataset, clip, conditioning, used) for clip in clips]
    films = [film.path for film in mono_films(dataset)]
    view = clips[0].clip
    size = max(RUN_FRAMES, min_size[0]), max(view.height, min_size[1]), max(view.width, min_size[2])
    runs = prepare_mono_runs(
        films, run.checkpoints / "mono", *size, MONO_SEED, conditioning, mono_max_gradient
    )
    return ShotPool(
        [*stereo, *rendered_shots(dataset, conditioning)],
        [*_mono_clips(dataset, clips, conditioning, mono_max_gradient), *runs],
    )


def rendered_shots(dataset: Dataset, conditioning: Conditioning) -> list[RenderedShot]:
    """List the synthetic shots of a dataset, which share one size."""
    rows = dataset.rows(SyntheticShot)
    if not rows:
        return []
    height, width = dataset.synthetic_views(rows[0], [0])[0].shape[2:]
    return [RenderedShot(dataset, row, height, width, conditioning) for row in rows]


def _mono_clips(
    dataset: Dataset, clips: Sequence[DatasetClip], conditioning: Conditioning, max_gradient: float
) -> list[MonoClip]:
    rng = np.random.default_rng(MONO_SEED)
    scales = [float(rng.uniform(*MONO_SCALE)) for _ in clips]
    return [
        MonoClip(dataset, clip, conditioning, scale=scale, max_gradient=max_gradient)
        for clip, scale in zip(clips, scales, strict=True)
    ]


def select_usable(
    name: str,  # of the model
    pool: ShotPool,
    min_size: tuple[int, int, int],  # frames, height and width of a sample
) -> ShotPool:
    """Return the shots that samples fit into, and print how many. Raises UserError if there are none."""
    usable = ShotPool(*([shot for shot in shots if usable_frames(shot, min_size)] for shots in pool))
    count, total = (sum(map(len, shots)) for shots in (usable, pool))
    frames, height, width = min_size
    message = f"{name}: shots with {frames} frames of {width}x{height}: {count} of {total}"
    if not count:
        raise UserError(f"{message}; lower train_{name}'s frames, height or width in params.yaml")
    if is_main_process():
        print(message, file=sys.stderr)
    return usable


def hold_out(
    name: str,  # of the model
    pool: ShotPool,
) -> tuple[ShotPool, ShotPool]:  # held out, trained on
    """Split shots by film, see `held_out_films`; with too few films both sides are the whole pool."""
    held = held_out_films(name, (shot.film for shots in pool for shot in shots))
    if not held:
        return pool, pool

    def select(is_held: bool) -> ShotPool:
        return ShotPool(*([shot for shot in shots if (shot.film in held) == is_held] for shots in pool))

    return select(True), select(False)
