"""Shots in memory, in place of those that training reads from files."""

from collections.abc import Sequence
from dataclasses import dataclass

from secondeye.training.depth_shots import DepthFrames
from secondeye.training.stereo_shot import StereoShot, quantize


@dataclass(frozen=True, eq=False)
class MemoryShot:
    """Views of an inpainter's training."""

    shot: StereoShot  # float32
    film: str = ""

    @property
    def frames(self) -> int:
        return len(self.shot.left)

    @property
    def height(self) -> int:
        return self.shot.left.shape[2]

    @property
    def width(self) -> int:
        return self.shot.left.shape[3]

    @property
    def max_stride(self) -> int:
        return self.frames

    def read(self, frames: Sequence[int]) -> StereoShot:
        return quantize(StereoShot(*(plane[list(frames)] for plane in self.shot.planes)))


@dataclass(frozen=True, eq=False)
class MemoryDepthShot:
    """Frames of the student's training."""

    shot: DepthFrames
    film: str = "film"

    @property
    def frames(self) -> int:
        return len(self.shot.left)

    def read(self, frames: Sequence[int]) -> DepthFrames:
        return DepthFrames(*(plane[list(frames)] for plane in self.shot))
