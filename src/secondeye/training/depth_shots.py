"""The shots that the depth student is trained on: stereo clips and synthetic shots.

A listing holds descriptions only; windows are read from the dataset's files when a sample is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from secondeye.dataset.clip_files import read_frames
from secondeye.dataset.reader import Dataset, DatasetClip
from secondeye.dataset.schema import ClipDisparity, Correction, SyntheticShot
from secondeye.depth.losses import warp
from secondeye.imaging.arrays import resize, resize_disparity
from secondeye.params import TrainDepth
from secondeye.training.provenance import train_clips

MAX_COLOUR_ERROR = 0.08  # mean colour difference of both views above which a matched disparity is invalid


class DepthFrames(NamedTuple):
    """Consecutive frames with known disparity."""

    left: Tensor  # [T, 3, h, w] in [0, 1]
    disparity: Tensor  # [T, 1, h, w] px
    valid: Tensor  # bool [T, 1, h, w], True where the disparity is reliable


class DepthShot(Protocol):
    """A shot that windows are read from; itself only a small description."""

    @property
    def film(self) -> str:
        """The film it is from; films are held out whole. A synthetic shot counts as a film of its own."""

    @property
    def frames(self) -> int:
        """Number of frames."""

    def read(self, frames: Sequence[int]) -> DepthFrames:
        """Return these frames, which are consecutive, at the size that the student is trained with."""


@dataclass(frozen=True)
class ClipShot:
    """A stereo clip with its matched disparity."""

    dataset: Dataset
    clip: DatasetClip  # with the rows that reading needs
    height: int  # px, of what is read
    width: int

    @property
    def film(self) -> str:
        return self.clip.film.id

    @property
    def frames(self) -> int:
        return self.clip.clip.stop - self.clip.clip.start

    def read(self, frames: Sequence[int]) -> DepthFrames:
        left, right = (
            resize(view, self.height, self.width) for view in self.dataset.views(self.clip, frames)
        )
        disparity = resize_disparity(self.dataset.disparity(self.clip, frames), self.height, self.width)
        return DepthFrames(left, disparity, consistent_mask(left, right, disparity))


@dataclass(frozen=True)
class RenderedShot:
    """A synthetic shot with its exact disparity."""

    dataset: Dataset
    row: SyntheticShot
    height: int  # px, of what is read
    width: int

    @property
    def film(self) -> str:
        return self.row.id

    @property
    def frames(self) -> int:
        return self.row.frames

    def read(self, frames: Sequence[int]) -> DepthFrames:
        source = self.dataset.source("synthetic", self.row.id, "left")
        left = resize(read_frames(source, frames), self.height, self.width)
        disparity = self.dataset.synthetic_disparity(self.row, frames)
        disparity = resize_disparity(disparity, self.height, self.width)
        return DepthFrames(left, disparity, torch.ones_like(disparity, dtype=torch.bool))


def list_shots(dataset: Dataset, settings: TrainDepth) -> list[DepthShot]:
    """List the clips, then the synthetic shots. Raises UserError if all clips are held out."""
    size = (settings.height, settings.width)
    reader = replace(dataset)  # without the tables that were read, which are larger than the listing
    clips = [ClipShot(reader, clip.only(Correction, ClipDisparity), *size) for clip in train_clips(dataset)]
    return [*clips, *(RenderedShot(reader, row, *size) for row in dataset.rows(SyntheticShot))]


def consistent_mask(
    left: Tensor,  # [T, 3, h, w]
    right: Tensor,  # [T, 3, h, w]
    disparity: Tensor,  # [T, 1, h, w] px
) -> Tensor:  # bool [T, 1, h, w]
    """Return True where the right view has the same colour at the matched point; drops filled-in matches."""
    matched = warp(right, torch.cat([-disparity, torch.zeros_like(disparity)], dim=1))
    difference = F.avg_pool2d((left - matched).abs().mean(1, keepdim=True), 3, 1, 1)
    inside = torch.arange(left.shape[-1]) - disparity >= 0
    return (difference < MAX_COLOUR_ERROR) & inside
