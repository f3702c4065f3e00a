"""Training data of the inpainters: the right view with holes, and the ground truth behind the holes."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from secondeye.imaging.arrays import occlusion_mask
from secondeye.inpaint import Conditioning
from secondeye.splat import exponent_at_width, splat
from secondeye.warp import warp

PAPER_EXPONENT_PER_PX = 0.5  # at a width of 1024 px: weights sqrt(2) ** disparity (paper, section 3.2)
CHUNK_FRAMES = 4  # frames that are processed together in float32, so that memory does not grow with a window


class StereoShot(NamedTuple):
    """Consecutive frames of one shot with their ground truth: float32, or quantized to save memory."""

    left: Tensor  # [T, 3, H, W] in [0, 1] left view; quantized: uint8
    right: Tensor  # [T, 3, H, W] in [0, 1] right view, the ground truth; quantized: uint8
    # [T, 3, H, W] in [0, 1] left view warped to the right view, or splatted; quantized: uint8
    warped: Tensor
    # [T, 1, H, W] in [0, 1] how much of each pixel that view covers; quantized: uint8
    coverage: Tensor
    disparity: Tensor  # [T, 1, H, W] px, of the right view, 0 where coverage is 0; quantized: float16

    @property
    def planes(self) -> tuple[Tensor, ...]:
        """The five planes in the order of the fields."""
        return tuple(self)


class TrainingShot(Protocol):
    """A shot that windows are read from; itself only a small description."""

    @property
    def film(self) -> str:
        """The film it is from; films are held out whole. A synthetic shot counts as a film of its own."""

    @property
    def frames(self) -> int:
        """Number of frames."""

    @property
    def height(self) -> int:
        """Height of both views, px."""

    @property
    def width(self) -> int:
        """Width of both views, px."""

    @property
    def max_stride(self) -> int:
        """Largest frame stride of a window."""

    def read(self, frames: Sequence[int]) -> StereoShot:
        """Return these frames, quantized; the indices ascend. Raises UserError if a file is damaged."""


class ShotPool(NamedTuple):
    """The shots of a training."""

    stereo: Sequence[TrainingShot]
    mono: Sequence[TrainingShot]  # warped twice, see `training.monocular`


def warp_shot(
    left: Tensor,  # [T, 3, H, W] in [0, 1]
    right: Tensor,  # [T, 3, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px of the left view
    conditioning: Conditioning,
) -> StereoShot:  # float32
    """Warp the left view as an inpainter of this conditioning is trained.

    On the CPU, for samples are drawn beside the GPU and must not depend on which process draws them.
    """
    if conditioning == "warp":
        return StereoShot(left, right, *warp(left, disparity))
    exponent = exponent_at_width(left.shape[-1], PAPER_EXPONENT_PER_PX)
    warped, coverage = splat(left, disparity, weight_exponent_per_px=exponent)
    holes = occlusion_mask(coverage)  # as the stage `splat` marks them
    return StereoShot(left, right, warped * ~holes, 1 - holes.float(), warp(left, disparity).disparity)


def quantize(
    shot: StereoShot,  # float32
) -> StereoShot:
    """Convert a shot to 8-bit frames and float16 disparity, a quarter of the memory."""
    left, right, warped, coverage = (quantize_plane(plane) for plane in shot.planes[:4])
    return StereoShot(left, right, warped, coverage, shot.disparity.to(torch.float16))


def dequantize(
    shot: StereoShot,  # quantized
) -> StereoShot:  # float32
    """Convert a quantized shot back."""
    left, right, warped, coverage = (dequantize_plane(plane) for plane in shot.planes[:4])
    return StereoShot(left, right, warped, coverage, shot.disparity.float())


def quantize_plane(
    plane: Tensor,  # [T, C, H, W] in [0, 1]
) -> Tensor:  # uint8 [T, C, H, W]
    """Round frames or coverage to 8 bits."""
    return (plane.clamp(0, 1) * 255).round().to(torch.uint8)


def dequantize_plane(
    plane: Tensor,  # uint8 of any shape
) -> Tensor:  # in [0, 1]
    """Convert 8 bits to float32, on any device."""
    return plane.float() / 255


def join_frames(shots: Iterable[StereoShot]) -> StereoShot:
    """Join shots along time."""
    return StereoShot(*(torch.cat(planes) for planes in zip(*shots, strict=True)))


def usable_frames(
    shot: TrainingShot,
    min_size: tuple[int, int, int],  # frames, height and width of a sample
) -> int:
    """Return the number of frames of a shot, 0 if it is too short or too small for a sample."""
    frames, height, width = min_size
    return shot.frames if shot.frames >= frames and shot.height >= height and shot.width >= width else 0
