"""The types that every inpainter shares."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor


class Warped(NamedTuple):
    """Consecutive frames of one shot, warped to the right view, with holes."""

    left: Tensor
    """[T, 3, H, W] in [0, 1]: the left view."""
    frames: Tensor
    """[T, 3, H, W] in [0, 1]: the right view; black where coverage is 0."""
    coverage: Tensor
    """[T, 1, H, W] in [0, 1]: the share of each pixel that the left view covers."""
    disparity: Tensor
    """[T, 1, H, W] px, of the right view; ignored where coverage is 0."""


Inpainter = Callable[[Warped, Any], tuple[Tensor, Any]]
"""(frames, state) -> (inpainted frames [T, 3, H, W] in [0, 1], next state).

Called with consecutive windows of one shot. The state is None for the first window of a shot and is private
to the inpainter. Pixels with coverage 1 are returned unchanged.
"""
