"""The type that every stereo matcher has."""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# left, right [T, 3, H, W] -> disparity [T, 1, H, W] px of the left view, NaN where unmatched
Matcher = Callable[["Tensor", "Tensor"], "Tensor"]
