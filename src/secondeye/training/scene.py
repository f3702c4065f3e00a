"""What inpainters learn from: the second eye's view with holes, and the truth behind the holes."""

from typing import NamedTuple

import torch
from torch import Tensor

STORED_BYTES = 12  # of a pixel in all planes of a stored scene


class Scene(NamedTuple):
    """Consecutive frames of one shot with their truth: float32, or stored to take little memory."""

    left: Tensor
    """[T, 3, H, W] in [0, 1] what the first eye saw; stored: uint8, of 255."""
    right: Tensor
    """[T, 3, H, W] in [0, 1] what the second eye saw, the truth; stored: uint8, of 255."""
    warped: Tensor
    """[T, 3, H, W] in [0, 1] the first eye's picture in the second's place; stored: uint8, of 255."""
    coverage: Tensor
    """[T, 1, H, W] in [0, 1] how much of each pixel the first eye saw; stored: uint8, of 255."""
    disparity: Tensor
    """[T, 1, H, W] px, of the second eye's view, 0 where coverage is 0; stored: float16."""
    film: str = ""
    """Whose shot it is; films are held out whole. A shot of the synthetic world is a film of its own."""

    @property
    def planes(self) -> tuple[Tensor, ...]:
        """The five above, in their order."""
        return self.left, self.right, self.warped, self.coverage, self.disparity


Kinds = tuple[list[Scene], list[Scene]]  # with two eyes, with one


def store(
    scene: Scene,  # float32
) -> Scene:
    """The same scene in a quarter of the memory."""
    left, right, warped, coverage = (store_picture(plane) for plane in scene.planes[:4])
    return Scene(left, right, warped, coverage, scene.disparity.to(torch.float16), scene.film)


def store_picture(
    plane: Tensor,  # [T, C, H, W] in [0, 1]
) -> Tensor:  # uint8, of 255
    """Pictures or coverage in 8 bits."""
    return (plane.clamp(0, 1) * 255).round().to(torch.uint8)


def usable_frames(
    scene: Scene,
    least: tuple[int, int, int],  # frames, height and width of a sample
) -> int:
    """The scene's frames, 0 where it is too short or too small."""
    frames, _, height, width = scene.coverage.shape
    return frames if (frames >= least[0] and height >= least[1] and width >= least[2]) else 0
