"""Stereo matching: both eyes in, disparity of the left eye out."""

from collections.abc import Callable

from torch import Tensor

# left, right [T, 3, H, W] -> disparity [T, 1, H, W] px of the left eye, NaN where the matcher has no answer
Matcher = Callable[[Tensor, Tensor], Tensor]


def make_matcher(
    name: str,  # block, flow
    max_disparity_px: int,  # block searches disparities in [0, this], flow in [-this, this]
) -> Matcher:
    """The matcher of this name; raises ValueError for an unknown one."""
    match name:
        case "block":
            from secondeye.matching.block_matcher import make_block_matcher

            return make_block_matcher(max_disparity_px)
        case "flow":
            from secondeye.matching.flow_matcher import make_flow_matcher

            return make_flow_matcher(max_disparity_px)
    raise ValueError(f"matcher must be block or flow, got {name!r}")
