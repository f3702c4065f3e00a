"""Training data of the inpainters: the right view with holes, and the ground truth behind the holes."""

from typing import NamedTuple

import torch
from torch import Tensor

from secondeye.conversion.warped_window import warped_window
from secondeye.inpaint import Conditioning
from secondeye.system.process import best_device

QUANTIZED_BYTES = 12  # per pixel, all planes of a quantized shot together


class StereoShot(NamedTuple):
    """Consecutive frames of one shot with their ground truth: float32, or quantized to save memory."""

    left: Tensor  # [T, 3, H, W] in [0, 1] left view; quantized: uint8
    right: Tensor  # [T, 3, H, W] in [0, 1] right view, the ground truth; quantized: uint8
    # [T, 3, H, W] in [0, 1] left view warped to the right view, or splatted; quantized: uint8
    warped: Tensor
    # [T, 1, H, W] in [0, 1] how much of each pixel that view covers; quantized: uint8
    coverage: Tensor
    disparity: Tensor  # [T, 1, H, W] px, of the right view, 0 where coverage is 0; quantized: float16
    # the film it is from; films are held out whole; a synthetic shot counts as a film of its own
    film: str = ""

    @property
    def planes(self) -> tuple[Tensor, ...]:
        """The five planes in the order of the fields."""
        return self.left, self.right, self.warped, self.coverage, self.disparity


class ShotPool(NamedTuple):
    """Quantized shots to draw samples from."""

    stereo: list[StereoShot]
    mono: list[StereoShot]  # warped twice, see `training.monocular`


def warp_shot(
    left: Tensor,  # [T, 3, H, W] in [0, 1]
    right: Tensor,  # [T, 3, H, W] in [0, 1]
    disparity: Tensor,  # [T, 1, H, W] px of the left view
    conditioning: Conditioning,
    film: str = "",
) -> StereoShot:  # float32
    """Make the view that an inpainter of this conditioning gets in a conversion, on the best device."""
    device = best_device()
    window = warped_window(left.to(device), disparity.to(device), conditioning)
    view, coverage = window.conditioning_frames, window.conditioning_coverage
    if view is None or coverage is None:
        view, coverage = window.frames, window.coverage
    return StereoShot(left, right, view.cpu(), coverage.cpu(), window.disparity.cpu(), film)


def quantize(
    shot: StereoShot,  # float32
) -> StereoShot:
    """Convert a shot to 8-bit frames and float16 disparity, a quarter of the memory."""
    left, right, warped, coverage = (quantize_plane(plane) for plane in shot.planes[:4])
    return StereoShot(left, right, warped, coverage, shot.disparity.to(torch.float16), shot.film)


def quantize_plane(
    plane: Tensor,  # [T, C, H, W] in [0, 1]
) -> Tensor:  # uint8 [T, C, H, W]
    """Round frames or coverage to 8 bits."""
    return (plane.clamp(0, 1) * 255).round().to(torch.uint8)


def usable_frames(
    shot: StereoShot,
    min_size: tuple[int, int, int],  # frames, height and width of a sample
) -> int:
    """Return the number of frames of a shot, 0 if it is too short or too small for a sample."""
    frames, _, height, width = shot.coverage.shape
    fits = frames >= min_size[0] and height >= min_size[1] and width >= min_size[2]
    return frames if fits else 0
